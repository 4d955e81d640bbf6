//! Group commit as a node does it: writers wait for durable answers from one writer thread on a redb file, with the
//! upkeep of a shard without replicas. With one writer this is the latency of a durable write, with more it is what one
//! fsync shared among them is worth. An iteration is one write.
//!
//! On a memory file system the figures say little, for a commit is mostly its fsync.

#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ostraca::clock::Clock;
use ostraca::config::Settings;
use ostraca::metrics::{Labels, Metrics};
use ostraca::replication::pair::{Leader, upkeep_source};
use ostraca::storage::open::Options as FileOptions;
use ostraca::storage::redb::RedbEngine;
use ostraca::storage::writer::{Facts, Handle, Mandate, Mode, Options, Writer, spawn};
use ostraca::storage::{Engine, Identity};
use ostraca::types::{Change, Content, Epoch, Incarnation, Key, Mutation, NodeName, ShardIndex, Space};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// Keys that are written over and over.
const KEYS: u64 = 100_000;
/// Bytes of each value.
const VALUE_BYTES: usize = 100;
/// No write of a benchmark waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A shard's writer at work, and the directory of its file.
struct Shard {
    handle: Handle,
    thread: JoinHandle<()>,
    clock: Clock,
    _dir: TempDir,
}

fn lead(runtime: &Runtime) -> Shard {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(); // on a disk, unlike many /tmp
    let identity =
        Identity { shard_name: "A".to_owned(), shard: ShardIndex(0), shard_count: 1, hash: "fnv1a".to_owned() };
    let settings = Arc::new(Settings::default());
    let file = FileOptions { cache_bytes: settings.cache_bytes };
    let engine = Arc::new(RedbEngine::open(&dir.path().join("a.redb"), &identity, file).unwrap());
    let (state, clock) = (engine.state().unwrap(), Clock::real());
    let options = Options {
        shard: ShardIndex(0),
        min_free_bytes: settings.min_free_bytes,
        metrics: Arc::new(Metrics::new(&Labels::default())),
    };
    let replicas = Arc::new(Mutex::new(Leader::new([], &[])));
    let upkeep = Box::new(upkeep_source(replicas, settings, clock.clone()));
    let (handle, thread) = spawn(Writer::new(engine, &state, clock.clone(), options, upkeep)).unwrap();
    let mandate = Mandate::new(clock.now() + Duration::from_secs(24 * 3600)); // nobody renews it here
    let mode = Mode::Leading { epoch: Epoch::first(NodeName::new("A/0")), incarnation: Incarnation(1), mandate };
    runtime.block_on(handle.set_mode(mode, Facts::default())).unwrap();
    Shard { handle, thread, clock, _dir: dir }
}

/// The puts of one writer, one after the other, each durable before the next.
async fn write(handle: Handle, clock: Clock, writer: u64, count: u64) {
    for number in 0..count {
        let spread = (writer << 32 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS;
        let key = Key::new(format!("key:{spread:016x}").into_bytes(), 100).unwrap();
        let change = Change::Put(Content::of(vec![7; VALUE_BYTES]));
        let mutation = Mutation { space: Space::Data, key, change };
        handle.write(mutation, clock.now() + PATIENCE).await.unwrap();
    }
}

/// How long `writers` take for `count` writes in all.
async fn time(shard: &Shard, writers: u64, count: u64) -> Duration {
    let began = shard.clock.now();
    let share = |writer| count / writers + u64::from(writer < count % writers);
    let tasks: Vec<_> = (0..writers)
        .map(|writer| tokio::spawn(write(shard.handle.clone(), shard.clock.clone(), writer, share(writer))))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    shard.clock.now().saturating_duration_since(began)
}

fn group_commit(criterion: &mut Criterion) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut group = criterion.benchmark_group("group_commit");
    group.throughput(Throughput::Elements(1));
    for writers in [1, 32, 128] {
        let shard = lead(&runtime);
        group.bench_function(format!("{writers}_writers"), |bencher| {
            bencher.iter_custom(|count| runtime.block_on(time(&shard, writers, count)));
        });
        shard.handle.close();
        shard.thread.join().unwrap();
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = group_commit
}
criterion_main!(benches);
