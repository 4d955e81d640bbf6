//! The values that labels may have. All are known when the node starts, which bounds the number of series.

use crate::types::{NodeName, ShardIndex};

/// A value for everything that is in no list.
pub const OTHER: &str = "other";

/// Declares a closed set of label values that the metrics themselves name.
macro_rules! values {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            pub(super) const NAMES: &'static [&'static str] = &[$($text,)*];

            /// Its place among the label's values.
            #[must_use]
            pub fn index(self) -> usize {
                self as usize
            }
        }
    };
}

values!(
    /// How a poll was answered.
    Polled {
        /// With entries.
        Entries = "entries",
        /// The replica has everything.
        Nothing = "nothing",
        /// The log does not reach back: a snapshot is needed.
        Snapshot = "snapshot",
        /// The leader has lost data that the replica holds.
        LostData = "lost-data",
        /// The replica's history left the leader's.
        OffHistory = "off-history",
        /// The asked node does not lead.
        NotLeading = "not-leading",
        /// The asked node knows no such replica.
        NotOurs = "not-ours",
        /// There was no answer.
        Failed = "failed",
    }
);

values!(
    /// How giving or receiving a snapshot went on.
    SnapshotStep {
        /// It began.
        Begun = "begun",
        /// It was received to its end.
        Completed = "completed",
        /// It broke off, or was not given.
        Failed = "failed",
    }
);

values!(
    /// How a commit ended.
    Committed {
        /// It is durable.
        Ok = "ok",
        /// Its outcome is unknown, and the store takes nothing more.
        Failed = "failed",
    }
);

/// The label values of one node, fixed for its life. What is not in a list counts as [`OTHER`].
#[derive(Debug, Clone, Default)]
pub struct Labels {
    /// The shards of the map, by index.
    pub shards: Vec<String>,
    /// The nodes of the map.
    pub nodes: Vec<NodeName>,
    /// The routes of the HTTP table.
    pub routes: Vec<&'static str>,
    /// The methods of those routes.
    pub methods: Vec<&'static str>,
    /// What becomes of an HTTP request: `ok`, or a problem's code.
    pub outcomes: Vec<&'static str>,
    /// What becomes of a forwarded request: `ok`, or an error's code.
    pub codes: Vec<&'static str>,
    /// The kinds of peers' requests.
    pub kinds: Vec<&'static str>,
    /// Why peers are refused.
    pub refusals: Vec<&'static str>,
}

/// The place of a shard among the label's values.
#[must_use]
pub fn shard(index: ShardIndex) -> usize {
    index.0 as usize
}
