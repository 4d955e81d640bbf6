//! The threads behind a log: one feeds, it sleeps until there is work, gives it time to grow, and brings it into the file;
//! one makes the log's next segment ready, which must not wait for a feed.
//!
//! | wait | how long |
//! |---|---|
//! | for work | until there is some |
//! | for more of it | [`FEED_AGE`], or until the overlay is large enough |
//! | for space on the disk | [`SPACE_PAUSE`], again and again: meanwhile the overlay fills, and then writes are refused |
//! | for a segment that is half full | until there is one |

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Fed, Inner};
use crate::storage::Error;

/// What was written is in the file after so long, and the time of a feed, at the latest.
const FEED_AGE: Duration = Duration::from_secs(10);
/// The niceness of these threads, from 0 to 19.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;
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
    /// The log wants its next segment.
    pub(super) wants_segment: bool,
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
        (ring.has_work, ring.is_full) = (false, false);
        !ring.stops
    }

    /// Waits until the log wants a segment; false when the thread shall end.
    fn wait_for_wish(&self) -> bool {
        let mut ring = self.ring.lock();
        self.changed.wait_while(&mut ring, |ring| !ring.wants_segment && !ring.stops);
        ring.wants_segment = false;
        !ring.stops
    }

    /// Waits for the end, at most so long; true when it has come.
    fn wait_for_stop(&self, wait: Duration) -> bool {
        let mut ring = self.ring.lock();
        !self.changed.wait_while_for(&mut ring, |ring| !ring.stops, wait).timed_out()
    }
}

/// The threads.
#[derive(Debug)]
pub(super) struct Feeder(Vec<JoinHandle<()>>);

impl Feeder {
    pub(super) fn spawn(inner: &Arc<Inner>) -> std::io::Result<Feeder> {
        let spawn = |name: &str, run: fn(&Inner)| {
            let inner = Arc::clone(inner);
            let thread = thread::Builder::new().name(format!("{name}-{}", inner.shard));
            thread.spawn(move || {
                give_way();
                let _failing = FailOnPanic(&inner);
                run(&inner);
            })
        };
        let feeder = spawn("feeder", feed)?;
        let preparer = spawn("segments", prepare).inspect_err(|_| inner.bell.ring(|ring| ring.stops = true))?;
        Ok(Feeder(vec![feeder, preparer]))
    }

    /// Ends them, behind what is under way.
    pub(super) fn stop(self, bell: &Bell) {
        bell.ring(|ring| ring.stops = true);
        for thread in self.0 {
            if thread.join().is_err() {
                tracing::error!("a thread behind the log panicked");
            }
        }
    }
}

fn prepare(inner: &Inner) {
    while inner.bell.wait_for_wish() {
        if let Some(Err(error)) = inner.front.load_full().map(|front| front.log.prepare()) {
            return inner.fail(&error);
        }
    }
}

fn feed(inner: &Inner) {
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
}

/// Requests come first where there are fewer processors than work: a feed is a second of sorting and hashing. It still has
/// its share, a quarter of what a request's thread has, for writers that are ahead of it must wait.
fn give_way() {
    #[cfg(target_os = "linux")] // where a priority is a thread's
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
        tracing::debug!(detail = %error, "the threads behind the log keep the priority of the others");
    }
}

/// A thread that panicked does nothing more: the engine has failed (rule 9).
struct FailOnPanic<'a>(&'a Inner);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(&Error::Failed("a thread behind the log panicked".to_owned()));
        }
    }
}
