//! Both ends of a connection over a pipe in memory, and the pool above them: what a caller learns about its request when
//! the peer is slow, silent, gone, strange or mad.

mod calls;
mod handshakes;
mod pooled;
mod serving;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::{CallError, Connection, Patience};
use super::contacts::Contacts;
use super::frame::{Frame, cutter};
use super::local::Local;
use super::message::{Class, Envelope, Kind, Request, Status, Welcome};
use super::server::{Listener, Reply, Service};
use crate::clock::Clock;
use crate::metrics::{Labels, Metrics};
use crate::types::{ClusterUid, NodeName, RequestId, ShardIndex};

/// Bytes that a pipe holds.
const PIPE_BYTES: usize = 64 << 10;
/// Enough patience for anything that is going to happen.
const PATIENT: Patience = Patience { answer: Duration::from_secs(60), total: Duration::from_secs(60) };
/// A kind that no program knows.
const UNKNOWN_KIND: u16 = 999;

fn local(name: &str) -> Arc<Local> {
    local_of(name, 1, None)
}

fn local_of(name: &str, placement: u64, cluster: Option<u64>) -> Arc<Local> {
    Arc::new(Local::new(NodeName::new(name), placement, "p".into(), 0, cluster.map(ClusterUid)))
}

fn request(body: impl Into<Bytes>) -> Request {
    request_of(Kind::Inspect.number(), body)
}

fn request_of(kind: u16, body: impl Into<Bytes>) -> Request {
    let envelope = Envelope {
        request_id: RequestId(1),
        kind,
        cluster: None,
        placement: 1,
        shard: ShardIndex(0),
        epoch: None,
        from: NodeName::new("A/0"),
        remaining: Duration::from_secs(60),
        class: Class::Request,
    };
    Request { envelope, body: body.into() }
}

/// A service that answers with what it was asked: at once, or as often as the test adds permits. Kind 999 is unknown to it.
struct Echo {
    permits: Option<Arc<Semaphore>>,
    /// Requests in the order in which they were begun.
    begun: Mutex<Vec<Request>>,
    /// Hands each answer to the test, which lets it go in the order that it likes.
    held: Option<mpsc::UnboundedSender<(Bytes, tokio::sync::oneshot::Sender<()>)>>,
}

impl Echo {
    fn at_once() -> Arc<Echo> {
        Arc::new(Echo { permits: None, begun: Mutex::default(), held: None })
    }

    fn with(permits: &Arc<Semaphore>) -> Arc<Echo> {
        Arc::new(Echo { permits: Some(Arc::clone(permits)), begun: Mutex::default(), held: None })
    }
}

impl Service for Echo {
    async fn handle(&self, request: Request) -> Reply {
        self.begun.lock().push(request.clone());
        if let Some(permits) = &self.permits {
            permits.acquire().await.unwrap().forget();
        }
        if let Some(held) = &self.held {
            let (go, gone) = tokio::sync::oneshot::channel();
            held.send((request.body.clone(), go)).unwrap();
            let _ = gone.await;
        }
        if request.envelope.kind == UNKNOWN_KIND { Reply::unsupported() } else { Reply::served(request.body) }
    }
}

/// A node that serves, on one pipe.
struct Serving {
    tasks: TaskTracker,
    stop: CancellationToken,
    connection: JoinHandle<()>,
}

/// Serves the far end of a pipe, and returns the near one.
fn serve(echo: &Arc<Echo>) -> (DuplexStream, Serving) {
    serve_as(&local("B/0"), echo)
}

fn serve_as(local: &Arc<Local>, service: &Arc<impl Service>) -> (DuplexStream, Serving) {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let listener = Listener {
        local: Arc::clone(local),
        contacts: Arc::new(Contacts::default()),
        metrics: Arc::new(Metrics::new(&Labels::default())),
        clock: Clock::real(),
        tasks: tasks.clone(),
        stop: stop.clone(),
    };
    let service = Arc::clone(service);
    let connection = tokio::spawn(async move { listener.serve(far, service).await });
    (near, Serving { tasks, stop, connection })
}

async fn connect(near: DuplexStream) -> Arc<Connection> {
    let hello = local("A/0").hello(&NodeName::new("B/0"), Class::Request);
    Arc::new(Connection::open(near, hello).await.unwrap().0)
}

/// A caller that has shaken hands, and is played by the test.
async fn connect_raw(near: DuplexStream) -> Framed<DuplexStream, LengthDelimitedCodec> {
    let mut near = Framed::new(near, cutter());
    send(&mut near, Frame::Hello(local("A/0").hello(&NodeName::new("B/0"), Class::Request))).await;
    assert!(matches!(receive(&mut near).await, Some(Frame::Welcome(_))));
    near
}

/// Sends a request and waits for its answer.
async fn ask(connection: &Connection, request: Request, patience: Patience) -> Result<Bytes, CallError> {
    connection.call(&request.envelope, &request.body, patience).await
}

/// A connection to a far end that the test plays itself, after the handshake.
async fn connect_to_test() -> (Arc<Connection>, Framed<DuplexStream, LengthDelimitedCodec>) {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let mut far = Framed::new(far, cutter());
    let welcome = Welcome { protocol: 1, cluster: None, addresses: 0, name: NodeName::new("B/0") };
    let (connection, ()) = tokio::join!(connect(near), async {
        assert!(matches!(receive(&mut far).await, Some(Frame::Hello(_))));
        send(&mut far, Frame::Welcome(welcome)).await;
    });
    (connection, far)
}

async fn send(to: &mut Framed<DuplexStream, LengthDelimitedCodec>, frame: Frame) {
    let encoded = frame.encode();
    let mut whole = BytesMut::from(&encoded.head[4..]);
    whole.extend_from_slice(&encoded.body);
    to.send(whole.freeze()).await.unwrap();
}

async fn receive(from: &mut Framed<DuplexStream, LengthDelimitedCodec>) -> Option<Frame> {
    Some(Frame::decode(from.next().await?.ok()?.freeze()).unwrap())
}

/// Takes the next request's id and body.
async fn receive_request(from: &mut Framed<DuplexStream, LengthDelimitedCodec>) -> (u64, Bytes) {
    match receive(from).await {
        Some(Frame::Request { id, request }) => (id, request.body),
        other => panic!("{other:?}"),
    }
}

fn response(id: u64, body: impl Into<Bytes>) -> Frame {
    Frame::Response { id, status: Status::Served, body: body.into() }
}
