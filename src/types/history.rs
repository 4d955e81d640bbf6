//! A copy's history: which leadership, in which opening of its file, wrote which part of the log (REPLICATION.md,
//! rules 4 and 10).
//!
//! Rows are derived from entries: a copy adds a row with the first entry of each (epoch, incarnation), in the commit of
//! that entry. So two copies with the same entries have the same history without exchanging it, and a leader that is
//! opened a thousand times without a write leaves no trace.
//!
//! ```text
//!  row        (1, a, first 1)   (1, b, first 42)   (2, c, first 50)
//!  log     1 ················41 42 ············49 50 ················ end
//! ```

use bytes::{BufMut, BytesMut};

use super::codec::{self, Malformed, Reader};
use super::ids::Incarnation;
use super::seq::{Cursor, Epoch, Seq};

/// Most rows that are taken from a peer: a row is a leader's opening with a write in it.
pub const ROWS_MAX: usize = 1 << 20;

/// One leadership in one opening of its leader's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// The leadership.
    pub epoch: Epoch,
    /// The opening.
    pub incarnation: Incarnation,
    /// Its first entry; it goes up to the entry before the next row's first.
    pub first: Seq,
}

impl HistoryRow {
    /// Appends the row to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        self.epoch.encode(out);
        out.put_u64(self.incarnation.0);
        codec::put_varint(out, self.first.0);
    }

    /// Takes a row from `reader`.
    pub fn decode(reader: &mut Reader) -> Result<HistoryRow, Malformed> {
        Ok(HistoryRow {
            epoch: Epoch::decode(reader)?,
            incarnation: Incarnation(reader.u64()?),
            first: Seq(reader.varint()?),
        })
    }
}

/// Where a cursor stands beside a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its prefix is a prefix of this history, and ends at this seq.
    On(Seq),
    /// Its prefix is not: one of the two was written elsewhere, or has lost data.
    Off,
}

/// The rows of one copy, in order, and its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    rows: Vec<HistoryRow>,
    end: Seq,
}

impl History {
    /// Takes rows as a file or a peer holds them: first seqs must rise, and lie within `end`.
    pub fn new(rows: Vec<HistoryRow>, end: Seq) -> Result<History, Malformed> {
        let firsts_rise = rows.windows(2).all(|pair| matches!(pair, [a, b] if a.first < b.first));
        let within = rows.last().is_none_or(|row| row.first <= end);
        let starts = rows.first().is_none_or(|row| row.first > Seq::ZERO);
        let explains_end = rows.is_empty() == (end == Seq::ZERO);
        if firsts_rise && within && starts && explains_end {
            Ok(History { rows, end })
        } else {
            Err(Malformed("a history whose rows do not fit each other"))
        }
    }

    /// The rows, oldest first.
    #[must_use]
    pub fn rows(&self) -> &[HistoryRow] {
        &self.rows
    }

    /// The last durable entry; [`Seq::ZERO`] for a copy that holds nothing.
    #[must_use]
    pub fn end(&self) -> Seq {
        self.end
    }

    /// The position and leadership of the last entry; none for a copy that holds nothing.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.rows.last().map(|row| Cursor { epoch: row.epoch.clone(), incarnation: row.incarnation, seq: self.end })
    }

    /// Moves the end to the entry that follows it, and returns the new row when the entry opens one.
    pub fn extend(&mut self, epoch: &Epoch, incarnation: Incarnation, seq: Seq) -> Option<&HistoryRow> {
        assert_eq!(seq, self.end.next(), "an entry must follow the end of the log");
        self.end = seq;
        let same = self.rows.last().is_some_and(|row| row.incarnation == incarnation && row.epoch == *epoch);
        if same {
            return None;
        }
        self.rows.push(HistoryRow { epoch: epoch.clone(), incarnation, first: seq });
        self.rows.last()
    }

    /// Whether a copy with this cursor holds a prefix of this history (rule 10): its row is known, its seq lies below the
    /// next row's first and not beyond the end. A copy that holds nothing is a prefix of everything.
    #[must_use]
    pub fn standing(&self, cursor: Option<&Cursor>) -> Standing {
        let Some(cursor) = cursor else { return Standing::On(Seq::ZERO) };
        let mut rows = self.rows.iter().peekable();
        while let Some(row) = rows.next() {
            if row.incarnation != cursor.incarnation || row.epoch != cursor.epoch {
                continue;
            }
            let before_next = rows.peek().is_none_or(|next| cursor.seq < next.first);
            let within = row.first <= cursor.seq && cursor.seq <= self.end;
            return if before_next && within { Standing::On(cursor.seq) } else { Standing::Off };
        }
        Standing::Off
    }

    /// The last seq up to which two histories are the same: the smaller of the two ends of the last row that both have
    /// (rule 10); [`Seq::ZERO`] when they share none.
    #[must_use]
    pub fn last_common(&self, other: &History) -> Seq {
        let shared = self.rows.iter().rposition(|row| other.rows.contains(row));
        let Some((row, mine)) = shared.and_then(|at| Some((self.rows.get(at)?, self.row_end(at)))) else {
            return Seq::ZERO;
        };
        let theirs = other.rows.iter().position(|candidate| candidate == row).map_or(Seq::ZERO, |at| other.row_end(at));
        mine.min(theirs)
    }

    /// The history up to an entry, as if nothing had come behind it.
    #[must_use]
    pub fn cut(&self, end: Seq) -> History {
        assert!(end <= self.end, "a history that ends at {} is cut at {end}", self.end);
        let rows = self.rows.iter().filter(|row| row.first <= end).cloned().collect();
        History { rows, end }
    }

    /// The position and leadership of an entry that it has; none for one that it has not.
    #[must_use]
    pub fn cursor_at(&self, seq: Seq) -> Option<Cursor> {
        let behind = self.rows.partition_point(|row| row.first <= seq);
        let row = self.rows.get(behind.checked_sub(1)?).filter(|_| seq <= self.end)?;
        Some(Cursor { epoch: row.epoch.clone(), incarnation: row.incarnation, seq })
    }

    /// The last seq of the row at `at`.
    fn row_end(&self, at: usize) -> Seq {
        self.rows.get(at + 1).map_or(self.end, |next| Seq(next.first.0 - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeName;

    fn epoch(number: u64) -> Epoch {
        Epoch { number, leader: NodeName::new("A/0") }
    }

    fn row(number: u64, incarnation: u64, first: u64) -> HistoryRow {
        HistoryRow { epoch: epoch(number), incarnation: Incarnation(incarnation), first: Seq(first) }
    }

    fn cursor(number: u64, incarnation: u64, seq: u64) -> Cursor {
        Cursor { epoch: epoch(number), incarnation: Incarnation(incarnation), seq: Seq(seq) }
    }

    fn history() -> History {
        History::new(vec![row(1, 10, 1), row(1, 11, 42), row(2, 12, 50)], Seq(60)).unwrap()
    }

    #[test]
    fn standing_follows_rule_10() {
        let on = |seq| Standing::On(Seq(seq));
        let cases = [
            (None, on(0)),
            (Some(cursor(1, 10, 41)), on(41)),
            (Some(cursor(1, 10, 42)), Standing::Off), // beyond what that incarnation wrote here
            (Some(cursor(1, 11, 42)), on(42)),
            (Some(cursor(1, 11, 41)), Standing::Off), // before that incarnation's first entry
            (Some(cursor(2, 12, 60)), on(60)),
            (Some(cursor(2, 12, 61)), Standing::Off), // beyond the end: this copy has lost data
            (Some(cursor(2, 99, 55)), Standing::Off), // unknown incarnation
            (Some(cursor(3, 12, 55)), Standing::Off), // unknown epoch
        ];
        for (cursor, expected) in cases {
            assert_eq!(history().standing(cursor.as_ref()), expected, "{cursor:?}");
        }
    }

    #[test]
    fn extend_adds_a_row_with_the_first_entry_of_an_opening() {
        let mut history = History::default();
        assert!(history.extend(&epoch(1), Incarnation(10), Seq(1)).is_some());
        assert!(history.extend(&epoch(1), Incarnation(10), Seq(2)).is_none());
        assert_eq!(history.extend(&epoch(1), Incarnation(11), Seq(3)), Some(&row(1, 11, 3)));
        assert_eq!(history.cursor(), Some(cursor(1, 11, 3)));
    }

    #[test]
    fn last_common_is_the_smaller_end_of_the_last_shared_row() {
        let diverged = History::new(vec![row(1, 10, 1), row(1, 11, 42)], Seq(70)).unwrap();
        assert_eq!(history().last_common(&diverged), Seq(49));
        assert_eq!(diverged.last_common(&history()), Seq(49));
        let stranger = History::new(vec![row(1, 77, 1)], Seq(5)).unwrap();
        assert_eq!(history().last_common(&stranger), Seq::ZERO);
        assert_eq!(history().last_common(&History::default()), Seq::ZERO);
    }

    #[test]
    fn cut_history_is_what_it_was_at_that_entry() {
        assert_eq!(history().cut(Seq(49)).cursor(), Some(cursor(1, 11, 49)));
        assert_eq!(history().cut(Seq(42)).rows().len(), 2, "the row's first entry is there");
        assert_eq!(history().cut(Seq(41)).rows().len(), 1);
        assert_eq!(history().cut(Seq::ZERO), History::default());
        assert_eq!(history().cut(Seq(60)), history());
        assert_eq!((history().cursor_at(Seq(50)), history().cursor_at(Seq(61))), (Some(cursor(2, 12, 50)), None));
    }

    #[test]
    fn rows_that_do_not_fit_are_refused() {
        assert!(History::new(vec![row(1, 10, 5), row(1, 11, 5)], Seq(9)).is_err());
        assert!(History::new(vec![row(1, 10, 5)], Seq(4)).is_err());
        assert!(History::new(vec![], Seq(4)).is_err());
    }
}
