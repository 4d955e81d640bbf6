//! The engine that tests break on purpose: the promises of [`super::Engine`] on maps in memory, with faults.
//!
//! - the next commit fails, before or after taking effect: the outcome is unknown to the caller both ways;
//! - commits are held at a gate until the test lets them pass;
//! - reads fail;
//! - the free space is what the test says.
//!
//! A [`MemoryDisk`] is to a [`MemoryEngine`] what a file is to a process: open it again and the durable batches are
//! there. It survives no real crash: that is what the simulated disk under the serving engine is for.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::ledger::Ledger;
use super::plan::{Plan, Position};
use super::{ApplyRule, Batch, Chunk, Engine, Entries, Error, Files, LogExtent, State, Stats};
use crate::types::{Change, Entry, Key, Malformed, Record, Seq, ShardIndex, Space};

/// Longest wait at a gate; a test that forgets to open one fails with a message instead of hanging.
const GATE_WAIT_MAX: Duration = Duration::from_secs(30);

/// What engines leave behind. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Contents>>);

#[derive(Debug)]
struct Contents {
    data: BTreeMap<(Space, Key), Bytes>,
    log: BTreeMap<Seq, Bytes>,
    state: State,
    /// The engine that had it open failed.
    unclean: bool,
    commits: u64,
}

impl Default for Contents {
    fn default() -> Contents {
        Contents { data: BTreeMap::new(), log: BTreeMap::new(), state: State::empty(), unclean: false, commits: 0 }
    }
}

/// When a commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// Before anything was written: the batch is not there after a reopening.
    Before,
    /// After all was written: the batch is there after a reopening.
    After,
}

/// A shard copy in memory.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    disk: MemoryDisk,
    faults: Mutex<Faults>,
    gate: Arc<Gate>,
    failure: OnceLock<String>,
}

#[derive(Debug, Default)]
struct Faults {
    next_commit: Option<Failing>,
    reads: bool,
    free_bytes: Option<u64>,
    /// There is no room for more writes.
    is_full: bool,
}

/// Where commits wait.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    closed: bool,
    waiting: u64,
}

/// While it lives, commits wait at the gate; dropping it lets them pass.
#[derive(Debug)]
pub struct ClosedGate(Arc<Gate>);

impl ClosedGate {
    /// Waits until a commit stands at the gate. Panics after half a minute.
    pub fn wait_for_commit(&self) {
        let mut state = self.0.state.lock();
        let timed_out =
            self.0.changed.wait_while_for(&mut state, |state| state.waiting == 0, GATE_WAIT_MAX).timed_out();
        assert!(!timed_out, "no commit came to the gate in {GATE_WAIT_MAX:?}");
    }
}

impl Drop for ClosedGate {
    fn drop(&mut self) {
        self.0.state.lock().closed = false;
        self.0.changed.notify_all();
    }
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock();
        state.waiting += 1;
        self.changed.notify_all();
        let timed_out = self.changed.wait_while_for(&mut state, |state| state.closed, GATE_WAIT_MAX).timed_out();
        state.waiting -= 1;
        assert!(!timed_out, "the gate was not opened in {GATE_WAIT_MAX:?}");
    }
}

impl MemoryEngine {
    /// An engine on a new, empty disk.
    #[must_use]
    pub fn new() -> MemoryEngine {
        MemoryEngine::default()
    }

    /// An engine on what an earlier one left behind. One engine at a time, as with a file.
    #[must_use]
    pub fn on(disk: &MemoryDisk) -> MemoryEngine {
        let mut contents = disk.0.lock();
        contents.state.unclean = std::mem::take(&mut contents.unclean);
        MemoryEngine { disk: disk.clone(), ..MemoryEngine::default() }
    }

    /// What this engine will leave behind.
    #[must_use]
    pub fn disk(&self) -> MemoryDisk {
        self.disk.clone()
    }

    /// Makes the next commit fail, and so the engine from then on.
    pub fn fail_next_commit(&self, when: Failing) {
        self.faults.lock().next_commit = Some(when);
    }

    /// Makes reads fail while it is set. They recover, as a serving engine's would not: a test may want to go on.
    pub fn fail_reads(&self, fail: bool) {
        self.faults.lock().reads = fail;
    }

    /// What [`Engine::free_bytes`] says from now on; at first none.
    pub fn set_free_bytes(&self, bytes: Option<u64>) {
        self.faults.lock().free_bytes = bytes;
    }

    /// What [`Engine::room`] says from now on, without waiting.
    pub fn set_room(&self, has_room: bool) {
        self.faults.lock().is_full = !has_room;
    }

    /// Holds commits, the next one included, until the returned gate is dropped. Reads go on.
    #[must_use]
    pub fn hold_commits(&self) -> ClosedGate {
        self.gate.state.lock().closed = true;
        ClosedGate(Arc::clone(&self.gate))
    }

    /// How many batches became durable, over all openings.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.disk.0.lock().commits
    }

    fn check(&self) -> Result<(), Error> {
        self.failure.get().map_or(Ok(()), |first| Err(Error::Failed(first.clone())))
    }

    fn fail(&self, contents: &mut Contents, error: Error) -> Error {
        contents.unclean = true;
        let _ = self.failure.set(error.lasting()); // the first stays
        error
    }

    fn read<T>(&self, work: impl FnOnce(&Contents) -> Result<T, Error>) -> Result<T, Error> {
        self.check()?;
        if self.faults.lock().reads {
            return Err(Error::Failed("a read that the test wanted to fail".to_owned()));
        }
        work(&self.disk.0.lock())
    }
}

impl Engine for MemoryEngine {
    fn get(&self, space: Space, key: &Key) -> Result<Option<Record>, Error> {
        self.read(|contents| contents.record(space, key))
    }

    fn contains(&self, space: Space, key: &Key) -> Result<bool, Error> {
        self.read(|contents| Ok(contents.data.contains_key(&(space, key.clone()))))
    }

    fn state(&self) -> Result<State, Error> {
        self.check()?;
        Ok(self.disk.0.lock().state.clone())
    }

    fn commit(&self, batch: &Batch) -> Result<(), Error> {
        self.check()?;
        if batch.is_empty() {
            return Ok(());
        }
        self.gate.pass();
        let failing = self.faults.lock().next_commit.take();
        let mut contents = self.disk.0.lock();
        if failing == Some(Failing::Before) {
            return Err(self.fail(&mut contents, wanted_failure()));
        }
        contents.commit(batch).map_err(|error| self.fail(&mut contents, error))?;
        if failing == Some(Failing::After) {
            return Err(self.fail(&mut contents, wanted_failure()));
        }
        Ok(())
    }

    fn entries(&self, after: Seq, bytes_max: usize) -> Result<Entries, Error> {
        self.read(|contents| {
            if after < contents.state.log_start {
                return Ok(Entries::Trimmed);
            }
            let bytes = contents.log.range((Bound::Excluded(after), Bound::Unbounded)).map(|(_, bytes)| bytes);
            Ok(Entries::Found(take_bytes(bytes, bytes_max, |bytes| bytes.len()).cloned().collect()))
        })
    }

    fn chunk(&self, space: Space, after: Option<&Key>, bytes_max: usize) -> Result<Chunk, Error> {
        self.read(|contents| {
            let above = after.map_or(Bound::Unbounded, |key| Bound::Excluded((space, key.clone())));
            let mut rows =
                contents.data.range((above, Bound::Unbounded)).filter(|((in_space, _), _)| *in_space == space);
            let taken = take_bytes(rows.clone(), bytes_max, |((_, key), bytes)| key.as_bytes().len() + bytes.len());
            let records: Vec<_> = taken.map(|((_, key), bytes)| (key.clone(), bytes.clone())).collect();
            let last = rows.nth(records.len()).is_none();
            Ok(Chunk { records, at: contents.state.applied, last })
        })
    }

    fn stats(&self) -> Result<Stats, Error> {
        self.read(|contents| {
            let file_bytes = contents.data.values().chain(contents.log.values()).map(|bytes| bytes.len() as u64).sum();
            Ok(Stats {
                keys: contents.data.len() as u64,
                file_bytes,
                log_bytes: contents.state.log_bytes,
                log_start: contents.state.log_start,
                ..Stats::default()
            })
        })
    }

    fn log_extent(&self) -> Result<LogExtent, Error> {
        self.read(|contents| Ok(LogExtent { start: contents.state.log_start, bytes: contents.state.log_bytes }))
    }

    fn room(&self, _wait: Duration) -> bool {
        !self.faults.lock().is_full
    }

    fn free_bytes(&self) -> Option<u64> {
        self.faults.lock().free_bytes
    }
}

impl Contents {
    /// All of the batch, or an error and nothing: what can fail comes before what changes.
    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        let plan = Plan::new(&self.state, batch);
        if !batch.has_effect(&plan) {
            return Ok(());
        }
        let entries = self.entries_to_apply(batch, &plan)?;
        if batch.apply_rule == ApplyRule::IfNewer {
            for mutation in entries.iter().flat_map(|entry| &entry.mutations) {
                self.record(mutation.space, &mutation.key)?;
            }
        }
        for (space, key, record) in &batch.install {
            self.data.insert((*space, key.clone()), record.clone());
        }
        if batch.adopt.is_some() || batch.rewind.is_some() {
            self.log.clear();
        }
        for (space, key, record) in batch.rewind.iter().flat_map(|rewind| &rewind.replace) {
            let place = (*space, key.clone());
            match record {
                Some(record) => drop(self.data.insert(place, record.clone())),
                None => drop(self.data.remove(&place)),
            }
        }
        self.log.extend(batch.append.iter().map(|appended| (appended.entry.seq, appended.bytes.clone())));
        for entry in &entries {
            self.apply(batch.apply_rule, entry)?;
        }
        let position = self.trim(batch, plan.position);
        self.state.roll(batch, position);
        self.commits += 1;
        Ok(())
    }

    fn entries_to_apply(&self, batch: &Batch, plan: &Plan) -> Result<Vec<Entry>, Error> {
        let range = (Bound::Excluded(plan.apply_after), Bound::Included(plan.position.applied));
        let earlier = if plan.apply_after < plan.position.applied && batch.adopt.is_none() {
            let decode = |(seq, bytes): (&Seq, &Bytes)| {
                Entry::decode(bytes.clone()).map_err(|what| damaged(&format!("entry {seq}"), what))
            };
            self.log.range(range).map(decode).collect::<Result<Vec<_>, _>>()?
        } else {
            Vec::new()
        };
        let wanted = |entry: &&Entry| plan.apply_after < entry.seq && entry.seq <= plan.position.applied;
        Ok(earlier
            .into_iter()
            .chain(batch.append.iter().map(|appended| &appended.entry).filter(wanted).cloned())
            .collect())
    }

    fn apply(&mut self, rule: ApplyRule, entry: &Entry) -> Result<(), Error> {
        for mutation in &entry.mutations {
            let present = match rule {
                ApplyRule::InOrder => None,
                ApplyRule::IfNewer => self.record(mutation.space, &mutation.key)?,
            };
            if !rule.lets_through(entry.version(), present.as_ref()) {
                continue;
            }
            let place = (mutation.space, mutation.key.clone());
            match &mutation.change {
                Change::Put(content) => drop(self.data.insert(place, entry.record(content).encode())),
                Change::Delete => drop(self.data.remove(&place)),
            }
        }
        Ok(())
    }

    fn trim(&mut self, batch: &Batch, mut position: Position) -> Position {
        let Some(trim) = &batch.trim else { return position };
        let mut gone = 0;
        while position.may_trim(trim, gone) {
            let Some((_, bytes)) = self.log.pop_first() else { break };
            position.trimmed_one(bytes.len());
            gone += 1;
        }
        position
    }

    fn record(&self, space: Space, key: &Key) -> Result<Option<Record>, Error> {
        let Some(bytes) = self.data.get(&(space, key.clone())) else { return Ok(None) };
        Record::decode(bytes.clone()).map(Some).map_err(|what| damaged(&format!("the record of {key:?}"), what))
    }
}

/// Items until their sizes pass `bytes_max`; at least one.
fn take_bytes<T>(
    items: impl Iterator<Item = T>,
    bytes_max: usize,
    size_of: impl Fn(&T) -> usize,
) -> impl Iterator<Item = T> {
    let mut total = 0_usize;
    items
        .enumerate()
        .take_while(move |(at, item)| {
            total += size_of(item);
            *at == 0 || total <= bytes_max
        })
        .map(|(_, item)| item)
}

fn wanted_failure() -> Error {
    Error::Failed("a commit that the test wanted to fail".to_owned())
}

fn damaged(place: &str, Malformed(what): Malformed) -> Error {
    Error::Corrupt(format!("{place}: {what}"))
}
/// The files of a copy that lives in memory.
#[derive(Debug, Clone)]
pub struct MemoryFiles(Arc<Ledger>);

impl Default for MemoryFiles {
    fn default() -> MemoryFiles {
        MemoryFiles(Arc::new(Ledger::in_memory(ShardIndex(0))))
    }
}

impl Files for MemoryFiles {
    fn create_incoming(&self) -> Result<Arc<dyn Engine>, Error> {
        let engine = MemoryEngine::new();
        engine.commit(&Batch { incoming: Some(true), ..Batch::default() })?;
        Ok(Arc::new(engine))
    }

    fn promote_incoming(&self) -> Result<(), Error> {
        Ok(()) // whoever received it serves from it
    }

    fn discard_incoming(&self) {} // gone with whoever received it

    fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.0)
    }
}
