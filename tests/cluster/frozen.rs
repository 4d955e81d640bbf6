//! A node under SIGSTOP: the worst kind of down, for its kernel still takes connections. Requests that need it fail in
//! about two seconds, never hang and are never answered 200; the other shards notice nothing; SIGCONT heals.

use std::time::{Duration, Instant};

use crate::outcome::{Outcome, outcome_of};
use crate::support::cluster::kv_target;
use crate::support::problem::well_formed;
use crate::support::raw::{self, Exchange};
use crate::support::{At, Cluster, Request, Spec, wait};

/// About two seconds are promised for a connection and as much again for an answer; a hang would be the request's 30 s.
/// The fastest of a few must be below this; a busy machine may delay one.
const ABOUT_TWO_SECONDS: Duration = Duration::from_secs(5);
/// No single request may take longer.
const NEVER_LONGER: Duration = Duration::from_secs(20);

/// Sends a request that the stopped node would have to answer; gives what may have become of it and how long it took.
fn must_fail(cluster: &Cluster, at: At, request: &Request) -> (Outcome, Duration) {
    let started = Instant::now();
    let answer = cluster.send(at, request);
    let took = started.elapsed();
    assert!(matches!(answer.status, 502..=504), "{request} through {at:?}: {answer:?}");
    well_formed(&answer);
    assert!(took < NEVER_LONGER, "{request} through {at:?} took {took:?}");
    (outcome_of(Exchange::Answered(answer)), took)
}

#[test]
fn owner_under_sigstop_fails_its_shard_quickly_and_no_other() {
    let cluster = Cluster::start(Spec::shards(4).replicas(1));
    let key = cluster.key(0, "frozen");
    cluster.put_key(cluster.leader(0), key.as_bytes(), b"before").expect(201);
    for at in cluster.all() {
        cluster.get_key(at, key.as_bytes(), "").expect(200); // every node has a live connection to the owner
    }
    cluster.wait_converged();
    cluster.sigstop(cluster.leader(0));

    let others: Vec<At> = cluster.all().filter(|at| *at != cluster.leader(0)).collect();
    // One key per written value: a write whose outcome is unknown may come true later.
    let fates = std::thread::scope(|scope| {
        let stuck: Vec<_> = others
            .iter()
            .map(|at| {
                let (cluster, key) = (&cluster, &key);
                scope.spawn(move || {
                    let mut fates = Vec::new();
                    let mut fastest = Duration::MAX;
                    for round in 0..2 {
                        let name = cluster.key(0, &format!("frozen-{}-{}-{round}", at.shard, at.copy)).into_bytes();
                        let put = Request::new("PUT", kv_target(&name)).body(b"while frozen");
                        let (outcome, took) = must_fail(cluster, *at, &put);
                        fates.push((name, outcome));
                        let (_, read_took) = must_fail(cluster, *at, &Request::get(format!("/get?key={key}")));
                        let head = Request::get(format!("/get?key={key}&timeout=300ms"));
                        must_fail(cluster, *at, &head);
                        fastest = fastest.min(took.max(read_took));
                    }
                    assert!(fastest < ABOUT_TWO_SECONDS, "through {at:?}: {fastest:?}");
                    fates
                })
            })
            .collect();
        // Meanwhile, through the same nodes.
        for round in 0..10 {
            for at in &others {
                for shard in 1..4 {
                    let other = cluster.key(shard, &format!("frozen-other-{round}"));
                    let answer = cluster.put_key(*at, other.as_bytes(), b"v");
                    assert!(matches!(answer.status, 201 | 204), "{answer:?}");
                    cluster.get_key(*at, other.as_bytes(), "").expect(200);
                }
            }
        }
        for at in &others {
            let answer = cluster.get_key(*at, key.as_bytes(), "consistency=any").expect(200);
            assert_eq!((answer.text().as_str(), answer.must("kv-role")), ("before", "replica"), "through {at:?}");
        }
        stuck.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });

    cluster.sigcont(cluster.leader(0));
    for at in cluster.all() {
        let name = cluster.key(0, &format!("thawed-{}-{}", at.shard, at.copy));
        wait::until("the shard is whole again", || {
            let answer = cluster.put_key(at, name.as_bytes(), b"after");
            if matches!(answer.status, 201 | 204) { Ok(()) } else { Err(answer) }
        });
        assert_eq!(cluster.get_key(at, key.as_bytes(), "").expect(200).text(), "before");
    }
    cluster.wait_converged();
    for (name, outcome) in fates {
        let seen = cluster.local(cluster.leader(0), &name);
        assert_eq!(seen, cluster.local(cluster.replica(0), &name));
        match outcome {
            Outcome::Acknowledged => panic!("a stopped node acknowledged"),
            Outcome::Refused => assert_eq!(seen, None, "said to be unapplied"),
            Outcome::Unknown => assert!(seen.is_none_or(|value| value == b"while frozen")),
        }
    }
}

#[test]
fn replica_under_sigstop_delays_no_write_and_catches_up() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    cluster.sigstop(replica);
    for n in 0..100 {
        let answer = cluster.put_key(leader, format!("k{n}").as_bytes(), b"\x00\xff").expect(201);
        assert!(matches!(answer.must("kv-acks"), "1/2" | "2/2"), "{answer:?}");
    }
    // The kernel takes the connection, nobody answers it.
    assert!(
        raw::Connection::open(cluster.address(replica)).is_ok_and(|mut connection| {
            connection.write("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            !connection.hears_within(Duration::from_millis(200))
        }),
        "the replica is not stopped"
    );
    cluster.sigcont(replica);
    cluster.wait_ready(replica);
    cluster.wait_converged();
    for n in 0..100 {
        assert_eq!(cluster.local(replica, format!("k{n}").as_bytes()), Some(b"\x00\xff".to_vec()));
    }
}

#[test]
fn frozen_and_thawed_again_and_again_loses_nothing() {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    let mut acknowledged = Vec::new();
    for round in 0..wait::rounds(4) {
        let victim = [cluster.leader(0), cluster.replica(0)][round % 2];
        cluster.sigstop(victim);
        let name = cluster.key(0, &format!("again-{round}")).into_bytes();
        let put = Request::new("PUT", kv_target(&name)).body(b"v");
        let fate = outcome_of(raw::exchange(cluster.address(cluster.leader(1)), &put));
        assert!(victim.copy == 1 || fate != Outcome::Acknowledged, "a stopped leader acknowledged");
        if fate == Outcome::Acknowledged {
            acknowledged.push(name);
        }
        cluster.sigcont(victim);
    }
    cluster.all().for_each(|at| cluster.wait_ready(at));
    cluster.wait_converged();
    for name in acknowledged {
        assert_eq!(cluster.local(cluster.leader(0), &name), Some(b"v".to_vec()));
        assert_eq!(cluster.local(cluster.replica(0), &name), Some(b"v".to_vec()));
    }
}
