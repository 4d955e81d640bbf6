//! `kv shard checksum SHARD`: compares a shard's copies without stopping them, and names the ranges in which they differ.

use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Client;
use serde::Serialize;
use tokio::time::sleep;

use super::compare::{self, Comparison, Copies, Found, NAMED_MAX, Range, Span};
use super::exit::{Done, Exit, Failure, printable};
use super::explain::percent_encoded;
use super::http::{self, Ask};
use super::keys::{Asking, Output, json};
use super::lost_writes::LostWrites;
use super::status::{NODE_TIMEOUT, ask_map, fetch};
use super::switchover::Switchover;
use super::table;
use super::takeover::Takeover;
use super::target::Target;
use crate::clock::Clock;
use crate::store::view::{ClusterView, NodeStatus, NodeView, RangeSum, ShardView};

/// Longest wait for one sum: a node reads at most some MiB for it.
const SUM_TIMEOUT: Duration = Duration::from_secs(10);
/// For writes in flight to arrive; a replica is a round trip behind.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two progress lines.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Longest part of a key that a table shows, in characters.
const KEY_CHARS_MAX: usize = 40;

/// Act on one shard
#[derive(Debug, clap::Args)]
pub(crate) struct Shard {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, clap::Subcommand)]
enum Deed {
    Checksum(Checksum),
    LostWrites(LostWrites),
    Switchover(Switchover),
    Takeover(Takeover),
}

/// Compare a shard's copies, range by range, while it is in use
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Ends with 0 when all copies hold the same keys, versions and values, with 1 when some differ, and with 5 when some could
not be compared: away, too far behind, or written without a pause.")]
pub(crate) struct Checksum {
    /// The shard's name
    shard: String,
    #[command(flatten)]
    asking: Asking,
}

impl Shard {
    /// Does it.
    pub(crate) fn run(&self, directory: &Path) -> Result<Done, Failure> {
        match &self.deed {
            Deed::Checksum(checksum) => checksum.run(directory),
            Deed::LostWrites(lost) => lost.run(directory),
            Deed::Switchover(switchover) => switchover.run(directory),
            Deed::Takeover(takeover) => takeover.run(directory),
        }
    }
}

/// A shard with its leader and replicas, as the map has them.
pub(super) struct Chosen {
    shard: ShardView,
    pub(super) leader: NodeView,
    replicas: Vec<NodeView>,
}

impl Checksum {
    fn run(&self, directory: &Path) -> Result<Done, Failure> {
        let target = self.asking.target(directory)?;
        http::block_on(self.compare(&target))
    }

    async fn compare(&self, target: &Target) -> Result<Done, Failure> {
        let (map, _) = ask_map(&http::client(NODE_TIMEOUT)?, target).await?;
        let Chosen { shard, leader, replicas } = choose(&map, &self.shard)?;
        let client = http::client(SUM_TIMEOUT)?;
        let copies = Remote::new(client, &shard, &leader, &replicas).await;
        let compared = compare::compare(&copies, replicas.len()).await;
        copies.progress_ends();
        let comparison = compared.map_err(|why| {
            let title = format!("the leader's copy of {} cannot be read", shard.name);
            let hint =
                format!("kv status shows what is wrong; start the leader: kv serve --http-addr {}", leader.address);
            Failure::new(Exit::Unavailable, title, why, hint)
        })?;
        let outcome = Outcome { shard: &shard, leader: &leader, replicas: &replicas, comparison: &comparison };
        let stdout = match self.asking.output {
            Output::Table => {
                outcome.render().lines().map(|line| printable(line) + "\n").collect::<String>().into_bytes()
            }
            Output::Json => json(&outcome.json()),
        };
        Ok(Done { exit: outcome.exit(), stdout, note: None })
    }
}

pub(super) fn choose(map: &ClusterView, wanted: &str) -> Result<Chosen, Failure> {
    let Some(shard) = map.shards.iter().find(|shard| shard.name == wanted).cloned() else {
        let names: Vec<&str> = map.shards.iter().map(|shard| shard.name.as_str()).collect();
        let detail = format!("the cluster has no shard {wanted:?}");
        return Err(Failure::usage(detail, format!("its shards are {}", names.join(", "))));
    };
    let node = |address: &String| {
        let found = map.nodes.iter().find(|node| node.address == *address).cloned();
        found.unwrap_or_else(|| NodeView { name: address.clone(), address: address.clone(), state: String::new() })
    };
    let (leader, replicas) = (node(&shard.leader), shard.replicas.iter().map(node).collect());
    Ok(Chosen { shard, leader, replicas })
}

/// The copies, over HTTP.
struct Remote<'a> {
    client: Client,
    shard: &'a ShardView,
    leader: &'a NodeView,
    replicas: &'a [NodeView],
    /// Keys that the leader had at the beginning.
    keys: u64,
    clock: Clock,
    /// When progress was last told; none where nobody looks.
    told: Cell<Option<Instant>>,
}

impl<'a> Remote<'a> {
    async fn new(client: Client, shard: &'a ShardView, leader: &'a NodeView, replicas: &'a [NodeView]) -> Remote<'a> {
        let status = fetch::<NodeStatus>(&client, &format!("http://{}", leader.address), "/admin/v1/status").await;
        let copies = status.map(|(status, _)| status.copies).unwrap_or_default(); // only for the progress line
        let keys = copies.iter().find(|copy| copy.index == shard.index).map_or(0, |copy| copy.keys);
        let clock = Clock::real();
        let told = Cell::new(io::stderr().is_terminal().then(|| clock.now()));
        Remote { client, shard, leader, replicas, keys, clock, told }
    }

    async fn sum(&self, node: &NodeView, span: Span) -> Result<RangeSum, String> {
        let mut path = format!("/admin/v1/checksum?shard={}", percent_encoded(self.shard.name.as_bytes()));
        let limit = span.limit.map(|limit| limit.to_string());
        for (name, value) in [("after_b64", span.after), ("until_b64", span.until), ("limit", limit)] {
            path += &value.map(|value| format!("&{name}={value}")).unwrap_or_default();
        }
        let reply = http::ask_one(&self.client, &format!("http://{}", node.address), &Ask::get(path)).await;
        let reply = reply.map_err(|failure| format!("{}: {}", failure.title, failure.detail))?;
        serde_json::from_slice(&reply.body).map_err(|error| format!("{} gave no sum: {error}", node.address))
    }

    fn progress_ends(&self) {
        if self.told.get().is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

impl Copies for Remote<'_> {
    async fn leader(&self, span: Span) -> Result<RangeSum, String> {
        self.sum(self.leader, span).await
    }

    async fn replica(&self, replica: usize, span: Span) -> Result<RangeSum, String> {
        let node = self.replicas.get(replica).unwrap_or_else(|| unreachable!("there is a replica {replica}"));
        self.sum(node, span).await
    }

    async fn pause(&self) {
        sleep(PAUSE).await;
    }

    fn progress(&self, records: u64) {
        let (Some(told), now) = (self.told.get(), self.clock.now()) else { return };
        if now.saturating_duration_since(told) >= PROGRESS_EVERY {
            self.told.set(Some(now));
            let percent = records * 100 / self.keys.max(records).max(1);
            eprint!("\r\x1b[K{}: {records} records compared, {percent} %", printable(&self.shard.name));
        }
    }
}

/// What was found, with the names of those it is about.
struct Outcome<'a> {
    shard: &'a ShardView,
    leader: &'a NodeView,
    replicas: &'a [NodeView],
    comparison: &'a Comparison,
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Json<'a> {
    shard: &'a str,
    leader: &'a str,
    records: u64,
    ranges: u64,
    at: u64,
    copies: Vec<JsonCopy<'a>>,
}

#[derive(Serialize)]
struct JsonCopy<'a> {
    node: &'a str,
    address: &'a str,
    /// `same`, `differs`, `busy` or `not-compared`.
    verdict: &'static str,
    detail: Option<&'a str>,
    differs: Vec<JsonRange<'a>>,
    busy: Vec<JsonRange<'a>>,
}

#[derive(Serialize)]
struct JsonRange<'a> {
    after_b64: Option<&'a str>,
    until_b64: Option<&'a str>,
    leader: &'a RangeSum,
    copy: &'a RangeSum,
}

impl<'a> Outcome<'a> {
    fn found(&self) -> impl Iterator<Item = (&'a NodeView, &'a Found)> {
        self.replicas.iter().zip(&self.comparison.found)
    }

    fn exit(&self) -> Exit {
        let verdicts: Vec<&str> = self.found().map(|(_, found)| verdict(found)).collect();
        match verdicts.iter().all(|verdict| *verdict == "same") {
            true => Exit::Ok,
            false if verdicts.contains(&"differs") => Exit::Error,
            false => Exit::Unavailable,
        }
    }

    /// A headline, a row for each copy, the ranges that differ, and what to do.
    fn render(&self) -> String {
        let Comparison { records, at, .. } = self.comparison;
        let (shard, exit) = (&self.shard.name, self.exit());
        let head = match exit {
            Exit::Ok if self.replicas.is_empty() => format!("{shard} has no replicas: nothing to compare with\n"),
            Exit::Ok => format!("{shard}: all {} copies hold the same\n", self.replicas.len() + 1),
            Exit::Error => format!("{shard}: copies DIFFER\n"),
            _ => format!("{shard}: no difference was found, but not all could be compared\n"),
        };
        let leader = format!("leader, {records} records up to seq {at}");
        let mut rows = vec![vec![self.leader.address.clone(), self.leader.name.clone(), leader]];
        rows.extend(self.found().map(|(node, found)| vec![node.address.clone(), node.name.clone(), words(found)]));
        let mut text = head + "\n" + &table::render(&["COPY", "NODE", "WHAT IT HOLDS"], &[], rows);
        let ranges: Vec<Vec<String>> = self.found().flat_map(|(node, found)| range_rows(node, found)).collect();
        if !ranges.is_empty() {
            let header = ["BEHIND KEY", "UP TO KEY", "COPY", "RECORDS", "LEADER'S", ""];
            text += &format!("\n{}", table::render(&header, &[3, 4], ranges));
        }
        for (node, _) in self.found().filter(|(_, found)| !found.differs.is_empty()) {
            text += &format!(
                "\nnext: kv explain KEY shows a key at every copy; kv replica reset {} throws that copy away and fetches it \
                 anew\n",
                node.name
            );
        }
        text
    }

    fn json(&self) -> Json<'a> {
        let Comparison { ranges, records, at, .. } = *self.comparison;
        let copy = |(node, found): (&'a NodeView, &'a Found)| JsonCopy {
            node: &node.name,
            address: &node.address,
            verdict: verdict(found),
            detail: found.missing.as_deref(),
            differs: found.differs.iter().map(json_range).collect(),
            busy: found.busy.iter().map(json_range).collect(),
        };
        let copies = self.found().map(copy).collect();
        Json { shard: &self.shard.name, leader: &self.leader.address, records, ranges, at, copies }
    }
}

fn verdict(found: &Found) -> &'static str {
    match found {
        Found { differs, .. } if !differs.is_empty() => "differs",
        Found { missing: Some(_), .. } => "not-compared",
        Found { busy, .. } if !busy.is_empty() => "busy",
        _ => "same",
    }
}

fn words(found: &Found) -> String {
    let ranges = |ranges: &[Range]| match ranges.len() {
        NAMED_MAX => format!("{NAMED_MAX} ranges or more"),
        len => table::count(len, "range"),
    };
    let mut words = Vec::new();
    if !found.differs.is_empty() {
        words.push(format!("differs in {}", ranges(&found.differs)));
    }
    if !found.busy.is_empty() {
        words.push(format!("{} written without a pause, and not compared", ranges(&found.busy)));
    }
    if let Some(why) = &found.missing {
        words.push(format!("not compared to its end: {why}"));
    }
    if words.is_empty() { "the same".to_owned() } else { words.join("; ") }
}

fn range_rows(node: &NodeView, found: &Found) -> Vec<Vec<String>> {
    let row = |range: &Range, what: &str| {
        let Range { after, leader, replica } = range;
        let or_more = if replica.until_b64 == leader.until_b64 { "" } else { "+" };
        vec![
            after.as_deref().map_or_else(|| "(the first)".to_owned(), key),
            leader.until_b64.as_deref().map_or_else(|| "(the last)".to_owned(), key),
            node.address.clone(),
            format!("{}{or_more}", replica.records),
            leader.records.to_string(),
            what.to_owned(),
        ]
    };
    let differs = found.differs.iter().map(|range| row(range, "differs"));
    differs.chain(found.busy.iter().map(|range| row(range, "busy"))).collect()
}

fn json_range(range: &Range) -> JsonRange<'_> {
    JsonRange {
        after_b64: range.after.as_deref(),
        until_b64: range.leader.until_b64.as_deref(),
        leader: &range.leader,
        copy: &range.replica,
    }
}

/// A key as a person reads it: text in quotes, other bytes escaped, cut where it gets long.
fn key(b64: &str) -> String {
    let Ok(bytes) = URL_SAFE_NO_PAD.decode(b64) else { return b64.to_owned() };
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("b\"{}\"", bytes.escape_ascii()),
    };
    match text.chars().count() {
        0..=KEY_CHARS_MAX => text,
        _ => text.chars().take(KEY_CHARS_MAX).collect::<String>() + "…",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(records: u64, until: Option<&str>) -> RangeSum {
        RangeSum {
            node: String::new(),
            shard: "s".to_owned(),
            checksum: format!("{records}"),
            records,
            after_b64: None,
            until_b64: until.map(|key| URL_SAFE_NO_PAD.encode(key)),
            last: false,
            at: 9,
        }
    }

    fn outcome(found: Vec<Found>) -> (String, u8, serde_json::Value) {
        let node = |n| NodeView { name: format!("s/{n}"), address: format!("h:{n}"), state: "up".to_owned() };
        let replicas: Vec<NodeView> = (1..=found.len()).map(node).collect();
        let shard = ShardView {
            name: "s".to_owned(),
            index: 0,
            epoch: 1,
            leader: "h:0".to_owned(),
            replicas: replicas.iter().map(|node| node.address.clone()).collect(),
        };
        let comparison = Comparison { ranges: 2, records: 40, at: 77, found };
        let outcome = Outcome { shard: &shard, leader: &node(0), replicas: &replicas, comparison: &comparison };
        (outcome.render(), outcome.exit().code(), serde_json::to_value(outcome.json()).unwrap())
    }

    #[test]
    fn checksum_of_equal_copies_ends_with_zero() {
        let (text, code, _) = outcome(vec![Found::default(), Found::default()]);
        assert_eq!(code, 0);
        let expected = "\
s: all 3 copies hold the same

COPY  NODE  WHAT IT HOLDS
h:0   s/0   leader, 40 records up to seq 77
h:1   s/1   the same
h:2   s/2   the same
";
        assert_eq!(text, expected);
        assert!(outcome(Vec::new()).0.starts_with("s has no replicas: nothing to compare with\n"));
    }

    #[test]
    fn checksum_of_copies_that_differ_names_copies_ranges_and_counts_and_ends_with_one() {
        let range = |after: Option<&str>, until| Range {
            after: after.map(|key| URL_SAFE_NO_PAD.encode(key)),
            leader: sum(12, until),
            replica: sum(13, until),
        };
        let mut more = range(Some("k\u{1b}"), None);
        more.replica = sum(4096, Some("zz"));
        let differs = Found { differs: vec![range(None, Some("k\u{1b}")), more], ..Found::default() };
        let away = Found { missing: Some("refused".to_owned()), ..Found::default() };
        let (text, code, json) = outcome(vec![differs, away]);
        assert_eq!(code, 1);
        let expected = "\
s: copies DIFFER

COPY  NODE  WHAT IT HOLDS
h:0   s/0   leader, 40 records up to seq 77
h:1   s/1   differs in 2 ranges
h:2   s/2   not compared to its end: refused

BEHIND KEY   UP TO KEY   COPY  RECORDS  LEADER'S
(the first)  \"k\\u{1b}\"   h:1        13        12  differs
\"k\\u{1b}\"    (the last)  h:1     4096+        12  differs

next: kv explain KEY shows a key at every copy; kv replica reset s/1 throws that copy away and fetches it anew
";
        assert_eq!(text, expected);
        assert_eq!(
            (&json["copies"][0]["verdict"], &json["copies"][1]["verdict"]),
            (&"differs".into(), &"not-compared".into())
        );
        assert_eq!(json["copies"][0]["differs"][0]["copy"]["records"], 13);
    }

    #[test]
    fn checksum_that_could_not_compare_all_ends_with_five() {
        let busy = Range { after: None, leader: sum(1, Some("a")), replica: sum(1, Some("a")) };
        for found in [
            Found { busy: vec![busy], ..Found::default() },
            Found { missing: Some("it is 3 entries behind its leader".to_owned()), ..Found::default() },
        ] {
            let (text, code, _) = outcome(vec![Found::default(), found]);
            assert_eq!(code, 5, "{text}");
            assert!(text.starts_with("s: no difference was found, but not all could be compared\n"), "{text}");
        }
    }

    #[test]
    fn keys_of_any_bytes_are_shown_short() {
        assert_eq!(key(&URL_SAFE_NO_PAD.encode(b"\x00\xff")), r#"b"\x00\xff""#);
        assert_eq!(key(&URL_SAFE_NO_PAD.encode("x".repeat(1000))).chars().count(), KEY_CHARS_MAX + 1);
    }
}
