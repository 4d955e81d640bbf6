//! Any node takes any key: eight nodes, every shard's keys through every node, leaders and replicas, all bytes intact.

use crate::support::encode::percent;
use crate::support::problem::refused;
use crate::support::{Cluster, Request, Spec, fnv};

/// A value with everything that text handling could break, different for each write.
fn value(tag: &str) -> Vec<u8> {
    [b"\x00\xff\xfe\r\n\r\n".as_slice(), tag.as_bytes(), b"\x80%00&=+"].concat()
}

#[test]
fn every_key_through_every_node_set_get_head_and_delete() {
    let cluster = Cluster::start(Spec::shards(4).replicas(1));
    let entries: Vec<_> = cluster.all().collect();
    for shard in 0..4 {
        let text = cluster.key(shard, "everywhere").into_bytes();
        let binary = fnv::binary_key_in(shard, 4, b"everywhere");
        for key in [text, binary] {
            for (number, entry) in entries.iter().copied().enumerate() {
                let via_v1 = value(&format!("v1 {number}"));
                let answer = cluster.put_key(entry, &key, &via_v1);
                assert_eq!(answer.status, 201, "put through {entry:?}: {answer:?}");
                assert_eq!(answer.must("kv-node"), cluster.address(cluster.leader(shard)).to_string());
                let via_curl = value(&format!("curl {number}"));
                let target = format!("/set?key={}", percent(&key));
                cluster.send(entry, &Request::new("POST", target).body(&via_curl)).expect(200);

                for reader in entries.iter().copied() {
                    let got = cluster.get(reader, format!("/get?key={}", percent(&key))).expect(200);
                    assert_eq!(got.body, via_curl, "written through {entry:?}, read through {reader:?}");
                    let head = Request::new("HEAD", format!("/get?key={}", percent(&key)));
                    let head = cluster.send(reader, &head).expect(200);
                    assert_eq!(head.must("content-length"), via_curl.len().to_string());
                    assert_eq!(head.must("etag"), got.must("etag"));
                }
                let eraser = entries[(number + 3) % entries.len()];
                cluster.get(eraser, format!("/delete?key={}", percent(&key))).expect(200);
                for reader in entries.iter().copied() {
                    refused(&cluster.get_key(reader, &key, ""), 404, "key-not-found");
                }
            }
        }
    }
}

#[test]
fn conditional_headers_through_a_stranger_mean_what_they_mean_at_the_owner() {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    let key = cluster.key(0, "conditional");
    let target = format!("/v1/kv/{key}");
    let etag = cluster.put_key(cluster.leader(1), key.as_bytes(), b"v").expect(201).must("etag").to_owned();
    let ask = |at, method: &str, name: &str, value: &str| {
        cluster.send(at, &Request::new(method, &target).header(name, value).body("evil"))
    };
    for (method, name, value) in [
        ("PUT", "If-Match", "\"other\""),
        ("PUT", "If-Match", &*etag),
        ("PUT", "If-None-Match", "*"),
        ("DELETE", "If-Match", "\"other\""),
        ("PUT", "If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("GET", "If-None-Match", &*etag),
        ("HEAD", "If-None-Match", &*etag),
        ("GET", "If-None-Match", "\"other\""),
        ("GET", "Range", "bytes=0-0"),
    ] {
        let at_owner = ask(cluster.leader(0), method, name, value);
        for at in [cluster.leader(1), cluster.replica(1), cluster.replica(0)] {
            let answer = ask(at, method, name, value);
            assert_eq!(answer.status, at_owner.status, "{method} {name}: {value} through {at:?}: {answer:?}");
            assert_eq!(answer.body, at_owner.body, "{method} {name}: {value} through {at:?}");
        }
        let must_refuse = method == "PUT" || method == "DELETE";
        if must_refuse && name != "If-Unmodified-Since" {
            refused(&at_owner, 501, "not-built");
        }
    }
}

#[test]
fn a_key_of_each_shard_lands_where_fnv_says() {
    let cluster = Cluster::start(Spec::shards(4));
    for n in 0..200 {
        let key = format!("landing-{n}");
        let answer = cluster.put_key(cluster.leader(n % 4), key.as_bytes(), b"v").expect(201);
        let owner = cluster.shard_of(key.as_bytes());
        assert_eq!(answer.must("kv-shard"), cluster.shard_name(owner), "{key}");
        assert_eq!(cluster.local(cluster.leader(owner), key.as_bytes()), Some(b"v".to_vec()));
    }
    let keys: u64 =
        (0..4).map(|shard| cluster.status(cluster.leader(shard))["copies"][0]["keys"].as_u64().unwrap()).sum();
    assert_eq!(keys, 200);
}
