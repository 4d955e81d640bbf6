//! Which shard owns a key: the price of the hash, by variant and by the length of the key. Every request pays it once at
//! the node where it arrives, and once more at the owner when it was forwarded.

#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ostraca::placement::{HashFunction, Placement};
use ostraca::types::Key;
use ostraca::types::key::KEY_BYTES_CEILING;

/// Shards of the placement; the modulo costs the same for any number.
const SHARDS: u32 = 4;

fn shard_of(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("placement_shard_of");
    for hash in HashFunction::ALL {
        let placement = Placement { hash, shards: SHARDS };
        for key_bytes in [8, 32, 1024] {
            let key = Key::new(vec![b'k'; key_bytes], KEY_BYTES_CEILING).unwrap();
            group.throughput(Throughput::Bytes(key_bytes as u64));
            group.bench_function(BenchmarkId::new(hash.name(), key_bytes), |bencher| {
                bencher.iter(|| placement.shard_of(black_box(&key)));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = placement;
    config = Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1));
    targets = shard_of
}
criterion_main!(placement);
