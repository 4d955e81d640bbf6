//! What a valid `sharding.toml` says: shards, nodes, who leads at first, and the settings.

use std::net::SocketAddr;
use std::time::Duration;

use crate::placement::Placement;
use crate::types::{NodeName, ShardIndex};

/// A node of the file: one `kv serve` process at one address, with one copy of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name, unique, not its address (rule 2).
    pub name: NodeName,
    /// Where it listens, for clients and peers alike.
    pub address: SocketAddr,
    /// The shard of which it holds a copy.
    pub shard: ShardIndex,
}

/// A shard of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its name, unique.
    pub name: String,
    /// Its index: position in [`Topology::shards`].
    pub index: ShardIndex,
    /// Its copies: the leader of the first epoch, then the replicas in the file's order.
    pub copies: Vec<Node>,
}

impl Shard {
    /// The node that leads the first epoch.
    #[must_use]
    pub fn first_leader(&self) -> &Node {
        self.copies.first().unwrap_or_else(|| unreachable!("a shard has a leader"))
    }
}

/// The shards and nodes of a valid file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Which key belongs to which shard.
    pub placement: Placement,
    /// The shards, by index.
    pub shards: Vec<Shard>,
}

impl Topology {
    /// The shard with this index, if the file has it.
    #[must_use]
    pub fn shard(&self, index: ShardIndex) -> Option<&Shard> {
        self.shards.get(index.0 as usize)
    }

    /// Every node, shard by shard, leaders first.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.shards.iter().flat_map(|shard| &shard.copies)
    }

    /// The node of this name.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes().find(|node| node.name == *name)
    }

    /// The node at this address.
    #[must_use]
    pub fn node_at(&self, address: SocketAddr) -> Option<&Node> {
        self.nodes().find(|node| node.address == address)
    }

    /// A hash of what two nodes must agree on before they talk (rule 16): profile, hash function, number of shards, index
    /// to name.
    #[must_use]
    pub fn placement_hash(&self) -> u64 {
        let names: Vec<String> = self.shards.iter().map(|shard| format!("{}={}", shard.index, shard.name)).collect();
        fingerprint(&format!("static\n{}\n{}\n{}", self.placement.hash, self.placement.shards, names.join("\n")))
    }

    /// A hash of all nodes' names and addresses; two nodes that differ in it only warn.
    #[must_use]
    pub fn addresses_hash(&self) -> u64 {
        let nodes: Vec<String> = self.nodes().map(|node| format!("{}={}", node.name, node.address)).collect();
        fingerprint(&nodes.join("\n"))
    }
}

fn fingerprint(text: &str) -> u64 {
    crate::placement::HashFunction::Fnv1a.hash(text.as_bytes())
}

/// What a leader does that finds no majority of nodes at its start (rule 18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartAlone {
    /// It leads, and warns: what it takes may be at risk.
    #[default]
    Lead,
    /// It serves `any` reads and refuses writes until it can ask.
    Wait,
}

/// Everything in the file that is not the topology. Every setting has a default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `limits.key_bytes_max`: longest key, in bytes.
    pub key_bytes_max: usize,
    /// `limits.value_bytes_max`: longest value, in bytes; at most 64 MiB, for a peer frame must hold it.
    pub value_bytes_max: usize,
    /// `limits.header_bytes_max`: longest request header block, in bytes.
    pub header_bytes_max: usize,
    /// `limits.request_timeout_ms`: the whole request; `timeout=` may only shorten it.
    pub request_timeout: Duration,
    /// `limits.connections_max`: open connections per node; beyond it new ones wait in the kernel's queue.
    pub connections_max: usize,
    /// `limits.body_bytes_in_flight_max`: request bodies held in memory at once; beyond it `503 overloaded`.
    pub body_bytes_in_flight_max: usize,
    /// `storage.cache_bytes`: redb's page cache.
    pub cache_bytes: usize,
    /// `storage.min_free_bytes`: below so much free disk, writes are refused with `507`.
    pub min_free_bytes: u64,
    /// `storage.ledger_bytes_max`: the ledger of lost writes; at it a copy that would list more stays off history.
    pub ledger_bytes_max: u64,
    /// `replication.log_retain_bytes`: log kept behind the least cursor.
    pub log_retain_bytes: u64,
    /// `replication.queue_bytes_max`: log kept for replicas that are behind; beyond it the furthest is given up on.
    pub queue_bytes_max: u64,
    /// `replication.queue_entries_max`: the same bound in entries.
    pub queue_entries_max: u64,
    /// `replication.poll_interval_ms`: how long a poll at the end waits for news.
    pub poll_interval: Duration,
    /// `replication.min_replicas`: with fewer present, a leader refuses writes (rule 23); 0: with any number.
    pub min_replicas: usize,
    /// `replication.max_at_risk_entries`: writes on the leader's disk only, beyond which it refuses more; 0: no bound.
    pub max_at_risk_entries: u64,
    /// `replication.max_at_risk_ms`: age of the oldest of them from which on it refuses more; zero: no bound.
    pub max_at_risk: Duration,
    /// `replication.start_alone`: rule 18.
    pub start_alone: StartAlone,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            key_bytes_max: 1024,
            value_bytes_max: 16 << 20,
            header_bytes_max: 16 << 10,
            request_timeout: Duration::from_secs(30),
            connections_max: 10_000,
            body_bytes_in_flight_max: 256 << 20,
            cache_bytes: 64 << 20,
            min_free_bytes: 64 << 20,
            ledger_bytes_max: 256 << 20,
            log_retain_bytes: 64 << 20,
            queue_bytes_max: 1 << 30,
            queue_entries_max: 10_000_000,
            poll_interval: Duration::from_millis(100),
            min_replicas: 0,
            max_at_risk_entries: 0,
            max_at_risk: Duration::ZERO,
            start_alone: StartAlone::Lead,
        }
    }
}
