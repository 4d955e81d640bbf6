//! Writes that wait until replicas have them (rule 23), and what is known of them when the leadership ends meanwhile.
//!
//! ```text
//!   expect_acks ─ from here on polls are answered without a pause ─▶ the write is durable ─▶ wait
//!                                  poll with a cursor on history ═▶ look at the replicas ─┬─▶ enough have it
//!                                                 another leads ═▶ does it have the write? ┘  time is over
//! ```
//!
//! Nobody waits: a poll costs one look at a number more. Each poll wakes all that wait, for what one replica acknowledges
//! are nearly always all writes of a commit.
//!
//! | bound | what happens there |
//! |---|---|
//! | those who wait are requests, and bounded as such: connections, calls under way between two nodes | as for every request |
//! | `FORWARDED_MAX` that other nodes passed on | the next one is refused, nothing written: they take the room in which that node's other requests are served |
//!
//! When this leadership ends while a write waits, the view of the replicas that belongs to it is kept until the next one
//! ends: a replica that has acknowledged the write and leads next has it, and so it lasts (rule 17 asks for "unknown" only
//! where that is not known). One that leads after another did, of which this node has not heard, may have taken it back.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::{Leader, Pair};
use crate::cluster::{Aside, Part};
use crate::peer::server::SERVING_MAX;
use crate::storage::writer::Leave;
use crate::types::{Epoch, NodeName, Seq};

/// Forwarded writes that wait at once. A node serves so many requests of another at once, and reads no more of them then:
/// writes that wait for a replica which is away must not keep reads waiting.
const FORWARDED_MAX: usize = SERVING_MAX / 4 * 3;

/// Between two looks at a leave that is stale: it is being asked who leads.
const SETTLE_PAUSE: Duration = Duration::from_millis(5);

/// Who waits for acknowledgements, and what wakes them.
#[derive(Debug, Default)]
pub(super) struct Acks {
    waiting: AtomicUsize,
    /// Those of them that other nodes passed on.
    forwarded: AtomicUsize,
    arrived: Notify,
    /// The view of the leadership before this one, with what its replicas had acknowledged.
    former: Mutex<Option<Leader>>,
    /// The epoch that this node handed over last: nobody led between.
    handed_over: Mutex<Option<Epoch>>,
}

impl Acks {
    /// Whether somebody waits: then a replica gets what there is at once.
    pub(super) fn are_expected(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// A replica has acknowledged something, or this node has another part by now.
    pub(super) fn arrived(&self) {
        if self.are_expected() {
            self.arrived.notify_waiters();
        }
    }

    /// This node yields to the leader of that epoch.
    pub(super) fn handed_over(&self, to: &Epoch) {
        *self.handed_over.lock() = Some(to.clone());
    }

    /// A leadership has ended, and this was its view.
    pub(super) fn remember(&self, view: Leader) {
        if view.epoch().is_some() {
            *self.former.lock() = Some(view);
        }
    }
}

/// A write that will wait for its acknowledgements.
#[derive(Debug)]
pub struct Expected<'p> {
    pair: &'p Pair,
    is_forwarded: bool,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        if self.is_forwarded {
            self.pair.acks.forwarded.fetch_sub(1, Ordering::AcqRel);
        }
        self.pair.acks.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What came of waiting. `replicas` are those that are known to have the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// Enough replicas have it.
    Enough {
        /// How many.
        replicas: u32,
    },
    /// Time is over.
    TooFew {
        /// How many.
        replicas: u32,
    },
    /// Another node leads by now, and is known to have it; who else, is for that one to learn.
    Handed {
        /// How many, the new leader included.
        replicas: u32,
    },
    /// Another node leads by now, and is not known to have it: it may be lost.
    Fenced,
}

impl Pair {
    /// To be called before a write that will wait is given to the writer: its replicas are not kept waiting then. None when
    /// too many wait that were forwarded.
    pub fn expect_acks(&self, is_forwarded: bool) -> Option<Expected<'_>> {
        self.acks.waiting.fetch_add(1, Ordering::AcqRel);
        let others = if is_forwarded { self.acks.forwarded.fetch_add(1, Ordering::AcqRel) } else { 0 };
        let expected = Expected { pair: self, is_forwarded };
        (others < FORWARDED_MAX).then_some(expected)
    }

    /// Replicas that are not known to have an entry of this leadership.
    #[must_use]
    pub fn lacking_replicas(&self, seq: Seq) -> Vec<NodeName> {
        let leader = self.leader.lock();
        let lacking = leader.replicas().filter(|(_, replica)| replica.counted() < seq);
        lacking.map(|(name, _)| name.clone()).collect()
    }

    /// The view of the leadership in which an epoch's writes were made, as long as it is known.
    fn with_view<T>(&self, epoch: u64, look: impl FnOnce(&Leader) -> T) -> Option<T> {
        let is_of = |view: &Leader| view.epoch().is_some_and(|of| of.number == epoch);
        let leader = self.leader.lock();
        if is_of(&leader) {
            return Some(look(&leader));
        }
        drop(leader);
        self.acks.former.lock().as_ref().filter(|former| is_of(former)).map(look)
    }
}

impl Expected<'_> {
    /// Waits until so many replicas have this entry of an epoch of this node's, or all that there are; at most until then.
    pub async fn wait(&self, epoch: u64, seq: Seq, replicas: u32, until: Instant) -> Waited {
        let clock = &self.pair.around.clock;
        loop {
            let mut arrived = pin!(self.pair.acks.arrived.notified());
            arrived.as_mut().enable(); // what comes from here on wakes it
            let mut left = until.saturating_duration_since(clock.now());
            match self.look(epoch, seq, replicas) {
                Look::Done(waited) => return waited,
                Look::Short(replicas) if left.is_zero() => return Waited::TooFew { replicas },
                Look::Short(_) => {}
                // It was acknowledged, but whether this node still leads is being asked: that ends by itself.
                Look::Unsettled => left = SETTLE_PAUSE,
            }
            tokio::select! {
                () = arrived => {}
                () = sleep(left) => {}
            }
        }
    }

    fn look(&self, epoch: u64, seq: Seq, wanted: u32) -> Look {
        let pair = self.pair;
        // First who leads: an acknowledgement that came before counts, whatever came after.
        let leave = pair.leave().filter(|_| pair.epoch().number == epoch);
        let have = match leave {
            Some(_) => pair.with_view(epoch, |view| view.acknowledged(seq)),
            None => None,
        };
        match (leave, have) {
            (Some(Leave::Stale), _) => Look::Unsettled,
            (Some(Leave::Good), Some(replicas)) if replicas >= wanted => Look::Done(Waited::Enough { replicas }),
            (Some(Leave::Good), Some(replicas)) => Look::Short(replicas),
            _ => Look::Done(self.outcome_elsewhere(epoch, seq, wanted)),
        }
    }

    /// Another leads by now, or is about to.
    fn outcome_elsewhere(&self, epoch: u64, seq: Seq, wanted: u32) -> Waited {
        let next = self.next_epoch();
        // A copy that led only after another one did may have given up what it had acknowledged here.
        let is_next =
            epoch.checked_add(1) == Some(next.number) || *self.pair.acks.handed_over.lock() == Some(next.clone());
        if !is_next {
            return Waited::Fenced;
        }
        let look = |view: &Leader| (view.has_acknowledged(&next.leader, seq), view.acknowledged(seq));
        match self.pair.with_view(epoch, look) {
            Some((true, replicas)) if replicas >= wanted => Waited::Enough { replicas },
            Some((true, replicas)) => Waited::Handed { replicas },
            _ => Waited::Fenced,
        }
    }

    /// Who leads, or is to lead: this node has yielded to it, or promised.
    fn next_epoch(&self) -> Epoch {
        match self.pair.part() {
            Part::StandAside(Aside::Yielded(epoch) | Aside::Promised(epoch)) => epoch,
            _ => self.pair.epoch(),
        }
    }
}

enum Look {
    Done(Waited),
    Short(u32),
    Unsettled,
}
