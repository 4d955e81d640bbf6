//! What an operator asks of a node over HTTP (`kv replica reset`, `kv shard checksum`). Each is served by the node that it
//! concerns, and by no other: `421` names whom to ask.

use super::answer;
use super::asked::Asked;
use super::controls;
use super::error::{Kind, Problem};
use super::kv::from_base64url;
use super::params::{Accepts, Params};
use super::reply::Reply;
use crate::storage::checksum::{RANGE_RECORDS_MAX, Range};
use crate::store::operate::Refused;
use crate::store::{Applied, Code};
use crate::types::Key;
use crate::types::key::KEY_BYTES_CEILING;

const RESET: Accepts = Accepts { own: &["node"], controls: &[], not_built: &[] };
const CHECKSUM: Accepts = Accepts { own: &["shard", "after_b64", "until_b64", "limit"], controls: &[], not_built: &[] };

/// `POST /admin/v1/replica/reset?node=NAME`: throws this replica's copy away.
pub(super) async fn reset_replica(asked: &Asked<'_>) -> Result<Reply, Problem> {
    let params = asked.query(&RESET)?;
    controls::refuse_unknown(asked.headers(), RESET.controls)?;
    let node = named(&params, "node", "the name of the node, such as Hyderabad/1")?;
    let deadline = asked.began + asked.settings().request_timeout;
    let discarded = asked.api.store.reset_replica(node, deadline).await.map_err(|refused| {
        let applied = if matches!(refused, Refused::Failed(_)) { Applied::Unknown } else { Applied::No };
        problem(refused).applied(applied)
    })?;
    Ok(answer::json(&discarded))
}

/// `/admin/v1/checksum?shard=S&after_b64=&until_b64=&limit=`: a checksum of a range of this node's copy.
pub(super) async fn checksum(asked: &Asked<'_>) -> Result<Reply, Problem> {
    let params = asked.query(&CHECKSUM)?;
    controls::refuse_unknown(asked.headers(), CHECKSUM.controls)?;
    let shard = named(&params, "shard", "the name of the shard, such as Hyderabad")?;
    let (after, until) = (key(&params, "after_b64")?, key(&params, "until_b64")?);
    let range = Range { after, until, records_max: limit(params.text("limit")?)? };
    let deadline = asked.began + asked.settings().request_timeout;
    let sum = asked.in_time(deadline, asked.store().checksum(shard, range)).await?;
    Ok(answer::json(&sum.map_err(problem)?))
}

fn named<'p>(params: &'p Params, name: &str, what: &str) -> Result<&'p str, Problem> {
    let found = params.text(name)?.filter(|text| !text.is_empty());
    found.ok_or_else(|| Problem::bad_request(format!("{name} is missing")).hint(format!("{name}= is {what}")))
}

fn key(params: &Params, name: &str) -> Result<Option<Key>, Problem> {
    let Some(encoded) = params.get(name) else { return Ok(None) };
    Key::new(from_base64url(name, encoded)?, KEY_BYTES_CEILING).map(Some).map_err(Problem::key)
}

fn limit(text: Option<&str>) -> Result<Option<usize>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let limit = text.parse().ok().filter(|limit| (1..=RANGE_RECORDS_MAX).contains(limit));
    limit.map(Some).ok_or_else(|| {
        Problem::bad_request(format!("limit={} is not understood", text.escape_debug()))
            .hint(format!("limit is a number of records, 1 to {RANGE_RECORDS_MAX}"))
    })
}

fn problem(refused: Refused) -> Problem {
    match refused {
        Refused::Unknown { detail, hint } => Problem::bad_request(detail).hint(hint),
        Refused::Elsewhere { detail, address } => {
            Problem::new(Kind::WrongNode, detail).hint(format!("send this to {address}")).extra("address", address)
        }
        Refused::Conflict(detail) => Problem::new(Kind::OperationConflict, detail),
        Refused::Failed(detail) => Problem::new(Kind::Store(Code::StorageFailed), detail),
    }
}
