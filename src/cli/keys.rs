//! What `get`, `set` and `delete` share: options, the key as bytes, the path, and what the answer's headers tell.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::exit::{Exit, Failure, printable};
use super::http::Reply;
use super::target::Target;

/// How a result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Options of every command that asks a server.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Asking {
    /// The server to ask, any node [default: the first address in ./sharding.toml]
    #[arg(long, env = "KV_URL", value_name = "URL")]
    pub(crate) url: Option<String>,
    /// How the result is written
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

impl Asking {
    /// The server to ask.
    pub(crate) fn target(&self, directory: &Path) -> Result<Target, Failure> {
        Target::choose(self.url.as_deref(), directory)
    }
}

/// Reads `500ms`, `5s`, `1m`: what the server may take over the whole request.
pub(crate) fn parse_timeout(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return Err("write a number with its unit, such as 500ms or 5s".to_owned()),
    };
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
    match ms {
        Some(ms @ 1..=600_000) => Ok(Duration::from_millis(ms)),
        _ => Err("choose from 1ms to 10m (the server takes 30 s at most unless its file says more)".to_owned()),
    }
}

/// The path of a key, whatever its bytes, with further parameters.
pub(crate) fn key_path(key: &OsStr, timeout: Option<Duration>, more: &str) -> Result<String, Failure> {
    let bytes = key_bytes(key)?;
    let timeout = timeout.map_or_else(String::new, |timeout| format!("&timeout={}ms", timeout.as_millis()));
    Ok(format!("/v1/kv?key_b64={}{timeout}{more}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// Hands a session's token in, where there is one. It is made of letters that a query takes as they are; others are
/// written out, for the server to say what is wrong with them.
pub(crate) fn session_parameter(token: Option<&str>) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let escaped = |byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    token.map_or_else(String::new, |token| format!("&session={}", token.bytes().map(escaped).collect::<String>()))
}

/// The bytes of a key as they stood on the command line.
pub(crate) fn key_bytes(key: &OsStr) -> Result<&[u8], Failure> {
    match key.as_encoded_bytes() {
        [] => Err(Failure::usage("the key is empty", "give a key of at least one byte")),
        bytes => Ok(bytes),
    }
}

/// A key as a person reads it: text as it is, other bytes escaped.
pub(crate) fn shown(key: &OsStr) -> String {
    key.to_str().map_or_else(|| key.as_encoded_bytes().escape_ascii().to_string(), printable)
}

/// Text where bytes are UTF-8, else base64url: the two fields of which one is there (API.md, section 2).
pub(crate) fn text_or_b64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(URL_SAFE_NO_PAD.encode(bytes))),
    }
}

/// What the headers of a data answer say (API.md, section 3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Served {
    /// The shard's name.
    pub(crate) shard: String,
    /// The address of the node that served it.
    pub(crate) node: String,
    /// `leader` or `replica`.
    pub(crate) role: Option<String>,
    /// `from->to`, when the node that was asked passed it on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) forwarded: Option<String>,
    /// The key's version, without quotes.
    pub(crate) version: Option<String>,
    /// Of a write: copies that hold it over copies there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) acks: Option<String>,
    /// Of a read: what it really was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) consistency: Option<String>,
    /// Of a read: upper bound of its age.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stale_ms: Option<u64>,
    /// The session's token, to hand back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<String>,
}

impl Served {
    /// Reads the headers. A stranger's `200` is no answer: it would pass for a value, or for a promise to keep one.
    pub(crate) fn of(reply: &Reply, target: &Target) -> Result<Served, Failure> {
        let text = |name| reply.header(name).map(str::to_owned);
        let (Some(shard), Some(node)) = (text("kv-shard"), text("kv-node")) else {
            let detail = format!("{} answered {} without saying which shard served it", target.base, reply.status);
            return Err(Failure::new(Exit::Error, "this is not an answer of a kv server", detail, "check --url"));
        };
        Ok(Served {
            shard,
            node,
            role: text("kv-role"),
            forwarded: text("kv-forwarded"),
            version: reply.header("etag").map(|etag| etag.trim_matches('"').to_owned()),
            acks: text("kv-acks"),
            consistency: text("kv-consistency"),
            stale_ms: reply.header("kv-stale-ms").and_then(|ms| ms.parse().ok()),
            session: text("kv-session"),
        })
    }

    /// `Hyderabad at 127.0.0.2:8080`.
    pub(crate) fn place(&self) -> String {
        format!("{} at {}", self.shard, self.node)
    }

    /// `, version 1.5.…; on 1 of 2 copies so far`, as far as it is known.
    pub(crate) fn durability(&self) -> String {
        let version = self.version.as_ref().map(|version| format!(", version {version}")).unwrap_or_default();
        let acks = match self.acks.as_deref().and_then(|acks| acks.split_once('/')) {
            Some((have, of)) if have == of => format!("; on disk at all {of} copies"),
            Some((have, of)) => format!("; on disk at {have} of {of} copies so far"),
            None => String::new(),
        };
        if self.acks.as_deref() == Some("1/1") {
            return format!("{version}; on disk at its only copy");
        }
        format!("{version}{acks}")
    }
}

/// Pretty JSON with a newline at its end.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_else(|error| panic!("our own types are JSON: {error}"));
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn key_path_any_bytes_are_base64url_without_padding() {
        let path = |bytes| key_path(OsStr::from_bytes(bytes), None, "").unwrap();
        assert_eq!(path(b"a"), "/v1/kv?key_b64=YQ");
        assert_eq!(path(b"\x00\xff\xfe/?"), "/v1/kv?key_b64=AP_-Lz8");
        let with = key_path(OsStr::new("a"), Some(Duration::from_secs(5)), "&consistency=any").unwrap();
        assert_eq!(with, "/v1/kv?key_b64=YQ&timeout=5000ms&consistency=any");
        assert!(key_path(OsStr::new(""), None, "").is_err());
    }

    #[test]
    fn shown_text_stays_and_bytes_are_escaped() {
        assert_eq!(shown(OsStr::new("ключ\u{1b}")), "ключ\u{fffd}");
        assert_eq!(shown(OsStr::from_bytes(b"a\xff")), "a\\xff");
    }

    #[test]
    fn timeout_numbers_with_units_are_read() {
        assert_eq!(parse_timeout("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_timeout("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_timeout("1m"), Ok(Duration::from_secs(60)));
        for text in ["", "5", "s", "0s", "-1s", "1.5s", "11m", "99999999999999999999s", "5 s", "5h"] {
            assert!(parse_timeout(text).is_err(), "{text:?} was taken");
        }
    }
}
