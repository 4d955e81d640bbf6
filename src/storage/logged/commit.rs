//! A commit: facts to the file, entries to the log, and then what they say into the overlay, where readers find it.
//!
//! What is durable and what is visible never differ for long, and always in that order: the log's fdatasync returns, then
//! the overlay takes the entries one after the other, each as a whole. Until a file has its log, a batch is a redb
//! transaction.

use super::extent::Extent;
use super::layers::Layers;
use super::{Commits, Front, Inner};
use crate::storage::layout::{self, LogRow};
use crate::storage::log::{Log, LogId};
use crate::storage::plan::{Plan, Position};
use crate::storage::{ApplyRule, Batch, Engine, Entries, Error, LogEntry, State};
use crate::types::{Entry, Seq};

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Bytes of entries that are read back at once, when earlier ones are applied.
const READ_BACK_BYTES: usize = 4 << 20;

impl Inner {
    pub(super) fn commit(&self, batch: &Batch) -> Result<(), Error> {
        if batch.rewind.is_some() {
            return self.rewind(batch);
        }
        let mut commits = self.commits.lock();
        self.check()?;
        let plan = Plan::new(&self.state.read(), batch);
        if !batch.has_effect(&plan) {
            return Ok(());
        }
        let committed = if self.front.load().is_none() && !self.may_begin_log(batch) {
            self.commit_to_file(&mut commits, batch)
        } else {
            self.commit_to_log(&mut commits, batch, &plan)
        };
        committed.inspect_err(|error| self.fail(error))
    }

    /// Whether a batch is the first of a file that has all its data: from here on it has a log.
    fn may_begin_log(&self, batch: &Batch) -> bool {
        let state = self.state.read();
        let is_whole = !state.incoming && batch.incoming.is_none() && state.applied == state.history.end();
        let is_plain = batch.install.is_empty() && batch.adopt.is_none() && batch.apply_rule == ApplyRule::InOrder;
        is_whole && is_plain && !batch.append.is_empty()
    }

    /// There is no log: a batch is a redb transaction.
    fn commit_to_file(&self, commits: &mut Commits, batch: &Batch) -> Result<(), Error> {
        self.file.commit(batch)?;
        let mut state = self.state.write();
        *state = State { unclean: state.unclean, ..self.file.state()? };
        commits.extent = Extent::of(&state);
        let layers = self.layers.load();
        self.layers.store(Arc::new(Layers { file: self.file.view(), ..Layers::clone(&layers) }));
        Ok(())
    }

    fn commit_to_log(&self, commits: &mut Commits, batch: &Batch, plan: &Plan) -> Result<(), Error> {
        assert!(
            batch.install.is_empty() && batch.adopt.is_none() && batch.apply_rule == ApplyRule::InOrder,
            "a snapshot is received into a file of its own, which has no log yet"
        );
        let facts = facts_of(batch);
        if !facts.is_empty() {
            self.file.commit(&facts)?;
        }
        let (after, to) = (plan.apply_after, plan.position.applied);
        let mut earlier = Vec::new();
        if !batch.append.is_empty() || after < to {
            let front = self.begin_log(commits)?;
            earlier = self.earlier_entries(batch, after, to)?;
            front.log.append(&batch.append, to)?;
        }
        for LogEntry { entry, bytes } in &batch.append {
            commits.extent.push(entry.seq, bytes.len());
        }
        if let Some(trim) = &batch.trim {
            commits.extent.trim(trim, to);
        }
        commits.cursors.extend(batch.cursors.iter().cloned());
        let (log_start, log_bytes) = (commits.extent.start, commits.extent.bytes);
        let active_bytes = {
            let mut state = self.state.write();
            let layers = self.layers.load();
            earlier.iter().for_each(|LogEntry { entry, .. }| layers.active.apply(entry, None));
            let mut known = batch.existed.iter().peekable();
            for LogEntry { entry, .. } in &batch.append {
                let existed = known.next_if(|(seq, _)| *seq == entry.seq).map(|(_, existed)| *existed);
                if after < entry.seq && entry.seq <= to {
                    layers.active.apply(entry, existed);
                }
            }
            state.roll(batch, Position { log_start, log_bytes, ..plan.position });
            layers.active.bytes()
        };
        let wants_segment = self.front.load().as_ref().is_some_and(|front| front.log.wants_segment());
        self.bell.ring(|ring| {
            ring.has_work = true;
            ring.is_full |= active_bytes >= self.sizes.feed_bytes;
            ring.wants_segment |= wants_segment;
        });
        Ok(())
    }

    /// Entries after `after`, up to `to`, that were appended before this batch.
    fn earlier_entries(&self, batch: &Batch, after: Seq, to: Seq) -> Result<Vec<LogEntry>, Error> {
        let here = batch.append.first().map_or(to, |first| Seq(first.entry.seq.0 - 1)).min(to);
        let mut entries: Vec<LogEntry> = Vec::new();
        let mut last = after;
        while last < here {
            let Entries::Found(found) = self.entries(last, READ_BACK_BYTES)? else {
                return Err(Error::Corrupt(format!(
                    "the log no longer holds what follows {last}, which is not applied"
                )));
            };
            if found.is_empty() {
                layout::expect_end(last, here)?;
            }
            for bytes in found {
                let entry = Entry::decode(bytes.clone());
                let entry = entry.map_err(|what| layout::damaged(format_args!("the entry after {last}"), what))?;
                layout::expect_next(last, entry.seq)?;
                last = entry.seq;
                entries.extend((last <= here).then_some(LogEntry { entry, bytes }));
            }
        }
        Ok(entries)
    }

    /// The log, which the file names before anything is in it: so that no file is ever served without it.
    ///
    /// A crash in between leaves a file that names a log without entries, which says so (`is_sealed`).
    fn begin_log(&self, commits: &mut Commits) -> Result<Arc<Front>, Error> {
        if let (Some(front), Some(row)) = (self.front.load_full(), &mut commits.row) {
            if row.is_sealed {
                self.file.set_log(&LogRow { is_sealed: false, ..*row })?;
                row.is_sealed = false;
            }
            return Ok(front);
        }
        let after = self.state.read().history.end();
        let row = LogRow { id: LogId(self.random.id()), after, is_sealed: true };
        self.file.set_log(&row)?;
        let directory = self.place.create(row.id).map_err(|fault| Error::Failed(fault.to_string()))?;
        let log = Log::create(directory, row.id, self.shard, after, self.sizes.log)?;
        let row = LogRow { is_sealed: false, ..row };
        self.file.set_log(&row)?;
        commits.row = Some(row);
        let front =
            Arc::new(Front { log, after, place: Arc::clone(&self.place), is_forgotten: AtomicBool::new(false) });
        self.front.store(Some(Arc::clone(&front)));
        Ok(front)
    }
}

/// The part of a batch that goes to the file at once.
fn facts_of(batch: &Batch) -> Batch {
    let Batch { shard_uid, cluster_uid, role, incoming, .. } = *batch;
    let (epoch, leadership) = (batch.epoch.clone(), batch.leadership.clone());
    Batch { shard_uid, cluster_uid, epoch, leadership, role, incoming, ..Batch::default() }
}
