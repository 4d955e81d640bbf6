//! The HTTP contract, line by line, as raw bytes against real processes: what API.md says is asserted here, and what it
//! leaves open is not.
//!
//! Most tests share one cluster of two shards with a replica each, and keep out of each other's way by their keys. A test
//! that needs other settings, or stops nodes, has a cluster of its own.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and waits in real time"
)]

#[path = "../support/mod.rs"]
mod support;

mod controls;
mod cross_site;
mod delete;
mod expect;
mod fixture;
mod forms;
mod get;
mod headers;
mod keys;
mod kv;
mod limits;
mod methods;
mod not_built;
mod queue;
mod reads;
mod redirect;
mod robust;
mod set;
mod views;
mod wire;
