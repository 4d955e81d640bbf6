//! A blocking HTTP/1.1 client on a bare socket: exactly these bytes go out, and the answer is taken apart, not
//! interpreted. It follows no redirect, adds nothing that it was not asked to add, and every wait of it has a bound.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for a whole answer: above the server's own longest request (30 s).
const ANSWER_WAIT: Duration = Duration::from_secs(45);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 80 << 20;

/// A request. `Host` and `Content-Length` are added unless told otherwise.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
    own_host: bool,
    own_length: bool,
}

impl Request {
    /// A request without body.
    pub fn new(method: &str, target: impl Into<String>) -> Request {
        Request {
            method: method.to_owned(),
            target: target.into(),
            headers: Vec::new(),
            body: None,
            own_host: false,
            own_length: false,
        }
    }

    /// A GET.
    pub fn get(target: impl Into<String>) -> Request {
        Request::new("GET", target)
    }

    /// Adds a header. A `Host`, `Content-Length` or `Transfer-Encoding` replaces what would be added.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Request {
        self.own_host |= name.eq_ignore_ascii_case("host");
        self.own_length |= name.eq_ignore_ascii_case("content-length");
        self.own_length |= name.eq_ignore_ascii_case("transfer-encoding");
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Sends no `Host`.
    pub fn no_host(mut self) -> Request {
        self.own_host = true;
        self
    }

    /// A body, with its `Content-Length`.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Request {
        self.body = Some(body.as_ref().to_vec());
        self
    }

    /// The bytes on the wire.
    pub fn to_bytes(&self, host: SocketAddr) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        if !self.own_host {
            out.extend(format!("Host: {host}\r\n").bytes());
        }
        for (name, value) in &self.headers {
            out.extend(name.bytes().chain(*b": ").chain(value.iter().copied()).chain(*b"\r\n"));
        }
        if let Some(body) = &self.body
            && !self.own_length
        {
            out.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
        }
        out.extend(b"\r\n");
        out.extend(self.body.iter().flatten());
        out
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target: String = self.target.chars().take(120).collect();
        write!(f, "{} {target}", self.method)
    }
}

/// An answer.
#[derive(Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names as they came, values as text.
    pub headers: Vec<(String, String)>,
    /// The body, with a chunked coding taken off.
    pub body: Vec<u8>,
    /// The informational answers (`100`, …) that came before it.
    pub informational: Vec<u16>,
}

impl Response {
    /// The value of a header that may stand once at most.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found: Vec<&str> = self
            .headers
            .iter()
            .filter(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        assert!(found.len() <= 1, "{name} stands {} times in {self:?}", found.len());
        found.first().copied()
    }

    /// The value of a header that must be there.
    pub fn must(&self, name: &str) -> &str {
        self.header(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// The methods of `Allow`.
    pub fn allow(&self) -> Vec<&str> {
        self.must("allow").split(',').map(str::trim).collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, which ends in a newline.
    pub fn json(&self) -> Value {
        assert!(self.body.ends_with(b"\n"), "JSON ends in a newline: {self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Panics unless the status is this.
    #[track_caller]
    pub fn expect(self, status: u16) -> Response {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value}")?;
        }
        let shown = &self.body[..self.body.len().min(600)];
        write!(f, "\n{}", shown.escape_ascii().to_string().replace("\\n", "\n"))
    }
}

/// What came of a request, for those who must know what may have happened.
#[derive(Debug)]
pub enum Exchange {
    /// There was no connection: the request never left.
    NotSent(io::Error),
    /// It left, at least in part, and no answer came.
    Lost(io::Error),
    /// An answer.
    Answered(Response),
}

/// One request on a connection of its own.
pub fn exchange(to: SocketAddr, request: &Request) -> Exchange {
    let mut connection = match Connection::open(to) {
        Ok(connection) => connection,
        Err(error) => return Exchange::NotSent(error),
    };
    match connection.ask(request) {
        Ok(answer) => Exchange::Answered(answer),
        Err(error) => Exchange::Lost(error),
    }
}

/// The same, as one `Result`.
pub fn send(to: SocketAddr, request: &Request) -> io::Result<Response> {
    match exchange(to, request) {
        Exchange::Answered(answer) => Ok(answer),
        Exchange::NotSent(error) | Exchange::Lost(error) => Err(error),
    }
}

/// A connection to a node.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    to: SocketAddr,
    /// Bytes that were read and not used yet.
    unread: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub fn open(to: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&to, CONNECT_WAIT)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(ANSWER_WAIT))?;
        Ok(Connection { stream, to, unread: Vec::new() })
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends a request and reads its answer. A server may answer, and close, before it has read all: then the failure to
    /// send the rest does not matter.
    pub fn ask(&mut self, request: &Request) -> io::Result<Response> {
        let sent = self.write(request.to_bytes(self.to));
        let answer = self.answer_to(request.method == "HEAD");
        match (sent, answer) {
            (_, Ok(answer)) => Ok(answer),
            (Err(error), Err(_)) | (Ok(()), Err(error)) => Err(error),
        }
    }

    /// Reads the answer to a request that was not HEAD.
    pub fn answer(&mut self) -> io::Result<Response> {
        self.answer_to(false)
    }

    /// Reads the answer to a request; one to HEAD has no body.
    pub fn answer_to(&mut self, is_head: bool) -> io::Result<Response> {
        let deadline = Instant::now() + ANSWER_WAIT;
        let mut informational = Vec::new();
        loop {
            let (status, headers) = self.head(deadline)?;
            if (100..200).contains(&status) && status != 101 {
                informational.push(status);
                continue;
            }
            let mut answer = Response { status, headers, body: Vec::new(), informational };
            if !is_head && !matches!(status, 101 | 204 | 304) {
                answer.body = self.body(&answer, deadline)?;
            }
            return Ok(answer);
        }
    }

    fn head(&mut self, deadline: Instant) -> io::Result<(u16, Vec<(String, String)>)> {
        let end = loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                break end;
            }
            if self.fill(deadline)? == 0 {
                return Err(malformed("the connection ended inside an answer's head", &self.unread));
            }
        };
        let head: Vec<u8> = self.unread.drain(..end + 4).collect();
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut lines = text.trim_end().split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.strip_prefix("HTTP/1.1 ").or_else(|| status_line.strip_prefix("HTTP/1.0 "));
        let status =
            status.and_then(|rest| rest.get(..3)?.parse().ok()).ok_or_else(|| malformed("no status", &head))?;
        let headers = lines
            .map(|line| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned())))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| malformed("a header without colon", &head))?;
        Ok((status, headers))
    }

    fn body(&mut self, answer: &Response, deadline: Instant) -> io::Result<Vec<u8>> {
        if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return self.chunked(deadline);
        }
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().map_err(|_| malformed("no number in Content-Length", length.as_bytes()))?;
            return self.exactly(length, deadline);
        }
        while self.fill(deadline)? > 0 {}
        Ok(std::mem::take(&mut self.unread))
    }

    fn chunked(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line(deadline)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let length = usize::from_str_radix(digits, 16).map_err(|_| malformed("no chunk size", line.as_bytes()))?;
            if length == 0 {
                while !self.line(deadline)?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(length, deadline)?);
            self.line(deadline)?;
        }
    }

    fn line(&mut self, deadline: Instant) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.fill(deadline)? == 0 {
                return Err(malformed("the connection ended inside a line", &self.unread));
            }
        }
    }

    fn exactly(&mut self, length: usize, deadline: Instant) -> io::Result<Vec<u8>> {
        while self.unread.len() < length {
            if self.fill(deadline)? == 0 {
                return Err(malformed("the connection ended inside a body", &self.unread));
            }
        }
        Ok(self.unread.drain(..length).collect())
    }

    /// Reads some bytes; 0 at the end of the stream.
    fn fill(&mut self, deadline: Instant) -> io::Result<usize> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || self.unread.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no whole answer in {ANSWER_WAIT:?}")));
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 64 << 10];
        let read = self.stream.read(&mut chunk)?;
        self.unread.extend_from_slice(&chunk[..read]);
        Ok(read)
    }

    /// Reads a frame of the peer protocol: four bytes of length, and so many bytes.
    pub fn frame(&mut self) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + ANSWER_WAIT;
        let length: [u8; 4] = self.exactly(4, deadline)?.try_into().map_err(|_| malformed("no length", &[]))?;
        self.exactly(u32::from_be_bytes(length) as usize, deadline)
    }

    /// Whether the server closes the connection within `bound`; what it sends before that is thrown away.
    pub fn is_closed_within(&mut self, bound: Duration) -> bool {
        let deadline = Instant::now() + bound;
        loop {
            match self.fill(deadline) {
                Ok(0) => return true,
                Ok(_) => self.unread.clear(),
                Err(error) => {
                    return !matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock);
                }
            }
        }
    }

    /// Whether anything arrives within `bound`.
    pub fn hears_within(&mut self, bound: Duration) -> bool {
        !self.unread.is_empty() || self.fill(Instant::now() + bound).is_ok_and(|read| read > 0)
    }

    /// Leaves, in both directions.
    pub fn leave(self) {
        drop(self.stream.shutdown(Shutdown::Both));
    }

    /// Leaves with a reset, as a process does that dies with unread answers: the server's next read or write fails.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a socket lingers");
    }

    /// Says that nothing more will be sent, and goes on listening.
    pub fn finish_sending(&mut self) {
        drop(self.stream.shutdown(Shutdown::Write));
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn malformed(what: &str, bytes: &[u8]) -> io::Error {
    let shown = &bytes[..bytes.len().min(200)];
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {:?}", shown.escape_ascii().to_string()))
}
