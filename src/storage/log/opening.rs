//! Opening a log: reads its segments, does what [`super::recover`] decides, and hands over what is not applied.
//!
//! What an earlier process wrote may be in the system's memory only, and after a failed fsync that memory may hold what
//! the disk does not (rule 9). So a segment is synced, its cached pages are dropped, and then it is read: what was read
//! is durable, and may be served (rule 8).

use std::io;
use std::sync::Arc;

use super::directory::SegmentFile;
use super::frame::{HEAD_BYTES, HEADER_BYTES};
use super::recent::Recent;
use super::recover::{self, Peek, Scan, Wanted};
use super::segment::{Segment, failed, file_name, number_of, read};
use super::tail::{Ahead, Maker, Open, Tail};
use super::{Log, Recovered};
use crate::storage::open::OpenFault;
use crate::storage::{Error, LogEntry};
use crate::types::{Entry, Malformed, Seq};

/// See [`Log::open`].
pub(super) fn open(maker: Maker, applied: Seq) -> Result<(Log, Recovered), OpenFault> {
    let wanted = Wanted { id: maker.id, shard: maker.shard };
    let peeks = segments(&maker)?.into_iter().map(|number| peek(&maker, wanted, number));
    let peeks = peeks.collect::<Result<Vec<_>, _>>()?;
    let selection = recover::select(&peeks, applied)?;
    let unread = peeks.iter().skip(selection.unapplied);
    let scans = unread.map(|peek| scan(&maker, peek)).collect::<Result<Vec<_>, _>>()?;
    let end = recover::judge(&scans, applied)?;
    let entries = unapplied(scans, applied)?;

    let leftover = peeks.iter().take(selection.leftover).map(|peek| peek.segment);
    leftover.chain(end.unready).try_for_each(|segment| remove(&maker, segment))?;
    let last = end.last.place.segment;
    let tail = Tail::behind(writable(&maker, last)?, &end.last);
    let next = end.next.map(|segment| writable(&maker, segment)).transpose()?;
    let firsts = peeks.iter().skip(selection.leftover).filter_map(|peek| peek.first);
    let firsts = firsts.filter(|head| head.place.segment <= last);
    let segments = firsts.map(|head| Arc::new(Segment::beginning_with(&head))).collect();
    let recent = Recent::new(tail.end, maker.options.recent_bytes); // what was read shares large buffers: not kept
    let recovered = Recovered { entries, apply_to: end.last.apply_to.max(applied) };
    Ok((Log::with(maker, tail, Ahead::new(last + 1, next), segments, recent), recovered))
}

/// The numbers of the segments, in order.
fn segments(maker: &Maker) -> Result<Vec<u32>, Error> {
    let names = maker.directory.list().map_err(|error| failed("listing the segments of the log", error))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes what is in the system's memory durable and forgets it, and reads how a segment begins.
fn peek(maker: &Maker, wanted: Wanted, segment: u32) -> Result<Peek, OpenFault> {
    let begin = with_file(maker, segment, "reading", |file| {
        file.sync_data()?;
        file.drop_cache();
        read(file, 0, file.size()?.min(u64::from(HEADER_BYTES + HEAD_BYTES)))
    })?;
    wanted.peek(segment, &begin)
}

fn scan(maker: &Maker, peek: &Peek) -> Result<Scan, OpenFault> {
    let len = with_file(maker, peek.segment, "reading", SegmentFile::size)?;
    if len > u64::from(u32::MAX) {
        let name = file_name(peek.segment);
        return Err(OpenFault::Damaged(format!("segment {name} of its log has {len} bytes: more than any has")));
    }
    let bytes = with_file(maker, peek.segment, "reading", |file| read(file, 0, len))?;
    Ok(Scan::of(peek, &bytes, maker.id))
}

/// Decodes the entries that are not applied.
fn unapplied(scans: Vec<Scan>, applied: Seq) -> Result<Vec<LogEntry>, Error> {
    let mut unapplied = Vec::new();
    for (head, entries) in scans.into_iter().flat_map(|scan| scan.frames) {
        let skipped = usize::try_from(applied.since(head.after)).unwrap_or(usize::MAX);
        let mut last = head.after.max(applied);
        for bytes in entries.into_iter().skip(skipped) {
            let decoded = Entry::decode(bytes.clone()).and_then(|entry| {
                if entry.seq == last.next() { Ok(entry) } else { Err(Malformed("an entry with another seq")) }
            });
            let entry = decoded.map_err(|Malformed(what)| {
                Error::Corrupt(format!("entry {} in segment {}: {what}", last.next(), file_name(head.place.segment)))
            })?;
            last = entry.seq;
            unapplied.push(LogEntry { entry, bytes });
        }
    }
    Ok(unapplied)
}

/// Opens a segment to be written to.
fn writable(maker: &Maker, segment: u32) -> Result<Open, Error> {
    let name = file_name(segment);
    let opened = maker.directory.open(&name).and_then(|file| Ok((file.size()?, file)));
    let (len, file) = opened.map_err(|error| failed(format_args!("opening segment {name} of the log"), error))?;
    Ok(maker.opened(segment, file, len))
}

fn remove(maker: &Maker, segment: u32) -> Result<(), Error> {
    let name = file_name(segment);
    maker.directory.remove(&name).map_err(|error| failed(format_args!("deleting segment {name} of the log"), error))
}

fn with_file<T>(
    maker: &Maker,
    segment: u32,
    doing: &str,
    work: impl FnOnce(&dyn SegmentFile) -> io::Result<T>,
) -> Result<T, Error> {
    let name = file_name(segment);
    let done = maker.directory.open(&name).and_then(|file| work(&*file));
    done.map_err(|error| failed(format_args!("{doing} segment {name} of the log"), error))
}
