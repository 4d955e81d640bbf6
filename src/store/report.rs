//! What the store says of itself: the map, its status, a key's whereabouts, and whether it is ready.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;

use super::view::{
    Check, ClusterView, CopyOfKey, CopyStatus, Explanation, LedgerStatus, NodeStatus, NodeView, Readiness,
    ReplicaStatus, ShardView, Verdict,
};
use super::{Code, Error, Store};
use crate::clock::millis;
use crate::config::{Node, Shard};
use crate::peer::CallError;
use crate::replication::pair::leader::Replica;
use crate::replication::pair::wire::{Inspect, Inspection, Lag};
use crate::replication::pair::{Duty, FollowState, Pair, inspect};
use crate::storage::ledger::Summary;
use crate::types::{Key, Mutation};

/// A copy that has not said in so long what it holds is reported as silent.
const INSPECT_WAIT: Duration = Duration::from_secs(2);
/// A replica behind by more than this is catching up, not streaming.
const STREAMING_LAG_MS: u64 = 1000;

impl Store {
    /// `/v1/cluster`: the map as this node knows it.
    #[must_use]
    pub fn cluster(&self) -> ClusterView {
        let topology = self.map.topology();
        ClusterView {
            cluster: self.local.cluster().map(|uid| uid.to_string()),
            profile: "static",
            hash_function: topology.placement.hash.to_string(),
            placement: format!("{:#018x}", self.local.placement),
            nodes: topology.nodes().map(|node| self.node_view(node)).collect(),
            shards: topology.shards.iter().map(|shard| self.shard_view(shard)).collect(),
        }
    }

    fn node_view(&self, node: &Node) -> NodeView {
        let state = if node.name == self.me.name {
            "up"
        } else {
            self.contacts.of(&node.name).map_or("unknown", |(contact, _)| contact.name())
        };
        NodeView { name: node.name.to_string(), address: node.address.to_string(), state: state.into() }
    }

    fn shard_view(&self, shard: &Shard) -> ShardView {
        let leader = self.map.leader_of(shard);
        let replicas = shard.copies.iter().filter(|copy| copy.name != leader.name);
        ShardView {
            name: shard.name.clone(),
            index: shard.index.0,
            epoch: self.map.epoch_or_first(shard).number,
            leader: leader.address.to_string(),
            replicas: replicas.map(|copy| copy.address.to_string()).collect(),
        }
    }

    /// `/v1/explain`: why a key is where it is, and what every copy holds of it.
    pub async fn explain(&self, key: &Key, deadline: Instant) -> Explanation {
        let shard = self.shard_of(key);
        let placement = self.map.topology().placement;
        let leader = self.map.leader_of(shard);
        let left = deadline.saturating_duration_since(self.clock.now());
        let wait = INSPECT_WAIT.min(left);
        let asked = join_all(shard.copies.iter().map(|copy| self.inspect(copy, key, wait))).await;
        let lags: Vec<Lag> = asked.iter().flatten().flat_map(|inspection| inspection.lags.clone()).collect();
        let text = std::str::from_utf8(key.as_bytes()).ok().map(str::to_owned);
        Explanation {
            key_b64: text.is_none().then(|| URL_SAFE_NO_PAD.encode(key.as_bytes())),
            key: text,
            hash: format!("{:#018x}", placement.hash.hash(key.as_bytes())),
            hash_function: placement.hash.to_string(),
            shard: shard.name.clone(),
            index: shard.index.0,
            leader: leader.address.to_string(),
            epoch: self.map.epoch_or_first(shard).number,
            copies: shard
                .copies
                .iter()
                .zip(asked)
                .map(|(copy, found)| copy_of_key(copy, leader, found, &lags))
                .collect(),
        }
    }

    async fn inspect(&self, copy: &Node, key: &Key, wait: Duration) -> Result<Inspection, CallError> {
        let here = self.copies.get(&copy.shard).filter(|_| copy.name == self.me.name);
        match here {
            Some(pair) => {
                let found = pair.answer_inspect(Inspect { key: Some(key.clone()) }).await;
                found.map_err(|error| CallError::NotSent(error.to_string()))
            }
            None => inspect::ask(&self.pool, &self.map, copy, Some(key.clone()), wait).await,
        }
    }

    /// `/admin/v1/status`: this node's copies, and what is wrong.
    pub async fn status(&self) -> NodeStatus {
        let mut copies = Vec::new();
        for pair in self.copies.values() {
            copies.push(self.copy_status(pair).await);
        }
        let problems = self.problems(&copies);
        NodeStatus {
            node: self.me.name.to_string(),
            address: self.me.address.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            durability: "fsync",
            replication: "asynchronous",
            cluster: self.local.cluster().map(|uid| uid.to_string()),
            placement: format!("{:#018x}", self.local.placement),
            placement_text: self.local.placement_text.clone(),
            addresses: format!("{:#018x}", self.local.addresses),
            uptime_ms: millis(self.clock.now().saturating_duration_since(self.started)),
            copies,
            peers: self.peers(),
            problems,
        }
    }

    async fn copy_status(&self, pair: &Pair) -> CopyStatus {
        let would_lead = !matches!(pair.duty(), Duty::Following | Duty::StandingAside(_));
        let now = self.clock.now();
        let follows = pair.duty() == Duty::Following;
        let since = if follows { pair.follow_since() } else { Some(pair.duty_since()) };
        let (stats, epoch) = (pair.engine().stats().unwrap_or_default(), pair.epoch());
        let leader = self.map.leader_of(&pair.shard);
        let at_risk = pair.at_risk();
        let at_risk_ms = match at_risk {
            Some(at_risk) => Some(pair.at_risk_ms(at_risk).await),
            None => None,
        };
        CopyStatus {
            shard: pair.shard.name.clone(),
            index: pair.shard.index.0,
            role: if would_lead { "leader" } else { "replica" }.into(),
            state: duty_name(pair).into(),
            since_ms: since.map(|since| millis(now.saturating_duration_since(since))),
            snapshot_records: match pair.follow_state() {
                FollowState::Snapshot { records } if !would_lead => Some(records),
                _ => None,
            },
            epoch: epoch.number,
            leader: leader.address.to_string(),
            end: pair.writer.published().end().0,
            keys: stats.keys,
            bytes: stats.file_bytes,
            log_bytes: stats.log_bytes,
            stale_ms: pair.stale(now).map(millis),
            ledger: self.ledger_status(pair).await,
            at_risk_entries: at_risk.map(|at_risk| at_risk.entries),
            at_risk_ms,
            unreplicated: pair.shard.copies.len() < 2,
            replicas: if would_lead { self.replica_statuses(pair).await } else { Vec::new() },
        }
    }

    async fn ledger_status(&self, pair: &Pair) -> Option<LedgerStatus> {
        let (file, summary) = pair.ledger().await;
        let bytes_max = self.settings.ledger_bytes_max;
        match summary {
            Ok(Summary { bytes: 0, .. }) => None,
            Ok(Summary { writes, bytes }) => Some(LedgerStatus { file, writes, bytes, bytes_max, error: None }),
            Err(error) => Some(LedgerStatus { file, writes: 0, bytes: 0, bytes_max, error: Some(error.to_string()) }),
        }
    }

    async fn replica_statuses(&self, pair: &Pair) -> Vec<ReplicaStatus> {
        let (lags, now) = (pair.lags().await, self.clock.now());
        let known: Vec<_> = pair.with_leader(|leader| {
            let replicas = leader.replicas();
            let known = replicas
                .map(|(name, replica)| (name.clone(), replica.clone(), leader.is_receiving_snapshot(name, now)));
            known.collect()
        });
        let addresses = |name| pair.shard.copies.iter().find(|copy| copy.name == name).map(|copy| copy.address);
        let statuses = known.into_iter().map(|(name, replica, snapshot)| {
            let lag = lags.iter().find(|lag| lag.replica == name.as_str());
            let lost = matches!(pair.duty(), Duty::Halted(_));
            ReplicaStatus {
                address: addresses(name.clone()).map_or_else(String::new, |address| address.to_string()),
                name: name.to_string(),
                cursor: replica.cursor.is_some().then(|| replica.acknowledged().0),
                lag_entries: lag.map(|lag| lag.entries),
                lag_ms: lag.and_then(|lag| lag_ms(lag, silent_ms(&replica, now))),
                state: if lost { "leader-lost-data" } else { replica_state(&replica, lag, snapshot, now) }.into(),
                since_ms: if lost { Some(pair.duty_since()) } else { silent_since(pair, &replica, now) }
                    .map(|since| millis(now.saturating_duration_since(since))),
            }
        });
        statuses.collect()
    }

    /// `/readyz`: whether this node can do what is asked about, a line per check.
    #[must_use]
    pub fn readiness(&self, question: Readiness) -> Vec<Check> {
        let of_copy = |pair| {
            let (disk, refusal) = (check_disk(pair, question), check_refusal(pair, question));
            [Some(check_store(pair)), Some(check_duty(pair, question)), disk, refusal]
        };
        let of_copies = self.copies.values().flat_map(|pair| of_copy(pair)).flatten();
        of_copies.chain([self.check_placement()]).collect()
    }

    /// `/livez`: whether a restart would help.
    #[must_use]
    pub fn liveness(&self) -> Vec<Check> {
        self.copies.values().map(|pair| check_store(pair)).collect()
    }

    /// The oldest mutation of this node's queue that some replica has not acknowledged.
    pub async fn oldest_unacknowledged(&self) -> Result<Option<Mutation>, Error> {
        for pair in self.copies.values() {
            let entry = pair.oldest_unacknowledged().await;
            let entry = entry.map_err(|error| Error::new(Code::StorageFailed, error.to_string()))?;
            if let Some(mutation) = entry.and_then(|entry| entry.mutations.into_iter().next()) {
                return Ok(Some(mutation));
            }
        }
        Ok(None)
    }
}

fn copy_of_key(copy: &Node, leader: &Node, found: Result<Inspection, CallError>, lags: &[Lag]) -> CopyOfKey {
    let leads = copy.name == leader.name;
    let lag = lags.iter().find(|lag| lag.replica == copy.name.as_str());
    let (version, error) = match found {
        Ok(inspection) => (inspection.version.map(|version| version.to_string()), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let own = |value: Option<u64>| if leads && error.is_none() { Some(0) } else { value };
    CopyOfKey {
        node: copy.address.to_string(),
        role: if leads { "leader" } else { "replica" }.into(),
        version,
        lag_entries: own(lag.map(|lag| lag.entries)),
        lag_ms: own(lag.map(|lag| lag.ms)),
        error,
    }
}

/// Since when a replica has not polled, this leadership or at all; none while it polls.
fn silent_since(pair: &Pair, replica: &Replica, now: Instant) -> Option<Instant> {
    replica.is_away(now).then(|| replica.last_poll.unwrap_or_else(|| pair.duty_since()))
}

pub(super) fn duty_name(pair: &Pair) -> &'static str {
    match pair.duty() {
        Duty::Leading | Duty::Starting if pair.writer.published().is_failed() => "failed",
        Duty::Starting => "starting",
        Duty::Leading => "leading",
        Duty::Halted(_) => "halted",
        Duty::StandingAside(_) => "standing-aside",
        Duty::Following => pair.follow_state().name(),
    }
}

pub(super) fn replica_state(replica: &Replica, lag: Option<&Lag>, snapshot: bool, now: Instant) -> &'static str {
    match (&replica.cursor, lag) {
        _ if snapshot => "snapshot",
        _ if replica.given_up => "given-up",
        (None, _) => "unseen",
        _ if replica.is_away(now) => "away",
        (_, Some(lag)) if lag.ms > STREAMING_LAG_MS => "catching-up",
        _ => "streaming",
    }
}

/// For how long a replica has not polled; none: it never did.
pub(super) fn silent_ms(replica: &Replica, now: Instant) -> Option<u64> {
    replica.last_poll.map(|last| millis(now.saturating_duration_since(last)))
}

/// How old the oldest entry is that a replica lacks. When the log does not hold it any more, it is about as old as the
/// replica's last poll; and not known, when there was none.
pub(super) fn lag_ms(lag: &Lag, silent_ms: Option<u64>) -> Option<u64> {
    let is_known = lag.entries == 0 || lag.ms > 0;
    if is_known { Some(lag.ms) } else { silent_ms }
}

fn check_store(pair: &Pair) -> Check {
    let ok = !pair.writer.published().is_failed();
    let detail = if ok { "takes reads and writes" } else { "a commit failed: restart the node" };
    Check { name: format!("store {}", pair.shard.name), verdict: Verdict::of(ok), detail: detail.into() }
}

/// A line only when the disk is low: it keeps a node from writes, and from nothing else.
fn check_disk(pair: &Pair, question: Readiness) -> Option<Check> {
    let detail = pair.disk_is_low()?;
    Some(Check { name: format!("disk {}", pair.shard.name), verdict: keeps_from_writes(question), detail })
}

/// A line only when a leader refuses writes rather than let more be at risk: its reads go on.
fn check_refusal(pair: &Pair, question: Readiness) -> Option<Check> {
    let detail = format!("refuses writes: {}", pair.refuses_more()?);
    Some(Check { name: format!("writes {}", pair.shard.name), verdict: keeps_from_writes(question), detail })
}

fn keeps_from_writes(question: Readiness) -> Verdict {
    if question == Readiness::Writes { Verdict::Failed } else { Verdict::Warning }
}

fn check_duty(pair: &Pair, question: Readiness) -> Check {
    let (can_do_its_role, detail) = match pair.duty() {
        Duty::Leading => (true, "leads".into()),
        Duty::Starting => (false, "starting: asks its replicas what they hold".into()),
        Duty::Halted(halt) | Duty::StandingAside(halt) => (false, halt.to_string()),
        Duty::Following if matches!(pair.follow_state(), FollowState::OffHistory(_)) => {
            let state = pair.follow_state();
            (false, format!("replica, off-history: {}", state.problem().unwrap_or_default()))
        }
        Duty::Following if pair.had_full_copy() && !pair.serves_any() => {
            let state = pair.follow_state();
            (false, format!("replica, {}: off-history, it serves nothing before it is back", state.name()))
        }
        Duty::Following if pair.had_full_copy() => {
            (true, format!("replica, {}, at seq {}", pair.follow_state().name(), pair.writer.published().end()))
        }
        Duty::Following => (false, format!("replica, {}, without a full copy yet", pair.follow_state().name())),
    };
    let ok = match question {
        Readiness::Role | Readiness::Reads => can_do_its_role,
        Readiness::Writes => pair.is_leading(),
    };
    Check { name: format!("shard {}", pair.shard.name), verdict: Verdict::of(ok), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_of_entries_that_left_the_log_is_the_time_since_the_last_poll() {
        let lag = |entries, ms| Lag { replica: "A/1".into(), entries, ms };
        assert_eq!(lag_ms(&lag(0, 0), Some(90)), Some(0));
        assert_eq!(lag_ms(&lag(3, 70), Some(90)), Some(70));
        assert_eq!(lag_ms(&lag(3, 0), Some(90)), Some(90));
        assert_eq!(lag_ms(&lag(3, 0), None), None);
    }
}
