//! `/v1/kv/{key}`: API.md, section 2, first row.

use crate::fixture::api;
use crate::support::Request;
use crate::support::problem::refused;

#[test]
fn kv_put_is_201_then_204_and_delete_is_always_204() {
    let api = api();
    let key = api.key(0, "kv-life");
    for at in [api.leader(0), api.stranger(), api.replica(0), api.replica(1)] {
        let target = format!("/v1/kv/{key}");
        for (method, status) in [("PUT", 201), ("PUT", 204), ("DELETE", 204), ("DELETE", 204)] {
            let answer = api.send(at, &Request::new(method, &target).body("v")).expect(status);
            assert!(answer.body.is_empty(), "{method} through {at:?}: {answer:?}");
        }
        refused(&api.get(at, &target), 404, "key-not-found");
    }
}

#[test]
fn kv_put_stores_the_body_whatever_its_label() {
    let api = api();
    for label in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json", "a/b;c=d"]
    {
        let request = Request::new("PUT", "/v1/kv/kv-label").header("Content-Type", label).body("value=%41&key=x");
        api.send(api.leader(0), &request);
        let answer = api.get(api.leader(0), "/v1/kv/kv-label").expect(200);
        assert_eq!(answer.text(), "value=%41&key=x");
        assert_eq!(answer.must("content-type"), label);
        // It travels with the value, to every node and every route.
        let answer = api.get(api.leader(1), "/v1/kv/kv-label").expect(200);
        assert_eq!(answer.must("content-type"), label);
    }
}

#[test]
fn kv_content_type_defaults_to_octet_stream() {
    let api = api();
    api.send(api.leader(0), &Request::new("PUT", "/v1/kv/kv-no-label").body("<script>")).expect(201);
    for at in api.all() {
        let answer = api.get(at, "/v1/kv/kv-no-label").expect(200);
        assert_eq!(answer.must("content-type"), "application/octet-stream");
        assert_eq!(answer.must("x-content-type-options"), "nosniff");
    }
}

#[test]
fn kv_put_replaces_the_content_type_too() {
    let api = api();
    let put = |request: Request| api.send(api.leader(0), &request.body("v"));
    put(Request::new("PUT", "/v1/kv/kv-relabel").header("Content-Type", "text/html")).expect(201);
    put(Request::new("PUT", "/v1/kv/kv-relabel")).expect(204);
    let answer = api.get(api.leader(0), "/v1/kv/kv-relabel").expect(200);
    assert_eq!(answer.must("content-type"), "application/octet-stream");
}

#[test]
fn kv_content_encoding_is_refused() {
    let api = api();
    for at in [api.leader(0), api.stranger()] {
        let key = api.key(0, "kv-encoding");
        let request = Request::new("PUT", format!("/v1/kv/{key}")).header("Content-Encoding", "gzip").body("\x1f\x08");
        refused(&api.send(at, &request), 415, "unsupported-media-type");
        api.lacks(&key);
    }
}

#[test]
fn kv_put_without_body_stores_an_empty_value() {
    let api = api();
    api.send(api.leader(0), &Request::new("PUT", "/v1/kv/kv-empty")).expect(201);
    let answer = api.get(api.leader(0), "/v1/kv/kv-empty").expect(200);
    assert!(answer.body.is_empty());
    assert_eq!(answer.must("content-length"), "0");
    api.send(api.leader(0), &Request::new("PUT", "/v1/kv/kv-empty").body("")).expect(204);
}

#[test]
fn kv_put_chunked_through_a_stranger_stores_the_bytes() {
    let api = api();
    let key = api.key(0, "kv-chunked");
    let request = Request::new("PUT", format!("/v1/kv/{key}"))
        .header("Transfer-Encoding", "chunked")
        .body(b"2\r\n\x00\xff\r\n1\r\nz\r\n0\r\n\r\n");
    api.send(api.stranger(), &request).expect(201);
    api.holds(&key, b"\x00\xffz");
}

#[test]
fn kv_put_large_value_comes_back_through_every_node() {
    let api = api();
    let key = api.key(0, "kv-large");
    let value: Vec<u8> = (0..1 << 20).map(|n: u32| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    for at in api.all() {
        let answer = api.put_key(at, key.as_bytes(), &value);
        assert!(matches!(answer.status, 201 | 204), "{answer:?}");
        for reader in api.all() {
            assert!(api.get_key(reader, key.as_bytes(), "").expect(200).body == value, "{at:?} to {reader:?}");
        }
    }
}

#[test]
fn kv_post_is_refused_or_not_built() {
    let api = api();
    refused(&api.send(api.leader(0), &Request::new("POST", "/v1/kv/kv-post?op=incr&by=1")), 501, "not-built");
    refused(&api.send(api.leader(0), &Request::new("POST", "/v1/kv/kv-post?op=touch&ttl=9s")), 501, "not-built");
    let answer = api.send(api.leader(0), &Request::new("POST", "/v1/kv/kv-post").body("v"));
    assert!(matches!(answer.status, 400 | 405 | 501), "{answer:?}");
    api.lacks("kv-post");
}

#[test]
fn kv_and_the_curl_routes_see_one_store() {
    let api = api();
    let key = api.key(0, "kv-one-store");
    api.get(api.stranger(), format!("/set?key={key}&value=a")).expect(200);
    assert_eq!(api.get(api.replica(0), format!("/v1/kv/{key}")).expect(200).text(), "a");
    api.send(api.replica(1), &Request::new("PUT", format!("/v1/kv/{key}")).body("b")).expect(204);
    assert_eq!(api.get(api.stranger(), format!("/get?key={key}")).expect(200).text(), "b");
    api.send(api.leader(0), &Request::new("DELETE", format!("/v1/kv/{key}"))).expect(204);
    api.get(api.replica(1), format!("/get?key={key}")).expect(404);
}
