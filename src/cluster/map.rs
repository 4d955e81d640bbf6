//! The map, merged from the file, from what this node has persisted, and from what nodes say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use parking_lot::RwLock;
use tokio::sync::{Notify, watch};
use tracing::info;

use super::ballot::{Ballot, Promise, Refused};
use crate::config::{Node, Shard, Topology};
use crate::storage::writer::Mandate;
use crate::types::codec::{self, Malformed, Reader};
use crate::types::{Epoch, NodeName, ShardIndex};

/// The shard whose leader draws the cluster's uid.
const UID_SHARD: ShardIndex = ShardIndex(0);
/// How the bytes of [`ClusterMap::encode`] are laid out.
const FORMAT: u8 = 1;
/// Most shards in those bytes.
const SHARDS_MAX: usize = 1 << 16;

/// What this node knows of the cluster. Shared by all of its parts.
#[derive(Debug)]
pub struct ClusterMap {
    topology: Arc<Topology>,
    /// What is known of each shard, by index.
    standings: RwLock<Vec<Standing>>,
    /// Counts what was learnt or promised: whoever acts on it looks again.
    news: watch::Sender<u64>,
    /// This node has something to tell that should not wait for the next round of the exchange.
    pub announcements: Notify,
    /// In a round of the exchange that began after the last news of who leads shard 0, every other node answered and knew no
    /// cluster uid.
    uid_unknown_to_all: AtomicBool,
}

#[derive(Debug, Default)]
struct Standing {
    ballot: Ballot,
    /// The leave that this node's writer has; what ends it ends it under the same lock.
    mandate: Option<Mandate>,
}

/// What a node is to do for a shard of which it holds a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Lead, in this epoch.
    Lead(Epoch),
    /// Follow whoever leads.
    Follow,
    /// Neither: it would lead, and must not.
    StandAside(Aside),
}

/// Why a node that would lead must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aside {
    /// It has promised not to lead below this epoch.
    Promised(Epoch),
    /// It has handed the shard over to the leader of this epoch, which has not confirmed it yet.
    Yielded(Epoch),
    /// The file names no copy of the name that leads.
    LeaderUnknown(Epoch),
}

impl ClusterMap {
    /// The map of a file, of whose shards nothing is known yet.
    #[must_use]
    pub fn new(topology: Arc<Topology>) -> ClusterMap {
        let standings = topology.shards.iter().map(|_| Standing::default()).collect();
        ClusterMap {
            topology,
            standings: RwLock::new(standings),
            news: watch::Sender::new(0),
            announcements: Notify::new(),
            uid_unknown_to_all: AtomicBool::new(false),
        }
    }

    /// Takes over what this node had persisted, which wins over the file (rule 15). What it had promised itself has come to
    /// nothing: it has just started.
    pub fn restore(&self, bytes: Bytes, me: &NodeName) -> Result<(), Malformed> {
        let ballots = decode(bytes)?;
        let mut standings = self.standings.write();
        for (shard, mut ballot) in ballots {
            ballot.forget_own(me);
            if let Some(standing) = standings.get_mut(shard.0 as usize) {
                standing.ballot = ballot;
            }
        }
        Ok(())
    }

    /// All that this node must not forget.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.encode_with(None)
    }

    /// The same, as if this were established already.
    #[must_use]
    pub fn encode_with(&self, fact: Option<(ShardIndex, &Epoch)>) -> Bytes {
        let standings = self.standings.read();
        let mut out = BytesMut::new();
        codec::put_varint(&mut out, u64::from(FORMAT));
        codec::put_varint(&mut out, standings.len() as u64);
        for (shard, standing) in self.topology.shards.iter().zip(standings.iter()) {
            codec::put_varint(&mut out, u64::from(shard.index.0));
            let mut ballot = standing.ballot.clone();
            if let Some((_, epoch)) = fact.filter(|(about, _)| *about == shard.index) {
                ballot.establish(epoch);
            }
            ballot.encode(&mut out);
        }
        out.freeze()
    }

    /// Takes a fact about a shard; true when it is news (rule 15). A lower epoch's leave to take writes ends here.
    pub fn merge(&self, shard: ShardIndex, epoch: &Epoch) -> bool {
        let is_known = |standing: &Standing| standing.ballot.established() >= Some(epoch);
        if self.standings.read().get(shard.0 as usize).is_none_or(is_known) {
            return false; // nearly always: every message brings an epoch
        }
        self.change(shard, |ballot| ballot.establish(epoch)).unwrap_or(false) && {
            if epoch.number > 1 {
                let name = self.topology.shard(shard).map_or("", |shard| shard.name.as_str());
                info!(shard = name, %epoch, "a shard has a new leader");
            }
            true
        }
    }

    /// Promises not to lead and not to follow below an epoch; to be persisted before anybody is told.
    pub fn promise(&self, shard: ShardIndex, epoch: &Epoch) -> Result<(), Refused> {
        let promised = self.change(shard, |ballot| ballot.promise(epoch));
        promised.unwrap_or(Ok(false)).map(drop)
    }

    /// The same by the leader itself, for good, if it still leads in `from`.
    pub fn yield_to(&self, shard: ShardIndex, from: &Epoch, to: &Epoch) -> Result<(), Refused> {
        let yielded = self.change(shard, |ballot| match (ballot.established(), ballot.bars(from)) {
            (Some(established), _) if established != from => Err(Refused::Established(established.clone())),
            (_, Some(promise)) => Err(Refused::Promised(promise.epoch.clone())),
            _ => ballot.yield_to(to),
        });
        yielded.unwrap_or(Ok(false)).map(drop)
    }

    /// Notes that a number is in use, for a hand-over that is being prepared.
    pub fn meet(&self, shard: ShardIndex, number: u64) {
        self.change(shard, |ballot| ballot.meet(number));
    }

    /// Takes a promise back; true when it was given.
    pub fn release(&self, shard: ShardIndex, epoch: &Epoch) -> bool {
        self.change(shard, |ballot| ballot.release(epoch)).unwrap_or(false)
    }

    /// Changes what is known of a shard; ends the writer's leave with it, when it is over, and wakes whoever acts on it.
    fn change<T>(&self, shard: ShardIndex, change: impl FnOnce(&mut Ballot) -> T) -> Option<T> {
        let mut standings = self.standings.write();
        let Standing { ballot, mandate } = standings.get_mut(shard.0 as usize)?;
        let before = ballot.clone();
        let result = change(ballot);
        if *ballot != before {
            if shard == UID_SHARD {
                self.uid_unknown_to_all.store(false, Ordering::SeqCst); // for this leader to find out
            }
            mandate.take().iter().for_each(Mandate::end);
            self.news.send_modify(|count| *count += 1);
        }
        Some(result)
    }

    /// Tells of each change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// What this node is to do for a shard of which it holds a copy.
    #[must_use]
    pub fn part_of(&self, shard: &Shard, me: &NodeName) -> Part {
        self.standings
            .read()
            .get(shard.index.0 as usize)
            .map_or(Part::Follow, |standing| part(shard, me, &standing.ballot))
    }

    /// The leave to take writes in this epoch; none when something speaks against it. It ends with the first change that is
    /// learnt of, whatever it is: who goes on leading takes another.
    #[must_use]
    pub fn mandate(&self, shard: &Shard, me: &NodeName, epoch: &Epoch, now: Instant) -> Option<Mandate> {
        let mut standings = self.standings.write();
        let standing = standings.get_mut(shard.index.0 as usize)?;
        if part(shard, me, &standing.ballot) != Part::Lead(epoch.clone()) {
            return None;
        }
        let mandate = Mandate::new(now);
        if let Some(former) = standing.mandate.replace(mandate.clone()) {
            former.end();
        }
        Some(mandate)
    }

    /// The highest epoch known of a shard in which somebody leads, or has led.
    #[must_use]
    pub fn epoch_of(&self, shard: ShardIndex) -> Option<Epoch> {
        self.standings.read().get(shard.0 as usize)?.ballot.established().cloned()
    }

    /// The same, or the first epoch of the file.
    #[must_use]
    pub fn epoch_or_first(&self, shard: &Shard) -> Epoch {
        self.epoch_of(shard.index).unwrap_or_else(|| Epoch::first(shard.first_leader().name.clone()))
    }

    /// What is known of a shard.
    #[must_use]
    pub fn ballot_of(&self, shard: ShardIndex) -> Ballot {
        self.standings.read().get(shard.0 as usize).map(|standing| standing.ballot.clone()).unwrap_or_default()
    }

    /// Every shard's highest known epoch, as far as one is.
    #[must_use]
    pub fn epochs(&self) -> Vec<(ShardIndex, Epoch)> {
        self.of_all(|ballot| ballot.established().into_iter().cloned().collect())
    }

    /// The highest number that this node has met of each shard.
    #[must_use]
    pub fn highest(&self) -> Vec<(ShardIndex, u64)> {
        self.of_all(|ballot| vec![ballot.highest()])
    }

    /// All that is promised.
    #[must_use]
    pub fn promises(&self) -> Vec<(ShardIndex, Promise)> {
        self.of_all(|ballot| ballot.promises().to_vec())
    }

    fn of_all<T>(&self, of: impl Fn(&Ballot) -> Vec<T>) -> Vec<(ShardIndex, T)> {
        let standings = self.standings.read();
        let shards = self.topology.shards.iter().zip(standings.iter());
        shards
            .flat_map(|(shard, standing)| of(&standing.ballot).into_iter().map(|found| (shard.index, found)))
            .collect()
    }

    /// Who leads a shard: the one place that decides it. The leader of the highest epoch, as long as the file knows a copy
    /// of that name; else the file's first.
    #[must_use]
    pub fn leader_of<'a>(&self, shard: &'a Shard) -> &'a Node {
        let standings = self.standings.read();
        let epoch = standings.get(shard.index.0 as usize).and_then(|standing| standing.ballot.established());
        epoch
            .and_then(|epoch| shard.copies.iter().find(|copy| copy.name == epoch.leader))
            .unwrap_or_else(|| shard.first_leader())
    }

    /// Enters what a round of the exchange found out about the cluster's uid, if nothing else has become known of the leader
    /// of shard 0 since the round began: whoever led before may have drawn one while it went on.
    pub fn set_uid_unknown_to_all(&self, unknown: bool, began: &Ballot) {
        let standings = self.standings.read();
        let is_same = standings.get(UID_SHARD.0 as usize).is_some_and(|standing| standing.ballot == *began);
        self.uid_unknown_to_all.store(unknown && is_same, Ordering::SeqCst);
    }

    /// What is known of the shard whose leader draws the cluster's uid.
    #[must_use]
    pub fn ballot_of_uid_shard(&self) -> Ballot {
        self.ballot_of(UID_SHARD)
    }

    /// Whether the leader of this shard is to draw the cluster's uid: shard 0, and nobody knows one (rule 1).
    #[must_use]
    pub fn uid_is_drawn_by(&self, shard: ShardIndex) -> bool {
        shard == UID_SHARD && self.uid_unknown_to_all.load(Ordering::SeqCst)
    }

    /// The shards and nodes of the file.
    #[must_use]
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }
}

/// What a node is to do for a shard, by what it knows and has promised. Of a shard of which nothing is known, the file's
/// first leads.
fn part(shard: &Shard, me: &NodeName, ballot: &Ballot) -> Part {
    let first = Epoch::first(shard.first_leader().name.clone());
    let epoch = ballot.established().unwrap_or(&first);
    if epoch.leader != *me {
        let is_known = shard.copies.iter().any(|copy| copy.name == epoch.leader);
        let would_lead = !is_known && first.leader == *me;
        return if would_lead { Part::StandAside(Aside::LeaderUnknown(epoch.clone())) } else { Part::Follow };
    }
    match ballot.bars(epoch) {
        None => Part::Lead(epoch.clone()),
        Some(Promise { epoch, is_yield: false }) => Part::StandAside(Aside::Promised(epoch.clone())),
        Some(Promise { epoch, is_yield: true }) => Part::StandAside(Aside::Yielded(epoch.clone())),
    }
}

fn decode(bytes: Bytes) -> Result<Vec<(ShardIndex, Ballot)>, Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.varint()? != u64::from(FORMAT) {
        return Err(Malformed("facts about leaders by a newer program"));
    }
    let ballots = reader.list(SHARDS_MAX, |reader| Ok((ShardIndex(reader.varint_u32()?), Ballot::decode(reader)?)))?;
    reader.finish()?;
    Ok(ballots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::placement::{HashFunction, Placement};

    const SHARD: ShardIndex = ShardIndex(0);

    fn map() -> ClusterMap {
        let node = |ordinal: u32| Node {
            name: NodeName::new(format!("A/{ordinal}")),
            address: ([127, 0, 0, 1], 8000).into(),
            shard: SHARD,
        };
        let shard = Shard { name: "A".into(), index: SHARD, copies: vec![node(0), node(1)] };
        let placement = Placement { hash: HashFunction::Fnv1a, shards: 1 };
        ClusterMap::new(Arc::new(Topology { placement, shards: vec![shard] }))
    }

    fn epoch(number: u64, leader: &str) -> Epoch {
        Epoch { number, leader: NodeName::new(leader) }
    }

    fn leader(map: &ClusterMap) -> String {
        map.leader_of(&map.topology().shards[0]).name.to_string()
    }

    fn part(map: &ClusterMap, me: &str) -> Part {
        map.part_of(&map.topology().shards[0], &NodeName::new(me))
    }

    fn mandate(map: &ClusterMap, epoch: &Epoch) -> Option<Mandate> {
        map.mandate(&map.topology().shards[0], &epoch.leader, epoch, Clock::manual().now())
    }

    #[test]
    fn leader_of_follows_the_highest_epoch_whatever_order_facts_come_in() {
        let map = map();
        assert_eq!(leader(&map), "A/0");
        assert!(map.merge(SHARD, &epoch(3, "A/1")));
        assert_eq!(leader(&map), "A/1");
        assert!(!map.merge(SHARD, &epoch(2, "A/0")));
        assert!(!map.merge(SHARD, &epoch(3, "A/0")), "of two with one number the higher name holds");
        assert_eq!(leader(&map), "A/1");
    }

    /// Bug: the round was one from before a takeover. Its leader drew a uid, and so did the one before it; their nodes took
    /// each other for strangers ever after.
    #[test]
    fn uid_is_drawn_only_after_a_round_that_began_under_the_same_leader() {
        let map = map();
        let before = map.ballot_of_uid_shard();
        map.set_uid_unknown_to_all(true, &before);
        assert!(map.uid_is_drawn_by(SHARD));
        map.merge(SHARD, &epoch(2, "A/1"));
        assert!(!map.uid_is_drawn_by(SHARD));
        map.set_uid_unknown_to_all(true, &before);
        assert!(!map.uid_is_drawn_by(SHARD), "that round began under the former leader");
        map.set_uid_unknown_to_all(true, &map.ballot_of_uid_shard());
        assert!(map.uid_is_drawn_by(SHARD));
    }

    #[test]
    fn merge_about_a_shard_that_is_not_in_the_map_is_ignored() {
        assert!(!map().merge(ShardIndex(9), &epoch(9, "X")));
    }

    #[test]
    fn part_is_to_lead_only_for_the_leader_and_only_without_a_promise_above() {
        let map = map();
        assert_eq!((part(&map, "A/0"), part(&map, "A/1")), (Part::Lead(epoch(1, "A/0")), Part::Follow));
        map.promise(SHARD, &epoch(2, "A/1")).unwrap();
        assert_eq!(part(&map, "A/0"), Part::StandAside(Aside::Promised(epoch(2, "A/1"))));
        assert_eq!(part(&map, "A/1"), Part::Follow, "a promise is no fact");
        assert_eq!(leader(&map), "A/0");
        map.merge(SHARD, &epoch(2, "A/1"));
        assert_eq!((part(&map, "A/0"), part(&map, "A/1")), (Part::Follow, Part::Lead(epoch(2, "A/1"))));
    }

    /// Else it would lead in an epoch that bears another's name, beside that other.
    #[test]
    fn part_of_the_files_first_is_to_stand_aside_when_the_file_does_not_name_the_leader() {
        let map = map();
        map.merge(SHARD, &epoch(2, "A/9"));
        assert_eq!(part(&map, "A/0"), Part::StandAside(Aside::LeaderUnknown(epoch(2, "A/9"))));
        assert_eq!(part(&map, "A/1"), Part::Follow);
    }

    #[test]
    fn mandate_ends_with_a_promise_and_with_a_fact_and_comes_back_after_a_release() {
        let (map, first) = (map(), epoch(1, "A/0"));
        let before = mandate(&map, &first).unwrap();
        map.promise(SHARD, &epoch(2, "A/1")).unwrap();
        assert!(!before.holds());
        assert_eq!(mandate(&map, &first), None);
        assert!(map.release(SHARD, &epoch(2, "A/1")));
        let again = mandate(&map, &first).unwrap();
        assert!(again.holds() && !before.holds());
        map.merge(SHARD, &epoch(2, "A/1"));
        assert!(!again.holds());
        assert_eq!(mandate(&map, &epoch(2, "A/0")), None, "of another's epoch");
        assert!(mandate(&map, &epoch(2, "A/1")).is_some());
    }

    #[test]
    fn yield_is_given_only_by_the_leader_of_that_epoch() {
        let map = map();
        map.merge(SHARD, &epoch(2, "A/0"));
        let (from, to) = (epoch(2, "A/0"), epoch(3, "A/1"));
        assert_eq!(map.yield_to(SHARD, &epoch(1, "A/0"), &to), Err(Refused::Established(from.clone())));
        assert_eq!(map.yield_to(SHARD, &from, &to), Ok(()));
        assert_eq!(part(&map, "A/0"), Part::StandAside(Aside::Yielded(to.clone())));
        assert!(!map.release(SHARD, &to));
    }

    #[test]
    fn map_that_was_restored_wins_over_the_file_and_has_no_promise_to_itself() {
        let before = map();
        before.merge(SHARD, &epoch(4, "A/1"));
        before.promise(SHARD, &epoch(5, "A/0")).unwrap();
        for (me, promised) in [("A/0", None), ("A/1", Some(epoch(5, "A/0")))] {
            let after = map();
            after.restore(before.encode(), &NodeName::new(me)).unwrap();
            assert_eq!(leader(&after), "A/1");
            let ballot = after.ballot_of(SHARD);
            assert_eq!((ballot.promised().map(|promise| promise.epoch.clone()), ballot.highest()), (promised, 5));
        }
        let established = map();
        established.restore(before.encode_with(Some((SHARD, &epoch(5, "A/0")))), &NodeName::new("A/1")).unwrap();
        assert_eq!(leader(&established), "A/0");
        assert_eq!(leader(&before), "A/1", "encoding changes nothing");
    }
}
