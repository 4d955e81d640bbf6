//! No request crashes or wedges a node: thousands of generated ones, well formed, nearly well formed and not at all, from a
//! seed that a failure names. Each answer is one that API.md knows, no `500` among them; the node lives, holds no more memory
//! than it needs, and does as before.
//!
//! `OSTRACA_TEST_ROUNDS=50000 OSTRACA_TEST_SEED=7 cargo test --test http_api robust` makes it long, and another one.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::support::problem::well_formed;
use crate::support::raw::Connection;
use crate::support::{Cluster, Request, Spec, wait};

/// The statuses of API.md, and 101 for who asks to be a peer; 500 is none that a request may bring about.
const KNOWN: [u16; 28] = [
    101, 200, 201, 204, 206, 304, 307, 400, 401, 403, 404, 405, 409, 410, 412, 413, 414, 415, 416, 417, 421, 422, 426,
    429, 431, 501, 503, 504,
];
/// Memory that a node may hold beyond what it had after the first of the requests.
const GROWTH_KIB_MAX: u64 = 150_000;

const METHODS: [&str; 12] =
    ["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "get", "CONNECT", "X", "PROPFIND"];
const PATHS: [&str; 22] = [
    "/set",
    "/get",
    "/delete",
    "/purge",
    "/next-replication-key",
    "/v1/kv",
    "/v1/kv/",
    "/v1/kv/a",
    "/v1/kv/a%2Fb",
    "/v1/kv/../x",
    "/v1/keys",
    "/v1/batch",
    "/v1/watch",
    "/v1/explain",
    "/v1/receipt",
    "/v1/cluster",
    "/livez",
    "/readyz",
    "/admin/v1/nothing",
    "/",
    "/v1/peer",
    "//",
];
const NAMES: [&str; 16] = [
    "key",
    "value",
    "key_b64",
    "consistency",
    "route",
    "timeout",
    "ack",
    "ack_timeout",
    "ttl",
    "max_stale",
    "op",
    "by",
    "prefix",
    "limit",
    "for",
    "%6bey",
];
const VALUES: [&str; 18] = [
    "a",
    "",
    "%",
    "%zz",
    "%00%ff",
    "+",
    "any",
    "leader",
    "local",
    "redirect",
    "1ms",
    "0",
    "-1",
    "99999999999999999999",
    "=",
    "30s",
    "%C3%28",
    "replicas:9",
];
const HEADERS: [(&str, &str); 24] = [
    ("If-Match", "\"x\""),
    ("If-None-Match", "*"),
    ("Range", "bytes=0-1"),
    ("Expect", "100-continue"),
    ("Expect", "wonders"),
    ("Content-Type", "application/x-www-form-urlencoded"),
    ("Content-Type", "multipart/form-data; boundary=x"),
    ("Content-Type", "\u{7f}"),
    ("Content-Encoding", "gzip"),
    ("Content-Length", "5"),
    ("Content-Length", "-1"),
    ("Content-Length", "18446744073709551616"),
    ("Transfer-Encoding", "chunked"),
    ("Transfer-Encoding", "gzip, chunked"),
    ("Host", ""),
    ("Host", "b"),
    ("Origin", "null"),
    ("Sec-Fetch-Site", "cross-site"),
    ("KV-Timeout", "1ms"),
    ("KV-Consistency", "session"),
    ("KV-Forwarded", "a->b"),
    ("Idempotency-Key", "x"),
    ("Connection", "close, te"),
    ("Upgrade", "ostraca-peer"),
];

fn pick<T: Copy>(rng: &mut SmallRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

/// The bytes of a request, or of something like one.
fn generated(rng: &mut SmallRng) -> Vec<u8> {
    // Mostly a method that the path has, for others do not come far.
    let methods = if rng.random_bool(0.8) { &METHODS[..4] } else { &METHODS[..] };
    let mut target = pick(rng, &PATHS).to_owned();
    for number in 0..rng.random_range(0..4) {
        let name = if number == 0 && rng.random_bool(0.7) { "key" } else { pick(rng, &NAMES) };
        target += &format!("{}{name}={}", if number == 0 { "?" } else { "&" }, pick(rng, &VALUES));
    }
    if rng.random_bool(0.02) {
        target += &"k".repeat(rng.random_range(1..100_000));
    }
    let mut bytes = format!("{} {target} HTTP/1.{}\r\n", pick(rng, methods), rng.random_range(0..2)).into_bytes();
    if rng.random_bool(0.95) {
        bytes.extend(b"Host: a\r\n");
    }
    for _ in 0..rng.random_range(0..4) {
        let (name, value) = pick(rng, &HEADERS);
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    let body: Vec<u8> = (0..rng.random_range(0..40)).map(|_| rng.random()).collect();
    if rng.random_bool(0.5) {
        bytes.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(&body);
    if rng.random_bool(0.2) {
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..3) {
            0 => bytes[at] = rng.random(),
            1 => bytes.truncate(at),
            _ => bytes.insert(at, rng.random()),
        }
    }
    bytes
}

#[test]
fn thousands_of_generated_requests_meet_documented_answers_and_a_living_node() {
    let seed = std::env::var("OSTRACA_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_120);
    let mut rng = SmallRng::seed_from_u64(seed);
    let cluster = Cluster::start(Spec::shards(2).replicas(1).config("[limits]\nrequest_timeout_ms = 2000\n"));
    let nodes = [cluster.leader(0), cluster.replica(1)];
    cluster.put_key(nodes[0], b"kept", b"v").expect(201);
    let mut before = [0, 0];
    let total = wait::rounds(4000);
    for number in 0..total {
        let at = nodes[number % 2];
        let bytes = generated(&mut rng);
        let mut connection = Connection::open(cluster.address(at)).unwrap();
        drop(connection.write(&bytes)); // refused before it is whole: so be it
        connection.finish_sending();
        if let Ok(answer) = connection.answer() {
            let shown = bytes[..bytes.len().min(400)].escape_ascii().to_string();
            assert!(KNOWN.contains(&answer.status), "seed {seed}, request {number}: {shown}\n{answer:?}");
            let says_problem = answer.header("content-type") == Some("application/problem+json");
            if answer.status >= 400 && says_problem && !answer.body.is_empty() {
                well_formed(&answer);
            }
        }
        if number == total / 4 {
            before = nodes.map(|at| cluster.resident_kib(at));
        }
    }
    for (at, before) in nodes.into_iter().zip(before) {
        let after = cluster.resident_kib(at);
        assert!(after < before + GROWTH_KIB_MAX, "{at:?} grew from {before} KiB to {after} KiB");
        let log = cluster.log(at);
        assert!(cluster.is_running(at) && !log.contains("panicked"), "seed {seed}: {log}");
        cluster.send(at, &Request::get("/livez")).expect(200);
        cluster.put_key(at, b"after", b"v");
        assert_eq!(cluster.get_key(at, b"after", "").expect(200).text(), "v");
        assert_eq!(cluster.get_key(at, b"kept", "").expect(200).text(), "v");
    }
    cluster.wait_converged();
}
