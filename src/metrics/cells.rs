//! Counters and histograms by label, made for hot paths: every label's values are known when the node starts, so a series
//! is a cell of an array. Counting is one relaxed addition; nothing is looked up by its text, allocated or locked.
//!
//! An index beyond an axis counts as the axis's last value, which is `other` wherever that can happen. Cells that were
//! never touched are not shown: of a table of routes, methods and outcomes most never are.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::labels::OTHER;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

/// A label and its values.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    label: &'static str,
    values: Arc<[Arc<str>]>,
}

impl Axis {
    /// Values, and `other` for what is none of them.
    pub(super) fn with_other<T: AsRef<str>>(label: &'static str, values: impl IntoIterator<Item = T>) -> Axis {
        let values = values.into_iter().map(|value| Arc::from(value.as_ref()));
        Axis { label, values: values.chain([Arc::from(OTHER)]).collect() }
    }

    /// Values that are all there are.
    pub(super) fn new<T: AsRef<str>>(label: &'static str, values: impl IntoIterator<Item = T>) -> Axis {
        let values: Arc<[Arc<str>]> = values.into_iter().map(|value| Arc::from(value.as_ref())).collect();
        assert!(!values.is_empty(), "label {label} has no values");
        Axis { label, values }
    }
}

/// Cells along `N` labels.
#[derive(Debug)]
struct Table<const N: usize, Cell> {
    axes: [Axis; N],
    cells: Box<[Cell]>,
}

impl<const N: usize, Cell> Table<N, Cell> {
    fn new(axes: [Axis; N], cell: impl Fn() -> Cell) -> Table<N, Cell> {
        let count = axes.iter().map(|axis| axis.values.len()).product();
        Table { axes, cells: std::iter::repeat_with(cell).take(count).collect() }
    }

    /// The last axis varies fastest.
    fn cell(&self, at: [usize; N]) -> Option<&Cell> {
        let step = |index: usize, (axis, at): (&Axis, usize)| {
            let len = axis.values.len();
            index * len + at.min(len - 1)
        };
        self.cells.get(self.axes.iter().zip(at).fold(0, step))
    }

    /// Every cell with its labels.
    fn rows(&self) -> impl Iterator<Item = ([(&'static str, &str); N], &Cell)> {
        self.cells.iter().enumerate().map(|(index, cell)| (self.labels(index), cell))
    }

    fn labels(&self, mut index: usize) -> [(&'static str, &str); N] {
        let mut labels = [("", ""); N];
        for (label, axis) in labels.iter_mut().zip(&self.axes).rev() {
            let value = axis.values.get(index % axis.values.len()).map_or("", |value| value);
            *label = (axis.label, value);
            index /= axis.values.len();
        }
        labels
    }
}

/// Counters along `N` labels. Clones share them.
#[derive(Debug, Clone)]
pub struct Counts<const N: usize>(Arc<Table<N, AtomicU64>>);

impl<const N: usize> Counts<N> {
    pub(super) fn new(axes: [Axis; N]) -> Counts<N> {
        Counts(Arc::new(Table::new(axes, AtomicU64::default)))
    }

    /// Counts one.
    pub fn inc(&self, at: [usize; N]) {
        self.add(at, 1);
    }

    /// Counts `by`.
    pub fn add(&self, at: [usize; N], by: u64) {
        if let Some(cell) = self.0.cell(at) {
            cell.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// What was counted.
    #[must_use]
    pub fn get(&self, at: [usize; N]) -> u64 {
        self.0.cell(at).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}

impl<const N: usize> EncodeMetric for Counts<N> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for (labels, cell) in self.0.rows() {
            let value = cell.load(Ordering::Relaxed);
            if value > 0 {
                ConstCounter::new(value).encode(encoder.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// What a histogram measures: bounds of its buckets in whole units, and how many of them make one unit of the metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    pub(super) bounds: &'static [u64],
    pub(super) per_unit: f64,
}

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// Durations, in nanoseconds; from a read out of memory to the longest request.
pub(super) const DURATIONS: Scale = Scale {
    bounds: &[
        50 * MICRO,
        100 * MICRO,
        250 * MICRO,
        500 * MICRO,
        MILLI,
        2 * MILLI + 500 * MICRO,
        5 * MILLI,
        10 * MILLI,
        25 * MILLI,
        50 * MILLI,
        100 * MILLI,
        250 * MILLI,
        500 * MILLI,
        SECOND,
        2 * SECOND + 500 * MILLI,
        5 * SECOND,
        10 * SECOND,
        30 * SECOND,
    ],
    per_unit: 1e9,
};

/// Sizes, in bytes; from a small write to the largest value.
pub(super) const SIZES: Scale = Scale {
    bounds: &[256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20],
    per_unit: 1.0,
};

/// Numbers of things in a batch.
pub(super) const NUMBERS: Scale = Scale { bounds: &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024], per_unit: 1.0 };

/// Histograms along `N` labels. Clones share them.
#[derive(Debug, Clone)]
pub struct Spreads<const N: usize> {
    table: Arc<Table<N, Spread>>,
    scale: Scale,
}

/// One histogram; its count is the sum of its buckets, so that the two never disagree.
#[derive(Debug)]
struct Spread {
    /// One per bound, and one for all that is beyond.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl<const N: usize> Spreads<N> {
    pub(super) fn new(scale: Scale, axes: [Axis; N]) -> Spreads<N> {
        let buckets = || (0..=scale.bounds.len()).map(|_| AtomicU64::default()).collect();
        let table = Table::new(axes, || Spread { buckets: buckets(), sum: AtomicU64::default() });
        Spreads { table: Arc::new(table), scale }
    }

    /// Enters a value in whole units: bytes, or how many.
    pub fn observe(&self, at: [usize; N], value: u64) {
        let Some(spread) = self.table.cell(at) else { return };
        let bucket = self.scale.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = spread.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
            spread.sum.fetch_add(value, Ordering::Relaxed);
        }
    }

    /// Enters a duration.
    pub fn time(&self, at: [usize; N], took: Duration) {
        self.observe(at, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl<const N: usize> EncodeMetric for Spreads<N> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let bounds = self.scale.bounds.iter().map(|bound| *bound as f64 / self.scale.per_unit).chain([f64::INFINITY]);
        for (labels, spread) in self.table.rows() {
            let counts = spread.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
            let buckets: Vec<(f64, u64)> = bounds.clone().zip(counts).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            if count > 0 {
                let sum = spread.sum.load(Ordering::Relaxed) as f64 / self.scale.per_unit;
                let mut family = encoder.encode_family(&labels)?;
                family.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    fn text(metric: impl EncodeMetric + Send + Sync + fmt::Debug + 'static) -> String {
        let mut registry = Registry::default();
        registry.register("m", "Help", metric);
        let mut out = String::new();
        text::encode(&mut out, &registry).unwrap();
        out
    }

    #[test]
    fn counts_show_touched_cells_with_their_own_labels() {
        let counts = Counts::new([Axis::new("route", ["/get", "/set"]), Axis::new("outcome", ["ok", "bad", "other"])]);
        counts.inc([1, 0]);
        counts.add([0, 1], 3);
        assert_eq!((counts.get([1, 0]), counts.get([0, 1]), counts.get([0, 0])), (1, 3, 0));
        let expected = "# HELP m Help.\n# TYPE m counter\nm_total{route=\"/get\",outcome=\"bad\"} 3\n\
                        m_total{route=\"/set\",outcome=\"ok\"} 1\n# EOF\n";
        assert_eq!(text(counts), expected);
    }

    #[test]
    fn counts_beyond_an_axis_are_its_last_value() {
        let counts = Counts::new([Axis::new("route", ["/get", "other"])]);
        counts.inc([9]);
        assert_eq!((counts.get([0]), counts.get([1])), (0, 1));
    }

    #[test]
    fn spread_puts_a_value_into_the_first_bucket_that_holds_it() {
        let spread = Spreads::new(NUMBERS, [Axis::new("shard", ["A"])]);
        for value in [0, 2, 3, 5000] {
            spread.observe([0], value);
        }
        let shown = text(spread);
        for line in [
            "m_sum{shard=\"A\"} 5005.0",
            "m_count{shard=\"A\"} 4",
            "m_bucket{le=\"1.0\",shard=\"A\"} 1",
            "m_bucket{le=\"2.0\",shard=\"A\"} 2",
            "m_bucket{le=\"4.0\",shard=\"A\"} 3",
            "m_bucket{le=\"1024.0\",shard=\"A\"} 3",
            "m_bucket{le=\"+Inf\",shard=\"A\"} 4",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "no {line} in\n{shown}");
        }
    }

    #[test]
    fn spread_of_durations_is_in_seconds() {
        let spread = Spreads::new(DURATIONS, [Axis::new("shard", ["A"])]);
        spread.time([0], Duration::from_millis(30));
        let shown = text(spread);
        assert!(shown.contains("m_sum{shard=\"A\"} 0.03\n"), "{shown}");
        assert!(shown.contains("m_bucket{le=\"0.025\",shard=\"A\"} 0\n"), "{shown}");
        assert!(shown.contains("m_bucket{le=\"0.05\",shard=\"A\"} 1\n"), "{shown}");
    }
}
