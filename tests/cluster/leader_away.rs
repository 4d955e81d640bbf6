//! A leader is dead: its shard fails quickly and honestly everywhere, its replica serves reads that ask for `any`, the
//! other shards notice nothing, and all is well when it is back.

use std::time::{Duration, Instant};

use crate::support::problem::{problem, well_formed};
use crate::support::{Cluster, Spec, wait};

/// Quick, for something that must not hang: promised is an instant refusal; a hang would be the request's 30 s.
const QUICK: Duration = Duration::from_secs(5);

#[test]
fn owner_killed_gives_502_at_once_and_any_is_served_by_the_replica() {
    let cluster = Cluster::start(Spec::shards(3).replicas(1));
    let key = cluster.key(0, "away");
    cluster.put_key(cluster.leader(1), key.as_bytes(), b"before").expect(201);
    cluster.wait_converged();
    cluster.kill9(cluster.leader(0));
    let alive: Vec<_> = cluster.all().filter(|at| *at != cluster.leader(0)).collect();

    for at in alive.iter().copied() {
        let mut fastest = Duration::MAX;
        for _ in 0..3 {
            let started = Instant::now();
            let answer = cluster.get_key(at, key.as_bytes(), "");
            fastest = fastest.min(started.elapsed());
            let body = problem(&answer, 502, "shard-unreachable", "no");
            assert!(body["hint"].as_str().unwrap().contains("consistency=any"), "{body}");
        }
        assert!(fastest < QUICK, "a dead owner was noticed through {at:?} only after {fastest:?}");
        wait::until("writes are known not to have been applied", || {
            let answer = cluster.put_key(at, key.as_bytes(), b"while dead");
            let body = well_formed(&answer);
            assert_eq!(answer.status, 502, "{answer:?}");
            if body["applied"] == "no" { Ok(()) } else { Err(body) }
        });
        for shard in 1..3 {
            let other = cluster.key(shard, "away-other");
            cluster.put_key(at, other.as_bytes(), b"v");
            assert_eq!(cluster.get_key(at, other.as_bytes(), "").expect(200).text(), "v");
        }
        let answer = cluster.get_key(at, key.as_bytes(), "consistency=any").expect(200);
        assert_eq!(answer.text(), "before");
        assert_eq!(answer.must("kv-role"), "replica", "{answer:?}");
        assert_eq!(answer.must("kv-node"), cluster.address(cluster.replica(0)).to_string());
    }

    cluster.restart(cluster.leader(0));
    for at in alive {
        wait::until("the shard is whole again", || {
            let answer = cluster.put_key(at, key.as_bytes(), b"after");
            if answer.status == 204 { Ok(()) } else { Err(answer) }
        });
    }
    cluster.wait_converged();
    assert_eq!(cluster.local(cluster.replica(0), key.as_bytes()), Some(b"after".to_vec()));
}

#[test]
fn replica_that_restarts_while_its_leader_is_dead_serves_any_without_an_age() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1));
    cluster.put_key(cluster.leader(0), b"k", b"v").expect(201);
    cluster.wait_converged();
    cluster.kill9(cluster.leader(0));
    let answer = cluster.get_key(cluster.replica(0), b"k", "consistency=any").expect(200);
    let age: u64 = answer.must("kv-stale-ms").parse().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let answer = cluster.get_key(cluster.replica(0), b"k", "consistency=any").expect(200);
    assert!(answer.must("kv-stale-ms").parse::<u64>().unwrap() >= age + 50, "the age grows: {answer:?}");

    cluster.kill9(cluster.replica(0));
    cluster.restart(cluster.replica(0));
    let answer = cluster.get_key(cluster.replica(0), b"k", "consistency=any").expect(200);
    assert_eq!(answer.text(), "v");
    assert_eq!(answer.header("kv-stale-ms"), None, "nobody knows how old it is: {answer:?}");
}

#[test]
fn whole_shard_dead_is_an_error_for_any_too_and_leaves_the_others_alone() {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    let key = cluster.key(0, "whole-shard");
    cluster.put_key(cluster.leader(0), key.as_bytes(), b"v").expect(201);
    cluster.kill9(cluster.leader(0));
    cluster.kill9(cluster.replica(0));
    for at in [cluster.leader(1), cluster.replica(1)] {
        let answer = cluster.get_key(at, key.as_bytes(), "consistency=any");
        well_formed(&answer);
        assert!(matches!(answer.status, 502..=504), "{answer:?}");
        let other = cluster.key(1, "whole-shard");
        cluster.put_key(at, other.as_bytes(), b"v");
        cluster.get_key(at, other.as_bytes(), "").expect(200);
        cluster.get(at, "/readyz").expect(200);
    }
}

#[test]
fn replica_dead_does_not_matter_to_writes_and_it_catches_up() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    cluster.put_key(leader, b"gone", b"v").expect(201);
    cluster.wait_converged();
    cluster.kill9(replica);
    for n in 0..50 {
        let answer = cluster.put_key(leader, format!("k{n}").as_bytes(), b"\x00\xff").expect(201);
        assert_eq!(answer.must("kv-acks"), "1/2");
    }
    cluster.delete_key(leader, b"gone").expect(204);
    cluster.get(leader, "/readyz").expect(200);
    cluster.restart(replica);
    cluster.wait_converged();
    for n in 0..50 {
        assert_eq!(cluster.local(replica, format!("k{n}").as_bytes()), Some(b"\x00\xff".to_vec()));
    }
    assert_eq!(cluster.local(replica, b"gone"), None, "deletes arrive too");
}
