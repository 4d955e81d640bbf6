//! The composition root: binds the address, opens the copy's file, serves HTTP and peers, and stops in order.
//!
//! ```text
//! start   bind ─ open the file ─ assemble ─ HTTP and peers ─ lead or follow
//! stop    accept nothing new ─ finish requests ─ stop tasks ─ drain the writer ─ close the file
//! ```

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api;
use crate::clock::Clock;
use crate::config::{Config, Node, Settings, Topology};
use crate::descriptors::connections_that_fit;
use crate::metrics::Metrics;
use crate::peer::pool::{PEER_PATH, PEER_UPGRADE, Tcp};
use crate::random::Random;
use crate::storage::Engine;
use crate::storage::files::DiskFiles;
use crate::storage::open::{OpenError, Options as FileOptions};
use crate::store::assembly::{self, Assembled, Materials, assemble};
use crate::types::NodeName;

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
    /// The parts do not fit together.
    #[error("{0}")]
    Assembly(#[from] assembly::Error),
    /// The opened file cannot be read.
    #[error("{0}")]
    Storage(#[from] crate::storage::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}; end the process that holds the address, or change it in the file")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The system gives no runtime or no signal handler.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Runs the node until SIGTERM or SIGINT; blocks. All that was acknowledged is on disk when it returns.
pub fn run(options: Options) -> Result<(), Error> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(options))
}

async fn serve(options: Options) -> Result<(), Error> {
    let shutdown = shutdown_on_signal()?;
    let Options { config: Config { topology, settings }, node, db_location, config_path } = options;
    let connections_max = connections_that_fit(settings.connections_max, peer_connections(&topology, &node));
    let (topology, settings) = (Arc::new(topology), Arc::new(Settings { connections_max, ..settings }));
    let me = topology.node(&node).ok_or_else(|| Error::UnknownNode(node.clone()))?.clone();
    let listener = bind(&me)?; // before the file: a second process on the address touches nothing
    let shard = topology.shard(me.shard).ok_or(Error::UnknownNode(node))?;
    let options = FileOptions { cache_bytes: settings.cache_bytes };
    let files = DiskFiles::new(&db_location, assembly::identity(&topology, shard), options, Random::system());
    let engine = files.open()?;
    if engine.state()?.unclean {
        warn!(file = %db_location.display(), "the file was not closed properly; it was repaired, and nothing is lost");
    }
    info!(address = %me.address, file = %db_location.display(), config = %config_path.display(),
        version = env!("CARGO_PKG_VERSION"), end = engine.state()?.history.end().0, "serving");
    let metrics = Arc::new(Metrics::new(&api::labels(&topology)));
    let node = assemble(Materials {
        topology: Arc::clone(&topology),
        settings: Arc::clone(&settings),
        me: me.clone(),
        engine: Arc::new(engine),
        files: Arc::new(files),
        clock: Clock::real(),
        random: Random::system(),
        connector: Box::new(Tcp),
        metrics: Arc::clone(&metrics),
    })?;
    node.start();
    let service = api::Service::new(Arc::clone(&node.store)).route(PEER_PATH, peer_route(&node));
    api::listen::serve(listener, service, &settings, metrics, shutdown).await;
    info!("stopping");
    if !node.stop().await {
        error!("the writer's thread panicked");
    }
    info!("stopped");
    Ok(())
}

/// Connections with other nodes when all are open: requests with every node, polls and snapshots with the shard's other
/// copies, each both ways.
fn peer_connections(topology: &Topology, me: &NodeName) -> usize {
    let shard = topology.node(me).and_then(|node| topology.shard(node.shard));
    let copies = shard.map_or(1, |shard| shard.copies.len());
    2 * (topology.nodes().count() - 1) + 4 * (copies - 1)
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

/// The handler that turns an HTTP upgrade into a peer connection, served in a task of its own.
fn peer_route(node: &Assembled) -> MethodRouter {
    let (listener, store) = (node.listener(), Arc::clone(&node.store));
    get(async move |mut request: Request| {
        if !wants_peer(&request) {
            let text = "this path is for other nodes of the cluster; clients use /get, /set and /v1/kv\n";
            return (StatusCode::UPGRADE_REQUIRED, [(UPGRADE, PEER_UPGRADE)], text).into_response();
        }
        let upgraded = hyper::upgrade::on(&mut request);
        listener.tasks.clone().spawn(async move {
            match upgraded.await {
                Ok(upgraded) => listener.serve(TokioIo::new(upgraded), store).await,
                Err(error) => warn!(detail = %error, "a peer's upgrade failed"),
            }
        });
        switching_protocols()
    })
}

fn wants_peer(request: &Request) -> bool {
    request.headers().get(UPGRADE).is_some_and(|value| value.as_bytes() == PEER_UPGRADE.as_bytes())
}

fn switching_protocols() -> Response {
    let headers =
        [(CONNECTION, HeaderValue::from_static("upgrade")), (UPGRADE, HeaderValue::from_static(PEER_UPGRADE))];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}
