//! Whether a node that would lead may do so. Pure.
//!
//! A leader whose file is empty, or an old backup, would drag its replicas down with it: they would drop what it never
//! saw. So at every opening it asks its copies what they hold, before its first write (rule 13). And another may lead by
//! now: so it asks all nodes for the shard's epoch (rule 18).

use std::collections::BTreeMap;

use super::leader::{self, Mine, PollFacts, Verdict};
use crate::cluster::exchange::Facts;
use crate::types::{Cursor, Epoch, NodeName, ShardIndex, ShardUid};

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

/// What a node said of the shard's epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Nothing.
    Silent,
    /// It knows none that is higher.
    NoneHigher,
    /// It has promised a higher one, or knows it as established.
    Higher(Epoch),
}

/// What their words come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Count {
    /// A majority of all nodes knows none that is higher.
    Majority,
    /// No majority, and a node knows a higher one.
    Promised {
        /// That node.
        by: NodeName,
        /// What it knows.
        epoch: Epoch,
    },
    /// No majority, for too many are silent.
    Minority {
        /// Those.
        silent: Vec<NodeName>,
    },
}

/// What a node's facts say of an epoch of a shard.
#[must_use]
pub fn word(facts: &Facts, shard: ShardIndex, epoch: &Epoch) -> Word {
    let established = facts.epochs.iter().filter(|(about, _)| *about == shard).map(|(_, epoch)| epoch);
    let highest = established.chain(facts.promised_of(shard)).max();
    highest.filter(|highest| *highest > epoch).map_or(Word::NoneHigher, |highest| Word::Higher(highest.clone()))
}

/// Counts the words of the other nodes, of so many nodes with this one (rule 18).
#[must_use]
pub fn count(words: &BTreeMap<NodeName, Word>, nodes: usize) -> Count {
    let none_higher = 1 + words.values().filter(|word| **word == Word::NoneHigher).count();
    if none_higher * 2 > nodes {
        return Count::Majority;
    }
    let higher = words.iter().filter_map(|(by, word)| match word {
        Word::Higher(epoch) => Some((epoch, by)),
        Word::Silent | Word::NoneHigher => None,
    });
    match higher.max() {
        Some((epoch, by)) => Count::Promised { by: by.clone(), epoch: epoch.clone() },
        None => {
            let silent = words.iter().filter(|(_, word)| **word == Word::Silent).map(|(name, _)| name.clone());
            Count::Minority { silent: silent.collect() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{History, Incarnation, Seq};

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

    fn counted(words: &[Word]) -> Count {
        let name = |ordinal| NodeName::new(format!("N/{ordinal}"));
        let words: BTreeMap<_, _> = words.iter().enumerate().map(|(i, word)| (name(i), word.clone())).collect();
        count(&words, words.len() + 1)
    }

    #[test]
    fn start_needs_a_majority_of_all_nodes_this_one_included_that_knows_none_higher() {
        use Word::{NoneHigher, Silent};
        let higher = || Word::Higher(Epoch { number: 2, leader: NodeName::new("A/1") });
        assert_eq!(counted(&[]), Count::Majority, "a node alone");
        assert_eq!(counted(&[NoneHigher, Silent]), Count::Majority);
        assert_eq!(
            counted(&[Silent]),
            Count::Minority { silent: vec![NodeName::new("N/0")] },
            "one of two is no majority"
        );
        assert!(matches!(counted(&[NoneHigher, Silent, Silent]), Count::Minority { silent } if silent.len() == 2));
        assert!(matches!(counted(&[higher(), Silent, Silent]), Count::Promised { .. }));
        assert_eq!(
            counted(&[higher(), NoneHigher, NoneHigher, Silent]),
            Count::Majority,
            "a takeover without a majority"
        );
    }

    #[test]
    fn word_of_a_node_is_the_highest_that_it_knows_or_has_promised() {
        let at = |number, leader: &str| Epoch { number, leader: NodeName::new(leader) };
        let (here, there) = (ShardIndex(0), ShardIndex(1));
        let facts = |epochs: &[Epoch], promised: &[Epoch]| Facts {
            epochs: epochs.iter().map(|epoch| (here, epoch.clone())).collect(),
            promised: promised.iter().map(|epoch| (here, epoch.clone())).chain([(there, at(9, "X"))]).collect(),
            ..Facts::default()
        };
        let word = |epochs: &[Epoch], promised: &[Epoch]| super::word(&facts(epochs, promised), here, &at(2, "B"));
        assert_eq!(word(&[], &[]), Word::NoneHigher);
        assert_eq!(word(&[at(2, "B")], &[at(2, "A")]), Word::NoneHigher);
        assert_eq!(word(&[at(2, "C")], &[]), Word::Higher(at(2, "C")));
        assert_eq!(word(&[at(2, "B")], &[at(3, "A"), at(4, "A")]), Word::Higher(at(4, "A")));
    }
}
