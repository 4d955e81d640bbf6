//! A leader begins to lead: it asks its copies what they hold before its first write (rule 13), draws the uid if that is
//! missing (rule 1), and stops when a replica shows that it has lost data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::leader::Mine;
use super::opening::{self, Holding, Opening};
use super::wire::Inspection;
use super::{Duty, Halt, Held, Pair, inspect};
use crate::config::{Node, StartAlone};
use crate::peer::CallError;
use crate::storage::Role;
use crate::storage::writer::{Facts, Mode};
use crate::types::{ClusterUid, Epoch, NodeName, ShardUid};

/// How long an opening leader waits for its copies (rule 13).
const OPENING_WAIT: Duration = Duration::from_secs(2);
/// One question of the opening; a silent node is asked again until [`OPENING_WAIT`] is over.
const QUESTION_WAIT: Duration = Duration::from_millis(500);
/// Between two questions to a node that refuses connections.
const QUESTION_PAUSE: Duration = Duration::from_millis(50);
/// A halted leader asks again in so long: its operator may have decided.
const HALTED_PAUSE: Duration = Duration::from_secs(1);
/// Between two looks at whether the cluster's uid is known and written down.
const CLUSTER_UID_PAUSE: Duration = Duration::from_millis(100);

impl Pair {
    /// Leads the shard, once nothing speaks against it, for as long as the node runs. When a replica shows later that
    /// this leader has lost data, it stops taking writes and asks again.
    pub async fn lead(self: Arc<Self>) {
        let mut answers: BTreeMap<NodeName, Option<Holding>> = BTreeMap::new();
        let mut has_warned = false;
        loop {
            answers.extend(self.shown.lock().take().map(|(name, holding)| (name, Some(holding))));
            for (name, heard) in self.ask_copies().await {
                let known = answers.entry(name).or_insert(None);
                *known = heard.or(known.take()); // what was heard once holds until it is heard otherwise
            }
            match self.judge_opening(&answers) {
                Opening::Lead { silent } if self.must_wait_for(&silent) => {
                    if !std::mem::replace(&mut has_warned, true) {
                        warn!(
                            shard = self.shard.name,
                            ?silent,
                            "start_alone = \"wait\": taking no writes before more copies \
                            answer; start them, or set start_alone = \"lead\" and restart this node"
                        );
                    }
                    sleep(HALTED_PAUSE).await;
                }
                Opening::Lead { silent } => {
                    if !self.begin_to_lead(&silent).await {
                        return; // the store has failed: nothing changes that but a restart
                    }
                    self.halted.notified().await;
                }
                Opening::LostData { copies, detail } => {
                    self.halt(&copies, &detail).await;
                    sleep(HALTED_PAUSE).await;
                }
            }
        }
    }

    /// Whether `start_alone` forbids to lead without these copies: it says `wait`, and a majority of the shard's copies,
    /// this one included, cannot be had.
    fn must_wait_for(&self, silent: &[NodeName]) -> bool {
        let copies = self.shard.copies.len();
        self.around.settings.start_alone == StartAlone::Wait && (copies - silent.len()) * 2 <= copies
    }

    /// Asks every copy what it holds.
    async fn ask_copies(&self) -> Vec<(NodeName, Option<Holding>)> {
        let copies = self.replicas().map(|node| async move {
            let holding = ask_until_heard(|| self.ask_holding(node)).await;
            (node.name.clone(), holding)
        });
        join_all(copies).await
    }

    /// Every other copy of the shard.
    fn replicas(&self) -> impl Iterator<Item = &Node> {
        self.shard.copies.iter().filter(|copy| copy.name != self.me.name)
    }

    async fn ask_holding(&self, node: &Node) -> Result<Holding, CallError> {
        let (pool, map) = (&self.around.pool, &self.around.map);
        let Inspection { shard_uid, cursor, .. } = inspect::ask(pool, map, node, None, QUESTION_WAIT).await?;
        Ok(Holding { shard_uid, cursor })
    }

    /// Draws the cluster's uid if that is on this leader, and writes it down once it is known; ends then. One that was drawn
    /// is told to nobody before it is durable: a cluster that was restarted a moment later would have two.
    pub async fn keep_cluster_uid(self: Arc<Self>) {
        while !self.writer.published().is_failed() {
            sleep(CLUSTER_UID_PAUSE).await;
            let draws = self.around.map.uid_is_drawn_by(self.shard.index) && self.is_leading();
            let drawn = || draws.then(|| ClusterUid(self.around.random.id()));
            let Some(uid) = self.around.local.cluster().or_else(drawn) else { continue };
            if self.engine().state().is_ok_and(|state| state.cluster_uid == Some(uid)) {
                return;
            }
            match self.writer.note(Facts { cluster_uid: Some(uid), ..Facts::default() }).await {
                Ok(()) => {
                    self.around.local.adopt(uid);
                }
                Err(refusal) => {
                    warn!(shard = self.shard.name, detail = %refusal, "cannot write the cluster's uid down yet");
                    sleep(HALTED_PAUSE).await;
                }
            }
        }
    }

    fn judge_opening(&self, answers: &BTreeMap<NodeName, Option<Holding>>) -> Opening {
        let epoch = self.epoch();
        self.writer
            .published()
            .with_history(|history| opening::judge(Mine { shard_uid: self.uid(), epoch: &epoch, history }, answers))
    }

    /// The epoch in which this copy leads, or knows that another does.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        let first = || Epoch::first(self.shard.first_leader().name.clone());
        self.around.map.epoch_of(self.shard.index).unwrap_or_else(first)
    }

    /// Opens the shard for writes; false when the store does not take even that.
    async fn begin_to_lead(&self, silent: &[NodeName]) -> bool {
        for name in silent {
            warn!(shard = self.shard.name, replica = %name, "a replica is silent: leading without knowing what it holds");
        }
        let uid = *self.uid.write().get_or_insert_with(|| ShardUid(self.around.random.id()));
        let epoch = self.epoch();
        let facts = Facts {
            shard_uid: Some(uid),
            cluster_uid: self.around.local.cluster(),
            epoch: Some(epoch.clone()),
            role: Some(Role::Leader),
            ..Facts::default()
        };
        let mode = Mode::Leading { epoch: epoch.clone(), incarnation: self.incarnation };
        match self.writer.set_mode(mode, facts).await {
            Ok(()) => {
                self.enter_duty(Duty::Leading);
                info!(shard = self.shard.name, %epoch, end = self.writer.published().end().0, "leading");
                true
            }
            Err(refusal) => {
                error!(shard = self.shard.name, detail = %refusal, "cannot lead: the store does not take it");
                false
            }
        }
    }

    /// Stops taking writes: this leader's file lacks what these copies hold.
    async fn halt(&self, copies: &[NodeName], detail: &str) {
        let resets: Vec<String> = copies.iter().map(|copy| format!("kv replica reset {copy}")).collect();
        let halt = Halt {
            why: format!("this leader has lost data: {detail}"),
            next: format!(
                "stop it and a replica that holds the data, copy the replica's file to this leader's place, and start both; \
                 or throw away what it lost: {}",
                resets.join("; ")
            ),
        };
        if self.duty() != Duty::Halted(halt.clone()) {
            error!(shard = self.shard.name, detail = %halt, "leader lost data: it takes no writes");
        }
        self.enter_duty(Duty::Halted(halt.clone()));
        // A refusal here means that the writer takes nothing anyway.
        let _ = self.writer.set_mode(Mode::Closed(halt.to_string()), Facts::default()).await;
    }

    /// A poll has shown that this leader lost data: closes the door at once, and wakes the task that leads. What it showed
    /// counts as heard, for the copy that showed it may be out of reach when it is asked.
    pub(super) fn halt_soon(&self, detail: &str, shown_by: (NodeName, Holding)) {
        let mut held = self.duty.write();
        if held.duty == Duty::Leading {
            *self.shown.lock() = Some(shown_by);
            let next = "the node is asking its replicas what they hold; kv status says more in a moment".into();
            let duty = Duty::Halted(Halt { why: format!("this leader has lost data: {detail}"), next });
            *held = Held { duty, since: self.around.clock.now() };
            self.halted.notify_one();
        }
    }
}

/// Asks until there is an answer, at most [`OPENING_WAIT`].
async fn ask_until_heard<T, F, Fut>(ask: F) -> Option<T>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, CallError>>,
{
    let asking = async {
        loop {
            if let Ok(answer) = ask().await {
                return answer;
            }
            sleep(QUESTION_PAUSE).await;
        }
    };
    timeout(OPENING_WAIT, asking).await.ok()
}
