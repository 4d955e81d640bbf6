//! Everything HTTP: what clients ask, how it is understood, and how it is answered (API.md, sections 1 to 4).
//!
//! ```text
//! listen ─ connections ─▶ axum ─▶ routes: one table ─▶ a handler ─▶ store ─▶ answer
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

use crate::store::Store;

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
mod origin;
mod params;
mod routes;
mod slots;
mod stall;
#[cfg(test)]
mod tests;

/// What all requests of a node share.
#[derive(Debug)]
struct Api {
    store: Arc<Store>,
    /// Bytes of request bodies that may still be held in memory (`limits.body_bytes_in_flight_max`).
    body_budget: Arc<Semaphore>,
}

/// The documented routes over `store`, with an answer for everything else too. More routes can be added to the router;
/// they bypass the table and its checks.
pub fn router(store: Arc<Store>) -> Router {
    let budget = store.settings().body_bytes_in_flight_max.min(Semaphore::MAX_PERMITS);
    let api = Arc::new(Api { store, body_budget: Arc::new(Semaphore::new(budget)) });
    Router::new().fallback(move |request| {
        let api = Arc::clone(&api);
        async move { routes::respond(&api, request).await }
    })
}
