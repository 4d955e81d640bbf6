//! Reads that say how old they may be (REPLICATION.md, rule 24), while leaders are frozen or dead: a copy serves them as long
//! as it can show that it is fresh enough, and no longer.

use std::time::Duration;

use crate::support::problem::problem;
use crate::support::{At, Cluster, Response, Spec, wait};

/// Two shards; a key of the first, which its replicas have.
fn filled(replicas: usize) -> (Cluster, String) {
    let cluster = Cluster::start(Spec::shards(2).replicas(replicas));
    let key = cluster.key(0, "stale");
    cluster.put_key(cluster.leader(0), key.as_bytes(), b"v").expect(201);
    cluster.wait_converged();
    for at in cluster.all().filter(|at| at.shard == 0) {
        wait::until("its age is known", || {
            let answer = cluster.get_key(at, key.as_bytes(), "route=local");
            if answer.header("kv-stale-ms").is_some() { Ok(()) } else { Err(answer) }
        });
    }
    (cluster, key)
}

fn bounded(cluster: &Cluster, at: At, key: &str, max: &str) -> Response {
    cluster.get_key(at, key.as_bytes(), &format!("consistency=bounded&max_stale={max}"))
}

/// The refusal, with the best bound that is known.
fn too_stale(answer: &Response) -> Option<u64> {
    let body = problem(answer, 503, "too-stale", "no");
    let hint = body["hint"].as_str().unwrap();
    assert!(hint.contains("max_stale") && hint.contains("consistency=any"), "{body}");
    body["stale_ms"].as_u64()
}

#[test]
fn bounded_with_a_frozen_leader_is_served_within_the_bound_and_refused_beyond_it() {
    let (cluster, key) = filled(1);
    let others: Vec<At> = cluster.all().filter(|at| *at != cluster.leader(0)).collect();
    cluster.sigstop(cluster.leader(0));
    for at in &others {
        let answer = bounded(&cluster, *at, &key, "600s").expect(200);
        assert_eq!((answer.must("kv-consistency"), answer.must("kv-role")), ("bounded", "replica"), "through {at:?}");
        assert!(answer.must("kv-stale-ms").parse::<u64>().unwrap() < 600_000);
    }
    std::thread::sleep(Duration::from_millis(1_500));
    for at in &others {
        let best = too_stale(&bounded(&cluster, *at, &key, "1s"));
        assert!(best.is_some_and(|ms| ms >= 1_000), "through {at:?}: {best:?}");
        let answer = cluster.get_key(*at, key.as_bytes(), "consistency=any").expect(200);
        assert_eq!((answer.text().as_str(), answer.must("kv-consistency")), ("v", "any"));
    }
    cluster.sigcont(cluster.leader(0));
    for at in cluster.all() {
        wait::until("the leader serves again", || {
            let answer = bounded(&cluster, at, &key, "0");
            if answer.status == 200 { Ok(()) } else { Err(answer) }
        });
    }
}

/// Of two replicas, the one that was restarted cannot say how old it is; the other can, and serves for it.
#[test]
fn bounded_at_a_replica_that_restarted_without_its_leader_is_served_by_one_that_knows_its_age() {
    let (cluster, key) = filled(2);
    let [b, c] = [1, 2].map(|copy| At { shard: 0, copy });
    cluster.kill9(cluster.leader(0));
    cluster.kill9(b);
    cluster.restart(b);
    let local = "consistency=bounded&max_stale=600s&route=local";
    assert_eq!(too_stale(&cluster.get_key(b, key.as_bytes(), local)), None, "its age is not known");
    for at in [b, cluster.leader(1)] {
        let answer = bounded(&cluster, at, &key, "600s").expect(200);
        assert_eq!(
            (answer.must("kv-consistency"), answer.must("kv-node")),
            ("bounded", &*cluster.address(c).to_string())
        );
    }
    cluster.kill9(c);
    for at in [b, cluster.leader(1)] {
        assert_eq!(too_stale(&bounded(&cluster, at, &key, "600s")), None, "through {at:?}");
    }
    assert_eq!(cluster.get_key(b, key.as_bytes(), "consistency=any").expect(200).header("kv-stale-ms"), None);
    // With the leader back, it serves what no copy can.
    cluster.restart(cluster.leader(0));
    for at in cluster.all().filter(|at| *at != c) {
        assert_eq!(bounded(&cluster, at, &key, "0").expect(200).must("kv-consistency"), "leader");
    }
}
