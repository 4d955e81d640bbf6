//! Two nodes with different copies of `sharding.toml`: when the placement differs they refuse each other's calls, both
//! say so, and each goes on serving its own keys.

use crate::support::problem::{problem, refused, well_formed};
use crate::support::{At, Cluster, Spec, wait};

/// Restarts a node of a running cluster with another configuration.
fn restart_with(cluster: &Cluster, at: At, other: &Spec) -> crate::support::process::Node {
    let config = cluster.directory().join("other.toml");
    std::fs::write(&config, cluster.sharding_toml(other)).unwrap();
    assert!(cluster.stop(at).success());
    // A copy of another layout cannot go on with the old file: it gets one of its own.
    let db = cluster.directory().join("other.redb");
    let mut node = cluster.extra_process("other", cluster.serve_args(at, &config, &db));
    node.start();
    node
}

#[test]
fn nodes_with_different_shard_counts_refuse_each_other() {
    let cluster = Cluster::start(Spec::shards(3));
    let (first, second) = (cluster.leader(0), cluster.leader(1));
    // The second node believes in two shards.
    let mut node = restart_with(&cluster, second, &Spec::shards(2));
    cluster.wait_ready_at(cluster.address(second), &mut node);

    // By the first node's placement this key is the second's; by the second's, its own or the first's.
    let by_three = (0..).map(|n| format!("drift-{n}")).find(|key| cluster.shard_of(key.as_bytes()) == 1).unwrap();
    for (method, applied) in [("PUT", "no"), ("GET", "no"), ("DELETE", "no")] {
        let request = crate::support::Request::new(method, format!("/v1/kv/{by_three}")).body("v");
        problem(&cluster.send(first, &request), 421, "topology-mismatch", applied);
    }
    let shard_of_two = |key: &String| crate::support::fnv::shard_of(key.as_bytes(), 2);
    let by_two = (0..).map(|n| format!("drift-{n}")).find(|key| shard_of_two(key) == 0).unwrap();
    refused(&cluster.put_key(second, by_two.as_bytes(), b"v"), 421, "topology-mismatch");

    // Own keys are served by both.
    let own = cluster.key(0, "own");
    cluster.put_key(first, own.as_bytes(), b"v").expect(201);
    let own_by_two = (0..).map(|n| format!("drift-{n}")).find(|key| shard_of_two(key) == 1).unwrap();
    cluster.put_key(second, own_by_two.as_bytes(), b"v").expect(201);
    // Two nodes that agree still talk.
    let third = cluster.key(2, "agree");
    cluster.put_key(first, third.as_bytes(), b"v").expect(201);

    for at in [first, second] {
        wait::until("the node says that its neighbour disagrees", || {
            let status = cluster.status(at);
            let problems = status["problems"].to_string().to_lowercase();
            if problems.contains("placement") || problems.contains("topology") { Ok(()) } else { Err(status) }
        });
    }
    for log in [cluster.log(first), node.log()] {
        let log = log.to_lowercase();
        assert!(log.contains("placement") || log.contains("topology"), "both say so loudly:\n{log}");
    }
}

#[test]
fn replica_with_another_placement_gets_nothing_and_takes_nothing() {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    let key = cluster.key(0, "drift-replica");
    cluster.put_key(leader, key.as_bytes(), b"v").expect(201);
    let mut node = restart_with(&cluster, replica, &Spec::shards(2).replicas(1).hash("fnv1"));
    wait::until("the replica is refused and says so", || {
        assert!(node.is_running(), "{}", node.log());
        let status =
            crate::support::raw::send(cluster.address(replica), &crate::support::Request::get("/admin/v1/status"));
        match status {
            Ok(answer) if answer.json()["problems"].to_string().to_lowercase().contains("placement") => Ok(()),
            Ok(answer) => Err(answer.text()),
            Err(error) => Err(error.to_string()),
        }
    });
    cluster.put_key(leader, key.as_bytes(), b"w").expect(204);
    let answer = cluster.get(replica, "/readyz");
    assert_eq!(answer.status, 503, "it has had no full copy: {answer:?}");
}

#[test]
fn second_hop_is_refused_and_nothing_is_applied() {
    // To the first node the second leads its shard; the second's own file makes it a replica of a node that is elsewhere.
    let cluster = Cluster::start(Spec::shards(3));
    let (first, second, third) = (cluster.leader(0), cluster.leader(1), cluster.leader(2));
    let (here, there) = (cluster.address(second).to_string(), cluster.address(third).to_string());
    let text = cluster.sharding_toml(&Spec::shards(3));
    let text = text.replace(&format!("\"{there}\""), "\"127.0.0.9:9\"");
    let text = text.replace(&format!("\"{here}\"\nreplicas = []"), &format!("\"{there}\"\nreplicas = [\"{here}\"]"));
    let config = cluster.directory().join("other.toml");
    std::fs::write(&config, text).unwrap();
    assert!(cluster.stop(second).success());
    let mut node =
        cluster.extra_process("other", cluster.serve_args(second, &config, &cluster.directory().join("other.redb")));
    node.start();
    wait::until("the second node answers", || {
        assert!(node.is_running(), "{}", node.log());
        crate::support::raw::send(cluster.address(second), &crate::support::Request::get("/livez"))
    });
    let key = cluster.key(1, "second-hop");
    for _ in 0..5 {
        let answer = cluster.put_key(first, key.as_bytes(), b"v");
        let body = well_formed(&answer);
        assert_eq!(body["applied"], "no", "{answer:?}");
        assert!(matches!(answer.status, 421 | 502 | 503 | 508), "{answer:?}");
    }
    for at in [first, third] {
        cluster.get(at, "/readyz").expect(200);
    }
}

#[test]
fn different_addresses_only_warn() {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    let (first, second) = (cluster.leader(0), cluster.leader(1));
    // The second node's file knows no replicas, and so other addresses, but the same placement.
    let text = cluster.sharding_toml(&Spec::shards(2).replicas(1));
    let without: String =
        text.lines().filter(|line| !line.starts_with("replicas")).map(|line| format!("{line}\n")).collect();
    let config = cluster.directory().join("other.toml");
    std::fs::write(&config, without).unwrap();
    assert!(cluster.stop(second).success());
    let mut node = cluster.extra_process("other", cluster.serve_args(second, &config, &cluster.db_file(second)));
    node.start();
    cluster.wait_ready_at(cluster.address(second), &mut node);
    for (at, shard) in [(first, 1), (second, 0)] {
        let key = cluster.key(shard, "warn");
        cluster.put_key(at, key.as_bytes(), b"v").expect(201);
        assert_eq!(cluster.get_key(at, key.as_bytes(), "").expect(200).text(), "v");
    }
}
