//! `/livez` and `/readyz`: `200` or `503`, a line per check.

use std::fmt::Write;

use axum::http::StatusCode;

use super::answer;
use super::asked::Asked;
use super::controls::{self, bad, duration, is_number};
use super::error::Problem;
use super::params::{Accepts, Params};
use super::reply::Reply;
use crate::store::bounds::{Bound, Bounds};
use crate::store::view::{Check, Readiness, Verdict};

const LIVE: Accepts = Accepts { own: &[], controls: &[], not_built: &[] };
const READY: Accepts = Accepts { own: &["for", "max_lag", "max_at_risk"], controls: &[], not_built: &[] };

/// `/livez`: the process does its work.
pub(super) fn live(asked: &Asked<'_>) -> Result<Reply, Problem> {
    asked.query(&LIVE)?;
    controls::refuse_unknown(asked.headers(), LIVE.controls)?;
    Ok(render(&asked.store().liveness()))
}

/// `/readyz`: it can do its role; with `for=`, it can serve reads or take writes; with `max_lag=` and `max_at_risk=`, it is
/// not further behind, and not more of it is on one disk only.
pub(super) fn ready(asked: &Asked<'_>) -> Result<Reply, Problem> {
    let params = asked.query(&READY)?;
    controls::refuse_unknown(asked.headers(), READY.controls)?;
    let question = match params.text("for")? {
        None => Readiness::Role,
        Some("reads") => Readiness::Reads,
        Some("writes") => Readiness::Writes,
        Some(other) => {
            let other = other.escape_debug();
            return Err(Problem::bad_request(format!("for={other} is not understood")).hint("for is reads or writes"));
        }
    };
    let bounds = Bounds { max_lag: bound("max_lag", &params)?, max_at_risk: bound("max_at_risk", &params)? };
    let store = asked.store();
    Ok(render(&[store.readiness(question), store.within(bounds)].concat()))
}

/// A number of entries, `100`, or a time, `500ms` or `2s`.
fn bound(name: &str, params: &Params) -> Result<Option<Bound>, Problem> {
    let Some(text) = params.text(name)? else { return Ok(None) };
    let bound = if is_number(text) { text.parse().ok().map(Bound::Entries) } else { duration(text).map(Bound::Age) };
    let bound = bound.ok_or_else(|| bad(name, text, "a number of writes, as 100, or a time, as 500ms or 2s"));
    bound.map(Some)
}

fn render(checks: &[Check]) -> Reply {
    let mut lines = String::new();
    for Check { name, verdict, detail } in checks {
        let verdict = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "WARNING",
            Verdict::Failed => "FAILED",
        };
        writeln!(lines, "{verdict} {name}: {detail}").unwrap_or_else(|_| unreachable!("a String takes all"));
    }
    if checks.iter().all(|check| check.verdict.passes()) {
        return answer::text(StatusCode::OK, lines);
    }
    answer::text(StatusCode::SERVICE_UNAVAILABLE, lines).line("retry-after", "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_bounds_are_a_number_of_writes_or_a_time() {
        let read = |query: &str| {
            let params = Params::of_query(query, &READY).unwrap();
            bound("max_lag", &params).map_err(|problem| problem.status().as_u16())
        };
        let ms = std::time::Duration::from_millis;
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("max_lag=100"), Ok(Some(Bound::Entries(100))));
        assert_eq!(read("max_lag=0"), Ok(Some(Bound::Entries(0))));
        assert_eq!(read("max_lag=500ms"), Ok(Some(Bound::Age(ms(500)))));
        assert_eq!(read("max_lag=2s"), Ok(Some(Bound::Age(ms(2000)))));
        for bad in ["max_lag=", "max_lag=soon", "max_lag=-1", "max_lag=1.5s", "max_lag=99999999999999999999"] {
            assert_eq!(read(bad), Err(400), "{bad}");
        }
    }

    fn check(name: &str, verdict: Verdict) -> Check {
        Check { name: name.to_owned(), verdict, detail: "why".to_owned() }
    }

    #[test]
    fn health_one_failed_check_is_503_with_a_line_for_each() {
        let reply = render(&[check("role", Verdict::Ok), check("disk", Verdict::Failed)]);
        assert_eq!(reply.status(), 503);
        assert_eq!(reply.get("retry-after"), Some("1"));
        assert_eq!(reply.into_body(), "ok role: why\nFAILED disk: why\n");
    }

    #[test]
    fn health_well_or_with_a_warning_is_200() {
        let reply = render(&[check("role", Verdict::Ok), check("placement", Verdict::Warning)]);
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.into_body(), "ok role: why\nWARNING placement: why\n");
    }
}
