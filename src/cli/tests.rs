//! The commands as they are typed, against a tiny HTTP server: what they ask, what they print, how they end.

use std::path::Path;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use serde_json::json;

use super::exit::{Done, Exit, Failure};
use super::http::{Ask, ask_one, block_on, client};
use super::stub::{Stub, answer, nobody, problem};
use super::{Kv, run};

const OWNER: [&str; 5] =
    ["KV-Shard: Delhi", "KV-Node: 127.0.0.5:8080", "KV-Role: leader", "KV-Consistency: leader", "KV-Stale-Ms: 0"];

fn kv_in(directory: &Path, line: &[&str]) -> Result<Done, Failure> {
    let kv = Kv::try_parse_from([&["kv"], line].concat()).unwrap_or_else(|error| panic!("{line:?}: {error}"));
    run(&kv.command, directory)
}

/// Runs a command against this server.
fn kv(server: &str, line: &[&str]) -> Result<Done, Failure> {
    kv_in(Path::new("/nonexistent"), &[line, &["--url", server]].concat())
}

fn text(done: &Done) -> String {
    String::from_utf8(done.stdout.clone()).unwrap()
}

#[test]
fn clap_definitions_are_sound() {
    Kv::command().debug_assert();
}

#[test]
fn get_writes_exactly_the_values_bytes() {
    let value = b"\x00\xff\r\n\r\nno newline";
    let stub = Stub::always(answer("200 OK", &OWNER, value));
    let done = kv(&stub.url(), &["get", "user:42"]).unwrap();
    assert_eq!((done.exit, done.stdout.as_slice(), done.note), (Exit::Ok, &value[..], None));
    let asked = stub.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].line, "GET /v1/kv?key_b64=dXNlcjo0Mg HTTP/1.1");
    assert!(asked[0].body.is_empty());
}

#[test]
fn get_to_a_file_writes_the_bytes_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("value");
    let stub = Stub::always(answer("200 OK", &OWNER, b"\xff"));
    let done = kv(&stub.url(), &["get", "k", "--file", path.to_str().unwrap()]).unwrap();
    assert!(text(&done).starts_with("1 bytes written"));
    assert_eq!(std::fs::read(&path).unwrap(), b"\xff");
}

#[test]
fn get_any_passes_it_on_and_tells_the_age_beside_the_value() {
    let headers = ["KV-Shard: Delhi", "KV-Node: 127.0.0.55:8080", "KV-Role: replica", "KV-Stale-Ms: 120"];
    let stub = Stub::always(answer("200 OK", &headers, b"v"));
    let done = kv(&stub.url(), &["get", "k", "--consistency", "any", "--timeout", "2s"]).unwrap();
    assert_eq!(done.stdout, b"v");
    assert_eq!(done.note.unwrap(), "from a replica of Delhi at 127.0.0.55:8080, at most 120 ms old");
    assert_eq!(stub.asked()[0].line, "GET /v1/kv?key_b64=aw&timeout=2000ms&consistency=any HTTP/1.1");
}

#[test]
fn get_bounded_and_session_pass_on_what_belongs_to_them() {
    let headers = ["KV-Shard: Delhi", "KV-Node: 127.0.0.55:8080", "KV-Role: replica", "KV-Session: T0k-_"];
    let stub = Stub::always(answer("200 OK", &headers, b"v"));
    kv(&stub.url(), &["get", "k", "--consistency", "bounded", "--max-stale", "1s"]).unwrap();
    let done = kv(&stub.url(), &["get", "k", "--consistency", "session", "--session", "a-_B&", "-o", "json"]).unwrap();
    let found: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(found["session"], "T0k-_");
    let done = kv(&stub.url(), &["set", "k", "v", "--session", "a"]).unwrap();
    assert!(!text(&done).contains("T0k-_"), "the token is there for who asks: {done:?}");
    let lines: Vec<String> = stub.asked().into_iter().map(|asked| asked.line).collect();
    let expected = [
        "GET /v1/kv?key_b64=aw&consistency=bounded&max_stale=1000ms HTTP/1.1",
        "GET /v1/kv?key_b64=aw&consistency=session&session=a-_B%26 HTTP/1.1",
        "PUT /v1/kv?key_b64=aw&session=a HTTP/1.1",
    ];
    assert_eq!(lines, expected);
    assert!(Kv::try_parse_from(["kv", "get", "k", "--consistency", "bounded"]).is_err(), "bounded by what?");
}

#[test]
fn get_json_holds_value_and_origin() {
    let headers = [&OWNER[..], &["ETag: \"1.7.ab\"", "Content-Type: text/plain"]].concat();
    let stub = Stub::always(answer("200 OK", &headers, b"\xff\xfe"));
    let done = kv(&stub.url(), &["get", "k", "-o", "json"]).unwrap();
    let found: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&found["key"], &found["value_b64"]), (&"k".into(), &"__4".into()));
    assert_eq!((&found["version"], &found["shard"]), (&"1.7.ab".into(), &"Delhi".into()));
    assert_eq!(found.get("value"), None);
}

#[test]
fn get_of_nothing_is_not_found() {
    let stub = Stub::always(problem("404 Not Found", "key-not-found", "no"));
    let failure = kv(&stub.url(), &["get", "k"]).unwrap_err();
    assert_eq!(failure.exit.code(), 3);
    assert!(failure.to_string().contains("a detail") && failure.to_string().ends_with("next: a hint\n"), "{failure}");
}

#[test]
fn get_of_an_empty_value_is_found() {
    let stub = Stub::always(answer("200 OK", &OWNER, b""));
    assert_eq!(kv(&stub.url(), &["get", "k"]).unwrap(), Done::ok(""));
}

#[test]
fn get_cut_off_in_the_middle_prints_nothing() {
    let stub = Stub::always(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec());
    assert_eq!(kv(&stub.url(), &["get", "k"]).unwrap_err().exit, Exit::Unavailable);
}

#[test]
fn redirects_are_not_followed() {
    let stub = Stub::always(answer("307 Temporary Redirect", &["Location: http://127.0.0.1:1/"], b""));
    assert_eq!(kv(&stub.url(), &["get", "k"]).unwrap_err().exit, Exit::Error);
    assert_eq!(stub.asked().len(), 1);
}

#[test]
fn set_sends_argument_and_file_byte_for_byte() {
    let headers = [&OWNER[..], &["KV-Acks: 1/2", "ETag: \"1.7.ab\""]].concat();
    let stub = Stub::always(answer("201 Created", &headers, b""));
    let done = kv(&stub.url(), &["set", "k", "-12"]).unwrap();
    assert_eq!(text(&done), "created k in Delhi at 127.0.0.5:8080, version 1.7.ab; on disk at 1 of 2 copies so far\n");

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("value");
    std::fs::write(&path, b"\x00\xff\n").unwrap();
    kv(&stub.url(), &["set", "k", "--file", path.to_str().unwrap(), "--content-type", "image/png"]).unwrap();

    let asked = stub.asked();
    assert_eq!(asked[0].line, "PUT /v1/kv?key_b64=aw HTTP/1.1");
    assert_eq!((asked[0].body.as_slice(), asked[1].body.as_slice()), (&b"-12"[..], &b"\x00\xff\n"[..]));
    assert!(asked[0].headers.contains(&"content-type: application/octet-stream".to_owned()));
    assert!(asked[1].headers.contains(&"content-type: image/png".to_owned()));
}

#[test]
fn set_replaced_and_json_say_so() {
    let stub = Stub::always(answer("204 No Content", &[&OWNER[..], &["KV-Acks: 1/1"]].concat(), b""));
    let done = kv(&stub.url(), &["set", "k", ""]).unwrap();
    assert_eq!(text(&done), "replaced k in Delhi at 127.0.0.5:8080; on disk at its only copy\n");
    assert_eq!(stub.asked()[0].body, b"");
    let done = kv(&stub.url(), &["set", "k", "v", "-o", "json"]).unwrap();
    let stored: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&stored["created"], &stored["acks"]), (&false.into(), &"1/1".into()));
}

#[test]
fn set_whose_outcome_is_unknown_ends_with_seven() {
    let said = Stub::always(problem("504 Gateway Timeout", "deadline", "unknown"));
    assert_eq!(kv(&said.url(), &["set", "k", "v"]).unwrap_err().exit.code(), 7);
    let dropped = Stub::start(|_| None);
    let failure = kv(&dropped.url(), &["set", "k", "v"]).unwrap_err();
    assert_eq!(failure.exit.code(), 7, "{failure}");
    assert_eq!(kv(&dropped.url(), &["delete", "k"]).unwrap_err().exit.code(), 7);
    assert_eq!(kv(&dropped.url(), &["get", "k"]).unwrap_err().exit.code(), 5);
    assert_eq!(dropped.asked().len(), 3, "a request was sent again");
}

#[test]
fn set_without_an_answer_in_time_is_unknown() {
    let stub = Stub::start(|_| {
        std::thread::sleep(Duration::from_millis(400));
        None
    });
    let ask = Ask { method: reqwest::Method::PUT, path: "/".to_owned(), body: Some((b"v".to_vec(), "x/y".to_owned())) };
    let client = client(Duration::from_millis(100)).unwrap();
    let failure = block_on(async { ask_one(&client, &stub.url(), &ask).await }).unwrap_err();
    assert_eq!(failure.exit, Exit::Unknown, "{failure}");
    assert!(failure.title.contains("in time"), "{failure}");
}

#[test]
fn server_that_is_not_there_is_unavailable_and_the_hint_names_another() {
    let gone = format!("http://{}", nobody());
    for line in [&["get", "k"][..], &["set", "k", "v"], &["delete", "k"], &["explain", "k"], &["status"]] {
        let failure = kv(&gone, line).unwrap_err();
        assert_eq!(failure.exit.code(), 5, "{line:?}: {failure}");
        assert!(!failure.hint.is_empty());
    }
    let directory = cluster_file(&[nobody(), "127.0.0.1:9".parse().unwrap()]);
    let failure = kv_in(directory.path(), &["get", "k"]).unwrap_err();
    assert!(failure.hint.ends_with("--url http://127.0.0.1:9"), "{failure}");
}

#[test]
fn delete_tells_whether_the_key_was_there() {
    let there =
        Stub::always(answer("204 No Content", &[&OWNER[..], &["ETag: \"1.8.ab\"", "KV-Acks: 2/2"]].concat(), b""));
    let done = kv(&there.url(), &["delete", "k"]).unwrap();
    assert_eq!(text(&done), "deleted k in Delhi at 127.0.0.5:8080, version 1.8.ab; on disk at all 2 copies\n");
    assert_eq!(there.asked()[0].line, "DELETE /v1/kv?key_b64=aw HTTP/1.1");
    let absent = Stub::always(answer("204 No Content", &OWNER, b""));
    assert!(text(&kv(&absent.url(), &["delete", "k"]).unwrap()).contains("was not there"));
}

#[test]
fn explain_asks_for_the_keys_bytes() {
    let body = br#"{"key":"a b","hash":"0x1","hash_function":"fnv1a","shard":"Delhi","index":3,"leader":"x:1","epoch":1,"copies":[]}"#;
    let stub = Stub::always(answer("200 OK", &[], body));
    assert!(text(&kv(&stub.url(), &["explain", "a b"]).unwrap()).contains("Delhi"));
    assert_eq!(stub.asked()[0].line, "GET /v1/explain?key=a%20b HTTP/1.1");
    let found = kv(&stub.url(), &["explain", "a b", "-o", "json"]).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&found.stdout).unwrap()["index"], 3);
}

#[test]
fn strangers_answers_are_errors_not_panics() {
    for body in [&b"<html>"[..], b"{}", b"[]", b"\xff"] {
        let stub = Stub::always(answer("200 OK", &[], body));
        for line in [&["status"][..], &["get", "k"], &["set", "k", "v"], &["delete", "k"]] {
            assert_eq!(kv(&stub.url(), line).unwrap_err().exit, Exit::Error, "{line:?}");
        }
        assert_eq!(kv(&stub.url(), &["explain", "k"]).unwrap_err().exit, Exit::Error);
    }
}

/// A directory with a file of two shards, led at these addresses.
fn cluster_file(leaders: &[std::net::SocketAddr]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let shard = |(idx, address)| format!("[[shards]]\nname = \"s{idx}\"\nidx = {idx}\naddress = \"{address}\"\n");
    let text: String = leaders.iter().enumerate().map(shard).collect();
    std::fs::write(directory.path().join("sharding.toml"), text).unwrap();
    directory
}

/// A node that leads shard `s0` of a map in which others lead the further shards, and says this of itself. Its own
/// address is the one that it was asked at.
fn node(others: Vec<std::net::SocketAddr>, problems: &'static str) -> Stub {
    Stub::start(move |asked| {
        let host = asked.headers.iter().find_map(|header| header.strip_prefix("host: ")).unwrap();
        let leaders = || std::iter::once(host.to_owned()).chain(others.iter().map(ToString::to_string)).enumerate();
        let nodes: Vec<_> = leaders()
            .map(|(i, address)| json!({"name": format!("s{i}/0"), "address": address, "state": "up"}))
            .collect();
        let shards: Vec<_> = leaders()
            .map(|(i, leader)| json!({"name": format!("s{i}"), "index": i, "epoch": 1, "leader": leader, "replicas": []}))
            .collect();
        let body = match asked.line.as_str() {
            "GET /v1/cluster HTTP/1.1" => json!({
                "cluster": "c", "profile": "static", "hash_function": "fnv1a", "placement": "0x1",
                "nodes": nodes, "shards": shards, "a later field": true
            }),
            "GET /admin/v1/status HTTP/1.1" => json!({
                "node": "s0/0", "address": host, "version": "9", "cluster": "c", "placement": "0x1", "uptime_ms": 1,
                "placement_text": "p", "addresses": "0x2", "peers": [],
                "copies": [{"shard": "s0", "index": 0, "role": "leader", "state": "leading", "since_ms": 1, "epoch": 1, "leader": "s0/0",
                    "end": 4, "keys": 3, "bytes": 2048, "log_bytes": 1, "stale_ms": 0, "replicas": []}],
                "problems": if problems.is_empty() { json!([]) } else { json!([{"code": "x",
                    "what": problems, "since_ms": 192_000, "next": "do something"}]) }, "a later field": 7
            }),
            other => panic!("{other}"),
        };
        Some(answer("200 OK", &["Content-Type: application/json"], body.to_string().as_bytes()))
    })
}

#[test]
fn status_healthy_cluster_ends_with_zero() {
    let stub = node(Vec::new(), "");
    let done = kv(&stub.url(), &["status"]).unwrap();
    assert_eq!(done.exit.code(), 0);
    let shown = text(&done);
    assert!(shown.starts_with("healthy: 1 shard on 1 node\n"), "{shown}");
    assert!(shown.contains("2.0 KiB") && shown.contains("unreplicated"), "{shown}");
}

#[test]
fn status_problem_of_a_node_ends_with_one() {
    let stub = node(Vec::new(), "the disk is nearly full");
    let done = kv(&stub.url(), &["status"]).unwrap();
    assert_eq!(done.exit.code(), 1);
    assert!(text(&done).starts_with("NOT healthy: 1 problem in"), "{}", text(&done));
    assert!(text(&done).contains("  - s0/0: the disk is nearly full (for 3 m 12 s)\n    next: do something\n"));
}

#[test]
fn status_silent_node_is_a_line_too() {
    let gone = nobody();
    let stub = node(vec![gone], "");
    let done = kv(&stub.url(), &["status"]).unwrap();
    let shown = text(&done);
    assert_eq!(done.exit.code(), 1);
    assert!(shown.contains(&format!("s1/0 ({gone}) does not answer: ")), "{shown}");
    assert!(shown.lines().any(|line| line.starts_with("s1 ") && line.contains("(no answer)")), "{shown}");

    let done = kv(&stub.url(), &["status", "-o", "json"]).unwrap();
    let found: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((done.exit.code(), &found["healthy"]), (1, &false.into()));
    assert_eq!(found["cluster"]["profile"], "static");
    assert_eq!(found["nodes"][0]["status"]["a later field"], 7);
    assert!(found["nodes"][1]["status"].is_null() && found["nodes"][1]["error"].is_string());
}

/// Nodes that take connections and never answer are asked at once: three of them cost two seconds, not six.
#[test]
fn status_stopped_nodes_cost_two_seconds_together() {
    let stopped: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let stub = node(stopped.iter().map(|listener| listener.local_addr().unwrap()).collect(), "");
    let clock = crate::clock::Clock::real();
    let start = clock.now();
    let shown = text(&kv(&stub.url(), &["status"]).unwrap());
    let took = clock.now() - start;
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(4), "{took:?}");
    assert_eq!(shown.matches("does not answer: no answer came in time").count(), 3, "{shown}");
}

#[test]
fn status_asks_the_files_next_address_when_the_first_is_down() {
    let stub = node(Vec::new(), "");
    let directory = cluster_file(&[nobody(), stub.address]);
    assert_eq!(kv_in(directory.path(), &["status"]).unwrap().exit, Exit::Ok);
    let directory = cluster_file(&[nobody(), nobody()]);
    let failure = kv_in(directory.path(), &["status"]).unwrap_err();
    assert_eq!(failure.exit, Exit::Unavailable);
    assert!(failure.detail.contains("none answers of 2") && failure.hint.contains("./launch.sh"), "{failure}");
}

#[test]
fn completion_scripts_of_all_shells_are_made() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let done = kv_in(Path::new("/nonexistent"), &["completion", shell]).unwrap();
        assert!(text(&done).contains("explain"), "{shell}");
    }
}

#[test]
fn check_lists_nodes_or_faults() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sharding.toml");
    std::fs::write(&path, include_str!("../../sharding.toml")).unwrap();
    let file = path.to_str().unwrap();
    let shown = text(&kv_in(directory.path(), &["check", file]).unwrap());
    assert!(shown.contains("4 shards on 8 nodes, hash fnv1a"), "{shown}");
    assert!(shown.contains("Delhi/1") && shown.contains("data/delhi-1.redb"), "{shown}");
    let lines = text(&kv_in(directory.path(), &["check", file, "--nodes"]).unwrap());
    assert_eq!(lines.lines().count(), 8, "{lines}");
    assert!(lines.starts_with("Hyderabad/0\tHyderabad\tleader\t127.0.0.2:8080\tdata/hyderabad.redb\n"), "{lines}");

    std::fs::write(&path, "colour = 1\nhash = \"md5\"\n").unwrap();
    let failure = kv_in(directory.path(), &["check", file]).unwrap_err();
    assert_eq!(failure.exit, Exit::Error);
    assert!(failure.title.ends_with("has 3 faults") && failure.detail.contains("sharding.toml:2:"), "{failure}");
    let done = kv_in(directory.path(), &["check", file, "-o", "json"]).unwrap();
    let found: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((done.exit, &found["valid"], &found["faults"][1]["line"]), (Exit::Error, &false.into(), &1.into()));
}
