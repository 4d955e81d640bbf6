//! An answer as handlers make it: a status, the lines of its head, and its body, whole but for the rarest.
//!
//! Lines are kept as the text that goes out. Most of them are the same in every answer, and text that is there already is
//! the cheapest to write; hyper, which serves what is rare, gets them taken apart again (`super::wire`).

use axum::http::StatusCode;
use bytes::Bytes;

/// What the lines of a usual answer take.
const LINES_BYTES: usize = 256;

/// An answer. Whoever writes it knows its length, and waits for nothing.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    lines: Lines,
    body: Bytes,
    /// What comes in place of the body, of a length that nobody knows yet: hyper alone writes it ([`super::routes`]).
    stream: Option<axum::body::Body>,
}

impl Reply {
    /// An answer without lines or body.
    pub(super) fn new(status: StatusCode) -> Reply {
        Reply { status, lines: Lines::default(), body: Bytes::new(), stream: None }
    }

    /// Puts lines in place of those that it has.
    pub(super) fn lines(self, lines: Lines) -> Reply {
        Reply { lines, ..self }
    }

    /// Adds a line.
    pub(super) fn line(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Reply {
        self.lines.add(name, value);
        self
    }

    /// Gives it a body.
    pub(super) fn body(self, body: impl Into<Bytes>) -> Reply {
        Reply { body: body.into(), ..self }
    }

    /// Gives it a body that is made while it is sent.
    pub(super) fn stream(self, stream: axum::body::Body) -> Reply {
        Reply { stream: Some(stream), ..self }
    }

    /// Its status.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The value of a line; none when there is no such line. `name` is lower case.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut lines = self.lines.iter();
        lines.find(|(found, _)| *found == name.as_bytes()).and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// What it is made of.
    pub(super) fn parts(&self) -> (StatusCode, &Lines, &Bytes) {
        (self.status, &self.lines, &self.body)
    }

    /// Its body alone.
    pub(super) fn into_body(self) -> Bytes {
        debug_assert!(self.stream.is_none(), "only hyper writes a stream");
        self.body
    }

    /// Its body alone, whole or a stream.
    pub(super) fn into_any_body(self) -> axum::body::Body {
        self.stream.unwrap_or_else(|| axum::body::Body::from(self.body))
    }
}

/// Lines of a head, each `name: value` with its line end.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<u8>);

impl Lines {
    /// Those of `text`, and room for more.
    pub(super) fn beginning(text: &Bytes) -> Lines {
        let mut lines = Vec::with_capacity(LINES_BYTES + text.len());
        lines.extend_from_slice(text);
        Lines(lines)
    }

    /// Adds a line. A value that no header can carry is left out with its name: names of shards may be any UTF-8.
    pub(super) fn add(&mut self, name: &'static str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        // All bytes are looked at, whatever the first ones are, for that is done many at once.
        if value.iter().fold(true, |all, byte| all & ((*byte == b'\t') | !byte.is_ascii_control())) {
            self.add_with(name, |line| line.extend_from_slice(value));
        }
    }

    /// Adds a line whose value is written in place, of visible characters.
    pub(super) fn add_with(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
        write(&mut self.0);
        self.0.extend_from_slice(b"\r\n");
    }

    /// Adds a line as it stands, with its end.
    pub(super) fn add_text(&mut self, line: &'static str) {
        debug_assert!(line.ends_with("\r\n") && line.contains(": "), "{line:?} is no line");
        self.0.extend_from_slice(line.as_bytes());
    }

    /// Adds other lines.
    pub(super) fn extend(&mut self, other: &Lines) {
        self.0.extend_from_slice(&other.0);
    }

    /// The text.
    pub(super) fn text(&self) -> &[u8] {
        &self.0
    }

    /// The text, for keeps.
    pub(super) fn into_text(self) -> Bytes {
        self.0.into()
    }

    /// Name and value of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let lines = self.0.split(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\r"));
        lines.filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some((line.get(..colon)?, line.get(colon + 2..)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_as_they_went_in_and_what_no_header_can_carry_is_left_out() {
        let reply = Reply::new(StatusCode::OK)
            .line("kv-shard", "São Paulo: \t1")
            .line("evil", "a\r\nset-cookie: b")
            .line("etag", "\"1\"")
            .line("empty", "");
        let lines: Vec<(&[u8], &[u8])> = reply.lines.iter().collect();
        let expected: [(&[u8], &[u8]); 3] =
            [(b"kv-shard", "São Paulo: \t1".as_bytes()), (b"etag", b"\"1\""), (b"empty", b"")];
        assert_eq!(lines, expected);
        assert_eq!((reply.get("etag"), reply.get("evil")), (Some("\"1\""), None));
    }
}
