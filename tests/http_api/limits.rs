//! Limits: the defaults, that they can be set, and that a refusal names the limit and the setting that raises it.

use serde_json::Value;

use crate::fixture::api;
use crate::support::encode::base64url;
use crate::support::problem::{problem, refused, well_formed};
use crate::support::raw::Connection;
use crate::support::{Cluster, Request, Spec, wait};

/// The problem says the number and the setting, somewhere a person reads.
#[track_caller]
fn names(problem: &Value, limit: &str, setting: &str) {
    let text = problem.to_string().replace([',', '_', ' '], "");
    assert!(text.contains(limit), "{limit} in {problem}");
    assert!(text.contains(&setting.replace('_', "")), "{setting} in {problem}");
}

#[test]
fn key_of_1024_bytes_is_taken_and_of_1025_refused_wherever_it_stands() {
    let api = api();
    let longest = "k".repeat(1024);
    let too_long = "k".repeat(1025);
    api.get(api.leader(0), format!("/set?key={longest}&value=v")).expect(200);
    api.holds(&longest, "v");
    api.get(api.leader(0), format!("/v1/kv/{longest}")).expect(200);
    api.get(api.leader(0), format!("/v1/kv?key_b64={}", base64url(&longest))).expect(200);
    for request in [
        Request::get(format!("/set?key={too_long}&value=v")),
        Request::get(format!("/get?key={too_long}")),
        Request::get(format!("/delete?key={too_long}")),
        Request::get(format!("/v1/kv/{too_long}")),
        Request::new("PUT", format!("/v1/kv/{too_long}")).body("v"),
        Request::get(format!("/v1/kv?key_b64={}", base64url(&too_long))),
        Request::get(format!("/v1/explain?key={too_long}")),
    ] {
        names(&refused(&api.send(api.leader(0), &request), 414, "key-too-long"), "1024", "key_bytes_max");
    }
    let answer = api.post_form("/set", format!("key={too_long}&value=v"));
    names(&refused(&answer, 414, "key-too-long"), "1024", "key_bytes_max");
}

#[test]
fn key_length_counts_decoded_bytes() {
    let api = api();
    let written = "%6B".repeat(1023) + "%ff";
    api.send(api.leader(0), &Request::new("PUT", format!("/v1/kv/{written}")).body("v")).expect(201);
    assert_eq!(api.get(api.leader(1), format!("/get?key={written}")).expect(200).text(), "v");
}

/// Stores a large value for shard 0 through another node. A busy machine may need longer for it than a peer has to answer:
/// then the outcome is unknown, and it must come true.
fn put_through_stranger(api: &Cluster, key: &str, value: &[u8]) {
    let answer = api.put_key(api.leader(1), key.as_bytes(), value);
    if answer.status == 504 {
        problem(&answer, 504, "deadline", "unknown");
        wait::until("the large value is there", || {
            let seen = api.get_key(api.leader(0), key.as_bytes(), "");
            if seen.status == 200 { Ok(()) } else { Err(seen) }
        });
    } else {
        answer.expect(201);
    }
}

#[test]
fn value_of_16_mib_is_taken_and_one_byte_more_refused() {
    // A cluster of its own: so large a commit holds up the other writes of its shard.
    let api = Cluster::start(Spec::shards(2).replicas(1));
    let key = api.key(0, "limits-16mib");
    let value = vec![0xa5; 16 << 20];
    put_through_stranger(&api, &key, &value);
    assert!(api.get_key(api.replica(1), key.as_bytes(), "").expect(200).body == value);
    let more = vec![0xa5; (16 << 20) + 1];
    for at in [api.leader(0), api.leader(1)] {
        let answer = api.put_key(at, key.as_bytes(), &more);
        names(&refused(&answer, 413, "value-too-large"), &(16 << 20).to_string(), "value_bytes_max");
    }
    assert!(api.get_key(api.leader(0), key.as_bytes(), "").expect(200).body == value);
    api.delete_key(api.leader(0), key.as_bytes()).expect(204);
}

#[test]
fn settings_of_limits_are_obeyed_and_named() {
    let small = "[limits]\nkey_bytes_max = 10\nvalue_bytes_max = 100\n";
    let cluster = Cluster::start(Spec::shards(2).config(small));
    let key = cluster.key(0, "k");
    for at in [cluster.leader(0), cluster.leader(1)] {
        let put = |request: Request| cluster.send(at, &request);
        put(Request::new("PUT", format!("/v1/kv/{key}")).body([b'v'; 100]));
        let answer = put(Request::new("PUT", format!("/v1/kv/{key}")).body([b'w'; 101]));
        names(&refused(&answer, 413, "value-too-large"), "100", "value_bytes_max");
        let chunked = Request::new("PUT", format!("/v1/kv/{key}"))
            .header("Transfer-Encoding", "chunked")
            .body(format!("65\r\n{}\r\n0\r\n\r\n", "w".repeat(101)));
        names(&refused(&put(chunked), 413, "value-too-large"), "100", "value_bytes_max");
        let answer = put(Request::get(format!("/set?key={key}&value={}", "w".repeat(101))));
        names(&refused(&answer, 413, "value-too-large"), "100", "value_bytes_max");
        let answer = put(Request::get("/get?key=12345678901"));
        names(&refused(&answer, 414, "key-too-long"), "10", "key_bytes_max");
        assert_eq!(cluster.get_key(at, key.as_bytes(), "").expect(200).body, [b'v'; 100]);
    }
}

#[test]
fn header_block_beyond_16_kib_is_431() {
    let api = api();
    let request = Request::get("/get?key=a").header("X-Fill", "x".repeat(12 << 10));
    assert_ne!(api.send(api.leader(0), &request).status, 431);
    for request in [
        Request::get("/get?key=a").header("X-Fill", "x".repeat(20 << 10)),
        Request::get("/get?key=a").header("X-Fill", "x".repeat(200 << 10)),
    ] {
        let mut connection = Connection::open(api.address(api.leader(0))).unwrap();
        // Refused before it is parsed: the answer may have no body, and the connection may be reset on what is unread.
        if let Ok(answer) = connection.ask(&request) {
            assert_eq!(answer.status, 431, "{answer:?}");
            if !answer.body.is_empty() {
                well_formed(&answer);
            }
        }
    }
    api.get(api.leader(0), "/livez").expect(200);
}
