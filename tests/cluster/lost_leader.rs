//! A leader that lost its file while its replica holds the data (REPLICATION.md, rule 13): it takes no writes and says
//! so, and the replica keeps what it has and serves it to reads that ask for `any`. Only an operator decides.

use crate::support::problem::refused;
use crate::support::{Cluster, Spec, wait};

/// The replica holds the data, serves it and will not give it up.
fn replica_keeps(cluster: &Cluster, keys: &[String]) {
    for key in keys {
        let answer = cluster.get_key(cluster.replica(0), key.as_bytes(), "consistency=any").expect(200);
        assert_eq!(answer.text(), format!("value of {key}"));
        assert_eq!(answer.must("kv-role"), "replica");
        assert_eq!(cluster.local(cluster.replica(0), key.as_bytes()), Some(format!("value of {key}").into_bytes()));
    }
}

/// The leader refuses writes through every node, reports why, and is not ready.
fn leader_refuses(cluster: &Cluster, key: &str) {
    let leader = cluster.leader(0);
    wait::until("the leader says what it lost", || {
        let status = cluster.status(leader);
        let said = status["problems"].as_array().is_some_and(|problems| !problems.is_empty());
        if said { Ok(()) } else { Err(status) }
    });
    for at in cluster.all() {
        let body = refused(&cluster.put_key(at, key.as_bytes(), b"new"), 503, "no-leader");
        assert!(body["hint"].as_str().is_some_and(|hint| !hint.is_empty()));
        refused(&cluster.delete_key(at, key.as_bytes()), 503, "no-leader");
    }
    let answer = cluster.get(leader, "/readyz");
    assert_eq!(answer.status, 503, "{answer:?}");
}

/// A cluster of two shards with some keys in shard 0, converged.
fn filled() -> (Cluster, Vec<String>) {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    let keys: Vec<String> = (0..30).map(|n| cluster.key(0, &format!("lost-{n}"))).collect();
    for key in &keys {
        cluster.put_key(cluster.leader(1), key.as_bytes(), format!("value of {key}").as_bytes()).expect(201);
    }
    cluster.wait_converged();
    // A young cluster spreads its uid first; what is lost here is lost by a grown one.
    wait::until("every node knows the cluster's uid", || {
        let uids: Vec<_> = cluster.all().map(|at| cluster.status(at)["cluster"].clone()).collect();
        if uids.iter().all(|uid| uid.is_string() && *uid == uids[0]) { Ok(()) } else { Err(uids) }
    });
    (cluster, keys)
}

#[test]
fn leader_without_its_file_takes_no_writes_while_its_replica_holds_data() {
    let (cluster, keys) = filled();
    let leader = cluster.leader(0);
    cluster.kill9(leader);
    cluster.wipe(leader);
    // Again and again: the new file must not come to count as the shard's.
    for _ in 0..2 {
        cluster.launch(leader);
        wait::until("the leader answers", || {
            assert!(cluster.is_running(leader), "it ended:\n{}", cluster.log(leader));
            crate::support::raw::send(cluster.address(leader), &crate::support::Request::get("/livez"))
        })
        .expect(200);
        leader_refuses(&cluster, &keys[0]);
        replica_keeps(&cluster, &keys);
        wait::until("the replica says what it found", || {
            let status = cluster.status(cluster.replica(0)).to_string();
            if status.contains("leader-lost-data") { Ok(()) } else { Err(status) }
        });
        let other = cluster.key(1, "lost-other");
        cluster.put_key(leader, other.as_bytes(), b"v"); // other shards, through the same node
        cluster.get_key(leader, other.as_bytes(), "").expect(200);
        cluster.kill9(leader);
    }
    // A replica that restarts beside such a leader keeps its data too.
    cluster.launch(leader);
    cluster.kill9(cluster.replica(0));
    cluster.launch(cluster.replica(0));
    wait::until("the replica answers", || {
        crate::support::raw::send(cluster.address(cluster.replica(0)), &crate::support::Request::get("/livez"))
    });
    leader_refuses(&cluster, &keys[0]);
    replica_keeps(&cluster, &keys);
}

#[test]
fn leader_that_began_anew_while_its_replica_was_away_stops_when_it_returns() {
    let (cluster, keys) = filled();
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    cluster.kill9(leader);
    cluster.kill9(replica);
    cluster.wipe(leader);
    cluster.restart(leader);
    let new = cluster.key(0, "lost-new");
    wait::until("the leader leads alone", || {
        let answer = cluster.put_key(leader, new.as_bytes(), b"new");
        if answer.status == 201 || answer.status == 204 { Ok(()) } else { Err(answer) }
    });
    cluster.launch(replica);
    wait::until("the leader stops taking writes", || {
        let answer = cluster.put_key(leader, new.as_bytes(), b"newer");
        if answer.status == 503 { Ok(()) } else { Err(answer) }
    });
    leader_refuses(&cluster, &keys[0]);
    replica_keeps(&cluster, &keys);
    assert_eq!(cluster.local(replica, new.as_bytes()), None, "nothing of the other history comes in");
}

/// The leader of shard 0 draws the cluster's uid. When it draws a new one because nobody answered it, it is a stranger to
/// its own cluster from then on, and a stranger stops nobody: so it would go on acknowledging writes that no other node
/// ever sees.
#[test]
fn leader_that_began_anew_while_everyone_was_away_splits_nothing_and_stops_when_they_return() {
    let (cluster, keys) = filled();
    let other = cluster.key(1, "lost-other");
    cluster.put_key(cluster.leader(1), other.as_bytes(), b"v").expect(201);
    cluster.wait_converged();
    // Until the nodes have written down which cluster they belong to.
    std::thread::sleep(std::time::Duration::from_secs(4));
    cluster.all().for_each(|at| cluster.kill9(at));
    cluster.wipe(cluster.leader(0));
    // All start together after the loss of a disk, the others late. Nobody tells it which cluster it belongs to.
    cluster.launch(cluster.leader(0));
    std::thread::sleep(std::time::Duration::from_secs(4));
    cluster.all().filter(|at| *at != cluster.leader(0)).for_each(|at| cluster.launch(at));
    cluster.wait_ready(cluster.leader(1));
    cluster.wait_ready(cluster.replica(1));

    let new = cluster.key(0, "lost-new");
    wait::until("the leader stops taking writes", || {
        let answer = cluster.put_key(cluster.leader(0), new.as_bytes(), b"new");
        if answer.status == 503 { Ok(()) } else { Err(answer) }
    });
    replica_keeps(&cluster, &keys);
    for at in [cluster.leader(1), cluster.replica(1)] {
        assert_eq!(cluster.get_key(at, other.as_bytes(), "").expect(200).text(), "v", "other shards do not notice");
        cluster.put_key(at, other.as_bytes(), b"v").expect(204);
    }
    cluster.put_key(cluster.leader(1), other.as_bytes(), b"w").expect(204);
    wait::until("the other shard's replica still follows", || {
        let seen = cluster.local(cluster.replica(1), other.as_bytes());
        if seen == Some(b"w".to_vec()) { Ok(()) } else { Err(seen) }
    });
}

#[test]
fn replicas_file_copied_to_the_leader_heals() {
    let (cluster, keys) = filled();
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    cluster.kill9(leader);
    cluster.wipe(leader);
    // The operator's way out that needs no command: REPLICATION.md, rule 13.
    assert!(cluster.stop(replica).success());
    std::fs::copy(cluster.db_file(replica), cluster.db_file(leader)).unwrap();
    cluster.restart(leader);
    cluster.restart(replica);
    for key in &keys {
        let answer = cluster.get_key(cluster.leader(1), key.as_bytes(), "").expect(200);
        assert_eq!(answer.text(), format!("value of {key}"));
    }
    cluster.put_key(cluster.leader(1), keys[0].as_bytes(), b"new").expect(204);
    cluster.wait_converged();
    assert_eq!(cluster.local(replica, keys[0].as_bytes()), Some(b"new".to_vec()));
}

#[test]
fn leader_with_an_old_backup_takes_no_writes_while_its_replica_holds_more() {
    let (cluster, keys) = filled();
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    assert!(cluster.stop(leader).success());
    let backup = cluster.directory().join("backup");
    std::fs::copy(cluster.db_file(leader), &backup).unwrap();
    cluster.restart(leader);
    let later: Vec<String> = (0..30).map(|n| cluster.key(0, &format!("later-{n}"))).collect();
    for key in &later {
        cluster.put_key(cluster.leader(1), key.as_bytes(), format!("value of {key}").as_bytes()).expect(201);
    }
    cluster.wait_converged();
    cluster.kill9(leader);
    cluster.wipe(leader); // beside its log, the backup would hold everything again
    std::fs::copy(&backup, cluster.db_file(leader)).unwrap();
    cluster.launch(leader);
    wait::until("the leader answers", || {
        crate::support::raw::send(cluster.address(leader), &crate::support::Request::get("/livez"))
    });
    leader_refuses(&cluster, &keys[0]);
    replica_keeps(&cluster, &keys);
    replica_keeps(&cluster, &later);
    wait::until("the replica says what it found", || {
        let status = cluster.status(replica).to_string();
        if status.contains("leader-lost-data") { Ok(()) } else { Err(status) }
    });
    // The present file of the replica heals it; so would the leader's own.
    assert!(cluster.stop(replica).success());
    cluster.kill9(leader);
    std::fs::copy(cluster.db_file(replica), cluster.db_file(leader)).unwrap();
    cluster.restart(leader);
    cluster.restart(replica);
    cluster.put_key(cluster.leader(1), later[0].as_bytes(), b"new").expect(204);
    cluster.wait_converged();
    assert_eq!(cluster.local(replica, later[1].as_bytes()), Some(format!("value of {}", later[1]).into_bytes()));
}
