//! Who is who: shards, nodes, and the random numbers that tell one life of a thing from another (REPLICATION.md,
//! rules 1 to 3).

use std::fmt;
use std::sync::Arc;

/// A shard's index in the cluster map, 0-based; what the placement yields for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ShardIndex(pub u32);

impl fmt::Display for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A node's name, which is not its address: `Hyderabad/0` for a shard's leader in the file, `Hyderabad/1` and on for its
/// replicas, or what `name =` says. Cheap to clone. Names are ordered by their bytes, which decides between two epochs
/// of one number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// Takes the name as it is; the configuration checks what names may hold.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> NodeName {
        NodeName(name.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Declares a random 64-bit identity, shown as 16 hex digits.
macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }
    };
}

random_id!(
    /// Names one cluster for ever; drawn by the leader of shard index 0 (rule 1).
    ClusterUid
);
random_id!(
    /// Names one shard's data for ever; drawn by its first leader with its first file (rule 1).
    ShardUid
);
random_id!(
    /// Drawn by a leader at each opening of its file (rule 3): tells the entries of one life from those of another.
    Incarnation
);
random_id!(
    /// Names one request in the logs of every node that worked on it.
    RequestId
);
