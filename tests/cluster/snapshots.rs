//! A snapshot that is interrupted: by the end of the leader, of the replica, or of the queue's room. It begins again by
//! itself, and until the new copy is whole the old one serves reads that ask for `any` (REPLICATION.md, rule 14).

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::led::{copy, take_over, wait_followed, wait_leads};
use crate::support::raw::{self, Request};
use crate::support::{At, Cluster, Spec, wait};

/// A queue that a hundred entries fill, and a log that keeps next to nothing.
const SMALL_QUEUE: &str = "[replication]\nlog_retain_bytes = 4096\nqueue_entries_max = 100\n";
/// So much that a snapshot of it takes a while: a chunk holds about one MiB.
const RECORDS: usize = 200;
const RECORD_BYTES: usize = 100_000;

fn fill(cluster: &Cluster) {
    for n in 0..RECORDS {
        cluster.put_key(cluster.leader(0), &key(n), &vec![0xcd; RECORD_BYTES]).expect(201);
    }
    wait::until("the log is trimmed", || {
        let copy = cluster.status(cluster.leader(0))["copies"][0].clone();
        if copy["log_bytes"].as_u64().unwrap() < 1_000_000 { Ok(()) } else { Err(copy) }
    });
}

fn key(n: usize) -> Vec<u8> {
    format!("snapshot-{n}").into_bytes()
}

fn incoming(cluster: &Cluster) -> PathBuf {
    let mut name = cluster.db_file(cluster.replica(0)).into_os_string();
    name.push(".incoming");
    name.into()
}

/// Waits until the replica has begun to receive a snapshot.
fn wait_receiving(cluster: &Cluster) {
    wait::until("a snapshot has begun to arrive", || {
        let bytes = std::fs::metadata(incoming(cluster)).map_or(0, |file| file.len());
        if bytes > 0 { Ok(()) } else { Err(cluster.log(cluster.replica(0))) }
    });
}

fn holds_all(cluster: &Cluster) {
    cluster.wait_ready(cluster.replica(0));
    cluster.wait_converged();
    for n in 0..RECORDS {
        let at = cluster.replica(0);
        assert!(cluster.local(at, &key(n)) == Some(vec![0xcd; RECORD_BYTES]), "record {n}");
    }
    assert!(!incoming(cluster).exists(), "the incoming file has become the copy");
    assert!(cluster.all().all(|at| !cluster.log(at).contains("panicked")), "{}", cluster.logs());
}

#[test]
fn leader_killed_in_a_snapshot_leaves_the_old_copy_serving_and_it_begins_again() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1).config(SMALL_QUEUE));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    cluster.put_key(leader, b"old", b"v").expect(201);
    cluster.wait_converged();
    assert!(cluster.stop(replica).success());
    fill(&cluster);
    for _ in 0..2 {
        cluster.launch(replica);
        wait_receiving(&cluster);
        cluster.kill9(leader);
        // The replica is what it was: it serves its old copy, whole, and nothing of the new one.
        assert_eq!(cluster.local(replica, b"old"), Some(b"v".to_vec()));
        assert_eq!(cluster.local(replica, &key(0)), None, "nothing of a snapshot is read before it is whole");
        cluster.get(replica, "/readyz").expect(200);
        wait::until("it says that its leader is away", || {
            let state = cluster.status(replica)["copies"][0]["state"].clone();
            if state == "away" { Ok(()) } else { Err(state) }
        });
        assert_eq!(cluster.local(replica, b"old"), Some(b"v".to_vec()));
        cluster.kill9(replica);
        let _ = std::fs::remove_file(incoming(&cluster)); // so that the next round sees one of its own
        cluster.restart(leader);
    }
    cluster.launch(replica);
    holds_all(&cluster);
    assert_eq!(cluster.local(replica, b"old"), Some(b"v".to_vec()));
}

#[test]
fn replica_killed_in_a_snapshot_serves_its_old_copy_again_and_begins_anew() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1).config(SMALL_QUEUE));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    cluster.put_key(leader, b"old", b"v").expect(201);
    cluster.wait_converged();
    assert!(cluster.stop(replica).success());
    fill(&cluster);
    cluster.launch(replica);
    wait_receiving(&cluster);
    cluster.kill9(replica);
    assert!(incoming(&cluster).exists(), "it was killed in the middle");
    // Without its leader it has what it had before.
    assert!(cluster.stop(leader).success());
    cluster.launch(replica);
    wait::until("it serves its old copy", || raw::send(cluster.address(replica), &Request::get("/livez")));
    assert_eq!(cluster.local(replica, b"old"), Some(b"v".to_vec()));
    assert_eq!(cluster.local(replica, &key(0)), None);
    wait::until("the left-over of the snapshot is gone", || {
        if incoming(&cluster).exists() { Err("it is there") } else { Ok(()) }
    });
    cluster.restart(leader);
    holds_all(&cluster);
}

#[test]
fn snapshot_that_would_break_the_queues_bound_ends_and_is_retried() {
    let cluster = Cluster::prepare(Spec::shards(1).replicas(1).config(SMALL_QUEUE));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    cluster.restart(leader);
    fill(&cluster);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..6 {
            let (cluster, done) = (&cluster, &done);
            scope.spawn(move || {
                let mut connection = raw::Connection::open(cluster.address(leader)).unwrap();
                let mut n = 0;
                while !done.load(Ordering::SeqCst) {
                    let put = Request::get(format!("/set?key=fast-{writer}-{n}&value=v"));
                    connection.ask(&put).unwrap().expect(200);
                    n += 1;
                }
            });
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            cluster.launch(replica);
            wait::until("a snapshot ends at the bound", || {
                if cluster.log(leader).contains("ended a snapshot") { Ok(()) } else { Err(cluster.logs()) }
            });
            let log_bytes = cluster.status(leader)["copies"][0]["log_bytes"].as_u64().unwrap();
            assert!(log_bytes < 4_000_000, "the bound holds: {log_bytes}");
        }));
        done.store(true, Ordering::SeqCst);
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    holds_all(&cluster);
}

/// The leader dies while a replica receives a snapshot. The copy that is whole takes over, and the other receives its
/// snapshot from that; or the one with the old copy takes over, when an operator wants that, and serves what it had.
#[test]
fn takeover_during_a_snapshot_by_the_whole_copy_or_by_the_old_one() {
    for forced in [false, true] {
        let cluster = Cluster::start(Spec::shards(1).replicas(2).config(SMALL_QUEUE));
        let (leader, old, whole) = (cluster.leader(0), cluster.replica(0), At { shard: 0, copy: 2 });
        cluster.put_key(leader, b"old", b"v").expect(201);
        cluster.wait_converged();
        assert!(cluster.stop(old).success());
        fill(&cluster);
        wait_followed(&cluster, leader);
        cluster.launch(old);
        wait_receiving(&cluster);
        cluster.kill9(leader);
        let said = take_over(&cluster, whole, old, &[]);
        assert!(said.code == 1 && said.err.contains("Hyderabad/2 holds 200 entries more"), "{said:?}");
        if !forced {
            assert_eq!(take_over(&cluster, whole, whole, &[]).code, 0);
            wait_leads(&cluster, whole);
            wait_followed(&cluster, whole);
            assert!((0..RECORDS).all(|n| cluster.local(old, &key(n)).is_some()), "it received the new leader's copy");
        } else {
            let said = take_over(&cluster, whole, old, &["--force"]);
            assert_eq!(said.code, 0, "{said:?}");
            wait_leads(&cluster, old);
            assert_eq!(copy(&cluster, old).2, 1, "it leads with the copy that it had");
            cluster.put_key(whole, b"old", b"new").expect(204);
            cluster.kill9(old);
            cluster.restart(old);
            assert_eq!(cluster.local(old, b"old").as_deref(), Some(&b"new"[..]), "and that was its file");
            assert!(!incoming(&cluster).exists());
        }
    }
}
