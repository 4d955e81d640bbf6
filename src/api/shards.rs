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

/// What is asked about a shard: the end of the path, behind its name.
pub(super) const TAKEOVER: &str = "/takeover";
pub(super) const SWITCHOVER: &str = "/switchover";
pub(super) const LOST_WRITES: &str = "/lost-writes";

/// The path under which shards stand.
const UNDER: &str = "/admin/v1/shards/";

/// One JSON document per line.
const NDJSON: &str = "application/x-ndjson";

const OF_LOST_WRITES: Accepts = Accepts { own: &[], controls: &[], not_built: &[] };
const OF_PLAN: Accepts = Accepts { own: &["to"], controls: controls::TIME, not_built: &[] };
const OF_TAKEOVER: Accepts = Accepts { own: &["to", "force"], controls: controls::TIME, not_built: &[] };
const OF_SWITCHOVER: Accepts = Accepts { own: &["to"], controls: controls::TIME, not_built: &[] };

/// A line of JSON for each lost write, as long as it takes: the ledgers are read while the answer is sent.
pub(super) fn lost_writes(asked: &Asked<'_>) -> Result<Reply, Problem> {
    let shard = shard(asked, LOST_WRITES)?;
    asked.query(&OF_LOST_WRITES)?;
    controls::refuse_unknown(asked.headers(), OF_LOST_WRITES.controls)?;
    let lines = asked.api.store.lost_writes(&shard).map_err(problem)?;
    let body = Body::from_stream(lines.map(Ok::<_, Infallible>));
    Ok(Reply::new(StatusCode::OK).line("cache-control", "no-store").line("content-type", NDJSON).stream(body))
}

/// What a takeover would come to.
pub(super) async fn plan(asked: &Asked<'_>) -> Result<Reply, Problem> {
    let shard = shard(asked, TAKEOVER)?;
    let params = asked.query(&OF_PLAN)?;
    let deadline = asked.controls(&params, &OF_PLAN)?.deadline;
    let plan = asked.in_time(deadline, asked.store().takeover_plan(&shard, params.text("to")?)).await?;
    Ok(answer::json(&plan.map_err(problem)?))
}

/// This node is to lead, for the leader is gone.
pub(super) async fn take_over(asked: &Asked<'_>) -> Result<Reply, Problem> {
    let shard = shard(asked, TAKEOVER)?;
    let params = asked.query(&OF_TAKEOVER)?;
    let deadline = asked.controls(&params, &OF_TAKEOVER)?.deadline;
    let (to, force) = (target(&params)?, is_forced(&params)?);
    let taken = asked.in_time(deadline, asked.api.store.take_over(&shard, to, force)).await.map_err(late)?;
    Ok(answer::json(&taken.map_err(problem)?))
}

/// This node, the leader, is to hand over.
pub(super) async fn switch_over(asked: &Asked<'_>) -> Result<Reply, Problem> {
    let shard = shard(asked, SWITCHOVER)?;
    let params = asked.query(&OF_SWITCHOVER)?;
    let deadline = asked.controls(&params, &OF_SWITCHOVER)?.deadline;
    // The store keeps the deadline itself, but for the moment in which it cannot go back any more.
    let overtime = deadline + OVERTIME;
    let handed = asked.in_time(overtime, asked.api.store.switch_over(&shard, target(&params)?, deadline)).await;
    Ok(answer::json(&handed.map_err(late)?.map_err(problem)?))
}

/// A hand-over that is under way when its time ends is at its end so soon.
const OVERTIME: std::time::Duration = std::time::Duration::from_secs(5);

/// The name of the shard that a path asks about, as it came; none: the path asks for something else.
pub(super) fn shard_of<'a>(path: &'a str, deed: &str) -> Option<&'a str> {
    path.strip_prefix(UNDER)?.strip_suffix(deed)
}

fn shard(asked: &Asked<'_>, deed: &str) -> Result<String, Problem> {
    let shard = shard_of(asked.parts.uri.path(), deed).unwrap_or_default();
    let bytes = params::decode(shard.as_bytes(), Plus::Plus)
        .map_err(|_| Problem::bad_request("in the path, % is not followed by two hex digits"))?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Problem::bad_request("the shard's name is not UTF-8"))
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
