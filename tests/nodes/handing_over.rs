//! A switchover that is interrupted, before and behind its point of no return: the moment when it is durable at the leader
//! that it yields (REPLICATION.md, rule 20). Before it, nothing has changed; behind it, the old leader never leads that epoch
//! again, and the shard waits for the new one, whoever is restarted and in whatever order.

use std::time::Duration;

use ostraca::clock::Clock;
use ostraca::store::operate::Refused;
use ostraca::store::view::HandedOver;
use ostraca::store::{Applied, Code};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::cluster::{Cluster, until, until_true};
use crate::disk::{Moment, Stop};

const A: usize = 0;
const B: usize = 1;

/// Begins to hand the shard over to B.
fn switch_over(cluster: &Cluster) -> JoinHandle<Result<HandedOver, Refused>> {
    let store = cluster.store(A);
    tokio::spawn(async move { store.switch_over("S", "S/1", Clock::real().now() + Duration::from_secs(10)).await })
}

/// A and B with an entry, and A held at this moment of a switchover.
async fn held_at(moment: Moment) -> (Cluster, JoinHandle<Result<HandedOver, Refused>>, Stop) {
    let cluster = Cluster::started(1).await;
    cluster.put(A, "k", "1").await.unwrap();
    cluster.wait_converged().await;
    let stop = cluster.disk(A).hooks.stop_at(moment);
    let order = switch_over(&cluster);
    until_true("the leader is about to yield", || stop.has_arrived()).await;
    (cluster, order, stop)
}

/// Waits until this node leads in this epoch and the other follows, and sees that both serve.
async fn led_by(cluster: &Cluster, leader: usize, epoch: u64) {
    cluster.wait_state(leader, "leading").await;
    assert_eq!(cluster.status(leader).await.epoch, epoch);
    cluster.wait_state(1 - leader, "streaming").await;
    for at in [A, B] {
        cluster.put(at, "k", format!("through {at} in {epoch}")).await.unwrap();
    }
    cluster.wait_same(leader).await;
}

/// Nobody takes writes, and whoever asks learns that nothing was applied.
async fn nobody_leads(cluster: &Cluster, at: usize) {
    let error = cluster.put(at, "k", "nobody").await.unwrap_err();
    assert!(matches!(error.code, Code::NoLeader | Code::ShardUnreachable), "{error:?}");
    assert_eq!(error.applied, Applied::No, "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_that_dies_before_the_point_of_no_return_leads_on() {
    let (mut cluster, order, stop) = held_at(Moment::Deciding).await;
    cluster.kill(A);
    stop.let_go();
    drop(order);
    cluster.disk(A).hooks.clear();
    cluster.start(A);
    led_by(&cluster, A, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn target_that_dies_before_the_point_of_no_return_changes_nothing() {
    let mut cluster = Cluster::started(1).await;
    cluster.put(A, "k", "1").await.unwrap();
    cluster.wait_converged().await;
    // B gets no more entries, so the leader holds writes for it, and then lets them go on.
    cluster.net.freeze(cluster.address(B), true);
    cluster.put(A, "k", "2").await.unwrap();
    let order = switch_over(&cluster);
    sleep(Duration::from_millis(100)).await;
    cluster.kill(B);
    let refused = order.await.unwrap().unwrap_err();
    assert!(matches!(refused, Refused::Conflict(_)), "{refused:?}");
    cluster.put(A, "k", "3").await.unwrap();
    cluster.net.freeze(cluster.address(B), false);
    cluster.start(B);
    led_by(&cluster, A, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_that_dies_behind_the_point_of_no_return_never_leads_again_and_asks_the_target() {
    let (mut cluster, order, stop) = held_at(Moment::Decided).await;
    cluster.kill(A);
    stop.let_go();
    drop(order);
    cluster.disk(A).hooks.clear();
    cluster.wait_state(B, "away").await;
    cluster.start(A);
    led_by(&cluster, B, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn target_that_dies_behind_the_point_of_no_return_leads_when_it_is_back_whoever_is_back_first() {
    for a_is_first in [true, false] {
        let (mut cluster, order, stop) = held_at(Moment::Decided).await;
        cluster.kill(B);
        stop.let_go();
        let refused = order.await.unwrap().unwrap_err();
        assert!(matches!(&refused, Refused::Unconfirmed(_)), "{refused:?}");
        cluster.wait_state(A, "standing-aside").await;
        nobody_leads(&cluster, A).await;
        assert_eq!(cluster.get_any(A, "k").await.unwrap(), Some("1".into()), "old reads are served");
        cluster.disk(A).hooks.clear();
        if a_is_first {
            cluster.restart(A);
            cluster.wait_state(A, "standing-aside").await;
            sleep(Duration::from_millis(2500)).await; // longer than a leader asks at its start
            cluster.wait_state(A, "standing-aside").await;
            nobody_leads(&cluster, A).await;
            cluster.start(B);
        } else {
            cluster.kill(A);
            cluster.start(B);
            cluster.wait_state(B, "away").await;
            nobody_leads(&cluster, B).await;
            cluster.start(A);
        }
        led_by(&cluster, B, 2).await;
    }
}

/// What B has written down decides, not whether A has heard of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn target_that_dies_while_it_takes_the_shard_leads_when_it_is_back() {
    for moment in [Moment::Deciding, Moment::Decided] {
        let mut cluster = Cluster::started(1).await;
        cluster.put(A, "k", "1").await.unwrap();
        cluster.wait_converged().await;
        cluster.wait_known(B, 1).await; // what it writes down next is that a switchover comes, and then that it leads
        let stop = cluster.disk(B).hooks.stop_at_nth(moment, 2);
        let order = switch_over(&cluster);
        until_true("B is about to lead", || stop.has_arrived()).await;
        cluster.kill(B);
        stop.let_go();
        let refused = order.await.unwrap().unwrap_err();
        assert!(matches!(&refused, Refused::Unconfirmed(_)), "{refused:?}");
        cluster.disk(B).hooks.clear();
        cluster.start(B);
        led_by(&cluster, B, 2).await;
    }
}

/// The answer of B is lost on its way: A does not know that B leads, and hears of it in the next moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn target_whose_answer_is_lost_leads_and_the_leader_hears_of_it() {
    let cluster = Cluster::started(1).await;
    cluster.put(A, "k", "1").await.unwrap();
    cluster.wait_converged().await;
    cluster.wait_known(B, 1).await;
    let stop = cluster.disk(B).hooks.stop_at_nth(Moment::Decided, 2);
    let order = switch_over(&cluster);
    until_true("B leads, and has told nobody", || stop.has_arrived()).await;
    cluster.net.cut(cluster.address(A), cluster.address(B));
    stop.let_go();
    cluster.disk(B).hooks.clear();
    let refused = order.await.unwrap().unwrap_err();
    assert!(matches!(&refused, Refused::Unconfirmed(_)), "{refused:?}");
    nobody_leads(&cluster, A).await;
    cluster.put(B, "k", "B leads meanwhile").await.unwrap();
    cluster.net.heal(cluster.address(A), cluster.address(B));
    led_by(&cluster, B, 2).await;
}

/// The target is gone for good: an operator takes the shard back, above the number that was yielded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takeover_takes_a_shard_back_that_was_yielded_to_a_node_that_is_gone() {
    let (mut cluster, order, stop) = held_at(Moment::Decided).await;
    cluster.kill(B);
    stop.let_go();
    order.await.unwrap().unwrap_err();
    cluster.disk(A).hooks.clear();
    let refused = cluster.store(A).take_over("S", "S/0", false).await.unwrap_err();
    assert!(refused.to_string().contains("1 of 2"), "{refused}");
    cluster.wait_state(A, "standing-aside").await;
    let taken = cluster.store(A).take_over("S", "S/0", true).await.unwrap();
    assert_eq!(taken.epoch, 3, "above what was yielded");
    cluster.put(A, "k", "back").await.unwrap();
    cluster.start(B);
    led_by(&cluster, A, 3).await;
}

/// Writes that come while the shard changes hands wait, and are done by the new leader, wherever they came in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_and_reads_that_come_in_the_middle_wait_and_are_done_by_the_new_leader() {
    let (cluster, order, stop) = held_at(Moment::Decided).await;
    let begin = |at: usize, key: &'static str| {
        let store = cluster.store(at);
        tokio::spawn(async move { crate::cluster::write(&store, key, "v").await })
    };
    let writes = [begin(A, "through A"), begin(B, "through B")];
    let store = cluster.store(B);
    let read = tokio::spawn(async move { crate::cluster::read(&store, "k").await });
    sleep(Duration::from_millis(200)).await;
    assert!(writes.iter().all(|write| !write.is_finished()) && !read.is_finished());
    stop.let_go();
    let handed = order.await.unwrap().unwrap();
    assert!(handed.paused_ms >= 200, "{handed:?}");
    for write in writes {
        write.await.unwrap().unwrap();
    }
    assert_eq!(read.await.unwrap().unwrap(), Some("1".into()));
    cluster.disk(A).hooks.clear();
    led_by(&cluster, B, 2).await;
    for key in ["through A", "through B"] {
        assert_eq!(cluster.get_any(A, key).await.unwrap(), Some("v".into()));
    }
}

/// Bug: the leader dies when it has yielded to C and C knows nothing of it, and an operator lets B lead instead. When the old
/// leader came back and granted C what it had yielded, C took it, though it had promised that number to B: the names were
/// compared, and C's is the higher. B's writes were lost with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grant_that_comes_after_a_takeover_is_refused_and_everybody_follows_the_takeover() {
    const C: usize = 2;
    let mut cluster = Cluster::started(2).await;
    cluster.put(A, "k", "1").await.unwrap();
    cluster.wait_converged().await;
    let stop = cluster.disk(A).hooks.stop_at(Moment::Decided);
    let store = cluster.store(A);
    let deadline = Clock::real().now() + Duration::from_secs(10);
    let order = tokio::spawn(async move { store.switch_over("S", "S/2", deadline).await });
    until_true("the leader has yielded", || stop.has_arrived()).await;
    cluster.kill(A);
    stop.let_go();
    drop(order);
    cluster.disk(A).hooks.clear();
    // B has its promises, C's among them, and is about to lead when A is back and grants C what it had yielded.
    let stop = cluster.disk(B).hooks.stop_at_nth(Moment::Deciding, 2);
    let store = cluster.store(B);
    let order = tokio::spawn(async move { store.take_over("S", "S/1", false).await });
    until_true("B has its promises", || stop.has_arrived()).await;
    cluster.start(A);
    cluster.wait_state(A, "standing-aside").await;
    sleep(Duration::from_millis(1000)).await; // A asks three times a second
    assert_ne!(cluster.status(C).await.state, "leading");
    stop.let_go();
    cluster.disk(B).hooks.clear();
    order.await.unwrap().unwrap();
    for at in [A, B, C] {
        cluster.put(at, "k", format!("through {at}")).await.unwrap();
    }
    assert_eq!(cluster.status(B).await.state, "leading");
    for at in [A, C] {
        cluster.wait_state(at, "streaming").await;
    }
    cluster.wait_same(B).await;
}

/// Bug: a promise that was given and was over again while the leader was busy with a hand-over ended its leave to take writes,
/// and nothing gave it a new one: it led, and refused every write until its restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_whose_promise_came_and_went_while_it_was_busy_takes_writes_again() {
    const C: usize = 2;
    let mut cluster = Cluster::started(2).await;
    cluster.put(A, "k", "1").await.unwrap();
    cluster.wait_converged().await;
    // A writes something down before it holds writes, and that takes long.
    let busy = cluster.disk(A).hooks.stop_at(Moment::Noting);
    let store = cluster.store(A);
    let deadline = Clock::real().now() + Duration::from_secs(10);
    let order = tokio::spawn(async move { store.switch_over("S", "S/2", deadline).await });
    until_true("A is busy", || busy.has_arrived()).await;
    cluster.kill(C);
    // An operator takes over by B, which dies before it leads.
    let stop = cluster.disk(B).hooks.stop_at_nth(Moment::Deciding, 2);
    let store = cluster.store(B);
    let takeover = tokio::spawn(async move { store.take_over("S", "S/1", true).await });
    until_true("B is about to lead", || stop.has_arrived()).await;
    cluster.kill(B);
    stop.let_go();
    drop(takeover);
    cluster.disk(B).hooks.clear();
    cluster.start(B);
    sleep(Duration::from_millis(3000)).await; // A asks B once a second, and hears that it has given up
    busy.let_go();
    cluster.disk(A).hooks.clear();
    order.await.unwrap().unwrap_err();
    cluster.start(C);
    led_by_a(&cluster).await;
}

async fn led_by_a(cluster: &Cluster) {
    until("A takes writes", async || {
        cluster.put_soon(A, "k", "again".into()).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(cluster.status(A).await.state, "leading");
    cluster.wait_same(A).await;
}
