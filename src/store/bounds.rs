//! Bounds that a probe sets on a copy: how much may be at risk on its disk (rule 23), how far a replica may be behind. What
//! is not known is beyond every bound.

use std::fmt;
use std::time::Duration;

use super::Store;
use super::view::{Check, Verdict};
use crate::clock::millis;
use crate::replication::pair::leader::AWAY_AFTER;
use crate::replication::pair::risk::{Age, AtRisk};
use crate::replication::pair::{Duty, Pair};

/// How much of something a probe takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// So many entries.
    Entries(u64),
    /// Nothing older than this.
    Age(Duration),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Entries(entries) => write!(f, "{entries} writes"),
            Bound::Age(age) => write!(f, "{} ms", millis(*age)),
        }
    }
}

/// What `/readyz` asks for beside a copy's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// How far a replica may be behind its leader.
    pub max_lag: Option<Bound>,
    /// How much may be on a leader's disk only.
    pub max_at_risk: Option<Bound>,
}

impl Store {
    /// Whether this node's copies are within bounds: a line for each bound and copy.
    #[must_use]
    pub fn within(&self, bounds: Bounds) -> Vec<Check> {
        let of_copy = |pair: &Pair| {
            let check = |what: &str, (ok, detail): (bool, String)| Check {
                name: format!("{what} {}", pair.shard.name),
                verdict: Verdict::of(ok),
                detail,
            };
            let lag = bounds.max_lag.map(|bound| check("lag", judge_lag(bound, self.lag(pair))));
            let risk = bounds.max_at_risk.map(|bound| check("at risk", judge_risk(bound, risk(pair))));
            lag.into_iter().chain(risk).collect::<Vec<_>>()
        };
        self.copies.values().flat_map(|pair| of_copy(pair)).collect()
    }

    fn lag(&self, pair: &Pair) -> Lag {
        let now = self.clock.now();
        match pair.duty() {
            Duty::Leading if pair.leads() => Lag::Leads,
            Duty::Following => Lag::Behind {
                entries: pair
                    .heard()
                    .filter(|heard| heard.ms < millis(AWAY_AFTER))
                    .map(|heard| heard.end.since(pair.writer.published().end())),
                age: pair.stale(now),
            },
            _ => Lag::Neither,
        }
    }
}

/// How far a copy is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lag {
    /// It leads: nobody is before it.
    Leads,
    /// It follows. None: not known, for nothing was heard of the leader for a while.
    Behind { entries: Option<u64>, age: Option<Duration> },
    /// It does neither now.
    Neither,
}

fn judge_lag(bound: Bound, lag: Lag) -> (bool, String) {
    let (entries, age) = match lag {
        Lag::Leads => return (true, "leads: nobody is before it".to_owned()),
        Lag::Neither => return (false, "neither leads nor follows now".to_owned()),
        Lag::Behind { entries, age } => (entries, age),
    };
    let (ok, found) = match bound {
        Bound::Entries(max) => {
            (entries.is_some_and(|entries| entries <= max), entries.map(|entries| Bound::Entries(entries).to_string()))
        }
        Bound::Age(max) => (age.is_some_and(|age| age <= max), age.map(|age| Bound::Age(age).to_string())),
    };
    let found = found.unwrap_or_else(|| "not known, for nothing was heard of the leader for a while".to_owned());
    (ok, format!("{found}, where {bound} may be"))
}

/// What is at risk on a copy's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Risk {
    /// It has no replicas: everything.
    Unreplicated,
    /// It does not lead: its leader counts.
    NotCounted,
    /// So much.
    Counted(AtRisk),
}

fn risk(pair: &Pair) -> Risk {
    match pair.at_risk() {
        Some(at_risk) => Risk::Counted(at_risk),
        None if pair.shard.copies.len() < 2 => Risk::Unreplicated,
        None => Risk::NotCounted,
    }
}

fn judge_risk(bound: Bound, risk: Risk) -> (bool, String) {
    let at_risk = match risk {
        Risk::Unreplicated => return (false, "unreplicated: every write is on one disk only".to_owned()),
        Risk::NotCounted => return (true, "not the leader: that one counts".to_owned()),
        Risk::Counted(at_risk) => at_risk,
    };
    let ok = match bound {
        Bound::Entries(max) => at_risk.entries <= max,
        Bound::Age(max) => at_risk.entries == 0 || at_risk.oldest.is_some_and(|oldest| oldest.is_below(max)),
    };
    let oldest = match at_risk.oldest.filter(|_| at_risk.entries > 0) {
        None => String::new(),
        Some(Age::AtMost(age)) => format!(", the oldest for {} ms", millis(age)),
        Some(Age::Older(_)) => ", some since before this leader began".to_owned(),
    };
    (ok, format!("{} writes on this disk only{oldest}, where {bound} may be", at_risk.entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn risk_is_held_against_entries_or_age_and_what_is_not_known_is_too_much() {
        let counted = |entries, oldest| Risk::Counted(AtRisk { entries, oldest });
        let (young, old) = (Some(Age::AtMost(ms(499))), Some(Age::AtMost(ms(500))));
        let before = Some(Age::Older(ms(1)));
        for (bound, risk, expected) in [
            (Bound::Entries(100), counted(100, old), true),
            (Bound::Entries(100), counted(101, young), false),
            (Bound::Entries(0), counted(0, None), true),
            (Bound::Entries(5), counted(3, before), true),
            (Bound::Age(ms(500)), counted(9, young), true),
            (Bound::Age(ms(500)), counted(9, old), false),
            (Bound::Age(ms(500)), counted(9, before), false),
            (Bound::Age(ms(500)), counted(0, None), true),
            (Bound::Entries(100), Risk::Unreplicated, false),
            (Bound::Age(ms(500)), Risk::Unreplicated, false),
            (Bound::Entries(0), Risk::NotCounted, true),
        ] {
            assert_eq!(judge_risk(bound, risk).0, expected, "{bound:?} {risk:?}");
        }
    }

    #[test]
    fn lag_is_held_against_entries_or_age_and_what_is_not_known_is_too_much() {
        let behind = |entries, age| Lag::Behind { entries, age };
        for (bound, lag, expected) in [
            (Bound::Entries(3), behind(Some(3), None), true),
            (Bound::Entries(3), behind(Some(4), Some(ms(1))), false),
            (Bound::Entries(3), behind(None, Some(ms(1))), false),
            (Bound::Age(ms(500)), behind(None, Some(ms(500))), true),
            (Bound::Age(ms(500)), behind(Some(0), Some(ms(501))), false),
            (Bound::Age(ms(500)), behind(Some(0), None), false),
            (Bound::Entries(0), Lag::Leads, true),
            (Bound::Entries(1000), Lag::Neither, false),
        ] {
            assert_eq!(judge_lag(bound, lag).0, expected, "{bound:?} {lag:?}");
        }
    }
}
