//! The calling end of a connection: many requests at once, each with an answer, a time-out or the loss of the connection
//! as its end, and always with the knowledge whether it may have happened.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

pub use super::calls::Patience;

use super::calls::{Calls, End, PENDING_MAX, Turned};
use super::connection::{Outbox, Outgoing, PIECE_BYTES, write_frames, write_handshake};
use super::frame::{Frame, allow_all_frames, cutter, encode_request};
use super::message::{Envelope, Hello, Refusal, Status, Welcome};

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

/// An open connection to a peer that has welcomed us.
#[derive(Debug)]
pub struct Connection {
    /// Never more than [`PENDING_MAX`] frames; whoever finds it full is refused. Its end ends the connection's task.
    queue: mpsc::Sender<Outgoing>,
    calls: Arc<Calls>,
}

impl Connection {
    /// Introduces this node on a fresh stream, and starts the connection once it is welcomed.
    pub async fn open<S>(stream: S, hello: Hello) -> Result<(Connection, Welcome), CallError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (read, mut write) = tokio::io::split(stream);
        let mut frames = FramedRead::with_capacity(read, cutter(), PIECE_BYTES);
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
        let (queue, outgoing) = mpsc::channel(PENDING_MAX);
        let calls = Arc::new(Calls::default());
        let connection = Connection { queue, calls: Arc::clone(&calls) };
        tokio::spawn(async move {
            tokio::select! {
                () = read_responses(frames, &calls) => {}
                _ = write_frames(write, Outbox { queue: outgoing, own: Arc::default() }, &*calls) => {}
                () = calls.watch() => {}
            }
            calls.close();
        });
        connection
    }

    /// Whether it can no longer be used.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.calls.are_closed()
    }

    /// Sends a request and waits for its answer. Safe to drop: the request then may have happened.
    pub async fn call(&self, envelope: &Envelope, body: &Bytes, patience: Patience) -> Result<Bytes, CallError> {
        let not_sent = || CallError::NotSent("the connection was closed".into());
        let place = self.calls.enter(patience).map_err(|turned| match turned {
            Turned::Full => CallError::Busy(PENDING_MAX),
            Turned::Closed => not_sent(),
        })?;
        let frame = encode_request(place.id, envelope, body);
        self.queue.try_send(Outgoing { id: place.id, frame }).map_err(|error| match error {
            TrySendError::Full(_) => CallError::Busy(PENDING_MAX), // of calls that were left before they were written
            TrySendError::Closed(_) => not_sent(),
        })?;
        match place.end().await {
            End::Answered(Status::Served, body) => Ok(body),
            End::Answered(Status::Unsupported, _) => Err(CallError::Unsupported),
            End::Answered(Status::Refused(refusal), _) => Err(CallError::Refused(refusal)),
            End::Lost { left: false } => Err(not_sent()),
            End::Lost { left: true } => Err(CallError::Lost("the connection broke before the answer".into())),
            End::Over { left: false } => Err(CallError::NotSent("the peer took no bytes in time".into())),
            End::Over { left: true } => Err(CallError::TimedOut("no answer in time".into())),
        }
    }
}

/// Hands each response to its caller, until the stream ends.
async fn read_responses<S: AsyncRead>(mut frames: FramedRead<ReadHalf<S>, LengthDelimitedCodec>, calls: &Calls) {
    while let Some(Ok(bytes)) = frames.next().await {
        let Ok(Frame::Response { id, status, body }) = Frame::decode(bytes.freeze()) else {
            return; // a peer that breaks the protocol is not talked to any more
        };
        calls.answered(id, status, body);
    }
}
