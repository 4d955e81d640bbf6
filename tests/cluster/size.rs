//! What a node takes: memory idle, and with many keys, at the default settings. With room to spare, and of a build without
//! optimization; `bench/size` measures the release, and `docs/size.md` says what came of it.

use crate::support::raw::{Connection, Request};
use crate::support::{Cluster, Spec};

/// Wanted of an idle node: less than 40 MiB.
const IDLE_KIB_MAX: u64 = 60 << 10;
/// Wanted of a node with a million keys of 100 bytes: less than 200 MiB. This one has fewer, and the same cache.
const LOADED_KIB_MAX: u64 = 200 << 10;
const KEYS: usize = 40_000;
/// Connections at a time: a node commits many writes together.
const CLIENTS: usize = 64;

fn send_all(cluster: &Cluster, target: impl Fn(usize) -> String + Sync) {
    let address = cluster.address(cluster.leader(0));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let target = &target;
            scope.spawn(move || {
                let mut connection = Connection::open(address).unwrap();
                for n in (client..KEYS).step_by(CLIENTS) {
                    connection.ask(&Request::get(target(n))).unwrap().expect(200);
                }
            });
        }
    });
}

#[test]
fn node_idles_in_little_memory_and_serves_many_keys_in_not_much_more() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    for at in [leader, replica] {
        let idle = cluster.resident_kib(at);
        assert!(idle < IDLE_KIB_MAX, "{at:?} idles with {idle} KiB");
    }
    let value = "v".repeat(100);
    send_all(&cluster, |n| format!("/set?key=size-{n}&value={value}"));
    send_all(&cluster, |n| format!("/get?key=size-{n}"));
    cluster.wait_converged();
    for at in [leader, replica] {
        let loaded = cluster.resident_kib(at);
        assert!(loaded < LOADED_KIB_MAX, "{at:?} has {loaded} KiB with {KEYS} keys");
    }
    // And is ready again, soon: as soon as the tests' own bound.
    for at in [leader, replica] {
        assert!(cluster.stop(at).success());
    }
    cluster.start_all();
    assert_eq!(cluster.local(replica, b"size-0").map(|value| value.len()), Some(100));
}
