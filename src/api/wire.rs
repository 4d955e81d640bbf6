//! Writes an answer as HTTP/1.1, byte for byte as hyper writes it: the headers in their order, the length, the date.
//!
//! Pure: an answer in, bytes out. The date is handed in, and rendered once a second.

use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use axum::http::StatusCode;

use super::answer::Response;
use crate::types::UnixMs;

/// What a head needs beside its headers.
const HEAD_BYTES: usize = 128;

/// The `date` line of answers, as of the last time that it was set.
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
            *self = Date { second, line: format!("date: {date}\r\n") };
        }
    }
}

/// Appends the head of `response` to `out`. With `closes` it says that the connection closes after it.
pub(super) fn write_head(out: &mut Vec<u8>, response: &Response, date: &Date, closes: bool) {
    out.reserve(HEAD_BYTES + response.headers().len() * 48);
    let status = response.status();
    if status == StatusCode::OK {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        let reason = status.canonical_reason().unwrap_or("<none>");
        for piece in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
            out.extend_from_slice(piece.as_bytes());
        }
    }
    for (name, value) in response.headers() {
        for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(piece);
        }
    }
    if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
        write!(out, "content-length: {}\r\n", response.body().len())
            .unwrap_or_else(|_| unreachable!("a Vec takes all"));
    }
    if closes {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(date.line.as_bytes());
    out.extend_from_slice(b"\r\n");
}
