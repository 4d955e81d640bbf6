//! One durable state of a redb file, opened once and read by everybody until the next commit: a point read begins no
//! transaction and opens no table.
//!
//! Whoever holds a view keeps its pages from being reused, so an engine keeps the newest one only, and replaces it with
//! each commit. That holds no more than redb itself holds for one commit: the state before the next.

use std::fmt;
use std::ops::Bound;

use ::redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTableMetadata};
use bytes::Bytes;

use super::layout::{self, DATA, LOG, LogRow, decode_record, expect_end, expect_next, fault};
use super::log::LogId;
use super::plan::Position;
use super::{Chunk, Entries, Error};
use crate::types::key::KEY_BYTES_CEILING;
use crate::types::{Key, Record, Seq, Space};

/// A durable state of a file.
pub(super) struct View {
    data: ReadOnlyTable<&'static [u8], &'static [u8]>,
    txn: ReadTransaction,
    /// Where the copy stood in this state.
    pub(super) position: Position,
}

impl View {
    /// The last committed state, which left the copy at `position`.
    pub(super) fn open(db: &Database, position: Position) -> Result<View, Error> {
        let txn = db.begin_read().map_err(fault)?;
        let data = txn.open_table(DATA).map_err(fault)?;
        Ok(View { data, txn, position })
    }

    /// The table of a keyspace.
    fn table(&self, space: Space) -> &ReadOnlyTable<&'static [u8], &'static [u8]> {
        match space {
            Space::Data => &self.data,
        }
    }

    /// The record of `key`, or none.
    pub(super) fn get(&self, space: Space, key: &Key) -> Result<Option<Record>, Error> {
        let Some(bytes) = self.table(space).get(key.as_bytes()).map_err(fault)? else { return Ok(None) };
        decode_record(key, bytes.value()).map(Some)
    }

    /// Whether there is a record of `key`.
    pub(super) fn contains(&self, space: Space, key: &Key) -> Result<bool, Error> {
        Ok(self.table(space).get(key.as_bytes()).map_err(fault)?.is_some())
    }

    /// Which log stands beside the file, and which are of no use any more.
    pub(super) fn logs(&self) -> Result<(Option<LogRow>, Vec<LogId>), Error> {
        Ok((layout::read_log_row(&self.txn)?, layout::read_replaced_logs(&self.txn)?))
    }

    /// The last row of the table `replication_queue`, if it has any.
    pub(super) fn queue_end(&self) -> Result<Option<Seq>, Error> {
        Ok(layout::queue_rows(&self.txn)?.1)
    }

    /// How many keys there are.
    pub(super) fn keys(&self) -> Result<u64, Error> {
        self.data.len().map_err(fault)
    }

    /// Entries of the table `replication_queue` after `after`, of those that it should hold: up to `end`.
    pub(super) fn entries(&self, after: Seq, end: Seq, bytes_max: usize) -> Result<Entries, Error> {
        if after < self.position.log_start {
            return Ok(Entries::Trimmed);
        }
        if after >= end {
            return Ok(Entries::Found(Vec::new()));
        }
        let log = self.txn.open_table(LOG).map_err(fault)?;
        let (mut found, mut size, mut last) = (Vec::new(), 0, after);
        for row in log.range(after.next().0..).map_err(fault)? {
            let (seq, bytes) = row.map_err(fault)?;
            expect_next(last, Seq(seq.value()))?;
            size += bytes.value().len();
            if size > bytes_max && !found.is_empty() {
                return Ok(Entries::Found(found));
            }
            found.push(Bytes::copy_from_slice(bytes.value()));
            last = last.next();
        }
        expect_end(last, end)?;
        Ok(Entries::Found(found))
    }

    /// Records of keys above `after`, about `bytes_max` bytes, at least one if there is one.
    pub(super) fn chunk(&self, space: Space, after: Option<&Key>, bytes_max: usize) -> Result<Chunk, Error> {
        let at = self.position.applied;
        let above = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_bytes()));
        let (mut records, mut size) = (Vec::new(), 0);
        for row in self.table(space).range::<&[u8]>((above, Bound::Unbounded)).map_err(fault)? {
            let (key, bytes) = row.map_err(fault)?;
            size += key.value().len() + bytes.value().len();
            if size > bytes_max && !records.is_empty() {
                return Ok(Chunk { records, at, last: false });
            }
            records.push((decode_key(key.value())?, Bytes::copy_from_slice(bytes.value())));
        }
        Ok(Chunk { records, at, last: true })
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("position", &self.position).finish_non_exhaustive()
    }
}

fn decode_key(bytes: &[u8]) -> Result<Key, Error> {
    Key::new(Bytes::copy_from_slice(bytes), KEY_BYTES_CEILING)
        .map_err(|what| Error::Corrupt(format!("table `data`: {what}")))
}
