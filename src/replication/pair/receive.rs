//! A replica receives a snapshot (rule 14).
//!
//! ```text
//!   begin ─▶ the leader keeps its log from S0      FILE goes on serving
//!   chunks ─▶ FILE.incoming                         (each chunk read at some seq; the last at S1)
//!   log from S0 until past S1 ─▶ applied only where newer than the record
//!   complete ─▶ rename FILE.incoming → FILE, sync the directory, serve from it
//! ```
//!
//! Until the rename, nothing of what is here is lost by an interruption: the incoming file is begun anew the next time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::info;

use super::Pair;
use super::follow::{decode_entries, stuck, unreadable};
use super::follower::FollowState;
use super::polls::bytes_of;
use super::wire::{NextChunk, NextLog, SnapshotAnswer};
use crate::metrics::SnapshotStep;
use crate::peer::{CallError, Class, Kind};
use crate::storage::{ApplyRule, Batch, Engine, Error, Role};
use crate::types::{History, Key, Seq, ShardUid, Space, Standing};

/// A leader that has not answered a request of a snapshot in so long is away.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// A snapshot that the leader has begun to give.
struct Incoming {
    id: u64,
    shard_uid: ShardUid,
    /// Where its log begins: S0.
    history: History,
    engine: Arc<dyn Engine>,
}

impl Pair {
    /// Receives a snapshot and lets it take this copy's place. `listed`: what this copy holds beyond that entry is in its
    /// ledger, and need not be in the snapshot (rule 21).
    pub(super) async fn receive_snapshot(&self, listed: Option<Seq>) -> Result<(), FollowState> {
        if self.writer.published().is_failed() {
            return Err(FollowState::Stuck("this copy's store has failed; restart this node".into())); // rule 9
        }
        let received = self.try_receive_snapshot(listed).await;
        let step = if received.is_ok() { SnapshotStep::Completed } else { SnapshotStep::Failed };
        let (counters, shard) = self.counters();
        counters.snapshots_received.inc([shard, step.index()]);
        received
    }

    async fn try_receive_snapshot(&self, listed: Option<Seq>) -> Result<(), FollowState> {
        self.enter(FollowState::Snapshot { records: 0 });
        let received = self.try_receive(listed).await;
        if received.is_err() {
            let files = Arc::clone(&self.files);
            let _ = tokio::task::spawn_blocking(move || files.discard_incoming()).await; // the next one begins anew anyway
        }
        received
    }

    async fn try_receive(&self, listed: Option<Seq>) -> Result<(), FollowState> {
        let incoming = self.begin_incoming(listed).await?;
        let (counters, shard) = self.counters();
        counters.snapshots_received.inc([shard, SnapshotStep::Begun.index()]);
        let passed = self.receive_records(&incoming).await?;
        self.receive_log(&incoming, passed).await?;
        self.complete(incoming).await
    }

    /// Writes a part of the snapshot, unless it would use up the reserve that everybody else on this disk counts on.
    async fn commit(&self, incoming: &Incoming, batch: Batch) -> Result<(), FollowState> {
        let (engine, min) = (Arc::clone(&incoming.engine), self.around.settings.min_free_bytes);
        blocking(move || match engine.free_bytes() {
            Some(free) if free < min => Err(Error::Failed(format!(
                "{free} bytes are free on the disk; storage.min_free_bytes is {min}; free some space, it begins again by \
                 itself"
            ))),
            _ => engine.commit(&batch),
        })
        .await
    }

    async fn begin_incoming(&self, listed: Option<Seq>) -> Result<Incoming, FollowState> {
        match self.ask_snapshot(Kind::SnapshotBegin, Bytes::new()).await? {
            SnapshotAnswer::Began { id, shard_uid, history } => {
                let uid = self.uid();
                self.writer.published().with_history(|mine| may_replace((uid, mine), (shard_uid, &history), listed))?;
                let files = Arc::clone(&self.files);
                let engine = blocking(move || files.create_incoming()).await?;
                Ok(Incoming { id, shard_uid, history, engine })
            }
            other => Err(unexpected(other)),
        }
    }

    /// Receives all records; returns the seq that the log has to pass (S1).
    async fn receive_records(&self, incoming: &Incoming) -> Result<Seq, FollowState> {
        let mut after: Option<Key> = None;
        let mut count = 0;
        loop {
            let body = NextChunk { id: incoming.id, after: after.clone() }.encode();
            let (records, at, last) = match self.ask_snapshot(Kind::SnapshotChunk, body).await? {
                SnapshotAnswer::Records { records, at, last } => (records, at, last),
                other => return Err(unexpected(other)),
            };
            let is_empty = records.is_empty();
            count += records.len() as u64;
            let (counters, shard) = self.counters();
            counters.snapshot_records_received.add([shard], records.len() as u64);
            counters.snapshot_bytes_received.add([shard], bytes_of(&records));
            after = records.last().map(|(key, _)| key.clone()).or(after);
            let install = records.into_iter().map(|(key, record)| (Space::Data, key, record)).collect();
            self.commit(incoming, Batch { install, ..Batch::default() }).await?;
            self.enter(FollowState::Snapshot { records: count });
            if last {
                return Ok(at);
            }
            if is_empty {
                return Err(FollowState::Away("the leader sent a part of a snapshot with nothing in it".into()));
            }
        }
    }

    /// Receives the log from where the snapshot began until it is past the last chunk: only then is the copy a prefix.
    async fn receive_log(&self, incoming: &Incoming, passed: Seq) -> Result<(), FollowState> {
        let adopt =
            Batch { adopt: Some(incoming.history.clone()), shard_uid: Some(incoming.shard_uid), ..Batch::default() };
        self.commit(incoming, adopt).await?;
        let mut end = incoming.history.end();
        while end < passed {
            let body = NextLog { id: incoming.id, after: end }.encode();
            let entries = match self.ask_snapshot(Kind::SnapshotLog, body).await? {
                SnapshotAnswer::Log { entries } => entries,
                other => return Err(unexpected(other)),
            };
            let append = decode_entries(entries).map_err(|error| FollowState::Away(unreadable(error)))?;
            let expected = end.next();
            let Some((first, last)) = append.first().zip(append.last()) else {
                return Err(FollowState::Away("the leader's log ends before the snapshot's last chunk".into()));
            };
            let follows = append.iter().zip(expected.0..).all(|(entry, seq)| entry.entry.seq == Seq(seq));
            if !follows {
                return Err(FollowState::Away(format!("the leader sent entry {} for {expected}", first.entry.seq)));
            }
            end = last.entry.seq;
            let batch = Batch { append, apply_to: Some(end), apply_rule: ApplyRule::IfNewer, ..Batch::default() };
            self.commit(incoming, batch).await?;
        }
        Ok(())
    }

    /// Lets the snapshot take this copy's place.
    async fn complete(&self, incoming: Incoming) -> Result<(), FollowState> {
        let leadership = self.keeper.pause().await; // a promise that was given meanwhile would be lost with the old file
        let done = Batch {
            incoming: Some(false),
            cluster_uid: self.around.local.cluster(),
            epoch: self.around.map.epoch_of(self.shard.index),
            leadership: Some(leadership.clone()),
            role: Some(Role::Replica),
            ..Batch::default()
        };
        self.commit(&incoming, done).await?;
        let files = Arc::clone(&self.files);
        blocking(move || files.promote_incoming()).await?;
        // Before the swap: whoever asks in between must not see data without a uid.
        let uid_before = self.uid.write().replace(incoming.shard_uid);
        if let Err(refusal) = self.writer.swap(incoming.engine).await {
            *self.uid.write() = uid_before;
            return Err(stuck(&refusal));
        }
        *self.settles_at.lock() = None;
        self.follower.lock().replaced();
        info!(shard = self.shard.name, end = self.writer.published().end().0, "received a snapshot");
        Ok(())
    }

    async fn ask_snapshot(&self, kind: Kind, body: Bytes) -> Result<SnapshotAnswer, FollowState> {
        let leader = self.around.map.leader_of(&self.shard);
        let away = |error: CallError| FollowState::Away(format!("the snapshot broke off: {error}"));
        let answer = self.ask_leader(leader, Class::Bulk, kind, body, ANSWER_WAIT).await.map_err(away)?;
        SnapshotAnswer::decode(answer).map_err(|error| away(error.into()))
    }
}

/// Whether a snapshot may take this copy's place (rule 13): only if it is of the same data and holds what this copy holds.
/// The leader has looked at that when it answered the poll; since then it may have been started again, with less.
///
/// What is beyond `listed` is not lost with it, for it stands in the ledger.
fn may_replace(
    mine: (Option<ShardUid>, &History),
    offered: (ShardUid, &History),
    listed: Option<Seq>,
) -> Result<(), FollowState> {
    let cursor = mine.1.cursor();
    if cursor.is_none() {
        return Ok(());
    }
    let lost = |what: String| Err(FollowState::LeaderLostData(format!("the leader offers a snapshot {what}")));
    match offered.1.standing(cursor.as_ref()) {
        _ if mine.0 != Some(offered.0) => lost(format!("of shard uid {}", offered.0)),
        Standing::Off if listed.is_some_and(|listed| offered.1.last_common(mine.1) >= listed) => Ok(()),
        Standing::Off => lost(format!("that ends at {} and lacks what this copy holds", offered.1.end())),
        Standing::On(_) => Ok(()),
    }
}

/// Does disk work away from the threads that serve requests.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, FollowState> {
    let stuck = |detail: String| FollowState::Stuck(format!("the new file cannot be written: {detail}"));
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| stuck(error.to_string())),
        Err(panic) => Err(stuck(panic.to_string())),
    }
}

fn unexpected(answer: SnapshotAnswer) -> FollowState {
    let detail = match answer {
        SnapshotAnswer::Ended { detail } => detail,
        SnapshotAnswer::Began { .. } | SnapshotAnswer::Records { .. } | SnapshotAnswer::Log { .. } => {
            "the leader answered another question".into()
        }
    };
    FollowState::Away(format!("the snapshot broke off: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, Incarnation, NodeName};

    fn history(incarnation: u64, end: u64) -> History {
        let mut history = History::default();
        for seq in 1..=end {
            history.extend(&Epoch::first(NodeName::new("A/0")), Incarnation(incarnation), Seq(seq));
        }
        history
    }

    /// The bug: only the uid was looked at, so a leader that was started again with an old backup, between the answer to
    /// a poll and the request for the snapshot, could replace newer data with older.
    #[test]
    fn snapshot_that_lacks_what_the_copy_holds_does_not_replace_it() {
        let (uid, other) = (ShardUid(5), ShardUid(6));
        let held = history(1, 7);
        let may =
            |mine: Option<ShardUid>, offered: (ShardUid, &History)| may_replace((mine, &held), offered, None).is_ok();
        assert!(may(Some(uid), (uid, &history(1, 7))) && may(Some(uid), (uid, &history(1, 90))));
        assert!(!may(Some(uid), (uid, &history(1, 6))), "it ends before");
        assert!(!may(Some(uid), (uid, &history(2, 90))), "another life wrote it");
        assert!(!may(Some(uid), (other, &history(1, 90))) && !may(None, (uid, &history(1, 90))), "other data");
        let empty = History::default();
        assert_eq!(may_replace((Some(other), &empty), (uid, &history(1, 7)), None), Ok(()), "nothing is lost");
        let listed =
            |from, uid, offered: &History| may_replace((Some(ShardUid(5)), &held), (uid, offered), Some(Seq(from)));
        assert_eq!(listed(6, uid, &history(1, 6)), Ok(()), "what it lacks is in the ledger");
        assert!(listed(6, uid, &history(1, 5)).is_err(), "one write that it lacks is not");
        assert!(listed(6, other, &history(1, 6)).is_err(), "other data");
    }
}
