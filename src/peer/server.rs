//! The answering end of a connection: shakes hands, then serves requests side by side, within bounds.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::connection::{Outgoing, PIECE_BYTES, Unwatched, write_frames, write_handshake};
use super::contacts::Contacts;
use super::frame::{Frame, allow_all_frames, cutter, encode_response};
use super::local::Local;
use super::message::{Hello, Recent, Request, Status};
use crate::clock::Clock;
use crate::metrics::Metrics;

/// A caller that has not introduced itself in so long is hung up on.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(2);
/// Requests served at once for one connection; the next one waits unread.
const SERVING_MAX: usize = 1024;
/// Answers waiting to be written; beyond it requests are neither read nor finished until the peer takes some.
const ANSWERS_MAX: usize = 1024;
/// Bytes of requests served at once for one connection, in KiB: one frame of the greatest size and then some.
const SERVING_KIB_MAX: usize = 96 << 10;

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
#[derive(Debug)]
pub enum Met {
    /// It is answered.
    Answered(Reply),
    /// Its answer needs waiting, or work that others should not wait for.
    Waits(Request),
}

/// Whatever answers peers' requests.
pub trait Service: Send + Sync + 'static {
    /// Answers what can be answered at once, and hands everything else back. Runs on the connection's reader, so that a
    /// small read costs no task; the requests behind it wait for it.
    fn meet(&self, request: Request) -> Met {
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

    async fn serve_requests<IO, S>(
        &self,
        mut frames: FramedRead<ReadHalf<IO>, LengthDelimitedCodec>,
        write: WriteHalf<IO>,
        service: Arc<S>,
    ) where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        S: Service,
    {
        let (answers, outgoing) = mpsc::channel(ANSWERS_MAX);
        let broken = CancellationToken::new();
        let writing = {
            let broken = broken.clone();
            async move {
                let _ = write_frames(write, outgoing, &Unwatched).await; // ends when the last answer is written, or the peer is gone
                broken.cancel();
            }
        };
        self.tasks.spawn(writing);
        let slots = Arc::new(Semaphore::new(SERVING_MAX));
        let room = Arc::new(Semaphore::new(SERVING_KIB_MAX));
        let mut recent = Recent::default();
        let mut ended = pin!(async {
            tokio::select! {
                () = broken.cancelled() => {}
                () = self.stop.cancelled() => {}
            }
        });
        loop {
            let next = tokio::select! {
                biased; // frames that were read with the last ones are served without a look at the rest
                next = frames.next() => next,
                () = ended.as_mut() => None,
            };
            let Some(Ok(bytes)) = next else { return };
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
                    let _ = answers.send(outgoing_of(id, reply)).await; // ends when the peer is gone
                    continue;
                }
                Met::Waits(request) => request,
            };
            let permits = tokio::select! {
                permits = async { (Arc::clone(&slots).acquire_owned().await, Arc::clone(&room).acquire_many_owned(kib).await) } => permits,
                () = broken.cancelled() => return,
            };
            let (service, answers) = (Arc::clone(&service), answers.clone());
            self.tasks.spawn(async move {
                let _permits = permits;
                let reply = service.handle(request).await;
                let _ = answers.send(outgoing_of(id, reply)).await; // the peer may be gone
            });
        }
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
