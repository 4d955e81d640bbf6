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
mod frame;
mod segment;
mod recent;
mod recover;
mod tail;
mod opening;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use self::frame::Head;
use self::recent::Recent;
use self::segment::{Gathered, Segment, failed, file_name};
use self::tail::{Ahead, Maker, Tail};
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

/// Sizes of a log. A segment is at most 1 GiB.
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
    /// The entries after what the caller has applied: durable, and gapless.
    pub entries: Vec<LogEntry>,
    /// How far entries are to be applied: as the last append said, or what the caller has applied if that is more.
    pub apply_to: Seq,
}

/// The log of one shard copy. All methods block; one thread appends, any number read.
#[derive(Debug)]
pub struct Log {
    maker: Maker,
    /// Held by an append until it is durable.
    tail: Mutex<Tail>,
    /// The next segment; held while it is made, by [`Log::prepare`] or by an append that waits for it.
    /// Locked after `tail`, before `view`.
    ahead: Mutex<Ahead>,
    /// What readers may see. Never held while waiting for the disk.
    view: Mutex<View>,
    /// The first error; set once, and final.
    failure: OnceLock<String>,
}

/// The durable part of a log.
#[derive(Debug)]
struct View {
    /// The segments that have frames, the oldest first; never empty, the last one is written to.
    segments: VecDeque<Arc<Segment>>,
    /// The last entry.
    end: Seq,
    /// Bytes of all entries, deleted ones too.
    bytes: u64,
    /// The newest entries.
    recent: Recent,
    /// At least half of the last segment is written: it is time to make the next one ready.
    is_half_full: bool,
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
        let maker = Maker { directory, id, shard, options };
        let mut ahead = Ahead::new(0, None);
        ahead.ensure(&maker)?;
        let mut tail = Tail::fresh(ahead.take(), after);
        let head = tail.encode(id, [].iter(), after); // without entries: from it the log knows where it begins
        if head.last {
            ahead.ensure(&maker)?;
        }
        tail.write(&head)?;
        let segments = VecDeque::from([Arc::new(Segment::beginning_with(&head))]);
        Ok(Log::with(maker, tail, ahead, segments, Recent::new(after, options.recent_bytes)))
    }

    /// Opens the log that `create` made. Leaves out what a crash left half written at its end, and refuses a log in which
    /// anything else is damaged or missing. `applied`: how far the caller holds the entries' effects durably.
    pub fn open(
        directory: Arc<dyn Directory>,
        id: LogId,
        shard: ShardIndex,
        applied: Seq,
        options: Options,
    ) -> Result<(Log, Recovered), OpenFault> {
        opening::open(Maker { directory, id, shard, options }, applied)
    }

    fn with(maker: Maker, tail: Tail, ahead: Ahead, segments: VecDeque<Arc<Segment>>, recent: Recent) -> Log {
        assert!(maker.options.segment_bytes <= 1 << 30, "offsets in a segment, its last frame included, are 32 bits");
        let (end, bytes, is_half_full) = (tail.end, tail.bytes, tail.is_half_full());
        let view = Mutex::new(View { segments, end, bytes, recent, is_half_full });
        Log { maker, tail: Mutex::new(tail), ahead: Mutex::new(ahead), view, failure: OnceLock::new() }
    }

    /// Appends `entries`, and that entries are to be applied up to `apply_to`, as one frame; durable as a whole when it
    /// returns. `entries` may be empty. After an error the outcome is unknown, and the log refuses everything.
    ///
    /// Panics when an entry is not the next, or `apply_to` goes back or lies beyond the end: the caller is wrong.
    pub fn append(&self, entries: &[LogEntry], apply_to: Seq) -> Result<(), Error> {
        let mut tail = self.tail.lock();
        self.check()?;
        let end = entries.iter().fold(tail.end, |last, LogEntry { entry, .. }| {
            assert!(entry.seq == last.next(), "entry {} is appended after {last}", entry.seq);
            entry.seq
        });
        assert!(apply_to >= tail.apply_to, "applied up to {}, and now to {apply_to}", tail.apply_to);
        assert!(apply_to <= end, "entries are to be applied up to {apply_to}, and the log ends with {end}");
        let head = self.lasting(|| self.write(&mut tail, entries, apply_to))?;
        self.view.lock().publish(&head, entries, tail.is_half_full());
        Ok(())
    }

    /// Writes one frame, in the next segment if this one is closed.
    fn write(&self, tail: &mut Tail, entries: &[LogEntry], apply_to: Seq) -> Result<Head, Error> {
        if tail.closed {
            tail.enter(self.ahead.lock().take());
        }
        let head = tail.encode(self.maker.id, entries.iter().map(|entry| &entry.bytes), apply_to);
        if head.last {
            self.ahead.lock().ensure(&self.maker)?;
        }
        tail.write(&head)?;
        Ok(head)
    }

    /// Whether [`Log::prepare`] has something to do. Costs two short locks.
    #[must_use]
    pub fn wants_segment(&self) -> bool {
        let is_half_full = self.view.lock().is_half_full;
        // Who holds the lock is making it.
        is_half_full && self.ahead.try_lock().is_some_and(|ahead| ahead.is_wanted(&self.maker))
    }

    /// Makes the next segment ready when this one is half full: then no append waits for that, and an fdatasync costs half.
    /// Call it off the path of commits, when [`Log::wants_segment`] says so; an append that needs a segment and finds none
    /// makes a smaller one itself. Does nothing when the disk has no space for it.
    pub fn prepare(&self) -> Result<(), Error> {
        self.check()?;
        if !self.view.lock().is_half_full {
            return Ok(());
        }
        let mut ahead = self.ahead.lock();
        self.lasting(|| ahead.prepare(&self.maker))
    }

    /// Entries after `after`, in order, about `bytes_max` bytes of them, at least one if there is one.
    pub fn read(&self, after: Seq, bytes_max: usize) -> Result<Entries, Error> {
        self.check()?;
        let mut batch = Gathered::new(after, bytes_max);
        let (segments, until) = {
            let view = self.view.lock();
            if after < view.start() {
                return Ok(Entries::Trimmed);
            }
            if after >= view.end || view.recent.read(&mut batch) {
                return Ok(Entries::Found(batch.entries));
            }
            (view.segments_from(after), view.end)
        };
        match self.read_files(&segments, until, &mut batch) {
            Err(_) if after < self.start() => Ok(Entries::Trimmed), // deleted meanwhile
            read => self.lasting(|| read).map(|()| Entries::Found(batch.entries)),
        }
    }

    fn read_files(&self, segments: &[Arc<Segment>], until: Seq, batch: &mut Gathered) -> Result<(), Error> {
        for segment in segments {
            let name = file_name(segment.number);
            let file = self.maker.directory.open(&name);
            let file = file.map_err(|error| failed(format_args!("opening segment {name} of the log"), error))?;
            segment.read(&*file, self.maker.id, until, batch)?;
            if batch.is_full() || batch.last >= until {
                break;
            }
        }
        Ok(())
    }

    /// Deletes whole segments, the oldest first: those of which the caller holds every entry's effect durably
    /// (`applied`), as long as at least `keep_bytes` of entries stay. Never the segment that is being written. Returns
    /// the new start.
    pub fn drop_through(&self, applied: Seq, keep_bytes: u64) -> Result<Seq, Error> {
        self.check()?;
        loop {
            let dropped = {
                let mut view = self.view.lock();
                if !view.may_drop(applied, keep_bytes) {
                    return Ok(view.start());
                }
                view.segments.pop_front()
            };
            let Some(segment) = dropped else { return Ok(self.start()) };
            let name = file_name(segment.number);
            // Not synced: a file that is back after a crash is deleted again, or holds a longer log.
            self.lasting(|| {
                let removed = self.maker.directory.remove(&name);
                removed.map_err(|error| failed(format_args!("deleting segment {name} of the log"), error))
            })?;
        }
    }

    /// Which log this is.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.maker.id
    }

    /// The entry before the first that can be read.
    #[must_use]
    pub fn start(&self) -> Seq {
        self.view.lock().start()
    }

    /// The last durable entry.
    #[must_use]
    pub fn end(&self) -> Seq {
        self.view.lock().end
    }

    /// Bytes of the entries that can be read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let view = self.view.lock();
        view.bytes - view.segments.front().map_or(0, |first| first.bytes_before)
    }

    /// Bytes that the files take: those with frames, and the one that is ready.
    pub fn file_bytes(&self) -> Result<u64, Error> {
        self.check()?;
        let len = |name: &String| match self.maker.directory.open(name).and_then(|file| file.size()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0), // deleted meanwhile
            len => len,
        };
        let names = self.maker.directory.list();
        let bytes = names.and_then(|names| names.iter().map(len).sum());
        bytes.map_err(|error| failed("measuring the files of the log", error))
    }

    /// Refuses when an error came before.
    fn check(&self) -> Result<(), Error> {
        self.failure.get().map_or(Ok(()), |first| Err(Error::Failed(first.clone())))
    }

    /// Does `work`. A disk that failed is final; damaged data is the answer to this call only.
    fn lasting<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        work().inspect_err(|error| {
            if matches!(error, Error::Failed(_)) && self.failure.set(error.lasting()).is_ok() {
                tracing::error!(detail = %error, "the log takes no more requests until the process restarts");
            }
        })
    }
}

impl View {
    /// The entry before the first.
    fn start(&self) -> Seq {
        self.segments.front().map_or(self.end, |first| first.after)
    }

    /// Shows a frame that is durable.
    fn publish(&mut self, head: &Head, entries: &[LogEntry], is_half_full: bool) {
        match self.segments.back() {
            Some(last) if last.number == head.place.segment => last.note(head),
            _ => self.segments.push_back(Arc::new(Segment::beginning_with(head))),
        }
        entries.iter().for_each(|entry| self.recent.push(entry.bytes.clone()));
        (self.end, self.bytes, self.is_half_full) = (head.end(), head.bytes_after(), is_half_full);
    }

    /// The segments that hold the entries after this one, which is not before the start.
    fn segments_from(&self, after: Seq) -> Vec<Arc<Segment>> {
        let behind = self.segments.partition_point(|segment| segment.after <= after);
        self.segments.range(behind.saturating_sub(1)..).cloned().collect()
    }

    /// Whether the oldest segment is not needed.
    fn may_drop(&self, applied: Seq, keep_bytes: u64) -> bool {
        let next = self.segments.get(1);
        next.is_some_and(|next| next.after <= applied && self.bytes - next.bytes_before >= keep_bytes)
    }
}
