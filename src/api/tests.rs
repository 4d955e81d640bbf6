//! The contract, rule by rule, over a real socket: each test sends bytes as a client would and reads what comes back.
//! The node leads one shard of two; the other shard's leader is down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{listen, router};
use crate::clock::Clock;
use crate::config::{Node, Settings, Shard, Topology};
use crate::peer::pool::Tcp;
use crate::placement::{HashFunction, Placement};
use crate::random::Random;
use crate::storage::memory::{MemoryEngine, MemoryFiles};
use crate::store::Store;
use crate::store::assembly::{Materials, assemble};
use crate::store::view::Readiness;
use crate::types::key::KEY_BYTES_CEILING;
use crate::types::{Key, NodeName, ShardIndex};

/// A key of the shard that is here, and one of the other, for two shards under FNV-1a.
const NEAR: &str = "b";
const FAR: &str = "a";
/// Where nobody listens.
const DOWN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

/// The store that the tests ask.
async fn store(address: SocketAddr, settings: Settings) -> Arc<Store> {
    let shard = |index: u32, name: &str, address| {
        let node = Node { name: NodeName::new(format!("{name}/0")), address, shard: ShardIndex(index) };
        Shard { name: name.to_owned(), index: ShardIndex(index), copies: vec![node] }
    };
    let topology = Topology {
        placement: Placement { hash: HashFunction::Fnv1a, shards: 2 },
        shards: vec![shard(0, "There", DOWN), shard(1, "Here", address)],
    };
    for (key, index) in [(NEAR, 1), (FAR, 0)] {
        let key = Key::new(key.as_bytes(), KEY_BYTES_CEILING).unwrap();
        assert_eq!(topology.placement.shard_of(&key), ShardIndex(index), "the keys of these tests");
    }
    let me = topology.node_at(address).unwrap().clone();
    let node = assemble(Materials {
        topology: Arc::new(topology),
        settings: Arc::new(settings),
        me,
        engine: Arc::new(MemoryEngine::new()),
        files: Arc::new(MemoryFiles),
        clock: Clock::real(),
        random: Random::system(),
        connector: Box::new(Tcp),
    });
    let node = node.unwrap();
    node.start();
    while !node.store.readiness(Readiness::Writes).iter().all(|check| check.ok) {
        tokio::task::yield_now().await;
    }
    Arc::clone(&node.store)
}

struct Served {
    address: SocketAddr,
    shutdown: CancellationToken,
}

async fn serve_with(settings: Settings) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = router(store(address, settings.clone()).await);
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move { listen::serve(listener, router, &settings, stop).await });
    Served { address, shutdown }
}

async fn serve() -> Served {
    serve_with(Settings::default()).await
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn json(&self) -> serde_json::Value {
        assert!(self.body.ends_with(b"\n"), "JSON ends in a newline");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and error code, of a problem that has all its members.
    fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let json = self.json();
        for member in ["type", "title", "status", "detail", "code", "applied", "retryable", "hint"] {
            assert!(json.get(member).is_some_and(|value| value != ""), "no {member} in {json}");
        }
        assert_eq!(json["status"], self.status);
        (self.status, json["code"].as_str().unwrap().to_owned())
    }
}

impl Served {
    /// Sends bytes as they are, and reads all that comes until the connection closes.
    async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("an answer").unwrap();
        answer
    }

    /// Sends one request, `METHOD target`, with headers and a body of announced length.
    async fn send(&self, line: &str, headers: &[&str], body: &[u8]) -> Reply {
        let mut request = format!("{line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        for header in headers {
            request += &format!("{header}\r\n");
        }
        if !body.is_empty() {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        let mut bytes = (request + "\r\n").into_bytes();
        bytes.extend_from_slice(body);
        parse(&self.raw(&bytes).await)
    }

    async fn ask(&self, line: &str) -> Reply {
        self.send(line, &[], b"").await
    }
}

fn parse(answer: &[u8]) -> Reply {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head, body: answer[end + 4..].to_vec() }
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded";

/// Sends a write of NEAR, and returns its status and the value that is then there.
async fn value_after(served: &Served, line: &str, headers: &[&str], body: &[u8]) -> (u16, String) {
    let status = served.send(line, headers, body).await.status;
    let value = served.ask("GET /get?key=b").await.body;
    (status, value.escape_ascii().to_string())
}

// ---------------------------------------------------------------------------------------------- section 1: curl routes

#[tokio::test]
async fn set_get_delete_answer_as_curl_users_expect() {
    let served = serve().await;
    let set = served.ask("GET /set?key=b&value=hello+world").await;
    assert_eq!((set.status, &set.body[..]), (200, &b"OK\n"[..]));
    assert_eq!(set.header("content-type"), Some("text/plain; charset=utf-8"));
    let get = served.ask("GET /get?key=b").await;
    assert_eq!((get.status, &get.body[..]), (200, &b"hello world"[..]));
    assert_eq!(get.header("content-type"), Some("application/octet-stream"));
    for _ in 0..2 {
        let delete = served.ask("DELETE /delete?key=b").await;
        assert_eq!((delete.status, &delete.body[..]), (200, &b"OK\n"[..]));
    }
    assert_eq!(served.ask("GET /get?key=b").await.problem(), (404, "key-not-found".into()));
}

#[tokio::test]
async fn set_without_value_stores_the_body_raw() {
    let served = serve().await;
    let put = |body: &'static [u8], headers: &'static [&'static str]| {
        let served = &served;
        async move { value_after(served, "PUT /set?key=b", headers, body).await }
    };
    assert_eq!(put(b"\x00\xff\r\n", &[]).await, (200, "\\x00\\xff\\r\\n".into()));
    assert_eq!(put(b"", &[]).await, (200, String::new()), "an empty body is an empty value");
    assert_eq!(put(b"value=x", &["Content-Type: text/plain"]).await, (200, "value=x".into()));
    let chunked = b"POST /set?key=b HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(parse(&served.raw(chunked).await).status, 200);
    assert_eq!(served.ask("GET /get?key=b").await.body, b"abcde");
}

#[tokio::test]
async fn set_form_is_a_form_only_when_all_its_fields_are_parameters() {
    let served = serve().await;
    let form = |line: &'static str, body: &'static [u8]| {
        let served = &served;
        async move { value_after(served, line, &[FORM], body).await }
    };
    assert_eq!(form("POST /set", b"key=b&value=1+2%25").await, (200, "1 2%".into()));
    assert_eq!(form("POST /set?key=b", b"value=3").await, (200, "3".into()));
    assert_eq!(form("POST /set?value=4", b"key=b").await, (200, "4".into()));
    assert_eq!(form("POST /set?key=b", b"just text").await, (200, "just text".into()));
    assert_eq!(form("POST /set?key=b", b"x=1&y=2").await, (200, "x=1&y=2".into()));
    assert_eq!(form("POST /set?key=b", b"value=100%").await, (200, "value=100%".into()));
    assert_eq!(form("POST /set?key=b", b"").await, (200, String::new()), "an empty body is an empty value");
    assert_eq!(form("POST /set?key=b", b"timeout=2s").await.0, 400, "a form without a value");
    assert_eq!(form("POST /set?key=b&value=1", b"raw").await.0, 400, "a value beside a raw body");
    assert_eq!(form("POST /set?key=b", b"key=b&value=1").await.0, 400, "a key in query and form");
    assert_eq!(form("POST /set", b"key=b&value=1&value=2").await.0, 400);
}

#[tokio::test]
async fn set_value_beside_a_raw_body_is_400_and_beside_an_empty_one_is_taken() {
    let served = serve().await;
    assert_eq!(served.send("POST /set?key=b&value=1", &[], b"2").await.problem(), (400, "bad-request".into()));
    assert_eq!(served.send("POST /set?key=b&value=1", &["Content-Length: 0"], b"").await.status, 200);
    let chunked = |data: &str| {
        format!(
            "POST /set?key=b&value=1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{data}0\r\n\r\n"
        )
    };
    assert_eq!(parse(&served.raw(chunked("").as_bytes()).await).status, 200);
    assert_eq!(parse(&served.raw(chunked("1\r\nx\r\n").as_bytes()).await).status, 400);
}

#[tokio::test]
async fn set_get_without_value_is_400() {
    let served = serve().await;
    assert_eq!(served.ask("GET /set?key=b").await.status, 400);
    assert_eq!(served.send("GET /set?key=b", &[], b"raw").await.status, 400);
    assert_eq!(served.ask("GET /set?key=b&value=").await.status, 200);
}

#[tokio::test]
async fn set_multipart_or_encoded_body_is_415() {
    let served = serve().await;
    for header in ["Content-Type: multipart/form-data; boundary=x", "Content-Encoding: gzip"] {
        let reply = served.send("POST /set?key=b", &[header], b"x").await;
        assert_eq!(reply.problem(), (415, "unsupported-media-type".into()), "{header}");
    }
}

#[tokio::test]
async fn key_missing_empty_or_given_twice_is_400() {
    let served = serve().await;
    for line in
        ["GET /get", "GET /get?key=", "GET /get?key", "GET /get?key=a&key=a", "GET /set?value=1", "POST /delete"]
    {
        assert_eq!(served.ask(line).await.problem(), (400, "bad-request".into()), "{line}");
    }
}

#[tokio::test]
async fn delete_takes_a_form_and_no_other_body() {
    let served = serve().await;
    served.ask("GET /set?key=b&value=1").await;
    assert_eq!(value_after(&served, "POST /delete", &[FORM], b"key=b").await.0, 200);
    assert_eq!(served.ask("GET /get?key=b").await.status, 404);
    assert_eq!(served.send("POST /delete?key=b", &[], b"x").await.status, 400);
    assert_eq!(served.send("POST /delete?key=b", &[FORM], b"x=1").await.status, 400);
}

#[tokio::test]
async fn unknown_parameter_is_400_and_says_what_was_meant() {
    let served = serve().await;
    let reply = served.ask("GET /get?key=b&consistancy=any").await;
    assert_eq!(reply.problem(), (400, "bad-request".into()));
    assert!(reply.json()["hint"].as_str().unwrap().contains("consistency"));
}

#[tokio::test]
async fn percent_without_two_hex_digits_is_400_in_paths_too() {
    let served = serve().await;
    for line in ["GET /get?key=%", "GET /get?key=%4", "GET /get?key=%zz", "GET /v1/kv/a%", "GET /v1/kv/%g0"] {
        assert_eq!(served.ask(line).await.problem(), (400, "bad-request".into()), "{line}");
    }
}

#[tokio::test]
async fn next_replication_key_is_a_line_of_json() {
    let served = serve().await;
    let empty = served.ask("GET /next-replication-key").await;
    assert_eq!(empty.body, b"{\"Key\":\"\",\"Value\":\"\",\"Op\":\"\",\"Err\":null}\n");
    assert_eq!(empty.header("content-type"), Some("application/json"));
    assert_eq!(served.ask("GET /next-replication-key?key=1").await.status, 400);
}

// ---------------------------------------------------------------------------------------------- methods and routes

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
        "GET /v1/receipt?key=b&version=1",
        "GET /metrics",
        "GET /openapi.json",
        "GET /docs",
        "GET /",
        "POST /admin/v1/takeover",
        "GET /admin/v1/operations/7",
        "GET /readyz?max_lag=1s",
        "GET /readyz?max_at_risk=1",
        "GET /set?key=b&value=1&ttl=60s",
        "GET /set?key=b&value=1&ack=all",
        "GET /set?key=b&value=1&ack=replicas:1",
        "GET /set?key=b&value=1&ack_timeout=1s",
        "GET /get?key=b&consistency=bounded&max_stale=500ms",
        "GET /get?key=b&consistency=session&session=x",
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
    for header in ["If-Match: \"x\"", "If-None-Match: *", "Idempotency-Key: 1", "KV-Ack: all", "KV-Session: x"] {
        for line in ["PUT /v1/kv/b", "DELETE /v1/kv/b", "GET /set?key=b&value=1", "POST /delete?key=b"] {
            assert_eq!(served.send(line, &[header], b"").await.problem(), (501, "not-built".into()), "{line} {header}");
        }
    }
    assert_eq!(served.ask("GET /get?key=b").await.status, 404, "nothing was written");
}

// ---------------------------------------------------------------------------------------------- section 1: origin

#[tokio::test]
async fn state_changing_request_of_another_site_is_403() {
    let served = serve().await;
    served.ask("GET /set?key=b&value=kept").await;
    for header in ["Sec-Fetch-Site: cross-site", "Origin: null", "Origin: http://evil.example", "Sec-Purpose: prefetch"]
    {
        for line in ["GET /set?key=b&value=1", "GET /delete?key=b", "PUT /v1/kv/b", "DELETE /v1/kv/b", "POST /purge"] {
            assert_eq!(
                served.send(line, &[header], b"").await.problem(),
                (403, "cross-site".into()),
                "{line} {header}"
            );
        }
        assert_eq!(served.send("GET /get?key=b", &[header], b"").await.body, b"kept", "reading changes nothing");
    }
    let own = format!("Origin: http://{}", served.address);
    assert_eq!(served.send("GET /set?key=b&value=1", &[&own, "Sec-Fetch-Site: same-origin"], b"").await.status, 200);
}

// ---------------------------------------------------------------------------------------------- section 2: resources

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

// ---------------------------------------------------------------------------------------------- section 3: headers, controls

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
    assert_eq!((set.header("kv-consistency"), get.header("kv-consistency")), (None, Some("leader")), "what it really was");
    assert_eq!((set.header("kv-stale-ms"), get.header("kv-stale-ms")), (None, Some("0")));
    assert_eq!((missing.header("kv-consistency"), missing.header("etag")), (Some("leader"), None));
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

// ---------------------------------------------------------------------------------------------- section 4: limits

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

// ---------------------------------------------------------------------------------------------- connections

#[tokio::test]
async fn client_that_closes_its_sending_side_still_gets_its_answer() {
    let served = serve().await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(parse(&answer).status, 200);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let served = serve().await;
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
    let last = "GET /nowhere HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let answer = served.raw((get("/set?key=b&value=1") + &get("/get?key=b") + last).as_bytes()).await;
    let text = String::from_utf8(answer).unwrap();
    let statuses: Vec<&str> = text.match_indices("HTTP/1.1 ").map(|(at, _)| &text[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "200", "404"]);
}

#[tokio::test]
async fn answer_does_not_wait_for_the_rest_of_the_next_request() {
    let served = serve().await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\nGET /liv").await.unwrap();
    let mut head = [0; 12];
    timeout(Duration::from_secs(5), stream.read_exact(&mut head)).await.expect("an answer").unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
}

#[tokio::test]
async fn request_that_cannot_be_parsed_is_400() {
    let served = serve().await;
    for request in [
        "GET /a b c\r\n\r\n",
        "\x01\x02\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
    ] {
        assert_eq!(parse(&served.raw(request.as_bytes()).await).status, 400, "{request}");
    }
}

#[tokio::test]
async fn connection_beyond_the_bound_waits_and_is_served_later() {
    let served = serve_with(Settings { connections_max: 1, ..Settings::default() }).await;
    let first = TcpStream::connect(served.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = served.ask("GET /livez");
    tokio::pin!(second);
    assert!(timeout(Duration::from_millis(200), second.as_mut()).await.is_err(), "it waits");
    drop(first);
    assert_eq!(second.await.status, 200);
}

#[tokio::test]
async fn shutdown_refuses_new_connections_and_closes_idle_ones() {
    let served = serve().await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    idle.read_exact(&mut head).await.unwrap();
    served.shutdown.cancel();
    let mut rest = Vec::new();
    timeout(Duration::from_secs(2), idle.read_to_end(&mut rest)).await.expect("it is closed").unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn route_added_to_the_router_bypasses_the_table_and_can_upgrade() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let upgrade = |request: axum::extract::Request| async {
        tokio::spawn(async {
            let upgraded = hyper::upgrade::on(request).await.unwrap();
            hyper_util::rt::TokioIo::new(upgraded).write_all(b"peer").await.unwrap();
        });
        let mut response = axum::response::Response::new(axum::body::Body::empty());
        *response.status_mut() = axum::http::StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("upgrade", axum::http::HeaderValue::from_static("ostraca"));
        response
    };
    let router = router(store(address, Settings::default()).await).route("/v1/peer", axum::routing::any(upgrade));
    let shutdown = CancellationToken::new();
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move { listen::serve(listener, router, &Settings::default(), shutdown).await }
    });
    let served = Served { address, shutdown };
    let answer =
        served.raw(b"GET /v1/peer HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: ostraca\r\n\r\n").await;
    assert_eq!(parse(&answer).status, 101);
    assert_eq!(parse(&answer).body, b"peer");
}
