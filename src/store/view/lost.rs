//! What the store shows of lost writes: the ledgers, their lines, and what became of one write.

use serde::{Deserialize, Serialize};

/// A copy's ledger of lost writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerStatus {
    /// Its file.
    pub file: String,
    /// Writes that it lists.
    pub writes: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes that it may have.
    pub bytes_max: u64,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A line of `/admin/v1/shards/{shard}/lost-writes`: a write that the shard's leader never had, in the form that an import
/// takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostWrite {
    /// The key, when it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key in base64url, when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_b64: Option<String>,
    /// The value of a put, when it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value in base64url, when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_b64: Option<String>,
    /// `put` or `delete`.
    pub op: String,
    /// What the value was put with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The `ETag` that the write was answered with, without quotes.
    pub version: String,
    /// The leader's clock when it took the write, in milliseconds since 1970; none when that is not known any more.
    pub time: Option<u64>,
    /// The number of the epoch in which it was made.
    pub epoch: u64,
    /// Who led in it.
    pub leader: String,
    /// The epoch that began without it: number and leader.
    pub superseded_by: String,
    /// The node in whose ledger it stands.
    pub node: String,
    /// The ledger has everything that was lost then. Else: of what left the copy's log, only what keys held last.
    pub complete: bool,
    /// Where it has not: so many entries were lost then, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_at_most: Option<u64>,
}

/// The last line of the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostWritesEnd {
    /// `true`: nothing follows.
    pub done: bool,
    /// Lines before this one.
    pub writes: u64,
    /// The ledgers that were read.
    pub nodes: Vec<Listing>,
    /// Nodes whose ledger could not be read, or not to its end.
    pub silent: Vec<SilentNode>,
    /// Ledgers of which a part is damaged.
    pub damaged: Vec<SilentNode>,
}

/// How much one node's ledger had.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Listing {
    /// The node's name.
    pub node: String,
    /// Lines from its ledger.
    pub writes: u64,
}

/// A node that did not say what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilentNode {
    /// Its name.
    pub node: String,
    /// Why.
    pub why: String,
}

/// `/v1/receipt`: what became of an acknowledged write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptView {
    /// `yes`, `superseded`, `lost` or `unknown`.
    pub answer: String,
    /// In words.
    pub why: String,
    /// The key's shard.
    pub shard: String,
    /// Its leader's address.
    pub leader: String,
    /// The epoch in which it leads.
    pub epoch: u64,
    /// The version that the key has now; none: there is no such key.
    pub record: Option<String>,
    /// The nodes in whose ledger of lost writes it stands.
    pub ledgers: Vec<String>,
    /// The nodes that could not be asked.
    pub silent: Vec<SilentNode>,
}
