//! How the copies of a shard stay copies. One mode so far: [`pair`], a leader with pulling replicas, asynchronous. Later
//! modes (a Raft group, leaderless quorums) stand beside it; they share the log, the writer and the peer transport, and do
//! not share promises.

pub mod pair;
