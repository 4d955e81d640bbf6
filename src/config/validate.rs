//! From values with their lines to a [`Topology`] and [`Settings`]: what the file means as a whole. Pure; collects every
//! fault and never stops at the first.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;

use super::choice::default_db_location;
use super::fault::{At, Fault, quote};
use super::parse::{Raw, RawShard};
use super::settings::validate_settings;
use super::topology::{Node, Settings, Shard, Topology};
use crate::placement::Placement;
use crate::types::{NodeName, ShardIndex};

/// Longest name of a shard or node; names travel in headers, messages and every row of history.
const NAME_BYTES_MAX: usize = 64;

/// Checks everything; adds to `faults`. None when there is a fault in the topology.
pub(super) fn validate(raw: &Raw, faults: &mut Vec<Fault>) -> Option<(Topology, Settings)> {
    let settings = validate_settings(&raw.settings, faults);
    if raw.shards.is_empty() && !raw.shards_are_no_tables {
        let remedy = "describe each shard under a [[shards]] line: name, idx, address, replicas";
        faults.push(Fault::general("the file has no shards", remedy));
    }
    check_shard_names(&raw.shards, faults);
    check_indices(&raw.shards, faults);
    check_addresses(&raw.shards, faults);
    let given = given_names(raw, faults);
    if !faults.is_empty() {
        return None; // names of nodes follow from the rest: without it they would be guesses
    }
    let topology = build(raw, &given);
    check_node_names(raw, &topology, faults);
    check_replicas(raw, &topology, &settings, faults);
    faults.is_empty().then_some((topology, settings))
}

fn check_shard_names(shards: &[RawShard], faults: &mut Vec<Fault>) {
    let mut seen: BTreeMap<String, &At<String>> = BTreeMap::new();
    for name in shards.iter().filter_map(|shard| shard.name.as_ref()) {
        check_name(name, "shard", "-_.", faults);
        match seen.entry(name.value.to_lowercase()) {
            Entry::Vacant(place) => {
                place.insert(name);
            }
            Entry::Occupied(first) => {
                let first = first.get();
                let how = if first.value == name.value { "is" } else { "differs only in case from" };
                let what = format!("name {} {how} that of the shard in line {}", quote(&name.value), first.line);
                faults.push(Fault::at(name.line, what, "give each shard a name of its own"));
            }
        }
    }
}

fn check_name(name: &At<String>, whose: &str, punctuation: &str, faults: &mut Vec<Fault>) {
    let text = &name.value;
    let spoken = punctuation.chars().map(String::from).collect::<Vec<_>>().join(" ");
    let remedy = format!("use letters a to z, digits and {spoken}, {NAME_BYTES_MAX} at most");
    let stranger = text.chars().find(|c| !c.is_ascii_alphanumeric() && !punctuation.contains(*c));
    let what = match stranger {
        _ if text.is_empty() => format!("the {whose}'s name is empty"),
        Some(stranger) => format!("{whose} name {} holds {stranger:?}", quote(text)),
        None if text.len() > NAME_BYTES_MAX => format!("{whose} name {} has {} characters", quote(text), text.len()),
        None => return,
    };
    faults.push(Fault::at(name.line, what, remedy));
}

/// Indices are 0, 1, 2, … in any order of the file, each once.
fn check_indices(shards: &[RawShard], faults: &mut Vec<Fault>) {
    let written: Vec<(&At<u32>, &RawShard)> =
        shards.iter().filter_map(|shard| shard.idx.as_ref().map(|idx| (idx, shard))).collect();
    let count = shards.len();
    let mut seen: BTreeMap<u32, &RawShard> = BTreeMap::new();
    let mut twice = Vec::new();
    for (idx, shard) in &written {
        match seen.entry(idx.value) {
            Entry::Vacant(place) => {
                place.insert(shard);
            }
            Entry::Occupied(first) => twice.push((idx, *first.get())),
        }
    }
    let all_indices = (0_u32..).take(count);
    let free: Vec<String> = all_indices.filter(|idx| !seen.contains_key(idx)).map(|idx| idx.to_string()).collect();
    let free = list_some(&free);
    for (idx, first) in twice {
        let line = first.idx.as_ref().map_or(0, |idx| idx.line);
        let what = format!("idx {} is also that of {} (line {line})", idx.value, title(first));
        let remedy = if free.is_empty() {
            "give it an index of its own".to_owned()
        } else {
            format!("give it a free one: {free}")
        };
        faults.push(Fault::at(idx.line, what, remedy));
    }
    // An index that could not be read may be the one that seems to be missing: then nothing can be said about gaps.
    if written.len() < count {
        return;
    }
    for (idx, _) in written.iter().filter(|(idx, _)| idx.value as usize >= count) {
        let what = format!("idx {} leaves a gap: {count} shards have the indices 0 to {}", idx.value, count - 1);
        faults.push(Fault::at(idx.line, what, format!("give it one that is missing: {free}")));
    }
}

/// At most a handful of `words`, for a message.
fn list_some(words: &[String]) -> String {
    const SOME: usize = 5;
    let shown = words.iter().take(SOME).cloned().collect::<Vec<_>>().join(", ");
    if words.len() > SOME { format!("{shown}, …") } else { shown }
}

/// One address is one node, and a node holds one copy: no address may stand in the file twice.
fn check_addresses(shards: &[RawShard], faults: &mut Vec<Fault>) {
    let mut seen: BTreeMap<SocketAddr, (usize, String)> = BTreeMap::new();
    for shard in shards {
        let leader = shard.address.iter().map(|at| (at, "the leader"));
        let replicas = shard.replicas.iter().flatten().map(|at| (at, "a replica"));
        for (at, role) in leader.chain(replicas) {
            match seen.entry(at.value) {
                Entry::Vacant(place) => {
                    place.insert((at.line, format!("{role} of {}", title(shard))));
                }
                Entry::Occupied(first) => {
                    let (line, whose) = first.get();
                    let what =
                        format!("{} is given to {role} of {}, but is {whose} (line {line})", at.value, title(shard));
                    faults.push(Fault::at(
                        at.line,
                        what,
                        "give each copy an address of its own, or remove one of the two",
                    ));
                }
            }
        }
    }
}

/// A shard as a message names it.
fn title(shard: &RawShard) -> String {
    shard
        .name
        .as_ref()
        .map_or_else(|| "a shard without a name".to_owned(), |name| format!("shard {}", quote(&name.value)))
}

/// The names that `[[nodes]]` gives.
fn given_names<'r>(raw: &'r Raw, faults: &mut Vec<Fault>) -> BTreeMap<SocketAddr, &'r At<String>> {
    let copies = raw.shards.iter().flat_map(|shard| shard.address.iter().chain(shard.replicas.iter().flatten()));
    let known: Vec<SocketAddr> = copies.map(|at| at.value).collect();
    let all_known =
        raw.shards.iter().all(|shard| shard.address.is_some() && shard.replicas.iter().all(Option::is_some));
    let mut given = BTreeMap::new();
    for node in &raw.nodes {
        if let Some(name) = &node.name {
            check_name(name, "node", "-_./", faults);
        }
        let (Some(address), Some(name)) = (&node.address, &node.name) else { continue };
        if all_known && !known.contains(&address.value) {
            let what = format!("{} is no shard's address or replica", address.value);
            faults.push(Fault::at(
                address.line,
                what,
                "write the address of a node under [[shards]], or remove this [[nodes]]",
            ));
        }
        if given.insert(address.value, name).is_some() {
            let what = format!("{} is named twice under [[nodes]]", address.value);
            faults.push(Fault::at(address.line, what, "keep one of the two; a node has one name"));
        }
    }
    given
}

/// The topology of a file without faults.
fn build(raw: &Raw, given: &BTreeMap<SocketAddr, &At<String>>) -> Topology {
    let mut shards: Vec<Shard> = raw.shards.iter().filter_map(|shard| build_shard(shard, given)).collect();
    shards.sort_by_key(|shard| shard.index);
    assert_eq!(shards.len(), raw.shards.len(), "a shard without faults lacks a part");
    let count = u32::try_from(shards.len()).unwrap_or_else(|_| unreachable!("indices are 32 bits, without a gap"));
    Topology { placement: Placement { hash: raw.hash, shards: count }, shards }
}

fn build_shard(raw: &RawShard, given: &BTreeMap<SocketAddr, &At<String>>) -> Option<Shard> {
    let name = raw.name.as_ref()?.value.clone();
    let index = ShardIndex(raw.idx.as_ref()?.value);
    let addresses = std::iter::once(raw.address.as_ref()?).chain(raw.replicas.iter().flatten());
    let copies = addresses.enumerate().map(|(position, at)| {
        let name = given.get(&at.value).map_or_else(|| format!("{name}/{position}"), |name| name.value.clone());
        Node { name: NodeName::new(name), address: at.value, shard: index }
    });
    Some(Shard { copies: copies.collect(), name, index })
}

/// A shard that has fewer replicas than a setting asks for would never take a write.
fn check_replicas(raw: &Raw, topology: &Topology, settings: &Settings, faults: &mut Vec<Fault>) {
    let one_if = |is_set: bool| usize::from(is_set);
    let needed = [
        ("min_replicas", settings.min_replicas),
        ("max_at_risk_entries", one_if(settings.max_at_risk_entries > 0)),
        ("max_at_risk_ms", one_if(!settings.max_at_risk.is_zero())),
    ];
    for (key, replicas) in needed {
        let lacking = topology.shards.iter().filter(|shard| shard.copies.len() <= replicas && replicas > 0);
        let names: Vec<String> = lacking.map(|shard| quote(&shard.name)).collect();
        if names.is_empty() {
            continue;
        }
        let written = raw.settings.numbers.iter().find(|(setting, _)| setting.key == key);
        faults.push(Fault {
            line: written.map(|(_, at)| at.line),
            what: format!(
                "replication.{key} asks for {replicas} replicas at least, and these shards have fewer: {}",
                list_some(&names)
            ),
            remedy: format!("give each shard its replicas, or remove {key}: such a shard would take no writes"),
        });
    }
}

/// Names are unique, and so are the files that nodes write to when no `--db-location` says otherwise: with names that
/// differ only in case, or in `/` and `-`, two nodes of one machine would meet in one file.
fn check_node_names(raw: &Raw, topology: &Topology, faults: &mut Vec<Fault>) {
    let line_of = |node: &Node| {
        let named = raw.nodes.iter().find(|named| named.address.as_ref().is_some_and(|at| at.value == node.address));
        let by_name = named.and_then(|named| named.name.as_ref()).map(|name| name.line);
        by_name.or_else(|| {
            let copies =
                raw.shards.iter().flat_map(|shard| shard.address.iter().chain(shard.replicas.iter().flatten()));
            copies.filter(|at| at.value == node.address).map(|at| at.line).next()
        })
    };
    let mut seen = BTreeMap::new();
    for node in topology.nodes() {
        let Some(first) = seen.insert(default_db_location(&node.name), node) else { continue };
        let same = first.name == node.name;
        let what = if same {
            format!("two nodes are called {}: {} and {}", quote(node.name.as_str()), first.address, node.address)
        } else {
            let file = default_db_location(&node.name);
            format!("nodes {} and {} would write to one file, {}", first.name, node.name, file.display())
        };
        let remedy = "give one of them another name: [[nodes]] with its address and name";
        faults.push(Fault { line: line_of(node), what, remedy: remedy.to_owned() });
    }
}
