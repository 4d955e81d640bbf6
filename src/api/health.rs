//! `/livez` and `/readyz`: `200` or `503`, a line per check.

use std::fmt::Write;

use axum::http::StatusCode;

use super::answer;
use super::asked::Asked;
use super::controls;
use super::error::Problem;
use super::params::Accepts;
use super::reply::Reply;
use crate::store::view::{Check, Readiness, Verdict};

const LIVE: Accepts = Accepts { own: &[], controls: &[], not_built: &[] };
const READY: Accepts = Accepts { own: &["for"], controls: &[], not_built: &["max_lag", "max_at_risk"] };

/// `/livez`: the process does its work.
pub(super) fn live(asked: &Asked<'_>) -> Result<Reply, Problem> {
    asked.query(&LIVE)?;
    controls::refuse_unknown(asked.headers(), LIVE.controls)?;
    Ok(render(&asked.store().liveness()))
}

/// `/readyz`: it can do its role; with `for=`, it can serve reads or take writes.
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
    Ok(render(&asked.store().readiness(question)))
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
