//! Stories of several nodes in one process: the nodes that serve, on disks and a network in memory, so that a test can
//! hold them at a place where a real process cannot be held: between a commit and its announcement, between two chunks of
//! a snapshot, in the middle of a frame.
//!
//! One topic per file; a story of a bug tells it in its head. Waits are polls with generous bounds.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod cluster;
mod disk;
mod net;

mod acks;
mod catching_up;
mod failed_commits;
mod handing_over;
mod lost_leader;
mod outcomes;
mod sessions;
mod snapshots;
mod returning;
mod taking_over;
