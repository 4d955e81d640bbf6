//! What a node shows of the cluster and of itself: the map, why a key is where it is, the state of its copies.

use super::answer;
use super::asked::Asked;
use super::controls;
use super::error::Problem;
use super::params::Accepts;
use super::reply::Reply;

const NOTHING: Accepts = Accepts { own: &[], controls: &[], not_built: &[] };
const EXPLAIN: Accepts = Accepts { own: &["key"], controls: controls::TIME, not_built: &[] };

/// `/v1/cluster`: the map as this node knows it.
pub(super) fn cluster(asked: &Asked<'_>) -> Result<Reply, Problem> {
    asked.query(&NOTHING)?;
    controls::refuse_unknown(asked.headers(), NOTHING.controls)?;
    Ok(answer::json_tagged(&asked.store().cluster(), asked.headers()))
}

/// `/v1/explain?key=K`: why the key is where it is, and what each copy holds of it.
pub(super) async fn explain(asked: &Asked<'_>) -> Result<Reply, Problem> {
    let params = asked.query(&EXPLAIN)?;
    let (key, controls) = (asked.key(&params)?, asked.controls(&params, &EXPLAIN)?);
    let explanation = asked.in_time(controls.deadline, asked.store().explain(&key, controls.deadline)).await?;
    Ok(answer::json(&explanation))
}

/// `/admin/v1/status`: this node's copies.
pub(super) async fn status(asked: &Asked<'_>) -> Result<Reply, Problem> {
    asked.query(&NOTHING)?;
    controls::refuse_unknown(asked.headers(), NOTHING.controls)?;
    let deadline = asked.began + asked.settings().request_timeout;
    Ok(answer::json(&asked.in_time(deadline, asked.store().status()).await?))
}
