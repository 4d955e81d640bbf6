//! Measurements as a user runs them: workloads, the open loop, files and what is said.

#![expect(clippy::unwrap_used, reason = "a test's set-up that fails should fail the test")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

mod stub;

use stub::{Mood, Server, bench_at, command, stderr, stdout};

/// A directory of a test's own, gone with it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("benchclient-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Runs with `--json` and gives the first round back.
fn measured(server: &Server, arguments: &[&str]) -> (Output, Value) {
    let directory = Directory::new(&format!("measured-{}", server.address.port()));
    let file = directory.file("result.json");
    let output = server.bench(&[arguments, &["--json", &file]].concat());
    let text = std::fs::read_to_string(&file).unwrap();
    let document: Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error} in {text:?}\n{}{}", stdout(&output), stderr(&output)));
    (output, document)
}

fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {value:#}"))
}

#[test]
fn workload_of_so_many_requests_counts_each_and_exits_0() {
    let server = Server::start(Mood::Good);
    let flags = "--workload a --preload --keys 50 --requests 1000 --connections 4 --value-bytes 10..300";
    let (output, document) = measured(&server, &flags.split(' ').collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    let round = &document["rounds"][0];
    let (get, set) = (number(round, "/ops/get/ok"), number(round, "/ops/set/ok"));
    assert_eq!((get + set, number(round, "/ops/get/failed")), (1000.0, 0.0));
    assert!(get > 350.0 && set > 350.0, "half of each: {get} and {set}");
    assert_eq!(number(&document, "/preload/keys"), 50.0);
    assert_eq!(document["server"]["durability"], Value::Null);
}

#[test]
fn workload_with_a_time_leaves_the_warm_up_out() {
    let server = Server::start(Mood::Good);
    let flags = ["--workload", "set", "--warmup", "1s", "--duration", "2s", "--rate", "200", "--connections", "2"];
    let (output, document) = measured(&server, &flags);
    let round = &document["rounds"][0];
    // The timetable has 400 requests in the two seconds that count, however slow this machine is.
    assert_eq!(number(round, "/ops/set/ok") + number(round, "/unsent"), 400.0, "{}", stdout(&output));
    assert_eq!(round["seconds"][0]["part"], "warm-up");
    assert!(stdout(&output).contains("warm-up of 1 s, which is left out"), "{}", stdout(&output));
    assert!(stderr(&output).lines().any(|line| line.starts_with("warm-up")), "{}", stderr(&output));
    assert!(stderr(&output).lines().filter(|line| line.starts_with("measure")).count() >= 2, "{}", stderr(&output));
}

#[test]
fn open_loop_counts_the_waiting_that_a_stall_caused() {
    let server = Server::start(Mood::StallsOnce);
    let flags = "--workload get --preload --keys 10 --rate 1000 --connections 1 --warmup 0s --duration 2s";
    let (output, document) = measured(&server, &flags.split(' ').collect::<Vec<_>>());
    let get = &document["rounds"][0]["ops"]["get"];
    let (response, service) = (number(get, "/response/p90_us"), number(get, "/service/p90_us"));
    // 600 of 2,000 requests were due while the server stalled; a tenth of all waited longer than 300 ms for their turn.
    assert!(response > 300_000.0, "{response} µs: {}", stdout(&output));
    assert!(service < response, "{service} µs beside {response}");
    assert!(stdout(&output).contains("get service time"), "{}", stdout(&output));
}

#[test]
fn open_loop_that_asks_for_more_than_there_is_says_so() {
    let server = Server::start(Mood::Good);
    let flags =
        "--workload get --preload --keys 10 --rate 3000000 --connections 1 --warmup 0s --duration 1s --timeout 1s";
    let (output, document) = measured(&server, &flags.split(' ').collect::<Vec<_>>());
    assert!(number(&document, "/rounds/0/unsent") > 0.0);
    let text = stdout(&output);
    assert!(text.contains("WARNING: 3,000,000 a second were asked for") && text.contains("never sent"), "{text}");
}

#[test]
fn pipelining_sends_bursts_and_counts_every_answer() {
    let server = Server::start(Mood::Good);
    let flags = "--workload c --preload --keys 100 --requests 3000 --connections 3 --pipeline 16 --threads 2";
    let (output, document) = measured(&server, &flags.split(' ').collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(number(&document, "/rounds/0/ops/get/ok"), 3000.0);
    assert_eq!(document["rounds"][0]["ops"].get("set"), None);
}

#[test]
fn reads_of_keys_that_are_not_there_fail_and_name_the_remedy() {
    let output = Server::start(Mood::Good).bench(&["--workload", "get", "--requests", "20", "--connections", "2"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.contains("20 × key-not-found") && text.contains("--preload"), "{text}");
}

#[test]
fn header_prints_what_the_server_says_of_durability_and_topology() {
    let server = Server::start(Mood::Good);
    *server.state.status.lock().unwrap() = Some(r#"{"version":"9.9","durability":"fsync before the answer"}"#.into());
    let address = server.address;
    *server.state.cluster.lock().unwrap() = Some(format!(
        r#"{{"cluster":"abc","profile":"static","hash_function":"fnv1a","nodes":[{{"address":"{address}","state":"up"}}],
            "shards":[{{"name":"One","index":0,"leader":"{address}","replicas":[]}}]}}"#
    ));
    let output = server.bench(&["--workload", "set", "--requests", "10"]);
    let text = stdout(&output);
    for part in ["fsync before the answer", "1 shard × 1 copy, 1 node", "Ostraca 9.9, profile static, cluster abc"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn other_servers_are_measured_by_their_own_forms() {
    let server = Server::start(Mood::Other);
    let forms = ["--get-template", "GET /GET/{key}", "--set-template", "PUT /SET/{key}"];
    let flags = "--workload b --preload --verify --keys 40 --requests 200".split(' ').collect::<Vec<_>>();
    let output = server.bench(&[&flags[..], &forms].concat());
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("another server"), "{}", stdout(&output));
}

#[test]
fn files_are_written_and_compared() {
    let directory = Directory::new("files");
    let server = Server::start(Mood::Good);
    let (json, plot) = (directory.file("a.json"), directory.file("a.svg"));
    let flags = "--workload a --preload --keys 50 --requests 300 --rounds 3".split(' ').collect::<Vec<_>>();
    let output = server.bench(&[&flags[..], &["--json", &json, "--plot", &plot]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("round 2 of 3") || stdout(&output).contains("of 3, the median"));
    let svg = std::fs::read_to_string(&plot).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("response time"), "{svg:.200}");
    let compared = Command::new(env!("CARGO_BIN_EXE_benchclient")).args(["compare", &json, &json]).output().unwrap();
    assert_eq!(compared.status.code(), Some(0), "{}", stderr(&compared));
    let text = stdout(&compared);
    assert!(text.contains("3 rounds with 3 rounds") && text.contains("within the noise"), "{text}");
    assert!(!text.contains("WORSE") && !text.contains("better"), "{text}");
}

#[test]
fn files_that_cannot_be_written_or_read_are_told_before_anything_is_measured() {
    let server = Server::start(Mood::Good);
    let output = server.bench(&["--workload", "set", "--json", "/nowhere/at/all.json"]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(server.state.asked.lock().unwrap().is_empty());
    let compared =
        Command::new(env!("CARGO_BIN_EXE_benchclient")).args(["compare", "/nowhere/a", "/nowhere/b"]).output();
    assert_eq!(compared.unwrap().status.code(), Some(5));
}

#[test]
fn contradictions_exit_2_with_a_hint() {
    for flags in [&["--workload", "set", "--verify", "--value-bytes", "8"][..], &["--rate", "5"], &["--workload", "x"]]
    {
        let output = bench_at("127.0.0.1:1", flags);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", stderr(&output));
    }
}

#[cfg(unix)]
#[test]
fn interrupt_prints_what_was_measured_and_writes_the_file() {
    let directory = Directory::new("interrupt");
    let server = Server::start(Mood::Good);
    let json = directory.file("a.json");
    let flags = ["--workload", "set", "--warmup", "0s", "--duration", "10m", "--json", &json];
    let mut bench = command(&server.address.to_string(), &flags);
    let child = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while server.state.asked.lock().unwrap().len() < 100 {
        thread::sleep(Duration::from_millis(10));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("Stopped by a signal"), "{}", stderr(&output));
    let document: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(document["rounds"][0]["interrupted"], Value::Bool(true));
    assert!(number(&document, "/rounds/0/ops/set/ok") >= 50.0, "{}", stdout(&output));
}
