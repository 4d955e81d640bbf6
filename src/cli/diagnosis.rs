//! What is wrong with a cluster, put together from what its nodes say. Pure.
//!
//! A node says of itself what is wrong with it, and of others how it gets on with them; one wrong node is a complaint of
//! every other. Here each thing that is wrong becomes one problem, with what no node can say added: that a node is
//! silent, that a shard has no leader or two, which nodes read which file.

use std::collections::{BTreeMap, BTreeSet};

use super::report::{Asked, Report};
use super::table::count;
use crate::store::view::{ClusterView, NodeStatus, Problem, ShardView};

/// Most differences between two files that are spelled out.
const DIFFERENCES_SHOWN: usize = 3;

/// Two nodes do not talk to each other, or read different files, and each says so of the other.
const QUARRELS: [&str; 4] = ["stranger", "wrong-node", "peer-version", "addresses-differ"];

/// Everything that is wrong, the worst first; none when the cluster is healthy.
pub(crate) fn problems(report: &Report) -> Vec<Problem> {
    let mut problems: Vec<Problem> = report.nodes.iter().filter_map(|node| silence(report, node)).collect();
    problems.extend(said(report, &problems));
    problems.extend(other_placements(report));
    let clusters = other_clusters(report);
    problems.extend(quarrels(report).into_iter().filter(|problem| clusters.is_none() || problem.code != "stranger"));
    problems.extend(report.cluster.shards.iter().filter_map(|shard| leaders(report, shard)));
    problems.extend(clusters);
    problems.extend(other_addresses(report));
    problems.sort_by_key(rank);
    problems
}

fn rank(problem: &Problem) -> u8 {
    match problem.code.as_str() {
        "halted" | "standing-aside" | "store-failed" | "disk-full" | "no-leader" | "two-leaders" => 0,
        "silent" | "topology-mismatch" | "stranger" => 1,
        "addresses-differ" => 3,
        _ => 2,
    }
}

fn statuses(report: &Report) -> impl Iterator<Item = (&Asked, &NodeStatus)> {
    report.nodes.iter().filter_map(|node| node.status().map(|status| (node, status)))
}

/// A node that does not answer: since when, the others know; and what that means for its shard.
fn silence(report: &Report, node: &Asked) -> Option<Problem> {
    let why = node.answer.as_ref().err()?;
    let peers = statuses(report).flat_map(|(_, status)| &status.peers);
    let down = peers.filter(|peer| peer.name == node.name && peer.state == "down");
    let led =
        report.cluster.shards.iter().filter(|shard| shard.leader == node.address && report.leader(shard).is_none());
    let led: Vec<&str> = led.map(|shard| shard.name.as_str()).collect();
    let replicas = statuses(report).flat_map(|(_, status)| &status.copies).flat_map(|copy| &copy.replicas);
    let lag = replicas.filter(|replica| replica.name == node.name).filter_map(|replica| replica.lag_entries).max();
    let means = match (led.as_slice(), lag) {
        ([], Some(lag)) if lag > 0 => format!("; it lacks {lag} entries of its shard"),
        ([], _) => String::new(),
        (led, _) => format!("; nobody leads {}: writes to it are refused", led.join(", ")),
    };
    let what = format!("{} ({}) does not answer: {why}{means}", node.name, node.address);
    let mut next = format!("start it, or look into its log: kv serve --http-addr {}", node.address);
    if let Some(shard) = led.first() {
        next += &format!("; if it is gone: kv shard takeover {shard}");
    }
    Some(Problem {
        about: Some(node.name.clone()),
        since_ms: down.filter_map(|peer| peer.since_ms).max(),
        ..Problem::new("silent", what, next)
    })
}

/// What nodes say of themselves, and leaders of their replicas; without what is said better elsewhere.
fn said(report: &Report, silent: &[Problem]) -> Vec<Problem> {
    let (outvoted, halted) = (outvoted(report), halted(report));
    let is_silent = |node: &Option<String>| node.is_some() && silent.iter().any(|problem| problem.about == *node);
    // A leader's word about a replica counts where the replica itself has nothing to say: it knows better.
    let speaks = |name: &str| {
        statuses(report).any(|(node, status)| {
            node.name == name && status.problems.iter().any(|problem| problem.code != "lost-writes")
        })
    };
    let mut problems = Vec::new();
    for (node, status) in statuses(report) {
        for problem in &status.problems {
            let about = problem.about.as_deref().unwrap_or_default();
            let (is_of_replica, code) = (problem.code.starts_with("replica-"), problem.code.as_str());
            let follows = match code {
                "topology-mismatch" => true,
                "leader-lost-data" => status.copies.iter().any(|copy| halted.contains(&copy.index)),
                _ if QUARRELS.contains(&code) => true,
                _ if is_of_replica => outvoted.contains(about) || speaks(about),
                "away" | "not-listed" => outvoted.contains(node.name.as_str()) || outvoted.contains(about),
                _ => false,
            };
            if !follows && !is_silent(&problem.about) {
                problems.push(Problem { what: format!("{}: {}", node.name, problem.what), ..problem.clone() });
            }
        }
    }
    problems
}

/// The shards whose leader says that it must not lead.
fn halted(report: &Report) -> BTreeSet<u32> {
    let halted = statuses(report).filter(|(_, status)| status.problems.iter().any(|problem| problem.code == "halted"));
    halted.flat_map(|(_, status)| &status.copies).map(|copy| copy.index).collect()
}

/// Nodes that get on badly with each other: whoever does with most is named, once. Files that differ are compared
/// elsewhere, but for those of nodes that are not in the map.
fn quarrels(report: &Report) -> Vec<Problem> {
    let is_known = |name: &Option<String>| report.nodes.iter().any(|node| Some(&node.name) == name.as_ref());
    let mut open: Vec<(&str, &str, &Problem)> = Vec::new();
    for (node, status) in statuses(report) {
        let of_this = status.problems.iter().filter(|problem| {
            QUARRELS.contains(&problem.code.as_str())
                && (problem.code != "addresses-differ" || !is_known(&problem.about))
        });
        open.extend(of_this.filter_map(|problem| Some((node.name.as_str(), problem.about.as_deref()?, problem))));
    }
    let mut problems = Vec::new();
    while !open.is_empty() {
        let mut with: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (one, other, _) in &open {
            with.entry(one).or_default().insert(other);
            with.entry(other).or_default().insert(one);
        }
        let Some((culprit, others)) =
            with.into_iter().max_by_key(|(name, others)| (others.len(), std::cmp::Reverse(*name)))
        else {
            break;
        };
        let (its, rest): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|(one, other, _)| *one == culprit || *other == culprit);
        if let Some((_, _, problem)) = its.first() {
            let what = format!("{culprit} and {}: {}", count(others.len(), "node"), problem.what);
            let since_ms = its.iter().filter_map(|(_, _, problem)| problem.since_ms).max();
            problems.push(Problem { what, since_ms, about: Some(culprit.to_owned()), ..(*problem).clone() });
        }
        open = rest;
    }
    problems
}

fn leaders(report: &Report, shard: &ShardView) -> Option<Problem> {
    let leaders: Vec<&Asked> =
        report.copies(shard).filter(|(_, copy)| copy.role == "leader").map(|(node, _)| node).collect();
    match leaders.as_slice() {
        [] if report.is_silent(&shard.leader) => None, // said of the node
        [] if report.copies(shard).any(|(_, copy)| copy.state == "standing-aside") => None, // it says why
        [] => {
            let what = format!("{}: no node leads it; its writes are refused", shard.name);
            let next = format!("look at the node that should: kv status --url {}", shard.leader);
            Some(Problem::new("no-leader", what, next))
        }
        [leader] => {
            let (status, copy) = (leader.status()?, leader.copy(shard)?);
            if copy.state == "leading" || !status.problems.is_empty() {
                return None; // well, or it says why
            }
            let what = format!("{}: its leader {} is {}", shard.name, leader.address, copy.state);
            let next = "wait a few seconds: kv status --watch";
            Some(Problem { since_ms: copy.since_ms, ..Problem::new("starting", what, next) })
        }
        several => {
            let addresses: Vec<&str> = several.iter().map(|node| node.address.as_str()).collect();
            let what =
                format!("{}: {} nodes say that they lead it: {}", shard.name, several.len(), addresses.join(", "));
            let next = "compare their sharding.toml files, and stop the one that is wrong";
            Some(Problem::new("two-leaders", what, next))
        }
    }
}

/// Groups of answering nodes by what they say, the largest first; of two that are as large, the one with the first node.
fn groups<'r>(report: &'r Report, say: impl Fn(&'r NodeStatus) -> &'r str) -> Vec<(&'r str, Vec<&'r str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for (node, status) in statuses(report) {
        let said = say(status);
        match groups.iter_mut().find(|(known, _)| *known == said) {
            Some((_, nodes)) => nodes.push(&node.name),
            None => groups.push((said, vec![&node.name])),
        }
    }
    groups.sort_by_key(|(_, nodes)| std::cmp::Reverse(nodes.len()));
    groups
}

/// For how long some node has said this of another, at most.
fn longest(report: &Report, code: &str) -> Option<u64> {
    let said = statuses(report).flat_map(|(_, status)| &status.problems).filter(|problem| problem.code == code);
    said.filter_map(|problem| problem.since_ms).max()
}

/// Nodes that read another placement than most: a problem for each placement.
fn other_placements(report: &Report) -> Vec<Problem> {
    let groups = groups(report, |status| &status.placement);
    let Some((usual, others)) = groups.split_first() else { return Vec::new() };
    let text = |placement: &str| {
        let mut statuses = statuses(report).filter(|(_, status)| status.placement == placement);
        statuses.next().map_or_else(String::new, |(_, status)| status.placement_text.clone())
    };
    let problem = |(placement, nodes): &(&str, Vec<&str>)| {
        let what = format!(
            "{} and {} disagree about the placement, and refuse each other: [{}] and [{}]",
            some(nodes),
            some(&usual.1),
            text(placement),
            text(usual.0)
        );
        let next = "kv check sharding.toml on both machines; give all one file, and restart those that read another";
        Problem { since_ms: longest(report, "topology-mismatch"), ..Problem::new("topology-mismatch", what, next) }
    };
    others.iter().map(problem).collect()
}

/// Nodes that read another placement than most: whatever else they or others say of it follows from that.
fn outvoted(report: &Report) -> BTreeSet<&str> {
    groups(report, |status| &status.placement).into_iter().skip(1).flat_map(|(_, nodes)| nodes).collect()
}

/// Nodes whose files name other nodes, or other addresses, than most.
fn other_addresses(report: &Report) -> Vec<Problem> {
    let groups = groups(report, |status| &status.addresses);
    let Some((usual, others)) = groups.split_first() else { return Vec::new() };
    let problem = |(addresses, nodes): &(&str, Vec<&str>)| {
        let how = match (report.maps.get(usual.0), report.maps.get(*addresses)) {
            (Some(usual), Some(other)) => format!(": {}", differences(usual, other)),
            _ => String::new(),
        };
        let (names, most) = (nodes.join(", "), some(&usual.1));
        let verb = if nodes.len() == 1 { "reads" } else { "read" };
        let what = format!("{names} {verb} a sharding.toml with other nodes or addresses than {most}{how}");
        let next = "copy one file to all nodes, and restart those that read another, one by one";
        Problem { since_ms: longest(report, "addresses-differ"), ..Problem::new("addresses-differ", what, next) }
    };
    others.iter().map(problem).collect()
}

/// What one map has and another has not.
fn differences(usual: &ClusterView, other: &ClusterView) -> String {
    let addresses = |map: &ClusterView| -> BTreeMap<String, String> {
        map.nodes.iter().map(|node| (node.name.clone(), node.address.clone())).collect()
    };
    let (usual, other) = (addresses(usual), addresses(other));
    let lacks = usual.iter().filter(|(name, _)| !other.contains_key(*name));
    let lacks = lacks.map(|(name, address)| format!("without {name} ({address})"));
    let has = other.iter().filter_map(|(name, address)| match usual.get(name) {
        None => Some(format!("with {name} ({address}) besides")),
        Some(usual) if usual != address => Some(format!("with {name} at {address} in place of {usual}")),
        Some(_) => None,
    });
    let all: Vec<String> = lacks.chain(has).collect();
    let shown = all.iter().take(DIFFERENCES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(DIFFERENCES_SHOWN) {
        0 => shown,
        more => format!("{shown}, and {more} more"),
    }
}

fn other_clusters(report: &Report) -> Option<Problem> {
    let mut clusters: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (node, status) in statuses(report) {
        if let Some(cluster) = &status.cluster {
            clusters.entry(cluster).or_default().push(&node.name);
        }
    }
    if clusters.len() < 2 {
        return None;
    }
    let list = clusters.iter().map(|(cluster, nodes)| format!("{cluster} ({})", some(nodes))).collect::<Vec<_>>();
    let what = format!("the nodes are of different clusters: {}", list.join(", "));
    Some(Problem::new("stranger", what, "look which data directory each was started with (--db-location)"))
}

/// Names, as many as a line takes.
fn some(names: &[&str]) -> String {
    match names {
        [first, second, third, rest @ ..] if rest.len() > 1 => {
            format!("{first}, {second}, {third} and {} others", rest.len())
        }
        names => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{healthy, map};
    use super::super::report::Report;

    #[test]
    fn healthy_cluster_has_no_problem() {
        assert_eq!(healthy().problems(), []);
    }

    #[test]
    fn silent_replica_is_one_problem_whatever_others_say_of_it() {
        let mut report = healthy();
        report.silence(1);
        report.saw_down(0, "a/1", 5000);
        report.said(0).copies[0].replicas[0].state = "away".to_owned();
        report.complain(0, "replica-away", "a/1", "shard a: replica a/1 does not poll");
        assert_eq!(
            report.sentences(),
            ["a/1 (h:2) does not answer: connection refused; it lacks 3 entries of its shard"]
        );
        assert_eq!(report.problems()[0].since_ms, Some(5000));
    }

    #[test]
    fn silent_leader_is_one_problem_although_its_replica_cannot_reach_it() {
        let mut report = healthy();
        report.silence(0);
        report.complain(1, "away", "a/0", "shard a: replica a/1: leader a/0 cannot be reached");
        let sentences = report.sentences();
        assert_eq!(sentences.len(), 1, "{sentences:?}");
        assert!(sentences[0].ends_with("nobody leads a: writes to it are refused"), "{sentences:?}");
    }

    #[test]
    fn replica_that_does_not_poll_although_it_answers_is_a_problem_once() {
        let mut report = healthy();
        report.complain(0, "replica-away", "a/1", "shard a: replica a/1 does not poll");
        assert_eq!(report.sentences(), ["a/0: shard a: replica a/1 does not poll"]);
        report.complain(1, "stuck", "a/1", "shard a: replica a/1: the disk is full");
        assert_eq!(report.sentences(), ["a/1: shard a: replica a/1: the disk is full"], "it knows better");
    }

    #[test]
    fn leader_that_must_not_lead_is_one_problem_and_the_first() {
        let mut report = healthy();
        report.complain(3, "stuck", "b/1", "the disk is full");
        report.complain(1, "leader-lost-data", "a/1", "shard a: replica a/1: the leader has lost data");
        report.said(0).copies[0].state = "halted".to_owned();
        report.complain(0, "halted", "a/0", "shard a: this leader has lost data");
        assert_eq!(report.sentences(), ["a/0: shard a: this leader has lost data", "b/1: the disk is full"]);
    }

    #[test]
    fn leader_that_starts_or_is_missing_or_double_is_a_problem() {
        let mut report = healthy();
        report.said(0).copies[0].state = "starting".to_owned();
        assert_eq!(report.sentences(), ["a: its leader h:1 is starting"]);
        report.said(0).copies[0].role = "replica".to_owned();
        assert_eq!(report.sentences(), ["a: no node leads it; its writes are refused"]);
        let mut report = healthy();
        report.said(1).copies[0].role = "leader".to_owned();
        assert_eq!(report.sentences(), ["a: 2 nodes say that they lead it: h:1, h:2"]);
        let mut report = healthy();
        report.said(1).cluster = Some("d".to_owned());
        assert_eq!(report.sentences(), ["the nodes are of different clusters: c (a/0, b/0, b/1), d (a/1)"]);
    }

    /// `b/1` reads another placement: everybody complains of it, and it of everybody.
    fn outvoted() -> Report {
        let mut report = healthy();
        report.said(3).placement = "0x2".to_owned();
        report.said(3).placement_text = "text of 0x2".to_owned();
        for node in ["a/0", "a/1", "b/0"] {
            report.complain(3, "topology-mismatch", node, "refused");
        }
        for node in 0..3 {
            report.complain(node, "topology-mismatch", "b/1", "refused");
        }
        report.complain(2, "replica-away", "b/1", "shard b: replica b/1 does not poll");
        report.complain(3, "away", "b/0", "shard b: replica b/1: leader b/0 cannot be reached: refused");
        report
    }

    #[test]
    fn placement_that_differs_is_one_problem_that_names_the_odd_nodes() {
        let report = outvoted();
        assert_eq!(
            report.sentences(),
            [
                "b/1 and a/0, a/1, b/0 disagree about the placement, and refuse each other: [text of 0x2] and [text of 0x1]"
            ]
        );
        assert_eq!(report.problems()[0].since_ms, Some(7000));
    }

    #[test]
    fn addresses_that_differ_are_named_with_the_nodes_that_read_them() {
        let mut report = healthy();
        report.said(1).addresses = "0xb".to_owned();
        report.complain(0, "addresses-differ", "a/1", "differs");
        report.complain(1, "addresses-differ", "a/0", "differs");
        let most = "a/1 reads a sharding.toml with other nodes or addresses than a/0, b/0, b/1";
        assert_eq!(report.sentences(), [most]);
        let map = |addresses| serde_json::from_value(map(addresses)).unwrap();
        report.maps.insert("0xa".to_owned(), map(&["h:1", "h:2", "h:3", ""]));
        report.maps.insert("0xb".to_owned(), map(&["h:1", "h:9", "", "h:4"]));
        let how = "without b/0 (h:3), with a/1 at h:9 in place of h:2, with b/1 (h:4) besides";
        assert_eq!(report.sentences(), [format!("{most}: {how}")]);
    }

    #[test]
    fn file_of_a_node_that_is_in_nobodys_map_is_one_problem_about_it() {
        let mut report = healthy();
        for node in 0..4 {
            report.complain(node, "addresses-differ", "a/2", "node a/2 has another sharding.toml");
        }
        assert_eq!(report.sentences(), ["a/2 and 4 nodes: node a/2 has another sharding.toml"]);
    }

    #[test]
    fn stranger_among_many_nodes_is_one_problem_about_the_stranger() {
        let mut report = healthy();
        for (node, name) in [(0, "a/0"), (1, "a/1"), (3, "b/1")] {
            report.complain(node, "stranger", "b/0", "another cluster's node");
            report.complain(2, "stranger", name, "another cluster's node");
        }
        let problems = report.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].about.as_deref(), Some("b/0"));
        assert_eq!(problems[0].what, "b/0 and 3 nodes: another cluster's node");
    }
}
