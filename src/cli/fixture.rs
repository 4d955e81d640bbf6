//! A cluster as `kv status` finds it, for tests to spoil.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::report::{Asked, Report};
use crate::store::view::{NodeStatus, PeerStatus, Problem};

/// Two shards, each with a replica; `a/1` lags, all is well. Nodes: `a/0` at `h:1`, `a/1`, `b/0`, `b/1` at `h:4`.
pub(crate) fn healthy() -> Report {
    let cluster_json = map(&["h:1", "h:2", "h:3", "h:4"]);
    let leader = |index: u32, shard: &str, address: &str, replica: &str| {
        let replicas = json!([{"name": format!("{shard}/1"), "address": replica, "cursor": 7, "lag_entries": 3,
            "lag_ms": 40, "state": "streaming", "since_ms": null}]);
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
        maps: BTreeMap::new(),
    }
}

/// The map of these two shards, with the nodes at these addresses.
pub(crate) fn map(addresses: &[&str; 4]) -> Value {
    let names = ["a/0", "a/1", "b/0", "b/1"];
    let nodes = names.iter().zip(addresses).filter(|(_, address)| !address.is_empty());
    let nodes: Vec<_> = nodes.map(|(name, address)| json!({"name": name, "address": address, "state": "up"})).collect();
    json!({
        "cluster": "c", "profile": "static", "hash_function": "fnv1a", "placement": "0x1",
        "nodes": nodes, "shards": [
            {"name": "a", "index": 0, "epoch": 1, "leader": addresses[0], "replicas": [addresses[1]]},
            {"name": "b", "index": 1, "epoch": 2, "leader": addresses[2], "replicas": [addresses[3]]}
        ]
    })
}

fn status(index: u32, shard: &str, name: &str, address: &str, role: &str, state: &str, replicas: &Value) -> Asked {
    let value = json!({
        "node": name, "address": address, "version": "0", "cluster": "c", "placement": "0x1", "placement_text": "text of 0x1",
        "addresses": "0xa", "uptime_ms": 1,
        "copies": [{"shard": shard, "index": index, "role": role, "state": state, "since_ms": null, "epoch": 1,
            "leader": "x", "end": 10, "keys": 5, "bytes": 1_572_864, "log_bytes": 0, "stale_ms": 0, "at_risk_entries": (role == "leader").then_some(3), "at_risk_ms": (role == "leader").then_some(40),
            "replicas": replicas}],
        "peers": [], "problems": []
    });
    let answer = Ok((serde_json::from_value(value.clone()).unwrap(), value));
    Asked { name: name.to_owned(), address: address.to_owned(), answer }
}

impl Report {
    /// What this node says, to be spoilt.
    pub(crate) fn said(&mut self, node: usize) -> &mut NodeStatus {
        &mut self.nodes[node].answer.as_mut().unwrap().0
    }

    /// This node gives no answer.
    pub(crate) fn silence(&mut self, node: usize) {
        self.nodes[node].answer = Err("connection refused".to_owned());
    }

    /// This node has found another one down for so long.
    pub(crate) fn saw_down(&mut self, node: usize, other: &str, ms: u64) {
        let peer = PeerStatus { name: other.to_owned(), state: "down".to_owned(), since_ms: Some(ms), detail: None };
        self.said(node).peers.push(peer);
    }

    /// This node complains.
    pub(crate) fn complain(&mut self, node: usize, code: &str, about: &str, what: &str) {
        let problem =
            Problem { about: Some(about.to_owned()), since_ms: Some(7000), ..Problem::new(code, what, "next") };
        self.said(node).problems.push(problem);
    }

    /// What is wrong, in sentences.
    pub(crate) fn sentences(&self) -> Vec<String> {
        self.problems().into_iter().map(|problem| problem.what).collect()
    }
}
