//! A result as people read it.

use std::collections::BTreeMap;

use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::result::{Document, OpResult, PlaceResult, Round, Server, Settings, Verify};
use crate::tally::as_f64;
use crate::text::{columns, grouped, millis, printable, rate};

/// More shards than that are shown as a summary only.
const SHARDS_SHOWN_MAX: usize = 32;
/// A shard that gets that many times the mean is worth a word.
const SKEW_MAX: f64 = 1.25;

/// What was asked of whom: the lines above a measurement.
pub(crate) fn header(server: &Server, settings: &Settings, key_prefix: &str) -> String {
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".into());
    let mut text = format!("server      {}", server.target);
    if server.cluster.is_some() {
        let (version, profile, cluster) = (known(&server.version), known(&server.profile), known(&server.cluster));
        text.push_str(&format!(" (Ostraca {version}, profile {profile}, cluster {cluster})\n"));
        text.push_str(&format!("topology    {}\n", known(&server.topology)));
        let durability = server.durability.clone().unwrap_or_else(|| "not reported by this server".into());
        text.push_str(&format!("durability  {durability}\n"));
    } else {
        text.push_str(" (another server: topology and durability unknown)\n");
    }
    let reads = settings.reads_percent;
    let mix = match reads {
        0 => "only writes".to_owned(),
        100 => "only reads".to_owned(),
        _ => format!("{reads} % reads, {} % writes", 100 - reads),
    };
    text.push_str(&format!(
        "workload    {}: {mix}; {} keys {key_prefix}… {}; values of {} bytes\n",
        settings.workload,
        grouped(settings.keys),
        settings.key_dist,
        settings.value_bytes
    ));
    let pace = match settings.rate {
        Some(rate) => format!("open loop, {} requests a second", grouped(rate)),
        None => "closed loop".into(),
    };
    let counted = |count: usize, thing: &str| format!("{count} {thing}{}", if count == 1 { "" } else { "s" });
    let burst = if settings.pipeline > 1 { format!(" × {} pipelined", settings.pipeline) } else { String::new() };
    text.push_str(&format!(
        "load        {pace}; {}{burst}, {}; route {}\n",
        counted(settings.connections, "connection"),
        counted(settings.threads, "thread"),
        settings.route
    ));
    text.push_str(&match (settings.duration_s, settings.requests) {
        (Some(seconds), _) => {
            format!("measured    {seconds} s, after a warm-up of {} s, which is left out\n", settings.warmup_s)
        }
        (None, requests) => format!("measured    {} requests, without a warm-up\n", grouped(requests.unwrap_or(0))),
    });
    text
}

/// A round: operations, shards, failures, the generator, warnings.
pub(crate) fn round(settings: &Settings, round: &Round) -> String {
    let mut text = format!("\n{}\n", operations(settings, round));
    text.push_str(&places(round));
    text.push_str(&failures(round));
    text.push_str(&generator(round));
    for warning in &round.warnings {
        text.push_str(&format!("WARNING: {warning}\n"));
    }
    text
}

fn operations(settings: &Settings, round: &Round) -> Table {
    let mut table = new_table(&["", "ok", "failed", "per second", "mean ms", "p50", "p90", "p99", "p99.9", "max"]);
    for (name, op) in &round.ops {
        let counts = [grouped(op.ok), grouped(op.failed), rate(op.per_second)];
        add(&mut table, name.clone(), counts, columns(op.response.as_ref()));
        if settings.rate.is_some() {
            let none = [const { String::new() }; 3];
            add(&mut table, format!("{name} service time"), none, columns(op.service.as_ref()));
        }
    }
    if round.ops.len() > 1 {
        let counts = [grouped(round.ok()), grouped(round.failed()), rate(round.per_second())];
        add(&mut table, "all".into(), counts, [const { String::new() }; 6]);
    }
    table
}

/// Shards with their share of the requests, and what forwarding costs.
fn places(round: &Round) -> String {
    let mut by_shard: BTreeMap<&str, u64> = BTreeMap::new();
    for place in &round.places {
        *by_shard.entry(&place.shard).or_default() += place.ok + place.failed;
    }
    let mut text = String::new();
    if by_shard.len() > 1 {
        let total: u64 = by_shard.values().sum();
        let mean = as_f64(total) / as_f64(u64::try_from(by_shard.len()).unwrap_or(1));
        let most = by_shard.iter().max_by_key(|(_, count)| **count);
        if by_shard.len() <= SHARDS_SHOWN_MAX {
            text.push_str(&format!("\n{}\n", shard_table(round, &by_shard, total)));
        }
        if let Some((name, count)) = most {
            let skew = as_f64(*count) / mean.max(1.0);
            let word = if skew > SKEW_MAX { "skewed" } else { "even" };
            text.push_str(&format!("shards are {word}: {name} got {skew:.2} times the mean\n"));
        }
    }
    text.push_str(&ways(round));
    text
}

fn shard_table(round: &Round, by_shard: &BTreeMap<&str, u64>, total: u64) -> Table {
    let mut table = new_table(&["shard", "share", "", "ok", "failed", "mean ms", "p50", "p90", "p99", "p99.9", "max"]);
    for (shard, count) in by_shard {
        let mut share = format!("{:.1} %", 100.0 * as_f64(*count) / as_f64(total.max(1)));
        let mut name = (*shard).to_owned();
        for place in round.places.iter().filter(|place| place.shard == *shard) {
            let way = if place.forwarded { "forwarded" } else { "direct" };
            let texts = [std::mem::take(&mut name), std::mem::take(&mut share), format!("{} {way}", place.op)]
                .into_iter()
                .chain([grouped(place.ok), grouped(place.failed)])
                .chain(columns(place.response.as_ref()));
            table.add_row(texts.enumerate().map(|(column, text)| aligned(column == 0 || column == 2, text)));
        }
    }
    table
}

/// `forwarded get: 74.9 % of them, median 1.42 times that of direct ones`
fn ways(round: &Round) -> String {
    let mut text = String::new();
    for op in round.ops.keys() {
        let of = |forwarded: bool| -> Vec<&PlaceResult> {
            round
                .places
                .iter()
                .filter(|place| place.op == *op && place.forwarded == forwarded && place.ok > 0)
                .collect()
        };
        let count = |places: &[&PlaceResult]| places.iter().map(|place| place.ok).sum::<u64>();
        let (far, near) = (of(true), of(false));
        let all = count(&far) + count(&near);
        if far.is_empty() || all == 0 {
            continue;
        }
        let percent = 100.0 * as_f64(count(&far)) / as_f64(all);
        text.push_str(&format!("{op}: {percent:.1} % were forwarded"));
        if let (Some(far), Some(near)) = (median(&far), median(&near)) {
            text.push_str(&format!(", median {} ms beside {} ms directly", millis(far), millis(near)));
        }
        text.push('\n');
    }
    text
}

/// The median of medians, weighed by requests: good enough to compare two ways.
fn median(places: &[&PlaceResult]) -> Option<f64> {
    let all: u64 = places.iter().map(|place| place.ok).sum();
    let sum: f64 = places.iter().filter_map(|place| Some(place.response?.p50_us * as_f64(place.ok))).sum();
    (all > 0).then(|| sum / as_f64(all))
}

fn failures(round: &Round) -> String {
    let mut by_code: BTreeMap<(&str, &str), (u64, &str, Vec<String>)> = BTreeMap::new();
    for failure in &round.failures {
        let entry = by_code.entry((&failure.op, &failure.code)).or_insert((0, &failure.first, Vec::new()));
        entry.0 += failure.count;
        entry.2.push(format!("{} {}", failure.shard, grouped(failure.count)));
    }
    let mut text = String::new();
    for ((op, code), (count, first, shards)) in by_code {
        let shards = if shards.len() > 1 { format!(" ({})", shards.join(", ")) } else { String::new() };
        text.push_str(&format!("{op} failed: {} × {code}{shards}. The first: {}\n", grouped(count), printable(first)));
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

fn generator(round: &Round) -> String {
    let own = round.generator;
    let mut text = format!(
        "\nbenchclient: {:.1} µs of processor time a request, {:.0} % of one processor",
        own.cpu_us,
        own.busy * 100.0
    );
    if let Some(waited) = own.waited {
        text.push_str(&format!(", waited for one {:.0} % of the time", waited * 100.0));
    }
    if let Some(delay) = own.own_delay {
        text.push_str(&format!("; sent p99 {} ms behind the timetable", millis(delay.p99_us)));
    }
    text.push('\n');
    if let Some(cpu) = round.server_cpu_us {
        text.push_str(&format!(
            "server: {cpu:.1} µs of processor time a request, all nodes together, by their metrics\n"
        ));
    }
    text
}

/// Several rounds in a line each, with the spread.
pub(crate) fn rounds(document: &Document) -> String {
    let mut table = new_table(&["round", "ok", "failed", "per second", "mean ms", "p50", "p90", "p99", "p99.9", "max"]);
    for (number, round) in (1..).zip(&document.rounds) {
        for (name, op) in &round.ops {
            let counts = [grouped(op.ok), grouped(op.failed), rate(op.per_second)];
            add(&mut table, format!("{number} {name}"), counts, columns(op.response.as_ref()));
        }
    }
    format!("\n{table}\n")
}

/// What reading everything back found.
pub(crate) fn verify(verify: &Verify) -> String {
    let mut text = format!(
        "\nverified: {} keys were written to, {} hold what they may hold",
        grouped(verify.keys),
        grouped(verify.right)
    );
    if verify.unknown > 0 {
        text.push_str(&format!("; {} writes had an unknown outcome, and either is right", grouped(verify.unknown)));
    }
    text.push('\n');
    if verify.unread > 0 {
        text.push_str(&format!("NOT VERIFIED: {} keys could not be read\n", grouped(verify.unread)));
    }
    if verify.wrong > 0 {
        text.push_str(&format!("WRONG: {} times a key held what it must not:\n", grouped(verify.wrong)));
    }
    for example in &verify.examples {
        text.push_str(&format!("  {}\n", printable(example)));
    }
    text
}

/// A table without lines.
pub(crate) fn new_table(titles: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(titles.iter().enumerate().map(|(column, title)| aligned(column == 0, (*title).to_owned())));
    table
}

fn add(table: &mut Table, name: String, counts: [String; 3], latencies: [String; 6]) {
    let texts = [name].into_iter().chain(counts).chain(latencies);
    table.add_row(texts.enumerate().map(|(column, text)| aligned(column == 0, text)));
}

/// Names to the left, figures to the right.
pub(crate) fn aligned(left: bool, text: String) -> Cell {
    Cell::new(text).set_alignment(if left { CellAlignment::Left } else { CellAlignment::Right })
}

/// Failures of an operation in all rounds, for the last word.
pub(crate) fn total_failed<'a>(rounds: impl IntoIterator<Item = &'a Round>) -> u64 {
    rounds.into_iter().flat_map(|round| round.ops.values()).map(|op: &OpResult| op.failed).sum()
}
