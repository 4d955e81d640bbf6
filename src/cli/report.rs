//! What `kv status` found, put together: who is wrong, and the table. Pure.
//!
//! A node says of itself what is wrong with it. What no node can say is added here: that a node is silent, that a shard
//! has no leader or two, that nodes are of different clusters.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::table;
use crate::store::view::{ClusterView, CopyStatus, NodeStatus, ReplicaStatus, ShardView};

/// The map, and what every node of it answered.
#[derive(Debug)]
pub(crate) struct Report {
    /// The map of the node that was asked.
    pub(crate) cluster: ClusterView,
    /// The same as it came, for `-o json`.
    pub(crate) cluster_json: Value,
    /// Every node of the map, in its order.
    pub(crate) nodes: Vec<Asked>,
}

/// What one node answered.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Its name in the map.
    pub(crate) name: String,
    /// Its address in the map.
    pub(crate) address: String,
    /// Its status, also as it came; or why there is none.
    pub(crate) answer: Result<(NodeStatus, Value), String>,
}

impl Asked {
    fn status(&self) -> Option<&NodeStatus> {
        self.answer.as_ref().ok().map(|(status, _)| status)
    }

    /// Its copy of this shard.
    fn copy(&self, shard: &ShardView) -> Option<&CopyStatus> {
        self.status()?.copies.iter().find(|copy| copy.index == shard.index)
    }
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Json<'r> {
    healthy: bool,
    problems: Vec<String>,
    cluster: &'r Value,
    nodes: Vec<JsonNode<'r>>,
}

#[derive(Serialize)]
struct JsonNode<'r> {
    name: &'r str,
    address: &'r str,
    status: Option<&'r Value>,
    error: Option<&'r str>,
}

/// States of a replica in which it is on its way to be like its leader.
const FINE: [&str; 3] = ["streaming", "catching-up", "snapshot"];

impl Report {
    /// Everything that is wrong, a sentence each; none when the cluster is healthy.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for node in &self.nodes {
            match &node.answer {
                Err(why) => problems.push(format!("{} ({}) does not answer: {why}", node.name, node.address)),
                Ok((status, _)) => {
                    problems.extend(status.problems.iter().map(|problem| format!("{}: {problem}", node.name)));
                }
            }
        }
        for shard in &self.cluster.shards {
            self.leader_problems(shard, &mut problems);
            self.replica_problems(shard, &mut problems);
        }
        self.disagreements(&mut problems);
        problems
    }

    fn leader_problems(&self, shard: &ShardView, problems: &mut Vec<String>) {
        let leaders: Vec<&Asked> =
            self.copies(shard).filter(|(_, copy)| copy.role == "leader").map(|(node, _)| node).collect();
        match leaders.as_slice() {
            [] => problems.push(format!("{}: no node leads it; its writes are refused", shard.name)),
            [leader] => {
                let state = leader.copy(shard).map_or("", |copy| copy.state.as_str());
                let says_why = leader.status().is_some_and(|status| !status.problems.is_empty());
                if state != "leading" && !says_why {
                    problems.push(format!("{}: its leader {} is {state}", shard.name, leader.address));
                }
            }
            several => {
                let addresses: Vec<&str> = several.iter().map(|node| node.address.as_str()).collect();
                problems.push(format!(
                    "{}: {} nodes say that they lead it: {}",
                    shard.name,
                    several.len(),
                    addresses.join(", ")
                ));
            }
        }
    }

    /// What the leader says of its replicas; a node that is silent, or said it itself, is not named twice.
    fn replica_problems(&self, shard: &ShardView, problems: &mut Vec<String>) {
        let Some((_, leader)) = self.leader(shard) else { return };
        for replica in &leader.replicas {
            let is_known =
                problems.iter().any(|problem| problem.contains(&replica.address) || problem.contains(&replica.name));
            if !FINE.contains(&replica.state.as_str()) && !is_known {
                problems.push(format!("{}: its replica {} is {}", shard.name, replica.address, replica.state));
            }
        }
    }

    fn disagreements(&self, problems: &mut Vec<String>) {
        let statuses = || self.nodes.iter().filter_map(Asked::status);
        let clusters: BTreeSet<&str> = statuses().filter_map(|status| status.cluster.as_deref()).collect();
        if clusters.len() > 1 {
            let list = clusters.into_iter().collect::<Vec<_>>().join(", ");
            problems.push(format!("the nodes are of different clusters: {list}"));
        }
        let placements: BTreeSet<&str> = statuses().map(|status| status.placement.as_str()).collect();
        if placements.len() > 1 {
            problems.push(
                "the nodes read different sharding.toml files: compare them, and restart those that are wrong"
                    .to_owned(),
            );
        }
    }

    fn copies<'r>(&'r self, shard: &'r ShardView) -> impl Iterator<Item = (&'r Asked, &'r CopyStatus)> {
        self.nodes.iter().filter_map(|node| node.copy(shard).map(|copy| (node, copy)))
    }

    fn leader<'r>(&'r self, shard: &'r ShardView) -> Option<(&'r Asked, &'r CopyStatus)> {
        self.copies(shard).find(|(_, copy)| copy.role == "leader")
    }

    /// A headline, the problems, and a row for each replica (or shard without one).
    pub(crate) fn render(&self) -> String {
        let problems = self.problems();
        let mut text = self.headline(problems.len());
        for problem in &problems {
            text += &format!("  - {problem}\n");
        }
        let header = ["SHARD", "LEADER", "EPOCH", "KEYS", "SIZE", "REPLICA", "LAG", "LAG MS", "STATE"];
        let rows = self.cluster.shards.iter().flat_map(|shard| self.rows(shard)).collect();
        text + "\n" + &table::render(&header, &[2, 3, 4, 6, 7], rows)
    }

    fn headline(&self, problems: usize) -> String {
        let size = format!("{} on {}", count(self.cluster.shards.len(), "shard"), count(self.nodes.len(), "node"));
        match problems {
            0 => format!("healthy: {size}\n"),
            problems => format!("NOT healthy: {} in {size}\n", count(problems, "problem")),
        }
    }

    fn rows(&self, shard: &ShardView) -> Vec<Vec<String>> {
        let leader = self.leader(shard);
        let head = match leader {
            Some((node, copy)) => {
                let state = if copy.state == "leading" { String::new() } else { format!(" ({})", copy.state) };
                let leader = format!("{}{state}", node.address);
                vec![shard.name.clone(), leader, copy.epoch.to_string(), copy.keys.to_string(), table::size(copy.bytes)]
            }
            None => {
                let why = if self.is_silent(&shard.leader) { "no answer" } else { "not leading" };
                let leader = format!("{} ({why})", shard.leader);
                vec![shard.name.clone(), leader, shard.epoch.to_string(), unknown(), unknown()]
            }
        };
        let empty = || vec![String::new(); head.len()];
        let mut replicas: Vec<Vec<String>> = match leader {
            Some((_, copy)) => copy.replicas.iter().map(|replica| self.replica_of_leader(replica)).collect(),
            None => shard.replicas.iter().map(|address| self.replica_alone(shard, address)).collect(),
        };
        if replicas.is_empty() {
            replicas.push(vec!["-".to_owned(), "-".to_owned(), "-".to_owned(), "unreplicated".to_owned()]);
        }
        let heads = std::iter::once(head.clone()).chain(std::iter::repeat_with(empty));
        heads.zip(replicas).map(|(head, replica)| [head, replica].concat()).collect()
    }

    fn replica_of_leader(&self, replica: &ReplicaStatus) -> Vec<String> {
        let silent = if self.is_silent(&replica.address) { ", no answer" } else { "" };
        let number = |number: Option<u64>| number.map_or_else(unknown, |number| number.to_string());
        let state = format!("{}{silent}", replica.state);
        vec![replica.address.clone(), number(replica.lag_entries), number(replica.lag_ms), state]
    }

    /// A replica whose leader says nothing: what it says itself. How far it is behind, only the leader knows.
    fn replica_alone(&self, shard: &ShardView, address: &str) -> Vec<String> {
        let copy = self.nodes.iter().find(|node| node.address == address).and_then(|node| node.copy(shard));
        let state = copy.map_or_else(|| "no answer".to_owned(), |copy| copy.state.clone());
        vec![address.to_owned(), unknown(), unknown(), state]
    }

    fn is_silent(&self, address: &str) -> bool {
        self.nodes.iter().any(|node| node.address == address && node.answer.is_err())
    }

    /// The same for programs, with the nodes' own words in full.
    pub(crate) fn json(&self) -> impl Serialize {
        let problems = self.problems();
        let nodes = self.nodes.iter().map(|node| JsonNode {
            name: &node.name,
            address: &node.address,
            status: node.answer.as_ref().ok().map(|(_, value)| value),
            error: node.answer.as_ref().err().map(String::as_str),
        });
        Json { healthy: problems.is_empty(), problems, cluster: &self.cluster_json, nodes: nodes.collect() }
    }
}

fn unknown() -> String {
    "?".to_owned()
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Two shards, each with a replica; `a/1` lags, all is well.
    fn healthy() -> Report {
        let cluster_json = json!({
            "cluster": "c", "profile": "static", "hash_function": "fnv1a", "placement": "0x1",
            "nodes": [], "shards": [
                {"name": "a", "index": 0, "epoch": 1, "leader": "h:1", "replicas": ["h:2"]},
                {"name": "b", "index": 1, "epoch": 2, "leader": "h:3", "replicas": ["h:4"]}
            ]
        });
        let leader = |index: u32, shard: &str, address: &str, replica: &str| {
            let replicas = json!([{"name": format!("{shard}/1"), "address": replica, "cursor": 7, "lag_entries": 3,
                "lag_ms": 40, "state": "streaming"}]);
            status(index, shard, &format!("{shard}/0"), address, "leader", "leading", &replicas)
        };
        let replica = |index: u32, shard: &str, address: &str| {
            status(index, shard, &format!("{shard}/1"), address, "replica", "streaming", &json!([]))
        };
        Report {
            cluster: serde_json::from_value(cluster_json.clone()).unwrap(),
            cluster_json,
            nodes: vec![
                leader(0, "a", "h:1", "h:2"),
                replica(0, "a", "h:2"),
                leader(1, "b", "h:3", "h:4"),
                replica(1, "b", "h:4"),
            ],
        }
    }

    fn status(index: u32, shard: &str, name: &str, address: &str, role: &str, state: &str, replicas: &Value) -> Asked {
        let value = json!({
            "node": name, "address": address, "version": "0", "cluster": "c", "placement": "0x1", "uptime_ms": 1,
            "copies": [{"shard": shard, "index": index, "role": role, "state": state, "epoch": 1, "leader": "x", "end": 10,
                "keys": 5, "bytes": 1_572_864, "log_bytes": 0, "stale_ms": 0, "replicas": replicas}],
            "problems": []
        });
        let answer = Ok((serde_json::from_value(value.clone()).unwrap(), value));
        Asked { name: name.to_owned(), address: address.to_owned(), answer }
    }

    impl Report {
        /// What this node says, to be spoilt.
        fn said(&mut self, node: usize) -> &mut NodeStatus {
            &mut self.nodes[node].answer.as_mut().unwrap().0
        }

        fn silence(&mut self, node: usize) {
            self.nodes[node].answer = Err("connection refused".to_owned());
        }
    }

    #[test]
    fn report_healthy_cluster_is_a_row_for_each_replica() {
        let expected = "\
healthy: 2 shards on 4 nodes

SHARD  LEADER  EPOCH  KEYS     SIZE  REPLICA  LAG  LAG MS  STATE
a      h:1         1     5  1.5 MiB  h:2        3      40  streaming
b      h:3         1     5  1.5 MiB  h:4        3      40  streaming
";
        assert_eq!(healthy().render(), expected);
        assert_eq!(healthy().problems(), Vec::<String>::new());
    }

    #[test]
    fn report_silent_leader_leaves_its_row_and_says_what_it_means() {
        let mut report = healthy();
        report.silence(0);
        let expected = "\
NOT healthy: 2 problems in 2 shards on 4 nodes
  - a/0 (h:1) does not answer: connection refused
  - a: no node leads it; its writes are refused

SHARD  LEADER           EPOCH  KEYS     SIZE  REPLICA  LAG  LAG MS  STATE
a      h:1 (no answer)      1     ?        ?  h:2        ?       ?  streaming
b      h:3                  1     5  1.5 MiB  h:4        3      40  streaming
";
        assert_eq!(report.render(), expected);
    }

    #[test]
    fn report_silent_replica_is_one_problem_whatever_its_leader_says() {
        let mut report = healthy();
        report.silence(1);
        report.said(0).copies[0].replicas[0].state = "away".to_owned();
        assert_eq!(report.problems(), ["a/1 (h:2) does not answer: connection refused"]);
        assert!(report.render().contains("away, no answer"));
    }

    #[test]
    fn report_replica_that_gets_nothing_is_a_problem_and_one_that_catches_up_is_none() {
        for (state, problems) in
            [("unseen", 1), ("away", 1), ("given-up", 1), ("leader-lost-data", 1), ("catching-up", 0), ("snapshot", 0)]
        {
            let mut report = healthy();
            report.said(0).copies[0].replicas[0].state = state.to_owned();
            assert_eq!(report.problems().len(), problems, "{state}");
        }
    }

    #[test]
    fn report_leader_that_does_not_lead_is_a_problem_once() {
        let mut report = healthy();
        report.said(0).copies[0].state = "halted".to_owned();
        assert_eq!(report.problems(), ["a: its leader h:1 is halted"]);
        assert!(report.render().contains("h:1 (halted)"));
        report.said(0).problems.push("the disk failed: restart the node".to_owned());
        assert_eq!(report.problems(), ["a/0: the disk failed: restart the node"]);
    }

    #[test]
    fn report_two_leaders_or_clusters_or_files_are_problems() {
        let mut report = healthy();
        report.said(1).copies[0].role = "leader".to_owned();
        assert_eq!(report.problems(), ["a: 2 nodes say that they lead it: h:1, h:2"]);
        let mut report = healthy();
        report.said(1).cluster = Some("d".to_owned());
        assert_eq!(report.problems(), ["the nodes are of different clusters: c, d"]);
        let mut report = healthy();
        report.said(1).placement = "0x2".to_owned();
        assert!(report.problems()[0].contains("different sharding.toml"));
    }

    #[test]
    fn report_unseen_numbers_are_question_marks() {
        let mut report = healthy();
        let replica = &mut report.said(0).copies[0].replicas[0];
        (replica.lag_entries, replica.lag_ms) = (None, None);
        assert!(report.render().contains("h:2        ?       ?  streaming"), "{}", report.render());
    }
}
