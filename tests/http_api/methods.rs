//! Methods: which route takes which, `405` with `Allow`, OPTIONS, HEAD.

use crate::fixture::api;
use crate::support::Request;
use crate::support::problem::{refused, well_formed};

/// Routes that are built, with the methods that API.md gives them.
const ROUTES: [(&str, &[&str]); 14] = [
    ("/set?key=methods&value=v", &["GET", "PUT", "POST"]),
    ("/get?key=methods", &["GET", "HEAD"]),
    ("/delete?key=methods", &["GET", "POST", "DELETE"]),
    ("/next-replication-key", &["GET", "HEAD"]),
    ("/v1/kv/methods", &["GET", "HEAD", "PUT", "DELETE"]),
    ("/v1/cluster", &["GET", "HEAD"]),
    ("/v1/explain?key=methods", &["GET", "HEAD"]),
    ("/livez", &["GET", "HEAD"]),
    ("/readyz", &["GET", "HEAD"]),
    ("/admin/v1/status", &["GET", "HEAD"]),
    ("/v1/receipt?key=methods&version=1.1.1", &["GET", "HEAD"]),
    ("/admin/v1/shards/S0/takeover", &["GET", "HEAD", "POST"]),
    ("/admin/v1/shards/S0/switchover", &["POST"]),
    ("/admin/v1/shards/S0/lost-writes", &["GET", "HEAD"]),
];

#[test]
fn options_is_204_with_the_methods_of_the_route() {
    let api = api();
    for (target, methods) in ROUTES {
        let answer = api.send(api.leader(0), &Request::new("OPTIONS", target)).expect(204);
        for method in methods {
            assert!(answer.allow().contains(method), "{method} of {target}: {answer:?}");
        }
    }
}

#[test]
fn other_methods_are_405_and_name_those_that_are_taken() {
    let api = api();
    for (target, methods) in ROUTES {
        for other in ["PUT", "DELETE", "PATCH", "TRACE", "BREW", "get"] {
            if methods.contains(&other) {
                continue;
            }
            let answer = api.send(api.leader(0), &Request::new(other, target));
            refused(&answer, 405, "method-not-allowed");
            for method in methods {
                assert!(answer.allow().contains(method), "{method} of {target}: {answer:?}");
            }
            assert!(!answer.allow().contains(&other), "{other} of {target}: {answer:?}");
        }
    }
}

#[test]
fn what_is_done_to_a_shard_is_never_done_by_get_nor_read_by_post() {
    let api = api();
    for (method, deed) in [("GET", "switchover"), ("POST", "lost-writes")] {
        let target = format!("/admin/v1/shards/{}/{deed}", api.shard_name(0));
        refused(&api.send(api.leader(0), &Request::new(method, &target)), 405, "method-not-allowed");
    }
}

#[test]
fn head_on_set_and_delete_is_405_and_changes_nothing() {
    let api = api();
    api.get(api.leader(0), "/set?key=head-405&value=good").expect(200);
    for target in ["/set?key=head-405&value=evil", "/delete?key=head-405"] {
        let answer = api.send(api.leader(0), &Request::new("HEAD", target)).expect(405);
        assert!(!answer.allow().contains(&"HEAD"), "{answer:?}");
        assert!(!api.send(api.leader(0), &Request::new("OPTIONS", target)).allow().contains(&"HEAD"));
    }
    api.holds("head-405", "good");
}

#[test]
fn head_on_every_route_that_only_reads_is_like_get() {
    let api = api();
    api.get(api.leader(0), "/set?key=methods&value=v").expect(200);
    for (target, methods) in ROUTES.iter().filter(|(_, methods)| methods.contains(&"HEAD")) {
        assert!(methods.contains(&"GET"));
        let get = api.get(api.leader(0), *target);
        let head = api.send(api.leader(0), &Request::new("HEAD", *target));
        assert_eq!(head.status, get.status, "{target}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{target}");
    }
}

#[test]
fn undocumented_routes_are_404_for_every_method() {
    let api = api();
    for target in ["/nowhere", "/get/", "/set/x?key=a&value=b", "/v1", "/v1/", "/v2/kv/a", "/admin", "/GET?key=a"] {
        for method in ["GET", "PUT", "POST", "DELETE"] {
            refused(&api.send(api.leader(0), &Request::new(method, target)), 404, "no-such-route");
        }
    }
}

#[test]
fn problems_look_the_same_everywhere() {
    let api = api();
    for target in ["/nowhere", "/get", "/get?key=%zz", "/v1/kv/", "/get?key=problems-none", "/v1/explain"] {
        for at in [api.leader(0), api.stranger()] {
            well_formed(&api.get(at, target));
        }
    }
}
