//! What a batch does to a copy's positions: decided here, without a disk, for every engine alike.
//!
//! ```text
//!   log_start        applied            end
//!  ─────┼───────────────┼────────────────┼──────▶ seq
//!  gone │ ░ applied ░░░ │ appended only  │
//!       └─ trim moves this up,  apply moves this,  append moves the end
//! ```
//!
//! Invariants: `log_start <= applied <= end`; what is not applied is never trimmed, for applying reads it from the log.

use super::{ApplyRule, Batch, LogEntry, State, Trim};
use crate::types::{History, HistoryRow, Record, Seq, Version};

/// Where a copy stands, in the four numbers that move with nearly every batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Position {
    /// The last entry of the log.
    pub(super) end: Seq,
    /// The last entry that the data holds.
    pub(super) applied: Seq,
    /// The entry before the first that the log holds.
    pub(super) log_start: Seq,
    /// Bytes of the entries that the log holds.
    pub(super) log_bytes: u64,
}

/// A batch, checked against the state that it meets.
#[derive(Debug)]
pub(super) struct Plan {
    /// Where the copy stands after all but the trimming.
    pub(super) position: Position,
    /// Entries after this one, up to `position.applied`, are to be applied.
    pub(super) apply_after: Seq,
    /// Rows that the appended entries open.
    pub(super) rows: Vec<HistoryRow>,
}

impl Plan {
    /// Checks the order of the log. Panics when the batch breaks it: then the caller is wrong, and nothing was touched.
    pub(super) fn new(state: &State, batch: &Batch) -> Plan {
        let begins_at = |end: Seq| Position { end, applied: end, log_start: end, log_bytes: 0 };
        let (mut tail, mut position) = match (&batch.adopt, &batch.rewind) {
            (Some(adopted), None) => (tail_of(adopted), begins_at(adopted.end())),
            (None, Some(rewind)) => {
                let (to, applied) = (rewind.to, state.applied);
                assert!(to <= applied, "a copy that has applied {applied} is rewound to {to}");
                assert!(batch.append.is_empty() && batch.install.is_empty(), "a rewind stands alone in its batch");
                (tail_of(&state.history.cut(to)), begins_at(to))
            }
            (Some(_), Some(_)) => panic!("a batch that adopts a history and rewinds its own"),
            (None, None) => (tail_of(&state.history), state.position()),
        };
        let apply_after = position.applied;
        let mut rows = Vec::new();
        for LogEntry { entry, bytes } in &batch.append {
            rows.extend(tail.extend(&entry.epoch, entry.incarnation, entry.seq).cloned());
            position.log_bytes += bytes.len() as u64;
        }
        position.end = tail.end();
        if let Some(to) = batch.apply_to {
            let Position { applied, end, .. } = position;
            assert!(
                applied <= to && to <= end,
                "cannot apply up to {to}: {applied} is applied, and the log ends at {end}"
            );
            position.applied = to;
        }
        Plan { position, apply_after, rows }
    }
}

impl Batch {
    /// Whether it changes anything where `plan` found the copy: trimming that is asked for with every batch, and now and
    /// then on an idle shard, must not cost an fsync when nothing may go.
    pub(super) fn has_effect(&self, plan: &Plan) -> bool {
        let trims = self.trim.as_ref().is_some_and(|trim| plan.position.may_trim(trim, 0));
        trims || *self != Batch { trim: self.trim, ..Batch::default() }
    }
}

/// A history of the last row only: all that is needed to see which entries open a row, however long the history.
fn tail_of(history: &History) -> History {
    let last = history.rows().last().cloned();
    History::new(last.into_iter().collect(), history.end())
        .unwrap_or_else(|fault| unreachable!("the last row of a history fits its end: {fault}"))
}

impl Position {
    /// Whether one more entry leaves the log, after `gone` of them.
    pub(super) fn may_trim(&self, trim: &Trim, gone: usize) -> bool {
        gone < trim.entries_max && self.log_start < self.trim_bound(trim) && self.log_bytes > trim.keep_bytes
    }

    /// The last entry that trimming may take.
    pub(super) fn trim_bound(&self, trim: &Trim) -> Seq {
        trim.up_to.min(self.applied)
    }

    /// The first entry of the log is gone.
    pub(super) fn trimmed_one(&mut self, bytes: usize) {
        self.log_start = self.log_start.next();
        self.log_bytes -= bytes as u64;
    }
}

impl State {
    /// What a new file knows of itself: nothing.
    pub(super) fn empty() -> State {
        State {
            shard_uid: None,
            cluster_uid: None,
            epoch: None,
            leadership: None,
            role: None,
            history: History::default(),
            applied: Seq::ZERO,
            log_start: Seq::ZERO,
            log_bytes: 0,
            cursors: Vec::new(),
            incoming: false,
            settles_at: None,
            unclean: false,
        }
    }

    /// The numbers that move.
    pub(super) fn position(&self) -> Position {
        let State { applied, log_start, log_bytes, .. } = *self;
        Position { end: self.history.end(), applied, log_start, log_bytes }
    }

    /// Follows a batch that is durable, and left the copy at `position`.
    pub(super) fn roll(&mut self, batch: &Batch, position: Position) {
        if let Some(adopted) = &batch.adopt {
            self.history = adopted.clone();
        }
        if let Some(rewind) = &batch.rewind {
            self.history = self.history.cut(rewind.to);
            self.settles_at.clone_from(&rewind.settles_at);
        }
        for LogEntry { entry, .. } in &batch.append {
            self.history.extend(&entry.epoch, entry.incarnation, entry.seq);
        }
        assert_eq!(self.history.end(), position.end, "the history must end where the log does");
        let Position { applied, log_start, log_bytes, .. } = position;
        (self.applied, self.log_start, self.log_bytes) = (applied, log_start, log_bytes);
        for (name, cursor) in &batch.cursors {
            let at = self.cursors.partition_point(|(known, _)| known < name);
            match self.cursors.get_mut(at) {
                Some((known, present)) if known == name => present.clone_from(cursor),
                _ => self.cursors.insert(at, (name.clone(), cursor.clone())),
            }
        }
        self.shard_uid = batch.shard_uid.or(self.shard_uid);
        self.cluster_uid = batch.cluster_uid.or(self.cluster_uid);
        self.epoch = batch.epoch.clone().or(self.epoch.take());
        self.leadership = batch.leadership.clone().or(self.leadership.take());
        self.role = batch.role.or(self.role);
        self.incoming = batch.incoming.unwrap_or(self.incoming);
    }
}

impl ApplyRule {
    /// Whether a mutation of this version changes a key that holds `present`.
    pub(super) fn lets_through(self, version: Version, present: Option<&Record>) -> bool {
        match self {
            ApplyRule::InOrder => true,
            ApplyRule::IfNewer => present.is_none_or(|record| version.seq() > record.version.seq()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing_at(log_start: u64, end: u64) -> Plan {
        let position = Position { end: Seq(end), applied: Seq(end), log_start: Seq(log_start), log_bytes: 1000 };
        Plan { position, apply_after: Seq(end), rows: Vec::new() }
    }

    #[test]
    fn batch_that_only_trims_has_an_effect_only_when_something_may_go() {
        let trim = |up_to, keep_bytes, entries_max| Batch {
            trim: Some(Trim { up_to: Seq(up_to), keep_bytes, entries_max }),
            ..Batch::default()
        };
        let cases = [
            (Batch::default(), false),
            (trim(5, 0, 1), true),
            (trim(4, 0, 1), false),    // all behind it is gone
            (trim(5, 1000, 1), false), // what is there is kept
            (trim(5, 0, 0), false),    // none at once
            (Batch { incoming: Some(false), ..trim(0, 0, 0) }, true),
            (Batch { apply_to: Some(Seq(9)), ..Batch::default() }, true),
        ];
        for (batch, expected) in cases {
            assert_eq!(batch.has_effect(&standing_at(4, 9)), expected, "{batch:?}");
        }
    }
}
