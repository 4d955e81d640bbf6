//! The storm: `kill -9` of leaders and replicas, singly and together, now and then a polite stop, a pause or a wiped
//! replica, while writers go on through random nodes and note every outcome. Afterwards nothing acknowledged is missing,
//! nothing said to be unapplied is there, no write was applied twice, and every replica equals its leader, read locally,
//! key by key.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::RngExt;

use crate::outcome::{Outcome, Tracked};
use crate::support::{At, Cluster, Spec, wait};

const WRITERS: usize = 4;
/// Keys that each writer works on at a time: few, so that keys are overwritten and deleted often.
const KEYS_PER_WRITER: usize = 8;

/// What a writer did and knows.
#[derive(Debug, Default)]
struct Diary {
    keys: Vec<Tracked>,
    acknowledged: usize,
    refused: usize,
    unknown: usize,
}

#[test]
fn storm_of_kills_loses_nothing_acknowledged_and_invents_nothing() {
    // A short log, so that a wiped or late replica sometimes needs a snapshot.
    let short_log = "[replication]\nlog_retain_bytes = 65536\n";
    let cluster = Cluster::start(Spec::shards(4).replicas(1).config(short_log));
    loses_nothing(&cluster, |cluster| storm(cluster, wait::rounds(10)));
}

/// Lets writers go on through random nodes while something happens to the cluster that leaves all of its nodes running, and
/// looks afterwards whether everything is as they noted it.
pub(crate) fn loses_nothing(cluster: &Cluster, happens: impl FnOnce(&Cluster)) {
    let done = AtomicBool::new(false);
    let mut diaries: Vec<Diary> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn({
                    let done = &done;
                    move || write(cluster, writer, done)
                })
            })
            .collect();
        // The writers must learn of the end, even of a bad one: the scope waits for them.
        let stormy = catch_unwind(AssertUnwindSafe(|| happens(cluster)));
        done.store(true, Ordering::SeqCst);
        let diaries =
            writers.into_iter().map(|writer| writer.join().unwrap_or_else(|panic| resume_unwind(panic))).collect();
        stormy.unwrap_or_else(|panic| resume_unwind(panic));
        diaries
    });
    cluster.all().for_each(|at| cluster.wait_ready(at));
    cluster.wait_converged();

    let count = |of: fn(&Diary) -> usize| diaries.iter().map(of).sum::<usize>();
    let (acknowledged, refused, unknown) =
        (count(|diary| diary.acknowledged), count(|diary| diary.refused), count(|diary| diary.unknown));
    eprintln!("storm: {acknowledged} acknowledged, {refused} refused, {unknown} of unknown outcome");
    assert!(acknowledged > 0, "a storm in which nothing is written shows nothing");
    check(cluster, &diaries);
    // A log holds an entry for each write that has a version, and none twice.
    let written: u64 = diaries.iter().flat_map(|diary| &diary.keys).map(|tracked| tracked.entries).sum();
    let ends = (0..cluster.shards())
        .map(|shard| cluster.status(cluster.leader(shard))["copies"][0]["end"].as_u64().unwrap())
        .sum::<u64>();
    let possible = written + u64::try_from(unknown).unwrap();
    assert!(
        (written..=possible).contains(&ends),
        "{ends} entries for {written} writes and {unknown} of unknown outcome"
    );

    // Once more after everything died at once.
    cluster.all().for_each(|at| cluster.kill9(at));
    cluster.start_all();
    cluster.wait_converged();
    check(cluster, &diaries);

    // And the cluster works as if nothing had been.
    for tracked in diaries.iter_mut().flat_map(|diary| &mut diary.keys).filter(|tracked| tracked.is_certain()) {
        let outcome = tracked.write(cluster, cluster.leader(0), Some(b"afterwards".to_vec()));
        assert_eq!(outcome, Outcome::Acknowledged);
    }
    cluster.wait_converged();
    check(cluster, &diaries);
}

/// Kills and brings back, until the rounds are over; leaves every node running.
fn storm(cluster: &Cluster, rounds: usize) {
    let nodes: Vec<At> = cluster.all().collect();
    let mut rng = rand::rng();
    for _ in 0..rounds {
        let victims: BTreeSet<usize> = (0..rng.random_range(1..=3)).map(|_| rng.random_range(0..nodes.len())).collect();
        let politely = rng.random_range(0..5) == 0;
        for at in victims.iter().map(|victim| nodes[*victim]) {
            if politely {
                cluster.stop(at);
            } else {
                cluster.kill9(at);
            }
        }
        let frozen =
            nodes.iter().enumerate().find(|(number, _)| !victims.contains(number) && rng.random_range(0..8) == 0);
        frozen.iter().for_each(|(_, at)| cluster.sigstop(**at));
        std::thread::sleep(Duration::from_millis(rng.random_range(0..400)));
        frozen.iter().for_each(|(_, at)| cluster.sigcont(**at));
        for at in victims.iter().map(|victim| nodes[*victim]) {
            if !at.leads() && rng.random_range(0..4) == 0 {
                cluster.wipe(at);
            }
            cluster.launch(at);
        }
        // Sometimes too short for a start: then the next round kills a node that is just opening its file.
        std::thread::sleep(Duration::from_millis(rng.random_range(100..1200)));
        if rng.random_range(0..3) == 0 {
            nodes.iter().for_each(|at| cluster.wait_ready(*at));
        }
    }
}

/// Writes, deletes and reads its own keys through random nodes until told to end.
fn write(cluster: &Cluster, writer: usize, done: &AtomicBool) -> Diary {
    let nodes: Vec<At> = cluster.all().collect();
    let mut rng = rand::rng();
    let mut diary = Diary::default();
    // Keys whose state is certain; one of unknown outcome is put aside for the check at the end.
    let mut live: Vec<Tracked> = Vec::new();
    let mut serial = 0;
    while !done.load(Ordering::SeqCst) {
        serial += 1;
        let through = nodes[rng.random_range(0..nodes.len())];
        if live.len() < KEYS_PER_WRITER {
            live.push(Tracked::new(format!("storm/{writer}/{serial}/\u{e9}").into_bytes()));
        }
        let chosen = rng.random_range(0..live.len());
        let tracked = &mut live[chosen];
        if rng.random_range(0..4) == 0 {
            tracked.check_read(cluster, through);
            continue;
        }
        let value = (rng.random_range(0..5) > 0).then(|| {
            let mut value = format!("\0{writer}-{serial}").into_bytes();
            value.push(0xff);
            value.resize(value.len() + if rng.random_range(0..20) == 0 { 60_000 } else { 20 }, 0xfe);
            value
        });
        match tracked.write(cluster, through, value) {
            Outcome::Acknowledged => diary.acknowledged += 1,
            Outcome::Refused => {
                diary.refused += 1;
                std::thread::sleep(Duration::from_millis(5)); // a dead node answers fast
            }
            Outcome::Unknown => {
                diary.unknown += 1;
                diary.keys.push(live.swap_remove(chosen));
            }
        }
    }
    diary.keys.append(&mut live);
    diary
}

/// Every key at its leader, at its replica and through a node that is neither.
fn check(cluster: &Cluster, diaries: &[Diary]) {
    let mut keys = vec![0_u64; cluster.shards()];
    for tracked in diaries.iter().flat_map(|diary| &diary.keys) {
        let shard = cluster.shard_of(&tracked.key);
        let at_leader = cluster.local(cluster.leader(shard), &tracked.key);
        tracked.check(&at_leader, cluster.leader(shard));
        let at_replica = cluster.local(cluster.replica(shard), &tracked.key);
        let name = String::from_utf8_lossy(&tracked.key);
        assert!(at_leader == at_replica, "leader and replica of {} differ in {name:?}", cluster.shard_name(shard));
        let stranger = cluster.replica((shard + 1) % cluster.shards());
        let through = cluster.get_key(stranger, &tracked.key, "");
        assert_eq!((through.status == 200).then_some(through.body), at_leader, "{name:?} through {stranger:?}");
        keys[shard] += u64::from(at_leader.is_some());
    }
    for at in cluster.all() {
        let held = cluster.status(at)["copies"][0]["keys"].as_u64().unwrap();
        assert_eq!(held, keys[at.shard], "{at:?} holds keys that nobody wrote, or lacks some");
    }
}
