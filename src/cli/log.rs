//! The node's log lines: one event, one line, and on every line which node wrote it and of which shard.
//!
//! ```text
//! human  2026-01-31T10:00:00.000000Z  WARN Delhi/0 request failed request=00ab… route=/get code=deadline shard=Mumbai
//! json   {"timestamp":"2026-…","level":"WARN","node":"Delhi/0","shard":"Mumbai","message":"request failed",…}
//! ```
//!
//! `shard` is what the line is about, and where the event names none, the shard that the node holds. A request has the
//! same `request` on every node that worked on it. Whatever a field holds, a line stays a line: control characters are
//! escaped, so that nobody outside writes lines of their own.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::types::NodeName;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// For a person; with colours or without.
    Human {
        /// Escape sequences for a terminal.
        colours: bool,
    },
    /// An object per line, for programs.
    Json,
}

/// Writes the lines of one node.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) style: Style,
    pub(super) node: NodeName,
    /// The shard that the node holds a copy of.
    pub(super) shard: String,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let line = match self.style {
            Style::Human { colours } => self.human(&time, *metadata.level(), &fields, colours),
            Style::Json => self.json(&time, *metadata.level(), metadata.target(), &fields),
        };
        writeln!(out, "{line}")
    }
}

impl Lines {
    fn human(&self, time: &str, level: Level, fields: &Fields, colours: bool) -> String {
        let (dim, plain) = if colours { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        let colour = match level {
            _ if !colours => "",
            Level::ERROR => "\x1b[31m",
            Level::WARN => "\x1b[33m",
            Level::INFO => "\x1b[32m",
            _ => "\x1b[34m",
        };
        let Lines { node, shard, .. } = self;
        let mut line = format!("{dim}{time}{plain} {colour}{level:>5}{plain} {node} {}", Escaped(&fields.message));
        for (name, value) in &fields.named {
            if *name != "node" {
                let _ = write!(line, " {dim}{name}={plain}{value}"); // a String takes all
            }
        }
        if fields.get("shard").is_none() {
            let _ = write!(line, " {dim}shard={plain}{shard}");
        }
        line
    }

    fn json(&self, time: &str, level: Level, target: &str, fields: &Fields) -> String {
        let text = |text: &str| Value::Text(text.to_owned());
        let mut line = format!("{{\"timestamp\":{},\"level\":\"{level}\"", text(time).json());
        let shard = fields.get("shard").cloned().unwrap_or_else(|| text(&self.shard));
        let own = [("node", text(self.node.as_str())), ("shard", shard), ("message", text(&fields.message))];
        let others = fields.named.iter().filter(|(name, _)| !matches!(*name, "node" | "shard"));
        let others = others.map(|(name, value)| (*name, value.clone()));
        let all = own.into_iter().chain(others).chain([("target", text(target))]);
        for (name, value) in all {
            let _ = write!(line, ",{}:{}", text(name).json(), value.json()); // a String takes all
        }
        line.push('}');
        line
    }
}

/// An event's message and fields.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    named: Vec<(&'static str, Value)>,
}

impl Fields {
    fn get(&self, name: &str) -> Option<&Value> {
        self.named.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    fn push(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Text(text)) => self.message = text,
            (name, value) => self.named.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, Value::Text(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, Value::Text(value.to_owned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::Other(value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::Other(value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, Value::Other(value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::Other(value.into()));
    }
}

/// What a field holds.
#[derive(Debug, Clone)]
enum Value {
    Text(String),
    Other(serde_json::Value),
}

impl Value {
    fn json(&self) -> String {
        match self {
            Value::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
            Value::Other(value) => value.to_string(),
        }
    }
}

impl fmt::Display for Value {
    /// For people: in quotes only where it would not be clear where it ends.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) if text.is_empty() || text.contains([' ', '"', '=']) => {
                write!(f, "\"{}\"", Escaped(&text.replace('"', "'")))
            }
            Value::Text(text) => Escaped(text).fmt(f),
            Value::Other(value) => value.fmt(f),
        }
    }
}

/// A text without control characters.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            if letter.is_control() { write!(f, "{}", letter.escape_debug())? } else { f.write_char(letter)? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing::{info, warn};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written while `events` runs.
    fn lines(style: Style, events: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = {
            let buffer = buffer.clone();
            move || buffer.clone()
        };
        let lines = Lines { style, node: NodeName::new("Delhi/0"), shard: "Delhi".into() };
        let subscriber = tracing_subscriber::fmt().with_writer(writer).event_format(lines).finish();
        tracing::subscriber::with_default(subscriber, events);
        let written = buffer.0.lock().clone();
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn log_json_line_is_an_object_with_node_and_shard() {
        let text = lines(Style::Json, || warn!(took_ms = 7_u64, code = "deadline", "request \"failed\"\nNOT A LINE"));
        let line: serde_json::Value = serde_json::from_str(text.strip_suffix('\n').unwrap()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert_eq!((&line["node"], &line["shard"]), (&"Delhi/0".into(), &"Delhi".into()));
        assert_eq!((&line["level"], &line["took_ms"]), (&"WARN".into(), &7.into()));
        assert_eq!(line["message"], "request \"failed\"\nNOT A LINE");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn log_shard_of_the_event_stands_in_place_of_the_node_s_own() {
        let text = lines(Style::Json, || info!(shard = "Mumbai", "forwarded"));
        assert!(text.contains("\"shard\":\"Mumbai\"") && !text.contains("\"shard\":\"Delhi\""), "{text}");
        let text = lines(Style::Human { colours: false }, || info!(shard = "Mumbai", "forwarded"));
        assert!(text.contains("shard=Mumbai") && !text.contains("shard=Delhi"), "{text}");
    }

    #[test]
    fn log_human_line_stays_a_line_whatever_it_holds() {
        let style = Style::Human { colours: false };
        let text = lines(style, || info!(detail = "a b\n\x1b[31mFAKE", empty = "", "it\nhappened"));
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let expected = " INFO Delhi/0 it\\nhappened detail=\"a b\\n\\u{1b}[31mFAKE\" empty=\"\" shard=Delhi\n";
        assert!(text.ends_with(expected), "{text}");
    }
}
