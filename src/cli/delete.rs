//! `kv delete KEY`: removes a key. That it was not there is no error, and is said.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde::Serialize;

use super::ack::Acking;
use super::exit::{Done, Failure};
use super::http::{self, Ask};
use super::keys::{
    Asking, Output, Served, json, key_bytes, key_path, parse_timeout, session_parameter, shown, text_or_b64,
};

/// Remove a key
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// The key, any bytes
    key: OsString,
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
struct Deleted {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_b64: Option<String>,
    existed: bool,
    #[serde(flatten)]
    served: Served,
}

impl Delete {
    /// Asks once. A delete that wrote something has a version; one of nothing has none.
    pub(crate) fn run(&self, directory: &Path) -> Result<Done, Failure> {
        let target = self.asking.target(directory)?;
        let parameters = session_parameter(self.session.as_deref()) + &self.acking.parameters();
        let ask = Ask { method: Method::DELETE, path: key_path(&self.key, self.timeout, &parameters)?, body: None };
        let reply = http::block_on(http::send(&target, ask, self.timeout))?;
        let served = Served::of(&reply, &target)?;
        let existed = served.version.is_some();
        if self.asking.output == Output::Json {
            let (key, key_b64) = text_or_b64(key_bytes(&self.key)?);
            return Ok(Done::ok(json(&Deleted { key, key_b64, existed, served })));
        }
        let key = shown(&self.key);
        Ok(Done::ok(match existed {
            true => format!("deleted {key} in {}{}\n", served.place(), served.durability()),
            false => format!("{key} was not there, in {}\n", served.place()),
        }))
    }
}
