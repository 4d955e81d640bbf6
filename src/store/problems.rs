//! What is wrong at a node, as it sees it: a row for each thing, with since when it has been so, and what to do next.
//! `kv status` puts together what all nodes say.

use std::time::{Duration, Instant};

use super::Store;
use super::view::{Check, CopyStatus, LedgerStatus, PeerStatus, Problem, ReplicaStatus, Verdict};
use crate::clock::millis;
use crate::peer::{Contact, Refusal, RefusalCode};
use crate::replication::pair::{Duty, FollowState, Pair};
use crate::storage::writer::Refusal as WriterRefusal;
use crate::types::NodeName;

/// A node that is still finding out whether it may lead after so long has a problem; before, it has just started.
const STARTING_LONG: Duration = Duration::from_secs(5);

impl Store {
    /// Everything that is wrong: with other nodes' files, and with this node's copies.
    pub(super) fn problems(&self, copies: &[CopyStatus]) -> Vec<Problem> {
        let mut problems = self.drift();
        for (pair, status) in self.copies.values().zip(copies) {
            problems.extend(self.copy_problems(pair, status));
        }
        problems
    }

    /// How the last contact with each other node went.
    pub(super) fn peers(&self) -> Vec<PeerStatus> {
        let peers = self.contacts.all().into_iter().map(|(node, contact, since)| PeerStatus {
            name: node.to_string(),
            state: contact.name().into(),
            since_ms: self.ms_since(since),
            detail: match contact {
                Contact::Up => None,
                Contact::Down(detail) => Some(detail),
                Contact::Refused(refusal) => Some(refusal.detail),
            },
        });
        peers.collect()
    }

    /// Nodes that refuse each other, and nodes whose files name other nodes.
    fn drift(&self) -> Vec<Problem> {
        let refused = self.contacts.all().into_iter().filter_map(|(node, contact, since)| match contact {
            Contact::Refused(refusal) => Some(refused(&node, &refusal).since(self.ms_since(since))),
            Contact::Up | Contact::Down(_) => None,
        });
        let differ = self.contacts.drifted().into_iter().map(|(node, since)| {
            Problem::new(
                "addresses-differ",
                format!("node {node} has a sharding.toml that names other nodes or addresses than this node's"),
                "copy one file to all nodes, and restart those that read another, one by one",
            )
            .about(&node)
            .since(self.ms_since(since))
        });
        refused.chain(differ).collect()
    }

    fn copy_problems(&self, pair: &Pair, status: &CopyStatus) -> Vec<Problem> {
        let mut problems = Vec::new();
        let (shard, me) = (&pair.shard.name, &pair.me);
        if let Some(since) = pair.writer.published().failed_since() {
            let next = format!("look into its log, put the disk right, and restart it: {}", serve(me.address));
            let what = format!("shard {shard}: the store of {} has failed", me.name);
            problems.push(Problem::new("store-failed", what, next).about(&me.name).since(self.ms_since(since)));
        }
        problems.extend(self.duty_problem(pair));
        // A replica says it itself, with the write that did not fit.
        if let Some(what) = pair.disk_is_low().filter(|_| pair.duty() != Duty::Following) {
            let next = format!("free space on the disk of {}: it takes writes again by itself", me.name);
            problems.push(Problem::new("disk-full", format!("shard {shard}: {what}"), next).about(&me.name));
        }
        problems.extend(status.ledger.as_ref().and_then(|ledger| ledger_problem(shard, &me.name, ledger)));
        problems
            .extend(pair.refuses_more().and_then(|refusal| refuses_writes(shard, &refusal).map(|p| p.about(&me.name))));
        let troubled = status.replicas.iter().filter(|replica| !is_on_its_way(&replica.state));
        let lost = matches!(pair.duty(), Duty::Halted(_)); // then its replicas' states follow from that
        problems.extend(troubled.filter(|_| !lost).map(|replica| replica_problem(shard, status.end, replica)));
        problems
    }

    fn duty_problem(&self, pair: &Pair) -> Option<Problem> {
        let (shard, me) = (&pair.shard.name, &pair.me.name);
        let held = self.clock.now().saturating_duration_since(pair.duty_since());
        let problem = match pair.duty() {
            Duty::Leading => return None,
            Duty::Starting if held < STARTING_LONG => return None,
            Duty::Starting => Problem::new(
                "starting",
                format!("shard {shard}: {me} asks its replicas what they hold, and takes no writes yet"),
                "kv status --watch; its log says whom it waits for",
            ),
            Duty::Halted(halt) => Problem::new("halted", format!("shard {shard}: {}", halt.why), halt.next),
            Duty::StandingAside(halt) => {
                Problem::new("standing-aside", format!("shard {shard}: {}", halt.why), halt.next)
            }
            Duty::Following => {
                let state = pair.follow_state();
                let detail = state.problem()?;
                let leader = self.map.leader_of(&pair.shard);
                let what = format!("shard {shard}: replica {me}: {detail}");
                let problem = Problem::new(state.name(), what, self.follow_remedy(pair, &state));
                let is_leaders = matches!(state, FollowState::Away(_) | FollowState::NotListed(_));
                let about = if is_leaders { &leader.name } else { me };
                return Some(problem.about(about).since(pair.follow_since().and_then(|since| self.ms_since(since))));
            }
        };
        Some(problem.about(me).since(Some(millis(held))))
    }

    fn follow_remedy(&self, pair: &Pair, state: &FollowState) -> String {
        let (me, leader) = (&pair.me.name, self.map.leader_of(&pair.shard));
        match state {
            FollowState::LeaderLostData(_) => format!(
                "copy this copy's file to {} (docs/operations.md, \"A leader lost its data\"), or throw it away: kv replica \
                 reset {me}",
                leader.name
            ),
            FollowState::NotListed(_) => {
                format!("give {} the sharding.toml that names {me}, and restart it", leader.name)
            }
            FollowState::OffHistory(halt) => halt.next.clone(),
            FollowState::Stuck(_) if pair.disk_is_low().is_some() => {
                format!("free space on the disk of {me}: it goes on by itself")
            }
            FollowState::Stuck(_) => format!("look into the log and the disk of {me}, and restart it"),
            _ => format!("start the leader, or look into its log: {}", serve(leader.address)),
        }
    }

    /// Whether this node reads the same placement as the others. It is not ready when more than half of all nodes are known
    /// to read another one: then it is this node's file that is wrong, and what it takes would be looked for elsewhere.
    pub(super) fn check_placement(&self) -> Check {
        let differs = |contact: &Contact| matches!(contact, Contact::Refused(refusal) if refusal.code == RefusalCode::TopologyMismatch);
        let contacts = self.contacts.all();
        let others: Vec<&str> =
            contacts.iter().filter(|(_, contact, _)| differs(contact)).map(|(node, ..)| node.as_str()).collect();
        let nodes = self.map.topology().nodes().count();
        judge_placement(&others, nodes)
    }

    fn ms_since(&self, since: Instant) -> Option<u64> {
        Some(millis(self.clock.now().saturating_duration_since(since)))
    }
}

fn judge_placement(others: &[&str], nodes: usize) -> Check {
    let (verdict, detail) = match others {
        [] => (Verdict::Ok, "no node is known to read another".to_owned()),
        others => {
            let outvoted = others.len() * 2 > nodes;
            let verdict = if outvoted { Verdict::Failed } else { Verdict::Warning };
            let this = if outvoted { "most nodes read another: this node's sharding.toml is wrong; " } else { "" };
            let detail = format!(
                "{this}it differs from that of {} ({} of {nodes} nodes), which refuse this node as this node refuses them; \
                 kv status says how it differs",
                others.join(", "),
                others.len()
            );
            (verdict, detail)
        }
    };
    Check { name: "placement".into(), verdict, detail }
}

fn refused(node: &NodeName, refusal: &Refusal) -> Problem {
    let Refusal { code, detail } = refusal;
    let (code, title, next) = match code {
        RefusalCode::TopologyMismatch => (
            "topology-mismatch",
            "topology mismatch",
            "kv check sharding.toml on both machines shows what each reads; restart the node whose file is wrong",
        ),
        RefusalCode::Stranger => (
            "stranger",
            "another cluster's node",
            "look which data directory each was started with (--db-location), and restart the wrong one",
        ),
        RefusalCode::WrongNode => (
            "wrong-node",
            "wrong node at an address",
            "copy one sharding.toml to all nodes, and restart those that read another, one by one",
        ),
        RefusalCode::Version => ("peer-version", "no common peer protocol", "upgrade the older node"),
    };
    Problem::new(code, format!("{title}: {detail}"), next).about(node)
}

/// A leader that refuses writes rather than let more be at risk.
fn refuses_writes(shard: &str, refusal: &WriterRefusal) -> Option<Problem> {
    let code = match refusal {
        WriterRefusal::AtRisk(_) => "at-risk",
        WriterRefusal::TooFewReplicas(_) => "too-few-replicas",
        _ => return None,
    };
    let next = "start the replica, or look into its log; it ends by itself when a replica has what is at risk";
    Some(Problem::new(code, format!("shard {shard} refuses writes: {refusal}"), next))
}

/// States of a replica in which it is as its leader, or will be without anybody's help.
fn is_on_its_way(state: &str) -> bool {
    matches!(state, "streaming" | "catching-up" | "snapshot")
}

fn replica_problem(shard: &str, end: u64, replica: &ReplicaStatus) -> Problem {
    let ReplicaStatus { name, address, state, since_ms, .. } = replica;
    let start = format!("start it, or look into its log: kv serve --http-addr {address}");
    let (code, what) = match (state.as_str(), replica.lag_entries) {
        ("unseen", _) => ("replica-unseen", "was never seen".to_owned()),
        ("away", Some(lag)) => ("replica-away", format!("does not poll, and lacks {lag} of {end} entries")),
        ("given-up", _) => (
            "replica-given-up",
            "was away for so long that the log is not kept for it any more; it comes back with a snapshot".to_owned(),
        ),
        (state, _) => ("replica-away", format!("is {state}")),
    };
    let what = format!("shard {shard}: replica {name} ({address}) {what}");
    Problem::new(code, what, start).about(&NodeName::new(name.as_str())).since(*since_ms)
}

/// Writes were lost, which somebody has to look at, and then move the list away.
fn ledger_problem(shard: &str, node: &NodeName, ledger: &LedgerStatus) -> Option<Problem> {
    let LedgerStatus { file, writes, error, .. } = ledger;
    let list = format!("kv shard lost-writes {shard} > lost.ndjson; then move {file} away on its machine");
    let (what, next) = match error {
        Some(error) => (format!("shard {shard}: the ledger of {node} cannot be read: {error}"), list),
        None if *writes == 0 => return None,
        None => {
            let plural = if *writes == 1 { "" } else { "s" };
            (format!("shard {shard}: {node} lists {writes} lost write{plural} that the shard's leader never had"), list)
        }
    };
    Some(Problem::new("lost-writes", what, next).about(node))
}

fn serve(address: std::net::SocketAddr) -> String {
    format!("kv serve --http-addr {address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placement_of_a_node_is_failed_only_when_more_than_half_of_all_nodes_read_another() {
        let verdict = |others: &[&str], nodes| judge_placement(others, nodes).verdict;
        assert_eq!(verdict(&[], 8), Verdict::Ok);
        assert_eq!(verdict(&["A/1"], 8), Verdict::Warning, "one wrong node takes no right one down");
        assert_eq!(verdict(&["A/1"], 2), Verdict::Warning, "of two, nobody knows which");
        assert_eq!(verdict(&["A/1", "B/0"], 4), Verdict::Warning, "nor of two halves");
        assert_eq!(verdict(&["A/1", "B/0"], 3), Verdict::Failed);
        let check = judge_placement(&["A/1", "B/0"], 3);
        assert!(check.detail.contains("A/1, B/0 (2 of 3 nodes)"), "{}", check.detail);
    }

    #[test]
    fn replica_that_gets_nothing_is_a_problem_about_it() {
        let replica = |state: &str| ReplicaStatus {
            name: "A/1".into(),
            address: "h:2".into(),
            cursor: Some(7),
            lag_entries: Some(3),
            lag_ms: Some(4),
            state: state.into(),
            since_ms: Some(5000),
        };
        for state in ["unseen", "away", "given-up", "leader-lost-data"] {
            let problem = replica_problem("A", 10, &replica(state));
            assert_eq!((problem.about.as_deref(), problem.since_ms), (Some("A/1"), Some(5000)), "{state}");
            assert!(problem.next.contains("kv serve --http-addr h:2"));
            assert!(!is_on_its_way(state));
        }
        assert!(replica_problem("A", 10, &replica("away")).what.contains("lacks 3 of 10 entries"));
    }
}
