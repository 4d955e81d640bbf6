//! `/get`: API.md, section 1, second row, and HEAD.

use crate::fixture::api;
use crate::support::Request;
use crate::support::problem::refused;

#[test]
fn get_gives_exactly_the_bytes() {
    let api = api();
    let key = api.key(0, "get-bytes");
    let value: Vec<u8> = [b"\x00\xff\r\n\r\nHTTP/1.1 200 OK\r\n\r\n".as_slice(), &vec![0x80; 70_000]].concat();
    api.put_key(api.leader(0), key.as_bytes(), &value).expect(201);
    for at in api.all() {
        let answer = api.get(at, format!("/get?key={key}")).expect(200);
        assert_eq!(answer.body, value, "through {at:?}");
        assert_eq!(answer.must("content-length"), value.len().to_string());
    }
}

#[test]
fn get_missing_key_is_404_and_an_empty_value_is_not() {
    let api = api();
    refused(&api.get(api.leader(0), "/get?key=get-missing"), 404, "key-not-found");
    api.get(api.leader(0), "/set?key=get-empty&value=").expect(200);
    let answer = api.get(api.leader(0), "/get?key=get-empty").expect(200);
    assert!(answer.body.is_empty());
    assert_eq!(answer.must("content-length"), "0");
}

#[test]
fn head_answers_like_get_without_the_body_at_every_node() {
    let api = api();
    let key = api.key(0, "head");
    api.put_key(api.leader(0), key.as_bytes(), &vec![7; 12_345]).expect(201);
    for at in api.all() {
        for target in [format!("/get?key={key}"), format!("/v1/kv/{key}")] {
            let get = api.get(at, &*target).expect(200);
            let head = api.send(at, &Request::new("HEAD", &*target)).expect(200);
            assert!(head.body.is_empty());
            for name in ["content-length", "content-type", "etag", "kv-shard", "kv-node", "kv-role", "kv-forwarded"] {
                assert_eq!(head.header(name), get.header(name), "{name} through {at:?}");
            }
            assert_eq!(head.must("content-length"), "12345");
        }
    }
}

#[test]
fn head_of_a_missing_key_is_404_without_body() {
    let api = api();
    let key = api.key(0, "head-missing");
    for at in [api.leader(0), api.stranger()] {
        let mut connection = crate::support::raw::Connection::open(api.address(at)).unwrap();
        let head = connection.ask(&Request::new("HEAD", format!("/get?key={key}"))).unwrap().expect(404);
        assert_eq!(head.must("content-type"), "application/problem+json");
        // The connection is still in step: no body came.
        connection.ask(&Request::get("/livez")).unwrap().expect(200);
    }
}

#[test]
fn get_without_key_with_two_or_with_unknown_parameters_is_refused() {
    let api = api();
    for target in ["/get", "/get?key=", "/get?key", "/get?key=a&key=a", "/get?key=a&value=b", "/get?key=a&colour=red"] {
        refused(&api.get(api.leader(0), target), 400, "bad-request");
    }
}

#[test]
fn get_ignores_accept_and_never_compresses() {
    let api = api();
    api.send(api.leader(0), &Request::new("PUT", "/set?key=get-accept").body("a".repeat(10_000))).expect(200);
    let request = Request::get("/get?key=get-accept")
        .header("Accept", "application/json")
        .header("Accept-Encoding", "gzip, br, zstd, deflate");
    let answer = api.send(api.leader(0), &request).expect(200);
    assert_eq!(answer.header("content-encoding"), None);
    assert_eq!(answer.body, "a".repeat(10_000).into_bytes());
}

#[test]
fn get_range_and_if_none_match_are_right_or_full() {
    let api = api();
    let key = api.key(0, "get-range");
    let etag = api.put_key(api.leader(0), key.as_bytes(), b"0123456789").expect(201).must("etag").to_owned();
    for at in [api.leader(0), api.stranger()] {
        let answer = api.send(at, &Request::get(format!("/v1/kv/{key}")).header("Range", "bytes=2-4"));
        match answer.status {
            200 => assert_eq!(answer.text(), "0123456789"),
            206 => assert_eq!(answer.text(), "234"),
            _ => panic!("{answer:?}"),
        }
        let answer = api.send(at, &Request::get(format!("/v1/kv/{key}")).header("If-None-Match", &etag));
        match answer.status {
            200 => assert_eq!(answer.text(), "0123456789"),
            304 => assert!(answer.body.is_empty()),
            _ => panic!("{answer:?}"),
        }
    }
}
