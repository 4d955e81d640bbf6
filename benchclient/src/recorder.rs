//! Puts each answer into the tally and into its second. One per thread (or per worker, where each is shown).
//!
//! ```text
//! start ─ warm-up ─→ from ═════ measured ═════→ until ─ late answers ─→ end
//! ```
//!
//! A request counts if it was meant to start in the measured time, whenever it is answered: requests that were slow at
//! the end are not left out. A second holds what was answered in it, the warm-up's too, and is sent away when it is over.

use std::collections::BTreeMap;

use tokio::sync::mpsc::UnboundedSender;

use crate::clock::Nanos;
use crate::failure::Failure;
use crate::request::Op;
use crate::tally::{Latencies, Spot, Tally};

/// Nanoseconds of a second.
pub(crate) const SECOND: Nanos = 1_000_000_000;

/// When what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// The load begins.
    pub(crate) start: Nanos,
    /// Warm-up ends.
    pub(crate) from: Nanos,
    /// No request is meant to start then or later.
    pub(crate) until: Nanos,
}

impl Window {
    /// Whether a request that was meant to start then is measured.
    pub(crate) fn holds(&self, intended: Nanos) -> bool {
        (self.from..self.until).contains(&intended)
    }

    /// How long was measured, if the load ended then.
    pub(crate) fn measured(&self, ended: Nanos) -> Nanos {
        self.until.min(ended).saturating_sub(self.from)
    }
}

/// What was answered in one second.
#[derive(Debug, Clone)]
pub(crate) struct Second {
    /// Counted from the start of the load; the first is 0.
    pub(crate) number: u64,
    /// Requests of the measured time, or of the warm-up.
    pub(crate) ops: [SecondOp; 2],
}

/// One operation's part of it.
#[derive(Debug, Clone)]
pub(crate) struct SecondOp {
    /// From the intended start, of successes.
    pub(crate) response: Latencies,
    /// Failures.
    pub(crate) failed: u64,
}

impl Second {
    fn new(number: u64) -> Second {
        let op = || SecondOp { response: Latencies::coarse(), failed: 0 };
        Second { number, ops: [op(), op()] }
    }

    /// One operation's part.
    pub(crate) fn op(&self, op: Op) -> &SecondOp {
        let [get, set] = &self.ops;
        match op {
            Op::Get => get,
            Op::Set => set,
        }
    }

    fn op_mut(&mut self, op: Op) -> &mut SecondOp {
        let [get, set] = &mut self.ops;
        match op {
            Op::Get => get,
            Op::Set => set,
        }
    }

    fn add(&mut self, other: &Second) {
        for op in Op::ALL {
            let (mine, others) = (self.op_mut(op), other.op(op));
            mine.response.add(&others.response);
            mine.failed += others.failed;
        }
    }
}

/// Where answers go.
#[derive(Debug)]
pub(crate) struct Recorder {
    window: Window,
    tally: Tally,
    second: Second,
    /// Unbounded: a message a second, which the main thread takes at once.
    out: UnboundedSender<Second>,
}

/// When a request was meant to start, was sent and was answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) intended: Nanos,
    pub(crate) sent: Nanos,
    pub(crate) done: Nanos,
}

impl Recorder {
    /// Nothing recorded.
    pub(crate) fn new(window: Window, out: UnboundedSender<Second>) -> Recorder {
        Recorder { window, tally: Tally::new(), second: Second::new(0), out }
    }

    /// A success.
    pub(crate) fn success(&mut self, spot: Spot, times: Times) {
        self.pass(times.done);
        self.tally.answered += 1;
        let response = times.done.saturating_sub(times.intended);
        self.second.op_mut(spot.op).response.record(response);
        if self.window.holds(times.done) {
            self.tally.op_mut(spot.op).in_time += 1;
        }
        if self.window.holds(times.intended) {
            self.tally.success(spot, response, times.done.saturating_sub(times.sent));
        }
    }

    /// A failure.
    pub(crate) fn failure(&mut self, spot: Spot, times: Times, failure: Failure) {
        self.pass(times.done);
        self.tally.answered += 1;
        self.second.op_mut(spot.op).failed += 1;
        if self.window.holds(times.intended) {
            self.tally.failure(spot, failure);
        }
    }

    /// A request that was meant to start then was sent so late by our own doing.
    pub(crate) fn own_delay(&mut self, intended: Nanos, delay: Nanos) {
        if self.window.holds(intended) {
            self.tally.own_delay.record(delay);
        }
    }

    /// Sends away the seconds that are over.
    pub(crate) fn pass(&mut self, now: Nanos) {
        let number = now.saturating_sub(self.window.start) / SECOND;
        while self.second.number < number {
            let next = Second::new(self.second.number + 1);
            // Nobody listens any more when the run was stopped.
            let _ = self.out.send(std::mem::replace(&mut self.second, next));
        }
    }

    /// The last second, and everything.
    pub(crate) fn finish(mut self, now: Nanos) -> Tally {
        self.pass(now);
        let _ = self.out.send(self.second);
        self.tally
    }
}

/// Puts together the seconds of several recorders: a second is complete when each has sent it.
#[derive(Debug)]
pub(crate) struct Seconds {
    recorders: usize,
    open: BTreeMap<u64, (usize, Second)>,
}

impl Seconds {
    /// Of so many recorders.
    pub(crate) fn new(recorders: usize) -> Seconds {
        Seconds { recorders, open: BTreeMap::new() }
    }

    /// One recorder's second; the whole one when this was the last part of it.
    pub(crate) fn add(&mut self, second: Second) -> Option<Second> {
        let number = second.number;
        match self.open.entry(number) {
            std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert((1, second))),
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                let (parts, sum) = entry.get_mut();
                *parts += 1;
                sum.add(&second);
            }
        }
        let complete = self.open.get(&number).is_some_and(|(parts, _)| *parts >= self.recorders);
        if complete { self.open.remove(&number).map(|(_, second)| second) } else { None }
    }

    /// What is left when the recorders have ended.
    pub(crate) fn rest(self) -> impl Iterator<Item = Second> {
        self.open.into_values().map(|(_, second)| second)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::{Recorder, SECOND, Seconds, Times, Window};
    use crate::failure::Failure;
    use crate::request::Op;
    use crate::tally::Spot;

    const GET: Spot = Spot { op: Op::Get, shard: 0, forwarded: false };
    const WINDOW: Window = Window { start: 0, from: SECOND, until: 3 * SECOND };

    fn at(intended: u64, sent: u64, done: u64) -> Times {
        Times { intended, sent, done }
    }

    #[test]
    fn recorder_leaves_out_the_warm_up_and_keeps_late_answers() {
        let (out, mut seconds) = mpsc::unbounded_channel();
        let mut recorder = Recorder::new(WINDOW, out);
        recorder.success(GET, at(SECOND - 1, SECOND - 1, SECOND + 10));
        recorder.success(GET, at(SECOND, SECOND + 5, SECOND + 10));
        recorder.success(GET, at(3 * SECOND - 1, 4 * SECOND, 5 * SECOND));
        let tally = recorder.finish(5 * SECOND);
        let get = tally.op(Op::Get);
        assert_eq!((get.response.count(), get.in_time, tally.answered), (2, 2, 3));
        let (Some(response), Some(service)) = (get.response.summary(), get.service.summary()) else { panic!("two") };
        assert!(response.max >= 2 * SECOND && service.max < SECOND + SECOND / 100, "{response:?} {service:?}");
        let counts: Vec<u64> =
            std::iter::from_fn(|| seconds.try_recv().ok()).map(|second| second.op(Op::Get).response.count()).collect();
        assert_eq!(counts, [0, 2, 0, 0, 0, 1], "a second each, the quiet ones too");
    }

    #[test]
    fn recorder_counts_failures_without_their_latency() {
        let (out, _seconds) = mpsc::unbounded_channel();
        let mut recorder = Recorder::new(WINDOW, out);
        recorder.failure(GET, at(SECOND, SECOND, SECOND + 1), Failure::new("x", ""));
        recorder.failure(GET, at(0, 0, SECOND + 1), Failure::new("x", ""));
        let tally = recorder.finish(SECOND + 1);
        assert_eq!((tally.failed(), tally.succeeded(), tally.answered), (1, 0, 2));
    }

    #[test]
    fn seconds_of_two_threads_become_one() {
        let (out, mut sent) = mpsc::unbounded_channel();
        for _ in 0..2 {
            let mut recorder = Recorder::new(WINDOW, out.clone());
            recorder.success(GET, at(0, 0, 10));
            recorder.finish(10);
        }
        let mut seconds = Seconds::new(2);
        let (Ok(first), Ok(second)) = (sent.try_recv(), sent.try_recv()) else { panic!("two parts") };
        assert!(seconds.add(first).is_none());
        assert_eq!(seconds.add(second).map(|second| second.op(Op::Get).response.count()), Some(2));
    }
}
