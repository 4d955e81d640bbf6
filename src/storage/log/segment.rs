//! A segment as readers see it: its name, where in it which entry stands, and how entries are read from its file.
//!
//! Reading goes from frame to frame, and checks every one. So as not to begin at a segment's first for each read, places
//! are noted as frames are appended or passed, one for every 64 KiB at most.

use std::fmt::Display;
use std::io;

use bytes::Bytes;
use parking_lot::Mutex;

use super::LogId;
use super::directory::SegmentFile;
use super::frame::{HEAD_BYTES, HEADER_BYTES, Head, Place};
use crate::storage::Error;
use crate::types::{Malformed, Seq};

/// The least distance of two places that are noted, in bytes: a segment has 256 of them, or one for each larger frame.
const POINT_STEP: u32 = 64 << 10;

/// So much is read from a file at once, or the frame that is larger.
const CHUNK_BYTES: u64 = 128 << 10;

/// The name of a segment's file.
pub(super) fn file_name(segment: u32) -> String {
    format!("{segment:010}")
}

/// The number of the segment with this name; none for a file of some other kind.
pub(super) fn number_of(name: &str) -> Option<u32> {
    name.parse().ok().filter(|number| file_name(*number) == name)
}

/// A segment that has frames.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its number.
    pub(super) number: u32,
    /// The entry before its first.
    pub(super) after: Seq,
    /// Bytes of all entries of the log before its first.
    pub(super) bytes_before: u64,
    /// Some frames, in order: the entry before their first, and their offsets. The first frame is always there.
    points: Mutex<Vec<(Seq, u32)>>,
}

impl Segment {
    /// The segment that begins with this frame.
    pub(super) fn beginning_with(head: &Head) -> Segment {
        let points = Mutex::new(vec![(head.after, HEADER_BYTES)]);
        Segment { number: head.place.segment, after: head.after, bytes_before: head.bytes_before, points }
    }

    /// Notes where a frame stands, if it is far enough behind the last that was noted.
    pub(super) fn note(&self, head: &Head) {
        let mut points = self.points.lock();
        let offset = head.place.offset;
        if points.last().is_none_or(|(_, last)| offset >= last.saturating_add(POINT_STEP)) {
            points.push((head.after, offset));
        }
    }

    /// A frame not behind the one that holds the entry after `after`.
    fn begin(&self, after: Seq) -> u32 {
        let points = self.points.lock();
        let behind = points.partition_point(|(seq, _)| *seq <= after);
        points.get(behind.saturating_sub(1)).map_or(HEADER_BYTES, |(_, offset)| *offset)
    }

    /// Reads entries after `batch.last()` from the segment's file, until the batch is full, the segment ends, or `until`
    /// is reached; `until` is durable, and what lies behind it is not looked at.
    pub(super) fn read(
        &self,
        file: &dyn SegmentFile,
        id: LogId,
        until: Seq,
        batch: &mut Gathered,
    ) -> Result<(), Error> {
        let mut window = Window {
            file,
            file_bytes: file.size().map_err(|error| self.unread(0, error))?,
            at: 0,
            bytes: Bytes::new(),
        };
        let mut offset = self.begin(batch.last);
        loop {
            let bytes = window.get(offset, HEAD_BYTES).map_err(|error| self.unread(offset, error))?;
            let place = Place { segment: self.number, offset };
            let head = Head::decode(&bytes, 0, id, place).map_err(|what| self.damaged(offset, what))?;
            self.note(&head);
            if head.after > batch.last {
                return Err(self.damaged(offset, Malformed("a frame that leaves out entries")));
            }
            if head.end() > batch.last {
                let body = window.get(offset + HEAD_BYTES, head.body_bytes());
                let body = body.map_err(|error| self.unread(offset, error))?;
                let entries = head.entries(body).map_err(|what| self.damaged(offset, what))?;
                batch.take(head.after, entries);
            }
            if head.last || head.end() >= until || batch.is_full() {
                return Ok(());
            }
            offset = head.next_offset();
        }
    }

    /// The file could not be read; one that ends too early is damaged.
    fn unread(&self, offset: u32, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged(offset, Malformed("cut short")),
            _ => failed(format_args!("reading segment {} of the log at byte {offset}", file_name(self.number)), error),
        }
    }

    fn damaged(&self, offset: u32, Malformed(what): Malformed) -> Error {
        Error::Corrupt(format!("segment {} of the log at byte {offset}: {what}", file_name(self.number)))
    }
}

/// A call to the disk that failed, in the words of this module.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn failed(doing: impl Display, error: io::Error) -> Error {
    Error::Failed(format!("{doing}: {error}"))
}

/// Entries that were read so far.
#[derive(Debug)]
pub(super) struct Gathered {
    /// The last one that is in; at first the one after which entries were asked for.
    pub(super) last: Seq,
    /// In order, gapless.
    pub(super) entries: Vec<Bytes>,
    bytes: usize,
    bytes_max: usize,
    is_full: bool,
}

impl Gathered {
    /// Nothing yet; at most about `bytes_max` will be taken, or one entry.
    pub(super) fn new(after: Seq, bytes_max: usize) -> Gathered {
        Gathered { last: after, entries: Vec::new(), bytes: 0, bytes_max, is_full: false }
    }

    /// Takes those of `entries` that are wanted, until it is full; the first of them is the one after `after`.
    pub(super) fn take(&mut self, after: Seq, entries: impl IntoIterator<Item = Bytes>) {
        let skipped = usize::try_from(self.last.since(after)).unwrap_or(usize::MAX);
        for entry in entries.into_iter().skip(skipped) {
            self.bytes += entry.len();
            self.is_full = self.bytes > self.bytes_max && !self.entries.is_empty();
            if self.is_full {
                return;
            }
            self.entries.push(entry);
            self.last = self.last.next();
        }
    }

    /// The next entry did not fit.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }
}

/// The part of a file that was read last.
struct Window<'a> {
    file: &'a dyn SegmentFile,
    file_bytes: u64,
    /// Where in the file `bytes` begins.
    at: u64,
    bytes: Bytes,
}

impl Window<'_> {
    /// `len` bytes at `offset`; reads on when they are not here yet.
    fn get(&mut self, offset: u32, len: u32) -> io::Result<Bytes> {
        let (offset, len) = (u64::from(offset), u64::from(len));
        if offset + len > self.file_bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if offset < self.at || offset + len > self.at + self.bytes.len() as u64 {
            let chunk = len.max(CHUNK_BYTES).min(self.file_bytes - offset);
            self.bytes = read(self.file, offset, chunk)?;
            self.at = offset;
        }
        let from = index(offset - self.at);
        Ok(self.bytes.slice(from..from + index(len)))
    }
}

/// Reads `len` bytes at `offset`.
pub(super) fn read(file: &dyn SegmentFile, offset: u64, len: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; index(len)];
    file.read_at(offset, &mut bytes)?;
    Ok(bytes.into())
}

/// Offsets in a segment are below 4 GiB.
fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a segment is below 4 GiB")
}
