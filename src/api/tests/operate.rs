//! What operators ask of a node: who may ask, of whom, and what is refused.

use super::serve;

#[tokio::test]
async fn reset_of_a_leader_of_another_node_and_of_nobody_is_refused() {
    let served = serve().await;
    served.ask("GET /set?key=b&value=1").await;
    let path = "POST /admin/v1/replica/reset";
    for (line, expected) in [
        (format!("{path}?node=Here/0"), (409, "operation-conflict")),
        (format!("{path}?node=There/0"), (421, "wrong-node")),
        (format!("{path}?node=Nowhere/0"), (400, "bad-request")),
        (format!("{path}?node="), (400, "bad-request")),
        (path.to_owned(), (400, "bad-request")),
        (format!("{path}?node=Here/0&force=1"), (400, "bad-request")),
    ] {
        let reply = served.ask(&line).await;
        assert_eq!(reply.problem(), (expected.0, expected.1.into()), "{line}");
        assert_eq!(reply.json()["applied"], "no", "{line}");
    }
    let elsewhere = served.ask(&format!("{path}?node=There/0")).await.json();
    assert_eq!(elsewhere["address"], "127.0.0.1:9");
    assert!(elsewhere["hint"].as_str().unwrap().contains("127.0.0.1:9"));
    assert_eq!(served.ask("GET /get?key=b").await.body, b"1");
}

#[tokio::test]
async fn reset_from_another_sites_page_or_by_get_is_refused() {
    let served = serve().await;
    let origin = ["Origin: http://evil.example"];
    let reply = served.send("POST /admin/v1/replica/reset?node=Here/0", &origin, b"").await;
    assert_eq!(reply.problem(), (403, "cross-site".into()));
    assert_eq!(served.ask("GET /admin/v1/replica/reset?node=Here/0").await.status, 405);
}

#[tokio::test]
async fn checksum_covers_the_copy_range_by_range() {
    let served = serve().await;
    let empty = served.ask("GET /admin/v1/checksum?shard=Here").await.json();
    assert_eq!((&empty["records"], &empty["last"], &empty["until_b64"]), (&0.into(), &true.into(), &().into()));
    let mut keys = Vec::new();
    for n in 0..40 {
        let key = format!("sum-{n:02}");
        if served.ask(&format!("PUT /v1/kv/{key}")).await.status == 201 {
            keys.push(key); // the others belong to the shard that is down
        }
    }
    assert!(keys.len() > 6, "{keys:?}");
    let (mut after, mut records, mut ranges) = (String::new(), 0, 0);
    loop {
        let sum = served.ask(&format!("GET /admin/v1/checksum?shard=Here&limit=3{after}")).await.json();
        assert_eq!((&sum["shard"], &sum["node"]), (&"Here".into(), &"Here/0".into()));
        assert!(sum["checksum"].as_str().unwrap().starts_with("0x"));
        assert_eq!(sum["at"], keys.len());
        records += sum["records"].as_u64().unwrap();
        ranges += 1;
        if sum["last"] == true {
            break;
        }
        after = format!("&after_b64={}", sum["until_b64"].as_str().unwrap());
    }
    assert_eq!((records, ranges), (keys.len() as u64, keys.len().div_ceil(3)));
}

#[tokio::test]
async fn checksum_of_what_is_not_here_or_makes_no_sense_is_refused() {
    let served = serve().await;
    for (query, status) in [
        ("?shard=There", 421),
        ("?shard=Nowhere", 400),
        ("", 400),
        ("?shard=Here&after_b64=*", 400),
        ("?shard=Here&until_b64=", 400),
        ("?shard=Here&limit=0", 400),
        ("?shard=Here&limit=1000000", 400),
        ("?shard=Here&after=x", 400),
    ] {
        assert_eq!(served.ask(&format!("GET /admin/v1/checksum{query}")).await.problem().0, status, "{query}");
    }
}
