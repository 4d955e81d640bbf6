//! What is at risk: writes that are on the leader's disk only, how old the oldest of them is, and whether the leader goes
//! on taking writes then (rule 23). Pure.
//!
//! At risk are the entries behind the greatest cursor. Their age is an upper bound, never too small: a mark says that all
//! entries from one on are no older than that, and marks are thinned out as they get many. Entries from before this
//! leadership have no marks: they count as older than any bound, until some replica has them.
//!
//! | bound | what happens there |
//! |---|---|
//! | `MARKS_MAX` marks | every second one goes, and the next ones come half as often: the age is less exact, by a 32nd at most |
//! | `min_replicas`, `max_at_risk_entries`, `max_at_risk_ms` | writes are refused before they get a seq |

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::leader::{Leader, PRESENT_FOR, Replica};
use crate::config::Settings;
use crate::storage::writer::Refusal;
use crate::types::{NodeName, Seq};

/// Marks kept at once.
const MARKS_MAX: usize = 128;
/// Between two marks, at first.
const SPACING_FIRST: Duration = Duration::from_millis(2);

/// When a leader's entries were written, as exactly as matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// When the leadership began.
    began: Instant,
    /// The last entry that was written.
    end: Seq,
    /// This entry and those behind it were not written before then; oldest first, at most [`MARKS_MAX`].
    marks: VecDeque<(Seq, Instant)>,
    /// A mark is set this long after the one before at the earliest.
    spacing: Duration,
}

/// How old an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Not older than this.
    AtMost(Duration),
    /// From before this leadership, which has lasted so long.
    Older(Duration),
}

impl Age {
    /// Whether it is surely below a bound.
    #[must_use]
    pub fn is_below(self, bound: Duration) -> bool {
        matches!(self, Age::AtMost(age) if age < bound)
    }
}

impl Marks {
    /// Those of a leadership that begins now, behind this entry.
    #[must_use]
    pub fn beginning(end: Seq, now: Instant) -> Marks {
        Marks { began: now, end, marks: VecDeque::new(), spacing: SPACING_FIRST }
    }

    /// Entries up to `end` are being written; those up to `acknowledged` are on another disk.
    pub fn note(&mut self, end: Seq, acknowledged: Seq, now: Instant) {
        while self.marks.get(1).is_some_and(|(first, _)| *first <= acknowledged.next()) {
            self.marks.pop_front(); // the next one tells as much about what is left
        }
        if self.marks.len() <= 1 {
            self.spacing = SPACING_FIRST;
        }
        if end <= self.end {
            return;
        }
        let is_due = self.marks.back().is_none_or(|(_, at)| now.saturating_duration_since(*at) >= self.spacing);
        if is_due {
            self.marks.push_back((self.end.next(), now));
        }
        self.end = end;
        if self.marks.len() > MARKS_MAX {
            let mut is_kept = false;
            self.marks.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
            self.spacing *= 2;
        }
    }

    /// How old an entry is.
    #[must_use]
    pub fn age(&self, entry: Seq, now: Instant) -> Age {
        if entry > self.end {
            return Age::AtMost(Duration::ZERO); // it gets its seq at this moment
        }
        let mark = self.marks.iter().rev().find(|(first, _)| *first <= entry);
        match mark {
            Some((_, at)) => Age::AtMost(now.saturating_duration_since(*at)),
            None => Age::Older(now.saturating_duration_since(self.began)),
        }
    }
}

/// What is on the leader's disk only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtRisk {
    /// How many entries.
    pub entries: u64,
    /// How old the oldest of them is; none when there is none, or this copy does not lead.
    pub oldest: Option<Age>,
}

/// What is at risk of a log that ends there.
#[must_use]
pub fn at_risk(leader: &Leader, end: Seq, now: Instant) -> AtRisk {
    let acknowledged = leader.greatest_acknowledged();
    let entries = end.since(acknowledged);
    let oldest = leader.marks().filter(|_| entries > 0).map(|marks| marks.age(acknowledged.next(), now));
    AtRisk { entries, oldest }
}

/// How much a leader lets be at risk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `replication.min_replicas`.
    pub replicas_min: usize,
    /// `replication.max_at_risk_entries`; none: any number.
    pub entries_max: Option<u64>,
    /// `replication.max_at_risk_ms`; none: for any time.
    pub age_max: Option<Duration>,
}

impl Limits {
    /// Those of the file; none when it sets none.
    #[must_use]
    pub fn of(settings: &Settings) -> Option<Limits> {
        let limits = Limits {
            replicas_min: settings.min_replicas,
            entries_max: Some(settings.max_at_risk_entries).filter(|entries| *entries > 0),
            age_max: Some(settings.max_at_risk).filter(|age| !age.is_zero()),
        };
        let is_off = limits.replicas_min == 0 && limits.entries_max.is_none() && limits.age_max.is_none();
        (!is_off).then_some(limits)
    }
}

/// Whether the entry that would come next may be given a seq. Asked for each write on the writer, with those before it in
/// its commit counted: so entries at risk are never more than the limit says. Of the age this cannot be said, for what is at
/// risk gets older by itself: nothing is added to it once the oldest is as old as the limit.
pub fn check(leader: &Leader, next: Seq, limits: Limits, now: Instant) -> Result<(), Refusal> {
    let present = leader.replicas().filter(|(_, replica)| replica.is_present(now)).count();
    if present < limits.replicas_min {
        let (min, of) = (limits.replicas_min, leader.replicas().count());
        let (seconds, seen) = (PRESENT_FOR.as_secs(), seen(leader, next, now));
        return Err(Refusal::TooFewReplicas(format!(
            "{present} of {of} replicas have asked for news in the last {seconds} s, and replication.min_replicas = {min}: {seen}"
        )));
    }
    let at_risk = at_risk(leader, next, now);
    if let Some(max) = limits.entries_max.filter(|max| at_risk.entries > *max) {
        let (others, seen) = (at_risk.entries.saturating_sub(1), seen(leader, next, now));
        return Err(Refusal::AtRisk(format!(
            "{others} writes are on this leader's disk only, and replication.max_at_risk_entries = {max}: {seen}"
        )));
    }
    // The entry itself has no age yet.
    let held = AtRisk { entries: at_risk.entries.saturating_sub(1), ..at_risk };
    let oldest = held.oldest.filter(|_| held.entries > 0);
    if let (Some(max), Some(oldest)) = (limits.age_max, oldest)
        && !oldest.is_below(max)
    {
        let age = match oldest {
            Age::AtMost(age) => format!("the oldest of them for {} ms", age.as_millis()),
            Age::Older(_) => "some since before it began to lead".to_owned(),
        };
        let (entries, max, seen) = (held.entries, max.as_millis(), seen(leader, next, now));
        return Err(Refusal::AtRisk(format!(
            "{entries} writes are on this leader's disk only, {age}, and replication.max_at_risk_ms = {max}: {seen}"
        )));
    }
    Ok(())
}

/// What the leader sees of its replicas.
fn seen(leader: &Leader, next: Seq, now: Instant) -> String {
    let one = |(name, replica): (&NodeName, &Replica)| {
        let heard = match replica.last_poll {
            Some(last) => format!("{name} was heard {} ms ago", now.saturating_duration_since(last).as_millis()),
            None => format!("{name} was not heard since this leader began"),
        };
        match next.since(replica.acknowledged()).saturating_sub(1) {
            0 => format!("{heard}, and has everything"),
            lacks => format!("{heard}, and is not known to have the last {lacks}"),
        }
    };
    leader.replicas().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
