//! Did one acknowledged write survive: what a leader says by its record, its history and its log, and what every copy says
//! by its ledger. What is decided is pure; the answers travel as bytes.
//!
//! | the key's version is it | yes |
//! |---|---|
//! | the leader's history has the entry | superseded, unless the record or the log shows that it was never of this key |
//! | it has not, and it was of an epoch before the leader's, or a ledger lists it | lost |
//! | it has not, and it would be of this epoch or a later one | unknown |

use bytes::{BufMut, Bytes, BytesMut};

use super::Pair;
use crate::storage::ledger;
use crate::storage::{Engine, Entries, Error};
use crate::types::codec::{self, Malformed, Reader};
use crate::types::entry::decode_key;
use crate::types::{Change, Cursor, Entry, Epoch, History, Key, Seq, Space, Standing, Version};

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is what the key holds.
    Yes,
    /// It is in the shard's history, and a later write of the key is, too.
    Superseded,
    /// It is not in the shard's history, and will not be.
    Lost,
    /// That cannot be told.
    Unknown,
}

impl Verdict {
    const ALL: [(u8, Verdict); 4] =
        [(1, Verdict::Yes), (2, Verdict::Superseded), (3, Verdict::Lost), (4, Verdict::Unknown)];

    /// Its name in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Yes => "yes",
            Verdict::Superseded => "superseded",
            Verdict::Lost => "lost",
            Verdict::Unknown => "unknown",
        }
    }

    /// With what the ledgers say: they list what a copy took back, which the leader may not be able to tell by itself.
    #[must_use]
    pub fn with_ledgers(self, is_listed: bool) -> Verdict {
        match self {
            Verdict::Unknown if is_listed => Verdict::Lost,
            other => other,
        }
    }
}

/// What an entry that is still in the log did to the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// It put it.
    Put,
    /// It deleted it.
    Deleted,
    /// Nothing: the version is not of a write of this key.
    Nothing,
}

/// What a leader knows of a key, and of the entry that a version names.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The epoch in which it leads.
    pub epoch: &'a Epoch,
    /// Its history.
    pub history: &'a History,
    /// The version of the key's record; none: there is no such key.
    pub record: Option<Version>,
    /// What the entry did to the key, if the log still holds it.
    pub touch: Option<Touch>,
}

/// Decides what became of a write of a key that had this version.
#[must_use]
pub fn decide(version: Version, known: Known<'_>) -> Verdict {
    let Version::Log { epoch, seq, .. } = version;
    if known.record == Some(version) {
        return Verdict::Yes;
    }
    match is_written(version, known.history) {
        false if epoch < known.epoch.number => Verdict::Lost,
        false => Verdict::Unknown, // not yet, or never
        true => match (known.touch, known.record) {
            (Some(Touch::Nothing), _) => Verdict::Unknown,
            (Some(Touch::Deleted), None) => Verdict::Yes,
            // A write of this key with that seq would have left a later record, or none.
            (_, Some(record)) if record.seq() <= seq => Verdict::Unknown,
            _ => Verdict::Superseded,
        },
    }
}

/// Whether a history has the entry that a version names.
fn is_written(version: Version, history: &History) -> bool {
    let Version::Log { epoch, seq, incarnation } = version;
    let row = history.rows().iter().find(|row| row.epoch.number == epoch && row.incarnation == incarnation);
    row.is_some_and(|row| {
        let cursor = Cursor { epoch: row.epoch.clone(), incarnation, seq };
        matches!(history.standing(Some(&cursor)), Standing::On(_))
    })
}

/// Asks a copy about one write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The key.
    pub key: Key,
    /// The version that the write was answered with.
    pub version: Version,
}

impl Question {
    /// The question as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        codec::put_bytes(&mut out, self.key.as_bytes());
        self.version.encode(&mut out);
        out.freeze()
    }

    /// Reads a question.
    pub fn decode(bytes: Bytes) -> Result<Question, Malformed> {
        let mut reader = Reader::new(bytes);
        Ok(Question { key: decode_key(&mut reader)?, version: Version::decode(&mut reader)? })
    }
}

/// What a copy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// As the leader, by epoch, record and history; none from a copy that does not lead.
    pub leads: Option<Led>,
    /// Whether its ledger lists the write; none when that cannot be read.
    pub is_listed: Option<bool>,
}

/// What a leader says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Led {
    /// The epoch in which it leads.
    pub epoch: Epoch,
    /// What became of the write.
    pub verdict: Verdict,
    /// The version of the key's record; none: there is no such key.
    pub record: Option<Version>,
}

impl Said {
    /// The answer as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        codec::put_option(&mut out, self.leads.as_ref(), |out, Led { epoch, verdict, record }| {
            epoch.encode(out);
            let byte = Verdict::ALL.iter().find(|(_, candidate)| candidate == verdict).map_or(0, |(byte, _)| *byte);
            out.put_u8(byte);
            codec::put_option(out, record.as_ref(), |out, version| version.encode(out));
        });
        codec::put_option(&mut out, self.is_listed.as_ref(), |out, is_listed| out.put_u8(u8::from(*is_listed)));
        out.freeze()
    }

    /// Reads an answer.
    pub fn decode(bytes: Bytes) -> Result<Said, Malformed> {
        let mut reader = Reader::new(bytes);
        let leads = reader.option(|reader| {
            let (epoch, byte) = (Epoch::decode(reader)?, reader.u8()?);
            let verdict = Verdict::ALL.iter().find(|(known, _)| *known == byte).map(|(_, verdict)| *verdict);
            let verdict = verdict.ok_or(Malformed("a verdict of a newer program"))?;
            Ok(Led { epoch, verdict, record: reader.option(Version::decode)? })
        })?;
        Ok(Said { leads, is_listed: reader.option(Reader::bool)? })
    }
}

impl Pair {
    /// Says what this copy knows of a write. Looks through its ledger, which may take seconds.
    pub async fn answer_receipt(&self, question: Question) -> Result<Said, Error> {
        let leads = if self.is_leading() { Some(self.judge_as_leader(&question).await?) } else { None };
        let ledger = self.files.ledger();
        let listed = self.read(move |_| Ok(ledger.lists(&question.key, question.version))).await?;
        let log =
            |error: &ledger::Error| tracing::warn!(shard = self.shard.name, detail = %error, "a ledger cannot be read");
        Ok(Said { leads, is_listed: listed.inspect_err(log).ok() })
    }

    async fn judge_as_leader(&self, question: &Question) -> Result<Led, Error> {
        let (epoch, history) = (self.epoch(), self.writer.published().history());
        let Question { key, version } = question.clone();
        let (record, touch) = self.read(move |engine| look(engine, &key, version.seq())).await?;
        let verdict = decide(question.version, Known { epoch: &epoch, history: &history, record, touch });
        Ok(Led { epoch, verdict, record })
    }
}

/// The key's version, and what an entry did to the key.
fn look(engine: &dyn Engine, key: &Key, seq: Seq) -> Result<(Option<Version>, Option<Touch>), Error> {
    let record = engine.get(Space::Data, key)?.map(|record| record.version);
    let entry = match seq.0.checked_sub(1).map(|before| engine.entries(Seq(before), 1)).transpose()? {
        Some(Entries::Found(found)) => found.into_iter().next(),
        Some(Entries::Trimmed) | None => None,
    };
    let entry = entry.map(|bytes| Entry::decode(bytes).map_err(|what| Error::Corrupt(format!("entry {seq}: {what}"))));
    let touch = entry.transpose()?.map(|entry| {
        let last = entry.mutations.iter().rfind(|mutation| mutation.key == *key);
        match last.map(|mutation| &mutation.change) {
            Some(Change::Put(_)) => Touch::Put,
            Some(Change::Delete) => Touch::Deleted,
            None => Touch::Nothing,
        }
    });
    Ok((record, touch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, NodeName};

    /// Epoch 1 led by A in incarnations 10 and 11, then epoch 2 by B in 20, at 60.
    fn history() -> History {
        let mut history = History::default();
        for (number, leader, incarnation, last) in [(1, "A", 10, 41), (1, "A", 11, 49), (2, "B", 20, 60)] {
            let epoch = Epoch { number, leader: NodeName::new(leader) };
            while history.end() < Seq(last) {
                history.extend(&epoch, Incarnation(incarnation), history.end().next());
            }
        }
        history
    }

    fn version(epoch: u64, seq: u64, incarnation: u64) -> Version {
        Version::Log { epoch, seq: Seq(seq), incarnation: Incarnation(incarnation) }
    }

    #[test]
    fn decide_follows_the_table() {
        let (history, epoch) = (history(), Epoch { number: 2, leader: NodeName::new("B") });
        let later = Some(version(2, 55, 20));
        let cases = [
            ("it is there", version(1, 30, 10), Some(version(1, 30, 10)), None, Verdict::Yes),
            ("written over", version(1, 30, 10), later, None, Verdict::Superseded),
            ("written over, says the log", version(1, 30, 10), later, Some(Touch::Put), Verdict::Superseded),
            ("deleted", version(1, 30, 10), None, Some(Touch::Put), Verdict::Superseded),
            ("deleted, the log is trimmed", version(1, 30, 10), None, None, Verdict::Superseded),
            ("a delete that holds", version(1, 30, 10), None, Some(Touch::Deleted), Verdict::Yes),
            ("a delete, and put again", version(1, 30, 10), later, Some(Touch::Deleted), Verdict::Superseded),
            ("of another key, says the log", version(1, 30, 10), None, Some(Touch::Nothing), Verdict::Unknown),
            ("the record is older", version(1, 30, 10), Some(version(1, 29, 10)), None, Verdict::Unknown),
            ("beyond what that life wrote here", version(1, 50, 11), later, None, Verdict::Lost),
            ("a life that nothing is left of", version(1, 50, 99), None, None, Verdict::Lost),
            ("in another place", version(1, 42, 10), None, None, Verdict::Lost),
            ("of this epoch, and not there yet", version(2, 61, 20), later, None, Verdict::Unknown),
            ("of this epoch, by nobody", version(2, 55, 99), None, None, Verdict::Unknown),
            ("of a later epoch", version(3, 61, 30), later, None, Verdict::Unknown),
            ("before the first", version(1, 0, 10), None, None, Verdict::Lost),
        ];
        for (what, version, record, touch, expected) in cases {
            let known = Known { epoch: &epoch, history: &history, record, touch };
            assert_eq!(decide(version, known), expected, "{what}");
        }
    }

    #[test]
    fn ledger_tells_only_what_the_leader_cannot() {
        assert_eq!(Verdict::Unknown.with_ledgers(true), Verdict::Lost);
        assert_eq!(Verdict::Unknown.with_ledgers(false), Verdict::Unknown);
        for (_, verdict) in Verdict::ALL {
            assert!(verdict == Verdict::Unknown || verdict.with_ledgers(true) == verdict, "a write may have come back");
        }
    }

    #[test]
    fn question_and_answers_come_back_from_their_bytes() {
        let question = Question { key: Key::new(&b"\x00\xff"[..], 10).unwrap(), version: version(1, 30, 10) };
        assert_eq!(Question::decode(question.encode()), Ok(question));
        for (_, verdict) in Verdict::ALL {
            for record in [None, Some(version(2, 55, 20))] {
                let epoch = Epoch { number: 2, leader: NodeName::new("B") };
                let said = Said { leads: Some(Led { epoch, verdict, record }), is_listed: Some(true) };
                assert_eq!(Said::decode(said.encode()), Ok(said));
            }
        }
        let said = Said { leads: None, is_listed: None };
        assert_eq!(Said::decode(said.encode()), Ok(said));
    }
}
