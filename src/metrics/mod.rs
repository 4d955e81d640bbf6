//! Every metric of a node, with its unit and its help, in OpenMetrics text.
//!
//! ```text
//!   hot paths ─ inc, observe ─▶ Metrics (cells of arrays)          ┐
//!                                                                  ├─▶ render ─▶ GET /metrics
//!   the node, when it is asked ─▶ Scrape (what a look shows)       ┘
//! ```
//!
//! - What happens is counted where it happens, in [`Metrics`]; what can be seen by looking is looked at when somebody asks,
//!   in [`scrape`].
//! - A label's values are known when the node starts: routes, codes, and the shards and nodes of the map. A key is never
//!   one of them, nor is anything else that a client sends.
//! - There is no registry but this one: nodes that share a process do not share counters.
//!
//! Names follow Prometheus: `ostraca_` first, the unit last, `_total` for counters.

mod cells;
mod labels;
mod process;
pub mod scrape;

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::types::NodeName;
use cells::{Axis, DURATIONS, NUMBERS, SIZES};
pub use cells::{Counts, Spreads};
pub use labels::{Committed, Labels, OTHER, Polled, SnapshotStep, shard};
pub use process::Process;
pub use scrape::Scrape;

/// Stands before every name but those of the process.
const PREFIX: &str = "ostraca";

/// The media type of [`Metrics::render`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The counters of a node.
#[derive(Debug)]
pub struct Metrics {
    /// Clients' requests.
    pub http: Http,
    /// Requests that were passed on to other nodes.
    pub forwards: Forwards,
    /// The writer's group commits.
    pub commits: Commits,
    /// Polls and snapshots.
    pub replication: Replication,
    /// What other nodes ask of this one.
    pub peers: Peers,
    registry: Registry,
}

/// Clients' requests.
#[derive(Debug)]
pub struct Http {
    /// By route, method and outcome.
    pub requests: Counts<3>,
    /// By route and outcome.
    pub durations: Spreads<2>,
    /// Requests that are being served.
    pub in_flight: Gauge,
    /// Connections that are open.
    pub connections: Gauge,
    /// Connections that were ever accepted.
    pub accepted: Counter,
}

/// Requests that were passed on to other nodes.
#[derive(Debug)]
pub struct Forwards {
    /// By shard and outcome.
    pub requests: Counts<2>,
    /// By shard.
    pub durations: Spreads<1>,
}

/// The writer's group commits.
#[derive(Debug)]
pub struct Commits {
    /// By shard: how long the disk took.
    pub durations: Spreads<1>,
    /// By shard: entries in a commit.
    pub entries: Spreads<1>,
    /// By shard: bytes of those entries.
    pub bytes: Spreads<1>,
    /// By shard and end.
    pub ended: Counts<2>,
}

/// Polls and snapshots.
#[derive(Debug)]
pub struct Replication {
    /// Polls that this node sent, by shard and answer.
    pub polls: Counts<2>,
    /// Polls that this node answered, by shard and answer.
    pub polls_answered: Counts<2>,
    /// Entries that this node took from its leader, by shard.
    pub entries: Counts<1>,
    /// Bytes of those entries, by shard.
    pub bytes: Counts<1>,
    /// Snapshots for this node, by shard and step.
    pub snapshots_received: Counts<2>,
    /// Records that came in snapshots, by shard.
    pub snapshot_records_received: Counts<1>,
    /// Bytes that came in snapshots, by shard.
    pub snapshot_bytes_received: Counts<1>,
    /// Snapshots from this node, by shard and step.
    pub snapshots_given: Counts<2>,
    /// Records that went out in snapshots, by shard.
    pub snapshot_records_given: Counts<1>,
    /// Bytes that went out in snapshots, by shard.
    pub snapshot_bytes_given: Counts<1>,
}

/// What other nodes ask of this one.
#[derive(Debug)]
pub struct Peers {
    /// By kind.
    pub requests: Counts<1>,
    /// By kind.
    pub durations: Spreads<1>,
    /// Handshakes that this node refused, by node and reason.
    pub refusals: Counts<2>,
    nodes: Vec<NodeName>,
}

impl Peers {
    /// The place of a node among the label's values; one that is not of the map counts as `other`.
    #[must_use]
    pub fn index_of(&self, node: &NodeName) -> usize {
        self.nodes.iter().position(|known| known == node).unwrap_or(self.nodes.len())
    }
}

impl Metrics {
    /// Metrics at zero.
    #[must_use]
    pub fn new(labels: &Labels) -> Metrics {
        let mut registry = Registry::with_prefix(PREFIX);
        Metrics {
            http: Http::new(&mut registry, labels),
            forwards: Forwards::new(&mut registry, labels),
            commits: Commits::new(&mut registry, labels),
            replication: Replication::new(&mut registry, labels),
            peers: Peers::new(&mut registry, labels),
            registry,
        }
    }

    /// All of it as OpenMetrics text.
    #[must_use]
    pub fn render(&self, scrape: Scrape) -> String {
        let mut seen = Registry::default();
        seen.register_collector(Box::new(scrape));
        let mut text = String::with_capacity(32 << 10);
        text::encode_registry(&mut text, &self.registry)
            .and_then(|()| text::encode_registry(&mut text, &seen))
            .and_then(|()| text::encode_eof(&mut text))
            .unwrap_or_else(|_| unreachable!("a String takes all"));
        text
    }
}

/// Enters a metric into the registry, and hands it back.
fn entered<M>(registry: &mut Registry, name: &str, unit: Option<Unit>, help: &str, metric: M) -> M
where
    M: EncodeMetric + Clone + Send + Sync + std::fmt::Debug + 'static,
{
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, metric.clone()),
        None => registry.register(name, help, metric.clone()),
    }
    metric
}

impl Http {
    fn new(registry: &mut Registry, labels: &Labels) -> Http {
        let route = || Axis::with_other("route", &labels.routes);
        let method = Axis::with_other("method", &labels.methods);
        let outcome = || Axis::with_other("outcome", &labels.outcomes);
        Http {
            requests: entered(
                registry,
                "http_requests",
                None,
                "Requests of clients, by what became of them: ok or a problem's code",
                Counts::new([route(), method, outcome()]),
            ),
            durations: entered(
                registry,
                "http_request_duration",
                Some(Unit::Seconds),
                "From a request's head to its answer's",
                Spreads::new(DURATIONS, [route(), outcome()]),
            ),
            in_flight: entered(
                registry,
                "http_requests_in_flight",
                None,
                "Requests of clients that are being served",
                Gauge::default(),
            ),
            connections: entered(
                registry,
                "http_connections",
                None,
                "Connections that are open, of clients; those of other nodes leave when they are upgraded",
                Gauge::default(),
            ),
            accepted: entered(
                registry,
                "http_connections_accepted",
                None,
                "Connections that were accepted, of clients and of other nodes",
                Counter::default(),
            ),
        }
    }
}

impl Forwards {
    fn new(registry: &mut Registry, labels: &Labels) -> Forwards {
        let shard = || Axis::with_other("shard", &labels.shards);
        let outcome = Axis::with_other("outcome", &labels.codes);
        Forwards {
            requests: entered(
                registry,
                "forwarded_requests",
                None,
                "Requests that were passed on to the shard's node, by what came back: ok or an error's code",
                Counts::new([shard(), outcome]),
            ),
            durations: entered(
                registry,
                "forwarded_request_duration",
                Some(Unit::Seconds),
                "How long passing a request on took, to its answer or its failure",
                Spreads::new(DURATIONS, [shard()]),
            ),
        }
    }
}

impl Commits {
    fn new(registry: &mut Registry, labels: &Labels) -> Commits {
        let shard = || Axis::with_other("shard", &labels.shards);
        Commits {
            durations: entered(
                registry,
                "commit_duration",
                Some(Unit::Seconds),
                "How long a group commit took, its fsync included",
                Spreads::new(DURATIONS, [shard()]),
            ),
            entries: entered(
                registry,
                "commit_entries",
                None,
                "Entries in a group commit; those that only keep notes have none, and do not count here",
                Spreads::new(NUMBERS, [shard()]),
            ),
            bytes: entered(
                registry,
                "commit_size",
                Some(Unit::Bytes),
                "Bytes of the entries in a group commit",
                Spreads::new(SIZES, [shard()]),
            ),
            ended: entered(
                registry,
                "commits",
                None,
                "Group commits, by how they ended; after a failed one the store takes nothing more",
                Counts::new([shard(), Axis::new("outcome", Committed::NAMES)]),
            ),
        }
    }
}

impl Peers {
    fn new(registry: &mut Registry, labels: &Labels) -> Peers {
        let kind = || Axis::with_other("kind", &labels.kinds);
        let peer = Axis::with_other("peer", labels.nodes.iter().map(NodeName::as_str));
        Peers {
            requests: entered(
                registry,
                "peer_requests",
                None,
                "Requests of other nodes that this one answered",
                Counts::new([kind()]),
            ),
            durations: entered(
                registry,
                "peer_request_duration",
                Some(Unit::Seconds),
                "How long answering another node took; a poll without news waits for some on purpose",
                Spreads::new(DURATIONS, [kind()]),
            ),
            refusals: entered(
                registry,
                "peer_refusals",
                None,
                "Handshakes of other nodes that this one refused; topology-mismatch: their sharding.toml differs from ours",
                Counts::new([peer, Axis::with_other("code", &labels.refusals)]),
            ),
            nodes: labels.nodes.clone(),
        }
    }
}

impl Replication {
    fn new(registry: &mut Registry, labels: &Labels) -> Replication {
        let shard = || Axis::with_other("shard", &labels.shards);
        let mut by_shard = |name: &str, unit, help: &str| entered(registry, name, unit, help, Counts::new([shard()]));
        let entries = by_shard("replicated_entries", None, "Entries that this replica took from its leader");
        let bytes = by_shard("replicated", Some(Unit::Bytes), "Bytes of the entries that this replica took");
        let snapshot_records_received = by_shard("snapshot_records_received", None, "Records that came in snapshots");
        let snapshot_bytes_received =
            by_shard("snapshot_received", Some(Unit::Bytes), "Bytes of the records that came in snapshots");
        let snapshot_records_given = by_shard("snapshot_records_given", None, "Records that went out in snapshots");
        let snapshot_bytes_given =
            by_shard("snapshot_given", Some(Unit::Bytes), "Bytes of the records that went out in snapshots");
        let mut by_two = |name: &str, help: &str, label, values: &[&str]| {
            entered(registry, name, None, help, Counts::new([shard(), Axis::new(label, values)]))
        };
        Replication {
            polls: by_two("polls", "Polls of this replica, by their answer", "answer", Polled::NAMES),
            polls_answered: by_two("polls_answered", "Polls of replicas, by our answer", "answer", Polled::NAMES),
            entries,
            bytes,
            snapshots_received: by_two(
                "snapshots_received",
                "Snapshots for this replica, by how far they came",
                "step",
                SnapshotStep::NAMES,
            ),
            snapshot_records_received,
            snapshot_bytes_received,
            snapshots_given: by_two(
                "snapshots_given",
                "Snapshots for other nodes, by how far they came",
                "step",
                SnapshotStep::NAMES,
            ),
            snapshot_records_given,
            snapshot_bytes_given,
        }
    }
}
