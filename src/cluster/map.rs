//! The map, merged from the file and from what nodes say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use tracing::info;

use crate::config::{Node, Shard, Topology};
use crate::types::{Epoch, ShardIndex};

/// The shard whose leader draws the cluster's uid.
const UID_SHARD: ShardIndex = ShardIndex(0);

/// What this node knows of the cluster. Shared by all of its parts.
#[derive(Debug)]
pub struct ClusterMap {
    topology: Arc<Topology>,
    /// The highest epoch known of each shard, by index; only ever grows.
    epochs: RwLock<Vec<Epoch>>,
    /// In the last round of the exchange, every other node answered and knew no cluster uid.
    uid_unknown_to_all: AtomicBool,
}

impl ClusterMap {
    /// The map of a file: everyone in the first epoch.
    #[must_use]
    pub fn new(topology: Arc<Topology>) -> ClusterMap {
        let epochs = topology.shards.iter().map(|shard| Epoch::first(shard.first_leader().name.clone())).collect();
        ClusterMap { topology, epochs: RwLock::new(epochs), uid_unknown_to_all: AtomicBool::new(false) }
    }

    /// Takes a fact about a shard; true when it is news (rule 15).
    pub fn merge(&self, shard: ShardIndex, epoch: &Epoch) -> bool {
        if self.epochs.read().get(shard.0 as usize).is_none_or(|known| *known >= *epoch) {
            return false; // nearly always: every message brings what is known
        }
        let mut epochs = self.epochs.write();
        let Some(known) = epochs.get_mut(shard.0 as usize) else { return false };
        if *known >= *epoch {
            return false;
        }
        let name = self.topology.shard(shard).map_or("", |shard| shard.name.as_str());
        info!(shard = name, before = %known, %epoch, "a shard has a new leader");
        *known = epoch.clone();
        true
    }

    /// The highest epoch known of a shard.
    #[must_use]
    pub fn epoch_of(&self, shard: ShardIndex) -> Option<Epoch> {
        self.epochs.read().get(shard.0 as usize).cloned()
    }

    /// Every shard's highest known epoch.
    #[must_use]
    pub fn epochs(&self) -> Vec<(ShardIndex, Epoch)> {
        let epochs = self.epochs.read();
        self.topology.shards.iter().map(|shard| shard.index).zip(epochs.iter().cloned()).collect()
    }

    /// Who leads a shard: the one place that decides it. The leader of the highest epoch, as long as the file knows a copy
    /// of that name; else the file's first.
    #[must_use]
    pub fn leader_of<'a>(&self, shard: &'a Shard) -> &'a Node {
        let epochs = self.epochs.read();
        let epoch = epochs.get(shard.index.0 as usize);
        epoch
            .and_then(|epoch| shard.copies.iter().find(|copy| copy.name == epoch.leader))
            .unwrap_or_else(|| shard.first_leader())
    }

    /// Enters what the last round of the exchange found out about the cluster's uid.
    pub fn set_uid_unknown_to_all(&self, unknown: bool) {
        self.uid_unknown_to_all.store(unknown, Ordering::Relaxed);
    }

    /// Whether the leader of this shard is to draw the cluster's uid: shard 0, and nobody knows one (rule 1).
    #[must_use]
    pub fn uid_is_drawn_by(&self, shard: ShardIndex) -> bool {
        shard == UID_SHARD && self.uid_unknown_to_all.load(Ordering::Relaxed)
    }

    /// The shards and nodes of the file.
    #[must_use]
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::{HashFunction, Placement};
    use crate::types::NodeName;

    fn map() -> ClusterMap {
        let node = |ordinal: u32| Node {
            name: NodeName::new(format!("A/{ordinal}")),
            address: ([127, 0, 0, 1], 8000).into(),
            shard: ShardIndex(0),
        };
        let shard = Shard { name: "A".into(), index: ShardIndex(0), copies: vec![node(0), node(1)] };
        let placement = Placement { hash: HashFunction::Fnv1a, shards: 1 };
        ClusterMap::new(Arc::new(Topology { placement, shards: vec![shard] }))
    }

    fn leader(map: &ClusterMap) -> String {
        map.leader_of(&map.topology().shards[0]).name.to_string()
    }

    #[test]
    fn leader_of_follows_the_highest_epoch_whatever_order_facts_come_in() {
        let map = map();
        let epoch = |number, leader| Epoch { number, leader: NodeName::new(leader) };
        assert_eq!(leader(&map), "A/0");
        assert!(map.merge(ShardIndex(0), &epoch(3, "A/1")));
        assert_eq!(leader(&map), "A/1");
        assert!(!map.merge(ShardIndex(0), &epoch(2, "A/0")));
        assert!(!map.merge(ShardIndex(0), &epoch(3, "A/0")), "of two with one number the higher name holds");
        assert_eq!(leader(&map), "A/1");
    }

    #[test]
    fn merge_about_a_shard_that_is_not_in_the_map_is_ignored() {
        assert!(!map().merge(ShardIndex(9), &Epoch { number: 9, leader: NodeName::new("X") }));
    }
}
