//! What is asked of the writer, and what it may answer.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::mandate::Mandate;
use crate::storage::{Engine, Error, LogEntry, Rewind, Role, Trim};
use crate::types::{ClusterUid, Cursor, Epoch, Incarnation, Mutation, NodeName, Seq, ShardUid, Version};

/// Whether the copy takes entries, and from whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// From nobody; with the reason, for whoever is refused.
    Closed(String),
    /// Writes of clients, which get seq in this epoch and incarnation.
    Leading {
        /// The leadership.
        epoch: Epoch,
        /// This opening of the file.
        incarnation: Incarnation,
        /// Leave to do so, which others may end.
        mandate: Mandate,
    },
    /// Writes are held back for a moment, neither taken nor refused: the shard is being handed over.
    Holding,
    /// Entries of the leader.
    Following,
}

/// Why the writer did not do it. Of everything but `Unknown` and `Fenced` nothing was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The copy takes no writes now.
    #[error("{0}")]
    Closed(String),
    /// Writes are held back for a moment, for the shard is being handed over, or this process stood still and asks whether it
    /// leads: it may be given to the writer again, or to another node.
    #[error("it is being found out who leads the shard")]
    Held,
    /// It got a seq, and before its client could be answered another node was found to lead, or to be about to: it may last,
    /// or be lost (rule 17).
    #[error("another node began to lead the shard before the write could be confirmed")]
    Fenced,
    /// The client's time was over before the write was begun.
    #[error("the deadline passed before the write was begun")]
    DeadlinePassed,
    /// The queue is at its bound.
    #[error("the shard's write queue is full")]
    Overloaded,
    /// What was written is waiting for the file, and there is no room for more of it.
    #[error("the disk does not keep up: too many writes wait for the file")]
    NoRoom,
    /// Less free space than it wants to see: `storage.min_free_bytes`, more for a large value, less for a delete.
    #[error("{free} bytes are free on the disk, and it takes {needed} (storage.min_free_bytes)")]
    DiskFull {
        /// Bytes that are free.
        free: u64,
        /// Bytes that must be free for it to be begun.
        needed: u64,
    },
    /// Fewer replicas are present than `replication.min_replicas`; with what the leader sees.
    #[error("{0}")]
    TooFewReplicas(String),
    /// As much is at risk as `replication.max_at_risk_…` allows; with what the leader sees.
    #[error("{0}")]
    AtRisk(String),
    /// Entries that do not follow the end of this copy's log.
    #[error("entry {got} does not follow the end of the log, {end}")]
    OutOfOrder {
        /// The first entry offered.
        got: Seq,
        /// The end of the log.
        end: Seq,
    },
    /// The store failed before this was begun, or while it was read for it.
    #[error("{0}")]
    Failed(Error),
    /// The commit failed: the write may be durable, or not (rule 9).
    #[error("the commit failed, and whether it is durable is not known: {0}")]
    Unknown(Error),
}

/// A write that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its version; none for a delete of nothing, which writes nothing.
    pub version: Option<Version>,
    /// Whether the key was there before.
    pub existed: bool,
}

/// What is asked of the writer.
#[derive(Debug)]
pub enum Item {
    /// A client's write.
    Write {
        /// What happens to which key.
        mutation: Mutation,
        /// When its client stops waiting.
        deadline: Instant,
        /// Answered when it is durable, or refused.
        reply: oneshot::Sender<Result<Written, Refusal>>,
    },
    /// Entries that the leader sent.
    Append {
        /// In order, the first being the next after the end.
        entries: Vec<LogEntry>,
        /// Answered with the new end when they are durable.
        reply: oneshot::Sender<Result<Seq, Refusal>>,
    },
    /// Facts to write down.
    Note {
        /// What was learnt.
        facts: Facts,
        /// Answered when they are durable.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// From here on, another mode: a fence.
    SetMode {
        /// The mode.
        mode: Mode,
        /// Written down with it.
        facts: Facts,
        /// Answered when all that stood before it is durable.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// From here on, another file: a snapshot has arrived (rule 14).
    Swap {
        /// The copy that takes over; complete, and durable.
        engine: Arc<dyn Engine>,
        /// Answered when it has taken over.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// From here on, without the end of the log (rule 21).
    Rewind {
        /// What is taken back.
        rewind: Box<Rewind>,
        /// Answered when that is durable.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
}

impl Item {
    /// About how much it adds to a commit.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Item::Write { mutation, .. } => mutation.size(),
            Item::Append { entries, .. } => entries.iter().map(|entry| entry.bytes.len()).sum(),
            Item::Note { .. } | Item::SetMode { .. } | Item::Swap { .. } | Item::Rewind { .. } => 0,
        }
    }
}

/// Facts about the shard and the cluster that a copy persists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The shard's uid.
    pub shard_uid: Option<ShardUid>,
    /// The cluster's uid.
    pub cluster_uid: Option<ClusterUid>,
    /// The shard's epoch.
    pub epoch: Option<Epoch>,
    /// Who leads which shard, in the bytes of the cluster layer.
    pub leadership: Option<Bytes>,
    /// What the copy is.
    pub role: Option<Role>,
}

/// What others want written with the next commit; asked for at each, and after a second of idleness.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Upkeep {
    /// Cursors that replicas acknowledged.
    pub cursors: Vec<(NodeName, Option<Cursor>)>,
    /// What may leave the log.
    pub trim: Option<Trim>,
}

/// Says whether a write may be given this seq now; asked for each, right before it would be.
pub type GuardSource = Box<dyn FnMut(Seq, Instant) -> Result<(), Refusal> + Send>;

/// Gives the upkeep for a store whose log will end at this seq.
pub type UpkeepSource = Box<dyn FnMut(&dyn Engine, Seq) -> Upkeep + Send>;
