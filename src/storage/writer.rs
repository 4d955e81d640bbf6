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

mod item;
mod mandate;
mod queue;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;
use tracing::error;

pub use item::{Facts, Item, Mode, Refusal, Upkeep, UpkeepSource, Written};
pub use mandate::{Leave, Mandate, STALE_AFTER};
pub use queue::{Handle, spawn};

use super::{Batch, Engine, Error, LogEntry, State};
use crate::clock::Clock;
use crate::metrics::{self, Committed, Metrics};
use crate::types::{Change, Entry, Epoch, History, Incarnation, Key, Mutation, Seq, ShardIndex, Space, UnixMs};

/// How long a batch waits for room in the engine before it is refused.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// Between two looks at whether a leave is still stale, and how many: twenty seconds.
const SETTLE_PAUSE: Duration = Duration::from_millis(5);
const SETTLE_LOOKS_MAX: usize = 4000;

/// What the writer shows to readers: only what is durable (rule 8).
#[derive(Debug)]
pub struct Published {
    history: Mutex<History>,
    end: watch::Sender<Seq>,
    engine: arc_swap::ArcSwap<Arc<dyn Engine>>,
    clock: Clock,
    /// Since when it has failed; set once.
    failed: OnceLock<Instant>,
}

impl Published {
    fn new(engine: Arc<dyn Engine>, history: History, clock: Clock) -> Published {
        let end = watch::Sender::new(history.end());
        let engine = arc_swap::ArcSwap::from_pointee(engine);
        Published { history: Mutex::new(history), end, engine, clock, failed: OnceLock::new() }
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
        self.failed.get().is_some()
    }

    /// Since when.
    #[must_use]
    pub fn failed_since(&self) -> Option<Instant> {
        self.failed.get().copied()
    }

    /// From here on it has failed; true when that is news.
    fn fail(&self) -> bool {
        self.failed.set(self.clock.now()).is_ok()
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
    /// The last commit took entries from the log; there may be more to take.
    is_trimming: bool,
    /// Where those run who wait for answers; none: they are answered from the writer's own thread.
    runtime: Option<runtime::Handle>,
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
    /// Whether the engine has room, asked once per batch.
    has_room: Option<bool>,
    /// Keys that the batch touches, and whether they exist after it: later items of the batch decide on them (rule 7).
    exists: HashMap<(Space, Key), bool>,
    waiting: Vec<Waiting>,
    /// The leave under which its writes got seq.
    mandate: Option<Mandate>,
}

enum Waiting {
    Write(oneshot::Sender<Result<Written, Refusal>>, Written),
    Append(oneshot::Sender<Result<Seq, Refusal>>, Seq),
    Plain(oneshot::Sender<Result<(), Refusal>>),
}

impl Waiting {
    /// Answers; a client that has left is not an error. A write whose leave has ended is not confirmed, though it is there.
    fn answer(self, committed: &Result<(), Error>, is_fenced: bool) {
        let result = committed.clone().map_err(Refusal::Unknown);
        match self {
            Waiting::Write(reply, _) if is_fenced => drop(reply.send(result.and(Err(Refusal::Fenced)))),
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
        let published = Arc::new(Published::new(Arc::clone(&engine), state.history.clone(), clock.clone()));
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
            is_trimming: false,
            runtime: None,
        }
    }

    /// Whether upkeep is left that an idle writer should not wait with.
    fn has_upkeep_left(&self) -> bool {
        self.is_trimming && !self.published.is_failed()
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
        let mut is_idle = true;
        for item in items {
            is_idle = false;
            match item {
                Item::Write { mutation, deadline, reply } => self.plan_write(&mut plan, mutation, deadline, reply),
                Item::Append { entries, reply } => self.plan_append(&mut plan, entries, reply),
                Item::Note { facts, reply } => {
                    plan_facts(&mut plan.batch, facts);
                    plan.waiting.push(Waiting::Plain(reply));
                }
                Item::SetMode { mode, facts, reply } => {
                    if plan.mandate.is_some() {
                        self.commit(std::mem::take(&mut plan)); // all writes of a plan have one leave
                    }
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
        if is_idle {
            self.look_at_the_store();
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
        let now = self.clock.now();
        let (epoch, incarnation) = match &self.mode {
            Mode::Leading { epoch, incarnation, mandate } => match mandate.leave(now) {
                Leave::Good => {
                    plan.mandate.get_or_insert_with(|| mandate.clone());
                    (epoch.clone(), *incarnation)
                }
                Leave::Stale => return Err(Refusal::Held),
                Leave::Ended => {
                    return Err(Refusal::Closed("another node leads the shard, or is about to".into()));
                }
            },
            Mode::Holding => return Err(Refusal::Held),
            Mode::Closed(reason) => return Err(Refusal::Closed(reason.clone())),
            Mode::Following => return Err(Refusal::Closed("this node is a replica of the shard".into())),
        };
        if now >= deadline {
            return Err(Refusal::DeadlinePassed);
        }
        self.check_room(plan)?;
        let is_put = matches!(mutation.change, Change::Put(_));
        let needed = if is_put { self.free_bytes_for(mutation.size()) } else { self.last_reserve() };
        self.check_free_space(plan, needed)?;
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
        plan.batch.existed.push((entry.seq, existed));
        let bytes = entry.encode();
        plan.batch.append.push(LogEntry { entry, bytes });
        Ok(written)
    }

    /// Free space that a write of so many bytes wants to see: the reserve, or what the write itself takes, as data and in
    /// the log, if that is more. For when space runs out inside a commit, the whole store is lost until a restart.
    fn free_bytes_for(&self, bytes: usize) -> u64 {
        self.min_free_bytes.max(self.last_reserve() + 2 * bytes as u64)
    }

    /// Deletes may use the reserve, but for this part of it, which a commit's own pages may need.
    fn last_reserve(&self) -> u64 {
        self.min_free_bytes / 4
    }

    /// Writes wait a while for room before they are refused: the engine is catching up.
    fn check_room(&self, plan: &mut Plan) -> Result<(), Refusal> {
        let has_room = *plan.has_room.get_or_insert_with(|| self.engine.room(ROOM_WAIT));
        if has_room { Ok(()) } else { Err(Refusal::NoRoom) }
    }

    fn check_free_space(&self, plan: &mut Plan, needed: u64) -> Result<(), Refusal> {
        match *plan.free_bytes.get_or_insert_with(|| self.engine.free_bytes()) {
            Some(free) if free < needed => Err(Refusal::DiskFull { free, needed }),
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
            Mode::Leading { .. } | Mode::Holding => {
                return Err(Refusal::Closed("this node leads the shard".into()));
            }
        }
        self.check_room(plan)?;
        let bytes = entries.iter().map(|entry| entry.bytes.len()).sum();
        self.check_free_space(plan, self.free_bytes_for(bytes))?;
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
        self.plan_upkeep(&mut plan);
        self.is_trimming = plan.batch.trim.is_some();
        let result = if plan.batch.is_empty() { Ok(()) } else { self.measured_commit(&plan.batch) };
        match &result {
            Ok(()) => self.publish(&plan.batch),
            Err(failure) => self.fail(failure),
        }
        self.answer(plan.waiting, result, plan.mandate);
    }

    /// Answers all who wait for a commit. Many are answered from the runtime on which they wait: there, waking a task is
    /// a push to the worker's own queue; from this thread it is a lock each, and often a system call.
    fn answer(&self, waiting: Vec<Waiting>, result: Result<(), Error>, mandate: Option<Mandate>) {
        let is_alone = waiting.len() < 2;
        let clock = self.clock.clone();
        let leave = move || mandate.as_ref().map_or(Leave::Good, |mandate| mandate.leave(clock.now()));
        let answer_all = move |leave: Leave| {
            let is_fenced = leave != Leave::Good;
            waiting.into_iter().for_each(|waiting| waiting.answer(&result, is_fenced));
        };
        match &self.runtime {
            Some(runtime) if !is_alone || leave() == Leave::Stale => {
                drop(runtime.spawn(async move { answer_all(settled(leave).await) }));
            }
            _ => answer_all(leave()),
        }
    }

    /// A read may have found the store broken since the last commit: an idle writer looks, for nobody else would say so.
    fn look_at_the_store(&mut self) {
        if let Err(failure @ Error::Failed(_)) = self.engine.stats() {
            self.fail(&failure);
        }
    }

    fn measured_commit(&self, batch: &Batch) -> Result<(), Error> {
        let (commits, shard) = (&self.metrics.commits, metrics::shard(self.shard));
        let began = self.clock.now();
        let result = self.engine.commit(batch);
        commits.durations.time([shard], self.clock.now().saturating_duration_since(began));
        if !batch.append.is_empty() {
            commits.entries.observe([shard], batch.append.len() as u64);
            commits.bytes.observe([shard], batch.append.iter().map(|entry| entry.bytes.len() as u64).sum());
        }
        let ended = if result.is_ok() { Committed::Ok } else { Committed::Failed };
        commits.ended.inc([shard, ended.index()]);
        result
    }

    fn plan_upkeep(&mut self, plan: &mut Plan) {
        if self.published.is_failed() || self.check_free_space(plan, self.last_reserve()).is_err() {
            return; // it can wait until there is space
        }
        let Upkeep { cursors, trim } = (self.upkeep)(&*self.engine, self.history.end());
        plan.batch.cursors = cursors;
        plan.batch.trim = trim;
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
        if self.published.fail() {
            error!(detail = %failure, "the store failed: this copy takes nothing more until the process restarts");
        }
        self.mode = Mode::Closed(format!("the store has failed, restart the node: {failure}"));
    }

    fn swap(&mut self, engine: Arc<dyn Engine>) -> Result<(), Refusal> {
        let state = engine.state().map_err(Refusal::Failed)?;
        self.history = state.history;
        self.engine = Arc::clone(&engine);
        let before = {
            // Both at once: who looks at the history and takes the engine beside it gets two that belong together.
            let mut history = self.published.history.lock();
            *history = self.history.clone();
            self.published.engine.swap(Arc::new(engine))
        };
        drop(before); // which may close a file, and takes its time
        self.published.end.send_replace(self.history.end());
        Ok(())
    }
}

/// What a leave comes to, once it is not stale: that is looked into at once. At most [`SETTLE_LOOKS_MAX`] looks, after which
/// it counts as ended: nobody may be left waiting for an answer.
async fn settled(leave: impl Fn() -> Leave) -> Leave {
    for _ in 0..SETTLE_LOOKS_MAX {
        match leave() {
            Leave::Stale => sleep(SETTLE_PAUSE).await,
            settled => return settled,
        }
    }
    Leave::Ended
}

fn plan_facts(batch: &mut Batch, facts: Facts) {
    batch.shard_uid = facts.shard_uid.or(batch.shard_uid);
    batch.cluster_uid = facts.cluster_uid.or(batch.cluster_uid);
    batch.epoch = facts.epoch.or(batch.epoch.take());
    batch.leadership = facts.leadership.or(batch.leadership.take());
    batch.role = facts.role.or(batch.role);
}
