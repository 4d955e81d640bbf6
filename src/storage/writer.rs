//! The writer: the one place where a copy changes. It gives seq to writes, puts many of them into one commit, and answers
//! each writer when that commit is durable.
//!
//! ```text
//!   submit ─▶ queue (bounded) ─▶ run_once: check, give seq, decide ─▶ Engine::commit ═ fsync ═▶ publish the end, answer
//! ```
//!
//! - Nothing waits on purpose for a batch to fill: whatever arrived during one commit makes up the next.
//! - A fence is an item of the queue: what stands before it commits and counts, what stands after it is refused (rule 17).
//! - After a failed commit the outcome of that batch is unknown, and the copy takes nothing more until the process
//!   restarts (rule 9).
//!
//! [`Writer::run_once`] is plain code without threads; [`spawn`] is the few lines of thread around it. The idea of the
//! group commit is old (`PostgreSQL`'s `commit_delay`, without the delay).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{oneshot, watch};
use tracing::error;

use super::{Batch, Engine, Error, LogEntry, Role, State, Trim};
use crate::clock::Clock;
use crate::metrics::{self, Committed, Metrics};
use crate::types::{
    Change, ClusterUid, Cursor, Entry, Epoch, History, Incarnation, Key, Mutation, NodeName, Seq, ShardIndex, ShardUid,
    Space, UnixMs, Version,
};

/// Items in one commit.
const COMMIT_ITEMS_MAX: usize = 1024;
/// Bytes in one commit, unless a single write is larger: a large value does not ride with small writes (rule 8).
const COMMIT_BYTES_MAX: usize = 1 << 20;
/// Items waiting for the writer; beyond it a write is refused with `overloaded`.
const QUEUE_ITEMS_MAX: usize = 16 << 10;
/// Bytes waiting for the writer, with the same answer.
const QUEUE_BYTES_MAX: usize = 256 << 20;
/// Idle time after which acknowledgements that came meanwhile are written down.
const IDLE: Duration = Duration::from_secs(1);

/// Whether the copy takes entries, and from whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// From nobody; with the reason, for whoever is refused.
    Closed(String),
    /// Writes of clients, which get seq in this epoch and incarnation.
    Leading {
        /// The leadership.
        epoch: Epoch,
        /// This opening of the file.
        incarnation: Incarnation,
    },
    /// Entries of the leader.
    Following,
}

/// Why the writer did not do it. Of everything but `Unknown` nothing was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The copy takes no writes now.
    #[error("{0}")]
    Closed(String),
    /// The client's time was over before the write was begun.
    #[error("the deadline passed before the write was begun")]
    DeadlinePassed,
    /// The queue is at its bound.
    #[error("the shard's write queue is full")]
    Overloaded,
    /// Less free space than `storage.min_free_bytes`.
    #[error("{free} bytes are free on the disk; storage.min_free_bytes is {min}")]
    DiskFull {
        /// Bytes that are free.
        free: u64,
        /// Bytes that must stay free.
        min: u64,
    },
    /// Entries that do not follow the end of this copy's log.
    #[error("entry {got} does not follow the end of the log, {end}")]
    OutOfOrder {
        /// The first entry offered.
        got: Seq,
        /// The end of the log.
        end: Seq,
    },
    /// The store failed before this was begun, or while it was read for it.
    #[error("{0}")]
    Failed(Error),
    /// The commit failed: the write may be durable, or not (rule 9).
    #[error("the commit failed, and whether it is durable is not known: {0}")]
    Unknown(Error),
}

/// A write that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its version; none for a delete of nothing, which writes nothing.
    pub version: Option<Version>,
    /// Whether the key was there before.
    pub existed: bool,
}

/// What is asked of the writer.
#[derive(Debug)]
pub enum Item {
    /// A client's write.
    Write {
        /// What happens to which key.
        mutation: Mutation,
        /// When its client stops waiting.
        deadline: Instant,
        /// Answered when it is durable, or refused.
        reply: oneshot::Sender<Result<Written, Refusal>>,
    },
    /// Entries that the leader sent.
    Append {
        /// In order, the first being the next after the end.
        entries: Vec<LogEntry>,
        /// Answered with the new end when they are durable.
        reply: oneshot::Sender<Result<Seq, Refusal>>,
    },
    /// Facts to write down.
    Note {
        /// What was learnt.
        facts: Facts,
        /// Answered when they are durable.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// From here on, another mode: a fence.
    SetMode {
        /// The mode.
        mode: Mode,
        /// Written down with it.
        facts: Facts,
        /// Answered when all that stood before it is durable.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// From here on, another file: a snapshot has arrived (rule 14).
    Swap {
        /// The copy that takes over; complete, and durable.
        engine: Arc<dyn Engine>,
        /// Answered when it has taken over.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Item::Write { mutation, .. } => mutation.size(),
            Item::Append { entries, .. } => entries.iter().map(|entry| entry.bytes.len()).sum(),
            Item::Note { .. } | Item::SetMode { .. } | Item::Swap { .. } => 0,
        }
    }
}

/// Facts about the shard and the cluster that a copy persists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The shard's uid.
    pub shard_uid: Option<ShardUid>,
    /// The cluster's uid.
    pub cluster_uid: Option<ClusterUid>,
    /// The shard's epoch.
    pub epoch: Option<Epoch>,
    /// What the copy is.
    pub role: Option<Role>,
}

/// What others want written with the next commit; asked for at each, and after a second of idleness.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Upkeep {
    /// Cursors that replicas acknowledged.
    pub cursors: Vec<(NodeName, Option<Cursor>)>,
    /// What may leave the log.
    pub trim: Option<Trim>,
}

/// Gives the upkeep for a store whose log will end at this seq.
pub type UpkeepSource = Box<dyn FnMut(&dyn Engine, Seq) -> Upkeep + Send>;

/// What the writer shows to readers: only what is durable (rule 8).
#[derive(Debug)]
pub struct Published {
    history: Mutex<History>,
    end: watch::Sender<Seq>,
    engine: arc_swap::ArcSwap<Arc<dyn Engine>>,
    failed: AtomicBool,
}

impl Published {
    fn new(engine: Arc<dyn Engine>, history: History) -> Published {
        let end = watch::Sender::new(history.end());
        let engine = arc_swap::ArcSwap::from_pointee(engine);
        Published { history: Mutex::new(history), end, engine, failed: AtomicBool::new(false) }
    }

    /// The history as of the last durable entry.
    #[must_use]
    pub fn history(&self) -> History {
        self.history.lock().clone()
    }

    /// Looks at the history without copying it.
    pub fn with_history<T>(&self, look: impl FnOnce(&History) -> T) -> T {
        look(&self.history.lock())
    }

    /// The last durable entry.
    #[must_use]
    pub fn end(&self) -> Seq {
        *self.end.borrow()
    }

    /// Tells of each new end.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Seq> {
        self.end.subscribe()
    }

    /// The store that serves.
    #[must_use]
    pub fn engine(&self) -> Arc<dyn Engine> {
        Arc::clone(&self.engine.load())
    }

    /// A commit has failed: nothing is written or offered until the process restarts (rule 9).
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }
}

/// The state of the one place where a copy changes.
pub struct Writer {
    engine: Arc<dyn Engine>,
    published: Arc<Published>,
    clock: Clock,
    shard: ShardIndex,
    mode: Mode,
    /// As of the last entry that was given a seq. Runs ahead of what is published only while a commit is under way; after
    /// a failed one nothing looks at it again.
    history: History,
    /// Entries never go back in time, even when the leader's clock does.
    last_time: UnixMs,
    min_free_bytes: u64,
    metrics: Arc<Metrics>,
    upkeep: UpkeepSource,
}

/// How a writer is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The shard whose entries it makes.
    pub shard: ShardIndex,
    /// Below so much free space it takes no puts.
    pub min_free_bytes: u64,
    /// Where commits are counted.
    pub metrics: Arc<Metrics>,
}

/// What one run has planned: the batch, and who waits for it.
#[derive(Default)]
struct Plan {
    batch: Batch,
    /// Free space, asked once per batch.
    free_bytes: Option<Option<u64>>,
    /// Keys that the batch touches, and whether they exist after it: later items of the batch decide on them (rule 7).
    exists: HashMap<(Space, Key), bool>,
    waiting: Vec<Waiting>,
}

enum Waiting {
    Write(oneshot::Sender<Result<Written, Refusal>>, Written),
    Append(oneshot::Sender<Result<Seq, Refusal>>, Seq),
    Plain(oneshot::Sender<Result<(), Refusal>>),
}

impl Waiting {
    /// Answers; a client that has left is not an error.
    fn answer(self, committed: &Result<(), Error>) {
        let result = committed.clone().map_err(Refusal::Unknown);
        match self {
            Waiting::Write(reply, written) => drop(reply.send(result.map(|()| written))),
            Waiting::Append(reply, end) => drop(reply.send(result.map(|()| end))),
            Waiting::Plain(reply) => drop(reply.send(result)),
        }
    }
}

impl Writer {
    /// A writer for `engine`, closed until someone sets its mode.
    #[must_use]
    pub fn new(engine: Arc<dyn Engine>, state: &State, clock: Clock, options: Options, upkeep: UpkeepSource) -> Writer {
        let published = Arc::new(Published::new(Arc::clone(&engine), state.history.clone()));
        Writer {
            engine,
            published,
            clock,
            shard: options.shard,
            mode: Mode::Closed("the node is starting".into()),
            history: state.history.clone(),
            last_time: UnixMs(0),
            min_free_bytes: options.min_free_bytes,
            metrics: options.metrics,
            upkeep,
        }
    }

    /// What it shows to readers.
    #[must_use]
    pub fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published)
    }

    /// Takes items in order, commits what they come to in one batch, and answers them. With no items it only does the
    /// upkeep.
    pub fn run_once(&mut self, items: impl IntoIterator<Item = Item>) {
        let mut plan = Plan::default();
        for item in items {
            match item {
                Item::Write { mutation, deadline, reply } => self.plan_write(&mut plan, mutation, deadline, reply),
                Item::Append { entries, reply } => self.plan_append(&mut plan, entries, reply),
                Item::Note { facts, reply } => {
                    plan_facts(&mut plan.batch, facts);
                    plan.waiting.push(Waiting::Plain(reply));
                }
                Item::SetMode { mode, facts, reply } => {
                    if !self.published.is_failed() {
                        self.mode = mode;
                    }
                    plan_facts(&mut plan.batch, facts);
                    plan.waiting.push(Waiting::Plain(reply));
                }
                Item::Swap { engine, reply } => {
                    self.commit(std::mem::take(&mut plan));
                    let _ = reply.send(self.swap(engine)); // the follower that asked may be stopping
                }
            }
        }
        self.commit(plan);
    }

    fn plan_write(
        &mut self,
        plan: &mut Plan,
        mutation: Mutation,
        deadline: Instant,
        reply: oneshot::Sender<Result<Written, Refusal>>,
    ) {
        match self.try_write(plan, mutation, deadline) {
            Ok(written) => plan.waiting.push(Waiting::Write(reply, written)),
            Err(refusal) => drop(reply.send(Err(refusal))), // its client may have left
        }
    }

    /// Gives seq to a write, or says why not. All conditions of a write are decided here, in the order of the queue.
    fn try_write(&mut self, plan: &mut Plan, mutation: Mutation, deadline: Instant) -> Result<Written, Refusal> {
        let (epoch, incarnation) = match &self.mode {
            Mode::Leading { epoch, incarnation } => (epoch.clone(), *incarnation),
            Mode::Closed(reason) => return Err(Refusal::Closed(reason.clone())),
            Mode::Following => return Err(Refusal::Closed("this node is a replica of the shard".into())),
        };
        if self.clock.now() >= deadline {
            return Err(Refusal::DeadlinePassed);
        }
        let is_put = matches!(mutation.change, Change::Put(_));
        if is_put {
            self.check_free_space(plan)?; // deletes may use the reserve
        }
        let place = (mutation.space, mutation.key.clone());
        let existed = match plan.exists.get(&place) {
            Some(exists) => *exists,
            None => self.engine.contains(mutation.space, &mutation.key).map_err(Refusal::Failed)?,
        };
        if !is_put && !existed {
            return Ok(Written { version: None, existed });
        }
        let entry = self.next_entry(epoch, incarnation, vec![mutation]);
        let written = Written { version: Some(entry.version()), existed };
        plan.exists.insert(place, is_put);
        let bytes = entry.encode();
        plan.batch.append.push(LogEntry { entry, bytes });
        Ok(written)
    }

    fn check_free_space(&self, plan: &mut Plan) -> Result<(), Refusal> {
        match *plan.free_bytes.get_or_insert_with(|| self.engine.free_bytes()) {
            Some(free) if free < self.min_free_bytes => Err(Refusal::DiskFull { free, min: self.min_free_bytes }),
            _ => Ok(()),
        }
    }

    fn next_entry(&mut self, epoch: Epoch, incarnation: Incarnation, mutations: Vec<Mutation>) -> Entry {
        let seq = self.history.end().next();
        self.history.extend(&epoch, incarnation, seq);
        self.last_time = self.last_time.max(self.clock.unix_ms());
        Entry { shard: self.shard, epoch, incarnation, seq, time: self.last_time, mutations }
    }

    fn plan_append(&mut self, plan: &mut Plan, entries: Vec<LogEntry>, reply: oneshot::Sender<Result<Seq, Refusal>>) {
        match self.try_append(plan, entries) {
            Ok(end) => plan.waiting.push(Waiting::Append(reply, end)),
            Err(refusal) => drop(reply.send(Err(refusal))), // the follower may be stopping
        }
    }

    fn try_append(&mut self, plan: &mut Plan, entries: Vec<LogEntry>) -> Result<Seq, Refusal> {
        match &self.mode {
            Mode::Following => {}
            Mode::Closed(reason) => return Err(Refusal::Closed(reason.clone())),
            Mode::Leading { .. } => return Err(Refusal::Closed("this node leads the shard".into())),
        }
        self.check_free_space(plan)?;
        let first_expected = self.history.end().next();
        for (LogEntry { entry, .. }, expected) in entries.iter().zip(first_expected.0..) {
            if entry.seq != Seq(expected) {
                return Err(Refusal::OutOfOrder { got: entry.seq, end: self.history.end() });
            }
        }
        for LogEntry { entry, .. } in &entries {
            self.history.extend(&entry.epoch, entry.incarnation, entry.seq);
        }
        plan.batch.append.extend(entries);
        Ok(self.history.end())
    }

    /// Makes a plan durable, publishes it, and answers whoever waits.
    fn commit(&mut self, mut plan: Plan) {
        plan.batch.apply_to = plan.batch.append.last().map(|last| last.entry.seq);
        self.plan_upkeep(&mut plan.batch);
        let result = if plan.batch.is_empty() { Ok(()) } else { self.measured_commit(&plan.batch) };
        match &result {
            Ok(()) => self.publish(&plan.batch),
            Err(failure) => self.fail(failure),
        }
        for waiting in plan.waiting {
            waiting.answer(&result);
        }
    }

    fn measured_commit(&self, batch: &Batch) -> Result<(), Error> {
        let (commits, shard) = (&self.metrics.commits, metrics::shard(self.shard));
        let began = self.clock.now();
        let result = self.engine.commit(batch);
        commits.durations.time([shard], self.clock.now().saturating_duration_since(began));
        commits.entries.observe([shard], batch.append.len() as u64);
        commits.bytes.observe([shard], batch.append.iter().map(|entry| entry.bytes.len() as u64).sum());
        let ended = if result.is_ok() { Committed::Ok } else { Committed::Failed };
        commits.ended.inc([shard, ended.index()]);
        result
    }

    fn plan_upkeep(&mut self, batch: &mut Batch) {
        if self.published.is_failed() {
            return;
        }
        let Upkeep { cursors, trim } = (self.upkeep)(&*self.engine, self.history.end());
        batch.cursors = cursors;
        batch.trim = trim;
    }

    fn publish(&mut self, batch: &Batch) {
        let Some(last) = batch.append.last() else { return };
        {
            let mut history = self.published.history.lock();
            for LogEntry { entry, .. } in &batch.append {
                history.extend(&entry.epoch, entry.incarnation, entry.seq);
            }
        }
        self.published.end.send_replace(last.entry.seq);
    }

    fn fail(&mut self, failure: &Error) {
        error!(detail = %failure, "a commit failed: this copy takes nothing more until the process restarts");
        self.published.failed.store(true, Ordering::Release);
        self.mode = Mode::Closed(format!("the store has failed, restart the node: {failure}"));
    }

    fn swap(&mut self, engine: Arc<dyn Engine>) -> Result<(), Refusal> {
        let state = engine.state().map_err(Refusal::Failed)?;
        self.history = state.history;
        self.engine = Arc::clone(&engine);
        *self.published.history.lock() = self.history.clone();
        self.published.engine.store(Arc::new(engine));
        self.published.end.send_replace(self.history.end());
        Ok(())
    }
}

fn plan_facts(batch: &mut Batch, facts: Facts) {
    batch.shard_uid = facts.shard_uid.or(batch.shard_uid);
    batch.cluster_uid = facts.cluster_uid.or(batch.cluster_uid);
    batch.epoch = facts.epoch.or(batch.epoch.take());
    batch.role = facts.role.or(batch.role);
}

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
    /// Queues an item, unless the queue is full or closed.
    fn push(&self, item: Item) -> Result<(), Refusal> {
        let bytes = item.bytes();
        let mut state = self.queue.state.lock();
        if state.closed {
            return Err(Refusal::Closed("the node is stopping".into()));
        }
        if state.items.len() >= QUEUE_ITEMS_MAX || (state.bytes > 0 && state.bytes + bytes > QUEUE_BYTES_MAX) {
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
    /// Waits for items, at most [`IDLE`]; none once the queue is closed and empty.
    fn take(&self) -> Option<Vec<Item>> {
        let mut state = self.state.lock();
        if state.items.is_empty() && !state.closed {
            self.filled.wait_for(&mut state, IDLE);
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

/// Starts the writer's thread. It ends when the handle is closed and the queue is empty; join it before the file is
/// considered closed.
pub fn spawn(mut writer: Writer) -> std::io::Result<(Handle, JoinHandle<()>)> {
    let handle = Handle { queue: Arc::default(), published: writer.published() };
    let queue = Arc::clone(&handle.queue);
    let thread = std::thread::Builder::new().name(format!("writer-{}", writer.shard)).spawn(move || {
        let _closing = CloseOnDrop(Arc::clone(&queue));
        while let Some(items) = queue.take() {
            writer.run_once(items);
        }
    })?;
    Ok((handle, thread))
}

/// Refuses what comes after a writer that has ended, and drops what it has not done: its callers learn that at once.
struct CloseOnDrop(Arc<Queue>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        state.items.clear();
    }
}
