//! Nodes tell each other what they know of the cluster: its uid (rule 1) and each shard's epoch (rule 15). Once a second,
//! a node asks every other, and tells it its own with the question; so a difference between two nodes is in both logs within
//! seconds, before a client meets it. A node that has just begun to lead asks at once.
//!
//! Promises travel along, and are nobody else's facts. But a node that has promised something learns here whether whoever
//! it promised it to has given up: then the promise is over.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;

use super::ballot::Promise;
use super::map::ClusterMap;
use crate::config::Node;
use crate::peer::message::{put_cluster, take_cluster};
use crate::peer::{Ask, CallError, Class, Kind, Local, Pool};
use crate::random::Random;
use crate::types::codec::{self, Malformed, Reader};
use crate::types::{ClusterUid, Epoch, NodeName, ShardIndex};

/// Between two rounds at most; jittered, so that nodes started together do not ask together.
const ROUND: Duration = Duration::from_secs(1);
/// The same while the cluster's uid is not known yet.
const ROUND_WITHOUT_UID: Duration = Duration::from_millis(200);
/// A node that has not answered in so long is down.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Most shards in an answer.
const SHARDS_MAX: usize = 1 << 16;

/// What a node knows of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The cluster's uid, once known.
    pub cluster: Option<ClusterUid>,
    /// The highest epoch known of each shard, where one is.
    pub epochs: Vec<(ShardIndex, Epoch)>,
    /// What it has promised.
    pub promised: Vec<(ShardIndex, Epoch)>,
    /// The highest number that it has met, of each shard.
    pub highest: Vec<(ShardIndex, u64)>,
}

impl Facts {
    /// This node's.
    #[must_use]
    pub fn of(map: &ClusterMap, local: &Local) -> Facts {
        let promised = map.promises().into_iter().map(|(shard, Promise { epoch, .. })| (shard, epoch)).collect();
        Facts { cluster: local.cluster(), epochs: map.epochs(), promised, highest: map.highest() }
    }

    /// The facts as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_cluster(&mut out, self.cluster);
        put_epochs(&mut out, &self.epochs);
        put_epochs(&mut out, &self.promised);
        codec::put_varint(&mut out, self.highest.len() as u64);
        for (shard, number) in &self.highest {
            codec::put_varint(&mut out, u64::from(shard.0));
            codec::put_varint(&mut out, *number);
        }
        out.freeze()
    }

    /// Reads facts.
    pub fn decode(bytes: Bytes) -> Result<Facts, Malformed> {
        let mut reader = Reader::new(bytes);
        let cluster = take_cluster(&mut reader)?;
        let epochs = take_epochs(&mut reader)?;
        let promised = take_epochs(&mut reader)?;
        let highest = reader.list(SHARDS_MAX, |reader| Ok((ShardIndex(reader.varint_u32()?), reader.varint()?)))?;
        Ok(Facts { cluster, epochs, promised, highest })
    }

    /// What it has promised of a shard, the lowest first.
    pub fn promised_of(&self, shard: ShardIndex) -> impl Iterator<Item = &Epoch> {
        self.promised.iter().filter(move |(about, _)| *about == shard).map(|(_, epoch)| epoch)
    }

    /// The highest number that it has met of a shard; 0: none.
    #[must_use]
    pub fn highest_of(&self, shard: ShardIndex) -> u64 {
        self.highest.iter().find(|(about, _)| *about == shard).map_or(0, |(_, number)| *number)
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

fn put_epochs(out: &mut BytesMut, epochs: &[(ShardIndex, Epoch)]) {
    codec::put_varint(out, epochs.len() as u64);
    for (shard, epoch) in epochs {
        codec::put_varint(out, u64::from(shard.0));
        epoch.encode(out);
    }
}

fn take_epochs(reader: &mut Reader) -> Result<Vec<(ShardIndex, Epoch)>, Malformed> {
    reader.list(SHARDS_MAX, |reader| Ok((ShardIndex(reader.varint_u32()?), Epoch::decode(reader)?)))
}

/// Takes what a node tells of itself with its question, and answers with this node's.
pub fn answer(map: &ClusterMap, local: &Local, told: Bytes) -> Result<Bytes, Malformed> {
    if !told.is_empty() {
        Facts::decode(told)?.merge_into(map, local);
    }
    Ok(Facts::of(map, local).encode())
}

/// Tells one node this node's facts, and takes over what it knows.
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
        body: Facts::of(map, local).encode(),
        answer_wait: wait,
        total_wait: wait,
    };
    let given = given_to(map, &node.name);
    let facts = Facts::decode(pool.ask(ask).await?)?;
    if let Some(cluster) = facts.cluster {
        local.meet(&node.name, Some(cluster)).map_err(CallError::Refused)?;
    }
    facts.merge_into(map, local);
    given_up(&given, &facts).for_each(|(shard, epoch)| {
        map.release(*shard, epoch);
    });
    Ok(facts)
}

/// What this node has promised to another, and may take back.
fn given_to(map: &ClusterMap, node: &NodeName) -> Vec<(ShardIndex, Epoch)> {
    let given = map.promises().into_iter().filter(|(_, promise)| !promise.is_yield && promise.epoch.leader == *node);
    given.map(|(shard, promise)| (shard, promise.epoch)).collect()
}

/// Promises that were given before a node was asked, and that it does not hold itself any more. It holds its own from before
/// it asks the first other node until it leads or has given up, and uses the number never again.
fn given_up<'g>(given: &'g [(ShardIndex, Epoch)], theirs: &Facts) -> impl Iterator<Item = &'g (ShardIndex, Epoch)> {
    given.iter().filter(|(shard, epoch)| !theirs.promised_of(*shard).any(|own| own == epoch))
}

/// Asks every other node, round after round, for as long as the node runs.
pub async fn run(pool: Arc<Pool>, map: Arc<ClusterMap>, local: Arc<Local>, random: Random) {
    let topology = Arc::clone(map.topology());
    loop {
        let others = topology.nodes().filter(|node| node.name != local.name);
        let began = map.ballot_of_uid_shard();
        // How each contact went is noted by the pool. News do not wait for a node that is silent: they begin a round of their own.
        let answers = tokio::select! {
            answers = join_all(others.map(|node| ask(&pool, &map, &local, node, ANSWER_WAIT))) => answers,
            () = map.announcements.notified() => continue,
        };
        map.set_uid_unknown_to_all(local.cluster().is_none() && nobody_knows_a_uid(&answers), &began);
        let round = if local.cluster().is_some() { ROUND } else { ROUND_WITHOUT_UID };
        tokio::select! {
            () = tokio::time::sleep(random.jitter(round, 0.7)) => {}
            () = map.announcements.notified() => {}
        }
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
    #[test]
    fn uid_is_drawn_only_when_every_other_node_has_said_that_it_knows_none() {
        let knows = |cluster: Option<u64>| Ok(Facts { cluster: cluster.map(ClusterUid), ..Facts::default() });
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
            let facts = Facts {
                cluster,
                epochs: vec![(ShardIndex(3), epoch.clone())],
                promised: vec![(ShardIndex(1), epoch.clone()), (ShardIndex(1), Epoch { number: 5, ..epoch.clone() })],
                highest: vec![(ShardIndex(3), 4), (ShardIndex(1), 5)],
            };
            assert_eq!(Facts::decode(facts.encode()), Ok(facts.clone()));
            assert_eq!((facts.promised_of(ShardIndex(1)).count(), facts.promised_of(ShardIndex(3)).count()), (2, 0));
            assert_eq!((facts.highest_of(ShardIndex(1)), facts.highest_of(ShardIndex(9))), (5, 0));
        }
    }

    /// What a node has promised, it takes back only when whoever holds the promise has said, after it was given, that it has
    /// given up.
    #[test]
    fn promise_is_given_up_when_its_holder_does_not_hold_it_itself() {
        let epoch = |number| Epoch { number, leader: NodeName::new("B/1") };
        let given = [(ShardIndex(0), epoch(2)), (ShardIndex(1), epoch(2))];
        let theirs = Facts { promised: vec![(ShardIndex(0), epoch(2)), (ShardIndex(1), epoch(3))], ..Facts::default() };
        let given_up: Vec<_> = given_up(&given, &theirs).collect();
        assert_eq!(given_up, [&(ShardIndex(1), epoch(2))]);
    }
}
