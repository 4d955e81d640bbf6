//! `kv status`: the map from one node, then every node of it at once. A node that is silent is a line too.

use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use reqwest::Client;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::exit::{Done, Exit, Failure, printable};
use super::http::{self, Ask};
use super::keys::{Asking, Output, json};
use super::report::{Asked, Report};
use super::target::Target;
use crate::store::view::{ClusterView, NodeView};

/// What a node may take to answer; a silent one counts as such after it.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// Nodes that are asked at once; the others wait for their turn.
const NODES_AT_ONCE: usize = 64;

/// Show the cluster: shards, leaders, keys, replicas and their lag; exit code 0 when all is well, 1 when not
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    #[command(flatten)]
    asking: Asking,
}

impl Status {
    /// Asks everybody, and shows it.
    pub(crate) fn run(&self, directory: &Path) -> Result<Done, Failure> {
        let target = self.asking.target(directory)?;
        let report = http::block_on(ask(&target))?;
        let exit = if report.problems().is_empty() { Exit::Ok } else { Exit::Error };
        let stdout = match self.asking.output {
            Output::Table => {
                report.render().lines().map(|line| printable(line) + "\n").collect::<String>().into_bytes()
            }
            Output::Json => json(&report.json()),
        };
        Ok(Done { exit, stdout, note: None })
    }
}

async fn ask(target: &Target) -> Result<Report, Failure> {
    let client = http::client(NODE_TIMEOUT)?;
    let (cluster, cluster_json) = ask_map(&client, target).await?;
    let nodes =
        stream::iter(&cluster.nodes).map(|node| ask_node(&client, node)).buffered(NODES_AT_ONCE).collect().await;
    Ok(Report { cluster, cluster_json, nodes })
}

/// The map, from the first server that gives it.
async fn ask_map(client: &Client, target: &Target) -> Result<(ClusterView, Value), Failure> {
    let mut first_failure = None;
    for base in target.all() {
        match fetch(client, base, "/v1/cluster").await {
            Ok(map) => return Ok(map),
            Err(failure) if failure.exit == Exit::Unavailable => first_failure = first_failure.or(Some(failure)),
            Err(failure) => return Err(failure),
        }
    }
    let failure = first_failure.unwrap_or_else(|| unreachable!("a target has a server"));
    if target.others.is_empty() {
        return Err(failure);
    }
    let detail =
        format!("{} of {} in sharding.toml; the first: {}", "none answers", target.all().count(), failure.detail);
    Err(Failure::new(
        Exit::Unavailable,
        "no node can be reached",
        detail,
        "./launch.sh starts the nodes of sharding.toml",
    ))
}

async fn ask_node(client: &Client, node: &NodeView) -> Asked {
    let answer = fetch(client, &format!("http://{}", node.address), "/admin/v1/status").await;
    Asked {
        name: node.name.clone(),
        address: node.address.clone(),
        answer: answer.map_err(|failure| match failure.detail.split_once(": ") {
            // the address stands beside it already
            Some((_, why)) if failure.exit == Exit::Unavailable => format!("{}: {why}", failure.title),
            _ => failure.detail,
        }),
    }
}

/// JSON as we understand it, and as it came.
async fn fetch<T: DeserializeOwned>(client: &Client, base: &str, path: &str) -> Result<(T, Value), Failure> {
    let reply = http::ask_one(client, base, &Ask::get(path)).await?;
    read_json(&reply.body).map_err(|error| {
        let detail = format!("{base}{path}: {error}");
        Failure::new(
            Exit::Error,
            "this is not an answer of a kv server",
            detail,
            "check --url, and that all nodes run the same version",
        )
    })
}

/// A newer server's further fields are kept in the value and passed over in the type.
pub(crate) fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<(T, Value), serde_json::Error> {
    let value: Value = serde_json::from_slice(body)?;
    Ok((T::deserialize(&value)?, value))
}
