//! A replica that serves is always a prefix of its leader's history (DESIGN.md, invariant 3), and never goes back: not
//! over kills, not over a wiped disk, not in the middle of a snapshot. A copy that has not got everything serves nothing;
//! it does not say that keys are missing.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::cluster::kv_target;
use crate::support::raw::{self};
use crate::support::{At, Cluster, Request, Spec, wait};

/// A log so short that a wiped replica needs a snapshot.
const SHORT_LOG: &str = "[replication]\nlog_retain_bytes = 4096\n";
/// Keys that make the snapshot take a while; the two that are watched lie before and behind them.
const FILLER: usize = 400;

/// The number that a copy holds under a key, read locally; none when it does not serve now.
fn number(cluster: &Cluster, at: At, key: &[u8]) -> Option<u64> {
    let target = format!("{}&route=local&consistency=any", kv_target(key));
    let answer = raw::send(cluster.address(at), &Request::get(target)).ok()?;
    match answer.status {
        200 => Some(answer.text().parse().unwrap()),
        // The key was there before the first look, and is never deleted.
        404 => panic!("{at:?} says that a key is missing which it does not have yet: {answer:?}"),
        421 | 502..=504 => None,
        _ => panic!("{answer:?}"),
    }
}

/// Writes 1, 2, 3 … under the first key and then under the second, until told to end.
fn count(cluster: &Cluster, done: &AtomicBool) {
    let mut n = 1_u64;
    while !done.load(Ordering::SeqCst) {
        for key in [b"a-first", b"z-after"] {
            cluster.put_key(cluster.leader(0), key, n.to_string().as_bytes()).expect(204);
        }
        n += 1;
    }
}

/// Looks at the replica: second key, then first. Gives how often it saw both.
fn watch(cluster: &Cluster, done: &AtomicBool) -> usize {
    let (mut looks, mut last_first, mut last_after) = (0, 0, 0);
    while !done.load(Ordering::SeqCst) {
        let after = number(cluster, cluster.replica(0), b"z-after");
        let first = number(cluster, cluster.replica(0), b"a-first");
        if let (Some(after), Some(first)) = (after, first) {
            assert!(first >= after, "the write of {after} is there, the one before it is not: {first}");
            looks += 1;
        }
        for (now, last) in [(first, &mut last_first), (after, &mut last_after)] {
            let Some(now) = now else { continue };
            assert!(now >= *last, "the replica went back from {last} to {now}");
            *last = now;
        }
    }
    looks
}

#[test]
fn replica_is_a_prefix_of_its_leader_through_kills_and_snapshots() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1).config(SHORT_LOG));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    for key in [&b"a-first"[..], b"z-after"] {
        cluster.put_key(leader, key, b"0").expect(201);
    }
    for n in 0..FILLER {
        cluster.put_key(leader, format!("filler-{n}").as_bytes(), &[0xff; 5_000]).expect(201);
    }
    cluster.wait_converged();

    let done = &AtomicBool::new(false);
    let looks = std::thread::scope(|scope| {
        let writer = scope.spawn(|| count(&cluster, done));
        let watcher = scope.spawn(|| watch(&cluster, done));
        let stormy = catch_unwind(AssertUnwindSafe(|| {
            for round in 0..wait::rounds(6) {
                std::thread::sleep(Duration::from_millis(300));
                cluster.kill9(replica);
                if round % 2 == 0 {
                    cluster.wipe(replica);
                }
                cluster.launch(replica);
                if round % 3 != 0 {
                    cluster.wait_ready(replica); // else the next kill hits it while it catches up
                }
            }
            cluster.wait_ready(replica);
        }));
        done.store(true, Ordering::SeqCst);
        writer.join().unwrap_or_else(|panic| resume_unwind(panic));
        let looks = watcher.join().unwrap_or_else(|panic| resume_unwind(panic));
        stormy.unwrap_or_else(|panic| resume_unwind(panic));
        looks
    });
    assert!(looks > 0, "the replica never served");
    cluster.wait_converged();
    for key in [&b"a-first"[..], b"z-after"] {
        assert_eq!(number(&cluster, replica, key), number(&cluster, leader, key));
    }
}
