//! Which key comes next: every key as likely, a few most of the time, or the newest most of the time.
//!
//! Zipfian with exponent 0.99 is YCSB's: of 100,000 keys the most popular is asked for in one of 13 requests. Which key
//! is popular has nothing to do with its place, as in YCSB's scrambled form, for a key is a hash of its number.
//! `latest` writes one key after the other, over and over, and reads the newest ones most.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use crate::request::Op;

/// YCSB's exponent.
const EXPONENT: f64 = 0.99;

/// Which keys are asked for how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Popularity {
    /// Every key as often.
    Uniform,
    /// A few keys most of the time.
    Zipfian,
    /// Keys are written in turn, and the newest are read most.
    Latest,
}

impl Popularity {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Popularity::Uniform => "uniform",
            Popularity::Zipfian => "zipfian 0.99",
            Popularity::Latest => "latest",
        }
    }
}

/// Draws operations and keys; each worker has its own, with a seed of its own.
#[derive(Debug, Clone)]
pub(crate) struct Chooser {
    random: SmallRng,
    keys: u64,
    /// Of 100 requests, so many are reads.
    reads_percent: u32,
    popularity: Popularity,
    zipf: Option<Zipf<f64>>,
    /// `latest`: how many writes there have been, over all workers. Only ever grows.
    newest: Arc<AtomicU64>,
}

impl Chooser {
    /// Among so many keys, at least one.
    pub(crate) fn new(keys: u64, reads_percent: u32, popularity: Popularity, newest: Arc<AtomicU64>) -> Chooser {
        let zipf = match popularity {
            Popularity::Uniform => None,
            Popularity::Zipfian | Popularity::Latest => Zipf::new(as_f64(keys), EXPONENT).ok(),
        };
        Chooser { random: SmallRng::seed_from_u64(0), keys: keys.max(1), reads_percent, popularity, zipf, newest }
    }

    /// The same for another worker.
    pub(crate) fn seeded(&self, seed: u64) -> Chooser {
        Chooser { random: SmallRng::seed_from_u64(seed), ..self.clone() }
    }

    /// The next request.
    pub(crate) fn draw(&mut self) -> (Op, u64) {
        let op = match self.reads_percent {
            0 => Op::Set,
            100 => Op::Get,
            reads if self.random.random_range(0..100) < reads => Op::Get,
            _ => Op::Set,
        };
        (op, self.key(op))
    }

    fn key(&mut self, op: Op) -> u64 {
        match (self.popularity, op) {
            (Popularity::Uniform, _) => self.random.random_range(0..self.keys),
            (Popularity::Zipfian, _) => self.rank(),
            (Popularity::Latest, Op::Set) => self.newest.fetch_add(1, Ordering::Relaxed) % self.keys,
            (Popularity::Latest, Op::Get) => {
                let newest = self.newest.load(Ordering::Relaxed) % self.keys;
                (newest + self.keys - 1 - self.rank()) % self.keys
            }
        }
    }

    /// 0 most often.
    fn rank(&mut self) -> u64 {
        let drawn = self.zipf.as_ref().map_or(1.0, |zipf| zipf.sample(&mut self.random));
        (whole(drawn).max(1) - 1).min(self.keys - 1)
    }
}

#[expect(clippy::cast_precision_loss, reason = "key counts are far below 2^53")]
fn as_f64(keys: u64) -> f64 {
    keys.max(1) as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank is a positive whole number")]
fn whole(rank: f64) -> u64 {
    rank as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::{Chooser, Popularity};
    use crate::request::Op;

    const DRAWS: u32 = 200_000;

    fn chooser(keys: u64, reads_percent: u32, popularity: Popularity) -> Chooser {
        Chooser::new(keys, reads_percent, popularity, Arc::default()).seeded(7)
    }

    fn counts(mut chooser: Chooser) -> HashMap<u64, u32> {
        let mut counts = HashMap::new();
        for _ in 0..DRAWS {
            *counts.entry(chooser.draw().1).or_default() += 1;
        }
        counts
    }

    #[test]
    fn zipfian_gives_every_rank_its_share() {
        let counts = counts(chooser(1000, 100, Popularity::Zipfian));
        let zeta: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-0.99)).sum();
        for rank in [1_u32, 2, 3, 10, 100] {
            let share = f64::from(rank).powf(-0.99) / zeta;
            let expected = share * f64::from(DRAWS);
            let got = f64::from(counts[&u64::from(rank - 1)]);
            // Five standard deviations: a wrong exponent is further away than that.
            assert!((got - expected).abs() < 5.0 * expected.sqrt(), "rank {rank}: {got}, not {expected}");
        }
        assert!(counts.keys().all(|key| *key < 1000));
    }

    #[test]
    fn uniform_gives_every_key_the_same() {
        let counts = counts(chooser(100, 100, Popularity::Uniform));
        assert_eq!(counts.len(), 100);
        assert!(counts.values().all(|count| count.abs_diff(DRAWS / 100) < 250), "{counts:?}");
    }

    #[test]
    fn latest_writes_in_turn_and_reads_the_newest_most() {
        let mut chooser = chooser(1000, 50, Popularity::Latest);
        let (mut written, mut distances) = (0, HashMap::new());
        for _ in 0..DRAWS {
            match chooser.draw() {
                (Op::Set, key) => {
                    assert_eq!(key, written % 1000);
                    written += 1;
                }
                (Op::Get, key) => *distances.entry((written + 999 - key) % 1000).or_insert(0_u32) += 1,
            }
        }
        assert!(distances[&0] > distances[&1] && distances[&1] > distances[&10], "{distances:?}");
        assert!(distances[&0] > DRAWS / 2 / 15, "{}", distances[&0]);
    }

    #[test]
    fn mix_of_operations_is_the_one_asked_for() {
        for (percent, least, most) in [(0, 0, 0), (5, 9_000, 11_000), (95, 189_000, 191_000), (100, DRAWS, DRAWS)] {
            let mut chooser = chooser(10, percent, Popularity::Uniform);
            let reads = (0..DRAWS).filter(|_| chooser.draw().0 == Op::Get).count();
            assert!((least as usize..=most as usize).contains(&reads), "{percent} %: {reads}");
        }
    }

    #[test]
    fn one_key_is_always_chosen() {
        for popularity in [Popularity::Uniform, Popularity::Zipfian, Popularity::Latest] {
            assert_eq!(counts(chooser(1, 50, popularity)).len(), 1);
        }
    }
}
