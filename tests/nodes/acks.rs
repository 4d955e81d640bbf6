//! Writes that wait for replicas while the network is cut, and another copy takes over (REPLICATION.md, rules 17 and 23):
//! what is known to last is told so, and what may be lost is unknown, never done.

use std::sync::Arc;
use std::time::Duration;

use ostraca::clock::Clock;
use ostraca::config::Settings;
use ostraca::store::ack::{Ack, Wanted};
use ostraca::store::{Acks, Answer, Applied, Call, Code, Consistency, Error, Outcome, Reach, Store, Terms, Wishes};
use ostraca::types::RequestId;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::cluster::{Cluster, end, put, read, settings, until, until_true};
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

/// A write that waits for replicas, at most so long.
async fn acked(store: &Arc<Store>, key: &str, wanted: Wanted, timeout: Duration) -> Result<Answer, Error> {
    let call = Call {
        operation: put(key, "v"),
        consistency: Consistency::Leader,
        reach: Reach::Forward,
        wishes: Wishes::boxed(Terms::default(), Some(Ack { wanted, timeout, is_forwarded: false })),
        deadline: Clock::real().now() + Duration::from_secs(30),
        request_id: RequestId(1),
    };
    store.execute(call).await
}

fn begin(cluster: &Cluster, through: usize, key: &'static str, wanted: Wanted) -> JoinHandle<Result<Answer, Error>> {
    let store = cluster.store(through);
    tokio::spawn(async move { acked(&store, key, wanted, Duration::from_secs(25)).await })
}

fn acks(answer: Answer) -> Acks {
    match answer.outcome {
        Outcome::Stored { acks, .. } => acks,
        other => panic!("{other:?}"),
    }
}

async fn take_over(cluster: &Cluster, at: usize) {
    cluster.store(at).take_over("S", &format!("S/{at}"), true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_that_waits_is_unknown_when_a_copy_without_it_takes_over() {
    let cluster = three().await;
    for other in [B, C] {
        cluster.net.cut(cluster.address(A), cluster.address(other));
    }
    let waiting = begin(&cluster, A, "alone", Wanted::Replicas(1));
    until_true("it is durable at A", || end(cluster.disk(A)).0 == 2).await;
    take_over(&cluster, B).await;
    for other in [B, C] {
        cluster.net.heal(cluster.address(A), cluster.address(other));
    }
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!((error.code, error.applied), (Code::NoLeader, Applied::Unknown), "{error:?}");
    assert_eq!(read(&cluster.store(C), "alone").await.unwrap(), None, "and it is lost indeed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_that_waits_is_done_when_a_copy_that_acknowledged_it_takes_over() {
    let cluster = three().await;
    cluster.net.cut(cluster.address(A), cluster.address(C));
    let one = acked(&cluster.store(A), "one", Wanted::Replicas(1), Duration::from_secs(25)).await.unwrap();
    assert_eq!(acks(one), Acks { have: 2, of: 3 });
    let waiting = begin(&cluster, A, "waits", Wanted::All);
    until("it is at B", async || {
        let value = cluster.get_any(B, "waits").await.unwrap();
        if value.is_some() { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
    // Whatever was applied is acknowledged with the next poll.
    until("the leader has heard", async || match cluster.status(A).await.at_risk_entries {
        Some(0) => Ok(()),
        other => Err(format!("{other:?} at risk")),
    })
    .await;
    take_over(&cluster, B).await;
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!((error.code, error.applied), (Code::AckTimeout, Applied::Yes), "{error:?}");
    assert_eq!(error.unconfirmed.unwrap().acks, Acks { have: 2, of: 3 });
    for key in ["one", "waits"] {
        assert_eq!(read(&cluster.store(B), key).await.unwrap().as_deref(), Some("v"));
    }
}

/// The bug: C had acknowledged the write and leads, but has given it up in between, for B, of which A had not heard. A said
/// that it was done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_that_waits_is_unknown_when_a_copy_that_acknowledged_it_leads_only_after_another() {
    let cluster = three().await;
    cluster.net.cut(cluster.address(A), cluster.address(B));
    let waiting = begin(&cluster, A, "alone", Wanted::All);
    until("it is at C", async || {
        let value = cluster.get_any(C, "alone").await.unwrap();
        if value.is_some() { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
    until("the leader has heard", async || match cluster.status(A).await.at_risk_entries {
        Some(0) => Ok(()),
        other => Err(format!("{other:?} at risk")),
    })
    .await;
    cluster.net.cut(cluster.address(A), cluster.address(C));
    take_over(&cluster, B).await;
    cluster.wait_same_at(B, C).await;
    cluster.wait_state(C, "streaming").await;
    take_over(&cluster, C).await;
    cluster.net.heal(cluster.address(A), cluster.address(C));
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!((error.code, error.applied), (Code::NoLeader, Applied::Unknown), "{error:?}");
    assert_eq!(read(&cluster.store(C), "alone").await.unwrap(), None, "and it is lost indeed");
}

/// A replica is away, and hundreds of writes wait for it that one node passed on: that node's reads are served meanwhile,
/// and what finds no room is not written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarded_writes_that_wait_leave_room_for_reads() {
    let cluster = three().await;
    cluster.net.freeze(cluster.address(B), true);
    let mut writes = JoinSet::new();
    for n in 0..1100 {
        let store = cluster.store(C);
        writes.spawn(async move {
            let key = format!("crowd-{n}");
            (acked(&store, &key, Wanted::All, Duration::from_secs(8)).await.unwrap_err(), key)
        });
    }
    let mut refused = Vec::new();
    let (error, key) = writes.join_next().await.unwrap().unwrap();
    assert_eq!((error.code, error.applied), (Code::Overloaded, Applied::No), "the first to end had no room: {error:?}");
    refused.push(key);
    for _ in 0..20 {
        assert_eq!(read(&cluster.store(C), "k").await.unwrap().as_deref(), Some("1"));
    }
    let mut done = Vec::new();
    while let Some(ended) = writes.join_next().await {
        let (error, key) = ended.unwrap();
        match (error.code, error.applied) {
            (Code::AckTimeout, Applied::Yes) => done.push(key),
            (Code::Overloaded, Applied::No) => refused.push(key),
            _ => panic!("{error:?}"),
        }
    }
    assert!(done.len() >= 700 && refused.len() >= 300, "{} were done, {} refused", done.len(), refused.len());
    for (keys, is_there) in [(&done, true), (&refused, false)] {
        for key in keys.iter().step_by(50) {
            assert_eq!(read(&cluster.store(A), key).await.unwrap().is_some(), is_there, "{key}");
        }
    }
}

/// The bug: a copy that was rewound, and is not whole before it comes to a later entry, acknowledged what it passed on its
/// way there. It could not lead in its leader's place: nothing of that would have outlived the leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_that_waits_is_not_done_by_a_copy_that_was_rewound_and_is_not_whole() {
    let mut cluster = Cluster::with(1, Settings { log_retain_bytes: 64 << 20, ..settings() });
    (0..2).for_each(|node| cluster.start(node));
    cluster.wait_leading().await;
    cluster.put(A, "k", "1").await.unwrap();
    cluster.wait_converged().await;
    cluster.net.cut(cluster.address(A), cluster.address(B));
    cluster.put(A, "k", "lost").await.unwrap();
    take_over(&cluster, B).await;
    cluster.wait_state(B, "leading").await;
    let waiting = begin(&cluster, B, "waits", Wanted::All);
    until_true("it is durable at B", || end(cluster.disk(B)).0 == 2).await;
    for n in 0..4 {
        cluster.put(B, &format!("large-{n}"), vec![0; 700 << 10]).await.unwrap(); // an answer to a poll holds two of them
    }
    let rewound = cluster.disk(A).hooks.stop_at(Moment::Rewound);
    cluster.net.heal(cluster.address(A), cluster.address(B));
    until_true("it is rewound", || rewound.has_arrived()).await;
    let second = cluster.disk(A).hooks.stop_at_nth(Moment::Committed, 2);
    rewound.let_go();
    until_true("it has taken a part, and asked for the next", || second.has_arrived()).await;
    let passed = end(cluster.disk(A)).0;
    assert!((2..6).contains(&passed), "{passed}: on its way, and past the write");
    sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "{:?}", waiting.await);
    second.let_go();
    cluster.disk(A).hooks.clear();
    assert_eq!(acks(waiting.await.unwrap().unwrap()), Acks { have: 2, of: 2 });
}
