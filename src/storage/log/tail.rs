//! The end of a log, where it is written: the segment that takes the next frame, and the one that is made ready behind it.
//!
//! An fdatasync costs least when it has nothing to tell the file system but the data: measured, a frame of 20 KB takes
//! half the time and half the CPU when it overwrites zeros that are on the disk already than when it makes the file
//! longer. So a segment is filled with zeros ahead of time, off the path of commits. One that had to be made within a
//! commit is not, and is left soon. The price is that every byte of a log is written twice.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use bytes::Bytes;

use super::directory::{Directory, SegmentFile};
use super::frame::{Envelope, HEADER_BYTES, Head, Header, Place, encode_body, encode_head};
use super::segment::{failed, file_name};
use super::{LogId, Options};
use crate::storage::Error;
use crate::types::{Seq, ShardIndex};

/// The part of a segment's size after which one without zeros is left.
const PLAIN_SHARE: u32 = 16;

/// The encode buffer keeps so much room between two frames; a larger frame's is given back.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// Zeros are written in pieces of this size. What is written at once the system may keep as one large page of memory, and
/// an append that touches it would count as writing all of it.
const ZEROS_BYTES: u32 = 4 << 10;
static ZEROS: [u8; ZEROS_BYTES as usize] = [0; ZEROS_BYTES as usize];

/// So many of them are synced at once. An append's fdatasync waits for what stands before it in the device's queue: measured,
/// a segment of zeros at once made some writes wait 10 to 20 ms.
const ZEROS_SYNCED_BYTES: u32 = 256 << 10;

/// How segments are made.
#[derive(Debug)]
pub(super) struct Maker {
    pub(super) directory: Arc<dyn Directory>,
    pub(super) id: LogId,
    pub(super) shard: ShardIndex,
    pub(super) options: Options,
}

/// A segment file that is open for writing.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) number: u32,
    pub(super) file: Box<dyn SegmentFile>,
    /// A frame that reaches this offset is the segment's last.
    pub(super) limit: u32,
}

impl Maker {
    /// Makes a segment without frames, durable as such.
    fn make(&self, number: u32) -> io::Result<Open> {
        let file = self.directory.create(&file_name(number))?;
        file.write_at(0, &Header { id: self.id, shard: self.shard, segment: number }.encode())?;
        file.sync_data()?;
        self.directory.sync()?;
        Ok(self.opened(number, file, HEADER_BYTES.into()))
    }

    /// A segment of this length, as it is to be written on.
    pub(super) fn opened(&self, number: u32, file: Box<dyn SegmentFile>, len: u64) -> Open {
        let Options { segment_bytes, .. } = self.options;
        let limit = if len >= segment_bytes.into() { segment_bytes } else { segment_bytes / PLAIN_SHARE };
        Open { number, file, limit }
    }

    /// Fills a segment without frames with zeros, if it is not.
    fn fill(&self, open: &mut Open) -> io::Result<()> {
        if !self.is_filled(open) {
            fill(&*open.file, self.options.segment_bytes)?;
            open.limit = self.options.segment_bytes;
        }
        Ok(())
    }

    fn is_filled(&self, open: &Open) -> bool {
        open.limit == self.options.segment_bytes
    }
}

fn fill(file: &dyn SegmentFile, len: u32) -> io::Result<()> {
    let (mut at, mut synced) = (HEADER_BYTES, HEADER_BYTES);
    while at < len {
        let piece = (len - at).min(ZEROS_BYTES);
        file.write_at(at.into(), ZEROS.get(..piece as usize).unwrap_or(&ZEROS))?;
        at += piece;
        if at == len || at - synced >= ZEROS_SYNCED_BYTES {
            file.sync_data()?;
            synced = at;
        }
    }
    Ok(())
}

/// The segment behind the one that is written to.
#[derive(Debug)]
pub(super) struct Ahead {
    /// Its number. Kept here, and not taken from what readers see, for they see a segment only when it has a frame: a
    /// number that is used twice would be an error, or worse.
    number: u32,
    /// Durable, and without frames; none until it is made.
    open: Option<Open>,
    /// There was no space for it, and it is not tried again ahead of time.
    had_no_space: bool,
}

impl Ahead {
    pub(super) fn new(number: u32, open: Option<Open>) -> Ahead {
        Ahead { number, open, had_no_space: false }
    }

    /// Makes the segment, if it is not made.
    pub(super) fn ensure(&mut self, maker: &Maker) -> Result<(), Error> {
        self.try_ensure(maker).map(drop).map_err(|error| self.not_made(error))
    }

    fn try_ensure(&mut self, maker: &Maker) -> io::Result<&mut Open> {
        let open = self.open.take().map_or_else(|| maker.make(self.number), Ok)?;
        Ok(self.open.insert(open))
    }

    /// Makes the segment, and fills it. Where there is no space for that, there is none to spare: nothing is left of it.
    pub(super) fn prepare(&mut self, maker: &Maker) -> Result<(), Error> {
        if !self.is_wanted(maker) {
            return Ok(());
        }
        match self.try_ensure(maker).and_then(|open| maker.fill(open)) {
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                tracing::warn!(detail = %error, "the next segment of the log is not made ahead of time");
                (self.open, self.had_no_space) = (None, true);
                match maker.directory.remove(&file_name(self.number)) {
                    Err(error) if error.kind() != ErrorKind::NotFound => Err(self.not_made(error)),
                    _ => Ok(()),
                }
            }
            done => done.map_err(|error| self.not_made(error)),
        }
    }

    /// There is something to prepare.
    pub(super) fn is_wanted(&self, maker: &Maker) -> bool {
        !self.had_no_space && !self.open.as_ref().is_some_and(|open| maker.is_filled(open))
    }

    /// Gives it away, to be written to; it must be made.
    pub(super) fn take(&mut self) -> Open {
        let open = self.open.take().expect("a segment is closed only when the next one is durable");
        *self = Ahead::new(self.number + 1, None);
        open
    }

    fn not_made(&self, error: io::Error) -> Error {
        failed(format_args!("making segment {} of the log", file_name(self.number)), error)
    }
}

/// Where the next frame goes. Moves only when a frame is durable.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) open: Open,
    /// Bytes of the segment that are written.
    pub(super) offset: u32,
    /// The segment has its last frame: the next one enters the next segment.
    pub(super) closed: bool,
    /// The last entry.
    pub(super) end: Seq,
    /// How far entries are to be applied.
    pub(super) apply_to: Seq,
    /// Bytes of all entries of the log, deleted ones too.
    pub(super) bytes: u64,
    /// The frame that is being written; its room is used again.
    buffer: Vec<u8>,
}

impl Tail {
    /// The tail of a segment that holds no frame.
    pub(super) fn fresh(open: Open, end: Seq) -> Tail {
        Tail { open, offset: HEADER_BYTES, closed: false, end, apply_to: end, bytes: 0, buffer: Vec::new() }
    }

    /// The tail behind the last frame of a log.
    pub(super) fn behind(open: Open, last: &Head) -> Tail {
        let (offset, closed, apply_to, bytes) = (last.next_offset(), last.last, last.apply_to, last.bytes_after());
        Tail { offset, closed, apply_to, bytes, ..Tail::fresh(open, last.end()) }
    }

    /// At least half of its segment is written.
    pub(super) fn is_half_full(&self) -> bool {
        self.offset >= self.open.limit / 2
    }

    /// Goes on in the next segment.
    pub(super) fn enter(&mut self, next: Open) {
        assert_eq!(next.number, self.open.number + 1, "segments are entered in order");
        (self.open, self.offset, self.closed) = (next, HEADER_BYTES, false);
    }

    /// Encodes the next frame. If it is the segment's last, the next segment must be durable before it is written.
    pub(super) fn encode<'a>(
        &mut self,
        id: LogId,
        entries: impl ExactSizeIterator<Item = &'a Bytes>,
        apply_to: Seq,
    ) -> Head {
        let count = u32::try_from(entries.len()).expect("a commit has less than 2^32 entries");
        encode_body(&mut self.buffer, entries);
        let frame_bytes = u32::try_from(self.buffer.len()).expect("a frame is below 2 GiB");
        let last = self.offset.saturating_add(frame_bytes) >= self.open.limit;
        let place = Place { segment: self.open.number, offset: self.offset };
        let (after, bytes_before) = (self.end, self.bytes);
        encode_head(&mut self.buffer, &Envelope { id, place, after, apply_to, bytes_before, entries: count, last })
    }

    /// Writes the frame that was encoded, waits until it is durable, and moves behind it.
    pub(super) fn write(&mut self, head: &Head) -> Result<(), Error> {
        let Place { segment, offset } = head.place;
        let file = &self.open.file;
        let written = file.write_at(u64::from(offset), &self.buffer).and_then(|()| file.sync_data());
        written.map_err(|error| {
            failed(format_args!("writing segment {} of the log at byte {offset}", file_name(segment)), error)
        })?;
        (self.offset, self.closed) = (head.next_offset(), head.last);
        (self.end, self.apply_to, self.bytes) = (head.end(), head.apply_to, head.bytes_after());
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        Ok(())
    }
}
