//! Time, handed in: the real clock, and one that tests move by hand. The only file that reads the system's clocks, so
//! that everything else can run in simulated time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::types::UnixMs;

/// Cheap to clone; all clones of a manual clock show the same time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    Real,
    /// Milliseconds since the clock was made, on top of a fixed start.
    Manual {
        start: Instant,
        elapsed_ms: Arc<AtomicU64>,
    },
}

/// Where a manual clock's wall time begins: 2020-09-13T12:26:40Z, easy to recognise in a failure.
const MANUAL_EPOCH_MS: u64 = 1_600_000_000_000;

impl Clock {
    /// The system's clocks.
    #[must_use]
    pub fn real() -> Clock {
        Clock(Source::Real)
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    #[must_use]
    pub fn manual() -> Clock {
        Clock(Source::Manual { start: now(), elapsed_ms: Arc::default() })
    }

    /// Moves a manual clock forward. Panics on the real one.
    pub fn advance(&self, by: Duration) {
        let Source::Manual { elapsed_ms, .. } = &self.0 else { panic!("the real clock cannot be moved") };
        elapsed_ms.fetch_add(millis(by), Ordering::SeqCst);
    }

    /// Monotonic time, for deadlines and ages.
    #[must_use]
    pub fn now(&self) -> Instant {
        match &self.0 {
            Source::Real => now(),
            Source::Manual { start, elapsed_ms } => *start + Duration::from_millis(elapsed_ms.load(Ordering::SeqCst)),
        }
    }

    /// Wall-clock time, for what people and other machines read.
    #[must_use]
    pub fn unix_ms(&self) -> UnixMs {
        match &self.0 {
            Source::Real => UnixMs(unix_ms()),
            Source::Manual { elapsed_ms, .. } => UnixMs(MANUAL_EPOCH_MS + elapsed_ms.load(Ordering::SeqCst)),
        }
    }
}

/// The time that the runtime's timers go by: the system's, or what a test makes of it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place that the others must go through")]
pub fn timer_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// Whole milliseconds of a duration; saturates.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "this is the place that the others must go through")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this is the place that the others must go through")]
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}
