//! What an operator sees: every line of a node's log is one JSON object that says which node wrote it, a request has one
//! name on all nodes that worked on it, a peer that fails is warned of and counted, and no key is ever shown.

use serde_json::Value;

use crate::support::{Cluster, Request, Spec, wait};

/// What neither log nor metrics may show.
const SECRET: &str = "secretkey";

/// The events of a node's log. The lines that the tests wrote themselves begin with dashes.
fn events(cluster: &Cluster, at: crate::support::At) -> Vec<Value> {
    let log = cluster.log(at);
    let lines = log.lines().filter(|line| !line.starts_with("----"));
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// The sample of this series, written as in the text; 0 when there is none.
fn sample(cluster: &Cluster, at: crate::support::At, series: &str) -> f64 {
    let text = cluster.get(at, "/metrics").expect(200).text();
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.map_or(0.0, |value| value.parse().unwrap())
}

#[test]
fn request_has_one_name_in_the_logs_of_both_nodes_and_its_key_in_none() {
    let cluster = Cluster::start(Spec::shards(2).replicas(1).log_filter("ostraca=debug,info"));
    let (entry, owner) = (cluster.replica(1), cluster.leader(0));
    let key = cluster.key(0, SECRET);
    cluster.get(entry, format!("/set?key={key}&value=1")).expect(200);
    cluster.get(entry, format!("/v1/kv/{key}")).expect(200);
    cluster.get(entry, format!("/v1/kv/{key}?consistency=nonsense")).expect(400);
    cluster.send(entry, &Request::new("PATCH", format!("/v1/kv/{key}"))).expect(405);
    cluster.get(entry, format!("/{key}")).expect(404);
    let set = |event: &&Value| event["message"] == "request" && event["route"] == "/set";
    let named = events(&cluster, entry).iter().find(set).map(|event| event["request"].clone()).expect("a line");
    let there = events(&cluster, owner);
    let served: Vec<&Value> = there.iter().filter(|event| event["request"] == named).collect();
    assert_eq!(served.len(), 1, "{served:?}");
    assert_eq!((&served[0]["code"], &served[0]["shard"]), (&"ok".into(), &cluster.shard_name(0).into()));
    for at in cluster.all() {
        let name = format!("{}/{}", cluster.shard_name(at.shard), at.copy);
        for event in events(&cluster, at) {
            assert_eq!(event["node"], name, "{event}");
            assert!(event["shard"].is_string() && event["message"].is_string(), "{event}");
        }
        assert!(!cluster.log(at).contains(SECRET), "{}", cluster.log(at));
        assert!(!cluster.get(at, "/metrics").expect(200).text().contains(SECRET));
    }
}

#[test]
fn peer_that_is_away_is_warned_of_and_counted() {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    let (entry, owner) = (cluster.leader(1), cluster.leader(0));
    let (shard, key) = (cluster.shard_name(0), cluster.key(0, SECRET));
    let up = format!("ostraca_peer_up{{peer=\"{shard}/0\"}}");
    wait::until("the owner is known to be up", || {
        let value = sample(&cluster, entry, &up);
        if value > 0.5 { Ok(()) } else { Err(format!("{up} {value}")) }
    });
    cluster.kill9(owner);
    let answer = cluster.send(entry, &Request::get(format!("/get?key={key}")));
    assert!(matches!(answer.status, 502 | 504), "{answer:?}");
    let code = answer.json()["code"].as_str().unwrap().to_owned();
    let log = events(&cluster, entry);
    let failed = log.iter().find(|event| event["message"] == "request failed").expect("a warning");
    assert_eq!((&failed["level"], &failed["route"]), (&"WARN".into(), &"/get".into()));
    assert_eq!((&failed["code"], &failed["shard"]), (&code.as_str().into(), &shard.into()));
    assert!(failed["took_ms"].is_u64() && failed["request"].as_str().is_some_and(|id| id.len() == 16), "{failed}");
    let series = format!("ostraca_forwarded_requests_total{{shard=\"{shard}\",outcome=\"{code}\"}}");
    assert!(sample(&cluster, entry, &series) > 0.5, "no {series}");
    let series = format!("ostraca_http_requests_total{{route=\"/get\",method=\"GET\",outcome=\"{code}\"}}");
    assert!(sample(&cluster, entry, &series) > 0.5, "no {series}");
    assert!(sample(&cluster, entry, &up) < 0.5, "a peer that was killed is up");
    let state = format!("ostraca_copy_state{{shard=\"{shard}\",state=\"away\"}}");
    wait::until("the replica says that its leader is away", || {
        let value = sample(&cluster, cluster.replica(0), &state);
        if value > 0.5 { Ok(()) } else { Err(format!("{state} {value}")) }
    });
}
