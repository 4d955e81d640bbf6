//! `kv shard switchover SHARD --to NODE`: the leader hands its shard over, and nothing is lost.

use std::path::Path;
use std::time::Duration;

use reqwest::Method;

use super::exit::{Done, Exit, Failure};
use super::explain::percent_encoded;
use super::http::{self, Ask};
use super::keys::{Asking, Output, json, parse_timeout};
use super::shard::choose;
use super::status::{NODE_TIMEOUT, ask_map, read_json};
use super::takeover::look_first;
use super::target::Target;
use crate::store::view::HandedOver;

/// A hand-over that is under way when its time ends is at its end so soon.
const OVERTIME: Duration = Duration::from_secs(10);

/// Hand a shard over to another of its copies; nothing is lost
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Writes wait for a moment, and the pause is reported. When the other copy cannot keep up, or time is over, nothing has
changed. For a leader that does not answer: kv shard takeover.")]
pub(crate) struct Switchover {
    /// The shard's name
    shard: String,
    /// The node that is to lead, by name or address
    #[arg(long, value_name = "NODE")]
    to: String,
    /// How long the other copy may take to catch up, such as 30s
    #[arg(long, value_parser = parse_timeout, default_value = "10s")]
    timeout: Duration,
    #[command(flatten)]
    asking: Asking,
}

impl Switchover {
    /// Does it.
    pub(crate) fn run(&self, directory: &Path) -> Result<Done, Failure> {
        let target = self.asking.target(directory)?;
        http::block_on(self.switch_over(&target))
    }

    async fn switch_over(&self, target: &Target) -> Result<Done, Failure> {
        let (map, _) = ask_map(&http::client(NODE_TIMEOUT)?, target).await?;
        let leader = choose(&map, &self.shard)?.leader;
        let (shard, to) = (percent_encoded(self.shard.as_bytes()), percent_encoded(self.to.as_bytes()));
        let path = format!("/admin/v1/shards/{shard}/switchover?to={to}&timeout={}ms", self.timeout.as_millis());
        let ask = Ask { method: Method::POST, path, body: None };
        let client = http::client(self.timeout + OVERTIME)?;
        let reply = http::ask_one(&client, &format!("http://{}", leader.address), &ask).await;
        let reply = reply.map_err(|failure| self.suggest_takeover(look_first(failure)))?;
        let handed: HandedOver = read_json(&reply.body).map(|(handed, _)| handed).map_err(|error| {
            let detail = format!("{}: {error}", leader.address);
            look_first(Failure::new(Exit::Unknown, "this is not an answer of a kv server", detail, ""))
        })?;
        Ok(Done::ok(match self.asking.output {
            Output::Json => json(&handed),
            Output::Table => {
                let HandedOver { shard, leader, address, epoch, end, paused_ms } = &handed;
                format!(
                    "{leader} ({address}) leads {shard} in epoch {epoch} from seq {end} on; writes waited {paused_ms} ms\n"
                )
                .into_bytes()
            }
        }))
    }

    fn suggest_takeover(&self, failure: Failure) -> Failure {
        if failure.exit != Exit::Unavailable {
            return failure;
        }
        let hint = format!("only a leader that answers can hand over; if it is gone: kv shard takeover {}", self.shard);
        Failure { title: "the leader does not answer".to_owned(), hint, ..failure }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::stub::{Stub, answer};
    use super::*;

    fn switch_over(server: &Stub, shard: &str) -> Result<String, Failure> {
        let switchover = Switchover {
            shard: shard.to_owned(),
            to: "s/1".to_owned(),
            timeout: Duration::from_secs(5),
            asking: Asking { url: Some(server.url()), output: Output::Table },
        };
        let target = switchover.asking.target(Path::new("/nonexistent")).unwrap();
        let done = http::block_on(switchover.switch_over(&target))?;
        Ok(String::from_utf8(done.stdout).unwrap())
    }

    /// A leader that answers an order so.
    fn leader(status: &'static str, body: serde_json::Value) -> Stub {
        Stub::start(move |asked| {
            let host = asked.headers.iter().find_map(|header| header.strip_prefix("host: ")).unwrap();
            Some(match asked.line.as_str() {
                "GET /v1/cluster HTTP/1.1" => {
                    let node = |name, address: &str| json!({"name": name, "address": address, "state": "up"});
                    let map = json!({"cluster": "c", "profile": "static", "hash_function": "fnv1a", "placement": "0x1",
                        "nodes": [node("s/0", host), node("s/1", "h:2")],
                        "shards": [{"name": "s", "index": 0, "epoch": 1, "leader": host, "replicas": ["h:2"]}]});
                    answer("200 OK", &[], map.to_string().as_bytes())
                }
                "POST /admin/v1/shards/s/switchover?to=s%2F1&timeout=5000ms HTTP/1.1" => {
                    answer(status, &[], body.to_string().as_bytes())
                }
                other => panic!("{other}"),
            })
        })
    }

    #[test]
    fn switchover_is_ordered_from_the_leader_and_reports_the_pause() {
        let body = json!({"shard": "s", "leader": "s/1", "address": "h:2", "epoch": 2, "end": 9, "paused_ms": 12});
        let text = switch_over(&leader("200 OK", body), "s").unwrap();
        assert_eq!(text, "s/1 (h:2) leads s in epoch 2 from seq 9 on; writes waited 12 ms\n");
    }

    #[test]
    fn switchover_that_is_not_confirmed_is_not_called_failed() {
        let body =
            json!({"code": "operation-conflict", "applied": "unknown", "title": "t", "detail": "d", "hint": "h"});
        let failure = switch_over(&leader("409 Conflict", body), "s").unwrap_err();
        assert_eq!(failure.exit, Exit::Unknown);
        assert!(failure.hint.contains("kv status"), "{failure}");
    }

    #[test]
    fn switchover_of_a_shard_that_there_is_not_asks_nobody() {
        let failure = switch_over(&leader("200 OK", json!({})), "t").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
    }
}
