//! The writing half that both ends of a connection share: frames go out in the order they were queued, small ones
//! together, large ones uncopied, and a receiver that takes nothing for [`WRITE_STALL`] ends the connection.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::frame::{Encoded, Frame};

/// A receiver that takes not one piece in so long is gone or stopped: the connection ends.
pub const WRITE_STALL: Duration = Duration::from_secs(2);
/// Frames waiting to be written; a caller beyond it waits, within its own deadline.
pub(super) const WRITE_QUEUE_FRAMES: usize = 1024;
/// Bodies up to this size are copied next to their head; larger ones are written where they lie.
const COPY_BYTES_MAX: usize = 16 << 10;
/// One write to the socket: what [`WRITE_STALL`] is measured against.
const PIECE_BYTES: usize = 64 << 10;

/// How far a frame has come; decides whether a request may be sent again (rule 22).
#[derive(Debug, Default)]
pub(super) struct Passage(AtomicU8);

const QUEUED: u8 = 0;
const STARTED: u8 = 1;
const ABANDONED: u8 = 2;

impl Passage {
    /// The writer takes the frame; false when its caller has left meanwhile.
    fn start(&self) -> bool {
        self.0.compare_exchange(QUEUED, STARTED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The caller leaves; true when no byte has left and none will.
    pub(super) fn abandon(&self) -> bool {
        match self.0.compare_exchange(QUEUED, ABANDONED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(state) => state == ABANDONED,
        }
    }
}

/// A frame on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// What is written.
    pub(super) frame: Encoded,
    /// Who wants to know how far it came.
    pub(super) watched: Option<Watched>,
}

/// The caller's view of a frame on its way.
#[derive(Debug)]
pub(super) struct Watched {
    /// Shared with the caller.
    pub(super) passage: Arc<Passage>,
    /// Told once the last byte was passed on.
    pub(super) sent: oneshot::Sender<()>,
}

impl Outgoing {
    /// Whether the frame is still wanted; marks it as started.
    fn start(&self) -> bool {
        self.watched.as_ref().is_none_or(|watched| watched.passage.start())
    }
}

/// Writes queued frames until the queue closes or the socket fails.
pub(super) async fn write_frames<W: AsyncWrite + Unpin>(
    mut io: W,
    mut queue: mpsc::Receiver<Outgoing>,
) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(PIECE_BYTES);
    while let Some(first) = queue.recv().await {
        let mut passed = Vec::new();
        let mut next = Some(first);
        while let Some(outgoing) = next {
            if outgoing.start() {
                write_frame(&mut io, &mut buffer, &outgoing.frame).await?;
                passed.extend(outgoing.watched.map(|watched| watched.sent));
            }
            next = if buffer.len() < PIECE_BYTES { queue.try_recv().ok() } else { None };
        }
        write_pieces(&mut io, &buffer).await?;
        buffer.clear();
        io.flush().await?;
        for sent in passed {
            let _ = sent.send(()); // the caller may have left
        }
    }
    Ok(())
}

/// Writes a frame of the handshake, before there is a queue.
pub(super) async fn write_handshake<W: AsyncWrite + Unpin>(io: &mut W, frame: Frame) -> io::Result<()> {
    let Encoded { head, body } = frame.encode();
    write_pieces(io, &head).await?;
    write_pieces(io, &body).await?;
    io.flush().await
}

/// Adds a small frame to the buffer; writes a large one out behind what is buffered.
async fn write_frame<W: AsyncWrite + Unpin>(io: &mut W, buffer: &mut BytesMut, frame: &Encoded) -> io::Result<()> {
    buffer.extend_from_slice(&frame.head);
    if frame.body.len() <= COPY_BYTES_MAX {
        buffer.extend_from_slice(&frame.body);
        return Ok(());
    }
    write_pieces(io, buffer).await?;
    buffer.clear();
    write_pieces(io, &frame.body).await
}

async fn write_pieces<W: AsyncWrite + Unpin>(io: &mut W, bytes: &[u8]) -> io::Result<()> {
    for piece in bytes.chunks(PIECE_BYTES) {
        timeout(WRITE_STALL, io.write_all(piece))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the peer takes no bytes"))??;
    }
    Ok(())
}
