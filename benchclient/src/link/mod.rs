//! One kept-alive connection to one node: a burst of requests goes out in one piece, and the answers come back in order.
//!
//! ```text
//! push, push, … ─→ out ─→ socket ─→ input ─→ Decoder ─→ each answer with the request it answers
//!   └─ Flight ─→ in_flight (in order) ──────────────────────┘
//! ```
//!
//! Hand-written because a load generator that shares its processors with the server must cost little
//! (docs/decisions/0021). It reads while it writes, so that a burst and its answers may both be larger than what sockets
//! hold. When a connection breaks, every request that was under way on it has failed, and whether a write took effect is
//! unknown; the next burst opens a new connection.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::failure::Failure;

pub(crate) mod answer;

use answer::{Decoder, Event};

/// How long a connection may take to open; on loopback and in one data centre it is there in milliseconds, or never.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// What one read takes at most, and the longest head that is understood; nodes send less than 16 KiB of head.
const INPUT_BYTES: usize = 64 << 10;
/// How much of a body that nobody asked for is kept: an error's, for its code.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// How much of a body that was asked for is kept: a byte more than the largest value, so that longer is not equal.
const BODY_BYTES_MAX: usize = (64 << 20) + 1;

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    /// Its status, 200 and above.
    pub(crate) status: u16,
    /// Served by another node than the one asked.
    pub(crate) forwarded: bool,
    /// The body, as far as it was kept: all of it if the request asked so, of refusals the beginning.
    pub(crate) body: &'a [u8],
}

/// A connection, and what is under way on it. `F` is what the owner wants to know again when the answer comes.
#[derive(Debug)]
pub(crate) struct Link<F> {
    address: SocketAddr,
    stream: Option<TcpStream>,
    /// Requests that are not sent yet, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    /// What has been read and not been understood yet: `input[start..end]`.
    input: Box<[u8]>,
    start: usize,
    end: usize,
    decoder: Decoder,
    /// Requests without an answer, oldest first, and whether their answer's body is wanted. As many as the owner pushes.
    in_flight: VecDeque<(F, bool)>,
    status: u16,
    forwarded: bool,
    close: bool,
    body: Vec<u8>,
}

impl<F> Link<F> {
    /// Not connected yet.
    pub(crate) fn new(address: SocketAddr) -> Link<F> {
        Link {
            address,
            stream: None,
            out: Vec::new(),
            sent: 0,
            input: vec![0; INPUT_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            decoder: Decoder::new(),
            in_flight: VecDeque::new(),
            status: 0,
            forwarded: false,
            close: false,
            body: Vec::new(),
        }
    }

    /// Connects unless a connection is there and, as far as is known, open at the other end too.
    pub(crate) async fn open(&mut self) -> Result<(), Failure> {
        if self.is_open() {
            return Ok(());
        }
        self.reset();
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(self.address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(refused(&error)),
            Err(_) => {
                return Err(Failure::unsent("connect-timeout", format!("no connection within {CONNECT_TIMEOUT:?}")));
            }
        };
        // Without it a burst whose end does not fill a packet would wait for the other side's acknowledgement.
        stream.set_nodelay(true).map_err(|error| Failure::unsent("connect", error.to_string()))?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Costs no system call while nothing has come: an idle connection's end, or an unasked word, wakes the reactor.
    fn is_open(&self) -> bool {
        let Some(stream) = &self.stream else { return false };
        matches!(stream.try_read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Where the next request is written to; every request must be announced with [`Link::push`].
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Announces the request that was just written to [`Link::out`].
    pub(crate) fn push(&mut self, flight: F, wants_body: bool) {
        self.in_flight.push_back((flight, wants_body));
    }

    /// Bytes of the burst that is being put together.
    pub(crate) fn burst_bytes(&self) -> usize {
        self.out.len()
    }

    /// Requests without an answer.
    pub(crate) fn waiting(&self) -> usize {
        self.in_flight.len()
    }

    /// Requests without an answer, to mark them when they are sent.
    pub(crate) fn flights(&mut self) -> impl Iterator<Item = &mut F> {
        self.in_flight.iter_mut().map(|(flight, _)| flight)
    }

    /// Gives up the connection, and what is under way on it.
    pub(crate) fn abandon(&mut self) -> impl Iterator<Item = F> + '_ {
        self.reset();
        self.out.clear();
        self.in_flight.drain(..).map(|(flight, _)| flight)
    }

    /// Nothing of an old connection may be taken for a part of the new one. What was written to [`Link::out`] stays.
    fn reset(&mut self) {
        self.stream = None;
        self.decoder = Decoder::new();
        self.body.clear();
        (self.sent, self.start, self.end, self.close) = (0, 0, 0, false);
    }

    /// Sends and receives. Each answer that came is handed to `settle`, together with `now` as asked once per read.
    /// Ready when nothing is under way any more, or when the connection is of no further use: then what has no answer
    /// stays to be abandoned.
    pub(crate) fn poll_answers<T: Copy>(
        &mut self,
        cx: &mut Context<'_>,
        now: impl Fn() -> T,
        mut settle: impl FnMut(F, &Answer<'_>, T),
    ) -> Poll<Result<(), Failure>> {
        self.poll_send(cx)?.is_ready();
        while !self.in_flight.is_empty() {
            let Some(stream) = &mut self.stream else {
                return Poll::Ready(Err(Failure::new("closed", "the node closed the connection behind an answer")));
            };
            if self.start > 0 && self.end == self.input.len() {
                self.input.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            let Some(free) = self.input.get_mut(self.end..).filter(|free| !free.is_empty()) else {
                return Poll::Ready(Err(Failure::new("bad-answer", "the head of an answer is too long")));
            };
            let mut free = ReadBuf::new(free);
            match Pin::new(stream).poll_read(cx, &mut free) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(broken(&error))),
                Poll::Ready(Ok(())) => {}
            }
            let got = free.filled().len();
            self.end += got;
            let now = now();
            if got == 0 {
                return Poll::Ready(self.finish(now, &mut settle));
            }
            self.take(now, &mut settle)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while self.sent < self.out.len() {
            let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(())) };
            match Pin::new(stream).poll_write(cx, self.out.get(self.sent..).unwrap_or_default()) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(sent)) => self.sent += sent,
                // The node may have answered before it closed; reading says so, or says how it ended.
                Poll::Ready(Err(_)) => self.sent = self.out.len(),
            }
        }
        self.out.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Understands what has been read.
    fn take<T: Copy>(&mut self, now: T, settle: &mut impl FnMut(F, &Answer<'_>, T)) -> Result<(), Failure> {
        loop {
            let input = self.input.get(self.start..self.end).unwrap_or_default();
            if input.is_empty() && self.decoder.is_between() {
                break;
            }
            let (taken, event) = self.decoder.next(input).map_err(|fault| Failure::new("bad-answer", fault))?;
            let stuck = taken == 0 && event.is_none();
            match event {
                Some(Event::Head(_)) if self.in_flight.is_empty() => {
                    return Err(Failure::new("bad-answer", "an answer that nobody asked for"));
                }
                Some(Event::Head(head)) => {
                    (self.status, self.forwarded, self.close) = (head.status, head.forwarded, head.close);
                }
                Some(Event::Body(piece)) => {
                    let wanted = self.in_flight.front().is_some_and(|(_, wants_body)| *wants_body);
                    let most = match (wanted, self.status) {
                        (_, 300..) => ERROR_BYTES_MAX,
                        (true, _) => BODY_BYTES_MAX,
                        (false, _) => 0,
                    };
                    let room = most.saturating_sub(self.body.len()).min(piece.len());
                    self.body.extend_from_slice(piece.get(..room).unwrap_or_default());
                }
                Some(Event::End) => self.settle_oldest(now, settle),
                None => {}
            }
            self.start += taken;
            if stuck {
                break;
            }
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        Ok(())
    }

    /// The other side has closed: an answer that ends that way is whole, anything else is not.
    fn finish<T: Copy>(&mut self, now: T, settle: &mut impl FnMut(F, &Answer<'_>, T)) -> Result<(), Failure> {
        let began = !self.decoder.is_between() || self.start < self.end;
        if self.decoder.closed() {
            self.settle_oldest(now, settle);
        } else if began {
            return Err(Failure::new("closed", "the node closed the connection in the middle of an answer"));
        }
        self.stream = None;
        if self.in_flight.is_empty() {
            return Ok(());
        }
        Err(Failure::new("closed", "the node closed the connection instead of answering"))
    }

    fn settle_oldest<T: Copy>(&mut self, now: T, settle: &mut impl FnMut(F, &Answer<'_>, T)) {
        if let Some((flight, _)) = self.in_flight.pop_front() {
            settle(flight, &Answer { status: self.status, forwarded: self.forwarded, body: &self.body }, now);
        }
        self.body.clear();
        if self.close {
            self.stream = None;
        }
    }
}

/// Why there is no connection, and what to do if that is our own fault.
fn refused(error: &io::Error) -> Failure {
    const EMFILE: i32 = 24;
    let hint = if error.raw_os_error() == Some(EMFILE) { ": fewer --connections, or a higher `ulimit -n`" } else { "" };
    Failure::unsent("connect", format!("{error}{hint}"))
}

/// What a broken connection is counted as.
fn broken(error: &io::Error) -> Failure {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let code = match error.kind() {
        ConnectionReset | BrokenPipe | ConnectionAborted => "reset",
        UnexpectedEof => "closed",
        _ => "transport",
    };
    Failure::new(code, error.to_string())
}

#[cfg(test)]
mod tests;
