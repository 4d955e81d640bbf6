//! Sessions (REPLICATION.md, rule 25) among real processes: somebody who hands the token back reads what he wrote, and never
//! something older than he read before, at any copy, across switchovers and takeovers; and is told when what he has seen is
//! lost.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::RngExt;

use crate::led::{switch_over, take_over, wait_answers, wait_followed, wait_leads};
use crate::support::cluster::kv_target;
use crate::support::problem::problem;
use crate::support::{At, Cluster, Request, Response, Spec, wait};

const B: At = At { shard: 0, copy: 1 };
const C: At = At { shard: 0, copy: 2 };

/// Somebody with a session, who writes keys of his own and reads the others'.
struct Client {
    number: usize,
    token: Option<String>,
    /// The highest number that he has written or seen, by key.
    seen: BTreeMap<String, u64>,
    reads: BTreeMap<String, usize>,
}

impl Client {
    fn new(number: usize) -> Client {
        Client { number, token: None, seen: BTreeMap::new(), reads: BTreeMap::new() }
    }

    fn ask(&mut self, cluster: &Cluster, at: At, request: Request) -> Response {
        let request = self.token.iter().fold(request, |request, token| request.header("KV-Session", token));
        let answer = cluster.send(at, &request);
        if matches!(answer.status, 200 | 201 | 204 | 404) {
            self.token = Some(answer.must("kv-session").to_owned());
        }
        answer
    }

    /// Writes the next number to his key.
    fn write(&mut self, cluster: &Cluster, at: At, key: &str) {
        let next = self.seen.get(key).map_or(1, |seen| seen + 1);
        let answer = self.ask(cluster, at, Request::new("PUT", kv_target(key.as_bytes())).body(next.to_string()));
        assert!(matches!(answer.status, 201 | 204), "a write through {at:?}: {answer:?}");
        self.seen.insert(key.to_owned(), next);
    }

    /// Reads a key: never less than he has seen.
    fn read(&mut self, cluster: &Cluster, at: At, key: &str) {
        let target = format!("{}&consistency=session", kv_target(key.as_bytes()));
        let answer = self.ask(cluster, at, Request::get(target));
        let found = match answer.status {
            200 => answer.text().parse().unwrap(),
            404 => 0,
            _ => panic!("a read through {at:?}: {answer:?}"),
        };
        let seen = self.seen.entry(key.to_owned()).or_default();
        assert!(found >= *seen, "client {} has seen {seen} of {key}, and {found} at {at:?}: {answer:?}", self.number);
        *seen = found;
        *self.reads.entry(answer.must("kv-consistency").to_owned()).or_default() += 1;
    }
}

#[test]
fn sessions_at_random_copies_see_their_own_writes_and_never_go_back_across_switchovers() {
    const CLIENTS: usize = 4;
    let rounds = wait::rounds(5);
    let cluster = Cluster::start(Spec::shards(2).replicas(2));
    let nodes: Vec<At> = cluster.all().collect();
    let keys: Vec<String> =
        (0..CLIENTS).flat_map(|client| [0, 1].map(|shard| cluster.key(shard, &format!("session-{client}")))).collect();
    let done = AtomicBool::new(false);
    let (cluster, nodes, keys, done) = (&cluster, &nodes, &keys, &done);
    let reads = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn(move || {
                    let (mut client, mut rng) = (Client::new(number), rand::rng());
                    while !done.load(Ordering::SeqCst) {
                        let at = nodes[rng.random_range(0..nodes.len())];
                        match rng.random_range(0..3) {
                            0 => client.write(cluster, at, &keys[2 * number + rng.random_range(0..2)]),
                            _ => client.read(cluster, at, &keys[rng.random_range(0..keys.len())]),
                        }
                    }
                    client.reads
                })
            })
            .collect();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut leader = cluster.leader(0);
            for round in 0..rounds {
                std::thread::sleep(std::time::Duration::from_millis(200));
                let to = At { shard: 0, copy: (leader.copy + 1 + round % 2) % 3 };
                switch_over(cluster, nodes[round % nodes.len()], to, &["--timeout", "30s"]).unwrap();
                leader = to;
                wait_leads(cluster, leader);
            }
        }));
        done.store(true, Ordering::SeqCst);
        let reads: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        reads
    });
    let count = |kind| reads.iter().map(|reads| reads.get(kind).copied().unwrap_or(0)).sum::<usize>();
    eprintln!("{} reads by leaders, {} by replicas", count("leader"), count("session"));
    assert!(count("session") > 0, "replicas serve sessions: {reads:?}");
}

/// A replica that stood still serves as soon as it runs again, and is behind then.
#[test]
fn replica_that_thaws_never_shows_a_session_what_it_has_overwritten() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    for round in 0..wait::rounds(6) {
        let value = round.to_string();
        cluster.sigstop(replica);
        for n in 0..200 {
            cluster.put_key(leader, format!("filler-{n}").as_bytes(), &[b'x'; 1000]);
        }
        let put = cluster.put_key(leader, b"k", value.as_bytes());
        let read = format!("consistency=session&session={}", put.must("kv-session"));
        cluster.sigcont(replica);
        for controls in [read.clone(), format!("{read}&route=local")] {
            let answer = cluster.get_key(replica, b"k", &controls);
            // Where it may not be passed on, to be told that the copy is behind is right, too.
            assert!(answer.status == 200 || answer.status == 503 && controls.contains("local"), "{answer:?}");
            assert!(answer.status != 200 || answer.text() == value, "{round}: {answer:?}");
        }
    }
}

#[test]
fn session_across_a_takeover_that_kept_its_writes_goes_on_at_every_copy() {
    let cluster = Cluster::start(Spec::shards(2).replicas(2));
    let (a, key) = (cluster.leader(0), cluster.key(0, "kept"));
    let mut client = Client::new(0);
    client.write(&cluster, cluster.leader(1), &key);
    cluster.wait_converged();
    cluster.kill9(a);
    // Nobody leads: what a replica holds that the session has seen, it serves.
    client.read(&cluster, B, &key);
    client.read(&cluster, cluster.replica(1), &key);
    assert_eq!(take_over(&cluster, B, B, &[]).code, 0);
    wait_leads(&cluster, B);
    for at in cluster.all().filter(|at| *at != a) {
        client.write(&cluster, at, &key);
        client.read(&cluster, at, &key);
    }
    cluster.restart(a);
    wait_followed(&cluster, B);
    for at in cluster.all() {
        client.read(&cluster, at, &key);
    }
}

#[test]
fn session_across_a_takeover_that_lost_its_write_is_told_so_by_every_node() {
    let cluster = Cluster::start(Spec::shards(1).replicas(2));
    let a = cluster.leader(0);
    cluster.put_key(a, b"k", b"old").expect(201);
    cluster.wait_converged();
    for replica in [B, C] {
        cluster.sigstop(replica);
    }
    // Answers to the polls that the replicas had sent wait in their kernels; these take the first entries with them.
    for n in 0..3 {
        cluster.put_key(a, format!("filler-{n}").as_bytes(), b"x").expect(201);
        std::thread::sleep(std::time::Duration::from_millis(150));
    }
    let lost = cluster.put_key(a, b"k", b"lost").expect(204).must("kv-session").to_owned();
    cluster.kill9(a);
    for replica in [B, C] {
        cluster.sigcont(replica);
        wait_answers(&cluster, replica);
    }
    // While nobody leads, nobody can say what became of it; and the old value is not shown in its place.
    let read = format!("consistency=session&session={lost}");
    for at in [B, C] {
        let answer = cluster.get_key(at, b"k", &read);
        assert!(matches!(answer.status, 502..=504), "{answer:?}");
        assert_eq!(cluster.get_key(at, b"k", "consistency=any").expect(200).text(), "old");
    }
    let said = take_over(&cluster, B, B, &["--force"]);
    assert_eq!(said.code, 0, "{said:?}");
    wait_leads(&cluster, B);
    let put = Request::new("PUT", kv_target(b"k")).header("KV-Session", &lost).body("never");
    let told = |at: At| {
        let body = problem(&cluster.get_key(at, b"k", &read), 409, "session-lost", "no");
        assert!(body["hint"].as_str().unwrap().contains("KV-Session"), "{body}");
        problem(&cluster.get_key(at, b"k", &format!("session={lost}")), 409, "session-lost", "no");
        problem(&cluster.send(at, &put), 409, "session-lost", "no");
    };
    [B, C].into_iter().for_each(told);
    for n in 0..20 {
        cluster.put_key(C, format!("after-{n}").as_bytes(), b"x").expect(201);
    }
    [B, C].into_iter().for_each(told);
    // The old leader, which has it, is back: what it alone holds is nobody's any more.
    cluster.launch(a);
    wait_answers(&cluster, a);
    wait::until("the old leader says so, too", || {
        let answer = cluster.get_key(a, b"k", &read);
        if answer.status == 409 { Ok(()) } else { Err(answer) }
    });
    told(a);
    // A new session begins with what there is.
    let answer = cluster.get_key(C, b"k", "consistency=session").expect(200);
    assert_eq!(answer.text(), "old");
}
