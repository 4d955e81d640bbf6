//! Request bodies: read whole, within a limit, a deadline and the node's budget for bodies in memory.
//!
//! A body whose announced length is over the limit is refused before its first byte is read, and so without a
//! `100 Continue`; one that is streamed is cut at the limit. Bytes are taken from the budget as they arrive, not as they
//! are announced: a client that announces much and sends little holds little.
//!
//! A client that is still sending when its refusal leaves would see its connection reset, and not the refusal: so what it
//! sends is thrown away for a while ([`Upload::linger`]).

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::error::{Kind, Problem};
use crate::config::Settings;
use crate::store::Code;

/// How long the rest of a refused body is thrown away before the connection closes.
const LINGER: Duration = Duration::from_secs(2);
/// How much of it is: the largest value that can be set.
const LINGER_BYTES_MAX: usize = 64 << 20;
/// What is reserved at once for a body of many pieces, whatever it announces.
const RESERVED_BYTES_MAX: usize = 1 << 20;

/// A request's body, and the part of the budget that it holds until the request is over.
#[derive(Debug)]
pub(super) struct Upload<'a> {
    source: Source,
    budget: &'a Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    /// Something was read, so a waiting client has had its `100 Continue`.
    begun: bool,
    /// Nothing is left to be read.
    ended: bool,
}

/// Where a body comes from.
#[derive(Debug)]
enum Source {
    /// It is here, with its request.
    Whole(Bytes),
    /// It is on its way.
    Stream(Body),
}

impl<'a> Upload<'a> {
    /// A body of which nothing was read yet.
    pub(super) fn stream(body: Body, budget: &'a Arc<Semaphore>) -> Upload<'a> {
        let ended = body.is_end_stream();
        Upload { source: Source::Stream(body), budget, held: None, begun: false, ended }
    }

    /// A body that came with its request.
    pub(super) fn whole(body: Bytes, budget: &'a Arc<Semaphore>) -> Upload<'a> {
        let ended = body.is_empty();
        Upload { source: Source::Whole(body), budget, held: None, begun: false, ended }
    }

    /// Whether the request has no body, or an empty one, as far as its head says.
    pub(super) fn is_empty(&self) -> bool {
        self.ended
    }

    /// Reads the body to its end: `413` above `len_max`, `504` after `time_left`, `503` when the budget is spent.
    pub(super) async fn read(
        &mut self,
        len_max: usize,
        time_left: Duration,
        settings: &Settings,
    ) -> Result<Bytes, Problem> {
        let announced = match &self.source {
            Source::Whole(bytes) => Some(bytes.len() as u64),
            Source::Stream(body) => body.size_hint().exact(),
        };
        if let Some(len) = announced.filter(|len| *len > len_max as u64) {
            return Err(Problem::value_too_large(Some(len), settings));
        }
        if let Source::Whole(bytes) = &mut self.source {
            let bytes = std::mem::take(bytes);
            self.hold(bytes.len())?;
            self.ended = true;
            return Ok(bytes);
        }
        let reserve = announced.map_or(0, |len| usize::try_from(len).unwrap_or(usize::MAX)).min(RESERVED_BYTES_MAX);
        timeout(time_left, self.collect(len_max, reserve, settings)).await.unwrap_or_else(|_| {
            Err(Problem::new(Kind::Store(Code::Deadline), "the body did not arrive in the time that the request has")
                .hint("send it faster, or ask for a longer timeout="))
        })
    }

    async fn collect(&mut self, len_max: usize, reserve: usize, settings: &Settings) -> Result<Bytes, Problem> {
        // Small bodies come in one piece, which is handed on as it is.
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(piece) = self.piece().await? {
            let len = first.len() + rest.len() + piece.len();
            if len > len_max {
                return Err(Problem::value_too_large(None, settings));
            }
            self.hold(piece.len())?;
            if first.is_empty() && rest.is_empty() {
                first = piece;
                continue;
            }
            if rest.is_empty() {
                rest.reserve(reserve.max(len));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&piece);
        }
        Ok(if rest.is_empty() { first } else { rest.freeze() })
    }

    /// The next bytes; none at the end. Trailers say nothing to us.
    async fn piece(&mut self) -> Result<Option<Bytes>, Problem> {
        self.begun = true;
        let Source::Stream(body) = &mut self.source else { return Ok(None) };
        while !self.ended {
            match body.frame().await {
                None => self.ended = true,
                Some(Err(error)) => {
                    self.ended = true;
                    return Err(
                        Problem::bad_request(format!("the body broke off: {error}")).hint("send it again, whole")
                    );
                }
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data()
                        && !piece.is_empty()
                    {
                        return Ok(Some(piece));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Takes `len` bytes from the budget, at once or not at all: who waited for it while holding a part could wait for
    /// ever.
    fn hold(&mut self, len: usize) -> Result<(), Problem> {
        let permit = u32::try_from(len).ok().and_then(|len| Arc::clone(self.budget).try_acquire_many_owned(len).ok());
        let Some(permit) = permit else {
            return Err(Problem::new(
                Kind::Store(Code::Overloaded),
                "this node holds as many bytes of request bodies as it may",
            )
            .hint("ask again in a moment, or raise limits.body_bytes_in_flight_max in sharding.toml"));
        };
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
        Ok(())
    }

    /// Throws away what the client of a refused request still sends, for [`LINGER`] at most. Not when it waits for a
    /// `100 Continue`, for reading would send it one.
    pub(super) fn linger(self, awaits_continue: bool) {
        if self.ended || awaits_continue && !self.begun {
            return;
        }
        if let Source::Stream(body) = self.source {
            tokio::spawn(timeout(LINGER, throw_away(body)));
        }
    }
}

/// Reads a body to its end, or for as long as [`LINGER_BYTES_MAX`] lets it.
async fn throw_away(mut body: Body) {
    let mut thrown = 0_usize;
    while thrown < LINGER_BYTES_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        thrown += frame.data_ref().map_or(0, Bytes::len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt, stream};
    use std::convert::Infallible;

    fn budget(bytes: usize) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(bytes))
    }

    fn streamed(pieces: &[&'static str]) -> Body {
        let pieces: Vec<Result<&'static str, Infallible>> = pieces.iter().copied().map(Ok).collect();
        Body::from_stream(stream::iter(pieces))
    }

    async fn read(upload: &mut Upload<'_>, len_max: usize) -> Result<Bytes, u16> {
        let read = upload.read(len_max, Duration::from_millis(200), &Settings::default()).await;
        read.map_err(|problem| problem.status().as_u16())
    }

    #[tokio::test]
    async fn body_whole_or_in_pieces_comes_out_as_it_went_in() {
        let budget = budget(9);
        let upload = |body| Upload::stream(body, &budget);
        assert_eq!(read(&mut upload(Body::empty()), 9).await, Ok(Bytes::new()));
        assert_eq!(read(&mut upload(Body::from("abc")), 3).await, Ok("abc".into()));
        assert_eq!(read(&mut upload(streamed(&["a", "", "bc", "d"])), 4).await, Ok("abcd".into()));
        assert_eq!(read(&mut Upload::whole("abc".into(), &budget), 3).await, Ok("abc".into()));
        assert_eq!(read(&mut Upload::whole(Bytes::new(), &budget), 3).await, Ok(Bytes::new()));
    }

    #[tokio::test]
    async fn body_announced_over_the_limit_is_refused_unread() {
        let budget = budget(9);
        let mut over = Upload::stream(Body::from("abcd"), &budget);
        assert_eq!(read(&mut over, 3).await, Err(413));
        assert!(!over.begun);
        assert_eq!(read(&mut Upload::whole("abcd".into(), &budget), 3).await, Err(413));
    }

    #[tokio::test]
    async fn body_streamed_over_the_limit_is_cut() {
        let endless = stream::repeat("abcd").map(Ok::<_, Infallible>);
        assert_eq!(read(&mut Upload::stream(Body::from_stream(endless), &budget(99)), 10).await, Err(413));
    }

    #[tokio::test]
    async fn body_that_stalls_is_given_up_at_the_deadline() {
        let stalled = stream::iter([Ok::<_, Infallible>("a")]).chain(stream::pending());
        assert_eq!(read(&mut Upload::stream(Body::from_stream(stalled), &budget(9)), 9).await, Err(504));
    }

    #[tokio::test]
    async fn body_beyond_the_budget_is_503_and_the_budget_comes_back() {
        let budget = budget(4);
        for upload in [|body, budget| Upload::stream(Body::from(body), budget), Upload::whole] {
            let mut held = upload(Bytes::from("abc"), &budget);
            assert_eq!(read(&mut held, 9).await, Ok("abc".into()));
            assert_eq!(read(&mut upload("xy".into(), &budget), 9).await, Err(503));
            drop(held);
            assert_eq!(read(&mut upload("xy".into(), &budget), 9).await, Ok("xy".into()));
        }
    }
}
