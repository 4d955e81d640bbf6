//! Section 4: limits, and what is refused before it is read.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{FORM, parse, serve, serve_with};
use crate::config::Settings;

#[tokio::test]
async fn key_too_long_is_414_wherever_it_came_from() {
    let served = serve().await;
    let (long, longest) = ("k".repeat(1025), "k".repeat(1024));
    let form = format!("key={long}&value=1");
    let replies = [
        served.ask(&format!("GET /get?key={long}")).await,
        served.ask(&format!("GET /v1/kv/{long}")).await,
        served.ask(&format!("GET /v1/explain?key={long}")).await,
        served.ask(&format!("GET /v1/kv?key_b64={}", "AAAA".repeat(342))).await,
        served.send("POST /set", &[FORM], form.as_bytes()).await,
    ];
    for reply in replies {
        assert_eq!(reply.problem(), (414, "key-too-long".into()));
        assert_eq!(reply.json()["limit"], 1024);
        assert_eq!(reply.json()["setting"], "limits.key_bytes_max in sharding.toml");
    }
    assert_ne!(served.ask(&format!("GET /get?key={longest}")).await.status, 414);
    assert_ne!(served.ask(&format!("GET /get?key={}", "%00".repeat(1024))).await.status, 414);
}

fn small() -> Settings {
    Settings { value_bytes_max: 1000, ..Settings::default() }
}

#[tokio::test]
async fn value_too_large_is_413_announced_streamed_or_in_a_parameter() {
    let served = serve_with(small()).await;
    let (long, longest) = ("v".repeat(1001), "v".repeat(1000));
    let chunked = format!(
        "PUT /v1/kv/b HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{long}\r\n0\r\n\r\n"
    );
    let replies = [
        served.send("PUT /v1/kv/b", &[], long.as_bytes()).await,
        served.send("POST /set?key=b", &[], long.as_bytes()).await,
        served.send("POST /set?key=b", &[FORM], long.as_bytes()).await,
        served.send("POST /set", &[FORM], format!("key=b&value={long}").as_bytes()).await,
        served.send("POST /set", &[FORM], format!("key=b&value={}", long.repeat(10)).as_bytes()).await,
        served.ask(&format!("GET /set?key=b&value={long}")).await,
        parse(&served.raw(chunked.as_bytes()).await),
    ];
    for reply in replies {
        assert_eq!(reply.problem(), (413, "value-too-large".into()));
        assert_eq!(reply.json()["limit"], 1000);
        assert_eq!(reply.json()["setting"], "limits.value_bytes_max in sharding.toml");
    }
    assert_eq!(served.send("PUT /v1/kv/b", &[], longest.as_bytes()).await.status, 201);
    let encoded = format!("key=b&value={}", "%76".repeat(1000));
    assert_eq!(
        served.send("POST /set", &[FORM], encoded.as_bytes()).await.status,
        200,
        "a form may be longer than its value"
    );
}

#[tokio::test]
async fn refusal_of_a_large_body_reaches_a_client_that_is_still_sending() {
    let served = serve().await;
    let reply = served.send("PUT /v1/kv/b", &[], &vec![0; 20 << 20]).await;
    assert_eq!(reply.problem(), (413, "value-too-large".into()));
}

#[tokio::test]
async fn expect_continue_is_answered_before_the_body_and_refusals_come_without_it() {
    let served = serve_with(small()).await;
    let expect = |line: &str, len: usize, more: &str| {
        format!(
            "{line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: {len}\r\n{more}\r\n"
        )
    };
    for (head, status) in [
        (expect("PUT /v1/kv/b", 1001, ""), 413),
        (expect("PUT /v1/kv", 5, ""), 400),
        (expect("PUT /v1/kv/b?ttl=1s", 5, ""), 501),
        (expect("PUT /v1/kv/b", 5, "Content-Encoding: gzip\r\n"), 415),
        (expect("PUT /v1/kv/b", 5, "Origin: null\r\n"), 403),
        (expect("PUT /v1/kv/a?route=redirect", 5, ""), 307),
        (expect("PATCH /v1/kv/b", 5, ""), 405),
        (expect("PUT /set?key=a&route=redirect", 5, ""), 307),
        (expect("PUT /set", 5, ""), 400),
        (expect("POST /set?key=b&value=1", 5, ""), 400),
        (expect("POST /set?value=1", 0, ""), 400),
        (expect("POST /delete?key=b", 5, ""), 400),
    ] {
        assert_eq!(parse(&served.raw(head.as_bytes()).await).status, status, "{head}");
    }
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(expect("PUT /v1/kv/b", 5, "").as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(parse(&rest).status, 201);
    let other = "PUT /v1/kv/b HTTP/1.1\r\nHost: h\r\nConnection: close\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n";
    assert_eq!(parse(&served.raw(other.as_bytes()).await).problem(), (417, "expectation-failed".into()));
}

#[tokio::test]
async fn body_that_stalls_is_504_within_the_timeout_and_writes_nothing() {
    let served = serve().await;
    let head = "PUT /v1/kv/b?timeout=200ms HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhe";
    let reply = parse(&served.raw(head.as_bytes()).await);
    assert_eq!(reply.problem(), (504, "deadline".into()));
    assert_eq!(reply.json()["applied"], "no");
    assert_eq!(served.ask("GET /get?key=b").await.status, 404);
}

#[tokio::test]
async fn body_that_breaks_off_writes_nothing() {
    let served = serve().await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"PUT /v1/kv/b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.is_empty() || parse(&answer).status == 400);
    assert_eq!(served.ask("GET /get?key=b").await.status, 404);
}

#[tokio::test]
async fn header_block_over_the_limit_is_431() {
    let served = serve().await;
    let named = served.send("GET /livez", &[&format!("X-Long: {}", "x".repeat(16 << 10))], b"").await;
    assert_eq!(named.problem(), (431, "headers-too-large".into()));
    assert_eq!(named.json()["setting"], "limits.header_bytes_max in sharding.toml");
    let huge = served.send("GET /livez", &[&format!("X-Long: {}", "x".repeat(90 << 10))], b"").await;
    assert_eq!(huge.status, 431);
    assert_eq!(served.send("GET /livez", &[&format!("X-Long: {}", "x".repeat(15 << 10))], b"").await.status, 200);
}

#[tokio::test]
async fn host_missing_or_twice_is_400() {
    let served = serve().await;
    let status = |request: &'static str| {
        let served = &served;
        async move { parse(&served.raw(request.as_bytes()).await).status }
    };
    assert_eq!(status("GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n").await, 400);
    assert_eq!(status("GET /livez HTTP/1.1\r\nHost: a\r\nHost: a\r\nConnection: close\r\n\r\n").await, 400);
    assert_eq!(status("GET /livez HTTP/1.0\r\n\r\n").await, 200);
}
