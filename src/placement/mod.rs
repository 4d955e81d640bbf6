//! Which shard owns a key: `hash(key) mod number_of_shards`. Pure.
//!
//! The hash is 64-bit FNV-1a; `hash = "fnv1"` selects FNV-1 (multiply, then xor), the variant behind Go's `fnv.New64`,
//! so that a layout made there stays valid. With `M = N × K` slots and `owner = slot mod N`, `(hash mod M) mod N` equals
//! `hash mod N`: slots can come later without moving a key.
//!
//! Both hashes are fast and neither resists an adversary: they place keys, and never guard a map in memory.
//!
//! Modulo a power of two sees only the low bits of each byte, so some families of keys land on few shards. That is the
//! price of a layout that other programs can compute with two lines.

use std::fmt;
use std::hash::Hasher;

use crate::types::{Key, ShardIndex};

/// The hash that places keys. Nodes that disagree about it refuse each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HashFunction {
    /// Xor, then multiply.
    #[default]
    Fnv1a,
    /// Multiply, then xor.
    Fnv1,
}

/// The start value of both variants.
const FNV_OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
/// The factor of both variants.
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

impl HashFunction {
    /// Every variant, for parsing and for messages.
    pub const ALL: [HashFunction; 2] = [HashFunction::Fnv1a, HashFunction::Fnv1];

    /// The 64-bit hash of exactly these bytes.
    #[must_use]
    pub fn hash(self, bytes: &[u8]) -> u64 {
        match self {
            HashFunction::Fnv1a => {
                let mut hasher = fnv::FnvHasher::default();
                hasher.write(bytes); // not `Hash for [u8]`, which would add a length
                hasher.finish()
            }
            HashFunction::Fnv1 => {
                bytes.iter().fold(FNV_OFFSET_BASIS, |hash, byte| hash.wrapping_mul(FNV_PRIME) ^ u64::from(*byte))
            }
        }
    }

    /// Its name in `sharding.toml`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            HashFunction::Fnv1a => "fnv1a",
            HashFunction::Fnv1 => "fnv1",
        }
    }
}

impl fmt::Display for HashFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The rule that gives every key its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The hash of a key's bytes.
    pub hash: HashFunction,
    /// How many shards there are; at least one.
    pub shards: u32,
}

impl Placement {
    /// The shard that owns `key`.
    #[must_use]
    pub fn shard_of(&self, key: &Key) -> ShardIndex {
        assert!(self.shards > 0, "a placement has at least one shard");
        let owner = self.hash.hash(key.as_bytes()) % u64::from(self.shards);
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of a u32")]
        let index = owner as u32;
        ShardIndex(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::key::KEY_BYTES_CEILING;
    use proptest::prelude::*;

    /// From the test vectors of the FNV reference implementation (Noll), 64 bits.
    const VECTORS: &[(&str, u64, u64)] = &[
        ("", 0xcbf2_9ce4_8422_2325, 0xcbf2_9ce4_8422_2325),
        ("a", 0xaf63_bd4c_8601_b7be, 0xaf63_dc4c_8601_ec8c),
        ("b", 0xaf63_bd4c_8601_b7bd, 0xaf63_df4c_8601_f1a5),
        ("fo", 0x0832_6207_b4eb_2f34, 0x0898_5907_b541_d342),
        ("foo", 0xd8cb_c718_6ba1_3533, 0xdcb2_7518_fed9_d577),
        ("foobar", 0x340d_8765_a4dd_a9c2, 0x8594_4171_f739_67e8),
    ];

    #[test]
    fn hash_published_vectors_of_both_variants_match() {
        for (text, fnv1, fnv1a) in VECTORS {
            assert_eq!(HashFunction::Fnv1.hash(text.as_bytes()), *fnv1, "FNV-1 of {text:?}");
            assert_eq!(HashFunction::Fnv1a.hash(text.as_bytes()), *fnv1a, "FNV-1a of {text:?}");
        }
    }

    proptest! {
        #[test]
        fn shard_of_is_in_range_and_slots_would_not_move_a_key(key in proptest::collection::vec(any::<u8>(), 1..64), n in 1_u32..64, k in 1_u32..64) {
            let key = Key::new(key, KEY_BYTES_CEILING).unwrap();
            for hash in HashFunction::ALL {
                let owner = Placement { hash, shards: n }.shard_of(&key);
                let slot = Placement { hash, shards: n * k }.shard_of(&key);
                prop_assert!(owner.0 < n);
                prop_assert_eq!(slot.0 % n, owner.0);
            }
        }
    }
}
