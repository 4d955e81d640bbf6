//! A connection whose client does not take what is sent to it: nobody else bounds that wait, and the answer, which may be
//! a large value, stays in memory for as long.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::slots::Activity;

/// A stream that fails when a write has made no progress for a while. Reading is as before.
#[derive(Debug)]
pub(super) struct Stalling<S> {
    stream: S,
    patience: Duration,
    activity: Arc<Activity>,
    /// Runs while a write waits.
    patience_left: Option<Pin<Box<Sleep>>>,
}

impl<S> Stalling<S> {
    /// Gives writes `patience` between two signs of progress, and says in `activity` when one waits.
    pub(super) fn new(stream: S, patience: Duration, activity: Arc<Activity>) -> Stalling<S> {
        Stalling { stream, patience, activity, patience_left: None }
    }

    /// Passes progress on, and turns a wait that lasts too long into an error.
    fn judge<T>(&mut self, poll: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.activity.write_waits(poll.is_pending());
        if poll.is_ready() {
            self.patience_left = None;
            return poll;
        }
        let patience = self.patience;
        let left = self.patience_left.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(left.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not take what is sent to it")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(poll, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(poll, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(poll, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(poll, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn write_that_nobody_reads_fails_after_the_patience() {
        let (near, _far) = duplex(4);
        let mut near = Stalling::new(near, Duration::from_millis(30), Arc::default());
        let error = near.write_all(b"more than four bytes").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn write_that_is_read_slowly_goes_on() {
        let (near, mut far) = duplex(1);
        let mut near = Stalling::new(near, Duration::from_millis(200), Arc::default());
        let writing = tokio::spawn(async move { near.write_all(b"abcdef").await });
        for expected in b"abcdef" {
            sleep(Duration::from_millis(50)).await;
            assert_eq!(far.read_u8().await.unwrap(), *expected);
        }
        writing.await.unwrap().unwrap();
    }
}
