//! What a leader knows of its replicas, and what a poll means. Pure.
//!
//! - The cursor in a poll is the acknowledgement, and only one on this leader's history acknowledges, holds entries in the
//!   log, or counts for `KV-Acks` (rule 10).
//! - The log is trimmed to the least cursor of the configured replicas that were ever seen; an unseen one pins nothing, nor
//!   does one whose cursor the log no longer reaches: that one takes a snapshot. A snapshot under way pins its start. Beyond
//!   the queue's bound the furthest behind is given up on, and a snapshot that holds the most ends (rule 12).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::risk::Marks;
use crate::storage::writer::Upkeep;
use crate::storage::{LogExtent, Trim};
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
/// A replica whose last poll on this leader's history is no older is present: it counts for `min_replicas` (rule 23). A poll
/// that waits for news counts until it is answered, a poll interval at most.
pub const PRESENT_FOR: Duration = AWAY_AFTER;

/// Between two answers with entries to one replica, while few entries come (decision 0025).
const PACE: Duration = Duration::from_millis(2);
/// So many entries are worth an answer of their own.
const WORTHWHILE_ENTRIES: u64 = 256;

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
    /// Its last one with a cursor on this leader's history.
    present_at: Option<Instant>,
    /// When it last got entries, since this process started.
    last_given: Option<Instant>,
    /// The queue's bound was reached, and it held the most: nothing is kept for it until it is back.
    pub given_up: bool,
    /// It was rewound, and not whole yet when it polled last: what it holds counts for nothing (rule 21).
    is_unsettled: bool,
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
    /// Of which leadership this is the view, and when its entries were written; none while another leads.
    reign: Option<(Epoch, Marks)>,
}

impl Leader {
    /// A leader of these replicas, with the cursors that its file remembers.
    #[must_use]
    pub fn new(configured: impl IntoIterator<Item = NodeName>, remembered: &[(NodeName, Option<Cursor>)]) -> Leader {
        let replicas = configured.into_iter().map(|name| {
            let cursor = remembered.iter().find(|(known, _)| *known == name).map(|(_, cursor)| cursor.clone());
            let unheard = Replica {
                cursor,
                last_poll: None,
                present_at: None,
                last_given: None,
                given_up: false,
                is_unsettled: false,
                dirty: false,
            };
            (name, unheard)
        });
        Leader { replicas: replicas.collect(), pins: BTreeMap::new(), reign: None }
    }

    /// A leadership begins, behind this entry.
    pub fn begin(&mut self, epoch: &Epoch, end: Seq, now: Instant) {
        if self.epoch() != Some(epoch) {
            self.reign = Some((epoch.clone(), Marks::beginning(end, now)));
        }
    }

    /// The leadership of which this is the view.
    #[must_use]
    pub fn epoch(&self) -> Option<&Epoch> {
        self.reign.as_ref().map(|(epoch, _)| epoch)
    }

    /// When its entries were written.
    #[must_use]
    pub fn marks(&self) -> Option<&Marks> {
        self.reign.as_ref().map(|(_, marks)| marks)
    }

    /// Whoever led before has handed over, and holds all up to here: as good as a poll.
    pub fn was_handed_over(&mut self, by: &NodeName, cursor: Option<Cursor>, now: Instant) {
        if let Some(replica) = self.replicas.get_mut(by) {
            replica.last_poll = Some(now);
            replica.enter(cursor, now);
        }
    }

    /// Takes a poll: its acknowledgement, and what it should get.
    pub fn poll(&mut self, poll: PollFacts<'_>, mine: Mine<'_>, now: Instant) -> Verdict {
        let Some(replica) = self.replicas.get_mut(poll.from) else { return Verdict::NotOurs };
        let verdict = judge(poll, mine);
        replica.last_poll = Some(now);
        if let Verdict::After(_) = verdict {
            replica.enter(poll.cursor.cloned(), now);
            let reached = replica.acknowledged();
            if self.pins.get(poll.from).is_some_and(|pin| pin.seq <= reached) {
                self.pins.remove(poll.from); // its snapshot has arrived: another replica may have its turn
            }
        }
        verdict
    }

    /// Whether a replica that polled is on its way to where it is whole.
    pub fn settles(&mut self, replica: &NodeName, is_unsettled: bool) {
        if let Some(replica) = self.replicas.get_mut(replica) {
            replica.is_unsettled = is_unsettled;
        }
    }

    /// How many replicas have acknowledged this seq.
    #[must_use]
    pub fn acknowledged(&self, seq: Seq) -> u32 {
        let have = self.replicas.values().filter(|replica| replica.counted() >= seq).count();
        u32::try_from(have).unwrap_or(u32::MAX)
    }

    /// Whether this replica has acknowledged this seq.
    #[must_use]
    pub fn has_acknowledged(&self, replica: &NodeName, seq: Seq) -> bool {
        self.replicas.get(replica).is_some_and(|replica| replica.counted() >= seq)
    }

    /// The greatest seq that any replica has acknowledged.
    #[must_use]
    pub fn greatest_acknowledged(&self) -> Seq {
        self.replicas.values().map(Replica::counted).max().unwrap_or(Seq::ZERO)
    }

    /// A replica gets entries now.
    pub fn gave(&mut self, replica: &NodeName, now: Instant) {
        if let Some(replica) = self.replicas.get_mut(replica) {
            replica.last_given = Some(now);
        }
    }

    /// How long a replica's poll waits for more entries when so many are there: each answer costs both nodes as much as
    /// many entries do, and the replica a commit. None when it got its last entries a while ago, so that a single write
    /// is passed on at once.
    #[must_use]
    pub fn pause(&self, replica: &NodeName, entries: u64, now: Instant) -> Duration {
        if entries >= WORTHWHILE_ENTRIES {
            return Duration::ZERO;
        }
        let last = self.replicas.get(replica).and_then(|replica| replica.last_given);
        last.map_or(Duration::ZERO, |last| PACE.saturating_sub(now.saturating_duration_since(last)))
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

    /// Begins a snapshot for a replica from this seq; false when too many are under way, or it is none of ours. A new one
    /// replaces the replica's old one.
    pub fn pin(&mut self, replica: &NodeName, id: u64, seq: Seq, now: Instant) -> bool {
        self.drop_lapsed_pins(now);
        self.pins.remove(replica);
        if self.pins.len() >= SNAPSHOTS_MAX || !self.replicas.contains_key(replica) {
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
    pub fn upkeep(&mut self, log: &LogExtent, bounds: Bounds, end: Seq, now: Instant) -> Upkeep {
        let mut cursors = Vec::new();
        for (name, replica) in &mut self.replicas {
            if std::mem::take(&mut replica.dirty) {
                cursors.extend(replica.cursor.clone().map(|cursor| (name.clone(), cursor)));
            }
        }
        self.drop_lapsed_pins(now);
        if !self.keep_queue_within(log, bounds, end) {
            self.take_back(log, now);
        }
        let up_to = self.least_needed(log.start, end);
        let trim = (log.start < up_to && log.bytes > bounds.retain_bytes).then_some(Trim {
            up_to,
            keep_bytes: bounds.retain_bytes,
            entries_max: TRIM_ENTRIES_MAX,
        });
        Upkeep { cursors, trim }
    }

    /// Entries up to `end` are being written.
    pub fn mark(&mut self, end: Seq, now: Instant) {
        let acknowledged = self.greatest_acknowledged();
        if let Some((_, marks)) = &mut self.reign {
            marks.note(end, acknowledged, now);
        }
    }

    /// Gives up on whoever holds the most, while the queue is beyond its bound; false when it is within. What is retained
    /// behind the cursors is no part of the queue.
    fn keep_queue_within(&mut self, log: &LogExtent, bounds: Bounds, end: Seq) -> bool {
        let least = self.least_needed(log.start, end);
        let entries = end.since(least);
        let is_all_queue = least <= log.start;
        let has_too_many_bytes = is_all_queue && log.bytes > bounds.queue_bytes_max.max(bounds.retain_bytes);
        if !has_too_many_bytes && entries <= bounds.queue_entries_max {
            return false;
        }
        self.pins.retain(|replica, pin| {
            let stays = pin.seq > least;
            if !stays {
                tracing::warn!(%replica, entries, log_bytes = log.bytes, "ended a snapshot: writes came so fast \
                    meanwhile that the replication queue is at its bound; the replica begins again");
            }
            stays
        });
        for (name, replica) in &mut self.replicas {
            if replica.pins_log(log.start) && replica.acknowledged() <= least {
                tracing::warn!(replica = %name, lag_entries = entries, log_bytes = log.bytes, "gave up on a replica: the \
                    replication queue is at its bound, and nothing more is kept for it; when it is back it takes a \
                    snapshot by itself (replication.queue_bytes_max, replication.queue_entries_max)");
                replica.given_up = true;
            }
        }
        true
    }

    /// The log is kept again for those that were given up on, are back, and are within reach of it. One that is away and
    /// out of reach was given up on before this process began.
    fn take_back(&mut self, log: &LogExtent, now: Instant) {
        for replica in self.replicas.values_mut() {
            match (replica.is_away(now), replica.needs_snapshot(log.start)) {
                (false, false) => replica.given_up = false,
                (true, true) => replica.given_up = true,
                (true, false) | (false, true) => {}
            }
        }
    }

    /// Entries of the replication queue: those that a replica, or a snapshot under way, still needs.
    #[must_use]
    pub fn queue_entries(&self, log_start: Seq, end: Seq) -> u64 {
        end.since(self.least_needed(log_start, end))
    }

    /// The last entry that nobody needs any more, of a log that begins after `log_start`.
    fn least_needed(&self, log_start: Seq, end: Seq) -> Seq {
        let cursors = self.replicas.values().filter(|replica| replica.pins_log(log_start)).map(Replica::acknowledged);
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
    /// It was heard of, with a cursor on this leader's history.
    fn enter(&mut self, cursor: Option<Cursor>, now: Instant) {
        let acknowledged = Some(cursor);
        self.dirty |= self.cursor != acknowledged;
        self.cursor = acknowledged;
        self.present_at = Some(now);
    }

    /// Whether it polls, and its cursor is on this leader's history: what is written now may soon be there.
    #[must_use]
    pub fn is_present(&self, now: Instant) -> bool {
        self.present_at.is_some_and(|at| now.saturating_duration_since(at) < PRESENT_FOR)
    }

    /// The last seq that it has acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> Seq {
        seq_of(self.cursor.as_ref().and_then(Option::as_ref))
    }

    /// The last seq that a leader's loss would not take: none of a copy that could not lead in its place.
    #[must_use]
    pub fn counted(&self) -> Seq {
        if self.is_unsettled { Seq::ZERO } else { self.acknowledged() }
    }

    /// Whether a log that begins after `log_start` is kept for it.
    fn pins_log(&self, log_start: Seq) -> bool {
        self.cursor.is_some() && !self.given_up && !self.needs_snapshot(log_start)
    }

    /// Whether a log that begins after `log_start` no longer reaches back to it: it takes a snapshot when it is back.
    fn needs_snapshot(&self, log_start: Seq) -> bool {
        self.cursor.is_some() && self.acknowledged() < log_start
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
    if poll.shard_uid != mine.shard_uid && is_of_an_earlier_leadership(cursor, mine) {
        return Verdict::OffHistory;
    }
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

/// A copy of other data, last written in an epoch before this leader's, while this leader's data goes back to before its
/// own: it is what a leader that had lost its file began anew with, and an operator has made this copy lead instead. A
/// leader that lost its own file since then has nothing that is older than its epoch.
fn is_of_an_earlier_leadership(cursor: &Cursor, mine: Mine<'_>) -> bool {
    let goes_back = mine.history.rows().first().is_some_and(|first| first.epoch < *mine.epoch);
    goes_back && cursor.epoch < *mine.epoch
}

fn uid_text(uid: Option<ShardUid>) -> String {
    uid.map_or_else(|| "none (it is new)".into(), |uid| uid.to_string())
}

#[cfg(test)]
mod tests;
