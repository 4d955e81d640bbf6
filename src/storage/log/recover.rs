//! Where a log ends, and whether what is missing was ever promised. Pure: decides on the bytes of segments.
//!
//! One frame at a time is written, and the next only when it is synced. So after a crash the last frame may be torn, and
//! nothing lies behind it; a torn frame was never acknowledged, and the next one is written over it. What is left of it
//! does no harm: a head says where it stands, and a torn frame has no head but the one that is written over. Everything
//! else is damage:
//!
//! - a frame that does not check, with a frame behind it, in its segment or in a later one;
//! - a segment that ends before the frame that is marked as its last, although a later one has frames;
//! - a segment whose last frame is there, and no segment after it: it was durable before that frame was written;
//! - frames that do not follow each other, segments of another log or shard, a log that ends before what is applied.
//!
//! What nobody can tell from a torn frame is damage to the very last one of the log.

use bytes::Bytes;

use super::LogId;
use super::frame::{HEAD_BYTES, HEADER_BYTES, Head, Header, NoHeader, Place, find_head};
use super::segment::file_name;
use crate::storage::open::OpenFault;
use crate::types::{Seq, ShardIndex};

/// What a segment must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The log.
    pub(super) id: LogId,
    /// Its shard.
    pub(super) shard: ShardIndex,
}

/// What stands at the beginning of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peek {
    /// Its number, by its name.
    pub(super) segment: u32,
    /// Whether its header is whole.
    pub(super) header: bool,
    /// Its first frame's head, if that is whole; its body may not be.
    pub(super) first: Option<Head>,
}

impl Wanted {
    /// Reads the beginning of a segment file. A header that is not whole is no fault yet; another one is.
    pub(super) fn peek(&self, segment: u32, bytes: &Bytes) -> Result<Peek, OpenFault> {
        let header = match Header::decode(bytes) {
            Ok(header) => self.check(segment, header).map(|()| true)?,
            Err(NoHeader::Unreadable) => false,
            Err(NoHeader::Format(found)) => return Err(OpenFault::Format { found, known: super::frame::FORMAT }),
        };
        let place = Place { segment, offset: HEADER_BYTES };
        let first = Head::decode(bytes, HEADER_BYTES as usize, self.id, place).ok();
        Ok(Peek { segment, header, first })
    }

    fn check(&self, segment: u32, header: Header) -> Result<(), OpenFault> {
        let name = file_name(segment);
        if header.id != self.id {
            return Err(damaged(format_args!("segment {name} belongs to log {}, not to {}", header.id, self.id)));
        }
        if header.shard != self.shard {
            return Err(OpenFault::Shard {
                found: format!("(index {})", header.shard),
                wanted: format!("(index {})", self.shard),
            });
        }
        if header.segment != segment {
            return Err(damaged(format_args!("segment {name} was written as {}", file_name(header.segment))));
        }
        Ok(())
    }
}

/// Which of a directory's segments are the log, and from which on they must be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Selection {
    /// How many at the front are left over from a deletion that a crash cut short.
    pub(super) leftover: usize,
    /// The place, among all, of the first that may hold entries that are not applied.
    pub(super) unapplied: usize,
}

/// Chooses among all segments, in order. `applied`: how far the caller holds the entries' effects durably.
pub(super) fn select(peeks: &[Peek], applied: Seq) -> Result<Selection, OpenFault> {
    let gap = peeks.windows(2).rposition(|pair| matches!(pair, [one, next] if one.segment + 1 != next.segment));
    let leftover = gap.map_or(0, |before| before + 1);
    let (_, log) = peeks.split_at(leftover);
    let Some(oldest) = log.first() else {
        return Err(damaged("its log has no segments"));
    };
    // Of deleted segments some may come back after a crash, and others not; but all that is deleted is applied.
    let is_applied = |head: Head| head.after <= applied;
    if leftover > 0 && !oldest.first.is_some_and(is_applied) {
        return Err(damaged(format_args!("the segment before {} of its log is missing", file_name(oldest.segment))));
    }
    if let Some(first) = oldest.first.filter(|first| !is_applied(*first)) {
        let begins = first.after;
        return Err(damaged(format_args!("its log begins after entry {begins}, and only {applied} is applied")));
    }
    // One before the last that begins with what is applied: of that one's first frame only the head may be whole.
    let unapplied =
        log.iter().rposition(|peek| peek.first.is_some_and(is_applied)).map_or(0, |at| at.saturating_sub(1));
    if let Some(bad) = log.iter().take(unapplied + 1).find(|peek| !peek.header || peek.first.is_none()) {
        return Err(damaged(format_args!("segment {} of its log does not begin as it should", file_name(bad.segment))));
    }
    Ok(Selection { leftover, unapplied: leftover + unapplied })
}

/// What was found in a segment that was read as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scan {
    /// Its number.
    pub(super) segment: u32,
    /// Whether its header is whole.
    header: bool,
    /// Its whole frames, in order, with their entries.
    pub(super) frames: Vec<(Head, Vec<Bytes>)>,
    /// Bytes up to the end of the last of them.
    pub(super) end: u32,
    /// A head at `end`, of a frame that is not whole.
    torn: bool,
    /// The place of a head behind `end`.
    beyond: Option<u32>,
}

impl Scan {
    /// Finds the frames of a segment.
    pub(super) fn of(peek: &Peek, bytes: &Bytes, id: LogId) -> Scan {
        let segment = peek.segment;
        let (mut frames, mut end, mut torn) = (Vec::new(), HEADER_BYTES, false);
        let mut closed = false;
        while !closed && let Ok(head) = Head::decode(bytes, end as usize, id, Place { segment, offset: end }) {
            let Some(entries) = whole(&head, bytes) else {
                torn = true;
                break;
            };
            (end, closed) = (head.next_offset(), head.last);
            frames.push((head, entries));
        }
        let beyond = find_head(bytes, end as usize + usize::from(torn), id, segment).map(|head| head.place.offset);
        Scan { segment, header: peek.header, frames, end, torn, beyond }
    }

    fn closed(&self) -> bool {
        self.frames.last().is_some_and(|(head, _)| head.last)
    }
}

/// The entries of a frame whose body is there, and checks.
fn whole(head: &Head, bytes: &Bytes) -> Option<Vec<Bytes>> {
    let from = (head.place.offset + HEAD_BYTES) as usize;
    let to = from.checked_add(head.body_bytes() as usize).filter(|to| *to <= bytes.len())?;
    head.entries(bytes.slice(from..to)).ok()
}

/// How a log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// The head of its last frame.
    pub(super) last: Head,
    /// That frame closed its segment, and this one takes the next frame.
    pub(super) next: Option<u32>,
    /// A segment whose preparation may not have been completed, and that nothing depends on.
    pub(super) unready: Option<u32>,
}

/// Decides where the log ends, from its last segments, in order.
pub(super) fn judge(scans: &[Scan], applied: Seq) -> Result<End, OpenFault> {
    let with_frames = scans.iter().rposition(|scan| !scan.frames.is_empty());
    let (whole, behind) = scans.split_at(with_frames.map_or(0, |at| at + 1));
    let Some((tail, before)) = whole.split_last() else {
        return Err(damaged("its log has no whole frame"));
    };
    for scan in before {
        if !scan.closed() {
            return Err(acknowledged(scan, format_args!("segment {} follows", file_name(scan.segment + 1))));
        }
    }
    if let (false, Some(offset)) = (tail.closed(), tail.beyond) {
        return Err(acknowledged(tail, format_args!("the frame at byte {offset} is there")));
    }
    // Behind a closed segment stands one that takes the next frame; if that frame was to close it at once, one more.
    let (next, unready) = match behind {
        [next, unready @ ..] if tail.closed() && next.header => (Some(next), unready),
        unready if !tail.closed() => (None, unready),
        _ => {
            let name = file_name(tail.segment + 1);
            return Err(damaged(format_args!("segment {name} of its log is missing, or has no header")));
        }
    };
    if let Some((next, offset)) = next.and_then(|next| Some((next, next.beyond?))) {
        return Err(acknowledged(next, format_args!("the frame at byte {offset} is there")));
    }
    if let Some(scan) = unready.iter().find(|scan| scan.torn || scan.beyond.is_some()) {
        return Err(acknowledged(next.unwrap_or(tail), format_args!("segment {} was begun", file_name(scan.segment))));
    }
    if let [_, scan, ..] = unready {
        return Err(damaged(format_args!("segment {} of its log has no place in it", file_name(scan.segment))));
    }
    if let Some(scan) = whole.iter().find(|scan| !scan.header) {
        return Err(damaged(format_args!("segment {} of its log has no readable header", file_name(scan.segment))));
    }
    let last = chained(whole)?;
    if last.end() < applied {
        return Err(damaged(format_args!("its log ends with entry {}, although {applied} is applied", last.end())));
    }
    let number = |scan: &Scan| scan.segment;
    Ok(End { last, next: next.map(number), unready: unready.first().map(number) })
}

/// Checks that each frame goes on where the one before it ended; returns the last.
fn chained(scans: &[Scan]) -> Result<Head, OpenFault> {
    let mut heads = scans.iter().flat_map(|scan| &scan.frames).map(|(head, _)| *head);
    let mut last = heads.next().ok_or_else(|| damaged("its log has no whole frame"))?;
    for head in heads {
        let fits = head.after == last.end()
            && head.bytes_before == last.bytes_after()
            && head.apply_to >= last.apply_to
            && head.apply_to <= head.end();
        if !fits {
            return Err(damaged(format_args!(
                "the frame at byte {} of segment {} begins after entry {}, the one before it ends with {}",
                head.place.offset,
                file_name(head.place.segment),
                head.after,
                last.end()
            )));
        }
        last = head;
    }
    Ok(last)
}

/// Acknowledged entries are not there.
fn acknowledged(scan: &Scan, because: impl std::fmt::Display) -> OpenFault {
    damaged(format_args!(
        "segment {} of its log is damaged at byte {}, behind entry {}: what stood there was durable, for {because}",
        file_name(scan.segment),
        scan.end,
        scan.frames.last().map_or_else(|| "(none)".to_owned(), |(head, _)| head.end().to_string())
    ))
}

fn damaged(what: impl std::fmt::Display) -> OpenFault {
    OpenFault::Damaged(what.to_string())
}
