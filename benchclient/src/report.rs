//! The result as people read it: a table with a line per worker and one for all, then the failures by code.

use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::phase::Outcome;
use crate::progress::{grouped, whole};
use crate::tally::Tally;

/// A phase with its name.
pub(crate) struct Finished {
    /// What it is called in the table.
    pub(crate) label: &'static str,
    /// What came of it.
    pub(crate) outcome: Outcome,
}

/// The tables for these phases, ending in a newline.
pub(crate) fn render(phases: &[Finished]) -> String {
    let mut text = format!("{}\n", latencies(phases));
    text.push_str(&failures(phases));
    text
}

fn latencies(phases: &[Finished]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let titles = ["phase", "worker", "ok", "failed", "per second", "mean ms", "min", "p50", "p99", "max"];
    table.set_header(titles.iter().enumerate().map(|(column, title)| aligned(column, (*title).to_owned())));
    for phase in phases {
        for (number, worker) in (1_usize..).zip(&phase.outcome.workers) {
            table.add_row(row(phase.label, &number.to_string(), worker));
        }
        table.add_row(row(phase.label, "all", &phase.outcome.total()));
    }
    table
}

fn row(label: &str, worker: &str, tally: &Tally) -> Vec<Cell> {
    let [mean, min, p50, p99, max] = match tally.latency() {
        Some(latency) => [latency.mean, latency.min, latency.p50, latency.p99, latency.max].map(millis),
        None => [const { String::new() }; 5].map(|_| "-".into()),
    };
    let counts = [grouped(tally.successes()), grouped(tally.failures()), whole(tally.rate())];
    let texts = [label.to_owned(), worker.to_owned()].into_iter().chain(counts).chain([mean, min, p50, p99, max]);
    texts.enumerate().map(|(column, text)| aligned(column, text)).collect()
}

/// Names to the left, figures to the right.
fn aligned(column: usize, text: String) -> Cell {
    Cell::new(text).set_alignment(if column == 0 { CellAlignment::Left } else { CellAlignment::Right })
}

fn failures(phases: &[Finished]) -> String {
    let mut text = String::new();
    for phase in phases {
        let total = phase.outcome.total();
        for (code, failures) in total.failures_by_code() {
            text.push_str(&format!("{} failed: {} × {code}. ", phase.label, grouped(failures.count)));
            text.push_str(&format!("The first: {}\n", printable(&failures.first)));
        }
        if phase.outcome.gave_up > 0 {
            text.push_str(&format!(
                "{}: {} of {} workers gave up after 30 seconds of nothing but failures.\n",
                phase.label,
                phase.outcome.gave_up,
                phase.outcome.workers.len()
            ));
        }
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

/// `0.290`: milliseconds to a microsecond.
fn millis(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64() * 1e3)
}

/// What a server said is not let near the terminal's control characters, nor fills the screen.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Finished, render};
    use crate::failure::Failure;
    use crate::phase::Outcome;
    use crate::tally::Tally;

    fn finished(workers: Vec<Tally>, gave_up: usize) -> Finished {
        Finished { label: "write", outcome: Outcome { workers, acknowledged: Vec::new(), gave_up } }
    }

    #[test]
    fn report_has_a_line_per_worker_and_one_for_all() {
        let mut tally = Tally::new();
        (0..1500).for_each(|_| tally.success(Duration::from_micros(290)));
        tally.finish(Duration::from_secs(1));
        let text = render(&[finished(vec![tally.clone(), tally], 0)]);
        let fields: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(fields.len(), 4, "{text}");
        assert_eq!(fields[1][..5], ["write", "1", "1,500", "0", "1,500"], "{text}");
        assert_eq!(fields[3][..6], ["write", "all", "3,000", "0", "3,000", "0.290"], "{text}");
    }

    #[test]
    fn report_of_failures_names_code_count_and_the_first() {
        let mut tally = Tally::new();
        tally.failure(Failure::new("no-leader", "503: nobody leads\x1b[2J\n"));
        tally.failure(Failure::new("no-leader", "another"));
        let text = render(&[finished(vec![tally], 1)]);
        assert!(text.contains("write failed: 2 × no-leader. The first: 503: nobody leads [2J"), "{text}");
        assert!(text.contains("1 of 1 workers gave up"), "{text}");
    }
}
