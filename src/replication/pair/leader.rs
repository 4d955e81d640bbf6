//! What a leader knows of its replicas, and what a poll means. Pure.
//!
//! - The cursor in a poll is the acknowledgement, and only one on this leader's history acknowledges, holds entries in the
//!   log, or counts for `KV-Acks` (rule 10).
//! - The log is trimmed to the least cursor of the configured replicas that were ever seen; an unseen one pins nothing, a
//!   snapshot under way pins its start, and beyond the queue's bound the furthest behind is given up on (rule 12).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::storage::writer::Upkeep;
use crate::storage::{Stats, Trim};
use crate::types::seq::seq_of;
use crate::types::{Cursor, Epoch, History, NodeName, Seq, ShardUid, Standing};

/// Entries that leave the log with one commit, so that trimming never makes a write wait long.
const TRIM_ENTRIES_MAX: usize = 1024;
/// A snapshot whose replica has asked for nothing in so long has ended (rule 14).
pub const PIN_LAPSE: Duration = Duration::from_secs(10);
/// Snapshots under way at once; a further replica waits its turn.
pub const SNAPSHOTS_MAX: usize = 2;
/// A replica that has not polled in so long is away.
pub const AWAY_AFTER: Duration = Duration::from_secs(2);

/// How much log is kept.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Kept behind the least cursor, in bytes.
    pub retain_bytes: u64,
    /// Kept at most, in bytes.
    pub queue_bytes_max: u64,
    /// Kept at most, in entries.
    pub queue_entries_max: u64,
}

/// A leader's view of one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its acknowledged cursor; the outer none: never seen, the inner: seen, and holding nothing.
    pub cursor: Option<Option<Cursor>>,
    /// Its last poll since this process started.
    pub last_poll: Option<Instant>,
    /// The queue's bound was reached, and it held the most: nothing is kept for it until it is back.
    pub given_up: bool,
    /// The acknowledgement is newer than what the file says.
    dirty: bool,
}

/// What a replica's poll comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds a prefix: it gets what comes after this seq.
    After(Seq),
    /// Its history left this leader's in an earlier epoch: it has to be rewound (rule 21).
    OffHistory,
    /// It holds what this leader should hold and does not: this leader has lost data (rule 13).
    LostData(String),
    /// It is no replica of this shard by this node's file.
    NotOurs,
}

/// What a poll says.
#[derive(Debug, Clone, Copy)]
pub struct PollFacts<'a> {
    /// Who polls.
    pub from: &'a NodeName,
    /// The uid of the data that it holds.
    pub shard_uid: Option<ShardUid>,
    /// What it has applied.
    pub cursor: Option<&'a Cursor>,
}

/// What this leader holds.
#[derive(Debug, Clone, Copy)]
pub struct Mine<'a> {
    /// Its data's uid; none before the first leader drew it.
    pub shard_uid: Option<ShardUid>,
    /// The epoch in which it leads.
    pub epoch: &'a Epoch,
    /// What it has written.
    pub history: &'a History,
}

/// A snapshot under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pin {
    id: u64,
    /// The log is kept from the entry after this one.
    seq: Seq,
    last_request: Instant,
}

/// A leader's view of all its replicas.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leader {
    replicas: BTreeMap<NodeName, Replica>,
    pins: BTreeMap<NodeName, Pin>,
}

impl Leader {
    /// A leader of these replicas, with the cursors that its file remembers.
    #[must_use]
    pub fn new(configured: impl IntoIterator<Item = NodeName>, remembered: &[(NodeName, Option<Cursor>)]) -> Leader {
        let replicas = configured.into_iter().map(|name| {
            let cursor = remembered.iter().find(|(known, _)| *known == name).map(|(_, cursor)| cursor.clone());
            (name, Replica { cursor, last_poll: None, given_up: false, dirty: false })
        });
        Leader { replicas: replicas.collect(), pins: BTreeMap::new() }
    }

    /// Takes a poll: its acknowledgement, and what it should get.
    pub fn poll(&mut self, poll: PollFacts<'_>, mine: Mine<'_>, now: Instant) -> Verdict {
        let Some(replica) = self.replicas.get_mut(poll.from) else { return Verdict::NotOurs };
        let verdict = judge(poll, mine);
        replica.last_poll = Some(now);
        if let Verdict::After(_) = verdict {
            let acknowledged = Some(poll.cursor.cloned());
            replica.dirty |= replica.cursor != acknowledged;
            replica.cursor = acknowledged;
            replica.given_up = false;
        }
        verdict
    }

    /// How many replicas have acknowledged this seq.
    #[must_use]
    pub fn acknowledged(&self, seq: Seq) -> u32 {
        let have = self.replicas.values().filter(|replica| replica.acknowledged() >= seq).count();
        u32::try_from(have).unwrap_or(u32::MAX)
    }

    /// The replicas and what is known of each.
    pub fn replicas(&self) -> impl Iterator<Item = (&NodeName, &Replica)> {
        self.replicas.iter()
    }

    /// Whether a replica is receiving a snapshot.
    #[must_use]
    pub fn is_receiving_snapshot(&self, replica: &NodeName, now: Instant) -> bool {
        self.pins.get(replica).is_some_and(|pin| !pin.has_lapsed(now))
    }

    /// Begins a snapshot for a replica from this seq; false when too many are under way. A new one replaces the replica's
    /// old one.
    pub fn pin(&mut self, replica: &NodeName, id: u64, seq: Seq, now: Instant) -> bool {
        self.drop_lapsed_pins(now);
        self.pins.remove(replica);
        if self.pins.len() >= SNAPSHOTS_MAX {
            return false;
        }
        self.pins.insert(replica.clone(), Pin { id, seq, last_request: now });
        true
    }

    /// A request of a snapshot under way; false when that snapshot has ended.
    pub fn touch_pin(&mut self, replica: &NodeName, id: u64, now: Instant) -> bool {
        self.drop_lapsed_pins(now);
        match self.pins.get_mut(replica).filter(|pin| pin.id == id) {
            Some(pin) => {
                pin.last_request = now;
                true
            }
            None => false,
        }
    }

    /// What is to be written with the next commit.
    pub fn upkeep(&mut self, stats: &Stats, bounds: Bounds, end: Seq, now: Instant) -> Upkeep {
        let mut cursors = Vec::new();
        for (name, replica) in &mut self.replicas {
            if std::mem::take(&mut replica.dirty) {
                cursors.extend(replica.cursor.clone().map(|cursor| (name.clone(), cursor)));
            }
        }
        self.drop_lapsed_pins(now);
        self.keep_queue_within(stats, bounds, end);
        let up_to = self.least_needed(end);
        let trim = (stats.log_start < up_to && stats.log_bytes > bounds.retain_bytes).then_some(Trim {
            up_to,
            keep_bytes: bounds.retain_bytes,
            entries_max: TRIM_ENTRIES_MAX,
        });
        Upkeep { cursors, trim }
    }

    /// Gives up on whoever holds the most, while the log is beyond its bound because of it.
    fn keep_queue_within(&mut self, stats: &Stats, bounds: Bounds, end: Seq) {
        let beyond = stats.log_bytes > bounds.queue_bytes_max || end.since(stats.log_start) > bounds.queue_entries_max;
        if !beyond || stats.log_start < self.least_needed(end) {
            return; // within bounds, or about to be trimmed
        }
        self.pins.retain(|_, pin| pin.seq > stats.log_start);
        for (name, replica) in &mut self.replicas {
            if replica.pins_log() && replica.acknowledged() <= stats.log_start {
                tracing::warn!(replica = %name, lag_entries = end.since(replica.acknowledged()), "gave up on a replica: the \
                    replication queue is at its bound; it will need a snapshot");
                replica.given_up = true;
            }
        }
    }

    /// The last entry that nobody needs any more.
    fn least_needed(&self, end: Seq) -> Seq {
        let cursors = self.replicas.values().filter(|replica| replica.pins_log()).map(Replica::acknowledged);
        let pins = self.pins.values().map(|pin| pin.seq);
        cursors.chain(pins).min().unwrap_or(end)
    }

    fn drop_lapsed_pins(&mut self, now: Instant) {
        self.pins.retain(|_, pin| !pin.has_lapsed(now));
    }
}

impl Pin {
    fn has_lapsed(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_request) >= PIN_LAPSE
    }
}

impl Replica {
    /// The last seq that it has acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> Seq {
        seq_of(self.cursor.as_ref().and_then(Option::as_ref))
    }

    /// Whether the log is kept for it.
    fn pins_log(&self) -> bool {
        self.cursor.is_some() && !self.given_up
    }

    /// Whether it polls.
    #[must_use]
    pub fn is_away(&self, now: Instant) -> bool {
        self.last_poll.is_none_or(|last| now.saturating_duration_since(last) >= AWAY_AFTER)
    }
}

/// Holds what a copy has against what a leader has (rules 10 and 13).
#[must_use]
pub fn judge(poll: PollFacts<'_>, mine: Mine<'_>) -> Verdict {
    let Some(cursor) = poll.cursor else { return Verdict::After(Seq::ZERO) };
    if poll.shard_uid != mine.shard_uid {
        return Verdict::LostData(format!(
            "replica {} holds data up to seq {} under shard uid {}, this leader's file has {}",
            poll.from,
            cursor.seq,
            uid_text(poll.shard_uid),
            uid_text(mine.shard_uid),
        ));
    }
    match mine.history.standing(Some(cursor)) {
        Standing::On(seq) => Verdict::After(seq),
        Standing::Off if cursor.epoch == *mine.epoch => Verdict::LostData(format!(
            "replica {} holds entry {} of epoch {} and incarnation {}, which is not in this leader's file (it ends at \
             {})",
            poll.from,
            cursor.seq,
            cursor.epoch,
            cursor.incarnation,
            mine.history.end(),
        )),
        Standing::Off => Verdict::OffHistory,
    }
}

fn uid_text(uid: Option<ShardUid>) -> String {
    uid.map_or_else(|| "none (it is new)".into(), |uid| uid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::types::Incarnation;

    const UID: Option<ShardUid> = Some(ShardUid(5));
    const BOUNDS: Bounds = Bounds { retain_bytes: 100, queue_bytes_max: 1000, queue_entries_max: 50 };

    fn name(text: &str) -> NodeName {
        NodeName::new(text)
    }

    fn epoch() -> Epoch {
        Epoch::first(name("A/0"))
    }

    fn history(end: u64) -> History {
        let mut history = History::default();
        for seq in 1..=end {
            history.extend(&epoch(), Incarnation(1), Seq(seq));
        }
        history
    }

    fn cursor(seq: u64) -> Cursor {
        Cursor { epoch: epoch(), incarnation: Incarnation(1), seq: Seq(seq) }
    }

    fn poll(leader: &mut Leader, from: &str, at: Option<Cursor>, end: u64, now: Instant) -> Verdict {
        let (from, history, epoch) = (name(from), history(end), epoch());
        let facts = PollFacts { from: &from, shard_uid: UID, cursor: at.as_ref() };
        leader.poll(facts, Mine { shard_uid: UID, epoch: &epoch, history: &history }, now)
    }

    fn leader() -> Leader {
        Leader::new([name("A/1"), name("A/2")], &[])
    }

    fn stats(log_start: u64, log_bytes: u64) -> Stats {
        Stats { log_start: Seq(log_start), log_bytes, ..Stats::default() }
    }

    fn trimmed_to(leader: &mut Leader, end: u64, now: Instant) -> Option<u64> {
        leader.upkeep(&stats(0, 500), BOUNDS, Seq(end), now).trim.map(|trim| trim.up_to.0)
    }

    #[test]
    fn poll_on_history_acknowledges_and_is_written_down_once() {
        let (mut leader, now) = (leader(), Clock::manual().now());
        assert_eq!(poll(&mut leader, "A/1", Some(cursor(7)), 9, now), Verdict::After(Seq(7)));
        assert_eq!((leader.acknowledged(Seq(7)), leader.acknowledged(Seq(8))), (1, 0));
        let written = leader.upkeep(&stats(0, 0), BOUNDS, Seq(9), now).cursors;
        assert_eq!(written, vec![(name("A/1"), Some(cursor(7)))]);
        assert_eq!(leader.upkeep(&stats(0, 0), BOUNDS, Seq(9), now).cursors, vec![]);
    }

    #[test]
    fn poll_beyond_the_end_is_lost_data_and_acknowledges_nothing() {
        let (mut leader, now) = (leader(), Clock::manual().now());
        assert!(matches!(poll(&mut leader, "A/1", Some(cursor(10)), 9, now), Verdict::LostData(_)));
        assert_eq!(leader.acknowledged(Seq(1)), 0);
    }

    #[test]
    fn poll_with_another_uid_is_lost_data_only_if_it_holds_data() {
        let (mut leader, now, history, epoch, from) =
            (leader(), Clock::manual().now(), history(9), epoch(), name("A/1"));
        let mine = Mine { shard_uid: UID, epoch: &epoch, history: &history };
        let other = Some(ShardUid(6));
        let holding = cursor(3);
        let facts = PollFacts { from: &from, shard_uid: other, cursor: Some(&holding) };
        assert!(matches!(leader.poll(facts, mine, now), Verdict::LostData(_)));
        assert_eq!(leader.poll(PollFacts { cursor: None, ..facts }, mine, now), Verdict::After(Seq::ZERO));
    }

    #[test]
    fn poll_from_an_earlier_epoch_off_history_is_to_be_rewound() {
        let (mut leader, now, from) = (leader(), Clock::manual().now(), name("A/1"));
        let newer = Epoch { number: 2, leader: name("A/2") };
        let mut history = history(5);
        history.extend(&newer, Incarnation(9), Seq(6));
        let ahead = cursor(8);
        let facts = PollFacts { from: &from, shard_uid: UID, cursor: Some(&ahead) };
        let mine = Mine { shard_uid: UID, epoch: &newer, history: &history };
        assert_eq!(leader.poll(facts, mine, now), Verdict::OffHistory);
    }

    #[test]
    fn poll_of_a_stranger_pins_nothing() {
        let (mut leader, now) = (leader(), Clock::manual().now());
        assert_eq!(poll(&mut leader, "B/1", None, 9, now), Verdict::NotOurs);
        assert_eq!(trimmed_to(&mut leader, 9, now), Some(9));
    }

    #[test]
    fn trim_goes_to_the_least_cursor_that_was_ever_seen() {
        let (mut leader, now) = (leader(), Clock::manual().now());
        assert_eq!(trimmed_to(&mut leader, 20, now), Some(20), "an unseen replica pins nothing");
        poll(&mut leader, "A/1", Some(cursor(12)), 20, now);
        assert_eq!(trimmed_to(&mut leader, 20, now), Some(12));
        poll(&mut leader, "A/2", Some(cursor(4)), 20, now);
        assert_eq!(trimmed_to(&mut leader, 20, now), Some(4));
        poll(&mut leader, "A/2", None, 20, now);
        assert_eq!(trimmed_to(&mut leader, 20, now), None, "a replica seen empty needs everything");
    }

    #[test]
    fn trim_is_held_by_a_snapshot_until_it_lapses() {
        let (mut leader, clock) = (leader(), Clock::manual());
        assert!(leader.pin(&name("A/1"), 1, Seq(3), clock.now()));
        assert_eq!(trimmed_to(&mut leader, 20, clock.now()), Some(3));
        clock.advance(PIN_LAPSE / 2);
        assert!(leader.touch_pin(&name("A/1"), 1, clock.now()));
        clock.advance(PIN_LAPSE / 2);
        assert_eq!(trimmed_to(&mut leader, 20, clock.now()), Some(3));
        clock.advance(PIN_LAPSE);
        assert!(!leader.touch_pin(&name("A/1"), 1, clock.now()));
        assert_eq!(trimmed_to(&mut leader, 20, clock.now()), Some(20));
    }

    #[test]
    fn pins_beyond_the_bound_are_refused_and_a_new_one_replaces_the_same_replicas() {
        let now = Clock::manual().now();
        let mut leader = Leader::new(["A/1", "A/2", "A/3"].map(name), &[]);
        assert!(leader.pin(&name("A/1"), 1, Seq(3), now) && leader.pin(&name("A/2"), 2, Seq(3), now));
        assert!(!leader.pin(&name("A/3"), 3, Seq(3), now));
        assert!(leader.pin(&name("A/2"), 4, Seq(5), now));
        assert!(!leader.touch_pin(&name("A/2"), 2, now));
    }

    #[test]
    fn queue_at_its_bound_gives_up_on_the_furthest_behind_only() {
        let (mut leader, now) = (leader(), Clock::manual().now());
        poll(&mut leader, "A/1", Some(cursor(60)), 60, now);
        poll(&mut leader, "A/2", Some(cursor(1)), 60, now);
        assert_eq!(leader.upkeep(&stats(1, 500), BOUNDS, Seq(60), now).trim.map(|trim| trim.up_to), Some(Seq(60)));
        let given_up: Vec<_> = leader.replicas().map(|(_, replica)| replica.given_up).collect();
        assert_eq!(given_up, [false, true]);
        poll(&mut leader, "A/2", Some(cursor(1)), 60, now);
        assert!(leader.replicas().all(|(_, replica)| !replica.given_up), "it is back");
    }
}
