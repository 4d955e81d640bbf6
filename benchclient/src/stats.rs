//! Is a difference more than noise? Pure.
//!
//! The ratio of two medians is computed again and again from values drawn anew, with replacement, from each side (Efron's
//! bootstrap). Where 95 of 100 such ratios lie says how far chance alone can move it. No distribution is assumed, and one
//! odd value does little. With few values the interval is honestly wide.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// How often values are drawn anew.
const DRAWS: usize = 4_000;
/// Fewer values on a side say nothing.
const VALUES_MIN: usize = 3;

/// How two sides compare.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ratio {
    /// Median after over median before.
    pub(crate) ratio: f64,
    /// 95 of 100 ratios lie from here …
    pub(crate) low: f64,
    /// … to here.
    pub(crate) high: f64,
}

impl Ratio {
    /// Whether the two sides may as well be the same.
    pub(crate) fn is_noise(&self) -> bool {
        self.low <= 1.0 && self.high >= 1.0
    }
}

/// Middle, smallest and largest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

/// The spread of these values; `None` when there are none.
pub(crate) fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some(Spread { median: median_of_sorted(&sorted)?, least: *sorted.first()?, most: *sorted.last()? })
}

/// Compares two sides; `None` with too few values, or when before there was nothing.
pub(crate) fn compare(before: &[f64], after: &[f64]) -> Option<Ratio> {
    if before.len() < VALUES_MIN || after.len() < VALUES_MIN {
        return None;
    }
    let ratio = spread(after)?.median / spread(before)?.median;
    // A fixed seed: the same files give the same answer.
    let mut random = SmallRng::seed_from_u64(1);
    let mut ratios: Vec<f64> = (0..DRAWS)
        .filter_map(|_| Some(redrawn_median(after, &mut random)? / redrawn_median(before, &mut random)?))
        .filter(|ratio| ratio.is_finite())
        .collect();
    ratios.sort_by(f64::total_cmp);
    let at = |thousandths: usize| ratios.get((ratios.len().saturating_sub(1)) * thousandths / 1000).copied();
    ratio.is_finite().then_some(Ratio { ratio, low: at(25)?, high: at(975)? })
}

fn redrawn_median(values: &[f64], random: &mut SmallRng) -> Option<f64> {
    let mut drawn: Vec<f64> =
        (0..values.len()).filter_map(|_| values.get(random.random_range(0..values.len())).copied()).collect();
    drawn.sort_by(f64::total_cmp);
    median_of_sorted(&drawn)
}

fn median_of_sorted(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 { Some(upper) } else { Some((*sorted.get(middle.checked_sub(1)?)? + upper) / 2.0) }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::{compare, spread};

    /// Values around a middle, up to a tenth away.
    fn around(middle: f64, count: usize, seed: u64) -> Vec<f64> {
        let mut random = SmallRng::seed_from_u64(seed);
        (0..count).map(|_| middle * random.random_range(0.9..1.1)).collect()
    }

    #[test]
    fn spread_has_median_and_ends() {
        let got = spread(&[3.0, 1.0, 2.0, 10.0]).map(|s| (s.median, s.least, s.most));
        assert_eq!(got, Some((2.5, 1.0, 10.0)));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn difference_larger_than_the_spread_is_seen() {
        let Some(ratio) = compare(&around(100.0, 10, 1), &around(130.0, 10, 2)) else { panic!("ten values") };
        assert!(!ratio.is_noise() && ratio.low > 1.1 && ratio.high < 1.5, "{ratio:?}");
    }

    #[test]
    fn difference_smaller_than_the_spread_is_noise() {
        // Twenty pairs of the same: a 95 % interval may miss once or twice.
        let noise = (0..20).filter(|n| {
            compare(&around(100.0, 10, *n), &around(100.0, 10, n + 1000)).is_some_and(|ratio| ratio.is_noise())
        });
        assert!(noise.count() >= 17);
    }

    #[test]
    fn one_odd_value_decides_nothing() {
        let mut after = around(100.0, 9, 3);
        after.push(10_000.0);
        let Some(ratio) = compare(&around(100.0, 10, 4), &after) else { panic!("ten values") };
        assert!(ratio.is_noise(), "{ratio:?}");
    }

    #[test]
    fn few_values_or_nothing_before_cannot_be_compared() {
        assert_eq!(compare(&[1.0, 2.0], &[1.0, 2.0, 3.0]), None);
        assert_eq!(compare(&[0.0; 5], &[1.0; 5]), None);
    }

    #[test]
    fn same_values_are_the_same() {
        let Some(ratio) = compare(&[5.0; 4], &[5.0; 4]) else { panic!("four values") };
        assert!(ratio.is_noise() && (ratio.ratio - 1.0).abs() < 1e-9);
    }
}
