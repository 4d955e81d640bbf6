//! A connection as long as its requests are plain ([`super::head`]): one loop, one buffer for what was read, one for the
//! answers, and nothing between the bytes and the table of routes. The first request that is not plain goes to hyper,
//! with all that was read after it and the rest of the connection.
//!
//! ```text
//!   read ─▶ unread ─ look ─┬ plain, whole ─▶ routes::respond ─▶ answers ─▶ written when nothing whole is left to answer
//!                          ├ a part ─▶ read on, within a time
//!                          └ anything else ─▶ hyper, for good
//! ```
//!
//! What an answer says is decided in one place for both paths, and a test compares them byte for byte. Requests are
//! served one after the other, as they came: an answer waits for those before it, and for nothing that comes after it.
//!
//! | what | bound | at the bound |
//! |---|---|---|
//! | a request, its body included | [`REQUEST_BYTES_MAX`] | hyper takes over |
//! | answers that are held back | [`HELD_BYTES_MAX`] | they are written |
//! | silence, or a head that comes slowly | [`HEAD_WAIT_MAX`] since the last answer | closed |
//! | a body that comes slowly | [`BODY_WAIT_MAX`] | hyper takes over, and the request's own time begins |
//! | requests without a pause | tokio's budget | the others have their turn |

use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::consume_budget;
use tokio::time::Instant;

use super::alarm::Alarm;
use super::body::Upload;
use super::head::{self, Found, Head, REQUEST_BYTES_MAX};
use super::listen::HEAD_WAIT_MAX;
use super::reply::Reply;
use super::routes::Entry;
use super::slots::Activity;
use super::wire::{self, Date};
use super::{Api, routes};

/// What is read at once.
const READ_BYTES: usize = 8 << 10;
/// Answers that are held back at most; what goes beyond it is one answer.
const HELD_BYTES_MAX: usize = 16 << 10;
/// A longer body is not copied behind its head, but written from where it is.
const COPIED_BYTES_MAX: usize = 4 << 10;
/// How long the rest of a body is waited for here: long enough for a client that sends head and body apart, too short to
/// matter to one whose request would be refused without its body.
const BODY_WAIT_MAX: Duration = Duration::from_millis(100);

/// A connection, served until it ends or becomes hyper's.
pub(super) struct Connection<'a, S> {
    api: &'a Api,
    stream: &'a mut S,
    activity: &'a Activity,
    /// Set when the node stops; whoever sets it wakes the connection's task.
    is_stopping: &'a AtomicBool,
    /// Read, and not yet answered.
    unread: BytesMut,
    /// Answers that are not yet written.
    answers: Vec<u8>,
    /// The head of the request under way.
    head: Head,
    /// As of the last time that something was read, or an answer had to be waited for.
    date: Date,
    /// Rings when a wait for the client, or for an answer, may have lasted too long.
    alarm: Alarm,
}

/// How a wait for the client ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// It sent something.
    More,
    /// It sends nothing any more.
    End,
    /// Nothing, for too long.
    Nothing,
    /// The node stops, and there is no request under way.
    Stop,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Connection<'a, S> {
    /// A new connection.
    pub(super) fn new(
        api: &'a Api,
        stream: &'a mut S,
        activity: &'a Activity,
        is_stopping: &'a AtomicBool,
    ) -> Connection<'a, S> {
        Connection {
            api,
            stream,
            activity,
            is_stopping,
            unread: BytesMut::new(),
            answers: Vec::new(),
            head: Head::default(),
            date: Date::default(),
            alarm: Alarm::default(),
        }
    }

    /// Answers requests while they are plain. Returns what hyper has to go on with, or nothing when the connection is over.
    pub(super) async fn serve(mut self) -> io::Result<Option<BytesMut>> {
        let (mut head_due, mut body_due) = (None, None);
        let mut seen = 0; // bytes of a part of a head that need not be looked at again
        loop {
            let heard = match self.look(seen) {
                Found::Request(body) => {
                    let found = routes::find(self.head.parts.uri.path()).filter(|entry| !entry.may_stream());
                    let Some(entry) = found else { return self.leave().await };
                    let end = body.end;
                    let bytes = self.unread.get(body).map(Bytes::copy_from_slice).unwrap_or_default();
                    self.unread.advance(end);
                    if self.answer(entry, bytes).await?.is_break() {
                        return Ok(None);
                    }
                    (head_due, body_due, seen) = (None, None, 0);
                    consume_budget().await;
                    continue;
                }
                Found::PartOfHead => {
                    seen = self.unread.len();
                    self.listen(&mut head_due, HEAD_WAIT_MAX).await?
                }
                Found::PartOfBody => match self.listen(&mut body_due, BODY_WAIT_MAX).await? {
                    Heard::More => Heard::More,
                    Heard::End | Heard::Nothing | Heard::Stop => return self.leave().await,
                },
                Found::Other => return self.leave().await,
            };
            match heard {
                Heard::More => {}
                Heard::End if !self.unread.is_empty() => return self.leave().await,
                Heard::End | Heard::Nothing | Heard::Stop => {
                    self.stream.shutdown().await?;
                    return Ok(None);
                }
            }
        }
    }

    /// Leaves what was not answered, and all that follows, to hyper.
    async fn leave(mut self) -> io::Result<Option<BytesMut>> {
        self.write().await?;
        Ok(Some(self.unread))
    }

    fn look(&mut self, seen: usize) -> Found {
        if self.unread.is_empty() || seen > 0 && !head::may_have_ended(&self.unread, seen) {
            return if self.unread.len() < REQUEST_BYTES_MAX { Found::PartOfHead } else { Found::Other };
        }
        self.head.look(&self.unread)
    }

    /// Answers one request. Breaks when the connection is over with it.
    async fn answer(&mut self, entry: Entry, body: Bytes) -> io::Result<ControlFlow<()>> {
        self.activity.begin();
        let reply = {
            let upload = Upload::whole(body, &self.api.body_budget);
            let mut answering = pin!(routes::respond(self.api, Some(entry), &self.head.parts, upload, &mut self.alarm));
            match poll_fn(|cx| Poll::Ready(answering.as_mut().poll(cx))).await {
                Poll::Ready(reply) => reply,
                Poll::Pending => {
                    // Answers that are ready do not wait for one that is not.
                    write_all(self.stream, &mut self.answers).await?;
                    let reply = answering.await;
                    self.date.set(self.api.store.clock().unix_ms());
                    reply
                }
            }
        };
        let closes = self.is_stopping.load(Ordering::Relaxed);
        self.put(reply, closes).await?;
        self.activity.end();
        if closes {
            self.write().await?;
            self.stream.shutdown().await?;
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Puts an answer behind those that are held back.
    async fn put(&mut self, reply: Reply, closes: bool) -> io::Result<()> {
        wire::write_head(&mut self.answers, &reply, &self.date, closes);
        let mut body = reply.into_body();
        if body.len() > COPIED_BYTES_MAX {
            self.stream.write_all_buf(&mut Buf::chain(self.answers.as_slice(), &mut body)).await?;
            self.answers.clear();
            return Ok(());
        }
        self.answers.extend_from_slice(&body);
        if self.answers.len() > HELD_BYTES_MAX { self.write().await } else { Ok(()) }
    }

    /// Writes what is held back.
    async fn write(&mut self) -> io::Result<()> {
        write_all(self.stream, &mut self.answers).await
    }

    /// Writes what is held back, and waits for the client to send something, until `due`, which begins to run when there is
    /// nothing to read.
    async fn listen(&mut self, due: &mut Option<Instant>, patience: Duration) -> io::Result<Heard> {
        self.write().await?;
        self.unread.reserve(READ_BYTES);
        poll_fn(|cx| {
            if let Poll::Ready(read) = pin!(self.stream.read_buf(&mut self.unread)).poll(cx) {
                self.date.set(self.api.store.clock().unix_ms());
                return Poll::Ready(read.map(|len| if len == 0 { Heard::End } else { Heard::More }));
            }
            if self.is_stopping.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(Heard::Stop));
            }
            let due = *due.get_or_insert_with(|| Instant::from_std(self.api.store.clock().now() + patience));
            self.alarm.poll(due, cx).map(|()| Ok(Heard::Nothing))
        })
        .await
    }
}

/// Writes all of `answers`, and empties it.
async fn write_all(stream: &mut (impl AsyncWrite + Unpin), answers: &mut Vec<u8>) -> io::Result<()> {
    if !answers.is_empty() {
        stream.write_all(answers).await?;
        answers.clear();
    }
    Ok(())
}
