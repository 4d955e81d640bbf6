//! Who leads a shard now, as tests of takeover and switchover ask it: by what the nodes say, not by the file.

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::process::Said;
use crate::support::{At, Cluster, raw, wait};

/// The address and the epoch that a node's map has for a shard.
pub(crate) fn in_map(cluster: &Cluster, asked: At, shard: usize) -> (SocketAddr, u64) {
    let map = cluster.get(asked, "/v1/cluster").expect(200).json();
    let shard = &map["shards"][shard];
    (shard["leader"].as_str().unwrap().parse().unwrap(), shard["epoch"].as_u64().unwrap())
}

/// A copy's role, state and end, as its node says.
pub(crate) fn copy(cluster: &Cluster, at: At) -> (String, String, u64) {
    let status = cluster.status(at);
    let copy = &status["copies"][0];
    let text = |field: &str| copy[field].as_str().unwrap_or_default().to_owned();
    (text("role"), text("state"), copy["end"].as_u64().unwrap())
}

/// Every copy of a shard whose process runs.
pub(crate) fn running(cluster: &Cluster) -> Vec<At> {
    cluster.all().filter(|at| cluster.is_running(*at)).collect()
}

/// Waits until this node leads, and every running node's map says so.
pub(crate) fn wait_leads(cluster: &Cluster, at: At) {
    wait::until(&format!("{at:?} leads"), || {
        let (role, state, _) = copy(cluster, at);
        if (role.as_str(), state.as_str()) != ("leader", "leading") {
            return Err(format!("it is {role}, {state}"));
        }
        for asked in running(cluster) {
            let (leader, epoch) = in_map(cluster, asked, at.shard);
            if leader != cluster.address(at) {
                return Err(format!("to {asked:?}, {leader} leads in epoch {epoch}"));
            }
        }
        Ok(())
    });
}

/// Waits until every other running copy streams, and holds as much as this one, which leads.
pub(crate) fn wait_followed(cluster: &Cluster, leader: At) {
    for at in running(cluster).into_iter().filter(|at| at.shard == leader.shard && *at != leader) {
        wait::until(&format!("{at:?} follows {leader:?}"), || {
            let ((_, _, end), (role, state, has)) = (copy(cluster, leader), copy(cluster, at));
            if (role.as_str(), state.as_str(), has) == ("replica", "streaming", end) {
                Ok(())
            } else {
                Err(format!("it is {role}, {state}, at {has} of {end}"))
            }
        });
    }
}

/// Waits until a node answers at all.
pub(crate) fn wait_answers(cluster: &Cluster, at: At) {
    wait::until(&format!("{at:?} answers"), || raw::send(cluster.address(at), &raw::Request::get("/livez")));
}

/// `kv shard takeover`, without a question.
pub(crate) fn take_over(cluster: &Cluster, through: At, to: At, more: &[&str]) -> Said {
    let (shard, node) = (cluster.shard_name(to.shard), cluster.node_name(to));
    cluster.kv(through, &[&["shard", "takeover", shard, "--to", &node, "--yes"], more].concat(), "")
}

/// `kv shard switchover`; the JSON of what came of it.
pub(crate) fn switch_over(cluster: &Cluster, through: At, to: At, more: &[&str]) -> Result<Value, Said> {
    let (shard, node) = (cluster.shard_name(to.shard), cluster.node_name(to));
    let said = cluster.kv(through, &[&["shard", "switchover", shard, "--to", &node, "-o", "json"], more].concat(), "");
    if said.code == 0 { Ok(serde_json::from_str(&said.out).unwrap()) } else { Err(said) }
}
