//! `/next-replication-key`: API.md, section 1, last row: the oldest entry of this node's queue that some replica has not
//! acknowledged. The replica here is dead when there must be such an entry.

use serde_json::{Value, json};

use crate::support::{Cluster, Spec, wait};

fn next(cluster: &Cluster) -> Value {
    let answer = cluster.get(cluster.leader(0), "/next-replication-key").expect(200);
    assert!(answer.must("content-type").starts_with("application/json"), "{answer:?}");
    answer.json()
}

fn nothing() -> Value {
    json!({"Key": "", "Value": "", "Op": "", "Err": null})
}

#[test]
fn queue_shows_the_oldest_unacknowledged_entry_and_is_only_a_window() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1));
    let leader = cluster.leader(0);
    cluster.get(leader, "/set?key=seen&value=by-the-replica").expect(200);
    cluster.wait_converged();
    wait::until("the queue is empty", || if next(&cluster) == nothing() { Ok(()) } else { Err(next(&cluster)) });

    cluster.kill9(cluster.replica(0));
    cluster.get(leader, "/set?key=first&value=1").expect(200);
    cluster.get(leader, "/set?key=second&value=2").expect(200);
    // Looking takes nothing away.
    for _ in 0..3 {
        assert_eq!(next(&cluster), json!({"Key": "first", "Value": "1", "Op": "put", "Err": null}));
    }
    cluster.restart(cluster.replica(0));
    cluster.wait_converged();
    assert_eq!(cluster.local(cluster.replica(0), b"second"), Some(b"2".to_vec()));
    wait::until("the queue is empty again", || if next(&cluster) == nothing() { Ok(()) } else { Err(next(&cluster)) });
    let at_replica = cluster.get(cluster.replica(0), "/next-replication-key").expect(200).json();
    assert_eq!(at_replica, nothing());
}

#[test]
fn queue_shows_deletes_and_what_is_not_utf8() {
    let cluster = Cluster::start(Spec::shards(1).replicas(1));
    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    cluster.put_key(leader, b"gone", b"v").expect(201);
    cluster.wait_converged();

    cluster.kill9(replica);
    cluster.delete_key(leader, b"gone").expect(204);
    let shown = next(&cluster);
    assert_eq!((&shown["Key"], &shown["Op"], &shown["Err"]), (&json!("gone"), &json!("delete"), &Value::Null));
    cluster.restart(replica);
    cluster.wait_converged();
    wait::until("the queue is empty", || if next(&cluster) == nothing() { Ok(()) } else { Err(next(&cluster)) });

    cluster.kill9(replica);
    cluster.put_key(leader, b"\xff", b"\x00\xff").expect(201);
    let shown = next(&cluster);
    assert_eq!(shown.get("Key"), None, "{shown}");
    assert_eq!(shown.get("Value"), None, "{shown}");
    assert_eq!(shown["KeyB64"].as_str().map(|text| text.trim_end_matches('=')), Some("_w"));
    assert_eq!(shown["ValueB64"].as_str().map(|text| text.trim_end_matches('=')), Some("AP8"));
    assert_eq!(shown["Op"], "put");
}
