//! What a copy does changes while its node runs: it leads, follows, or stands aside, as the map says (rules 15 and 17).
//!
//! ```text
//!                    ┌─ lead ────────── another epoch is established, or promised ──┐
//!   the map's part ──┼─ follow ──────── this node leads ────────────────────────────┼─▶ look again
//!                    └─ stand aside ─── the promise is over, or another leads ──────┘
//! ```
//!
//! One task does all of it, so a copy never does two of these at once. Each begins by telling the writer, whose queue holds
//! the order: what was queued before counts, what comes behind is refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::warn;

use super::{Duty, Follower, Halt, Leader, Pair};
use crate::cluster::{Aside, Ballot, Part};
use crate::storage::Role;
use crate::storage::writer::{Facts, Leave, Mode};
use crate::types::Epoch;

/// A leader that has handed its shard over asks the new one again in so long, until that has confirmed it.
const CONFIRM_PAUSE: Duration = Duration::from_millis(300);

impl Pair {
    /// Does this node's part for the shard, for as long as the node runs. Ends with a store that has failed: nothing changes
    /// that but a restart.
    pub async fn run(self: Arc<Self>) {
        while !self.writer.published().is_failed() {
            match self.part() {
                Part::Lead(epoch) => self.lead(&epoch).await,
                Part::Follow => self.follow().await,
                Part::StandAside(aside) => self.stand_aside(aside).await,
            }
        }
    }

    /// What the map says that this node is to do.
    pub(super) fn part(&self) -> Part {
        self.around.map.part_of(&self.shard, &self.me.name)
    }

    /// Waits until the map gives this node another part than this one.
    pub(super) async fn other_part(&self, part: &Part) {
        self.until_news(|| self.part() != *part).await;
    }

    /// The same for a leader, whose leave may have ended although its part is the same again: a promise that was given and
    /// taken back while this task was busy. It begins anew then.
    pub(super) async fn other_part_or_leave(&self, part: &Part) {
        let has_ended = || self.duty.read().mandate.as_ref().is_some_and(|mandate| !mandate.holds());
        self.until_news(|| self.part() != *part || has_ended()).await;
    }

    /// Waits until more is known about who leads, or is promised, than this.
    pub(super) async fn news_since(&self, known: &Ballot) {
        self.until_news(|| !self.ballot().agrees_with(known)).await;
    }

    async fn until_news(&self, has_come: impl Fn() -> bool) {
        let mut news = self.around.map.subscribe();
        while !has_come() {
            if news.changed().await.is_err() {
                std::future::pending::<()>().await; // the map is gone, and so will this task be
            }
        }
    }

    /// The replicas begin anew with each leadership: what they acknowledged to another says nothing to this one.
    pub(super) fn forget_replicas(&self) {
        let others = self.shard.copies.iter().filter(|copy| copy.name != self.me.name).map(|copy| copy.name.clone());
        let view = std::mem::replace(&mut *self.leader.lock(), Leader::new(others, &[]));
        self.acks.remember(view);
    }

    /// A leader's copy is whole, whatever it does next.
    pub(super) fn forget_following(&self) {
        *self.follower.lock() = Follower::new(true);
    }

    /// Neither leads nor follows, until the map says otherwise.
    async fn stand_aside(&self, aside: Aside) {
        let halt = self.reason(&aside);
        let role = Facts { role: Some(Role::Replica), ..Facts::default() };
        let closed = Mode::Closed(halt.why.clone());
        if self.duty() == Duty::Leading {
            self.forget_following();
        }
        if self.enter_duty(Duty::StandingAside(halt.clone())) {
            warn!(shard = self.shard.name, detail = %halt, "standing aside");
        }
        if self.writer.set_mode(closed, role).await.is_err() {
            return; // the store has failed
        }
        self.forget_replicas();
        let part = Part::StandAside(aside.clone());
        while self.part() == part {
            let pause = match &aside {
                Aside::Yielded(to) => {
                    if let Some(detail) = self.ask_to_confirm(to).await {
                        let why = format!("{}: {detail}", halt.why);
                        self.enter_duty(Duty::StandingAside(Halt { why, next: halt.next.clone() }));
                    }
                    CONFIRM_PAUSE
                }
                Aside::Promised(_) | Aside::LeaderUnknown(_) => Duration::MAX,
            };
            tokio::select! {
                () = self.other_part(&part) => {}
                () = sleep(pause) => {}
            }
        }
    }

    fn reason(&self, aside: &Aside) -> Halt {
        let (shard, me) = (&self.shard.name, &self.me.name);
        let takeover = format!("kv shard takeover {shard} --to {me}");
        match aside {
            Aside::Promised(Epoch { number, leader }) => Halt {
                why: format!("node {me} has promised {leader} to let it lead shard {shard} in epoch {number}"),
                next: format!(
                    "that ends by itself when the takeover does; if {leader} is gone, choose who leads: {takeover} --force"
                ),
            },
            Aside::Yielded(Epoch { number, leader }) => Halt {
                why: format!(
                    "node {me} has handed shard {shard} over to {leader} (epoch {number}), which has not confirmed it yet"
                ),
                next: format!("start {leader}; if it is gone for good, take the shard back: {takeover} --force"),
            },
            Aside::LeaderUnknown(Epoch { number, leader }) => Halt {
                why: format!(
                    "shard {shard} is led by {leader} (epoch {number}), which this node's sharding.toml does not name"
                ),
                next: format!("give this node the file that names it, or choose who leads: {takeover}"),
            },
        }
    }

    /// From here on what comes to this node for the shard waits, instead of being refused, until the guard is dropped.
    pub(super) fn begin_to_change_hands(&self) -> ChangingHands<'_> {
        self.changing_hands.send_modify(|count| *count += 1);
        ChangingHands(self)
    }

    /// Whether it will be known in a moment who leads: the shard is changing hands, or this process stood still and asks.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        *self.changing_hands.borrow() > 0 || self.leave() == Some(Leave::Stale)
    }

    /// Waits until that is known, at most so long; false when it was, or is not in time.
    pub async fn wait_until_settled(&self, at_most: Duration) -> bool {
        /// Between two looks at a leave that is stale.
        const LOOK_PAUSE: Duration = Duration::from_millis(5);
        if !self.is_unsettled() {
            return false;
        }
        let mut changing = self.changing_hands.subscribe();
        let settled = async {
            while self.is_unsettled() {
                tokio::select! {
                    _ = changing.changed() => {}
                    () = sleep(LOOK_PAUSE), if self.leave() == Some(Leave::Stale) => {}
                }
            }
        };
        timeout(at_most, settled).await.is_ok()
    }

    /// Waits until this copy leads in this epoch or a higher one, at most so long.
    pub(super) async fn wait_until_leading(&self, epoch: &Epoch, at_most: Duration) -> bool {
        /// Between two looks.
        const LOOK_PAUSE: Duration = Duration::from_millis(1);
        let leading = async {
            while !(self.is_leading() && self.epoch() >= *epoch) {
                sleep(LOOK_PAUSE).await;
            }
        };
        timeout(at_most, leading).await.is_ok()
    }
}

/// A change of hands under way.
#[derive(Debug)]
pub(super) struct ChangingHands<'p>(&'p Pair);

impl Drop for ChangingHands<'_> {
    fn drop(&mut self) {
        self.0.changing_hands.send_modify(|count| *count -= 1);
    }
}
