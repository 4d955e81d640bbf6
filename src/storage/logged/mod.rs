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
//! - A rewind (rule 21) is one transaction of the file, after a feed: in it the file forgets its log, and gets another.
//! - After any failed call to the disk everything is refused until the file is opened again (rule 9).
//!
//! [`Logged::feed_once`] is plain code; `feeder` is the thread that calls it. The idea is that of a log-structured merge
//! tree's memory table, with a B-tree below it.

mod commit;
mod extent;
mod feed;
mod feeder;
mod layers;
mod overlay;
mod place;
mod recovery;
mod rewind;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::{Mutex, RwLock};

pub use place::{Beside, Place};

use self::extent::Extent;
use self::feeder::{Bell, Feeder};
use self::layers::Layers;
use super::layout::{self, LogRow};
use super::log::{self, Log};
use super::redb::RedbEngine;
use super::{Batch, Chunk, Engine, Entries, Error, LogExtent, State, Stats};
use crate::random::Random;
use crate::types::{Cursor, Key, NodeName, Record, Seq, ShardIndex, Space};

/// Most keys that one count of them looks up in the file. Beyond it, a count is off by what is new among the rest, until
/// later counts have looked them up, or a feed has brought them into the file.
const LOOKS_MAX: usize = 32 << 10;
/// The same, for those that came while it looked: commits wait meanwhile.
const LOOKS_LOCKED_MAX: usize = 1 << 10;

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
    /// From the first entry on, of a new file and of one that was rewound.
    front: ArcSwapOption<Front>,
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
    /// Bytes of pages that one transaction of a feed may change.
    slice_bytes: usize,
    random: Random,
}

/// The log in front of the file.
#[derive(Debug)]
struct Front {
    log: Log,
    /// The last entry before the log's first: up to there the file's table may hold entries.
    after: Seq,
    place: Arc<dyn Place>,
    /// The file needs it no more: it goes with the last who reads it.
    is_forgotten: AtomicBool,
}

impl Drop for Front {
    fn drop(&mut self) {
        if self.is_forgotten.load(Ordering::SeqCst)
            && let Err(error) = self.place.remove(self.log.id())
        {
            tracing::warn!(detail = %error, "a log that is of no use any more cannot be removed; the next start tries again");
        }
    }
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
    /// Brings all that is applied into the file, and lets go of what the log no longer needs.
    pub fn feed_once(&self) -> Result<Fed, Error> {
        self.inner.feed_once(false)
    }

    /// Makes the log's next segment ready when it is time for that: otherwise a commit will have to.
    pub fn prepare_log(&self) -> Result<(), Error> {
        let front = self.inner.front.load_full();
        front.map_or(Ok(()), |front| front.log.prepare()).inspect_err(|error| self.inner.fail(error))
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

    fn entries(&self, after: Seq, bytes_max: usize) -> Result<Entries, Error> {
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
        match self.front.load_full() {
            Some(front) if after >= front.after => front.log.read(after, bytes_max),
            Some(front) => self.file.view().entries(after, front.after, bytes_max),
            None => self.file.entries(after, bytes_max),
        }
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
            layers.keys(LOOKS_MAX)?; // looks up what nobody has looked up yet
            let _state = self.state.read(); // nobody inserts from here on
            if Arc::ptr_eq(&layers, &self.layers.load()) {
                return layers.keys(LOOKS_LOCKED_MAX);
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

    fn log_extent(&self) -> Result<LogExtent, Error> {
        self.inner.check()?;
        let state = self.inner.state.read();
        Ok(LogExtent { start: state.log_start, bytes: state.log_bytes })
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
        let LogExtent { start: log_start, bytes: log_bytes } = self.log_extent()?;
        let in_log = inner.front.load_full().map_or(Ok(0), |front| inner.read(|| front.log.file_bytes()))?;
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
