//! What an operator asks of one node: to throw a replica's copy away, and the checksum of a range of a copy.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Store;
use super::view::{Discarded, RangeSum};
use crate::replication::pair::{Duty, reset};
use crate::storage::checksum::{Range, Sum};
use crate::types::{Key, NodeName};

/// Why an operation was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// What it names is not in this cluster.
    #[error("{detail}")]
    Unknown {
        /// What was named.
        detail: String,
        /// What there is.
        hint: String,
    },
    /// Another node has to be asked.
    #[error("{detail}")]
    Elsewhere {
        /// What was asked of whom.
        detail: String,
        /// Where that one listens.
        address: String,
    },
    /// It cannot be done now, or not here.
    #[error("{0}")]
    Conflict(String),
    /// Something speaks against it.
    #[error("{detail}")]
    Warned {
        /// What.
        detail: String,
        /// What to do instead.
        hint: String,
    },
    /// It was begun, cannot be taken back, and is not confirmed yet.
    #[error("{0}")]
    Unconfirmed(String),
    /// The disk failed, or we did.
    #[error("{0}")]
    Failed(String),
}

impl From<reset::Refused> for Refused {
    fn from(refused: reset::Refused) -> Refused {
        match refused {
            reset::Refused::Conflict(detail) => Refused::Conflict(detail),
            reset::Refused::Failed(detail) => Refused::Failed(detail),
        }
    }
}

impl Store {
    /// Throws away the copy of a replica, which must be this node; the name says that whoever asks knows it. Goes on by
    /// itself when its caller leaves.
    pub async fn reset_replica(self: &Arc<Self>, node: &str, deadline: Instant) -> Result<Discarded, Refused> {
        let topology = self.map.topology();
        let Some(named) = topology.node(&NodeName::new(node)) else {
            let names: Vec<&str> = topology.nodes().map(|node| node.name.as_str()).collect();
            return Err(Refused::Unknown {
                detail: format!("this cluster has no node {node:?}"),
                hint: format!("its nodes are {}", names.join(", ")),
            });
        };
        if named.name != self.me.name {
            return Err(Refused::Elsewhere {
                detail: format!("this is node {}; only node {node} itself throws its copy away", self.me.name),
                address: named.address.to_string(),
            });
        }
        let pair = self.copies.get(&named.shard).map(Arc::clone);
        let pair = pair.ok_or_else(|| Refused::Failed(format!("node {node} holds no copy of its shard")))?;
        let shard = pair.shard.name.clone();
        let reset::Discarded { end, keys } = self.tasks.carry(async move { pair.reset(deadline).await }).await?;
        Ok(Discarded { node: node.to_owned(), shard, end: end.0, keys })
    }
    /// The checksum of a range of this node's copy of a shard.
    pub async fn checksum(&self, shard: &str, range: Range) -> Result<RangeSum, Refused> {
        let topology = self.map.topology();
        let Some(named) = topology.shards.iter().find(|known| known.name == shard) else {
            let names: Vec<&str> = topology.shards.iter().map(|shard| shard.name.as_str()).collect();
            return Err(Refused::Unknown {
                detail: format!("this cluster has no shard {shard:?}"),
                hint: format!("its shards are {}", names.join(", ")),
            });
        };
        let Some(pair) = self.copies.get(&named.index) else {
            return Err(Refused::Elsewhere {
                detail: format!("node {} holds no copy of shard {shard}", self.me.name),
                address: self.map.leader_of(named).address.to_string(),
            });
        };
        if pair.duty() == Duty::Following && !pair.had_full_copy() {
            let state = pair.follow_state();
            return Err(Refused::Conflict(format!(
                "the copy of node {} is not whole yet (it is {})",
                self.me.name,
                state.name()
            )));
        }
        let after_b64 = range.after.as_ref().map(base64url);
        let sum = pair.checksum(range).await;
        let Sum { checksum, records, until, last, at } = sum.map_err(|error| Refused::Failed(error.to_string()))?;
        Ok(RangeSum {
            node: self.me.name.to_string(),
            shard: shard.to_owned(),
            checksum: format!("{checksum:#018x}"),
            records,
            after_b64,
            until_b64: until.as_ref().map(base64url),
            last,
            at: at.0,
        })
    }
}

fn base64url(key: &Key) -> String {
    URL_SAFE_NO_PAD.encode(key.as_bytes())
}
