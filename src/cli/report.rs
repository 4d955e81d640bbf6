//! What `kv status` found, as people and programs read it: a headline, what is wrong ([`diagnosis`]), and a table. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{diagnosis, table};
use crate::store::view::{ClusterView, CopyStatus, NodeStatus, Problem, ReplicaStatus, ShardView};

/// The map, and what every node of it answered.
#[derive(Debug)]
pub(crate) struct Report {
    /// The map of the node that was asked.
    pub(crate) cluster: ClusterView,
    /// The same as it came, for `-o json`.
    pub(crate) cluster_json: Value,
    /// Every node of the map, in its order.
    pub(crate) nodes: Vec<Asked>,
    /// Where nodes name different nodes or addresses: the map of one node of each kind, by its fingerprint.
    pub(crate) maps: BTreeMap<String, ClusterView>,
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
    /// What it said, if it did.
    pub(crate) fn status(&self) -> Option<&NodeStatus> {
        self.answer.as_ref().ok().map(|(status, _)| status)
    }

    /// Its copy of this shard.
    pub(crate) fn copy(&self, shard: &ShardView) -> Option<&CopyStatus> {
        self.status()?.copies.iter().find(|copy| copy.index == shard.index)
    }
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Json<'r> {
    healthy: bool,
    problems: Vec<Problem>,
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

impl Report {
    /// Everything that is wrong, the worst first; none when the cluster is healthy.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        diagnosis::problems(self)
    }

    /// What its nodes say of a shard's copies.
    pub(crate) fn copies<'r>(&'r self, shard: &'r ShardView) -> impl Iterator<Item = (&'r Asked, &'r CopyStatus)> {
        self.nodes.iter().filter_map(|node| node.copy(shard).map(|copy| (node, copy)))
    }

    /// The node that says that it leads a shard.
    pub(crate) fn leader<'r>(&'r self, shard: &'r ShardView) -> Option<(&'r Asked, &'r CopyStatus)> {
        self.copies(shard).find(|(_, copy)| copy.role == "leader")
    }

    /// A headline, the problems, and a row for each replica (or shard without one).
    pub(crate) fn render(&self) -> String {
        let problems = self.problems();
        let mut text = self.headline(problems.len());
        for Problem { what, since_ms, next, .. } in &problems {
            let since = since_ms.map(|ms| format!(" (for {})", table::duration(ms))).unwrap_or_default();
            text += &format!("  - {what}{since}\n    next: {next}\n");
        }
        let header = ["SHARD", "LEADER", "EPOCH", "KEYS", "SIZE", "AT RISK", "REPLICA", "LAG", "LAG MS", "STATE"];
        let rows = self.cluster.shards.iter().flat_map(|shard| self.rows(shard)).collect();
        text + "\n" + &table::render(&header, &[2, 3, 4, 5, 7, 8], rows)
    }

    fn headline(&self, problems: usize) -> String {
        let size = format!(
            "{} on {}",
            table::count(self.cluster.shards.len(), "shard"),
            table::count(self.nodes.len(), "node")
        );
        match problems {
            0 => format!("healthy: {size}\n"),
            problems => format!("NOT healthy: {} in {size}\n", table::count(problems, "problem")),
        }
    }

    fn rows(&self, shard: &ShardView) -> Vec<Vec<String>> {
        let leader = self.leader(shard);
        let head = match leader {
            Some((node, copy)) => {
                let state = match copy.state.as_str() {
                    "leading" => String::new(),
                    state => {
                        let since = copy.since_ms.map(|ms| format!(" for {}", table::duration(ms)));
                        format!(" ({state}{})", since.unwrap_or_default())
                    }
                };
                let leader = format!("{}{state}", node.address);
                let (keys, size) = (copy.keys.to_string(), table::size(copy.bytes));
                vec![shard.name.clone(), leader, copy.epoch.to_string(), keys, size, at_risk(copy)]
            }
            None => {
                let why = if self.is_silent(&shard.leader) { "no answer" } else { "not leading" };
                let leader = format!("{} ({why})", shard.leader);
                vec![shard.name.clone(), leader, shard.epoch.to_string(), unknown(), unknown(), unknown()]
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
        let away = replica.since_ms.map(|ms| format!(" for {}", table::duration(ms))).unwrap_or_default();
        let state = format!("{}{away}{silent}", replica.state);
        vec![replica.address.clone(), number(replica.lag_entries), number(replica.lag_ms), state]
    }

    /// A replica whose leader says nothing: what it says itself. How far it is behind, only the leader knows.
    fn replica_alone(&self, shard: &ShardView, address: &str) -> Vec<String> {
        let copy = self.nodes.iter().find(|node| node.address == address).and_then(|node| node.copy(shard));
        let state = copy.map_or_else(|| "no answer".to_owned(), |copy| copy.state.clone());
        vec![address.to_owned(), unknown(), unknown(), state]
    }

    /// Whether the node at this address gave no answer.
    pub(crate) fn is_silent(&self, address: &str) -> bool {
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

/// How many writes are on the leader's disk only, and since when the oldest; of a shard without replicas it is not a number.
fn at_risk(copy: &CopyStatus) -> String {
    match (copy.at_risk_entries, copy.at_risk_ms) {
        _ if copy.unreplicated => "-".to_owned(),
        (Some(0), _) => "0".to_owned(),
        (Some(entries), Some(ms @ ..1000)) => format!("{entries} ({ms} ms)"),
        (Some(entries), Some(ms)) => format!("{entries} ({})", table::duration(ms)),
        _ => unknown(),
    }
}

fn unknown() -> String {
    "?".to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::healthy;

    #[test]
    fn report_healthy_cluster_is_a_row_for_each_replica() {
        let expected = "\
healthy: 2 shards on 4 nodes

SHARD  LEADER  EPOCH  KEYS     SIZE    AT RISK  REPLICA  LAG  LAG MS  STATE
a      h:1         1     5  1.5 MiB  3 (40 ms)  h:2        3      40  streaming
b      h:3         1     5  1.5 MiB  3 (40 ms)  h:4        3      40  streaming
";
        assert_eq!(healthy().render(), expected);
    }

    #[test]
    fn report_silent_leader_leaves_its_row_and_says_what_it_means_since_when_and_what_to_do() {
        let mut report = healthy();
        report.silence(0);
        report.said(2).copies[0].at_risk_entries = Some(0);
        report.saw_down(2, "a/0", 61_000);
        report.saw_down(3, "a/0", 59_000);
        let expected = "\
NOT healthy: 1 problem in 2 shards on 4 nodes
  - a/0 (h:1) does not answer: connection refused; nobody leads a: writes to it are refused (for 1 m 1 s)
    next: start it, or look into its log: kv serve --http-addr h:1; if it is gone: kv shard takeover a

SHARD  LEADER           EPOCH  KEYS     SIZE  AT RISK  REPLICA  LAG  LAG MS  STATE
a      h:1 (no answer)      1     ?        ?        ?  h:2        ?       ?  streaming
b      h:3                  1     5  1.5 MiB        0  h:4        3      40  streaming
";
        assert_eq!(report.render(), expected);
    }

    #[test]
    fn report_states_that_last_say_for_how_long() {
        let mut report = healthy();
        report.said(0).copies[0].state = "halted".to_owned();
        report.said(0).copies[0].since_ms = Some(5000);
        report.said(0).copies[0].replicas[0].state = "away".to_owned();
        report.said(0).copies[0].replicas[0].since_ms = Some(4000);
        report.silence(1);
        let shown = report.render();
        assert!(shown.contains("h:1 (halted for 5 s)") && shown.contains("away for 4 s, no answer"), "{shown}");
    }

    #[test]
    fn report_shard_without_replicas_is_unreplicated_and_no_number_is_at_risk() {
        let mut report = healthy();
        let copy = &mut report.said(0).copies[0];
        (copy.unreplicated, copy.at_risk_entries, copy.at_risk_ms) = (true, None, None);
        copy.replicas.clear();
        let shown = report.render();
        assert!(shown.contains("1.5 MiB          -  -          -       -  unreplicated"), "{shown}");
    }

    #[test]
    fn report_unseen_numbers_are_question_marks() {
        let mut report = healthy();
        let replica = &mut report.said(0).copies[0].replicas[0];
        (replica.lag_entries, replica.lag_ms) = (None, None);
        assert!(report.render().contains("h:2        ?       ?  streaming"), "{}", report.render());
    }
}
