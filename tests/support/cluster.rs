//! A cluster of real `kv serve` processes on addresses of its own, with its files in a directory of its own.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::address::Block;
use super::process::{Node, Said, Watchdog, kv};
use super::raw::{self, Request, Response};
use super::{encode, fnv, wait};

/// Names for shards, as many as a test needs.
const NAMES: [&str; 8] = ["Hyderabad", "Bangalore", "Mumbai", "Delhi", "Chennai", "Kolkata", "Pune", "Jaipur"];
/// How much of a node's log a failure shows.
const LOG_LINES_SHOWN: usize = 60;

/// What cluster is wanted.
#[derive(Debug, Clone)]
pub struct Spec {
    shards: usize,
    replicas: usize,
    hash: Option<&'static str>,
    tables: String,
    log_filter: Option<&'static str>,
}

impl Spec {
    /// So many shards, without replicas, with every setting at its default.
    pub fn shards(shards: usize) -> Spec {
        assert!((1..=NAMES.len()).contains(&shards), "there are names for {} shards", NAMES.len());
        Spec { shards, replicas: 0, hash: None, tables: String::new(), log_filter: None }
    }

    /// So many replicas of each shard.
    pub fn replicas(self, replicas: usize) -> Spec {
        Spec { replicas, ..self }
    }

    /// `hash = "…"` in the file.
    pub fn hash(self, hash: &'static str) -> Spec {
        Spec { hash: Some(hash), ..self }
    }

    /// `KV_LOG` of the nodes, such as `ostraca=debug,info`.
    pub fn log_filter(self, filter: &'static str) -> Spec {
        Spec { log_filter: Some(filter), ..self }
    }

    /// Tables of settings, added to the file as they are.
    pub fn config(self, tables: &str) -> Spec {
        Spec { tables: tables.to_owned(), ..self }
    }
}

/// Which node: the shard's index, and 0 for its leader in the file, 1 and on for its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The shard's index.
    pub shard: usize,
    /// 0: leader; from 1: replica.
    pub copy: usize,
}

impl At {
    /// Whether the file makes it its shard's leader.
    pub fn leads(self) -> bool {
        self.copy == 0
    }
}

/// A cluster; ends its processes, and only them, when it is dropped. Shared between threads by reference.
#[derive(Debug)]
pub struct Cluster {
    spec: Spec,
    block: Block,
    nodes: Vec<Mutex<Node>>,
    directory: TempDir,
}

impl Cluster {
    /// Starts all nodes and waits until all are ready.
    pub fn start(spec: Spec) -> Cluster {
        let cluster = Cluster::prepare(spec);
        cluster.start_all();
        cluster
    }

    /// Writes the file, starts nothing.
    pub fn prepare(spec: Spec) -> Cluster {
        let count = spec.shards * (spec.replicas + 1);
        let block = Block::claim(u16::try_from(count).unwrap());
        // In the build directory: a real disk, and gone with `cargo clean` should anything stay behind.
        let directory = tempfile::Builder::new().prefix("cluster-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let watchdog = Watchdog::start(directory.path());
        let mut cluster = Cluster { spec, block, nodes: Vec::new(), directory };
        std::fs::write(cluster.config_file(), cluster.sharding_toml(&cluster.spec)).unwrap();
        cluster.nodes = cluster.all().map(|at| cluster.node(at, &watchdog)).map(Mutex::new).collect();
        cluster
    }

    fn node(&self, at: At, watchdog: &Arc<Watchdog>) -> Node {
        let log = self.directory.path().join(format!("{}-{}.log", self.shard_name(at.shard), at.copy));
        let args = self.serve_args(at, &self.config_file(), &self.db_file(at));
        Node::new(args, log, Arc::clone(watchdog)).log_filter(self.spec.log_filter)
    }

    /// The arguments of `kv` for this node, with another configuration or file if a test wants that.
    pub fn serve_args(&self, at: At, config: &Path, db: &Path) -> Vec<String> {
        let address = self.address(at).to_string();
        let (config, db) = (config.display().to_string(), db.display().to_string());
        ["serve", "--config-file", &config, "--http-addr", &address, "--db-location", &db].map(str::to_owned).into()
    }

    /// `sharding.toml` for a spec at this cluster's addresses.
    pub fn sharding_toml(&self, spec: &Spec) -> String {
        let mut text = spec.hash.map(|hash| format!("hash = \"{hash}\"\n\n")).unwrap_or_default();
        for (shard, name) in NAMES.iter().enumerate().take(spec.shards) {
            let address = |copy| format!("\"{}\"", self.block_address(shard, copy));
            let replicas: Vec<String> = (1..=spec.replicas).map(address).collect();
            writeln!(text, "[[shards]]\nname = \"{name}\"\nidx = {shard}\naddress = {}", address(0)).unwrap();
            writeln!(text, "replicas = [{}]\n", replicas.join(", ")).unwrap();
        }
        text + &spec.tables
    }

    fn block_address(&self, shard: usize, copy: usize) -> SocketAddr {
        self.block.node(u16::try_from(shard * (self.spec.replicas + 1) + copy).unwrap())
    }

    /// The path of the configuration that the nodes read.
    pub fn config_file(&self) -> PathBuf {
        self.directory.path().join("sharding.toml")
    }

    /// The path of a node's database file.
    pub fn db_file(&self, at: At) -> PathBuf {
        self.directory.path().join(format!("{}-{}.redb", self.shard_name(at.shard), at.copy))
    }

    /// Where a test may put files of its own.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A node of this cluster's watch with arguments of a test's choice; does not run yet.
    pub fn extra_process(&self, name: &str, args: Vec<String>) -> Node {
        Node::new(args, self.directory.path().join(format!("{name}.log")), Watchdog::start(Path::new("")))
    }

    // ---- who is where

    /// Every node, shard by shard, leaders first.
    pub fn all(&self) -> impl Iterator<Item = At> + use<> {
        let copies = self.spec.replicas + 1;
        (0..self.spec.shards * copies).map(move |n| At { shard: n / copies, copy: n % copies })
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.spec.shards
    }

    /// The node that the file makes a shard's leader.
    pub fn leader(&self, shard: usize) -> At {
        At { shard, copy: 0 }
    }

    /// A shard's first replica.
    pub fn replica(&self, shard: usize) -> At {
        At { shard, copy: 1 }
    }

    /// Where a node listens.
    pub fn address(&self, at: At) -> SocketAddr {
        self.block_address(at.shard, at.copy)
    }

    /// A shard's name.
    pub fn shard_name(&self, shard: usize) -> &'static str {
        NAMES[shard]
    }

    /// A key of this shard.
    pub fn key(&self, shard: usize, stem: &str) -> String {
        fnv::key_in(shard, self.spec.shards, stem)
    }

    /// The shard that owns a key (FNV-1a).
    pub fn shard_of(&self, key: &[u8]) -> usize {
        fnv::shard_of(key, self.spec.shards)
    }

    // ---- life and death

    fn lock(&self, at: At) -> MutexGuard<'_, Node> {
        let number = at.shard * (self.spec.replicas + 1) + at.copy;
        self.nodes[number].lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Starts all nodes and waits until all are ready.
    pub fn start_all(&self) {
        self.all().for_each(|at| self.launch(at));
        self.all().for_each(|at| self.wait_ready(at));
    }

    /// Starts a node's process; does not wait for it.
    pub fn launch(&self, at: At) {
        self.lock(at).start();
    }

    /// Starts a node that does not run, and waits until it is ready.
    pub fn restart(&self, at: At) {
        self.launch(at);
        self.wait_ready(at);
    }

    /// `kill -9`.
    pub fn kill9(&self, at: At) {
        self.lock(at).kill9();
    }

    /// SIGTERM; gives how the process ended.
    pub fn stop(&self, at: At) -> ExitStatus {
        self.lock(at).stop()
    }

    /// Waits until a node has ended by itself.
    pub fn wait_exit(&self, at: At) -> ExitStatus {
        self.lock(at).wait_exit(wait::SOON)
    }

    /// A signal; does not wait for what comes of it.
    pub fn signal(&self, at: At, signal: Signal) {
        self.lock(at).signal(signal);
    }

    /// The id of a running node's process.
    pub fn pid(&self, at: At) -> u32 {
        self.lock(at).pid()
    }

    /// KiB of memory that a running node has resident; 0 where there is no `/proc` to ask.
    pub fn resident_kib(&self, at: At) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid(at))).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
    }

    /// From its next start on, a node is started by this program.
    pub fn set_under(&self, at: At, under: &[&str]) {
        self.lock(at).set_under(under);
    }

    /// From its next start on, a node has its file here.
    pub fn move_db(&self, at: At, db: &Path) {
        let args = self.serve_args(at, &self.config_file(), db);
        self.lock(at).set_args(args);
    }

    /// SIGSTOP: the process neither runs nor dies; its kernel still takes connections.
    pub fn sigstop(&self, at: At) {
        self.lock(at).signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn sigcont(&self, at: At) {
        self.lock(at).signal(Signal::CONT);
    }

    /// Whether the node's process is there.
    pub fn is_running(&self, at: At) -> bool {
        self.lock(at).is_running()
    }

    /// Removes a stopped node's file and what lies beside it under its name.
    pub fn wipe(&self, at: At) {
        assert!(!self.is_running(at), "a running node's file is not wiped");
        let file = self.db_file(at);
        let stem = file.file_name().unwrap().to_string_lossy().into_owned();
        for found in std::fs::read_dir(self.directory.path()).unwrap().flatten() {
            if found.file_name().to_string_lossy().starts_with(&stem) {
                let is_log = found.path().is_dir();
                if is_log { std::fs::remove_dir_all(found.path()) } else { std::fs::remove_file(found.path()) }
                    .unwrap();
            }
        }
    }

    /// Waits until `/readyz` says 200; panics with the log when the process ends before.
    pub fn wait_ready(&self, at: At) {
        wait::until(&format!("{at:?} at {} is ready", self.address(at)), || {
            let ended = self.lock(at).exit_status();
            if let Some(status) = ended {
                panic!("{at:?} ended before it was ready ({status}):\n{}", tail(&self.log(at)));
            }
            match raw::send(self.address(at), &Request::get("/readyz")) {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.text()),
                Err(error) => Err(error.to_string()),
            }
        });
    }

    /// Waits until a process that a test started itself is ready at an address.
    pub fn wait_ready_at(&self, address: SocketAddr, node: &mut Node) {
        wait::until(&format!("{address} is ready"), || {
            assert!(node.is_running(), "it ended before it was ready:\n{}", tail(&node.log()));
            match raw::send(address, &Request::get("/readyz")) {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.text()),
                Err(error) => Err(error.to_string()),
            }
        });
    }

    /// All that a node has printed.
    pub fn log(&self, at: At) -> String {
        self.lock(at).log()
    }

    // ---- talk

    /// Sends a request to a node; panics when there is no answer.
    pub fn send(&self, at: At, request: &Request) -> Response {
        raw::send(self.address(at), request)
            .unwrap_or_else(|error| panic!("{at:?} at {}: {request}: {error}", self.address(at)))
    }

    /// GET of a target.
    pub fn get(&self, at: At, target: impl Into<String>) -> Response {
        self.send(at, &Request::get(target))
    }

    /// Stores a value, through `PUT /v1/kv?key_b64=`.
    pub fn put_key(&self, at: At, key: &[u8], value: &[u8]) -> Response {
        self.send(at, &Request::new("PUT", kv_target(key)).body(value))
    }

    /// Reads a key; `controls` are further parameters, such as `route=local&consistency=any`.
    pub fn get_key(&self, at: At, key: &[u8], controls: &str) -> Response {
        let and = if controls.is_empty() { "" } else { "&" };
        self.send(at, &Request::get(format!("{}{and}{controls}", kv_target(key))))
    }

    /// Deletes a key.
    pub fn delete_key(&self, at: At, key: &[u8]) -> Response {
        self.send(at, &Request::new("DELETE", kv_target(key)))
    }

    /// Runs a command of `kv` against a node.
    pub fn kv(&self, at: At, args: &[&str], input: &str) -> Said {
        let url = format!("http://{}", self.address(at));
        kv(&[args, &["--url", &url]].concat(), input)
    }

    /// The name of a node, as the file gives it.
    pub fn node_name(&self, at: At) -> String {
        format!("{}/{}", self.shard_name(at.shard), at.copy)
    }

    /// The value that this node's own copy holds; none: no such key. Panics on every other answer.
    pub fn local(&self, at: At, key: &[u8]) -> Option<Vec<u8>> {
        let answer = self.get_key(at, key, "route=local&consistency=any");
        match answer.status {
            200 => Some(answer.body),
            404 => None,
            _ => panic!("a local read of {} at {at:?}: {answer:?}", encode::percent(key)),
        }
    }

    /// `/admin/v1/status` of a node.
    pub fn status(&self, at: At) -> Value {
        self.get(at, "/admin/v1/status").json()
    }

    /// Waits until every replica's end is its leader's.
    pub fn wait_converged(&self) {
        for at in self.all().filter(|at| !at.leads()) {
            wait::until(&format!("{at:?} has all that its leader has"), || {
                let end = |at| self.status(at)["copies"][0]["end"].as_u64().expect("a copy has an end");
                let (leader, replica) = (end(self.leader(at.shard)), end(at));
                if leader == replica { Ok(()) } else { Err(format!("leader at {leader}, replica at {replica}")) }
            });
        }
    }

    /// The end of every node's log, for a test that fails.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for at in self.all() {
            writeln!(text, "==== {at:?} {}\n{}", self.address(at), tail(&self.log(at))).unwrap();
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        self.nodes.clear();
    }
}

/// `/v1/kv?key_b64=…`, which takes every key.
pub fn kv_target(key: &[u8]) -> String {
    format!("/v1/kv?key_b64={}", encode::base64url(key))
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}
