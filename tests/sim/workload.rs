//! Random batches as leaders, replicas and snapshots make them.

use ostraca::storage::{ApplyRule, Batch, LogEntry, Rewind, Trim};
use ostraca::types::{
    Change, Content, Cursor, Entry, Epoch, History, HistoryRow, Incarnation, Key, Mutation, NodeName, Record, Seq,
    ShardIndex, ShardUid, Space, UnixMs, Version,
};
use rand::RngExt;
use rand::rngs::StdRng;

use super::model::Model;

/// Few keys, so that writes meet each other.
const KEYS: u32 = 60;

/// The writer of a log: who leads, in which opening.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    epoch: Epoch,
    incarnation: u64,
    /// Batches as they come while a snapshot is received come among the others.
    receives: bool,
}

impl Workload {
    pub(crate) fn new() -> Workload {
        Workload { epoch: Epoch::first(NodeName::new("Mumbai/0")), incarnation: 1, receives: true }
    }

    /// Of a copy that serves.
    pub(crate) fn serving() -> Workload {
        Workload { receives: false, ..Workload::new() }
    }

    /// Entries alone, applied at once: what a leader writes from one moment to the next.
    pub(crate) fn entries(&self, dice: &mut StdRng, model: &Model) -> Batch {
        let mut end = model.end;
        let mut append = Vec::new();
        for _ in 0..dice.random_range(1..4) {
            end += 1;
            append.push(self.entry(dice, end));
        }
        Batch { append, apply_to: Some(Seq(end)), ..Batch::default() }
    }

    /// The leader's file was opened again.
    pub(crate) fn reopened(&mut self) {
        self.incarnation += 1;
    }

    /// A batch for a copy that stands where `model` does.
    pub(crate) fn batch(&mut self, dice: &mut StdRng, model: &Model) -> Batch {
        let mut batch = Batch::default();
        let (mut end, mut applied) = (model.end, model.applied);
        if dice.random_bool(0.05) {
            self.incarnation += 1; // what comes behind it is another leader's
            batch.rewind = Some(self.rewind(dice, model));
            return batch;
        }
        if dice.random_bool(0.02) {
            self.epoch.number += 1;
            batch.epoch = Some(self.epoch.clone());
        }
        if self.receives && dice.random_bool(0.02) {
            end += dice.random_range(1..10);
            applied = end;
            batch.adopt = Some(self.history_up_to(end));
            batch.install = (0..dice.random_range(0..20)).map(|_| record(dice, end)).collect();
        }
        for _ in 0..entry_count(dice) {
            end += 1;
            batch.append.push(self.entry(dice, end));
        }
        batch.apply_to = match dice.random_range(0..10) {
            0 => None,
            1 => Some(Seq(dice.random_range(applied..=end))),
            _ => Some(Seq(end)),
        };
        if self.receives && dice.random_bool(0.1) {
            batch.apply_rule = ApplyRule::IfNewer;
        }
        if dice.random_bool(0.3) {
            batch.cursors.push((NodeName::new(format!("Mumbai/{}", dice.random_range(1..3))), self.cursor(dice, end)));
        }
        if dice.random_bool(0.3) {
            let up_to = Seq(dice.random_range(0..=end));
            let keep_bytes = if dice.random_bool(0.5) { 0 } else { dice.random_range(0..50_000) };
            batch.trim = Some(Trim { up_to, keep_bytes, entries_max: dice.random_range(0..20) });
        }
        if dice.random_bool(0.02) {
            batch.shard_uid = Some(ShardUid(dice.random()));
        }
        batch
    }

    /// Back to somewhere in what is applied.
    fn rewind(&self, dice: &mut StdRng, model: &Model) -> Rewind {
        let to = dice.random_range(model.applied.saturating_sub(20)..=model.applied);
        let replace = (0..dice.random_range(0..15)).map(|_| {
            let (space, key, record) = record(dice, to);
            (space, key, dice.random_bool(0.7).then_some(record))
        });
        Rewind { to: Seq(to), replace: replace.collect(), settles_at: self.cursor(dice, to) }
    }

    fn entry(&self, dice: &mut StdRng, seq: u64) -> LogEntry {
        let count = if dice.random_bool(0.9) { 1 } else { dice.random_range(0..5) };
        let entry = Entry {
            shard: ShardIndex(2),
            epoch: self.epoch.clone(),
            incarnation: Incarnation(self.incarnation),
            seq: Seq(seq),
            time: UnixMs(seq),
            mutations: (0..count).map(|_| mutation(dice)).collect(),
        };
        LogEntry { bytes: entry.encode(), entry }
    }

    fn history_up_to(&self, end: u64) -> History {
        let row = HistoryRow { epoch: self.epoch.clone(), incarnation: Incarnation(self.incarnation), first: Seq(1) };
        History::new(vec![row], Seq(end)).unwrap()
    }

    fn cursor(&self, dice: &mut StdRng, end: u64) -> Option<Cursor> {
        let incarnation = Incarnation(self.incarnation);
        let seq = Seq(dice.random_range(0..=end));
        dice.random_bool(0.9).then(|| Cursor { epoch: self.epoch.clone(), incarnation, seq })
    }
}

/// Mostly few, now and then many.
fn entry_count(dice: &mut StdRng) -> u64 {
    match dice.random_range(0..20) {
        0 => 0,
        1 => dice.random_range(20..60),
        _ => dice.random_range(1..5),
    }
}

fn key(dice: &mut StdRng) -> Key {
    Key::new(format!("key {}", dice.random_range(0..KEYS)).into_bytes(), 100).unwrap()
}

/// Mostly small, now and then over several pages.
fn content(dice: &mut StdRng) -> Content {
    let length = match dice.random_range(0..30) {
        0 => dice.random_range(0..40_000),
        1..=5 => dice.random_range(0..3000),
        _ => dice.random_range(0..100),
    };
    Content::of(vec![dice.random::<u8>(); length])
}

fn mutation(dice: &mut StdRng) -> Mutation {
    let key = key(dice);
    let change = if dice.random_bool(0.2) { Change::Delete } else { Change::Put(content(dice)) };
    Mutation { space: Space::Data, key, change }
}

/// A record of a snapshot.
fn record(dice: &mut StdRng, end: u64) -> (Space, Key, bytes::Bytes) {
    let seq = Seq(dice.random_range(1..end + 5));
    let version = Version::Log { epoch: 1, seq, incarnation: Incarnation(9) };
    (Space::Data, key(dice), Record { version, content: content(dice) }.encode())
}
