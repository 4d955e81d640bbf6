//! A replica is added to a running cluster: it is written into the file, started, and the other nodes are restarted one by
//! one. Nobody who writes notices more than the restart of the one node that leads the key's shard.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::outcome::{Outcome, Tracked};
use crate::support::{At, Cluster, Request, Spec, raw, wait};

/// Nobody is away.
const NOBODY: usize = usize::MAX;

/// Writes to keys of one shard, through the leader of the other, until told to end. A refusal is only right while the
/// leader of the shard, or the node that was asked, is away, or was a moment ago.
fn write(
    cluster: &Cluster,
    shard: usize,
    away: &AtomicUsize,
    done: &AtomicBool,
) -> (Vec<Tracked>, BTreeMap<usize, usize>) {
    let (leader, through) = (cluster.leader(shard), cluster.leader(1 - shard));
    let mut keys = Vec::new();
    let mut refusals: BTreeMap<usize, usize> = BTreeMap::new();
    for n in 0.. {
        if done.load(Ordering::SeqCst) {
            break;
        }
        let mut tracked = Tracked::new(cluster.key(shard, &format!("grows-{shard}-{n}")).into_bytes());
        let before = away.load(Ordering::SeqCst);
        let outcome = tracked.write(cluster, through, Some(format!("{n}").into_bytes()));
        let after = away.load(Ordering::SeqCst);
        if outcome != Outcome::Acknowledged {
            let excused = [number(leader), number(through)];
            assert!(
                excused.contains(&before) || excused.contains(&after),
                "{outcome:?} while {before} to {after} was away"
            );
            *refusals.entry(after).or_default() += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        keys.push(tracked);
    }
    (keys, refusals)
}

fn number(at: At) -> usize {
    at.shard * 10 + at.copy
}

/// Restarts a node, and says meanwhile that it is away.
fn restart(cluster: &Cluster, at: At, away: &AtomicUsize) {
    away.store(number(at), Ordering::SeqCst);
    assert!(cluster.stop(at).success());
    cluster.restart(at);
    // Others may have to connect to it anew.
    std::thread::sleep(Duration::from_millis(500));
    away.store(NOBODY, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(300));
}

fn grows(config: &str) {
    let cluster = Cluster::prepare(Spec::shards(2).replicas(2).config(config));
    let full = std::fs::read_to_string(cluster.config_file()).unwrap();
    let second = |shard| format!(", \"{}\"", cluster.address(At { shard, copy: 2 }));
    let before = full.replace(&second(0), "").replace(&second(1), "");
    let grown = full.replace(&second(1), "");
    std::fs::write(cluster.config_file(), &before).unwrap();
    let old: Vec<At> = cluster.all().filter(|at| at.copy < 2).collect();
    old.iter().for_each(|at| cluster.launch(*at));
    old.iter().for_each(|at| cluster.wait_ready(*at));
    let new = At { shard: 0, copy: 2 };
    for n in 0..300 {
        let key = cluster.key(0, &format!("old-{n}"));
        cluster.put_key(cluster.leader(0), key.as_bytes(), &[0xff; 300]).expect(201);
    }

    let (away, done) = (AtomicUsize::new(NOBODY), AtomicBool::new(false));
    let written: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|shard| {
                scope.spawn({
                    let (cluster, away, done) = (&cluster, &away, &done);
                    move || write(cluster, shard, away, done)
                })
            })
            .collect();
        let growing = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            std::fs::write(cluster.config_file(), &grown).unwrap();
            cluster.launch(new);
            // Its leader does not know it yet: it waits, and says for what.
            wait::until("the new replica waits to be listed", || {
                let status = raw::send(cluster.address(new), &Request::get("/admin/v1/status"));
                let text = status.map(|answer| answer.text()).unwrap_or_default();
                if text.contains("\"not-listed\"") { Ok(()) } else { Err(text) }
            });
            restart(&cluster, cluster.leader(0), &away);
            cluster.wait_ready(new); // from here on it has a full copy
            for at in old.iter().filter(|at| **at != cluster.leader(0)) {
                restart(&cluster, *at, &away);
            }
        }));
        done.store(true, Ordering::SeqCst);
        let written = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        growing.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written
    });

    let end = |at| cluster.status(at)["copies"][0]["end"].as_u64().unwrap();
    for at in [cluster.replica(0), new, cluster.replica(1)] {
        wait::until(&format!("{at:?} has all that its leader has"), || {
            let (leader, replica) = (end(cluster.leader(at.shard)), end(at));
            if leader == replica { Ok(()) } else { Err((leader, replica)) }
        });
    }
    for (shard, (keys, refusals)) in written.iter().enumerate() {
        eprintln!("shard {shard}: {} writes, refused while away: {refusals:?}", keys.len());
        assert!(keys.len() > 50, "writers must have been at it: {}", keys.len());
        for tracked in keys {
            let at_leader = cluster.local(cluster.leader(shard), &tracked.key);
            tracked.check(&at_leader, cluster.leader(shard));
            assert_eq!(cluster.local(cluster.replica(shard), &tracked.key), at_leader);
            if shard == 0 {
                assert_eq!(cluster.local(new, &tracked.key), at_leader, "the new replica, read locally");
            }
        }
    }
    for n in 0..300 {
        let key = cluster.key(0, &format!("old-{n}"));
        assert_eq!(cluster.local(new, key.as_bytes()), Some(vec![0xff; 300]), "{key}");
    }
    wait::until("all nodes agree again", || {
        let said = cluster.kv(new, &["status"], "");
        if said.out.starts_with("healthy: 2 shards on 5 nodes\n") { Ok(()) } else { Err(said) }
    });
    assert_eq!(cluster.kv(new, &["shard", "checksum", "Hyderabad"], "").code, 0);
}

#[test]
fn replica_added_node_by_node_gets_everything_from_the_log_and_nobody_else_notices() {
    grows("");
}

#[test]
fn replica_added_node_by_node_gets_a_snapshot_where_the_log_does_not_reach_back() {
    grows("[replication]\nlog_retain_bytes = 4096\n");
}
