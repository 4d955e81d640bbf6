//! What an operator asks about who leads a shard (`kv shard takeover`, `kv shard switchover`), and what that has cost.
//!
//! ```text
//! GET  /admin/v1/shards/{shard}/takeover?to=NODE              what it would come to; any node answers
//! POST /admin/v1/shards/{shard}/takeover?to=NODE&force=true   by NODE itself; another says whom to ask
//! POST /admin/v1/shards/{shard}/switchover?to=NODE&timeout=   by the leader; another says whom to ask
//! GET  /admin/v1/shards/{shard}/lost-writes                   NDJSON, from every copy's ledger; any node answers
//! ```

use std::convert::Infallible;

use axum::body::Body;
use axum::http::StatusCode;
use futures_util::StreamExt;

use super::answer;
use super::asked::Asked;
use super::controls;
use super::error::Problem;
use super::operate::{named, problem};
use super::params::{self, Accepts, Params, Plus};
use super::reply::Reply;
use crate::store::Applied;

/// The path under which shards stand.
pub(super) const UNDER: &str = "/admin/v1/shards/";

/// One JSON document per line.
const NDJSON: &str = "application/x-ndjson";

const LOST_WRITES: Accepts = Accepts { own: &[], controls: &[], not_built: &[] };
const PLAN: Accepts = Accepts { own: &["to"], controls: controls::TIME, not_built: &[] };
const TAKEOVER: Accepts = Accepts { own: &["to", "force"], controls: controls::TIME, not_built: &[] };
const SWITCHOVER: Accepts = Accepts { own: &["to"], controls: controls::TIME, not_built: &[] };

/// GET: `takeover`, the plan; `lost-writes`.
pub(super) async fn read(asked: &Asked<'_>) -> Result<Reply, Problem> {
    let (shard, deed) = place(asked)?;
    match deed.as_str() {
        "takeover" => plan(asked, &shard).await,
        "lost-writes" => lost_writes(asked, &shard),
        _ => Err(unknown(asked)),
    }
}

/// A line of JSON for each lost write, as long as it takes: the ledgers are read while the answer is sent.
fn lost_writes(asked: &Asked<'_>, shard: &str) -> Result<Reply, Problem> {
    asked.query(&LOST_WRITES)?;
    controls::refuse_unknown(asked.headers(), LOST_WRITES.controls)?;
    let lines = asked.api.store.lost_writes(shard).map_err(problem)?;
    let body = Body::from_stream(lines.map(Ok::<_, Infallible>));
    Ok(Reply::new(StatusCode::OK).line("cache-control", "no-store").line("content-type", NDJSON).stream(body))
}

async fn plan(asked: &Asked<'_>, shard: &str) -> Result<Reply, Problem> {
    let params = asked.query(&PLAN)?;
    let deadline = asked.controls(&params, &PLAN)?.deadline;
    let plan = asked.in_time(deadline, asked.store().takeover_plan(shard, params.text("to")?)).await?;
    Ok(answer::json(&plan.map_err(problem)?))
}

/// POST: `takeover` and `switchover`.
pub(super) async fn act(asked: &Asked<'_>) -> Result<Reply, Problem> {
    let (shard, deed) = place(asked)?;
    match deed.as_str() {
        "takeover" => take_over(asked, &shard).await,
        "switchover" => switch_over(asked, &shard).await,
        _ => Err(unknown(asked)),
    }
}

async fn take_over(asked: &Asked<'_>, shard: &str) -> Result<Reply, Problem> {
    let params = asked.query(&TAKEOVER)?;
    let deadline = asked.controls(&params, &TAKEOVER)?.deadline;
    let (to, force) = (target(&params)?, is_forced(&params)?);
    let taken = asked.in_time(deadline, asked.api.store.take_over(shard, to, force)).await.map_err(late)?;
    Ok(answer::json(&taken.map_err(problem)?))
}

async fn switch_over(asked: &Asked<'_>, shard: &str) -> Result<Reply, Problem> {
    let params = asked.query(&SWITCHOVER)?;
    let deadline = asked.controls(&params, &SWITCHOVER)?.deadline;
    // The store keeps the deadline itself, but for the moment in which it cannot go back any more.
    let overtime = deadline + OVERTIME;
    let handed = asked.in_time(overtime, asked.api.store.switch_over(shard, target(&params)?, deadline)).await;
    Ok(answer::json(&handed.map_err(late)?.map_err(problem)?))
}

/// A hand-over that is under way when its time ends is at its end so soon.
const OVERTIME: std::time::Duration = std::time::Duration::from_secs(5);

/// The shard, and what is asked about it.
fn place(asked: &Asked<'_>) -> Result<(String, String), Problem> {
    let path = asked.parts.uri.path().strip_prefix(UNDER).unwrap_or_default();
    let (shard, deed) = path.rsplit_once('/').ok_or_else(|| unknown(asked))?;
    let bytes = params::decode(shard.as_bytes(), Plus::Plus)
        .map_err(|_| Problem::bad_request("in the path, % is not followed by two hex digits"))?;
    let shard = std::str::from_utf8(&bytes).map_err(|_| Problem::bad_request("the shard's name is not UTF-8"))?;
    Ok((shard.to_owned(), deed.to_owned()))
}

fn target(params: &Params) -> Result<&str, Problem> {
    named(params, "to", "the name or address of the node that is to lead, such as Hyderabad/1")
}

fn is_forced(params: &Params) -> Result<bool, Problem> {
    match params.text("force")? {
        None | Some("false") => Ok(false),
        Some("true" | "") => Ok(true),
        Some(other) => Err(Problem::bad_request(format!("force={} is not understood", other.escape_debug()))
            .hint("write force=true, or leave it away")),
    }
}

fn late(problem: Problem) -> Problem {
    problem.applied(Applied::Unknown).hint("it may still be done: kv status says who leads")
}

fn unknown(asked: &Asked<'_>) -> Problem {
    Problem::not_built(format_args!("{} {}", asked.parts.method, asked.parts.uri.path().escape_debug()))
}
