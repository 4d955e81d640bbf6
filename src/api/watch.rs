//! A request as its operator sees it: counted and timed under its route, method and outcome, and written to the log.
//!
//! | what became of it | level |
//! |---|---|
//! | served, or refused for a reason of the client's | debug |
//! | it took longer than [`SLOW`] | info |
//! | the node, or one that it depends on, failed | warn; error when the store or the program did |
//!
//! A line names the route, never the key: what clients store is not for the log. So the details of refusals, which may
//! quote the request, go to the client only.

use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use tracing::{debug, error, info, warn};

use super::Api;
use super::asked::Asked;
use super::error::{Kind, Problem};
use super::reply::Reply;
use crate::clock::millis;
use crate::types::RequestId;

/// A request that takes longer is worth a line.
const SLOW: Duration = Duration::from_secs(1);
/// Lines about failed or slow requests in a second; beyond it the next line says how many were left out.
pub(super) const LINES_PER_SECOND: u32 = 10;

/// The methods of the metrics' label, in its order.
pub(super) const METHODS: [&str; 6] = ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"];

/// What becomes of a request, beside the codes of problems, in the order of the metrics' label.
const OWN_OUTCOMES: [&str; 3] = ["ok", "not-ready", "abandoned"];
const OK: usize = 0;
/// `/readyz` and `/livez` said no.
const NOT_READY: usize = 1;
/// The client left before there was an answer.
const ABANDONED: usize = 2;

/// What becomes of a request, by its names in the metrics.
pub(super) fn outcomes() -> impl Iterator<Item = &'static str> {
    OWN_OUTCOMES.into_iter().chain(Kind::codes())
}

/// A request that is being served. When it is dropped, the request is counted.
pub(super) struct Watch<'a> {
    api: &'a Api,
    id: RequestId,
    began: Instant,
    route: usize,
    route_name: &'static str,
    method: &'a Method,
    outcome: usize,
    /// How long it took, once its answer is known.
    took: Option<Duration>,
}

impl<'a> Watch<'a> {
    /// Begins to watch; `route` is its place in the table of routes and its name.
    pub(super) fn begin(asked: &Asked<'a>, (route, route_name): (usize, &'static str)) -> Watch<'a> {
        asked.api.metrics().http.in_flight.inc();
        let Asked { api, parts, id, began, .. } = *asked;
        Watch { api, id, began, route, route_name, method: &parts.method, outcome: ABANDONED, took: None }
    }

    /// Its answer is known.
    pub(super) fn end(mut self, answer: &Result<Reply, Problem>) {
        let took = self.took();
        self.took = Some(took);
        match answer {
            Ok(reply) => {
                let is_ok = reply.status() < StatusCode::BAD_REQUEST;
                self.outcome = if is_ok { OK } else { NOT_READY };
                self.log_answer(reply, took);
            }
            Err(problem) => {
                self.outcome = OWN_OUTCOMES.len().saturating_add(problem.index());
                self.log_problem(problem, took);
            }
        }
    }

    fn took(&self) -> Duration {
        self.api.store.clock().now().saturating_duration_since(self.began)
    }

    /// Whether another line may be written, and how many were left out before it.
    fn admit(&self, took: Duration) -> Option<u64> {
        self.api.lines.admit(self.began + took)
    }

    /// The fields of a line that is not written are not looked for.
    fn log_answer(&self, reply: &Reply, took: Duration) {
        let Watch { id: request, route_name: route, method, .. } = self;
        let shard = || reply.get("kv-shard");
        let (status, took_ms) = (reply.status().as_u16(), millis(took));
        match (took > SLOW).then(|| self.admit(took)).flatten() {
            Some(left_out) => {
                info!(%request, %method, route, status, shard = shard(), took_ms, left_out, "slow request")
            }
            None => debug!(%request, %method, route, status, shard = shard(), took_ms, "request"),
        }
    }

    fn log_problem(&self, problem: &Problem, took: Duration) {
        let Watch { id: request, route_name: route, method, .. } = self;
        let (status, code, applied) = (problem.status().as_u16(), problem.code(), problem.applied_name());
        let (shard, detail, took_ms) = (problem.shard(), problem.detail(), millis(took));
        let worth_a_line = (problem.is_server_fault() || took > SLOW).then(|| self.admit(took)).flatten();
        match worth_a_line {
            None => debug!(%request, %method, route, status, code, shard, applied, took_ms, "request refused"),
            Some(left_out) if problem.is_ours() => {
                error!(%request, %method, route, status, code, shard, applied, took_ms, left_out, detail, "request failed");
            }
            Some(left_out) if problem.is_server_fault() => {
                warn!(%request, %method, route, status, code, shard, applied, took_ms, left_out, detail, "request failed");
            }
            Some(left_out) => {
                info!(%request, %method, route, status, code, shard, applied, took_ms, left_out, "slow request");
            }
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let http = &self.api.metrics().http;
        let method = METHODS.iter().position(|method| *method == self.method.as_str()).unwrap_or(METHODS.len());
        http.requests.inc([self.route, method, self.outcome]);
        http.durations.time([self.route, self.outcome], self.took.unwrap_or_else(|| self.took()));
        http.in_flight.dec();
        if self.outcome == ABANDONED {
            debug!(request = %self.id, method = %self.method, route = self.route_name, "the client left before its answer");
        }
    }
}
