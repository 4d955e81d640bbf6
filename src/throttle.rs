//! Bounds how many lines a second go into the log for one kind of event. A thousand requests that fail for one reason are
//! one thing to an operator: the first lines say it, and the next one that is let through says how many were left out.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The time for which lines are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// Lets so many events through in a second.
#[derive(Debug)]
pub struct Throttle {
    per_window: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    window_began: Option<Instant>,
    passed: u32,
    /// Left out since the last one that passed.
    left_out: u64,
}

impl Throttle {
    /// Lets `per_second` events through, and no more.
    #[must_use]
    pub fn new(per_second: u32) -> Throttle {
        Throttle { per_window: per_second, state: Mutex::default() }
    }

    /// Whether an event may pass, and if so, how many were left out since the last that did.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        let is_over = state.window_began.is_none_or(|began| now.saturating_duration_since(began) >= WINDOW);
        if is_over {
            state.window_began = Some(now);
            state.passed = 0;
        }
        if state.passed >= self.per_window {
            state.left_out += 1;
            return None;
        }
        state.passed += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn throttle_beyond_its_number_counts_what_it_leaves_out() {
        let (clock, throttle) = (Clock::manual(), Throttle::new(2));
        let admit = || throttle.admit(clock.now());
        assert_eq!([admit(), admit(), admit(), admit()], [Some(0), Some(0), None, None]);
        clock.advance(WINDOW);
        assert_eq!([admit(), admit(), admit()], [Some(2), Some(0), None]);
    }
}
