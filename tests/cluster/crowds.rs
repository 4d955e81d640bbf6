//! Crowds of connections that say nothing, or too slowly: more than a process has descriptors for, and a thousand at once.
//! The node lives on, serves those with something to say, and goes on with its replication; and is free when they go.

use std::net::TcpStream;
use std::time::Duration;

use crate::support::raw::{Connection, Request};
use crate::support::{Cluster, Spec, wait};

#[test]
fn more_silent_connections_than_descriptors_leave_the_node_serving_and_replicating() {
    if std::process::Command::new("prlimit").arg("--version").output().is_err() {
        eprintln!("skipped: there is no prlimit here");
        return;
    }
    let cluster = Cluster::prepare(Spec::shards(2).replicas(1));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    cluster.set_under(leader, &["prlimit", "--nofile=64"]);
    cluster.start_all();
    assert!(
        cluster.log(leader).contains("limits.connections_max"),
        "it says that it has few:\n{}",
        cluster.log(leader)
    );
    let keys: Vec<String> = (0..10).map(|n| cluster.key(0, &format!("crowd-{n}"))).collect();
    cluster.put_key(leader, keys[0].as_bytes(), b"v").expect(201);
    cluster.wait_converged();

    let silent: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(cluster.address(leader)).unwrap()).collect();
    // Peers that have connections do not notice; one that has none yet gets in as the quiet ones make room.
    for key in &keys[1..5] {
        wait::until("a peer gets through", || {
            let answer = cluster.put_key(cluster.leader(1), key.as_bytes(), b"v");
            if matches!(answer.status, 201 | 204) { Ok(()) } else { Err(answer) }
        });
        wait::until("the replica has it", || {
            let seen = cluster.local(replica, key.as_bytes());
            if seen.is_some() { Ok(()) } else { Err("not yet") }
        });
    }
    // A client of the node itself waits for those before it, and no longer.
    for key in &keys[5..] {
        cluster.put_key(leader, key.as_bytes(), b"v").expect(201);
    }
    // Other nodes come in too: a restarted one has to connect anew.
    cluster.kill9(replica);
    cluster.restart(replica);
    cluster.put_key(cluster.leader(1), keys[0].as_bytes(), b"w").expect(204);
    cluster.wait_converged();
    assert!(cluster.is_running(leader));
    drop(silent);
    cluster.put_key(leader, keys[1].as_bytes(), b"w").expect(204);
    cluster.wait_converged();
    for key in &keys[2..] {
        assert_eq!(cluster.local(replica, key.as_bytes()), Some(b"v".to_vec()));
    }
    let log = cluster.log(leader);
    assert!(!log.contains("panicked") && !log.contains("cannot accept"), "{log}");
}

#[test]
fn thousand_slow_connections_delay_nobody_and_cost_little() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1));
    let leader = cluster.leader(0);
    cluster.put_key(leader, b"k", b"v").expect(201);
    let before = cluster.resident_kib(leader);
    let heads = [
        "GET /get?key=k HTTP/1.1\r\nHost: a\r\nX-Slow: ",
        "PUT /v1/kv/slow HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n",
        "",
        "PUT /v1/kv/slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n",
    ];
    let mut slow: Vec<Connection> = (0..1000).map(|_| Connection::open(cluster.address(leader)).unwrap()).collect();
    for (number, connection) in slow.iter_mut().enumerate() {
        connection.write(heads[number % heads.len()]).unwrap();
    }
    for round in 0..5 {
        for connection in &mut slow {
            drop(connection.write("x")); // a server that hangs up is right
        }
        for at in cluster.all() {
            cluster.put_key(at, b"k", format!("{round}").as_bytes()).expect(204);
            assert_eq!(cluster.get_key(at, b"k", "").expect(200).text(), format!("{round}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let after = cluster.resident_kib(leader);
    assert!(after < before + 150_000, "{before} KiB before and {after} KiB with 1,000 slow connections");
    cluster.wait_converged();
    drop(slow);
    cluster.get_key(leader, b"slow", "").expect(404);
    cluster.send(leader, &Request::get("/livez")).expect(200);
    assert!(!cluster.log(leader).contains("panicked"));
}
