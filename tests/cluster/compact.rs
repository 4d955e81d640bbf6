//! `kv compact FILE` gives space back: not while a node has the file, and without changing what it holds.

use crate::support::process::kv;
use crate::support::{Cluster, Spec};

#[test]
fn compact_is_refused_while_the_node_runs_and_gives_space_back_when_it_is_stopped() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1).config("[replication]\nlog_retain_bytes = 0\n"));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    for n in 0..200 {
        cluster.put_key(leader, format!("k{n}").as_bytes(), &vec![7; 40_000]).expect(201);
    }
    cluster.wait_converged();
    assert!(cluster.stop(replica).success()); // which brings into the file what stood before it in the log
    cluster.restart(replica);
    for n in 0..190 {
        cluster.delete_key(leader, format!("k{n}").as_bytes()).expect(204);
    }
    cluster.wait_converged();
    let file = cluster.db_file(replica).display().to_string();

    let said = kv(&["compact", &file], "");
    assert_eq!(said.code, 1, "{said:?}");
    if cfg!(target_os = "linux") {
        let pid = cluster.pid(replica);
        assert!(said.err.contains(&format!("process {pid} has the file open")), "{said:?}");
    }
    assert!(said.err.contains("stop the node"), "{said:?}");

    assert!(cluster.stop(replica).success());
    let before = std::fs::metadata(&file).unwrap().len();
    let said = kv(&["compact", &file], "");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("shard Hyderabad (index 0 of 1), 10 keys, log up to seq 390"), "{said:?}");
    let after = std::fs::metadata(&file).unwrap().len();
    assert!(after * 4 < before, "{before} bytes became {after}: {said:?}");
    assert!(said.out.contains(&format!("{before} bytes")) && said.out.contains(&format!("{after} bytes")), "{said:?}");

    cluster.restart(replica);
    cluster.put_key(leader, b"afterwards", b"v").expect(201);
    cluster.wait_converged();
    assert_eq!(cluster.local(replica, b"k195"), Some(vec![7; 40_000]));
    assert_eq!(cluster.kv(leader, &["shard", "checksum", "Hyderabad"], "").code, 0);
}

#[test]
fn compact_of_what_is_not_ours_is_refused_and_leaves_it_alone() {
    let cluster = Cluster::prepare(Spec::shards(1));
    let file = cluster.directory().join("mine");
    std::fs::write(&file, b"my only copy of something else\n").unwrap();
    let said = kv(&["compact", &file.display().to_string()], "");
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(std::fs::read(&file).unwrap(), b"my only copy of something else\n");
    let none = cluster.directory().join("none");
    assert_eq!(kv(&["compact", &none.display().to_string()], "").code, 1);
    assert!(!none.exists());
}
