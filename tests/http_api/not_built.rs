//! What is documented and not built yet answers `501 not-built`, `applied: no`: never less, never in silence.

use crate::fixture::api;
use crate::support::Request;
use crate::support::problem::refused;

#[test]
fn routes_of_later_issues_are_501() {
    let api = api();
    for (method, target) in [
        ("POST", "/purge"),
        ("GET", "/v1/keys"),
        ("GET", "/v1/keys?prefix=a&after=b&limit=3&values=true"),
        ("POST", "/v1/batch"),
        ("POST", "/v1/batch?atomic=shard"),
        ("GET", "/v1/watch?prefix=a"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/"),
    ] {
        for at in [api.leader(0), api.replica(0)] {
            refused(&api.send(at, &Request::new(method, target)), 501, "not-built");
        }
    }
}

#[test]
fn conditions_and_controls_of_writes_are_never_ignored() {
    let api = api();
    let key = api.key(0, "not-built");
    api.put_key(api.leader(0), key.as_bytes(), b"good").expect(201);
    for at in [api.leader(0), api.stranger(), api.replica(0)] {
        for parameter in ["ttl=60s"] {
            for (method, target) in [
                ("GET", format!("/set?key={key}&value=evil&{parameter}")),
                ("PUT", format!("/v1/kv/{key}?{parameter}")),
            ] {
                refused(&api.send(at, &Request::new(method, target)), 501, "not-built");
            }
        }
        for (name, value) in
            [("If-Match", "\"1.1.1\""), ("If-Match", "*"), ("If-None-Match", "*"), ("Idempotency-Key", "once")]
        {
            for (method, target) in [
                ("GET", format!("/set?key={key}&value=evil")),
                ("POST", format!("/set?key={key}&value=evil")),
                ("PUT", format!("/v1/kv/{key}")),
                ("DELETE", format!("/v1/kv/{key}")),
                ("GET", format!("/delete?key={key}")),
            ] {
                refused(&api.send(at, &Request::new(method, target).header(name, value)), 501, "not-built");
            }
        }
    }
    api.holds(&key, "good");
}
