//! `kv replica reset`: an operator throws a replica's copy away, and the replica fetches everything from its leader. The
//! way out when a leader lost what its replicas hold (REPLICATION.md, rule 13); the other way, the replica's file in the
//! leader's place, is here too, for together they are all that an operator can decide.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::problem::refused;
use crate::support::{At, Cluster, Request, Spec, raw, wait};

/// A cluster with some keys in shard 0, converged, whose leader then loses its file. Gives the keys with their versions.
fn bereft(replicas: usize) -> (Cluster, Vec<(String, u64)>) {
    let cluster = Cluster::start(Spec::shards(2).replicas(replicas));
    let write = |n| {
        let key = cluster.key(0, &format!("reset-{n}"));
        let answer =
            cluster.put_key(cluster.leader(1), key.as_bytes(), format!("value of {key}").as_bytes()).expect(201);
        (key, seq_of(answer.must("etag")))
    };
    let keys = (0..40).map(write).collect();
    cluster.wait_converged();
    cluster.kill9(cluster.leader(0));
    cluster.wipe(cluster.leader(0));
    (cluster, keys)
}

/// The position in an `ETag`, `"epoch.seq.incarnation"`.
fn seq_of(etag: &str) -> u64 {
    etag.trim_matches('"').split('.').nth(1).unwrap().parse().unwrap()
}

fn wait_halted(cluster: &Cluster) -> String {
    wait::until("the leader says that it lost data", || {
        let status = raw::send(cluster.address(cluster.leader(0)), &Request::get("/admin/v1/status"));
        let text = status.map(|answer| answer.text()).unwrap_or_default();
        if text.contains("\"halted\"") { Ok(text) } else { Err(text) }
    })
}

fn keys_of(cluster: &Cluster, at: At) -> u64 {
    cluster.status(at)["copies"][0]["keys"].as_u64().unwrap()
}

#[test]
fn replica_reset_lets_a_leader_without_its_data_lead_again_and_converges() {
    let (cluster, keys) = bereft(1);
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    cluster.launch(leader);
    let said = wait_halted(&cluster);
    assert!(said.contains("kv replica reset Hyderabad/1"), "it names the command: {said}");
    refused(&cluster.put_key(leader, keys[0].0.as_bytes(), b"new"), 503, "no-leader");
    let answer = cluster.get_key(replica, keys[0].0.as_bytes(), "consistency=any").expect(200);
    assert_eq!(answer.text(), format!("value of {}", keys[0].0), "the replica keeps its data until told otherwise");

    // Not without its name typed.
    let said = cluster.kv(leader, &["replica", "reset", "Hyderabad/1"], "yes\n");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("holds 40 keys up to seq 40 of Hyderabad; it is "), "{said:?}");
    assert!(said.err.contains("holds 0 keys up to seq 0; it is halted"), "{said:?}");
    assert_eq!(keys_of(&cluster, replica), 40);

    let said = cluster.kv(leader, &["replica", "reset", "Hyderabad/1"], "Hyderabad/1\n");
    assert_eq!(said.code, 0, "{said:?}");
    let expected = "Hyderabad/1 has thrown away 40 keys up to seq 40 and streams again: 0 keys up to seq 0, after ";
    assert!(said.out.starts_with(expected), "{said:?}");
    cluster.wait_ready(leader);
    cluster.wait_ready(replica);
    for (key, _) in &keys {
        assert_eq!(cluster.get_key(cluster.leader(1), key.as_bytes(), "").status, 404, "that data is gone");
    }
    // And the shard works.
    for (key, _) in &keys[..10] {
        cluster.put_key(replica, key.as_bytes(), b"afterwards").expect(201);
    }
    cluster.wait_converged();
    assert_eq!(cluster.local(replica, keys[3].0.as_bytes()), Some(b"afterwards".to_vec()));
    assert_eq!((keys_of(&cluster, leader), keys_of(&cluster, replica)), (10, 10));
    // It stays so over restarts of both.
    for at in [leader, replica] {
        cluster.kill9(at);
        cluster.restart(at);
    }
    cluster.wait_converged();
    assert_eq!(cluster.local(replica, keys[3].0.as_bytes()), Some(b"afterwards".to_vec()));
}

#[test]
fn replica_reset_of_one_of_two_that_hold_the_data_leaves_the_other_to_decide_about() {
    let (cluster, keys) = bereft(2);
    let leader = cluster.leader(0);
    let (first, second) = (At { shard: 0, copy: 1 }, At { shard: 0, copy: 2 });
    cluster.launch(leader);
    let said = wait_halted(&cluster);
    assert!(said.contains("kv replica reset Hyderabad/1; kv replica reset Hyderabad/2"), "{said}");
    let said = cluster.kv(leader, &["replica", "reset", "Hyderabad/1", "--yes", "--wait", "3s"], "");
    assert_eq!(said.code, 1, "its leader still does not lead: {said:?}");
    assert!(said.err.contains("not whole again yet") && said.err.contains("Hyderabad/1: "), "{said:?}");
    refused(&cluster.put_key(leader, keys[0].0.as_bytes(), b"new"), 503, "no-leader");
    assert_eq!((keys_of(&cluster, first), keys_of(&cluster, second)), (0, 40));
    let answer = cluster.get_key(second, keys[0].0.as_bytes(), "consistency=any").expect(200);
    assert_eq!(answer.text(), format!("value of {}", keys[0].0));
    // An empty copy serves nothing: not that the key is missing either.
    let answer = cluster.get_key(first, keys[0].0.as_bytes(), "route=local&consistency=any");
    refused(&answer, 421, "wrong-shard");

    let address = cluster.address(second).to_string();
    let said = cluster.kv(leader, &["replica", "reset", &address, "--yes"], "");
    assert_eq!(said.code, 0, "{said:?}");
    for at in [leader, first, second] {
        cluster.wait_ready(at);
    }
    cluster.put_key(first, keys[0].0.as_bytes(), b"new").expect(201);
    cluster.wait_converged();
}

#[test]
fn replicas_file_in_the_leaders_place_keeps_everything_and_versions_go_on() {
    let (cluster, keys) = bereft(1);
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    cluster.launch(leader);
    wait_halted(&cluster);
    assert!(cluster.stop(leader).success());
    assert!(cluster.stop(replica).success());
    std::fs::copy(cluster.db_file(replica), cluster.db_file(leader)).unwrap();
    cluster.restart(leader);
    cluster.restart(replica);
    let before = keys.iter().map(|(_, seq)| *seq).max().unwrap();
    for (key, seq) in &keys {
        let answer = cluster.get_key(cluster.leader(1), key.as_bytes(), "").expect(200);
        assert_eq!((answer.text(), seq_of(answer.must("etag"))), (format!("value of {key}"), *seq));
    }
    let answer = cluster.put_key(cluster.leader(1), keys[0].0.as_bytes(), b"new").expect(204);
    assert!(seq_of(answer.must("etag")) > before, "{answer:?}");
    cluster.wait_converged(); // with its old copy: the shard's uid is what it was
    assert_eq!(cluster.local(replica, keys[0].0.as_bytes()), Some(b"new".to_vec()));
    assert_eq!(cluster.local(replica, keys[1].0.as_bytes()), Some(format!("value of {}", keys[1].0).into_bytes()));
    assert!(!cluster.log(replica).contains("received a snapshot"), "nothing had to be fetched anew");
}

#[test]
fn healthy_replica_reset_under_writes_is_whole_again_from_log_or_snapshot() {
    // A short log: after the first rounds it no longer reaches back to the beginning.
    let cluster = Cluster::start(Spec::shards(1).replicas(1).config("[replication]\nlog_retain_bytes = 65536\n"));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    let done = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0;
            while !done.load(Ordering::SeqCst) {
                let answer = cluster.put_key(leader, format!("k{written}").as_bytes(), &[0xff; 500]);
                assert_eq!(answer.status, 201, "{answer:?}");
                written += 1;
            }
            written
        });
        let resets = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..3 {
                std::thread::sleep(std::time::Duration::from_millis(300));
                let said = cluster.kv(replica, &["replica", "reset", "Hyderabad/1", "--yes", "-o", "json"], "");
                assert_eq!(said.code, 0, "{said:?}");
                let said: serde_json::Value = serde_json::from_str(&said.out).unwrap();
                assert_eq!(
                    (&said["discarded"]["node"], &said["copy"]["state"]),
                    (&"Hyderabad/1".into(), &"streaming".into())
                );
            }
        }));
        done.store(true, Ordering::SeqCst);
        let written = writer.join().unwrap();
        resets.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written
    });
    cluster.wait_converged();
    for n in (0..written).step_by(7) {
        assert_eq!(cluster.local(replica, format!("k{n}").as_bytes()), Some(vec![0xff; 500]), "k{n} of {written}");
    }
    assert_eq!(keys_of(&cluster, replica), u64::try_from(written).unwrap());
    let names = std::fs::read_dir(cluster.directory()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().contains("incoming")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn reset_of_a_leader_or_at_another_node_is_refused() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    cluster.put_key(leader, b"k", b"v").expect(201);
    let post = |at, node: &str| cluster.send(at, &Request::new("POST", format!("/admin/v1/replica/reset?node={node}")));
    refused(&post(leader, "Hyderabad/0"), 409, "operation-conflict");
    let body = refused(&post(leader, "Hyderabad/1"), 421, "wrong-node");
    assert_eq!(body["address"], cluster.address(replica).to_string());
    let said = cluster.kv(replica, &["replica", "reset", "Hyderabad/0", "--yes", "--force"], "");
    assert_eq!(said.code, 2, "{said:?}");
    // Without its leader it may be the last copy.
    cluster.wait_converged();
    cluster.kill9(leader);
    let said = cluster.kv(replica, &["replica", "reset", "Hyderabad/1", "--yes"], "");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("this may be the last copy") && said.err.contains("--force"), "{said:?}");
    assert_eq!(cluster.local(replica, b"k"), Some(b"v".to_vec()));
}
