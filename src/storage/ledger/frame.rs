//! The format of a ledger: a header, and frames behind each other. Pure.
//!
//! ```text
//! header   magic 8 │ format u32 = 1 │ shard u32 │ ledger id u64 │ crc32c u32                                 28 bytes
//! head     ledger id u64 │ offset u64 │ writes before u64 │ writes u32 │ body bytes u32 │ crc32c of the body u32
//!          │ crc32c of the head u32                                                                         40 bytes
//! body     the return: last common seq varint │ end varint │ epoch that superseded │ complete u8 │ at varint
//!          │ { bytes varint │ entry } …
//! ```
//!
//! Numbers are big-endian. As in a log, a head says where it stands, so that behind a damaged place frames are found again,
//! and each frame was durable before the next one was written: a frame that does not check and has another behind it is
//! damage, one without is what a crash left half written.

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::codec::{self, Reader};
use crate::types::{Epoch, Malformed, Seq, ShardIndex, UnixMs};

const MAGIC: &[u8; 8] = b"ostrledg";
const FORMAT: u32 = 1;

/// Bytes of a ledger before its first frame.
pub(super) const HEADER_BYTES: u64 = 28;
/// Bytes of a frame before its body.
pub(super) const HEAD_BYTES: u64 = 40;
/// Longest body that is read: far above the largest entry.
const BODY_BYTES_MAX: u32 = 1 << 30;
/// Most entries in a frame.
const ENTRIES_MAX: usize = 1 << 24;

/// What a ledger says at its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: u64,
    pub(super) shard: ShardIndex,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(28);
        out.put_slice(MAGIC);
        out.put_u32(FORMAT);
        out.put_u32(self.shard.0);
        out.put_u64(self.id);
        out.put_u32(crc32c::crc32c(&out));
        out
    }

    pub(super) fn decode(bytes: &Bytes) -> Result<Header, Malformed> {
        let mut reader = checked(bytes, HEADER_BYTES)?;
        if reader.take(MAGIC.len())? != MAGIC[..] {
            return Err(Malformed("no ledger of this program"));
        }
        if reader.u32()? != FORMAT {
            return Err(Malformed("a ledger of a newer program"));
        }
        Ok(Header { shard: ShardIndex(reader.u32()?), id: reader.u64()? })
    }
}

/// What a frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Where it stands.
    pub(super) offset: u64,
    /// Writes in the frames before it.
    pub(super) writes_before: u64,
    /// Writes in it.
    pub(super) writes: u32,
    pub(super) body_bytes: u32,
    body_checksum: u32,
}

impl Head {
    /// Where the next frame stands.
    pub(super) fn end(&self) -> u64 {
        self.offset + HEAD_BYTES + u64::from(self.body_bytes)
    }

    /// Reads the head that must stand at `offset`.
    pub(super) fn decode(bytes: &Bytes, id: u64, offset: u64) -> Result<Head, Malformed> {
        let mut reader = checked(bytes, HEAD_BYTES)?;
        if reader.u64()? != id {
            return Err(Malformed("no frame of this ledger"));
        }
        let head = Head {
            offset: reader.u64()?,
            writes_before: reader.u64()?,
            writes: reader.u32()?,
            body_bytes: reader.u32()?,
            body_checksum: reader.u32()?,
        };
        let counts = head.writes_before.checked_add(head.writes.into()).is_some();
        if head.offset == offset && head.body_bytes <= BODY_BYTES_MAX && counts {
            Ok(head)
        } else {
            Err(Malformed("a frame that was written for another place"))
        }
    }

    /// Whether these bytes are its body.
    pub(super) fn covers(&self, body: &[u8]) -> bool {
        body.len() == self.body_bytes as usize && crc32c::crc32c(body) == self.body_checksum
    }
}

/// The bytes and a reader of the first `len` of them, of which the last four are the checksum of the others.
fn checked(bytes: &Bytes, len: u64) -> Result<Reader, Malformed> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if bytes.len() < len {
        return Err(Malformed("cut short"));
    }
    let mut checksum = Reader::new(bytes.slice(len - 4..len));
    let covered = bytes.slice(..len - 4);
    if checksum.u32()? != crc32c::crc32c(&covered) {
        return Err(Malformed("a checksum that does not match"));
    }
    Ok(Reader::new(covered))
}

/// A return of a copy to its shard: why what follows was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Return {
    /// The last entry that the copy and its leader had in common.
    pub common: Seq,
    /// The last entry that the copy held: at most as many were lost as lie between the two.
    pub end: Seq,
    /// The leadership that never had them.
    pub superseded_by: Epoch,
    /// All of them are listed. Else the copy's log did not reach back so far: of what was older, only what a key held last
    /// is listed, and no delete.
    pub complete: bool,
    /// When the copy came back, by its own clock.
    pub at: UnixMs,
}

/// One frame's contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The return that they belong to.
    pub back: Return,
    /// Encoded entries, each with one write or several.
    pub entries: Vec<Bytes>,
}

impl Page {
    /// The body of a frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.entries.iter().map(|entry| entry.len() + 5).sum::<usize>() + 64);
        codec::put_varint(&mut out, self.back.common.0);
        codec::put_varint(&mut out, self.back.end.0);
        self.back.superseded_by.encode(&mut out);
        out.put_u8(u8::from(self.back.complete));
        codec::put_varint(&mut out, self.back.at.0);
        codec::put_varint(&mut out, self.entries.len() as u64);
        self.entries.iter().for_each(|entry| codec::put_bytes(&mut out, entry));
        out.freeze()
    }

    /// Reads the body of a frame; entries share its memory.
    pub fn decode(body: Bytes) -> Result<Page, Malformed> {
        let mut reader = Reader::new(body);
        let back = Return {
            common: Seq(reader.varint()?),
            end: Seq(reader.varint()?),
            superseded_by: Epoch::decode(&mut reader)?,
            complete: reader.bool()?,
            at: UnixMs(reader.varint()?),
        };
        let entries = reader.list(ENTRIES_MAX, Reader::bytes)?;
        reader.finish()?;
        Ok(Page { back, entries })
    }
}

/// A whole frame for this body.
pub(super) fn encode(id: u64, offset: u64, writes_before: u64, writes: u32, body: &Bytes) -> Vec<u8> {
    let body_bytes = u32::try_from(body.len()).ok().filter(|bytes| *bytes <= BODY_BYTES_MAX);
    let body_bytes = body_bytes.unwrap_or_else(|| unreachable!("a frame holds one entry, or about a MiB of them"));
    let mut out = Vec::with_capacity(body.len() + 40);
    out.put_u64(id);
    out.put_u64(offset);
    out.put_u64(writes_before);
    out.put_u32(writes);
    out.put_u32(body_bytes);
    out.put_u32(crc32c::crc32c(body));
    out.put_u32(crc32c::crc32c(&out));
    out.put_slice(body);
    out
}

/// The first head in `bytes`, which stand at `offset` of the ledger, that says so itself.
pub(super) fn find_head(bytes: &Bytes, id: u64, offset: u64) -> Option<Head> {
    let mark = id.to_be_bytes();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..) {
        let found = at + rest.windows(mark.len()).position(|window| window == mark)?;
        if let Ok(head) = Head::decode(&bytes.slice(found..), id, offset + found as u64) {
            return Some(head);
        }
        at = found + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeName;

    fn page() -> Page {
        let superseded_by = Epoch { number: 2, leader: NodeName::new("A/1") };
        let back = Return { common: Seq(7), end: Seq(300), superseded_by, complete: true, at: UnixMs(1000) };
        Page { back, entries: vec![Bytes::from_static(b"one"), Bytes::from_static(b"")] }
    }

    #[test]
    fn ledger_has_its_golden_bytes() {
        let header = Header { id: 0x0102_0304_0506_0708, shard: ShardIndex(2) };
        let golden = b"ostrledg\0\0\0\x01\0\0\0\x02\x01\x02\x03\x04\x05\x06\x07\x08";
        assert_eq!(header.encode()[..24].escape_ascii().to_string(), golden.escape_ascii().to_string());
        assert_eq!(Header::decode(&header.encode().into()), Ok(header));
        let golden = b"\x07\xac\x02\x02\x03A/1\x01\xe8\x07\x02\x03one\x00";
        assert_eq!(page().encode().escape_ascii().to_string(), golden.escape_ascii().to_string());
        assert_eq!(Page::decode(page().encode()), Ok(page()));
    }

    #[test]
    fn frame_any_flipped_bit_is_noticed() {
        let bytes = encode(9, 28, 5, 2, &page().encode());
        let head = Head::decode(&bytes.clone().into(), 9, 28).unwrap();
        assert_eq!((head.writes_before, head.writes, head.end()), (5, 2, 28 + bytes.len() as u64));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let bad = Bytes::from(bad);
            let whole = Head::decode(&bad, 9, 28).is_ok_and(|head| head.covers(&bad[40..]));
            assert!(!whole, "bit {bit}");
        }
    }

    #[test]
    fn head_search_finds_the_frame_that_stands_where_it_says() {
        let frame = encode(9, 100, 0, 2, &page().encode());
        let bytes: Bytes = [&[1; 40][..], &frame, &[2; 20], &frame].concat().into();
        assert_eq!(find_head(&bytes, 9, 60).map(|head| head.offset), Some(100));
        assert_eq!(find_head(&bytes, 9, 61), None);
        assert_eq!(find_head(&bytes, 8, 60), None);
    }
}
