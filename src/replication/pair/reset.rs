//! An operator throws a replica's copy away on purpose, and the replica fetches everything from its leader: the way out
//! when a copy holds what the shard's leader never had, or lost (rule 13).
//!
//! ```text
//!   reset ─▶ a slot ─▶ follow, between two polls: FILE.incoming, empty and complete ─ rename over FILE ─ serve from it
//! ```
//!
//! The task that follows does it itself, so no append and no snapshot is under way meanwhile. A crash leaves the old file
//! or the new, empty one. The readers of the old one finish.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;
use tracing::warn;

use super::receive::blocking;
use super::{Duty, Pair};
use crate::cluster::Part;
use crate::storage::{Batch, Engine, Files, Role};
use crate::types::Seq;

/// What was thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discarded {
    /// The last entry that the copy held.
    pub end: Seq,
    /// How many keys it held.
    pub keys: u64,
}

/// Why nothing was thrown away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The copy does not follow a leader, or something else has to end first.
    #[error("{0}")]
    Conflict(String),
    /// The store failed.
    #[error("{0}")]
    Failed(String),
}

type Answer = Result<Discarded, Refused>;

/// A request to the task that follows. One at a time: a second one is refused.
#[derive(Debug, Default)]
pub(super) struct Requests {
    waiting: Mutex<Slot>,
    /// Wakes the task from its pause after a failure.
    pub(super) arrived: Notify,
}

#[derive(Debug, Default)]
struct Slot {
    /// Who asked last: only they may withdraw what waits.
    ticket: u64,
    reply: Option<oneshot::Sender<Answer>>,
}

impl Requests {
    /// Enters a request; none when another one waits.
    fn enter(&self) -> Option<(u64, oneshot::Receiver<Answer>)> {
        let mut slot = self.waiting.lock();
        if slot.reply.is_some() {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        *slot = Slot { ticket: slot.ticket + 1, reply: Some(reply) };
        Some((slot.ticket, answer))
    }

    /// Takes what waits: from here on it is done.
    fn take(&self) -> Option<oneshot::Sender<Answer>> {
        self.waiting.lock().reply.take()
    }

    /// Withdraws a request; false when it is under way.
    fn withdraw(&self, ticket: u64) -> bool {
        let mut slot = self.waiting.lock();
        slot.ticket == ticket && slot.reply.take().is_some()
    }
}

impl Pair {
    /// Throws this replica's copy away, and returns when the empty one serves in its place. A request that the task which
    /// follows has not come to by the deadline is withdrawn.
    pub async fn reset(&self, deadline: Instant) -> Answer {
        self.check_reset()?;
        let Some((ticket, mut answer)) = self.resets.enter() else {
            return Err(Refused::Conflict(format!("node {} is being reset already", self.me.name)));
        };
        self.resets.arrived.notify_one();
        let left = deadline.saturating_duration_since(self.around.clock.now());
        let answered = match timeout(left, &mut answer).await {
            Ok(answered) => answered,
            Err(_) if self.resets.withdraw(ticket) => {
                let state = self.follow_state();
                return Err(Refused::Conflict(format!(
                    "node {} has not come to it in time (it is {}), and was told to forget it",
                    self.me.name,
                    state.name()
                )));
            }
            Err(_) => answer.await, // under way: it ends by itself
        };
        answered.unwrap_or_else(|_| Err(Refused::Failed("the node is stopping".into())))
    }

    fn check_reset(&self) -> Result<(), Refused> {
        let (me, shard) = (&self.me.name, &self.shard.name);
        if self.duty() != Duty::Following {
            return Err(Refused::Conflict(format!(
                "node {me} is the leader of shard {shard}, and its copy is the shard's data: only a replica's copy can be \
                 fetched again"
            )));
        }
        if self.writer.published().is_failed() {
            return Err(Refused::Failed(format!("the store of node {me} has failed: restart the node first")));
        }
        Ok(())
    }

    /// Does what was asked for, if something was. Called by the task that follows, between two polls.
    pub(super) async fn maybe_reset(&self) {
        let Some(reply) = self.resets.take() else { return };
        let answer = self.discard().await;
        let _ = reply.send(answer); // whoever asked may have left; it is done all the same
    }

    async fn discard(&self) -> Answer {
        self.check_reset()?;
        // What a takeover by this node counts on, and what it leads with, stays as it is.
        let changing = || {
            let (me, shard) = (&self.me.name, &self.shard.name);
            Refused::Conflict(format!(
                "node {me} finds out who leads shard {shard} from now on: nothing was thrown away; look with kv status first"
            ))
        };
        let _nobody = self.taking_over.try_lock().map_err(|_| changing())?;
        if self.part() != Part::Follow {
            return Err(changing());
        }
        let held =
            Discarded { end: self.writer.published().end(), keys: self.engine().stats().map_or(0, |stats| stats.keys) };
        let failed = |detail: String| Refused::Failed(format!("the copy was not thrown away: {detail}"));
        let leadership = self.keeper.pause().await; // a promise that was given meanwhile would be lost with the old file
        let engine = self.empty_copy(leadership.clone()).await.map_err(failed)?;
        self.writer.swap(engine).await.map_err(|refusal| failed(refusal.to_string()))?;
        *self.uid.write() = None;
        *self.settles_at.lock() = None;
        self.follower.lock().emptied(self.around.clock.now());
        warn!(shard = self.shard.name, end = %held.end, keys = held.keys,
            "the copy was thrown away by an operator; everything is fetched from the leader");
        Ok(held)
    }

    /// A new file in the place of the copy's own. It keeps what is not the shard's data: the cluster's uid, who leads what,
    /// what was promised.
    async fn empty_copy(&self, leadership: Bytes) -> Result<Arc<dyn Engine>, String> {
        let files: Arc<dyn Files> = Arc::clone(&self.files);
        let batch = Batch {
            incoming: Some(false),
            cluster_uid: self.around.local.cluster(),
            epoch: self.around.map.epoch_of(self.shard.index),
            leadership: Some(leadership),
            role: Some(Role::Replica),
            ..Batch::default()
        };
        let made = blocking(move || {
            let engine = files.create_incoming()?;
            engine.commit(&batch)?;
            files.promote_incoming()?;
            Ok(engine)
        });
        made.await.map_err(|state| state.problem().unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bug: a request that was under way when its time was over withdrew the one that had come after it, and told its
    /// operator that nothing was done.
    #[test]
    fn request_that_is_under_way_is_not_withdrawn_nor_is_the_one_behind_it() {
        let requests = Requests::default();
        let (first, _first_answer) = requests.enter().unwrap();
        assert!(requests.enter().is_none(), "one at a time");
        assert!(requests.take().is_some());
        let (second, _second_answer) = requests.enter().unwrap();
        assert!(!requests.withdraw(first), "it is under way");
        assert!(requests.withdraw(second));
        assert!(requests.take().is_none() && !requests.withdraw(second));
    }
}
