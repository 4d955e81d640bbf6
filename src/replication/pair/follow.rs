//! A replica at work: polls, appends what comes, and backs off when it cannot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::sleep;
use tracing::{info, warn};

use super::diverged::Settling;
use super::follower::{FollowState, Step, step};
use super::wire::{Poll, PollAnswer};
use super::{Duty, Pair};
use crate::cluster::Part;
use crate::config::Node;
use crate::metrics::Polled;
use crate::peer::{Ask, CallError, Class, Kind};
use crate::storage::writer::{Facts, Mode, Refusal};
use crate::storage::{LogEntry, Role};
use crate::types::{Entry, Malformed, Seq, ShardUid};

/// Beyond the poll interval, a leader that has not answered in so long is away.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// First and longest pause after a failure; doubled each time, and jittered, so that replicas do not return together.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Why a round of following failed: what the copy shows until the next one succeeds.
type Setback = FollowState;

impl Pair {
    /// Follows the shard's leader, whoever that is, until the map gives this node another part, or the store fails.
    pub(super) async fn follow(&self) {
        if self.duty() == Duty::Leading {
            self.forget_following();
        }
        let role = Facts { role: Some(Role::Replica), ..Facts::default() };
        if let Err(refusal) = self.writer.set_mode(Mode::Following, role).await {
            self.enter(FollowState::Stuck(refusal.to_string()));
            return; // the store has failed: nothing changes that but a restart
        }
        self.enter_duty(Duty::Following);
        self.forget_replicas();
        let files = Arc::clone(&self.files);
        let _ = tokio::task::spawn_blocking(move || files.discard_incoming()).await; // one that broke off with a process before
        let mut backoff = BACKOFF_FIRST;
        loop {
            self.maybe_reset().await;
            let known = self.ballot();
            if self.part() != Part::Follow {
                return;
            }
            match self.follow_once().await {
                Ok(()) => backoff = BACKOFF_FIRST,
                Err(setback) => {
                    self.enter(setback);
                    tokio::select! {
                        () = sleep(self.around.random.jitter(backoff, 0.5)) => {}
                        () = self.resets.arrived.notified() => {}
                        () = self.news_since(&known) => backoff = BACKOFF_FIRST,
                    }
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    /// One poll, and what follows from its answer.
    async fn follow_once(&self) -> Result<(), Setback> {
        self.check_promises()?;
        if self.look_whether_settled() == Some(Settling::Astray) {
            return self.receive_snapshot(None).await;
        }
        let sent = self.around.clock.now();
        let answer = self.poll().await;
        let (counters, shard) = self.counters();
        counters.polls.inc([shard, answer.as_ref().map_or(Polled::Failed, PollAnswer::polled).index()]);
        let answer = answer.map_err(|error| FollowState::Away(self.away_text(&error)))?;
        let cursor = self.writer.published().with_history(|history| history.cursor());
        match step(self.uid(), cursor.is_some(), &answer) {
            Step::Append { adopt } => {
                let PollAnswer::Entries { end, entries, .. } = answer else {
                    unreachable!("only entries are appended")
                };
                if let Some(uid) = adopt {
                    self.adopt(uid).await?;
                }
                if self.is_beyond(end) {
                    return self.receive_snapshot(None).await;
                }
                self.append(sent, end, entries).await
            }
            Step::Snapshot => self.receive_snapshot(None).await,
            Step::ComeBack => self.come_back().await,
            Step::Stay(state) => Err(state),
        }
    }

    async fn poll(&self) -> Result<PollAnswer, CallError> {
        let leader = self.current_leader();
        let cursor = self.writer.published().with_history(|history| history.cursor());
        let is_unsettled = self.settles_at.lock().is_some();
        let body = Poll { shard_uid: self.uid(), cursor, is_unsettled }.encode();
        let wait = self.around.settings.poll_interval + ANSWER_WAIT;
        Ok(PollAnswer::decode(self.ask_leader(leader, Class::Replication, Kind::Poll, body, wait).await?)?)
    }

    /// A node that has promised the shard to another pulls no more from the present leader: what it acknowledged would count
    /// there, and be lost with the takeover (rule 19).
    pub(super) fn check_promises(&self) -> Result<(), Setback> {
        match self.ballot().bars(&self.epoch()) {
            None => Ok(()),
            Some(promise) => Err(FollowState::Away(format!(
                "this node has promised {} to let it lead in epoch {}, and waits for what comes of it",
                promise.epoch.leader, promise.epoch.number
            ))),
        }
    }

    /// Who leads the shard, as far as this node knows.
    fn current_leader(&self) -> &Node {
        self.around.map.leader_of(&self.shard)
    }

    /// Asks the leader, as long as it leads.
    pub(super) async fn ask_leader(
        &self,
        leader: &Node,
        class: Class,
        kind: Kind,
        body: Bytes,
        wait: Duration,
    ) -> Result<Bytes, CallError> {
        let ask = Ask {
            node: leader,
            class,
            kind,
            shard: self.shard.index,
            epoch: self.around.map.epoch_of(self.shard.index),
            request_id: self.around.pool.new_request_id(),
            body,
            answer_wait: wait,
            total_wait: wait,
        };
        let known = self.ballot();
        tokio::select! {
            answer = self.around.pool.ask(ask) => answer,
            () = self.news_since(&known) => Err(CallError::Lost("the shard's leader has changed".into())),
        }
    }

    fn away_text(&self, error: &CallError) -> String {
        let leader = self.current_leader();
        format!("leader {} at {} cannot be reached: {error}", leader.name, leader.address)
    }

    /// Takes the shard's uid, durably, before the first entry under it.
    async fn adopt(&self, uid: ShardUid) -> Result<(), Setback> {
        let facts = Facts {
            shard_uid: Some(uid),
            cluster_uid: self.around.local.cluster(),
            epoch: self.around.map.epoch_of(self.shard.index),
            ..Facts::default()
        };
        self.writer.note(facts).await.map_err(|refusal| stuck(&refusal))?;
        *self.uid.write() = Some(uid);
        Ok(())
    }

    /// Appends entries, and enters how fresh the copy is now.
    async fn append(&self, sent: Instant, end: Seq, entries: Vec<Bytes>) -> Result<(), Setback> {
        self.follower.lock().announced(sent, end);
        let applied = if entries.is_empty() {
            self.writer.published().end()
        } else {
            let (count, bytes) = (entries.len() as u64, entries.iter().map(|entry| entry.len() as u64).sum());
            let entries = decode_entries(entries).map_err(|error| FollowState::Away(unreadable(error)))?;
            let applied = self.writer.append(entries).await.map_err(|refusal| stuck(&refusal))?;
            let (counters, shard) = self.counters();
            counters.entries.add([shard], count);
            counters.bytes.add([shard], bytes);
            applied
        };
        self.look_whether_settled();
        let is_whole = self.follower.lock().applied(applied);
        self.enter(if is_whole { FollowState::Streaming } else { FollowState::CatchingUp });
        Ok(())
    }

    /// Enters what the copy is doing, and logs it when that is news.
    pub(super) fn enter(&self, state: FollowState) {
        let (shard, name) = (&self.shard.name, state.name());
        let problem = state.problem().map(str::to_owned);
        if self.follower.lock().enter(state, self.around.clock.now()) {
            match problem {
                None => info!(shard, state = name, "following"),
                Some(detail) => warn!(shard, state = name, detail, "not following"),
            }
        }
    }
}

/// Decodes entries and checks their checksums.
pub(super) fn decode_entries(entries: Vec<Bytes>) -> Result<Vec<LogEntry>, Malformed> {
    entries.into_iter().map(|bytes| Ok(LogEntry { entry: Entry::decode(bytes.clone())?, bytes })).collect()
}

pub(super) fn unreadable(error: Malformed) -> String {
    format!("the leader's entries cannot be read: {error}")
}

pub(super) fn stuck(refusal: &Refusal) -> Setback {
    FollowState::Stuck(format!("this copy cannot write what it gets: {refusal}"))
}
