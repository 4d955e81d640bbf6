//! `/metrics`: what a scraper reads, and that it moves with what clients do.

use std::collections::{BTreeMap, BTreeSet};

use super::openmetrics::{Family, read};
use super::{NEAR, Served, serve};
use crate::store::Code;

const ALERTS: &str = include_str!("../../../docs/monitoring/alerts.yml");
const DASHBOARD: &str = include_str!("../../../docs/monitoring/grafana-dashboard.json");

/// What no metric may show.
const SECRET_KEY: &str = "secretkey";

async fn scrape(served: &Served) -> (String, BTreeMap<String, Family>) {
    let reply = served.ask("GET /metrics").await;
    assert_eq!(reply.status, 200);
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(reply.header("content-type"), Some(media_type));
    let text = String::from_utf8(reply.body).unwrap();
    let families = read(&text);
    (text, families)
}

/// The sum of the samples of this name whose labels contain these.
fn sum(families: &BTreeMap<String, Family>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let family = ["", "_total", "_count", "_sum", "_bucket"]
        .iter()
        .find_map(|suffix| families.get(name.strip_suffix(suffix)?))
        .unwrap_or_else(|| panic!("no {name}"));
    let wanted = |of: &BTreeMap<String, String>| labels.iter().all(|(k, v)| of.get(*k).is_some_and(|found| found == v));
    family.samples.iter().filter(|(sample, of, _)| sample == name && wanted(of)).map(|(_, _, value)| value).sum()
}

/// Uses every part of a node that a single one has.
async fn use_all(served: &Served) {
    for line in [
        &format!("GET /set?key={SECRET_KEY}&value=1"),
        &format!("GET /get?key={SECRET_KEY}"),
        "GET /set?key=b&value=1",
        "GET /get?key=b",
        "HEAD /get?key=b",
        "GET /get?key=d",
        "DELETE /v1/kv/b",
        "GET /get?key=a",
        "GET /nowhere",
        "FROB /get?key=b",
        "GET /readyz",
    ] {
        served.ask(line).await;
    }
}

#[tokio::test]
async fn metrics_of_a_node_that_was_used_are_open_metrics_without_any_key() {
    let served = serve().await;
    use_all(&served).await;
    let (text, families) = scrape(&served).await;
    assert!(families.len() > 60, "{} families", families.len());
    for name in families.keys() {
        assert!(name.starts_with("ostraca_") || name.starts_with("process_"), "{name}");
    }
    assert!(!text.contains(SECRET_KEY), "{text}");
    let empty = families.iter().filter(|(_, family)| family.kind == "gauge" && family.samples.is_empty());
    let empty: Vec<&str> = empty.map(|(name, _)| name.as_str()).filter(|name| !name.contains("_replica_")).collect();
    assert_eq!(
        empty,
        ["ostraca_at_risk_entries", "ostraca_at_risk_seconds", "ostraca_disk_free_bytes"],
        "this shard has no replica and no disk"
    );
}

#[tokio::test]
async fn metrics_requests_are_counted_and_timed_by_route_method_and_outcome() {
    let served = serve().await;
    use_all(&served).await;
    let (_, before) = scrape(&served).await;
    for (route, method, outcome) in [
        ("/get", "GET", "ok"),
        ("/get", "HEAD", "ok"),
        ("/get", "GET", "key-not-found"),
        ("/get", "GET", "shard-unreachable"),
        ("/get", "other", "method-not-allowed"),
        ("/v1/kv/{key}", "DELETE", "ok"),
        ("other", "GET", "no-such-route"),
    ] {
        let labels = [("route", route), ("method", method), ("outcome", outcome)];
        assert!(sum(&before, "ostraca_http_requests_total", &labels) >= 1.0, "{labels:?}");
        let labels = [("route", route), ("outcome", outcome)];
        assert!(sum(&before, "ostraca_http_request_duration_seconds_count", &labels) >= 1.0, "{labels:?}");
    }
    let ok = [("route", "/get"), ("method", "GET"), ("outcome", "ok")];
    for _ in 0..5 {
        served.ask(&format!("GET /set?key={NEAR}&value=1")).await;
        served.ask(&format!("GET /get?key={NEAR}")).await;
    }
    let (_, after) = scrape(&served).await;
    let moved = |name: &str, labels: &[(&str, &str)]| sum(&after, name, labels) - sum(&before, name, labels);
    assert!((moved("ostraca_http_requests_total", &ok) - 5.0).abs() < 0.5);
    assert!((moved("ostraca_commit_entries_sum", &[("shard", "Here")]) - 5.0).abs() < 0.5);
    assert!((moved("ostraca_log_end", &[("shard", "Here")]) - 5.0).abs() < 0.5);
    assert!((sum(&after, "ostraca_http_requests_in_flight", &[]) - 1.0).abs() < 0.5, "the scrape itself");
}

#[tokio::test]
async fn metrics_say_that_a_node_leads_and_that_its_peer_is_down() {
    let served = serve().await;
    served.ask("GET /get?key=a").await;
    let (_, families) = scrape(&served).await;
    let is = |name, labels: &[(&str, &str)], value: f64| (sum(&families, name, labels) - value).abs() < 0.5;
    assert!(is("ostraca_shard_leading", &[("shard", "Here")], 1.0));
    assert!(is("ostraca_copy_state", &[("shard", "Here"), ("state", "leading")], 1.0));
    assert!(is("ostraca_store_failed", &[("shard", "Here")], 0.0));
    assert!(is("ostraca_peer_up", &[("peer", "There/0")], 0.0));
    let failed = [("shard", "There"), ("outcome", "shard-unreachable")];
    assert!(is("ostraca_forwarded_requests_total", &failed, 1.0));
    assert!(is("ostraca_build_info", &[("node", "Here/0")], 1.0));
}

/// Names of metrics in a text: words that begin with our prefixes.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("ostraca_") || word.starts_with("process_")).collect()
}

#[tokio::test]
async fn metrics_named_by_dashboard_and_alerts_are_there() {
    let served = serve().await;
    let (_, families) = scrape(&served).await;
    let names: BTreeSet<String> = families
        .iter()
        .flat_map(|(name, family)| match family.kind.as_str() {
            "counter" => vec![format!("{name}_total")],
            "histogram" => ["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")).to_vec(),
            _ => vec![name.clone()],
        })
        .collect();
    for file in [ALERTS, DASHBOARD] {
        let named = named(file);
        assert!(named.len() > 10, "{named:?}");
        let missing: Vec<&str> = named.into_iter().filter(|name| !names.contains(*name)).collect();
        assert!(missing.is_empty(), "no metric of these names: {missing:?}");
    }
}

/// The codes that dashboard and alerts call the servers' failures are those that the log warns of.
#[test]
fn failures_by_dashboard_and_alerts_are_the_codes_of_server_faults() {
    let faults: Vec<&str> = Code::ALL.into_iter().filter(|code| code.is_server_fault()).map(Code::name).collect();
    let faults = faults.join("|");
    for file in [ALERTS, DASHBOARD] {
        let file = file.replace("\\\"", "\"");
        let asked: Vec<&str> = file.split("outcome=~\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(!asked.is_empty() && asked.iter().all(|codes| *codes == faults), "{asked:?} is not {faults}");
    }
}

#[test]
fn dashboard_is_json_whose_panels_all_ask_something() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "an id twice: {panel}");
        let is_row = panel["type"] == "row";
        let asks = panel["targets"].as_array().is_some_and(|targets| targets.iter().all(|t| t["expr"].is_string()));
        assert!(is_row || asks, "a panel that asks nothing: {}", panel["title"]);
    }
}
