//! A feed: what the overlay holds goes into the file in the order of keys, while commits go on beside it in a new overlay.
//!
//! ```text
//! freeze ─▶ active │ frozen │ file       readers find a key in the first layer that has it
//! slices ─▶ records ═ fsync, records ═ fsync, …           the file still says that it stands where it stood
//! end    ─▶ records, rows of history, cursors, position ═ fsync       from here on it needs the log's entries no more
//! show   ─▶ active │        │ file       the frozen keys are in the file now: one pointer changes, nobody sees both or none
//! tend   ─▶ segments of the log go that are in the file and behind every replica
//! ```
//!
//! The larger a feed, the more keys share a page of the tree, and the less a write costs the device. A redb transaction that
//! changes more pages than its cache may hold unwritten (half of it) writes them twice: when they leave the cache, and when
//! it sums them up at its end. So a feed is several transactions, slices of the order of keys, which share hardly a page.
//! A crash between two of them leaves a file that holds some keys as they were later than it says. The log has every one of
//! them, in the entries that are applied again: they hide what the file holds, whichever it is.

use std::sync::Arc;

use super::layers::Layers;
use super::overlay::Overlay;
use super::{Fed, Inner};
use crate::storage::layout::LogRow;
use crate::storage::plan::Position;
use crate::storage::transaction::{Feed, Records};
use crate::storage::{Engine, Error};
use crate::types::{Cursor, History, HistoryRow, NodeName};

/// A page of redb's tree.
const PAGE_BYTES: usize = 4 << 10;

/// What a feed brings into the file.
struct Frozen {
    overlay: Arc<Overlay>,
    history: History,
    position: Position,
    cursors: Vec<(NodeName, Option<Cursor>)>,
}

impl Inner {
    /// Feeds what there is. `seals`: and says in the file that it needs its log no longer.
    pub(super) fn feed_once(&self, seals: bool) -> Result<Fed, Error> {
        let _one_at_a_time = self.feeding.lock();
        self.check()?;
        if !self.has_space_to_feed() {
            return Ok(Fed::NoSpace);
        }
        let frozen = self.freeze();
        let fed = self.feed(frozen.as_ref(), seals).and_then(|()| self.tend_log());
        fed.inspect_err(|error| self.fail(error))?;
        Ok(if frozen.is_some() { Fed::Done } else { Fed::Nothing })
    }

    /// Takes what was written so far out of the way of what comes; none when the file has it all.
    fn freeze(&self) -> Option<Frozen> {
        let mut commits = self.commits.lock();
        let state = self.state.write();
        let layers = self.layers.load_full();
        if self.front.load().is_none() || (layers.file.position.applied == state.applied && commits.cursors.is_empty())
        {
            return None;
        }
        let overlay = Arc::clone(&layers.active);
        let frozen = Some(Arc::clone(&overlay));
        self.layers.store(Arc::new(Layers { active: Arc::default(), frozen, file: Arc::clone(&layers.file) }));
        let applied = state.applied;
        let position = Position {
            end: applied,
            applied,
            log_start: commits.extent.start.min(applied),
            log_bytes: commits.extent.bytes_up_to(applied),
        };
        let rows = state.history.rows().iter().filter(|row| row.first <= applied).cloned().collect();
        let history = History::new(rows, applied)
            .unwrap_or_else(|fault| unreachable!("the rows up to an entry are its history: {fault}"));
        Some(Frozen { overlay, history, position, cursors: std::mem::take(&mut commits.cursors).into_iter().collect() })
    }

    /// Brings what is frozen into the file, and shows it there.
    fn feed(&self, frozen: Option<&Frozen>, seals: bool) -> Result<(), Error> {
        let seal = {
            let (commits, state) = (self.commits.lock(), self.state.read());
            let needs_no_log = seals && state.applied == state.history.end();
            let row = commits.row.filter(|row| needs_no_log && !row.is_sealed);
            row.map(|row| LogRow { is_sealed: true, ..row })
        };
        match (frozen, seal) {
            (Some(frozen), seal) => {
                let known = self.file.state()?.history.end();
                let rows: Vec<_> = frozen.history.rows().iter().filter(|row| row.first > known).cloned().collect();
                let row = seal.as_ref();
                frozen.overlay.with_sorted(|records| self.feed_slices(records, &rows, frozen, row))?;
                let layers = self.layers.load();
                let active = Arc::clone(&layers.active); // only a feed replaces it, and this is the one
                self.layers.store(Arc::new(Layers { active, frozen: None, file: self.file.view() }));
                self.bell.wake(); // there is room
            }
            (None, Some(seal)) => self.file.set_log(&seal)?,
            (None, None) => {}
        }
        if seal.is_some() {
            self.commits.lock().row = seal;
        }
        Ok(())
    }

    fn feed_slices(
        &self,
        mut records: Records<'_>,
        rows: &[HistoryRow],
        frozen: &Frozen,
        log_row: Option<&LogRow>,
    ) -> Result<(), Error> {
        while let (slice, rest @ [_, ..]) = self.slice(records) {
            self.file.feed_ahead(slice)?;
            records = rest;
        }
        let (position, cursors) = (frozen.position, &frozen.cursors[..]);
        let end = Feed { records, rows, cursors, position, log_row };
        self.file.feed(&end, frozen.history.clone())
    }

    /// The first records, as many as one transaction may change pages for, if each is in a page of its own; and the rest.
    fn slice<'a>(&self, records: Records<'a>) -> (Records<'a>, Records<'a>) {
        let mut changed = 0;
        let end = records.iter().position(|(key, record)| {
            let bytes = key.len() + record.map_or(0, <[u8]>::len);
            changed += PAGE_BYTES + if bytes < PAGE_BYTES / 2 { 0 } else { bytes };
            changed > self.slice_bytes
        });
        records.split_at(end.unwrap_or(records.len()).max(1).min(records.len()))
    }

    /// Deletes the segments that nobody needs, for their effects are in the file, and no replica is behind them.
    fn tend_log(&self) -> Result<(), Error> {
        let Some(front) = self.front.load_full() else { return Ok(()) };
        let start = self.commits.lock().extent.start;
        front.log.drop_through(start.min(self.layers.load().file.position.applied), 0).map(drop)
    }

    /// Bytes that a feed of all that is in memory may take: the values, and a path of new pages for each key, for the tree
    /// is copied on write; no more than a copy of the whole.
    pub(super) fn feed_need(&self) -> u64 {
        const PATH_BYTES: u64 = 8 << 10;
        let layers = self.layers.load();
        let keys = layers.active.len() + layers.frozen.as_ref().map_or(0, |frozen| frozen.len());
        layers.bytes() as u64 + (keys as u64 * PATH_BYTES).min(self.file.file_bytes().unwrap_or(u64::MAX))
    }

    fn has_space_to_feed(&self) -> bool {
        self.file.free_bytes().is_none_or(|free| free >= self.feed_need())
    }
}
