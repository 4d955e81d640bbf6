//! A leader hands its shard over while clients write (REPLICATION.md, rule 20): no write is lost, none is applied twice, no
//! client gets an error, and writes wait for a moment only, which is reported.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::RngExt;

use crate::led::{copy, in_map, switch_over, wait_answers, wait_followed, wait_leads};
use crate::outcome::{Outcome, Tracked};
use crate::support::problem::refused;
use crate::support::{At, Cluster, Spec, wait};

const WRITERS: usize = 8;
/// Keys of each writer.
const KEYS: usize = 4;

#[test]
fn switchover_among_three_copies_under_writers_loses_no_write_and_shows_no_client_an_error() {
    hands_around(2, wait::rounds(6));
}

/// `.ci/run` has it do 50 rounds, alone: `OSTRACA_TEST_ROUNDS=50 cargo test --test cluster back_and_forth -- --nocapture`.
#[test]
fn switchover_back_and_forth_under_full_load_loses_no_write_and_shows_no_client_an_error() {
    hands_around(1, wait::rounds(12));
}

/// Hands a shard of so many replicas around so often, while clients of all nodes, those of another shard included, write
/// without a pause and read each write back through another node. Looks afterwards whether every copy holds what was
/// acknowledged, and nothing twice.
fn hands_around(replicas: usize, rounds: usize) {
    let cluster = Cluster::start(Spec::shards(2).replicas(replicas));
    let done = AtomicBool::new(false);
    let written = AtomicU64::new(0);
    let (diaries, pauses) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (cluster, done, written) = (&cluster, &done, &written);
                scope.spawn(move || write(cluster, writer, done, written))
            })
            .collect();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| hand_around(&cluster, rounds, &written)));
        done.store(true, Ordering::SeqCst);
        let diaries: Vec<Tracked> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        (diaries, ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let copies: Vec<At> = cluster.all().filter(|at| at.shard == 0).collect();
    let leader = *copies.iter().find(|at| copy(&cluster, **at).1 == "leading").unwrap();
    wait_followed(&cluster, leader);
    for tracked in &diaries {
        for at in &copies {
            tracked.check(&cluster.local(*at, &tracked.key), *at);
        }
    }
    let entries: u64 = diaries.iter().map(|tracked| tracked.entries).sum();
    assert_eq!(copy(&cluster, leader).2, entries, "an entry for each acknowledged write, and none twice");
    let mut sorted = pauses.clone();
    sorted.sort_unstable();
    eprintln!(
        "{} switchovers under {entries} writes, each read back: pauses in ms: p50 {}, p90 {}, max {}: {pauses:?}",
        pauses.len(),
        sorted[sorted.len() / 2],
        sorted[sorted.len() * 9 / 10],
        sorted[sorted.len() - 1],
    );
}

/// Hands shard 0 around its copies; gives the pauses in milliseconds.
fn hand_around(cluster: &Cluster, rounds: usize, written: &AtomicU64) -> Vec<u64> {
    let nodes: Vec<At> = cluster.all().collect();
    let copies = nodes.iter().filter(|at| at.shard == 0).count();
    let mut rng = rand::rng();
    let mut leader = cluster.leader(0);
    (0..rounds)
        .map(|round| {
            let before = written.load(Ordering::SeqCst);
            wait::until("the writers get on", || {
                if written.load(Ordering::SeqCst) >= before + 30 { Ok(()) } else { Err(()) }
            });
            let to = At { shard: 0, copy: (leader.copy + rng.random_range(1..copies)) % copies };
            let through = nodes[rng.random_range(0..nodes.len())];
            let handed = switch_over(cluster, through, to, &["--timeout", "30s"])
                .unwrap_or_else(|said| panic!("{round}: {said:?}"));
            assert_eq!(handed["leader"], cluster.node_name(to));
            leader = to;
            wait_leads(cluster, leader);
            handed["paused_ms"].as_u64().unwrap()
        })
        .collect()
}

/// Writes its own keys through random nodes until told to end, and reads each write back through another: every write must
/// be acknowledged, and every read must show the last one.
fn write(cluster: &Cluster, writer: usize, done: &AtomicBool, written: &AtomicU64) -> Vec<Tracked> {
    let nodes: Vec<At> = cluster.all().collect();
    let mut rng = rand::rng();
    let mut keys: Vec<Tracked> =
        (0..KEYS).map(|n| Tracked::new(cluster.key(0, &format!("switch-{writer}-{n}")).into_bytes())).collect();
    let mut serial = 0;
    while !done.load(Ordering::SeqCst) {
        serial += 1;
        let (through, back) = (rng.random_range(0..nodes.len()), rng.random_range(1..nodes.len()));
        let (through, back) = (nodes[through], nodes[(through + back) % nodes.len()]);
        let tracked = &mut keys[rng.random_range(0..KEYS)];
        let value = (rng.random_range(0..10) > 0).then(|| format!("{writer}-{serial}").into_bytes());
        let outcome = tracked.write(cluster, through, value);
        assert_eq!(outcome, Outcome::Acknowledged, "a write through {through:?}");
        let answer = cluster.get_key(back, &tracked.key, "");
        assert!(answer.status == 200 || answer.status == 404, "a read through {back:?}: {answer:?}");
        tracked.check(&(answer.status == 200).then_some(answer.body), back);
        written.fetch_add(1, Ordering::SeqCst);
    }
    keys
}

const B: At = At { shard: 0, copy: 1 };

#[test]
fn switchover_to_a_copy_that_does_not_answer_changes_nothing() {
    let cluster = Cluster::start(Spec::shards(1).replicas(2));
    let (a, key) = (cluster.leader(0), cluster.key(0, "unchanged"));
    cluster.put_key(a, key.as_bytes(), b"1").expect(201);
    cluster.wait_converged();
    cluster.kill9(B);
    let said = switch_over(&cluster, a, B, &["--timeout", "2s"]).unwrap_err();
    assert!(said.code == 1 && said.err.contains("Hyderabad/1 does not answer"), "{said:?}");
    cluster.put_key(a, key.as_bytes(), b"2").expect(204);
    cluster.restart(B);
    cluster.sigstop(B);
    let said = switch_over(&cluster, a, B, &["--timeout", "2s"]).unwrap_err();
    assert_eq!(said.code, 1, "{said:?}");
    cluster.put_key(a, key.as_bytes(), b"3").expect(204);
    cluster.sigcont(B);
    assert_eq!(in_map(&cluster, a, 0).1, 1);
    wait_followed(&cluster, a);
    // And the next one succeeds.
    switch_over(&cluster, a, B, &[]).unwrap();
    wait_leads(&cluster, B);
    cluster.put_key(a, key.as_bytes(), b"4").expect(204);
}

#[test]
fn switchover_to_the_leader_or_to_nobody_is_refused() {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    let a = cluster.leader(0);
    let said = switch_over(&cluster, a, a, &[]).unwrap_err();
    assert!(said.code == 1 && said.err.contains("leads Hyderabad already"), "{said:?}");
    let said = cluster.kv(a, &["shard", "switchover", "Hyderabad", "--to", "Bangalore/1"], "");
    assert!(said.code == 1 && said.err.contains("Bangalore/1 holds no copy of Hyderabad"), "{said:?}");
    let answer =
        cluster.send(B, &crate::support::Request::new("POST", "/admin/v1/shards/Hyderabad/switchover?to=Hyderabad/1"));
    refused(&answer, 421, "wrong-node");
}

/// A switchover is what planned maintenance takes: the node that led can be stopped, and returns as a replica.
#[test]
fn switchover_then_restart_of_both_keeps_the_new_leader_in_either_order() {
    for first_back in [0, 1] {
        let cluster = Cluster::start(Spec::shards(1).replicas(1));
        let (a, key) = (cluster.leader(0), cluster.key(0, "either"));
        cluster.put_key(a, key.as_bytes(), b"1").expect(201);
        switch_over(&cluster, a, B, &[]).unwrap();
        cluster.put_key(a, key.as_bytes(), b"2").expect(204);
        wait_followed(&cluster, B);
        for at in [a, B] {
            cluster.kill9(at);
        }
        let order = [At { shard: 0, copy: first_back }, At { shard: 0, copy: 1 - first_back }];
        cluster.launch(order[0]);
        std::thread::sleep(Duration::from_millis(3000)); // longer than it asks at its start
        if order[0] == a {
            refused(&cluster.put_key(a, key.as_bytes(), b"not A"), 502, "shard-unreachable");
        }
        cluster.launch(order[1]);
        order.iter().for_each(|at| wait_answers(&cluster, *at));
        wait_leads(&cluster, B);
        wait_followed(&cluster, B);
        cluster.put_key(a, key.as_bytes(), b"3").expect(204);
        assert_eq!(cluster.get_key(B, key.as_bytes(), "").expect(200).text(), "3");
    }
}
