//! Wakes idle workers when a request of the timetable is due. One per thread.
//!
//! ```text
//! workers without work ─ wait() ─→ idle, oldest first ─ woken when due ─→ take() ─→ a request and its intended start
//! ```
//!
//! While all workers are busy nobody is woken; each takes what is due when it becomes free, and the time that those
//! requests waited counts. The idle list has at most one place per worker.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::clock::{Clock, Nanos};
use crate::schedule::{Due, Schedule};
use crate::timer::Timer;

/// Shortest time between two looks at the timetable: at higher rates requests start in pairs and threes, for a wake-up
/// costs as much as a request.
const LOOK_INTERVAL: Nanos = 50_000;
/// The same while nobody is idle: what is due is taken by whoever becomes free.
const BUSY_LOOK_INTERVAL: Nanos = 100_000;

/// The timetable of a thread, shared by its workers.
#[derive(Debug)]
pub(crate) struct Pacer {
    state: Mutex<State>,
    clock: Clock,
    /// Requests that are meant to start then or later are not sent.
    until: Nanos,
    /// What was due before `until` and could not be sent by then is given up.
    grace: Nanos,
    /// How many requests a worker takes at once.
    burst: u64,
}

#[derive(Debug)]
struct State {
    schedule: Schedule,
    idle: VecDeque<(usize, Waker)>,
}

/// What a worker is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Start a request that was meant to start then.
    Start(Nanos),
    /// Wait.
    Idle,
    /// No further request comes.
    End,
}

impl Pacer {
    /// For workers that take up to `burst` requests at once, all of which start before `until`, or late, before `grace`.
    pub(crate) fn new(schedule: Schedule, clock: Clock, until: Nanos, grace: Nanos, burst: u64) -> Pacer {
        let state = State { schedule, idle: VecDeque::new() };
        Pacer { state: Mutex::new(state), clock, until, grace, burst: burst.max(1) }
    }

    /// The next request that is due.
    pub(crate) fn take(&self, now: Nanos) -> Turn {
        let mut state = self.state();
        if state.schedule.upcoming() >= self.until || now >= self.grace {
            return Turn::End;
        }
        match state.schedule.take(now) {
            Due::Now(intended) => Turn::Start(intended),
            Due::At(_) => Turn::Idle,
        }
    }

    /// Waits until it is worth asking again; `worker` is a number of one's own.
    pub(crate) async fn wait(&self, worker: usize) {
        let mut queued = false;
        poll_fn(|cx| {
            let mut state = self.state();
            if !std::mem::replace(&mut queued, true) {
                state.idle.push_back((worker, cx.waker().clone()));
                return Poll::Pending;
            }
            // A task may be polled for other reasons, such as the end of its idle connection.
            if state.idle.iter().any(|(waiting, _)| *waiting == worker) { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Wakes workers until the timetable ends.
    pub(crate) async fn run(&self, mut timer: Timer) {
        loop {
            let now = self.clock.now();
            let Some(next) = self.wake(now) else { break };
            timer.sleep(next - now).await;
        }
        self.state().idle.drain(..).for_each(|(_, waker)| waker.wake());
    }

    /// Requests that were due and never sent.
    pub(crate) fn unsent(&self, ended: Nanos) -> u64 {
        self.state().schedule.left_before(self.until.min(ended))
    }

    /// Wakes as many as have something to do, and says when to look again; `None` when there is nothing to come.
    fn wake(&self, now: Nanos) -> Option<Nanos> {
        let mut state = self.state();
        if state.schedule.upcoming() >= self.until || now >= self.grace {
            return None;
        }
        let due = state.schedule.left_before(now.saturating_add(1).min(self.until));
        for _ in 0..due.div_ceil(self.burst) {
            let Some((_, waker)) = state.idle.pop_front() else { return Some(now + BUSY_LOOK_INTERVAL) };
            waker.wake();
        }
        // Those that were woken take what is due; the next look is for what comes behind it.
        Some(state.schedule.time_behind(due).max(now + LOOK_INTERVAL))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::{BUSY_LOOK_INTERVAL, LOOK_INTERVAL, Pacer, Turn};
    use crate::clock::Clock;
    use crate::schedule::Schedule;

    const MILLI: u64 = 1_000_000;

    /// A request every millisecond from 0 to 9 ms; until 20 ms for what is late.
    fn pacer(burst: u64) -> Pacer {
        Pacer::new(Schedule::new(0, 1000, 0, 1), Clock::start(), 10 * MILLI, 20 * MILLI, burst)
    }

    #[test]
    fn pacer_gives_what_is_due_up_to_the_end_and_late_ones_up_to_the_grace() {
        let pacer = pacer(1);
        assert_eq!((pacer.take(0), pacer.take(0)), (Turn::Start(0), Turn::Idle));
        assert_eq!(pacer.take(15 * MILLI), Turn::Start(MILLI), "late, with the time it was meant for");
        assert_eq!((pacer.take(20 * MILLI), pacer.unsent(20 * MILLI)), (Turn::End, 8));
        let prompt = self::pacer(1);
        let taken = std::iter::from_fn(|| Some(prompt.take(19 * MILLI)).filter(|turn| *turn != Turn::End)).count();
        assert_eq!((taken, prompt.unsent(19 * MILLI)), (10, 0));
    }

    #[test]
    fn pacer_wakes_as_many_as_there_is_work_for_and_looks_again_when_more_is_due() {
        let pacer = pacer(2);
        let mut cx = Context::from_waker(Waker::noop());
        let (mut first, mut second) = (pin!(pacer.wait(1)), pin!(pacer.wait(2)));
        assert!(first.as_mut().poll(&mut cx).is_pending() && second.as_mut().poll(&mut cx).is_pending());
        assert!(first.as_mut().poll(&mut cx).is_pending(), "polled for another reason, it still waits");
        // Two are due at 1 ms: one worker takes both.
        assert_eq!(pacer.wake(MILLI), Some(2 * MILLI));
        assert!(first.poll(&mut cx).is_ready() && second.as_mut().poll(&mut cx).is_pending());
        // Six are due at 5 ms, and one worker is left.
        assert_eq!(pacer.wake(5 * MILLI), Some(5 * MILLI + BUSY_LOOK_INTERVAL));
        assert!(second.poll(&mut cx).is_ready());
    }

    #[test]
    fn pacer_does_not_look_more_often_than_it_should_and_ends() {
        let fast = Pacer::new(Schedule::new(0, 1_000_000, 0, 1), Clock::start(), 10 * MILLI, 20 * MILLI, 1);
        let mut cx = Context::from_waker(Waker::noop());
        let mut waiting: Vec<_> = (0..5).map(|worker| Box::pin(fast.wait(worker))).collect();
        waiting.iter_mut().for_each(|worker| assert!(worker.as_mut().poll(&mut cx).is_pending()));
        assert_eq!(fast.wake(1_000), Some(1_000 + LOOK_INTERVAL));
        assert_eq!(fast.wake(20 * MILLI), None);
    }
}
