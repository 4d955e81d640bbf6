//! What a node shows of the cluster and of itself: the map, why a key is where it is, the state of its copies.

use super::answer;
use super::asked::Asked;
use super::controls;
use super::error::Problem;
use super::kv::from_base64url;
use super::params::{Accepts, Params};
use super::reply::Reply;
use crate::types::{Key, Version};

const NOTHING: Accepts = Accepts { own: &[], controls: &[], not_built: &[] };
const RECEIPT: Accepts = Accepts { own: &["key", "key_b64", "version"], controls: controls::TIME, not_built: &[] };
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

/// `/v1/receipt?key=K&version=V`: whether the write of the key that was answered with this version survived.
pub(super) async fn receipt(asked: &Asked<'_>) -> Result<Reply, Problem> {
    let params = asked.query(&RECEIPT)?;
    let (key, controls) = (key(asked, &params)?, asked.controls(&params, &RECEIPT)?);
    let text = params.text("version")?.unwrap_or_default();
    let version = Version::parse(text).ok_or_else(|| {
        Problem::bad_request(format!("version={} is no version of this store", text.escape_debug()))
            .hint("it is the ETag of the write's answer, with its quotes or without")
    })?;
    let receipt = asked.in_time(controls.deadline, asked.store().receipt(&key, version, controls.deadline)).await?;
    Ok(answer::json(&receipt?))
}

/// `key`, or `key_b64`.
fn key(asked: &Asked<'_>, params: &Params) -> Result<Key, Problem> {
    match (params.get("key"), params.get("key_b64")) {
        (Some(_), Some(_)) => Err(Problem::bad_request("there is a key and a key_b64").hint("name the key once")),
        (_, Some(encoded)) => {
            Key::new(from_base64url("key_b64", encoded)?, asked.settings().key_bytes_max).map_err(Problem::key)
        }
        (_, None) => asked.key(params),
    }
}

/// `/admin/v1/status`: this node's copies.
pub(super) async fn status(asked: &Asked<'_>) -> Result<Reply, Problem> {
    asked.query(&NOTHING)?;
    controls::refuse_unknown(asked.headers(), NOTHING.controls)?;
    let deadline = asked.began + asked.settings().request_timeout;
    Ok(answer::json(&asked.in_time(deadline, asked.store().status()).await?))
}
