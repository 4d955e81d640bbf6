//! A leader that is killed over and over never uses a version twice: after each restart every version is above all that
//! any client ever saw before (REPLICATION.md, rules 3 and 4).
//!
//! `OSTRACA_TEST_ROUNDS=500 cargo test --test cluster versions` makes it long.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::raw::{self, Request};
use crate::support::{Cluster, Response, Spec, wait};

/// The seq of a version: `"epoch.seq.incarnation"`. Clients take it as opaque; this test knows it.
fn seq(answer: &Response) -> u64 {
    let etag = answer.must("etag");
    etag.trim_matches('"').rsplit('.').nth(1).and_then(|seq| seq.parse().ok()).unwrap_or_else(|| panic!("{etag}"))
}

#[test]
fn fifty_restarts_of_a_leader_each_go_on_above_all_versions_before() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1));
    let leader = cluster.leader(0);
    let greatest = Mutex::new(seq(&cluster.put_key(leader, b"k", b"first").expect(201)));
    for round in 0..wait::rounds(50) {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // It dies under writes: what the last of them became, nobody was told.
            scope.spawn(|| {
                let put = Request::new("PUT", "/v1/kv/k").body("busy");
                while !done.load(Ordering::SeqCst) {
                    let Ok(answer) = raw::send(cluster.address(leader), &put) else { return };
                    if answer.status == 204 {
                        let mut greatest = greatest.lock().unwrap();
                        *greatest = seq(&answer).max(*greatest);
                    }
                }
            });
            std::thread::sleep(std::time::Duration::from_millis(20));
            cluster.kill9(leader);
            done.store(true, Ordering::SeqCst);
        });
        cluster.restart(leader);
        let before = *greatest.lock().unwrap();
        let read = seq(&cluster.get_key(leader, b"k", "").expect(200));
        assert!(read >= before, "round {round}: {read} after {before}: an acknowledged write is gone");
        let written = seq(&cluster.put_key(leader, b"k", format!("round {round}").as_bytes()).expect(204));
        assert!(written > before.max(read), "round {round}: {written} after {before} and {read}");
        *greatest.lock().unwrap() = written;
    }
    cluster.wait_converged();
    assert_eq!(cluster.local(cluster.replica(0), b"k"), cluster.local(leader, b"k"));
}
