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

/// Parts to look into.
pub(super) fn no_parts() -> Parts {
    Request::new(()).into_parts().0
}

/// Looks at what stands at the beginning of `bytes`. The head of a plain request that is whole goes into `parts`, whose
/// memory is used again; what else becomes of them says nothing.
pub(super) fn look(bytes: &[u8], parts: &mut Parts) -> Found {
    let mut slots = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let head_len = match request.parse_with_uninit_headers(bytes, &mut slots) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() < REQUEST_BYTES_MAX => return Found::PartOfHead,
        Ok(httparse::Status::Partial) | Err(_) => return Found::Other,
    };
    let is_strict = bytes.get(..head_len).is_some_and(has_strict_lines);
    let (Some(1), Some(method), Some(path), true) =
        (request.version, request.method.and_then(method), request.path, is_strict)
    else {
        return Found::Other;
    };
    let Some(body_len) = body_len(request.headers) else { return Found::Other };
    let end = head_len.saturating_add(body_len);
    if end > REQUEST_BYTES_MAX {
        return Found::Other;
    }
    if end > bytes.len() {
        return Found::PartOfBody;
    }
    let (Some(uri), Some(())) = (uri(path), put_headers(request.headers, &mut parts.headers)) else {
        return Found::Other;
    };
    (parts.method, parts.uri) = (method, uri);
    Found::Request(head_len..end)
}

/// Whether more bytes may have ended a head of which `seen` bytes were looked at before: a cheap look, so that a head that
/// comes byte by byte is not parsed as often.
pub(super) fn may_have_ended(bytes: &[u8], seen: usize) -> bool {
    let since = bytes.get(seen.saturating_sub(3)..).unwrap_or_default();
    since.windows(2).any(|two| two == b"\n\n") || since.windows(3).any(|three| three == b"\n\r\n")
}

/// The first line does not begin with an empty one, and each ends in CRLF.
fn has_strict_lines(head: &[u8]) -> bool {
    let bare = |two: &[u8]| matches!(two, [before, b'\n'] if *before != b'\r');
    head.first().is_some_and(u8::is_ascii_uppercase) && !head.windows(2).fold(false, |any, two| any | bare(two))
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

fn uri(path: &str) -> Option<Uri> {
    path.starts_with('/').then(|| Uri::try_from(path).ok()).flatten()
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
