//! Tests of the log as a whole, on directories in memory and on real ones.

mod memory;
mod disk;
mod damage;
mod faults;
mod power;
mod serving;

use std::sync::Arc;

use bytes::Bytes;

use self::memory::MemoryDirectory;
use super::{Log, LogId, Options, Recovered};
use crate::storage::open::OpenFault;
use crate::storage::{Entries, LogEntry};
use crate::types::{
    Change, Content, Entry, Epoch, Incarnation, Key, Mutation, NodeName, Seq, ShardIndex, Space, UnixMs,
};

const ID: LogId = LogId(0x1111_2222_3333_4444);
const SHARD: ShardIndex = ShardIndex(3);

/// Segments of a few frames.
const SMALL: Options = Options { segment_bytes: 2000, recent_bytes: 500 };

/// An entry with a value of so many bytes.
fn entry(seq: u64, value_bytes: usize) -> LogEntry {
    let key = Key::new(format!("key-{seq}").into_bytes(), 100).unwrap();
    let value = vec![u8::try_from(seq % 251).unwrap(); value_bytes];
    let entry = Entry {
        shard: SHARD,
        epoch: Epoch::first(NodeName::new("A/0")),
        incarnation: Incarnation(7),
        seq: Seq(seq),
        time: UnixMs(1000),
        mutations: vec![Mutation { space: Space::Data, key, change: Change::Put(Content::of(value)) }],
    };
    let bytes = entry.encode();
    LogEntry { entry, bytes }
}

fn bytes_of(seqs: std::ops::RangeInclusive<u64>, value_bytes: usize) -> Vec<Bytes> {
    seqs.map(|seq| entry(seq, value_bytes).bytes).collect()
}

fn create(directory: &MemoryDirectory, after: u64, options: Options) -> Log {
    Log::create(Arc::new(directory.clone()), ID, SHARD, Seq(after), options).unwrap()
}

fn open(directory: &MemoryDirectory, applied: u64, options: Options) -> Result<(Log, Recovered), OpenFault> {
    Log::open(Arc::new(directory.clone()), ID, SHARD, Seq(applied), options)
}

/// Appends entries of 100-byte values, each in a frame of its own, and applies them.
fn append_each(log: &Log, seqs: std::ops::RangeInclusive<u64>) {
    for seq in seqs {
        log.append(&[entry(seq, 100)], Seq(seq)).unwrap();
    }
}

/// All entries after `after`, read in pieces of `bytes_max`.
fn read_all(log: &Log, after: u64, bytes_max: usize) -> Vec<Bytes> {
    let (mut all, mut last) = (Vec::new(), after);
    loop {
        match log.read(Seq(last), bytes_max).unwrap() {
            Entries::Found(found) if found.is_empty() => return all,
            Entries::Found(found) => {
                last += found.len() as u64;
                all.extend(found);
            }
            Entries::Trimmed => panic!("trimmed after {last}"),
        }
    }
}

/// The words of a refusal as damaged.
fn damage(opened: Result<(Log, Recovered), OpenFault>) -> String {
    match opened {
        Err(OpenFault::Damaged(words)) => words,
        Err(other) => panic!("refused otherwise: {other}"),
        Ok((log, recovered)) => {
            panic!("opened, {} to {}, with {} entries to apply", log.start(), log.end(), recovered.entries.len())
        }
    }
}
