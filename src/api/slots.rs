//! How many connections there may be, and which of them make room when there are nearly as many.
//!
//! A connection without a request costs a slot, and nothing else: so while slots are plenty it may stay, and when they are
//! scarce it is closed, so that those with something to say are heard.
//!
//! | slots | a connection that has no request under way and says nothing |
//! |---|---|
//! | a quarter or more are free | stays (`listen::HEAD_WAIT_MAX` bounds it) |
//! | less | is closed after [`QUIET_WAIT_SCARCE`] |
//! | none, and the accept loop waits for one | is closed after [`QUIET_WAIT_NONE`] |
//!
//! A head that arrives byte by byte says nothing until it is whole. An answer counts as under way until it is written; one
//! whose body comes piece by piece, with pauses, would have to say so here (there is none yet).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

/// Patience while less than a quarter of the slots are free.
const QUIET_WAIT_SCARCE: Duration = Duration::from_secs(5);
/// Patience while none is free.
const QUIET_WAIT_NONE: Duration = Duration::from_millis(500);
/// Between two looks at a quiet connection while slots are scarce.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// How patient slots are with quiet connections; a test has less time.
#[derive(Debug, Clone, Copy)]
struct Waits {
    scarce: Duration,
    none: Duration,
    look: Duration,
}

/// All slots of a node.
#[derive(Debug)]
pub(super) struct Slots {
    free: Arc<Semaphore>,
    total: usize,
    waits: Waits,
    /// The accept loop waits for a slot.
    is_waited_for: AtomicBool,
    scarce: watch::Sender<bool>,
}

/// The place of one connection; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    permit: Option<OwnedSemaphorePermit>,
}

/// What a connection does, as far as its slot is concerned. Its own task alone says so; whoever looks may be another.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests under way.
    requests: AtomicUsize,
    /// A write waits for the client.
    is_writing: AtomicBool,
    /// Grows with the end of each request and of each wait of a write.
    deeds: AtomicU64,
}

impl Slots {
    /// So many slots.
    pub(super) fn new(total: usize) -> Arc<Slots> {
        Slots::with(total, Waits { scarce: QUIET_WAIT_SCARCE, none: QUIET_WAIT_NONE, look: LOOK_PAUSE })
    }

    fn with(total: usize, waits: Waits) -> Arc<Slots> {
        let total = total.min(Semaphore::MAX_PERMITS);
        Arc::new(Slots {
            free: Arc::new(Semaphore::new(total)),
            total,
            waits,
            is_waited_for: AtomicBool::new(false),
            scarce: watch::Sender::new(false),
        })
    }

    /// A slot, once there is one.
    pub(super) async fn acquire(self: &Arc<Self>) -> Slot {
        let free = Arc::clone(&self.free);
        let permit = match Arc::clone(&free).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => {
                self.is_waited_for.store(true, Ordering::Relaxed);
                let permit = free.acquire_owned().await.ok(); // never closed
                self.is_waited_for.store(false, Ordering::Relaxed);
                permit
            }
        };
        self.reckon();
        Slot { slots: Arc::clone(self), permit }
    }

    /// Tells connections whether slots are scarce, when that is news.
    fn reckon(&self) {
        let is_scarce = self.patience().is_some();
        self.scarce.send_if_modified(|scarce| std::mem::replace(scarce, is_scarce) != is_scarce);
    }

    /// How long a quiet connection may stay; none: as far as slots are concerned, for ever.
    fn patience(&self) -> Option<Duration> {
        let are_plenty = self.free.available_permits() * 4 >= self.total;
        let is_waited_for = self.is_waited_for.load(Ordering::Relaxed);
        (!are_plenty).then_some(if is_waited_for { self.waits.none } else { self.waits.scarce })
    }
}

impl Slot {
    /// Returns when the connection should make room for others.
    pub(super) async fn is_wanted_back(&self, activity: &Activity) {
        let mut scarce = self.slots.scarce.subscribe();
        loop {
            if scarce.wait_for(|scarce| *scarce).await.is_err() {
                return std::future::pending().await;
            }
            let look = self.slots.waits.look;
            let (mut quiet, mut seen) = (Duration::ZERO, activity.deeds());
            while let Some(patience) = self.slots.patience() {
                if quiet >= patience {
                    return;
                }
                sleep(look).await;
                let now = activity.deeds();
                quiet = if activity.is_busy() || now != seen { Duration::ZERO } else { quiet + look };
                seen = now;
            }
            self.slots.reckon();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.permit = None;
        self.slots.reckon();
    }
}

impl Activity {
    /// A request is under way until what this returns is dropped.
    pub(super) fn request(self: &Arc<Self>) -> UnderWay {
        self.begin();
        UnderWay(Arc::clone(self))
    }

    /// A request is under way, until [`Activity::end`].
    pub(super) fn begin(&self) {
        self.requests.store(self.requests.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// It is no longer under way.
    pub(super) fn end(&self) {
        self.deed();
        self.requests.store(self.requests.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }

    /// A write waits, or does not. Said at every look at the connection: only the end of a wait is a deed.
    pub(super) fn write_waits(&self, waits: bool) {
        if self.is_writing.load(Ordering::Relaxed) != waits {
            self.is_writing.store(waits, Ordering::Relaxed);
            if !waits {
                self.deed();
            }
        }
    }

    fn deed(&self) {
        self.deeds.store(self.deeds.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    fn is_busy(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0 || self.is_writing.load(Ordering::Relaxed)
    }

    fn deeds(&self) -> u64 {
        self.deeds.load(Ordering::Relaxed)
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const LONG: Duration = Duration::from_millis(300);
    const AT_LAST: Duration = Duration::from_secs(30);

    fn slots(total: usize, scarce_ms: u64, none_ms: u64) -> Arc<Slots> {
        let (scarce, none) = (Duration::from_millis(scarce_ms), Duration::from_millis(none_ms));
        Slots::with(total, Waits { scarce, none, look: Duration::from_millis(5) })
    }

    #[tokio::test]
    async fn quiet_connection_stays_while_slots_are_plenty() {
        let slots = slots(8, 10, 10);
        let slot = slots.acquire().await;
        assert!(timeout(LONG, slot.is_wanted_back(&Activity::default())).await.is_err());
    }

    #[tokio::test]
    async fn quiet_connection_makes_room_when_slots_are_scarce() {
        let slots = slots(4, 20, 3_600_000);
        let mut taken = Vec::new();
        for _ in 0..4 {
            taken.push(slots.acquire().await);
        }
        let quiet = Activity::default();
        timeout(AT_LAST, taken[0].is_wanted_back(&quiet)).await.unwrap();
        taken.pop();
        assert!(timeout(LONG, taken[0].is_wanted_back(&quiet)).await.is_err(), "a quarter is free again");
    }

    #[tokio::test]
    async fn quiet_connection_makes_room_soon_when_someone_waits() {
        let slots = slots(1, 3_600_000, 20);
        let slot = slots.acquire().await;
        let next = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { drop(slots.acquire().await) }
        });
        tokio::task::yield_now().await;
        timeout(AT_LAST, slot.is_wanted_back(&Activity::default())).await.unwrap();
        drop(slot);
        next.await.unwrap();
    }

    #[tokio::test]
    async fn connection_with_a_request_or_an_answer_under_way_stays() {
        let slots = slots(1, 20, 20);
        let slot = slots.acquire().await;
        let activity = Arc::new(Activity::default());
        let request = activity.request();
        assert!(timeout(LONG, slot.is_wanted_back(&activity)).await.is_err());
        activity.write_waits(true);
        drop(request);
        assert!(timeout(LONG, slot.is_wanted_back(&activity)).await.is_err());
        activity.write_waits(false);
        assert!(timeout(AT_LAST, slot.is_wanted_back(&activity)).await.is_ok());
    }
}
