//! The keys and values of one run. Key number `n` and its value follow from the run's seed and `n` alone, so a value that
//! is read back can be compared byte for byte without having been kept.
//!
//! Keys are random (SplitMix64 of `n`, a bijection: no two numbers share a key) and begin with the run's name, so that two
//! runs never meet and a run can be found again in the store. Values are random bytes, zeros and invalid UTF-8 included.

use bytes::Bytes;

/// Names a run's keys and makes their values.
#[derive(Debug, Clone)]
pub(crate) struct Keyspace {
    seed: u64,
    value_bytes: usize,
}

impl Keyspace {
    /// All keys of the run with this seed; each value has `value_bytes` bytes.
    pub(crate) fn new(seed: u64, value_bytes: usize) -> Keyspace {
        Keyspace { seed, value_bytes }
    }

    /// What all keys of this run begin with: letters, digits and `-`, so it stands in a URL as it is.
    pub(crate) fn prefix(&self) -> String {
        format!("bench-{:08x}-", self.seed >> 32)
    }

    /// The key of this number.
    pub(crate) fn key(&self, number: u64) -> String {
        format!("{}{:016x}", self.prefix(), mix(self.seed.wrapping_add(number.wrapping_mul(GAMMA))))
    }

    /// The value of this number, always the same.
    pub(crate) fn value(&self, number: u64) -> Bytes {
        let mut value = Vec::with_capacity(self.value_bytes + 8);
        let mut state = mix(!self.seed ^ mix(number));
        while value.len() < self.value_bytes {
            state = state.wrapping_add(GAMMA);
            value.extend_from_slice(&mix(state).to_le_bytes());
        }
        value.truncate(self.value_bytes);
        Bytes::from(value)
    }

    /// The `turn`-th draw from `len` things, uniform; `None` when there are none. Not the keys' own sequence.
    pub(crate) fn draw(&self, turn: u64, len: usize) -> Option<usize> {
        let len = u64::try_from(len).ok().filter(|len| *len > 0)?;
        usize::try_from(mix(mix(self.seed) ^ turn) % len).ok()
    }
}

/// SplitMix64's increment, 2^64 over the golden ratio.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function (Steele, Lea and Flood, 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Keyspace;

    #[test]
    fn keys_of_a_run_are_distinct_and_stand_in_a_url() {
        let keys = Keyspace::new(7, 0);
        let all: HashSet<String> = (0..10_000).map(|n| keys.key(n)).collect();
        assert_eq!(all.len(), 10_000);
        assert!(all.iter().all(|key| key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')));
    }

    #[test]
    fn keys_of_two_runs_differ() {
        let (one, other) = (Keyspace::new(1 << 40, 0), Keyspace::new(2 << 40, 0));
        assert_ne!(one.prefix(), other.prefix());
        assert_ne!(one.key(0), other.key(0));
    }

    #[test]
    fn values_have_the_size_asked_for_and_come_again() {
        for size in [0, 1, 7, 8, 9, 100] {
            let keys = Keyspace::new(42, size);
            assert_eq!(keys.value(3).len(), size);
            assert_eq!(keys.value(3), keys.value(3));
        }
        let keys = Keyspace::new(42, 100);
        assert_ne!(keys.value(3), keys.value(4));
    }

    #[test]
    fn values_hold_bytes_that_are_no_text() {
        let keys = Keyspace::new(42, 4096);
        let value = keys.value(0);
        assert!(value.contains(&0) && value.contains(&0xff));
    }

    #[test]
    fn draws_cover_everything_and_nothing_beyond() {
        let keys = Keyspace::new(42, 0);
        let drawn: HashSet<usize> = (0..1_000).filter_map(|turn| keys.draw(turn, 10)).collect();
        assert_eq!(drawn.len(), 10);
        assert!(drawn.iter().all(|index| *index < 10));
        assert_eq!(keys.draw(0, 0), None);
    }
}
