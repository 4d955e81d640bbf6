//! What an append to the log costs, by how many writes share it, on segments that were filled with zeros ahead and on
//! ones that were not; and how long a full log takes to open. An iteration of an append is one frame.
//!
//! On a memory file system the figures say little, for an append is mostly its fdatasync.

#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ostraca::clock::Clock;
use ostraca::storage::LogEntry;
use ostraca::storage::log::{FileDirectory, Log, LogId, Options};
use ostraca::types::{
    Change, Content, Entry, Epoch, Incarnation, Key, Mutation, NodeName, Seq, ShardIndex, Space, UnixMs,
};
use tempfile::TempDir;

const ID: LogId = LogId(1);
const SHARD: ShardIndex = ShardIndex(0);
/// Bytes of each value.
const VALUE_BYTES: usize = 100;
/// Bytes of the log that is opened.
const FULL_BYTES: u64 = 256 << 20;

fn entry(seq: u64) -> LogEntry {
    let key = Key::new(format!("key:{seq:016x}").into_bytes(), 100).unwrap();
    let change = Change::Put(Content::of(Bytes::from_static(&[7; VALUE_BYTES])));
    let entry = Entry {
        shard: SHARD,
        epoch: Epoch::first(NodeName::new("A/0")),
        incarnation: Incarnation(1),
        seq: Seq(seq),
        time: UnixMs(1),
        mutations: vec![Mutation { space: Space::Data, key, change }],
    };
    let bytes = entry.encode();
    LogEntry { entry, bytes }
}

fn entries(after: Seq, count: u64) -> Vec<LogEntry> {
    (after.0 + 1..=after.0 + count).map(entry).collect()
}

fn directory(path: &Path) -> Arc<FileDirectory> {
    Arc::new(FileDirectory::create(path).unwrap())
}

/// On a disk, unlike many /tmp.
fn temporary() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// How long `frames` appends take, the making of entries and what happens off the path of commits not counted.
fn time(log: &Log, clock: &Clock, frames: u64, batch: u64, prepared: bool) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..frames {
        let entries = entries(log.end(), batch);
        if prepared {
            log.prepare().unwrap();
        }
        let began = clock.now();
        log.append(&entries, Seq(log.end().0 + batch)).unwrap();
        took += clock.now().saturating_duration_since(began);
        log.drop_through(log.end(), 0).unwrap();
    }
    took
}

fn append(criterion: &mut Criterion) {
    let clock = Clock::real();
    let mut group = criterion.benchmark_group("log_append");
    for batch in [1, 32, 128] {
        group.throughput(Throughput::Elements(batch));
        for (prepared, name) in [(false, "plain"), (true, "prepared")] {
            let dir = temporary();
            let log = Log::create(directory(dir.path()), ID, SHARD, Seq::ZERO, Options::default()).unwrap();
            while prepared && log.file_bytes().unwrap() < 16 << 20 {
                time(&log, &clock, 100, 128, true);
            }
            group.bench_function(format!("{batch}_{name}"), |bencher| {
                bencher.iter_custom(|frames| time(&log, &clock, frames, batch, prepared));
            });
        }
    }
    group.finish();
}

fn open(criterion: &mut Criterion) {
    let dir = temporary();
    let log = Log::create(directory(dir.path()), ID, SHARD, Seq::ZERO, Options::default()).unwrap();
    while log.bytes() < FULL_BYTES {
        log.prepare().unwrap();
        log.append(&entries(log.end(), 2048), log.end()).unwrap();
    }
    drop(log);
    let mut group = criterion.benchmark_group("log_open");
    group.throughput(Throughput::Bytes(FULL_BYTES));
    group.bench_function("256_MiB", |bencher| {
        bencher.iter_batched(
            || directory(dir.path()),
            |directory| Log::open(directory, ID, SHARD, Seq::ZERO, Options::default()).unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = append, open
}
criterion_main!(benches);
