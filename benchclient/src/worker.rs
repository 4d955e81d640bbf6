//! A worker: puts a burst of requests together, sends it, and waits for all its answers; over and over.
//!
//! ```text
//! turns ─→ gather ─→ lanes (one connection per node asked) ─→ answers ─→ desk: judge, enter, record
//! ```
//!
//! A burst is one request unless pipelining was asked for. In a closed loop its requests are meant to start when it is
//! sent; in an open loop when the timetable says. A worker pauses a little after a failure in a closed loop, so that a
//! node which is down is not stormed, and gives up after half a minute of nothing but failures if only a number of
//! requests would end it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use crate::clock::{Clock, Nanos, nanos};
use crate::desk::{Desk, Flight};
use crate::failure::Failure;
use crate::lanes::Lanes;
use crate::link::Answer;
use crate::pacer::{Pacer, Turn};
use crate::plan::{Extent, Plan, Source};
use crate::recorder::{Recorder, Window};
use crate::request::Op;

/// A worker that has had only failures for so long ends.
const GIVE_UP_AFTER: Nanos = 30_000_000_000;
/// Longest pause after a failure; the first is a millisecond, and each further one in a row doubles it.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// A burst that has become so large is sent: large values are not gathered in memory.
const BURST_BYTES_MAX: usize = 1 << 20;

/// One worker.
#[derive(Debug)]
pub(crate) struct Worker {
    number: usize,
    plan: Arc<Plan>,
    clock: Clock,
    source: Source,
    lanes: Lanes,
}

/// What it hands back.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// The numbers of keys that were to be kept.
    pub(crate) kept: Vec<u64>,
    /// It had nothing but failures.
    pub(crate) gave_up: bool,
}

/// What came of putting a burst together.
enum Gathered {
    /// There is something to send.
    Burst,
    /// Not yet.
    Nothing,
    /// Never again.
    End,
}

impl Worker {
    /// Not connected yet.
    pub(crate) fn new(number: usize, plan: Arc<Plan>, clock: Clock) -> Worker {
        let source = match &plan.source {
            Source::Drawn(chooser) => {
                let seed = plan.run ^ u64::try_from(number).unwrap_or(0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                Source::Drawn(chooser.seeded(seed))
            }
            other => other.clone(),
        };
        let lanes = Lanes::new(&plan);
        Worker { number, plan, clock, source, lanes }
    }

    /// Connects before the load begins. What fails here is tried again, and then counted, with the first request.
    pub(crate) async fn connect(&mut self) {
        self.lanes.connect().await;
    }

    /// Works until there are no turns left.
    pub(crate) async fn work(
        mut self,
        recorder: Arc<Mutex<Recorder>>,
        window: Window,
        pacer: Option<Arc<Pacer>>,
    ) -> Done {
        let mut desk = Desk::new(Arc::clone(&self.plan), recorder, self.number);
        let mut deadline = Deadline::new(self.plan.timeout);
        let mut failing = Failing::default();
        let mut free_at = self.clock.now();
        let mut now = free_at;
        loop {
            match self.gather(&mut desk, window, pacer.as_deref(), now) {
                Gathered::Burst => {}
                Gathered::End => break,
                Gathered::Nothing => {
                    let Some(pacer) = &pacer else { break };
                    pacer.wait(self.number).await;
                    now = self.clock.now();
                    continue;
                }
            }
            let all_failed = self.exchange(&mut desk, &mut deadline, free_at).await;
            now = self.clock.now();
            free_at = now;
            if !all_failed {
                failing = Failing::default();
            } else if pacer.is_none() {
                let bounded = matches!(self.plan.extent, Extent::Turns(..));
                if failing.again(now) >= GIVE_UP_AFTER && bounded {
                    return Done { gave_up: true, kept: desk.kept };
                }
                tokio::time::sleep(pause(failing.in_a_row)).await;
                now = self.clock.now();
            }
        }
        Done { gave_up: false, kept: desk.kept }
    }

    /// Puts as many requests together as there are turns, up to a burst.
    fn gather(&mut self, desk: &mut Desk, window: Window, pacer: Option<&Pacer>, now: Nanos) -> Gathered {
        self.lanes.follow(&self.plan);
        let mut gathered = 0;
        while gathered < self.plan.pipeline && self.lanes.burst_bytes() < BURST_BYTES_MAX {
            match self.next(window, pacer, now) {
                Ok((intended, op, key)) => desk.request(&mut self.lanes, op, key, intended),
                Err(_) if gathered > 0 => break,
                Err(none) => return none,
            }
            gathered += 1;
        }
        Gathered::Burst
    }

    /// The next request and its place in the timetable, if there is one; else why there is none.
    fn next(
        &mut self,
        window: Window,
        pacer: Option<&Pacer>,
        now: Nanos,
    ) -> Result<(Option<Nanos>, Op, u64), Gathered> {
        let intended = match pacer.map(|pacer| pacer.take(now)) {
            Some(Turn::Start(intended)) => Some(intended),
            Some(Turn::Idle) => return Err(Gathered::Nothing),
            Some(Turn::End) => return Err(Gathered::End),
            None if now >= window.until => return Err(Gathered::End),
            None => None,
        };
        let drawn = self.plan.turn().and_then(|turn| draw(&mut self.source, turn));
        drawn.map(|(op, key)| (intended, op, key)).ok_or(Gathered::End)
    }

    /// Sends the burst and settles every request of it; says whether all of them failed.
    async fn exchange(&mut self, desk: &mut Desk, deadline: &mut Deadline, free_at: Nanos) -> bool {
        desk.begin_burst();
        for lane in self.lanes.busy() {
            if let Err(failure) = lane.link.open().await {
                let now = self.clock.now();
                lane.link.abandon().for_each(|flight| desk.fail(flight, failure.clone(), now));
            }
        }
        let sent = self.clock.now();
        for lane in self.lanes.busy() {
            lane.link.flights().for_each(|flight| flight.send(sent));
            lane.link.flights().for_each(|flight| desk.sent(flight, free_at));
        }
        let (clock, lanes) = (self.clock, &mut self.lanes);
        let give_up_at = sent + nanos(self.plan.timeout);
        poll_fn(|cx| {
            let mut waiting = false;
            for lane in lanes.busy() {
                let settle = |flight: Flight, answer: &Answer<'_>, now| desk.settle(flight, answer, now);
                match lane.link.poll_answers(cx, || clock.now(), settle) {
                    Poll::Pending => waiting = true,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(failure)) => {
                        let now = clock.now();
                        lane.link.abandon().for_each(|flight| desk.fail(flight, failure.clone(), now));
                    }
                }
            }
            if waiting && deadline.poll_passed(cx, clock, give_up_at).is_pending() {
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        for lane in self.lanes.busy() {
            let (failure, now) =
                (Failure::new("timeout", format!("no answer within {:?}", self.plan.timeout)), clock.now());
            lane.link.abandon().for_each(|flight| desk.fail(flight, failure.clone(), now));
        }
        desk.all_failed()
    }
}

/// The request of a turn; `None` when the source is used up.
fn draw(source: &mut Source, turn: u64) -> Option<(Op, u64)> {
    match source {
        Source::Drawn(chooser) => Some(chooser.draw()),
        Source::Each(op) => Some((*op, turn)),
        Source::Listed(op, keys) => Some((*op, *keys.get(usize::try_from(turn).ok()?)?)),
        Source::Among(keys) => {
            let index = rand::random_range(0..keys.len().max(1));
            Some((Op::Get, *keys.get(index)?))
        }
    }
}

/// A time-out that costs nothing while it does not pass: the timer is only set again when it goes off too early.
struct Deadline {
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    fn new(timeout: Duration) -> Deadline {
        Deadline { sleep: Box::pin(tokio::time::sleep(timeout)) }
    }

    /// Ready when `at` has passed. Each `at` is no earlier than the one before, and none is nearer than the timer.
    fn poll_passed(&mut self, cx: &mut Context<'_>, clock: Clock, at: Nanos) -> Poll<()> {
        loop {
            match self.sleep.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => {}
            }
            let now = clock.now();
            if now >= at {
                return Poll::Ready(());
            }
            // The runtime's timers have a grain of a millisecond.
            self.sleep.set(tokio::time::sleep(Duration::from_nanos(at - now).max(Duration::from_millis(1))));
        }
    }
}

/// Failures in a row.
#[derive(Default)]
struct Failing {
    in_a_row: u32,
    since: Option<Nanos>,
}

impl Failing {
    /// Counts one more, and says for how long it has been so.
    fn again(&mut self, now: Nanos) -> Nanos {
        self.in_a_row = self.in_a_row.saturating_add(1);
        now - *self.since.get_or_insert(now)
    }
}

/// How long to wait after so many failures in a row.
fn pause(in_a_row: u32) -> Duration {
    Duration::from_millis(1 << in_a_row.saturating_sub(1).min(10)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{PAUSE_MAX, pause};

    #[test]
    fn pause_doubles_up_to_its_bound() {
        assert_eq!(pause(1), Duration::from_millis(1));
        assert_eq!(pause(4), Duration::from_millis(8));
        assert_eq!(pause(8), PAUSE_MAX);
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
    }
}
