//! Writes an answer as HTTP/1.1, byte for byte as hyper writes it, or hands it to hyper in its parts.
//!
//! Pure: an answer in, bytes out. The date is handed in, and rendered once a second.

use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;

use super::reply::Reply;
use crate::types::UnixMs;

/// What a head needs beside its lines.
const HEAD_BYTES: usize = 192;
/// Every answer's: what was stored is never taken for something else.
const NO_SNIFF: &str = "x-content-type-options: nosniff\r\n";

/// The `date` line of answers, as of the last time that it was set, and the end of the head.
#[derive(Debug, Default)]
pub(super) struct Date {
    second: u64,
    line: String,
}

impl Date {
    /// Sets it to the second of `now`.
    pub(super) fn set(&mut self, now: UnixMs) {
        let second = now.0 / 1000;
        if self.line.is_empty() || self.second != second {
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            *self = Date { second, line: format!("date: {date}\r\n\r\n") };
        }
    }
}

/// Appends the head of `reply` to `out`. With `closes` it says that the connection closes after it.
pub(super) fn write_head(out: &mut Vec<u8>, reply: &Reply, date: &Date, closes: bool) {
    let (status, lines, body) = reply.parts();
    out.reserve(HEAD_BYTES + lines.text().len() + body.len());
    if status == StatusCode::OK {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        let reason = status.canonical_reason().unwrap_or("<none>");
        for piece in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
            out.extend_from_slice(piece.as_bytes());
        }
    }
    out.extend_from_slice(lines.text());
    out.extend_from_slice(NO_SNIFF.as_bytes());
    if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
        out.extend_from_slice(b"content-length: ");
        out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if closes {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(date.line.as_bytes());
}

/// The same answer for hyper, which adds length, date and the state of the connection.
pub(super) fn for_hyper(reply: Reply) -> Response {
    let (status, lines, _) = reply.parts();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in lines.iter() {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    *response.body_mut() = reply.into_any_body();
    response
}
