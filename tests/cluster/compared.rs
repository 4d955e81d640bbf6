//! `kv shard checksum` compares the copies of a shard while they are in use: writes in flight are no difference, and a
//! record that was changed behind the store's back is one, named with its range and its copy.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Database, ReadableTable, TableDefinition};

use crate::support::{At, Cluster, Spec};

const DATA: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("data");

/// Changes the last byte of a record's value in a stopped node's file.
fn tamper(file: &Path, key: &[u8]) {
    let txn = Database::open(file).unwrap().begin_write().unwrap();
    {
        let mut data = txn.open_table(DATA).unwrap();
        let mut record = data.get(key).unwrap().expect("the key is there").value().to_vec();
        *record.last_mut().unwrap() ^= 1;
        data.insert(key, &record[..]).unwrap();
    }
    txn.commit().unwrap();
}

#[test]
fn checksum_under_writes_finds_copies_the_same() {
    let cluster = Cluster::start(Spec::shards(1).replicas(2));
    let leader = cluster.leader(0);
    for n in 0..700 {
        cluster.put_key(leader, format!("k{n:05}").as_bytes(), &[0xff; 5000]).expect(201); // several ranges
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in (0_u64..).take_while(|_| !done.load(Ordering::SeqCst)) {
                let key = format!("k{:05}", n * 7919 % 1000);
                if n % 5 == 0 {
                    cluster.delete_key(leader, key.as_bytes()).expect(204);
                } else {
                    cluster.put_key(leader, key.as_bytes(), n.to_string().as_bytes());
                }
            }
        });
        let compared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..3 {
                same_or_busy(&cluster, leader);
            }
        }));
        done.store(true, Ordering::SeqCst);
        compared.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let said = cluster.kv(leader, &["shard", "checksum", "Hyderabad"], "");
    assert!(said.code == 0 && said.out.starts_with("Hyderabad: all 3 copies hold the same\n"), "{said:?}");
}

/// Compares. Under writes all are the same, or, where the machine is slow enough, some single keys were never seen at rest.
fn same_or_busy(cluster: &Cluster, through: At) {
    let said = cluster.kv(through, &["shard", "checksum", "Hyderabad", "-o", "json"], "");
    assert!(said.code == 0 || said.code == 5, "{said:?}");
    let found: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    for copy in found["copies"].as_array().unwrap() {
        assert!(copy["verdict"] == "same" || copy["verdict"] == "busy", "{said:?}");
        let records = |range: &serde_json::Value| range["leader"]["records"].as_u64().unwrap();
        assert!(copy["busy"].as_array().unwrap().iter().all(|range| records(range) <= 1), "single keys: {said:?}");
    }
}

/// The answer to a key that is never at rest is that it was not compared, and which one it is; never that copies differ.
#[test]
fn checksum_of_a_key_that_several_write_without_a_pause_finds_no_difference() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1));
    let leader = cluster.leader(0);
    for n in 0..100 {
        cluster.put_key(leader, format!("k{n:05}").as_bytes(), b"at rest").expect(201);
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (cluster, done) = (&cluster, &done);
            scope.spawn(move || {
                for n in (0_u64..).take_while(|_| !done.load(Ordering::SeqCst)) {
                    cluster.put_key(leader, b"k00050", format!("{writer}-{n}").as_bytes()).expect(204);
                }
            });
        }
        let compared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| same_or_busy(&cluster, leader)));
        done.store(true, Ordering::SeqCst);
        compared.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn checksum_names_the_range_of_a_record_that_was_tampered_with_and_a_reset_heals() {
    let cluster = Cluster::start(Spec::shards(2).replicas(2));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    let keys: Vec<String> = (0..300).map(|n| cluster.key(0, &format!("tampered-{n:03}"))).collect();
    for key in &keys {
        cluster.put_key(leader, key.as_bytes(), b"\x00 value").expect(201);
    }
    cluster.wait_converged();
    assert!(cluster.stop(replica).success());
    tamper(&cluster.db_file(replica), keys[123].as_bytes());
    cluster.restart(replica);

    let said = cluster.kv(cluster.leader(1), &["shard", "checksum", "Hyderabad"], "");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.starts_with("Hyderabad: copies DIFFER\n"), "{said:?}");
    let row = |at| {
        let address = cluster.address(at).to_string();
        said.out.lines().find(|line| line.starts_with(&address)).unwrap().to_owned()
    };
    assert!(row(leader).ends_with("leader, 300 records up to seq 300"), "{said:?}");
    assert!(row(replica).ends_with("differs in 1 range"), "{said:?}");
    assert!(row(At { shard: 0, copy: 2 }).ends_with("the same"), "{said:?}");
    assert!(said.out.contains("kv replica reset Hyderabad/1"), "{said:?}");

    let said = cluster.kv(leader, &["shard", "checksum", "Hyderabad", "-o", "json"], "");
    let found: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let range = &found["copies"][0]["differs"][0];
    let (after, until) = (range["after_b64"].as_str(), range["until_b64"].as_str());
    let tampered = crate::support::encode::base64url(keys[123].as_bytes());
    let decode = |b64: &str| keys.iter().find(|key| crate::support::encode::base64url(key.as_bytes()) == b64).cloned();
    let is_behind = after.and_then(decode).is_none_or(|after| after < keys[123]);
    let is_within = until.and_then(decode).is_none_or(|until| until >= keys[123]);
    assert!(is_behind && is_within, "{tampered} is in {range}");
    assert!(range["leader"]["records"].as_u64().unwrap() <= 16, "small enough to look at: {range}");
    assert_eq!(range["leader"]["records"], range["copy"]["records"]);

    assert_eq!(cluster.kv(leader, &["replica", "reset", "Hyderabad/1", "--yes"], "").code, 0);
    cluster.wait_converged();
    let said = cluster.kv(leader, &["shard", "checksum", "Hyderabad"], "");
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn checksum_without_a_copy_or_a_leader_says_what_was_not_compared() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    cluster.put_key(leader, b"k", b"v").expect(201);
    cluster.wait_converged();
    cluster.kill9(replica);
    let said = cluster.kv(leader, &["shard", "checksum", "Hyderabad"], "");
    assert_eq!(said.code, 5, "{said:?}");
    assert!(said.out.contains("not compared to its end"), "{said:?}");
    let said = cluster.kv(leader, &["shard", "checksum", "Hydrabad"], "");
    assert_eq!((said.code, said.err.contains("its shards are Hyderabad")), (2, true), "{said:?}");
    cluster.restart(replica);
    cluster.kill9(leader);
    let said = cluster.kv(replica, &["shard", "checksum", "Hyderabad"], "");
    assert_eq!(said.code, 5, "{said:?}");
    assert!(said.err.contains("the leader's copy of Hyderabad cannot be read"), "{said:?}");
}
