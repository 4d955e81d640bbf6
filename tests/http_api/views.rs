//! The routes that show the cluster and the node: `/v1/cluster`, `/v1/explain`, `/livez`, `/readyz`, `/admin/v1/status`.

use serde_json::Value;

use crate::fixture::api;
use crate::support::fnv::fnv1a;
use crate::support::problem::refused;
use crate::support::{Cluster, Request, Spec, fnv, wait};

#[test]
fn cluster_view_is_the_map_with_an_etag() {
    let api = api();
    for at in api.all() {
        let answer = api.get(at, "/v1/cluster").expect(200);
        assert_eq!(answer.must("content-type"), "application/json");
        assert!(answer.must("etag").starts_with('"'), "{answer:?}");
        let map = answer.json();
        assert_eq!(map["profile"], "static");
        assert_eq!(map["hash_function"], "fnv1a");
        assert!(map["placement"].as_str().is_some_and(|placement| placement.starts_with("0x")), "{map}");
        assert_eq!(map["nodes"].as_array().unwrap().len(), 4);
        for shard in 0..2 {
            let seen = &map["shards"][shard];
            assert_eq!(seen["name"], api.shard_name(shard));
            assert_eq!(seen["index"], shard);
            assert_eq!(seen["epoch"], 1);
            assert_eq!(seen["leader"], api.address(api.leader(shard)).to_string());
            assert_eq!(seen["replicas"][0], api.address(api.replica(shard)).to_string());
            for copy in [api.leader(shard), api.replica(shard)] {
                let name = format!("{}/{}", api.shard_name(shard), copy.copy);
                let node = map["nodes"].as_array().unwrap().iter().find(|node| node["name"] == name.as_str());
                let node = node.unwrap_or_else(|| panic!("{name} in {map}"));
                assert_eq!(node["address"], api.address(copy).to_string());
                assert!(node["state"].is_string());
            }
        }
    }
}

#[test]
fn cluster_uid_is_the_same_at_every_node() {
    let api = api();
    let uids = wait::until("all nodes know the cluster's uid", || {
        let uids: Vec<Value> = api.all().map(|at| api.get(at, "/v1/cluster").json()["cluster"].clone()).collect();
        if uids.iter().all(Value::is_string) { Ok(uids) } else { Err(uids) }
    });
    assert!(uids.iter().all(|uid| *uid == uids[0]), "{uids:?}");
}

#[test]
fn explain_says_why_the_key_is_where_it_is() {
    let api = api();
    for shard in 0..2 {
        let key = api.key(shard, "explain");
        let etag = api.put_key(api.leader(shard), key.as_bytes(), b"v").expect(201).must("etag").to_owned();
        api.wait_converged();
        for at in api.all() {
            let answer = api.get(at, format!("/v1/explain?key={key}")).expect(200);
            assert_eq!(answer.must("content-type"), "application/json");
            let seen = answer.json();
            assert_eq!(seen["key"], key.as_str());
            let hash = seen["hash"].as_str().unwrap().strip_prefix("0x").expect("0x…");
            assert_eq!(u64::from_str_radix(hash, 16).unwrap(), fnv1a(key.as_bytes()));
            assert_eq!(seen["hash_function"], "fnv1a");
            assert_eq!(seen["shard"], api.shard_name(shard));
            assert_eq!(seen["index"], shard);
            assert_eq!(seen["leader"], api.address(api.leader(shard)).to_string());
            assert_eq!(seen["epoch"], 1);
            let copies = seen["copies"].as_array().unwrap();
            assert_eq!(copies.len(), 2, "{seen}");
            for (copy, role) in [(api.leader(shard), "leader"), (api.replica(shard), "replica")] {
                let address = api.address(copy).to_string();
                let line = copies.iter().find(|line| line["node"] == address.as_str());
                let line = line.unwrap_or_else(|| panic!("{address} in {seen}"));
                assert_eq!(line["role"], role);
                assert_eq!(line["version"].as_str().map(|version| format!("\"{version}\"")), Some(etag.clone()));
            }
        }
    }
}

#[test]
fn explain_of_a_key_that_is_not_there_or_not_text() {
    let api = api();
    let seen = api.get(api.leader(0), "/v1/explain?key=%00%ff").expect(200).json();
    assert_eq!(seen.get("key"), None);
    assert_eq!(seen["key_b64"].as_str().map(|text| text.trim_end_matches('=')), Some("AP8"));
    assert_eq!(seen["index"], api.shard_of(b"\x00\xff"));
    assert!(seen["copies"].as_array().unwrap().iter().all(|line| line["version"].is_null()), "{seen}");
    for target in ["/v1/explain", "/v1/explain?key=", "/v1/explain?key=a&key=b", "/v1/explain?key=a&colour=red"] {
        refused(&api.get(api.leader(0), target), 400, "bad-request");
    }
}

#[test]
fn fnv1_layout_is_followed_when_the_file_says_so() {
    let cluster = Cluster::start(Spec::shards(3).hash("fnv1"));
    let mut differ = 0;
    for n in 0..60 {
        let key = format!("fnv1-{n}");
        let owner = usize::try_from(fnv::fnv1(key.as_bytes()) % 3).unwrap();
        differ += usize::from(owner != cluster.shard_of(key.as_bytes()));
        let answer = cluster.put_key(cluster.leader(n % 3), key.as_bytes(), b"v").expect(201);
        assert_eq!(answer.must("kv-shard"), cluster.shard_name(owner), "{key}");
    }
    assert!(differ > 0, "the two hashes place these keys differently");
    assert_eq!(cluster.get(cluster.leader(0), "/v1/cluster").json()["hash_function"], "fnv1");
}

#[test]
fn livez_and_readyz_have_a_line_per_check() {
    let api = api();
    for at in api.all() {
        for target in ["/livez", "/readyz"] {
            let answer = api.get(at, target).expect(200);
            assert!(answer.must("content-type").starts_with("text/plain"), "{answer:?}");
            assert!(answer.text().ends_with('\n') && answer.text().trim() != "", "{answer:?}");
        }
    }
}

#[test]
fn readyz_for_writes_is_not_a_replicas() {
    let api = api();
    for (at, status) in [(api.leader(0), 200), (api.replica(0), 503)] {
        let answer = api.get(at, "/readyz?for=writes");
        assert!(answer.status == status || answer.status == 501, "{at:?}: {answer:?}");
        let answer = api.get(at, "/readyz?for=reads");
        assert!(matches!(answer.status, 200 | 501), "{at:?}: {answer:?}");
    }
    refused(&api.get(api.leader(0), "/readyz?for=breakfast"), 400, "bad-request");
}

#[test]
fn status_shows_this_nodes_copy() {
    let api = api();
    let key = api.key(0, "status");
    api.put_key(api.leader(0), key.as_bytes(), b"v").expect(201);
    api.wait_converged();
    for at in [api.leader(0), api.replica(0)] {
        let status = api.status(at);
        assert_eq!(status["node"], format!("{}/{}", api.shard_name(0), at.copy));
        assert_eq!(status["address"], api.address(at).to_string());
        assert_eq!(status["problems"], serde_json::json!([]), "{status}");
        let copy = &status["copies"][0];
        assert_eq!(copy["shard"], api.shard_name(0));
        assert_eq!(copy["role"], if at.leads() { "leader" } else { "replica" });
        assert_eq!(copy["epoch"], 1);
        for number in ["end", "keys", "bytes"] {
            assert!(copy[number].as_u64().is_some_and(|number| number > 0), "{number} in {status}");
        }
    }
    let replica = api.status(api.leader(0))["copies"][0]["replicas"][0].clone();
    assert_eq!(replica["name"], format!("{}/1", api.shard_name(0)));
    assert_eq!(replica["address"], api.address(api.replica(0)).to_string());
    assert!(replica["cursor"].is_u64() && replica["lag_entries"].is_u64() && replica["state"].is_string(), "{replica}");
}

#[test]
fn views_are_pretty_enough_to_read_and_end_in_a_newline() {
    let api = api();
    for target in ["/v1/cluster", "/v1/explain?key=a", "/admin/v1/status", "/next-replication-key"] {
        let answer = api.send(api.leader(0), &Request::get(target)).expect(200);
        assert!(answer.body.ends_with(b"\n"), "{answer:?}");
        answer.json();
    }
}
