//! A copy that holds what its shard's leader never had comes back by itself (REPLICATION.md, rule 21): all of it is listed,
//! once, before anything is taken back, wherever it is killed, and whoever leads meanwhile.

use std::time::Duration;

use ostraca::config::Settings;
use ostraca::store::operate::Refused;
use ostraca::store::view::Readiness;
use tokio::time::sleep;

use crate::cluster::{Cluster, settings, until, until_true};
use crate::disk::Moment;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

async fn take_over(cluster: &Cluster, at: usize) -> Result<u64, Refused> {
    cluster.store(at).take_over("S", &format!("S/{at}"), true).await.map(|taken| taken.epoch)
}

fn cut_off(cluster: &Cluster, node: usize, others: &[usize], is_cut: bool) {
    for other in others {
        let (one, other) = (cluster.address(node), cluster.address(*other));
        if is_cut { cluster.net.cut(one, other) } else { cluster.net.heal(one, other) }
    }
}

fn kept() -> Settings {
    Settings { log_retain_bytes: 1 << 20, ..settings() }
}

/// Three copies with some keys; the leader, alone, has written over one, deleted one and made one; B leads since.
async fn parted(settings: Settings) -> Cluster {
    let mut cluster = Cluster::with(2, settings);
    (0..3).for_each(|node| cluster.start(node));
    cluster.wait_leading().await;
    for key in ["kept", "over", "gone", "both"] {
        cluster.put(A, key, "common").await.unwrap();
    }
    cluster.wait_converged().await;
    cut_off(&cluster, A, &[B, C], true);
    cluster.put(A, "over", "lost").await.unwrap();
    cluster.put(A, "new", "lost").await.unwrap();
    cluster.delete(A, "gone").await.unwrap();
    cluster.put(A, "both", "lost").await.unwrap();
    take_over(&cluster, B).await.unwrap();
    cluster.wait_state(B, "leading").await;
    cluster.put(B, "both", "theirs").await.unwrap();
    cluster
}

fn lost() -> Vec<(String, Option<String>)> {
    [("over", Some("lost")), ("new", Some("lost")), ("gone", None), ("both", Some("lost"))]
        .map(|(key, value)| (key.to_owned(), value.map(str::to_owned)))
        .to_vec()
}

async fn holds_what_the_leader_has(cluster: &Cluster, at: usize) {
    for (key, value) in [
        ("kept", Some("common")),
        ("over", Some("common")),
        ("new", None),
        ("gone", Some("common")),
        ("both", Some("theirs")),
    ] {
        assert_eq!(cluster.get_any(at, key).await.unwrap().as_deref(), value, "{key} at {at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn return_lists_what_was_lost_takes_it_back_and_follows_without_a_snapshot() {
    let cluster = parted(kept()).await;
    cut_off(&cluster, A, &[B, C], false);
    cluster.wait_state(A, "streaming").await;
    cluster.wait_same(B).await;
    assert_eq!(cluster.disk(A).lost(), lost());
    assert_eq!(cluster.disk(A).snapshots(), 0);
    holds_what_the_leader_has(&cluster, A).await;
    let status = cluster.status(A).await;
    assert_eq!(status.ledger.map(|ledger| ledger.writes), Some(4));
    // It is a copy like any other: it may lead again, and nothing that was lost comes back.
    take_over(&cluster, A).await.unwrap();
    cluster.wait_state(A, "leading").await;
    cluster.put(A, "kept", "by A").await.unwrap();
    cluster.wait_same(A).await;
    assert_eq!(cluster.get_any(B, "new").await.unwrap(), None);
    assert_eq!(cluster.disk(A).lost(), lost(), "nothing more was lost");
}

/// Killed before the rewind and behind it, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn return_that_is_killed_on_its_way_lists_nothing_twice() {
    let mut cluster = parted(kept()).await;
    cut_off(&cluster, A, &[B, C], false);
    for moment in [Moment::Rewinding, Moment::Rewinding, Moment::Rewound] {
        let is_rewound = moment == Moment::Rewound;
        let stop = cluster.disk(A).hooks.stop_at(moment);
        cluster.restart(A);
        until_true("it is there", || stop.has_arrived()).await;
        assert_eq!(cluster.disk(A).lost(), lost(), "listed before anything is taken back");
        if !is_rewound {
            assert!(cluster.get_any(A, "new").await.is_err(), "it knows that this is no value of the shard's");
        }
        cluster.kill(A);
        stop.let_go();
        cluster.disk(A).hooks.clear();
        cluster.start(A);
    }
    cluster.wait_state(A, "streaming").await;
    cluster.wait_same(B).await;
    assert_eq!(cluster.disk(A).lost(), lost());
    holds_what_the_leader_has(&cluster, A).await;
}

/// Between the rewind and the leader's end that its records are of, the copy is nobody's prefix: it serves nothing, before a
/// restart and after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_that_was_rewound_serves_nothing_before_it_is_where_its_records_are() {
    let mut cluster = parted(kept()).await;
    let rewound = cluster.disk(A).hooks.stop_at(Moment::Rewound);
    cut_off(&cluster, A, &[B, C], false);
    until_true("it is rewound", || rewound.has_arrived()).await;
    cut_off(&cluster, A, &[B, C], true);
    rewound.let_go();
    cluster.disk(A).hooks.clear();
    cluster.wait_state(A, "away").await;
    assert!(cluster.get_any(A, "kept").await.is_err());
    cluster.restart(A);
    cluster.wait_state(A, "away").await;
    assert!(cluster.get_any(A, "kept").await.is_err());
    cut_off(&cluster, A, &[B, C], false);
    cluster.wait_state(A, "streaming").await;
    cluster.wait_same(B).await;
    holds_what_the_leader_has(&cluster, A).await;
}

/// The leader whose records it took is itself replaced before they are all explained: they are worth nothing to the next
/// one, and the copy takes a snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_rewound_for_a_leader_that_is_replaced_before_it_settles_is_not_left_with_its_records() {
    rewound_for_a_leader_that_is_replaced(10).await;
}

/// The bug: while the next leader wrote nothing, the copy waited for an entry that only the former one had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_rewound_for_a_leader_that_is_replaced_does_not_wait_for_writes_of_the_next_one() {
    rewound_for_a_leader_that_is_replaced(0).await;
}

async fn rewound_for_a_leader_that_is_replaced(writes: usize) {
    let mut cluster = parted(kept()).await;
    cluster.wait_state(C, "streaming").await;
    until("C holds what B wrote", async || {
        let (b, c) = (cluster.status(B).await.end, cluster.status(C).await.end);
        if b == c { Ok(()) } else { Err(format!("{b} and {c}")) }
    })
    .await;
    cut_off(&cluster, B, &[C], true);
    cluster.put(B, "over", "B alone").await.unwrap();
    cluster.put(B, "new", "B alone").await.unwrap();
    let rewound = cluster.disk(A).hooks.stop_at(Moment::Rewound);
    cut_off(&cluster, A, &[B], false);
    until_true("A has B's records", || rewound.has_arrived()).await;
    cluster.kill(B);
    rewound.let_go();
    cluster.disk(A).hooks.clear();
    cut_off(&cluster, A, &[C], false);
    take_over(&cluster, C).await.unwrap();
    cluster.wait_state(C, "leading").await;
    for n in 0..writes {
        cluster.put(C, &format!("c{n}"), "C").await.unwrap();
    }
    cluster.wait_state(A, "streaming").await;
    cluster.wait_same(C).await;
    assert_eq!(cluster.get_any(A, "over").await.unwrap(), Some("common".into()), "not what B alone had");
    assert_eq!(cluster.get_any(A, "new").await.unwrap(), None);
    assert_eq!(cluster.disk(A).lost(), lost());
    // B comes back, too, with what it alone had.
    cut_off(&cluster, B, &[A, C], false);
    cluster.start(B);
    cluster.wait_state(B, "streaming").await;
    cluster.wait_same(C).await;
    let alone = [("over", "B alone"), ("new", "B alone")].map(|(key, value)| (key.to_owned(), Some(value.to_owned())));
    assert_eq!(cluster.disk(B).lost(), alone);
}

/// A log that does not reach back: what keys held last is listed, and everything is fetched anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn return_with_a_trimmed_log_lists_what_its_records_still_show_and_takes_a_snapshot() {
    let mut cluster = Cluster::with(1, Settings { queue_entries_max: 100, ..settings() });
    (0..2).for_each(|node| cluster.start(node));
    cluster.wait_leading().await;
    cluster.put(A, "kept", "common").await.unwrap();
    cluster.wait_converged().await;
    cut_off(&cluster, A, &[B], true);
    for n in 0..300 {
        cluster.put(A, &format!("k{}", n % 150), format!("lost {n}")).await.unwrap();
    }
    cluster.delete(A, "k7").await.unwrap(); // leaves no record, and soon no entry: it cannot be listed
    until("the log is trimmed", async || {
        let state = ostraca::storage::Engine::state(&cluster.disk(A).look()).unwrap();
        if state.log_start.0 > 200 { Ok(()) } else { Err(state.log_start.to_string()) }
    })
    .await;
    take_over(&cluster, B).await.unwrap();
    cluster.wait_state(B, "leading").await;
    cluster.put(B, "k3", "theirs").await.unwrap();
    let receiving = cluster.disk(A).hooks.stop_at(Moment::Receiving);
    cut_off(&cluster, A, &[B], false);
    until_true("A receives a snapshot", || receiving.has_arrived()).await;
    assert!(cluster.get_any(A, "k5").await.is_err(), "it knows that this is lost");
    let checks = cluster.store(A).readiness(Readiness::Reads);
    assert!(checks.iter().any(|check| !check.verdict.passes()), "and says that it serves no reads: {checks:?}");
    receiving.let_go();
    cluster.disk(A).hooks.clear();
    cluster.wait_state(A, "streaming").await;
    cluster.wait_same(B).await;
    assert_eq!(cluster.disk(A).snapshots(), 1);
    let mut found = cluster.disk(A).lost();
    found.sort();
    found.dedup();
    let last = (0..150).filter(|n| *n != 7).map(|n| (format!("k{n}"), Some(format!("lost {}", n + 150))));
    for write in last {
        assert!(found.contains(&write), "{write:?} is missing");
    }
    assert!(found.iter().all(|(key, _)| key != "kept"), "what both had is no loss");
    assert_eq!(cluster.disk(A).lost().len(), found.len(), "nothing is listed twice");
}

/// A full ledger: the copy stays as it is, and serves nothing of it; room lets it come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn return_with_a_full_ledger_takes_nothing_back_until_there_is_room() {
    let mut cluster = parted(Settings { ledger_bytes_max: 100, ..kept() }).await;
    cut_off(&cluster, A, &[B, C], false);
    cluster.wait_state(A, "off-history").await;
    let status = cluster.store(A).status().await;
    let problem = status.problems.iter().find(|problem| problem.code == "off-history").unwrap();
    assert!(
        problem.what.contains("storage.ledger_bytes_max") && problem.next.contains("kv shard lost-writes S"),
        "{problem:?}"
    );
    assert!(cluster.get_any(A, "new").await.is_err());
    let end = cluster.status(A).await.end;
    sleep(Duration::from_millis(300)).await;
    cluster.restart(A);
    cluster.wait_state(A, "off-history").await;
    assert_eq!((cluster.status(A).await.end, cluster.disk(A).lost()), (end, Vec::new()), "nothing was taken back");
    cluster.kill(A);
    cluster.set_settings(kept());
    cluster.start(A);
    cluster.wait_state(A, "streaming").await;
    cluster.wait_same(B).await;
    assert_eq!(cluster.disk(A).lost(), lost());
}

/// A leader that comes back with no more than its successor has just follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn return_with_an_equal_or_a_shorter_history_lists_nothing_and_follows() {
    for longer in [false, true] {
        let mut cluster = Cluster::started(1).await;
        cluster.put(A, "k", "1").await.unwrap();
        cluster.wait_converged().await;
        cluster.kill(A);
        take_over(&cluster, B).await.unwrap();
        cluster.wait_state(B, "leading").await;
        if longer {
            cluster.put(B, "k", "2").await.unwrap();
        }
        cluster.start(A);
        cluster.wait_state(A, "streaming").await;
        cluster.wait_same(B).await;
        assert_eq!((cluster.disk(A).lost(), cluster.disk(A).snapshots()), (Vec::new(), 0));
        assert_eq!(cluster.status(A).await.ledger, None, "no ledger is begun");
    }
}

/// A replica that had more than the copy that took over comes back as a former leader does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_that_had_more_than_the_new_leader_comes_back_as_well() {
    let mut cluster = Cluster::with(2, kept());
    (0..3).for_each(|node| cluster.start(node));
    cluster.wait_leading().await;
    cluster.put(A, "k", "common").await.unwrap();
    cluster.wait_converged().await;
    cut_off(&cluster, B, &[A, C], true);
    cluster.put(A, "k", "A and C").await.unwrap();
    cluster.wait_state(C, "streaming").await;
    until("C has it", async || {
        let end = cluster.status(C).await.end;
        if end == 2 { Ok(()) } else { Err(end.to_string()) }
    })
    .await;
    cluster.kill(A);
    take_over(&cluster, B).await.unwrap();
    cluster.wait_state(B, "leading").await;
    cut_off(&cluster, B, &[A, C], false);
    cluster.wait_state(C, "streaming").await;
    cluster.start(A);
    cluster.wait_state(A, "streaming").await;
    cluster.wait_same(B).await;
    let lost = [("k".to_owned(), Some("A and C".to_owned()))];
    assert_eq!((cluster.disk(A).lost(), cluster.disk(C).lost()), (lost.to_vec(), lost.to_vec()));
}
