//! How large values are: all the same, or different from write to write.
//!
//! A size is computed from a hash of the write and not drawn, so that whoever reads the value back knows how long it
//! must be.

use std::fmt;
use std::str::FromStr;

/// The largest value that any cluster can be set to take; beyond it every write would be refused.
const VALUE_BYTES_MAX: usize = 64 << 20;

/// A distribution of value sizes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// Always so many.
    Fixed(usize),
    /// From the first to the second, both included, each as likely.
    Uniform(usize, usize),
    /// From the first to the second, small ones more often: each doubling of the size is as likely as the next.
    Skewed(usize, usize),
}

impl Sizes {
    /// The smallest that occurs.
    pub(crate) fn least(self) -> usize {
        match self {
            Sizes::Fixed(bytes) | Sizes::Uniform(bytes, _) | Sizes::Skewed(bytes, _) => bytes,
        }
    }

    /// The size that belongs to this hash, which should be spread over all 64-bit numbers.
    pub(crate) fn of(self, hash: u64) -> usize {
        match self {
            Sizes::Fixed(bytes) => bytes,
            Sizes::Uniform(from, to) => {
                let span = u128::try_from(to - from + 1).unwrap_or(1);
                let step = usize::try_from((u128::from(hash) * span) >> 64).unwrap_or(0);
                from + step
            }
            Sizes::Skewed(from, to) => {
                let ratio = as_f64(to + 1) / as_f64(from.max(1));
                let size = as_f64(from.max(1)) * ratio.powf(unit(hash));
                whole(size).clamp(from, to)
            }
        }
    }
}

/// 0 to 1, without 1.
#[expect(clippy::cast_precision_loss, reason = "53 of the 64 bits are all that a fraction has")]
fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

#[expect(clippy::cast_precision_loss, reason = "sizes are below 2^26")]
fn as_f64(size: usize) -> f64 {
    size as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounding down is what is wanted")]
fn whole(size: f64) -> usize {
    size as usize
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Sizes, String> {
        const FORM: &str = "give bytes (100), a range (10..1000) or a skewed range (skewed:10..100000)";
        let number = |text: &str| match text.parse::<usize>() {
            Ok(bytes) if bytes <= VALUE_BYTES_MAX => Ok(bytes),
            Ok(_) => Err(format!("values have at most {VALUE_BYTES_MAX} bytes")),
            Err(_) => Err(FORM.to_owned()),
        };
        let range = |text: &str| {
            let (from, to) = text.split_once("..").ok_or(FORM)?;
            let (from, to) = (number(from)?, number(to.trim_start_matches('='))?);
            if from <= to { Ok((from, to)) } else { Err(format!("a range goes upwards: {to}..{from}")) }
        };
        match text.strip_prefix("skewed:") {
            Some(rest) => range(rest).map(|(from, to)| Sizes::Skewed(from, to)),
            None if text.contains("..") => range(text).map(|(from, to)| Sizes::Uniform(from, to)),
            None => number(text).map(Sizes::Fixed),
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sizes::Fixed(bytes) => write!(f, "{bytes}"),
            Sizes::Uniform(from, to) => write!(f, "{from}..{to}"),
            Sizes::Skewed(from, to) => write!(f, "skewed:{from}..{to}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Sizes;
    use crate::keyspace::mix;

    fn mean(sizes: Sizes) -> f64 {
        let all: Vec<usize> = (0..100_000).map(|n| sizes.of(mix(n))).collect();
        f64::from(u32::try_from(all.iter().sum::<usize>()).expect("small")) / 100_000.0
    }

    #[test]
    fn sizes_are_understood_and_shown_as_they_were_written() {
        for text in ["0", "100", "10..1000", "7..7", "skewed:10..100000"] {
            assert_eq!(text.parse::<Sizes>().map(|sizes| sizes.to_string()).as_deref(), Ok(text));
        }
        assert_eq!("10..=20".parse(), Ok(Sizes::Uniform(10, 20)));
    }

    #[test]
    fn sizes_that_are_none_are_refused() {
        for text in ["", "-1", "1k", "5..", "..5", "9..5", "67108865", "1..67108865", "skewed:5", "zipf:1..2"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_uniform_reach_both_ends_and_have_the_middle_as_mean() {
        let sizes = Sizes::Uniform(10, 20);
        assert_eq!((sizes.of(0), sizes.of(u64::MAX)), (10, 20));
        assert!((mean(Sizes::Uniform(0, 1000)) - 500.0).abs() < 5.0);
    }

    #[test]
    fn sizes_skewed_have_each_doubling_as_often() {
        let sizes = Sizes::Skewed(16, 1023);
        assert_eq!((sizes.of(0), sizes.of(u64::MAX)), (16, 1023));
        let mut doublings = [0_u32; 6];
        for n in 0..60_000 {
            let size = sizes.of(mix(n));
            doublings[size.ilog2() as usize - 4] += 1;
        }
        assert!(doublings.iter().all(|count| count.abs_diff(10_000) < 400), "{doublings:?}");
        assert_eq!(Sizes::Skewed(0, 0).of(7), 0);
    }
}
