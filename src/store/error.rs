//! Why a request did not get what it asked for, in a form that travels between nodes: the client of a forwarding node
//! sees what the owner would have answered. `api::error` alone turns codes into HTTP statuses.

use super::ack::Unconfirmed;

/// The error codes that a store can answer with (API.md, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The node that owns the key could not be asked: refused, reset, or not connected in time.
    ShardUnreachable,
    /// Nobody takes this shard's writes now: starting, halted, fenced.
    NoLeader,
    /// A queue or a budget is at its bound.
    Overloaded,
    /// Time ran out.
    Deadline,
    /// `route=local` at a node that does not hold the key.
    WrongShard,
    /// Two nodes disagree about the placement.
    TopologyMismatch,
    /// The disk or the file failed.
    StorageFailed,
    /// Too little free space to write.
    DiskFull,
    /// A request arrived that had already been forwarded, and does not belong here either.
    ForwardingLoop,
    /// A value that this node's limits refuse.
    ValueTooLarge,
    /// A key that this node's limits refuse.
    KeyTooLong,
    /// A kind of request that this node does not know: it runs an older program.
    NotBuilt,
    /// As much is at risk as the leader's settings allow.
    AtRisk,
    /// Fewer replicas are there than the leader's settings, or the write itself, ask for.
    TooFewReplicas,
    /// The write is done, and was not acknowledged by the replicas that it asked for, in time.
    AckTimeout,
    /// No copy that can be reached is as fresh, or as far, as was asked for.
    TooStale,
    /// What a session has seen is not in its shard's history any more.
    SessionLost,
    /// We are wrong.
    Internal,
}

impl Code {
    /// All of them, in the order of the metrics' label.
    pub const ALL: [Code; 18] = [
        Code::ShardUnreachable,
        Code::NoLeader,
        Code::Overloaded,
        Code::Deadline,
        Code::WrongShard,
        Code::TopologyMismatch,
        Code::StorageFailed,
        Code::DiskFull,
        Code::ForwardingLoop,
        Code::ValueTooLarge,
        Code::KeyTooLong,
        Code::NotBuilt,
        Code::AtRisk,
        Code::TooFewReplicas,
        Code::AckTimeout,
        Code::TooStale,
        Code::SessionLost,
        Code::Internal,
    ];

    /// Its name in answers, logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Code::ShardUnreachable => "shard-unreachable",
            Code::NoLeader => "no-leader",
            Code::Overloaded => "overloaded",
            Code::Deadline => "deadline",
            Code::WrongShard => "wrong-shard",
            Code::TopologyMismatch => "topology-mismatch",
            Code::StorageFailed => "storage-failed",
            Code::DiskFull => "disk-full",
            Code::ForwardingLoop => "forwarding-loop",
            Code::ValueTooLarge => "value-too-large",
            Code::KeyTooLong => "key-too-long",
            Code::NotBuilt => "not-built",
            Code::AtRisk => "at-risk",
            Code::TooFewReplicas => "too-few-replicas",
            Code::AckTimeout => "ack-timeout",
            Code::TooStale => "too-stale",
            Code::SessionLost => "session-lost",
            Code::Internal => "internal",
        }
    }

    /// Its place in [`Code::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        Code::ALL.iter().position(|code| *code == self).unwrap_or(usize::MAX)
    }

    /// Whether the node that answers with it is at fault, or a node that it depends on: not the client.
    #[must_use]
    pub fn is_server_fault(self) -> bool {
        match self {
            Code::ShardUnreachable
            | Code::NoLeader
            | Code::Overloaded
            | Code::Deadline
            | Code::StorageFailed
            | Code::DiskFull
            | Code::ForwardingLoop
            | Code::AtRisk
            | Code::TooFewReplicas
            | Code::AckTimeout
            | Code::Internal => true,
            Code::WrongShard
            | Code::TopologyMismatch
            | Code::ValueTooLarge
            | Code::KeyTooLong
            | Code::NotBuilt
            | Code::TooStale
            | Code::SessionLost => false,
        }
    }
}

/// Whether a write took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It did not, and will not.
    No,
    /// It did.
    Yes,
    /// It may have, or may still.
    Unknown,
}

impl Applied {
    /// Its name in answers and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Applied::No => "no",
            Applied::Yes => "yes",
            Applied::Unknown => "unknown",
        }
    }
}

/// An error as its reader needs it: what happened, whether a write took effect, what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Error {
    /// What kind of error.
    pub code: Code,
    /// Whether the write took effect; `No` for reads.
    pub applied: Applied,
    /// What happened, with names and numbers.
    pub detail: String,
    /// The next thing to do.
    pub hint: String,
    /// The key's shard, where one is concerned.
    pub shard: Option<String>,
    /// The address of the shard's leader, where one is known.
    pub leader: Option<Box<str>>,
    /// Of `ack-timeout`: what was written, and which copies have it.
    pub unconfirmed: Option<Box<Unconfirmed>>,
    /// The best bound of a copy's age that is known, when none is fresh enough.
    pub stale_ms: Option<u64>,
}

impl Error {
    /// An error of which nothing was applied, without a hint yet.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Error {
        Error {
            code,
            applied: Applied::No,
            detail: detail.into(),
            hint: String::new(),
            shard: None,
            leader: None,
            unconfirmed: None,
            stale_ms: None,
        }
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = hint.into();
        self
    }

    /// Says whether the write took effect.
    #[must_use]
    pub fn applied(mut self, applied: Applied) -> Error {
        self.applied = applied;
        self
    }

    /// Says which shard is concerned.
    #[must_use]
    pub fn shard(mut self, name: impl Into<String>) -> Error {
        self.shard = Some(name.into());
        self
    }

    /// Says who leads the shard.
    #[must_use]
    pub fn leader(mut self, address: impl ToString) -> Error {
        self.leader = Some(address.to_string().into());
        self
    }

    /// Says what was written all the same.
    #[must_use]
    pub fn unconfirmed(mut self, unconfirmed: Unconfirmed) -> Error {
        self.unconfirmed = Some(Box::new(unconfirmed));
        self
    }

    /// Nothing was done, for the node that was asked does not lead: another may be asked instead.
    #[must_use]
    pub fn was_not_led(&self) -> bool {
        self.code == Code::NoLeader && self.applied == Applied::No
    }

    /// Whether asking again later can help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self.code {
            Code::ShardUnreachable
            | Code::NoLeader
            | Code::Overloaded
            | Code::Deadline
            | Code::DiskFull
            | Code::AtRisk
            | Code::TooFewReplicas
            | Code::TooStale => true,
            Code::WrongShard
            | Code::TopologyMismatch
            | Code::StorageFailed
            | Code::ForwardingLoop
            | Code::ValueTooLarge
            | Code::KeyTooLong
            | Code::NotBuilt
            | Code::AckTimeout // it is done
            | Code::SessionLost
            | Code::Internal => false,
        }
    }
}
