//! A batch as one redb transaction: all of it is durable when the transaction's commit returns, or none of it.
//!
//! The steps stand in the order of their effects: a snapshot's records, its history, *append*, *apply*, cursors, trimming,
//! and last the positions that say what the others did. Whoever adds a step adds it inside the transaction.

use ::redb::{Database, Durability, ReadableTable, Table, WriteTransaction};
use bytes::Bytes;

use super::layout::{
    self, DATA, HISTORY, LOG, LogRow, REPLICAS, damaged, decode_record, expect_end, expect_next, fault, table_of,
};
use super::plan::{Plan, Position};
use super::{ApplyRule, Batch, Error, Rewind};
use crate::types::{Change, Cursor, Entry, HistoryRow, NodeName, Seq, Space};

/// Does `work` in one transaction; all of it is durable when this returns. One fsync.
pub(super) fn durably<T>(db: &Database, work: impl FnOnce(&WriteTransaction) -> Result<T, Error>) -> Result<T, Error> {
    let mut txn = db.begin_write().map_err(fault)?;
    txn.set_durability(Durability::Immediate).map_err(|error| Error::Failed(error.to_string()))?;
    let done = work(&txn)?;
    txn.commit().map_err(fault)?;
    Ok(done)
}

/// Writes a planned batch, and returns where it left the copy.
pub(super) fn write(db: &Database, batch: &Batch, plan: &Plan) -> Result<Position, Error> {
    durably(db, |txn| {
        install(txn, batch)?;
        adopt(txn, batch)?;
        rewind(txn, batch)?;
        append(txn, batch, plan)?;
        apply(txn, batch, plan)?;
        acknowledge(txn, &batch.cursors)?;
        let position = trim(txn, batch, plan.position)?;
        layout::write_meta(txn, batch, position)?;
        Ok(position)
    })
}

/// Keys and encoded records, in key order; none: the key is gone.
pub(super) type Records<'a> = &'a [(&'a [u8], Option<&'a [u8]>)];

/// What a log in front of a file brings into it: the state of every key that the entries up to `position.applied` wrote,
/// and what must be true together with that.
#[derive(Debug)]
pub(super) struct Feed<'a> {
    /// The records, or the last of them ([`feed_ahead`]).
    pub(super) records: Records<'a>,
    /// The rows of history that the entries opened.
    pub(super) rows: &'a [HistoryRow],
    /// Cursors that replicas acknowledged.
    pub(super) cursors: &'a [(NodeName, Option<Cursor>)],
    /// Where the file stands afterwards. The rows of the table `replication_queue` up to `log_start` go.
    pub(super) position: Position,
    /// What is to be said of the log, when that is new.
    pub(super) log_row: Option<&'a LogRow>,
}

/// Brings a feed into the file, or its end.
pub(super) fn feed(db: &Database, feed: &Feed<'_>) -> Result<(), Error> {
    durably(db, |txn| {
        put_records(txn, feed.records)?;
        let mut queue = txn.open_table(LOG).map_err(fault)?;
        queue.retain_in(..=feed.position.log_start.0, |_, _| false).map_err(fault)?;
        drop(queue);
        open_rows(txn, feed.rows)?;
        acknowledge(txn, feed.cursors)?;
        if let Some(row) = feed.log_row {
            layout::write_log_row(txn, row)?;
        }
        layout::write_position(txn, feed.position)
    })
}

/// Brings a part of a feed into the file, before its end. The file goes on saying that it stands where it stood: these keys
/// are newer than that, and the log, which it says that it needs, has them too.
pub(super) fn feed_ahead(db: &Database, records: Records<'_>) -> Result<(), Error> {
    durably(db, |txn| put_records(txn, records))
}

fn put_records(txn: &WriteTransaction, records: Records<'_>) -> Result<(), Error> {
    let mut data = txn.open_table(DATA).map_err(fault)?;
    for (key, record) in records {
        match record {
            Some(record) => drop(data.insert(*key, *record).map_err(fault)?),
            None => drop(data.remove(*key).map_err(fault)?),
        }
    }
    Ok(())
}

/// Records of a snapshot, as they are.
fn install(txn: &WriteTransaction, batch: &Batch) -> Result<(), Error> {
    for (space, key, record) in &batch.install {
        let mut table = txn.open_table(table_of(*space)).map_err(fault)?;
        table.insert(key.as_bytes(), &record[..]).map_err(fault)?;
    }
    Ok(())
}

/// The log of a snapshot's source begins here: our rows and entries give way to its history.
fn adopt(txn: &WriteTransaction, batch: &Batch) -> Result<(), Error> {
    let Some(adopted) = &batch.adopt else { return Ok(()) };
    txn.open_table(LOG).map_err(fault)?.retain(|_, _| false).map_err(fault)?;
    let mut history = txn.open_table(HISTORY).map_err(fault)?;
    history.retain(|_, _| false).map_err(fault)?;
    for row in adopted.rows() {
        history.insert(row.first.0, &layout::encode_history_row(row)[..]).map_err(fault)?;
    }
    Ok(())
}

/// Takes back what came behind an entry: rows of history, the log, and the records that it touched. A log beside the file
/// goes with that: it holds what is taken back, and nothing that the file has not.
fn rewind(txn: &WriteTransaction, batch: &Batch) -> Result<(), Error> {
    let Some(Rewind { to, replace, .. }) = &batch.rewind else { return Ok(()) };
    txn.open_table(LOG).map_err(fault)?.retain(|_, _| false).map_err(fault)?;
    txn.open_table(HISTORY).map_err(fault)?.retain(|first, _| first <= to.0).map_err(fault)?;
    for (space, key, record) in replace {
        let mut table = txn.open_table(table_of(*space)).map_err(fault)?;
        match record {
            Some(record) => drop(table.insert(key.as_bytes(), &record[..]).map_err(fault)?),
            None => drop(table.remove(key.as_bytes()).map_err(fault)?),
        }
    }
    layout::forget_log(txn)
}

/// Verb *append*: entries, and the rows that they open.
fn append(txn: &WriteTransaction, batch: &Batch, plan: &Plan) -> Result<(), Error> {
    if batch.append.is_empty() {
        return Ok(());
    }
    let mut log = txn.open_table(LOG).map_err(fault)?;
    for appended in &batch.append {
        log.insert(appended.entry.seq.0, &appended.bytes[..]).map_err(fault)?;
    }
    open_rows(txn, &plan.rows)
}

fn open_rows(txn: &WriteTransaction, rows: &[HistoryRow]) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut history = txn.open_table(HISTORY).map_err(fault)?;
    for row in rows {
        history.insert(row.first.0, &layout::encode_history_row(row)[..]).map_err(fault)?;
    }
    Ok(())
}

/// Verb *apply*: entries of earlier batches are read back from the log, those of this batch are at hand.
fn apply(txn: &WriteTransaction, batch: &Batch, plan: &Plan) -> Result<(), Error> {
    let (after, to) = (plan.apply_after, plan.position.applied);
    if after == to {
        return Ok(());
    }
    let mut data = txn.open_table(DATA).map_err(fault)?;
    let here = batch.append.first().map_or(plan.position.end, |first| Seq(first.entry.seq.0 - 1));
    let mut last = after;
    if after < here {
        let log = txn.open_table(LOG).map_err(fault)?;
        for row in log.range(after.next().0..=here.min(to).0).map_err(fault)? {
            let (seq, bytes) = row.map_err(fault)?;
            expect_next(last, Seq(seq.value()))?;
            last = last.next();
            let entry = Entry::decode(Bytes::copy_from_slice(bytes.value()));
            apply_entry(
                &mut data,
                batch.apply_rule,
                &entry.map_err(|what| damaged(format_args!("entry {last}"), what))?,
            )?;
        }
    }
    for appended in &batch.append {
        if appended.entry.seq == last.next() && last < to {
            apply_entry(&mut data, batch.apply_rule, &appended.entry)?;
            last = last.next();
        }
    }
    expect_end(last, to)
}

fn apply_entry(data: &mut Table<'_, &[u8], &[u8]>, rule: ApplyRule, entry: &Entry) -> Result<(), Error> {
    for mutation in &entry.mutations {
        let Space::Data = mutation.space; // one table yet; a second space makes this a choice
        let key = &mutation.key;
        if rule == ApplyRule::IfNewer {
            let present = data.get(key.as_bytes()).map_err(fault)?;
            let present = present.map(|bytes| decode_record(key, bytes.value())).transpose()?;
            if !rule.lets_through(entry.version(), present.as_ref()) {
                continue;
            }
        }
        match &mutation.change {
            Change::Put(content) => data.insert(key.as_bytes(), &entry.record(content).encode()[..]).map_err(fault)?,
            Change::Delete => data.remove(key.as_bytes()).map_err(fault)?,
        };
    }
    Ok(())
}

/// The cursors that replicas acknowledged.
fn acknowledge(txn: &WriteTransaction, cursors: &[(NodeName, Option<Cursor>)]) -> Result<(), Error> {
    if cursors.is_empty() {
        return Ok(());
    }
    let mut table = txn.open_table(REPLICAS).map_err(fault)?;
    for (name, cursor) in cursors {
        table.insert(name.as_str(), &layout::encode_cursor(cursor.as_ref())[..]).map_err(fault)?;
    }
    Ok(())
}

/// Takes what may go from the front of the log, and returns where that leaves the copy.
fn trim(txn: &WriteTransaction, batch: &Batch, mut position: Position) -> Result<Position, Error> {
    let Some(trim) = &batch.trim else { return Ok(position) };
    if !position.may_trim(trim, 0) {
        return Ok(position);
    }
    let mut log = txn.open_table(LOG).map_err(fault)?;
    let mut oldest = log.extract_from_if(..=position.trim_bound(trim).0, |_, _| true).map_err(fault)?;
    let mut gone = 0;
    while position.may_trim(trim, gone) {
        let first =
            oldest.next().ok_or_else(|| Error::Corrupt(format!("the log ends after {}", position.log_start)))?;
        let (seq, bytes) = first.map_err(fault)?;
        expect_next(position.log_start, Seq(seq.value()))?;
        position.trimmed_one(bytes.value().len());
        gone += 1;
    }
    Ok(position)
}
