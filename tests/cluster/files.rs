//! Which file a process opens, and which it refuses with words: one that another process holds, one of another shard, one
//! of another layout, one that is none.

use std::time::Duration;

use crate::support::process::Node;
use crate::support::{Cluster, Spec};

/// A refusal comes at once; this is only against hanging for ever on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(30);

/// Runs a process that must refuse to start; gives what it said.
fn refusal(mut node: Node) -> String {
    node.start();
    let status = node.wait_exit(AT_ONCE);
    let log = node.log();
    assert!(!status.success(), "it should have refused:\n{log}");
    assert!(!log.contains("panicked"), "a refusal is no panic:\n{log}");
    log
}

/// Checks that a refusal says one of these words, and names the file.
#[track_caller]
fn says(log: &str, words: &[&str], file: &str) {
    let log = log.to_lowercase();
    // After the first line, which is the command line.
    let said = log.split_once('\n').map_or("", |(_, rest)| rest);
    assert!(words.iter().any(|word| said.contains(word)), "none of {words:?} in:\n{log}");
    assert!(said.contains(&file.to_lowercase()), "{file} is not named in:\n{log}");
}

#[test]
fn second_process_on_the_same_file_is_refused_at_once() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    cluster.put_key(leader, b"k", b"v").expect(201);
    assert!(cluster.stop(replica).success());
    // The replica's address is free; the file is the leader's, which runs.
    let args = cluster.serve_args(replica, &cluster.config_file(), &cluster.db_file(leader));
    let log = refusal(cluster.extra_process("second", args));
    says(&log, &["has the file open"], "Hyderabad-0.redb");
    #[cfg(target_os = "linux")]
    assert!(log.contains(&format!("process {} ", cluster.pid(leader))), "the holder is not named in:\n{log}");
    assert_eq!(cluster.get_key(leader, b"k", "").expect(200).text(), "v");
    cluster.put_key(leader, b"k", b"w").expect(204);
}

#[test]
fn address_in_use_is_refused_at_once_and_harms_nobody() {
    let cluster = Cluster::start(Spec::shards(1));
    let leader = cluster.leader(0);
    let db = cluster.directory().join("elsewhere.redb");
    let log = refusal(cluster.extra_process("second", cluster.serve_args(leader, &cluster.config_file(), &db)));
    says(&log, &["in use"], &cluster.address(leader).to_string());
    cluster.put_key(leader, b"k", b"v").expect(201);
}

#[test]
fn file_of_another_shard_is_refused_and_left_as_it_is() {
    let cluster = Cluster::start(Spec::shards(2));
    let key = cluster.key(0, "files");
    cluster.put_key(cluster.leader(0), key.as_bytes(), b"v").expect(201);
    cluster.stop(cluster.leader(0));
    cluster.stop(cluster.leader(1));
    let args = cluster.serve_args(cluster.leader(1), &cluster.config_file(), &cluster.db_file(cluster.leader(0)));
    let log = refusal(cluster.extra_process("wrong-shard", args));
    says(&log, &["bangalore"], "Hyderabad-0.redb");
    cluster.start_all();
    assert_eq!(cluster.local(cluster.leader(0), key.as_bytes()), Some(b"v".to_vec()));
}

#[test]
fn file_of_another_layout_is_refused_and_left_as_it_is() {
    let cluster = Cluster::start(Spec::shards(2));
    let at = cluster.leader(0);
    let key = cluster.key(0, "layout");
    cluster.put_key(at, key.as_bytes(), b"v").expect(201);
    cluster.stop(at);
    for (name, other, words) in [
        ("count", Spec::shards(1), ["shards", "shard count"]),
        ("hash", Spec::shards(2).hash("fnv1"), ["hash", "fnv1"]),
    ] {
        let config = cluster.directory().join(format!("{name}.toml"));
        std::fs::write(&config, cluster.sharding_toml(&other)).unwrap();
        let log = refusal(cluster.extra_process(name, cluster.serve_args(at, &config, &cluster.db_file(at))));
        says(&log, &words, "Hyderabad-0.redb");
    }
    cluster.restart(at);
    assert_eq!(cluster.local(at, key.as_bytes()), Some(b"v".to_vec()));
}

#[test]
fn file_that_is_no_database_is_refused_and_left_as_it_is() {
    let cluster = Cluster::prepare(Spec::shards(1));
    let at = cluster.leader(0);
    let mine = b"my only copy of something else\n".repeat(1000);
    std::fs::write(cluster.db_file(at), &mine).unwrap();
    cluster.launch(at);
    let status = cluster.wait_exit(at);
    assert!(!status.success());
    says(&cluster.log(at), &["not a", "damaged", "invalid", "corrupt", "format"], "Hyderabad-0.redb");
    assert!(std::fs::read(cluster.db_file(at)).unwrap() == mine, "the file was changed");
}

#[test]
fn address_that_is_nowhere_in_the_file_is_refused() {
    let cluster = Cluster::prepare(Spec::shards(1));
    let at = cluster.leader(0);
    let mut args = cluster.serve_args(at, &cluster.config_file(), &cluster.db_file(at));
    let address = args.iter().position(|arg| *arg == cluster.address(at).to_string()).unwrap();
    args[address] = "127.0.0.9:1".to_owned();
    let log = refusal(cluster.extra_process("nowhere", args));
    says(&log, &["127.0.0.9:1"], "sharding.toml");
    assert!(!cluster.db_file(at).exists(), "nothing is created for a node that is none");
}
