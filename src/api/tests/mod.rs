//! The contract, rule by rule, over a real socket: each test sends bytes as a client would and reads what comes back.
//! The node leads one shard of two; the other shard's leader is down.

mod connections;
mod curl;
mod limits;
mod metrics;
mod openmetrics;
mod operate;
mod plain;
mod resources;
mod routes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Service, labels, listen};
use crate::clock::Clock;
use crate::config::{Node, Settings, Shard, Topology};
use crate::metrics::Metrics;
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
    store_on(address, settings, Arc::new(MemoryEngine::new()), Random::system()).await
}

/// The same, on an engine of the test's.
async fn store_on(address: SocketAddr, settings: Settings, engine: Arc<MemoryEngine>, random: Random) -> Arc<Store> {
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
        metrics: Arc::new(Metrics::new(&labels(&topology))),
        topology: Arc::new(topology),
        settings: Arc::new(settings),
        me,
        engine,
        files: Arc::new(MemoryFiles::default()),
        clock: Clock::real(),
        random,
        connector: Box::new(Tcp),
    });
    let node = node.unwrap();
    node.start();
    while !node.store.readiness(Readiness::Writes).iter().all(|check| check.verdict.passes()) {
        tokio::time::sleep(Duration::from_millis(1)).await; // it asks the other node first, for as long as a timer says
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
    let store = store(address, settings.clone()).await;
    let (metrics, service) = (Arc::clone(store.metrics()), Service::new(store));
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move { listen::serve(listener, service, &settings, metrics, stop).await });
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
        self.converse(bytes, false).await
    }

    /// The same, and says that nothing more comes.
    async fn raw_and_end(&self, bytes: &[u8]) -> Vec<u8> {
        self.converse(bytes, true).await
    }

    async fn converse(&self, bytes: &[u8], ends: bool) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        if ends {
            stream.shutdown().await.unwrap();
        }
        let mut answer = Vec::new();
        timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("an answer").unwrap();
        answer
    }

    /// Sends one request, `METHOD target`, with headers and a body of announced length.
    async fn send(&self, line: &str, headers: &[&str], body: &[u8]) -> Reply {
        let mut request = format!("{line} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for header in headers {
            request += &format!("{header}\r\n");
        }
        if !body.is_empty() {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        let mut bytes = (request + "\r\n").into_bytes();
        bytes.extend_from_slice(body);
        parse(&self.raw_and_end(&bytes).await)
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
