//! The calling end of a connection: many requests at once, each with an answer, a time-out or the loss of the connection
//! as its end, and always with the knowledge whether it may have happened.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connection::{Outgoing, Passage, WRITE_QUEUE_FRAMES, Watched, write_frames, write_handshake};
use super::frame::{Frame, allow_all_frames, cutter};
use super::message::{Hello, Refusal, Request, Status, Welcome};

/// Requests under way on one connection; the next one is refused, not queued.
const PENDING_MAX: usize = 8192;

/// A peer that has said nothing for so long, though a request waits, is taken for gone; a caller with less patience says
/// nothing about the peer, and must not break off what others wait for.
const SILENCE: Duration = Duration::from_secs(2);

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No byte of it has left: it did not happen.
    #[error("{0}")]
    NotSent(String),
    /// Too many requests to this peer are under way: no byte of it has left.
    #[error("{0} requests to this peer are under way already")]
    Busy(usize),
    /// It left, and the connection broke before the answer: it may have happened.
    #[error("{0}")]
    Lost(String),
    /// It left, and no answer came in time: it may have happened, or may still.
    #[error("{0}")]
    TimedOut(String),
    /// The peer does not know this kind of request: it did not happen.
    #[error("the peer does not know this kind of request: it runs another version")]
    Unsupported,
    /// The peer does not talk to this node: it did not happen.
    #[error("{0}")]
    Refused(Refusal),
    /// The peer's answer is not what its kind says: it may have happened.
    #[error("the peer's answer cannot be read: {0}")]
    Garbled(#[from] crate::types::Malformed),
}

impl CallError {
    /// Whether the request may have taken effect.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        match self {
            CallError::NotSent(_) | CallError::Busy(_) | CallError::Unsupported | CallError::Refused(_) => false,
            CallError::Lost(_) | CallError::TimedOut(_) | CallError::Garbled(_) => true,
        }
    }
}

/// How long a caller waits.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the answer, after the last byte was passed on.
    pub answer: Duration,
    /// For everything.
    pub total: Duration,
}

/// An open connection to a peer that has welcomed us.
#[derive(Debug)]
pub struct Connection {
    queue: mpsc::Sender<Outgoing>,
    pending: Arc<Pending>,
    /// Frames that have arrived: tells a slow request from a silent peer.
    heard: Arc<AtomicU64>,
    closed: CancellationToken,
    /// Ends the reader and the writer with the connection.
    _close_on_drop: DropGuard,
}

/// A response that arrived.
type Response = (Status, Bytes);

/// Requests under way, by id. Dropping a sender tells its caller that the connection is lost.
#[derive(Debug, Default)]
struct Pending {
    waiters: Mutex<HashMap<u64, oneshot::Sender<Response>>>,
    next_id: AtomicU64,
}

impl Pending {
    /// Enters a request; none when the bound is reached.
    fn enter(self: &Arc<Self>) -> Option<(Place, oneshot::Receiver<Response>)> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (reply, response) = oneshot::channel();
        let mut waiters = self.waiters.lock();
        if waiters.len() >= PENDING_MAX {
            return None;
        }
        waiters.insert(id, reply);
        Some((Place { id, pending: Arc::clone(self) }, response))
    }
}

/// A request's place among those under way; leaves it when dropped.
struct Place {
    id: u64,
    pending: Arc<Pending>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pending.waiters.lock().remove(&self.id);
    }
}

impl Connection {
    /// Introduces this node on a fresh stream, and starts the connection once it is welcomed.
    pub async fn open<S>(stream: S, hello: Hello) -> Result<(Connection, Welcome), CallError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (read, mut write) = tokio::io::split(stream);
        let mut frames = FramedRead::new(read, cutter());
        let cut_off = |error: io::Error| CallError::NotSent(format!("the handshake failed: {error}"));
        write_handshake(&mut write, Frame::Hello(hello)).await.map_err(cut_off)?;
        let answer = frames.next().await.ok_or_else(|| CallError::NotSent("the peer hung up".into()))?;
        match Frame::decode(answer.map_err(cut_off)?.freeze()) {
            Ok(Frame::Welcome(welcome)) => {
                allow_all_frames(frames.decoder_mut());
                Ok((Connection::start(frames, write), welcome))
            }
            Ok(Frame::Refuse(refusal)) => Err(CallError::Refused(refusal)),
            Ok(_) | Err(_) => Err(CallError::NotSent("the peer's handshake is not one of ours".into())),
        }
    }

    fn start<S>(frames: FramedRead<ReadHalf<S>, LengthDelimitedCodec>, write: WriteHalf<S>) -> Connection
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (queue, outgoing) = mpsc::channel(WRITE_QUEUE_FRAMES);
        let closed = CancellationToken::new();
        let connection = Connection {
            queue,
            pending: Arc::default(),
            heard: Arc::default(),
            closed: closed.clone(),
            _close_on_drop: closed.clone().drop_guard(),
        };
        let reading = read_responses(frames, Arc::clone(&connection.pending), Arc::clone(&connection.heard));
        let pending = Arc::clone(&connection.pending);
        tokio::spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = reading => {}
                _ = write_frames(write, outgoing) => {}
            }
            closed.cancel();
            pending.waiters.lock().clear();
        });
        connection
    }

    /// Whether it can no longer be used.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Sends a request and waits for its answer. Safe to drop: the request then may have happened.
    pub async fn call(&self, request: Request, patience: Patience) -> Result<Bytes, CallError> {
        let Some((place, response)) = self.pending.enter() else {
            return Err(CallError::Busy(PENDING_MAX));
        };
        let heard_before = self.heard.load(Ordering::Relaxed);
        let passage = Arc::new(Passage::default());
        let (sent, was_sent) = oneshot::channel();
        let watched = Some(Watched { passage: Arc::clone(&passage), sent });
        let outgoing = Outgoing { frame: Frame::Request { id: place.id, request }.encode(), watched };
        let exchange = async {
            if self.closed.is_cancelled() || self.queue.send(outgoing).await.is_err() {
                return Wait::Lost;
            }
            wait_for_response(response, was_sent, patience.answer).await
        };
        match timeout(patience.total, exchange).await.unwrap_or(Wait::Over) {
            Wait::Response((Status::Served, body)) => Ok(body),
            Wait::Response((Status::Unsupported, _)) => Err(CallError::Unsupported),
            Wait::Response((Status::Refused(refusal), _)) => Err(CallError::Refused(refusal)),
            Wait::Lost if passage.abandon() => Err(CallError::NotSent("the connection was closed".into())),
            Wait::Lost => Err(CallError::Lost("the connection broke before the answer".into())),
            Wait::Over if passage.abandon() => Err(CallError::NotSent("the peer took no bytes in time".into())),
            Wait::Over => {
                if patience.answer.min(patience.total) >= SILENCE {
                    self.close_if_silent_since(heard_before);
                }
                Err(CallError::TimedOut("no answer in time".into()))
            }
        }
    }

    /// Ends a connection whose peer has said nothing at all: the next caller learns that by a new handshake, without
    /// leaving a write in the dark.
    fn close_if_silent_since(&self, heard_before: u64) {
        if self.heard.load(Ordering::Relaxed) == heard_before {
            self.closed.cancel();
        }
    }
}

/// How waiting for a response ended.
enum Wait {
    Response(Response),
    Lost,
    Over,
}

async fn wait_for_response(
    mut response: oneshot::Receiver<Response>,
    was_sent: oneshot::Receiver<()>,
    answer_wait: Duration,
) -> Wait {
    let early = tokio::select! {
        early = &mut response => Some(early),
        _ = was_sent => None,
    };
    let arrived = match early {
        Some(arrived) => Ok(arrived),
        None => timeout(answer_wait, response).await,
    };
    match arrived {
        Ok(Ok(response)) => Wait::Response(response),
        Ok(Err(_)) => Wait::Lost,
        Err(_) => Wait::Over,
    }
}

/// Hands each response to its caller, until the stream ends.
async fn read_responses<S: AsyncRead>(
    mut frames: FramedRead<ReadHalf<S>, LengthDelimitedCodec>,
    pending: Arc<Pending>,
    heard: Arc<AtomicU64>,
) {
    while let Some(Ok(bytes)) = frames.next().await {
        let Ok(Frame::Response { id, status, body }) = Frame::decode(bytes.freeze()) else {
            return; // a peer that breaks the protocol is not talked to any more
        };
        heard.fetch_add(1, Ordering::Relaxed);
        let waiter = pending.waiters.lock().remove(&id);
        if let Some(waiter) = waiter {
            let _ = waiter.send((status, body)); // the caller may have left
        }
    }
}
