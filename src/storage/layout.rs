//! What a database file holds: its tables, and the rows of `meta`.
//!
//! | table | key | value |
//! |---|---|---|
//! | `data` | key | record ([`crate::types::record`]) |
//! | `replication_queue` | seq | entry ([`crate::types::entry`]): this copy's log, at replicas too, as far as it does not stand beside the file ([`super::log`]) |
//! | `replicas` | node name | whether there is a cursor, and the cursor |
//! | `history` | first seq | row |
//! | `meta` | name | see [`MetaRow`] |
//!
//! | format | what is new in it |
//! |---|---|
//! | 1 | |
//! | 2 | the newest writes may stand in a log beside the file, which the row `log` names |
//!
//! Whoever changes the meaning of a row raises [`FORMAT`], and adds the step that brings older files up
//! ([`super::migrate`]): a program refuses files of a newer format.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ::redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, TableError, WriteTransaction};
use bytes::{BufMut, Bytes, BytesMut};

use super::log::LogId;
use super::open::OpenFault;
use super::plan::Position;
use super::{Batch, Error, Identity, Role, State};
use crate::types::codec::{self, Reader};
use crate::types::{
    ClusterUid, Cursor, Epoch, History, HistoryRow, Key, Malformed, NodeName, Record, Seq, ShardIndex, ShardUid, Space,
};

/// The number of this layout.
pub(super) const FORMAT: u32 = 2;

/// Clients' keys.
pub(super) const DATA: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("data");
/// The log.
pub(super) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("replication_queue");
/// The cursors of replicas that were ever seen.
pub(super) const REPLICAS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("replicas");
/// The rows of history, by their first seq.
pub(super) const HISTORY: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("history");
/// What the file says of itself.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// A row of `meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetaRow {
    /// [`FORMAT`], four bytes.
    Format,
    /// The shard's name, text.
    ShardName,
    /// The shard's index, four bytes.
    Shard,
    /// How many shards the placement has, four bytes.
    ShardCount,
    /// The placement's hash function, text.
    Hash,
    /// The shard's uid, eight bytes.
    ShardUid,
    /// The cluster's uid, eight bytes.
    ClusterUid,
    /// The highest epoch.
    Epoch,
    /// Who leads which shard: bytes of the cluster layer.
    Leadership,
    /// The copy's role, text.
    Role,
    /// [`Position`], four times eight bytes: one row, for all but the rarest batches change it.
    Position,
    /// Whether a snapshot is being received, a byte.
    Incoming,
    /// Where a copy that was rewound is whole again: a cursor; absent in a file that never was.
    SettlesAt,
    /// [`LogRow`]; absent in a file without a log beside it.
    Log,
    /// Logs that are no longer of any use since this file stands where it does: their ids, eight bytes each.
    LogReplaces,
}

impl MetaRow {
    fn name(self) -> &'static str {
        match self {
            MetaRow::Format => "format",
            MetaRow::ShardName => "shard_name",
            MetaRow::Shard => "shard_index",
            MetaRow::ShardCount => "shard_count",
            MetaRow::Hash => "hash",
            MetaRow::ShardUid => "shard_uid",
            MetaRow::ClusterUid => "cluster_uid",
            MetaRow::Epoch => "epoch",
            MetaRow::Leadership => "leadership",
            MetaRow::Role => "role",
            MetaRow::Position => "position",
            MetaRow::Incoming => "incoming",
            MetaRow::SettlesAt => "settles_at",
            MetaRow::Log => "log",
            MetaRow::LogReplaces => "log_replaces",
        }
    }
}

/// The log beside a file: what is not in the file's tables yet is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogRow {
    /// Which log.
    pub(super) id: LogId,
    /// The last entry before the log's first.
    pub(super) after: Seq,
    /// The tables hold the effects of all that is in the log: the file can be served without it.
    pub(super) is_sealed: bool,
}

/// The error of a redb call, in the words of this module.
pub(super) fn fault(error: impl Into<::redb::Error>) -> Error {
    match error.into() {
        ::redb::Error::Corrupted(detail) => Error::Corrupt(detail),
        error => Error::Failed(error.to_string()),
    }
}

/// Runs redb, which panics on some damaged pages where an error would do (4.4: a torn allocator table), in closing a file
/// too: a damaged file is refused, or a commit fails for good, with words instead of an abort.
pub(super) fn guarded<T, E: From<Error>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(Error::Corrupt(format!("redb gave up on it: {text}")).into())
    })
}

/// Bytes that do not decode, and where they were.
pub(super) fn damaged(place: impl std::fmt::Display, Malformed(what): Malformed) -> Error {
    Error::Corrupt(format!("{place}: {what}"))
}

/// The table of a keyspace.
pub(super) fn table_of(space: Space) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    match space {
        Space::Data => DATA,
    }
}

/// Copies the record out of redb's page once; its value shares that copy.
pub(super) fn decode_record(key: &Key, bytes: &[u8]) -> Result<Record, Error> {
    decode_shared(key, Bytes::copy_from_slice(bytes))
}

/// The record shares the memory of `bytes`.
pub(super) fn decode_shared(key: &Key, bytes: Bytes) -> Result<Record, Error> {
    Record::decode(bytes).map_err(|what| damaged(format_args!("the record of {key:?}"), what))
}

/// The log is gapless: what follows `last` must be the next.
pub(super) fn expect_next(last: Seq, seq: Seq) -> Result<(), Error> {
    if seq == last.next() { Ok(()) } else { Err(Error::Corrupt(format!("the log has {seq} after {last}"))) }
}

/// What was read of the log must reach as far as the positions say.
pub(super) fn expect_end(last: Seq, end: Seq) -> Result<(), Error> {
    if last == end { Ok(()) } else { Err(Error::Corrupt(format!("the log stops at {last}, before {end}"))) }
}

/// Writes the tables of a new file: everything that [`Identity`] says, and an empty state.
pub(super) fn write_new(txn: &WriteTransaction, identity: &Identity, incoming: bool) -> Result<(), Error> {
    txn.open_table(DATA).map_err(fault)?;
    txn.open_table(LOG).map_err(fault)?;
    txn.open_table(REPLICAS).map_err(fault)?;
    txn.open_table(HISTORY).map_err(fault)?;
    let Identity { shard_name, shard, shard_count, hash } = identity;
    let mut meta = txn.open_table(META).map_err(fault)?;
    let rows: [(MetaRow, &[u8]); 7] = [
        (MetaRow::Format, &FORMAT.to_be_bytes()),
        (MetaRow::ShardName, shard_name.as_bytes()),
        (MetaRow::Shard, &shard.0.to_be_bytes()),
        (MetaRow::ShardCount, &shard_count.to_be_bytes()),
        (MetaRow::Hash, hash.as_bytes()),
        (MetaRow::Position, &encode_position(Position::default())),
        (MetaRow::Incoming, &[u8::from(incoming)]),
    ];
    for (row, bytes) in rows {
        meta.insert(row.name(), bytes).map_err(fault)?;
    }
    Ok(())
}

/// Writes where the copy stands.
pub(super) fn write_position(txn: &WriteTransaction, position: Position) -> Result<(), Error> {
    let mut meta = txn.open_table(META).map_err(fault)?;
    meta.insert(MetaRow::Position.name(), &encode_position(position)[..]).map_err(fault)?;
    Ok(())
}

/// Writes what a batch changes in `meta`.
pub(super) fn write_meta(txn: &WriteTransaction, batch: &Batch, position: Position) -> Result<(), Error> {
    write_position(txn, position)?;
    let mut meta = txn.open_table(META).map_err(fault)?;
    let mut set = |row: MetaRow, bytes: &[u8]| meta.insert(row.name(), bytes).map(drop).map_err(fault);
    if let Some(ShardUid(uid)) = batch.shard_uid {
        set(MetaRow::ShardUid, &uid.to_be_bytes())?;
    }
    if let Some(ClusterUid(uid)) = batch.cluster_uid {
        set(MetaRow::ClusterUid, &uid.to_be_bytes())?;
    }
    if let Some(epoch) = &batch.epoch {
        let mut out = BytesMut::new();
        epoch.encode(&mut out);
        set(MetaRow::Epoch, &out)?;
    }
    if let Some(leadership) = &batch.leadership {
        set(MetaRow::Leadership, leadership)?;
    }
    if let Some(role) = batch.role {
        set(MetaRow::Role, role.name().as_bytes())?;
    }
    if let Some(incoming) = batch.incoming {
        set(MetaRow::Incoming, &[u8::from(incoming)])?;
    }
    if let Some(rewind) = &batch.rewind {
        set(MetaRow::SettlesAt, &encode_cursor(rewind.settles_at.as_ref()))?;
    }
    Ok(())
}

/// The log beside the file, if there is one, is of no use any more.
pub(super) fn forget_log(txn: &WriteTransaction) -> Result<(), Error> {
    let mut meta = txn.open_table(META).map_err(fault)?;
    let Some(row) = meta.remove(MetaRow::Log.name()).map_err(fault)?.map(|row| row.value().to_vec()) else {
        return Ok(());
    };
    let id = row.get(..8).ok_or_else(|| damaged("meta row `log`", Malformed("cut short")))?;
    let mut replaced = meta.get(MetaRow::LogReplaces.name()).map_err(fault)?.map(|row| row.value().to_vec());
    replaced.get_or_insert_default().extend_from_slice(id);
    meta.insert(MetaRow::LogReplaces.name(), &replaced.unwrap_or_default()[..]).map_err(fault)?;
    Ok(())
}

/// Raises the number of a file's layout.
pub(super) fn write_format(txn: &WriteTransaction, format: u32) -> Result<(), Error> {
    let mut meta = txn.open_table(META).map_err(fault)?;
    meta.insert(MetaRow::Format.name(), &format.to_be_bytes()[..]).map_err(fault)?;
    Ok(())
}

/// Writes which log stands beside the file.
pub(super) fn write_log_row(txn: &WriteTransaction, row: &LogRow) -> Result<(), Error> {
    let mut out = BytesMut::new();
    out.put_u64(row.id.0);
    out.put_u64(row.after.0);
    out.put_u8(u8::from(row.is_sealed));
    let mut meta = txn.open_table(META).map_err(fault)?;
    meta.insert(MetaRow::Log.name(), &out[..]).map_err(fault)?;
    Ok(())
}

/// Which log stands beside the file.
pub(super) fn read_log_row(txn: &ReadTransaction) -> Result<Option<LogRow>, Error> {
    Meta::open(txn).map_err(fault)?.row(MetaRow::Log, |reader| {
        Ok(LogRow { id: LogId(reader.u64()?), after: Seq(reader.u64()?), is_sealed: reader.bool()? })
    })
}

/// Writes which logs are of no use any more.
pub(super) fn write_replaced_logs(txn: &WriteTransaction, logs: &[LogId]) -> Result<(), Error> {
    let mut out = BytesMut::new();
    logs.iter().for_each(|id| out.put_u64(id.0));
    let mut meta = txn.open_table(META).map_err(fault)?;
    meta.insert(MetaRow::LogReplaces.name(), &out[..]).map_err(fault)?;
    Ok(())
}

/// Which logs are of no use any more.
pub(super) fn read_replaced_logs(txn: &ReadTransaction) -> Result<Vec<LogId>, Error> {
    let read = |reader: &mut Reader| {
        let mut logs = Vec::new();
        while reader.remaining() > 0 {
            logs.push(LogId(reader.u64()?));
        }
        Ok(logs)
    };
    Ok(Meta::open(txn).map_err(fault)?.row(MetaRow::LogReplaces, read)?.unwrap_or_default())
}

/// What the file says that it is, and in which format. A file without our tables is a stranger's.
pub(super) fn read_identity(txn: &ReadTransaction) -> Result<(u32, Identity), OpenFault> {
    let meta = match Meta::open(txn) {
        Ok(meta) => meta,
        Err(TableError::Storage(error)) => return Err(fault(error).into()),
        Err(_) => return Err(OpenFault::Foreign("it has no table `meta` as this program writes it".to_owned())),
    };
    let format = meta.must(MetaRow::Format, Reader::u32)?;
    if format > FORMAT {
        return Err(OpenFault::Format { found: format, known: FORMAT }); // what its other rows mean is not known here
    }
    let identity = Identity {
        shard_name: meta.must(MetaRow::ShardName, take_text)?,
        shard: ShardIndex(meta.must(MetaRow::Shard, Reader::u32)?),
        shard_count: meta.must(MetaRow::ShardCount, Reader::u32)?,
        hash: meta.must(MetaRow::Hash, take_text)?,
    };
    Ok((format, identity))
}

/// Compares what the file is with what it must be.
pub(super) fn check_identity(found: &Identity, wanted: &Identity) -> Result<(), OpenFault> {
    if (&found.shard_name, found.shard) != (&wanted.shard_name, wanted.shard) {
        return Err(OpenFault::Shard {
            found: format!("{} (index {})", found.shard_name, found.shard),
            wanted: format!("{} (index {})", wanted.shard_name, wanted.shard),
        });
    }
    if found.shard_count != wanted.shard_count {
        return Err(OpenFault::ShardCount { found: found.shard_count, wanted: wanted.shard_count });
    }
    if found.hash != wanted.hash {
        return Err(OpenFault::Hash { found: found.hash.clone(), wanted: wanted.hash.clone() });
    }
    Ok(())
}

/// Reads what the file says of itself, and checks that log, history and position fit each other.
pub(super) fn read_state(txn: &ReadTransaction, unclean: bool) -> Result<State, Error> {
    let meta = Meta::open(txn).map_err(fault)?;
    let position = meta.must(MetaRow::Position, take_position)?;
    check_log(txn, position, meta.row(MetaRow::Log, |reader| reader.take(reader.remaining()))?.is_some())?;
    let history = History::new(read_history(txn)?, position.end).map_err(|what| damaged("table `history`", what))?;
    Ok(State {
        shard_uid: meta.row(MetaRow::ShardUid, Reader::u64)?.map(ShardUid),
        cluster_uid: meta.row(MetaRow::ClusterUid, Reader::u64)?.map(ClusterUid),
        epoch: meta.row(MetaRow::Epoch, Epoch::decode)?,
        leadership: meta.row(MetaRow::Leadership, |reader| reader.take(reader.remaining()))?,
        role: meta.row(MetaRow::Role, take_role)?,
        history,
        applied: position.applied,
        log_start: position.log_start,
        log_bytes: position.log_bytes,
        cursors: read_cursors(txn)?,
        incoming: meta.must(MetaRow::Incoming, Reader::bool)?,
        settles_at: meta.row(MetaRow::SettlesAt, |reader| reader.option(Cursor::decode))?.flatten(),
        unclean,
    })
}

/// The table `replication_queue` must hold `log_start + 1 ..= end`, or, beside a log, the beginning of that, which is
/// nothing when all of it is gone; looks at its ends and its length, which cost nothing.
fn check_log(txn: &ReadTransaction, position: Position, has_log: bool) -> Result<(), Error> {
    let Position { end, applied, log_start, .. } = position;
    let (first, last, len) = queue_rows(txn)?;
    let (first, last) = (first.unwrap_or(log_start.next()), last.unwrap_or(log_start));
    let reaches_the_end = last == end || (has_log && last <= end);
    if first == log_start.next()
        && reaches_the_end
        && len == last.since(log_start)
        && log_start <= applied
        && applied <= end
    {
        return Ok(());
    }
    Err(Error::Corrupt(format!(
        "the log holds {len} entries, {first} to {last}; it should reach from {log_start} (not included) to {end}, of \
         which {applied} are applied"
    )))
}

/// The first and the last row of the table `replication_queue`, and how many it has.
pub(super) fn queue_rows(txn: &ReadTransaction) -> Result<(Option<Seq>, Option<Seq>, u64), Error> {
    let log = txn.open_table(LOG).map_err(fault)?;
    let first = log.first().map_err(fault)?.map(|(seq, _)| Seq(seq.value()));
    let last = log.last().map_err(fault)?.map(|(seq, _)| Seq(seq.value()));
    Ok((first, last, log.len().map_err(fault)?))
}

fn read_history(txn: &ReadTransaction) -> Result<Vec<HistoryRow>, Error> {
    let table = txn.open_table(HISTORY).map_err(fault)?;
    let mut rows = Vec::new();
    for row in table.iter().map_err(fault)? {
        let (_, bytes) = row.map_err(fault)?;
        rows.push(decode(bytes.value(), HistoryRow::decode).map_err(|what| damaged("table `history`", what))?);
    }
    Ok(rows)
}

fn read_cursors(txn: &ReadTransaction) -> Result<Vec<(NodeName, Option<Cursor>)>, Error> {
    let table = txn.open_table(REPLICAS).map_err(fault)?;
    let mut cursors = Vec::new();
    for row in table.iter().map_err(fault)? {
        let (name, bytes) = row.map_err(fault)?;
        let cursor = decode(bytes.value(), |reader| reader.option(Cursor::decode));
        cursors.push((NodeName::new(name.value()), cursor.map_err(|what| damaged("table `replicas`", what))?));
    }
    Ok(cursors)
}

/// The value of a row of `replicas`.
pub(super) fn encode_cursor(cursor: Option<&Cursor>) -> Bytes {
    let mut out = BytesMut::new();
    codec::put_option(&mut out, cursor, |out, cursor| cursor.encode(out));
    out.freeze()
}

/// The value of a row of `history`.
pub(super) fn encode_history_row(row: &HistoryRow) -> Bytes {
    let mut out = BytesMut::new();
    row.encode(&mut out);
    out.freeze()
}

fn encode_position(position: Position) -> Bytes {
    let Position { end, applied, log_start, log_bytes } = position;
    let mut out = BytesMut::with_capacity(32);
    [end.0, applied.0, log_start.0, log_bytes].into_iter().for_each(|number| out.put_u64(number));
    out.freeze()
}

fn take_position(reader: &mut Reader) -> Result<Position, Malformed> {
    Ok(Position {
        end: Seq(reader.u64()?),
        applied: Seq(reader.u64()?),
        log_start: Seq(reader.u64()?),
        log_bytes: reader.u64()?,
    })
}

fn take_text(reader: &mut Reader) -> Result<String, Malformed> {
    let bytes = reader.take(reader.remaining())?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed("text that is not UTF-8"))
}

fn take_role(reader: &mut Reader) -> Result<Role, Malformed> {
    let name = take_text(reader)?;
    [Role::Leader, Role::Replica].into_iter().find(|role| role.name() == name).ok_or(Malformed("an unknown role"))
}

/// Decodes all of a row.
fn decode<T>(bytes: &[u8], take: impl FnOnce(&mut Reader) -> Result<T, Malformed>) -> Result<T, Malformed> {
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
    let value = take(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

/// The table `meta` in one read transaction.
struct Meta(::redb::ReadOnlyTable<&'static str, &'static [u8]>);

impl Meta {
    fn open(txn: &ReadTransaction) -> Result<Meta, TableError> {
        txn.open_table(META).map(Meta)
    }

    /// A row that may not be there.
    fn row<T>(&self, row: MetaRow, take: impl FnOnce(&mut Reader) -> Result<T, Malformed>) -> Result<Option<T>, Error> {
        let Some(bytes) = self.0.get(row.name()).map_err(fault)? else { return Ok(None) };
        decode(bytes.value(), take).map(Some).map_err(|what| damaged(format_args!("meta row `{}`", row.name()), what))
    }

    /// A row that every file has.
    fn must<T>(&self, row: MetaRow, take: impl FnOnce(&mut Reader) -> Result<T, Malformed>) -> Result<T, Error> {
        self.row(row, take)?.ok_or_else(|| Error::Corrupt(format!("meta row `{}` is missing", row.name())))
    }
}
