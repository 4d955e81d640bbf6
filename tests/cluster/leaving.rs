//! A client that leaves in the middle of a write. The write is there wholly or not at all; one whose body was sent to its
//! end is there eventually, for the work does not die with the connection; and the node goes on as if nothing had been.

use std::time::{Duration, Instant};

use crate::support::raw::Connection;
use crate::support::{At, Cluster, Request, Spec, wait};

/// Where a write for shard 0 can arrive: at its owner, at its replica, at a stranger.
fn entries(cluster: &Cluster) -> [At; 3] {
    [cluster.leader(0), cluster.replica(0), cluster.leader(1)]
}

#[test]
fn write_that_was_sent_to_its_end_is_applied_though_its_client_left() {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    let mut sent = Vec::new();
    for round in 0..wait::rounds(10) {
        for at in entries(&cluster) {
            let key = cluster.key(0, &format!("left-{round}-{}-{}", at.shard, at.copy));
            let size = [2, 5_000, 200_000][round % 3];
            let value = [format!("{key}\0").as_bytes(), &vec![0xff; size]].concat();
            let request = Request::new("PUT", format!("/v1/kv/{key}")).body(&value);
            let mut connection = Connection::open(cluster.address(at)).unwrap();
            connection.write(request.to_bytes(cluster.address(at))).unwrap();
            connection.leave();
            sent.push((key, value));
        }
    }
    for (key, value) in sent {
        wait::until(&format!("{key} is applied"), || match cluster.local(cluster.leader(0), key.as_bytes()) {
            Some(seen) if seen == value => Ok(()),
            Some(seen) => panic!("a part of a value: {} of {} bytes of {key}", seen.len(), value.len()),
            None => Err("not there"),
        });
    }
    healthy(&cluster);
}

#[test]
fn write_whose_client_left_before_its_owner_could_be_asked_is_applied() {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    let applied = |round: usize| {
        // So large that it has a connection of its own, which is opened only now: to a node that is stopped.
        let key = cluster.key(0, &format!("left-early-{round}"));
        let request = Request::new("PUT", format!("/v1/kv/{key}")).body(vec![0xff; 200_000]);
        cluster.sigstop(cluster.leader(0));
        let mut connection = Connection::open(cluster.address(cluster.leader(1))).unwrap();
        connection.write(request.to_bytes(cluster.address(cluster.leader(1)))).unwrap();
        std::thread::sleep(Duration::from_millis(150)); // until the node has read it all
        connection.reset();
        std::thread::sleep(Duration::from_millis(150)); // until it has noticed
        cluster.sigcont(cluster.leader(0));
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if cluster.local(cluster.leader(0), key.as_bytes()).is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    };
    // One of a few: on a busy machine the pause may last longer than a node waits for another, and then it may give up.
    assert!((0..4).any(applied), "no write outlived its client");
    healthy(&cluster);
}

#[test]
fn write_that_was_sent_in_part_is_never_applied() {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    let key = cluster.key(0, "left-half");
    cluster.put_key(cluster.leader(0), key.as_bytes(), b"whole").expect(201);
    for round in 0..wait::rounds(10) {
        for at in entries(&cluster) {
            let request = Request::new("PUT", format!("/v1/kv/{key}")).body(vec![0xff; 100_000]);
            let bytes = request.to_bytes(cluster.address(at));
            let cut = bytes.len() - 1 - round * 7_000 % 90_000;
            let mut connection = Connection::open(cluster.address(at)).unwrap();
            connection.write(&bytes[..cut]).unwrap();
            connection.leave();
            assert_eq!(cluster.get_key(at, key.as_bytes(), "").expect(200).text(), "whole");
        }
    }
    healthy(&cluster);
    assert_eq!(cluster.local(cluster.leader(0), key.as_bytes()), Some(b"whole".to_vec()));
}

#[test]
fn crowd_that_leaves_at_once_does_not_wedge_the_node() {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    for round in 0..wait::rounds(10) {
        for at in entries(&cluster) {
            let mut crowd: Vec<Connection> = (0..30).map(|_| Connection::open(cluster.address(at)).unwrap()).collect();
            for (number, connection) in crowd.iter_mut().enumerate() {
                let key = cluster.key(0, &format!("crowd-{round}-{number}"));
                let requests = [
                    Request::new("PUT", format!("/v1/kv/{key}")).body(vec![1; 50_000]),
                    Request::get(format!("/get?key={key}")),
                    Request::get(format!("/delete?key={key}")),
                ];
                // A server that closes first is no failure of this test.
                drop(connection.write(requests[number % 3].to_bytes(cluster.address(at))));
            }
            crowd.into_iter().for_each(Connection::leave);
        }
    }
    healthy(&cluster);
}

/// Every node takes writes and reads, and the replica follows.
fn healthy(cluster: &Cluster) {
    for at in cluster.all() {
        for shard in 0..cluster.shards() {
            let key = cluster.key(shard, "healthy");
            let value = format!("through {at:?}");
            let answer = cluster.put_key(at, key.as_bytes(), value.as_bytes());
            assert!(matches!(answer.status, 201 | 204), "{answer:?}");
            assert_eq!(cluster.get_key(at, key.as_bytes(), "").expect(200).text(), value);
        }
        cluster.get(at, "/readyz").expect(200);
    }
    cluster.wait_converged();
}
