//! Time for measurements. The only file here that reads the system's clock: what is measured, and from when to when, is
//! then easy to find and to change (an open loop will count from the intended start).

use std::time::{Duration, Instant};

/// A point in time from which something is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start(Instant);

impl Start {
    /// Begins a measurement.
    #[expect(clippy::disallowed_methods, reason = "a load generator measures real time, and only here")]
    pub(crate) fn now() -> Start {
        Start(Instant::now())
    }

    /// How long ago that was. Monotonic.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
