//! What the tests with real processes share: a cluster of `kv serve` processes, a raw HTTP client, and an FNV-1a of
//! their own.
//!
//! ```text
//! address::Block ── addresses nobody else uses, claimed for as long as a cluster lives
//!      │
//! cluster::Cluster ── sharding.toml, files, logs; start, stop, kill -9, SIGSTOP, restart, wipe ── process::Watchdog
//!      │
//! raw::Connection ── exact bytes out, parsed answers in          problem ── an error answer, checked as a whole
//! ```
//!
//! Nothing here uses the crate under test: what a test expects comes from the contract, not from the code.

#![allow(dead_code, unreachable_pub, reason = "every test crate uses a part of it")]

pub mod address;
pub mod cluster;
pub mod disk;
pub mod encode;
pub mod fnv;
pub mod problem;
pub mod process;
pub mod raw;
pub mod wait;

pub use cluster::{At, Cluster, Spec};
pub use raw::{Request, Response};
