//! A leader dies with writes that no replica has, another copy takes over, and the old leader comes back (REPLICATION.md,
//! rule 21): what was lost is listed, exactly and once, for anybody who asks any node; the copy serves what the shard's
//! leader has; and each acknowledged write can be asked after.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::RngExt;
use serde_json::Value;

use crate::led::{copy, wait_answers, wait_followed, wait_leads};
use crate::support::encode::{base64url, percent};
use crate::support::process::Said;
use crate::support::{At, Cluster, Spec, wait};

const A: At = At { shard: 0, copy: 0 };

/// A write that the old leader acknowledged.
#[derive(Debug, Clone)]
struct Write {
    key: Vec<u8>,
    /// None: a delete.
    value: Option<Vec<u8>>,
    version: String,
}

impl Write {
    fn seq(&self) -> u64 {
        self.version.split('.').nth(1).unwrap().parse().unwrap()
    }
}

fn put(cluster: &Cluster, at: At, key: &[u8], value: &[u8]) -> Write {
    let answer = cluster.put_key(at, key, value);
    assert!(matches!(answer.status, 201 | 204), "{answer:?}");
    Write { key: key.to_vec(), value: Some(value.to_vec()), version: etag(&answer) }
}

fn delete(cluster: &Cluster, at: At, key: &[u8]) -> Write {
    let answer = cluster.delete_key(at, key).expect(204);
    Write { key: key.to_vec(), value: None, version: etag(&answer) }
}

fn etag(answer: &crate::support::raw::Response) -> String {
    answer.must("etag").trim_matches('"').to_owned()
}

/// The shard's replicas stand still while `writes` go to its leader, which is killed then; a replica takes over. Returns who
/// leads, and what that one does not have.
fn lose(cluster: &Cluster, writes: impl FnOnce() -> Vec<Write>) -> (At, Vec<Write>) {
    let replicas: Vec<At> = cluster.all().filter(|at| at.shard == 0 && *at != A).collect();
    replicas.iter().for_each(|at| cluster.sigstop(*at));
    let written = writes();
    cluster.kill9(A);
    replicas.iter().for_each(|at| cluster.sigcont(*at));
    replicas.iter().for_each(|at| wait_answers(cluster, *at));
    let through = cluster.leader(1);
    let taken = wait::until("a replica takes over", || {
        let said = cluster.kv(through, &["shard", "takeover", "Hyderabad", "--yes", "-o", "json"], "");
        if said.code == 0 { Ok(serde_json::from_str::<Value>(&said.out).unwrap()) } else { Err(said) }
    });
    let (name, end) = (taken["taken_over"]["leader"].as_str().unwrap(), taken["taken_over"]["end"].as_u64().unwrap());
    let leader = *replicas.iter().find(|at| cluster.node_name(**at) == name).unwrap();
    wait_leads(cluster, leader);
    // What a replica's kernel had taken for it while it stood still is there, and not lost.
    let lost: Vec<Write> = written.into_iter().filter(|write| write.seq() > end).collect();
    assert!(!lost.is_empty(), "the test has to lose something");
    (leader, lost)
}

fn listed(said: &Said) -> Vec<Value> {
    said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn lost_writes(cluster: &Cluster, through: At) -> Said {
    cluster.kv(through, &["shard", "lost-writes", "Hyderabad"], "")
}

/// A line holds what a write was, in the form that an import takes.
fn assert_lists(lines: &[Value], lost: &[Write]) {
    let by_version: BTreeMap<&str, &Value> =
        lines.iter().map(|line| (line["version"].as_str().unwrap(), line)).collect();
    assert_eq!((by_version.len(), lines.len()), (lost.len(), lost.len()), "each once, and no others");
    for Write { key, value, version } in lost {
        let line = by_version.get(version.as_str()).unwrap_or_else(|| panic!("{version} is not listed: {lines:#?}"));
        let field = |name: &str, bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(text) => assert_eq!(line[name], text),
            Err(_) => assert_eq!(line[format!("{name}_b64")], base64url(bytes)),
        };
        field("key", key);
        match value {
            Some(value) => field("value", value),
            None => assert!(line.get("value").is_none() && line.get("value_b64").is_none()),
        }
        assert_eq!(line["op"], if value.is_some() { "put" } else { "delete" });
        assert_eq!(
            (&line["complete"], &line["epoch"], &line["node"]),
            (&true.into(), &1.into(), &"Hyderabad/0".into())
        );
        assert!(line["time"].as_u64().unwrap() > 1_600_000_000_000, "{line}");
    }
}

fn receipt(cluster: &Cluster, through: At, key: &[u8], version: &str) -> Value {
    let target = match std::str::from_utf8(key) {
        Ok(_) => format!("/v1/receipt?key={}&version=%22{version}%22", percent(key)),
        Err(_) => format!("/v1/receipt?key_b64={}&version={version}", base64url(key)),
    };
    cluster.get(through, target).expect(200).json()
}

#[test]
fn old_leader_comes_back_and_what_it_alone_had_is_listed_and_gone() {
    let cluster = Cluster::start(Spec::shards(2).replicas(2));
    let stranger = cluster.leader(1);
    let key = |stem: &str| cluster.key(0, stem).into_bytes();
    let binary = (0..=255_u8).map(|n| vec![0xff, n, 0]).find(|key| cluster.shard_of(key) == 0).unwrap();
    let kept = put(&cluster, A, &key("kept"), b"common");
    let over = put(&cluster, A, &key("over"), b"common");
    let gone = put(&cluster, A, &key("gone"), b"common");
    cluster.wait_converged();
    let (leader, lost) = lose(&cluster, || {
        let mut writes: Vec<Write> =
            (0..150).map(|n| put(&cluster, A, &key(&format!("new-{n}")), format!("lost {n}").as_bytes())).collect();
        writes.push(put(&cluster, A, &over.key, b"lost"));
        writes.push(put(&cluster, A, &binary, b"\x00\xff lost"));
        writes.push(delete(&cluster, A, &gone.key));
        writes
    });
    assert!(lost.len() >= 3 && lost.last().unwrap().value.is_none());
    let after = put(&cluster, stranger, &over.key, b"by the new leader");

    // The leader can tell by its history, before the old one is back; its ledger cannot be asked.
    let said = receipt(&cluster, stranger, &lost.last().unwrap().key, &lost.last().unwrap().version);
    assert_eq!((&said["answer"], &said["ledgers"]), (&"lost".into(), &serde_json::json!([])), "{said:#}");
    assert_eq!(said["silent"][0]["node"], "Hyderabad/0", "{said:#}");
    let said = lost_writes(&cluster, stranger);
    assert_eq!((said.code, said.out.as_str()), (5, ""), "{said:?}");
    assert!(said.err.contains("Hyderabad/0: its ledger could not be read"), "{said:?}");

    // Once it knows that it left the history, none of it is served any more.
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut knows, mut seen) = (false, 0_u32);
            while !is_over.load(Ordering::SeqCst) {
                let target = format!("{}&route=local&consistency=any", crate::support::cluster::kv_target(&over.key));
                let Ok(answer) =
                    crate::support::raw::send(cluster.address(A), &crate::support::raw::Request::get(target))
                else {
                    continue;
                };
                let is_lost = answer.status == 200 && answer.body == b"lost";
                assert!(!(knows && is_lost), "a lost write is served again");
                knows |= !is_lost;
                seen += 1;
            }
            (knows, seen)
        });
        cluster.launch(A);
        wait_answers(&cluster, A);
        wait_leads(&cluster, leader);
        wait_followed(&cluster, leader);
        is_over.store(true, Ordering::SeqCst);
        let (knows, seen) = reader.join().unwrap();
        assert!(knows, "{seen} reads");
    });

    for through in [stranger, A, leader] {
        let said = lost_writes(&cluster, through);
        assert_eq!(said.code, 0, "{said:?}");
        assert_lists(&listed(&said), &lost);
        assert!(said.err.contains(&format!("Hyderabad/0: {} lost writes", lost.len())), "{said:?}");
    }
    let answer = cluster.get(stranger, "/admin/v1/shards/Hyderabad/lost-writes").expect(200);
    assert_eq!(answer.must("content-type"), "application/x-ndjson");
    let end: Value = serde_json::from_str(answer.text().lines().last().unwrap()).unwrap();
    assert_eq!((&end["done"], &end["writes"]), (&true.into(), &lost.len().into()), "{end:#}");

    // What it holds is what the leader holds, and the common past is there.
    for write in &lost {
        let theirs = cluster.get_key(leader, &write.key, "");
        let theirs = (theirs.status == 200).then_some(theirs.body);
        assert_eq!(cluster.local(A, &write.key), theirs, "{}", percent(&write.key));
    }
    assert_eq!(cluster.local(A, &kept.key).as_deref(), Some(&b"common"[..]));
    assert_eq!(cluster.local(A, &gone.key).as_deref(), Some(&b"common"[..]));
    cluster.get(A, "/readyz").expect(200);
    assert_eq!(
        cluster.get(A, "/metrics").text().lines().filter(|line| line.starts_with("ostraca_lost_writes{")).count(),
        1
    );

    for write in &lost {
        let said = receipt(&cluster, A, &write.key, &write.version);
        assert_eq!((&said["answer"], &said["ledgers"][0]), (&"lost".into(), &"Hyderabad/0".into()), "{said:#}");
    }
    for (write, answer) in [(&kept, "yes"), (&over, "superseded"), (&after, "yes")] {
        assert_eq!(receipt(&cluster, stranger, &write.key, &write.version)["answer"], answer, "{write:?}");
    }
    assert_eq!(receipt(&cluster, stranger, &kept.key, "9.9.0000000000000009")["answer"], "unknown");
    cluster.get(stranger, "/v1/receipt?key=a&version=later").expect(400);

    // The list is a thing to be done, until it is moved away.
    let said = cluster.kv(stranger, &["status"], "");
    let count = format!("Hyderabad/0 lists {} lost writes", lost.len());
    assert!(
        said.code == 1 && said.out.contains(&count) && said.out.contains("kv shard lost-writes Hyderabad"),
        "{said:?}"
    );
    let file = format!("{}.ledger", cluster.db_file(A).display());
    cluster.kill9(A);
    cluster.restart(A);
    assert_lists(&listed(&lost_writes(&cluster, stranger)), &lost);
    std::fs::rename(&file, cluster.directory().join("taken away")).unwrap();
    let said = lost_writes(&cluster, stranger);
    assert_eq!((said.code, said.out.as_str()), (0, ""), "{said:?}");
    wait_followed(&cluster, leader);
    wait::until("all is well", || {
        let said = cluster.kv(stranger, &["status"], "");
        if said.code == 0 { Ok(()) } else { Err(said) }
    });
}

/// Killed at any moment of its return, it begins anew, and nothing is listed twice or left out.
#[test]
fn old_leader_killed_again_and_again_on_its_way_back_lists_everything_once() {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    put(&cluster, A, cluster.key(0, "kept").as_bytes(), b"common");
    cluster.wait_converged();
    let value = vec![b'v'; 3000];
    let (leader, lost) = lose(&cluster, || {
        (0..600).map(|n| put(&cluster, A, cluster.key(0, &format!("k{}", n % 400)).as_bytes(), &value)).collect()
    });
    let mut dice = rand::rng();
    for _ in 0..wait::rounds(6) {
        cluster.launch(A);
        wait_answers(&cluster, A);
        std::thread::sleep(Duration::from_millis(dice.random_range(0..60)));
        cluster.kill9(A);
    }
    cluster.launch(A);
    wait_answers(&cluster, A);
    wait_followed(&cluster, leader);
    let said = lost_writes(&cluster, cluster.leader(1));
    assert_eq!(said.code, 0, "{said:?}");
    assert_lists(&listed(&said), &lost);
    for write in &lost {
        let theirs = cluster.get_key(leader, &write.key, "");
        assert_eq!(cluster.local(A, &write.key), (theirs.status == 200).then_some(theirs.body));
    }
}

#[test]
fn old_leader_whose_ledger_is_full_stays_off_history_and_says_what_to_do() {
    let spec = Spec::shards(2).replicas(1);
    let small = spec.clone().config("[storage]\nledger_bytes_max = 65536\n");
    let cluster = Cluster::start(small);
    put(&cluster, A, cluster.key(0, "kept").as_bytes(), b"common");
    cluster.wait_converged();
    let value = vec![b'v'; 2000];
    let (leader, lost) = lose(&cluster, || {
        (0..200).map(|n| put(&cluster, A, cluster.key(0, &format!("k{n}")).as_bytes(), &value)).collect()
    });
    assert!(lost.len() > 60, "more than the ledger holds: {}", lost.len());
    cluster.launch(A);
    wait_answers(&cluster, A);
    wait::until("it says that it cannot come back", || {
        let (role, state, _) = copy(&cluster, A);
        if (role.as_str(), state.as_str()) == ("replica", "off-history") { Ok(()) } else { Err((role, state)) }
    });
    for _ in 0..500 {
        assert_eq!(copy(&cluster, A).1, "off-history", "it tries again and again, and says the same");
    }
    let said = cluster.kv(leader, &["status"], "");
    assert!(
        said.out.contains("storage.ledger_bytes_max") && said.out.contains("kv shard lost-writes Hyderabad"),
        "{said:?}"
    );
    let ready = cluster.get(A, "/readyz");
    assert!(ready.status == 503 && ready.text().contains("off-history"), "{ready:?}");
    let local = cluster.get_key(A, &lost[0].key, "route=local&consistency=any");
    assert_ne!(local.status, 200, "{local:?}");
    cluster.put_key(A, &lost[0].key, b"through it").expect(201);

    // Room is made, and it comes back by itself.
    cluster.kill9(A);
    std::fs::write(cluster.config_file(), cluster.sharding_toml(&spec)).unwrap();
    cluster.launch(A);
    wait_answers(&cluster, A);
    wait_followed(&cluster, leader);
    assert_lists(&listed(&lost_writes(&cluster, leader)), &lost);
    assert_eq!(cluster.local(A, &lost[0].key).as_deref(), Some(&b"through it"[..]));
}

/// Most of what was lost has left the log: what its records still show is listed, and the list says that it is not all.
#[test]
fn old_leader_whose_log_was_trimmed_lists_what_is_left_and_takes_a_snapshot() {
    let tables = "[replication]\nlog_retain_bytes = 4096\nqueue_entries_max = 100\n";
    let cluster = Cluster::start(Spec::shards(2).replicas(1).config(tables));
    put(&cluster, A, cluster.key(0, "kept").as_bytes(), b"common");
    cluster.wait_converged();
    let value = vec![b'v'; 500];
    let (leader, lost) = lose(&cluster, || {
        let writes: Vec<Write> =
            (0..900).map(|n| put(&cluster, A, cluster.key(0, &format!("k{}", n % 300)).as_bytes(), &value)).collect();
        wait::until("the leader has given up on its replica", || {
            let given_up = cluster.log(A).contains("gave up on a replica");
            if given_up { Ok(()) } else { Err("not yet") }
        });
        std::thread::sleep(Duration::from_secs(2)); // an idle log is trimmed in steps
        writes
    });
    cluster.launch(A);
    wait_answers(&cluster, A);
    wait_followed(&cluster, leader);
    let said = lost_writes(&cluster, leader);
    let lines = listed(&said);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(lines.len() >= 300 && lines.len() < lost.len(), "{} of {}", lines.len(), lost.len());
    let versions: std::collections::BTreeSet<&str> =
        lines.iter().map(|line| line["version"].as_str().unwrap()).collect();
    assert_eq!(versions.len(), lines.len(), "nothing twice");
    for line in &lines {
        assert_eq!((&line["complete"], &line["lost_at_most"]), (&false.into(), &lost.len().into()), "{line}");
    }
    // What keys held last is all there.
    for write in &lost[lost.len() - 300..] {
        assert!(versions.contains(write.version.as_str()), "{}", write.version);
        assert_eq!(receipt(&cluster, leader, &write.key, &write.version)["answer"], "lost");
    }
    assert_eq!(cluster.local(A, cluster.key(0, "kept").as_bytes()).as_deref(), Some(&b"common"[..]));
    assert_eq!(cluster.local(A, &lost[0].key), None);
}
