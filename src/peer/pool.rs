//! Connections to the other nodes of the map: one per node and class, opened when needed, shared by all callers.
//!
//! Only nodes of the map are ever asked: a caller names a [`Node`], never an address that came with a request.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::RwLock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::{CallError, Connection, Patience};
use super::contacts::{Contact, Contacts};
use super::local::Local;
use super::message::{Class, Envelope, Kind};
use crate::clock::Clock;
use crate::config::Node;
use crate::random::Random;
use crate::types::{Epoch, NodeName, RequestId, ShardIndex};

/// Connection and handshake take at most so long (API.md, section 3).
pub const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// The path that begins a peer connection.
pub const PEER_PATH: &str = "/v1/peer";
/// The protocol named in the `Upgrade` header.
pub const PEER_UPGRADE: &str = "ostraca-peer";

/// Any stream that peers can talk over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A stream that is being opened.
pub type Opening<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// The transport, handed in so that a simulation can bring its own.
pub trait Connector: Send + Sync + std::fmt::Debug + 'static {
    /// Opens a stream to a node.
    fn connect<'a>(&'a self, node: &'a Node) -> Opening<'a>;
}

/// The transport of real nodes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Connector for Tcp {
    fn connect<'a>(&'a self, node: &'a Node) -> Opening<'a> {
        Box::pin(async move {
            let stream = TcpStream::connect(node.address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// A request to a node.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// Who is asked.
    pub node: &'a Node,
    /// Which connection carries it.
    pub class: Class,
    /// What is asked.
    pub kind: Kind,
    /// The shard concerned.
    pub shard: ShardIndex,
    /// The highest epoch of it that this node knows.
    pub epoch: Option<Epoch>,
    /// Names the client's request in the logs.
    pub request_id: RequestId,
    /// What the kind says.
    pub body: Bytes,
    /// For how long, once it was passed on.
    pub answer_wait: Duration,
    /// For how long in all, connecting included.
    pub total_wait: Duration,
}

/// The connections of this node.
#[derive(Debug)]
pub struct Pool {
    local: Arc<Local>,
    contacts: Arc<Contacts>,
    clock: Clock,
    random: Random,
    connector: Box<dyn Connector>,
    /// Bounded by the nodes of the map, whose names no stranger chooses.
    links: RwLock<HashMap<NodeName, Arc<Links>, fnv::FnvBuildHasher>>,
}

/// The connections to one node.
#[derive(Debug, Default)]
struct Links {
    request: Link,
    replication: Link,
    bulk: Link,
}

impl Links {
    fn of(&self, class: Class) -> &Link {
        match class {
            Class::Request => &self.request,
            Class::Replication => &self.replication,
            Class::Bulk => &self.bulk,
        }
    }
}

/// The place of one connection.
#[derive(Debug, Default)]
struct Link {
    open: ArcSwapOption<Connection>,
    /// Held by whoever opens it.
    opening: tokio::sync::Mutex<()>,
}

impl Link {
    fn usable(&self) -> Option<Arc<Connection>> {
        self.open.load_full().filter(|connection| !connection.is_closed())
    }
}

impl Pool {
    /// A pool without connections.
    #[must_use]
    pub fn new(
        local: Arc<Local>,
        contacts: Arc<Contacts>,
        clock: Clock,
        random: Random,
        connector: Box<dyn Connector>,
    ) -> Pool {
        Pool { local, contacts, clock, random, connector, links: RwLock::default() }
    }

    /// A name for a request that no client made.
    #[must_use]
    pub fn new_request_id(&self) -> RequestId {
        RequestId(self.random.id())
    }

    /// Sends a request and waits for its answer. A request of which no byte left on a connection that turns out to be
    /// closed is sent once more on a new one; anything else is never repeated (rule 22).
    pub async fn ask(&self, ask: Ask<'_>) -> Result<Bytes, CallError> {
        let links = self.links_to(&ask.node.name);
        let link = links.of(ask.class);
        let result = match link.usable() {
            None => self.open_and_ask(link, &ask, ask.total_wait).await,
            Some(connection) => {
                let started = self.clock.now();
                match self.ask_on(&connection, &ask, ask.total_wait).await {
                    Err(CallError::NotSent(_)) => {
                        let left = ask.total_wait.saturating_sub(self.since(started));
                        self.open_and_ask(link, &ask, left).await
                    }
                    result => result,
                }
            }
        };
        self.note(&ask.node.name, &result);
        result
    }

    /// One attempt on a connection of which it is not known that it is open, within `total`.
    async fn open_and_ask(&self, link: &Link, ask: &Ask<'_>, total: Duration) -> Result<Bytes, CallError> {
        let started = self.clock.now();
        let connection = self.open(link, ask.node, ask.class, total).await?;
        self.ask_on(&connection, ask, total.saturating_sub(self.since(started))).await
    }

    /// One attempt; of the caller's time so much is left.
    async fn ask_on(&self, connection: &Connection, ask: &Ask<'_>, left: Duration) -> Result<Bytes, CallError> {
        let envelope = Envelope {
            request_id: ask.request_id,
            kind: ask.kind.number(),
            cluster: self.local.cluster(),
            placement: self.local.placement,
            shard: ask.shard,
            epoch: ask.epoch.clone(),
            from: self.local.name.clone(),
            remaining: ask.answer_wait.min(left),
            class: ask.class,
        };
        connection.call(&envelope, &ask.body, Patience { answer: ask.answer_wait, total: left }).await
    }

    fn since(&self, started: Instant) -> Duration {
        self.clock.now().saturating_duration_since(started)
    }

    fn links_to(&self, node: &NodeName) -> Arc<Links> {
        if let Some(links) = self.links.read().get(node) {
            return Arc::clone(links);
        }
        Arc::clone(self.links.write().entry(node.clone()).or_default())
    }

    /// Opens a link's connection, or waits for whoever is opening it; all within the time of one connection.
    async fn open(
        &self,
        link: &Link,
        node: &Node,
        class: Class,
        total: Duration,
    ) -> Result<Arc<Connection>, CallError> {
        let opened = timeout(CONNECT_WAIT.min(total), async {
            let _opening = link.opening.lock().await;
            if let Some(connection) = link.usable() {
                return Ok(connection);
            }
            let connection = Arc::new(self.connect(node, class).await?);
            link.open.store(Some(Arc::clone(&connection)));
            Ok(connection)
        });
        opened.await.unwrap_or_else(|_| Err(CallError::NotSent("no connection and handshake in time".into())))
    }

    async fn connect(&self, node: &Node, class: Class) -> Result<Connection, CallError> {
        let refused = |error: io::Error| CallError::NotSent(format!("cannot connect: {error}"));
        let stream = self.connector.connect(node).await.map_err(refused)?;
        let stream = upgrade(stream, node).await?;
        let (connection, welcome) = Connection::open(stream, self.local.hello(&node.name, class)).await?;
        self.local.meet(&welcome.name, welcome.cluster).map_err(CallError::Refused)?;
        self.contacts.note_addresses(&node.name, self.local.addresses, welcome.addresses, self.clock.now());
        Ok(connection)
    }

    fn note(&self, node: &NodeName, result: &Result<Bytes, CallError>) {
        if result.is_ok() && self.contacts.is_up(node) {
            return; // no news
        }
        let contact = match result {
            Ok(_) | Err(CallError::Unsupported | CallError::Garbled(_) | CallError::Busy(_)) => Contact::Up,
            Err(CallError::Refused(refusal)) => Contact::Refused(refusal.clone()),
            Err(CallError::NotSent(detail) | CallError::Lost(detail) | CallError::TimedOut(detail)) => {
                Contact::Down(detail.clone())
            }
        };
        self.contacts.note(node, contact, self.clock.now());
    }
}

/// Begins a peer connection on an HTTP stream.
async fn upgrade(
    stream: Box<dyn Stream>,
    node: &Node,
) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static, CallError> {
    let failed = |error: hyper::Error| CallError::NotSent(format!("the upgrade failed: {error}"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(connection.with_upgrades()); // ends with the stream
    let request = hyper::Request::builder()
        .method(Method::GET)
        .uri(PEER_PATH)
        .header(HOST, node.address.to_string())
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, PEER_UPGRADE)
        .body(Empty::<Bytes>::new())
        .map_err(|error| CallError::NotSent(format!("the upgrade failed: {error}")))?;
    let response = sender.send_request(request).await.map_err(failed)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(CallError::NotSent(format!(
            "{} answers HTTP, but is no Ostraca node ({} to an upgrade)",
            node.address,
            response.status()
        )));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(failed)?;
    Ok(TokioIo::new(upgraded))
}
