//! The format of a segment file: a header, and frames behind each other. Pure.
//!
//! ```text
//! header   magic 8 │ format u32 = 1 │ shard u32 │ log id u64 │ segment u32 │ crc32c u32                      32 bytes
//! head     log id u64 │ segment u32 │ offset u32 │ after u64 │ apply to u64 │ bytes before u64
//!          │ entries u32 │ flags u32 (1: last of its segment) │ body bytes u32 │ crc32c of the body u32
//!          │ crc32c of the head u32                                                                         60 bytes
//! body     { bytes u32 │ entry } …
//! ```
//!
//! Numbers are big-endian. A head says where it stands: bytes that were copied or misdirected are no frame, and behind a
//! damaged place frames are found again by the log id that each begins with. What lies before a frame was synced before
//! the frame was written, so a head is also a witness that all before it was durable once.

use bytes::{BufMut, Bytes};

use super::LogId;
use crate::types::codec::Reader;
use crate::types::{Malformed, Seq, ShardIndex};

const MAGIC: &[u8; 8] = b"ostr-log";

/// The number of this format.
pub(super) const FORMAT: u32 = 1;

/// Bytes of a segment's header.
pub(super) const HEADER_BYTES: u32 = 32;

/// Bytes of a frame before its body.
pub(super) const HEAD_BYTES: u32 = 60;

/// Most bytes of a body. Callers bound their commits far below it.
pub(super) const BODY_BYTES_MAX: usize = 1 << 30;

/// The flag of a frame behind which its segment has no other; the next segment was durable before it was written.
const FLAG_LAST: u32 = 1;

/// What a segment file says at its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The log it belongs to.
    pub(super) id: LogId,
    /// The shard whose log that is.
    pub(super) shard: ShardIndex,
    /// Its number in the log, from 0.
    pub(super) segment: u32,
}

/// A header that is none of this program's log, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoHeader {
    /// Not whole: a crash during its preparation, or damage.
    Unreadable,
    /// Written by a newer program.
    Format(u32),
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES as usize);
        out.put_slice(MAGIC);
        out.put_u32(FORMAT);
        out.put_u32(self.shard.0);
        out.put_u64(self.id.0);
        out.put_u32(self.segment);
        out.put_u32(crc32c::crc32c(&out));
        out
    }

    /// Reads the header of a segment that begins with `bytes`.
    pub(super) fn decode(bytes: &Bytes) -> Result<Header, NoHeader> {
        Header::take(bytes)
            .map_err(|_| NoHeader::Unreadable)
            .and_then(|(format, header)| if format == FORMAT { Ok(header) } else { Err(NoHeader::Format(format)) })
    }

    fn take(bytes: &Bytes) -> Result<(u32, Header), Malformed> {
        let (covered, mut reader) = checked(bytes, 0, HEADER_BYTES)?;
        if reader.take(MAGIC.len())? != MAGIC[..] {
            return Err(Malformed("a header of another program"));
        }
        let format = reader.u32()?;
        let header = Header { shard: ShardIndex(reader.u32()?), id: LogId(reader.u64()?), segment: reader.u32()? };
        verify(&covered, reader.u32()?, "a header whose checksum does not match")?;
        Ok((format, header))
    }
}

/// Where a frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The segment's number.
    pub(super) segment: u32,
    /// Bytes of the segment before it.
    pub(super) offset: u32,
}

/// What a frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Where it stands.
    pub(super) place: Place,
    /// The entry before its first.
    pub(super) after: Seq,
    /// How far entries are to be applied once it is durable; never goes back.
    pub(super) apply_to: Seq,
    /// Bytes of all entries of the log before its own, deleted ones too: differences tell how much is held.
    pub(super) bytes_before: u64,
    /// How many entries it holds.
    pub(super) entries: u32,
    /// No frame follows in its segment.
    pub(super) last: bool,
    body_bytes: u32,
    body_checksum: u32,
}

impl Head {
    /// Its last entry; the one before its first when it holds none.
    pub(super) fn end(&self) -> Seq {
        Seq(self.after.0 + u64::from(self.entries))
    }

    /// Bytes of all entries of the log up to its last.
    pub(super) fn bytes_after(&self) -> u64 {
        self.bytes_before + u64::from(self.body_bytes) - 4 * u64::from(self.entries)
    }

    /// Bytes of the segment up to its end. A head that was read is near: the sum does not overflow.
    pub(super) fn next_offset(&self) -> u32 {
        self.place.offset + HEAD_BYTES + self.body_bytes
    }

    /// Bytes of its body.
    pub(super) fn body_bytes(&self) -> u32 {
        self.body_bytes
    }

    /// Reads the head at `at` of `bytes`, where it must say that it stands at `place`.
    pub(super) fn decode(bytes: &Bytes, at: usize, id: LogId, place: Place) -> Result<Head, Malformed> {
        let (covered, mut reader) = checked(bytes, at, HEAD_BYTES)?;
        if reader.u64()? != id.0 {
            return Err(Malformed("no frame of this log"));
        }
        let found = Place { segment: reader.u32()?, offset: reader.u32()? };
        let head = Head {
            place: found,
            after: Seq(reader.u64()?),
            apply_to: Seq(reader.u64()?),
            bytes_before: reader.u64()?,
            entries: reader.u32()?,
            last: reader.u32()? & FLAG_LAST != 0,
            body_bytes: reader.u32()?,
            body_checksum: reader.u32()?,
        };
        verify(&covered, reader.u32()?, "a frame's head whose checksum does not match")?;
        if found != place {
            return Err(Malformed("a frame that was written for another place"));
        }
        let fits = head.body_bytes as usize <= BODY_BYTES_MAX && u64::from(head.entries) * 4 <= head.body_bytes.into();
        let counts = head.after.0.checked_add(head.entries.into()).is_some()
            && head.bytes_before.checked_add(head.body_bytes.into()).is_some();
        if fits && counts { Ok(head) } else { Err(Malformed("a frame whose numbers are out of bounds")) }
    }

    /// Takes its entries from `body`, without copying them.
    pub(super) fn entries(&self, body: Bytes) -> Result<Vec<Bytes>, Malformed> {
        verify(&body, self.body_checksum, "a frame whose checksum does not match")?;
        let mut reader = Reader::new(body);
        let mut entries = Vec::with_capacity(self.entries as usize);
        for _ in 0..self.entries {
            let bytes = reader.u32()? as usize;
            entries.push(reader.take(bytes)?);
        }
        reader.finish()?;
        Ok(entries)
    }
}

/// The checked part and a reader of `len` bytes at `at`, the last four of which are a checksum.
fn checked(bytes: &Bytes, at: usize, len: u32) -> Result<(Bytes, Reader), Malformed> {
    let len = len as usize;
    if bytes.len().saturating_sub(at) < len {
        return Err(Malformed("cut short"));
    }
    Ok((bytes.slice(at..at + len - 4), Reader::new(bytes.slice(at..at + len))))
}

fn verify(covered: &[u8], checksum: u32, what: &'static str) -> Result<(), Malformed> {
    if crc32c::crc32c(covered) == checksum { Ok(()) } else { Err(Malformed(what)) }
}

/// Begins a frame in `out`, in the place of what is there: room for the head, and the body.
pub(super) fn encode_body<'a>(out: &mut Vec<u8>, entries: impl Iterator<Item = &'a Bytes>) {
    out.clear();
    out.put_bytes(0, HEAD_BYTES as usize);
    for entry in entries {
        out.put_u32(u32::try_from(entry.len()).expect("an entry is far below 4 GiB"));
        out.put_slice(entry);
    }
    let body_bytes = out.len() - HEAD_BYTES as usize;
    assert!(body_bytes <= BODY_BYTES_MAX, "a commit of {body_bytes} bytes, more than {BODY_BYTES_MAX}");
}

/// What of a head is not told by the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Envelope {
    /// The log.
    pub(super) id: LogId,
    /// Where it will stand.
    pub(super) place: Place,
    /// The entry before its first.
    pub(super) after: Seq,
    /// How far to apply.
    pub(super) apply_to: Seq,
    /// Bytes of the entries before.
    pub(super) bytes_before: u64,
    /// How many entries the body holds.
    pub(super) entries: u32,
    /// No frame follows in its segment.
    pub(super) last: bool,
}

/// Completes the frame that [`encode_body`] began; returns its head.
pub(super) fn encode_head(out: &mut [u8], envelope: &Envelope) -> Head {
    let Envelope { id, place, after, apply_to, bytes_before, entries, last } = *envelope;
    let (head, body) = out.split_at_mut(HEAD_BYTES as usize);
    let (covered, mut checksum) = head.split_at_mut(HEAD_BYTES as usize - 4);
    let body_bytes = u32::try_from(body.len()).expect("a body is at most BODY_BYTES_MAX");
    let body_checksum = crc32c::crc32c(body);
    let mut fields = &mut *covered;
    fields.put_u64(id.0);
    fields.put_u32(place.segment);
    fields.put_u32(place.offset);
    fields.put_u64(after.0);
    fields.put_u64(apply_to.0);
    fields.put_u64(bytes_before);
    fields.put_u32(entries);
    fields.put_u32(if last { FLAG_LAST } else { 0 });
    fields.put_u32(body_bytes);
    fields.put_u32(body_checksum);
    checksum.put_u32(crc32c::crc32c(covered));
    Head { place, after, apply_to, bytes_before, entries, last, body_bytes, body_checksum }
}

/// The first place from `from` on at which a head stands that says so itself.
pub(super) fn find_head(bytes: &Bytes, from: usize, id: LogId, segment: u32) -> Option<Head> {
    let mark = id.0.to_be_bytes();
    let mut at = from;
    while let Some(rest) = bytes.get(at..) {
        let found = at + rest.windows(mark.len()).position(|window| window == mark)?;
        let place = Place { segment, offset: u32::try_from(found).ok()? };
        if let Ok(head) = Head::decode(bytes, found, id, place) {
            return Some(head);
        }
        at = found + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: LogId = LogId(0x0102_0304_0506_0708);

    fn envelope() -> Envelope {
        Envelope {
            id: ID,
            place: Place { segment: 5, offset: 32 },
            after: Seq(7),
            apply_to: Seq(8),
            bytes_before: 300,
            entries: 2,
            last: true,
        }
    }

    fn frame(entries: &[&'static [u8]], envelope: Envelope) -> Bytes {
        let entries: Vec<Bytes> = entries.iter().map(|entry| Bytes::from_static(entry)).collect();
        let mut out = Vec::new();
        encode_body(&mut out, entries.iter());
        encode_head(&mut out, &Envelope { entries: u32::try_from(entries.len()).unwrap(), ..envelope });
        out.into()
    }

    #[test]
    fn header_encoding_has_its_golden_bytes() {
        let header = Header { id: ID, shard: ShardIndex(2), segment: 5 };
        let golden = b"ostr-log\0\0\0\x01\0\0\0\x02\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x05";
        let bytes = header.encode();
        assert_eq!(bytes[..28].escape_ascii().to_string(), golden.escape_ascii().to_string());
        assert_eq!(bytes[28..], crc32c::crc32c(golden).to_be_bytes());
        assert_eq!(Header::decode(&bytes.into()), Ok(header));
    }

    #[test]
    fn frame_encoding_has_its_golden_bytes() {
        let golden_body = b"\0\0\0\x02ab\0\0\0\x01c";
        let mut golden = b"\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x05\0\0\0\x20\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x08\
            \0\0\0\0\0\0\x01\x2c\0\0\0\x02\0\0\0\x01\0\0\0\x0b"
            .to_vec();
        golden.put_u32(crc32c::crc32c(golden_body));
        golden.put_u32(crc32c::crc32c(&golden));
        golden.put_slice(golden_body);
        let bytes = frame(&[b"ab", b"c"], envelope());
        assert_eq!(bytes.escape_ascii().to_string(), golden.escape_ascii().to_string());
        let head = Head::decode(&bytes, 0, ID, envelope().place).unwrap();
        assert_eq!((head.end(), head.bytes_after(), head.next_offset(), head.last), (Seq(9), 303, 32 + 71, true));
        assert_eq!(head.entries(bytes.slice(60..)), Ok(vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")]));
    }

    #[test]
    fn frame_any_flipped_bit_is_noticed() {
        let bytes = frame(&[b"entry", b"", b"another"], envelope());
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            let bad = Bytes::from(bad);
            let head = Head::decode(&bad, 0, ID, envelope().place);
            assert!(head.and_then(|head| head.entries(bad.slice(60..))).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn header_any_flipped_bit_is_noticed() {
        let bytes = Header { id: ID, shard: ShardIndex(2), segment: 5 }.encode();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bad.into()), Err(NoHeader::Unreadable), "bit {bit}");
        }
    }

    #[test]
    fn header_of_a_newer_program_says_its_format() {
        let mut bytes = Header { id: ID, shard: ShardIndex(2), segment: 5 }.encode();
        bytes[11] = 2;
        let checksum = crc32c::crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(Header::decode(&bytes.into()), Err(NoHeader::Format(2)));
    }

    #[test]
    fn head_search_finds_the_frame_that_stands_where_it_says_and_no_copy_of_it() {
        let own = frame(&[b"x"], Envelope { place: Place { segment: 5, offset: 100 }, ..envelope() });
        let mut bytes = vec![0; 40];
        bytes.extend_from_slice(&own); // a copy, at 40
        bytes.resize(100, 1);
        bytes.extend_from_slice(&own);
        let bytes = Bytes::from(bytes);
        assert_eq!(find_head(&bytes, 0, ID, 5).map(|head| head.place.offset), Some(100));
        assert_eq!(find_head(&bytes, 101, ID, 5), None);
        assert_eq!(find_head(&bytes, 0, ID, 6), None, "of another segment");
        assert_eq!(find_head(&bytes, 0, LogId(1), 5), None, "of another log");
    }

    proptest! {
        #[test]
        fn frame_rubbish_never_panics(bytes: Vec<u8>, entries: u32) {
            let bytes = Bytes::from(bytes);
            let _ = Header::decode(&bytes);
            let _ = find_head(&bytes, 0, ID, 5);
            let sum = crc32c::crc32c(&bytes);
            let head = Head { entries: entries % 1000, body_checksum: sum, ..Head::decode(&frame(&[], envelope()), 0, ID, envelope().place).unwrap() };
            let _ = head.entries(bytes);
        }
    }
}
