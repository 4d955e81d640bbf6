//! `kv shard takeover SHARD`: makes another copy lead, for a leader that is gone.
//!
//! What the other copy never had is lost, so the plan is shown first, and the shard's name has to be typed. What speaks
//! against it is said with what to do instead; `--force` goes on where that is possible at all.

use std::io::{self, BufRead};
use std::path::Path;

use reqwest::Method;

use super::exit::{Done, Exit, Failure, printable};
use super::explain::percent_encoded;
use super::http::{self, Ask};
use super::keys::{Asking, Output, json};
use super::replica::confirm;
use super::status::{ask_any, read_json};
use super::table::{self, count};
use super::target::Target;
use crate::store::view::{TakenOver, TakeoverPlan};

/// Make another copy lead a shard whose leader is gone
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Writes that the other copy never had are lost: the plan says how many are known of. A leader that still answers hands over
without a loss: kv shard switchover. See \"A leader is gone\" in docs/operations.md.")]
pub(crate) struct Takeover {
    /// The shard's name
    shard: String,
    /// The node that is to lead, by name or address [default: the copy that holds the most]
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    /// Do not ask for the shard's name
    #[arg(long)]
    yes: bool,
    /// Go on in spite of what speaks against it: a leader that answers, a copy that holds more, no majority of nodes
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Takeover {
    /// Does it.
    pub(crate) fn run(&self, directory: &Path) -> Result<Done, Failure> {
        let target = self.asking.target(directory)?;
        http::block_on(self.take_over(&target, &mut io::stdin().lock()))
    }

    async fn take_over(&self, target: &Target, typed: &mut impl BufRead) -> Result<Done, Failure> {
        let plan = self.plan(target).await?;
        for line in explain(&plan) {
            eprintln!("{}", printable(&line));
        }
        refuse(&plan, self.force)?;
        if !self.yes {
            confirm(&plan.shard, "the takeover was not confirmed", "type the shard's name, or add --yes", typed)?;
        }
        let taken = self.order(&plan).await?;
        Ok(Done::ok(match self.asking.output {
            Output::Json => json(&serde_json::json!({"plan": plan, "taken_over": taken})),
            Output::Table => (result(&taken) + "\n").into_bytes(),
        }))
    }

    /// What it would come to; any node that answers says it.
    async fn plan(&self, target: &Target) -> Result<TakeoverPlan, Failure> {
        let to = self.to.as_ref().map(|to| format!("?to={}", percent_encoded(to.as_bytes()))).unwrap_or_default();
        let path = format!("/admin/v1/shards/{}/takeover{to}", percent_encoded(self.shard.as_bytes()));
        let client = http::client(http::patience(None))?;
        Ok(ask_any(&client, target, &path).await?.0)
    }

    /// Has the node itself do it.
    async fn order(&self, plan: &TakeoverPlan) -> Result<TakenOver, Failure> {
        let TakeoverPlan { shard, to, address, .. } = plan;
        let (shard, to) = (percent_encoded(shard.as_bytes()), percent_encoded(to.as_bytes()));
        let path = format!("/admin/v1/shards/{shard}/takeover?to={to}&force={}", self.force);
        let client = http::client(http::patience(None))?;
        let ask = Ask { method: Method::POST, path, body: None };
        let reply = http::ask_one(&client, &format!("http://{address}"), &ask).await.map_err(look_first)?;
        let read = read_json(&reply.body).map(|(taken, _)| taken);
        read.map_err(|error| {
            look_first(Failure::new(
                Exit::Unknown,
                "this is not an answer of a kv server",
                format!("{address}: {error}"),
                "",
            ))
        })
    }
}

/// Whether an order was carried out shows who leads.
pub(super) fn look_first(failure: Failure) -> Failure {
    match failure.exit {
        Exit::Unknown => {
            Failure { hint: "it may have been done, or may yet: kv status says who leads".to_owned(), ..failure }
        }
        _ => failure,
    }
}

/// What is about to happen, in lines.
fn explain(plan: &TakeoverPlan) -> Vec<String> {
    let TakeoverPlan { shard, leader, leader_address, epoch, to, address, next_epoch, .. } = plan;
    let mut lines = vec![format!("{shard} is led by {leader} ({leader_address}) in epoch {epoch}.")];
    let rows = plan.copies.iter().map(|copy| {
        let end = copy.end.map_or_else(String::new, |end| end.to_string());
        let heard = match (copy.heard_end, copy.heard_ms) {
            (Some(end), Some(ms)) => format!("{end}, {} ago", table::duration(ms)),
            _ => String::new(),
        };
        vec![copy.address.clone(), copy.node.clone(), copy.state.clone(), end, heard]
    });
    let copies =
        table::render(&["COPY", "NODE", "STATE", "HOLDS UP TO", "LEADER'S END AS IT HEARD"], &[3], rows.collect());
    lines.extend(copies.lines().map(|line| format!("  {line}")));
    if !plan.silent.is_empty() {
        let answer = if plan.silent.len() == 1 { "does not answer" } else { "do not answer" };
        lines.push(format!(
            "{} of {} {answer}: {}.",
            plan.silent.len(),
            count(plan.nodes, "node"),
            plan.silent.join(", ")
        ));
    }
    lines.push(format!("{to} ({address}) would lead {shard} in epoch {next_epoch}."));
    lines.push(match plan.missing {
        Some(0) => {
            "No write is known that it lacks. Writes that its leader took after it was heard last would be lost."
                .to_owned()
        }
        Some(missing) => {
            format!("It lacks at least {} that the leader had: they would be lost.", table::entries(missing))
        }
        None => "What it holds is not known: it does not answer.".to_owned(),
    });
    lines
}

/// Ends with what speaks against it, unless all of that is forced.
fn refuse(plan: &TakeoverPlan, force: bool) -> Result<(), Failure> {
    let against: Vec<_> = plan.objections.iter().filter(|objection| !(force && objection.can_be_forced)).collect();
    let Some(first) = against.first() else { return Ok(()) };
    let what: Vec<&str> = against.iter().map(|objection| objection.what.as_str()).collect();
    let mut hint: Vec<String> = vec![first.next.clone()];
    if against.iter().all(|objection| objection.can_be_forced) {
        hint.push("--force goes on in spite of it".to_owned());
    }
    Err(Failure::new(Exit::Error, "something speaks against it; nothing was changed", what.join("\n"), hint.join("\n")))
}

fn result(taken: &TakenOver) -> String {
    let TakenOver { shard, leader, address, epoch, end, missing, promised, nodes, took_ms } = taken;
    let lost = match missing {
        0 => "nothing is known to be missing".to_owned(),
        missing => format!("at least {} are missing", table::entries(*missing)),
    };
    format!(
        "{leader} ({address}) leads {shard} in epoch {epoch} from seq {end} on, after {}; {lost}; {promised} of {} promised",
        format_args!("{took_ms} ms"),
        count(*nodes, "node"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::stub::{Stub, answer};
    use super::*;

    fn plan(address: &str, objections: Value) -> Value {
        json!({"shard": "s", "leader": "s/0", "leader_address": "h:1", "epoch": 1, "to": "s/1", "address": address,
            "next_epoch": 2, "end": 90, "missing": 3, "best": "s/1", "nodes": 5, "silent": ["s/0"],
            "copies": [
                {"node": "s/0", "address": "h:1", "state": "silent", "end": null, "heard_end": null, "heard_ms": null},
                {"node": "s/1", "address": address, "state": "whole", "end": 90, "heard_end": 93, "heard_ms": 4000}],
            "objections": objections})
    }

    /// A node that makes the plan, and would lead.
    fn node(objections: Value) -> Stub {
        Stub::start(move |asked| {
            let host = asked.headers.iter().find_map(|header| header.strip_prefix("host: ")).unwrap();
            let body = match asked.line.as_str() {
                "GET /admin/v1/shards/s/takeover HTTP/1.1" | "GET /admin/v1/shards/s/takeover?to=s%2F1 HTTP/1.1" => {
                    plan(host, objections.clone())
                }
                "POST /admin/v1/shards/s/takeover?to=s%2F1&force=false HTTP/1.1"
                | "POST /admin/v1/shards/s/takeover?to=s%2F1&force=true HTTP/1.1" => {
                    json!({"shard": "s", "leader": "s/1", "address": host, "epoch": 2, "end": 90, "missing": 3,
                        "promised": 4, "nodes": 5, "took_ms": 60})
                }
                other => panic!("{other}"),
            };
            Some(answer("200 OK", &[], body.to_string().as_bytes()))
        })
    }

    fn take_over(server: &Stub, to: Option<&str>, yes: bool, force: bool, typed: &str) -> Result<String, Failure> {
        let takeover = Takeover {
            shard: "s".to_owned(),
            to: to.map(str::to_owned),
            yes,
            force,
            asking: Asking { url: Some(server.url()), output: Output::Table },
        };
        let target = takeover.asking.target(Path::new("/nonexistent")).unwrap();
        let done = http::block_on(takeover.take_over(&target, &mut typed.as_bytes()))?;
        Ok(String::from_utf8(done.stdout).unwrap())
    }

    fn was_ordered(server: &Stub) -> bool {
        server.asked().iter().any(|asked| asked.line.starts_with("POST"))
    }

    #[test]
    fn takeover_that_is_confirmed_by_the_shards_name_is_ordered_from_the_node_itself() {
        for to in [None, Some("s/1")] {
            let server = node(json!([]));
            let text = take_over(&server, to, false, false, "s\n").unwrap();
            let expected = format!(
                "s/1 ({}) leads s in epoch 2 from seq 90 on, after 60 ms; at least 3 entries are missing; 4 of 5 nodes \
                 promised\n",
                server.address
            );
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn takeover_that_is_not_confirmed_changes_nothing() {
        let server = node(json!([]));
        for typed in ["", "yes\n", "s/1\n"] {
            assert_eq!(
                take_over(&server, None, false, false, typed).unwrap_err().title,
                "the takeover was not confirmed"
            );
        }
        assert!(!was_ordered(&server));
    }

    #[test]
    fn takeover_that_something_speaks_against_takes_force_where_that_is_possible() {
        let objection = |can_be_forced| json!([{"what": "s/0 answers", "next": "kv shard switchover s", "can_be_forced": can_be_forced}]);
        let server = node(objection(true));
        let failure = take_over(&server, None, true, false, "").unwrap_err();
        assert!(
            failure.detail == "s/0 answers" && failure.hint.contains("switchover") && failure.hint.contains("--force")
        );
        assert!(!was_ordered(&server));
        take_over(&server, None, true, true, "").unwrap();
        let server = node(objection(false));
        let failure = take_over(&server, None, true, true, "").unwrap_err();
        assert!(!failure.hint.contains("--force") && !was_ordered(&server));
    }

    #[test]
    fn plan_is_shown_with_every_copy_and_what_is_missing() {
        let plan: TakeoverPlan = serde_json::from_value(plan("h:2", json!([]))).unwrap();
        let expected = "\
s is led by s/0 (h:1) in epoch 1.
  COPY  NODE  STATE   HOLDS UP TO  LEADER'S END AS IT HEARD
  h:1   s/0   silent
  h:2   s/1   whole            90  93, 4 s ago
1 of 5 nodes does not answer: s/0.
s/1 (h:2) would lead s in epoch 2.
It lacks at least 3 entries that the leader had: they would be lost.";
        assert_eq!(explain(&plan).join("\n"), expected);
    }
}
