//! Everything HTTP: what clients ask, how it is understood, and how it is answered (API.md, sections 1 to 4).
//!
//! ```text
//! listen ─ connections ─┬ plain ─▶ routes: one table ─▶ a handler ─▶ store ─▶ answer ─▶ watch: metrics and log
//!                        └ hyper ─▶ │ framing, origin, method     └ error: problem+json, the only statuses of failures
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
use axum::extract::Request;
use axum::routing::MethodRouter;
use tokio::sync::Semaphore;

use crate::config::Topology;
use crate::metrics::{Labels, Metrics};
use crate::store::{Store, look};
use crate::throttle::Throttle;

mod ack;
mod admin;
mod ahead;
mod alarm;
mod answer;
mod asked;
mod body;
mod controls;
mod curl;
mod error;
mod framing;
mod head;
mod health;
mod kv;
pub mod listen;
mod monitor;
mod operate;
mod origin;
mod params;
mod plain;
mod reply;
mod routes;
mod shards;
mod session;
mod slots;
mod stall;
mod watch;
mod wire;
#[cfg(test)]
mod tests;

use alarm::Alarm;
use body::Upload;

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

/// What is served at a node's address: the documented routes, and others beside them.
#[derive(Debug, Clone)]
pub struct Service {
    api: Arc<Api>,
    /// Everything, for requests that are not plain.
    router: Router,
}

impl Service {
    /// The documented routes over `store`, with an answer for everything else too.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Service {
        let body_bytes_max = store.settings().body_bytes_in_flight_max.min(Semaphore::MAX_PERMITS);
        let body_budget = Arc::new(Semaphore::new(body_bytes_max));
        let api = Arc::new(Api { store, body_budget, body_bytes_max, lines: Throttle::new(watch::LINES_PER_SECOND) });
        let router = Router::new().fallback({
            let api = Arc::clone(&api);
            move |request: Request| {
                let api = Arc::clone(&api);
                async move {
                    let (parts, body) = request.into_parts();
                    let upload = Upload::stream(body, &api.body_budget);
                    let found = routes::find(parts.uri.path());
                    wire::for_hyper(routes::respond(&api, found, &parts, upload, &mut Alarm::default()).await)
                }
            }
        });
        Service { api, router }
    }

    /// Adds a route that the table does not have. It bypasses the table's checks, and hyper alone serves it.
    #[must_use]
    pub fn route(self, path: &'static str, method_router: MethodRouter) -> Service {
        assert!(routes::find(path).is_none(), "{path} is in the table");
        Service { router: self.router.route(path, method_router), ..self }
    }
}
