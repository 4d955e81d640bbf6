//! A look at the node for its metrics: what is seen by looking, and not counted.

use super::Store;
use super::report::{duty_name, lag_ms, replica_state, silent_ms};
use crate::clock::millis;
use crate::config::{Shard, Topology};
use crate::metrics::scrape::{CacheSeen, CopySeen, PeerSeen, ReplicaSeen, Scrape};
use crate::metrics::{Labels, Process};
use crate::peer::{Contact, Kind, RefusalCode};
use crate::replication::pair::leader::Replica;
use crate::replication::pair::{FollowState, Pair};
use crate::types::NodeName;

/// The label values that follow from the map, and from what nodes say to each other. The caller knows the routes.
#[must_use]
pub fn labels(topology: &Topology) -> Labels {
    Labels {
        shards: topology.shards.iter().map(|shard| shard.name.clone()).collect(),
        nodes: topology.nodes().map(|node| node.name.clone()).collect(),
        routes: Vec::new(),
        methods: Vec::new(),
        outcomes: Vec::new(),
        codes: super::forward::outcomes().collect(),
        kinds: Kind::names().collect(),
        refusals: RefusalCode::ALL.map(RefusalCode::name).to_vec(),
    }
}

impl Store {
    /// Looks at everything. Reads the store's sizes and the ages of what replicas lack.
    pub async fn look(&self) -> Scrape {
        let mut copies = Vec::new();
        for pair in self.copies.values() {
            copies.push(self.look_at(pair).await);
        }
        let topology = self.map.topology();
        let others = topology.nodes().filter(|node| node.name != self.me.name);
        let epoch_of = |shard: &Shard| (shard.name.clone(), self.map.epoch_or_first(shard).number);
        Scrape {
            node: self.me.name.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            started: self.started_at,
            process: tokio::task::spawn_blocking(Process::read).await.unwrap_or_default(),
            connections_max: self.settings.connections_max as u64,
            epochs: topology.shards.iter().map(epoch_of).collect(),
            copies,
            peers: others.map(|node| self.look_at_peer(&node.name)).collect(),
            ..Scrape::default()
        }
    }

    fn look_at_peer(&self, name: &NodeName) -> PeerSeen {
        let contact = self.contacts.of(name).map(|(contact, _)| contact);
        PeerSeen {
            name: name.to_string(),
            up: contact == Some(Contact::Up),
            refused: matches!(contact, Some(Contact::Refused(_))),
            drifted: self.contacts.is_drifted(name),
        }
    }

    async fn look_at(&self, pair: &Pair) -> CopySeen {
        let (engine, settings, end) = (pair.engine(), &self.settings, pair.writer.published().end());
        let sizes = tokio::task::spawn_blocking(move || (engine.stats().unwrap_or_default(), engine.free_bytes()));
        let (stats, free_bytes) = sizes.await.unwrap_or_default();
        let ledger = pair.ledger().await.1.unwrap_or_default();
        let (leads, at_risk) = (pair.is_leading(), pair.at_risk());
        let replicas = if leads { self.look_at_replicas(pair).await } else { Vec::new() };
        let queue_entries = pair.with_leader(|leader| leader.queue_entries(stats.log_start, end));
        let (writer_items, writer_bytes) = pair.writer.waiting();
        CopySeen {
            shard: pair.shard.name.clone(),
            state: duty_name(pair),
            leads,
            failed: pair.writer.published().is_failed(),
            unclean: pair.opened_unclean(),
            keys: stats.keys,
            file_bytes: stats.file_bytes,
            free_bytes,
            free_bytes_min: settings.min_free_bytes,
            cache: CacheSeen {
                bytes: stats.cache.bytes,
                bytes_max: settings.cache_bytes as u64,
                hits: stats.cache.hits,
                misses: stats.cache.misses,
                evictions: stats.cache.evictions,
            },
            end: end.0,
            log_entries: end.since(stats.log_start),
            log_bytes: stats.log_bytes,
            queue_entries: leads.then_some(queue_entries),
            queue_entries_max: settings.queue_entries_max,
            queue_bytes_max: settings.queue_bytes_max.max(settings.log_retain_bytes), // as the leader bounds it
            at_risk_entries: at_risk.map(|at_risk| at_risk.entries),
            at_risk_ms: match at_risk {
                Some(at_risk) => Some(pair.at_risk_ms(at_risk).await),
                None => None,
            },
            lost_writes: ledger.writes,
            ledger_bytes: ledger.bytes,
            ledger_bytes_max: settings.ledger_bytes_max,
            stale_ms: pair.stale(self.clock.now()).map(millis),
            snapshot_records: match pair.follow_state() {
                FollowState::Snapshot { records } => records,
                _ => 0,
            },
            writer_items: writer_items as u64,
            writer_bytes: writer_bytes as u64,
            replicas,
        }
    }

    async fn look_at_replicas(&self, pair: &Pair) -> Vec<ReplicaSeen> {
        let (lags, now) = (pair.lags().await, self.clock.now());
        let seen = |name: &NodeName, replica: &Replica, snapshot| {
            let lag = lags.iter().find(|lag| lag.replica == name.as_str());
            let silent_ms = silent_ms(replica, now);
            ReplicaSeen {
                name: name.to_string(),
                state: replica_state(replica, lag, snapshot, now),
                cursor: replica.cursor.is_some().then(|| replica.acknowledged().0),
                lag_entries: lag.map(|lag| lag.entries),
                lag_ms: lag.and_then(|lag| lag_ms(lag, silent_ms)),
                silent_ms,
            }
        };
        pair.with_leader(|leader| {
            let replicas = leader.replicas();
            replicas.map(|(name, replica)| seen(name, replica, leader.is_receiving_snapshot(name, now))).collect()
        })
    }
}
