//! The keys and values of a run. Key number `n` follows from the seed and `n`; a value follows from the seed, its key and
//! the write's stamp. What is read back can be compared byte for byte without having been kept.
//!
//! ```text
//! key    bench-1f3a5c7e-9e3779b97f4a7c15      "bench-", the seed's name, SplitMix64 of n (a bijection: no two collide)
//! value  [check 8][run 8][write 8][random bytes …]     check covers seed, key, run and write; the rest follows from it
//! ```
//!
//! So keys are random to look at, yet the same again for the same seed: what one run loaded another can read. A value
//! names the write that it came from, if it has room for 24 bytes; a shorter one is only compared with what is expected.
//! Values hold all bytes, zeros and invalid UTF-8 included, and do not compress.

use crate::sizes::Sizes;

/// Which write a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The process that wrote it.
    pub(crate) run: u64,
    /// Its number there, in the order in which writes began.
    pub(crate) write: u64,
}

/// Bytes of a value that name its write.
pub(crate) const STAMP_BYTES: usize = 24;

/// Names keys and makes values.
#[derive(Debug, Clone)]
pub(crate) struct Keyspace {
    seed: u64,
    prefix: String,
    sizes: Sizes,
}

impl Keyspace {
    /// All keys of this seed; values have such sizes.
    pub(crate) fn new(seed: u64, sizes: Sizes) -> Keyspace {
        // The name is a hash of the seed: seeds 1 and 2 are as different as two that were drawn.
        let prefix = format!("bench-{:08x}-", mix(seed.wrapping_add(GAMMA)) >> 32);
        Keyspace { seed, prefix, sizes }
    }

    /// What all keys begin with: letters, digits and `-`, so it stands in a URL as it is.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Appends the key of this number.
    pub(crate) fn push_key(&self, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix.as_bytes());
        let hash = mix(self.seed.wrapping_add(number.wrapping_mul(GAMMA)));
        let mut digits = [0; 16];
        for (place, digit) in (0..16).rev().zip(&mut digits) {
            let nibble = u8::try_from((hash >> (4 * place)) & 15).unwrap_or_else(|_| unreachable!("four bits"));
            *digit = nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
        }
        out.extend_from_slice(&digits);
    }

    /// The key of this number.
    pub(crate) fn key(&self, number: u64) -> String {
        let mut key = Vec::new();
        self.push_key(number, &mut key);
        String::from_utf8_lossy(&key).into_owned()
    }

    /// How many bytes the value of this write has.
    pub(crate) fn value_bytes(&self, number: u64, stamp: Stamp) -> usize {
        self.sizes.of(mix(self.check(number, stamp)))
    }

    /// Appends the value of this write.
    pub(crate) fn push_value(&self, number: u64, stamp: Stamp, out: &mut Vec<u8>) {
        let check = self.check(number, stamp);
        let end = out.len() + self.sizes.of(mix(check));
        for word in [check, stamp.run, stamp.write] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let mut state = check;
        while out.len() < end {
            state = state.wrapping_add(GAMMA);
            out.extend_from_slice(&mix(state).to_le_bytes());
        }
        out.truncate(end);
    }

    /// The write that a value came from; `None` if no write to this key has made these bytes.
    pub(crate) fn stamp_of(&self, number: u64, value: &[u8]) -> Option<Stamp> {
        let word = |at: usize| value.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let stamp = Stamp { run: word(8)?, write: word(16)? };
        self.is_value(number, stamp, value).then_some(stamp)
    }

    /// Whether these are exactly the bytes of this write.
    pub(crate) fn is_value(&self, number: u64, stamp: Stamp, value: &[u8]) -> bool {
        // The length first: a value's length must not decide how much is made to compare it with.
        if value.len() != self.value_bytes(number, stamp) {
            return false;
        }
        let mut expected = Vec::with_capacity(value.len() + STAMP_BYTES + 8);
        self.push_value(number, stamp, &mut expected);
        expected == value
    }

    fn check(&self, number: u64, stamp: Stamp) -> u64 {
        mix(!self.seed ^ mix(number ^ mix(stamp.run ^ mix(stamp.write))))
    }
}

/// SplitMix64's increment, 2^64 over the golden ratio.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function (Steele, Lea and Flood, 2014).
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Keyspace, Stamp};
    use crate::sizes::Sizes;

    const STAMP: Stamp = Stamp { run: 5, write: 9 };

    fn value(keys: &Keyspace, number: u64, stamp: Stamp) -> Vec<u8> {
        let mut value = Vec::new();
        keys.push_value(number, stamp, &mut value);
        value
    }

    #[test]
    fn keys_of_a_seed_are_distinct_and_stand_in_a_url() {
        let keys = Keyspace::new(7, Sizes::Fixed(0));
        let all: HashSet<String> = (0..10_000).map(|n| keys.key(n)).collect();
        assert_eq!(all.len(), 10_000);
        assert!(all.iter().all(|key| key.len() == 31 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')));
    }

    #[test]
    fn keys_of_two_seeds_differ_and_of_one_come_again() {
        let (one, other) = (Keyspace::new(1, Sizes::Fixed(0)), Keyspace::new(2, Sizes::Fixed(0)));
        assert_ne!(one.prefix(), other.prefix());
        assert_ne!(one.key(0), other.key(0));
        assert_eq!(one.key(3), Keyspace::new(1, Sizes::Fixed(9)).key(3));
    }

    #[test]
    fn values_have_the_size_asked_for_and_come_again() {
        for size in [0, 1, 7, 8, 9, 24, 25, 100] {
            let keys = Keyspace::new(42, Sizes::Fixed(size));
            assert_eq!(value(&keys, 3, STAMP).len(), size);
            assert_eq!(keys.value_bytes(3, STAMP), size);
            assert_eq!(value(&keys, 3, STAMP), value(&keys, 3, STAMP));
        }
        let keys = Keyspace::new(42, Sizes::Fixed(100));
        assert_ne!(value(&keys, 3, STAMP), value(&keys, 4, STAMP));
        assert_ne!(value(&keys, 3, STAMP), value(&keys, 3, Stamp { write: 10, ..STAMP }));
    }

    #[test]
    fn values_hold_bytes_that_are_no_text() {
        let keys = Keyspace::new(42, Sizes::Fixed(4096));
        let value = value(&keys, 0, STAMP);
        assert!(value.contains(&0) && value.contains(&0xff));
    }

    #[test]
    fn values_name_their_write_and_any_changed_byte_shows() {
        let keys = Keyspace::new(42, Sizes::Fixed(100));
        let good = value(&keys, 3, STAMP);
        assert_eq!(keys.stamp_of(3, &good), Some(STAMP));
        assert_eq!(keys.stamp_of(4, &good), None, "the value of another key");
        for at in 0..100 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(keys.stamp_of(3, &bad), None, "byte {at}");
        }
        assert_eq!(keys.stamp_of(3, &good[..99]), None);
        assert_eq!(keys.stamp_of(3, &[&good[..], &[0]].concat()), None);
        assert_eq!(keys.stamp_of(3, b""), None);
    }
}
