//! A read that asks for nothing special is never older than a write that was acknowledged before it began, through
//! whatever nodes the two went; and each write has a version of its own.
//!
//! The check: a read returned the value of write W, and there is a write W' that began after W had ended and ended before
//! the read began. Then W was overwritten, and the read is stale. Values are unique, so there is no doubt which write a
//! read saw. (A part of linearizability; the whole is for a checker of its own.)

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rand::RngExt;

use crate::support::{At, Cluster, Spec, wait};

const WRITERS: usize = 4;
const READERS: usize = 4;

/// What a client did with the key, and when.
#[derive(Debug, Clone)]
struct Deed {
    began: Instant,
    ended: Instant,
    value: String,
    etag: String,
    #[expect(dead_code, reason = "for the message of a failure")]
    through: At,
}

/// One write or read through a random node.
fn deed(cluster: &Cluster, key: &str, value: Option<String>) -> Deed {
    let nodes: Vec<At> = cluster.all().collect();
    let through = nodes[rand::rng().random_range(0..nodes.len())];
    let began = Instant::now();
    let answer = match &value {
        Some(value) => cluster.put_key(through, key.as_bytes(), value.as_bytes()).expect(204),
        None => cluster.get_key(through, key.as_bytes(), "").expect(200),
    };
    let ended = Instant::now();
    Deed { began, ended, etag: answer.must("etag").to_owned(), value: value.unwrap_or_else(|| answer.text()), through }
}

#[test]
fn reads_through_any_node_are_never_older_than_an_acknowledged_write() {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    let key = cluster.key(0, "fresh");
    cluster.put_key(cluster.leader(0), key.as_bytes(), b"first").expect(201);
    let (cluster, key) = (&cluster, key.as_str());
    let each = wait::rounds(10) * 8;
    let writing = &AtomicUsize::new(WRITERS);

    let (writes, reads) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || {
                    let deeds = (0..each).map(|n| deed(cluster, key, Some(format!("{writer}-{n}")))).collect();
                    writing.fetch_sub(1, Ordering::SeqCst);
                    deeds
                })
            })
            .collect();
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                scope.spawn(move || {
                    // Bounded, should a writer fail: it then never says that it has ended.
                    let mut deeds: Vec<Deed> = Vec::new();
                    while writing.load(Ordering::SeqCst) > 0 && deeds.len() < each * 20 {
                        deeds.push(deed(cluster, key, None));
                    }
                    deeds
                })
            })
            .collect();
        let writes: Vec<Vec<Deed>> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        let reads: Vec<Vec<Deed>> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        (writes.concat(), reads.concat())
    });
    assert!(!reads.is_empty());

    let etags: HashSet<&str> = writes.iter().map(|write| write.etag.as_str()).collect();
    assert_eq!(etags.len(), writes.len(), "a version for each write");
    let by_value: HashMap<&str, &Deed> = writes.iter().map(|write| (write.value.as_str(), write)).collect();
    for read in reads.iter().filter(|read| read.value != "first") {
        let seen = by_value.get(read.value.as_str()).unwrap_or_else(|| panic!("nobody wrote {read:?}"));
        assert_eq!(read.etag, seen.etag, "the version belongs to the value");
        assert!(seen.began < read.ended, "{read:?} comes before its write {seen:?}");
        let overwriter = writes.iter().find(|write| write.began > seen.ended && write.ended < read.began);
        assert!(overwriter.is_none(), "stale: {read:?} saw {seen:?}, which {overwriter:?} had overwritten");
    }

    // What is there at the end is one of the last writes, at every copy.
    cluster.wait_converged();
    let end = cluster.get_key(cluster.leader(0), key.as_bytes(), "").expect(200);
    assert_eq!(cluster.local(cluster.replica(0), key.as_bytes()), Some(end.body.clone()));
    let last = by_value[end.text().as_str()];
    assert!(writes.iter().all(|write| write.began <= last.ended), "{last:?} is not among the last");
}
