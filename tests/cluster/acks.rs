//! A write that asks for more than its leader's disk (API.md, section 3: `ack`, `ack_timeout`): a 2xx is on the disks that
//! were asked for, and outlives the leader there; what is not there in time is told as done, and where it is.

use std::time::{Duration, Instant};

use crate::led::{switch_over, take_over, wait_leads};
use crate::support::cluster::kv_target;
use crate::support::problem::{problem, refused};
use crate::support::raw::Response;
use crate::support::{At, Cluster, Request, Spec, wait};

const A: At = At { shard: 0, copy: 0 };
const B: At = At { shard: 0, copy: 1 };
const C: At = At { shard: 0, copy: 2 };
const STRANGER: At = At { shard: 1, copy: 0 };

fn put(cluster: &Cluster, through: At, key: &str, value: &str, controls: &str) -> Response {
    let target = format!("{}&{controls}", kv_target(key.as_bytes()));
    cluster.send(through, &Request::new("PUT", target).body(value))
}

/// Stops a replica, and lets all be heard that it sent before: a signal takes a moment.
fn freeze(cluster: &Cluster, at: At) {
    cluster.sigstop(at);
    std::thread::sleep(Duration::from_millis(300));
}

/// Two shards; a replica of each.
fn pairs() -> Cluster {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    cluster.put_key(A, cluster.key(0, "first").as_bytes(), b"v").expect(201);
    cluster.wait_converged();
    cluster
}

/// Two shards; two replicas of each.
fn triples() -> Cluster {
    let cluster = Cluster::start(Spec::shards(2).replicas(2));
    cluster.put_key(A, cluster.key(0, "first").as_bytes(), b"v").expect(201);
    cluster.wait_converged();
    cluster
}

#[test]
fn write_with_ack_all_outlives_a_leader_that_is_killed_right_after() {
    let cluster = pairs();
    let keys: Vec<String> = (0..12).map(|n| cluster.key(0, &format!("acked-{n}"))).collect();
    std::thread::scope(|scope| {
        for (n, key) in keys.iter().enumerate() {
            let (cluster, through) = (&cluster, [A, STRANGER, B][n % 3]);
            scope.spawn(move || {
                let answer = put(cluster, through, key, "acknowledged", "ack=all&ack_timeout=30s").expect(201);
                assert_eq!(answer.must("kv-acks"), "2/2");
            });
        }
    });
    let one = put(&cluster, STRANGER, &keys[0], "the last", "ack=replicas:1&ack_timeout=30s").expect(204);
    assert_eq!(one.must("kv-acks"), "2/2");
    cluster.kill9(A);
    assert_eq!(cluster.local(B, keys[0].as_bytes()).as_deref(), Some(&b"the last"[..]), "durable there, and visible");
    let said = take_over(&cluster, STRANGER, B, &[]);
    assert_eq!(said.code, 0, "{said:?}");
    for key in &keys[1..] {
        assert_eq!(cluster.get_key(B, key.as_bytes(), "").expect(200).text(), "acknowledged");
    }
    assert_eq!(cluster.get_key(B, keys[0].as_bytes(), "").expect(200).text(), "the last");
}

#[test]
fn write_that_is_not_acknowledged_in_time_is_done_and_says_so_with_its_version() {
    let cluster = pairs();
    freeze(&cluster, B);
    for (through, name) in [(A, "here"), (STRANGER, "forwarded")] {
        let key = cluster.key(0, name);
        let began = Instant::now();
        let answer = put(&cluster, through, &key, "v", "ack=all&ack_timeout=300ms");
        assert!(began.elapsed() >= Duration::from_millis(300), "it did not wait");
        let body = problem(&answer, 504, "ack-timeout", "yes");
        assert_eq!((answer.must("kv-acks"), &body["acks"]), ("1/2", &"1/2".into()), "{body:#}");
        assert!(body["detail"].as_str().unwrap().contains("1 of 2 copies: Hyderabad/1 had not"), "{body:#}");
        assert_eq!((&body["retryable"], &body["etag"]), (&false.into(), &answer.must("etag").into()), "{body:#}");
        let found = cluster.get_key(A, key.as_bytes(), "").expect(200);
        assert_eq!((found.text().as_str(), found.must("etag")), ("v", answer.must("etag")));
    }
    // The request's own time ends the wait, too.
    let key = cluster.key(0, "here");
    let answer = put(&cluster, A, &key, "w", "ack=replicas:1&ack_timeout=20s&timeout=1500ms");
    problem(&answer, 504, "ack-timeout", "yes");
    assert_eq!(cluster.get_key(A, key.as_bytes(), "").expect(200).text(), "w");
    let gone = cluster.key(0, "here");
    let delete = Request::new("DELETE", format!("{}&ack=all&ack_timeout=50ms", kv_target(gone.as_bytes())));
    problem(&cluster.send(STRANGER, &delete), 504, "ack-timeout", "yes");
    cluster.get_key(A, gone.as_bytes(), "").expect(404);
    // A delete of nothing says as much about the copies: the one that really deleted it may not be there yet.
    let answer = cluster.send(A, &delete);
    problem(&answer, 504, "ack-timeout", "yes");
    assert_eq!(answer.header("etag"), None);
    let said = cluster.kv(A, &["set", &gone, "v", "--ack", "all", "--ack-timeout", "50ms"], "");
    assert!(said.code == 1 && said.err.contains("ack-timeout"), "{said:?}");

    // Whoever asks for no more than the leader waits for nobody.
    assert_eq!(put(&cluster, A, &gone, "v", "ack=leader").expect(204).must("kv-acks"), "1/2");
    cluster.sigcont(B);
    let answer = put(&cluster, STRANGER, &gone, "thawed", "ack=all&ack_timeout=30s").expect(204);
    assert_eq!(answer.must("kv-acks"), "2/2");
    assert_eq!(cluster.local(B, gone.as_bytes()).as_deref(), Some(&b"thawed"[..]));
    let said = cluster.kv(STRANGER, &["delete", &gone, "--ack", "replicas:1"], "");
    assert!(said.code == 0 && said.out.contains("on disk at all 2 copies"), "{said:?}");
}

#[test]
fn replicas_that_the_shard_does_not_have_are_refused_before_anything_is_written() {
    let cluster = triples();
    let key = cluster.key(0, "impossible");
    for at in cluster.all() {
        for controls in ["ack=replicas:3", "ack=replicas:9999999999"] {
            let body = refused(&put(&cluster, at, &key, "evil", controls), 400, "bad-request");
            assert_eq!(body["replicas"], 2, "{body:#}");
        }
    }
    cluster.get_key(A, key.as_bytes(), "").expect(404);
    // One of two is less than all, and does not wait for the other.
    freeze(&cluster, C);
    let answer = put(&cluster, STRANGER, &key, "v", "ack=replicas:1&ack_timeout=30s").expect(201);
    assert_eq!(answer.must("kv-acks"), "2/3");
    assert_eq!(cluster.local(B, key.as_bytes()).as_deref(), Some(&b"v"[..]));
}

/// Everything that a shard without replicas has is its leader: `all` is that, and the answer says how many copies it was.
#[test]
fn ack_all_of_an_unreplicated_shard_is_its_leader_and_another_disk_cannot_be_had() {
    let cluster = Cluster::start(Spec::shards(1));
    assert_eq!(put(&cluster, A, "k", "v", "ack=all").expect(201).must("kv-acks"), "1/1");
    refused(&put(&cluster, A, "k", "w", "ack=replicas:1"), 400, "bad-request");
    assert_eq!(cluster.get_key(A, b"k", "").expect(200).text(), "v");
}

/// The replica that has acknowledged the write leads by now: it is there, and who else has it, the new leader learns.
#[test]
fn write_that_waits_through_a_switchover_is_known_to_be_at_the_new_leader() {
    let cluster = triples();
    let key = cluster.key(0, "waits");
    freeze(&cluster, C);
    let answers = std::thread::scope(|scope| {
        let waiting = [A, STRANGER].map(|through| {
            let (cluster, key) = (&cluster, &key);
            scope.spawn(move || put(cluster, through, key, &format!("through {through:?}"), "ack=all&ack_timeout=25s"))
        });
        wait::until("B has both", || {
            let found = cluster.status(B)["copies"][0]["end"].as_u64().unwrap();
            if found == 3 { Ok(()) } else { Err(found) }
        });
        switch_over(&cluster, STRANGER, B, &[]).unwrap_or_else(|said| panic!("{said:?}"));
        waiting.map(|thread| thread.join().unwrap())
    });
    wait_leads_without_c(&cluster);
    for answer in answers {
        problem(&answer, 504, "ack-timeout", "yes");
        assert_eq!(answer.must("kv-acks"), "2/3");
    }
    cluster.sigcont(C);
    wait_leads(&cluster, B);
    let answer = put(&cluster, A, &key, "after", "ack=all&ack_timeout=30s").expect(204);
    assert_eq!(answer.must("kv-acks"), "3/3");
}

fn wait_leads_without_c(cluster: &Cluster) {
    wait::until("B leads", || {
        let copy = cluster.status(B)["copies"][0].clone();
        if copy["state"] == "leading" { Ok(()) } else { Err(copy) }
    });
}

/// Writes that wait for everybody, while the shard changes hands again and again: none is lost, and none is refused.
#[test]
fn writes_with_ack_all_go_on_through_switchovers() {
    let cluster = pairs();
    for (round, to) in [B, A, B, A].into_iter().enumerate() {
        let is_over = std::sync::atomic::AtomicBool::new(false);
        let written: Vec<String> = std::thread::scope(|scope| {
            let writers = [A, B, STRANGER, STRANGER].into_iter().enumerate().map(|(number, through)| {
                let (cluster, is_over) = (&cluster, &is_over);
                scope.spawn(move || {
                    let mut written = Vec::new();
                    loop {
                        let key = cluster.key(0, &format!("all-{round}-{number}-{}", written.len()));
                        let answer = put(cluster, through, &key, "v", "ack=all&ack_timeout=25s");
                        assert_eq!((answer.status, answer.header("kv-acks")), (201, Some("2/2")), "{answer:?}");
                        written.push(key);
                        if is_over.load(std::sync::atomic::Ordering::Acquire) {
                            return written;
                        }
                    }
                })
            });
            let writers: Vec<_> = writers.collect();
            let moved = switch_over(&cluster, STRANGER, to, &[]);
            is_over.store(true, std::sync::atomic::Ordering::Release);
            let written = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
            moved.unwrap_or_else(|said| panic!("{said:?}"));
            written
        });
        wait_leads(&cluster, to);
        for key in written {
            for at in [A, B] {
                assert!(cluster.local(at, key.as_bytes()).is_some(), "{key} is not at {at:?}");
            }
        }
    }
}
