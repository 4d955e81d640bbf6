//! A leader answers: polls with entries, and snapshots chunk by chunk.
//!
//! A poll at the end of the log waits for news, at most the poll interval, and is answered the moment a commit publishes
//! some: so a replica's lag is a round trip, not a poll interval.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tracing::info;

use super::leader::{Mine, PollFacts, Verdict};
use super::opening::Holding;
use super::wire::{ANSWER_BYTES, NextChunk, NextLog, Poll, PollAnswer, SnapshotAnswer};
use super::{Duty, Pair};
use crate::metrics::SnapshotStep;
use crate::storage::{Chunk, Entries, Error};
use crate::types::{Key, NodeName, Seq, ShardUid, Space};

/// A poll that comes while this node finds out whether it may lead waits so long between two looks.
const STARTING_PAUSE: Duration = Duration::from_millis(10);
/// Longest wait for a commit that can be read already to be announced.
const ANNOUNCE_WAIT: Duration = Duration::from_secs(1);
/// So few of the newest entries are read on the thread of the request: they were written a moment ago.
const AT_HAND: u64 = 256;
/// Bytes of records in one answer of a snapshot.
const CHUNK_BYTES: usize = 1 << 20;

impl Pair {
    /// Answers a replica's poll, after at most the poll interval or what the replica still waits.
    pub async fn answer_poll(&self, from: &NodeName, poll: &Poll, remaining: Duration) -> PollAnswer {
        let answer = self.decide_poll(from, poll, remaining).await;
        let (counters, shard) = self.counters();
        counters.polls_answered.inc([shard, answer.polled().index()]);
        answer
    }

    async fn decide_poll(&self, from: &NodeName, poll: &Poll, remaining: Duration) -> PollAnswer {
        let mut news = self.writer.published().subscribe();
        let wait = self.around.settings.poll_interval.min(remaining);
        let give_up = self.around.clock.now() + wait;
        loop {
            news.mark_unchanged();
            let left = give_up.saturating_duration_since(self.around.clock.now());
            if self.duty() == Duty::Starting && !left.is_zero() {
                sleep(STARTING_PAUSE.min(left)).await;
                continue;
            }
            let (uid, verdict) = match self.judge_poll(from, poll) {
                Ok(judged) => judged,
                Err(answer) => return answer,
            };
            let Verdict::After(after) = verdict else { return self.refuse_poll(from, poll, verdict) };
            let behind = self.writer.published().end().since(after);
            if behind == 0 && !left.is_zero() {
                let _ = timeout(left, news.changed()).await; // either way, look again
                continue;
            }
            let now = self.around.clock.now();
            let pause = if behind == 0 || self.acks.are_expected() {
                Duration::ZERO
            } else {
                self.leader.lock().pause(from, behind, now).min(left)
            };
            if pause.is_zero() {
                self.leader.lock().gave(from, now);
                return self.entries_after(uid, after).await;
            }
            sleep(pause).await;
        }
    }

    /// What a poll comes to, or why this node does not answer polls.
    fn judge_poll(&self, from: &NodeName, poll: &Poll) -> Result<(ShardUid, Verdict), PollAnswer> {
        let published = self.writer.published();
        if published.is_failed() {
            return Err(PollAnswer::NotLeading {
                detail: format!("the store of node {} has failed; restart that node", self.me.name),
            });
        }
        let uid = match (self.duty(), self.uid()) {
            (Duty::Leading, Some(uid)) if self.is_leading() => uid,
            (Duty::Halted(halt), _) => return Err(PollAnswer::LostData { detail: halt.why }),
            (Duty::Starting | Duty::Leading | Duty::StandingAside(_) | Duty::Following, _) => {
                return Err(PollAnswer::NotLeading {
                    detail: format!("node {} does not lead shard {} (yet)", self.me.name, self.shard.name),
                });
            }
        };
        let epoch = self.epoch();
        let facts = PollFacts { from, shard_uid: poll.shard_uid, cursor: poll.cursor.as_ref() };
        let verdict = published.with_history(|history| {
            let mine = Mine { shard_uid: Some(uid), epoch: &epoch, history };
            let mut leader = self.leader.lock();
            let verdict = leader.poll(facts, mine, self.around.clock.now());
            leader.settles(from, poll.is_unsettled);
            self.acknowledged.store(leader.greatest_acknowledged().0, Ordering::Release);
            verdict
        });
        self.acks.arrived();
        Ok((uid, verdict))
    }

    fn refuse_poll(&self, from: &NodeName, poll: &Poll, verdict: Verdict) -> PollAnswer {
        match verdict {
            Verdict::After(_) => unreachable!("such a poll is answered with entries"),
            Verdict::OffHistory => PollAnswer::OffHistory,
            Verdict::LostData(detail) => {
                let holding = Holding { shard_uid: poll.shard_uid, cursor: poll.cursor.clone() };
                self.halt_soon(&detail, (from.clone(), holding));
                PollAnswer::LostData { detail }
            }
            Verdict::NotOurs => PollAnswer::NotOurs {
                detail: format!(
                    "the sharding.toml of node {} names no such replica of {}",
                    self.me.name, self.shard.name
                ),
            },
        }
    }

    async fn entries_after(&self, uid: ShardUid, after: Seq) -> PollAnswer {
        let end = self.writer.published().end();
        match self.announced_entries(after).await {
            Ok(Entries::Found(entries)) => {
                PollAnswer::Entries { shard_uid: uid, end, time: self.around.clock.unix_ms(), entries }
            }
            Ok(Entries::Trimmed) => PollAnswer::Snapshot { shard_uid: uid },
            Err(error) => PollAnswer::NotLeading { detail: error.to_string() },
        }
    }

    /// Entries after `after`, as far as they were announced. A commit makes its entries readable a moment before it
    /// announces them; a replica that got them in between could acknowledge what this leader does not know it has yet,
    /// which looks as if it had lost data.
    async fn announced_entries(&self, after: Seq) -> Result<Entries, Error> {
        let mut entries = if self.writer.published().end().since(after) <= AT_HAND {
            self.engine().entries(after, ANSWER_BYTES)?
        } else {
            self.read(move |engine| engine.entries(after, ANSWER_BYTES)).await?
        };
        if let Entries::Found(found) = &mut entries {
            let announced = self.writer.published().end().since(after);
            found.truncate(usize::try_from(announced).unwrap_or(usize::MAX));
        }
        Ok(entries)
    }

    /// Waits until an entry that was read is announced as well: a moment, unless the writer is stuck there.
    pub(super) async fn is_announced(&self, seq: Seq) -> bool {
        let mut end = self.writer.published().subscribe();
        matches!(timeout(ANNOUNCE_WAIT, end.wait_for(|end| *end >= seq)).await, Ok(Ok(_)))
    }

    /// Begins a snapshot for a replica: from here on the log is kept for it.
    pub fn begin_snapshot(&self, from: &NodeName) -> SnapshotAnswer {
        let answer = self.try_begin_snapshot(from);
        let step =
            if matches!(answer, SnapshotAnswer::Began { .. }) { SnapshotStep::Begun } else { SnapshotStep::Failed };
        self.count_snapshot_given(step);
        answer
    }

    fn count_snapshot_given(&self, step: SnapshotStep) {
        let (counters, shard) = self.counters();
        counters.snapshots_given.inc([shard, step.index()]);
    }

    fn try_begin_snapshot(&self, from: &NodeName) -> SnapshotAnswer {
        let (true, Some(shard_uid)) = (self.is_leading(), self.uid()) else {
            return ended("this node does not lead the shard");
        };
        let id = self.around.random.id();
        let now = self.around.clock.now();
        // The pin and the end belong together: an entry between them would be missing from the copy.
        let history = self
            .writer
            .published()
            .with_history(|history| self.leader.lock().pin(from, id, history.end(), now).then(|| history.clone()));
        let Some(history) = history else { return ended("no place for a snapshot: others are receiving theirs") };
        info!(shard = self.shard.name, replica = %from, end = history.end().0, "giving a snapshot");
        SnapshotAnswer::Began { id, shard_uid, history }
    }

    /// The next records of a snapshot.
    pub async fn snapshot_chunk(&self, from: &NodeName, next: NextChunk) -> SnapshotAnswer {
        if !self.touch_snapshot(from, next.id) {
            return ended("this snapshot has ended; begin again");
        }
        match self.read(move |engine| engine.chunk(Space::Data, next.after.as_ref(), CHUNK_BYTES)).await {
            Ok(Chunk { records, at, last }) if self.is_announced(at).await => {
                let (counters, shard) = self.counters();
                counters.snapshot_records_given.add([shard], records.len() as u64);
                counters.snapshot_bytes_given.add([shard], bytes_of(&records));
                if last {
                    self.count_snapshot_given(SnapshotStep::Completed);
                }
                SnapshotAnswer::Records { records, at, last }
            }
            Ok(_) => ended("the writer does not announce its last commit"),
            Err(error) => ended(&error.to_string()),
        }
    }

    /// Entries that a snapshot needs to become a prefix.
    pub async fn snapshot_log(&self, from: &NodeName, next: NextLog) -> SnapshotAnswer {
        if !self.touch_snapshot(from, next.id) {
            return ended("this snapshot has ended; begin again");
        }
        match self.announced_entries(next.after).await {
            Ok(Entries::Found(entries)) => SnapshotAnswer::Log { entries },
            Ok(Entries::Trimmed) => ended("the log was trimmed under the snapshot"),
            Err(error) => ended(&error.to_string()),
        }
    }

    fn touch_snapshot(&self, from: &NodeName, id: u64) -> bool {
        self.is_leading() && self.leader.lock().touch_pin(from, id, self.around.clock.now())
    }
}

/// Bytes of a snapshot's records, keys included.
pub(super) fn bytes_of(records: &[(Key, Bytes)]) -> u64 {
    records.iter().map(|(key, record)| (key.as_bytes().len() + record.len()) as u64).sum()
}

fn ended(detail: &str) -> SnapshotAnswer {
    SnapshotAnswer::Ended { detail: detail.to_owned() }
}
