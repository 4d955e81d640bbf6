//! The cluster map: which shards exist, who holds them, who leads, in which epoch.
//!
//! It begins as what `sharding.toml` says, and from there follows what nodes have persisted (REPLICATION.md, rule 15):
//! facts merge by the highest epoch, and every peer message brings some. [`map::ClusterMap::leader_of`] is the one place
//! that decides who leads; what raises an epoch is an operator's command, later a consensus group.
//!
//! ```text
//!   ballot  what is known and promised of one shard; pure        map     all shards; ends the writer's leave
//!   keeper  writes it down, in this node's file                  exchange  tells it, and takes what others tell
//!   canvass  asks for promises
//! ```

pub mod ballot;
pub mod canvass;
pub mod exchange;
pub mod keeper;
pub mod map;

pub use ballot::Ballot;
pub use keeper::Keeper;
pub use map::{Aside, ClusterMap, Part};
