//! An entry: one atomic write in a shard's log (REPLICATION.md, rule 5). It holds effects, never commands: applying it
//! needs no clock, no condition and no luck, so every copy that applies it ends in the same state.
//!
//! ```text
//! format u8 = 1 │ shard varint │ epoch (varint number, name) │ incarnation u64 │ seq varint │ leader's time varint │
//! count varint │ { space u8 │ key │ 0: delete │ 1: put, flags u8, [expiry], [content type], value } … │ crc32c u32
//! ```
//!
//! The checksum covers all before it. The same bytes stand in the leader's log, in a poll's answer and in the replica's
//! log.

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{self, Malformed, Reader};
use super::ids::{Incarnation, ShardIndex};
use super::key::{KEY_BYTES_CEILING, Key};
use super::record::{Content, Record};
use super::seq::{Cursor, Epoch, Seq, UnixMs, Version};

const FORMAT: u8 = 1;
/// Stands for a delete.
pub const OP_DELETE: u8 = 0;
const OP_PUT: u8 = 1;

/// Most mutations in one entry.
pub const MUTATIONS_MAX: usize = 1 << 20;

/// Which keyspace a mutation touches. Clients' keys live in [`Space::Data`]; later spaces hold what must commit together
/// with them (idempotency records).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Clients' keys.
    Data,
}

impl Space {
    fn byte(self) -> u8 {
        match self {
            Space::Data => 0,
        }
    }

    fn from_byte(byte: u8) -> Result<Space, Malformed> {
        match byte {
            0 => Ok(Space::Data),
            _ => Err(Malformed("a space of a newer program")),
        }
    }
}

/// What happens to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The key holds this from now on.
    Put(Content),
    /// The key is gone.
    Delete,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// The keyspace.
    pub space: Space,
    /// The key.
    pub key: Key,
    /// What happens to it.
    pub change: Change,
}

impl Mutation {
    /// About how many bytes it takes in a log.
    #[must_use]
    pub fn size(&self) -> usize {
        let value = match &self.change {
            Change::Put(content) => content.value.len() + content.content_type.as_ref().map_or(0, Bytes::len),
            Change::Delete => 0,
        };
        self.key.as_bytes().len() + value + 16
    }
}

/// One atomic write: all of its mutations take effect, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The shard whose log it is in.
    pub shard: ShardIndex,
    /// The leadership that made it.
    pub epoch: Epoch,
    /// The opening of the leader's file in which it was made.
    pub incarnation: Incarnation,
    /// Its position.
    pub seq: Seq,
    /// The leader's clock when it was made.
    pub time: UnixMs,
    /// Its effects, in order.
    pub mutations: Vec<Mutation>,
}

impl Entry {
    /// The version that its mutations give to their keys.
    #[must_use]
    pub fn version(&self) -> Version {
        Version::Log { epoch: self.epoch.number, seq: self.seq, incarnation: self.incarnation }
    }

    /// The cursor of a copy whose last entry this is.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch.clone(), incarnation: self.incarnation, seq: self.seq }
    }

    /// The record that a put of this entry leaves behind.
    #[must_use]
    pub fn record(&self, content: &Content) -> Record {
        Record { version: self.version(), content: content.clone() }
    }

    /// The entry as logs and poll answers hold it, checksum included.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let size: usize = self.mutations.iter().map(Mutation::size).sum();
        let mut out = BytesMut::with_capacity(size + 64);
        out.put_u8(FORMAT);
        codec::put_varint(&mut out, u64::from(self.shard.0));
        self.epoch.encode(&mut out);
        out.put_u64(self.incarnation.0);
        codec::put_varint(&mut out, self.seq.0);
        codec::put_varint(&mut out, self.time.0);
        codec::put_varint(&mut out, self.mutations.len() as u64);
        for mutation in &self.mutations {
            encode_mutation(&mut out, mutation);
        }
        let checksum = crc32c::crc32c(&out);
        out.put_u32(checksum);
        out.freeze()
    }

    /// Reads an entry and checks its checksum; values share the memory of `bytes`.
    pub fn decode(bytes: Bytes) -> Result<Entry, Malformed> {
        let body_len = bytes.len().checked_sub(4).ok_or(Malformed("cut short"))?;
        let checksum = Reader::new(bytes.slice(body_len..)).u32()?;
        let body = bytes.slice(..body_len);
        if crc32c::crc32c(&body) != checksum {
            return Err(Malformed("an entry whose checksum does not match"));
        }
        let mut reader = Reader::new(body);
        if reader.u8()? != FORMAT {
            return Err(Malformed("an entry of another format"));
        }
        let entry = Entry {
            shard: ShardIndex(reader.varint_u32()?),
            epoch: Epoch::decode(&mut reader)?,
            incarnation: Incarnation(reader.u64()?),
            seq: Seq(reader.varint()?),
            time: UnixMs(reader.varint()?),
            mutations: reader.list(MUTATIONS_MAX, decode_mutation)?,
        };
        reader.finish()?;
        Ok(entry)
    }
}

fn encode_mutation(out: &mut BytesMut, mutation: &Mutation) {
    out.put_u8(mutation.space.byte());
    codec::put_bytes(out, mutation.key.as_bytes());
    encode_change(out, &mutation.change);
}

fn decode_mutation(reader: &mut Reader) -> Result<Mutation, Malformed> {
    let space = Space::from_byte(reader.u8()?)?;
    let key = decode_key(reader)?;
    Ok(Mutation { space, key, change: decode_change(reader)? })
}

/// Appends a change: its op, and what a put stores.
pub fn encode_change(out: &mut BytesMut, change: &Change) {
    match change {
        Change::Delete => out.put_u8(OP_DELETE),
        Change::Put(content) => encode_put(out, content),
    }
}

/// Appends a put: its op, and what it stores.
pub fn encode_put(out: &mut BytesMut, content: &Content) {
    out.put_u8(OP_PUT);
    out.put_u8(content.flags());
    content.encode_attributes(out);
    codec::put_bytes(out, &content.value);
}

/// Takes a change from `reader`.
pub fn decode_change(reader: &mut Reader) -> Result<Change, Malformed> {
    match reader.u8()? {
        OP_DELETE => Ok(Change::Delete),
        OP_PUT => {
            let flags = reader.u8()?;
            let (expiry, content_type) = Content::decode_attributes(flags, reader)?;
            Ok(Change::Put(Content { expiry, content_type, value: reader.bytes()? }))
        }
        _ => Err(Malformed("a change that is neither put nor delete")),
    }
}

/// Takes a key from `reader`.
pub fn decode_key(reader: &mut Reader) -> Result<Key, Malformed> {
    Key::new(reader.bytes()?, KEY_BYTES_CEILING).map_err(|_| Malformed("a key that is empty or too long"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeName;
    use proptest::prelude::*;

    fn entry(seq: u64, mutations: Vec<Mutation>) -> Entry {
        Entry {
            shard: ShardIndex(2),
            epoch: Epoch::first(NodeName::new("A/0")),
            incarnation: Incarnation(7),
            seq: Seq(seq),
            time: UnixMs(1000),
            mutations,
        }
    }

    fn put(key: &'static [u8], value: &'static [u8]) -> Mutation {
        let key = Key::new(key, KEY_BYTES_CEILING).unwrap();
        Mutation { space: Space::Data, key, change: Change::Put(Content::of(value)) }
    }

    #[test]
    fn entry_encoding_has_its_golden_bytes() {
        let delete = Mutation { change: Change::Delete, ..put(b"k", b"") };
        let bytes = entry(1, vec![put(b"k", b"\xff"), delete]).encode();
        let golden = b"\x01\x02\x01\x03A/0\x00\x00\x00\x00\x00\x00\x00\x07\x01\xe8\x07\x02\
            \x00\x01k\x01\x00\x01\xff\x00\x01k\x00";
        assert_eq!(bytes[..bytes.len() - 4].escape_ascii().to_string(), golden.escape_ascii().to_string());
        assert_eq!(bytes[bytes.len() - 4..], crc32c::crc32c(golden).to_be_bytes());
    }

    #[test]
    fn entry_any_flipped_bit_is_noticed() {
        let bytes = entry(9, vec![put(b"key", b"value")]).encode();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Entry::decode(bad.into()).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn entry_any_contents_come_back(seq in 1_u64.., key in proptest::collection::vec(any::<u8>(), 1..40), value: Vec<u8>) {
            let key = Key::new(key, KEY_BYTES_CEILING).unwrap();
            let made = entry(seq, vec![Mutation { space: Space::Data, key, change: Change::Put(Content::of(value)) }]);
            prop_assert_eq!(Entry::decode(made.encode()), Ok(made));
        }

        #[test]
        fn entry_rubbish_never_panics(bytes: Vec<u8>) {
            let _ = Entry::decode(bytes.into());
        }
    }
}
