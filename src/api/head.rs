//! Understands the head of a plain request: what nearly all requests are, and no more.
//!
//! Plain is HTTP/1.1, GET, PUT, POST or DELETE, a path that begins with `/`, one `Host`, a body of announced length or
//! none, and nothing that asks for more than an answer. Whatever else the bytes may be, the other parser decides, which is
//! hyper's (`super::listen`). So two parsers never have a say about where one request ends and the next begins: this one
//! is strict, and takes a request only when there is no second way to read it.
//!
//! | not plain | why |
//! |---|---|
//! | a line that ends in a bare LF, an empty line before the head, a header over several lines | parsers disagree about them |
//! | a second `Content-Length`, or one that is not all digits; `Transfer-Encoding` | so they do about the body's end |
//! | `Expect`, `Upgrade`, `Connection` other than `keep-alive`, HTTP/1.0, HEAD, OPTIONS, CONNECT | more than an answer, or less |
//! | more than [`HEADERS_MAX`] headers, more than [`REQUEST_BYTES_MAX`] bytes | rare, and hyper has the bounds |
//!
//! Pure: bytes in, a request out.

use std::mem::MaybeUninit;
use std::ops::Range;

use axum::http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

/// Headers of a plain request; hyper takes more.
const HEADERS_MAX: usize = 32;
/// Bytes of a plain request, its body included; hyper takes more.
pub(super) const REQUEST_BYTES_MAX: usize = 32 << 10;

/// Bytes of a header block that is remembered at most.
const REMEMBERED_BYTES_MAX: usize = 1 << 10;

/// What bytes begin with.
#[derive(Debug)]
pub(super) enum Found {
    /// A plain request, whole, and where its body is; the body's end is the request's.
    Request(Range<usize>),
    /// The beginning of a head.
    PartOfHead,
    /// The head of a plain request, and less than all of its body.
    PartOfBody,
    /// Something else.
    Other,
}

/// The head of a connection's last plain request. Clients send the same headers with each request: what was understood
/// once is not understood again, byte for byte the same as it is.
#[derive(Debug)]
pub(super) struct Head {
    /// The request's.
    pub(super) parts: Parts,
    /// The bytes of `parts.headers`, with the end of the head; empty when they were too many to remember.
    block: Vec<u8>,
    /// What they say of the body.
    body_len: usize,
}

impl Default for Head {
    fn default() -> Head {
        Head { parts: Request::new(()).into_parts().0, block: Vec::new(), body_len: 0 }
    }
}

impl Head {
    /// Looks at what stands at the beginning of `bytes`. If that is a plain request, this is its head.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Found {
        self.look_again(bytes).unwrap_or_else(|| self.look_anew(bytes))
    }

    /// Looks at a request with the last one's headers; none when it has others.
    fn look_again(&mut self, bytes: &[u8]) -> Option<Found> {
        let line_end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (line, rest) = (bytes.get(..line_end)?, bytes.get(line_end + 1..)?);
        if self.block.is_empty() || !rest.starts_with(&self.block) {
            return None;
        }
        let line = line.strip_suffix(b" HTTP/1.1\r")?;
        let space = line.iter().position(|byte| *byte == b' ')?;
        let (name, path) = (line.get(..space)?, line.get(space + 1..)?);
        if !path.iter().fold(true, |all, byte| all & byte.is_ascii_graphic()) {
            return None;
        }
        let (method, uri) = (method(std::str::from_utf8(name).ok()?)?, uri(path)?);
        (self.parts.method, self.parts.uri) = (method, uri);
        Some(extent(bytes, line_end + 1 + self.block.len(), self.body_len))
    }

    fn look_anew(&mut self, bytes: &[u8]) -> Found {
        let mut slots = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut []);
        let head_len = match request.parse_with_uninit_headers(bytes, &mut slots) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if bytes.len() < REQUEST_BYTES_MAX => return Found::PartOfHead,
            Ok(httparse::Status::Partial) | Err(_) => return Found::Other,
        };
        let head = bytes.get(..head_len).unwrap_or_default();
        let (Some(1), Some(method), Some(path), true) =
            (request.version, request.method.and_then(method), request.path, has_strict_lines(head))
        else {
            return Found::Other;
        };
        let (Some(uri), Some(body_len)) = (uri(path.as_bytes()), body_len(request.headers)) else {
            return Found::Other;
        };
        self.block.clear();
        if put_headers(request.headers, &mut self.parts.headers).is_none() {
            return Found::Other;
        }
        let block = head.iter().position(|byte| *byte == b'\n').and_then(|end| head.get(end + 1..));
        if let Some(block) = block.filter(|block| block.len() <= REMEMBERED_BYTES_MAX) {
            self.block.extend_from_slice(block);
        }
        (self.parts.method, self.parts.uri, self.body_len) = (method, uri, body_len);
        extent(bytes, head_len, body_len)
    }
}

/// Whether a request with such a head and body is all there.
fn extent(bytes: &[u8], head_len: usize, body_len: usize) -> Found {
    match head_len.saturating_add(body_len) {
        end if end > REQUEST_BYTES_MAX => Found::Other,
        end if end > bytes.len() => Found::PartOfBody,
        end => Found::Request(head_len..end),
    }
}

/// Whether more bytes may have ended a head of which `seen` bytes were looked at before: a cheap look, so that a head that
/// comes byte by byte is not parsed as often.
pub(super) fn may_have_ended(bytes: &[u8], seen: usize) -> bool {
    let since = bytes.get(seen.saturating_sub(3)..).unwrap_or_default();
    since.windows(2).any(|two| two == b"\n\n") || since.windows(3).any(|three| three == b"\n\r\n")
}

/// The first line is not an empty one, and each ends in CRLF.
fn has_strict_lines(head: &[u8]) -> bool {
    let pairs = head.iter().zip(head.get(1..).unwrap_or_default());
    let is_bare = pairs.fold(false, |any, (before, byte)| any | (*byte == b'\n') & (*before != b'\r'));
    head.first().is_some_and(u8::is_ascii_uppercase) && !is_bare
}

fn method(name: &str) -> Option<Method> {
    match name {
        "GET" => Some(Method::GET),
        "PUT" => Some(Method::PUT),
        "POST" => Some(Method::POST),
        "DELETE" => Some(Method::DELETE),
        _ => None,
    }
}

fn uri(path: &[u8]) -> Option<Uri> {
    path.starts_with(b"/").then(|| Uri::try_from(path).ok()).flatten()
}

/// The length of a plain request's body; none when the request is not plain.
fn body_len(headers: &[httparse::Header<'_>]) -> Option<usize> {
    let (mut hosts, mut len) = (0, None);
    for header in headers {
        let is = |name: &HeaderName| header.name.eq_ignore_ascii_case(name.as_str());
        match header.name.len() {
            4 if is(&HOST) => hosts += 1,
            14 if is(&CONTENT_LENGTH) => match len {
                None => len = Some(digits(header.value)?),
                Some(_) => return None,
            },
            10 if is(&CONNECTION) && !header.value.eq_ignore_ascii_case(b"keep-alive") => return None,
            6 if is(&EXPECT) => return None,
            7 if is(&UPGRADE) => return None,
            17 if is(&TRANSFER_ENCODING) => return None,
            _ => {}
        }
    }
    (hosts == 1).then_some(len.unwrap_or(0))
}

/// A number written in digits only.
fn digits(text: &[u8]) -> Option<usize> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

fn put_headers(found: &[httparse::Header<'_>], headers: &mut HeaderMap) -> Option<()> {
    headers.clear();
    headers.reserve(found.len());
    for header in found {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(header.value).ok()?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is found, with the head if it is a request.
    fn looked(head: &mut Head, bytes: &[u8]) -> String {
        match head.look(bytes) {
            Found::Request(body) => {
                let Parts { method, uri, version, headers, .. } = &head.parts;
                format!("{method} {uri} {version:?} {headers:?} {body:?}")
            }
            other => format!("{other:?}"),
        }
    }

    fn found(text: &str) -> String {
        looked(&mut Head::default(), text.as_bytes())
    }

    const GET: &str = "GET /a?b=c HTTP/1.1\r\nHost: h\r\nAccept: */*\r\n\r\n";

    #[test]
    fn head_plain_request_is_whole_only_with_all_of_its_body() {
        let (len, shown) = (GET.len(), r#"GET /a?b=c HTTP/1.1 {"host": "h", "accept": "*/*"}"#);
        assert_eq!(found(GET), format!("{shown} {len}..{len}"));
        let put = "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
        for len in 1..put.len() {
            let expected = if len < put.len() - 3 { "PartOfHead" } else { "PartOfBody" };
            assert_eq!(found(&put[..len]), expected, "{:?}", &put[..len]);
        }
        assert!(found(put).ends_with(&format!(" {}..{}", put.len() - 3, put.len())), "{}", found(put));
    }

    #[test]
    fn head_of_which_there_is_a_second_reading_is_not_plain() {
        for (from, to) in [
            ("Host: h", "Host: h\r\nHost: h"),
            ("Host: h\r\n", ""),
            ("Host: h\r\n", "Host: h\n"),
            ("Host: h", "Host : h"),
            ("*/*", "*/*\r\n folded"),
            ("*/*", "a\0b"),
            ("*/*", "*/*\r\nTransfer-Encoding: chunked"),
            ("*/*", "*/*\r\nContent-Length: 1\r\nContent-Length: 1"),
            ("*/*", "*/*\r\nContent-Length: +1"),
            ("*/*", "*/*\r\nContent-Length: 1, 1"),
            ("*/*", "*/*\r\nContent-Length: "),
            ("*/*", "*/*\r\nContent-Length: 99999999999999999999"),
            ("*/*", "*/*\r\nExpect: 100-continue"),
            ("*/*", "*/*\r\nupgrade: x"),
            ("*/*", "*/*\r\nConnection: close"),
            ("GET", "HEAD"),
            ("GET", "get"),
            ("GET", "\r\nGET"),
            ("/a", "http://h/a"),
            ("/a", "a"),
            ("/a", "*"),
            ("/a", " /a"),
            ("1.1", "1.0"),
        ] {
            assert_eq!(found(&GET.replacen(from, to, 1)), "Other", "{to:?}");
        }
    }

    #[test]
    fn head_over_the_bounds_is_not_plain() {
        let long = |name: &str, len| GET.replacen("/a", &format!("/a?{name}{}", "x".repeat(len)), 1);
        assert!(found(&long("", 20_000)).starts_with("GET"));
        assert_eq!(found(&long("", REQUEST_BYTES_MAX)), "Other");
        assert_eq!(found(&long("", REQUEST_BYTES_MAX)[..REQUEST_BYTES_MAX]), "Other");
        let many = |count| GET.replacen("Accept", &format!("{}Accept", "X: y\r\n".repeat(count)), 1);
        assert!(found(&many(HEADERS_MAX - 2)).starts_with("GET"));
        assert_eq!(found(&many(HEADERS_MAX - 1)), "Other");
        let body = format!("*/*\r\nContent-Length: {REQUEST_BYTES_MAX}");
        assert_eq!(found(&GET.replacen("*/*", &body, 1)), "Other");
    }

    #[test]
    fn head_may_have_ended_at_an_empty_line_however_it_is_written_and_cut() {
        for end in ["\r\n\r\n", "\n\n", "\n\r\n"] {
            let text = format!("GET / HTTP/1.1\r\nHost: h{end}");
            for seen in 1..text.len() {
                assert!(may_have_ended(text.as_bytes(), seen), "{text:?} of which {seen} bytes were seen");
                assert!(!may_have_ended(&text.as_bytes()[..seen], seen.saturating_sub(1)), "{:?}", &text[..seen]);
            }
        }
    }

    proptest! {
        /// Requests whose headers are the last one's, or nearly: what is remembered changes nothing.
        #[test]
        fn head_is_found_the_same_whatever_was_remembered(
            requests in proptest::collection::vec((0..6_usize, 0..5_usize, 0..60_usize, any::<u8>(), 0..3_usize), 1..8),
        ) {
            let lines = ["GET /a", "PUT /b?c=d", "GET /%zz#x", "POST /\u{e9}", "HEAD /a", "GET  /a"];
            let blocks = [
                "Host: h\r\n\r\n",
                "Host: h\r\nContent-Length: 2\r\n\r\nab",
                "Host: h\r\nContent-Length: 3\r\n\r\nab",
                "host: h\r\n\r\n",
                "Host: h\r\nX: y\r\n\r\n",
            ];
            let mut head = Head::default();
            for (line, block, at, byte, change) in requests {
                let mut bytes = format!("{} HTTP/1.1\r\n{}", lines[line], blocks[block]).into_bytes();
                if change == 0 && at < bytes.len() {
                    bytes[at] = byte;
                }
                prop_assert_eq!(looked(&mut head, &bytes), looked(&mut Head::default(), &bytes));
            }
        }
    }
}
