//! Measures what `docs/size.md` reports: resident memory of real nodes, idle and with many keys, and how soon nodes are
//! ready. Run it with `bench/size`, which builds what it measures.
//!
//! It runs the given `kv` on loopback addresses and a port that is free, with its data in a directory of its own beside
//! that program, and ends what it started. It needs nothing but std, so that it builds in a second.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a measurement: a failure ends it, and it reads the clock"
)]

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Connections that write at a time: a node commits many writes together.
const WRITERS: usize = 96;
/// Bytes of a value.
const VALUE_BYTES: usize = 100;

struct Node {
    address: SocketAddr,
    db: PathBuf,
    process: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The addresses of a cluster of so many shards with so many replicas each, and its file.
fn write_config(dir: &Path, shards: usize, replicas: usize) -> (PathBuf, Vec<SocketAddr>) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = |number: usize| SocketAddr::from(([127, 0, 77, u8::try_from(number + 2).unwrap()], port));
    let (mut text, mut addresses) = (String::new(), Vec::new());
    for shard in 0..shards {
        let nodes: Vec<SocketAddr> = (0..=replicas).map(|copy| address(shard * (replicas + 1) + copy)).collect();
        let others: Vec<String> = nodes[1..].iter().map(|node| format!("\"{node}\"")).collect();
        writeln!(text, "[[shards]]\nname = \"S{shard}\"\nidx = {shard}\naddress = \"{}\"", nodes[0]).unwrap();
        writeln!(text, "replicas = [{}]", others.join(", ")).unwrap();
        addresses.extend(nodes);
    }
    let path = dir.join(format!("{shards}-{replicas}.toml"));
    std::fs::write(&path, text).unwrap();
    (path, addresses)
}

/// Starts all nodes, and gives them with the time until the last of them was ready.
fn start(kv: &Path, config: &Path, addresses: &[SocketAddr], dir: &Path) -> (Vec<Node>, Duration) {
    let began = Instant::now();
    let nodes: Vec<Node> = addresses
        .iter()
        .map(|address| {
            let db = dir.join(format!("{}-{}.redb", config.file_stem().unwrap().to_string_lossy(), address.ip()));
            let mut serve = Command::new(kv);
            serve.arg("serve").arg("--config-file").arg(config).args(["--http-addr", &address.to_string()]);
            serve.arg("--db-location").arg(&db).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            Node { address: *address, db, process: serve.spawn().unwrap() }
        })
        .collect();
    for node in &nodes {
        while !ask(node.address, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            assert!(began.elapsed() < Duration::from_secs(120), "{} is not ready", node.address);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    (nodes, began.elapsed())
}

/// SIGTERM to each, and waits for their end.
fn stop(nodes: Vec<Node>) {
    for mut node in nodes {
        let pid = node.process.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        node.process.wait().unwrap();
    }
}

fn ask(address: SocketAddr, target: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Sends `GET {target(n)}` for each n below `count` over many connections; each must be answered with 200.
fn send_all(address: SocketAddr, count: usize, target: impl Fn(usize) -> String + Sync) -> Duration {
    let began = Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let target = &target;
            scope.spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
                let mut buffer = [0; 4096];
                for n in (writer..count).step_by(WRITERS) {
                    write!(stream, "GET {} HTTP/1.1\r\nHost: a\r\n\r\n", target(n)).unwrap();
                    let read = stream.read(&mut buffer).unwrap(); // a small answer comes in one piece
                    let answer = String::from_utf8_lossy(&buffer[..read]);
                    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                }
            });
        }
    });
    began.elapsed()
}

fn seed(address: SocketAddr, count: usize) -> Duration {
    let value = "v".repeat(VALUE_BYTES);
    send_all(address, count, |n| format!("/set?key=key-{n:012}&value={value}"))
}

/// Resident MiB of a process now, and at most so far.
fn resident_mib(node: &Node) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.process.id())).unwrap();
    let field = |name: &str| -> f64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    };
    (field("VmRSS:"), field("VmHWM:"))
}

fn row(what: &str, measured: &str, target: &str) {
    println!("| {what} | {measured} | {target} |");
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (kv, keys) = match &args[..] {
        [kv] => (PathBuf::from(kv), 1_000_000),
        [kv, flag, count] if flag == "--keys" => (PathBuf::from(kv), count.parse().expect("--keys wants a number")),
        _ => panic!("usage: size KV [--keys N], where KV is the program to measure"),
    };
    // Beside what was built: a real disk, where the system's temporary directory may be memory.
    let dir = kv.parent().unwrap().join(format!("size-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    measure(&kv, &dir, keys);
    std::fs::remove_dir_all(&dir).unwrap();
}

fn measure(kv: &Path, dir: &Path, keys: usize) {
    println!("| what | measured | wanted |\n|---|---|---|");

    let (config, addresses) = write_config(dir, 4, 1);
    let (nodes, took) = start(kv, &config, &addresses, dir);
    row("eight new nodes are ready", &format!("{:.2} s", took.as_secs_f64()), "3 s");
    std::thread::sleep(Duration::from_secs(5));
    let idle = nodes.iter().map(|node| resident_mib(node).0).fold(0.0, f64::max);
    row("idle node, resident (the largest of eight)", &format!("{idle:.1} MiB"), "40 MiB");
    seed(addresses[0], keys / 10 * 4);
    stop(nodes);
    let (nodes, took) = start(kv, &config, &addresses, dir);
    row(&format!("eight nodes with {} keys each are ready", keys / 10), &format!("{:.2} s", took.as_secs_f64()), "5 s");
    let loaded = nodes.iter().map(|node| resident_mib(node).0).fold(0.0, f64::max);
    row("such a node, resident after its start", &format!("{loaded:.1} MiB"), "");
    stop(nodes);

    let (config, addresses) = write_config(dir, 1, 0);
    let (nodes, _) = start(kv, &config, &addresses, dir);
    let took = seed(addresses[0], keys);
    let (now, most) = resident_mib(&nodes[0]);
    let rate = keys as f64 / took.as_secs_f64();
    row(
        &format!("{keys} keys of {VALUE_BYTES} bytes just written ({rate:.0} a second), resident"),
        &format!("{now:.1} MiB, at most {most:.1}"),
        "200 MiB",
    );
    let read = |n: usize| format!("/get?key=key-{:012}", n.wrapping_mul(2_654_435_761) % keys);
    let took = send_all(addresses[0], keys / 2, read);
    let (now, most) = resident_mib(&nodes[0]);
    let rate = (keys / 2) as f64 / took.as_secs_f64();
    row(
        &format!("and half of them read in random order ({rate:.0} a second), resident"),
        &format!("{now:.1} MiB, at most {most:.1}"),
        "200 MiB",
    );
    let file = std::fs::metadata(&nodes[0].db).unwrap().len() >> 20;
    stop(nodes);
    let (nodes, took) = start(kv, &config, &addresses, dir);
    row(
        &format!("that node, with its file of {file} MiB, is ready again"),
        &format!("{:.2} s", took.as_secs_f64()),
        "",
    );
    send_all(addresses[0], keys / 2, read);
    let (now, most) = resident_mib(&nodes[0]);
    row("restarted, and half of its keys read, resident", &format!("{now:.1} MiB, at most {most:.1}"), "200 MiB");
    stop(nodes);
}
