//! What a foreign web page makes a browser send must not change anything: API.md, section 1, last paragraph.

use crate::fixture::{Api, api};
use crate::support::problem::{no_cross_origin, refused};
use crate::support::{At, Request};

/// Every way to change a key, as a request that would do it.
fn writes(key: &str) -> Vec<Request> {
    vec![
        Request::get(format!("/set?key={key}&value=evil")),
        Request::new("POST", format!("/set?key={key}")).body("evil"),
        Request::new("PUT", format!("/set?key={key}")).body("evil"),
        Request::get(format!("/delete?key={key}")),
        Request::new("POST", format!("/delete?key={key}")),
        Request::new("DELETE", format!("/delete?key={key}")),
        Request::new("PUT", format!("/v1/kv/{key}")).body("evil"),
        Request::new("DELETE", format!("/v1/kv/{key}")),
    ]
}

fn all_refused(api: &Api, at: At, key: &str, header: (&str, &str)) {
    for request in writes(key) {
        refused(&api.send(at, &request.header(header.0, header.1)), 403, "cross-site");
    }
    api.holds(key, "good");
}

#[test]
fn cross_site_writes_of_every_kind_are_refused_at_every_node() {
    let api = api();
    let key = api.key(0, "cross-site");
    api.put_key(api.leader(0), key.as_bytes(), b"good").expect(201);
    for at in [api.leader(0), api.stranger(), api.replica(0)] {
        all_refused(&api, at, &key, ("Sec-Fetch-Site", "cross-site"));
        all_refused(&api, at, &key, ("Sec-Fetch-Site", "same-site"));
        all_refused(&api, at, &key, ("Origin", "https://evil.example"));
        all_refused(&api, at, &key, ("Origin", "null"));
        all_refused(&api, at, &key, ("Sec-Purpose", "prefetch"));
        all_refused(&api, at, &key, ("Sec-Purpose", "prefetch;prerender"));
    }
}

#[test]
fn cross_site_origin_of_another_port_or_name_is_foreign() {
    let api = api();
    let key = api.key(0, "cross-port");
    api.put_key(api.leader(0), key.as_bytes(), b"good").expect(201);
    let ip = api.address(api.leader(0)).ip();
    all_refused(&api, api.leader(0), &key, ("Origin", &format!("http://{ip}:1")));
    all_refused(&api, api.leader(0), &key, ("Origin", &format!("http://{ip}")));
    all_refused(&api, api.leader(0), &key, ("Origin", ""));
}

#[test]
fn same_origin_writes_pass() {
    let api = api();
    let key = api.key(0, "same-origin");
    for at in [api.leader(0), api.stranger()] {
        let own = format!("http://{}", api.address(at));
        for (name, value) in [("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "none"), ("Origin", &*own)] {
            for request in writes(&key) {
                let answer = api.send(at, &request.header(name, value));
                assert!((200..300).contains(&answer.status), "{name}: {value}: {answer:?}");
            }
        }
    }
}

#[test]
fn same_origin_does_not_excuse_a_prefetch_or_a_foreign_origin() {
    let api = api();
    let key = api.key(0, "same-origin-mixed");
    api.put_key(api.leader(0), key.as_bytes(), b"good").expect(201);
    for (name, value) in [("Origin", "https://evil.example"), ("Sec-Purpose", "prefetch")] {
        for request in writes(&key) {
            let request = request.header("Sec-Fetch-Site", "same-origin").header(name, value);
            refused(&api.send(api.leader(0), &request), 403, "cross-site");
        }
    }
    api.holds(&key, "good");
}

#[test]
fn cross_site_reads_are_answered_but_never_shared() {
    let api = api();
    let key = api.key(0, "cross-read");
    api.put_key(api.leader(0), key.as_bytes(), b"v").expect(201);
    for target in [format!("/get?key={key}"), format!("/v1/kv/{key}"), "/v1/cluster".into(), "/readyz".into()] {
        let request =
            Request::get(target).header("Sec-Fetch-Site", "cross-site").header("Origin", "https://evil.example");
        no_cross_origin(&api.send(api.leader(0), &request).expect(200));
    }
}

#[test]
fn cross_site_preflight_gets_no_permission() {
    let api = api();
    let request = Request::new("OPTIONS", "/v1/kv/a")
        .header("Origin", "https://evil.example")
        .header("Access-Control-Request-Method", "PUT");
    no_cross_origin(&api.send(api.leader(0), &request).expect(204));
}
