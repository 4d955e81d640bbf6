//! A replica with an empty disk gets everything: from the log while it reaches back, by snapshot when it does not, with
//! writes going on meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{At, Cluster, Spec, wait};

/// A log that keeps next to nothing behind its replicas.
const SHORT_LOG: &str = "[replication]\nlog_retain_bytes = 4096\n";

fn key(n: usize) -> Vec<u8> {
    format!("empty-disk-{n}").into_bytes()
}

fn value(n: usize) -> Vec<u8> {
    let mut value = format!("{n}:\x00").into_bytes();
    value.resize(if n.is_multiple_of(100) { 100_000 } else { 200 }, 0xff);
    value
}

/// Writes `count` keys, and deletes every seventh again.
fn fill(cluster: &Cluster, count: usize) {
    let leader = cluster.leader(0);
    for n in 0..count {
        let answer = cluster.put_key(leader, &key(n), &value(n));
        assert!(matches!(answer.status, 201 | 204), "{answer:?}");
    }
    for n in (0..count).step_by(7) {
        cluster.delete_key(leader, &key(n)).expect(204);
    }
}

/// Checks the first `count` keys at a copy, read locally.
fn holds_all(cluster: &Cluster, at: At, count: usize) {
    for n in 0..count {
        let wanted = (!n.is_multiple_of(7)).then(|| value(n));
        assert!(cluster.local(at, &key(n)) == wanted, "key {n} at {at:?}");
    }
    let keys = |at| cluster.status(at)["copies"][0]["keys"].as_u64().unwrap();
    assert_eq!(keys(at), keys(cluster.leader(0)), "no key more, no key less");
}

/// Waits until the leader's log no longer reaches back to its first entry.
fn wait_trimmed(cluster: &Cluster) {
    // Any write lets it trim; the loop makes some should idleness not be enough.
    wait::until("the log is trimmed", || {
        let copy = cluster.status(cluster.leader(0))["copies"][0].clone();
        if copy["log_bytes"].as_u64().unwrap() < 200_000 { Ok(()) } else { Err(copy) }
    });
}

#[test]
fn new_replica_gets_everything_from_the_log() {
    let cluster = Cluster::prepare(Spec::shards(1).replicas(1));
    cluster.restart(cluster.leader(0));
    fill(&cluster, 300);
    cluster.restart(cluster.replica(0));
    cluster.wait_converged();
    holds_all(&cluster, cluster.replica(0), 300);
}

#[test]
fn new_replica_gets_a_snapshot_when_the_log_was_trimmed() {
    let cluster = Cluster::prepare(Spec::shards(1).replicas(1).config(SHORT_LOG));
    cluster.restart(cluster.leader(0));
    fill(&cluster, 600);
    wait_trimmed(&cluster);
    cluster.restart(cluster.replica(0));
    cluster.wait_converged();
    holds_all(&cluster, cluster.replica(0), 600);
    // And goes on from there.
    cluster.put_key(cluster.leader(0), b"afterwards", b"v").expect(201);
    cluster.wait_converged();
    assert_eq!(cluster.local(cluster.replica(0), b"afterwards"), Some(b"v".to_vec()));
}

#[test]
fn wiped_replica_gets_a_snapshot_while_writes_go_on() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1).config(SHORT_LOG));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    fill(&cluster, 600);
    cluster.wait_converged();
    wait_trimmed(&cluster);

    for round in 0..3 {
        cluster.kill9(replica);
        cluster.wipe(replica);
        let done = AtomicBool::new(false);
        let written = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut written = 0;
                while !done.load(Ordering::SeqCst) {
                    let answer = cluster.put_key(leader, format!("during-{round}-{written}").as_bytes(), b"\x00\xff");
                    assert_eq!(answer.status, 201, "a leader goes on serving: {answer:?}");
                    cluster.put_key(leader, b"the same key each time", format!("{round}-{written}").as_bytes());
                    written += 1;
                }
                written
            });
            // A scope waits for its threads: the writer must learn of the end even when the wait for it fails.
            let restarted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cluster.restart(replica)));
            done.store(true, Ordering::SeqCst);
            if let Err(panic) = restarted {
                std::panic::resume_unwind(panic);
            }
            writer.join().unwrap()
        });
        cluster.wait_converged();
        holds_all(&cluster, replica, 600);
        for n in 0..written {
            let name = format!("during-{round}-{n}");
            assert_eq!(cluster.local(replica, name.as_bytes()), Some(b"\x00\xff".to_vec()), "{name}");
        }
        assert_eq!(
            cluster.local(replica, b"the same key each time"),
            cluster.local(leader, b"the same key each time"),
            "an older record never lands on a newer one"
        );
    }
}

#[test]
fn replica_killed_in_its_snapshot_begins_again() {
    let cluster = Cluster::prepare(Spec::shards(1).replicas(1).config(SHORT_LOG));
    cluster.restart(cluster.leader(0));
    fill(&cluster, 600);
    wait_trimmed(&cluster);
    for pause_ms in [1, 20, 60, 120, 200, 300] {
        cluster.launch(cluster.replica(0));
        std::thread::sleep(std::time::Duration::from_millis(pause_ms));
        cluster.kill9(cluster.replica(0));
    }
    cluster.restart(cluster.replica(0));
    cluster.wait_converged();
    holds_all(&cluster, cluster.replica(0), 600);
}

#[test]
fn leader_killed_during_a_snapshot_lets_the_replica_begin_again() {
    let cluster = Cluster::prepare(Spec::shards(1).replicas(1).config(SHORT_LOG));
    cluster.restart(cluster.leader(0));
    fill(&cluster, 600);
    wait_trimmed(&cluster);
    cluster.launch(cluster.replica(0));
    for pause_ms in [50, 150] {
        std::thread::sleep(std::time::Duration::from_millis(pause_ms));
        cluster.kill9(cluster.leader(0));
        cluster.restart(cluster.leader(0));
    }
    cluster.wait_ready(cluster.replica(0));
    cluster.wait_converged();
    holds_all(&cluster, cluster.replica(0), 600);
}
