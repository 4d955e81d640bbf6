//! Nodes tell each other what they know of the cluster: its uid (rule 1) and each shard's epoch (rule 15). Once a second,
//! a node asks every other; so a difference between two nodes is in both logs within seconds, before a client meets it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;

use super::map::ClusterMap;
use crate::config::Node;
use crate::peer::message::{put_cluster, take_cluster};
use crate::peer::{Ask, CallError, Class, Kind, Local, Pool};
use crate::random::Random;
use crate::types::codec::{self, Malformed, Reader};
use crate::types::{ClusterUid, Epoch, ShardIndex};

/// Between two rounds at most; jittered, so that nodes started together do not ask together.
const ROUND: Duration = Duration::from_secs(1);
/// The same while the cluster's uid is not known yet.
const ROUND_WITHOUT_UID: Duration = Duration::from_millis(200);
/// A node that has not answered in so long is down.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Most shards in an answer.
const SHARDS_MAX: usize = 1 << 16;

/// What a node knows of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The cluster's uid, once known.
    pub cluster: Option<ClusterUid>,
    /// The highest epoch known of each shard.
    pub epochs: Vec<(ShardIndex, Epoch)>,
}

impl Facts {
    /// This node's.
    #[must_use]
    pub fn of(map: &ClusterMap, local: &Local) -> Facts {
        Facts { cluster: local.cluster(), epochs: map.epochs() }
    }

    /// The facts as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_cluster(&mut out, self.cluster);
        codec::put_varint(&mut out, self.epochs.len() as u64);
        for (shard, epoch) in &self.epochs {
            codec::put_varint(&mut out, u64::from(shard.0));
            epoch.encode(&mut out);
        }
        out.freeze()
    }

    /// Reads facts.
    pub fn decode(bytes: Bytes) -> Result<Facts, Malformed> {
        let mut reader = Reader::new(bytes);
        let cluster = take_cluster(&mut reader)?;
        let epochs =
            reader.list(SHARDS_MAX, |reader| Ok((ShardIndex(reader.varint_u32()?), Epoch::decode(reader)?)))?;
        Ok(Facts { cluster, epochs })
    }

    /// Merges them into what this node knows. A foreign uid was refused before it came this far.
    pub fn merge_into(&self, map: &ClusterMap, local: &Local) {
        if let Some(cluster) = self.cluster {
            local.adopt(cluster);
        }
        for (shard, epoch) in &self.epochs {
            map.merge(*shard, epoch);
        }
    }
}

/// Asks one node for its facts, and takes them over.
pub async fn ask(
    pool: &Pool,
    map: &ClusterMap,
    local: &Local,
    node: &Node,
    wait: Duration,
) -> Result<Facts, CallError> {
    let ask = Ask {
        node,
        class: Class::Request,
        kind: Kind::Facts,
        shard: node.shard,
        epoch: map.epoch_of(node.shard),
        request_id: pool.new_request_id(),
        body: Bytes::new(),
        answer_wait: wait,
        total_wait: wait,
    };
    let facts = Facts::decode(pool.ask(ask).await?)?;
    if let Some(cluster) = facts.cluster {
        local.meet(&node.name, Some(cluster)).map_err(CallError::Refused)?;
    }
    facts.merge_into(map, local);
    Ok(facts)
}

/// Asks every other node, round after round, for as long as the node runs.
pub async fn run(pool: Arc<Pool>, map: Arc<ClusterMap>, local: Arc<Local>, random: Random) {
    let topology = Arc::clone(map.topology());
    loop {
        let others = topology.nodes().filter(|node| node.name != local.name);
        // How each contact went is noted by the pool.
        let answers = join_all(others.map(|node| ask(&pool, &map, &local, node, ANSWER_WAIT))).await;
        map.set_uid_unknown_to_all(local.cluster().is_none() && nobody_knows_a_uid(&answers));
        let round = if local.cluster().is_some() { ROUND } else { ROUND_WITHOUT_UID };
        tokio::time::sleep(random.jitter(round, 0.7)).await;
    }
}

/// Whether every other node has answered, and knows no uid. A silent one may know it: a leader that lost its disk while
/// the others were away would make itself a stranger to its own cluster, and strangers stop nobody (rule 13). Until a uid
/// is drawn, the cluster does without: nodes are accepted on their placement.
fn nobody_knows_a_uid(answers: &[Result<Facts, CallError>]) -> bool {
    answers.iter().all(|answer| matches!(answer, Ok(Facts { cluster: None, .. })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeName;

    #[test]
    fn uid_is_drawn_only_when_every_other_node_has_said_that_it_knows_none() {
        let knows = |cluster: Option<u64>| Ok(Facts { cluster: cluster.map(ClusterUid), epochs: vec![] });
        let silent = || Err(CallError::NotSent("away".into()));
        assert!(nobody_knows_a_uid(&[]), "a node alone");
        assert!(nobody_knows_a_uid(&[knows(None), knows(None)]));
        assert!(!nobody_knows_a_uid(&[knows(None), silent()]), "a silent node may know it");
        assert!(!nobody_knows_a_uid(&[knows(None), knows(Some(7))]));
    }

    #[test]
    fn facts_come_back_from_their_bytes() {
        let epoch = Epoch { number: 4, leader: NodeName::new("B/1") };
        for cluster in [None, Some(ClusterUid(7))] {
            let facts = Facts { cluster, epochs: vec![(ShardIndex(3), epoch.clone())] };
            assert_eq!(Facts::decode(facts.encode()), Ok(facts));
        }
    }
}
