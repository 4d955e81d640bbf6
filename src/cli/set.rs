//! `kv set KEY`: stores a value from an argument, a file or standard input, its bytes as they are.

use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, Read, stdin};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use serde::Serialize;

use super::ack::Acking;
use super::exit::{Done, Exit, Failure};
use super::http::{self, Ask};
use super::keys::{
    Asking, Output, Served, json, key_bytes, key_path, parse_timeout, session_parameter, shown, text_or_b64,
};
use crate::config::settings::VALUE_BYTES_CEILING;

/// Store a value
#[derive(Debug, clap::Args)]
pub(crate) struct Set {
    /// The key, any bytes
    key: OsString,
    /// The value, any bytes; from standard input when it is - or left out
    #[arg(allow_negative_numbers = true)]
    value: Option<OsString>,
    /// Take the value from a file
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    file: Option<PathBuf>,
    /// What kind of bytes it is, for readers
    #[arg(long, value_name = "TYPE", default_value = "application/octet-stream")]
    content_type: String,
    /// What the session has seen: the `session` of an earlier `-o json`
    #[arg(long, value_name = "TOKEN")]
    session: Option<String>,
    /// How long the server may take, such as 500ms or 5s
    #[arg(long, value_parser = parse_timeout)]
    timeout: Option<Duration>,
    #[command(flatten)]
    acking: Acking,
    #[command(flatten)]
    asking: Asking,
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Stored {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_b64: Option<String>,
    created: bool,
    #[serde(flatten)]
    served: Served,
}

impl Set {
    /// Reads the value, stores it once, and says where it went.
    pub(crate) fn run(&self, directory: &Path) -> Result<Done, Failure> {
        let target = self.asking.target(directory)?;
        let parameters = session_parameter(self.session.as_deref()) + &self.acking.parameters();
        let path = key_path(&self.key, self.timeout, &parameters)?;
        let body = self.read_value()?;
        let ask = Ask { method: Method::PUT, path, body: Some((body, self.content_type.clone())) };
        let reply = http::block_on(http::send(&target, ask, self.timeout))?;
        self.show(reply.status == 201, Served::of(&reply, &target)?)
    }

    fn show(&self, created: bool, served: Served) -> Result<Done, Failure> {
        if self.asking.output == Output::Json {
            let (key, key_b64) = text_or_b64(key_bytes(&self.key)?);
            return Ok(Done::ok(json(&Stored { key, key_b64, created, served })));
        }
        let deed = if created { "created" } else { "replaced" };
        Ok(Done::ok(format!("{deed} {} in {}{}\n", shown(&self.key), served.place(), served.durability())))
    }

    fn read_value(&self) -> Result<Vec<u8>, Failure> {
        match (&self.file, &self.value) {
            (Some(file), _) if file.as_os_str() != "-" => {
                let source = File::open(file).map_err(|error| unreadable(&file.display().to_string(), &error))?;
                read_bounded(source, &file.display().to_string())
            }
            (None, Some(value)) if value != "-" => Ok(value.as_encoded_bytes().to_vec()),
            _ => {
                if stdin().is_terminal() {
                    eprintln!("reading the value from the terminal; Ctrl-D ends it");
                }
                read_bounded(stdin().lock(), "standard input")
            }
        }
    }
}

/// Reads all of `source`, of which no more is kept than a value can have.
fn read_bounded(source: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    source.take(VALUE_BYTES_CEILING + 1).read_to_end(&mut value).map_err(|error| unreadable(name, &error))?;
    if value.len() as u64 > VALUE_BYTES_CEILING {
        let detail = format!("{name} has more than {VALUE_BYTES_CEILING} bytes, which no setting allows");
        return Err(Failure::new(
            Exit::Error,
            "the value is too large",
            detail,
            "store it in parts, under several keys",
        ));
    }
    Ok(value)
}

fn unreadable(name: &str, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Error, "the value cannot be read", format!("{name}: {error}"), "check the path and its mode")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_bounded_keeps_bytes_and_refuses_what_never_ends() {
        assert_eq!(read_bounded(&b"\x00\xff\n"[..], "x").unwrap(), b"\x00\xff\n");
        assert_eq!(read_bounded(&b""[..], "x").unwrap(), b"");
        let failure = read_bounded(std::io::repeat(7), "x").unwrap_err();
        assert_eq!(failure.exit, Exit::Error);
    }
}
