//! A snapshot's questions and answers, as bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::{ITEMS_MAX, put_entries, put_key, put_text, take_key};
use crate::types::codec::{self, Malformed, Reader};
use crate::types::entry::decode_key;
use crate::types::history::ROWS_MAX;
use crate::types::{History, HistoryRow, Key, Seq, ShardUid};

/// Asks for the next part of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextChunk {
    /// The snapshot.
    pub id: u64,
    /// The last key received; none at the beginning.
    pub after: Option<Key>,
}

impl NextChunk {
    /// The question as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u64(self.id);
        put_key(&mut out, self.after.as_ref());
        out.freeze()
    }

    /// Reads a question.
    pub fn decode(bytes: Bytes) -> Result<NextChunk, Malformed> {
        let mut reader = Reader::new(bytes);
        Ok(NextChunk { id: reader.u64()?, after: take_key(&mut reader)? })
    }
}

/// Asks for entries that a snapshot needs to become a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextLog {
    /// The snapshot.
    pub id: u64,
    /// The last entry received.
    pub after: Seq,
}

impl NextLog {
    /// The question as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u64(self.id);
        codec::put_varint(&mut out, self.after.0);
        out.freeze()
    }

    /// Reads a question.
    pub fn decode(bytes: Bytes) -> Result<NextLog, Malformed> {
        let mut reader = Reader::new(bytes);
        Ok(NextLog { id: reader.u64()?, after: Seq(reader.varint()?) })
    }
}

/// The answer to a snapshot's requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotAnswer {
    /// A snapshot begins: its log is kept from the end of this history.
    Began {
        /// Names the snapshot.
        id: u64,
        /// The shard's uid.
        shard_uid: ShardUid,
        /// Where the snapshot's log begins.
        history: History,
    },
    /// Records, in key order.
    Records {
        /// Keys and encoded records.
        records: Vec<(Key, Bytes)>,
        /// What was applied when they were read.
        at: Seq,
        /// No more follow.
        last: bool,
    },
    /// Entries, the first being the next after the one asked for.
    Log {
        /// Encoded entries.
        entries: Vec<Bytes>,
    },
    /// Not now, or not any more.
    Ended {
        /// Why.
        detail: String,
    },
}

impl SnapshotAnswer {
    /// The answer as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            SnapshotAnswer::Began { id, shard_uid, history } => {
                out.put_u8(1);
                out.put_u64(*id);
                out.put_u64(shard_uid.0);
                codec::put_varint(&mut out, history.end().0);
                codec::put_varint(&mut out, history.rows().len() as u64);
                history.rows().iter().for_each(|row| row.encode(&mut out));
            }
            SnapshotAnswer::Records { records, at, last } => {
                out.put_u8(2);
                codec::put_varint(&mut out, at.0);
                out.put_u8(u8::from(*last));
                codec::put_varint(&mut out, records.len() as u64);
                for (key, record) in records {
                    codec::put_bytes(&mut out, key.as_bytes());
                    codec::put_bytes(&mut out, record);
                }
            }
            SnapshotAnswer::Log { entries } => {
                out.put_u8(3);
                put_entries(&mut out, entries);
            }
            SnapshotAnswer::Ended { detail } => put_text(&mut out, 4, detail),
        }
        out.freeze()
    }

    /// Reads an answer.
    pub fn decode(bytes: Bytes) -> Result<SnapshotAnswer, Malformed> {
        let mut reader = Reader::new(bytes);
        Ok(match reader.u8()? {
            1 => {
                let (id, shard_uid) = (reader.u64()?, ShardUid(reader.u64()?));
                let end = Seq(reader.varint()?);
                let rows = reader.list(ROWS_MAX, HistoryRow::decode)?;
                SnapshotAnswer::Began { id, shard_uid, history: History::new(rows, end)? }
            }
            2 => {
                let (at, last) = (Seq(reader.varint()?), reader.bool()?);
                let records = reader.list(ITEMS_MAX, |reader| Ok((decode_key(reader)?, reader.bytes()?)))?;
                SnapshotAnswer::Records { records, at, last }
            }
            3 => SnapshotAnswer::Log { entries: reader.list(ITEMS_MAX, Reader::bytes)? },
            4 => SnapshotAnswer::Ended { detail: reader.string()? },
            _ => return Err(Malformed("a snapshot answer of a newer program")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, Incarnation, NodeName};

    #[test]
    fn every_message_of_a_snapshot_comes_back_from_its_bytes() {
        let key = Key::new(&b"\x00\xff"[..], 10).unwrap();
        let row = HistoryRow { epoch: Epoch::first(NodeName::new("A/0")), incarnation: Incarnation(1), first: Seq(1) };
        for answer in [
            SnapshotAnswer::Began { id: 1, shard_uid: ShardUid(5), history: History::new(vec![row], Seq(9)).unwrap() },
            SnapshotAnswer::Records { records: vec![(key.clone(), Bytes::from_static(b"r"))], at: Seq(9), last: true },
            SnapshotAnswer::Log { entries: vec![Bytes::from_static(b"e")] },
            SnapshotAnswer::Ended { detail: "why".into() },
        ] {
            assert_eq!(SnapshotAnswer::decode(answer.encode()), Ok(answer));
        }
        let chunk = NextChunk { id: 3, after: Some(key.clone()) };
        assert_eq!(NextChunk::decode(chunk.encode()), Ok(chunk));
        let log = NextLog { id: 3, after: Seq(4) };
        assert_eq!(NextLog::decode(log.encode()), Ok(log));
    }
}
