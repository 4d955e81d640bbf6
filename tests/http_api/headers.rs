//! What data answers say: API.md, section 3, the table of headers, `404` included.

use std::collections::BTreeSet;

use crate::fixture::{Api, api};
use crate::support::raw::Response;
use crate::support::{At, Cluster, Request, Spec, wait};

/// Checks who an answer says it is from: the leader of shard 0, asked at `at`.
#[track_caller]
fn served_by_leader(api: &Api, at: At, answer: &Response) {
    let leader = api.leader(0);
    let owner = api.address(leader).to_string();
    assert_eq!(answer.must("kv-shard"), api.shard_name(0), "{answer:?}");
    assert_eq!(answer.must("kv-node"), owner, "{answer:?}");
    assert_eq!(answer.must("kv-role"), "leader", "{answer:?}");
    let hop = (at != leader).then(|| format!("{}->{owner}", api.address(at)));
    assert_eq!(answer.header("kv-forwarded"), hop.as_deref(), "{answer:?}");
    assert_eq!(answer.must("cache-control"), "no-store", "{answer:?}");
    assert_eq!(answer.must("x-content-type-options"), "nosniff", "{answer:?}");
}

#[test]
fn headers_name_shard_node_role_and_hop_on_every_data_answer() {
    let api = api();
    let key = api.key(0, "headers");
    for at in api.all() {
        for (method, target) in [
            ("GET", format!("/set?key={key}&value=v")),
            ("PUT", format!("/v1/kv/{key}")),
            ("GET", format!("/get?key={key}")),
            ("GET", format!("/v1/kv/{key}")),
            ("HEAD", format!("/v1/kv/{key}")),
            ("GET", format!("/delete?key={key}")),
            ("GET", format!("/get?key={key}")), // 404 from here on
            ("GET", format!("/v1/kv/{key}")),
            ("DELETE", format!("/v1/kv/{key}")),
        ] {
            served_by_leader(&api, at, &api.send(at, &Request::new(method, target)));
        }
    }
}

#[test]
fn etag_is_the_version_of_the_last_write() {
    let api = api();
    let key = api.key(0, "etag");
    let mut seen = BTreeSet::new();
    for at in api.all() {
        let put = api.put_key(at, key.as_bytes(), b"same value every time");
        let etag = put.must("etag").to_owned();
        assert!(etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'), "a strong, quoted tag: {etag}");
        for reader in api.all() {
            assert_eq!(api.get_key(reader, key.as_bytes(), "").must("etag"), etag);
            assert_eq!(api.get(reader, format!("/get?key={key}")).must("etag"), etag);
        }
        assert!(seen.insert(etag), "each write has a version of its own: {seen:?}");
        let set = api.get(at, format!("/set?key={key}&value=w"));
        assert!(seen.insert(set.must("etag").to_owned()));
    }
}

#[test]
fn etag_of_a_delete_is_there_only_when_something_was_deleted() {
    let api = api();
    let key = api.key(0, "etag-delete");
    for at in [api.leader(0), api.stranger()] {
        let put = api.put_key(at, key.as_bytes(), b"v").expect(201).must("etag").to_owned();
        let delete = api.delete_key(at, key.as_bytes()).expect(204);
        assert_ne!(delete.must("etag"), put);
        assert_eq!(api.delete_key(at, key.as_bytes()).expect(204).header("etag"), None);
        assert_eq!(api.get(at, format!("/delete?key={key}")).expect(200).header("etag"), None);
        assert_eq!(api.get_key(at, key.as_bytes(), "").expect(404).header("etag"), None);
    }
}

#[test]
fn consistency_and_age_of_a_leader_read_are_leader_and_zero() {
    let api = api();
    let key = api.key(0, "headers-age");
    api.put_key(api.leader(0), key.as_bytes(), b"v").expect(201);
    for at in api.all() {
        for name in [key.clone(), api.key(0, "headers-age-missing")] {
            let answer = api.get_key(at, name.as_bytes(), "");
            assert_eq!(answer.must("kv-consistency"), "leader", "{answer:?}");
            assert_eq!(answer.must("kv-stale-ms"), "0", "{answer:?}");
        }
    }
}

#[test]
fn any_read_at_a_replica_is_its_own_and_says_how_old_it_may_be() {
    let api = api();
    let key = api.key(0, "headers-any");
    let etag = api.put_key(api.leader(0), key.as_bytes(), b"v").expect(201).must("etag").to_owned();
    let answer = wait::until("the replica has it", || {
        let answer = api.get_key(api.replica(0), key.as_bytes(), "consistency=any");
        if answer.status == 200 { Ok(answer) } else { Err(answer) }
    });
    assert_eq!(answer.text(), "v");
    assert_eq!(answer.must("etag"), etag);
    assert_eq!(answer.must("kv-shard"), api.shard_name(0));
    assert_eq!(answer.must("kv-node"), api.address(api.replica(0)).to_string());
    assert_eq!(answer.must("kv-role"), "replica");
    assert_eq!(answer.must("kv-consistency"), "any");
    assert_eq!(answer.header("kv-forwarded"), None);
    assert!(answer.must("kv-stale-ms").parse::<u64>().is_ok(), "an integer: {answer:?}");
}

#[test]
fn any_read_at_a_stranger_says_who_served_it() {
    let api = api();
    let key = api.key(0, "headers-any-far");
    api.put_key(api.leader(0), key.as_bytes(), b"v").expect(201);
    let answer = api.get_key(api.stranger(), key.as_bytes(), "consistency=any").expect(200);
    assert_eq!(answer.text(), "v", "the leader is there and is asked before a replica");
    served_by_leader(&api, api.stranger(), &answer);
}

#[test]
fn acks_count_the_copies_that_have_it() {
    let api = api();
    let key = api.key(0, "acks");
    for at in api.all() {
        for method in ["PUT", "PUT", "DELETE", "DELETE"] {
            let answer = api.send(at, &Request::new(method, format!("/v1/kv/{key}")).body("v"));
            assert!(matches!(answer.must("kv-acks"), "1/2" | "2/2"), "{answer:?}");
        }
        assert_eq!(api.get_key(at, key.as_bytes(), "").header("kv-acks"), None, "reads have none");
    }
}

#[test]
fn acks_without_replicas_are_one_of_one() {
    let alone = Cluster::start(Spec::shards(1));
    let at = alone.leader(0);
    assert_eq!(alone.put_key(at, b"k", b"v").expect(201).must("kv-acks"), "1/1");
    assert_eq!(alone.get(at, "/set?key=k&value=w").expect(200).must("kv-acks"), "1/1");
    assert_eq!(alone.delete_key(at, b"k").expect(204).must("kv-acks"), "1/1");
}

#[test]
fn answer_headers_in_a_request_are_dropped_and_unknown_ones_refused() {
    let api = api();
    let key = api.key(0, "headers-incoming");
    api.put_key(api.leader(0), key.as_bytes(), b"v").expect(201);
    for at in [api.leader(0), api.stranger()] {
        let mut request = Request::get(format!("/v1/kv/{key}"));
        for name in ["KV-Shard", "KV-Node", "KV-Role", "KV-Forwarded", "KV-Stale-Ms", "KV-Acks"] {
            request = request.header(name, "forged");
        }
        served_by_leader(&api, at, &api.send(at, &request).expect(200));
        for unknown in ["KV-Colour", "kv-shards", "KV-"] {
            let request = Request::new("PUT", format!("/v1/kv/{key}")).header(unknown, "x").body("evil");
            crate::support::problem::refused(&api.send(at, &request), 400, "bad-request");
        }
    }
    api.holds(&key, "v");
}
