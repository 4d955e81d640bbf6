//! What the writer promises, item by item: on an engine that fails, blocks and fills up when the test says so.

mod deciding;
mod failing;
mod fencing;
mod queueing;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::{Facts, Item, Mandate, Mode, Options, Refusal, Upkeep, UpkeepSource, Writer, Written};
use crate::clock::Clock;
use crate::metrics::{Labels, Metrics};
use crate::storage::memory::{MemoryDisk, MemoryEngine};
use crate::storage::{Engine, Entries, LogEntry};
use crate::types::key::KEY_BYTES_CEILING;
use crate::types::{
    Change, Content, Entry, Epoch, Incarnation, Key, Mutation, NodeName, Seq, ShardIndex, Space, UnixMs, Version,
};

/// The shard that all of these tests write.
const SHARD: ShardIndex = ShardIndex(3);
/// Below so many free bytes puts are refused.
const MIN_FREE: u64 = 1000;

/// Counters that nobody reads.
fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(&Labels::default()))
}

/// What the reply of an item will hold.
type Reply<T> = oneshot::Receiver<Result<T, Refusal>>;

/// A writer without its thread, so that a test decides what makes up a batch.
struct Bench {
    engine: Arc<MemoryEngine>,
    writer: Writer,
    clock: Clock,
}

impl Bench {
    /// Not leading yet.
    fn closed() -> Bench {
        Bench::on(&MemoryDisk::default())
    }

    fn on(disk: &MemoryDisk) -> Bench {
        let (engine, clock) = (Arc::new(MemoryEngine::on(disk)), Clock::manual());
        let writer = writer(&engine, &clock, Box::new(|_, _| Upkeep::default()));
        Bench { engine, writer, clock }
    }

    fn leading() -> Bench {
        let mut bench = Bench::closed();
        bench.set_mode(leading());
        bench
    }

    fn following() -> Bench {
        let mut bench = Bench::closed();
        bench.set_mode(Mode::Following);
        bench
    }

    fn set_mode(&mut self, mode: Mode) {
        let (item, reply) = set_mode(mode);
        self.writer.run_once([item]);
        assert_eq!(answer(reply), Ok(()));
    }

    /// A write that has a minute.
    fn write(&self, mutation: Mutation) -> (Item, Reply<Written>) {
        self.write_within(mutation, Duration::from_secs(60))
    }

    fn write_within(&self, mutation: Mutation, left: Duration) -> (Item, Reply<Written>) {
        let (reply, answer) = oneshot::channel();
        (Item::Write { mutation, deadline: self.clock.now() + left, reply }, answer)
    }

    /// Runs writes as one batch, and returns their answers in order.
    fn run(&mut self, mutations: impl IntoIterator<Item = Mutation>) -> Vec<Result<Written, Refusal>> {
        let (items, replies): (Vec<_>, Vec<_>) = mutations.into_iter().map(|mutation| self.write(mutation)).unzip();
        self.writer.run_once(items);
        replies.into_iter().map(answer).collect()
    }

    fn run_append(&mut self, entries: Vec<LogEntry>) -> Result<Seq, Refusal> {
        let (reply, answered) = oneshot::channel();
        self.writer.run_once([Item::Append { entries, reply }]);
        answer(answered)
    }

    fn value(&self, name: &str) -> Option<String> {
        value(&*self.engine, name)
    }

    /// The entries of the log, decoded.
    fn log(&self) -> Vec<Entry> {
        log(&*self.engine)
    }
}

fn writer(engine: &Arc<MemoryEngine>, clock: &Clock, upkeep: UpkeepSource) -> Writer {
    let options = Options { shard: SHARD, min_free_bytes: MIN_FREE, metrics: metrics() };
    let engine: Arc<dyn Engine> = Arc::clone(engine) as Arc<dyn Engine>;
    let state = engine.state().unwrap();
    Writer::new(engine, &state, clock.clone(), options, upkeep)
}

/// The answer, which must be there by now.
fn answer<T>(mut reply: Reply<T>) -> Result<T, Refusal> {
    reply.try_recv().expect("no answer yet")
}

fn is_unanswered<T: std::fmt::Debug>(reply: &mut Reply<T>) -> bool {
    matches!(reply.try_recv(), Err(TryRecvError::Empty))
}

fn set_mode(mode: Mode) -> (Item, Reply<()>) {
    let (reply, answer) = oneshot::channel();
    (Item::SetMode { mode, facts: Facts::default(), reply }, answer)
}

fn epoch() -> Epoch {
    Epoch::first(NodeName::new("A/0"))
}

/// A leave that is not stale before tomorrow.
fn lasting() -> Mandate {
    Mandate::new(Clock::real().now() + Duration::from_secs(24 * 3600))
}

fn leading() -> Mode {
    Mode::Leading { epoch: epoch(), incarnation: Incarnation(7), mandate: lasting() }
}

fn key(name: &str) -> Key {
    Key::new(name.as_bytes().to_vec(), KEY_BYTES_CEILING).unwrap()
}

fn put(name: &str, value: impl Into<bytes::Bytes>) -> Mutation {
    Mutation { space: Space::Data, key: key(name), change: Change::Put(Content::of(value)) }
}

fn delete(name: &str) -> Mutation {
    Mutation { space: Space::Data, key: key(name), change: Change::Delete }
}

/// A durable write at this position.
fn written(seq: u64, existed: bool) -> Written {
    let version = Version::Log { epoch: 1, seq: Seq(seq), incarnation: Incarnation(7) };
    Written { version: Some(version), existed }
}

/// An entry of another leader, as a replica gets it.
fn entry(seq: u64, mutation: Mutation) -> LogEntry {
    let entry = Entry {
        shard: SHARD,
        epoch: epoch(),
        incarnation: Incarnation(7),
        seq: Seq(seq),
        time: UnixMs(1),
        mutations: vec![mutation],
    };
    LogEntry { bytes: entry.encode(), entry }
}

fn value(engine: &dyn Engine, name: &str) -> Option<String> {
    let record = engine.get(Space::Data, &key(name)).unwrap()?;
    Some(String::from_utf8_lossy(&record.content.value).into_owned())
}

fn log(engine: &dyn Engine) -> Vec<Entry> {
    let Entries::Found(entries) = engine.entries(Seq::ZERO, usize::MAX).unwrap() else { panic!("trimmed") };
    entries.into_iter().map(|bytes| Entry::decode(bytes).unwrap()).collect()
}
