//! Leave to take writes in one epoch. The writer looks at it when it gives seq, and again before it answers (rule 17).
//!
//! ```text
//!   Good ── renewed every tenth of a second by the task that leads
//!   Stale ─ not renewed for a second: the process stood still (stopped, starved); another may lead by now. Writes
//!           and answers wait until the task has asked, and renewed it
//!   Ended ─ this node has learnt that another leads, or has promised that another may: for good
//! ```
//!
//! A node is taken for gone only when it has been silent for longer than it takes to become stale: so a leader that was
//! merely stopped finds out before it confirms anything that another knows nothing of. A machine that is suspended as a whole
//! does not find out: its monotonic clock stands still, too. It is as one that was cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock::millis;

/// A leave that was not renewed for so long is stale.
pub const STALE_AFTER: Duration = Duration::from_secs(1);

/// Leave to take writes in one epoch; clones are the same leave.
#[derive(Debug, Clone)]
pub struct Mandate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    /// When it was renewed last, in milliseconds since it began.
    renewed_ms: AtomicU64,
    has_ended: AtomicBool,
}

/// What a leave is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Writes may be taken, and answered.
    Good,
    /// Somebody has to ask first.
    Stale,
    /// Another leads, or is about to.
    Ended,
}

impl Mandate {
    /// A leave that begins now.
    #[must_use]
    pub fn new(now: Instant) -> Mandate {
        Mandate(Arc::new(Inner { began: now, renewed_ms: AtomicU64::new(0), has_ended: AtomicBool::new(false) }))
    }

    /// Ends it, for good.
    pub fn end(&self) {
        self.0.has_ended.store(true, Ordering::SeqCst);
    }

    /// Its holder runs, and knows of nothing that speaks against it.
    pub fn renew(&self, now: Instant) {
        self.0.renewed_ms.store(millis(now.saturating_duration_since(self.0.began)), Ordering::SeqCst);
    }

    /// Whether it has not ended, be it stale or not.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.0.has_ended.load(Ordering::SeqCst)
    }

    /// What it is worth now.
    #[must_use]
    pub fn leave(&self, now: Instant) -> Leave {
        let age = now.saturating_duration_since(self.0.began);
        let renewed = Duration::from_millis(self.0.renewed_ms.load(Ordering::SeqCst));
        match self.holds() {
            false => Leave::Ended,
            true if age.saturating_sub(renewed) >= STALE_AFTER => Leave::Stale,
            true => Leave::Good,
        }
    }
}

impl PartialEq for Mandate {
    /// Whether it is the same leave.
    fn eq(&self, other: &Mandate) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Mandate {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn mandate_that_is_not_renewed_is_stale_and_good_again_when_it_is() {
        let clock = Clock::manual();
        let mandate = Mandate::new(clock.now());
        clock.advance(STALE_AFTER / 2);
        assert_eq!(mandate.leave(clock.now()), Leave::Good);
        mandate.renew(clock.now());
        clock.advance(STALE_AFTER / 2);
        assert_eq!(mandate.leave(clock.now()), Leave::Good);
        clock.advance(STALE_AFTER / 2);
        assert_eq!(mandate.leave(clock.now()), Leave::Stale);
        mandate.renew(clock.now());
        assert_eq!(mandate.leave(clock.now()), Leave::Good);
        mandate.end();
        mandate.renew(clock.now());
        assert_eq!(mandate.leave(clock.now()), Leave::Ended, "for good");
    }
}
