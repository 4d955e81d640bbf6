//! Chance, handed in: the system's, or a seeded sequence for simulations and tests that can be replayed.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Cheap to clone; all clones of a seeded source draw from one sequence.
#[derive(Debug, Clone)]
pub struct Random(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Seeded(Arc<Mutex<StdRng>>),
}

impl Random {
    /// The system's randomness.
    #[must_use]
    pub fn system() -> Random {
        Random(Source::System)
    }

    /// The same sequence for the same seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Random {
        Random(Source::Seeded(Arc::new(Mutex::new(StdRng::seed_from_u64(seed)))))
    }

    /// Any 64 bits: an identity.
    #[must_use]
    pub fn id(&self) -> u64 {
        match &self.0 {
            Source::System => rand::rng().random(),
            Source::Seeded(rng) => rng.lock().random(),
        }
    }

    /// A duration between `share` of `full` and all of it, so that many nodes do not act at once.
    #[must_use]
    pub fn jitter(&self, full: Duration, share: f64) -> Duration {
        let factor = match &self.0 {
            Source::System => rand::rng().random_range(share..1.0),
            Source::Seeded(rng) => rng.lock().random_range(share..1.0),
        };
        full.mul_f64(factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeded_same_seed_gives_the_same_sequence() {
        let draw = |seed| {
            let random = Random::seeded(seed);
            (random.id(), random.jitter(Duration::from_secs(1), 0.5), random.id())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn jitter_stays_between_its_share_and_the_whole() {
        for random in [Random::system(), Random::seeded(1)] {
            for _ in 0..100 {
                let drawn = random.jitter(Duration::from_secs(1), 0.5);
                assert!((Duration::from_millis(500)..=Duration::from_secs(1)).contains(&drawn), "{drawn:?}");
            }
        }
    }
}
