//! The words of the store, as types: what a key, a record, an entry, a seq, an epoch and a cursor are, and how each is
//! written to bytes. Pure: no clock, no disk, no network.
//!
//! One hand-written codec ([`codec`]) serves the disk and the wire, so an entry goes from the leader's log to a
//! replica's log as the very bytes that were checksummed when it was made.

pub mod codec;
pub mod entry;
pub mod history;
pub mod ids;
pub mod key;
pub mod record;
pub mod seq;
pub mod session;

pub use codec::Malformed;
pub use entry::{Change, Entry, Mutation, Space};
pub use history::{History, HistoryRow, Standing};
pub use ids::{ClusterUid, Incarnation, NodeName, RequestId, ShardIndex, ShardUid};
pub use key::{Key, KeyFault};
pub use record::{Content, Record};
pub use seq::{Cursor, Epoch, Seq, UnixMs, Version};
pub use session::Token;
