//! A leader that stands still (SIGSTOP) for longer than anybody waits is taken for gone, and comes back thinking that it
//! leads. What it is asked to write from then on is passed on to the new leader, refused, or of unknown outcome: never
//! confirmed and lost, and never do two leaders confirm writes in one epoch (REPLICATION.md, rules 17 and 19).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::led::{copy, take_over, wait_answers, wait_followed, wait_leads};
use crate::outcome::{Outcome, Tracked, outcome_of};
use crate::support::cluster::kv_target;
use crate::support::raw::{Exchange, Request, exchange};
use crate::support::{At, Cluster, Spec, wait};

const B: At = At { shard: 0, copy: 1 };

/// Epoch and seq of a version, as a client may not read it and a test may.
fn version(answer: &crate::support::Response) -> (u64, u64) {
    let etag = answer.must("etag").trim_matches('"').to_owned();
    let mut parts = etag.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap(), parts.next().unwrap())
}

/// Clients that wait at a stopped leader, whose kernel takes their requests, while another takes over.
#[test]
fn stopped_leader_confirms_nothing_of_its_own_when_it_runs_again_after_a_takeover() {
    const WAITING: usize = 40;
    let cluster = Cluster::start(Spec::shards(2).replicas(2));
    let (a, stranger) = (cluster.leader(0), cluster.leader(1));
    let key = |n: usize| cluster.key(0, &format!("stopped-{n}")).into_bytes();
    cluster.put_key(a, &key(0), b"before").expect(201);
    cluster.wait_converged();
    cluster.sigstop(a);
    let said = take_over(&cluster, stranger, B, &[]);
    assert_eq!(said.code, 0, "{said:?}");
    wait_b_leads(&cluster, a);
    let answers: Vec<(Vec<u8>, Exchange)> = std::thread::scope(|scope| {
        let clients: Vec<_> = (1..=WAITING)
            .map(|n| {
                let (key, address) = (key(n), cluster.address(a));
                scope.spawn(move || {
                    let request = Request::new("PUT", kv_target(&key)).body(&key);
                    let answer = exchange(address, &request);
                    (key, answer)
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300)); // so that they wait there
        for n in WAITING + 1..2 * WAITING {
            cluster.put_key(B, &key(n), b"at the new leader").expect(201);
        }
        cluster.sigcont(a);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    wait_leads(&cluster, B);
    wait_followed(&cluster, B); // the old leader, too: it has taken nothing of its own
    let mut confirmed = 0;
    for (key, answer) in answers {
        let shown = format!("{answer:?}");
        if let Exchange::Answered(answer) = &answer
            && (200..300).contains(&answer.status)
        {
            assert_eq!(version(answer).0, 2, "confirmed in the new epoch only: {shown}");
        }
        let outcome = outcome_of(answer);
        let held = cluster.local(B, &key);
        match outcome {
            Outcome::Acknowledged => assert_eq!(held.as_deref(), Some(&key[..]), "{shown}"),
            Outcome::Refused => assert_eq!(held, None, "{shown}"),
            Outcome::Unknown => {}
        }
        confirmed += usize::from(outcome == Outcome::Acknowledged);
        assert_eq!(cluster.local(a, &key), held, "{shown}");
    }
    eprintln!("{confirmed} of {WAITING} writes that waited at the stopped leader were passed on and confirmed");
}

/// The same in the middle of writes: those that the stopped leader had begun are confirmed by the one or by the other, never
/// two in one place of one epoch.
#[test]
fn stopped_leader_in_the_middle_of_writes_never_shares_an_epoch_with_another() {
    let cluster = Cluster::start(Spec::shards(2).replicas(2));
    let (a, stranger) = (cluster.leader(0), cluster.leader(1));
    let taken_over = AtomicBool::new(false);
    let done = AtomicBool::new(false);
    let confirmed = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..6)
            .map(|writer| {
                let (cluster, taken_over, done) = (&cluster, &taken_over, &done);
                let through = [a, a, a, B, stranger, cluster.replica(1)][writer];
                scope.spawn(move || write(cluster, writer, through, taken_over, done))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(400));
        cluster.sigstop(a);
        let said = take_over(&cluster, stranger, B, &["--force"]); // the other replica may hold a few entries more
        assert_eq!(said.code, 0, "{said:?}");
        taken_over.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(400));
        cluster.sigcont(a);
        std::thread::sleep(Duration::from_millis(1500));
        done.store(true, Ordering::SeqCst);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    wait_leads(&cluster, B);
    let mut places = BTreeMap::new();
    for write in &confirmed {
        if let Some(other) = places.insert(write.version, write) {
            panic!("two writes were confirmed in one place: {write:?} and {other:?}");
        }
    }
    // What was begun after the takeover, through whatever node, and confirmed, is there.
    for write in confirmed.iter().filter(|write| write.after_takeover) {
        assert_eq!(write.version.0, 2, "{write:?}");
        assert_eq!(cluster.local(B, &write.key).as_deref(), Some(&write.key[..]), "{write:?}");
    }
    let after = confirmed.iter().filter(|write| write.after_takeover).count();
    eprintln!("{} writes were confirmed, {after} of them begun after the takeover", confirmed.len());
    assert!(after > 0);
    let (_, state, _) = wait::until("the old leader follows, without what it alone held", || {
        let found = copy(&cluster, a);
        if found.1 == "streaming" { Ok(found) } else { Err(found) }
    });
    eprintln!("the old leader is {state}");
}

/// A confirmed write of a key that was written once.
#[derive(Debug)]
struct Confirmed {
    key: Vec<u8>,
    version: (u64, u64),
    after_takeover: bool,
}

/// Writes new keys through a node until told to end.
fn write(cluster: &Cluster, writer: usize, through: At, taken_over: &AtomicBool, done: &AtomicBool) -> Vec<Confirmed> {
    let mut confirmed = Vec::new();
    let mut serial = 0;
    while !done.load(Ordering::SeqCst) {
        serial += 1;
        let after_takeover = taken_over.load(Ordering::SeqCst);
        let key = cluster.key(0, &format!("middle-{writer}-{serial}")).into_bytes();
        let answer = exchange(cluster.address(through), &Request::new("PUT", kv_target(&key)).body(&key));
        let version = match &answer {
            Exchange::Answered(answer) if answer.status == 201 => version(answer),
            _ => (0, 0),
        };
        match outcome_of(answer) {
            Outcome::Acknowledged => confirmed.push(Confirmed { key, version, after_takeover }),
            Outcome::Refused | Outcome::Unknown => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    confirmed
}

/// A pause that nobody took for an end: the leader asks, hears nothing that speaks against it, and leads on; what waited is
/// done.
#[test]
fn stopped_leader_that_nobody_replaced_leads_on_and_does_what_waited() {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    let a = cluster.leader(0);
    let mut tracked = Tracked::new(cluster.key(0, "paused").into_bytes());
    assert_eq!(tracked.write(&cluster, a, Some(b"1".to_vec())), Outcome::Acknowledged);
    cluster.sigstop(a);
    let (outcome, tracked) = std::thread::scope(|scope| {
        let client = scope.spawn(|| (tracked.write(&cluster, a, Some(b"2".to_vec())), tracked));
        std::thread::sleep(Duration::from_millis(2500));
        cluster.sigcont(a);
        client.join().unwrap()
    });
    assert_eq!(outcome, Outcome::Acknowledged);
    tracked.check(&cluster.local(a, &tracked.key), a);
    assert!(cluster.log(a).contains("this process stood still"), "{}", cluster.log(a));
    wait_answers(&cluster, a);
    wait_leads(&cluster, a);
    wait_followed(&cluster, a);
}

/// Waits until B leads to everybody but the stopped one, which cannot be asked.
fn wait_b_leads(cluster: &Cluster, stopped: At) {
    for asked in cluster.all().filter(|at| *at != stopped) {
        wait::until(&format!("{asked:?} knows"), || {
            let (leader, epoch) = crate::led::in_map(cluster, asked, 0);
            if leader == cluster.address(B) { Ok(()) } else { Err((leader, epoch)) }
        });
    }
}
