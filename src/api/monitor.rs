//! `/metrics`: what the node counts, and what a look at it shows, as OpenMetrics text.

use super::answer;
use super::asked::Asked;
use super::controls;
use super::error::Problem;
use super::params::Accepts;
use super::reply::Reply;
use crate::metrics::{MEDIA_TYPE, Scrape};

const NOTHING: Accepts = Accepts { own: &[], controls: &[], not_built: &[] };

/// `/metrics`.
pub(super) async fn metrics(asked: &Asked<'_>) -> Result<Reply, Problem> {
    asked.query(&NOTHING)?;
    controls::refuse_unknown(asked.headers(), NOTHING.controls)?;
    let deadline = asked.began + asked.settings().request_timeout;
    let look = asked.in_time(deadline, asked.store().look()).await?;
    let body_bytes_max = asked.api.body_bytes_max;
    let body_bytes = body_bytes_max.saturating_sub(asked.api.body_budget.available_permits());
    let look = Scrape { body_bytes: body_bytes as u64, body_bytes_max: body_bytes_max as u64, ..look };
    Ok(answer::document(MEDIA_TYPE, asked.api.metrics().render(look)))
}
