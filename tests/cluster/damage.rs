//! Files and directories that cannot be used: refused with the remedy, and left as they are, byte for byte.

use std::path::Path;

use crate::support::disk::SmallDisk;
use crate::support::{At, Cluster, Spec};

/// Starts a node that must refuse; gives what it said this time.
fn refusal(cluster: &Cluster, at: At) -> String {
    let before = cluster.log(at).len();
    cluster.launch(at);
    let status = cluster.wait_exit(at);
    let said = cluster.log(at).split_off(before);
    assert!(!status.success(), "it should have refused:\n{said}");
    assert!(!said.contains("panicked"), "a refusal is no panic:\n{said}");
    said
}

#[track_caller]
fn says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in:\n{said}");
    }
}

/// A leader's file with 500 keys; closed properly, or as `kill -9` leaves it.
fn filled(properly: bool) -> (Cluster, At, Vec<u8>) {
    let cluster = Cluster::start(Spec::shards(1));
    let at = cluster.leader(0);
    for n in 0..500 {
        cluster.put_key(at, format!("k{n}").as_bytes(), format!("value {n}").repeat(20).as_bytes()).expect(201);
    }
    if properly {
        assert!(cluster.stop(at).success());
    } else {
        cluster.kill9(at);
    }
    let bytes = std::fs::read(cluster.db_file(at)).unwrap();
    (cluster, at, bytes)
}

/// Puts these bytes in the file's place, starts the node, and checks that it refuses them and changes nothing.
fn refuses(cluster: &Cluster, at: At, damaged: &[u8], what: &str) {
    std::fs::write(cluster.db_file(at), damaged).unwrap();
    let said = refusal(cluster, at);
    says(&said, &["damaged", "copy the file of a replica or of a backup", "Hyderabad-0.redb"]);
    assert!(std::fs::read(cluster.db_file(at)).unwrap() == damaged, "{what}: the file was changed:\n{said}");
}

fn starts_with_all(cluster: &Cluster, at: At, whole: &[u8]) {
    std::fs::write(cluster.db_file(at), whole).unwrap();
    cluster.restart(at);
    for n in 0..500 {
        let value = format!("value {n}").repeat(20).into_bytes();
        assert_eq!(cluster.local(at, format!("k{n}").as_bytes()), Some(value), "k{n}");
    }
}

#[test]
fn torn_file_is_refused_and_left_as_it_is() {
    let (cluster, at, whole) = filled(true);
    for keep in [whole.len() / 2, whole.len() - 1, 5_000, 100] {
        refuses(&cluster, at, &whole[..keep], &format!("{keep} bytes"));
    }
    starts_with_all(&cluster, at, &whole);
}

#[test]
fn corrupt_file_is_refused_and_left_as_it_is() {
    // Its head, closed properly; its pages, where a crash makes the opening look at all of them.
    let (cluster, at, whole) = filled(true);
    let mut damaged = whole.clone();
    damaged[64..4096].fill(0xee);
    refuses(&cluster, at, &damaged, "head");
    starts_with_all(&cluster, at, &whole);
    let (cluster, at, whole) = filled(false);
    let mut damaged = whole.clone();
    let half = damaged.len() / 2;
    damaged[8192..half].fill(0xee);
    refuses(&cluster, at, &damaged, "pages");
    starts_with_all(&cluster, at, &whole);
}

#[test]
fn data_directory_that_cannot_be_written_is_refused_with_the_remedy() {
    let cluster = Cluster::prepare(Spec::shards(1));
    let at = cluster.leader(0);
    let in_the_way = cluster.directory().join("a-file");
    std::fs::write(&in_the_way, "no directory").unwrap();
    cluster.move_db(at, &in_the_way.join("x.redb"));
    says(&refusal(&cluster, at), &["directory", "--db-location"]);
    cluster.move_db(at, Path::new("/proc/nowhere/x.redb"));
    says(&refusal(&cluster, at), &["directory", "--db-location"]);
    let Some(disk) = SmallDisk::mount(cluster.directory().join("small"), 16) else { return };
    disk.make_read_only();
    cluster.move_db(at, &disk.file("x.redb"));
    says(&refusal(&cluster, at), &["directory", "--db-location"]);
}
