//! Writes that are on the leader's disk only (REPLICATION.md, rule 23): they are counted, with their age, wherever somebody
//! looks, and a leader whose file says so refuses more of them, with nothing applied, until a replica is back.

use std::time::Duration;

use crate::led::{switch_over, wait_leads};
use crate::support::problem::refused;
use crate::support::raw::Response;
use crate::support::{At, Cluster, Request, Spec, wait};

const A: At = At { shard: 0, copy: 0 };
const B: At = At { shard: 0, copy: 1 };
/// It holds nothing of the shard.
const STRANGER: At = At { shard: 1, copy: 0 };

/// Two shards with a replica each, and these settings.
fn with(settings: &str) -> Cluster {
    let cluster = Cluster::start(Spec::shards(2).replicas(1).config(&format!("[replication]\n{settings}\n")));
    until_taken(&cluster, "first");
    cluster.wait_converged();
    cluster
}

fn put(cluster: &Cluster, through: At, stem: &str) -> Response {
    cluster.put_key(through, cluster.key(0, stem).as_bytes(), b"v")
}

fn until_taken(cluster: &Cluster, stem: &str) {
    wait::until("a write is taken", || {
        let answer = put(cluster, A, stem);
        if matches!(answer.status, 201 | 204) { Ok(()) } else { Err(answer) }
    });
}

/// Writes until one is refused; gives how many were taken, and the refusal.
fn until_refused(cluster: &Cluster, pause: Duration) -> (u64, Response) {
    for n in 0..10_000 {
        let answer = put(cluster, A, &format!("risk-{n}"));
        if answer.status == 503 {
            return (n, answer);
        }
        answer.expect(201);
        std::thread::sleep(pause);
    }
    panic!("ten thousand writes were taken");
}

/// The leader's count, and the age of the oldest in milliseconds.
fn at_risk(cluster: &Cluster) -> (u64, u64) {
    let copy = cluster.status(A)["copies"][0].clone();
    (copy["at_risk_entries"].as_u64().unwrap(), copy["at_risk_ms"].as_u64().unwrap())
}

fn ready(cluster: &Cluster, at: At, bound: &str) -> u16 {
    cluster.get(at, format!("/readyz?{bound}")).status
}

#[test]
fn risk_grows_while_the_replica_is_frozen_and_is_refused_at_its_bound_until_it_is_back() {
    let cluster = with("max_at_risk_entries = 5");
    wait::until("nothing is at risk", || if at_risk(&cluster) == (0, 0) { Ok(()) } else { Err(at_risk(&cluster)) });
    cluster.sigstop(B);
    std::thread::sleep(Duration::from_millis(300)); // what it sent before is heard
    let (taken, refusal) = until_refused(&cluster, Duration::ZERO);
    assert_eq!(taken, 5);
    let body = refused(&refusal, 503, "at-risk");
    let text = |field: &str| body[field].as_str().unwrap().to_owned();
    assert!(text("detail").contains("5 writes") && text("detail").contains("Hyderabad/1 was heard"), "{body:#}");
    assert!(text("hint").contains("max_at_risk_entries"), "{body:#}");
    assert_eq!((&body["retryable"], &body["shard"]), (&true.into(), &"Hyderabad".into()));

    // Through every node, and whatever the write is; what is there is read, and what changes nothing is taken.
    refused(&put(&cluster, STRANGER, "forwarded"), 503, "at-risk");
    let first = cluster.key(0, "first");
    refused(&cluster.delete_key(STRANGER, first.as_bytes()), 503, "at-risk");
    cluster.delete_key(A, cluster.key(0, "forwarded").as_bytes()).expect(204);
    cluster.get_key(STRANGER, cluster.key(0, &format!("risk-{}", taken - 1)).as_bytes(), "").expect(200);
    cluster.get_key(A, cluster.key(0, &format!("risk-{taken}")).as_bytes(), "").expect(404);

    // It is seen wherever somebody looks, and the oldest gets older.
    let (entries, age) = at_risk(&cluster);
    assert_eq!(entries, 5);
    std::thread::sleep(Duration::from_millis(30));
    assert!(at_risk(&cluster).1 >= age + 30, "{age} ms, and then {:?}", at_risk(&cluster));
    for (bound, status) in [("4", 503), ("5", 200), ("20ms", 503), ("3600s", 200)] {
        assert_eq!(ready(&cluster, A, &format!("max_at_risk={bound}")), status, "{bound}");
    }
    assert_eq!((ready(&cluster, A, ""), ready(&cluster, STRANGER, "max_at_risk=0")), (200, 200));
    let said = cluster.kv(A, &["status"], "");
    assert!(said.code == 1 && said.out.contains("shard Hyderabad refuses writes: 5 writes"), "{said:?}");
    let metrics = cluster.get(A, "/metrics").expect(200).text();
    assert!(metrics.contains("ostraca_at_risk_entries{shard=\"Hyderabad\"} 5"), "{metrics}");
    assert!(metrics.contains("ostraca_at_risk_seconds{shard=\"Hyderabad\"} "), "{metrics}");

    cluster.sigcont(B);
    until_taken(&cluster, "thawed");
    wait::until("nothing is at risk", || match ready(&cluster, A, "max_at_risk=0") {
        200 => Ok(()),
        status => Err(status),
    });
    cluster.wait_converged();
    for n in 0..taken {
        assert!(cluster.local(B, cluster.key(0, &format!("risk-{n}")).as_bytes()).is_some());
    }
}

#[test]
fn risk_of_an_age_is_refused_and_only_then() {
    let cluster = with("max_at_risk_ms = 1500");
    cluster.sigstop(B);
    let (taken, refusal) = until_refused(&cluster, Duration::from_millis(20));
    let body = refused(&refusal, 503, "at-risk");
    assert!(taken > 0 && body["detail"].as_str().unwrap().contains("max_at_risk_ms = 1500"), "{body:#}");
    assert!(at_risk(&cluster).1 >= 1500);
    cluster.sigcont(B);
    until_taken(&cluster, "thawed");
}

#[test]
fn leader_without_its_replicas_refuses_writes_where_the_file_asks_for_them() {
    let cluster = with("min_replicas = 1");
    cluster.kill9(B);
    let (_, refusal) = until_refused(&cluster, Duration::from_millis(20));
    let body = refused(&refusal, 503, "too-few-replicas");
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains("0 of 1 replicas") && detail.contains("min_replicas = 1"), "{body:#}");
    assert!(body["hint"].as_str().unwrap().contains("replication.min_replicas"), "{body:#}");
    refused(&put(&cluster, STRANGER, "forwarded"), 503, "too-few-replicas");
    let says = |answer: &Response, line: &str| answer.text().lines().any(|said| said.starts_with(line));
    let ready = cluster.get(A, "/readyz").expect(200);
    assert!(says(&ready, "WARNING writes "), "{ready:?}");
    let for_writes = cluster.get(A, "/readyz?for=writes").expect(503);
    assert!(says(&for_writes, "FAILED writes "), "{for_writes:?}");
    // A leader that starts has heard nobody yet.
    cluster.kill9(A);
    cluster.restart(A);
    refused(&put(&cluster, A, "alone"), 503, "too-few-replicas");
    cluster.restart(B);
    until_taken(&cluster, "together");
}

/// The former leader held all that there was when it handed over: nothing is refused for want of a poll.
#[test]
fn switchover_under_load_with_a_limit_refuses_no_write() {
    let cluster = with("max_at_risk_ms = 60000");
    for (round, to) in [B, A, B].into_iter().enumerate() {
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = [A, B, STRANGER]
                .map(|through| {
                    let (cluster, is_over) = (&cluster, &is_over);
                    scope.spawn(move || {
                        for n in 0.. {
                            let answer =
                                put(cluster, through, &format!("over-{round}-{}-{}-{n}", through.shard, through.copy));
                            assert_eq!(answer.status, 201, "{answer:?}");
                            if is_over.load(std::sync::atomic::Ordering::Acquire) {
                                return;
                            }
                        }
                    })
                })
                .into();
            let moved = switch_over(&cluster, STRANGER, to, &[]);
            is_over.store(true, std::sync::atomic::Ordering::Release);
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            moved.unwrap_or_else(|said| panic!("{said:?}"));
        });
        wait_leads(&cluster, to);
    }
}

#[test]
fn replica_that_hears_nothing_of_its_leader_is_beyond_every_lag() {
    let cluster = with("");
    for bound in ["max_lag=1000", "max_lag=3600s"] {
        wait::until(bound, || match ready(&cluster, B, bound) {
            200 => Ok(()),
            status => Err(status),
        });
        assert_eq!(ready(&cluster, A, bound), 200, "the leader is behind nobody");
    }
    cluster.sigstop(A);
    for bound in ["max_lag=1000", "max_lag=1s"] {
        wait::until(bound, || match ready(&cluster, B, bound) {
            503 => Ok(()),
            status => Err(status),
        });
    }
    cluster.sigcont(A);
    wait::until("the replica is back", || match ready(&cluster, B, "max_lag=1000") {
        200 => Ok(()),
        status => Err(status),
    });
}

#[test]
fn unreplicated_shard_is_called_so_and_has_no_number() {
    let cluster = Cluster::start(Spec::shards(1));
    cluster.put_key(A, b"k", b"v").expect(201);
    let copy = cluster.status(A)["copies"][0].clone();
    assert_eq!((&copy["unreplicated"], &copy["at_risk_entries"]), (&true.into(), &().into()));
    let answer = cluster.send(A, &Request::get("/readyz?max_at_risk=1000000"));
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("unreplicated: every write is on one disk only"), "{answer:?}");
    let said = cluster.kv(A, &["status"], "");
    assert!(said.code == 0 && said.out.contains("unreplicated"), "{said:?}");
}
