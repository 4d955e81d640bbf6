//! `Expect: 100-continue`: a body that will be refused is refused before it is sent, without a `100`.

use std::time::Duration;

use crate::fixture::{Api, api};
use crate::support::problem::refused;
use crate::support::raw::Connection;
use crate::support::{At, Request};

/// Announces a body of so many bytes and waits for what the server says to that.
fn announce(api: &Api, at: At, request: Request, length: usize) -> Connection {
    let mut connection = Connection::open(api.address(at)).unwrap();
    let head = request.header("Expect", "100-continue").header("Content-Length", length.to_string());
    connection.write(head.to_bytes(api.address(at))).unwrap();
    connection
}

#[test]
fn expect_of_a_welcome_body_is_answered_100_first() {
    let api = api();
    let key = api.key(0, "expect");
    for (at, status) in [(api.leader(0), 201), (api.stranger(), 204)] {
        let mut connection = announce(&api, at, Request::new("PUT", format!("/v1/kv/{key}")), 5);
        assert!(connection.hears_within(Duration::from_secs(20)), "a 100 comes before the body is sent");
        connection.write("hello").unwrap();
        let answer = connection.answer().unwrap().expect(status);
        assert_eq!(answer.informational, [100]);
        api.holds(&key, "hello");
    }
}

#[test]
fn expect_of_a_body_that_will_be_refused_gets_no_100() {
    let api = api();
    let key = api.key(0, "expect-refused");
    let path = format!("/v1/kv/{key}");
    for at in [api.leader(0), api.stranger()] {
        for (request, length, status, code) in [
            (Request::new("PUT", &path), (16 << 20) + 1, 413, "value-too-large"),
            (Request::new("PUT", &path), usize::MAX >> 1, 413, "value-too-large"),
            (Request::new("POST", format!("/set?key={key}")), 17 << 20, 413, "value-too-large"),
            (Request::new("PUT", &path).header("Origin", "null"), 5, 403, "cross-site"),
            (Request::new("PUT", &path).header("Content-Encoding", "gzip"), 5, 415, "unsupported-media-type"),
            (Request::new("PUT", &path).header("If-Match", "*"), 5, 501, "not-built"),
            (Request::new("PUT", "/nowhere"), 5, 404, "no-such-route"),
            (Request::new("PUT", "/get?key=a"), 5, 405, "method-not-allowed"),
            (Request::new("PUT", format!("{path}?colour=red")), 5, 400, "bad-request"),
            (Request::new("PUT", format!("/v1/kv/{}", "k".repeat(1025))), 5, 414, "key-too-long"),
            (Request::new("PUT", format!("/set?key={key}&value=v")), 5, 400, "bad-request"),
        ] {
            let mut connection = announce(&api, at, request, length);
            let answer = connection.answer().unwrap();
            refused(&answer, status, code);
            assert!(answer.informational.is_empty(), "a 100 before {answer:?}");
        }
    }
    api.lacks(&key);
}

#[test]
fn expect_oversized_body_without_expect_is_refused_before_it_is_whole() {
    let api = api();
    let mut connection = Connection::open(api.address(api.leader(0))).unwrap();
    let head = Request::new("PUT", "/v1/kv/expect-large").header("Content-Length", (1_usize << 40).to_string());
    connection.write(head.to_bytes(api.address(api.leader(0)))).unwrap();
    refused(&connection.answer().unwrap(), 413, "value-too-large");
    api.lacks("expect-large");
}

#[test]
fn expect_anything_else_is_417() {
    let api = api();
    let request = Request::new("PUT", "/v1/kv/expect-417").header("Expect", "a-miracle").body("v");
    refused(&api.send(api.leader(0), &request), 417, "expectation-failed");
    api.lacks("expect-417");
}
