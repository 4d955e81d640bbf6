//! The composition root: opens the copy's file, wires the parts, serves, and stops in order.
//!
//! ```text
//! start   open the file ─ bind ─ writer's thread ─ store ─ HTTP and peers ─ lead or follow
//! stop    accept nothing new ─ finish requests ─ stop tasks ─ drain the writer ─ close the file
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::extract::Request;
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api;
use crate::clock::Clock;
use crate::cluster::{ClusterMap, exchange};
use crate::config::{Config, Node, Settings, Shard, Topology};
use crate::peer::pool::{PEER_PATH, PEER_UPGRADE, Tcp};
use crate::peer::server::Listener;
use crate::peer::{Contacts, Local, Pool};
use crate::random::Random;
use crate::replication::pair::{Duty, Leader, Pair, Surroundings, upkeep_source};
use crate::storage::files::RedbFiles;
use crate::storage::open::{OpenError, Options as FileOptions};
use crate::storage::writer::{self, Writer};
use crate::storage::{Engine, Identity, State};
use crate::store::{Parts, Store};
use crate::tasks::{TaskKind, Tasks};
use crate::types::{Incarnation, NodeName};

/// Connections that the kernel holds until they are accepted.
const LISTEN_BACKLOG: u32 = 1024;

/// What a node needs to know before it starts.
#[derive(Debug)]
pub struct Options {
    /// The checked file.
    pub config: Config,
    /// Which node of the file this process is.
    pub node: NodeName,
    /// The node's database file.
    pub db_location: PathBuf,
    /// Where the configuration was read from, for messages.
    pub config_path: PathBuf,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file names no such node: the caller did not check.
    #[error("{0} is no node of the configuration")]
    UnknownNode(NodeName),
    /// The database file was refused.
    #[error("{0}; {remedy}", remedy = .0.remedy())]
    Open(#[from] OpenError),
    /// The opened file cannot be read.
    #[error("{0}")]
    Store(#[from] crate::storage::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}; end the process that holds the address, or change it in the file")]
    Bind {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The system gave no thread, no runtime or no signal handler.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Runs the node until SIGTERM or SIGINT; blocks. All that was acknowledged is on disk when it returns.
pub fn run(options: Options) -> Result<(), Error> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(options))
}

async fn serve(options: Options) -> Result<(), Error> {
    let shutdown = shutdown_on_signal()?;
    let node = Running::start(options)?;
    let listener = bind(&node.me)?;
    info!(
        node = %node.me.name,
        shard = node.pair.shard.name,
        address = %node.me.address,
        file = %node.db_location.display(),
        end = %node.pair.writer.published().end(),
        "serving"
    );
    node.spawn_background();
    let router = api::router(Arc::clone(&node.store)).route(PEER_PATH, node.peer_route());
    api::listen::serve(listener, router, &node.settings, shutdown).await;
    node.stop().await;
    Ok(())
}

/// A node's parts while it runs.
struct Running {
    me: Node,
    db_location: PathBuf,
    settings: Arc<Settings>,
    random: Random,
    tasks: Tasks,
    pair: Arc<Pair>,
    writer: JoinHandle<()>,
    store: Arc<Store>,
    map: Arc<ClusterMap>,
    pool: Arc<Pool>,
    local: Arc<Local>,
    contacts: Arc<Contacts>,
}

impl Running {
    fn start(options: Options) -> Result<Running, Error> {
        let Options { config: Config { topology, settings }, node, db_location, .. } = options;
        let (topology, settings) = (Arc::new(topology), Arc::new(settings));
        let me = topology.node(&node).ok_or_else(|| Error::UnknownNode(node.clone()))?.clone();
        let shard = topology.shard(me.shard).ok_or(Error::UnknownNode(node))?.clone();
        let (clock, random, tasks) = (Clock::real(), Random::system(), Tasks::default());
        let files = RedbFiles {
            path: db_location.clone(),
            identity: identity(&topology, &shard),
            options: FileOptions { cache_bytes: settings.cache_bytes },
        };
        let engine: Arc<dyn Engine> = Arc::new(files.open()?);
        let state = engine.state()?;
        if state.unclean {
            warn!(file = %db_location.display(), "the file was not closed properly; it was repaired, and nothing is lost");
        }
        let map = Arc::new(ClusterMap::new(Arc::clone(&topology)));
        if let Some(epoch) = &state.epoch {
            map.merge(shard.index, epoch); // what was persisted wins over the file (rule 15)
        }
        let local = Arc::new(local(&topology, &me, &state));
        let contacts = Arc::new(Contacts::default());
        let pool = Arc::new(Pool::new(
            Arc::clone(&local),
            Arc::clone(&contacts),
            clock.clone(),
            random.clone(),
            Box::new(Tcp),
        ));
        let around = Surroundings {
            map: Arc::clone(&map),
            pool: Arc::clone(&pool),
            local: Arc::clone(&local),
            clock: clock.clone(),
            random: random.clone(),
            settings: Arc::clone(&settings),
        };
        let (pair, writer) = open_pair(shard, &me, engine, &state, files, around)?;
        let pair = Arc::new(pair);
        let store = Arc::new(Store::new(Parts {
            me: me.clone(),
            map: Arc::clone(&map),
            pool: Arc::clone(&pool),
            local: Arc::clone(&local),
            contacts: Arc::clone(&contacts),
            settings: Arc::clone(&settings),
            clock,
            tasks: tasks.clone(),
            copies: [(me.shard, Arc::clone(&pair))].into(),
        }));
        Ok(Running { me, db_location, settings, random, tasks, pair, writer, store, map, pool, local, contacts })
    }

    fn spawn_background(&self) {
        let pair = Arc::clone(&self.pair);
        match pair.duty() {
            Duty::Following => self.tasks.spawn_until_stop(TaskKind::Follow, pair.follow()),
            Duty::Starting | Duty::Leading | Duty::Halted(_) => {
                self.tasks.spawn_until_stop(TaskKind::Lead, pair.lead());
            }
        }
        self.tasks.spawn_until_stop(TaskKind::Exchange, Arc::clone(&self.pair).keep_cluster_uid());
        let (pool, map, local) = (Arc::clone(&self.pool), Arc::clone(&self.map), Arc::clone(&self.local));
        let exchange = exchange::run(pool, map, local, self.random.clone());
        self.tasks.spawn_until_stop(TaskKind::Exchange, exchange);
    }

    /// The handler that turns an HTTP upgrade into a peer connection.
    fn peer_route(&self) -> MethodRouter {
        let listener = Listener {
            local: Arc::clone(&self.local),
            contacts: Arc::clone(&self.contacts),
            tasks: self.tasks.tracker(),
            stop: self.tasks.stop_token(),
        };
        let (store, tasks) = (Arc::clone(&self.store), self.tasks.clone());
        get(async move |request: Request| upgrade(&listener, &store, &tasks, request))
    }

    /// Finishes what is under way, and closes the file.
    async fn stop(self) {
        info!(node = %self.me.name, "stopping");
        self.tasks.stop().await;
        self.pair.writer.close();
        let joined = tokio::task::spawn_blocking(move || self.writer.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            error!("the writer's thread panicked");
        }
        info!(node = %self.me.name, "stopped");
    }
}

/// What the node's file must be.
fn identity(topology: &Topology, shard: &Shard) -> Identity {
    Identity {
        shard_name: shard.name.clone(),
        shard: shard.index,
        shard_count: topology.placement.shards,
        hash: topology.placement.hash.to_string(),
    }
}

fn local(topology: &Topology, me: &Node, state: &State) -> Local {
    let names: Vec<&str> = topology.shards.iter().map(|shard| shard.name.as_str()).collect();
    let placement_text =
        format!("static, {}, {} shards: {}", topology.placement.hash, topology.placement.shards, names.join(", "));
    Local::new(me.name.clone(), topology.placement_hash(), placement_text, topology.addresses_hash(), state.cluster_uid)
}

fn open_pair(
    shard: Shard,
    me: &Node,
    engine: Arc<dyn Engine>,
    state: &State,
    files: RedbFiles,
    around: Surroundings,
) -> Result<(Pair, JoinHandle<()>), Error> {
    let others = shard.copies.iter().filter(|copy| copy.name != me.name).map(|copy| copy.name.clone());
    let leader = Arc::new(Mutex::new(Leader::new(others, &state.cursors)));
    let upkeep = upkeep_source(Arc::clone(&leader), Arc::clone(&around.settings), around.clock.clone());
    let options = writer::Options { shard: shard.index, min_free_bytes: around.settings.min_free_bytes };
    let writer = Writer::new(engine, state, around.clock.clone(), options, Box::new(upkeep));
    let (handle, thread) = writer::spawn(writer)?;
    let incarnation = Incarnation(around.random.id());
    let pair = Pair::new(shard, me.clone(), handle, state, leader, Arc::new(files), incarnation, around);
    Ok((pair, thread))
}

fn bind(me: &Node) -> Result<TcpListener, Error> {
    let listen = || {
        let socket = if me.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?; // a restarted node takes its address back at once
        socket.bind(me.address)?;
        socket.listen(LISTEN_BACKLOG)
    };
    listen().map_err(|error| Error::Bind { address: me.address, error })
}

/// A token that is cancelled by SIGTERM or SIGINT.
fn shutdown_on_signal() -> io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancel.cancel();
    });
    Ok(token)
}

/// Answers a peer's upgrade, and serves its connection in a task of its own.
fn upgrade(listener: &Listener, store: &Arc<Store>, tasks: &Tasks, mut request: Request) -> Response {
    let wants = request.headers().get(UPGRADE).is_some_and(|value| value.as_bytes() == PEER_UPGRADE.as_bytes());
    if !wants {
        let text = "this path is for other nodes of the cluster; clients use /get, /set and /v1/kv\n";
        return (StatusCode::UPGRADE_REQUIRED, [(UPGRADE, PEER_UPGRADE)], text).into_response();
    }
    let upgraded = hyper::upgrade::on(&mut request);
    let (listener, store) = (listener.clone(), Arc::clone(store));
    tasks.spawn(TaskKind::Peer, async move {
        match upgraded.await {
            Ok(upgraded) => listener.serve(TokioIo::new(upgraded), store).await,
            Err(error) => warn!(%error, "a peer's upgrade failed"),
        }
    });
    let headers =
        [(CONNECTION, HeaderValue::from_static("upgrade")), (UPGRADE, HeaderValue::from_static(PEER_UPGRADE))];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}
