//! Time for measurements. The only file here that reads the system's clocks; everything else takes times as arguments.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time: nanoseconds since the clock was made. Plain numbers, so that schedules and windows are arithmetic.
pub(crate) type Nanos = u64;

/// A nanosecond count of a duration; what does not fit (585 years) is the largest number.
pub(crate) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A monotonic clock with a beginning of its own; copies agree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Begins at nought.
    #[expect(clippy::disallowed_methods, reason = "a load generator measures real time, and only here")]
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Now.
    pub(crate) fn now(self) -> Nanos {
        nanos(self.0.elapsed())
    }
}

/// The time of day in whole seconds since 1970, to label a result with.
#[expect(clippy::disallowed_methods, reason = "a label for people, nothing is measured with it")]
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
