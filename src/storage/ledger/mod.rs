//! The ledger: what a copy held and its shard's leader never had, for good (rule 21). Kept in `FILE.ledger` beside the
//! database file, and untouched by whatever becomes of that one: a rewind, a snapshot, a reset.
//!
//! ```text
//! open ─▶ sync what is there, look through it ─▶ append, append, … each one frame ═ fsync ─▶ only then is anything taken back
//! ```
//!
//! - Append only: it is never trimmed, and at its bound an append is refused, never made room for. Its reader moves it away.
//! - What a crash left half written at its end is not read, and is written over. Damage anywhere else is said: what stands
//!   before and behind it is still read, and nothing is appended any more.
//! - The file is opened by name for each use: one that was moved away is not written to, and a new one begins.
//!
//! One session at a time appends ([`Ledger::open`]); any number read. All methods block.

mod frame;
mod memory;

use std::collections::HashSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

pub use frame::{Page, Return};

use self::frame::{HEAD_BYTES, HEADER_BYTES, Head, Header, find_head};
use super::log::{Directory, FileDirectory, SegmentFile};
use super::open;
use crate::random::Random;
use crate::types::{Entry, Key, Seq, ShardIndex, Version};

/// Entries in a frame are about so many bytes, unless one is larger.
pub const PAGE_BYTES: usize = 1 << 20;
/// So much is searched at once for a frame behind a damaged place.
const SEARCH_BYTES: u64 = 1 << 20;

/// Why nothing was appended, or not all was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is at its bound.
    #[error("the ledger of lost writes, {file}, has {bytes} bytes and may have {max} (storage.ledger_bytes_max)")]
    Full {
        /// Its file.
        file: String,
        /// Bytes that it has.
        bytes: u64,
        /// Bytes that it may have.
        max: u64,
    },
    /// Its bytes are not what was written.
    #[error("the ledger of lost writes, {file}, is damaged: {what}")]
    Damaged {
        /// Its file.
        file: String,
        /// Where, and how.
        what: String,
    },
    /// The disk failed.
    #[error("the ledger of lost writes, {file}: {what}")]
    Failed {
        /// Its file.
        file: String,
        /// What went wrong.
        what: String,
    },
}

/// How much there is in a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Writes that it lists.
    pub writes: u64,
    /// Bytes of its file.
    pub bytes: u64,
}

/// A part of a ledger, as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The body of a frame, which [`Page::decode`] reads; none at the end.
    pub body: Option<Bytes>,
    /// Where to go on reading.
    pub next: u64,
    /// What was skipped, because it is damaged.
    pub damage: Option<String>,
}

/// Which writes are listed, by seq and a checksum of the key: an entry of several writes may be listed in parts.
type Listed = HashSet<(Seq, u32)>;

/// A copy's lost writes.
pub struct Ledger {
    home: Home,
    shard: ShardIndex,
    random: Random,
    known: Mutex<Known>,
}

/// What is known of the file without looking into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Known {
    /// A session has synced it up to here: readers go no further. None: no session since the process started.
    durable: Option<u64>,
    /// The last count, and of a file of which length.
    counted: Option<Summary>,
}

enum Home {
    /// A file by its path.
    Path(PathBuf),
    /// A file in a directory that is at hand.
    Directory(Arc<dyn Directory>),
}

/// The name of a ledger in a directory of its own.
const NAME: &str = "ledger";

impl Ledger {
    /// The ledger of the copy whose database file this is.
    #[must_use]
    pub fn beside(file: &Path, shard: ShardIndex, random: Random) -> Ledger {
        Ledger::at(Home::Path(open::with_suffix(file, ".ledger")), shard, random)
    }

    /// A ledger in a directory of its own: the seam for simulated disks.
    #[must_use]
    pub fn in_directory(directory: Arc<dyn Directory>, shard: ShardIndex, random: Random) -> Ledger {
        Ledger::at(Home::Directory(directory), shard, random)
    }

    /// A ledger of a copy that lives in memory.
    #[must_use]
    pub fn in_memory(shard: ShardIndex) -> Ledger {
        Ledger::in_directory(Arc::new(memory::Memory::default()), shard, Random::seeded(1))
    }

    fn at(home: Home, shard: ShardIndex, random: Random) -> Ledger {
        Ledger { home, shard, random, known: Mutex::default() }
    }

    /// Its file, in words.
    #[must_use]
    pub fn file(&self) -> String {
        match &self.home {
            Home::Path(path) => path.display().to_string(),
            Home::Directory(_) => NAME.to_owned(),
        }
    }

    fn place(&self) -> io::Result<(Arc<dyn Directory>, String)> {
        match &self.home {
            Home::Path(path) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                Ok((Arc::new(FileDirectory::open(open::parent_of(path))?), name))
            }
            Home::Directory(directory) => Ok((Arc::clone(directory), NAME.to_owned())),
        }
    }

    fn failed(&self, error: impl fmt::Display) -> Error {
        Error::Failed { file: self.file(), what: error.to_string() }
    }

    fn damaged(&self, what: impl fmt::Display) -> Error {
        Error::Damaged { file: self.file(), what: what.to_string() }
    }

    /// Begins to append. What is there is durable when this returns, whatever crash may have left it; `mine` tells which of
    /// the listed entries the copy still holds and is about to list: those are not listed again.
    pub fn open(&self, mine: impl Fn(&Entry) -> bool) -> Result<Session<'_>, Error> {
        let (directory, name) = self.place().map_err(|error| self.failed(error))?;
        let (file, header) = self.open_file(&*directory, &name)?;
        let mut session =
            Session { ledger: self, file, id: header.id, end: HEADER_BYTES, writes: 0, listed: HashSet::new() };
        session.look_through(mine)?;
        *self.known.lock() = Known { durable: Some(session.end), counted: None };
        Ok(session)
    }

    /// Opens the file, or makes one; all of it is durable then, and so is its name.
    fn open_file(&self, directory: &dyn Directory, name: &str) -> Result<(Box<dyn SegmentFile>, Header), Error> {
        let failed = |error: io::Error| self.failed(error);
        let file = match directory.open(name) {
            Err(error) if error.kind() == ErrorKind::NotFound => directory.create(name).map_err(failed)?,
            opened => opened.map_err(failed)?,
        };
        file.sync_data().and_then(|()| directory.sync()).map_err(failed)?;
        file.drop_cache();
        let size = file.size().map_err(failed)?;
        match self.header(&*file, size) {
            Ok(header) => Ok((file, header)),
            // The crash came before its first sync: nothing was ever in it.
            Err(_) if size <= HEADER_BYTES => {
                let header = Header { id: self.random.id(), shard: self.shard };
                file.write_at(0, &header.encode()).and_then(|()| file.sync_data()).map_err(failed)?;
                Ok((file, header))
            }
            Err(error) => Err(error),
        }
    }

    fn header(&self, file: &dyn SegmentFile, size: u64) -> Result<Header, Error> {
        let bytes = read(file, 0, size.min(HEADER_BYTES)).map_err(|error| self.failed(error))?;
        let header = Header::decode(&bytes).map_err(|fault| self.damaged(fault.0))?;
        if header.shard == self.shard {
            Ok(header)
        } else {
            Err(self.damaged(format_args!("it belongs to shard index {}, not {}", header.shard, self.shard)))
        }
    }

    /// How much is in it. Looks through it when it has changed; nothing where there is no ledger.
    pub fn summary(&self) -> Result<Summary, Error> {
        let Some((file, size)) = self.open_to_read()? else { return Ok(Summary::default()) };
        if let Some(counted) = self.known.lock().counted.filter(|counted| counted.bytes == size) {
            return Ok(counted);
        }
        let (mut at, mut writes) = (HEADER_BYTES, 0);
        if size <= HEADER_BYTES {
            return Ok(Summary { writes, bytes: size });
        }
        let id = self.header(&*file, size)?.id;
        loop {
            let Looked { head, next, .. } = self.look(&*file, id, at, self.readable(size))?;
            match head {
                Some(head) => writes += u64::from(head.writes),
                None => break,
            }
            at = next;
        }
        let summary = Summary { writes, bytes: size };
        self.known.lock().counted = Some(summary);
        Ok(summary)
    }

    /// The frame at `at`, which an earlier part named; 0 is the beginning.
    pub fn read(&self, at: u64) -> Result<Part, Error> {
        let end = |next| Part { body: None, next, damage: None };
        let Some((file, size)) = self.open_to_read()? else { return Ok(end(at)) };
        if size <= HEADER_BYTES {
            return Ok(end(at));
        }
        let id = self.header(&*file, size)?.id;
        let Looked { body, next, damage, .. } = self.look(&*file, id, at.max(HEADER_BYTES), self.readable(size))?;
        Ok(Part { body, next, damage })
    }

    /// Whether it lists a write of this key with this version.
    pub fn lists(&self, key: &Key, version: Version) -> Result<bool, Error> {
        let mut at = 0;
        loop {
            let Part { body, next, .. } = self.read(at)?;
            let Some(body) = body else { return Ok(false) };
            for entry in self.entries(body)? {
                if entry.version() == version && entry.mutations.iter().any(|mutation| mutation.key == *key) {
                    return Ok(true);
                }
            }
            at = next;
        }
    }

    fn entries(&self, body: Bytes) -> Result<Vec<Entry>, Error> {
        let page = Page::decode(body);
        let entries = page.and_then(|page| page.entries.into_iter().map(Entry::decode).collect());
        entries.map_err(|fault| self.damaged(fault.0))
    }

    fn open_to_read(&self) -> Result<Option<ToRead>, Error> {
        let opened = self.place().and_then(|(directory, name)| directory.open(&name));
        match opened.and_then(|file| Ok((file.size()?, file))) {
            Ok((size, file)) => Ok(Some((file, size))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// How far a file of this length is read.
    fn readable(&self, size: u64) -> u64 {
        self.known.lock().durable.map_or(size, |durable| durable.min(size))
    }

    /// The frame at `at`, or the first behind it when that is damaged.
    fn look(&self, file: &dyn SegmentFile, id: u64, at: u64, size: u64) -> Result<Looked, Error> {
        let failed = |error: io::Error| self.failed(error);
        let (mut from, mut damage) = (at, None);
        loop {
            let bytes = read(file, from, size.saturating_sub(from).min(HEAD_BYTES)).map_err(failed)?;
            let head = Head::decode(&bytes, id, from).ok().filter(|head| head.end() <= size);
            let body = match head {
                Some(head) => Some(read(file, from + HEAD_BYTES, head.body_bytes.into()).map_err(failed)?),
                None => None,
            };
            if let (Some(head), Some(body)) = (head, body.filter(|body| head.is_some_and(|head| head.covers(body)))) {
                return Ok(Looked { head: Some(head), body: Some(body), next: head.end(), damage });
            }
            let Some(behind) = self.search(file, id, from + 1, size)? else {
                return Ok(Looked { head: None, body: None, next: from, damage });
            };
            damage = Some(format!("what stands at byte {from} cannot be read; it goes on at byte {behind}"));
            from = behind;
        }
    }

    /// Where the next head stands, from `at` on.
    fn search(&self, file: &dyn SegmentFile, id: u64, at: u64, size: u64) -> Result<Option<u64>, Error> {
        let mut from = at;
        while from + HEAD_BYTES <= size {
            let len = (size - from).min(SEARCH_BYTES);
            let bytes = read(file, from, len).map_err(|error| self.failed(error))?;
            if let Some(head) = find_head(&bytes, id, from) {
                return Ok(Some(head.offset));
            }
            if from + len == size {
                break;
            }
            from += len - (HEAD_BYTES - 1); // a head may lie across two pieces
        }
        Ok(None)
    }
}

/// The file, and how many bytes it has.
type ToRead = (Box<dyn SegmentFile>, u64);

/// What stands at a place of a ledger.
struct Looked {
    head: Option<Head>,
    body: Option<Bytes>,
    next: u64,
    damage: Option<String>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("file", &self.file()).finish_non_exhaustive()
    }
}

fn read(file: &dyn SegmentFile, at: u64, len: u64) -> io::Result<Bytes> {
    let mut out = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    file.read_at(at, &mut out)?;
    Ok(out.into())
}

/// A ledger that is being appended to.
#[derive(Debug)]
pub struct Session<'l> {
    ledger: &'l Ledger,
    file: Box<dyn SegmentFile>,
    id: u64,
    /// Where the next frame goes.
    end: u64,
    writes: u64,
    listed: Listed,
}

impl Session<'_> {
    fn look_through(&mut self, mine: impl Fn(&Entry) -> bool) -> Result<(), Error> {
        let ledger = self.ledger;
        let size = self.file.size().map_err(|error| ledger.failed(error))?;
        loop {
            let Looked { head, body, next, damage } = ledger.look(&*self.file, self.id, self.end, size)?;
            if let Some(damage) = damage {
                return Err(ledger.damaged(damage));
            }
            let (Some(head), Some(body)) = (head, body) else { break };
            for entry in ledger.entries(body)?.iter().filter(|entry| mine(entry)) {
                self.listed.extend(entry.mutations.iter().map(|mutation| place(entry.seq, &mutation.key)));
            }
            (self.end, self.writes) = (next, self.writes + u64::from(head.writes));
        }
        if self.end < size {
            tracing::warn!(
                file = ledger.file(),
                at = self.end,
                bytes = size - self.end,
                "cut what a crash left half written at the end of the ledger of lost writes"
            );
        }
        Ok(())
    }

    /// Whether all writes of an entry are listed.
    #[must_use]
    pub fn lists(&self, entry: &Entry) -> bool {
        entry.mutations.iter().all(|mutation| self.listed.contains(&place(entry.seq, &mutation.key)))
    }

    /// Lists these entries, as one frame; durable when it returns. Refused when the file would grow beyond `bytes_max`.
    pub fn append(&mut self, back: &Return, entries: &[Entry], bytes_max: u64) -> Result<(), Error> {
        let ledger = self.ledger;
        let writes = entries.iter().map(|entry| entry.mutations.len()).sum::<usize>();
        let writes = u32::try_from(writes).unwrap_or_else(|_| unreachable!("a frame has about a MiB"));
        let body = Page { back: back.clone(), entries: entries.iter().map(Entry::encode).collect() }.encode();
        let frame = frame::encode(self.id, self.end, self.writes, writes, &body);
        let end = self.end + frame.len() as u64;
        if end > bytes_max {
            return Err(Error::Full { file: ledger.file(), bytes: self.end, max: bytes_max });
        }
        let written = self.file.write_at(self.end, &frame).and_then(|()| self.file.sync_data());
        written.map_err(|error| ledger.failed(error))?;
        (self.end, self.writes) = (end, self.writes + u64::from(writes));
        *ledger.known.lock() = Known { durable: Some(end), counted: None };
        Ok(())
    }

    /// Writes that the ledger lists.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.writes
    }
}

fn place(seq: Seq, key: &Key) -> (Seq, u32) {
    (seq, crc32c::crc32c(key.as_bytes()))
}

#[cfg(test)]
mod tests;
