//! `kv shard lost-writes SHARD`: what copies of a shard took back when they returned, as NDJSON for a file or a pipe.
//!
//! Lines go out as they come, whatever their number; what there is to say about them goes to standard error.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use super::exit::{Done, Exit, Failure, printable};
use super::explain::percent_encoded;
use super::http;
use super::table::count;
use super::target::Target;
use crate::store::view::LostWritesEnd;

/// Ledgers may have gigabytes.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Longest line: the largest value, in base64, and room to spare. A longer one is not of this store.
const LINE_BYTES_MAX: usize = 128 << 20;
/// How the last line begins.
const END: &[u8] = b"{\"done\":true";

/// List the writes that were lost when a leader was replaced
#[derive(Debug, clap::Args)]
#[command(after_help = "\
One JSON object per line: key (or key_b64), value (or value_b64), op, content_type, version, time (ms since 1970) and what is
known of how it was lost. They stand in a file beside the database of the copy that returned, FILE.ledger, until that is
moved away. Ends with 5 when the ledger of a copy could not be read, and with 1 when one is damaged.")]
pub(crate) struct LostWrites {
    /// The shard's name
    shard: String,
    /// The server to ask, any node [default: the first address in ./sharding.toml]
    #[arg(long, env = "KV_URL", value_name = "URL")]
    url: Option<String>,
}

impl LostWrites {
    /// Does it.
    pub(crate) fn run(&self, directory: &Path) -> Result<Done, Failure> {
        let target = Target::choose(self.url.as_deref(), directory)?;
        let path = format!("/admin/v1/shards/{}/lost-writes", percent_encoded(self.shard.as_bytes()));
        let end = http::block_on(list(&target, &path, &mut io::stdout().lock()))?;
        for line in notes(&self.shard, &end) {
            eprintln!("{}", printable(&line));
        }
        let exit = match (end.silent.is_empty(), end.damaged.is_empty()) {
            (false, _) => Exit::Unavailable,
            (true, false) => Exit::Error,
            (true, true) => Exit::Ok,
        };
        Ok(Done { exit, stdout: Vec::new(), note: None })
    }
}

/// Writes the lines of the first node that answers to `out`, and returns the last one.
async fn list(target: &Target, path: &str, out: &mut impl Write) -> Result<LostWritesEnd, Failure> {
    let client = http::client(WHOLE_TIMEOUT)?;
    let mut first_failure = None;
    for base in target.all() {
        match http::stream(&client, base, path).await {
            Ok(response) => return pass_on(response, base, out).await,
            Err(failure) if failure.exit == Exit::Unavailable => first_failure = first_failure.or(Some(failure)),
            Err(failure) => return Err(failure),
        }
    }
    Err(first_failure.unwrap_or_else(|| unreachable!("a target has a server")))
}

async fn pass_on(mut response: reqwest::Response, base: &str, out: &mut impl Write) -> Result<LostWritesEnd, Failure> {
    let broke_off = |why: String| {
        let hint = "what came so far is right, and not all; try again, or ask another node with --url";
        Failure::new(Exit::Unavailable, "the listing broke off", format!("{base}: {why}"), hint)
    };
    let unwritten = |error: io::Error| {
        Failure::new(Exit::Error, "the listing cannot be written", error.to_string(), "look where its output goes")
    };
    let mut rest = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broke_off(error.to_string()))? {
        let Some(newline) = chunk.iter().rposition(|byte| *byte == b'\n') else {
            rest.extend_from_slice(&chunk);
            if rest.len() > LINE_BYTES_MAX {
                return Err(broke_off(format!("a line has more than {LINE_BYTES_MAX} bytes")));
            }
            continue;
        };
        let (lines, behind) = chunk.split_at(newline + 1);
        rest.extend_from_slice(lines);
        // The last line comes alone, or behind others.
        let last = rest.split_inclusive(|byte| *byte == b'\n').next_back().unwrap_or_default();
        let before = rest.len() - last.len();
        let end: Option<LostWritesEnd> = last.starts_with(END).then(|| serde_json::from_slice(last).ok()).flatten();
        let listed = if end.is_some() { rest.get(..before) } else { rest.get(..) };
        out.write_all(listed.unwrap_or_default()).map_err(unwritten)?;
        if let Some(end) = end {
            out.flush().map_err(unwritten)?;
            return Ok(end);
        }
        rest.clear();
        rest.extend_from_slice(behind);
    }
    Err(broke_off("the last line is missing".into()))
}

/// What there is to say about a listing.
fn notes(shard: &str, end: &LostWritesEnd) -> Vec<String> {
    let mut notes = Vec::new();
    if end.writes == 0 && end.silent.is_empty() {
        notes.push(format!("no copy of {shard} has a ledger of lost writes: none was lost, as far as its copies know"));
    }
    for listing in end.nodes.iter().filter(|listing| listing.writes > 0) {
        let writes = usize::try_from(listing.writes).unwrap_or(usize::MAX);
        notes.push(format!("{}: {}", listing.node, count(writes, "lost write")));
    }
    for damaged in &end.damaged {
        notes.push(format!("{}: its ledger is damaged, and not all of it is here: {}", damaged.node, damaged.why));
    }
    for silent in &end.silent {
        notes.push(format!("{}: its ledger could not be read, and may list more: {}", silent.node, silent.why));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::view::{Listing, SilentNode};

    #[test]
    fn notes_name_who_listed_how_much_and_who_is_silent() {
        let node = |why: &str| SilentNode { node: "S/1".into(), why: why.into() };
        let mut end = LostWritesEnd { done: true, writes: 0, nodes: vec![], silent: vec![], damaged: vec![] };
        assert!(notes("S", &end)[0].contains("none was lost"));
        end.silent.push(node("refused"));
        assert_eq!(notes("S", &end), ["S/1: its ledger could not be read, and may list more: refused"]);
        (end.writes, end.nodes) = (3, vec![Listing { node: "S/0".into(), writes: 3 }]);
        end.damaged.push(node("byte 28"));
        let notes = notes("S", &end);
        assert_eq!((notes[0].as_str(), notes.len()), ("S/0: 3 lost writes", 3));
        let line = serde_json::to_vec(&end).unwrap();
        assert!(line.starts_with(END), "the last line is told by its beginning");
    }
}
