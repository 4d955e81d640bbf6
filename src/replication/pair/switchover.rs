//! A leader hands its shard over to a replica, and nothing is lost (rule 20).
//!
//! ```text
//!   wait until the replica is close, and both files are not busy ─▶ hold writes ─▶ it has all ─▶ yield, durably ═ point of no return ═▶ grant ─▶ it leads
//!        │ time-out: nothing happened      │ it takes too long: let the writes go on, try again
//! ```
//!
//! While writes are held they are neither taken nor refused: they wait where they came in, and go on here when the hand-over
//! is broken off, or at the new leader when it is done. Before the point of no return, every failure leaves all as it was.
//! Behind it this node never leads that epoch again: the other may lead already, whatever is heard of it. So a leader that
//! has yielded goes on asking until it hears ([`super::roles`]), through restarts, too.
//!
//! The task that leads does all of it, so that nothing else changes what the copy does meanwhile.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::grant::{Grant, GrantAnswer};
use super::{Duty, Pair, inspect};
use crate::cluster::exchange;
use crate::config::Node;
use crate::peer::{Ask, CallError, Class, Kind};
use crate::storage::writer::{Facts, Mode};
use crate::types::{Epoch, Seq};

/// A replica that lacks no more entries than this is close enough to hold writes for it; an eighth of it after each attempt
/// in which it was not.
const CLOSE_ENTRIES: u64 = 1024;
/// Writes are held so long at most for the replica to get what it lacks; then they go on.
const HOLD_MAX: Duration = Duration::from_millis(500);
/// Writes are held so long at most in all. Whoever forwarded one waits two seconds for its answer, and would have to call its
/// outcome unknown after that.
const PAUSE_MAX: Duration = Duration::from_millis(1700);
/// Between two looks at what the replica has acknowledged.
const LOOK_PAUSE: Duration = Duration::from_millis(1);
/// Between two attempts, when the replica did not get there in time.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(200);
/// For one question to the replica.
const QUESTION_WAIT: Duration = Duration::from_millis(1000);
/// For the replica to write something down before writes are held; its file may be busy.
const REHEARSAL_WAIT: Duration = Duration::from_secs(10);

/// A shard that was handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandedOver {
    /// The epoch in which the other leads.
    pub epoch: Epoch,
    /// The last entry of this leadership.
    pub end: Seq,
    /// For how long writes waited.
    pub paused: Duration,
}

/// Why a shard was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing has changed: this node leads on.
    #[error("{0}")]
    Unchanged(String),
    /// This node has yielded, and does not know yet whether the other leads.
    #[error("{0}")]
    Unconfirmed(String),
    /// The store failed.
    #[error("{0}")]
    Failed(String),
}

type Answer = Result<HandedOver, Refused>;

/// What an operator asks of the leader.
#[derive(Debug)]
pub(super) struct Asked {
    to: Node,
    deadline: Instant,
    reply: oneshot::Sender<Answer>,
}

/// A request to the task that leads. One at a time: a second one is refused.
#[derive(Debug, Default)]
pub(super) struct Requests {
    waiting: Mutex<Option<Asked>>,
    /// Wakes the task.
    pub(super) arrived: Notify,
}

impl Requests {
    /// Takes what waits: from here on it is done.
    pub(super) fn take(&self) -> Option<Asked> {
        self.waiting.lock().take()
    }

    /// Refuses what waits.
    pub(super) fn refuse(&self, why: &str) {
        if let Some(asked) = self.take() {
            let _ = asked.reply.send(Err(Refused::Unchanged(why.to_owned()))); // it may have left
        }
    }

    fn enter(&self, asked: Asked) -> bool {
        let mut waiting = self.waiting.lock();
        let is_free = waiting.as_ref().is_none_or(|waiting| waiting.reply.is_closed());
        if is_free {
            *waiting = Some(asked);
        }
        is_free
    }
}

/// How an attempt ended at which nothing changed.
enum Broken {
    /// The replica was not quick enough: it may be at the next attempt.
    Slow,
    /// It makes no sense to go on.
    Off(Refused),
}

impl Pair {
    /// Hands the shard over to another copy. Returns when that leads, or when nothing has changed and will not.
    pub async fn switch_over(&self, to: Node, deadline: Instant) -> Answer {
        let unchanged = |why: String| Err(Refused::Unchanged(why));
        if !self.leads() {
            return unchanged(format!("node {} does not lead shard {} now", self.me.name, self.shard.name));
        }
        let (reply, answer) = oneshot::channel();
        if !self.switchovers.enter(Asked { to, deadline, reply }) {
            return unchanged(format!("shard {} is being handed over already", self.shard.name));
        }
        self.switchovers.arrived.notify_one();
        if !self.leads() {
            self.switchovers.refuse(&format!("node {} does not lead shard {} any more", self.me.name, self.shard.name));
        }
        answer.await.unwrap_or_else(|_| Err(Refused::Failed("the node is stopping".into())))
    }

    /// Does what was asked for.
    pub(super) async fn hand_over(&self, epoch: &Epoch, asked: Asked) {
        let Asked { to, deadline, reply } = asked;
        info!(shard = self.shard.name, to = %to.name, "handing the shard over");
        let result = self.try_to_hand_over(epoch, &to, deadline).await;
        match &result {
            Ok(HandedOver { epoch, end, paused }) => {
                info!(shard = self.shard.name, %epoch, %end, paused_ms = paused.as_millis(), "handed the shard over");
            }
            Err(refused) => {
                warn!(shard = self.shard.name, to = %to.name, detail = %refused, "the shard was not handed over")
            }
        }
        let _ = reply.send(result); // whoever asked may have left
    }

    async fn try_to_hand_over(&self, epoch: &Epoch, to: &Node, deadline: Instant) -> Answer {
        let highest = self.check_target(to).await.map_err(Refused::Unchanged)?;
        let next =
            Epoch { number: highest.max(self.ballot().highest()).max(epoch.number) + 1, leader: to.name.clone() };
        let mut close = CLOSE_ENTRIES;
        loop {
            self.wait_until_close(to, close, deadline).await?;
            self.rehearse_both(to, &next).await.map_err(Refused::Unchanged)?;
            match self.attempt(epoch, to, &next, deadline).await {
                Ok(handed_over) => return Ok(handed_over),
                Err(Broken::Off(refused)) => return Err(refused),
                Err(Broken::Slow) => {
                    close /= 8;
                    sleep(ATTEMPT_PAUSE).await;
                }
            }
        }
    }

    /// Has both ends write something down, and the other say whether anything speaks against leading.
    async fn rehearse_both(&self, to: &Node, next: &Epoch) -> Result<(), String> {
        let (mine, theirs) = tokio::join!(self.rehearse(), self.grant(to, next, true, REHEARSAL_WAIT));
        mine?;
        match theirs {
            Ok(GrantAnswer::Ready) => Ok(()),
            Ok(GrantAnswer::Refused { detail }) => Err(detail),
            Ok(GrantAnswer::Leads) => Err(format!("{} leads in epoch {} already", to.name, next.number)),
            Err(error) => Err(format!("{} does not answer: {error}", to.name)),
        }
    }

    /// Whether the replica could lead; gives the highest epoch's number that it has met.
    async fn check_target(&self, to: &Node) -> Result<u64, String> {
        let (pool, map, local) = (&self.around.pool, &self.around.map, &self.around.local);
        let away = |error: CallError| format!("{} does not answer: {error}", to.name);
        let facts = exchange::ask(pool, map, local, to, QUESTION_WAIT);
        let (facts, copy) = tokio::join!(facts, inspect::ask(pool, map, to, None, QUESTION_WAIT));
        let (facts, copy) = (facts.map_err(away)?, copy.map_err(away)?);
        if copy.state != super::wire::CopyState::Whole {
            return Err(format!("the copy of {} is {}", to.name, copy.state.name()));
        }
        if copy.shard_uid != self.uid() && copy.cursor.is_some() {
            return Err(format!("{} holds other data than this shard's", to.name));
        }
        Ok(facts.highest_of(self.shard.index))
    }

    /// Waits until the replica lacks no more entries than that.
    async fn wait_until_close(&self, to: &Node, entries: u64, deadline: Instant) -> Result<(), Refused> {
        loop {
            let lacks = self.lacking(to);
            if lacks.is_some_and(|lacks| lacks <= entries) {
                return Ok(());
            }
            if !self.leads() {
                return Err(Refused::Unchanged("another takes the shard over at this moment".into()));
            }
            if self.around.clock.now() >= deadline {
                let why = lacks.map_or_else(
                    || format!("{} does not follow this leader", to.name),
                    |lacks| format!("{} cannot keep up: it lacks {lacks} entries", to.name),
                );
                return Err(Refused::Unchanged(format!("time is over: {why}; this node leads on")));
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// How many entries a replica that polls lacks; none: it does not poll, or never did.
    fn lacking(&self, to: &Node) -> Option<u64> {
        let (end, now) = (self.writer.published().end(), self.around.clock.now());
        self.with_leader(|leader| {
            let (_, replica) = leader.replicas().find(|(name, _)| **name == to.name)?;
            let follows = replica.cursor.is_some() && !replica.is_away(now);
            follows.then(|| end.since(replica.acknowledged()))
        })
    }

    /// Holds writes, and hands over when the replica has everything. When it has not soon enough, all goes on as before.
    async fn attempt(&self, epoch: &Epoch, to: &Node, next: &Epoch, deadline: Instant) -> Result<HandedOver, Broken> {
        let began = self.around.clock.now();
        let _changing = self.begin_to_change_hands();
        let failed = |detail: String| Broken::Off(Refused::Failed(detail));
        self.writer.set_mode(Mode::Holding, Facts::default()).await.map_err(|refusal| failed(refusal.to_string()))?;
        // All that was given a seq is durable, and nothing more is given one.
        let end = self.writer.published().end();
        let has_all = timeout(HOLD_MAX.min(deadline.saturating_duration_since(began)), async {
            while self.leads() && self.lacking(to) != Some(0) {
                sleep(LOOK_PAUSE).await;
            }
        });
        if has_all.await.is_err() || self.lacking(to) != Some(0) {
            self.lift(epoch).await.map_err(failed)?;
            return Err(Broken::Slow);
        }
        // From here on this node does not lead, in memory and then durably.
        self.acks.handed_over(next); // before who waits looks at who leads
        if let Err(refused) = self.around.map.yield_to(self.shard.index, epoch, next) {
            self.lift(epoch).await.map_err(failed)?;
            return Err(Broken::Off(Refused::Unchanged(format!(
                "another takes the shard over at this moment: {refused}"
            ))));
        }
        self.keeper.keep().await.map_err(|refusal| failed(refusal.to_string()))?;
        let paused = || self.around.clock.now().saturating_duration_since(began);
        let mut last = "it was not asked in time".to_owned();
        while paused() < PAUSE_MAX {
            match self.grant(to, next, false, PAUSE_MAX.saturating_sub(paused())).await {
                Ok(GrantAnswer::Leads) => {
                    self.around.map.merge(self.shard.index, next);
                    return Ok(HandedOver { epoch: next.clone(), end, paused: paused() });
                }
                Ok(GrantAnswer::Refused { detail }) => last = detail,
                Ok(GrantAnswer::Ready) => last = "it answered another question".into(),
                Err(error) => last = error.to_string(),
            }
            sleep(ATTEMPT_PAUSE / 4).await;
        }
        Err(Broken::Off(Refused::Unconfirmed(format!(
            "node {} has yielded epoch {} to {}, which has not confirmed it: {last}; it is asked until it does, and nobody \
             leads the shard meanwhile",
            self.me.name, next.number, to.name
        ))))
    }

    /// Lets the writes that were held go on here, if this node still leads.
    async fn lift(&self, epoch: &Epoch) -> Result<(), String> {
        let mandate = self.duty.read().mandate.clone();
        let Some(mandate) = mandate.filter(|_| self.duty() == Duty::Leading) else { return Ok(()) };
        let mode = Mode::Leading { epoch: epoch.clone(), incarnation: self.incarnation, mandate };
        self.writer.set_mode(mode, Facts::default()).await.map_err(|refusal| refusal.to_string())
    }

    async fn grant(
        &self,
        to: &Node,
        epoch: &Epoch,
        is_rehearsal: bool,
        wait: Duration,
    ) -> Result<GrantAnswer, CallError> {
        let cursor = self.writer.published().with_history(|history| history.cursor());
        let body = Grant { epoch: epoch.clone(), shard_uid: self.uid(), cursor, is_rehearsal }.encode();
        let ask = Ask {
            node: to,
            class: Class::Request,
            kind: Kind::Grant,
            shard: self.shard.index,
            epoch: self.around.map.epoch_of(self.shard.index),
            request_id: self.around.pool.new_request_id(),
            body,
            answer_wait: wait,
            total_wait: wait,
        };
        Ok(GrantAnswer::decode(self.around.pool.ask(ask).await?)?)
    }

    /// A leader that has yielded, and has not heard whether the other leads, asks it once more; gives what speaks against it.
    pub(super) async fn ask_to_confirm(&self, epoch: &Epoch) -> Option<String> {
        let Some(to) = self.shard.copies.iter().find(|copy| copy.name == epoch.leader) else {
            return Some(format!("this sharding.toml does not name {}", epoch.leader));
        };
        match self.grant(to, epoch, false, QUESTION_WAIT).await {
            Ok(GrantAnswer::Leads) => {
                info!(shard = self.shard.name, %epoch, "the new leader has confirmed");
                self.around.map.merge(self.shard.index, epoch);
                None
            }
            Ok(GrantAnswer::Refused { detail }) => Some(detail),
            Ok(GrantAnswer::Ready) => Some("it answered another question".into()),
            Err(error) => Some(error.to_string()),
        }
    }
}
