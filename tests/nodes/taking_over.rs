//! Takeovers among cuts, deaths and other takeovers (REPLICATION.md, rules 17 to 19): what is decided with a majority stays
//! decided, what is not binds nobody for long, and no two nodes lead in one epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ostraca::storage::memory::Failing;
use ostraca::store::operate::Refused;
use ostraca::store::{Applied, Outcome};
use ostraca::types::Version;
use rand::RngExt;
use tokio::time::sleep;

use crate::cluster::{Cluster, read, until, until_true, write};
use crate::disk::Moment;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// Three copies with an entry.
async fn three() -> Cluster {
    let cluster = Cluster::started(2).await;
    cluster.put(A, "k", "1").await.unwrap();
    cluster.wait_converged().await;
    cluster
}

async fn take_over(cluster: &Cluster, at: usize, force: bool) -> Result<u64, Refused> {
    cluster.store(at).take_over("S", &format!("S/{at}"), force).await.map(|taken| taken.epoch)
}

/// Cuts a node off from all others, or heals that.
fn cut_off(cluster: &Cluster, node: usize, others: &[usize], is_cut: bool) {
    for other in others {
        let (one, other) = (cluster.address(node), cluster.address(*other));
        if is_cut { cluster.net.cut(one, other) } else { cluster.net.heal(one, other) }
    }
}

/// A minority that an operator has tried to make lead forgets it, and follows on; the leader never noticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takeover_by_a_node_that_is_cut_off_is_refused_and_binds_nobody() {
    let cluster = three().await;
    cut_off(&cluster, B, &[A, C], true);
    let refused = take_over(&cluster, B, false).await.unwrap_err();
    assert!(refused.to_string().contains("only 1 of 3"), "{refused}");
    cluster.put(A, "k", "2").await.unwrap();
    cut_off(&cluster, B, &[A, C], false);
    cluster.wait_state(B, "streaming").await;
    cluster.put(B, "k", "3").await.unwrap();
    cluster.wait_converged().await;
    assert_eq!(cluster.status(A).await.epoch, 1);
}

/// The takeover has its promises and dies: whoever gave one neither follows nor leads until it hears that it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_to_a_node_that_died_holds_until_that_is_back_and_has_given_up() {
    let mut cluster = three().await;
    cluster.wait_known(B, 1).await;
    cut_off(&cluster, A, &[B], true);
    // Its own promise is the first thing that it writes down, the fact that it leads the second.
    let stop = cluster.disk(B).hooks.stop_at_nth(Moment::Deciding, 2);
    let store = cluster.store(B);
    let order = tokio::spawn(async move { store.take_over("S", "S/1", false).await });
    until_true("it has its promises", || stop.has_arrived()).await;
    cluster.kill(B);
    stop.let_go();
    drop(order);
    cluster.disk(B).hooks.clear();
    cut_off(&cluster, A, &[B], false);
    // A heard nothing of it but by C, whose promise is no fact: it leads on; C does not follow it.
    cluster.wait_state(C, "away").await;
    cluster.put(A, "k", "2").await.unwrap();
    assert_eq!(cluster.status(C).await.end, 1, "what C acknowledged would count, and be lost with the takeover");
    cluster.start(B);
    cluster.wait_state(C, "streaming").await;
    cluster.wait_state(B, "streaming").await;
    cluster.wait_converged().await;
    // The next takeover does not use the number again.
    assert_eq!(take_over(&cluster, B, true).await.unwrap(), 3);
}

/// Bug: a node whose commit failed in the moment of its takeover gave its number up, though its file may say that it leads.
/// The old leader went on, and was fenced by an older copy when that node was restarted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takeover_whose_commit_fails_is_of_unknown_outcome_and_nobody_leads_before_its_restart() {
    for (when, leader, epoch) in [(Failing::After, B, 2), (Failing::Before, A, 1)] {
        let mut cluster = three().await;
        cluster.wait_known(B, 1).await;
        cluster.kill(A);
        let stop = cluster.disk(B).hooks.stop_at_nth(Moment::Deciding, 2);
        let store = cluster.store(B);
        let order = tokio::spawn(async move { store.take_over("S", "S/1", false).await });
        until_true("it has its promises", || stop.has_arrived()).await;
        cluster.engine(B).fail_next_commit(when);
        stop.let_go();
        let refused = order.await.unwrap().unwrap_err();
        assert!(refused.to_string().contains("is not known before it is restarted"), "{refused}");
        cluster.disk(B).hooks.clear();
        cluster.start(A);
        sleep(Duration::from_secs(3)).await; // longer than a leader asks at its start, and than a promise that is over holds
        let error = cluster.put_soon(A, "k", "nobody".into()).await.unwrap_err();
        assert_ne!(error.applied, Applied::Yes, "{error:?}");
        assert_ne!(cluster.status(A).await.state, "leading");
        cluster.restart(B);
        cluster.wait_state(leader, "leading").await;
        assert_eq!(cluster.status(leader).await.epoch, epoch);
        cluster.put(C, "k", "after").await.unwrap();
        cluster.wait_same(leader).await;
    }
}

/// A leader that reaches nobody goes on in its own epoch, and is fenced by the first word that it hears.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_that_was_cut_off_is_fenced_when_it_hears_of_its_successor() {
    let cluster = three().await;
    cut_off(&cluster, A, &[B, C], true);
    assert_eq!(take_over(&cluster, B, false).await.unwrap(), 2);
    cluster.put(C, "k", "in 2").await.unwrap();
    let alone = cluster.put(A, "alone", "in 1").await.unwrap();
    assert!(matches!(alone.outcome, Outcome::Stored { version: Version::Log { epoch: 1, .. }, .. }), "{alone:?}");
    cut_off(&cluster, A, &[B, C], false);
    cluster.wait_state(A, "streaming").await;
    let passed_on = cluster.put(A, "k", "through A").await.unwrap();
    assert!(
        matches!(passed_on.outcome, Outcome::Stored { version: Version::Log { epoch: 2, .. }, .. }),
        "{passed_on:?}"
    );
    assert_eq!(cluster.get_any(B, "k").await.unwrap(), Some("through A".into()));
    assert_eq!(cluster.get_any(B, "alone").await.unwrap(), None);
    cluster.wait_same(B).await;
    assert_eq!(cluster.get_any(A, "alone").await.unwrap(), None);
    assert_eq!(cluster.disk(A).lost(), [("alone".to_owned(), Some("in 1".to_owned()))]);
}

/// A write has its place in the log when its leader learns that another leads: whether it lasts is not known, and is not
/// claimed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_in_whose_commit_the_leader_is_fenced_is_of_unknown_outcome() {
    for through in [A, C] {
        let cluster = three().await;
        let committed = cluster.disk(A).hooks.stop_at(Moment::Committed);
        let store = cluster.store(through);
        let write = tokio::spawn(async move { write(&store, "k", "in the middle").await });
        until_true("the write is durable", || committed.has_arrived()).await;
        let store = cluster.store(B);
        let order = tokio::spawn(async move { store.take_over("S", "S/1", true).await });
        until("the leader has heard of it", async || {
            let state = cluster.status(A).await.state;
            if state == "leading" { Err(state) } else { Ok(()) }
        })
        .await;
        sleep(Duration::from_millis(300)).await; // its promise waits for the writer, which is held
        committed.let_go();
        cluster.disk(A).hooks.clear();
        let error = write.await.unwrap().unwrap_err();
        assert_eq!(error.applied, Applied::Unknown, "{error:?}");
        order.await.unwrap().unwrap();
        cluster.wait_state(B, "leading").await;
        cluster.wait_same(B).await; // here it was lost; had it reached a replica, it would have lasted
        assert_eq!(cluster.disk(A).lost(), [("k".to_owned(), Some("in the middle".to_owned()))]);
    }
}

/// Everybody takes over at once, again and again, among cuts: there is never more than one leader in an epoch, and when it
/// is quiet there is one leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takeovers_of_all_nodes_at_once_never_make_two_leaders_of_one_epoch() {
    let mut cluster = Cluster::started(4).await;
    let nodes = [0, 1, 2, 3, 4];
    // Number and seq of a write, and the life of the leader that confirmed it.
    let mut confirmed: BTreeMap<(u64, u64, String), usize> = BTreeMap::new();
    let mut with_a_majority = BTreeSet::new();
    for round in 0..12 {
        let cut = rand::rng().random_range(0..5);
        let others: Vec<usize> = nodes.into_iter().filter(|at| *at != cut).collect();
        let is_cut = rand::rng().random_range(0..2) == 0;
        if is_cut {
            cut_off(&cluster, cut, &others, true);
        }
        let orders: Vec<_> = nodes
            .into_iter()
            .map(|at| {
                let (store, force) = (cluster.store(at), rand::rng().random_range(0..3) == 0);
                let delay = Duration::from_millis(rand::rng().random_range(0..20));
                tokio::spawn(async move {
                    sleep(delay).await;
                    store.take_over("S", &format!("S/{at}"), force).await.map(|taken| (force, taken.epoch))
                })
            })
            .collect();
        for order in orders {
            if let Ok((false, epoch)) = order.await.unwrap() {
                assert!(with_a_majority.insert(epoch), "two nodes had a majority for epoch {epoch}");
            }
        }
        for at in nodes {
            if let Ok(answer) = cluster.put_soon(at, "k", format!("{round} {at}")).await
                && let Outcome::Stored { version: Version::Log { epoch, seq, incarnation }, .. } = answer.outcome
            {
                let other = confirmed.insert((epoch, seq.0, incarnation.to_string()), at);
                assert_eq!(other, None, "a place in one life of one leader is confirmed once");
            }
        }
        if is_cut {
            cut_off(&cluster, cut, &others, false);
        }
        if round % 4 == 3 {
            let at = rand::rng().random_range(0..5);
            cluster.restart(at);
        }
    }
    // Quiet: one more order decides, whoever holds what.
    until("somebody leads and all know it", async || {
        let _ = take_over(&cluster, 0, true).await;
        let epochs: Vec<_> = nodes.iter().map(|at| cluster.store(*at).cluster().shards[0].clone()).collect();
        let agree = epochs.iter().all(|shard| *shard == epochs[0]);
        let mut leading = 0;
        for at in nodes {
            leading += usize::from(cluster.status(at).await.state == "leading");
        }
        if agree && leading == 1 { Ok(()) } else { Err(format!("{leading} lead; {epochs:?}")) }
    })
    .await;
    cluster.put(3, "k", "quiet").await.unwrap();
}

/// The bug: a reset that had waited for the replica's poll to end came to it when the takeover had counted on the copy, and
/// the node led with nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_that_waits_does_not_throw_away_what_a_takeover_counts_on() {
    let cluster = Cluster::started(1).await;
    cluster.put(0, "k", "1").await.unwrap();
    cluster.wait_converged().await;
    cluster.net.freeze(cluster.address(0), true); // the replica waits for the answer to its poll
    let store = cluster.store(1);
    let takeover = tokio::spawn(async move { store.take_over("S", "S/1", true).await });
    sleep(Duration::from_millis(200)).await;
    let deadline = ostraca::clock::Clock::real().now() + Duration::from_secs(20);
    let reset = cluster.store(1).reset_replica("S/1", deadline).await;
    assert!(matches!(&reset, Err(Refused::Conflict(_))), "{reset:?}");
    assert_eq!(takeover.await.unwrap().unwrap().end, 1);
    assert_eq!(read(&cluster.store(1), "k").await.unwrap().as_deref(), Some("1"));
}
