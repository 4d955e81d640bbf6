//! Node to node: a small binary protocol on the node's one address, begun by an HTTP `Upgrade` (so one address, one
//! firewall rule, and later one TLS set-up).
//!
//! ```text
//!   pool ── connection per (node, class) ──▶ GET /v1/peer, Upgrade ──▶ server ──▶ Service::handle
//!            Hello ─▶ ◀─ Welcome | Refuse          Request(id) ─▶ ◀─ Response(id), in any order
//! ```
//!
//! This layer carries bytes and knows no operation: what a [`Kind`] means is known to whoever sends and serves it. It
//! does know who may talk: nodes of one placement and one cluster (REPLICATION.md, rules 1, 13 and 16).
//!
//! - Requests of one connection run side by side; small requests, replication and bulk have connections of their own, so
//!   that a 16 MiB frame does not hold up a poll.
//! - A caller always learns whether its request may have happened ([`CallError::may_have_happened`]): this layer never
//!   sends anything twice once a byte of it has left (rule 22).

mod calls;
pub mod client;
pub mod connection;
pub mod contacts;
pub mod frame;
pub mod local;
pub mod message;
pub mod pool;
pub mod server;

#[cfg(test)]
mod tests;

pub use client::CallError;
pub use contacts::{Contact, Contacts};
pub use local::Local;
pub use message::{Class, Envelope, Kind, Refusal, RefusalCode, Request, Status};
pub use pool::{Ask, Pool};
pub use server::{Met, Reply, Service};
