//! Which node of the file a process is: from its address, or from shard and role; and where it keeps its data unless told.
//! Pure. What is given beyond need is checked against the file, so that a copied command line cannot start a wrong node.

use std::path::PathBuf;

use super::address::parse_address;
use super::fault::{Fault, nearest, quote};
use super::topology::{Node, Shard, Topology};
use crate::types::NodeName;

/// What a command line says about the node.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// `--http-addr`.
    pub address: Option<&'a str>,
    /// `--shard`.
    pub shard: Option<&'a str>,
    /// `--replica`; without it nothing is said about the role, except that `--shard` alone means the leader.
    pub replica: bool,
}

/// Finds the node, or says why the options name none, or contradict the file.
pub fn choose_node<'t>(topology: &'t Topology, wanted: Wanted<'_>) -> Result<&'t Node, Fault> {
    let shard = wanted.shard.map(|name| find_shard(topology, name)).transpose()?;
    match (wanted.address, shard) {
        (Some(address), shard) => {
            let node = find_address(topology, address)?;
            agree(topology, node, shard, wanted.replica)?;
            Ok(node)
        }
        (None, Some(shard)) => by_role(shard, wanted.replica),
        (None, None) => only_node(topology),
    }
}

fn find_shard<'t>(topology: &'t Topology, name: &str) -> Result<&'t Shard, Fault> {
    if let Some(shard) = topology.shards.iter().find(|shard| shard.name == name) {
        return Ok(shard);
    }
    let names = || topology.shards.iter().map(|shard| shard.name.as_str());
    let remedy = match nearest(name, names()) {
        Some(found) => format!("did you mean --shard {found}?"),
        None => format!("choose one of {}", names().collect::<Vec<_>>().join(", ")),
    };
    Err(Fault::general(format!("--shard {} is not in the file", quote(name)), remedy))
}

fn find_address<'t>(topology: &'t Topology, text: &str) -> Result<&'t Node, Fault> {
    let address =
        parse_address(text).map_err(|fault| Fault::general(format!("--http-addr: {}", fault.what), fault.remedy))?;
    topology.node_at(address).ok_or_else(|| {
        let remedy = format!("add it to the file on every node, or choose one of {}", list(topology.nodes()));
        Fault::general(format!("--http-addr {address} is nowhere in the file"), remedy)
    })
}

/// What was given beside the address must say the same.
fn agree(topology: &Topology, node: &Node, shard: Option<&Shard>, replica: bool) -> Result<(), Fault> {
    let Some(owner) = topology.shard(node.shard) else { unreachable!("node {} is of no shard", node.name) };
    if let Some(shard) = shard.filter(|shard| shard.index != owner.index) {
        let what =
            format!("--http-addr {} is a node of shard {}, not of --shard {}", node.address, owner.name, shard.name);
        let remedy = format!("drop one of the two; the nodes of {} are {}", shard.name, list(&shard.copies));
        return Err(Fault::general(what, remedy));
    }
    if replica && node.address == owner.first_leader().address {
        let what = format!(
            "--http-addr {} is the leader of shard {} in the file, and --replica says otherwise",
            node.address, owner.name
        );
        let remedy = match owner.copies.get(1..) {
            Some(replicas @ [_, ..]) => format!("drop --replica, or choose a replica of it: {}", list(replicas)),
            _ => "drop --replica; the shard has no replicas in the file".to_owned(),
        };
        return Err(Fault::general(what, remedy));
    }
    Ok(())
}

fn by_role(shard: &Shard, replica: bool) -> Result<&Node, Fault> {
    if !replica {
        return Ok(shard.first_leader());
    }
    match shard.copies.get(1..).unwrap_or_default() {
        [only] => Ok(only),
        [] => Err(Fault::general(
            format!("shard {} has no replicas in the file", shard.name),
            "add one to its replicas on every node, or drop --replica",
        )),
        several => Err(Fault::general(
            format!("shard {} has {} replicas", shard.name, several.len()),
            format!("say which with --http-addr: {}", list(several)),
        )),
    }
}

fn only_node(topology: &Topology) -> Result<&Node, Fault> {
    let mut nodes = topology.nodes();
    match (nodes.next(), nodes.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(Fault::general(
            "the command line does not say which node of the file this is",
            format!("add --http-addr with one of {}", list(topology.nodes())),
        )),
    }
}

/// Addresses with their names. As many as the file has: who asks for one must be able to find it.
fn list<'n>(nodes: impl IntoIterator<Item = &'n Node>) -> String {
    nodes.into_iter().map(|node| format!("{} ({})", node.address, node.name)).collect::<Vec<_>>().join(", ")
}

/// Where a node keeps its data unless `--db-location` says otherwise: `data/hyderabad.redb` for the node `Hyderabad/0`,
/// `data/hyderabad-1.redb` for `Hyderabad/1`.
#[must_use]
pub fn default_db_location(name: &NodeName) -> PathBuf {
    let name = name.as_str();
    let stem = name.strip_suffix("/0").unwrap_or(name).replace('/', "-").to_lowercase();
    PathBuf::from("data").join(format!("{stem}.redb"))
}
