//! What a copy that has left its leader's history asks on its way back (rule 21), as bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::{ITEMS_MAX, put_cursor, put_text, take_cursor};
use crate::types::codec::{self, Malformed, Reader};
use crate::types::entry::decode_key;
use crate::types::history::ROWS_MAX;
use crate::types::{Cursor, Epoch, History, HistoryRow, Key, ShardUid};

/// The answer to the question for a leader's history, which has no body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryAnswer {
    /// This is what it wrote.
    Mine {
        /// The shard's uid.
        shard_uid: ShardUid,
        /// The epoch in which it leads.
        epoch: Epoch,
        /// Its history.
        history: History,
    },
    /// It does not lead now.
    NotLeading {
        /// Why.
        detail: String,
    },
}

impl HistoryAnswer {
    /// The answer as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            HistoryAnswer::Mine { shard_uid, epoch, history } => {
                out.put_u8(1);
                out.put_u64(shard_uid.0);
                epoch.encode(&mut out);
                put_history(&mut out, history);
            }
            HistoryAnswer::NotLeading { detail } => put_text(&mut out, 2, detail),
        }
        out.freeze()
    }

    /// Reads an answer.
    pub fn decode(bytes: Bytes) -> Result<HistoryAnswer, Malformed> {
        let mut reader = Reader::new(bytes);
        Ok(match reader.u8()? {
            1 => HistoryAnswer::Mine {
                shard_uid: ShardUid(reader.u64()?),
                epoch: Epoch::decode(&mut reader)?,
                history: take_history(&mut reader)?,
            },
            2 => HistoryAnswer::NotLeading { detail: reader.string()? },
            _ => return Err(Malformed("an answer about a history of a newer program")),
        })
    }
}

/// Asks a leader for its records of these keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordsQuestion {
    /// The keys, at most a few thousand.
    pub keys: Vec<Key>,
}

impl RecordsQuestion {
    /// The question as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        codec::put_varint(&mut out, self.keys.len() as u64);
        self.keys.iter().for_each(|key| codec::put_bytes(&mut out, key.as_bytes()));
        out.freeze()
    }

    /// Reads a question.
    pub fn decode(bytes: Bytes) -> Result<RecordsQuestion, Malformed> {
        Ok(RecordsQuestion { keys: Reader::new(bytes).list(ITEMS_MAX, decode_key)? })
    }
}

/// The answer to that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordsAnswer {
    /// Records of the first of the keys, as many as fit in an answer, at least one.
    Records {
        /// The epoch in which it leads.
        epoch: Epoch,
        /// Encoded records, in the order of the keys; none: there is no such key.
        records: Vec<Option<Bytes>>,
        /// Its last durable entry after it had read them.
        at: Option<Cursor>,
    },
    /// It does not lead now, or cannot read them.
    Refused {
        /// Why.
        detail: String,
    },
}

impl RecordsAnswer {
    /// The answer as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            RecordsAnswer::Records { epoch, records, at } => {
                out.put_u8(1);
                epoch.encode(&mut out);
                put_cursor(&mut out, at.as_ref());
                codec::put_varint(&mut out, records.len() as u64);
                for record in records {
                    codec::put_option(&mut out, record.as_ref(), |out, record| codec::put_bytes(out, record));
                }
            }
            RecordsAnswer::Refused { detail } => put_text(&mut out, 2, detail),
        }
        out.freeze()
    }

    /// Reads an answer.
    pub fn decode(bytes: Bytes) -> Result<RecordsAnswer, Malformed> {
        let mut reader = Reader::new(bytes);
        Ok(match reader.u8()? {
            1 => {
                let (epoch, at) = (Epoch::decode(&mut reader)?, take_cursor(&mut reader)?);
                let records = reader.list(ITEMS_MAX, |reader| reader.option(Reader::bytes))?;
                RecordsAnswer::Records { epoch, records, at }
            }
            2 => RecordsAnswer::Refused { detail: reader.string()? },
            _ => return Err(Malformed("an answer about records of a newer program")),
        })
    }
}

pub(super) fn put_history(out: &mut BytesMut, history: &History) {
    codec::put_varint(out, history.end().0);
    codec::put_varint(out, history.rows().len() as u64);
    history.rows().iter().for_each(|row| row.encode(out));
}

pub(super) fn take_history(reader: &mut Reader) -> Result<History, Malformed> {
    let end = crate::types::Seq(reader.varint()?);
    History::new(reader.list(ROWS_MAX, HistoryRow::decode)?, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, NodeName, Seq};

    #[test]
    fn every_message_of_a_return_comes_back_from_its_bytes() {
        let epoch = Epoch { number: 2, leader: NodeName::new("A/1") };
        let row = HistoryRow { epoch: epoch.clone(), incarnation: Incarnation(5), first: Seq(1) };
        let history = History::new(vec![row], Seq(300)).unwrap();
        for answer in [
            HistoryAnswer::Mine { shard_uid: ShardUid(5), epoch: epoch.clone(), history: history.clone() },
            HistoryAnswer::Mine { shard_uid: ShardUid(5), epoch: epoch.clone(), history: History::default() },
            HistoryAnswer::NotLeading { detail: "why".into() },
        ] {
            assert_eq!(HistoryAnswer::decode(answer.encode()), Ok(answer));
        }
        let keys = [&b"a"[..], b"\x00\xff"].map(|key| Key::new(key, 10).unwrap()).to_vec();
        let question = RecordsQuestion { keys };
        assert_eq!(RecordsQuestion::decode(question.encode()), Ok(question));
        for answer in [
            RecordsAnswer::Records {
                epoch: epoch.clone(),
                records: vec![None, Some(Bytes::from_static(b"record"))],
                at: history.cursor(),
            },
            RecordsAnswer::Records { epoch, records: vec![], at: None },
            RecordsAnswer::Refused { detail: "why".into() },
        ] {
            assert_eq!(RecordsAnswer::decode(answer.encode()), Ok(answer));
        }
    }
}
