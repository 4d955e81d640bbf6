//! The writing half that both ends of a connection share: frames go out in the order they were queued, small ones
//! together, large ones uncopied, and a receiver that takes nothing for [`WRITE_STALL`] ends the connection.
//!
//! Before it writes a frame alone, the writer lets everybody else run who can: under load whatever they queue goes out in
//! the same write, and when nobody has anything it costs a look at the sockets.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::frame::{Encoded, Frame};

/// A receiver that takes not one piece in so long is gone or stopped: the connection ends.
pub const WRITE_STALL: Duration = Duration::from_secs(2);
/// One write to the socket: what [`WRITE_STALL`] is measured against. Also how much is read from it at once.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// Frames of a connection's own task that wait to be written; beyond it the task reads and finishes no more requests.
const OWN_MAX: usize = 1024;

/// A frame on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The request's, or that of the request it answers.
    pub(super) id: u64,
    /// What is written.
    pub(super) frame: Encoded,
}

/// Whoever wants to know how far frames have come.
pub(super) trait Watch {
    /// These are about to be written; those that nobody wants any more are taken out.
    fn start(&self, frames: &mut Vec<Outgoing>);

    /// The last byte of these was passed on.
    fn passed(&self, frames: &[Outgoing]);
}

/// For frames that nobody watches: all of them are wanted.
pub(super) struct Unwatched;

impl Watch for Unwatched {
    fn start(&self, _: &mut Vec<Outgoing>) {}

    fn passed(&self, _: &[Outgoing]) {}
}

/// Where the frames of a connection wait to be written.
#[derive(Debug)]
pub(super) struct Outbox {
    /// Those of other tasks.
    pub(super) queue: mpsc::Receiver<Outgoing>,
    /// Those that the task that writes has made itself.
    pub(super) own: Arc<Own>,
}

/// Frames that are made by the task that writes them: nobody is woken for them. A task that woke itself would be taken for
/// one that lets others go first, and another thread would be woken to look for work.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// At most [`OWN_MAX`], and one; whoever finds it full waits.
    frames: Mutex<VecDeque<Outgoing>>,
    /// Some were taken from a full one.
    taken: Notify,
}

impl Own {
    /// Adds a frame, and waits when too many are there. The writer is to be polled after this, in the same task.
    pub(super) async fn push(&self, outgoing: Outgoing) {
        let mut waiting = {
            let mut frames = self.frames.lock();
            frames.push_back(outgoing);
            frames.len()
        };
        while waiting > OWN_MAX {
            self.taken.notified().await;
            waiting = self.frames.lock().len();
        }
    }
}

impl Outbox {
    /// Waits for frames, and takes as many as make a piece; false when no more will come.
    async fn take(&mut self, piece: &mut Vec<Outgoing>) -> bool {
        let is_alone = {
            let (queue, own) = (&mut self.queue, &self.own);
            let first = poll_fn(|cx| match own.frames.lock().is_empty() {
                false => Poll::Ready(Some(None)),
                true => queue.poll_recv(cx).map(|first| first.map(Some)),
            });
            let Some(first) = first.await else { return false };
            piece.extend(first);
            !piece.is_empty() && self.queue.is_empty()
        };
        if is_alone {
            tokio::task::yield_now().await;
        }
        let mut bytes = piece.iter().map(|outgoing| outgoing.frame.len()).sum::<usize>();
        while bytes < PIECE_BYTES {
            let Some(next) = self.next() else { break };
            bytes += next.frame.len();
            piece.push(next);
        }
        true
    }

    fn next(&mut self) -> Option<Outgoing> {
        let mut frames = self.own.frames.lock();
        let was_full = frames.len() > OWN_MAX;
        let own = frames.pop_front();
        drop(frames);
        if was_full {
            self.own.taken.notify_one();
        }
        own.or_else(|| self.queue.try_recv().ok())
    }
}

/// Writes frames until no more will come or the socket fails.
pub(super) async fn write_frames<W: AsyncWrite + Unpin>(
    mut io: W,
    mut outbox: Outbox,
    watch: &impl Watch,
) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(PIECE_BYTES);
    let mut piece = Vec::new();
    while outbox.take(&mut piece).await {
        watch.start(&mut piece);
        for Outgoing { frame, .. } in &piece {
            write_frame(&mut io, &mut buffer, frame).await?;
        }
        write_pieces(&mut io, &buffer).await?;
        buffer.clear();
        io.flush().await?;
        watch.passed(&piece);
        piece.clear();
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
    if frame.body.is_empty() {
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

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Context;

    use bytes::Bytes;

    use super::*;

    /// Takes everything, and counts how often it was given something.
    #[derive(Clone, Default)]
    struct Counted(Arc<AtomicUsize>, Arc<AtomicUsize>);

    impl AsyncWrite for Counted {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            self.1.fetch_add(bytes.len(), Ordering::SeqCst);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn frames_that_are_queued_by_many_tasks_leave_in_one_write() {
        let (queue, outgoing) = mpsc::channel(100);
        let io = Counted::default();
        let writing = tokio::spawn({
            let io = io.clone();
            let outbox = Outbox { queue: outgoing, own: Arc::default() };
            async move { write_frames(io, outbox, &Unwatched).await }
        });
        tokio::task::yield_now().await; // it waits
        for id in 0..100 {
            let queue = queue.clone();
            let frame = Encoded { head: Bytes::from_static(b"0123456789"), body: Bytes::new() };
            tokio::spawn(async move { queue.send(Outgoing { id, frame }).await });
        }
        drop(queue);
        writing.await.unwrap().unwrap();
        assert_eq!((io.0.load(Ordering::SeqCst), io.1.load(Ordering::SeqCst)), (1, 1000));
    }
}
