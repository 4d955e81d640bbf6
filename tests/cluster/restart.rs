//! A restart of everything keeps everything, whether the processes were asked to stop or killed.

use crate::support::{Cluster, Request, Spec};

/// Values that a restart could lose something of: empty, binary, large, with a type.
fn values() -> Vec<Vec<u8>> {
    vec![b"".to_vec(), b"\x00\xff".to_vec(), vec![0xee; 300_000], "text".into()]
}

#[test]
fn restart_of_everything_keeps_everything() {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    let mut etags = Vec::new();
    for shard in 0..2 {
        for (number, value) in values().iter().enumerate() {
            let key = cluster.key(shard, &format!("restart-{number}"));
            let request =
                Request::new("PUT", format!("/v1/kv/{key}")).header("Content-Type", "text/x-kept").body(value);
            let etag = cluster.send(cluster.leader(1 - shard), &request).expect(201).must("etag").to_owned();
            etags.push((key, value.clone(), etag));
        }
        let deleted = cluster.key(shard, "restart-deleted");
        cluster.put_key(cluster.leader(0), deleted.as_bytes(), b"v").expect(201);
        cluster.delete_key(cluster.leader(0), deleted.as_bytes()).expect(204);
    }
    cluster.wait_converged();
    let uid = cluster.get(cluster.leader(0), "/v1/cluster").json()["cluster"].clone();

    for politely in [true, false, true] {
        for at in cluster.all() {
            if politely {
                let status = cluster.stop(at);
                assert!(status.success(), "{at:?} stopped with {status}");
            } else {
                cluster.kill9(at);
            }
        }
        cluster.start_all();
        for (key, value, etag) in &etags {
            for at in cluster.all() {
                let answer = cluster.get(at, format!("/v1/kv/{key}")).expect(200);
                assert!(answer.body == *value, "{key} through {at:?}");
                assert_eq!((answer.must("etag"), answer.must("content-type")), (etag.as_str(), "text/x-kept"));
            }
        }
        for shard in 0..2 {
            cluster.get_key(cluster.leader(0), cluster.key(shard, "restart-deleted").as_bytes(), "").expect(404);
        }
        assert_eq!(cluster.get(cluster.leader(0), "/v1/cluster").json()["cluster"], uid);
    }
    // New writes go on after the old ones.
    let key = cluster.key(0, "restart-0");
    let etag = cluster.put_key(cluster.leader(1), key.as_bytes(), b"new").expect(204).must("etag").to_owned();
    assert!(etags.iter().all(|(_, _, old)| *old != etag), "no version is used twice");
    cluster.wait_converged();
    assert_eq!(cluster.local(cluster.replica(0), key.as_bytes()), Some(b"new".to_vec()));
}

#[test]
fn sigterm_finishes_what_was_acknowledged_and_closes_the_port() {
    let cluster = Cluster::start(Spec::shards(1));
    let at = cluster.leader(0);
    let idle = crate::support::raw::Connection::open(cluster.address(at)).unwrap();
    for n in 0..20 {
        cluster.put_key(at, format!("k{n}").as_bytes(), b"v").expect(201);
    }
    // An idle connection does not keep a node from stopping.
    assert!(cluster.stop(at).success());
    drop(idle);
    assert!(std::net::TcpStream::connect(cluster.address(at)).is_err(), "nobody listens any more");
    cluster.restart(at);
    for n in 0..20 {
        assert_eq!(cluster.local(at, format!("k{n}").as_bytes()), Some(b"v".to_vec()));
    }
}
