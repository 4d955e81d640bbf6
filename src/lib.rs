//! Ostraca: a curl-simple sharded key-value store that tells you what it guarantees, shows what is at risk, and can prove
//! it.
//!
//! The modules stand in the order of their layers: a file imports only what is declared above its own module, and
//! `tests/tidy.rs` checks that. `ARCHITECTURE.md` is the page to read first.

pub mod types;
pub mod clock;
pub mod throttle;
pub mod random;
pub mod metrics;
pub mod placement;
pub mod config;
pub mod storage;
pub mod tasks;
pub mod peer;
pub mod cluster;
pub mod replication;
pub mod store;
pub mod api;
pub mod descriptors;
pub mod server;
pub mod cli;
