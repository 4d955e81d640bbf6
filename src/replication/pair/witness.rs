//! A leader tells a copy that has left its history what it wrote, and what it holds of some keys (rule 21).

use super::Pair;
use super::wire::{ANSWER_BYTES, HistoryAnswer, RecordsAnswer, RecordsQuestion};
use crate::storage::{Engine, Error};
use crate::types::seq::seq_of;
use crate::types::{Cursor, Key, Space};

impl Pair {
    /// What this leader wrote.
    #[must_use]
    pub fn answer_history(&self) -> HistoryAnswer {
        let history = self.writer.published().history();
        match self.uid() {
            Some(shard_uid) if self.is_leading() => HistoryAnswer::Mine { shard_uid, epoch: self.epoch(), history },
            _ => HistoryAnswer::NotLeading { detail: self.does_not_lead() },
        }
    }

    /// What this leader holds of some keys, and its end behind that.
    pub async fn answer_records(&self, question: RecordsQuestion) -> RecordsAnswer {
        let epoch = self.epoch();
        let read = self.read(move |engine| records(engine, &question.keys)).await;
        match read {
            // Asked afterwards: it led when it read them, too.
            Ok(_) if !self.is_leading() || self.epoch() != epoch => {
                RecordsAnswer::Refused { detail: self.does_not_lead() }
            }
            Ok((records, at)) if self.is_announced(seq_of(at.as_ref())).await => {
                RecordsAnswer::Records { epoch, records, at }
            }
            Ok(_) => RecordsAnswer::Refused { detail: "the writer does not announce its last commit".into() },
            Err(error) => RecordsAnswer::Refused { detail: error.to_string() },
        }
    }

    fn does_not_lead(&self) -> String {
        format!("node {} does not lead shard {} (yet)", self.me.name, self.shard.name)
    }
}

type Records = Vec<Option<bytes::Bytes>>;

/// Records of the first keys, about as many as an answer holds, and the last entry that any of them can be of.
fn records(engine: &dyn Engine, keys: &[Key]) -> Result<(Records, Option<Cursor>), Error> {
    let (mut records, mut bytes) = (Vec::new(), 0);
    for key in keys {
        let record = engine.get(Space::Data, key)?.map(|record| record.encode());
        bytes += record.as_ref().map_or(1, bytes::Bytes::len);
        records.push(record);
        if bytes >= ANSWER_BYTES {
            break;
        }
    }
    Ok((records, engine.state()?.history.cursor()))
}
