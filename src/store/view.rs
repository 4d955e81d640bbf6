//! What the store shows of itself, in the shape of the JSON that API.md promises.

mod lost;

use serde::{Deserialize, Serialize};

pub use lost::{LedgerStatus, Listing, LostWrite, LostWritesEnd, ReceiptView, SilentNode};

use crate::types::NodeName;

/// `/v1/cluster`: the map as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// The cluster's uid, 16 hex digits; none until one was drawn.
    pub cluster: Option<String>,
    /// `static`.
    #[serde(skip_deserializing)]
    pub profile: &'static str,
    /// `fnv1a` or `fnv1`.
    pub hash_function: String,
    /// Fingerprint of the placement, `0x…`: equal on nodes that can talk.
    pub placement: String,
    /// Every node of the file.
    pub nodes: Vec<NodeView>,
    /// Every shard, by index.
    pub shards: Vec<ShardView>,
}

/// A node in the map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// `up`, `down`, `refused` (it disagrees about the placement) or `unknown`, from this node's last contact with it.
    pub state: String,
}

/// A shard in the map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardView {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// The number of the highest epoch that this node knows.
    pub epoch: u64,
    /// The leader's address.
    pub leader: String,
    /// The replicas' addresses.
    pub replicas: Vec<String>,
}

/// `/v1/explain`: why a key is where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The key, when it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key in base64url, when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_b64: Option<String>,
    /// Its hash, `0x…`.
    pub hash: String,
    /// `fnv1a` or `fnv1`.
    pub hash_function: String,
    /// The shard's name.
    pub shard: String,
    /// The shard's index.
    pub index: u32,
    /// The leader's address.
    pub leader: String,
    /// The shard's epoch.
    pub epoch: u64,
    /// What every copy says of the key.
    pub copies: Vec<CopyOfKey>,
}

/// What one copy says of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOfKey {
    /// The node's address.
    pub node: String,
    /// `leader` or `replica`.
    pub role: String,
    /// The `ETag` of the record that it holds (without quotes); none when it holds none, or cannot be asked.
    pub version: Option<String>,
    /// Entries that the copy is behind its leader; none when unknown.
    pub lag_entries: Option<u64>,
    /// Age of the oldest entry that it lacks; none when unknown.
    pub lag_ms: Option<u64>,
    /// Why the copy could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `/admin/v1/status`: this node's copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node's name.
    pub node: String,
    /// Its address.
    pub address: String,
    /// The program's version.
    #[serde(skip_deserializing)]
    pub version: &'static str,
    /// When a write is answered. `fsync`: once it is synced to the leader's disk, as data and as queue entry.
    #[serde(skip_deserializing)]
    pub durability: &'static str,
    /// How replicas follow. `asynchronous`: a write is answered without waiting for them.
    #[serde(skip_deserializing)]
    pub replication: &'static str,
    /// The cluster's uid.
    pub cluster: Option<String>,
    /// Fingerprint of the placement that it reads; nodes with different ones refuse each other.
    pub placement: String,
    /// The same in words.
    pub placement_text: String,
    /// Fingerprint of all nodes' names and addresses that it reads; nodes with different ones warn.
    pub addresses: String,
    /// Milliseconds since the process started.
    pub uptime_ms: u64,
    /// Its copies; one in this profile.
    pub copies: Vec<CopyStatus>,
    /// The other nodes that it has had to do with.
    pub peers: Vec<PeerStatus>,
    /// What is wrong, as this node sees it; empty when all is well.
    pub problems: Vec<Problem>,
}

/// Another node, as this one sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// `up`, `down` or `refused`, as in [`NodeView::state`].
    pub state: String,
    /// For how long it has been so, in milliseconds.
    pub since_ms: Option<u64>,
    /// Why.
    pub detail: Option<String>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of thing, for programs: `halted`, `store-failed`, `disk-full`, `topology-mismatch`,
    /// `addresses-differ`, `replica-away`, a state of a replica, ….
    pub code: String,
    /// The node that it is about.
    pub about: Option<String>,
    /// A sentence.
    pub what: String,
    /// For how long it has been so, in milliseconds; none when that is not known.
    pub since_ms: Option<u64>,
    /// What to do next; a command where one helps.
    pub next: String,
}

impl Problem {
    /// A problem about nobody in particular, since nobody knows when.
    #[must_use]
    pub fn new(code: &str, what: impl Into<String>, next: impl Into<String>) -> Problem {
        Problem { code: code.to_owned(), about: None, what: what.into(), since_ms: None, next: next.into() }
    }

    /// Says which node it is about.
    #[must_use]
    pub fn about(mut self, node: &NodeName) -> Problem {
        self.about = Some(node.to_string());
        self
    }

    /// Says for how long it has been so, in milliseconds.
    #[must_use]
    pub fn since(mut self, ms: Option<u64>) -> Problem {
        self.since_ms = ms;
        self
    }
}

/// A copy, as the node that holds it sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyStatus {
    /// The shard's name.
    pub shard: String,
    /// The shard's index.
    pub index: u32,
    /// `leader` or `replica`.
    pub role: String,
    /// What it is doing: a leader is `leading`, `starting`, `halted` or `failed`; a copy that has given the lead away, and does
    /// not follow another yet, is `standing-aside`; a replica as [`ReplicaStatus::state`].
    pub state: String,
    /// For how long it has been doing that, in milliseconds; none: since it started.
    pub since_ms: Option<u64>,
    /// At a replica that receives a snapshot: records received so far.
    pub snapshot_records: Option<u64>,
    /// The epoch's number.
    pub epoch: u64,
    /// Who leads it.
    pub leader: String,
    /// The seq of its last durable entry.
    pub end: u64,
    /// Keys that it holds.
    pub keys: u64,
    /// Bytes that its file takes.
    pub bytes: u64,
    /// Bytes of its log.
    pub log_bytes: u64,
    /// At a replica: upper bound of its data's age; none when it cannot be bounded. 0 at a leader.
    pub stale_ms: Option<u64>,
    /// Its ledger of lost writes; none when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerStatus>,
    /// At a leader: entries that are on its disk only; none when it is unreplicated.
    pub at_risk_entries: Option<u64>,
    /// How old the oldest of them is, at most; 0 when there is none.
    pub at_risk_ms: Option<u64>,
    /// The shard has no replicas: all that it holds is on one disk.
    #[serde(default)]
    pub unreplicated: bool,
    /// At a leader: its replicas.
    pub replicas: Vec<ReplicaStatus>,
}

/// A replica, as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// The seq that it has acknowledged; none when it was never seen.
    pub cursor: Option<u64>,
    /// Entries that it is behind; none when it was never seen.
    pub lag_entries: Option<u64>,
    /// Age of the oldest entry that it lacks.
    pub lag_ms: Option<u64>,
    /// `streaming`, `catching-up`, `snapshot`, `away`, `unseen`, `given-up` or `leader-lost-data`.
    pub state: String,
    /// For how long it has not polled, or its leader has been halted, in milliseconds; none while all is well.
    pub since_ms: Option<u64>,
}

/// `/admin/v1/shards/{shard}/takeover`: what a takeover would come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeoverPlan {
    /// The shard's name.
    pub shard: String,
    /// Who leads it, as far as is known.
    pub leader: String,
    /// Where that one listens.
    pub leader_address: String,
    /// In which epoch.
    pub epoch: u64,
    /// The copy that would lead.
    pub to: String,
    /// Where that one listens.
    pub address: String,
    /// The epoch that would begin.
    pub next_epoch: u64,
    /// The last entry of that copy; none when it does not answer.
    pub end: Option<u64>,
    /// Entries that are known to have been, and that it lacks: at least so many would be lost.
    pub missing: Option<u64>,
    /// The copy that holds the most of those that could lead.
    pub best: Option<String>,
    /// How many nodes there are.
    pub nodes: usize,
    /// Those that do not answer.
    pub silent: Vec<String>,
    /// Every copy of the shard.
    pub copies: Vec<PlanCopy>,
    /// All that speaks against it.
    pub objections: Vec<ObjectionView>,
}

/// A copy in a [`TakeoverPlan`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanCopy {
    /// The node's name.
    pub node: String,
    /// Its address.
    pub address: String,
    /// `leading`, `whole`, `never whole`, `halted`, `failed`, `silent` or `unknown`.
    pub state: String,
    /// Its last entry.
    pub end: Option<u64>,
    /// The leader's last entry, as this replica heard it last.
    pub heard_end: Option<u64>,
    /// How long ago, in milliseconds.
    pub heard_ms: Option<u64>,
}

/// Something that speaks against a takeover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectionView {
    /// A sentence.
    pub what: String,
    /// What to do instead.
    pub next: String,
    /// `force` goes on in spite of it.
    pub can_be_forced: bool,
}

/// `POST /admin/v1/shards/{shard}/takeover`: what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenOver {
    /// The shard's name.
    pub shard: String,
    /// Who leads it now.
    pub leader: String,
    /// Where that one listens.
    pub address: String,
    /// The epoch that began.
    pub epoch: u64,
    /// The last entry of the copy, at which it began.
    pub end: u64,
    /// Entries that are known to have been, and that it lacks: at least so many are lost.
    pub missing: u64,
    /// Nodes that have promised.
    pub promised: usize,
    /// Nodes that there are.
    pub nodes: usize,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// `POST /admin/v1/shards/{shard}/switchover`: what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedOver {
    /// The shard's name.
    pub shard: String,
    /// Who leads it now.
    pub leader: String,
    /// Where that one listens.
    pub address: String,
    /// The epoch that began.
    pub epoch: u64,
    /// The last entry before it.
    pub end: u64,
    /// For how long writes waited, in milliseconds.
    pub paused_ms: u64,
}

/// `/admin/v1/replica/reset`: what a replica threw away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discarded {
    /// The node's name.
    pub node: String,
    /// Its shard's name.
    pub shard: String,
    /// The last entry that its copy held.
    pub end: u64,
    /// How many keys it held.
    pub keys: u64,
}

/// `/admin/v1/checksum`: what this node's copy of a shard holds in a range of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeSum {
    /// The node's name.
    pub node: String,
    /// The shard's name.
    pub shard: String,
    /// xxh3-64 over key, version and value of each record, `0x…`.
    pub checksum: String,
    /// How many records the range holds.
    pub records: u64,
    /// Where the range begins, behind this key; none: at the first.
    pub after_b64: Option<String>,
    /// Where it ends, with this key; none: at the end of the copy.
    pub until_b64: Option<String>,
    /// No record of this copy lies behind the range.
    pub last: bool,
    /// The last entry that was applied when it was read.
    pub at: u64,
}

/// What `/readyz` asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Able to do its role: a leader takes writes, a replica has had a full copy.
    Role,
    /// Able to serve reads.
    Reads,
    /// Able to take writes; a replica never is.
    Writes,
}

/// A line of `/livez` or `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// Whether it is well.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
}

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All is well.
    Ok,
    /// Something is wrong that does not keep the node from its role.
    Warning,
    /// The node cannot do what was asked about.
    Failed,
}

impl Verdict {
    /// Well, or not.
    #[must_use]
    pub fn of(ok: bool) -> Verdict {
        if ok { Verdict::Ok } else { Verdict::Failed }
    }

    /// Whether the node can do what was asked about.
    #[must_use]
    pub fn passes(self) -> bool {
        self != Verdict::Failed
    }
}
