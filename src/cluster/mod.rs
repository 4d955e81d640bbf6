//! The cluster map: which shards exist, who holds them, who leads, in which epoch.
//!
//! It begins as what `sharding.toml` says, and from there follows what nodes have persisted (REPLICATION.md, rule 15):
//! facts merge by the highest epoch, and every peer message brings some. [`map::ClusterMap::leader_of`] is the one place
//! that decides who leads; today nothing raises an epoch, later a takeover or a consensus group will.

pub mod exchange;
pub mod map;

pub use map::ClusterMap;
