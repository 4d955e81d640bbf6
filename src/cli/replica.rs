//! `kv replica reset NODE`: throws a replica's copy away on purpose, so that it fetches everything from its leader.
//!
//! What only that copy holds is lost, so its name has to be typed, and a copy that may be the last one (its leader does
//! not answer) takes `--force`.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use reqwest::{Client, Method};
use tokio::time::sleep;

use super::exit::{Done, Exit, Failure, printable};
use super::explain::percent_encoded;
use super::http::{self, Ask};
use super::keys::{Asking, Output, json, parse_timeout};
use super::status::{NODE_TIMEOUT, ask_map, ask_node, fetch};
use super::table;
use super::target::Target;
use crate::clock::{Clock, millis};
use crate::store::view::{ClusterView, CopyStatus, Discarded, NodeStatus, NodeView, ShardView};

/// Between two looks at how far the replica is.
const LOOK_PAUSE: Duration = Duration::from_millis(300);

/// Act on one replica
#[derive(Debug, clap::Args)]
pub(crate) struct Replica {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, clap::Subcommand)]
enum Deed {
    Reset(Reset),
}

/// Throw a replica's copy away, so that it fetches everything from its leader
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Entries that only this copy holds are lost for good. Meant for a copy that holds what its leader never had, or has lost
(kv status says so), or that kv shard checksum found to differ. See \"A leader lost its data\" in docs/operations.md.")]
pub(crate) struct Reset {
    /// The node's name, such as Hyderabad/1, or its address
    node: String,
    /// Do not ask for the node's name
    #[arg(long)]
    yes: bool,
    /// Go on although the leader does not answer, and this may be the last copy of the shard
    #[arg(long)]
    force: bool,
    /// How long to wait until it streams again, such as 30s
    #[arg(long, value_parser = parse_timeout, default_value = "10m")]
    wait: Duration,
    #[command(flatten)]
    asking: Asking,
}

impl Replica {
    /// Does it.
    pub(crate) fn run(&self, directory: &Path) -> Result<Done, Failure> {
        let Deed::Reset(reset) = &self.deed;
        reset.run(directory)
    }
}

/// A replica, its shard and the map that they are from.
struct Chosen {
    map: ClusterView,
    node: NodeView,
    shard: ShardView,
}

impl Reset {
    fn run(&self, directory: &Path) -> Result<Done, Failure> {
        let target = self.asking.target(directory)?;
        http::block_on(self.reset(&target, &mut io::stdin().lock()))
    }

    async fn reset(&self, target: &Target, typed: &mut impl BufRead) -> Result<Done, Failure> {
        let client = http::client(NODE_TIMEOUT)?;
        let Chosen { map, node, shard } = choose(ask_map(&client, target).await?.0, &self.node)?;
        let copy = ask_copy(&client, &node, &shard).await.map_err(|why| {
            let hint = format!("start it first: kv serve --http-addr {}", node.address);
            Failure::new(Exit::Unavailable, format!("{} does not answer", node.name), why, hint)
        })?;
        let leader = map.nodes.iter().find(|other| other.address == shard.leader);
        let leader_copy = match leader {
            Some(leader) if leader.name != node.name => ask_copy(&client, leader, &shard).await,
            _ => Err("the map names no other node as the leader".to_owned()),
        };
        for line in explain(&node, &shard, &copy, leader_copy.as_ref()) {
            eprintln!("{}", printable(&line));
        }
        if let (Err(why), false) = (&leader_copy, self.force) {
            let detail = format!("{} ({}): {why}", shard.name, shard.leader);
            let hint = "start the leader first; --force goes on without it";
            return Err(Failure::new(
                Exit::Error,
                "the leader does not answer: this may be the last copy",
                detail,
                hint,
            ));
        }
        if !self.yes {
            confirm(&node.name, "the reset was not confirmed", "type the node's name, or add --yes", typed)?;
        }
        let discarded = self.ask_reset(&node).await?;
        let clock = Clock::real();
        let began = clock.now();
        let took = || millis(clock.now().saturating_duration_since(began));
        let now = self.wait_until_whole(&client, &node, &shard, &took).await?;
        Ok(Done::ok(match self.asking.output {
            Output::Json => json(&serde_json::json!({"discarded": discarded, "copy": now, "took_ms": took()})),
            Output::Table => format!(
                "{} has thrown away {} and streams again: {}, after {}\n",
                node.name,
                holding(discarded.keys, discarded.end),
                holding(now.keys, now.end),
                table::duration(took())
            )
            .into_bytes(),
        }))
    }

    /// Throws the copy away. The node answers when the empty one has taken its place.
    async fn ask_reset(&self, node: &NodeView) -> Result<Discarded, Failure> {
        let client = http::client(http::patience(None))?;
        let name = percent_encoded(node.name.as_bytes());
        let ask = Ask { method: Method::POST, path: format!("/admin/v1/replica/reset?node={name}"), body: None };
        let reply = http::ask_one(&client, &format!("http://{}", node.address), &ask).await;
        let again = || "look with kv status, and reset it again if it has not happened: it may be repeated".to_owned();
        let reply = reply.map_err(|failure| match failure.exit {
            Exit::Unknown => Failure { hint: again(), ..failure },
            _ => failure,
        })?;
        serde_json::from_slice(&reply.body).map_err(|error| {
            let title = "this is not an answer of a kv server";
            Failure::new(Exit::Unknown, title, format!("{}: {error}", node.address), again())
        })
    }

    /// Watches it come back, and tells of each change on standard error.
    async fn wait_until_whole(
        &self,
        client: &Client,
        node: &NodeView,
        shard: &ShardView,
        took: &impl Fn() -> u64,
    ) -> Result<CopyStatus, Failure> {
        let mut told = String::new();
        loop {
            let seen = fetch::<NodeStatus>(client, &format!("http://{}", node.address), "/admin/v1/status").await;
            let seen = seen.map(|(status, _)| status);
            let text = match seen.as_ref().map(|status| (copy_of(status, shard), status)) {
                Ok((Some(copy), _)) if copy.state == "streaming" => return Ok(copy.clone()),
                Ok((Some(copy), status)) => progress(copy, status),
                Ok((None, _)) | Err(_) => "it does not answer".to_owned(),
            };
            if text != told {
                eprintln!("{}: {}", node.name, printable(&text));
                told = text;
            }
            if took() >= millis(self.wait) {
                let detail = format!("{} after {}: {told}", node.name, table::duration(took()));
                let hint = "it goes on by itself; watch it with kv status --watch";
                return Err(Failure::new(
                    Exit::Error,
                    "the copy was thrown away, and is not whole again yet",
                    detail,
                    hint,
                ));
            }
            sleep(LOOK_PAUSE).await;
        }
    }
}

/// Finds the node by name or address, and its shard.
fn choose(map: ClusterView, wanted: &str) -> Result<Chosen, Failure> {
    let found = map.nodes.iter().find(|node| node.name == wanted || node.address == wanted).cloned();
    let Some(node) = found else {
        let names: Vec<&str> = map.nodes.iter().map(|node| node.name.as_str()).collect();
        return Err(Failure::usage(
            format!("the cluster has no node {wanted:?}"),
            format!("its nodes are {}", names.join(", ")),
        ));
    };
    let shard = map.shards.iter().find(|shard| shard.leader == node.address || shard.replicas.contains(&node.address));
    match shard.cloned() {
        Some(shard) if shard.leader != node.address => Ok(Chosen { map, node, shard }),
        Some(shard) => Err(Failure::usage(
            format!("{} is the leader of {}: its copy is the shard's data", node.name, shard.name),
            format!("name a replica of it: {}", shard.replicas.join(", ")),
        )),
        None => Err(Failure::usage(format!("{} holds no shard", node.name), "kv status shows who holds what")),
    }
}

async fn ask_copy(client: &Client, node: &NodeView, shard: &ShardView) -> Result<CopyStatus, String> {
    let asked = ask_node(client, node).await;
    let (status, _) = asked.answer?;
    copy_of(&status, shard).cloned().ok_or_else(|| format!("{} holds no copy of {}", node.name, shard.name))
}

fn copy_of<'s>(status: &'s NodeStatus, shard: &ShardView) -> Option<&'s CopyStatus> {
    status.copies.iter().find(|copy| copy.index == shard.index)
}

/// What is about to be lost, in lines.
fn explain(node: &NodeView, shard: &ShardView, copy: &CopyStatus, leader: Result<&CopyStatus, &String>) -> [String; 3] {
    let held = holding(copy.keys, copy.end);
    let here = format!("{} ({}) holds {held} of {}; it is {}.", node.name, node.address, shard.name, copy.state);
    let there = match leader {
        Ok(CopyStatus { keys, end, state, .. }) => {
            format!("Its leader ({}) holds {}; it is {state}.", shard.leader, holding(*keys, *end))
        }
        Err(why) => format!("Its leader ({}) does not answer: {why}.", shard.leader),
    };
    let then = "The copy is thrown away, and everything is fetched from the leader: what only this copy holds is lost for \
                good.";
    [here, there, then.to_owned()]
}

fn holding(keys: u64, end: u64) -> String {
    format!("{} up to seq {end}", table::count(usize::try_from(keys).unwrap_or(usize::MAX), "key"))
}

/// Has the name typed.
pub(super) fn confirm(name: &str, title: &str, hint: &str, typed: &mut impl BufRead) -> Result<(), Failure> {
    eprint!("Type {name} to go on: ");
    let _ = io::stderr().flush();
    let mut line = String::new();
    let read = typed.read_line(&mut line);
    if !io::stdin().is_terminal() {
        eprintln!(); // on a terminal, whoever typed has begun a new line
    }
    if read.is_ok() && line.trim() == name {
        return Ok(());
    }
    let detail = format!("what was typed is not {name}; nothing was changed");
    Err(Failure::new(Exit::Error, title, detail, hint))
}

/// How far it is.
fn progress(copy: &CopyStatus, status: &NodeStatus) -> String {
    let so_far = match copy.snapshot_records {
        Some(records) => format!("{records} records so far"),
        None => holding(copy.keys, copy.end),
    };
    let wrong = status.problems.first().map(|problem| format!("; {}", problem.what)).unwrap_or_default();
    format!("{}, {so_far}{wrong}", copy.state)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use serde_json::{Value, json};

    use super::super::stub::{Stub, answer};
    use super::*;

    fn copy(role: &str, state: &str, keys: u64) -> Value {
        json!({"shard": "s", "index": 0, "role": role, "state": state, "since_ms": 1, "epoch": 1, "leader": "s/0",
            "end": keys * 2, "keys": keys, "bytes": 2048, "log_bytes": 1, "stale_ms": null, "replicas": []})
    }

    fn status(name: &str, copy: &Value) -> Vec<u8> {
        let body = json!({"node": name, "address": "h", "version": "9", "cluster": "c", "placement": "0x1",
            "placement_text": "p", "addresses": "0x2", "uptime_ms": 1, "peers": [], "problems": [], "copies": [copy]});
        answer("200 OK", &[], body.to_string().as_bytes())
    }

    /// A leader, and a replica that streams at the third look after its reset; the map is the replica's.
    fn pair(leader_answers: bool) -> (Stub, Stub) {
        let leader = Stub::start(move |_| leader_answers.then(|| status("s/0", &copy("leader", "halted", 0))));
        let at = leader.address;
        let (looks, reset) = (AtomicU32::new(0), AtomicU32::new(0));
        let replica = Stub::start(move |asked| {
            let host = asked.headers.iter().find_map(|header| header.strip_prefix("host: ")).unwrap();
            Some(match asked.line.as_str() {
                "GET /v1/cluster HTTP/1.1" => {
                    let node = |name, address: String| json!({"name": name, "address": address, "state": "up"});
                    let map = json!({"cluster": "c", "profile": "static", "hash_function": "fnv1a", "placement": "0x1",
                        "nodes": [node("s/0", at.to_string()), node("s/1", host.to_owned())],
                        "shards": [{"name": "s", "index": 0, "epoch": 1, "leader": at.to_string(), "replicas": [host]}]});
                    answer("200 OK", &[], map.to_string().as_bytes())
                }
                "GET /admin/v1/status HTTP/1.1" if reset.load(Ordering::SeqCst) == 0 => {
                    status("s/1", &copy("replica", "leader-lost-data", 40))
                }
                "GET /admin/v1/status HTTP/1.1" => {
                    let state = if looks.fetch_add(1, Ordering::SeqCst) < 2 { "starting" } else { "streaming" };
                    status("s/1", &copy("replica", state, 0))
                }
                "POST /admin/v1/replica/reset?node=s%2F1 HTTP/1.1" => {
                    reset.fetch_add(1, Ordering::SeqCst);
                    let body = json!({"node": "s/1", "shard": "s", "end": 80, "keys": 40});
                    answer("200 OK", &[], body.to_string().as_bytes())
                }
                other => panic!("{other}"),
            })
        });
        (leader, replica)
    }

    fn reset(server: &Stub, node: &str, yes: bool, force: bool, typed: &str) -> Result<String, Failure> {
        let reset = Reset {
            node: node.to_owned(),
            yes,
            force,
            wait: Duration::from_secs(20),
            asking: Asking { url: Some(server.url()), output: Output::Table },
        };
        let target = reset.asking.target(Path::new("/nonexistent")).unwrap();
        let done = http::block_on(reset.reset(&target, &mut typed.as_bytes()))?;
        Ok(String::from_utf8(done.stdout).unwrap())
    }

    fn was_reset(server: &Stub) -> bool {
        server.asked().iter().any(|asked| asked.line.starts_with("POST"))
    }

    #[test]
    fn reset_by_name_typed_waits_until_the_copy_streams_again() {
        let (_leader, replica) = pair(true);
        let text = reset(&replica, "s/1", false, false, "s/1\n").unwrap();
        let expected = "s/1 has thrown away 40 keys up to seq 80 and streams again: 0 keys up to seq 0, after ";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn reset_by_address_needs_nothing_typed_when_told_so() {
        let (_leader, replica) = pair(true);
        reset(&replica, &replica.address.to_string(), true, false, "").unwrap();
        assert!(was_reset(&replica));
    }

    #[test]
    fn reset_that_is_not_confirmed_changes_nothing() {
        let (_leader, replica) = pair(true);
        for typed in ["", "\n", "yes\n", "s/0\n", "S/1\n"] {
            assert_eq!(reset(&replica, "s/1", false, false, typed).unwrap_err().title, "the reset was not confirmed");
        }
        assert!(!was_reset(&replica));
    }

    #[test]
    fn reset_of_what_may_be_the_last_copy_takes_force() {
        let (_leader, replica) = pair(false);
        let failure = reset(&replica, "s/1", true, false, "").unwrap_err();
        assert!(failure.title.contains("last copy") && failure.hint.contains("--force"), "{failure}");
        assert!(!was_reset(&replica));
        reset(&replica, "s/1", true, true, "").unwrap();
    }

    #[test]
    fn reset_of_a_leader_or_of_nobody_is_refused_before_anything_is_asked() {
        let (_leader, replica) = pair(true);
        let failure = reset(&replica, "s/0", true, true, "").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.detail.contains("is the leader of s"), "{failure}");
        let failure = reset(&replica, "t/1", true, true, "").unwrap_err();
        assert!(failure.hint.contains("s/0, s/1"), "{failure}");
        assert!(!was_reset(&replica));
    }
}
