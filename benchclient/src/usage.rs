//! How much of a processor a thread of this generator used, and how long it waited for one. A generator that is short of
//! processor time measures itself, and should say so.

use crate::clock::Nanos;

/// What one thread used during a phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// The phase's length.
    pub(crate) wall: Nanos,
    /// Processor time.
    pub(crate) cpu: Nanos,
    /// Time in which it could have run, but other threads had the processors; `None` where the system does not tell.
    pub(crate) waited: Option<Nanos>,
}

/// A thread's counters at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    at: Nanos,
    cpu: Nanos,
    waited: Option<Nanos>,
}

impl Reading {
    /// Of the thread that calls it.
    pub(crate) fn of_this_thread(now: Nanos) -> Reading {
        Reading { at: now, cpu: cpu_of_this_thread(), waited: waited_of_this_thread() }
    }

    /// What the calling thread used since; it must be the same.
    pub(crate) fn until(self, later: Reading) -> Usage {
        Usage {
            wall: later.at.saturating_sub(self.at),
            cpu: later.cpu.saturating_sub(self.cpu),
            waited: later.waited.zip(self.waited).map(|(later, before)| later.saturating_sub(before)),
        }
    }
}

#[cfg(unix)]
fn cpu_of_this_thread() -> Nanos {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(not(unix))]
fn cpu_of_this_thread() -> Nanos {
    0
}

/// Linux tells it as the second number of this file: nanoseconds on a run queue.
fn waited_of_this_thread() -> Option<Nanos> {
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}
