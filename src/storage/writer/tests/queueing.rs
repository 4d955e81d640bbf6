//! The queue and the thread at its end: what shares a commit, what is refused at the bounds, and what a stop leaves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::{Facts, log, put, value, written};
use crate::clock::Clock;
use crate::storage::memory::MemoryEngine;
use crate::storage::writer::queue::{COMMIT_BYTES_MAX, QUEUE_ITEMS_MAX};
use crate::storage::writer::{Handle, Mode, Refusal, Upkeep, Written, spawn};
use crate::types::Mutation;

struct Running {
    engine: Arc<MemoryEngine>,
    handle: Handle,
    thread: std::thread::JoinHandle<()>,
    deadline: Instant,
}

impl Running {
    async fn leading() -> Running {
        let (engine, clock) = (Arc::new(MemoryEngine::new()), Clock::manual());
        let writer = super::writer(&engine, &clock, Box::new(|_, _| Upkeep::default()));
        let (handle, thread) = spawn(writer).unwrap();
        handle.set_mode(super::leading(), Facts::default()).await.unwrap();
        Running { engine, handle, thread, deadline: clock.now() + Duration::from_secs(600) }
    }

    /// Queues a write; its task has handed it over when this returns.
    async fn begin(&self, mutation: Mutation) -> JoinHandle<Result<Written, Refusal>> {
        let (handle, deadline) = (self.handle.clone(), self.deadline);
        let task = tokio::spawn(async move { handle.write(mutation, deadline).await });
        tokio::task::yield_now().await; // the tests run on one thread: the task goes up to its first wait
        task
    }

    fn stop(self) -> Arc<MemoryEngine> {
        self.handle.close();
        self.thread.join().unwrap();
        self.engine
    }
}

#[tokio::test]
async fn writes_that_arrive_during_a_commit_make_up_the_next() {
    let running = Running::leading().await;
    let before = running.engine.commits();
    let gate = running.engine.hold_commits();
    let first = running.begin(put("k0", "v")).await;
    gate.wait_for_commit();
    let mut others = Vec::new();
    for n in 1..=50 {
        others.push(running.begin(put(&format!("k{n}"), "v")).await);
    }
    drop(gate);
    assert_eq!(first.await.unwrap(), Ok(written(1, false)));
    for (n, other) in others.into_iter().enumerate() {
        assert_eq!(other.await.unwrap(), Ok(written(n as u64 + 2, false)));
    }
    assert_eq!(running.engine.commits() - before, 2);
    running.stop();
}

#[tokio::test]
async fn large_value_does_not_ride_with_small_ones() {
    let running = Running::leading().await;
    let gate = running.engine.hold_commits();
    let mut all = vec![running.begin(put("first", "v")).await];
    gate.wait_for_commit();
    let before = running.engine.commits();
    for n in 0..3 {
        all.push(running.begin(put(&format!("before{n}"), "v")).await);
    }
    all.push(running.begin(put("large", vec![0; COMMIT_BYTES_MAX])).await);
    all.push(running.begin(put("after", "v")).await);
    drop(gate);
    for (n, write) in all.into_iter().enumerate() {
        assert_eq!(write.await.unwrap(), Ok(written(n as u64 + 1, false)), "in the order of the queue");
    }
    assert_eq!(running.engine.commits() - before, 4, "the first, three small ones, the large one, the last");
    running.stop();
}

#[tokio::test]
async fn write_whose_caller_has_left_still_lands() {
    let running = Running::leading().await;
    let gate = running.engine.hold_commits();
    let first = running.begin(put("k0", "v")).await;
    gate.wait_for_commit();
    let left = running.begin(put("k1", "v")).await;
    first.abort();
    left.abort();
    drop(gate);
    let engine = running.stop();
    assert_eq!((value(&*engine, "k0"), value(&*engine, "k1")), (Some("v".into()), Some("v".into())));
}

#[tokio::test]
async fn stop_does_what_is_queued_and_refuses_what_comes() {
    let running = Running::leading().await;
    let gate = running.engine.hold_commits();
    let queued = [running.begin(put("k0", "v")).await, running.begin(put("k1", "v")).await];
    gate.wait_for_commit();
    running.handle.close();
    let refused = running.handle.write(put("k2", "v"), running.deadline).await;
    assert!(matches!(refused, Err(Refusal::Closed(_))), "{refused:?}");
    drop(gate);
    let engine = running.stop();
    for (n, write) in queued.into_iter().enumerate() {
        assert_eq!(write.await.unwrap(), Ok(written(n as u64 + 1, false)));
    }
    assert_eq!(log(&*engine).len(), 2);
}

/// The bug: at a full queue a fence was refused like a write, and a leader that halted and resumed while its queue was
/// full never led again.
#[tokio::test]
async fn queue_at_its_bound_refuses_writes_and_takes_fences() {
    let running = Running::leading().await;
    let gate = running.engine.hold_commits();
    let first = running.begin(put("first", "v")).await;
    gate.wait_for_commit();
    let mut queued = Vec::new();
    for n in 0..QUEUE_ITEMS_MAX {
        queued.push(running.begin(put(&format!("k{n}"), "v")).await);
    }
    let refused = running.handle.write(put("one too many", "v"), running.deadline).await;
    assert_eq!(refused, Err(Refusal::Overloaded));
    let handle = running.handle.clone();
    let fence = tokio::spawn(async move { handle.set_mode(Mode::Closed("fenced".into()), Facts::default()).await });
    tokio::task::yield_now().await;
    drop(gate);
    assert_eq!(fence.await.unwrap(), Ok(()));
    assert!(first.await.unwrap().is_ok());
    for write in queued {
        assert!(write.await.unwrap().is_ok(), "what was taken is done");
    }
    let engine = running.stop();
    assert_eq!(log(&*engine).len(), QUEUE_ITEMS_MAX + 1);
}
