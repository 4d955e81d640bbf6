//! A line per second on standard error while the load runs: rewritten in place on a terminal, one after the other in a
//! log. Standard output holds the result alone.

use std::io::IsTerminal;

use crate::measure::latency;
use crate::recorder::{SECOND, Second, Window};
use crate::request::Op;
use crate::text::{grouped, millis, say};

/// Shows seconds as they come.
#[derive(Debug)]
pub(crate) struct Live {
    label: String,
    /// How many requests there will be, if that is known.
    total: Option<u64>,
    done: u64,
    terminal: bool,
}

impl Live {
    /// For a phase of this name.
    pub(crate) fn new(label: impl Into<String>, total: Option<u64>) -> Live {
        Live { label: label.into(), total, done: 0, terminal: std::io::stderr().is_terminal() }
    }

    /// Shows one second; behind the end only if it tells something: a failure, or an answer that took a second.
    pub(crate) fn show(&mut self, second: &Second, window: Window) {
        let tells = |op: &Op| second.op(*op).failed > 0 || second.op(*op).response.quantile(1.0) >= SECOND;
        if window.start + second.number * SECOND >= window.until && !Op::ALL.iter().any(tells) {
            return;
        }
        let line = self.line(second, window);
        if self.terminal {
            // A line that is wrapped could not be rewritten.
            let line: String = line.chars().take(columns().saturating_sub(1)).collect();
            say(&format!("\r\x1b[K{line}"));
        } else {
            say(&format!("{line}\n"));
        }
    }

    /// `run    12 s   68,412/s  get p50 0.412 p99 1.203 max 5.110 ms  7 failed`
    fn line(&mut self, second: &Second, window: Window) -> String {
        let ok: u64 = Op::ALL.iter().map(|op| second.op(*op).response.count()).sum();
        let failed: u64 = Op::ALL.iter().map(|op| second.op(*op).failed).sum();
        self.done += ok + failed;
        let from = window.start + second.number * SECOND;
        let label = match from {
            from if from < window.from => "warm-up",
            from if from >= window.until => "late",
            _ => &self.label,
        };
        let mut line = format!("{label:<8} {:>4} s {:>10}/s", second.number + 1, grouped(ok));
        for op in Op::ALL {
            if let Some(seen) = latency(&second.op(op).response) {
                let [p50, p99, max] = [seen.p50_us, seen.p99_us, seen.max_us].map(millis);
                line.push_str(&format!("  {} p50 {p50} p99 {p99} max {max} ms", op.name()));
            }
        }
        if failed > 0 {
            line.push_str(&format!("  {} failed", grouped(failed)));
        }
        if let Some(total) = self.total {
            line.push_str(&format!("  {}/{}", grouped(self.done), grouped(total)));
        }
        line
    }
}

/// How wide the terminal is.
fn columns() -> usize {
    #[cfg(unix)]
    if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stderr())
        && size.ws_col > 0
    {
        return usize::from(size.ws_col);
    }
    80
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.terminal {
            say("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::Live;
    use crate::failure::Failure;
    use crate::recorder::{Recorder, SECOND, Times, Window};
    use crate::request::Op;
    use crate::tally::Spot;

    #[test]
    fn line_says_what_a_second_held_and_whether_it_counts() {
        let window = Window { start: 0, from: SECOND, until: 9 * SECOND };
        let (out, mut seconds) = mpsc::unbounded_channel();
        let mut recorder = Recorder::new(window, out);
        let spot = Spot { op: Op::Set, shard: 0, forwarded: false };
        recorder.success(spot, Times { intended: 0, sent: 0, done: 290_000 });
        let late = Times { intended: SECOND, sent: SECOND, done: SECOND + 290_000 };
        recorder.success(spot, late);
        recorder.failure(spot, late, Failure::new("x", ""));
        recorder.finish(SECOND + SECOND / 2);
        let mut live = Live { label: "preload".into(), total: Some(1000), done: 0, terminal: false };
        let lines: Vec<String> =
            std::iter::from_fn(|| seconds.try_recv().ok()).map(|second| live.line(&second, window)).collect();
        assert_eq!(
            lines,
            [
                "warm-up     1 s          1/s  set p50 0.291 p99 0.291 max 0.291 ms  1/1,000",
                "preload     2 s          1/s  set p50 0.291 p99 0.291 max 0.291 ms  1 failed  3/1,000",
            ]
        );
    }
}
