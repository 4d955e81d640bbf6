//! Controls, as a parameter or a header: API.md, section 3. Redirects have a file of their own.

use crate::fixture::api;
use crate::support::problem::refused;
use crate::support::{Request, wait};

#[test]
fn control_in_query_and_header_may_agree_but_not_disagree() {
    let api = api();
    let key = api.key(0, "control-both");
    api.put_key(api.leader(0), key.as_bytes(), b"v").expect(201);
    let ask = |query: &str, name: &str, value: &str| {
        api.send(api.leader(0), &Request::get(format!("/v1/kv/{key}?{query}")).header(name, value))
    };
    ask("consistency=leader", "KV-Consistency", "leader").expect(200);
    ask("consistency=any", "KV-Consistency", "any").expect(200);
    ask("timeout=5s", "KV-Timeout", "5s").expect(200);
    refused(&ask("consistency=any", "KV-Consistency", "leader"), 400, "bad-request");
    refused(&ask("timeout=5s", "KV-Timeout", "6s"), 400, "bad-request");
}

#[test]
fn control_header_given_twice_is_refused() {
    let api = api();
    let request =
        Request::get("/get?key=control-twice").header("KV-Consistency", "any").header("KV-Consistency", "leader");
    refused(&api.send(api.leader(0), &request), 400, "bad-request");
}

#[test]
fn control_values_that_are_none_are_refused() {
    let api = api();
    for query in [
        "consistency=",
        "consistency=strong",
        "consistency=Leader",
        "route=",
        "route=elsewhere",
        "timeout=",
        "timeout=soon",
        "timeout=-1s",
        "ack=",
        "ack=banana",
        "ack=replicas:0",
        "ack=all&ack_timeout=soon",
        "ack=all&ack_timeout=0s",
        "ack=all&ack_timeout=31s",
        "ack_timeout=1s",
        "ack=replicas:2", // of one replica
    ] {
        let put = Request::new("PUT", format!("/v1/kv/control-bad?{query}")).body("v");
        refused(&api.send(api.leader(0), &put), 400, "bad-request");
    }
    for (name, value) in [("KV-Consistency", "strong"), ("KV-Route", "elsewhere"), ("KV-Timeout", "x"), ("KV-Ack", "x")]
    {
        let put = Request::new("PUT", "/v1/kv/control-bad").header(name, value).body("v");
        refused(&api.send(api.leader(0), &put), 400, "bad-request");
    }
    api.lacks("control-bad");
}

#[test]
fn consistency_leader_is_the_default_at_every_node() {
    let api = api();
    let key = api.key(0, "consistency-default");
    for round in 0..20 {
        let value = format!("round {round}");
        api.put_key(api.leader(0), key.as_bytes(), value.as_bytes());
        for at in api.all() {
            for controls in ["", "consistency=leader"] {
                assert_eq!(api.get_key(at, key.as_bytes(), controls).expect(200).text(), value, "at {at:?}");
            }
        }
    }
}

#[test]
fn consistency_any_by_header_is_served_by_the_replica_itself() {
    let api = api();
    let key = api.key(0, "consistency-header");
    api.put_key(api.leader(0), key.as_bytes(), b"v").expect(201);
    let answer = wait::until("the replica has it", || {
        let request = Request::get(format!("/get?key={key}")).header("KV-Consistency", "any");
        let answer = api.send(api.replica(0), &request);
        if answer.status == 200 { Ok(answer) } else { Err(answer) }
    });
    assert_eq!(answer.must("kv-node"), api.address(api.replica(0)).to_string());
}

#[test]
fn ack_leader_is_the_default_and_may_be_said() {
    let api = api();
    let key = api.key(0, "ack-leader");
    for at in [api.leader(0), api.stranger()] {
        api.get(at, format!("/set?key={key}&value=v&ack=leader")).expect(200);
        api.send(at, &Request::new("PUT", format!("/v1/kv/{key}")).header("KV-Ack", "leader").body("v")).expect(204);
        api.get(at, format!("/delete?key={key}&ack=leader")).expect(200);
    }
}

#[test]
fn ack_of_replicas_is_on_their_disks_when_it_is_answered() {
    let api = api();
    let key = api.key(0, "ack-replicas");
    for (n, at) in [api.leader(0), api.stranger(), api.replica(0)].into_iter().enumerate() {
        let local = || api.local(api.replica(0), key.as_bytes()).map(|value| String::from_utf8(value).unwrap());
        let value = format!("{n}-by-parameter");
        let answer = api.get(at, format!("/set?key={key}&value={value}&ack=all&ack_timeout=30s")).expect(200);
        assert_eq!((answer.must("kv-acks"), local()), ("2/2", Some(value)));
        let value = format!("{n}-by-header");
        let put = Request::new("PUT", format!("/v1/kv/{key}")).header("KV-Ack", "replicas:1").body(value.as_str());
        let answer = api.send(at, &put.header("KV-Ack-Timeout", "30s")).expect(204);
        assert_eq!((answer.must("kv-acks"), local()), ("2/2", Some(value)));
        let answer = api.get(at, format!("/delete?key={key}&ack=all&ack_timeout=30s")).expect(200);
        assert_eq!((answer.must("kv-acks"), local()), ("2/2", None));
        let form = Request::new("POST", "/set").header("Content-Type", "application/x-www-form-urlencoded");
        let answer = api.send(at, &form.body(format!("key={key}&value=form&ack=all&ack_timeout=30s"))).expect(200);
        assert_eq!((answer.must("kv-acks"), local()), ("2/2", Some("form".to_owned())));
        let delete = Request::new("DELETE", format!("/v1/kv/{key}?ack=replicas:1&ack_timeout=30s"));
        assert_eq!((api.send(at, &delete).expect(204).must("kv-acks"), local()), ("2/2", None));
    }
}

#[test]
fn ack_means_nothing_on_a_read_and_is_refused_there() {
    let api = api();
    for at in [api.leader(0), api.stranger()] {
        refused(&api.get(at, "/get?key=ack-read&ack=all"), 400, "bad-request");
        refused(&api.get(at, "/v1/kv/ack-read?ack=replicas:1&ack_timeout=1s"), 400, "bad-request");
    }
}

#[test]
fn timeout_is_taken_as_parameter_and_header() {
    let api = api();
    let key = api.key(0, "timeout");
    for at in [api.leader(0), api.stranger()] {
        for timeout in ["20s", "15000ms", "30s"] {
            api.get(at, format!("/set?key={key}&value=v&timeout={timeout}")).expect(200);
            api.send(at, &Request::get(format!("/get?key={key}")).header("KV-Timeout", timeout)).expect(200);
        }
    }
}

#[test]
fn route_local_is_served_by_a_copy_or_refused_with_the_way() {
    let api = api();
    let key = api.key(0, "route-local");
    api.put_key(api.leader(0), key.as_bytes(), b"v").expect(201);
    for local in ["route=local", "route=local&consistency=any"] {
        let answer = api.get_key(api.leader(0), key.as_bytes(), local).expect(200);
        assert_eq!(answer.text(), "v");
        for at in [api.leader(1), api.replica(1)] {
            let body = refused(&api.get_key(at, key.as_bytes(), local), 421, "wrong-shard");
            assert_eq!(body["shard"], api.shard_name(0));
            assert_eq!(body["leader"], api.address(api.leader(0)).to_string());
        }
    }
    let answer = wait::until("the replica has it", || {
        let answer = api.get_key(api.replica(0), key.as_bytes(), "route=local&consistency=any");
        if answer.status == 200 { Ok(answer) } else { Err(answer) }
    });
    assert_eq!((answer.text().as_str(), answer.must("kv-role")), ("v", "replica"));
}

#[test]
fn route_local_write_away_from_the_leader_is_refused() {
    let api = api();
    let key = api.key(0, "route-local-write");
    api.put_key(api.leader(0), key.as_bytes(), b"v").expect(201);
    for at in [api.leader(1), api.replica(1), api.replica(0)] {
        for request in [
            Request::get(format!("/set?key={key}&value=evil&route=local")),
            Request::new("PUT", format!("/v1/kv/{key}")).header("KV-Route", "local").body("evil"),
            Request::new("DELETE", format!("/v1/kv/{key}?route=local")),
            Request::get(format!("/delete?key={key}&route=local")),
        ] {
            let body = refused(&api.send(at, &request), 421, "wrong-shard");
            assert_eq!(body["leader"], api.address(api.leader(0)).to_string());
        }
    }
    api.holds(&key, "v");
    api.get(api.leader(0), format!("/set?key={key}&value=w&route=local")).expect(200);
    api.holds(&key, "w");
}

#[test]
fn route_forward_may_be_said() {
    let api = api();
    let key = api.key(0, "route-forward");
    let answer = api.get(api.stranger(), format!("/set?key={key}&value=v&route=forward")).expect(200);
    assert!(answer.header("kv-forwarded").is_some());
    api.holds(&key, "v");
}
