//! What leader and replica say to each other: polls and inspections, as bytes; snapshots stand in `snapshots`.
//!
//! Each message is a tag byte and its fields; entries travel as the bytes that the log holds, checksum included.

mod returning;
mod snapshots;

use bytes::{BufMut, Bytes, BytesMut};

use crate::metrics::Polled;
use crate::types::codec::{self, Malformed, Reader};
use crate::types::entry::decode_key;
use crate::types::{Cursor, Key, Seq, ShardUid, UnixMs, Version};

pub use returning::{HistoryAnswer, RecordsAnswer, RecordsQuestion};
pub use snapshots::{NextChunk, NextLog, SnapshotAnswer};

/// Bytes of entries in one poll answer, unless one entry is larger (rule 16).
pub const ANSWER_BYTES: usize = 1 << 20;
/// Most entries, or records, in one answer.
const ITEMS_MAX: usize = 1 << 20;

/// A replica's poll. Its cursor is its acknowledgement (rule 10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poll {
    /// The uid of the data that it holds.
    pub shard_uid: Option<ShardUid>,
    /// What it has durably applied.
    pub cursor: Option<Cursor>,
    /// It was rewound, and is not whole before a later entry (rule 21): what it holds could not lead, and counts for nothing.
    pub is_unsettled: bool,
}

impl Poll {
    /// The poll as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_uid(&mut out, self.shard_uid);
        put_cursor(&mut out, self.cursor.as_ref());
        if self.is_unsettled {
            out.put_u8(1); // a leader of an older program reads no further
        }
        out.freeze()
    }

    /// Reads a poll.
    pub fn decode(bytes: Bytes) -> Result<Poll, Malformed> {
        let mut reader = Reader::new(bytes);
        let (shard_uid, cursor) = (take_uid(&mut reader)?, take_cursor(&mut reader)?);
        Ok(Poll { shard_uid, cursor, is_unsettled: reader.remaining() > 0 && reader.bool()? })
    }
}

/// The answer to a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PollAnswer {
    /// What comes after the cursor; nothing when nothing came in time.
    Entries {
        /// The shard's uid.
        shard_uid: ShardUid,
        /// The leader's last durable entry when it answered.
        end: Seq,
        /// The leader's clock (rule 27).
        time: UnixMs,
        /// Encoded entries, the first being cursor + 1.
        entries: Vec<Bytes>,
    },
    /// The log no longer reaches back to the cursor.
    Snapshot {
        /// The shard's uid.
        shard_uid: ShardUid,
    },
    /// The cursor is not on the leader's history, in an epoch before the leader's.
    OffHistory,
    /// The leader has seen by this poll that it lost data; it takes no writes.
    LostData {
        /// What it saw.
        detail: String,
    },
    /// This node does not lead the shard now.
    NotLeading {
        /// Why.
        detail: String,
    },
    /// The asking node is no replica of this shard in this node's file.
    NotOurs {
        /// What the file says.
        detail: String,
    },
}

impl PollAnswer {
    /// Its kind, for the metrics.
    #[must_use]
    pub fn polled(&self) -> Polled {
        match self {
            PollAnswer::Entries { entries, .. } if entries.is_empty() => Polled::Nothing,
            PollAnswer::Entries { .. } => Polled::Entries,
            PollAnswer::Snapshot { .. } => Polled::Snapshot,
            PollAnswer::OffHistory => Polled::OffHistory,
            PollAnswer::LostData { .. } => Polled::LostData,
            PollAnswer::NotLeading { .. } => Polled::NotLeading,
            PollAnswer::NotOurs { .. } => Polled::NotOurs,
        }
    }

    /// The answer as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            PollAnswer::Entries { shard_uid, end, time, entries } => {
                out.put_u8(1);
                out.put_u64(shard_uid.0);
                codec::put_varint(&mut out, end.0);
                codec::put_varint(&mut out, time.0);
                put_entries(&mut out, entries);
            }
            PollAnswer::Snapshot { shard_uid } => {
                out.put_u8(2);
                out.put_u64(shard_uid.0);
            }
            PollAnswer::OffHistory => out.put_u8(3),
            PollAnswer::LostData { detail } => put_text(&mut out, 4, detail),
            PollAnswer::NotLeading { detail } => put_text(&mut out, 5, detail),
            PollAnswer::NotOurs { detail } => put_text(&mut out, 6, detail),
        }
        out.freeze()
    }

    /// Reads an answer.
    pub fn decode(bytes: Bytes) -> Result<PollAnswer, Malformed> {
        let mut reader = Reader::new(bytes);
        Ok(match reader.u8()? {
            1 => PollAnswer::Entries {
                shard_uid: ShardUid(reader.u64()?),
                end: Seq(reader.varint()?),
                time: UnixMs(reader.varint()?),
                entries: reader.list(ITEMS_MAX, Reader::bytes)?,
            },
            2 => PollAnswer::Snapshot { shard_uid: ShardUid(reader.u64()?) },
            3 => PollAnswer::OffHistory,
            4 => PollAnswer::LostData { detail: reader.string()? },
            5 => PollAnswer::NotLeading { detail: reader.string()? },
            6 => PollAnswer::NotOurs { detail: reader.string()? },
            _ => return Err(Malformed("a poll answer of a newer program")),
        })
    }
}

/// Asks a copy what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspect {
    /// Also the version of this key.
    pub key: Option<Key>,
}

impl Inspect {
    /// The question as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_key(&mut out, self.key.as_ref());
        out.freeze()
    }

    /// Reads a question.
    pub fn decode(bytes: Bytes) -> Result<Inspect, Malformed> {
        Ok(Inspect { key: take_key(&mut Reader::new(bytes))? })
    }
}

/// What a copy holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The uid of its data.
    pub shard_uid: Option<ShardUid>,
    /// What it has durably applied.
    pub cursor: Option<Cursor>,
    /// The version of the key that was asked for; none when it holds none.
    pub version: Option<Version>,
    /// At a leader: its replicas' lag.
    pub lags: Vec<Lag>,
    /// What it could do for the shard.
    pub state: CopyState,
    /// The leader's end, as a replica heard it last.
    pub heard: Option<Heard>,
}

/// What a copy could do for its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyState {
    /// It does not say: it runs an older program.
    Unknown,
    /// It leads.
    Leading,
    /// It is whole, and could lead.
    Whole,
    /// It was never whole.
    Partial,
    /// Its store has failed.
    Failed,
    /// It would lead, and must not: it lacks what a replica holds.
    Halted,
}

impl CopyState {
    const ALL: [(u8, CopyState); 6] = [
        (0, CopyState::Unknown),
        (1, CopyState::Leading),
        (2, CopyState::Whole),
        (3, CopyState::Partial),
        (4, CopyState::Failed),
        (5, CopyState::Halted),
    ];

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            CopyState::Unknown => "unknown",
            CopyState::Leading => "leading",
            CopyState::Whole => "whole",
            CopyState::Partial => "never whole",
            CopyState::Failed => "failed",
            CopyState::Halted => "halted",
        }
    }

    fn byte(self) -> u8 {
        CopyState::ALL.iter().find(|(_, state)| *state == self).map_or(0, |(byte, _)| *byte)
    }

    fn from_byte(byte: u8) -> CopyState {
        CopyState::ALL.iter().find(|(known, _)| *known == byte).map_or(CopyState::Unknown, |(_, state)| *state)
    }
}

/// What a replica heard of its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// The leader's last durable entry then.
    pub end: Seq,
    /// How long ago, in milliseconds.
    pub ms: u64,
}

/// How far a replica is behind its leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// The replica's name.
    pub replica: String,
    /// Entries that it lacks.
    pub entries: u64,
    /// Age of the oldest of them, in milliseconds.
    pub ms: u64,
}

impl Inspection {
    /// The answer as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_uid(&mut out, self.shard_uid);
        put_cursor(&mut out, self.cursor.as_ref());
        codec::put_option(&mut out, self.version.as_ref(), |out, version| version.encode(out));
        codec::put_varint(&mut out, self.lags.len() as u64);
        for lag in &self.lags {
            codec::put_bytes(&mut out, lag.replica.as_bytes());
            codec::put_varint(&mut out, lag.entries);
            codec::put_varint(&mut out, lag.ms);
        }
        out.put_u8(self.state.byte());
        codec::put_option(&mut out, self.heard.as_ref(), |out, heard| {
            codec::put_varint(out, heard.end.0);
            codec::put_varint(out, heard.ms);
        });
        out.freeze()
    }

    /// Reads an answer.
    pub fn decode(bytes: Bytes) -> Result<Inspection, Malformed> {
        let mut reader = Reader::new(bytes);
        Ok(Inspection {
            shard_uid: take_uid(&mut reader)?,
            cursor: take_cursor(&mut reader)?,
            version: reader.option(Version::decode)?,
            lags: reader.list(ITEMS_MAX, |reader| {
                Ok(Lag { replica: reader.string()?, entries: reader.varint()?, ms: reader.varint()? })
            })?,
            state: CopyState::from_byte(reader.u8()?),
            heard: reader.option(|reader| Ok(Heard { end: Seq(reader.varint()?), ms: reader.varint()? }))?,
        })
    }
}

fn put_entries(out: &mut BytesMut, entries: &[Bytes]) {
    codec::put_varint(out, entries.len() as u64);
    entries.iter().for_each(|entry| codec::put_bytes(out, entry));
}

pub(super) fn put_text(out: &mut BytesMut, tag: u8, text: &str) {
    out.put_u8(tag);
    codec::put_bytes(out, text.as_bytes());
}

pub(super) fn put_uid(out: &mut BytesMut, uid: Option<ShardUid>) {
    codec::put_option(out, uid.as_ref(), |out, uid| out.put_u64(uid.0));
}

pub(super) fn take_uid(reader: &mut Reader) -> Result<Option<ShardUid>, Malformed> {
    Ok(reader.option(Reader::u64)?.map(ShardUid))
}

pub(super) fn put_cursor(out: &mut BytesMut, cursor: Option<&Cursor>) {
    codec::put_option(out, cursor, |out, cursor| cursor.encode(out));
}

pub(super) fn take_cursor(reader: &mut Reader) -> Result<Option<Cursor>, Malformed> {
    reader.option(Cursor::decode)
}

fn put_key(out: &mut BytesMut, key: Option<&Key>) {
    codec::put_option(out, key, |out, key| codec::put_bytes(out, key.as_bytes()));
}

fn take_key(reader: &mut Reader) -> Result<Option<Key>, Malformed> {
    reader.option(decode_key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, Incarnation, NodeName};

    fn cursor() -> Cursor {
        Cursor { epoch: Epoch::first(NodeName::new("A/0")), incarnation: Incarnation(1), seq: Seq(300) }
    }

    /// Two program versions meet on the wire: these bytes change only together with the protocol version.
    #[test]
    fn poll_and_its_answer_have_their_golden_bytes() {
        let poll = Poll { shard_uid: Some(ShardUid(5)), cursor: Some(cursor()), is_unsettled: false };
        let golden = b"\x01\0\0\0\0\0\0\0\x05\x01\x01\x03A/0\0\0\0\0\0\0\0\x01\xac\x02";
        assert_eq!(poll.encode().escape_ascii().to_string(), golden.escape_ascii().to_string());
        let answer = PollAnswer::Entries {
            shard_uid: ShardUid(5),
            end: Seq(301),
            time: UnixMs(1000),
            entries: vec![Bytes::from_static(b"entry")],
        };
        let golden = b"\x01\0\0\0\0\0\0\0\x05\xad\x02\xe8\x07\x01\x05entry";
        assert_eq!(answer.encode().escape_ascii().to_string(), golden.escape_ascii().to_string());
    }

    #[test]
    fn every_message_comes_back_from_its_bytes() {
        for (shard_uid, cursor) in [(None, None), (Some(ShardUid(1)), Some(cursor()))] {
            for is_unsettled in [false, true] {
                let poll = Poll { shard_uid, cursor: cursor.clone(), is_unsettled };
                assert_eq!(Poll::decode(poll.encode()), Ok(poll));
            }
        }
        let detail = || "why".to_owned();
        for answer in [
            PollAnswer::Snapshot { shard_uid: ShardUid(5) },
            PollAnswer::OffHistory,
            PollAnswer::LostData { detail: detail() },
            PollAnswer::NotLeading { detail: detail() },
            PollAnswer::NotOurs { detail: detail() },
        ] {
            assert_eq!(PollAnswer::decode(answer.encode()), Ok(answer));
        }
        let key = Key::new(&b"\x00\xff"[..], 10).unwrap();
        let inspect = Inspect { key: Some(key) };
        assert_eq!(Inspect::decode(inspect.encode()), Ok(inspect));
        let version = Version::Log { epoch: 1, seq: Seq(2), incarnation: Incarnation(3) };
        let lags = vec![Lag { replica: "A/1".into(), entries: 4, ms: 5 }];
        let inspection = Inspection {
            shard_uid: None,
            cursor: Some(cursor()),
            version: Some(version),
            lags,
            state: CopyState::Whole,
            heard: Some(Heard { end: Seq(300), ms: 7 }),
        };
        assert_eq!(Inspection::decode(inspection.encode()), Ok(inspection));
        for (byte, state) in CopyState::ALL {
            assert_eq!((state.byte(), CopyState::from_byte(byte)), (byte, state));
        }
    }
}
