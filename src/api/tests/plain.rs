//! The loop for plain requests beside hyper: two nodes alike are asked the same, one as it is served, the other by hyper
//! alone, and every byte of their answers is compared, save the date.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{JoinHandle, yield_now};
use tokio_util::sync::CancellationToken;

use super::{parse, store_on};
use crate::api::listen::{Connection, protocol};
use crate::api::plain;
use crate::api::slots::Activity;
use crate::api::{Service, listen};
use crate::config::Settings;
use crate::random::Random;
use crate::storage::memory::MemoryEngine;

/// Streams of requests; `OSTRACA_TEST_ROUNDS` asks for more.
const STREAMS: usize = 500;
/// Ways in which each is split.
const SPLITS: usize = 4;

struct Node {
    service: Service,
    settings: Settings,
    engine: Arc<MemoryEngine>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// As connections are served: plain requests here, the rest by hyper.
    Served,
    /// By hyper alone.
    Hyper,
}

impl Node {
    async fn start() -> Node {
        let settings = Settings { value_bytes_max: 100_000, ..Settings::default() };
        let engine = Arc::new(MemoryEngine::new());
        let address = ([127, 0, 0, 1], 8080).into();
        let store = store_on(address, settings.clone(), Arc::clone(&engine), Random::seeded(1)).await;
        Node { service: Service::new(store), settings, engine }
    }

    /// Serves one end of a pipe of `buffer` bytes, and gives the other.
    fn open(&self, path: Path, buffer: usize) -> (DuplexStream, JoinHandle<()>) {
        let (near, far) = duplex(buffer);
        let token = CancellationToken::new();
        let connection = Connection::new(self.service.clone(), protocol(&self.settings), token.clone(), token);
        let serving = async move {
            match path {
                Path::Served => drop(connection.serve(near, &AtomicBool::new(false)).await),
                Path::Hyper => drop(connection.serve_with_hyper(near).await),
            }
        };
        (far, tokio::spawn(serving))
    }

    /// Sends pieces, lets the node look at each, ends, and returns all that comes back.
    async fn converse(&self, path: Path, pieces: &[&[u8]]) -> String {
        let (mut client, serving) = self.open(path, 1 << 20);
        for piece in pieces {
            if client.write_all(piece).await.is_err() {
                break; // it was closed after what came before
            }
            for _ in 0..3 {
                yield_now().await;
            }
        }
        drop(client.shutdown().await);
        let mut answers = Vec::new();
        client.read_to_end(&mut answers).await.unwrap();
        serving.await.unwrap();
        let text = answers.escape_ascii().to_string();
        text.split("\\n").filter(|line| !line.starts_with("date: ")).collect::<Vec<_>>().join("\n")
    }
}

/// Every route with each of its outcomes that a node alone can have, and requests that no route takes.
fn every_request() -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    let heads = [
        "GET /set?key=b&value=1",
        "GET /set?key=b",
        "GET /set?value=1",
        "GET /get?key=b",
        "GET /get?key=d",
        "GET /get?key=b&consistency=any&timeout=1s",
        "GET /get",
        "GET /get?key=%zz",
        "GET /get?key=b&ttl=1",
        "GET /get?key=b#fragment",
        "GET /v1/kv/b",
        "GET /v1/kv/nothing",
        "GET /v1/kv/%00%ff//a/../",
        "GET /v1/kv/b?key_b64=YQ",
        "GET /v1/kv?key_b64=Yg==",
        "GET /v1/kv",
        "GET /v1/kv/b?consistency=session",
        "GET /get?key=a&route=redirect",
        "GET /get?key=a&route=local",
        "GET /get?key=a",
        "DELETE /v1/kv/b",
        "DELETE /v1/kv/b",
        "GET /delete?key=b",
        "POST /delete?key=b",
        "POST /purge",
        "GET /next-replication-key",
        "GET /v1/cluster",
        "GET /v1/explain?key=b",
        "GET /v1/keys",
        "POST /v1/batch",
        "GET /livez",
        "GET /readyz?for=writes",
        "GET /readyz?for=x",
        "POST /admin/v1/replica/reset?node=Here/0",
        "GET /admin/v1/checksum?shard=Here",
        "GET /admin/v1/nothing",
        "GET /",
        "GET /nowhere",
        "GET //",
        "POST /get?key=b",
        "PUT /v1/cluster",
        "PATCH /get?key=b",
        "OPTIONS /set",
        "OPTIONS *",
        "HEAD /get?key=b",
        "HEAD /get?key=d",
        "HEAD /livez",
        "GET http://h/livez",
        "CONNECT h:80",
        "TRACE /",
    ];
    requests.extend(heads.map(|head| format!("{head} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes()));
    let headers = [
        "If-None-Match: *",
        "If-Match: \"x\"",
        "KV-Consistency: any",
        "kv-route: local",
        "KV-Nonsense: 1",
        "KV-Timeout: 1ms\r\nKV-Timeout: 2ms",
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
        "Content-Encoding: gzip",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Type: multipart/form-data",
        "Content-Type: a\r\nContent-Type: b",
        "Expect: 100-continue",
        "Expect: tea",
        "Connection: keep-alive",
        "Connection: close",
        "Connection: close, KV-Ack",
        "Upgrade: websocket\r\nConnection: upgrade",
        "Host: twice",
        "X: \u{e9}\t",
        "X:",
        "Idempotency-Key: 1",
        "Transfer-Encoding: gzip",
        "TE: trailers",
    ];
    for header in headers {
        for head in ["PUT /v1/kv/b", "POST /set?key=b", "GET /v1/kv/b"] {
            requests
                .push(format!("{head} HTTP/1.1\r\nHost: h\r\n{header}\r\nContent-Length: 3\r\n\r\nabc").into_bytes());
        }
    }
    let form = "Content-Type: application/x-www-form-urlencoded";
    for (head, header, len) in [
        ("PUT /v1/kv/b", "A: b", 0),
        ("PUT /v1/kv/b", "A: b", 5_000),
        ("PUT /v1/kv/b", "A: b", 99_000),
        ("PUT /v1/kv/b", "A: b", 100_001),
        ("POST /set?key=b", form, 100),
        ("GET /get?key=b", "A: b", 100),
        ("GET /nowhere", "A: b", 100),
    ] {
        let mut request =
            format!("{head} HTTP/1.1\r\nHost: h\r\n{header}\r\nContent-Length: {len}\r\n\r\n").into_bytes();
        request.resize(request.len() + len, b'=');
        requests.push(request);
        requests.push(b"GET /v1/kv/b HTTP/1.1\r\nHost: h\r\n\r\n".to_vec());
    }
    let long = [17_000, 40_000, 90_000].map(|len| "x".repeat(len));
    for long in &long {
        requests.push(format!("GET /livez HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n").into_bytes());
        requests.push(format!("GET /get?key={long} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes());
    }
    let many = (0..120).map(|number| format!("x-{number}: 1\r\n"));
    for count in [40, 120] {
        let many: String = many.clone().take(count).collect();
        requests.push(format!("GET /livez HTTP/1.1\r\nHost: h\r\n{many}\r\n").into_bytes());
    }
    requests.extend(ODD.map(<[u8]>::to_vec));
    requests
}

/// What is no plain request, or none at all.
const ODD: [&[u8]; 34] = [
    b"GET /livez HTTP/1.0\r\n\r\n",
    b"GET /livez HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n",
    b"GET /livez HTTP/1.1\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: a b\r\n\r\n",
    b"GET /livez HTTP/1.1\nHost: h\n\n",
    b"GET /livez HTTP/1.1\r\nHost: h\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: h\r\n\n",
    b"GET /livez HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost : h\r\n\r\n",
    b"GET /livez HTTP/1.1\r\n Host: h\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n",
    b"GET  /livez HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /livez  HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /li vez HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /livez HTTP/1.1 \r\nHost: h\r\n\r\n",
    b"GET livez HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /livez HTTP/9.9\r\nHost: h\r\n\r\n",
    b"get /livez HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\r\nGET /livez HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\0\0\0\0",
    b"hello\r\n\r\n",
    b"PUT /v1/kv/b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    b"PUT /v1/kv/b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    b"PUT /v1/kv/b HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\nabc",
    b"PUT /v1/kv/b HTTP/1.1\r\nHost: h\r\nContent-Length: 3 3\r\n\r\nabc",
    b"PUT /v1/kv/b HTTP/1.1\r\nHost: h\r\nContent-Length: 3, 3\r\n\r\nabc",
    b"PUT /v1/kv/b HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\nabc",
    b"PUT /v1/kv/b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"PUT /v1/kv/b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
];

#[tokio::test]
async fn plain_every_answer_is_the_one_that_hyper_gives() {
    let (one, other) = (Node::start().await, Node::start().await);
    for request in every_request() {
        let served = one.converse(Path::Served, &[&request]).await;
        let expected = other.converse(Path::Hyper, &[&request]).await;
        let shown = request[..request.len().min(200)].escape_ascii();
        assert_eq!(served, expected, "{shown}");
    }
}

/// A few requests, mostly plain, behind one another.
fn stream(rng: &mut StdRng, odd: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..rng.random_range(1..8) {
        let (key, len) = (rng.random_range(0..9), rng.random_range(0..60));
        match rng.random_range(0..20) {
            0 => bytes.extend(&odd[rng.random_range(0..odd.len())]),
            1..6 => {
                let head = format!("PUT /v1/kv/b{key} HTTP/1.1\r\nHost: h\r\nContent-Length: {len}\r\n\r\n");
                bytes.extend(head.bytes());
                bytes.resize(bytes.len() + len, b'v');
            }
            6 => bytes.extend(format!("GET /delete?key=b{key} HTTP/1.1\r\nHost: h\r\n\r\n").bytes()),
            _ => bytes.extend(format!("GET /v1/kv/b{key} HTTP/1.1\r\nhost:h\r\nAccept: */*\r\n\r\n").bytes()),
        }
    }
    match rng.random_range(0..10) {
        0 => bytes.truncate(rng.random_range(0..bytes.len())),
        1 => {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        _ => {}
    }
    bytes
}

#[tokio::test]
async fn plain_streams_split_anywhere_are_answered_as_by_hyper() {
    let number_of = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let seed = number_of("OSTRACA_TEST_SEED").unwrap_or(20_261_120);
    let mut rng = StdRng::seed_from_u64(seed as u64);
    let (one, other) = (Node::start().await, Node::start().await);
    let small: Vec<Vec<u8>> = every_request().into_iter().filter(|request| request.len() < 300).collect();
    for number in 0..number_of("OSTRACA_TEST_ROUNDS").unwrap_or(STREAMS) {
        let bytes = stream(&mut rng, &small);
        for _ in 0..SPLITS {
            let mut ends: Vec<usize> = (0..rng.random_range(0..6)).map(|_| rng.random_range(0..=bytes.len())).collect();
            ends.push(bytes.len());
            ends.sort_unstable();
            let starts = std::iter::once(&0).chain(&ends);
            let pieces: Vec<&[u8]> = starts.zip(&ends).map(|(start, end)| &bytes[*start..*end]).collect();
            let served = one.converse(Path::Served, &pieces).await;
            let expected = other.converse(Path::Hyper, &[&bytes]).await;
            assert_eq!(served, expected, "seed {seed}, stream {number}: {pieces:?}", pieces = pieces.escaped());
        }
    }
}

trait Escaped {
    fn escaped(&self) -> Vec<String>;
}

impl Escaped for Vec<&[u8]> {
    fn escaped(&self) -> Vec<String> {
        self.iter().map(|piece| piece.escape_ascii().to_string()).collect()
    }
}

/// Looks at a future once.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// What the loop leaves to hyper of some bytes; none when it has served them all.
async fn left_to_hyper(node: &Node, bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut near, mut far) = duplex(1 << 20);
    far.write_all(bytes).await.unwrap();
    far.shutdown().await.unwrap();
    let (activity, is_stopping) = (Activity::default(), AtomicBool::new(false));
    let connection = plain::Connection::new(&node.service.api, &mut near, &activity, &is_stopping);
    connection.serve().await.unwrap().map(|left| left.to_vec())
}

#[tokio::test]
async fn plain_requests_are_served_here_and_others_are_left_whole() {
    let node = Node::start().await;
    let plain =
        "GET /get?key=b HTTP/1.1\r\nHost: h\r\n\r\nPUT /v1/kv/b HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc";
    assert_eq!(left_to_hyper(&node, plain.as_bytes()).await, None);
    let keep = "POST /set?key=b HTTP/1.1\r\nHost: h\r\nConnection: Keep-Alive\r\nContent-Length: 03\r\n\r\nabc";
    assert_eq!(left_to_hyper(&node, keep.as_bytes()).await, None);
    for odd in ODD {
        let bytes = [plain.as_bytes(), odd, plain.as_bytes()].concat();
        let left = [odd, plain.as_bytes()].concat();
        // One has a host that is none: it is plain, and refused.
        let expected = (!odd.ends_with(b"Host: a b\r\n\r\n")).then_some(left);
        assert_eq!(left_to_hyper(&node, &bytes).await, expected, "{}", odd.escape_ascii());
    }
}

#[tokio::test]
async fn plain_answer_that_is_ready_does_not_wait_for_one_that_is_not() {
    let node = Node::start().await;
    let gate = node.engine.hold_commits();
    let (mut client, _serving) = node.open(Path::Served, 1 << 20);
    let get = "GET /get?key=b HTTP/1.1\r\nHost: h\r\n\r\n";
    let bytes = format!("{get}PUT /v1/kv/b HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nv{get}");
    client.write_all(bytes.as_bytes()).await.unwrap();
    let mut first = vec![0; 4096];
    let len = client.read(&mut first).await.unwrap();
    assert_eq!(parse(&first[..len]).status, 404);
    drop(gate);
    client.shutdown().await.unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    let text = rest.escape_ascii().to_string();
    assert!(text.starts_with("HTTP/1.1 201 ") && text.contains("HTTP/1.1 200 "), "{text}");
}

#[tokio::test]
async fn plain_client_that_does_not_read_is_not_served_further() {
    let node = Node::start().await;
    let value = "v".repeat(20_000);
    let put = format!("PUT /v1/kv/b HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{value}", value.len());
    node.converse(Path::Served, &[put.as_bytes()]).await;
    let (mut client, _serving) = node.open(Path::Served, 1 << 10);
    let get = b"GET /get?key=b HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1000);
    // What is written is taken only as far as the answers are: a buffer's worth.
    let mut writing = pin!(client.write_all(&get));
    for _ in 0..1000 {
        let poll = poll_once(writing.as_mut()).await;
        assert!(poll.is_pending(), "a thousand requests were read, and not one answer was");
        yield_now().await;
    }
}

#[test]
fn plain_silence_and_half_a_head_are_closed_in_the_end() {
    for beginning in ["", "GET /livez HT", "GET /livez HTTP/1.1\r\nHost: h\r\n\r\nGET /liv"] {
        // A clock of its own for each: tokio's runs ahead of the node's, and they have to begin as one.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let node = Node::start().await;
            let (mut client, serving) = node.open(Path::Served, 1 << 10);
            client.write_all(beginning.as_bytes()).await.unwrap();
            let mut sleeping = pin!(tokio::time::sleep(listen::HEAD_WAIT_MAX / 2));
            let mut serving = pin!(serving);
            tokio::select! {
                _ = serving.as_mut() => panic!("{beginning:?} was closed too soon"),
                () = sleeping.as_mut() => {}
            }
            serving.await.unwrap();
        });
    }
}

#[tokio::test(start_paused = true)]
async fn plain_body_that_comes_late_is_hypers_and_still_served() {
    let node = Node::start().await;
    let (mut client, _serving) = node.open(Path::Served, 1 << 10);
    client.write_all(b"PUT /v1/kv/b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na").await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    client.write_all(b"bc").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(parse(&answer).status, 201);
}

#[tokio::test]
async fn plain_stopping_answers_the_request_under_way_and_closes() {
    let node = Node::start().await;
    let gate = node.engine.hold_commits();
    let (near, mut client) = duplex(1 << 16);
    let token = CancellationToken::new();
    let connection = Connection::new(node.service.clone(), protocol(&node.settings), token.clone(), token);
    let is_stopping = AtomicBool::new(false);
    let put = "PUT /v1/kv/b HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nv";
    client.write_all(put.repeat(2).as_bytes()).await.unwrap();
    let mut serving = pin!(connection.serve(near, &is_stopping));
    assert!(poll_once(serving.as_mut()).await.is_pending());
    is_stopping.store(true, Ordering::Relaxed);
    drop(gate);
    serving.await.unwrap();
    let mut answers = Vec::new();
    client.read_to_end(&mut answers).await.unwrap();
    let reply = parse(&answers);
    assert_eq!((reply.status, reply.header("connection"), &reply.body[..]), (201, Some("close"), &b""[..]));
}
