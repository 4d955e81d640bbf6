//! `sharding.toml`, the same file on every node: read → parse → validate → an immutable [`Topology`] and [`Settings`].
//!
//! A faulty file is refused with every fault at once, each with its line and its remedy.

pub mod topology;

pub use topology::{Node, Settings, Shard, StartAlone, Topology};
