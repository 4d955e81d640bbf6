//! The serving engine by itself: point reads, and commits of batches that append and apply. What a commit costs is mostly
//! its fsync; with `OSTRACA_BENCH_DIR` on a memory file system it is what the processor costs alone.

#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ostraca::storage::open::Options;
use ostraca::storage::redb::RedbEngine;
use ostraca::storage::{Batch, Engine, Identity, LogEntry, Trim};
use ostraca::types::{
    Change, Content, Entry, Epoch, Incarnation, Key, Mutation, NodeName, Seq, ShardIndex, Space, UnixMs,
};
use tempfile::TempDir;

/// Keys in the file that is read from.
const KEYS: u64 = 100_000;

fn open() -> (TempDir, RedbEngine) {
    let dir = std::env::var("OSTRACA_BENCH_DIR").unwrap_or(env!("CARGO_TARGET_TMPDIR").to_owned()); // /tmp may be memory
    let dir = tempfile::tempdir_in(dir).unwrap();
    let identity =
        Identity { shard_name: "A".to_owned(), shard: ShardIndex(0), shard_count: 1, hash: "fnv1a".to_owned() };
    let engine = RedbEngine::open(&dir.path().join("a.redb"), &identity, Options { cache_bytes: 64 << 20 }).unwrap();
    (dir, engine)
}

fn key(number: u64) -> Key {
    Key::new(format!("key:{number:016x}").into_bytes(), 100).unwrap()
}

/// `count` puts of 100 bytes after `end`, over the whole range of keys, applied at once; the log is kept short.
fn batch(end: Seq, count: u64) -> Batch {
    let entry = |seq: u64| {
        let key = key(seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS);
        let entry = Entry {
            shard: ShardIndex(0),
            epoch: Epoch::first(NodeName::new("A/0")),
            incarnation: Incarnation(1),
            seq: Seq(seq),
            time: UnixMs(seq),
            mutations: vec![Mutation { space: Space::Data, key, change: Change::Put(Content::of(vec![7; 100])) }],
        };
        LogEntry { bytes: entry.encode(), entry }
    };
    let end_after = Seq(end.0 + count);
    Batch {
        append: (end.0 + 1..=end_after.0).map(entry).collect(),
        apply_to: Some(end_after),
        trim: Some(Trim { up_to: end, keep_bytes: 1 << 20, entries_max: 1000 }),
        ..Batch::default()
    }
}

fn reads(criterion: &mut Criterion) {
    let (_dir, engine) = open();
    let mut end = Seq::ZERO;
    while end.0 < KEYS {
        engine.commit(&batch(end, 5000)).unwrap();
        end = Seq(end.0 + 5000);
    }
    let mut group = criterion.benchmark_group("engine_get");
    group.throughput(Throughput::Elements(1));
    let mut number = 0_u64;
    group.bench_function("hit", |bencher| {
        bencher.iter(|| {
            number = number % KEYS + 1;
            let key = key(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS);
            black_box(engine.get(Space::Data, &key)).unwrap().unwrap()
        });
    });
    group.bench_function("miss", |bencher| {
        bencher.iter(|| {
            number += 1;
            assert_eq!(black_box(engine.get(Space::Data, &key(KEYS + number))).unwrap(), None);
        });
    });
    group.finish();
}

fn commits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine_commit");
    for count in [1, 32, 128] {
        let (_dir, engine) = open();
        let mut end = Seq::ZERO;
        group.throughput(Throughput::Elements(count));
        group.bench_function(count.to_string(), |bencher| {
            let next = || {
                let batch = batch(end, count);
                end = Seq(end.0 + count);
                batch
            };
            bencher.iter_batched(next, |batch| engine.commit(&batch).unwrap(), BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group! {
    name = engine;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = reads, commits
}
criterion_main!(engine);
