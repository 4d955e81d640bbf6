//! `--route direct`: each key is asked for at its shard's leader, also after another node has become leader.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's set-up that fails should fail the test")]

use std::process::Stdio;
use std::thread;
use std::time::Duration;

mod stub;

use stub::{Mood, Server, command, stderr, stdout};

/// A cluster of two shards with these leaders.
fn view(leaders: [&Server; 2]) -> String {
    let [zero, one] = leaders.map(|server| server.address);
    format!(
        r#"{{"cluster":"c","profile":"static","hash_function":"fnv1a",
            "nodes":[{{"address":"{zero}","state":"up"}},{{"address":"{one}","state":"up"}}],
            "shards":[{{"name":"Zero","index":0,"leader":"{zero}","replicas":[]}},
                      {{"name":"One","index":1,"leader":"{one}","replicas":[]}}]}}"#
    )
}

fn tell(servers: [&Server; 2], leaders: [&Server; 2]) {
    for server in servers {
        *server.state.cluster.lock().unwrap() = Some(view(leaders));
    }
}

/// The parity of the key's FNV-1a hash: only the lowest bit of each byte matters for it, and the offset basis is odd.
fn shard(path: &str) -> usize {
    let key = path.strip_prefix("/v1/kv/").unwrap();
    usize::from(key.bytes().fold(1, |parity, byte| parity ^ (byte & 1)))
}

fn shards_asked(server: &Server) -> [usize; 2] {
    let asked = server.state.asked.lock().unwrap();
    let mut counts = [0, 0];
    asked.iter().for_each(|path| counts[shard(path)] += 1);
    counts
}

#[test]
fn keys_are_asked_for_at_their_leaders_and_nowhere_else() {
    let (a, b) = (Server::start(Mood::Good), Server::start(Mood::Good));
    tell([&a, &b], [&a, &b]);
    let flags = "--workload a --preload --verify --keys 200 --requests 400 --connections 2 --pipeline 4 --route direct";
    let output = a.bench(&flags.split(' ').collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    let (at_a, at_b) = (shards_asked(&a), shards_asked(&b));
    assert!(at_a[0] > 100 && at_a[1] == 0, "{at_a:?}");
    assert!(at_b[1] > 100 && at_b[0] == 0, "{at_b:?}");
    assert!(stdout(&output).contains("Zero") && stdout(&output).contains("One"), "{}", stdout(&output));
}

#[test]
fn leader_that_changed_is_followed() {
    let (a, b) = (Server::start(Mood::Good), Server::start(Mood::Good));
    tell([&a, &b], [&a, &b]);
    let flags = "--workload set --keys 200 --warmup 0s --duration 10m --connections 2 --route direct";
    let mut bench = command(&a.address.to_string(), &flags.split(' ').collect::<Vec<_>>());
    let child = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while shards_asked(&b)[1] < 10 {
        thread::sleep(Duration::from_millis(10));
    }
    // Shard one is led by the other node now; its old leader forwards.
    tell([&a, &b], [&a, &a]);
    *b.state.extra_header.lock().unwrap() = "KV-Forwarded: b->a\r\n".into();
    while shards_asked(&a)[1] < 10 {
        thread::sleep(Duration::from_millis(10));
    }
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("were forwarded"), "{}", stdout(&output));
}

#[test]
fn direct_without_a_map_is_refused_with_the_remedy() {
    let server = Server::start(Mood::Good);
    let output = server.bench(&["--workload", "set", "--route", "direct"]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(stderr(&output).contains("--route any"), "{}", stderr(&output));
}
