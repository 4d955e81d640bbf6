//! `kv get KEY`: exactly the value's bytes, to standard output or a file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::exit::{Done, Exit, Failure};
use super::http::{self, Ask};
use super::keys::{Asking, Output, Served, json, key_bytes, key_path, parse_timeout, session_parameter, text_or_b64};

/// Print a key's value, byte for byte
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// The key, any bytes
    key: OsString,
    /// Write the value to a file instead
    #[arg(long, value_name = "FILE", conflicts_with = "output")]
    file: Option<PathBuf>,
    /// `leader` is the present value; `any` takes what a copy at hand holds, also while the leader is away; `bounded` one
    /// that is not too old; `session` one that has what the session has seen
    #[arg(long, value_enum, default_value_t)]
    consistency: Consistency,
    /// Oldest that the value may be, with `--consistency bounded`, such as 500ms
    #[arg(long, value_name = "TIME", value_parser = parse_timeout, required_if_eq("consistency", "bounded"))]
    max_stale: Option<Duration>,
    /// What the session has seen: the `session` of an earlier `-o json`
    #[arg(long, value_name = "TOKEN")]
    session: Option<String>,
    /// How long the server may take, such as 500ms or 5s
    #[arg(long, value_parser = parse_timeout)]
    timeout: Option<Duration>,
    #[command(flatten)]
    asking: Asking,
}

/// What a read must guarantee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Consistency {
    #[default]
    Leader,
    Bounded,
    Session,
    Any,
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Found {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_b64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_b64: Option<String>,
    content_type: Option<String>,
    #[serde(flatten)]
    served: Served,
}

impl Get {
    /// Asks once, and shows the value.
    pub(crate) fn run(&self, directory: &Path) -> Result<Done, Failure> {
        let target = self.asking.target(directory)?;
        let ask = Ask::get(key_path(&self.key, self.timeout, &self.controls())?);
        let reply = http::block_on(http::send(&target, ask, self.timeout))?;
        let served = Served::of(&reply, &target)?;
        let age = self.age(&served);

        let done = match (&self.file, self.asking.output) {
            (Some(file), _) => {
                write_file(file, &reply.body)?;
                Done::ok(format!("{} bytes written to {}\n", reply.body.len(), file.display()))
            }
            (None, Output::Table) => Done::ok(reply.body),
            (None, Output::Json) => {
                let (key, key_b64) = text_or_b64(key_bytes(&self.key)?);
                let (value, value_b64) = text_or_b64(&reply.body);
                let content_type = reply.header("content-type").map(str::to_owned);
                Done::ok(json(&Found { key, key_b64, value, value_b64, content_type, served }))
            }
        };
        Ok(match age {
            Some(age) => done.note(age),
            None => done,
        })
    }

    /// What goes along with the key. What does not fit together is for the server to refuse.
    fn controls(&self) -> String {
        let consistency = match self.consistency {
            Consistency::Leader => "",
            Consistency::Bounded => "&consistency=bounded",
            Consistency::Session => "&consistency=session",
            Consistency::Any => "&consistency=any",
        };
        let max_stale = self.max_stale.map_or_else(String::new, |age| format!("&max_stale={}ms", age.as_millis()));
        format!("{consistency}{max_stale}{}", session_parameter(self.session.as_deref()))
    }

    /// Whoever asked for another copy is told which one it was, on standard error.
    fn age(&self, served: &Served) -> Option<String> {
        if self.consistency == Consistency::Leader || self.asking.output == Output::Json {
            return None;
        }
        let role = served.role.as_deref().unwrap_or("node");
        Some(match (role, served.stale_ms) {
            ("leader", _) => format!("from the leader of {}", served.place()),
            (_, Some(ms)) => format!("from a {role} of {}, at most {ms} ms old", served.place()),
            (_, None) => format!("from a {role} of {}, of unknown age", served.place()),
        })
    }
}

fn write_file(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(file, bytes).map_err(|error| {
        let detail = format!("{}: {error}", file.display());
        Failure::new(Exit::Error, "the file cannot be written", detail, "check the path and the free space")
    })
}
