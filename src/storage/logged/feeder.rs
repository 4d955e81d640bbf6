//! The thread that feeds: it sleeps until there is work, gives it time to grow, and brings it into the file.
//!
//! | wait | how long |
//! |---|---|
//! | for work | until there is some |
//! | for more of it | [`FEED_AGE`], or until the overlay is large enough |
//! | for space on the disk | [`SPACE_PAUSE`], again and again: meanwhile the overlay fills, and then writes are refused |

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Fed, Inner};
use crate::storage::Error;

/// What was written is in the file after so long, and the time of a feed, at the latest.
const FEED_AGE: Duration = Duration::from_secs(10);
/// Between two looks at a full disk.
const SPACE_PAUSE: Duration = Duration::from_secs(1);

/// What commits tell the thread, and what feeds tell those who wait for room.
#[derive(Debug, Default)]
pub(super) struct Bell {
    ring: Mutex<Ring>,
    changed: Condvar,
}

/// What there is to do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ring {
    /// Something was written.
    pub(super) has_work: bool,
    /// Enough of it for a feed.
    pub(super) is_full: bool,
    stops: bool,
}

impl Bell {
    /// Says what there is to do.
    pub(super) fn ring(&self, change: impl FnOnce(&mut Ring)) {
        let mut ring = self.ring.lock();
        let before = *ring;
        change(&mut ring);
        let is_news = *ring != before;
        drop(ring);
        if is_news {
            self.changed.notify_all();
        }
    }

    /// Wakes everybody who waits, to look again.
    pub(super) fn wake(&self) {
        drop(self.ring.lock()); // who has looked just before is waiting by now
        self.changed.notify_all();
    }

    /// Waits for something to be true, at most so long; whether it is.
    pub(super) fn wait_for(&self, wait: Duration, mut is_true: impl FnMut() -> bool) -> bool {
        let mut ring = self.ring.lock();
        !self.changed.wait_while_for(&mut ring, |_| !is_true(), wait).timed_out()
    }

    /// Waits for work, and for enough of it; false when the thread shall end.
    fn wait_for_work(&self) -> bool {
        let mut ring = self.ring.lock();
        self.changed.wait_while(&mut ring, |ring| !ring.has_work && !ring.stops);
        self.changed.wait_while_for(&mut ring, |ring| !ring.is_full && !ring.stops, FEED_AGE);
        let goes_on = !ring.stops;
        *ring = Ring { stops: ring.stops, ..Ring::default() };
        goes_on
    }

    /// Waits for the end, at most so long; true when it has come.
    fn wait_for_stop(&self, wait: Duration) -> bool {
        let mut ring = self.ring.lock();
        !self.changed.wait_while_for(&mut ring, |ring| !ring.stops, wait).timed_out()
    }
}

/// The thread.
#[derive(Debug)]
pub(super) struct Feeder(JoinHandle<()>);

impl Feeder {
    pub(super) fn spawn(inner: Arc<Inner>) -> std::io::Result<Feeder> {
        let name = format!("feeder-{}", inner.shard);
        thread::Builder::new().name(name).spawn(move || run(&inner)).map(Feeder)
    }

    /// Ends it, behind a feed that is under way.
    pub(super) fn stop(self, bell: &Bell) {
        bell.ring(|ring| ring.stops = true);
        if self.0.join().is_err() {
            tracing::error!("the feeder's thread panicked");
        }
    }
}

fn run(inner: &Inner) {
    let failing = FailOnPanic(inner);
    let mut was_short = false;
    while inner.bell.wait_for_work() {
        while let Ok(Fed::NoSpace) = inner.feed_once(false) {
            if !std::mem::replace(&mut was_short, true) {
                tracing::warn!(
                    "too little space on the disk to bring writes from the log into the file: free some; \
                    until then few more writes are taken"
                );
            }
            if inner.bell.wait_for_stop(SPACE_PAUSE) {
                return;
            }
        }
        was_short = false;
        if inner.failure.get().is_some() {
            return; // said where it failed
        }
    }
    drop(failing);
}

/// A feeder that panicked feeds nothing more: the engine has failed (rule 9).
struct FailOnPanic<'a>(&'a Inner);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(&Error::Failed("the thread that feeds the file panicked".to_owned()));
        }
    }
}
