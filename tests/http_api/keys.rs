//! Which bytes a key is, in each way to write it: decoded once, never normalised, the same everywhere.

use crate::fixture::api;
use crate::support::Request;
use crate::support::encode::{base64url, base64url_padded, percent};
use crate::support::problem::refused;

/// Stores under a path of `/v1/kv/` as it is written, and checks under which bytes the value then lies.
fn path_is_key(path: &str, key: &[u8]) {
    let api = api();
    let value = format!("by {path}");
    for at in [api.leader(0), api.leader(1)] {
        let answer = api.send(at, &Request::new("PUT", format!("/v1/kv/{path}")).body(&value));
        assert!(matches!(answer.status, 201 | 204), "{path} through {at:?}: {answer:?}");
        api.holds(key, &value);
        assert_eq!(api.get(at, format!("/v1/kv/{path}")).expect(200).text(), value);
        assert_eq!(api.get_key(at, key, "").expect(200).text(), value);
    }
    api.send(api.leader(0), &Request::new("DELETE", format!("/v1/kv/{path}"))).expect(204);
    api.lacks(key);
}

#[test]
fn path_slashes_are_bytes_of_the_key() {
    path_is_key("keys/a/b", b"keys/a/b");
    path_is_key("keys%2Fc%2fd", b"keys/c/d");
    path_is_key("/keys", b"/keys");
    path_is_key("keys//e", b"keys//e");
    path_is_key("keys/f/", b"keys/f/");
    path_is_key("keys///", b"keys///");
    path_is_key("/", b"/");
    path_is_key("%2F", b"/");
}

#[test]
fn path_dot_segments_are_bytes_of_the_key() {
    path_is_key(".", b".");
    path_is_key("..", b"..");
    path_is_key("keys/./g", b"keys/./g");
    path_is_key("keys/../h", b"keys/../h");
    path_is_key("../../get", b"../../get");
    path_is_key("%2e%2E/i", b"../i");
}

#[test]
fn path_is_decoded_exactly_once() {
    path_is_key("keys%252Fj", b"keys%2Fj");
    path_is_key("keys%25", b"keys%");
    path_is_key("keys+k", b"keys+k");
    path_is_key("keys%20l", b"keys l");
    path_is_key("keys%00%ff%0A", b"keys\x00\xff\n");
    path_is_key("keys%3Fm", b"keys?m");
    path_is_key("keys;n=1,2:3@$&'()*!", b"keys;n=1,2:3@$&'()*!");
    path_is_key("%C3%BCber", "über".as_bytes());
}

#[test]
fn path_trailing_slash_names_another_key() {
    let api = api();
    api.send(api.leader(0), &Request::new("PUT", "/v1/kv/keys-slash").body("without")).expect(201);
    api.send(api.leader(0), &Request::new("PUT", "/v1/kv/keys-slash/").body("with")).expect(201);
    api.holds("keys-slash", "without");
    api.holds("keys-slash/", "with");
}

#[test]
fn query_plus_is_a_space_and_the_same_bytes_are_one_key() {
    let api = api();
    api.get(api.leader(0), "/set?key=keys+o%2Bp&value=a+b%2Bc").expect(200);
    api.holds("keys o+p", "a b+c");
    assert_eq!(api.get(api.leader(0), "/v1/kv/keys%20o+p").expect(200).text(), "a b+c");
    assert_eq!(api.get(api.leader(0), "/get?key=keys%20o%2bp").expect(200).text(), "a b+c");
    api.lacks("keys+o+p");
}

#[test]
fn query_binary_key_and_value_come_back_through_every_node() {
    let api = api();
    let key: Vec<u8> = (0..=255).collect();
    let value = b"\x00\xff\xfe&=+%";
    for at in api.all() {
        let target = format!("/set?key={}&value={}", percent(&key), percent(value));
        api.get(at, target).expect(200);
        for reader in api.all() {
            assert_eq!(api.get(reader, format!("/get?key={}", percent(&key))).expect(200).body, value);
            assert_eq!(api.get_key(reader, &key, "").expect(200).body, value);
        }
        api.get(at, format!("/delete?key={}", percent(&key))).expect(200);
        api.get(at, format!("/get?key={}", percent(&key))).expect(404);
    }
}

#[test]
fn query_equals_and_ampersand_decode_inside_a_key() {
    let api = api();
    api.get(api.leader(0), "/set?key=keys%26q%3Dr&value=v").expect(200);
    api.holds("keys&q=r", "v");
    api.get(api.leader(0), "/set?key=keys=s&value=a=b=").expect(200);
    api.holds("keys=s", "a=b=");
}

#[test]
fn key_b64_takes_every_key_with_and_without_padding() {
    let api = api();
    let keys: [&[u8]; 7] =
        [b"f", b"fo", b"foo", b"\x00", b"\xfb\xff\xfe", b"../..", b"\x00\xff\x00\xff\x00\xff\x00\xff//"];
    for key in keys {
        let short = format!("/v1/kv?key_b64={}", base64url(key));
        let padded = format!("/v1/kv?key_b64={}", base64url_padded(key));
        let escaped = format!("/v1/kv?key_b64={}", base64url_padded(key).replace('=', "%3D"));
        for at in [api.leader(0), api.leader(1)] {
            for target in [short.clone(), padded.clone(), escaped.clone()] {
                let answer = api.send(at, &Request::new("PUT", &target).body(&target));
                assert!(matches!(answer.status, 201 | 204), "{target}: {answer:?}");
                assert_eq!(api.get(at, &short).expect(200).text(), target);
                api.holds(key, &target);
            }
        }
        api.send(api.leader(0), &Request::new("DELETE", &padded)).expect(204);
        api.lacks(key);
    }
}

#[test]
fn key_b64_that_is_none_is_refused() {
    let api = api();
    for b64 in ["", "a", "+/+/", "ab!d", "Z=g=", "%ff", "Zm9v%00"] {
        refused(&api.get(api.leader(0), format!("/v1/kv?key_b64={b64}")), 400, "bad-request");
    }
    refused(&api.get(api.leader(0), "/v1/kv?key_b64=Zg&key_b64=Zg"), 400, "bad-request");
}

#[test]
fn kv_without_key_or_with_both_is_refused() {
    let api = api();
    for target in ["/v1/kv", "/v1/kv/", "/v1/kv?key_b64", "/v1/kv/a?key_b64=Zg", "/v1/kv/?route=forward"] {
        refused(&api.get(api.leader(0), target), 400, "bad-request");
    }
    for target in ["/v1/kv/a?key=b", "/v1/kv?key=b", "/v1/kv/a?value=b", "/v1/kv/a?colour=red"] {
        refused(&api.send(api.leader(0), &Request::new("PUT", target).body("v")), 400, "bad-request");
    }
}

#[test]
fn percent_without_two_hex_digits_is_refused_in_paths_and_queries() {
    let api = api();
    for bad in ["%", "%4", "%zz", "%4g", "a%", "%%41", "%u0041", "%-1"] {
        for target in [
            format!("/get?key={bad}"),
            format!("/set?key=percent&value={bad}"),
            format!("/delete?key={bad}"),
            format!("/v1/kv/{bad}"),
            format!("/v1/kv/a?key_b64={bad}"),
            format!("/v1/explain?key={bad}"),
            format!("/get?key=percent&{bad}=1"),
        ] {
            refused(&api.get(api.leader(0), target), 400, "bad-request");
        }
    }
    api.lacks("percent");
}
