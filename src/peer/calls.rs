//! The calls under way on one connection: who waits for which answer, until when, and whether a byte of it has left.
//!
//! ```text
//!   enter ─▶ waiting ─ start (a byte leaves) ─▶ passed (the last one left) ─▶ answered │ over │ the connection closes
//!               └──────── leave: its caller has gone ────────┘
//! ```
//!
//! One timer serves all calls of a connection: it is set to the earliest end of anybody's patience, and looks at all of
//! them when it goes off. Calls nearly always end long before, so it goes off about as often as a caller's patience
//! lasts, and a call costs no timer of its own.
//!
//! A call ends exactly once, and is told by its [`End`] whether it may have happened (rule 22): [`Calls::start`] marks it
//! before its first byte is written, under the lock under which it may also leave.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use super::connection::{Outgoing, Watch};
use super::message::Status;
use crate::clock::timer_now;

/// Requests under way on one connection; the next one is refused, not queued.
pub(super) const PENDING_MAX: usize = 8192;

/// A peer that has said nothing for so long, though a request waits, is taken for gone; a caller with less patience says
/// nothing about the peer, and must not break off what others wait for.
const SILENCE: Duration = Duration::from_secs(2);

/// A connection that nobody has used for so long is closed: whether the peer is still behind it would show only when a
/// call has waited in vain.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(60);

/// How long a caller waits.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the answer, after the last byte was passed on.
    pub answer: Duration,
    /// For everything.
    pub total: Duration,
}

/// How a call ended.
#[derive(Debug)]
pub(super) enum End {
    /// The peer answered.
    Answered(Status, Bytes),
    /// The connection ended.
    Lost {
        /// A byte of the request has left.
        left: bool,
    },
    /// The caller's patience did.
    Over {
        /// A byte of the request has left.
        left: bool,
    },
}

/// Why a call was not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// [`PENDING_MAX`] are under way.
    Full,
    /// The connection has ended.
    Closed,
}

/// The calls of one connection.
#[derive(Debug, Default)]
pub(super) struct Calls {
    desk: Mutex<Desk>,
    /// The connection has ended.
    closed: AtomicBool,
    /// Wakes the watch: somebody's patience ends before the time it waits for.
    sooner: Notify,
}

#[derive(Debug, Default)]
struct Desk {
    /// At most [`PENDING_MAX`]. The ids are ours, so no stranger can choose where they fall.
    waiting: HashMap<u64, Waiting, fnv::FnvBuildHasher>,
    next_id: u64,
    /// When the watch looks next; none when nobody waits.
    due: Option<Instant>,
    /// Frames that have arrived: tells a slow request from a silent peer.
    heard: u64,
}

#[derive(Debug)]
struct Waiting {
    end: oneshot::Sender<End>,
    /// When its caller's patience ends; comes nearer when the last byte was passed on.
    until: Instant,
    answer: Duration,
    /// A byte of it has left, or is about to.
    left: bool,
    /// It waits long enough for its end to say something about the peer, and so much had been heard when it began.
    patient_since: Option<u64>,
}

/// A call's place among those under way; leaves it when dropped before the end.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) id: u64,
    calls: Arc<Calls>,
    end: oneshot::Receiver<End>,
    ended: bool,
}

impl Place {
    /// Waits for the end of the call.
    pub(super) async fn end(mut self) -> End {
        let end = (&mut self.end).await;
        self.ended = true;
        // Only a connection whose task was torn down with its runtime ends nobody's call.
        end.unwrap_or(End::Lost { left: true })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.ended {
            self.calls.desk.lock().waiting.remove(&self.id);
        }
    }
}

impl Calls {
    /// Enters a call.
    pub(super) fn enter(self: &Arc<Self>, patience: Patience) -> Result<Place, Turned> {
        let Patience { answer, total } = patience;
        let until = timer_now() + total;
        let (reply, end) = oneshot::channel();
        let mut desk = self.desk.lock();
        if self.are_closed() {
            return Err(Turned::Closed);
        }
        if desk.waiting.len() >= PENDING_MAX {
            return Err(Turned::Full);
        }
        let id = desk.next_id;
        desk.next_id += 1;
        let patient_since = (answer.min(total) >= SILENCE).then_some(desk.heard);
        desk.waiting.insert(id, Waiting { end: reply, until, answer, left: false, patient_since });
        let sooner = desk.is_due_by(until);
        drop(desk);
        if sooner {
            self.sooner.notify_one();
        }
        Ok(Place { id, calls: Arc::clone(self), end, ended: false })
    }

    /// Whether the connection has ended.
    pub(super) fn are_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// An answer has arrived; one to a call that has ended is nobody's.
    pub(super) fn answered(&self, id: u64, status: Status, body: Bytes) {
        let mut desk = self.desk.lock();
        desk.heard += 1;
        let waiting = desk.waiting.remove(&id);
        drop(desk);
        if let Some(waiting) = waiting {
            let _ = waiting.end.send(End::Answered(status, body)); // its caller may be leaving
        }
    }

    /// The connection has ended, and with it every call.
    pub(super) fn close(&self) {
        let mut desk = self.desk.lock();
        self.closed.store(true, Ordering::Release); // with the desk locked: nobody enters behind it
        let waiting = std::mem::take(&mut desk.waiting);
        drop(desk);
        for Waiting { end, left, .. } in waiting.into_values() {
            let _ = end.send(End::Lost { left });
        }
    }

    /// Ends calls whose time is over. Returns when the connection is to be closed: one of them was patient and the peer has
    /// said nothing at all meanwhile, so that the next caller learns by a new handshake whether the peer is there, without
    /// leaving a write in the dark; or nobody has called for [`IDLE_MAX`].
    pub(super) async fn watch(&self) {
        loop {
            let due = self.desk.lock().due;
            let look = due.unwrap_or_else(|| timer_now() + IDLE_MAX);
            tokio::select! {
                () = sleep_until(look) => {
                    let is_idle = due.is_none();
                    if is_idle || self.end_overdue(timer_now()) {
                        return; // a call that enters now is told that nothing of it has left
                    }
                }
                () = self.sooner.notified() => {}
            }
        }
    }

    /// Ends the calls whose patience has ended; true when that shows that the peer is silent.
    fn end_overdue(&self, now: Instant) -> bool {
        let mut desk = self.desk.lock();
        let overdue: Vec<Waiting> =
            desk.waiting.extract_if(|_, waiting| waiting.until <= now).map(|(_, waiting)| waiting).collect();
        desk.due = desk.waiting.values().map(|waiting| waiting.until).min();
        let heard = desk.heard;
        drop(desk);
        let mut silent = false;
        for Waiting { end, left, patient_since, .. } in overdue {
            silent |= left && patient_since == Some(heard);
            let _ = end.send(End::Over { left });
        }
        silent
    }
}

impl Desk {
    /// Has the watch look by then; true when it waits for something later, and must be told.
    fn is_due_by(&mut self, until: Instant) -> bool {
        let sooner = self.due.is_none_or(|due| until < due);
        if sooner {
            self.due = Some(until);
        }
        sooner
    }
}

impl Watch for Calls {
    fn start(&self, frames: &mut Vec<Outgoing>) {
        let mut desk = self.desk.lock();
        frames.retain(|frame| match desk.waiting.get_mut(&frame.id) {
            Some(waiting) => {
                waiting.left = true;
                true
            }
            None => false,
        });
    }

    fn passed(&self, frames: &[Outgoing]) {
        let now = timer_now();
        let mut desk = self.desk.lock();
        let mut earliest: Option<Instant> = None;
        for frame in frames {
            let Some(waiting) = desk.waiting.get_mut(&frame.id) else { continue };
            waiting.until = waiting.until.min(now + waiting.answer);
            earliest = Some(earliest.map_or(waiting.until, |earliest| earliest.min(waiting.until)));
        }
        let sooner = earliest.is_some_and(|until| desk.is_due_by(until));
        drop(desk);
        if sooner {
            self.sooner.notify_one();
        }
    }
}
