//! A stream of which some bytes were already read: they come first, and then the rest.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream with what was read ahead of its next reader. Writing is as before.
#[derive(Debug)]
pub(super) struct Ahead<S> {
    read: BytesMut,
    stream: S,
}

impl<S> Ahead<S> {
    /// Gives `read` to who reads next.
    pub(super) fn new(read: BytesMut, stream: S) -> Ahead<S> {
        Ahead { read, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let len = self.read.len().min(buf.remaining());
        buf.put_slice(self.read.get(..len).unwrap_or_default());
        self.read.advance(len);
        if self.read.is_empty() {
            self.read = BytesMut::new(); // gives its memory back
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn ahead_gives_what_was_read_first_whatever_the_reader_takes() {
        let (near, mut far) = duplex(64);
        let mut ahead = Ahead::new(BytesMut::from("abc"), near);
        far.write_all(b"def").await.unwrap();
        far.shutdown().await.unwrap();
        let mut text = Vec::new();
        for expected in [2, 1, 2, 1, 0] {
            let mut piece = [0; 2];
            let len = ahead.read(&mut piece).await.unwrap();
            assert_eq!(len, expected);
            text.extend_from_slice(&piece[..len]);
        }
        assert_eq!(text, b"abcdef");
    }
}
