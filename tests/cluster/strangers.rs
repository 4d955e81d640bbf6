//! Who does not belong here and speaks to a node as a peer: garbage, a peer of another protocol version, a node of another
//! cluster. Refused with the remedy; nothing is lost, and nobody else notices.

use std::time::Duration;

use ostraca::peer::frame::Frame;
use ostraca::peer::message::{Hello, PROTOCOL_MAX, Refusal, RefusalCode};
use ostraca::peer::pool::{PEER_PATH, PEER_UPGRADE};
use ostraca::peer::{Class, Local};
use ostraca::types::NodeName;

use crate::support::raw::{Connection, Request};
use crate::support::{At, Cluster, Spec, wait};

/// A connection that has become a peer connection and has not introduced itself.
fn upgraded(cluster: &Cluster, at: At) -> Connection {
    let mut connection = Connection::open(cluster.address(at)).unwrap();
    let upgrade = Request::get(PEER_PATH).header("Connection", "upgrade").header("Upgrade", PEER_UPGRADE);
    connection.ask(&upgrade).unwrap().expect(101);
    connection
}

fn hello(placement: u64) -> Hello {
    let name = NodeName::new("Bangalore/0");
    let local = Local::new(name, placement, "a placement of this test".into(), 0, None);
    local.hello(&NodeName::new("Hyderabad/0"), Class::Request)
}

/// Introduces itself and reads the refusal.
fn refusal(cluster: &Cluster, hello: Hello) -> Refusal {
    let mut connection = upgraded(cluster, cluster.leader(0));
    connection.write(&Frame::Hello(hello).encode().head).unwrap();
    let frame = connection.frame().unwrap();
    match Frame::decode(frame.into()).unwrap() {
        Frame::Refuse(refusal) => refusal,
        other => panic!("no refusal: {other:?}"),
    }
}

fn placement(cluster: &Cluster) -> u64 {
    let text = cluster.get(cluster.leader(0), "/v1/cluster").json()["placement"].as_str().unwrap().to_owned();
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

#[test]
fn peer_of_another_protocol_version_is_told_which_to_upgrade() {
    let cluster = Cluster::start(Spec::shards(2));
    let placement = placement(&cluster);
    let newer = Hello { protocol_min: PROTOCOL_MAX + 1, protocol_max: PROTOCOL_MAX + 2, ..hello(placement) };
    let said = refusal(&cluster, newer);
    assert_eq!(said.code, RefusalCode::Version);
    assert!(said.detail.contains("upgrade the older one"), "{}", said.detail);
    let said = refusal(&cluster, hello(placement + 1));
    assert_eq!(said.code, RefusalCode::TopologyMismatch);
    assert!(said.detail.contains("sharding.toml"), "{}", said.detail);
    let log = cluster.log(cluster.leader(0));
    assert!(log.contains("speaks peer protocol") && log.contains("Bangalore/0"), "the node says so too:\n{log}");
    // The real peer is none the worse.
    let key = cluster.key(0, "k");
    cluster.put_key(cluster.leader(1), key.as_bytes(), b"v").expect(201);
}

#[test]
fn garbage_from_a_peer_is_hung_up_on_and_harms_nobody() {
    let cluster = Cluster::start(Spec::shards(2));
    let at = cluster.leader(0);
    let whole = Frame::Hello(hello(placement(&cluster))).encode().head;
    let mut huge = whole.to_vec();
    huge[..4].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut torn = whole.to_vec();
    torn.truncate(whole.len() - 3);
    let garbage: [&[u8]; 6] = [&huge, &torn, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[0; 64], &[0xff; 4096], b""];
    for bytes in garbage {
        let mut connection = upgraded(&cluster, at);
        connection.write(bytes).unwrap();
        assert!(
            connection.is_closed_within(Duration::from_secs(20)),
            "open after {:?}",
            bytes.escape_ascii().to_string()
        );
    }
    // After a proper introduction too.
    for bytes in [&[0, 0, 0, 3, 9, 9, 9][..], &[0xff; 64], &[0, 0, 0, 0]] {
        let mut connection = upgraded(&cluster, at);
        connection.write(&whole).unwrap();
        assert!(matches!(Frame::decode(connection.frame().unwrap().into()), Ok(Frame::Welcome(_))));
        connection.write(bytes).unwrap();
        assert!(connection.is_closed_within(Duration::from_secs(20)), "open after {bytes:?}");
    }
    let key = cluster.key(0, "k");
    cluster.put_key(cluster.leader(1), key.as_bytes(), b"v").expect(201);
    assert!(!cluster.log(at).contains("panicked"), "{}", cluster.log(at));
}

#[test]
fn node_of_another_cluster_is_refused_and_stops_nobody() {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    let (node, other) = (cluster.leader(0), cluster.leader(1));
    let (key, others) = (cluster.key(0, "mine"), cluster.key(1, "theirs"));
    cluster.put_key(node, key.as_bytes(), b"v").expect(201);
    cluster.put_key(node, others.as_bytes(), b"v").expect(201);
    cluster.wait_converged();
    let knows_uid = |cluster: &Cluster, at: At| {
        wait::until("the cluster's uid is known", || {
            let uid = cluster.status(at)["cluster"].clone();
            if uid.is_string() { Ok(uid) } else { Err(uid) }
        })
    };
    let another = Cluster::start(Spec::shards(2));
    for each in [&cluster, &another] {
        each.all().for_each(|at| drop(knows_uid(each, at)));
    }
    std::thread::sleep(Duration::from_millis(1500)); // and written down
    another.all().for_each(|at| assert!(another.stop(at).success()));
    cluster.all().for_each(|at| assert!(cluster.stop(at).success()));

    // Another cluster's file, of the same shard of the same placement, at an address of this one.
    cluster.move_db(node, &another.db_file(node));
    cluster.restart(node);
    let stranger = knows_uid(&cluster, node);
    for at in [other, cluster.replica(1)] {
        cluster.restart(at);
    }
    assert_ne!(knows_uid(&cluster, other), stranger);
    let answer = cluster.get_key(other, key.as_bytes(), "");
    assert!((400..600).contains(&answer.status), "{answer:?}");
    let said = answer.text();
    assert!(said.contains("cluster") && said.contains("data"), "the difference and the remedy: {said}");
    wait::until("the log and the status name the stranger", || {
        let (log, problems) = (cluster.log(other), cluster.status(other)["problems"].to_string());
        if log.contains("another cluster") || (log.contains("belongs to cluster") && problems.contains("cluster")) {
            Ok(())
        } else {
            Err((log, problems))
        }
    });
    // Those who belong together go on.
    cluster.put_key(other, others.as_bytes(), b"w").expect(204);
    wait::until("the replica has it", || {
        let seen = cluster.local(cluster.replica(1), others.as_bytes());
        if seen == Some(b"w".to_vec()) { Ok(()) } else { Err(seen) }
    });

    // The right file back, and all is as it was.
    assert!(cluster.stop(node).success());
    cluster.move_db(node, &cluster.db_file(node));
    cluster.restart(node);
    cluster.restart(cluster.replica(0));
    wait::until("the nodes talk again", || {
        let answer = cluster.get_key(other, key.as_bytes(), "");
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    });
}
