//! Which shard owns a key, computed here a second time, from the published definition of FNV, so that a test does not
//! trust the placement that it tests.

/// 64-bit FNV-1a: xor, then multiply.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// 64-bit FNV-1: multiply, then xor.
pub fn fnv1(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(*byte))
}

/// The shard of `key` among `shards`, by FNV-1a.
pub fn shard_of(key: &[u8], shards: usize) -> usize {
    usize::try_from(fnv1a(key) % shards as u64).unwrap()
}

/// A key that starts with `stem` and belongs to `shard`.
pub fn key_in(shard: usize, shards: usize, stem: &str) -> String {
    (0..).map(|n| format!("{stem}-{n}")).find(|key| shard_of(key.as_bytes(), shards) == shard).unwrap()
}

/// A key that starts with the bytes of `stem`, holds bytes that are not UTF-8, and belongs to `shard`.
pub fn binary_key_in(shard: usize, shards: usize, stem: &[u8]) -> Vec<u8> {
    (0..=u16::MAX)
        .map(|n| [stem, b"\x00\xff/%2F+ ", &n.to_be_bytes()].concat())
        .find(|key| shard_of(key, shards) == shard)
        .unwrap()
}
