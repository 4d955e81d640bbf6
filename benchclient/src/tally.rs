//! What one worker saw: latencies of its successes in an HDR histogram, failures by code. Tallies of workers add up to the
//! tally of a phase without losing precision, which averages of percentiles would.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::failure::Failure;

/// Significant decimal digits kept of each latency: 0.1 %.
const DIGITS: u8 = 3;
/// Different codes kept; what comes beyond is counted as `other`. A server has a few dozen.
const CODES_MAX: usize = 64;

/// Counts and latencies of one worker, or of several added up.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Nanoseconds of each success. Grows with the largest latency, to a few hundred KiB.
    latencies: Histogram<u64>,
    failures: BTreeMap<String, Failures>,
    /// From the start of the first worker to the end of the last.
    elapsed: Duration,
}

/// The failures of one code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failures {
    /// How many.
    pub(crate) count: u64,
    /// What the first one said.
    pub(crate) first: String,
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Tally {
        let latencies = Histogram::new(DIGITS).unwrap_or_else(|error| unreachable!("{DIGITS} digits: {error}"));
        Tally { latencies, failures: BTreeMap::new(), elapsed: Duration::ZERO }
    }

    /// A success that took so long.
    pub(crate) fn success(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        if let Err(error) = self.latencies.record(nanos) {
            unreachable!("a histogram that grows takes {nanos} ns: {error}");
        }
    }

    /// A failure. Its latency is left out: a quick refusal must not make the server look fast.
    pub(crate) fn failure(&mut self, failure: Failure) {
        self.count_failures(failure.code, Failures { count: 1, first: failure.detail });
    }

    /// How long the worker ran, pauses included.
    pub(crate) fn finish(&mut self, elapsed: Duration) {
        self.elapsed = elapsed;
    }

    /// Adds another worker's tally, which ran at the same time.
    pub(crate) fn add(&mut self, other: &Tally) {
        if let Err(error) = self.latencies.add(&other.latencies) {
            unreachable!("histograms that grow can be added: {error}");
        }
        for (code, failures) in &other.failures {
            self.count_failures(code.clone(), failures.clone());
        }
        self.elapsed = self.elapsed.max(other.elapsed);
    }

    /// Successes.
    pub(crate) fn successes(&self) -> u64 {
        self.latencies.len()
    }

    /// Failures of all codes.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.values().map(|failures| failures.count).sum()
    }

    /// Failures by code.
    pub(crate) fn failures_by_code(&self) -> &BTreeMap<String, Failures> {
        &self.failures
    }

    /// Successes a second, over the whole time.
    pub(crate) fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { as_f64(self.successes()) / seconds } else { 0.0 }
    }

    /// Latencies of the successes; `None` when there was none.
    pub(crate) fn latency(&self) -> Option<Latency> {
        let of = |nanos: u64| Duration::from_nanos(nanos);
        (!self.latencies.is_empty()).then(|| Latency {
            mean: Duration::from_secs_f64(self.latencies.mean() / 1e9),
            min: of(self.latencies.min()),
            p50: of(self.latencies.value_at_quantile(0.5)),
            p99: of(self.latencies.value_at_quantile(0.99)),
            max: of(self.latencies.max()),
        })
    }

    fn count_failures(&mut self, code: String, failures: Failures) {
        let code =
            if self.failures.len() < CODES_MAX || self.failures.contains_key(&code) { code } else { "other".into() };
        self.failures.entry(code).and_modify(|known| known.count += failures.count).or_insert(failures);
    }
}

/// The figures that people compare; each to 0.1 %.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) mean: Duration,
    pub(crate) min: Duration,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
}

/// Exact up to 2^53, which no count of requests reaches.
#[expect(clippy::cast_precision_loss, reason = "see above")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{CODES_MAX, Tally};
    use crate::failure::Failure;

    fn near(left: Duration, right_ms: f64) -> bool {
        (left.as_secs_f64() * 1e3 - right_ms).abs() <= right_ms * 0.002
    }

    #[test]
    fn latency_of_known_values_is_right_to_a_thousandth() {
        let mut tally = Tally::new();
        (1..=1000).for_each(|ms| tally.success(Duration::from_millis(ms)));
        let Some(latency) = tally.latency() else { panic!("there were successes") };
        assert!(near(latency.min, 1.0) && near(latency.max, 1000.0), "{latency:?}");
        assert!(near(latency.mean, 500.5) && near(latency.p50, 500.0) && near(latency.p99, 990.0), "{latency:?}");
    }

    #[test]
    fn failures_do_not_count_as_successes() {
        let mut tally = Tally::new();
        tally.failure(Failure::new("overloaded", "the first"));
        tally.failure(Failure::new("overloaded", "the second"));
        tally.finish(Duration::from_secs(1));
        assert_eq!((tally.successes(), tally.failures()), (0, 2));
        assert!(tally.latency().is_none());
        assert!(tally.rate().abs() < f64::EPSILON);
        assert_eq!(tally.failures_by_code()["overloaded"].first, "the first");
    }

    #[test]
    fn tallies_of_workers_at_the_same_time_add_up() {
        let (mut quick, mut slow) = (Tally::new(), Tally::new());
        (0..99).for_each(|_| quick.success(Duration::from_millis(1)));
        quick.finish(Duration::from_secs(1));
        slow.success(Duration::from_secs(5));
        slow.failure(Failure::new("timeout", ""));
        slow.finish(Duration::from_secs(10));
        let mut total = Tally::new();
        total.add(&quick);
        total.add(&slow);
        assert_eq!((total.successes(), total.failures()), (100, 1));
        assert!((total.rate() - 10.0).abs() < 1e-9, "{}", total.rate());
        let Some(latency) = total.latency() else { panic!("there were successes") };
        assert!(near(latency.p99, 1.0) && near(latency.max, 5000.0), "{latency:?}");
    }

    #[test]
    fn codes_without_end_are_counted_together() {
        let mut tally = Tally::new();
        (0..1000).for_each(|n| tally.failure(Failure::new(&format!("code-{n}"), "")));
        assert!(tally.failures_by_code().len() <= CODES_MAX + 1);
        assert_eq!(tally.failures(), 1000);
    }
}
