//! What a copy must hold, worked out from the batches alone, in the plainest way: everything is kept in maps, nothing is
//! shared with the engines.

use std::collections::BTreeMap;

use bytes::Bytes;
use ostraca::storage::{ApplyRule, Batch, Engine, Entries, Trim};
use ostraca::types::{Change, Cursor, Entry, Epoch, Key, NodeName, Record, Seq, ShardUid, Space};

/// How exactly an engine remembers what may be lost without harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// All of it.
    Exact,
    /// Cursors may be older than they were, and the log may reach further back.
    Loose,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    data: BTreeMap<Key, Bytes>,
    /// Every entry since the log began, those that were trimmed included.
    log: BTreeMap<u64, Bytes>,
    /// Every cursor that was ever acknowledged.
    cursors_ever: Vec<(NodeName, Option<Cursor>)>,
    pub(crate) end: u64,
    pub(crate) applied: u64,
    pub(crate) log_start: u64,
    /// Where the log would begin if as much as may go had always gone at once.
    trimmable: u64,
    rows: Vec<(Epoch, u64, u64)>,
    cursors: BTreeMap<NodeName, Option<Cursor>>,
    epoch: Option<Epoch>,
    shard_uid: Option<ShardUid>,
    settles_at: Option<Cursor>,
}

impl Model {
    /// The model after a batch.
    pub(crate) fn after(&self, batch: &Batch) -> Model {
        let mut next = self.clone();
        for (_, key, record) in &batch.install {
            next.data.insert(key.clone(), record.clone());
        }
        if let Some(adopted) = &batch.adopt {
            next.log.clear();
            let rows = adopted.rows().iter();
            next.rows = rows.map(|row| (row.epoch.clone(), row.incarnation.0, row.first.0)).collect();
            (next.end, next.applied, next.log_start) = (adopted.end().0, adopted.end().0, adopted.end().0);
            next.trimmable = next.end;
        }
        if let Some(rewind) = &batch.rewind {
            for (_, key, record) in &rewind.replace {
                match record {
                    Some(record) => drop(next.data.insert(key.clone(), record.clone())),
                    None => drop(next.data.remove(key)),
                }
            }
            next.log.clear();
            let to = rewind.to.0;
            next.rows.retain(|(_, _, first)| *first <= to);
            (next.end, next.applied, next.log_start, next.trimmable) = (to, to, to, to);
            next.settles_at.clone_from(&rewind.settles_at);
        }
        for appended in &batch.append {
            let entry = &appended.entry;
            next.log.insert(entry.seq.0, appended.bytes.clone());
            next.end = entry.seq.0;
            if next
                .rows
                .last()
                .is_none_or(|(epoch, incarnation, _)| (epoch, *incarnation) != (&entry.epoch, entry.incarnation.0))
            {
                next.rows.push((entry.epoch.clone(), entry.incarnation.0, entry.seq.0));
            }
        }
        while batch.apply_to.is_some_and(|to| next.applied < to.0) {
            next.applied += 1;
            let entry = Entry::decode(next.log[&next.applied].clone()).unwrap();
            next.apply(&entry, batch.apply_rule);
        }
        next.cursors.extend(batch.cursors.iter().cloned());
        next.cursors_ever.extend(batch.cursors.iter().cloned());
        if let Some(trim) = &batch.trim {
            next.trim(trim);
        }
        next.epoch = batch.epoch.clone().or(next.epoch);
        next.shard_uid = batch.shard_uid.or(next.shard_uid);
        next
    }

    fn apply(&mut self, entry: &Entry, rule: ApplyRule) {
        for mutation in &entry.mutations {
            let present = self.data.get(&mutation.key).map(|bytes| Record::decode(bytes.clone()).unwrap());
            if rule == ApplyRule::IfNewer && present.is_some_and(|record| record.version.seq() >= entry.seq) {
                continue;
            }
            match &mutation.change {
                Change::Put(content) => self.data.insert(mutation.key.clone(), entry.record(content).encode()),
                Change::Delete => self.data.remove(&mutation.key),
            };
        }
    }

    fn trim(&mut self, trim: &Trim) {
        let bytes_after = |start: u64| self.log.range(start + 1..).map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        while self.trimmable < trim.up_to.0.min(self.applied) && bytes_after(self.trimmable) > trim.keep_bytes {
            self.trimmable += 1;
        }
        for _ in 0..trim.entries_max {
            let bytes: u64 = self.log_bytes();
            if self.log_start >= trim.up_to.0.min(self.applied) || bytes <= trim.keep_bytes {
                return;
            }
            self.log_start += 1;
        }
    }

    /// The log as it can be read from an entry on.
    fn log_after(&self, start: u64) -> Vec<Bytes> {
        self.log.range(start + 1..).map(|(_, bytes)| bytes.clone()).collect()
    }

    fn log_bytes(&self) -> u64 {
        self.log_after(self.log_start).iter().map(|bytes| bytes.len() as u64).sum()
    }

    /// The model of a copy of which only the facts of a batch are there.
    pub(crate) fn with_facts(&self, batch: &Batch) -> Model {
        let Batch { shard_uid, .. } = *batch;
        self.after(&Batch { shard_uid, epoch: batch.epoch.clone(), ..Batch::default() })
    }

    /// Whether the engine holds this. Says what it does not.
    pub(crate) fn check(&self, engine: &dyn Engine, memory: Memory) -> Result<(), String> {
        let state = engine.state().map_err(|error| format!("no state: {error}"))?;
        same("end", state.history.end().0, self.end)?;
        same("applied", state.applied.0, self.applied)?;
        let rows = state.history.rows().iter();
        let rows: Vec<_> = rows.map(|row| (row.epoch.clone(), row.incarnation.0, row.first.0)).collect();
        same("history", &rows, &self.rows)?;
        same("epoch", &state.epoch, &self.epoch)?;
        same("settles_at", &state.settles_at, &self.settles_at)?;
        same("shard uid", &state.shard_uid, &self.shard_uid)?;
        match memory {
            Memory::Exact => {
                same("log_start", state.log_start.0, self.log_start)?;
                same("log_bytes", state.log_bytes, self.log_bytes())?;
                same("cursors", state.cursors.into_iter().collect(), self.cursors.clone())?;
            }
            Memory::Loose => {
                if state.log_start.0 > self.trimmable {
                    return Err(format!("the log begins after {}, not {}", state.log_start, self.trimmable));
                }
                if let Some(strange) = state.cursors.iter().find(|cursor| !self.cursors_ever.contains(cursor)) {
                    return Err(format!("nobody ever acknowledged {strange:?}"));
                }
            }
        }
        let log = engine.entries(state.log_start, usize::MAX).map_err(|error| format!("no log: {error}"))?;
        same("log", log, Entries::Found(self.log_after(state.log_start.0)))?;
        let chunk = engine.chunk(Space::Data, None, usize::MAX).map_err(|error| format!("no data: {error}"))?;
        same("data", chunk.records.into_iter().collect(), self.data.clone())?;
        same("chunk position", chunk.at, Seq(self.applied))?;
        same("keys", engine.stats().map_err(|error| error.to_string())?.keys, self.data.len() as u64)?;
        for (key, record) in &self.data {
            let found = engine.get(Space::Data, key).map_err(|error| format!("{key:?} cannot be read: {error}"))?;
            same("a record", found.map(|record| record.encode()).as_ref(), Some(record))?;
        }
        Ok(())
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    let short = |value: &T| format!("{value:?}").chars().take(300).collect::<String>();
    if found == expected { Ok(()) } else { Err(format!("{what} is {}, not {}", short(&found), short(&expected))) }
}
