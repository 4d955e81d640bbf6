//! `kv status`: the map from one node, then every node of it at once. A node that is silent is a line too.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use reqwest::Client;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::exit::{Done, Exit, Failure, printable};
use super::http::{self, Ask};
use super::keys::{Asking, Output, json};
use super::report::{Asked, Report};
use super::target::Target;
use super::watch::{self, Frame};
use crate::store::view::{ClusterView, NodeView};

/// What a node may take to answer; a silent one counts as such after it.
pub(crate) const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// Nodes that are asked at once; the others wait for their turn.
const NODES_AT_ONCE: usize = 64;

/// Show the cluster: what is wrong, since when and what to do, then shards, leaders and replicas
#[derive(Debug, clap::Args)]
#[command(after_help = "Ends with 0 when all is well, and with 1 when something is wrong.")]
pub(crate) struct Status {
    /// Show it again every so many seconds, until Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
    #[command(flatten)]
    asking: Asking,
}

impl Status {
    /// Asks everybody, and shows it.
    pub(crate) fn run(&self, directory: &Path) -> Result<Done, Failure> {
        let target = self.asking.target(directory)?;
        match self.watch {
            Some(seconds) => http::block_on(watch::watch(Duration::from_secs(seconds), || self.look(&target))),
            None => {
                let report = http::block_on(ask(&target))?;
                let stdout = match self.asking.output {
                    Output::Table => shown(&report).into_bytes(),
                    Output::Json => json(&report.json()),
                };
                Ok(Done { exit: exit(&report), stdout, note: None })
            }
        }
    }

    /// One frame; of JSON, a line.
    async fn look(&self, target: &Target) -> Result<Frame, Failure> {
        let report = ask(target).await?;
        let text = match self.asking.output {
            Output::Table => shown(&report),
            Output::Json => serde_json::to_string(&report.json()).unwrap_or_default(),
        };
        Ok((text, exit(&report)))
    }
}

fn exit(report: &Report) -> Exit {
    if report.problems().is_empty() { Exit::Ok } else { Exit::Error }
}

fn shown(report: &Report) -> String {
    report.render().lines().map(|line| printable(line) + "\n").collect()
}

async fn ask(target: &Target) -> Result<Report, Failure> {
    let client = http::client(NODE_TIMEOUT)?;
    let (cluster, cluster_json) = ask_map(&client, target).await?;
    let nodes: Vec<Asked> =
        stream::iter(&cluster.nodes).map(|node| ask_node(&client, node)).buffered(NODES_AT_ONCE).collect().await;
    let maps = ask_maps(&client, &nodes).await;
    Ok(Report { cluster, cluster_json, nodes, maps })
}

/// Where nodes name different nodes or addresses: the map of one of each kind, so that it can be said how they differ.
async fn ask_maps(client: &Client, nodes: &[Asked]) -> BTreeMap<String, ClusterView> {
    let kinds: BTreeMap<&str, &str> =
        nodes.iter().filter_map(|node| Some((node.status()?.addresses.as_str(), node.address.as_str()))).collect();
    if kinds.len() < 2 {
        return BTreeMap::new();
    }
    let maps = kinds.into_iter().map(|(kind, address)| async move {
        let map = fetch::<ClusterView>(client, &format!("http://{address}"), "/v1/cluster").await;
        Some((kind.to_owned(), map.ok()?.0)) // without it the difference is named all the same, only not spelled out
    });
    join_all(maps).await.into_iter().flatten().collect()
}

/// The map, from the first server that gives it.
pub(crate) async fn ask_map(client: &Client, target: &Target) -> Result<(ClusterView, Value), Failure> {
    ask_any(client, target, "/v1/cluster").await
}

/// What any server can answer, from the first that does.
pub(crate) async fn ask_any<T: DeserializeOwned>(
    client: &Client,
    target: &Target,
    path: &str,
) -> Result<(T, Value), Failure> {
    let mut first_failure = None;
    for base in target.all() {
        match fetch(client, base, path).await {
            Ok(found) => return Ok(found),
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

/// A node's status, or why there is none.
pub(crate) async fn ask_node(client: &Client, node: &NodeView) -> Asked {
    let answer = fetch(client, &format!("http://{}", node.address), "/admin/v1/status").await;
    Asked {
        name: node.name.clone(),
        address: node.address.clone(),
        answer: answer.map_err(|failure| match failure.detail.split_once(": ") {
            // The address stands beside it already, and of a chain of causes the last one says it.
            Some((_, why)) if failure.exit == Exit::Unavailable => {
                format!("{}: {}", failure.title, why.rsplit(": ").next().unwrap_or(why))
            }
            _ => failure.detail,
        }),
    }
}

/// JSON as we understand it, and as it came.
pub(crate) async fn fetch<T: DeserializeOwned>(client: &Client, base: &str, path: &str) -> Result<(T, Value), Failure> {
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
