//! Everything HTTP: what clients ask, how it is understood, and how it is answered (API.md, sections 1 to 4).
//!
//! ```text
//! listen ─ connections ─▶ axum ─▶ routes: one table ─▶ a handler ─▶ store ─▶ answer ─▶ watch: metrics and log
//!                                   │ framing, origin, method     └ error: problem+json, the only statuses of failures
//!                                   └ not built yet: 501
//! ```
//!
//! A handler is three sentences: understand the request (`params`, `controls`, `body`), make one call of the store,
//! render the answer (`answer`, `error`). Whatever can be refused is refused before the first byte of the body is
//! read, so that a client that waits for `100 Continue` gets the refusal instead.
//!
//! Routes match the path as it came, byte for byte; keys are decoded once and never normalised.

use std::sync::Arc;

use axum::Router;
use tokio::sync::Semaphore;

use crate::config::Topology;
use crate::metrics::{Labels, Metrics};
use crate::store::{Store, look};
use crate::throttle::Throttle;

mod admin;
mod answer;
mod asked;
mod body;
mod controls;
mod curl;
mod error;
mod framing;
mod gather;
mod health;
mod kv;
pub mod listen;
mod monitor;
mod operate;
mod origin;
mod params;
mod routes;
mod shards;
mod slots;
mod stall;
mod watch;
#[cfg(test)]
mod tests;

/// What all requests of a node share.
#[derive(Debug)]
struct Api {
    store: Arc<Store>,
    /// Bytes of request bodies that may still be held in memory (`limits.body_bytes_in_flight_max`).
    body_budget: Arc<Semaphore>,
    /// Bytes of request bodies that may be held in all.
    body_bytes_max: usize,
    /// Bounds the lines about failed requests in the log.
    lines: Throttle,
}

impl Api {
    fn metrics(&self) -> &Metrics {
        self.store.metrics()
    }
}

/// The values of the metrics' labels at a node of this map.
#[must_use]
pub fn labels(topology: &Topology) -> Labels {
    Labels {
        routes: routes::names().collect(),
        methods: watch::METHODS.to_vec(),
        outcomes: watch::outcomes().collect(),
        ..look::labels(topology)
    }
}

/// The documented routes over `store`, with an answer for everything else too. More routes can be added to the router;
/// they bypass the table and its checks.
pub fn router(store: Arc<Store>) -> Router {
    let body_bytes_max = store.settings().body_bytes_in_flight_max.min(Semaphore::MAX_PERMITS);
    let body_budget = Arc::new(Semaphore::new(body_bytes_max));
    let api = Arc::new(Api { store, body_budget, body_bytes_max, lines: Throttle::new(watch::LINES_PER_SECOND) });
    Router::new().fallback(move |request| {
        let api = Arc::clone(&api);
        async move { routes::respond(&api, request).await }
    })
}
