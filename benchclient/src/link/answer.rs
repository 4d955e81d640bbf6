//! HTTP/1.1 answers taken apart as they arrive. Pure: bytes in, events out, no socket and no clock.
//!
//! ```text
//! Head ─┬─ no body (204, 304) ──────────────────────→ End
//!       ├─ Content-Length ─→ Body… ─────────────────→ End
//!       ├─ chunked ─→ size ─→ Body… ─→ … ─→ trailers → End
//!       └─ neither: Body… until the connection closes → End
//! ```
//!
//! 1xx answers are skipped. What cannot be told apart safely (two lengths, a length beside chunks, an encoding that is
//! not known) is a fault, and the connection is then of no further use: nobody knows where the next answer begins.

/// Most headers of an answer; ours has about a dozen.
const HEADERS_MAX: usize = 64;
/// Longest line of a chunk's size or of a trailer.
const LINE_BYTES_MAX: usize = 8 << 10;

/// What the head of an answer says, as far as a load generator asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The status, 200 and above.
    pub(crate) status: u16,
    /// It has `KV-Forwarded`: another node than the one asked has served it.
    pub(crate) forwarded: bool,
    /// The connection ends behind this answer.
    pub(crate) close: bool,
}

/// The next piece of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// It begins.
    Head(Head),
    /// A piece of its body.
    Body(&'a [u8]),
    /// It is whole.
    End,
}

/// Why what came is no answer.
pub(crate) type Fault = &'static str;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Length(u64),
    UntilClose,
    ChunkSize,
    /// So many bytes of a chunk are left; with 0 only its line's end.
    Chunk(u64),
    Trailers,
}

/// Where in an answer a connection is.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
}

impl Decoder {
    /// Before the first answer.
    pub(crate) fn new() -> Decoder {
        Decoder { state: State::Head }
    }

    /// Between two answers: nothing of the next has been taken.
    pub(crate) fn is_between(&self) -> bool {
        self.state == State::Head
    }

    /// The next event, and how many bytes of `input` it took; `None` when that needs more input. `(taken, None)` with
    /// `taken > 0` means: drop that many and ask again.
    pub(crate) fn next<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Option<Event<'a>>), Fault> {
        match self.state {
            State::Head => self.head(input),
            State::Length(0) => self.end(0),
            State::Length(left) => Ok(self.body(input, left, State::Length)),
            State::UntilClose => Ok(self.body(input, u64::MAX, |_| State::UntilClose)),
            State::ChunkSize => self.chunk_size(input),
            State::Chunk(left) if left > 0 => Ok(self.body(input, left, State::Chunk)),
            State::Chunk(_) => match input {
                [b'\r', b'\n', ..] => {
                    self.state = State::ChunkSize;
                    Ok((2, None))
                }
                [] | [b'\r'] => Ok((0, None)),
                _ => Err("a chunk does not end where its size says"),
            },
            State::Trailers => match line(input)? {
                None => Ok((0, None)),
                Some(([], taken)) => self.end(taken),
                Some((_, taken)) => Ok((taken, None)),
            },
        }
    }

    /// The connection has closed: is the answer whole that way?
    pub(crate) fn closed(&mut self) -> bool {
        let whole = self.state == State::UntilClose;
        self.state = State::Head;
        whole
    }

    fn head<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Option<Event<'a>>), Fault> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut headers);
        let taken = match answer.parse(input) {
            Ok(httparse::Status::Complete(taken)) => taken,
            Ok(httparse::Status::Partial) => return Ok((0, None)),
            Err(httparse::Error::TooManyHeaders) => return Err("more headers than an answer of a node has"),
            Err(_) => return Err("no HTTP answer"),
        };
        let status = answer.code.unwrap_or_default();
        if status < 200 {
            return if status == 101 { Err("switches to another protocol, unasked") } else { Ok((taken, None)) };
        }
        let mut head = Head { status, forwarded: false, close: answer.version == Some(0) };
        let (mut length, mut chunked) = (None, false);
        for header in answer.headers.iter() {
            match header.name.len() {
                14 if header.name.eq_ignore_ascii_case("content-length") => {
                    let value = number(header.value, 10).ok_or("a Content-Length that is no number")?;
                    if length.replace(value).is_some_and(|known| known != value) {
                        return Err("two lengths");
                    }
                }
                17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                    if !header.value.eq_ignore_ascii_case(b"chunked") || chunked {
                        return Err("a transfer encoding that is not understood here");
                    }
                    chunked = true;
                }
                10 if header.name.eq_ignore_ascii_case("connection") => {
                    let says = |token: &[u8]| {
                        header.value.split(|b| *b == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
                    };
                    head.close = says(b"close") || head.close && !says(b"keep-alive");
                }
                12 if header.name.eq_ignore_ascii_case("kv-forwarded") => head.forwarded = true,
                _ => {}
            }
        }
        self.state = match (status, length, chunked) {
            (204 | 304, ..) => State::Length(0),
            (_, Some(_), true) => return Err("a length beside chunks"),
            (_, Some(length), false) => State::Length(length),
            (_, None, true) => State::ChunkSize,
            (_, None, false) => {
                head.close = true;
                State::UntilClose
            }
        };
        Ok((taken, Some(Event::Head(head))))
    }

    fn body<'a>(&mut self, input: &'a [u8], left: u64, state: fn(u64) -> State) -> (usize, Option<Event<'a>>) {
        let taken = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        let Some(piece) = input.get(..taken).filter(|piece| !piece.is_empty()) else { return (0, None) };
        self.state = state(left - u64::try_from(taken).unwrap_or(left));
        (taken, Some(Event::Body(piece)))
    }

    fn chunk_size<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Option<Event<'a>>), Fault> {
        let Some((text, taken)) = line(input)? else { return Ok((0, None)) };
        let size = text.split(|b| *b == b';').next().unwrap_or_default();
        let size = number(size.trim_ascii(), 16).ok_or("a chunk without a size")?;
        self.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
        Ok((taken, None))
    }

    fn end<'a>(&mut self, taken: usize) -> Result<(usize, Option<Event<'a>>), Fault> {
        self.state = State::Head;
        Ok((taken, Some(Event::End)))
    }
}

/// The first line without its end, and its length with it; `None` when it is not whole.
fn line(input: &[u8]) -> Result<Option<(&[u8], usize)>, Fault> {
    match input.iter().take(LINE_BYTES_MAX).position(|b| *b == b'\n') {
        Some(end) => {
            let text = input.get(..end).unwrap_or_default();
            Ok(Some((text.strip_suffix(b"\r").unwrap_or(text), end + 1)))
        }
        None if input.len() >= LINE_BYTES_MAX => Err("a line without end between chunks"),
        None => Ok(None),
    }
}

/// Digits only: no sign, no space within.
fn number(text: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if text.starts_with('+') { None } else { u64::from_str_radix(text, radix).ok() }
}

#[cfg(test)]
mod tests;
