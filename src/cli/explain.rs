//! `kv explain KEY`: why a key is where it is, and what every copy says of it.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use super::exit::{Done, Exit, Failure, printable};
use super::http::{self, Ask};
use super::keys::{Asking, Output, json, key_bytes, shown};
use super::status::read_json;
use super::table;
use crate::store::view::{CopyOfKey, Explanation};

/// Show why a key is where it is, and which copies have it
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// The key, any bytes
    key: OsString,
    #[command(flatten)]
    asking: Asking,
}

impl Explain {
    /// Asks once, and shows it.
    pub(crate) fn run(&self, directory: &Path) -> Result<Done, Failure> {
        let target = self.asking.target(directory)?;
        let path = format!("/v1/explain?key={}", percent_encoded(key_bytes(&self.key)?));
        let reply = http::block_on(http::send(&target, Ask::get(path), None))?;
        let (explanation, value) = read_json::<Explanation>(&reply.body).map_err(|error| {
            let detail = format!("{}: {error}", target.base);
            Failure::new(Exit::Error, "this is not an answer of a kv server", detail, "check --url")
        })?;
        Ok(Done::ok(match self.asking.output {
            Output::Json => json(&value),
            Output::Table => {
                let text = render(&shown(&self.key), &explanation);
                text.lines().map(|line| printable(line) + "\n").collect::<String>().into_bytes()
            }
        }))
    }
}

/// The explanation in sentences, then a row for each copy.
fn render(key: &str, found: &Explanation) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "key     {key}");
    let _ = writeln!(text, "hash    {} ({})", found.hash, found.hash_function);
    let _ = writeln!(text, "shard   {}: the hash modulo the number of shards is {}", found.shard, found.index);
    let _ = writeln!(text, "leader  {} in epoch {}", found.leader, found.epoch);
    let _ = writeln!(text, "{}\n", verdict(&found.copies));
    let rows = found.copies.iter().map(row).collect();
    text + &table::render(&["COPY", "ROLE", "VERSION", "LAG", "LAG MS"], &[3, 4], rows)
}

/// Whether the key exists, and whether the copies agree.
fn verdict(copies: &[CopyOfKey]) -> &'static str {
    let leader = copies.iter().find(|copy| copy.role == "leader" && copy.error.is_none());
    let answered = || copies.iter().filter(|copy| copy.error.is_none());
    match leader {
        None => "        the leader does not answer",
        Some(leader) if answered().any(|copy| copy.version != leader.version) => {
            "        the copies differ: a replica is behind, or ahead of what this answer saw"
        }
        Some(leader) if leader.version.is_none() => "        there is no such key",
        Some(_) => "        every copy that answers has the same version",
    }
}

fn row(copy: &CopyOfKey) -> Vec<String> {
    let number = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
    let version = match (&copy.error, &copy.version) {
        (Some(error), _) => error.clone(),
        (None, Some(version)) => version.clone(),
        (None, None) => "none".to_owned(),
    };
    vec![copy.node.clone(), copy.role.clone(), version, number(copy.lag_entries), number(copy.lag_ms)]
}

/// Any bytes as a query parameter.
pub(crate) fn percent_encoded(bytes: &[u8]) -> String {
    let encode = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    bytes.iter().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(node: &str, role: &str, version: Option<&str>, error: Option<&str>) -> CopyOfKey {
        let lag = (error.is_none()).then_some(0);
        CopyOfKey {
            node: node.to_owned(),
            role: role.to_owned(),
            version: version.map(str::to_owned),
            lag_entries: lag,
            lag_ms: lag,
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn explain_render_names_hash_shard_and_copies() {
        let found = Explanation {
            key: Some("k".to_owned()),
            key_b64: None,
            hash: "0x85944171f73967e8".to_owned(),
            hash_function: "fnv1a".to_owned(),
            shard: "Hyderabad".to_owned(),
            index: 0,
            leader: "127.0.0.2:8080".to_owned(),
            epoch: 1,
            copies: vec![
                copy("127.0.0.2:8080", "leader", Some("1.5.ab"), None),
                copy("127.0.0.22:8080", "replica", None, Some("refused")),
            ],
        };
        let expected = "\
key     k
hash    0x85944171f73967e8 (fnv1a)
shard   Hyderabad: the hash modulo the number of shards is 0
leader  127.0.0.2:8080 in epoch 1
        every copy that answers has the same version

COPY             ROLE     VERSION  LAG  LAG MS
127.0.0.2:8080   leader   1.5.ab     0       0
127.0.0.22:8080  replica  refused    ?       ?
";
        assert_eq!(render("k", &found), expected);
    }

    #[test]
    fn explain_verdict_tells_missing_from_differing() {
        let leader = |version| copy("a", "leader", version, None);
        let replica = |version| copy("b", "replica", version, None);
        assert!(verdict(&[leader(None), replica(None)]).contains("no such key"));
        assert!(verdict(&[leader(Some("2")), replica(Some("1"))]).contains("differ"));
        assert!(verdict(&[leader(None), replica(Some("1"))]).contains("differ"));
        assert!(verdict(&[copy("a", "leader", None, Some("x")), replica(Some("1"))]).contains("does not answer"));
    }

    #[test]
    fn percent_encoded_any_byte_survives() {
        assert_eq!(percent_encoded(b"a b+c/\xff%"), "a%20b%2Bc%2F%FF%25");
    }
}
