//! What a thread saw: latencies in HDR histograms, failures by code. Tallies of threads add up without losing precision,
//! which averages of percentiles would.
//!
//! Two latencies are kept of each success. The *response* time is counted from when the request was meant to start, the
//! *service* time from when it was sent. In a closed loop they are the same; in an open loop the difference is the time
//! that a request had to wait for its turn, because others before it were slow.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::clock::Nanos;
use crate::failure::Failure;
use crate::request::Op;

/// Significant decimal digits of each latency: 0.1 %.
const DIGITS: u8 = 3;
/// The same where there are many histograms, one per shard or per second: 1 %, at a tenth of the memory.
const DIGITS_OF_MANY: u8 = 2;
/// Different codes kept; what comes beyond is counted as `other`. A server has a few dozen.
const CODES_MAX: usize = 64;

/// Nanoseconds of a number of requests. Grows with the largest, to a few hundred KiB.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// To a thousandth.
    pub(crate) fn precise() -> Latencies {
        Latencies::with(DIGITS)
    }

    /// To a hundredth.
    pub(crate) fn coarse() -> Latencies {
        Latencies::with(DIGITS_OF_MANY)
    }

    fn with(digits: u8) -> Latencies {
        Latencies(Histogram::new(digits).unwrap_or_else(|error| unreachable!("{digits} digits: {error}")))
    }

    /// One more.
    pub(crate) fn record(&mut self, latency: Nanos) {
        if let Err(error) = self.0.record(latency) {
            unreachable!("a histogram that grows takes {latency} ns: {error}");
        }
    }

    /// All of the other's.
    pub(crate) fn add(&mut self, other: &Latencies) {
        if let Err(error) = self.0.add(&other.0) {
            unreachable!("histograms that grow can be added: {error}");
        }
    }

    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that this part of all, 0 to 1, did not exceed; 0 when there is none.
    pub(crate) fn quantile(&self, part: f64) -> Nanos {
        self.0.value_at_quantile(part).min(self.0.max())
    }

    /// What people compare; `None` when there is nothing.
    pub(crate) fn summary(&self) -> Option<Summary> {
        (!self.0.is_empty()).then(|| Summary {
            mean: self.0.mean(),
            min: self.0.min(),
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p99: self.quantile(0.99),
            p999: self.quantile(0.999),
            max: self.0.max(),
        })
    }
}

/// Nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) mean: f64,
    pub(crate) min: Nanos,
    pub(crate) p50: Nanos,
    pub(crate) p90: Nanos,
    pub(crate) p99: Nanos,
    pub(crate) p999: Nanos,
    pub(crate) max: Nanos,
}

/// The failures of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failures {
    /// How many.
    pub(crate) count: u64,
    /// What the first one said.
    pub(crate) first: String,
}

/// One operation, all shards together.
#[derive(Debug, Clone)]
pub(crate) struct OpTally {
    /// From the intended start, of successes: a quick refusal must not make the server look fast.
    pub(crate) response: Latencies,
    /// From the sending, of successes.
    pub(crate) service: Latencies,
    /// Failures of all codes.
    pub(crate) failed: u64,
    /// Successes that were answered inside the measured time, whenever they began: what the throughput is made of.
    pub(crate) in_time: u64,
}

/// One operation at one shard, directly or forwarded.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// From the intended start, of successes.
    pub(crate) response: Latencies,
    /// Failures; which way they went is known only of those that a node answered.
    pub(crate) failed: u64,
}

/// Everything that was measured.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// By [`Op::index`].
    pub(crate) ops: [OpTally; 2],
    /// By [`Spot::place`]; made when first needed.
    places: Vec<Option<Box<Place>>>,
    /// By operation, shard and code.
    failures: BTreeMap<(Op, usize, String), Failures>,
    /// How late this generator sent a request although it was due and a worker was free.
    pub(crate) own_delay: Latencies,
    /// Requests that ended, successes or not, the warm-up's too.
    pub(crate) answered: u64,
}

/// Where a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    /// What it did.
    pub(crate) op: Op,
    /// The index of the key's shard; one past the last if that cannot be known.
    pub(crate) shard: usize,
    /// Whether another node than the one asked has served it.
    pub(crate) forwarded: bool,
}

impl Spot {
    fn place(self) -> usize {
        (self.shard * 2 + self.op.index()) * 2 + usize::from(self.forwarded)
    }
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Tally {
        let op = || OpTally { response: Latencies::precise(), service: Latencies::precise(), failed: 0, in_time: 0 };
        Tally {
            ops: [op(), op()],
            places: Vec::new(),
            failures: BTreeMap::new(),
            own_delay: Latencies::coarse(),
            answered: 0,
        }
    }

    /// One operation.
    pub(crate) fn op(&self, op: Op) -> &OpTally {
        let [get, set] = &self.ops;
        match op {
            Op::Get => get,
            Op::Set => set,
        }
    }

    /// The same, to count.
    pub(crate) fn op_mut(&mut self, op: Op) -> &mut OpTally {
        let [get, set] = &mut self.ops;
        match op {
            Op::Get => get,
            Op::Set => set,
        }
    }

    /// A success.
    pub(crate) fn success(&mut self, spot: Spot, response: Nanos, service: Nanos) {
        let op = self.op_mut(spot.op);
        op.response.record(response);
        op.service.record(service);
        self.place_mut(spot.place()).response.record(response);
    }

    /// A failure. Its latency is left out.
    pub(crate) fn failure(&mut self, spot: Spot, failure: Failure) {
        self.op_mut(spot.op).failed += 1;
        self.place_mut(spot.place()).failed += 1;
        self.count((spot.op, spot.shard, failure.code), Failures { count: 1, first: failure.detail });
    }

    /// Adds what another thread saw at the same time.
    pub(crate) fn add(&mut self, other: &Tally) {
        for op in Op::ALL {
            let (mine, others) = (self.op_mut(op), other.op(op));
            mine.response.add(&others.response);
            mine.service.add(&others.service);
            mine.failed += others.failed;
            mine.in_time += others.in_time;
        }
        for (number, place) in other.places.iter().enumerate() {
            if let Some(place) = place {
                let mine = self.place_mut(number);
                mine.response.add(&place.response);
                mine.failed += place.failed;
            }
        }
        for (key, failures) in &other.failures {
            self.count(key.clone(), failures.clone());
        }
        self.own_delay.add(&other.own_delay);
        self.answered += other.answered;
    }

    /// What went to one shard one way, if anything did.
    pub(crate) fn place(&self, spot: Spot) -> Option<&Place> {
        self.places.get(spot.place())?.as_deref()
    }

    /// Failures by operation, shard and code.
    pub(crate) fn failures(&self) -> &BTreeMap<(Op, usize, String), Failures> {
        &self.failures
    }

    /// Failures by operation and code, all shards together.
    pub(crate) fn failures_by_code(&self) -> BTreeMap<(Op, &str), Failures> {
        let mut all: BTreeMap<(Op, &str), Failures> = BTreeMap::new();
        for ((op, _, code), failures) in &self.failures {
            all.entry((*op, code))
                .and_modify(|known| known.count += failures.count)
                .or_insert_with(|| failures.clone());
        }
        all
    }

    /// Successes that began in the measured time.
    pub(crate) fn succeeded(&self) -> u64 {
        self.ops.iter().map(|op| op.response.count()).sum()
    }

    /// Failures that began in the measured time.
    pub(crate) fn failed(&self) -> u64 {
        self.ops.iter().map(|op| op.failed).sum()
    }

    fn place_mut(&mut self, number: usize) -> &mut Place {
        if self.places.len() <= number {
            self.places.resize_with(number + 1, || None);
        }
        let Some(place) = self.places.get_mut(number) else { unreachable!("the table has just grown to {number}") };
        place.get_or_insert_with(|| Box::new(Place { response: Latencies::coarse(), failed: 0 }))
    }

    fn count(&mut self, key: (Op, usize, String), failures: Failures) {
        let known = self.failures.len() < CODES_MAX * 4 || self.failures.contains_key(&key);
        let key = if known { key } else { (key.0, key.1, "other".into()) };
        self.failures.entry(key).and_modify(|known| known.count += failures.count).or_insert(failures);
    }
}

/// Exact up to 2^53, which no count of requests reaches.
#[expect(clippy::cast_precision_loss, reason = "see above")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::{CODES_MAX, Latencies, Spot, Tally};
    use crate::failure::Failure;
    use crate::request::Op;

    const SET: Spot = Spot { op: Op::Set, shard: 0, forwarded: false };

    fn near(left: u64, right_ms: u64) -> bool {
        left.abs_diff(right_ms * 1_000_000) <= right_ms * 2_000
    }

    #[test]
    fn latencies_of_known_values_are_right_to_a_thousandth() {
        let mut all = Latencies::precise();
        (1..=1000).for_each(|ms| all.record(ms * 1_000_000));
        let Some(got) = all.summary() else { panic!("there were some") };
        assert!(near(got.min, 1) && near(got.max, 1000) && near(got.p50, 500), "{got:?}");
        assert!(near(got.p90, 900) && near(got.p99, 990) && near(got.p999, 999), "{got:?}");
        assert!((got.mean / 1e6 - 500.5).abs() < 1.0, "{got:?}");
    }

    #[test]
    fn latencies_have_no_percentile_beyond_the_largest() {
        let mut all = Latencies::coarse();
        all.record(1_000_001);
        let Some(got) = all.summary() else { panic!("there was one") };
        assert!(got.p999 <= got.max, "{got:?}");
    }

    #[test]
    fn failures_do_not_count_as_successes() {
        let mut tally = Tally::new();
        tally.failure(SET, Failure::new("overloaded", "the first"));
        tally.failure(SET, Failure::new("overloaded", "the second"));
        assert_eq!((tally.succeeded(), tally.failed()), (0, 2));
        assert!(tally.op(Op::Set).response.summary().is_none());
        assert_eq!(tally.failures_by_code()[&(Op::Set, "overloaded")].first, "the first");
    }

    #[test]
    fn tallies_of_threads_at_the_same_time_add_up() {
        let (mut quick, mut slow) = (Tally::new(), Tally::new());
        (0..99).for_each(|_| quick.success(SET, 1_000_000, 900_000));
        slow.success(Spot { shard: 3, forwarded: true, ..SET }, 5_000_000_000, 4_000_000_000);
        slow.failure(SET, Failure::new("timeout", ""));
        let mut total = Tally::new();
        total.add(&quick);
        total.add(&slow);
        assert_eq!((total.succeeded(), total.failed()), (100, 1));
        let (Some(response), Some(service)) =
            (total.op(Op::Set).response.summary(), total.op(Op::Set).service.summary())
        else {
            panic!("there were successes")
        };
        assert!(near(response.p99, 1) && near(response.max, 5000) && near(service.max, 4000));
        let far = total.place(Spot { shard: 3, forwarded: true, ..SET }).map(|place| place.response.count());
        assert_eq!((far, total.place(Spot { shard: 3, ..SET }).is_none()), (Some(1), true));
    }

    #[test]
    fn codes_without_end_are_counted_together() {
        let mut tally = Tally::new();
        (0..1000).for_each(|n| tally.failure(SET, Failure::new(&format!("code-{n}"), "")));
        assert!(tally.failures().len() <= CODES_MAX * 4 + 1);
        assert_eq!(tally.failed(), 1000);
    }
}
