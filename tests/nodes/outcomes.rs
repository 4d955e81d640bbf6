//! What an answer may say, and what a copy may be told, at the moments between two steps.

use std::time::Duration;

use ostraca::store::{Applied, Code, Consistency, Operation, Outcome};
use tokio::time::sleep;

use crate::cluster::{Cluster, WRITE_MAX, execute, named, put, until, until_true};
use crate::disk::Moment;

/// The bug: entries are readable the moment their commit returns, and announced a moment later. A poll that read them in
/// between gave them away; when the replica's next poll came before the announcement, the leader took it for proof that
/// it had lost data, and halted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_is_never_ahead_of_what_its_leader_has_announced() {
    let cluster = Cluster::started(1).await;
    cluster.put(0, "k", "1").await.unwrap();
    cluster.wait_converged().await;
    // The next poll's reading is held until a commit has happened that is not announced.
    let entries = cluster.disk(0).hooks.stop_at(Moment::Entries);
    until_true("a poll reads the log", || entries.has_arrived()).await;
    let committed = cluster.disk(0).hooks.stop_at(Moment::Committed);
    let store = cluster.store(0);
    let write = tokio::spawn(async move { execute(&store, put("k", "2"), Consistency::Leader, WRITE_MAX).await });
    until_true("a commit is durable and not announced", || committed.has_arrived()).await;
    entries.let_go();
    for _ in 0..20 {
        assert_eq!(cluster.status(0).await.state, "leading");
        sleep(Duration::from_millis(10)).await;
    }
    committed.let_go();
    assert!(matches!(write.await.unwrap().unwrap().outcome, Outcome::Stored { .. }));
    cluster.wait_converged().await;
    assert_eq!(cluster.status(0).await.state, "leading");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_whose_caller_is_dropped_lands_at_every_node() {
    let cluster = Cluster::started(1).await;
    for at in [0, 1] {
        let held = cluster.disk(0).hooks.stop_at(Moment::Committed);
        let store = cluster.store(at);
        let key = format!("from {at}");
        let name = key.clone();
        let write = tokio::spawn(async move { execute(&store, put(&name, "v"), Consistency::Leader, WRITE_MAX).await });
        until_true("the write is under way", || held.has_arrived()).await;
        let store = cluster.store(at);
        let waiting =
            tokio::spawn(
                async move { execute(&store, put("waits behind it", "v"), Consistency::Leader, WRITE_MAX).await },
            );
        sleep(Duration::from_millis(50)).await;
        write.abort();
        waiting.abort();
        held.let_go();
        cluster.disk(0).hooks.clear();
        cluster.put(0, "after", "v").await.unwrap();
        cluster.wait_converged().await;
        assert_eq!(cluster.get_any(1, &key).await.unwrap(), Some("v".into()));
        assert_eq!(cluster.get_any(1, "waits behind it").await.unwrap(), Some("v".into()));
        cluster.delete(0, "waits behind it").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_whose_caller_leaves_while_the_connection_is_opened_still_lands() {
    let cluster = Cluster::started(1).await;
    cluster.net.freeze(cluster.address(0), true);
    let store = cluster.store(1);
    // A large value has a connection of its own, which is not open yet.
    let value = vec![b'v'; 100_000];
    let write = tokio::spawn(async move { execute(&store, put("k", value), Consistency::Leader, WRITE_MAX).await });
    sleep(Duration::from_millis(100)).await;
    write.abort();
    assert!(write.await.unwrap_err().is_cancelled());
    cluster.net.freeze(cluster.address(0), false);
    until("the write has landed", async || {
        if cluster.get_any(0, "k").await.unwrap().is_some() { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_whose_leader_dies_before_answering_is_unknown_and_one_that_never_left_is_not_applied() {
    let mut cluster = Cluster::started(1).await;
    cluster.put(1, "k", "1").await.unwrap();
    let held = cluster.disk(0).hooks.stop_at(Moment::Committed);
    let store = cluster.store(1);
    let write = tokio::spawn(async move { execute(&store, put("k", "2"), Consistency::Leader, WRITE_MAX).await });
    until_true("the write is durable", || held.has_arrived()).await;
    cluster.kill(0);
    let error = write.await.unwrap().unwrap_err();
    assert_eq!((error.code, error.applied), (Code::ShardUnreachable, Applied::Unknown), "{error}");
    let error = cluster.put(1, "k", "3").await.unwrap_err();
    assert_eq!((error.code, error.applied), (Code::ShardUnreachable, Applied::No), "{error}");
    held.let_go();
    cluster.disk(0).hooks.clear();
    cluster.start(0);
    cluster.wait_leading().await;
    cluster.wait_converged().await;
    assert_eq!(cluster.get_any(1, "k").await.unwrap(), Some("2".into()), "it was durable");
}

/// The bug: one client with a very short time of its own made the entry node give up on the connection that everybody's
/// requests to that node share, and their writes were lost sight of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_deadline_of_one_request_does_not_break_off_the_others() {
    let cluster = Cluster::started(1).await;
    cluster.put(1, "warm", "up").await.unwrap();
    let held = cluster.disk(0).hooks.stop_at(Moment::Committed);
    let store = cluster.store(1);
    let patient = tokio::spawn(async move { execute(&store, put("k", "1"), Consistency::Leader, WRITE_MAX).await });
    until_true("a write is under way", || held.has_arrived()).await;
    let hasty = execute(&cluster.store(1), put("j", "1"), Consistency::Leader, Duration::from_millis(30)).await;
    let hasty = hasty.unwrap_err();
    assert_eq!((hasty.code, hasty.applied), (Code::Deadline, Applied::Unknown), "{hasty}");
    sleep(Duration::from_millis(50)).await;
    held.let_go();
    let answer = patient.await.unwrap();
    assert!(answer.is_ok(), "{answer:?}");
}

/// Who reads at the other node after a write was answered reads it, wherever it went in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_after_an_answered_write_sees_it_at_every_node() {
    let cluster = Cluster::started(1).await;
    for n in 0..50 {
        let at = n % 2;
        let answer = cluster.put(at, "k", format!("{n}")).await.unwrap();
        assert!(matches!(answer.outcome, Outcome::Stored { created, .. } if created == (n == 0)), "{answer:?}");
        assert_eq!(answer.served.place.forwarded.is_some(), at == 1);
        let (store, get) = (cluster.store(1 - at), Operation::Get { key: named("k") });
        let read = execute(&store, get, Consistency::Leader, WRITE_MAX).await;
        let Outcome::Found(record) = read.unwrap().outcome else { panic!("write {n} is gone") };
        assert_eq!(record.content.value, format!("{n}"));
    }
    cluster.wait_converged().await;
}

/// The bug: a HEAD at another node than the owner carried the value there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn look_at_a_key_brings_all_but_its_value_from_nodes_of_any_program() {
    let cluster = Cluster::started(1).await;
    cluster.put(0, "k", vec![7; 100_000]).await.unwrap();
    let look = async |key, at| {
        let head = Operation::Head { key: named(key) };
        execute(&cluster.store(at), head, Consistency::Leader, WRITE_MAX).await.unwrap().outcome
    };
    let here = look("k", 0).await;
    let Outcome::Described { record, value_bytes } = &here else { panic!("{here:?}") };
    assert_eq!((record.content.value.len(), *value_bytes), (0, 100_000));
    assert_eq!(look("k", 1).await, here);
    assert_eq!(look("none", 1).await, Outcome::Missing);
    cluster.net.make_older(cluster.address(0));
    until("the wires that broke with that are replaced", async || {
        let head = Operation::Head { key: named("k") };
        let looked = execute(&cluster.store(1), head, Consistency::Leader, WRITE_MAX).await;
        looked.map(drop).map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(look("k", 1).await, here, "it is given with its value, and that is dropped");
    assert_eq!(look("none", 1).await, Outcome::Missing);
}
