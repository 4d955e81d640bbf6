//! Rule 14: a snapshot makes a prefix of the leader's history, whatever is written meanwhile and wherever it is broken
//! off; until it is whole, the old copy stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use ostraca::peer::Service;
use ostraca::peer::message::{Class, Envelope, Kind, Request};
use ostraca::replication::pair::wire::{Inspect, Inspection};
use ostraca::storage::memory::MemoryEngine;
use ostraca::storage::{Batch, Engine};
use ostraca::types::{NodeName, RequestId, ShardIndex, Space};
use tokio::time::{sleep, timeout};

use crate::cluster::{Cluster, end, until, until_true};
use crate::disk::Moment;

/// Large enough for several chunks of 1 MiB.
const VALUE_BYTES: usize = 300_000;
/// Keys with such values: eight chunks.
const KEYS: usize = 24;
/// Chunks between which the test writes.
const WATCHED: u32 = 4;

fn value(n: usize) -> Vec<u8> {
    let mut value = format!("{n:04}:").into_bytes();
    value.resize(VALUE_BYTES, b'.');
    value
}

/// A leader with four chunks of data, whose log no longer reaches back, and a replica that is not running.
async fn trimmed(old_copy: bool) -> Cluster {
    let mut cluster = Cluster::new(1);
    cluster.start(0);
    if old_copy {
        cluster.start(1);
    }
    cluster.wait_leading().await;
    cluster.put(0, "old", "1").await.unwrap();
    if old_copy {
        cluster.wait_converged().await;
        cluster.kill(1);
        // A leader that was started again without its replicas' cursors keeps nothing for them.
        let backup = cluster.disk(0).backup();
        cluster.kill(0);
        cluster.disk(0).restore(backup);
        forget_cursors(&cluster);
        cluster.start(0);
        cluster.wait_leading().await;
    }
    for n in 0..KEYS {
        cluster.put(0, &format!("k{n:02}"), value(n)).await.unwrap();
    }
    cluster.delete(0, "old").await.unwrap();
    let disk = cluster.disk(0).clone();
    until_true("the leader's log is trimmed", || {
        let state = disk.look().state().unwrap();
        state.log_start >= state.history.end()
    })
    .await;
    cluster
}

/// Makes the replicas unseen: they pin nothing.
fn forget_cursors(cluster: &Cluster) {
    let backup = cluster.disk(0).look();
    let state = backup.state().unwrap();
    let fresh = MemoryEngine::new();
    let records = backup.chunk(Space::Data, None, usize::MAX).unwrap().records;
    let install = records.into_iter().map(|(key, record)| (Space::Data, key, record)).collect();
    let batch = Batch { install, adopt: Some(state.history), shard_uid: state.shard_uid, ..Batch::default() };
    fresh.commit(&batch).unwrap();
    cluster.disk(0).restore(fresh.disk());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_with_writes_and_deletes_between_its_chunks_becomes_a_prefix() {
    let mut cluster = trimmed(false).await;
    let chunks = Arc::new(AtomicU32::new(0));
    let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let count = Arc::clone(&chunks);
    cluster.disk(0).hooks.set(move |moment| {
        if moment == Moment::Chunk {
            let (done, wait) = std::sync::mpsc::channel();
            ask.send((count.fetch_add(1, Ordering::SeqCst), done)).unwrap();
            let _ = wait.recv(); // the test writes meanwhile
        }
    });
    cluster.start(1);
    for _ in 0..WATCHED {
        let (chunk, done) = timeout(Duration::from_secs(30), asked.recv()).await.unwrap().unwrap();
        cluster.put(0, "k00", format!("replaced behind {chunk}")).await.unwrap();
        cluster.put(0, "k23", format!("replaced before {chunk}")).await.unwrap();
        cluster.delete(0, &format!("k{:02}", chunk + 1)).await.unwrap();
        cluster.delete(0, &format!("k{:02}", 22 - chunk)).await.unwrap();
        cluster.put(0, &format!("k{:02}", 22 - chunk), "again").await.unwrap();
        cluster.put(0, &format!("a{chunk}"), "new, behind").await.unwrap();
        cluster.put(0, &format!("z{chunk}"), "new, before").await.unwrap();
        cluster.delete(0, &format!("z{}", chunk.saturating_sub(1))).await.unwrap();
        done.send(()).unwrap();
    }
    cluster.disk(0).hooks.clear();
    drop(asked);
    cluster.wait_converged().await;
    assert!(chunks.load(Ordering::SeqCst) >= WATCHED);
    assert_eq!(cluster.disk(1).snapshots(), 1, "the log was kept for it");
    assert_eq!(cluster.get_any(1, "k00").await.unwrap(), Some("replaced behind 3".into()));
    assert_eq!(cluster.get_any(1, "old").await.unwrap(), None);
    cluster.put(0, "k", "on").await.unwrap();
    cluster.wait_converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_copy_serves_until_the_snapshot_is_whole() {
    let mut cluster = trimmed(true).await;
    let stop = cluster.disk(1).hooks.stop_at_nth(Moment::Receiving, 3);
    cluster.start(1);
    until_true("the replica receives a snapshot", || stop.has_arrived()).await;
    assert_eq!(cluster.get_any(1, "old").await.unwrap(), Some("1".into()));
    assert_eq!(cluster.get_any(1, "k00").await.unwrap(), None, "the incoming file serves nothing");
    let acknowledged = cluster.status(0).await.replicas[0].cursor;
    assert_eq!(acknowledged, Some(1), "the incoming file acknowledges nothing");
    stop.let_go();
    cluster.wait_converged().await;
    until("the new copy serves", async || match cluster.get_any(1, "old").await.unwrap() {
        None => Ok(()),
        Some(old) => Err(old),
    })
    .await;
}

/// The chunks hold the second of two writes and not the first: until the log has brought the first, nobody may see it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_that_is_no_prefix_yet_is_not_served() {
    let mut cluster = trimmed(true).await;
    let chunk = cluster.disk(0).hooks.stop_at_nth(Moment::Chunk, 3);
    cluster.start(1);
    until_true("the first chunks were given", || chunk.has_arrived()).await;
    cluster.put(0, "k00", "the first").await.unwrap();
    cluster.put(0, "k23", "the second").await.unwrap();
    let log = cluster.disk(0).hooks.stop_at(Moment::Entries);
    chunk.let_go();
    until_true("the log is asked for", || log.has_arrived()).await;
    for _ in 0..30 {
        let found = [cluster.get_any(1, "k00").await.unwrap(), cluster.get_any(1, "k23").await.unwrap()];
        assert_eq!(found, [None, None], "the old copy serves");
        sleep(Duration::from_millis(10)).await;
    }
    log.let_go();
    cluster.disk(0).hooks.clear();
    cluster.wait_converged().await;
    assert_eq!(cluster.get_any(1, "k00").await.unwrap(), Some("the first".into()));
}

/// The replica is killed at every step of receiving; what it had stays, and the next attempt succeeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_killed_at_any_step_of_a_snapshot_keeps_its_copy_and_begins_again() {
    let mut cluster = trimmed(true).await;
    for step in 1..=6 {
        let stop = cluster.disk(1).hooks.stop_at_nth(Moment::Receiving, step);
        cluster.start(1);
        until_true("the replica is at the step", || stop.has_arrived() || end(cluster.disk(1)).0 > 1).await;
        if !stop.has_arrived() {
            assert!(step > 4, "a snapshot has at least four commits, not {step}");
            break;
        }
        assert_eq!(cluster.get_any(1, "old").await.unwrap(), Some("1".into()), "step {step}");
        cluster.kill(1);
        stop.let_go();
        assert_eq!(end(cluster.disk(1)).0, 1, "step {step}: the old copy is still there");
    }
    cluster.disk(1).hooks.clear();
    if end(cluster.disk(1)).0 == 1 {
        cluster.start(1);
    }
    cluster.wait_converged().await;
}

/// The leader is killed at every chunk, or its connection breaks there: the snapshot of another incarnation is not gone
/// on with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_killed_in_a_snapshot_ends_it_and_the_next_life_gives_another() {
    let mut cluster = trimmed(true).await;
    for chunk in 1..=4 {
        let stop = cluster.disk(0).hooks.stop_at_nth(Moment::Chunk, chunk);
        if chunk == 1 {
            cluster.start(1);
        }
        until_true("the leader is at the chunk", || stop.has_arrived()).await;
        cluster.kill(0);
        stop.let_go();
        assert_eq!(cluster.get_any(1, "old").await.unwrap(), Some("1".into()));
        cluster.disk(0).hooks.clear();
        if chunk < 4 {
            let next = cluster.disk(0).hooks.stop_at_nth(Moment::Chunk, u32::MAX); // until the next round sets its own
            drop(next);
        }
        cluster.start(0);
        cluster.wait_leading().await;
        cluster.put(0, "k00", format!("life {chunk}")).await.unwrap();
        if end(cluster.disk(1)).0 > 1 {
            break; // it was quicker than the next round
        }
    }
    cluster.wait_converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_that_breaks_in_a_snapshot_ends_it_and_it_begins_again() {
    let mut cluster = trimmed(true).await;
    cluster.start(1);
    for megabytes in [1, 2, 3] {
        cluster.net.break_answers_after(cluster.address(0), megabytes * 1_000_000 + 12_345);
    }
    cluster.wait_converged().await;
}

/// The bug: a snapshot was written without a look at the free space, and could fill the disk that a leader of another
/// shard writes to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_stops_before_the_disk_is_full_and_goes_on_when_there_is_space() {
    let mut cluster = trimmed(true).await;
    cluster.disk(1).set_free_bytes_for_snapshots(Some(1));
    cluster.start(1);
    cluster.wait_state(1, "stuck").await;
    assert_eq!(cluster.get_any(1, "old").await.unwrap(), Some("1".into()));
    cluster.disk(1).set_free_bytes_for_snapshots(None);
    cluster.wait_converged().await;
}

/// The bug: a replica that had been empty took its place with a snapshot before it knew the snapshot's uid. A leader that
/// began just then and asked what it holds was told of data without a uid, and halted as one that had lost its own.
///
/// On one thread, so that the asking comes between the swap and the task that waits for it.
#[tokio::test]
async fn copy_that_holds_data_always_says_whose() {
    let mut cluster = trimmed(false).await;
    let question = || {
        let envelope = Envelope {
            request_id: RequestId(1),
            kind: Kind::Inspect.number(),
            cluster: None,
            placement: 0,
            shard: ShardIndex(0),
            epoch: None,
            from: NodeName::new("S/0"),
            remaining: Duration::from_secs(1),
            class: Class::Request,
        };
        Request { envelope, body: Inspect { key: None }.encode() }
    };
    cluster.start(1);
    let done = Arc::new(AtomicBool::new(false));
    let asking = [(); 2].map(|()| {
        let (store, done) = (cluster.store(1), Arc::clone(&done));
        tokio::spawn(async move {
            while !done.load(Ordering::SeqCst) {
                let Inspection { shard_uid, cursor, .. } =
                    Inspection::decode(store.handle(question()).await.body).unwrap();
                assert!(cursor.is_none() || shard_uid.is_some(), "data up to {cursor:?}, and no uid");
                tokio::task::yield_now().await;
            }
        })
    });
    cluster.wait_converged().await;
    done.store(true, Ordering::SeqCst);
    for task in asking {
        task.await.unwrap();
    }
}
