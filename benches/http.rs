//! What a small request costs beside its store: a node on an engine in memory, and a client that sends bytes and counts
//! bytes, both on one thread, over a loopback connection. With one request at a time most of it is system calls; with
//! bursts it is what the code does. An iteration is one request.

#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ostraca::api::{self, Service};
use ostraca::clock::Clock;
use ostraca::config::{Node, Settings, Shard, Topology};
use ostraca::metrics::Metrics;
use ostraca::peer::pool::Tcp;
use ostraca::placement::{HashFunction, Placement};
use ostraca::random::Random;
use ostraca::storage::memory::{MemoryEngine, MemoryFiles};
use ostraca::store::assembly::{Materials, assemble};
use ostraca::store::view::Readiness;
use ostraca::types::{NodeName, ShardIndex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

/// Serves a node that leads the only shard, and connects to it.
async fn connect() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let me = Node { name: NodeName::new("A/0"), address, shard: ShardIndex(0) };
    let shard = Shard { name: "A".to_owned(), index: ShardIndex(0), copies: vec![me.clone()] };
    let topology = Topology { placement: Placement { hash: HashFunction::Fnv1a, shards: 1 }, shards: vec![shard] };
    let metrics = Arc::new(Metrics::new(&api::labels(&topology)));
    let node = assemble(Materials {
        metrics: Arc::clone(&metrics),
        topology: Arc::new(topology),
        settings: Arc::default(),
        me,
        engine: Arc::new(MemoryEngine::new()),
        files: Arc::new(MemoryFiles::default()),
        clock: Clock::real(),
        random: Random::system(),
        connector: Box::new(Tcp),
    })
    .unwrap();
    node.start();
    while !node.store.readiness(Readiness::Writes).iter().all(|check| check.verdict.passes()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let service = Service::new(Arc::clone(&node.store));
    tokio::spawn(async move {
        let _node = node;
        api::listen::serve(listener, service, &Settings::default(), metrics, CancellationToken::new()).await
    });
    TcpStream::connect(address).await.unwrap()
}

/// Sends `requests` once, and reads as many bytes as they were answered with before.
async fn exchange(stream: &mut TcpStream, requests: &[u8], answers: &mut [u8]) {
    stream.write_all(requests).await.unwrap();
    stream.read_exact(answers).await.unwrap();
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("http");
    group.throughput(Throughput::Elements(1)).measurement_time(Duration::from_secs(3));
    for (name, number) in [("get", 1_usize), ("get_burst_of_64", 64)] {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let mut stream = runtime.block_on(connect());
        let value = "x".repeat(100);
        let put =
            format!("PUT /v1/kv/key-12345 HTTP/1.1\r\nHost: 127.0.0.2:8080\r\nContent-Length: 100\r\n\r\n{value}");
        let get = "GET /v1/kv/key-12345 HTTP/1.1\r\nHost: 127.0.0.2:8080\r\n\r\n";
        let answer_len = runtime.block_on(async {
            let mut answer = [0; 4096];
            stream.write_all(put.as_bytes()).await.unwrap();
            let put_len = stream.read(&mut answer).await.unwrap();
            assert!(put_len > 0, "the put was answered");
            stream.write_all(get.as_bytes()).await.unwrap();
            stream.read(&mut answer).await.unwrap()
        });
        let (burst, mut answers) = (get.repeat(number), vec![0; answer_len * number]);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let began = now();
                runtime.block_on(async {
                    for _ in 0..iterations.div_ceil(number as u64) {
                        exchange(&mut stream, burst.as_bytes(), &mut answers).await;
                    }
                });
                began.elapsed()
            });
        });
    }
    group.finish();
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

criterion_group!(benches, requests);
criterion_main!(benches);
