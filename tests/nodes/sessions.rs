//! Sessions (REPLICATION.md, rule 25) at copies that are held behind, cut off, or off the history: a read never answers in
//! silence what is older than the session has seen.

use std::time::Duration;

use ostraca::clock::Clock;
use ostraca::store::{
    Answer, Applied, Call, Code, Consistency, Error, Operation, Outcome, Reach, Since, Terms, Wishes,
};
use ostraca::types::{RequestId, Seq, Version};
use tokio::time::sleep;

use crate::cluster::{Cluster, named, put, until_true};
use crate::disk::Moment;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const TIMEOUT: Duration = Duration::from_secs(10);

async fn execute(
    cluster: &Cluster,
    at: usize,
    operation: Operation,
    since: Option<Version>,
    reach: Reach,
) -> Result<Answer, Error> {
    let call = Call {
        operation,
        consistency: Consistency::Session,
        wishes: Wishes::boxed(Terms { session: Some(Since(since)), ..Terms::default() }, None),
        reach,
        deadline: Clock::real().now() + TIMEOUT,
        request_id: RequestId(1),
    };
    cluster.store(at).execute(call).await
}

/// A session's read of `k`: the value, what kind of read it was, and how far the session has seen now.
async fn read_by(
    cluster: &Cluster,
    at: usize,
    since: Option<Version>,
    reach: Reach,
) -> Result<(String, Consistency, Version), Error> {
    let Answer { outcome, served } = execute(cluster, at, Operation::Get { key: named("k") }, since, reach).await?;
    let Outcome::Found(record) = outcome else { panic!("{outcome:?}") };
    let value = String::from_utf8_lossy(&record.content.value).into_owned();
    Ok((value, served.consistency, *served.position.unwrap()))
}

async fn read(cluster: &Cluster, at: usize, since: Version) -> Result<(String, Consistency, Version), Error> {
    read_by(cluster, at, Some(since), Reach::Forward).await
}

/// A write of `k`, and where it stands.
async fn write(cluster: &Cluster, at: usize, value: &str) -> Version {
    let answer = cluster.put(at, "k", value.to_owned()).await.unwrap();
    let Outcome::Stored { version, .. } = answer.outcome else { panic!("{answer:?}") };
    version
}

fn cut_off(cluster: &Cluster, node: usize, others: &[usize], is_cut: bool) {
    for other in others {
        let (one, other) = (cluster.address(node), cluster.address(*other));
        if is_cut { cluster.net.cut(one, other) } else { cluster.net.heal(one, other) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_that_is_behind_passes_a_sessions_read_on_and_one_that_is_not_serves_it() {
    let cluster = Cluster::started(1).await;
    let first = write(&cluster, A, "1").await;
    cluster.wait_converged().await;
    assert_eq!(read(&cluster, B, first).await.unwrap(), ("1".into(), Consistency::Session, first));
    // B's writer is held: what it gets from here on it does not announce.
    let stop = cluster.disk(B).hooks.stop_at(Moment::Committed);
    write(&cluster, A, "2").await;
    until_true("B has got the second", || stop.has_arrived()).await;
    let third = write(&cluster, A, "3").await;
    assert_eq!(cluster.get_any(B, "k").await.unwrap(), Some("2".into()), "B is behind");
    assert_eq!(read(&cluster, B, third).await.unwrap(), ("3".into(), Consistency::Leader, third));
    // Where it may not be passed on it waits, and is told that this copy is behind.
    let error = read_by(&cluster, B, Some(third), Reach::Local).await.unwrap_err();
    assert_eq!((error.code, error.applied), (Code::TooStale, Applied::No), "{error:?}");
    // Let go meanwhile, it has waited for the entry.
    let (waited, ()) = tokio::join!(read_by(&cluster, B, Some(third), Reach::Local), async {
        sleep(Duration::from_millis(200)).await;
        stop.let_go();
    });
    assert_eq!(waited.unwrap(), ("3".into(), Consistency::Session, third));
    cluster.disk(B).hooks.clear();
}

/// A commit can be read a moment before it is announced. A session that saw it and did not know would be shown an older
/// value by the next copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_that_sees_a_commit_before_it_is_announced_knows_that_it_has_seen_it() {
    let cluster = Cluster::started(1).await;
    let first = write(&cluster, A, "1").await;
    cluster.wait_converged().await;
    let stop = cluster.disk(B).hooks.stop_at(Moment::Committed);
    let second = write(&cluster, A, "2").await;
    until_true("B has got the second", || stop.has_arrived()).await;
    assert_eq!(cluster.get_any(B, "k").await.unwrap(), Some("2".into()), "readable, not announced");
    for since in [None, Some(first)] {
        let (value, _, seen) = read_by(&cluster, B, since, Reach::Forward).await.unwrap();
        assert_eq!((value, seen), ("2".into(), second), "since {since:?}");
    }
    let (read, ()) = tokio::join!(read_by(&cluster, B, Some(first), Reach::Local), async {
        sleep(Duration::from_millis(100)).await;
        stop.let_go();
    });
    assert_eq!(read.unwrap(), ("2".into(), Consistency::Session, second));
    cluster.disk(B).hooks.clear();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_that_is_cut_off_refuses_what_the_session_has_seen_and_serves_what_it_has() {
    let cluster = Cluster::started(2).await;
    let first = write(&cluster, A, "1").await;
    cluster.wait_converged().await;
    cut_off(&cluster, B, &[A, C], true);
    cluster.wait_state(B, "away").await; // nothing is on its way to it any more
    let second = write(&cluster, A, "2").await;
    assert_eq!(read(&cluster, B, first).await.unwrap(), ("1".into(), Consistency::Session, first), "it has that much");
    let error = read(&cluster, B, second).await.unwrap_err();
    assert_eq!((error.code, error.is_retryable()), (Code::ShardUnreachable, true), "{error:?}");
    assert!(error.hint.contains("session"), "{error:?}");
    // The leader is out of reach, another replica is not.
    cluster.wait_same_at(A, C).await;
    cut_off(&cluster, B, &[C], false);
    assert_eq!(read(&cluster, B, second).await.unwrap(), ("2".into(), Consistency::Session, second));
    cut_off(&cluster, B, &[A], false);
    cluster.wait_converged().await;
    assert_eq!(read(&cluster, B, second).await.unwrap().0, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takeover_that_lost_a_write_is_told_to_its_session_by_reads_and_by_writes() {
    let cluster = Cluster::started(2).await;
    let kept = write(&cluster, A, "kept").await;
    cluster.wait_converged().await;
    cut_off(&cluster, A, &[B, C], true);
    for replica in [B, C] {
        cluster.wait_state(replica, "away").await; // nothing is on its way to it any more
    }
    let lost = write(&cluster, A, "lost").await;
    cluster.store(B).take_over("S", "S/1", false).await.unwrap();
    cluster.wait_known(C, 2).await;
    // Before the new leader has written, after it has, and after its log is longer than what was lost.
    for round in 0..3 {
        for at in [B, C] {
            let error = read(&cluster, at, lost).await.unwrap_err();
            assert_eq!((error.code, error.is_retryable()), (Code::SessionLost, false), "{round} at {at}: {error:?}");
            let write = execute(&cluster, at, put("k", "never"), Some(lost), Reach::Forward).await.unwrap_err();
            assert_eq!((write.code, write.applied), (Code::SessionLost, Applied::No), "{round} at {at}: {write:?}");
            assert!(read(&cluster, at, kept).await.unwrap().0 != "never");
        }
        write(&cluster, C, &format!("after {round}")).await;
    }
    // The old leader has it, and knows after a moment that nobody else does.
    cut_off(&cluster, A, &[B, C], false);
    cluster.wait_state(B, "leading").await;
    cluster.wait_same_at(B, C).await;
    crate::cluster::until("the old leader says so, too", async || match read(&cluster, A, lost).await {
        Err(error) if error.code == Code::SessionLost => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    // Whoever has seen less than what was lost is not shown it by the copy that alone has it.
    let (value, _, seen) = read(&cluster, A, kept).await.unwrap();
    assert_eq!(value, "after 2", "what was kept is a beginning of what there is");
    assert!(matches!(seen, Version::Log { epoch: 2, .. }), "{seen}");
}

/// A leader that has not heard of its successor cannot know what became of a session that has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_that_was_taken_over_unawares_does_not_call_lost_what_its_successor_has() {
    let cluster = Cluster::started(2).await;
    write(&cluster, A, "1").await;
    cluster.wait_converged().await;
    cut_off(&cluster, A, &[B, C], true);
    cluster.store(B).take_over("S", "S/1", false).await.unwrap();
    let second = write(&cluster, B, "2").await;
    let error = read_by(&cluster, A, Some(second), Reach::Local).await.unwrap_err();
    assert_eq!(error.code, Code::NoLeader, "{error:?}");
    assert_ne!(read(&cluster, A, second).await.unwrap_err().code, Code::SessionLost);
    cut_off(&cluster, A, &[B, C], false);
    cluster.wait_state(A, "streaming").await;
    assert_eq!(read(&cluster, A, second).await.unwrap().0, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_goes_on_across_a_switchover_at_every_copy() {
    let cluster = Cluster::started(2).await;
    let mut seen = write(&cluster, A, "0").await;
    cluster.wait_converged().await;
    for (round, leader) in [B, C, A, B].into_iter().enumerate() {
        let from = [A, B, C, A][round];
        let deadline = Clock::real().now() + TIMEOUT;
        cluster.store(from).switch_over("S", &format!("S/{leader}"), deadline).await.unwrap();
        for at in [A, B, C] {
            let (value, _, now) = read(&cluster, at, seen).await.unwrap();
            assert_eq!(value, round.to_string(), "at {at}");
            seen = now;
        }
        let value = (round + 1).to_string();
        let answer = execute(&cluster, from, put("k", value.clone()), Some(seen), Reach::Forward).await.unwrap();
        let Outcome::Stored { version, .. } = answer.outcome else { panic!("{answer:?}") };
        assert!(version.seq() > seen.seq());
        seen = version;
        for at in [A, B, C] {
            assert_eq!(read(&cluster, at, seen).await.unwrap().0, value, "at {at}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_of_nothing_says_how_far_the_leader_was() {
    let cluster = Cluster::started(1).await;
    write(&cluster, A, "1").await;
    let end = Some(Seq(2));
    cluster.delete(A, "k").await.unwrap();
    for at in [A, B] {
        let answer = cluster.delete(at, "k").await.unwrap();
        assert!(matches!(answer.outcome, Outcome::Deleted { version: None, .. }), "{answer:?}");
        assert_eq!(answer.served.position.map(|position| position.seq()), end, "at {at}");
    }
}
