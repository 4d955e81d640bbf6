//! Which routes and methods there are, and what is documented and comes later.

use super::serve;

#[tokio::test]
async fn head_is_get_without_its_body_where_only_read() {
    let served = serve().await;
    served.ask("GET /set?key=b&value=12345").await;
    for target in ["/get?key=b", "/v1/kv/b"] {
        let (get, head) = (served.ask(&format!("GET {target}")).await, served.ask(&format!("HEAD {target}")).await);
        assert_eq!((head.status, &head.body[..]), (200, &b""[..]));
        for name in ["content-length", "etag", "content-type", "kv-shard", "kv-node", "kv-role", "kv-consistency"] {
            assert_eq!(head.header(name), get.header(name), "{name}");
            assert!(head.header(name).is_some(), "{name}");
        }
    }
    let missing = served.ask("HEAD /get?key=d").await;
    assert_eq!((missing.status, &missing.body[..]), (404, &b""[..]));
    assert_ne!(missing.header("content-length"), Some("0"));
    for target in ["/livez", "/readyz", "/v1/cluster", "/next-replication-key", "/admin/v1/status"] {
        let head = served.ask(&format!("HEAD {target}")).await;
        assert_eq!((head.status, &head.body[..]), (200, &b""[..]), "{target}");
    }
}

#[tokio::test]
async fn head_on_set_and_delete_is_405_and_writes_nothing() {
    let served = serve().await;
    for target in ["/set?key=b&value=1", "/delete?key=b"] {
        let reply = served.ask(&format!("HEAD {target}")).await;
        assert_eq!(reply.status, 405);
        assert!(!reply.header("allow").unwrap().contains("HEAD"));
    }
    assert_eq!(served.ask("GET /get?key=b").await.status, 404);
}

#[tokio::test]
async fn method_that_a_route_lacks_is_405_with_allow() {
    let served = serve().await;
    for (line, allow) in [
        ("PATCH /get?key=b", "GET, HEAD, OPTIONS"),
        ("POST /get?key=b", "GET, HEAD, OPTIONS"),
        ("DELETE /set?key=b", "GET, PUT, POST, OPTIONS"),
        ("GET /purge", "POST, OPTIONS"),
        ("FROB /v1/kv/b", "GET, HEAD, PUT, DELETE, POST, OPTIONS"),
        ("POST /v1/cluster", "GET, HEAD, OPTIONS"),
    ] {
        let reply = served.ask(line).await;
        assert_eq!(reply.problem(), (405, "method-not-allowed".into()), "{line}");
        assert_eq!(reply.header("allow"), Some(allow), "{line}");
    }
}

#[tokio::test]
async fn options_is_204_with_allow_and_without_any_access_control() {
    let served = serve().await;
    let reply =
        served.send("OPTIONS /set", &["Origin: http://evil.example", "Access-Control-Request-Method: PUT"], b"").await;
    assert_eq!((reply.status, reply.header("allow")), (204, Some("GET, PUT, POST, OPTIONS")));
    assert!(!reply.head.to_ascii_lowercase().contains("access-control-"));
    assert_eq!(reply.header("content-length"), None, "a 204 has no length");
    assert_eq!(served.ask("OPTIONS *").await.status, 204);
    assert_eq!(served.ask("OPTIONS /nowhere").await.status, 404);
}

#[tokio::test]
async fn route_that_is_not_documented_is_404() {
    let served = serve().await;
    for target in ["/nowhere", "/get/", "//get?key=b", "/v1", "/v1/kvx", "/v1/peer", "/admin/v2/status", "/GET?key=b"] {
        assert_eq!(served.ask(&format!("GET {target}")).await.problem(), (404, "no-such-route".into()), "{target}");
    }
}

#[tokio::test]
async fn what_is_documented_and_not_built_is_501() {
    let served = serve().await;
    for line in [
        "POST /purge",
        "POST /v1/kv/b?op=incr&by=1",
        "GET /v1/keys?prefix=a",
        "POST /v1/batch",
        "GET /v1/watch",
        "GET /openapi.json",
        "GET /docs",
        "GET /",
        "POST /admin/v1/takeover",
        "GET /admin/v1/operations/7",
        "GET /set?key=b&value=1&ttl=60s",
        "PUT /v1/kv/b?ttl=60s",
    ] {
        let reply = served.ask(line).await;
        assert_eq!(reply.problem(), (501, "not-built".into()), "{line}");
        assert_eq!(reply.json()["applied"], "no", "{line}");
    }
    assert_eq!(served.ask("GET /get?key=b").await.status, 404, "nothing was written");
}

#[tokio::test]
async fn conditions_of_a_write_are_refused_and_never_ignored() {
    let served = serve().await;
    for header in ["If-Match: \"x\"", "If-None-Match: *", "Idempotency-Key: 1"] {
        for line in ["PUT /v1/kv/b", "DELETE /v1/kv/b", "GET /set?key=b&value=1", "POST /delete?key=b"] {
            assert_eq!(served.send(line, &[header], b"").await.problem(), (501, "not-built".into()), "{line} {header}");
        }
    }
    assert_eq!(served.ask("GET /get?key=b").await.status, 404, "nothing was written");
}
