//! Whether a node that would lead may do so. Pure.
//!
//! A leader whose file is empty, or an old backup, would drag its replicas down with it: they would drop what it never
//! saw. So at every opening it asks its copies what they hold, before its first write (rule 13).

use std::collections::BTreeMap;

use super::leader::{self, Mine, PollFacts, Verdict};
use crate::types::{Cursor, NodeName, ShardUid};

/// What a copy said that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The uid of its data.
    pub shard_uid: Option<ShardUid>,
    /// What it has applied.
    pub cursor: Option<Cursor>,
}

/// What the copies' answers come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// Nothing speaks against it. Carries who was silent.
    Lead {
        /// Copies that did not answer: what they hold is not known.
        silent: Vec<NodeName>,
    },
    /// Copies hold what this node's file does not: an operator decides.
    LostData {
        /// All that do.
        copies: Vec<NodeName>,
        /// What the first of them holds.
        detail: String,
    },
}

/// Holds the copies' answers against what this node holds. `answers` has a row per copy, none for a silent one.
#[must_use]
pub fn judge(mine: Mine<'_>, answers: &BTreeMap<NodeName, Option<Holding>>) -> Opening {
    let mut lost = Vec::new();
    for (name, answer) in answers {
        let Some(holding) = answer else { continue };
        let copy = PollFacts { from: name, shard_uid: holding.shard_uid, cursor: holding.cursor.as_ref() };
        if let Verdict::LostData(detail) = leader::judge(copy, mine) {
            lost.push((name.clone(), detail));
        }
    }
    if let Some((_, detail)) = lost.first().cloned() {
        return Opening::LostData { copies: lost.into_iter().map(|(name, _)| name).collect(), detail };
    }
    let silent = answers.iter().filter(|(_, answer)| answer.is_none()).map(|(name, _)| name.clone());
    Opening::Lead { silent: silent.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, History, Incarnation, Seq};

    fn epoch() -> Epoch {
        Epoch::first(NodeName::new("A/0"))
    }

    fn history(end: u64) -> History {
        let mut history = History::default();
        for seq in 1..=end {
            history.extend(&epoch(), Incarnation(1), Seq(seq));
        }
        history
    }

    fn holding(uid: u64, seq: u64) -> Option<Holding> {
        let cursor = Cursor { epoch: epoch(), incarnation: Incarnation(1), seq: Seq(seq) };
        Some(Holding { shard_uid: Some(ShardUid(uid)), cursor: Some(cursor) })
    }

    fn judged(uid: Option<u64>, end: u64, answers: &[Option<Holding>]) -> Opening {
        let (history, epoch) = (history(end), epoch());
        let mine = Mine { shard_uid: uid.map(ShardUid), epoch: &epoch, history: &history };
        let name = |ordinal| NodeName::new(format!("A/{}", ordinal + 1));
        judge(mine, &answers.iter().enumerate().map(|(i, answer)| (name(i), answer.clone())).collect())
    }

    #[test]
    fn opening_with_all_copies_behind_or_equal_leads() {
        assert_eq!(judged(Some(5), 9, &[holding(5, 9), holding(5, 2)]), Opening::Lead { silent: vec![] });
        let empty = Some(Holding { shard_uid: None, cursor: None });
        assert_eq!(judged(None, 0, &[empty]), Opening::Lead { silent: vec![] });
    }

    #[test]
    fn opening_with_an_empty_file_beside_a_copy_with_data_does_not_lead() {
        let judged = judged(None, 0, &[holding(5, 9), None, holding(5, 8)]);
        let Opening::LostData { copies, .. } = judged else { panic!("{judged:?}") };
        assert_eq!(copies, [NodeName::new("A/1"), NodeName::new("A/3")]);
    }

    #[test]
    fn opening_with_an_old_backup_does_not_lead() {
        assert!(matches!(judged(Some(5), 7, &[None, holding(5, 9)]), Opening::LostData { .. }));
    }

    #[test]
    fn opening_with_silent_copies_leads_and_names_them() {
        assert_eq!(judged(Some(5), 9, &[None]), Opening::Lead { silent: vec![NodeName::new("A/1")] });
    }
}
