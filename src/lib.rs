//! Ostraca: a curl-simple sharded key-value store that tells you what it guarantees, shows what is at risk, and can prove
//! it.
//!
//! The modules stand in the order of their layers: a file imports only what is declared above its own module, and
//! `tests/tidy.rs` checks that. `ARCHITECTURE.md` is the page to read first.

pub mod cli;
pub mod clock;
pub mod config;
pub mod placement;
pub mod server;
pub mod storage;
pub mod store;
pub mod types;
