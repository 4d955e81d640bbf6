//! Positions and times: the seq of an entry, the epoch of a leadership, the version of a key, the cursor of a replica
//! (REPLICATION.md, rules 3, 4 and 10).
//!
//! Four numbers of this store look alike and never stand for one another: map version, epoch, seq, request id.

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::codec::{self, Malformed, Reader};
use super::ids::{Incarnation, NodeName};

/// The position of an entry in its shard's log. The first entry is 1; 0 is the position before it. Gapless, and never
/// restarted, not by an epoch either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first entry: what a copy that holds nothing has applied.
    pub const ZERO: Seq = Seq(0);

    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Seq {
        assert!(self.0 < u64::MAX, "the log is at its last seq, {self}");
        Seq(self.0 + 1)
    }

    /// How many entries lie between `earlier` (not counted) and this one (counted); 0 when `earlier` is not earlier.
    #[must_use]
    pub fn since(self, earlier: Seq) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Wall-clock milliseconds since 1970. Entries carry the leader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMs(pub u64);

/// One leadership of a shard: its number, and who leads. Ordered by number, then by the name's bytes; of two with one
/// number the lower is fenced (rule 3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// 1 for the leader that the file names; grows with every takeover and switchover.
    pub number: u64,
    /// Who leads in it.
    pub leader: NodeName,
}

impl Epoch {
    /// The first epoch of a shard, led by the node that the file names.
    #[must_use]
    pub fn first(leader: NodeName) -> Epoch {
        Epoch { number: 1, leader }
    }

    /// Appends the epoch to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        codec::put_varint(out, self.number);
        codec::put_bytes(out, self.leader.as_str().as_bytes());
    }

    /// Takes an epoch from `reader`.
    pub fn decode(reader: &mut Reader) -> Result<Epoch, Malformed> {
        Ok(Epoch { number: reader.varint()?, leader: NodeName::new(reader.string()?) })
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.number, self.leader)
    }
}

/// The version of a key's last write, opaque to clients as its `ETag`. A closed enum, because other profiles will count
/// otherwise (vector clocks); the storage engine does not look into it.
///
/// The incarnation stands in for the leader's name: it names the leadership as exactly, takes eight bytes, and also tells
/// apart two lives of one leader of which the second started from an old backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// A position in a shard's log.
    Log {
        /// The number of the epoch in which it was written.
        epoch: u64,
        /// Its entry's position.
        seq: Seq,
        /// The leader's incarnation that wrote it.
        incarnation: Incarnation,
    },
}

/// Tag byte of [`Version::Log`].
const VERSION_LOG: u8 = 1;

impl Version {
    /// Appends the version to `out`, without a length.
    pub fn encode(self, out: &mut BytesMut) {
        let Version::Log { epoch, seq, incarnation } = self;
        out.put_u8(VERSION_LOG);
        codec::put_varint(out, epoch);
        codec::put_varint(out, seq.0);
        out.put_u64(incarnation.0);
    }

    /// Takes a version from `reader`.
    pub fn decode(reader: &mut Reader) -> Result<Version, Malformed> {
        if reader.u8()? != VERSION_LOG {
            return Err(Malformed("a version of an unknown kind"));
        }
        Ok(Version::Log {
            epoch: reader.varint()?,
            seq: Seq(reader.varint()?),
            incarnation: Incarnation(reader.u64()?),
        })
    }

    /// Appends the text of its `Display` to `out`, in a fraction of the time: every answer carries it.
    pub fn put_text(self, out: &mut Vec<u8>) {
        let Version::Log { epoch, seq, incarnation } = self;
        for number in [epoch, seq.0] {
            out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
            out.push(b'.');
        }
        for byte in incarnation.0.to_be_bytes() {
            for digit in [byte >> 4, byte & 15] {
                out.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
            }
        }
    }

    /// Reads the text of its `Display`, with the quotes of an `ETag` around it or not; none for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Version> {
        let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        let mut parts = bare.splitn(3, '.');
        let (epoch, seq, incarnation) = (parts.next()?, parts.next()?, parts.next()?);
        let number = |text: &str| text.parse().ok();
        let incarnation = Incarnation(u64::from_str_radix(incarnation, 16).ok()?);
        let version = Version::Log { epoch: number(epoch)?, seq: Seq(number(seq)?), incarnation };
        (version.to_string() == bare).then_some(version) // no signs, no zeros in front
    }

    /// The position that it names.
    #[must_use]
    pub fn seq(self) -> Seq {
        let Version::Log { seq, .. } = self;
        seq
    }
}

impl fmt::Display for Version {
    /// The `ETag` without its quotes: `epoch.seq.incarnation`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version::Log { epoch, seq, incarnation } = self;
        write!(f, "{epoch}.{seq}.{incarnation}")
    }
}

/// What a replica has durably applied: the position of its last entry, and the leadership that wrote it. A copy that
/// holds nothing has none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The epoch of the entry at `seq`.
    pub epoch: Epoch,
    /// The incarnation that wrote the entry at `seq`.
    pub incarnation: Incarnation,
    /// The last entry that was applied.
    pub seq: Seq,
}

impl Cursor {
    /// Appends the cursor to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        self.epoch.encode(out);
        out.put_u64(self.incarnation.0);
        codec::put_varint(out, self.seq.0);
    }

    /// Takes a cursor from `reader`.
    pub fn decode(reader: &mut Reader) -> Result<Cursor, Malformed> {
        Ok(Cursor {
            epoch: Epoch::decode(reader)?,
            incarnation: Incarnation(reader.u64()?),
            seq: Seq(reader.varint()?),
        })
    }
}

/// The seq of a cursor that may be none.
#[must_use]
pub fn seq_of(cursor: Option<&Cursor>) -> Seq {
    cursor.map_or(Seq::ZERO, |cursor| cursor.seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn version_text_is_the_one_that_it_displays(epoch: u64, seq: u64, incarnation: u64) {
            let version = Version::Log { epoch, seq: Seq(seq), incarnation: Incarnation(incarnation) };
            let mut text = Vec::new();
            version.put_text(&mut text);
            prop_assert_eq!(String::from_utf8(text).unwrap(), version.to_string());
            prop_assert_eq!(Version::parse(&version.to_string()), Some(version));
            prop_assert_eq!(Version::parse(&format!("\"{version}\"")), Some(version));
        }
    }

    #[test]
    fn version_of_another_text_is_none() {
        for text in
            ["", "1", "1.2", "1.2.3", "01.2.0000000000000003", "+1.2.0000000000000003", "1.2.000000000000000A", "W/x"]
        {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
