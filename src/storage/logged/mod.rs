//! The engine that serves: a log in front of a redb file. A commit is one frame of the log, durable after one fdatasync;
//! what it wrote is readable from memory at once, and is brought into the file later, with thousands of other writes.
//!
//! ```text
//! commit ─▶ log.append ═ fdatasync ═▶ active overlay ─▶ visible, answered
//!                                          │ feed: freeze it, one large redb transaction in the order of keys
//!                                          ▼
//!                      file: data, history, cursors and how far they are applied ═ fsync ═▶ old segments of the log go
//! get ─▶ active overlay → frozen overlay → file        (one published value, `Layers`)
//! ```
//!
//! - The file holds all of the log up to its `applied`, and nothing beyond; an opening applies the rest again.
//! - A key that was written ten times between two feeds costs the file one write; so does a row of the queue nothing: entries
//!   stay in the log until nobody needs them (rule 12), and never enter the file.
//! - Facts (uids, epoch, role) go to the file at once, and are durable when `commit` returns. Cursors and trimming wait for
//!   the next feed: one that is lost is one that went back, which harms nobody.
//! - A file that receives a snapshot has no log: its batches are redb transactions, until it is complete. The log of a file
//!   begins with its first entry after that.
//! - After any failed call to the disk everything is refused until the file is opened again (rule 9).
//!
//! [`Logged::feed_once`] is plain code; `feeder` is the thread that calls it. The idea is that of a log-structured merge
//! tree's memory table, with a B-tree below it.

mod extent;
mod feeder;
mod layers;
mod overlay;
mod place;
mod recovery;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};

pub use place::{Beside, Place};

use self::extent::Extent;
use self::feeder::{Bell, Feeder};
use self::layers::Layers;
use self::overlay::Overlay;
use super::layout::{self, LogRow};
use super::log::{self, Log, LogId};
use super::plan::{Plan, Position};
use super::redb::RedbEngine;
use super::transaction::Feed;
use super::{ApplyRule, Batch, Chunk, Engine, Entries, Error, LogEntry, State, Stats};
use crate::random::Random;
use crate::types::{Cursor, Entry, History, Key, NodeName, Record, Seq, ShardIndex, Space};

/// Bytes of entries that are read back at once, when earlier ones are applied.
const READ_BACK_BYTES: usize = 4 << 20;

/// How large the parts may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// An overlay that takes so much memory is fed. The larger, the less each write costs the device, and the more memory
    /// and time an opening take.
    pub feed_bytes: usize,
    /// Both overlays together: beyond it there is no room ([`Engine::room`]), and writers wait or are refused.
    pub overlay_bytes_max: usize,
    /// The log's.
    pub log: log::Options,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes { feed_bytes: 32 << 20, overlay_bytes_max: 64 << 20, log: log::Options::default() }
    }
}

/// A shard copy in a redb file with a log in front of it.
#[derive(Debug)]
pub struct Logged {
    inner: Arc<Inner>,
    feeder: Option<Feeder>,
}

#[derive(Debug)]
struct Inner {
    /// What readers see.
    layers: ArcSwap<Layers>,
    file: RedbEngine,
    /// From the first entry on.
    front: OnceLock<Front>,
    /// As of the last durable batch. Whoever holds it for writing changes what is visible; a walk holds it for reading.
    state: RwLock<State>,
    /// Batches are committed one after the other. Taken before `state`.
    commits: Mutex<Commits>,
    /// Feeds follow one another. Taken before `commits`.
    feeding: Mutex<()>,
    bell: Bell,
    /// The first error; set once, and final.
    failure: OnceLock<String>,
    /// Another file stands in the place of this one: what is here is of no use any more.
    is_replaced: Arc<AtomicBool>,
    place: Arc<dyn Place>,
    shard: ShardIndex,
    sizes: Sizes,
    random: Random,
}

/// The log in front of the file.
#[derive(Debug)]
struct Front {
    log: Log,
    /// The last entry before the log's first: up to there the file's table may hold entries.
    after: Seq,
}

/// What only commits and feeds look at.
#[derive(Debug)]
struct Commits {
    /// Which log the file names.
    row: Option<LogRow>,
    extent: Extent,
    /// Acknowledged since the last feed.
    cursors: BTreeMap<NodeName, Option<Cursor>>,
}

/// What a feed brings into the file.
struct Frozen {
    overlay: Arc<Overlay>,
    history: History,
    position: Position,
    cursors: Vec<(NodeName, Option<Cursor>)>,
}

/// What a feed came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fed {
    /// The file has all that was there.
    Done,
    /// There was nothing.
    Nothing,
    /// The disk has too little space for it; nothing was begun, nothing is lost, and it may be tried again.
    NoSpace,
}

impl Logged {
    /// Brings all that is applied into the file, lets go of what the log no longer needs, and makes its next segment ready
    /// when it is time for that.
    pub fn feed_once(&self) -> Result<Fed, Error> {
        self.inner.feed_once(false)
    }
}

impl Inner {
    /// Refuses when an error came before.
    fn check(&self) -> Result<(), Error> {
        self.failure.get().map_or(Ok(()), |first| Err(Error::Failed(first.clone())))
    }

    /// From now on everything is refused.
    fn fail(&self, error: &Error) {
        if self.failure.set(error.lasting()).is_ok() {
            tracing::error!(detail = %error, "the store takes no more requests until the process restarts");
            self.bell.wake();
        }
    }

    /// A disk that failed is final; damaged data is the answer to this call only.
    fn read<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.check()?;
        let result = layout::guarded(work);
        if let Err(error @ Error::Failed(_)) = &result {
            self.fail(error);
        }
        result
    }

    fn commit(&self, batch: &Batch) -> Result<(), Error> {
        let mut commits = self.commits.lock();
        self.check()?;
        let plan = Plan::new(&self.state.read(), batch);
        if !batch.has_effect(&plan) {
            return Ok(());
        }
        let committed = if self.front.get().is_none() && !self.may_begin_log(batch) {
            self.commit_to_file(&mut commits, batch)
        } else {
            self.commit_to_log(&mut commits, batch, &plan)
        };
        committed.inspect_err(|error| self.fail(error))
    }

    /// Whether a batch is the first of a file that has all its data: from here on it has a log.
    fn may_begin_log(&self, batch: &Batch) -> bool {
        let state = self.state.read();
        let is_whole = !state.incoming && batch.incoming.is_none() && state.applied == state.history.end();
        let is_plain = batch.install.is_empty() && batch.adopt.is_none() && batch.apply_rule == ApplyRule::InOrder;
        is_whole && is_plain && !batch.append.is_empty()
    }

    /// There is no log: a batch is a redb transaction.
    fn commit_to_file(&self, commits: &mut Commits, batch: &Batch) -> Result<(), Error> {
        self.file.commit(batch)?;
        let mut state = self.state.write();
        *state = State { unclean: state.unclean, ..self.file.state()? };
        commits.extent = Extent::of(&state);
        let layers = self.layers.load();
        self.layers.store(Arc::new(Layers { file: self.file.view(), ..Layers::clone(&layers) }));
        Ok(())
    }

    fn commit_to_log(&self, commits: &mut Commits, batch: &Batch, plan: &Plan) -> Result<(), Error> {
        assert!(
            batch.install.is_empty() && batch.adopt.is_none() && batch.apply_rule == ApplyRule::InOrder,
            "a snapshot is received into a file of its own, which has no log yet"
        );
        let facts = facts_of(batch);
        if !facts.is_empty() {
            self.file.commit(&facts)?;
        }
        let (after, to) = (plan.apply_after, plan.position.applied);
        let mut earlier = Vec::new();
        if !batch.append.is_empty() || after < to {
            let log = self.begin_log(commits)?;
            earlier = self.earlier_entries(batch, after, to)?;
            log.append(&batch.append, to)?;
        }
        for LogEntry { entry, bytes } in &batch.append {
            commits.extent.push(entry.seq, bytes.len());
        }
        if let Some(trim) = &batch.trim {
            commits.extent.trim(trim, to);
        }
        commits.cursors.extend(batch.cursors.iter().cloned());
        let (log_start, log_bytes) = (commits.extent.start, commits.extent.bytes);
        let active_bytes = {
            let mut state = self.state.write();
            let layers = self.layers.load();
            let fresh = batch.append.iter().filter(|entry| after < entry.entry.seq && entry.entry.seq <= to);
            earlier.iter().chain(fresh).for_each(|entry| layers.active.apply(entry));
            state.roll(batch, Position { log_start, log_bytes, ..plan.position });
            layers.active.bytes()
        };
        self.bell.ring(|ring| {
            ring.has_work = true;
            ring.is_full |= active_bytes >= self.sizes.feed_bytes;
        });
        Ok(())
    }

    /// Entries after `after`, up to `to`, that were appended before this batch.
    fn earlier_entries(&self, batch: &Batch, after: Seq, to: Seq) -> Result<Vec<LogEntry>, Error> {
        let here = batch.append.first().map_or(to, |first| Seq(first.entry.seq.0 - 1)).min(to);
        let mut entries: Vec<LogEntry> = Vec::new();
        let mut last = after;
        while last < here {
            let Entries::Found(found) = self.entries(last, READ_BACK_BYTES)? else {
                return Err(Error::Corrupt(format!(
                    "the log no longer holds what follows {last}, which is not applied"
                )));
            };
            if found.is_empty() {
                layout::expect_end(last, here)?;
            }
            for bytes in found {
                let entry = Entry::decode(bytes.clone());
                let entry = entry.map_err(|what| layout::damaged(format_args!("the entry after {last}"), what))?;
                layout::expect_next(last, entry.seq)?;
                last = entry.seq;
                entries.extend((last <= here).then_some(LogEntry { entry, bytes }));
            }
        }
        Ok(entries)
    }

    /// The log, which the file names before anything is in it: so that no file is ever served without it.
    ///
    /// A crash in between leaves a file that names a log without entries, which says so (`is_sealed`).
    fn begin_log(&self, commits: &mut Commits) -> Result<&Log, Error> {
        if let (Some(Front { log, .. }), Some(row)) = (self.front.get(), &mut commits.row) {
            if row.is_sealed {
                self.file.set_log(&LogRow { is_sealed: false, ..*row })?;
                row.is_sealed = false;
            }
            return Ok(log);
        }
        let after = self.state.read().history.end();
        let row = LogRow { id: LogId(self.random.id()), after, is_sealed: true };
        self.file.set_log(&row)?;
        let directory = self.place.create(row.id).map_err(|fault| Error::Failed(fault.to_string()))?;
        let log = Log::create(directory, row.id, self.shard, after, self.sizes.log)?;
        let row = LogRow { is_sealed: false, ..row };
        self.file.set_log(&row)?;
        commits.row = Some(row);
        Ok(&self.front.get_or_init(|| Front { log, after }).log)
    }

    fn entries(&self, after: Seq, bytes_max: usize) -> Result<Entries, Error> {
        let Some(front) = self.front.get() else { return self.file.entries(after, bytes_max) };
        let (start, end) = {
            let state = self.state.read();
            (state.log_start, state.history.end())
        };
        if after < start {
            return Ok(Entries::Trimmed);
        }
        if after >= end {
            return Ok(Entries::Found(Vec::new()));
        }
        if after < front.after {
            return self.file.view().entries(after, front.after, bytes_max);
        }
        front.log.read(after, bytes_max)
    }

    fn feed_once(&self, seals: bool) -> Result<Fed, Error> {
        let _one_at_a_time = self.feeding.lock();
        self.check()?;
        if !self.has_space_to_feed() {
            return Ok(Fed::NoSpace);
        }
        let frozen = self.freeze();
        let fed = self.feed(frozen.as_ref(), seals).and_then(|()| self.tend_log());
        fed.inspect_err(|error| self.fail(error))?;
        Ok(if frozen.is_some() { Fed::Done } else { Fed::Nothing })
    }

    /// Takes what was written so far out of the way of what comes; none when the file has it all.
    fn freeze(&self) -> Option<Frozen> {
        let mut commits = self.commits.lock();
        let state = self.state.write();
        let layers = self.layers.load_full();
        if self.front.get().is_none() || (layers.file.position.applied == state.applied && commits.cursors.is_empty()) {
            return None;
        }
        let overlay = Arc::clone(&layers.active);
        let frozen = Some(Arc::clone(&overlay));
        self.layers.store(Arc::new(Layers { active: Arc::default(), frozen, file: Arc::clone(&layers.file) }));
        let applied = state.applied;
        let position = Position {
            end: applied,
            applied,
            log_start: commits.extent.start.min(applied),
            log_bytes: commits.extent.bytes_up_to(applied),
        };
        let rows = state.history.rows().iter().filter(|row| row.first <= applied).cloned().collect();
        let history = History::new(rows, applied)
            .unwrap_or_else(|fault| unreachable!("the rows up to an entry are its history: {fault}"));
        Some(Frozen { overlay, history, position, cursors: std::mem::take(&mut commits.cursors).into_iter().collect() })
    }

    /// Brings what is frozen into the file, and shows it there.
    fn feed(&self, frozen: Option<&Frozen>, seals: bool) -> Result<(), Error> {
        let seal = {
            let (commits, state) = (self.commits.lock(), self.state.read());
            let needs_no_log = seals && state.applied == state.history.end();
            let row = commits.row.filter(|row| needs_no_log && !row.is_sealed);
            row.map(|row| LogRow { is_sealed: true, ..row })
        };
        match (frozen, seal) {
            (Some(frozen), seal) => {
                let known = self.file.state()?.history.end();
                let rows: Vec<_> = frozen.history.rows().iter().filter(|row| row.first > known).cloned().collect();
                frozen.overlay.with_sorted(|records| {
                    let (position, cursors) = (frozen.position, &frozen.cursors[..]);
                    let feed = Feed { records, rows: &rows, cursors, position, log_row: seal.as_ref() };
                    self.file.feed(&feed, frozen.history.clone())
                })?;
                let layers = self.layers.load();
                let active = Arc::clone(&layers.active); // only a feed replaces it, and this is the one
                self.layers.store(Arc::new(Layers { active, frozen: None, file: self.file.view() }));
                self.bell.wake(); // there is room
            }
            (None, Some(seal)) => self.file.set_log(&seal)?,
            (None, None) => {}
        }
        if seal.is_some() {
            self.commits.lock().row = seal;
        }
        Ok(())
    }

    /// Deletes the segments that nobody needs, for their effects are in the file, and no replica is behind them. Makes the
    /// next one ready.
    fn tend_log(&self) -> Result<(), Error> {
        let Some(Front { log, .. }) = self.front.get() else { return Ok(()) };
        let start = self.commits.lock().extent.start;
        log.drop_through(start.min(self.layers.load().file.position.applied), 0)?;
        log.prepare()
    }

    /// Bytes that a feed of all that is in memory may take: the values, and a path of new pages for each key, for the tree
    /// is copied on write; no more than a copy of the whole.
    fn feed_need(&self) -> u64 {
        const PATH_BYTES: u64 = 8 << 10;
        let layers = self.layers.load();
        let keys = layers.active.len() + layers.frozen.as_ref().map_or(0, |frozen| frozen.len());
        layers.bytes() as u64 + (keys as u64 * PATH_BYTES).min(self.file.file_bytes().unwrap_or(u64::MAX))
    }

    fn has_space_to_feed(&self) -> bool {
        self.file.free_bytes().is_none_or(|free| free >= self.feed_need())
    }

    fn chunk(&self, space: Space, after: Option<&Key>, bytes_max: usize) -> Result<Chunk, Error> {
        loop {
            let layers = self.layers.load_full();
            let base = layers.base(space, after, bytes_max)?;
            layers.active.prepare_walk();
            let state = self.state.read(); // nobody inserts from here on: short, for the disk was asked before
            if Arc::ptr_eq(&layers, &self.layers.load()) {
                return Ok(layers.chunk(after, base, bytes_max, state.applied));
            }
            // A feed began or ended meanwhile, which happens a few times in a minute.
        }
    }

    fn keys(&self) -> Result<u64, Error> {
        loop {
            let layers = self.layers.load_full();
            layers.keys()?; // looks up what nobody has looked up yet
            let _state = self.state.read(); // nobody inserts from here on
            if Arc::ptr_eq(&layers, &self.layers.load()) {
                return layers.keys();
            }
        }
    }

    /// Whether the overlays are within their bound.
    fn has_room(&self) -> bool {
        self.layers.load().bytes() < self.sizes.overlay_bytes_max
    }

    /// Everything into the file, so that it is complete without its log; or, when another file stands in its place, the log
    /// goes.
    fn close(&self) {
        if self.is_replaced.load(Ordering::SeqCst) {
            let row = self.commits.lock().row;
            if let Some(Err(error)) = row.map(|row| self.place.remove(row.id)) {
                tracing::warn!(detail = %error, "the log of a replaced file cannot be removed; the next start tries again");
            }
            return;
        }
        if self.failure.get().is_some() {
            return; // what the log holds is applied at the next opening
        }
        match layout::guarded(|| self.feed_once(true)) {
            Ok(Fed::NoSpace) => tracing::warn!(
                "too little space to bring the last writes into the file: they stay in the log beside it, for the next start"
            ),
            Ok(Fed::Done | Fed::Nothing) => {}
            Err(error) => {
                tracing::error!(detail = %error, "the last writes are not in the file, but in the log beside it")
            }
        }
    }
}

impl Engine for Logged {
    fn get(&self, space: Space, key: &Key) -> Result<Option<Record>, Error> {
        self.inner.read(|| self.inner.layers.load().get(space, key))
    }

    fn contains(&self, space: Space, key: &Key) -> Result<bool, Error> {
        self.inner.read(|| self.inner.layers.load().contains(space, key))
    }

    fn state(&self) -> Result<State, Error> {
        self.inner.check()?;
        Ok(self.inner.state.read().clone())
    }

    fn commit(&self, batch: &Batch) -> Result<(), Error> {
        self.inner.commit(batch)
    }

    fn entries(&self, after: Seq, bytes_max: usize) -> Result<Entries, Error> {
        self.inner.read(|| self.inner.entries(after, bytes_max))
    }

    fn chunk(&self, space: Space, after: Option<&Key>, bytes_max: usize) -> Result<Chunk, Error> {
        self.inner.read(|| self.inner.chunk(space, after, bytes_max))
    }

    fn log_extent(&self) -> Result<(Seq, u64), Error> {
        self.inner.check()?;
        let state = self.inner.state.read();
        Ok((state.log_start, state.log_bytes))
    }

    fn room(&self, wait: Duration) -> bool {
        let inner = &self.inner;
        inner.has_room() || inner.bell.wait_for(wait, || inner.has_room() || inner.failure.get().is_some())
    }

    fn flush(&self) -> Result<(), Error> {
        self.inner.feed_once(false).map(drop)
    }

    fn stats(&self) -> Result<Stats, Error> {
        let inner = &self.inner;
        let keys = inner.read(|| inner.keys())?;
        let Stats { file_bytes, cache, .. } = inner.file.stats()?;
        let (log_start, log_bytes) = self.log_extent()?;
        let in_log = inner.front.get().map_or(Ok(0), |front| inner.read(|| front.log.file_bytes()))?;
        let file_bytes = file_bytes + in_log;
        Ok(Stats { keys, file_bytes, log_bytes, log_start, cache })
    }

    fn free_bytes(&self) -> Option<u64> {
        let free = self.inner.file.free_bytes()?;
        Some(free.saturating_sub(self.inner.feed_need()))
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        if let Some(feeder) = self.feeder.take() {
            feeder.stop(&self.inner.bell);
        }
        self.inner.close();
    }
}

/// The part of a batch that goes to the file at once.
fn facts_of(batch: &Batch) -> Batch {
    let Batch { shard_uid, cluster_uid, role, incoming, .. } = *batch;
    Batch { shard_uid, cluster_uid, epoch: batch.epoch.clone(), role, incoming, ..Batch::default() }
}
