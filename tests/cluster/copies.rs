//! Several replicas of one shard: each has its own cursor, one that lost its file does not disturb the other, and new ones
//! that come all at once take turns at their snapshots while the leader goes on serving.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{At, Cluster, Spec, wait};

/// A log that keeps next to nothing behind its replicas.
const SHORT_LOG: &str = "[replication]\nlog_retain_bytes = 4096\n";

/// Runs `work` while writers put keys through the leader and a replica; gives how many each wrote, `w{writer}-{n}`.
fn while_writing(cluster: &Cluster, work: impl FnOnce()) -> Vec<usize> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers = [cluster.leader(0), cluster.replica(0)].into_iter().enumerate().map(|(writer, at)| {
            let done = &done;
            scope.spawn(move || {
                let mut written = 0;
                while !done.load(Ordering::SeqCst) {
                    let key = format!("w{writer}-{written}");
                    let answer = cluster.put_key(at, key.as_bytes(), key.as_bytes());
                    assert_eq!(answer.status, 201, "a leader goes on serving: {answer:?}");
                    let answer = cluster.put_key(at, b"fought for", key.as_bytes());
                    assert!(matches!(answer.status, 201 | 204), "{answer:?}");
                    if written % 3 == 0 {
                        cluster.delete_key(at, key.as_bytes()).expect(204);
                    }
                    written += 1;
                }
                written
            })
        });
        let writers: Vec<_> = writers.collect();
        // A scope waits for its threads: the writers must learn of the end even when the work fails.
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        let written = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written
    })
}

/// Every key that the writers wrote is at every copy what it should be.
fn copies_hold(cluster: &Cluster, written: &[usize]) {
    let fought = cluster.local(cluster.leader(0), b"fought for");
    for at in cluster.all() {
        for (writer, count) in written.iter().enumerate() {
            for n in 0..*count {
                let key = format!("w{writer}-{n}");
                let wanted = (n % 3 != 0).then(|| key.clone().into_bytes());
                assert_eq!(cluster.local(at, key.as_bytes()), wanted, "{key} at {at:?}");
            }
        }
        assert_eq!(cluster.local(at, b"fought for"), fought, "at {at:?}");
        let keys = |at| cluster.status(at)["copies"][0]["keys"].as_u64().unwrap();
        assert_eq!(keys(at), keys(cluster.leader(0)), "no key more, no key less at {at:?}");
    }
}

fn fill(cluster: &Cluster, count: usize, bytes: usize) {
    for n in 0..count {
        cluster.put_key(cluster.leader(0), format!("fill-{n}").as_bytes(), &vec![0xab; bytes]).expect(201);
    }
}

#[test]
fn replica_whose_file_was_deleted_under_writes_converges_beside_another() {
    let cluster = Cluster::start(Spec::shards(1).replicas(2).config(SHORT_LOG));
    let victim = At { shard: 0, copy: 2 };
    fill(&cluster, 50, 20_000);
    cluster.wait_converged();
    let written = while_writing(&cluster, || {
        for _ in 0..2 {
            // The file goes while the process runs, as by a careless `rm`; then the process goes too.
            std::fs::remove_file(cluster.db_file(victim)).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(100));
            cluster.kill9(victim);
            cluster.wipe(victim);
            cluster.restart(victim);
        }
    });
    cluster.wait_converged();
    copies_hold(&cluster, &written);
    assert!(!cluster.log(victim).contains("panicked"));
}

#[test]
fn three_new_replicas_at_once_take_turns_and_converge_while_the_leader_serves() {
    let cluster = Cluster::prepare(Spec::shards(1).replicas(3).config(SHORT_LOG));
    let leader = cluster.leader(0);
    cluster.restart(leader);
    fill(&cluster, 80, 100_000);
    wait::until("the log is trimmed", || {
        let copy = cluster.status(leader)["copies"][0].clone();
        if copy["log_bytes"].as_u64().unwrap() < 200_000 { Ok(()) } else { Err(copy) }
    });
    cluster.launch(cluster.replica(0)); // the second writer's entry
    wait::until("it answers", || {
        crate::support::raw::send(cluster.address(cluster.replica(0)), &crate::support::Request::get("/livez"))
    });
    let written = while_writing(&cluster, || {
        (2..=3).for_each(|copy| cluster.launch(At { shard: 0, copy }));
        let mut most_at_once = 0;
        wait::until("all replicas are ready", || {
            let status = cluster.status(leader);
            let replicas = status["copies"][0]["replicas"].as_array().unwrap().clone();
            let count = replicas.iter().filter(|replica| replica["state"] == "snapshot").count();
            most_at_once = most_at_once.max(count);
            let all_follow = replicas.iter().all(|replica| replica["state"] == "streaming");
            if all_follow { Ok(()) } else { Err(replicas) }
        });
        assert!(most_at_once <= 2, "{most_at_once} snapshots at once");
    });
    cluster.wait_converged();
    copies_hold(&cluster, &written);
    let given = cluster.log(leader).matches("giving a snapshot").count();
    assert!(given >= 3, "each took a snapshot, {given} were given");
}

#[test]
fn replica_that_begins_with_a_copy_of_its_leaders_file_keeps_no_log_for_the_others() {
    // The leader's file remembers what its replicas had: at a replica that must not hold anything.
    let bounds = "[replication]\nlog_retain_bytes = 4096\nqueue_entries_max = 100\n";
    let cluster = Cluster::start(Spec::shards(1).replicas(2).config(bounds));
    let (leader, seeded) = (cluster.leader(0), cluster.replica(0));
    fill(&cluster, 10, 1_000);
    cluster.wait_converged();
    assert!(cluster.stop(leader).success());
    cluster.kill9(seeded);
    cluster.wipe(seeded);
    std::fs::copy(cluster.db_file(leader), cluster.db_file(seeded)).unwrap();
    cluster.restart(leader);
    cluster.restart(seeded);
    for n in 0..200 {
        cluster.put_key(leader, format!("later-{n}").as_bytes(), &[7; 2_000]).expect(201);
        if n % 40 == 0 {
            cluster.wait_converged();
        }
    }
    cluster.wait_converged();
    wait::until("its log is short", || {
        let bytes = cluster.status(seeded)["copies"][0]["log_bytes"].as_u64().unwrap();
        if bytes < 50_000 { Ok(()) } else { Err(bytes) }
    });
    assert!(!cluster.log(seeded).contains("gave up"), "{}", cluster.log(seeded));
    assert_eq!(cluster.local(seeded, b"later-199"), Some(vec![7; 2_000]));
}
