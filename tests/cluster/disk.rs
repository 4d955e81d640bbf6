//! Disk trouble (REPLICATION.md, rule 9): a disk that fills and is freed, at a leader and at a replica; an fdatasync that
//! fails. Nothing acknowledged is lost, what cannot be known is said to be unknown, and whatever clears, clears by itself.

use crate::support::disk::{Failing, SmallDisk};
use crate::support::problem::{problem, refused};
use crate::support::raw::{self, Request};
use crate::support::{Cluster, Spec, wait};

const SMALL: &str = "[limits]\nvalue_bytes_max = 1048576\n[storage]\nmin_free_bytes = 8388608\n\
    [replication]\nlog_retain_bytes = 4096\nqueue_bytes_max = 1048576\n";
const MIB: u64 = 1 << 20;

fn says_nothing_of_panics(cluster: &Cluster) {
    assert!(cluster.all().all(|at| !cluster.log(at).contains("panicked")), "{}", cluster.logs());
}

#[test]
fn full_disk_of_a_leader_refuses_puts_and_nothing_else_and_clears_by_itself() {
    let cluster = Cluster::prepare(Spec::shards(1).replicas(1).config(SMALL));
    let Some(disk) = SmallDisk::mount(cluster.directory().join("small"), 48) else { return };
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    cluster.move_db(leader, &disk.file("leader.redb"));
    cluster.start_all();
    cluster.put_key(leader, b"before", b"v").expect(201);
    cluster.put_key(leader, b"doomed", b"v").expect(201);

    disk.load(4 * MIB);
    for at in [leader, replica] {
        let said = refused(&cluster.put_key(at, b"k", b"v"), 507, "disk-full");
        assert_eq!(said["retryable"], true, "it clears by itself: {said}");
        assert_eq!(cluster.get_key(at, b"before", "").expect(200).text(), "v", "reads go on");
    }
    let status = cluster.status(leader);
    assert_eq!(status["problems"][0]["code"], "disk-full", "{status}");
    let ready = cluster.get(leader, "/readyz").expect(200).text();
    assert!(ready.contains("WARNING disk Hyderabad: the disk of Hyderabad/0 has"), "{ready}");
    cluster.get(leader, "/readyz?for=writes").expect(503);
    cluster.delete_key(replica, b"doomed").expect(204);
    cluster.get_key(leader, b"doomed", "").expect(404);
    cluster.get(leader, "/livez").expect(200);
    cluster.get_key(leader, b"k", "").expect(404);

    disk.unload();
    cluster.put_key(leader, b"k", b"v").expect(201);
    assert_eq!(cluster.status(leader)["problems"], serde_json::json!([]));

    // And filled by its own writes: what was acknowledged is there, and the reserve is not used up.
    let mut taken = 0;
    while cluster.put_key(leader, format!("fill-{taken}").as_bytes(), &vec![7; 500_000]).status == 201 {
        taken += 1;
        assert!(taken < 200, "the disk is never full");
    }
    refused(&cluster.put_key(leader, b"more", &vec![7; 500_000]), 507, "disk-full");
    assert!(disk.free() > 2 * MIB, "{} bytes are left of the reserve", disk.free());
    cluster.kill9(leader);
    cluster.restart(leader);
    for n in 0..taken {
        assert_eq!(cluster.get_key(leader, format!("fill-{n}").as_bytes(), "").expect(200).body.len(), 500_000);
    }
    disk.resize(96);
    cluster.put_key(leader, b"more", &vec![7; 500_000]).expect(201);
    cluster.wait_converged();
    says_nothing_of_panics(&cluster);
    cluster.kill9(leader);
}

#[test]
fn full_disk_of_a_replica_harms_nobody_else_and_it_catches_up_when_freed() {
    let cluster = Cluster::prepare(Spec::shards(1).replicas(1).config(SMALL));
    let Some(disk) = SmallDisk::mount(cluster.directory().join("small"), 48) else { return };
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    cluster.move_db(replica, &disk.file("replica.redb"));
    cluster.start_all();
    cluster.put_key(leader, b"before", b"v").expect(201);
    cluster.wait_converged();

    disk.load(4 * MIB);
    for n in 0..20 {
        cluster.put_key(leader, format!("k{n}").as_bytes(), b"v").expect(201);
    }
    wait::until("the replica says that it is stuck, and why", || {
        let status = cluster.status(replica);
        let said = status["problems"].to_string();
        if status["copies"][0]["state"] == "stuck" && said.contains("min_free_bytes") { Ok(()) } else { Err(status) }
    });
    let said = cluster.kv(leader, &["status"], "").out;
    assert!(said.contains("next: free space on the disk of Hyderabad/1: it goes on by itself"), "{said}");
    assert_eq!(cluster.local(replica, b"before"), Some(b"v".to_vec()), "it serves what it has");
    assert_eq!(cluster.local(replica, b"k0"), None);
    cluster.put_key(leader, b"k20", b"v").expect(201);

    disk.unload();
    cluster.wait_converged();
    assert_eq!(cluster.local(replica, b"k20"), Some(b"v".to_vec()));

    // A snapshot that does not fit is given up and its space given back: others may count on it.
    cluster.kill9(replica);
    std::fs::remove_file(disk.file("replica.redb")).unwrap();
    for n in 0..60 {
        cluster.put_key(leader, format!("large-{n}").as_bytes(), &vec![9; 900_000]).expect(201);
    }
    wait::until("the log is trimmed", || {
        let copy = cluster.status(leader)["copies"][0].clone();
        if copy["log_bytes"].as_u64().unwrap() < 4_000_000 { Ok(()) } else { Err(copy) }
    });
    cluster.launch(replica);
    wait::until("the replica says that the snapshot does not fit", || {
        let Ok(answer) = raw::send(cluster.address(replica), &Request::get("/admin/v1/status")) else {
            return Err("no answer".to_owned());
        };
        let said = answer.text();
        if said.contains("cannot be written") && said.contains("min_free_bytes") { Ok(()) } else { Err(said) }
    });
    assert!(disk.free() > 2 * MIB, "{} bytes are left", disk.free());
    cluster.put_key(leader, b"meanwhile", b"v").expect(201);
    disk.resize(256);
    cluster.wait_ready(replica);
    cluster.wait_converged();
    assert_eq!(cluster.local(replica, b"large-59").map(|value| value.len()), Some(900_000));
    says_nothing_of_panics(&cluster);
    cluster.kill9(replica);
}

#[test]
fn failed_fdatasync_is_an_unknown_outcome_and_nothing_is_taken_until_a_restart() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    for n in 0..20 {
        cluster.put_key(leader, format!("k{n}").as_bytes(), b"v").expect(201);
    }
    cluster.wait_converged();
    let trace = cluster.directory().join("strace.log");
    let Some(failing) = Failing::fdatasync(cluster.pid(leader), &trace) else { return };
    problem(&cluster.put_key(leader, b"in flight", b"v"), 500, "storage-failed", "unknown");
    drop(failing); // the disk works again, and the node must not believe it
    refused(&cluster.put_key(leader, b"after", b"v"), 500, "storage-failed");
    refused(&cluster.put_key(replica, b"after", b"v"), 500, "storage-failed");
    refused(&cluster.delete_key(leader, b"k0"), 500, "storage-failed");
    for path in ["/livez", "/readyz"] {
        let said = cluster.get(leader, path).expect(503).text();
        assert!(said.contains("restart"), "{path} names the remedy: {said}");
    }
    let problems = cluster.status(leader)["problems"].to_string();
    assert!(problems.contains("failed") && problems.contains("restart"), "{problems}");
    assert_eq!(cluster.local(replica, b"k0"), Some(b"v".to_vec()), "the replica serves on");

    cluster.kill9(leader);
    cluster.restart(leader);
    for n in 0..20 {
        assert_eq!(cluster.get_key(replica, format!("k{n}").as_bytes(), "").expect(200).text(), "v", "k{n}");
    }
    cluster.get_key(leader, b"after", "").expect(404);
    cluster.put_key(leader, b"after", b"v").expect(201);
    cluster.wait_converged();
    assert_eq!(cluster.local(leader, b"in flight"), cluster.local(replica, b"in flight"), "there or not, for both");
    says_nothing_of_panics(&cluster);
}
