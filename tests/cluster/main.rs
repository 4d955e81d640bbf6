//! Stories with real processes: a cluster of `kv serve`, killed, stopped, wiped and misconfigured, and asked afterwards.
//!
//! One story per file; its head says what is promised. Nothing here asserts speed that a busy machine could break: waits
//! are polls with generous bounds. `OSTRACA_TEST_ROUNDS=200 cargo test --test cluster storm` makes the loops long.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and waits in real time"
)]

#[path = "../support/mod.rs"]
mod support;

mod acks;
mod at_risk;
mod compact;
mod compared;
mod copies;
mod crowds;
mod damage;
mod disk;
mod drift;
mod empty_disk;
mod everywhere;
mod files;
mod fresh;
mod frozen;
mod grows;
mod interrupted;
mod leader_away;
mod leaving;
mod led;
mod lost_leader;
mod observed;
mod outcome;
mod prefix;
mod queue_bound;
mod reset;
mod restart;
mod returning;
mod sessions;
mod size;
mod snapshots;
mod status;
mod stale;
mod stopped_leader;
mod stopping;
mod storm;
mod strangers;
mod switchover;
mod takeover;
mod versions;
