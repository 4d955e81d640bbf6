//! Stopping on SIGTERM: what is in flight is finished, the file is closed properly, nothing acknowledged is lost; and a
//! rolling restart of a whole cluster under writers, in which only the shard that is away answers errors.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;

use crate::support::raw::{self, Connection, Exchange, Request};
use crate::support::{At, Cluster, Spec, wait};

/// What a node logs when its file was not closed properly.
const UNCLEAN: &str = "not closed properly";

#[test]
fn sigterm_under_load_finishes_what_is_in_flight_and_loses_nothing() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1));
    let leader = cluster.leader(0);
    for round in 0..wait::rounds(3) {
        let acknowledged: Vec<usize> = std::thread::scope(|scope| {
            let writers = [0, 1, 2, 3].map(|writer| {
                let cluster = &cluster;
                scope.spawn(move || {
                    let mut count = 0;
                    loop {
                        let put = Request::get(format!("/set?key=r{round}-w{writer}-{count}&value=v"));
                        match raw::exchange(cluster.address(leader), &put) {
                            Exchange::Answered(answer) if answer.status == 200 => count += 1,
                            _ => return count,
                        }
                    }
                })
            });
            // A request whose head was read, and whose body comes only after the signal.
            let half = Request::new("PUT", format!("/v1/kv/half-{round}")).body([b'h'; 10_000]);
            let bytes = half.to_bytes(cluster.address(leader));
            let (first, rest) = bytes.split_at(5_000);
            let mut connection = Connection::open(cluster.address(leader)).unwrap();
            connection.write(first).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(200));
            cluster.signal(leader, Signal::TERM);
            std::thread::sleep(std::time::Duration::from_millis(50));
            connection.write(rest).unwrap();
            connection.answer().unwrap().expect(201);
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        let status = cluster.wait_exit(leader);
        assert!(status.success(), "{status}\n{}", cluster.log(leader));
        assert!(raw::send(cluster.address(leader), &Request::get("/livez")).is_err(), "nobody answers any more");
        cluster.restart(leader);
        assert!(!cluster.log(leader).contains(UNCLEAN), "{}", cluster.log(leader));
        assert_eq!(cluster.local(leader, format!("half-{round}").as_bytes()), Some(vec![b'h'; 10_000]));
        assert!(acknowledged.iter().sum::<usize>() > 0, "nothing was written");
        for (writer, count) in acknowledged.iter().enumerate() {
            for n in 0..*count {
                let key = format!("r{round}-w{writer}-{n}");
                assert_eq!(cluster.local(leader, key.as_bytes()), Some(b"v".to_vec()), "{key} was acknowledged");
            }
        }
    }
    cluster.wait_converged();
}

/// No node is away.
const NONE: usize = usize::MAX;

#[test]
fn rolling_restart_under_writers_answers_errors_for_the_shard_that_is_away_only() {
    let cluster = Cluster::start(Spec::shards(4).replicas(1));
    let nodes: Vec<At> = cluster.all().collect();
    let (away, epoch, done) = (AtomicUsize::new(NONE), AtomicUsize::new(0), AtomicBool::new(false));
    let written: Vec<Vec<String>> = std::thread::scope(|scope| {
        let writers = [0, 1, 2, 3].map(|shard| {
            let (cluster, nodes, away, epoch, done) = (&cluster, &nodes, &away, &epoch, &done);
            scope.spawn(move || {
                let mut acknowledged = Vec::new();
                for n in 0.. {
                    if done.load(Ordering::SeqCst) {
                        break;
                    }
                    let key = cluster.key(shard, &format!("rolling-{n}"));
                    let (before, gone) = (epoch.load(Ordering::SeqCst), away.load(Ordering::SeqCst));
                    let entry = (n + shard) % nodes.len();
                    let leads_it = |number: usize| number == NONE || nodes[number] != cluster.leader(shard);
                    let should_work = gone != entry && leads_it(gone);
                    let answer = raw::send(cluster.address(nodes[entry]), &crate::stopping::put(&key));
                    let was_quiet = epoch.load(Ordering::SeqCst) == before;
                    match answer {
                        Ok(answer) if matches!(answer.status, 201 | 204) => acknowledged.push(key),
                        // A busy machine may be slow; an error it is not.
                        Ok(answer) if answer.status == 504 => {}
                        other => assert!(
                            !(should_work && was_quiet),
                            "{key} of shard {shard} through {:?} while node {gone} is away: {other:?}",
                            nodes[entry]
                        ),
                    }
                }
                acknowledged
            })
        });
        let rolled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for (number, at) in nodes.iter().enumerate() {
                away.store(number, Ordering::SeqCst);
                epoch.fetch_add(1, Ordering::SeqCst);
                let status = cluster.stop(*at);
                assert!(status.success(), "{at:?} stopped with {status}");
                cluster.restart(*at);
                away.store(NONE, Ordering::SeqCst);
                epoch.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        }));
        done.store(true, Ordering::SeqCst);
        let written = writers.into_iter().map(|writer| writer.join()).collect::<Vec<_>>();
        rolled.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written.into_iter().map(|written| written.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    cluster.wait_converged();
    for (shard, keys) in written.iter().enumerate() {
        assert!(!keys.is_empty(), "nothing was written to shard {shard}");
        for key in keys {
            for at in [cluster.leader(shard), cluster.replica(shard)] {
                assert_eq!(cluster.local(at, key.as_bytes()), Some(b"v".to_vec()), "{key} at {at:?}");
            }
        }
    }
    for at in nodes {
        let log = cluster.log(at);
        assert!(!log.contains(UNCLEAN) && !log.contains("panicked"), "{at:?}:\n{log}");
    }
}

fn put(key: &str) -> Request {
    Request::new("PUT", format!("/v1/kv/{key}")).body("v")
}
