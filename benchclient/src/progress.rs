//! The line that shows that something is happening: rewritten in place on a terminal, a new line every few seconds in a
//! log. It goes to standard error, so that standard output holds the result alone.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::clock::Start;
use crate::tally::as_f64;

/// How often the line is rewritten on a terminal.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(500);
/// How often a line is added to a log.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// What the workers of a phase have done so far.
#[derive(Debug)]
pub(crate) struct Counts {
    label: &'static str,
    /// How many there will be; `None` when it goes on until it is told to stop.
    total: Option<u64>,
    successes: AtomicU64,
    failures: AtomicU64,
}

impl Counts {
    /// Nothing done yet.
    pub(crate) fn new(label: &'static str, total: Option<u64>) -> Arc<Counts> {
        Arc::new(Counts { label, total, successes: AtomicU64::new(0), failures: AtomicU64::new(0) })
    }

    /// One more request was answered, or failed.
    pub(crate) fn count(&self, success: bool) {
        let counter = if success { &self.successes } else { &self.failures };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn done(&self) -> u64 {
        self.successes.load(Ordering::Relaxed) + self.failures.load(Ordering::Relaxed)
    }

    /// `read 23,450/100,000 (4,310/s, 2 failed)`; the rate is that of the last interval.
    fn describe(&self, done_before: u64, interval: Duration) -> String {
        let done = self.done();
        let rate = as_f64(done.saturating_sub(done_before)) / interval.as_secs_f64().max(1e-3);
        let total = self.total.map(|total| format!("/{}", grouped(total))).unwrap_or_default();
        let failed = match self.failures.load(Ordering::Relaxed) {
            0 => String::new(),
            failed => format!(", {} failed", grouped(failed)),
        };
        format!("{} {}{total} ({}/s{failed})", self.label, grouped(done), whole(rate))
    }
}

/// Shows the counts until it is dropped.
pub(crate) struct Shown {
    task: JoinHandle<()>,
    terminal: bool,
}

/// Begins to show these counts, side by side.
pub(crate) fn show(counts: Vec<Arc<Counts>>) -> Shown {
    let terminal = std::io::stderr().is_terminal();
    let task = tokio::spawn(async move {
        let mut before: Vec<u64> = counts.iter().map(|counts| counts.done()).collect();
        loop {
            let start = Start::now();
            tokio::time::sleep(if terminal { TERMINAL_INTERVAL } else { LOG_INTERVAL }).await;
            let parts: Vec<String> = counts.iter().zip(&before).map(|(c, b)| c.describe(*b, start.elapsed())).collect();
            before = counts.iter().map(|counts| counts.done()).collect();
            let line = parts.join(" · ");
            say(&if terminal { format!("\r\x1b[K{line}") } else { format!("{line}\n") });
        }
    });
    Shown { task, terminal }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.task.abort();
        if self.terminal {
            say("\r\x1b[K");
        }
    }
}

/// Writes to standard error; nobody has to be listening.
pub(crate) fn say(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate as a whole number, grouped; below ten with one decimal, where a whole number would say too little.
pub(crate) fn whole(rate: f64) -> String {
    if rate > 0.0 && rate < 10.0 {
        return format!("{rate:.1}");
    }
    format!("{rate:.0}").parse().map_or_else(|_| "?".into(), grouped)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Counts, grouped, whole};

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (100_000, "100,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn rates_keep_a_decimal_only_when_small() {
        assert_eq!((whole(0.0), whole(0.25), whole(4310.4)), ("0".into(), "0.2".into(), "4,310".into()));
    }

    #[test]
    fn progress_counts_failures_as_done_and_names_them() {
        let counts = Counts::new("write", Some(1000));
        (0..19).for_each(|_| counts.count(true));
        assert_eq!(counts.describe(0, Duration::from_secs(1)), "write 19/1,000 (19/s)");
        counts.count(false);
        assert_eq!(counts.describe(10, Duration::from_millis(500)), "write 20/1,000 (20/s, 1 failed)");
    }
}
