//! Reads that say how old they may be, or belong to a session: API.md, section 3, `bounded`, `session`, `KV-Session`.

use crate::fixture::{Api, api};
use crate::support::encode::base64url;
use crate::support::problem::refused;
use crate::support::{At, Cluster, Request, Response, Spec, wait};

/// A read of a key with further controls.
fn read(api: &Api, at: At, key: &str, controls: &str) -> Response {
    api.get_key(at, key.as_bytes(), controls)
}

fn token(answer: &Response) -> String {
    answer.must("kv-session").to_owned()
}

/// A key of shard 0 that all copies hold.
fn held(api: &Api, stem: &str) -> String {
    let key = api.key(0, stem);
    api.put_key(api.leader(0), key.as_bytes(), b"v").expect(201);
    wait::until("the replica has it", || {
        let answer = read(api, api.replica(0), &key, "route=local");
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    });
    key
}

#[test]
fn bounded_at_a_replica_within_the_bound_is_its_own_copy_and_says_its_age() {
    let api = api();
    let key = held(&api, "bounded-own");
    for controls in ["", "&route=local"] {
        let answer = read(&api, api.replica(0), &key, &format!("consistency=bounded&max_stale=30s{controls}"));
        let answer = answer.expect(200);
        assert_eq!((answer.must("kv-consistency"), answer.must("kv-role")), ("bounded", "replica"));
        assert_eq!(answer.must("kv-node"), api.address(api.replica(0)).to_string());
        assert!(answer.must("kv-stale-ms").parse::<u64>().unwrap() <= 30_000, "{answer:?}");
        assert_eq!(answer.header("kv-session"), None);
    }
    let missing = read(&api, api.replica(0), &api.key(0, "bounded-none"), "consistency=bounded&max_stale=30s");
    assert_eq!((missing.status, missing.must("kv-consistency")), (404, "bounded"));
}

#[test]
fn bounded_beyond_the_bound_is_the_leaders_or_refused_where_it_may_not_travel() {
    let api = api();
    let key = held(&api, "bounded-leaders");
    for at in api.all() {
        let answer = read(&api, at, &key, "consistency=bounded&max_stale=0").expect(200);
        assert_eq!((answer.must("kv-consistency"), answer.must("kv-stale-ms")), ("leader", "0"), "at {at:?}");
        assert_eq!(answer.text(), "v");
    }
    let answer = read(&api, api.replica(0), &key, "consistency=bounded&max_stale=0&route=local");
    let body = refused(&answer, 503, "too-stale");
    assert_eq!(body["stale_ms"].to_string(), answer.must("kv-stale-ms"), "the bound that is known: {answer:?}");
    assert_eq!(body["retryable"], true);
    let far = read(&api, api.stranger(), &key, "consistency=bounded&max_stale=30s&route=local");
    refused(&far, 421, "wrong-shard");
}

#[test]
fn bounded_and_max_stale_without_each_other_are_400_and_name_the_missing_half() {
    let api = api();
    let key = api.key(0, "bounded-half");
    for at in [api.leader(0), api.replica(0), api.stranger()] {
        let without_age = [
            Request::get(format!("/get?key={key}&consistency=bounded")),
            Request::get(format!("/v1/kv/{key}")).header("KV-Consistency", "bounded"),
        ];
        for request in without_age {
            let body = refused(&api.send(at, &request), 400, "bad-request");
            assert!(body["hint"].as_str().unwrap().contains("max_stale=500ms"), "{body}");
        }
        let without_kind = [
            Request::get(format!("/get?key={key}&max_stale=500ms")),
            Request::get(format!("/v1/kv/{key}")).header("KV-Max-Stale", "500ms"),
            Request::get(format!("/v1/kv/{key}?consistency=any&max_stale=500ms")),
        ];
        for request in without_kind {
            let body = refused(&api.send(at, &request), 400, "bad-request");
            assert!(body["hint"].as_str().unwrap().contains("consistency=bounded"), "{body}");
        }
    }
    let headers = Request::get(format!("/get?key={}", held(&api, "bounded-headers")))
        .header("KV-Consistency", "bounded")
        .header("KV-Max-Stale", "30s");
    assert_eq!(api.send(api.replica(0), &headers).expect(200).must("kv-consistency"), "bounded");
}

#[test]
fn session_reads_its_own_writes_at_every_node_whoever_took_them() {
    let api = api();
    let key = api.key(0, "session-own");
    for writer in api.all() {
        for reader in api.all() {
            let value = format!("{writer:?} for {reader:?}");
            let put = api.put_key(writer, key.as_bytes(), value.as_bytes());
            let answer = read(&api, reader, &key, &format!("consistency=session&session={}", token(&put))).expect(200);
            assert_eq!(answer.text(), value);
            assert!(matches!(answer.must("kv-consistency"), "leader" | "session"), "{answer:?}");
            let header = Request::get(format!("/get?key={key}"))
                .header("KV-Consistency", "session")
                .header("KV-Session", token(&answer));
            assert_eq!(api.send(reader, &header).expect(200).text(), value, "with the token of a read");
        }
    }
    for (deleter, reader) in [(api.leader(0), api.replica(0)), (api.stranger(), api.replica(0))] {
        api.put_key(deleter, key.as_bytes(), b"here again");
        for found in [true, false] {
            let deleted = api.delete_key(deleter, key.as_bytes()).expect(204);
            assert_eq!(deleted.header("etag").is_some(), found);
            let answer = read(&api, reader, &key, &format!("consistency=session&session={}", token(&deleted)));
            assert_eq!(answer.status, 404, "{answer:?}");
            assert!(answer.header("kv-session").is_some(), "a 404 moves the token, too: {answer:?}");
        }
    }
}

#[test]
fn session_without_a_token_begins_one_at_the_copy_that_is_asked() {
    let api = api();
    let key = held(&api, "session-begins");
    let answer = read(&api, api.replica(0), &key, "consistency=session").expect(200);
    assert_eq!((answer.must("kv-consistency"), answer.must("kv-role")), ("session", "replica"));
    let further = format!("consistency=session&session={}", token(&answer));
    let head = Request::new("HEAD", format!("/v1/kv/{key}?{further}"));
    for at in api.all() {
        assert_eq!(read(&api, at, &key, &further).expect(200).text(), "v");
        assert!(api.send(at, &head).expect(200).header("kv-session").is_some());
    }
}

#[test]
fn token_with_a_default_read_is_a_leaders_read_that_moves_it() {
    let api = api();
    let key = held(&api, "session-leader");
    let put = api.put_key(api.stranger(), key.as_bytes(), b"w").expect(204);
    for at in api.all() {
        let answer = read(&api, at, &key, &format!("session={}", token(&put))).expect(200);
        assert_eq!((answer.must("kv-consistency"), answer.must("kv-role")), ("leader", "leader"));
        assert!(answer.header("kv-session").is_some());
    }
    for consistency in ["any", "bounded&max_stale=5s"] {
        let answer = read(&api, api.replica(0), &key, &format!("consistency={consistency}&session={}", token(&put)));
        let body = refused(&answer, 400, "bad-request");
        assert!(body["hint"].as_str().unwrap().contains("consistency=session"), "{body}");
    }
}

#[test]
fn token_comes_with_every_write_and_with_no_read_that_does_not_ask() {
    let api = api();
    let key = held(&api, "session-quiet");
    for at in api.all() {
        for (method, target) in [
            ("GET", format!("/set?key={key}&value=v")),
            ("PUT", format!("/v1/kv/{key}")),
            ("DELETE", format!("/v1/kv/{key}")),
            ("GET", format!("/delete?key={key}")),
        ] {
            let first = token(&api.send(at, &Request::new(method, &target)));
            let request = Request::new(method, &target).header("KV-Session", &first);
            assert!(token(&api.send(at, &request)).len() <= first.len() + 2, "one shard, one position");
        }
        for target in [format!("/get?key={key}"), format!("/v1/kv/{key}"), format!("/get?key={key}&consistency=any")] {
            assert_eq!(api.get(at, target).header("kv-session"), None);
        }
    }
}

#[test]
fn token_keeps_what_it_has_of_other_shards() {
    let api = api();
    let keys = [api.key(0, "session-two"), api.key(1, "session-two")];
    let mut session = String::new();
    for round in 0..4 {
        let (key, value) = (&keys[round % 2], format!("{round}"));
        let mut request = Request::new("PUT", format!("/v1/kv/{key}")).body(&value);
        if !session.is_empty() {
            request = request.header("KV-Session", &session);
        }
        session = token(&api.send(api.stranger(), &request));
    }
    for (key, value) in keys.iter().zip(["2", "3"]) {
        for at in api.all() {
            let answer = read(&api, at, key, &format!("consistency=session&session={session}")).expect(200);
            assert_eq!(answer.text(), value, "at {at:?}");
        }
    }
}

#[test]
fn token_that_is_malformed_or_too_long_or_foreign_is_400_and_nothing_is_written() {
    let api = api();
    let key = held(&api, "session-bad");
    let good = token(&api.put_key(api.leader(0), key.as_bytes(), b"v"));
    let other = Cluster::start(Spec::shards(1));
    wait::until("the other cluster has a uid", || {
        let status = other.status(other.leader(0));
        if status["cluster"].is_string() { Ok(()) } else { Err(status) }
    });
    wait::until("this one has", || {
        let known = api.all().map(|at| api.status(at)["cluster"].clone()).collect::<Vec<_>>();
        if known.iter().all(serde_json::Value::is_string) { Ok(()) } else { Err(known) }
    });
    let foreign = token(&other.put_key(other.leader(0), b"k", b"v").expect(201));
    let cut = good[..good.len() - 1].to_owned();
    let swapped = format!("{}{}", &good[2..4], &good[2..]);
    for bad in [String::new(), "x".into(), cut, swapped, base64url([1; 40]), "A".repeat(6_200), foreign] {
        for at in [api.leader(0), api.replica(0), api.stranger()] {
            let get = read(&api, at, &key, &format!("consistency=session&session={bad}"));
            let body = refused(&get, 400, "bad-request");
            assert!(body["detail"].as_str().unwrap().contains("token"), "{body}");
            let put = Request::new("PUT", format!("/v1/kv/{key}")).header("KV-Session", &bad).body("evil");
            refused(&api.send(at, &put), 400, "bad-request");
        }
    }
    api.holds(&key, "v");
}

#[test]
fn session_where_no_copy_is_and_nothing_may_travel_is_wrong_shard() {
    let api = api();
    let key = held(&api, "session-local");
    let put = token(&api.put_key(api.leader(0), key.as_bytes(), b"w"));
    let local = format!("consistency=session&session={put}&route=local");
    refused(&read(&api, api.stranger(), &key, &local), 421, "wrong-shard");
    // The replica waits until it has it.
    let answer = read(&api, api.replica(0), &key, &local).expect(200);
    assert_eq!((answer.text().as_str(), answer.must("kv-consistency")), ("w", "session"));
    assert_eq!(read(&api, api.leader(0), &key, &local).expect(200).must("kv-consistency"), "leader");
}

#[test]
fn kv_shows_the_token_to_who_asks_and_takes_it_back() {
    let api = api();
    let key = api.key(0, "session-kv");
    let set = api.kv(api.stranger(), &["set", &key, "v", "-o", "json"], "");
    let stored: serde_json::Value = serde_json::from_str(&set.out).unwrap();
    let session = stored["session"].as_str().unwrap();
    let get = ["get", &key, "--consistency", "session", "--session", session];
    let got = api.kv(api.replica(0), &get, "");
    assert_eq!((got.code, got.out.as_str()), (0, "v"), "{got:?}");
    let got = api.kv(api.replica(0), &["get", &key, "--consistency", "bounded", "--max-stale", "30s"], "");
    assert_eq!((got.code, got.out.as_str()), (0, "v"), "{got:?}");
    let got = api.kv(api.replica(0), &["get", &key, "--consistency", "session", "--session", "rubbish"], "");
    assert_eq!(got.code, 1, "{got:?}");
}
