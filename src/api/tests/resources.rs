//! Sections 2 and 3: resources, the headers of answers, controls.

use super::{FORM, Reply, serve};

#[tokio::test]
async fn kv_put_is_201_then_204_and_delete_always_204() {
    let served = serve().await;
    for status in [201, 204] {
        let put = served.send("PUT /v1/kv/b", &[], b"v").await;
        assert_eq!((put.status, &put.body[..]), (status, &b""[..]));
        assert!(put.header("etag").is_some());
        assert_eq!(put.header("kv-acks"), Some("1/1"));
    }
    let delete = served.ask("DELETE /v1/kv/b").await;
    assert_eq!((delete.status, delete.header("etag").is_some()), (204, true));
    let again = served.ask("DELETE /v1/kv/b").await;
    assert_eq!((again.status, again.header("etag")), (204, None), "a delete of nothing writes nothing");
    assert_eq!(again.header("kv-acks"), Some("1/1"));
}

#[tokio::test]
async fn kv_path_is_the_key_decoded_once_and_never_normalised() {
    let served = serve().await;
    for (path, parameter) in [
        ("//a/", "%2Fa%2F"),
        ("/b%2Fc", "b%2Fc"),
        ("/a/../b", "a/../b"),
        ("/..", ".."),
        ("/%2541", "%2541"),
        ("/1+1", "1%2B1"),
        ("/%00%ff", "%00%ff"),
        ("/get", "get"),
    ] {
        let answers = [
            served.ask(&format!("GET /v1/explain?key={parameter}")).await.json()["hash"].clone(),
            served.ask(&format!("GET /v1/explain?key={}", path_as_query(path))).await.json()["hash"].clone(),
        ];
        assert_eq!(answers[0], answers[1], "{path}");
        let put = served.send(&format!("PUT /v1/kv{path}"), &[], path.as_bytes()).await;
        if put.status == 201 {
            assert_eq!(served.ask(&format!("GET /get?key={parameter}")).await.body, path.as_bytes(), "{path}");
        } else {
            assert_eq!(put.status, 502, "{path}");
        }
    }
}

/// The part of a path after `/v1/kv/`, written as a query writes it.
fn path_as_query(path: &str) -> String {
    path.strip_prefix('/').unwrap().replace('/', "%2F").replace('+', "%2B")
}

#[tokio::test]
async fn kv_key_b64_stands_in_place_of_a_path() {
    let served = serve().await;
    assert_eq!(served.send("PUT /v1/kv?key_b64=Yg", &[], b"v").await.status, 201);
    assert_eq!(served.ask("GET /v1/kv/b").await.body, b"v");
    assert_eq!(served.ask("GET /v1/kv?key_b64=Yg==").await.body, b"v");
    for target in ["/v1/kv", "/v1/kv/", "/v1/kv/b?key_b64=Yg", "/v1/kv?key_b64=", "/v1/kv?key_b64=*", "/v1/kv?key=b"] {
        assert_eq!(served.ask(&format!("GET {target}")).await.problem(), (400, "bad-request".into()), "{target}");
    }
}

#[tokio::test]
async fn kv_content_type_comes_back_on_both_routes_and_the_body_is_not_parsed() {
    let served = serve().await;
    assert_eq!(served.send("PUT /v1/kv/b", &[FORM], b"value=1").await.status, 201);
    for line in ["GET /v1/kv/b", "GET /get?key=b"] {
        let reply = served.ask(line).await;
        assert_eq!(reply.body, b"value=1");
        assert_eq!(reply.header("content-type"), Some("application/x-www-form-urlencoded"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
    let multipart = "Content-Type: multipart/form-data; boundary=x";
    assert_eq!(served.send("PUT /v1/kv/b", &[multipart], b"--x").await.status, 204);
    assert_eq!(served.send("PUT /v1/kv/b", &["Content-Encoding: gzip"], b"x").await.status, 415);
    let long = format!("Content-Type: text/{}", "x".repeat(251));
    assert_eq!(served.send("PUT /v1/kv/b", &[&long], b"x").await.status, 400);
    assert_eq!(served.send("PUT /v1/kv/b", &[&long[..long.len() - 1]], b"x").await.status, 204);
}

#[tokio::test]
async fn kv_get_if_none_match_is_304_without_body_or_length() {
    let served = serve().await;
    served.send("PUT /v1/kv/b", &[], b"value").await;
    let etag = served.ask("GET /v1/kv/b").await.header("etag").unwrap().to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"'));
    for tags in [etag.clone(), format!("\"x\", W/{etag}"), "*".to_owned()] {
        let reply = served.send("GET /v1/kv/b", &[&format!("If-None-Match: {tags}")], b"").await;
        assert_eq!((reply.status, &reply.body[..], reply.header("etag")), (304, &b""[..], Some(&etag[..])));
        assert_eq!(reply.header("content-length"), None);
        assert_eq!(reply.header("kv-role"), Some("leader"));
    }
    assert_eq!(served.send("GET /v1/kv/b", &["If-None-Match: \"x\""], b"").await.status, 200);
    assert_eq!(
        served.send("GET /v1/kv/b", &["If-Match: \"x\""], b"").await.problem(),
        (412, "precondition-failed".into())
    );
    assert_eq!(served.send("GET /v1/kv/b", &["Range: bytes=0-1"], b"").await.body, b"value", "a full answer");
}

#[tokio::test]
async fn explain_cluster_status_are_json() {
    let served = serve().await;
    let explained = served.ask("GET /v1/explain?key=b").await;
    assert_eq!(explained.json()["shard"], "Here");
    assert!(explained.json()["hash"].as_str().unwrap().starts_with("0x"));
    assert_eq!(served.ask("GET /v1/explain").await.status, 400);
    let cluster = served.ask("GET /v1/cluster").await;
    assert_eq!(cluster.json()["profile"], "static");
    let etag = cluster.header("etag").unwrap();
    assert_eq!(served.send("GET /v1/cluster", &[&format!("If-None-Match: {etag}")], b"").await.status, 304);
    assert_eq!(served.ask("GET /admin/v1/status").await.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn health_is_a_line_per_check() {
    let served = serve().await;
    let ready = served.ask("GET /readyz?for=writes").await;
    assert_eq!((ready.status, ready.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    assert!(ready.body.starts_with(b"ok ") && ready.body.ends_with(b"\n"));
    assert_eq!(served.ask("GET /readyz?for=breakfast").await.status, 400);
    assert_eq!(served.ask("GET /livez").await.status, 200);
}

#[tokio::test]
async fn data_answers_say_who_served_them_also_when_404() {
    let served = serve().await;
    let set = served.ask("GET /set?key=b&value=1").await;
    let get = served.ask("GET /get?key=b&consistency=any").await;
    let missing = served.ask("GET /v1/kv/d").await;
    assert_eq!(missing.status, 404);
    for reply in [&set, &get, &missing] {
        assert_eq!(reply.header("kv-shard"), Some("Here"));
        assert_eq!(reply.header("kv-node"), Some(&served.address.to_string()[..]));
        assert_eq!(reply.header("kv-role"), Some("leader"));
        assert_eq!(reply.header("kv-forwarded"), None);
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
    assert_eq!(set.header("etag"), get.header("etag"));
    assert_eq!((set.header("kv-acks"), get.header("kv-acks")), (Some("1/1"), None));
    assert_eq!(
        (set.header("kv-consistency"), get.header("kv-consistency")),
        (None, Some("leader")),
        "what it really was"
    );
    assert_eq!((set.header("kv-stale-ms"), get.header("kv-stale-ms")), (None, Some("0")));
    assert_eq!((missing.header("kv-consistency"), missing.header("etag")), (Some("leader"), None));
}

/// The alphabet of tokens is that of base64url, so they pass through queries and headers as they are.
#[tokio::test]
async fn session_token_comes_with_every_write_and_only_with_reads_that_ask() {
    let served = serve().await;
    let absent = served.ask("GET /delete?key=b").await;
    assert_eq!(absent.header("kv-session"), None, "there is no position yet: nothing was ever written");
    let set = served.ask("GET /set?key=b&value=1").await;
    let put = served.send("PUT /v1/kv/b", &[], b"2").await;
    let delete = served.ask("GET /delete?key=b").await;
    let nothing = served.ask("GET /delete?key=b").await;
    assert_eq!((delete.header("etag").is_some(), nothing.header("etag")), (true, None));
    let token = |reply: &Reply| reply.header("kv-session").unwrap().to_owned();
    assert!(token(&set) != token(&put) && token(&put) != token(&delete));
    assert_eq!(token(&nothing), token(&delete), "as far as the leader was");
    for line in ["GET /get?key=b", "GET /v1/kv/b", "GET /get?key=b&consistency=any"] {
        assert_eq!(served.ask(line).await.header("kv-session"), None, "{line}");
    }
    for line in ["GET /get?key=b&consistency=session", "HEAD /v1/kv/b?consistency=session"] {
        let read = served.ask(line).await;
        assert_eq!((read.status, token(&read)), (404, token(&delete)), "{line}");
    }
    let older = format!("GET /get?key=b&consistency=session&session={}", token(&set));
    assert_eq!(token(&served.ask(&older).await), token(&delete), "it moves to where the copy is");
    let header = format!("KV-Session: {}", token(&set));
    let read = served.send("GET /get?key=b", &[&header], b"").await;
    assert_eq!((read.header("kv-consistency"), token(&read)), (Some("leader"), token(&delete)));
    let written = served.send("PUT /v1/kv/b", &[&header], b"1").await;
    assert_eq!(written.status, 201);
    assert_eq!(served.send("PUT /v1/kv/b", &["KV-Session: x"], b"2").await.problem(), (400, "bad-request".into()));
    assert_eq!(served.ask("GET /get?key=b").await.body, b"1");
}

#[tokio::test]
async fn bounded_at_a_leader_is_a_leaders_read_however_small_the_bound() {
    let served = serve().await;
    served.ask("GET /set?key=b&value=1").await;
    for line in ["GET /get?key=b&consistency=bounded&max_stale=0", "GET /v1/kv/b?consistency=bounded&max_stale=1s"] {
        let read = served.ask(line).await;
        assert_eq!((read.status, read.header("kv-consistency")), (200, Some("leader")), "{line}");
        assert_eq!(read.header("kv-stale-ms"), Some("0"));
    }
    let half = served.ask("GET /get?key=b&consistency=bounded").await;
    assert_eq!(half.problem(), (400, "bad-request".into()));
    assert!(half.json()["detail"].as_str().unwrap().contains("max_stale"));
}

#[tokio::test]
async fn controls_in_query_and_header_that_disagree_are_400() {
    let served = serve().await;
    let reply = served.send("GET /get?key=b&consistency=any", &["KV-Consistency: leader"], b"").await;
    assert_eq!(reply.problem(), (400, "bad-request".into()));
    assert_eq!(served.send("GET /get?key=b", &["KV-Colour: red"], b"").await.problem(), (400, "bad-request".into()));
    assert_eq!(served.send("GET /get?key=b", &["KV-Shard: Here", "KV-Acks: 9/9"], b"").await.status, 404);
    assert_eq!(served.send("GET /livez", &["KV-Timeout: 1s"], b"").await.status, 400);
    assert_eq!(served.ask("GET /get?key=b&timeout=31s").await.status, 400);
}

#[tokio::test]
async fn route_redirect_is_307_to_the_owner_and_served_when_it_is_here() {
    let served = serve().await;
    let reply = served.ask("GET /get?route=redirect&key=a").await;
    assert_eq!((reply.status, reply.header("location")), (307, Some("http://127.0.0.1:9/get?key=a&route=local")));
    let reply = served.send("PUT /v1/kv/a", &["KV-Route: redirect"], b"v").await;
    assert_eq!((reply.status, reply.header("location")), (307, Some("http://127.0.0.1:9/v1/kv/a?route=local")));
    let reply = served.send("POST /set", &[FORM, "KV-Route: redirect"], b"key=a&value=1").await;
    assert_eq!((reply.status, reply.header("location")), (307, Some("http://127.0.0.1:9/set?route=local")));
    assert_eq!(served.send("POST /set", &[FORM], b"key=a&value=1&route=redirect").await.status, 400);
    assert_eq!(served.ask("GET /set?key=b&value=1&route=redirect").await.status, 200);
    assert_eq!(served.send("GET /get?key=b&route=local", &["KV-Route: redirect"], b"").await.status, 200);
}

#[tokio::test]
async fn route_local_elsewhere_is_421_with_shard_and_leader() {
    let served = serve().await;
    let reply = served.ask("GET /get?key=a&route=local").await;
    assert_eq!(reply.problem(), (421, "wrong-shard".into()));
    assert_eq!((&reply.json()["shard"], &reply.json()["leader"]), (&"There".into(), &"127.0.0.1:9".into()));
}

#[tokio::test]
async fn owner_that_is_down_is_502_and_the_hint_names_any() {
    let served = serve().await;
    let reply = served.ask("GET /get?key=a").await;
    assert_eq!(reply.problem(), (502, "shard-unreachable".into()));
    assert!(reply.json()["hint"].as_str().unwrap().contains("consistency=any"));
}
