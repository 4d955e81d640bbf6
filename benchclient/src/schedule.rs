//! The open loop's timetable: request `n` is meant to start at `start + n / rate`, whatever the server does. Pure.
//!
//! Latency is counted from there. A closed loop stops asking while the server stalls, and then reports one slow request
//! where a thousand clients would have waited: coordinated omission. Here each of the thousand counts, with the time that
//! it had to wait for its turn. The idea is Gil Tene's (wrk2).

use crate::clock::Nanos;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// When requests are meant to start; of several threads each has every nth.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    start: Nanos,
    /// Requests a second over all threads, at least 1.
    rate: u64,
    /// This thread's first, and how far its next is: `offset`, `offset + stride`, …
    offset: u64,
    stride: u64,
    /// This thread's next request, counted from 0. Only ever grows.
    next: u64,
}

/// What there is to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// A request that was meant to start then.
    Now(Nanos),
    /// The next one starts then.
    At(Nanos),
}

impl Schedule {
    /// For thread `thread` of `threads`.
    pub(crate) fn new(start: Nanos, rate: u64, thread: u64, threads: u64) -> Schedule {
        assert!(rate > 0 && thread < threads, "rate {rate}, thread {thread} of {threads}");
        Schedule { start, rate, offset: thread, stride: threads, next: 0 }
    }

    /// Takes the next request if its time has come.
    pub(crate) fn take(&mut self, now: Nanos) -> Due {
        let due = self.time_of(self.next);
        if due > now {
            return Due::At(due);
        }
        self.next += 1;
        Due::Now(due)
    }

    /// When the next request is meant to start.
    pub(crate) fn upcoming(&self) -> Nanos {
        self.time_of(self.next)
    }

    /// When the request is meant to start that comes behind the next so many.
    pub(crate) fn time_behind(&self, requests: u64) -> Nanos {
        self.time_of(self.next.saturating_add(requests))
    }

    /// How many requests that were meant to start before `time` have not been taken.
    pub(crate) fn left_before(&self, time: Nanos) -> u64 {
        let before = |time: Nanos| {
            let elapsed = u128::from(time.saturating_sub(self.start));
            // Requests over all threads that start before `time`: the smallest n with n / rate >= elapsed.
            let all = (elapsed * u128::from(self.rate)).div_ceil(NANOS_PER_SECOND);
            all.saturating_sub(u128::from(self.offset)).div_ceil(u128::from(self.stride))
        };
        u64::try_from(before(time)).unwrap_or(u64::MAX).saturating_sub(self.next)
    }

    fn time_of(&self, number: u64) -> Nanos {
        let global = u128::from(number) * u128::from(self.stride) + u128::from(self.offset);
        let after = global * NANOS_PER_SECOND / u128::from(self.rate);
        self.start.saturating_add(u64::try_from(after).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::{Due, Schedule};

    #[test]
    fn schedule_gives_each_request_its_own_time_and_none_early() {
        let mut schedule = Schedule::new(500, 1000, 0, 1);
        assert_eq!(schedule.take(499), Due::At(500));
        assert_eq!(schedule.take(500), Due::Now(500));
        assert_eq!(schedule.take(500), Due::At(1_000_500));
        assert_eq!(schedule.take(2_000_500), Due::Now(1_000_500));
        assert_eq!(schedule.take(2_000_500), Due::Now(2_000_500));
        assert_eq!(schedule.take(2_000_500), Due::At(3_000_500));
    }

    #[test]
    fn schedule_after_a_stall_still_gives_every_request_with_its_intended_time() {
        let mut schedule = Schedule::new(0, 1000, 0, 1);
        let mut waits = Vec::new();
        while let Due::Now(intended) = schedule.take(1_000_000_000) {
            waits.push(1_000_000_000 - intended);
        }
        // A second without answers at 1,000 a second: 1,001 requests, the first of which waited the whole second.
        assert_eq!((waits.len(), waits[0], waits[500], waits[1000]), (1001, 1_000_000_000, 500_000_000, 0));
    }

    #[test]
    fn schedule_does_not_drift_at_odd_rates() {
        let mut schedule = Schedule::new(0, 30_011, 0, 1);
        for _ in 0..30_011 * 60 {
            schedule.take(u64::MAX);
        }
        assert_eq!(schedule.upcoming(), 60_000_000_000);
    }

    #[test]
    fn schedule_over_threads_is_the_same_timetable() {
        let mut all: Vec<u64> = Vec::new();
        for thread in 0..3 {
            let mut schedule = Schedule::new(7, 999, thread, 3);
            all.extend((0..4).map(|_| match schedule.take(u64::MAX) {
                Due::Now(at) => at,
                Due::At(_) => unreachable!("everything is due"),
            }));
        }
        all.sort_unstable();
        let mut alone = Schedule::new(7, 999, 0, 1);
        let one: Vec<u64> = (0..12).map(|_| (alone.upcoming(), alone.take(u64::MAX)).0).collect();
        assert_eq!(all, one);
    }

    #[test]
    fn schedule_counts_what_was_due_and_not_taken() {
        for threads in [1, 3] {
            let (mut left, mut taken) = (0, 0);
            for thread in 0..threads {
                let mut schedule = Schedule::new(0, 100, thread, threads);
                // Due before 0.1 s: those of 0, 10, … 90 ms.
                while matches!(schedule.take(30_000_000), Due::Now(_)) {
                    taken += 1;
                }
                left += schedule.left_before(100_000_000);
            }
            assert_eq!((taken, left), (4, 6), "{threads} threads");
        }
    }
}
