//! Who this node is to its peers, and whom it talks to (REPLICATION.md, rules 1, 13 and 16).

use std::sync::OnceLock;

use super::message::{Class, Hello, PROTOCOL_MAX, PROTOCOL_MIN, Refusal, RefusalCode, Welcome};
use crate::types::{ClusterUid, NodeName};

/// This node's side of every handshake.
#[derive(Debug)]
pub struct Local {
    /// This node's name.
    pub name: NodeName,
    /// Fingerprint of its placement.
    pub placement: u64,
    /// The placement in words, for the other side's message.
    pub placement_text: String,
    /// Fingerprint of its nodes' names and addresses.
    pub addresses: u64,
    /// The cluster's uid; set once, when it is drawn or when the first peer brings it.
    cluster: OnceLock<ClusterUid>,
}

impl Local {
    /// A node that knows its cluster only if its file says so.
    #[must_use]
    pub fn new(
        name: NodeName,
        placement: u64,
        placement_text: String,
        addresses: u64,
        cluster: Option<ClusterUid>,
    ) -> Local {
        Local { name, placement, placement_text, addresses, cluster: cluster.map(OnceLock::from).unwrap_or_default() }
    }

    /// The cluster's uid, once known.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterUid> {
        self.cluster.get().copied()
    }

    /// Takes `uid` for its own if it has none; returns the one that holds now.
    pub fn adopt(&self, uid: ClusterUid) -> ClusterUid {
        *self.cluster.get_or_init(|| uid)
    }

    /// What it says when it calls `to`.
    #[must_use]
    pub fn hello(&self, to: &NodeName, class: Class) -> Hello {
        Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            cluster: self.cluster(),
            placement: self.placement,
            placement_text: self.placement_text.clone(),
            addresses: self.addresses,
            from: self.name.clone(),
            to: to.clone(),
            class,
        }
    }

    /// Answers a caller: a welcome, or why not.
    pub fn answer(&self, hello: &Hello) -> Result<Welcome, Refusal> {
        let protocol = hello.protocol_max.min(PROTOCOL_MAX);
        if protocol < hello.protocol_min.max(PROTOCOL_MIN) {
            return Err(self.refuse(
                RefusalCode::Version,
                format!(
                    "node {} speaks peer protocol {PROTOCOL_MIN} to {PROTOCOL_MAX}, node {} speaks {} to {}: \
                     upgrade the older one",
                    self.name, hello.from, hello.protocol_min, hello.protocol_max
                ),
            ));
        }
        self.check_placement(hello)?;
        if hello.to != self.name {
            return Err(self.refuse(
                RefusalCode::WrongNode,
                format!(
                    "node {} expects {} at this address, but {} listens here: the two sharding.toml differ in names or \
                     addresses",
                    hello.from, hello.to, self.name
                ),
            ));
        }
        self.meet(&hello.from, hello.cluster)?;
        Ok(Welcome { protocol, cluster: self.cluster(), addresses: self.addresses, name: self.name.clone() })
    }

    /// Meets a node's cluster uid: adopts it when this node has none, refuses a different one.
    pub fn meet(&self, from: &NodeName, theirs: Option<ClusterUid>) -> Result<(), Refusal> {
        let Some(theirs) = theirs else { return Ok(()) };
        let ours = match self.cluster() {
            Some(ours) => ours,
            None => self.adopt(theirs),
        };
        if ours == theirs {
            return Ok(());
        }
        Err(self.refuse(
            RefusalCode::Stranger,
            format!(
                "node {from} belongs to cluster {theirs}, node {} to cluster {ours}: they hold different data; check \
                 which data directory each was started with",
                self.name
            ),
        ))
    }

    fn check_placement(&self, hello: &Hello) -> Result<(), Refusal> {
        if hello.placement == self.placement {
            return Ok(());
        }
        Err(self.refuse(
            RefusalCode::TopologyMismatch,
            format!(
                "nodes {} and {} disagree about the placement: {} has [{}], {} has [{}]; give both the same \
                 sharding.toml and restart the one that is wrong",
                self.name, hello.from, self.name, self.placement_text, hello.from, hello.placement_text
            ),
        ))
    }

    fn refuse(&self, code: RefusalCode, detail: String) -> Refusal {
        Refusal { code, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(name: &str, placement: u64, cluster: Option<u64>) -> Local {
        Local::new(NodeName::new(name), placement, format!("placement {placement}"), 0, cluster.map(ClusterUid))
    }

    fn call(from: &Local, to: &Local) -> Result<Welcome, RefusalCode> {
        to.answer(&from.hello(&to.name, Class::Request)).map_err(|refusal| refusal.code)
    }

    #[test]
    fn handshake_without_cluster_uid_adopts_the_first_it_meets() {
        let (a, b) = (local("A/0", 1, Some(9)), local("B/0", 1, None));
        assert_eq!(call(&a, &b).map(|welcome| welcome.cluster), Ok(Some(ClusterUid(9))));
        assert_eq!(b.cluster(), Some(ClusterUid(9)));
        assert_eq!(call(&local("C/0", 1, Some(8)), &b), Err(RefusalCode::Stranger));
        assert_eq!(b.cluster(), Some(ClusterUid(9)));
    }

    #[test]
    fn handshake_with_another_placement_is_refused_before_any_uid_is_adopted() {
        let (a, b) = (local("A/0", 1, Some(9)), local("B/0", 2, None));
        assert_eq!(call(&a, &b), Err(RefusalCode::TopologyMismatch));
        assert_eq!(b.cluster(), None);
    }

    #[test]
    fn handshake_meant_for_another_node_is_refused() {
        let (a, b) = (local("A/0", 1, None), local("B/0", 1, None));
        let hello = a.hello(&NodeName::new("C/0"), Class::Request);
        assert_eq!(b.answer(&hello).map_err(|refusal| refusal.code), Err(RefusalCode::WrongNode));
    }

    #[test]
    fn handshake_without_a_common_protocol_is_refused() {
        let (a, b) = (local("A/0", 1, None), local("B/0", 1, None));
        let newer = Hello { protocol_min: 8, protocol_max: 9, ..a.hello(&b.name, Class::Request) };
        assert_eq!(b.answer(&newer).map_err(|refusal| refusal.code), Err(RefusalCode::Version));
        let wider = Hello { protocol_min: 1, protocol_max: 9, ..newer };
        assert_eq!(b.answer(&wider).map(|welcome| welcome.protocol), Ok(1));
    }
}
