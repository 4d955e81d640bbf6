//! The answering end of a connection: shakes hands, then serves requests side by side, within bounds.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::calls::IDLE_MAX;
use super::connection::{Outbox, Outgoing, Own, PIECE_BYTES, Unwatched, write_frames, write_handshake};
use super::contacts::Contacts;
use super::frame::{Frame, allow_all_frames, cutter, encode_response};
use super::local::Local;
use super::message::{Hello, Recent, Request, Status};
use crate::clock::Clock;
use crate::metrics::Metrics;

/// A caller that has not introduced itself in so long is hung up on.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(2);
/// Requests of one connection that are served at once in tasks, and writes that are under way; the next one waits unread.
pub const SERVING_MAX: usize = 1024;
/// Answers of tasks waiting to be written; beyond it a task waits until the peer takes some.
const ANSWERS_MAX: usize = 1024;
/// Bytes of requests served at once for one connection, in KiB: one frame of the greatest size and then some.
const SERVING_KIB_MAX: usize = 96 << 10;

/// A connection on which nothing has come for so long is closed: callers close theirs long before
/// ([`super::calls::IDLE_MAX`]), so nobody is behind it any more. No request is under way for so long either.
const SILENT_MAX: Duration = Duration::from_secs(300);
const _: () = assert!(SILENT_MAX.as_secs() >= 2 * IDLE_MAX.as_secs(), "it is for the caller to close");

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// How it was met.
    pub status: Status,
    /// What the kind says.
    pub body: Bytes,
}

impl Reply {
    /// An answer of the request's kind.
    #[must_use]
    pub fn served(body: Bytes) -> Reply {
        Reply { status: Status::Served, body }
    }

    /// This node does not know the kind, or cannot read the body.
    #[must_use]
    pub fn unsupported() -> Reply {
        Reply { status: Status::Unsupported, body: Bytes::new() }
    }
}

/// What became of a request at first sight.
pub enum Met {
    /// It is answered.
    Answered(Reply),
    /// It goes on by itself once it was polled, and the answer comes in a while; dropping it then loses the answer only.
    Begun(Answer),
    /// It needs work, or a wait, of its own.
    Waits(Request),
}

/// An answer that will come.
pub type Answer = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// Whatever answers peers' requests.
pub trait Service: Send + Sync + 'static {
    /// Answers or begins what needs no task of its own, and hands everything else back. Runs on the connection's reader:
    /// the requests behind it wait for it.
    fn meet(self: &Arc<Self>, request: Request) -> Met {
        Met::Waits(request)
    }

    /// Serves one request. Runs in a task of its own; ends by itself within the envelope's `remaining` time and a little.
    fn handle(&self, request: Request) -> impl Future<Output = Reply> + Send;
}

/// What all connections of a node share.
#[derive(Debug, Clone)]
pub struct Listener {
    /// This node's side of the handshake.
    pub local: Arc<Local>,
    /// Where differences between files are noted.
    pub contacts: Arc<Contacts>,
    /// Where refusals are counted.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Clock,
    /// Every request that is being served.
    pub tasks: TaskTracker,
    /// Ends every connection: no new request is read.
    pub stop: CancellationToken,
}

impl Listener {
    /// Serves one upgraded stream until it ends, fails, or the node stops.
    pub async fn serve<IO, S>(&self, io: IO, service: Arc<S>)
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        S: Service,
    {
        let (read, mut write) = tokio::io::split(io);
        let mut frames = FramedRead::with_capacity(read, cutter(), PIECE_BYTES);
        let Ok(Some(hello)) = timeout(HANDSHAKE_WAIT, read_hello(&mut frames)).await else {
            debug!("a connection did not introduce itself as a peer");
            return;
        };
        match self.local.answer(&hello) {
            Err(refusal) => {
                let peers = &self.metrics.peers;
                peers.refusals.inc([peers.index_of(&hello.from), refusal.code.index()]);
                self.contacts.note_refused(&hello.from, &refusal);
                let _ = write_handshake(&mut write, Frame::Refuse(refusal)).await; // it may have hung up
            }
            Ok(welcome) => {
                self.contacts.note_welcomed(&hello.from);
                self.contacts.note_addresses(&hello.from, self.local.addresses, hello.addresses, self.clock.now());
                if write_handshake(&mut write, Frame::Welcome(welcome)).await.is_ok() {
                    allow_all_frames(frames.decoder_mut());
                    self.serve_requests(frames, write, service).await;
                }
            }
        }
    }

    /// Reads requests and writes their answers in one task: those that were answered at once go out together, and nobody
    /// has to be woken for it.
    async fn serve_requests<IO, S>(
        &self,
        frames: FramedRead<ReadHalf<IO>, LengthDelimitedCodec>,
        write: WriteHalf<IO>,
        service: Arc<S>,
    ) where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        S: Service,
    {
        let (answers, outgoing) = mpsc::channel(ANSWERS_MAX);
        let own = Arc::<Own>::default();
        let outbox = Outbox { queue: outgoing, own: Arc::clone(&own) };
        let mut writing = Box::pin(async move { write_frames(write, outbox, &Unwatched).await });
        let mut begun = FuturesUnordered::new();
        let arrived = AtomicU64::new(0);
        tokio::select! {
            biased; // the writer comes last: it takes what the reader has made
            () = self.read_requests(frames, &own, &answers, &mut begun, &arrived, service) => {}
            () = silence(&arrived) => {}
            () = self.stop.cancelled() => {}
            _ = writing.as_mut() => return, // the peer is gone
        }
        self.tasks.spawn(async move {
            let finishing = async move {
                while let Some(outgoing) = begun.next().await {
                    let _ = answers.send(outgoing).await; // the peer may be gone
                }
            };
            tokio::join!(finishing, writing) // ends when the last answer is written, or the peer is gone
        });
    }

    /// Serves what comes until the stream ends. What is answered at once, and writes of one commit, which are answered
    /// together, take no task and no wake-up of their own; each request that waits has a task.
    async fn read_requests<IO, S>(
        &self,
        mut frames: FramedRead<ReadHalf<IO>, LengthDelimitedCodec>,
        own: &Own,
        answers: &mpsc::Sender<Outgoing>,
        begun: &mut FuturesUnordered<Numbered>,
        arrived: &AtomicU64,
        service: Arc<S>,
    ) where
        IO: AsyncRead,
        S: Service,
    {
        let slots = Arc::new(Semaphore::new(SERVING_MAX));
        let room = Arc::new(Semaphore::new(SERVING_KIB_MAX));
        let mut recent = Recent::default();
        loop {
            let next = tokio::select! {
                biased; // what is answered leaves before more is begun
                Some(outgoing) = begun.next() => {
                    own.push(outgoing).await;
                    continue;
                }
                next = frames.next(), if begun.len() < SERVING_MAX => next,
            };
            let Some(Ok(bytes)) = next else { return };
            arrived.fetch_add(1, Ordering::Relaxed);
            let kib = u32::try_from(bytes.len() / 1024 + 1).unwrap_or(u32::MAX);
            let Ok(Frame::Request { id, request }) = Frame::decode_after(bytes.freeze(), &mut recent) else {
                warn!("a peer broke the protocol; its connection is closed");
                return;
            };
            let met = match self.local.meet(&request.envelope.from, request.envelope.cluster) {
                Ok(()) => service.meet(request),
                Err(refusal) => Met::Answered(Reply { status: Status::Refused(refusal), body: Bytes::new() }),
            };
            let request = match met {
                Met::Answered(reply) => {
                    own.push(outgoing_of(id, reply)).await;
                    continue;
                }
                Met::Begun(answer) => {
                    begun.push(Numbered { id, answer });
                    continue;
                }
                Met::Waits(request) => request,
            };
            let permits = (Arc::clone(&slots).acquire_owned().await, Arc::clone(&room).acquire_many_owned(kib).await);
            let (service, answers) = (Arc::clone(&service), answers.clone());
            self.tasks.spawn(async move {
                let _permits = permits;
                let reply = service.handle(request).await;
                let _ = answers.send(outgoing_of(id, reply)).await; // the peer may be gone
            });
        }
    }
}

/// Waits until nothing has arrived for [`SILENT_MAX`], or a little longer.
async fn silence(arrived: &AtomicU64) {
    loop {
        let before = arrived.load(Ordering::Relaxed);
        sleep(SILENT_MAX).await;
        if arrived.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

/// An answer that will come, to the request with this id.
struct Numbered {
    id: u64,
    answer: Answer,
}

impl Future for Numbered {
    type Output = Outgoing;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outgoing> {
        let id = self.id;
        self.answer.as_mut().poll(cx).map(|reply| outgoing_of(id, reply))
    }
}

fn outgoing_of(id: u64, reply: Reply) -> Outgoing {
    Outgoing { id, frame: encode_response(id, &reply.status, &reply.body) }
}

async fn read_hello<IO: AsyncRead>(frames: &mut FramedRead<ReadHalf<IO>, LengthDelimitedCodec>) -> Option<Hello> {
    match Frame::decode(frames.next().await?.ok()?.freeze()) {
        Ok(Frame::Hello(hello)) => Some(hello),
        Ok(_) | Err(_) => None,
    }
}
