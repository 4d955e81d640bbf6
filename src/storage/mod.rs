//! One shard copy on one disk: its data, its log, its history and its replicas' cursors.
//!
//! [`Engine`] is what a copy needs of a store; [`logged`] is the one that serves: a log in front of [`redb`], which is an
//! engine of its own for files that receive a snapshot. [`memory`] is the one that tests break on purpose, and `suite`
//! (tests only) holds all of them to the same promises. `writer` is the only caller of [`Engine::commit`].
//!
//! Promises of every engine:
//! - a [`Batch`] is durable as a whole when `commit` returns `Ok`, or not visible at all while the process lives;
//! - after an error from `commit` the outcome is unknown: the engine refuses everything from then on (rule 9);
//! - nothing is readable before it is durable (rule 8);
//! - what must be true together is in one batch: data, log, cursor and history (rules 6 and 10).

mod plan;

mod holder;
pub mod open;
pub mod log;

pub mod files;
mod layout;
mod migrate;
mod transaction;
mod view;

pub mod checksum;
pub mod ledger;
pub mod compact;
pub mod logged;
pub mod memory;
pub mod redb;

#[cfg(test)]
mod suite;

pub mod writer;

use std::time::Duration;

use bytes::Bytes;

use crate::types::{ClusterUid, Epoch};
use crate::types::{Cursor, Entry, History, Key, NodeName, Record, Seq, ShardIndex, ShardUid, Space};

/// Why an engine did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The disk or the file failed. After a failed commit the outcome of that batch is unknown, and so the engine stays
    /// failed until the process restarts.
    #[error("the store failed: {0}")]
    Failed(String),
    /// Bytes in the file are not what they should be.
    #[error("the store holds damaged data: {0}")]
    Corrupt(String),
}

impl Error {
    /// What later calls are told: the same words, not wrapped once more.
    fn lasting(&self) -> String {
        match self {
            Error::Failed(detail) => detail.clone(),
            Error::Corrupt(_) => self.to_string(),
        }
    }
}

/// What a file must be to be opened: the copy of this shard of this placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The shard's name.
    pub shard_name: String,
    /// The shard's index.
    pub shard: ShardIndex,
    /// How many shards the placement has.
    pub shard_count: u32,
    /// The placement's hash function, by its name in `sharding.toml`.
    pub hash: String,
}

/// What a copy is to its shard. Kept in the file for the reader of a status; who leads is decided elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes the shard's writes.
    Leader,
    /// Pulls from the leader.
    Replica,
}

impl Role {
    /// `leader` or `replica`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Replica => "replica",
        }
    }
}

/// What a copy knows of itself, apart from its data. Read at opening; the writer keeps it current afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The shard's uid (rule 1); none before the first leader drew it, or the first poll brought it.
    pub shard_uid: Option<ShardUid>,
    /// The cluster's uid (rule 1).
    pub cluster_uid: Option<ClusterUid>,
    /// The highest epoch that this copy has persisted for its shard; none in a new file.
    pub epoch: Option<Epoch>,
    /// Who leads which shard, as far as this node knows, in the bytes of the cluster layer, which alone reads them.
    pub leadership: Option<Bytes>,
    /// What the copy was when it last said so.
    pub role: Option<Role>,
    /// The rows of history and the end of the log.
    pub history: History,
    /// The last entry that is applied to the data; in this profile always the end (rule 7).
    pub applied: Seq,
    /// The entry before the first one that the log still holds: `log_start + 1 ..= end` can be read.
    pub log_start: Seq,
    /// Bytes of the entries that the log holds.
    pub log_bytes: u64,
    /// The replicas that were ever seen, with the cursor that each last acknowledged; none: seen, and holding nothing.
    pub cursors: Vec<(NodeName, Option<Cursor>)>,
    /// A snapshot is being received into this file; it serves nothing yet (rule 14).
    pub incoming: bool,
    /// The copy was rewound, and some of its records are as they were at this entry of its leader: before it holds that
    /// entry, it is no prefix of anything and serves nothing ([`Rewind`]). Stays when it does; none in a file that never was.
    pub settles_at: Option<Cursor>,
    /// The file was not closed properly last time.
    pub unclean: bool,
}

/// An entry beside its encoded bytes: logs and polls hold the bytes, applying needs the entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// The decoded entry.
    pub entry: Entry,
    /// The bytes that it was decoded from, or encoded to.
    pub bytes: Bytes,
}

/// Which entries leave the log (rule 12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trim {
    /// Nothing after this seq goes: the least cursor, or the copy's own end when nobody needs the log. Nor does, whatever
    /// stands here, an entry that is not applied yet.
    pub up_to: Seq,
    /// The log keeps at least the newest entries that fit in so many bytes (`log_retain`).
    pub keep_bytes: u64,
    /// At most so many entries go in one batch, so that trimming never makes a write wait long.
    pub entries_max: usize,
}

/// Whether applying looks at the record that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ApplyRule {
    /// Entries follow the data they change: apply them as they come.
    #[default]
    InOrder,
    /// The data may already hold later writes (a snapshot that catches up, rule 14): a mutation is applied only when its
    /// version's seq is above the record's.
    IfNewer,
}

/// Takes back what a copy holds beyond what it has in common with its leader (rule 21). Afterwards its log is empty and
/// goes on behind `to`: what came before is in the data alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewind {
    /// The last entry that both have; not above what is applied.
    pub to: Seq,
    /// Every key that a later entry touched, as the leader holds it: the encoded record; none: the key is gone.
    pub replace: Vec<(Space, Key, Option<Bytes>)>,
    /// The leader's last entry when the last of those was read.
    pub settles_at: Option<Cursor>,
}

/// What changes together. Every field may be empty; an empty batch commits nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// Verb *append*: entries for the log, each the next after the end.
    pub append: Vec<LogEntry>,
    /// Of entries in `append`, those of one mutation: whether its key existed before, where the caller has looked; in order.
    /// It need not be looked up again when keys are counted.
    pub existed: Vec<(Seq, bool)>,
    /// Verb *apply*: bring the data from `applied` up to this seq, from the log. None: nothing is applied.
    pub apply_to: Option<Seq>,
    /// How mutations meet the records that are there.
    pub apply_rule: ApplyRule,
    /// Records of a snapshot, encoded, written as they are (rule 14).
    pub install: Vec<(Space, Key, Bytes)>,
    /// The history and end at which a snapshot's log begins; sets `applied` and `log_start` to that end, and empties the
    /// log. Done before `append`.
    pub adopt: Option<History>,
    /// Takes back the end of the log. Stands alone in its batch, but for facts.
    pub rewind: Option<Rewind>,
    /// Cursors that replicas acknowledged.
    pub cursors: Vec<(NodeName, Option<Cursor>)>,
    /// What leaves the log, after all else.
    pub trim: Option<Trim>,
    /// The shard's uid, drawn or learnt.
    pub shard_uid: Option<ShardUid>,
    /// The cluster's uid, drawn or learnt.
    pub cluster_uid: Option<ClusterUid>,
    /// The shard's epoch, as far as this copy knows.
    pub epoch: Option<Epoch>,
    /// Who leads which shard, and what this node has promised: bytes of the cluster layer, kept as they are.
    pub leadership: Option<Bytes>,
    /// What the copy is.
    pub role: Option<Role>,
    /// Marks the file as one that a snapshot is received into, or as complete.
    pub incoming: Option<bool>,
}

impl Batch {
    /// Whether committing it would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Batch::default()
    }
}

/// Entries read from a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entries {
    /// Encoded entries, gapless, from the one after the asked seq on; empty at the end of the log.
    Found(Vec<Bytes>),
    /// The log no longer reaches back to the asked seq.
    Trimmed,
}

/// A range of a copy's records, read in one read transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Keys and encoded records, in key order.
    pub records: Vec<(Key, Bytes)>,
    /// The seq that was applied when the chunk was read.
    pub at: Seq,
    /// No record lies behind the last of this chunk.
    pub last: bool,
}

/// What a log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogExtent {
    /// The entry before the first that it holds.
    pub start: Seq,
    /// Bytes of the entries that it holds.
    pub bytes: u64,
}

/// Sizes, for status and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Keys that exist.
    pub keys: u64,
    /// Bytes that the file takes on the disk.
    pub file_bytes: u64,
    /// Bytes of the entries in the log.
    pub log_bytes: u64,
    /// The entry before the first that the log holds.
    pub log_start: Seq,
    /// The cache of the file's pages; all zero where there is none.
    pub cache: CacheStats,
}

/// The cache of a file's pages, and what was found in it since the file was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Bytes in it.
    pub bytes: u64,
    /// Pages that were found in it.
    pub hits: u64,
    /// Pages that were read from the disk.
    pub misses: u64,
    /// Pages that had to leave.
    pub evictions: u64,
}

/// A store for one shard copy. All methods block; `commit` waits for the disk. Readers never wait for the writer.
pub trait Engine: Send + Sync + std::fmt::Debug + 'static {
    /// The record of `key`, or none.
    fn get(&self, space: Space, key: &Key) -> Result<Option<Record>, Error>;

    /// Whether there is a record of `key`.
    fn contains(&self, space: Space, key: &Key) -> Result<bool, Error>;

    /// What the file says of itself.
    fn state(&self) -> Result<State, Error>;

    /// Makes `batch` durable and visible, as a whole. Panics when the batch breaks the log's order, for then the caller is
    /// wrong. Called by one thread at a time.
    fn commit(&self, batch: &Batch) -> Result<(), Error>;

    /// Entries after `after`, in order, about `bytes_max` bytes of them, at least one if there is one.
    fn entries(&self, after: Seq, bytes_max: usize) -> Result<Entries, Error>;

    /// Records of keys above `after` (none: from the first), about `bytes_max` bytes, at least one if there is one.
    fn chunk(&self, space: Space, after: Option<&Key>, bytes_max: usize) -> Result<Chunk, Error>;

    /// Sizes as of now.
    fn stats(&self) -> Result<Stats, Error>;

    /// What the log holds: cheap, for it is asked for at every commit.
    fn log_extent(&self) -> Result<LogExtent, Error> {
        self.stats().map(|stats| LogExtent { start: stats.log_start, bytes: stats.log_bytes })
    }

    /// Whether there is room for more writes; waits for it, at most so long. A commit without room is done all the same:
    /// its caller keeps to the bound.
    fn room(&self, wait: Duration) -> bool {
        let _ = wait;
        true
    }

    /// Brings all that is applied into the file itself, where part of it stands beside it.
    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Bytes that can still be written to the disk the file is on; none where that has no meaning.
    fn free_bytes(&self) -> Option<u64>;
}

/// The files of a copy: where a snapshot is received, and how it takes the place of what was there (rule 14).
pub trait Files: Send + Sync + std::fmt::Debug + 'static {
    /// A new, empty file beside the copy's own, marked as incoming; a left-over one is replaced.
    fn create_incoming(&self) -> Result<std::sync::Arc<dyn Engine>, Error>;

    /// Puts the incoming file in the place of the copy's own: rename, and sync the directory.
    fn promote_incoming(&self) -> Result<(), Error>;

    /// Removes an incoming file that will not be completed, if there is one: its space may be wanted.
    fn discard_incoming(&self);

    /// Where the copy's lost writes are kept: beside its own file, and untouched by what becomes of that (rule 21).
    fn ledger(&self) -> std::sync::Arc<ledger::Ledger>;
}
