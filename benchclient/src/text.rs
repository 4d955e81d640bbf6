//! Numbers for people, and the two places where text goes: standard output for the result, standard error for everything
//! beside it.

use std::io::Write;

use crate::result::Latency;

/// Writes to standard error; nobody has to be listening.
pub(crate) fn say(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Writes to standard output; whoever reads it may have gone.
pub(crate) fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
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
pub(crate) fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < 10.0 {
        return format!("{rate:.1}");
    }
    format!("{rate:.0}").parse().map_or_else(|_| "?".into(), grouped)
}

/// Microseconds as milliseconds: `0.290`.
pub(crate) fn millis(micros: f64) -> String {
    format!("{:.3}", micros / 1e3)
}

/// What a server said is not let near the terminal's control characters, nor fills the screen.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect()
}

/// A latency's columns: mean, p50, p90, p99, p99.9, max.
pub(crate) fn columns(latency: Option<&Latency>) -> [String; 6] {
    match latency {
        Some(l) => [l.mean_us, l.p50_us, l.p90_us, l.p99_us, l.p999_us, l.max_us].map(millis),
        None => [const { String::new() }; 6].map(|_| "-".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{grouped, millis, printable, rate};

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (100_000, "100,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn rates_keep_a_decimal_only_when_small() {
        assert_eq!((rate(0.0), rate(0.25), rate(4310.4)), ("0".into(), "0.2".into(), "4,310".into()));
    }

    #[test]
    fn text_of_a_server_cannot_move_the_cursor() {
        assert_eq!(printable("nobody\x1b[2J\n"), "nobody [2J ");
        assert_eq!(millis(290.0), "0.290");
    }
}
