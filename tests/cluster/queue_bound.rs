//! The replication queue at its bound (REPLICATION.md, rule 12): a replica that stays away is given up on, not the disk.
//! The log and the status say so, also after a restart of the leader, and it comes back by itself through a snapshot.

use serde_json::Value;

use crate::support::{Cluster, Spec, wait};

const SMALL_QUEUE: &str = "[replication]\nlog_retain_bytes = 4096\nqueue_entries_max = 100\n";

fn copy(cluster: &Cluster) -> Value {
    cluster.status(cluster.leader(0))["copies"][0].clone()
}

fn wait_given_up(cluster: &Cluster) {
    wait::until("the replica is given up on, and the log is short", || {
        let copy = copy(cluster);
        let is_given_up = copy["replicas"][0]["state"] == "given-up";
        if is_given_up && copy["log_bytes"].as_u64().unwrap() < 100_000 { Ok(()) } else { Err(copy) }
    });
}

#[test]
fn replica_that_stays_away_is_given_up_on_and_comes_back_through_a_snapshot() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1).config(SMALL_QUEUE));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    cluster.put_key(leader, b"before", b"v").expect(201);
    cluster.wait_converged();
    assert!(cluster.stop(replica).success());

    // Within the bound everything is kept for it.
    for n in 0..80 {
        cluster.put_key(leader, format!("within-{n}").as_bytes(), &[1; 5_000]).expect(201);
    }
    assert!(copy(&cluster)["log_bytes"].as_u64().unwrap() > 80 * 5_000);
    for n in 0..300 {
        cluster.put_key(leader, format!("beyond-{n}").as_bytes(), &[2; 5_000]).expect(201);
    }
    wait_given_up(&cluster);
    let log = cluster.log(leader);
    assert_eq!(log.matches("gave up on a replica").count(), 1, "once, not with every write:\n{log}");
    let problems = cluster.status(leader)["problems"].to_string();
    assert!(problems.contains("given-up") && problems.contains("snapshot"), "what is wrong and what next: {problems}");

    // What was given up stays so across a restart of the leader: nothing is kept for it anew.
    cluster.kill9(leader);
    cluster.restart(leader);
    for n in 0..50 {
        cluster.put_key(leader, format!("later-{n}").as_bytes(), &[3; 5_000]).expect(201);
    }
    wait_given_up(&cluster);

    cluster.restart(replica);
    cluster.wait_converged();
    assert_eq!(cluster.local(replica, b"before"), Some(b"v".to_vec()));
    for n in 0..300 {
        assert_eq!(cluster.local(replica, format!("beyond-{n}").as_bytes()), Some(vec![2; 5_000]), "beyond-{n}");
    }
    cluster.put_key(leader, b"after", b"v").expect(201);
    cluster.wait_converged();
    wait::until("the leader counts on it again", || {
        let state = copy(&cluster)["replicas"][0]["state"].clone();
        if state == "streaming" { Ok(()) } else { Err(state) }
    });
    assert_eq!(cluster.local(replica, b"after"), Some(b"v".to_vec()));
}

#[test]
fn replica_within_reach_of_a_retained_log_is_not_given_up_on_for_its_length() {
    // The default log_retain keeps all of this: what is retained is no part of the queue.
    let cluster = Cluster::start(Spec::shards(1).replicas(1).config("[replication]\nqueue_entries_max = 100\n"));
    for n in 0..300 {
        cluster.put_key(cluster.leader(0), format!("k{n}").as_bytes(), b"v").expect(201);
        if n % 50 == 0 {
            cluster.wait_converged();
        }
    }
    cluster.wait_converged();
    assert!(!cluster.log(cluster.leader(0)).contains("gave up"), "{}", cluster.log(cluster.leader(0)));
}
