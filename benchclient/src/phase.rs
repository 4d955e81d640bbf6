//! A phase: workers that all do the same, writing or reading, until their turns are used up or they are told to stop.
//!
//! ```text
//! next turn ─→ worker ─ request ─→ node        turn n of writing: key number n
//!     ↑          └─ latency or failure ─→ tally    of reading: a random acknowledged key
//!     └──────────────┘  one request at a time
//! ```
//!
//! Turns are shared: a quick worker takes more of them. A worker pauses a little after a failure, so that a node which is
//! down is not stormed, and gives up after half a minute of nothing but failures, so that a run ends by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Start;
use crate::failure::Failure;
use crate::http::Node;
use crate::keyspace::Keyspace;
use crate::progress::Counts;
use crate::tally::Tally;

/// A worker that has had only failures for so long ends.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
/// Longest pause after a failure; the first is a millisecond, and each further one in a row doubles it.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What a worker does with a turn.
#[derive(Debug)]
pub(crate) enum Work {
    /// Writes the key of the turn's number. Acknowledged numbers are kept: eight bytes each.
    Write,
    /// The same, but nothing is kept, so that it can run without end.
    WriteOnly,
    /// Reads one of these numbers and compares.
    Read(Vec<u64>),
}

/// The turns of a phase, and what the workers need.
#[derive(Debug)]
pub(crate) struct Phase {
    pub(crate) node: Node,
    pub(crate) keys: Keyspace,
    pub(crate) work: Work,
    /// The next turn, from `start` of [`Phase::run`] up to `end`.
    pub(crate) next: AtomicU64,
    /// One past the last turn.
    pub(crate) end: u64,
    /// What the progress line shows.
    pub(crate) counts: Arc<Counts>,
    /// Cancelled when no further turn is to begin; what is under way is waited for.
    pub(crate) finish: CancellationToken,
    /// Cancelled by the user: what is under way is dropped, and not counted.
    pub(crate) interrupt: CancellationToken,
}

/// What came of a phase.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// A tally per worker.
    pub(crate) workers: Vec<Tally>,
    /// The numbers of the keys whose writes were acknowledged.
    pub(crate) acknowledged: Vec<u64>,
    /// How many workers gave up.
    pub(crate) gave_up: usize,
}

impl Outcome {
    /// All workers added up.
    pub(crate) fn total(&self) -> Tally {
        let mut total = Tally::new();
        self.workers.iter().for_each(|tally| total.add(tally));
        total
    }
}

/// What one worker hands back.
struct Worker {
    tally: Tally,
    acknowledged: Vec<u64>,
    gave_up: bool,
}

impl Phase {
    /// Runs so many workers to their end.
    pub(crate) async fn run(self, workers: u16) -> Outcome {
        let phase = Arc::new(self);
        let mut tasks = JoinSet::new();
        for _ in 0..workers {
            tasks.spawn(work(Arc::clone(&phase)));
        }
        let mut outcome = Outcome { workers: Vec::new(), acknowledged: Vec::new(), gave_up: 0 };
        for mut worker in tasks.join_all().await {
            outcome.workers.push(worker.tally);
            outcome.acknowledged.append(&mut worker.acknowledged);
            outcome.gave_up += usize::from(worker.gave_up);
        }
        outcome
    }

    fn next_turn(&self) -> Option<u64> {
        if self.finish.is_cancelled() {
            return None;
        }
        Some(self.next.fetch_add(1, Ordering::Relaxed)).filter(|turn| *turn < self.end)
    }

    /// One request, and how long it took. Key and value are made before the measurement begins.
    async fn attempt(&self, turn: u64) -> Result<Duration, Failure> {
        let number = match &self.work {
            Work::Write | Work::WriteOnly => turn,
            Work::Read(numbers) => self
                .keys
                .draw(turn, numbers.len())
                .and_then(|index| numbers.get(index).copied())
                .unwrap_or_else(|| unreachable!("a phase that reads has something to read")),
        };
        let (key, value) = (self.keys.key(number), self.keys.value(number));
        let start = Start::now();
        match &self.work {
            Work::Write | Work::WriteOnly => self.node.put(&key, value).await?,
            Work::Read(_) => self.node.get(&key, &value).await?,
        }
        Ok(start.elapsed())
    }
}

async fn work(phase: Arc<Phase>) -> Worker {
    let mut worker = Worker { tally: Tally::new(), acknowledged: Vec::new(), gave_up: false };
    let mut failing = Failing::default();
    let start = Start::now();
    while let Some(turn) = phase.next_turn() {
        let answer = tokio::select! {
            biased;
            () = phase.interrupt.cancelled() => break,
            answer = phase.attempt(turn) => answer,
        };
        phase.counts.count(answer.is_ok());
        match answer {
            Ok(latency) => {
                worker.tally.success(latency);
                if matches!(phase.work, Work::Write) {
                    worker.acknowledged.push(turn);
                }
                failing = Failing::default();
            }
            Err(failure) => {
                worker.tally.failure(failure);
                if failing.again() >= GIVE_UP_AFTER {
                    worker.gave_up = true;
                    break;
                }
                tokio::select! {
                    () = phase.finish.cancelled() => {}
                    () = tokio::time::sleep(pause(failing.in_a_row)) => {}
                }
            }
        }
    }
    worker.tally.finish(start.elapsed());
    worker
}

/// Failures in a row.
#[derive(Default)]
struct Failing {
    in_a_row: u32,
    since: Option<Start>,
}

impl Failing {
    /// Counts one more, and says for how long it has been so.
    fn again(&mut self) -> Duration {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.since.get_or_insert_with(Start::now).elapsed()
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
