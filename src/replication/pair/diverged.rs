//! What a copy makes of a leader on whose history it is not (rule 21). Pure.
//!
//! ```text
//!             L = the last entry that both have
//!   leader ───┼───────────────▶ end
//!   copy      └──── lost ───▶ end        lost: listed in the ledger, then taken back
//!        log ├──────────────┤            reaches back to L: rewind.  Begins behind L: snapshot
//! ```

use super::Halt;
use crate::types::{Cursor, History, Seq, ShardUid, Standing};

/// A copy, and the leader whose history it is not on.
#[derive(Debug, Clone, Copy)]
pub struct Parted<'a> {
    /// The copy's uid and history.
    pub mine: (Option<ShardUid>, &'a History),
    /// The leader's.
    pub theirs: (ShardUid, &'a History),
    /// The entry before the first of the copy's log.
    pub log_start: Seq,
    /// Its data is what its history says: it was not rewound a moment ago, on the way to another leader's end.
    pub is_settled: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Course {
    /// They have not parted: poll again.
    Follow,
    /// An operator has to decide.
    Stay(Halt),
    /// List all beyond this entry, and take it back.
    Rewind(Seq),
    /// List what can be found beyond this entry, and fetch everything anew. `complete`: all of it can be found.
    Snapshot {
        /// The last entry that both have.
        to: Seq,
        /// The log has every entry behind it.
        complete: bool,
    },
}

/// Decides it. `node` is the copy's, for what an operator has to type.
#[must_use]
pub fn decide(parted: Parted<'_>, node: &str) -> Course {
    let Parted { mine: (uid, mine), theirs: (their_uid, theirs), log_start, is_settled } = parted;
    if uid != Some(their_uid) && mine.end() > Seq::ZERO {
        return Course::Stay(Halt {
            why: format!(
                "this copy's data has shard uid {}, the leader's {their_uid}: they have nothing in common, and it keeps what \
                 it has (rule 13)",
                uid.map_or_else(|| "none".into(), |uid| uid.to_string())
            ),
            next: format!("if nothing in it is wanted, throw it away: kv replica reset {node}"),
        });
    }
    let to = mine.last_common(theirs);
    let complete = log_start <= to;
    match to {
        to if to >= mine.end() => Course::Follow,
        to if complete && is_settled => Course::Rewind(to),
        to => Course::Snapshot { to, complete },
    }
}

/// How far a copy that was rewound has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settling {
    /// It holds the entry at which its records are what its history says.
    Settled,
    /// It is on its way there.
    Under,
    /// It passed the place, and not that entry: some of its records are of a history that another leader has ended.
    Astray,
}

/// Looks whether a copy with this history holds the entry at which it is whole.
#[must_use]
pub fn settling(history: &History, settles_at: &Cursor) -> Settling {
    match history.standing(Some(settles_at)) {
        Standing::On(_) => Settling::Settled,
        Standing::Off if history.end() < settles_at.seq => Settling::Under,
        Standing::Off => Settling::Astray,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, Incarnation, NodeName};

    const UID: ShardUid = ShardUid(5);

    /// Rows of (epoch, incarnation, last entry).
    fn history(rows: &[(u64, u64, u64)]) -> History {
        let mut history = History::default();
        for (number, incarnation, last) in rows {
            let epoch = Epoch { number: *number, leader: NodeName::new(format!("A/{}", number - 1)) };
            while history.end() < Seq(*last) {
                history.extend(&epoch, Incarnation(*incarnation), history.end().next());
            }
        }
        history
    }

    #[test]
    fn decide_follows_rule_21() {
        let mine = history(&[(1, 10, 100)]);
        let case = |theirs: &History, log_start: u64, is_settled| {
            let log_start = Seq(log_start);
            decide(Parted { mine: (Some(UID), &mine), theirs: (UID, theirs), log_start, is_settled }, "A/0")
        };
        let snapshot = |to, complete| Course::Snapshot { to: Seq(to), complete };
        let ended = history(&[(1, 10, 80)]);
        let went_on = history(&[(1, 10, 80), (2, 20, 300)]);
        for theirs in [&ended, &went_on] {
            assert_eq!(case(theirs, 0, true), Course::Rewind(Seq(80)));
            assert_eq!(case(theirs, 80, true), Course::Rewind(Seq(80)), "the log begins with the first lost entry");
            assert_eq!(case(theirs, 81, true), snapshot(80, false), "one lost entry is not in the log");
            assert_eq!(case(theirs, 0, false), snapshot(80, true), "its records are of another leader's history");
        }
        assert_eq!(case(&history(&[(1, 10, 100)]), 0, true), Course::Follow, "an equal history");
        assert_eq!(case(&history(&[(1, 10, 100), (2, 20, 101)]), 0, true), Course::Follow, "a longer one");
        assert_eq!(case(&history(&[(2, 20, 7)]), 0, true), Course::Rewind(Seq::ZERO), "nothing in common");
        assert_eq!(case(&history(&[(2, 20, 7)]), 1, true), snapshot(0, false));
        assert_eq!(case(&History::default(), 0, true), Course::Rewind(Seq::ZERO));
    }

    #[test]
    fn copy_of_other_data_is_kept_and_its_operator_told_so() {
        let (mine, theirs) = (history(&[(1, 10, 100)]), history(&[(2, 20, 7)]));
        for uid in [None, Some(ShardUid(6))] {
            let parted = Parted { mine: (uid, &mine), theirs: (UID, &theirs), log_start: Seq(0), is_settled: true };
            let Course::Stay(halt) = decide(parted, "A/0") else { panic!("{:?}", decide(parted, "A/0")) };
            assert!(halt.next.contains("kv replica reset A/0"), "{halt}");
        }
    }

    #[test]
    fn copy_that_was_rewound_is_whole_with_the_entry_that_its_records_are_of_and_with_no_other_of_that_seq() {
        let at = history(&[(1, 10, 80), (2, 20, 90)]).cursor().unwrap();
        assert_eq!(settling(&history(&[(1, 10, 80)]), &at), Settling::Under);
        assert_eq!(settling(&history(&[(1, 10, 80), (2, 20, 89)]), &at), Settling::Under);
        assert_eq!(settling(&history(&[(1, 10, 80), (2, 20, 90)]), &at), Settling::Settled);
        assert_eq!(settling(&history(&[(1, 10, 80), (2, 20, 95), (3, 30, 99)]), &at), Settling::Settled);
        assert_eq!(settling(&history(&[(1, 10, 80), (3, 30, 89)]), &at), Settling::Under);
        assert_eq!(settling(&history(&[(1, 10, 80), (3, 30, 90)]), &at), Settling::Astray);
        assert_eq!(settling(&history(&[(1, 10, 80), (2, 20, 85), (3, 30, 99)]), &at), Settling::Astray);
    }
}
