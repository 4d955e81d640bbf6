//! The way to the writer: a bounded queue, and the thread at its end.
//!
//! | bound | what happens there |
//! |---|---|
//! | [`QUEUE_ITEMS_MAX`] and [`QUEUE_BYTES_MAX`] waiting | a write is refused with `overloaded`; fences, facts and the leader's entries are taken, for they come from a few tasks that wait for each |
//! | [`COMMIT_ITEMS_MAX`] and [`COMMIT_BYTES_MAX`] in one commit | the rest waits for the next one |

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{Facts, Item, Mode, Published, Refusal, Writer, Written};
use crate::storage::{Engine, Error, LogEntry, Rewind};
use crate::types::{Mutation, Seq};

/// Items in one commit.
const COMMIT_ITEMS_MAX: usize = 1024;
/// Bytes in one commit, unless a single write is larger: a large value does not ride with small writes (rule 8).
pub(super) const COMMIT_BYTES_MAX: usize = 1 << 20;
/// Items waiting for the writer; beyond it a write is refused with `overloaded`.
pub(super) const QUEUE_ITEMS_MAX: usize = 16 << 10;
/// Bytes waiting for the writer, with the same answer.
const QUEUE_BYTES_MAX: usize = 256 << 20;
/// Idle time after which acknowledgements that came meanwhile are written down.
const IDLE: Duration = Duration::from_secs(1);
/// Idle time after which trimming goes on, which one commit does only a part of: the disk is given back soon, and a write
/// that comes meanwhile waits for one short commit.
const IDLE_TRIMMING: Duration = Duration::from_millis(5);

/// The way to the writer: a bounded queue.
#[derive(Debug, Clone)]
pub struct Handle {
    queue: Arc<Queue>,
    published: Arc<Published>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<QueueState>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    items: VecDeque<Item>,
    bytes: usize,
    closed: bool,
}

impl Handle {
    /// Queues an item, unless the queue is closed, or full and the item a write.
    fn push(&self, item: Item) -> Result<(), Refusal> {
        let bytes = item.bytes();
        let mut state = self.queue.state.lock();
        if state.closed {
            let failed = self.published.is_failed();
            let reason = if failed { "the writer has failed: restart the node" } else { "the node is stopping" };
            return Err(Refusal::Closed(reason.into()));
        }
        let is_full =
            state.items.len() >= QUEUE_ITEMS_MAX || (state.bytes > 0 && state.bytes + bytes > QUEUE_BYTES_MAX);
        if is_full && matches!(item, Item::Write { .. }) {
            return Err(Refusal::Overloaded);
        }
        state.bytes += bytes;
        state.items.push_back(item);
        drop(state);
        self.queue.filled.notify_one();
        Ok(())
    }

    async fn submit<T>(&self, item: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Item) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.push(item(reply))?;
        // A writer that is gone without an answer has panicked: whether it committed is not known.
        answer.await.unwrap_or_else(|_| Err(Refusal::Unknown(Error::Failed("the writer is gone".into()))))
    }

    /// Writes one mutation; returns when it is durable.
    pub async fn write(&self, mutation: Mutation, deadline: Instant) -> Result<Written, Refusal> {
        self.submit(|reply| Item::Write { mutation, deadline, reply }).await
    }

    /// Appends the leader's entries; returns the new end when they are durable.
    pub async fn append(&self, entries: Vec<LogEntry>) -> Result<Seq, Refusal> {
        self.submit(|reply| Item::Append { entries, reply }).await
    }

    /// Writes facts down.
    pub async fn note(&self, facts: Facts) -> Result<(), Refusal> {
        self.submit(|reply| Item::Note { facts, reply }).await
    }

    /// Changes the mode, behind all that is queued.
    pub async fn set_mode(&self, mode: Mode, facts: Facts) -> Result<(), Refusal> {
        self.submit(|reply| Item::SetMode { mode, facts, reply }).await
    }

    /// Lets another file take over, behind all that is queued.
    pub async fn swap(&self, engine: Arc<dyn Engine>) -> Result<(), Refusal> {
        self.submit(|reply| Item::Swap { engine, reply }).await
    }

    /// Takes back the end of a replica's log, behind all that is queued.
    pub async fn rewind(&self, rewind: Rewind) -> Result<(), Refusal> {
        self.submit(|reply| Item::Rewind { rewind: Box::new(rewind), reply }).await
    }

    /// What is durable.
    #[must_use]
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// How many items wait for the writer, and their bytes.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        let state = self.queue.state.lock();
        (state.items.len(), state.bytes)
    }

    /// Refuses what comes from here on; what is queued is still done.
    pub fn close(&self) {
        self.queue.state.lock().closed = true;
        self.queue.filled.notify_one();
    }
}

impl Queue {
    /// Waits for items, at most so long; none once the queue is closed and empty.
    fn take(&self, wait: Duration) -> Option<Vec<Item>> {
        let mut state = self.state.lock();
        if state.items.is_empty() && !state.closed {
            self.filled.wait_for(&mut state, wait);
        }
        if state.items.is_empty() && state.closed {
            return None;
        }
        let mut taken = Vec::new();
        let mut taken_bytes = 0;
        while let Some(item) = state.items.pop_front() {
            let bytes = item.bytes();
            let fits = taken.is_empty() || taken_bytes + bytes <= COMMIT_BYTES_MAX;
            if !fits || taken.len() >= COMMIT_ITEMS_MAX {
                state.items.push_front(item);
                break;
            }
            state.bytes -= bytes;
            taken_bytes += bytes;
            taken.push(item);
        }
        Some(taken)
    }
}

/// Starts the writer's thread; those who wait for answers run on the current runtime, if there is one. It ends when the handle is closed and the queue is empty; join it before the file is
/// considered closed.
pub fn spawn(mut writer: Writer) -> std::io::Result<(Handle, JoinHandle<()>)> {
    let handle = Handle { queue: Arc::default(), published: writer.published() };
    let closing = CloseOnDrop(handle.clone());
    writer.runtime = tokio::runtime::Handle::try_current().ok();
    let thread = std::thread::Builder::new().name(format!("writer-{}", writer.shard)).spawn(move || {
        let mut wait = IDLE;
        while let Some(items) = closing.0.queue.take(wait) {
            writer.run_once(items);
            wait = if writer.has_upkeep_left() { IDLE_TRIMMING } else { IDLE };
        }
    })?;
    Ok((handle, thread))
}

/// Refuses what comes after a writer that has ended, and drops what it has not done: its callers learn that at once. One
/// that ended in a panic has failed, whatever its last commit came to (rule 9).
struct CloseOnDrop(Handle);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.published.fail();
        }
        let mut state = self.0.queue.state.lock();
        state.closed = true;
        state.items.clear();
    }
}
