//! A leader is gone, and an operator makes another copy lead (REPLICATION.md, rules 15 to 19): the shard serves again, the
//! other replicas follow the new leader, and the old one comes back as a replica, by itself and with nobody's file edited.

use crate::led::{copy, in_map, take_over, wait_answers, wait_followed, wait_leads};
use crate::support::problem::refused;
use crate::support::raw::{self, Request};
use crate::support::{At, Cluster, Spec, wait};

/// Two shards; the first has two replicas, and some keys that all its copies hold.
fn filled() -> (Cluster, Vec<String>) {
    let cluster = Cluster::start(Spec::shards(2).replicas(2));
    let keys: Vec<String> = (0..30).map(|n| cluster.key(0, &format!("takeover-{n}"))).collect();
    for key in &keys {
        cluster.put_key(cluster.leader(1), key.as_bytes(), b"before").expect(201);
    }
    cluster.wait_converged();
    (cluster, keys)
}

const B: At = At { shard: 0, copy: 1 };
const C: At = At { shard: 0, copy: 2 };

#[test]
fn takeover_after_a_kill_serves_again_and_the_old_leader_returns_as_a_replica() {
    let (cluster, keys) = filled();
    let (a, stranger) = (cluster.leader(0), cluster.replica(1));
    let file = std::fs::read(cluster.config_file()).unwrap();
    cluster.kill9(a);
    refused(&cluster.put_key(stranger, keys[0].as_bytes(), b"nobody leads"), 502, "shard-unreachable");
    let said = take_over(&cluster, stranger, B, &[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("leads Hyderabad in epoch 2"), "{said:?}");
    // It serves when the command has ended, at the node itself and at every other within a moment.
    cluster.put_key(B, keys[0].as_bytes(), b"after").expect(204);
    wait_leads(&cluster, B);
    for at in cluster.all().filter(|at| *at != a) {
        cluster.put_key(at, keys[1].as_bytes(), format!("through {at:?}").as_bytes()).expect(204);
        assert_eq!(cluster.get_key(at, keys[1].as_bytes(), "").expect(200).text(), format!("through {at:?}"));
    }
    wait_followed(&cluster, B);
    assert_eq!(cluster.local(C, keys[0].as_bytes()).as_deref(), Some(&b"after"[..]));

    // Everything that was acknowledged by both leaders is at the old one soon after its return.
    cluster.restart(a);
    wait_leads(&cluster, B);
    wait_followed(&cluster, B);
    assert_eq!(cluster.local(a, keys[0].as_bytes()).as_deref(), Some(&b"after"[..]));
    for key in &keys[2..] {
        assert_eq!(cluster.local(a, key.as_bytes()).as_deref(), Some(&b"before"[..]));
    }
    cluster.put_key(a, keys[2].as_bytes(), b"through the old leader").expect(204);
    assert_eq!(cluster.get(a, "/readyz").status, 200);
    assert_eq!(std::fs::read(cluster.config_file()).unwrap(), file, "the file stays as its operator wrote it");

    // What is known of leaders outlives everybody's death.
    cluster.all().for_each(|at| cluster.kill9(at));
    cluster.start_all();
    wait_leads(&cluster, B);
    wait_followed(&cluster, B);
    assert_eq!(in_map(&cluster, stranger, 0).1, 2);
    cluster.put_key(stranger, keys[3].as_bytes(), b"after all").expect(204);
}

#[test]
fn takeover_beside_a_leader_that_answers_is_refused_and_names_the_switchover() {
    let (cluster, keys) = filled();
    let said = take_over(&cluster, cluster.leader(1), B, &[]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("kv shard switchover Hyderabad --to Hyderabad/1"), "{said:?}");
    wait_leads(&cluster, cluster.leader(0));
    // Forced, it is done, and the former leader is fenced at once.
    let said = take_over(&cluster, cluster.leader(1), B, &["--force"]);
    assert_eq!(said.code, 0, "{said:?}");
    wait_leads(&cluster, B);
    wait_followed(&cluster, B);
    cluster.put_key(cluster.leader(0), keys[0].as_bytes(), b"forwarded").expect(204);
    assert_eq!(cluster.local(B, keys[0].as_bytes()).as_deref(), Some(&b"forwarded"[..]));
}

#[test]
fn takeover_by_the_copy_that_has_less_names_the_one_that_has_more() {
    let (cluster, keys) = filled();
    cluster.kill9(B);
    for key in &keys {
        cluster.put_key(cluster.leader(0), key.as_bytes(), b"without B").expect(204);
    }
    wait_followed(&cluster, cluster.leader(0));
    cluster.kill9(cluster.leader(0));
    cluster.restart(B);
    let stranger = cluster.leader(1);
    let said = take_over(&cluster, stranger, B, &[]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("Hyderabad/2 holds 30 entries more than Hyderabad/1"), "{said:?}");
    // Nobody named: the one that has most is proposed, and the shard's name confirms it.
    let said = cluster.kv(stranger, &["shard", "takeover", "Hyderabad"], "Hyderabad\n");
    assert_eq!(said.code, 0, "{said:?}");
    wait_leads(&cluster, C);
    wait_followed(&cluster, C);
    assert_eq!(cluster.local(B, keys[0].as_bytes()).as_deref(), Some(&b"without B"[..]));
}

/// A majority of all nodes is needed, not of the copies: else a cut-off minority would make a leader of its own.
#[test]
fn takeover_without_a_majority_is_refused_names_the_silent_and_takes_force() {
    let (cluster, keys) = filled();
    let a = cluster.leader(0);
    let away = [a, cluster.leader(1), cluster.replica(1)];
    away.iter().for_each(|at| cluster.kill9(*at));
    let said = take_over(&cluster, B, B, &[]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("only 3 of 6 nodes take part") && said.err.contains("Hyderabad/0"), "{said:?}");
    // What came to nothing binds nobody: the leader that returns leads.
    cluster.restart(a);
    wait_leads(&cluster, a);
    cluster.put_key(B, keys[0].as_bytes(), b"still A").expect(204);
    wait_followed(&cluster, a);
    cluster.kill9(a);
    let said = take_over(&cluster, B, B, &["--force"]);
    assert_eq!(said.code, 0, "{said:?}");
    cluster.put_key(B, keys[0].as_bytes(), b"B").expect(204);
    for at in away {
        cluster.launch(at);
    }
    wait_answers(&cluster, a);
    wait_leads(&cluster, B);
    wait_followed(&cluster, B);
    assert_eq!(cluster.local(a, keys[0].as_bytes()).as_deref(), Some(&b"B"[..]));
}

#[test]
fn takeover_by_two_operators_at_once_ends_with_one_leader() {
    let (cluster, keys) = filled();
    let a = cluster.leader(0);
    cluster.kill9(a);
    let (cluster, keys) = (&cluster, &keys);
    let ends = std::thread::scope(|scope| {
        let operators = [(B, cluster.leader(1)), (C, cluster.replica(1))];
        let operators = operators.map(|(to, through)| scope.spawn(move || take_over(cluster, through, to, &[])));
        operators.map(|operator| operator.join().unwrap())
    });
    let done = ends.iter().filter(|said| said.code == 0).count();
    eprintln!("two operators: {done} were told that it is done");
    if done == 0 {
        // Each had half of the promises. Those end by themselves, and the next attempt succeeds.
        wait::until("a later attempt succeeds", || {
            let said = take_over(cluster, cluster.leader(1), B, &[]);
            if said.code == 0 { Ok(()) } else { Err(said) }
        });
    }
    let leader = wait::until("all nodes agree about one leader", || {
        let alive: Vec<At> = cluster.all().filter(|at| *at != a).collect();
        let said: Vec<_> = alive.iter().map(|at| in_map(cluster, *at, 0)).collect();
        let leading = [B, C].into_iter().filter(|at| copy(cluster, *at).1 == "leading").collect::<Vec<_>>();
        match leading.as_slice() {
            [one] if said.iter().all(|said| *said == (cluster.address(*one), said.1)) => Ok(*one),
            _ => Err((said, leading)),
        }
    });
    cluster.put_key(cluster.leader(1), keys[0].as_bytes(), b"one").expect(204);
    wait_followed(cluster, leader);
}

/// A node that was away meanwhile thinks that it leads, and asks before it does (rule 18).
#[test]
fn start_of_a_leader_that_was_taken_over_follows_although_the_new_leader_is_away() {
    let (cluster, keys) = filled();
    let a = cluster.leader(0);
    cluster.kill9(a);
    assert_eq!(take_over(&cluster, C, B, &[]).code, 0);
    wait_leads(&cluster, B);
    cluster.kill9(B);
    cluster.launch(a);
    wait_answers(&cluster, a);
    wait::until("it knows better", || {
        let (role, state, _) = copy(&cluster, a);
        if role == "replica" && state == "away" { Ok(()) } else { Err((role, state)) }
    });
    refused(&cluster.put_key(a, keys[0].as_bytes(), b"no"), 502, "shard-unreachable");
    assert_eq!(cluster.get_key(a, keys[0].as_bytes(), "consistency=any").expect(200).text(), "before");
    cluster.restart(B);
    wait_leads(&cluster, B);
    wait_followed(&cluster, B);
}

#[test]
fn start_without_a_majority_leads_by_default_and_waits_where_the_file_says_so() {
    for (tables, leads) in [("", true), ("[replication]\nstart_alone = \"wait\"\n", false)] {
        let cluster = Cluster::prepare(Spec::shards(2).replicas(1).config(tables));
        let (a, key) = (cluster.leader(0), cluster.key(0, "start"));
        cluster.launch(a);
        wait_answers(&cluster, a);
        if leads {
            cluster.wait_ready(a);
            cluster.put_key(a, key.as_bytes(), b"alone").expect(201);
            assert!(cluster.log(a).contains("no majority of all nodes answers"), "{}", cluster.log(a));
        } else {
            wait::until("it says what it waits for", || {
                let log = cluster.log(a);
                if log.contains("before a majority of all nodes answers") { Ok(()) } else { Err(log) }
            });
            refused(&cluster.put_key(a, key.as_bytes(), b"alone"), 503, "no-leader");
            cluster.launch(cluster.leader(1)); // two of four are no majority
            wait_answers(&cluster, cluster.leader(1));
            std::thread::sleep(std::time::Duration::from_secs(3));
            refused(&cluster.put_key(a, key.as_bytes(), b"two"), 503, "no-leader");
            cluster.launch(cluster.replica(0));
            cluster.wait_ready(a);
            cluster.put_key(a, key.as_bytes(), b"three").expect(201);
        }
    }
}

/// The plan is there for programs, too, and any node makes it.
#[test]
fn takeover_plan_says_what_is_known_to_be_missing() {
    let (cluster, keys) = filled();
    cluster.sigstop(B);
    cluster.sigstop(C);
    // What the replicas hear of is not what they get: their kernel takes the answers to polls that they do not read.
    for key in &keys {
        cluster.put_key(cluster.leader(0), key.as_bytes(), b"not pulled").expect(204);
    }
    cluster.kill9(cluster.leader(0));
    cluster.sigcont(B);
    cluster.sigcont(C);
    wait_answers(&cluster, B);
    let plan =
        raw::send(cluster.address(cluster.leader(1)), &Request::get("/admin/v1/shards/Hyderabad/takeover")).unwrap();
    let plan = plan.expect(200).json();
    assert_eq!(plan["silent"], serde_json::json!(["Hyderabad/0"]), "{plan:#}");
    assert_eq!(plan["next_epoch"], 2, "{plan:#}");
    assert!(plan["missing"].is_u64() && plan["end"].as_u64().unwrap() >= 30, "{plan:#}");
    let names: Vec<_> = plan["copies"].as_array().unwrap().iter().map(|copy| copy["node"].clone()).collect();
    assert_eq!(names, ["Hyderabad/0", "Hyderabad/1", "Hyderabad/2"]);
    let elsewhere = Request::new("POST", "/admin/v1/shards/Hyderabad/takeover?to=Hyderabad/1");
    let answer = cluster.send(C, &elsewhere);
    let body = crate::support::problem::well_formed(&answer);
    assert_eq!((answer.status, &body["address"]), (421, &cluster.address(B).to_string().into()));
}

/// The leader lost its file: it must not lead, and says so. An operator lets a replica with the data lead instead, without
/// copying files; the leader that held nothing fetches everything, as a replica.
#[test]
fn takeover_from_a_leader_that_lost_its_data_needs_no_force_and_heals() {
    let (cluster, keys) = filled();
    let a = cluster.leader(0);
    cluster.kill9(a);
    cluster.wipe(a);
    cluster.launch(a);
    wait_answers(&cluster, a);
    wait::until("it is halted", || {
        let state = copy(&cluster, a).1;
        if state == "halted" { Ok(()) } else { Err(state) }
    });
    let said = take_over(&cluster, a, B, &[]);
    assert_eq!(said.code, 0, "{said:?}");
    wait_leads(&cluster, B);
    cluster.put_key(a, keys[0].as_bytes(), b"after").expect(204);
    wait_followed(&cluster, B);
    assert_eq!(cluster.local(a, keys[1].as_bytes()).as_deref(), Some(&b"before"[..]));
}
