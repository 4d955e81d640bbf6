//! What can be asked of the store, and what it answers: typed operations in, typed outcomes out. The entry node alone
//! parses requests and renders answers; between nodes these types travel.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::ack::Ack;
use super::reads::Terms;
use crate::storage::Role;
use crate::types::codec;
use crate::types::{Content, Key, NodeName, Record, RequestId, ShardIndex, Version};

/// One request for one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What is to be done.
    pub operation: Operation,
    /// What a read must guarantee; writes ignore it.
    pub consistency: Consistency,
    /// How far the request may travel.
    pub reach: Reach,
    /// What it asks for beyond that; nearly all ask for nothing. Boxed, for a call is moved from hand to hand.
    pub wishes: Option<Box<Wishes>>,
    /// When the client stops waiting; checked again on the writer.
    pub deadline: Instant,
    /// Names the request in the logs of all nodes.
    pub request_id: RequestId,
}

/// What few requests ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wishes {
    /// The numbers that belong to a consistency: how old, how far.
    pub terms: Terms,
    /// What a write waits for beyond its leader's disk; none: nothing.
    pub ack: Option<Ack>,
}

impl Wishes {
    /// Those of a call; none when there is nothing to wish for.
    #[must_use]
    pub fn boxed(terms: Terms, ack: Option<Ack>) -> Option<Box<Wishes>> {
        (terms.are_any() || ack.is_some()).then(|| Box::new(Wishes { terms, ack }))
    }
}

impl Call {
    /// The numbers that belong to its consistency.
    #[must_use]
    pub fn terms(&self) -> Terms {
        self.wishes.as_deref().map_or_else(Terms::default, |wishes| wishes.terms)
    }

    /// What it waits for beyond its leader's disk.
    #[must_use]
    pub fn ack(&self) -> Option<Ack> {
        self.wishes.as_deref().and_then(|wishes| wishes.ack)
    }
}

/// What is to be done with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Read the record.
    Get {
        /// The key.
        key: Key,
    },
    /// Read all about the record but its value.
    Head {
        /// The key.
        key: Key,
    },
    /// Store content under the key.
    Put {
        /// The key.
        key: Key,
        /// What is stored.
        content: Content,
    },
    /// Remove the key.
    Delete {
        /// The key.
        key: Key,
    },
}

impl Operation {
    /// The key that it is about.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Operation::Get { key }
            | Operation::Head { key }
            | Operation::Put { key, .. }
            | Operation::Delete { key } => key,
        }
    }

    /// Whether it changes the data.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self, Operation::Get { .. } | Operation::Head { .. })
    }
}

/// What a read promises (API.md, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// The leader's present value: the default at every node.
    #[default]
    Leader,
    /// Whatever a copy at hand holds: this node's own, else the leader's, else a replica's.
    Any,
    /// What a copy holds that is no older than the request's terms allow.
    Bounded,
    /// What a copy holds that is as far as the session has seen.
    Session,
}

impl Consistency {
    /// Its name in requests and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Consistency::Leader => "leader",
            Consistency::Any => "any",
            Consistency::Bounded => "bounded",
            Consistency::Session => "session",
        }
    }
}

/// How far a request may travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// To the node that can serve it, one hop away.
    #[default]
    Forward,
    /// Not beyond this node: its own copy serves it (a replica's serves reads), or the answer is `wrong-shard`.
    Local,
}

/// An answer, and who gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What came of it.
    pub outcome: Outcome,
    /// Who served it, and with what guarantee.
    pub served: Served,
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A read found the key.
    Found(Record),
    /// A look found the key.
    Described {
        /// The record, with an empty value.
        record: Record,
        /// Bytes that its value has.
        value_bytes: u64,
    },
    /// A read found no such key.
    Missing,
    /// A put is durable.
    Stored {
        /// The version that it gave to the key.
        version: Version,
        /// The key was not there before.
        created: bool,
        /// Which copies hold it.
        acks: Acks,
    },
    /// A delete is durable, or there was nothing to delete.
    Deleted {
        /// The version of the delete; none when the key was not there, for then nothing was written.
        version: Option<Version>,
        /// Which copies hold it.
        acks: Acks,
    },
}

impl Outcome {
    /// What a read of all comes to for one that asked for no value.
    #[must_use]
    pub fn described(self) -> Outcome {
        match self {
            Outcome::Found(mut record) => {
                let value_bytes = std::mem::take(&mut record.content.value).len() as u64;
                Outcome::Described { record, value_bytes }
            }
            other => other,
        }
    }
}

/// Copies that are known to hold a write durably, over copies configured; the leader counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acks {
    /// Copies that have it.
    pub have: u32,
    /// Copies that there are.
    pub of: u32,
}

/// Who gave an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Which copy, and how the request came to it.
    pub place: Arc<Place>,
    /// What that copy is.
    pub role: Role,
    /// What the read really was.
    pub consistency: Consistency,
    /// Upper bound of a read's age: 0 at the leader, none when it cannot be bounded (rule 24).
    pub stale_ms: Option<u64>,
    /// How far the copy was, for a session: where the read asked, and where a delete found nothing, which has no version of
    /// its own.
    pub position: Option<Box<Version>>,
}

/// A copy as this node answers from it: its own, or another node's, one hop away. There are as many as copies in the map,
/// and answers share them.
#[derive(Debug)]
pub struct Place {
    /// The shard.
    pub shard: String,
    /// Its index.
    pub index: ShardIndex,
    /// The address of the node that holds the copy.
    pub node: SocketAddr,
    /// The hop that requests take, from and to; none when the copy is this node's.
    pub forwarded: Option<(SocketAddr, SocketAddr)>,
    /// What whoever renders answers makes of the above, once; nothing here looks into it.
    pub rendered: OnceLock<Bytes>,
    /// Shard and node as they stand in an answer between nodes.
    pub(super) wire: Bytes,
}

impl Place {
    /// The copy of `shard` that the node at this address holds.
    #[must_use]
    pub fn new(shard: &str, index: ShardIndex, node: SocketAddr, forwarded: Option<(SocketAddr, SocketAddr)>) -> Place {
        let mut wire = BytesMut::new();
        codec::put_bytes(&mut wire, shard.as_bytes());
        codec::put_bytes(&mut wire, node.to_string().as_bytes());
        Place { shard: shard.to_owned(), index, node, forwarded, rendered: OnceLock::new(), wire: wire.freeze() }
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Place) -> bool {
        (&self.shard, self.node, self.forwarded) == (&other.shard, other.node, other.forwarded)
    }
}

impl Eq for Place {}

/// Where a key lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The shard's index.
    pub shard: ShardIndex,
    /// The shard's name.
    pub name: String,
    /// Who leads it, as far as this node knows.
    pub leader: NodeName,
    /// Where the leader listens.
    pub leader_address: SocketAddr,
    /// The leader is this node.
    pub is_here: bool,
}
