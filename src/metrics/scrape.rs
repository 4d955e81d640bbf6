//! What a look at the node shows, taken when somebody asks for the metrics: gauges, and the counters of the disk's cache
//! and of the process, which others keep. Tables give each its name, unit and help.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::process::Process;
use crate::types::UnixMs;

/// A look at a node.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    /// The node's name.
    pub node: String,
    /// The program's version.
    pub version: &'static str,
    /// When the process started.
    pub started: UnixMs,
    /// The process as the system sees it.
    pub process: Process,
    /// Bytes of request bodies that are held in memory.
    pub body_bytes: u64,
    /// Bytes of request bodies that may be held.
    pub body_bytes_max: u64,
    /// Connections that may be open.
    pub connections_max: u64,
    /// The number of the highest epoch known, by shard.
    pub epochs: Vec<(String, u64)>,
    /// The copies that the node holds.
    pub copies: Vec<CopySeen>,
    /// The other nodes of the map.
    pub peers: Vec<PeerSeen>,
}

/// A look at a copy. What is none is not shown.
#[derive(Debug, Clone, Default)]
pub struct CopySeen {
    /// Its shard's name.
    pub shard: String,
    /// What it is doing, in a word.
    pub state: &'static str,
    /// It takes the shard's writes.
    pub leads: bool,
    /// Its store has failed.
    pub failed: bool,
    /// Its file was not closed properly before this process opened it.
    pub unclean: bool,
    /// Keys that exist.
    pub keys: u64,
    /// Bytes of the file on the disk.
    pub file_bytes: u64,
    /// Bytes that can still be written to the disk.
    pub free_bytes: Option<u64>,
    /// Free bytes below which puts are refused.
    pub free_bytes_min: u64,
    /// The cache of the file's pages.
    pub cache: CacheSeen,
    /// The last durable entry.
    pub end: u64,
    /// Entries of the log.
    pub log_entries: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Entries that some replica has not acknowledged; at a leader.
    pub queue_entries: Option<u64>,
    /// Entries that a replica may lack before it is given up on.
    pub queue_entries_max: u64,
    /// Bytes that the log may have for the sake of a replica.
    pub queue_bytes_max: u64,
    /// Entries that no replica has; at a leader that has replicas.
    pub at_risk_entries: Option<u64>,
    /// Writes that its ledger lists: lost, when it came back to its leader's history.
    pub lost_writes: u64,
    /// Bytes of the ledger.
    pub ledger_bytes: u64,
    /// Bytes that it may have.
    pub ledger_bytes_max: u64,
    /// At most so old is the oldest of them, in milliseconds.
    pub at_risk_ms: Option<u64>,
    /// Upper bound of the copy's age, in milliseconds; none when it cannot be bounded.
    pub stale_ms: Option<u64>,
    /// Records received of a snapshot that is under way.
    pub snapshot_records: u64,
    /// Writes that wait for the writer.
    pub writer_items: u64,
    /// Bytes of what waits for the writer.
    pub writer_bytes: u64,
    /// The replicas, as their leader sees them.
    pub replicas: Vec<ReplicaSeen>,
}

/// The cache of a file's pages.
#[derive(Debug, Clone, Copy, Default)]
pub struct CacheSeen {
    /// Bytes in it.
    pub bytes: u64,
    /// Bytes that may be in it.
    pub bytes_max: u64,
    /// Pages that were found in it.
    pub hits: u64,
    /// Pages that were read from the disk.
    pub misses: u64,
    /// Pages that had to leave.
    pub evictions: u64,
}

/// A look at a replica, by its leader.
#[derive(Debug, Clone, Default)]
pub struct ReplicaSeen {
    /// Its name.
    pub name: String,
    /// What it is doing, in a word.
    pub state: &'static str,
    /// What it has acknowledged; none before it was ever seen.
    pub cursor: Option<u64>,
    /// Entries that it lacks.
    pub lag_entries: Option<u64>,
    /// Age of the oldest that it lacks, in milliseconds.
    pub lag_ms: Option<u64>,
    /// Since its last poll, in milliseconds.
    pub silent_ms: Option<u64>,
}

/// A look at another node.
#[derive(Debug, Clone, Default)]
pub struct PeerSeen {
    /// Its name.
    pub name: String,
    /// The last contact with it went well.
    pub up: bool,
    /// It refuses this node, or this node it.
    pub refused: bool,
    /// Its file names other nodes or addresses than ours.
    pub drifted: bool,
}

/// A line of a table: name, unit, help, and what it shows of a `T`.
type Shown<T> = (&'static str, Option<Unit>, &'static str, fn(&T) -> Option<f64>);

fn flag(flag: bool) -> Option<f64> {
    Some(f64::from(u8::from(flag)))
}

fn seconds(ms: Option<u64>) -> Option<f64> {
    ms.map(|ms| ms as f64 / 1000.0)
}

fn number(value: u64) -> Option<f64> {
    Some(value as f64)
}

const COPY: &[Shown<CopySeen>] = &[
    ("ostraca_shard_leading", None, "1 at the node that takes the shard's writes, 0 at other copies", |copy| {
        flag(copy.leads)
    }),
    (
        "ostraca_store_failed",
        None,
        "1 when a commit failed: the copy takes nothing until the process restarts",
        |copy| flag(copy.failed),
    ),
    ("ostraca_store_opened_unclean", None, "1 when the file had not been closed properly when it was opened", |copy| {
        flag(copy.unclean)
    }),
    ("ostraca_keys", None, "Keys that the copy holds", |copy| number(copy.keys)),
    ("ostraca_file", Some(Unit::Bytes), "Bytes that the copy's file takes on the disk", |copy| number(copy.file_bytes)),
    ("ostraca_disk_free", Some(Unit::Bytes), "Bytes that can still be written to the file's disk", |copy| {
        copy.free_bytes.map(|bytes| bytes as f64)
    }),
    (
        "ostraca_disk_free_min",
        Some(Unit::Bytes),
        "Free bytes below which writes are refused: storage.min_free_bytes",
        { |copy| number(copy.free_bytes_min) },
    ),
    ("ostraca_cache", Some(Unit::Bytes), "Bytes of the file's pages in memory", |copy| number(copy.cache.bytes)),
    ("ostraca_cache_max", Some(Unit::Bytes), "Bytes of pages that may be in memory: storage.cache_bytes", |copy| {
        number(copy.cache.bytes_max)
    }),
    ("ostraca_log_end", None, "The seq of the copy's last durable entry", |copy| number(copy.end)),
    ("ostraca_log_entries", None, "Entries that the log holds", |copy| number(copy.log_entries)),
    ("ostraca_log", Some(Unit::Bytes), "Bytes of the entries that the log holds", |copy| number(copy.log_bytes)),
    ("ostraca_replication_queue_entries", None, "Entries that some replica has not acknowledged", |copy| {
        copy.queue_entries.map(|entries| entries as f64)
    }),
    (
        "ostraca_replication_queue",
        Some(Unit::Bytes),
        "Bytes of the entries that some replica has not acknowledged, by their share of the log's entries",
        |copy| copy.queue_entries.map(|entries| copy.log_bytes as f64 * share(entries, copy.log_entries)),
    ),
    (
        "ostraca_replication_queue_max_entries",
        None,
        "Entries in the log beyond which the replica furthest behind is given up on",
        |copy| number(copy.queue_entries_max),
    ),
    (
        "ostraca_replication_queue_max",
        Some(Unit::Bytes),
        "Bytes of the log beyond which the replica furthest behind is given up on",
        |copy| number(copy.queue_bytes_max),
    ),
    ("ostraca_at_risk_entries", None, "Entries on the leader's disk only", |copy| {
        copy.at_risk_entries.map(|entries| entries as f64)
    }),
    ("ostraca_lost_writes", None, "Writes that the copy's ledger lists: its leader never had them", |copy| {
        number(copy.lost_writes)
    }),
    ("ostraca_ledger", Some(Unit::Bytes), "Bytes of the copy's ledger of lost writes", |copy| {
        number(copy.ledger_bytes)
    }),
    (
        "ostraca_ledger_max",
        Some(Unit::Bytes),
        "Bytes that the ledger may have; at them the copy stays off-history",
        |copy| number(copy.ledger_bytes_max),
    ),
    (
        "ostraca_at_risk",
        Some(Unit::Seconds),
        "How long the oldest of the entries at risk has been on the leader's disk only, at most; 0 when there is none",
        |copy| seconds(copy.at_risk_ms),
    ),
    ("ostraca_staleness", Some(Unit::Seconds), "How old the copy is at most; absent while that is unknown", |copy| {
        seconds(copy.stale_ms)
    }),
    ("ostraca_snapshot_receiving_records", None, "Records received so far of a snapshot under way, else 0", |copy| {
        number(copy.snapshot_records)
    }),
    ("ostraca_writer_queue_items", None, "What waits for the shard's writer", |copy| number(copy.writer_items)),
    ("ostraca_writer_queue", Some(Unit::Bytes), "Bytes of what waits for the shard's writer", |copy| {
        number(copy.writer_bytes)
    }),
];

/// A line of a table of counters: name, help, and what was counted of a `T`.
type Counted<T> = (&'static str, &'static str, fn(&T) -> u64);

/// Counters that others keep; `_total` is added.
const COPY_COUNTERS: &[Counted<CopySeen>] = &[
    ("ostraca_cache_hits", "Pages that were found in memory", |copy| copy.cache.hits),
    ("ostraca_cache_misses", "Pages that were read from the disk", |copy| copy.cache.misses),
    ("ostraca_cache_evictions", "Pages that left memory for want of room", |copy| copy.cache.evictions),
];

const REPLICA: &[Shown<ReplicaSeen>] = &[
    ("ostraca_replica_cursor", None, "The seq that the replica has acknowledged, as its leader sees it", |replica| {
        replica.cursor.map(|seq| seq as f64)
    }),
    ("ostraca_replica_lag_entries", None, "Entries that the replica has not acknowledged", |replica| {
        replica.lag_entries.map(|entries| entries as f64)
    }),
    (
        "ostraca_replica_lag",
        Some(Unit::Seconds),
        "Age of the oldest entry that the replica has not acknowledged; 0 when it has everything",
        |replica| seconds(replica.lag_ms),
    ),
    ("ostraca_replica_silence", Some(Unit::Seconds), "Since the replica's last poll", |replica| {
        seconds(replica.silent_ms)
    }),
];

const PEER: &[Shown<PeerSeen>] = &[
    ("ostraca_peer_up", None, "1 when the last contact with the node went well", |peer| flag(peer.up)),
    (
        "ostraca_peer_refused",
        None,
        "1 when the two nodes do not talk: their placement, cluster, names or protocols differ",
        |peer| flag(peer.refused),
    ),
    ("ostraca_peer_address_drift", None, "1 when the node's sharding.toml names other nodes or addresses", |peer| {
        flag(peer.drifted)
    }),
];

const NODE: &[Shown<Scrape>] = &[
    ("ostraca_http_body", Some(Unit::Bytes), "Bytes of request bodies that are held in memory", |node| {
        number(node.body_bytes)
    }),
    (
        "ostraca_http_body_max",
        Some(Unit::Bytes),
        "Bytes of request bodies that may be held: limits.body_bytes_in_flight_max",
        |node| number(node.body_bytes_max),
    ),
    ("ostraca_http_connections_max", None, "Connections that may be open: limits.connections_max", |node| {
        number(node.connections_max)
    }),
    ("process_start_time", Some(Unit::Seconds), "When the process started, in Unix time", |node| {
        seconds(Some(node.started.0))
    }),
    ("process_resident_memory", Some(Unit::Bytes), "Resident memory", |node| {
        node.process.resident_bytes.map(|bytes| bytes as f64)
    }),
    ("process_open_fds", None, "Descriptors that are open", |node| node.process.open_fds.map(|fds| fds as f64)),
    ("process_max_fds", None, "Descriptors that may be open", |node| node.process.max_fds.map(|fds| fds as f64)),
    ("process_threads", None, "Threads", |node| node.process.threads.map(|threads| threads as f64)),
];

/// A part of a whole, 0 of an empty one.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64).min(1.0) }
}

impl Collector for Scrape {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, unit, help, show) in NODE {
            let sample = show(self).map(|value| (vec![], value));
            gauges(&mut out, name, unit.as_ref(), help, sample)?;
        }
        if let Some(cpu_seconds) = self.process.cpu_seconds {
            let help = "Processor time of the program and of the system for it.";
            let metric = out.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), MetricType::Counter)?;
            ConstCounter::new(cpu_seconds).encode(metric)?;
        }
        let build = vec![("node", self.node.as_str()), ("version", self.version)];
        gauges(&mut out, "ostraca_build_info", None, "Which node and which program this is; always 1", [(build, 1.0)])?;
        let epochs = self.epochs.iter().map(|(shard, epoch)| (vec![("shard", shard.as_str())], *epoch as f64));
        gauges(&mut out, "ostraca_shard_epoch", None, "The highest epoch of the shard that this node knows", epochs)?;
        self.encode_copies(&mut out)?;
        for (name, unit, help, show) in PEER {
            let samples = self.peers.iter().filter_map(|peer| Some((vec![("peer", peer.name.as_str())], show(peer)?)));
            gauges(&mut out, name, unit.as_ref(), help, samples)?;
        }
        Ok(())
    }
}

impl Scrape {
    fn encode_copies(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, unit, help, show) in COPY {
            let samples =
                self.copies.iter().filter_map(|copy| Some((vec![("shard", copy.shard.as_str())], show(copy)?)));
            gauges(out, name, unit.as_ref(), help, samples)?;
        }
        for (name, help, count) in COPY_COUNTERS {
            let help = format!("{help}.");
            let mut metric = out.encode_descriptor(name, &help, None, MetricType::Counter)?;
            for copy in &self.copies {
                let labels = [("shard", copy.shard.as_str())];
                ConstCounter::new(count(copy)).encode(metric.encode_family(&labels)?)?;
            }
        }
        let states = self.copies.iter().map(|copy| (vec![("shard", copy.shard.as_str()), ("state", copy.state)], 1.0));
        gauges(out, "ostraca_copy_state", None, "1 for what the copy is doing; other states are absent", states)?;
        let replicas = || self.copies.iter().flat_map(|copy| copy.replicas.iter().map(move |replica| (copy, replica)));
        for (name, unit, help, show) in REPLICA {
            let samples = replicas().filter_map(|(copy, replica)| Some((labels_of(copy, replica), show(replica)?)));
            gauges(out, name, unit.as_ref(), help, samples)?;
        }
        let states = replicas().map(|(copy, replica)| {
            let mut labels = labels_of(copy, replica);
            labels.push(("state", replica.state));
            (labels, 1.0)
        });
        gauges(out, "ostraca_replica_state", None, "1 for what the replica is doing, as its leader sees it", states)
    }
}

fn labels_of<'a>(copy: &'a CopySeen, replica: &'a ReplicaSeen) -> Vec<(&'static str, &'a str)> {
    vec![("shard", copy.shard.as_str()), ("replica", replica.name.as_str())]
}

/// A gauge with its samples.
fn gauges<'a>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    unit: Option<&Unit>,
    help: &str,
    samples: impl IntoIterator<Item = (Vec<(&'static str, &'a str)>, f64)>,
) -> Result<(), fmt::Error> {
    let help = format!("{help}.");
    let mut metric = out.encode_descriptor(name, &help, unit, MetricType::Gauge)?;
    for (labels, value) in samples {
        if labels.is_empty() {
            return ConstGauge::new(value).encode(metric); // without labels there is one
        }
        ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}
