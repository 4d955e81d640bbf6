//! `/set`: API.md, section 1, first row, with a value in the query or a raw body. Forms have a file of their own.

use crate::fixture::api;
use crate::support::Request;
use crate::support::problem::refused;

#[test]
fn set_value_in_query_answers_ok_for_each_method() {
    let api = api();
    for method in ["GET", "PUT", "POST"] {
        let key = format!("set-query-{method}");
        let answer =
            api.send(api.leader(0), &Request::new(method, format!("/set?key={key}&value=v-{method}"))).expect(200);
        assert_eq!(answer.text(), "OK\n", "{answer:?}");
        assert_eq!(answer.must("content-type"), "text/plain; charset=utf-8");
        api.holds(&key, format!("v-{method}"));
    }
}

#[test]
fn set_raw_body_is_the_value_byte_for_byte() {
    let api = api();
    let every_byte: Vec<u8> = (0..=255).collect();
    for method in ["PUT", "POST"] {
        for value in [&b"\x00\xff"[..], b"%41+&=\r\n", b"", &every_byte] {
            let request = Request::new(method, "/set?key=set-raw").body(value);
            assert_eq!(api.send(api.leader(0), &request).expect(200).text(), "OK\n");
            api.holds("set-raw", value);
        }
    }
}

#[test]
fn set_raw_body_with_another_label_is_not_parsed() {
    let api = api();
    for label in ["text/plain", "application/octet-stream", "application/json", "application/x-www-form", "x"] {
        let request = Request::new("POST", "/set?key=set-label").header("Content-Type", label).body("value=abc");
        api.send(api.leader(0), &request).expect(200);
        api.holds("set-label", "value=abc");
    }
}

#[test]
fn set_chunked_body_is_the_value() {
    let api = api();
    let request = Request::new("PUT", "/set?key=set-chunked")
        .header("Transfer-Encoding", "chunked")
        .body("3\r\n\x00ab\r\n4;x=y\r\ncdef\r\n0\r\n\r\n");
    api.send(api.leader(0), &request).expect(200);
    api.holds("set-chunked", "\x00abcdef");
}

#[test]
fn set_without_value_and_without_body_stores_an_empty_value() {
    let api = api();
    for (method, request) in [
        ("PUT", Request::new("PUT", "/set?key=set-empty-PUT")),
        ("POST", Request::new("POST", "/set?key=set-empty-POST").body("")),
    ] {
        api.send(api.leader(0), &request).expect(200);
        let key = format!("set-empty-{method}");
        api.holds(&key, "");
    }
    api.get(api.leader(0), "/set?key=set-empty-query&value=").expect(200);
    api.holds("set-empty-query", "");
}

#[test]
fn set_value_parameter_beside_a_raw_body_is_refused() {
    let api = api();
    for method in ["PUT", "POST"] {
        let request = Request::new(method, "/set?key=set-beside&value=a").body("b");
        refused(&api.send(api.leader(0), &request), 400, "bad-request");
    }
    api.lacks("set-beside");
    let with_empty_body = Request::new("PUT", "/set?key=set-beside&value=a").body("");
    api.send(api.leader(0), &with_empty_body).expect(200);
    api.holds("set-beside", "a");
}

#[test]
fn set_get_without_value_is_refused() {
    let api = api();
    refused(&api.get(api.leader(0), "/set?key=set-get-no-value"), 400, "bad-request");
    api.lacks("set-get-no-value");
}

#[test]
fn set_without_key_is_refused() {
    let api = api();
    for target in ["/set?value=v", "/set?key=&value=v", "/set?key&value=v", "/set"] {
        refused(&api.get(api.leader(0), target), 400, "bad-request");
    }
}

#[test]
fn set_parameter_given_twice_is_refused_even_when_equal() {
    let api = api();
    for target in [
        "/set?key=twice&key=twice&value=v",
        "/set?key=twice&value=v&value=v",
        "/set?key=twice&value=v&route=forward&route=forward",
        "/set?key=twice&k%65y=twice&value=v",
    ] {
        refused(&api.get(api.leader(0), target), 400, "bad-request");
    }
    api.lacks("twice");
}

#[test]
fn set_unknown_parameter_is_refused() {
    let api = api();
    for target in ["/set?key=set-unknown&value=v&colour=red", "/set?key=set-unknown&value=v&Value=w"] {
        refused(&api.get(api.leader(0), target), 400, "bad-request");
    }
    api.lacks("set-unknown");
}

#[test]
fn set_multipart_is_refused_as_media_type() {
    let api = api();
    for label in ["multipart/form-data; boundary=x", "Multipart/Form-Data"] {
        let request = Request::new("POST", "/set?key=set-multipart").header("Content-Type", label).body("--x--\r\n");
        refused(&api.send(api.leader(0), &request), 415, "unsupported-media-type");
    }
    api.lacks("set-multipart");
}

#[test]
fn set_overwrites_and_counts_in_utf8_too() {
    let api = api();
    api.get(api.leader(0), "/set?key=set-%C3%BC&value=eins").expect(200);
    api.get(api.leader(0), "/set?key=set-%C3%BC&value=zwei%E2%82%AC").expect(200);
    api.holds("set-ü", "zwei€");
}
