//! A replica becomes its shard's leader: by a takeover that an operator ordered, or because the leader hands over.
//!
//! ```text
//!   takeover   survey all nodes ─▶ promise it oneself, durably ─▶ ask all for their promise ─▶ establish, durably ─▶ lead
//!   grant      does this copy hold all that the leader held? ────────────────────────────────▶ establish, durably ─▶ lead
//! ```
//!
//! What happens here only changes what the map says; the task that follows then leads ([`super::roles`]). A takeover that
//! comes to nothing gives its number up, and whoever had promised it learns that in the exchange.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use tracing::{info, warn};

use super::grant::{Grant, GrantAnswer};
use super::takeover::{self, Objection, Plan, Said, Survey};
use super::wire::Inspect;
use super::{Granted, Pair, Surroundings, inspect};
use crate::cluster::canvass::{self, Answer};
use crate::cluster::exchange;
use crate::config::{Node, Shard};
use crate::storage::Role;
use crate::storage::writer::{Facts, Refusal, STALE_AFTER};
use crate::types::seq::seq_of;
use crate::types::{Epoch, NodeName, Seq, ShardIndex};

/// A node that has not said in so long what it knows is silent. What stands still longer than this is taken for gone.
pub const SURVEY_WAIT: Duration = Duration::from_millis(1500);
const _: () =
    assert!(SURVEY_WAIT.as_millis() > STALE_AFTER.as_millis(), "a leader that is taken for gone finds out itself");
/// A node that answered the survey, and has not promised in so long, has not.
const PROMISE_WAIT: Duration = Duration::from_secs(1);
/// The same for one that was silent at the survey: it is asked, and not waited for.
const SILENT_WAIT: Duration = Duration::from_millis(100);
/// From the fact that this node leads to its first write; beyond it, whoever asked is told that it goes on by itself.
const LEAD_WAIT: Duration = Duration::from_secs(5);

/// A takeover that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenOver {
    /// The epoch that began.
    pub epoch: Epoch,
    /// What was known before.
    pub plan: Plan,
    /// The last entry of this copy, at which the new epoch begins.
    pub end: Seq,
    /// Nodes that have promised, this one included.
    pub promised: usize,
    /// Nodes that there are.
    pub nodes: usize,
}

/// Why a takeover was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// All that speaks against it.
    Objections(Vec<Objection>),
    /// It cannot be begun now, or the store failed.
    Failed(String),
}

/// Asks every node what it knows of a shard; `here` is this node's copy of it, if it holds one.
async fn survey(around: &Surroundings, shard: &Shard, here: Option<&Pair>) -> Survey {
    let topology = around.map.topology();
    let asked = join_all(topology.nodes().map(|node| async move {
        let said = if node.name == around.local.name {
            say(around, shard, here).await
        } else {
            ask(around, shard, node).await
        };
        (node.name.clone(), said)
    }));
    let nodes = asked.await.into_iter().collect();
    let copies = shard.copies.iter().map(|copy| copy.name.clone()).collect();
    Survey { epoch: around.map.epoch_or_first(shard), nodes, copies }
}

/// What this node knows.
async fn say(around: &Surroundings, shard: &Shard, here: Option<&Pair>) -> Option<Said> {
    let ballot = around.map.ballot_of(shard.index);
    let copy = match here {
        Some(pair) => pair.answer_inspect(Inspect { key: None }).await.ok(),
        None => None,
    };
    Some(Said { highest: ballot.highest(), promised: ballot.promised().map(|promise| promise.epoch.clone()), copy })
}

/// What another node knows; none: it is silent.
async fn ask(around: &Surroundings, shard: &Shard, node: &Node) -> Option<Said> {
    let Surroundings { pool, map, local, .. } = around;
    let holds_copy = node.shard == shard.index;
    let copy =
        async { if holds_copy { inspect::ask(pool, map, node, None, SURVEY_WAIT).await.map(Some) } else { Ok(None) } };
    let (facts, copy) = tokio::join!(exchange::ask(pool, map, local, node, SURVEY_WAIT), copy);
    let (facts, copy) = (facts.ok()?, copy.ok()?);
    Some(Said {
        highest: facts.highest_of(shard.index),
        promised: facts.promised_of(shard.index).last().cloned(),
        copy,
    })
}

impl Pair {
    /// Asks every node what it knows of a shard.
    pub async fn survey(&self, shard: &Shard) -> Survey {
        survey(&self.around, shard, (shard.index == self.shard.index).then_some(self)).await
    }

    /// Promises not to lead and not to follow below an epoch of any shard; durable when it returns.
    pub async fn promise(&self, shard: ShardIndex, epoch: &Epoch) -> Answer {
        if let Err(refused) = self.around.map.promise(shard, epoch) {
            return Answer::refused(&refused);
        }
        if let Err(refusal) = self.keeper.keep().await {
            return Answer::Refused {
                detail: format!("node {} cannot write its promise down: {refusal}", self.me.name),
            };
        }
        info!(shard = %shard, %epoch, "promised to let a node lead");
        Answer::Given { end: (shard == self.shard.index).then(|| self.writer.published().end()) }
    }

    /// Takes the shard over. Whoever asked for it may leave: it must be carried to its end.
    pub async fn take_over(&self, force: bool) -> Result<TakenOver, Refused> {
        let Ok(_one) = self.taking_over.try_lock() else {
            return Err(Refused::Failed(format!("node {} is taking the shard over already", self.me.name)));
        };
        let survey = self.survey(&self.shard).await;
        let plan = survey.plan(&self.shard, &self.me.name);
        judge(&plan.objections, force)?;
        let (shard, epoch) = (self.shard.index, plan.epoch.clone());
        warn!(shard = self.shard.name, %epoch, silent = ?plan.silent, force, "taking the shard over");
        if let Answer::Refused { detail } = self.promise(shard, &epoch).await {
            self.give_up(&epoch).await;
            return Err(Refused::Failed(detail));
        }
        let answers = self.ask_promises(&plan).await;
        if let Err(refused) = judge(&takeover::count(&survey, &self.me.name, &answers), force) {
            self.give_up(&epoch).await;
            return Err(refused);
        }
        let promised = 1 + answers.values().filter(|answer| matches!(answer, Some(Answer::Given { .. }))).count();
        match self.begin_epoch(&epoch).await {
            Ok(()) => {}
            // It may be in the file that this node leads. So nothing is given up, and whoever has promised waits, until a
            // restart has read what the file says: a leader that went on meanwhile would be fenced by it.
            Err(NotBegun::Unknown(detail)) => {
                return Err(Refused::Failed(format!(
                    "whether node {} leads in epoch {} is not known before it is restarted: {detail}",
                    self.me.name, epoch.number
                )));
            }
            Err(NotBegun::No(detail)) => {
                self.give_up(&epoch).await;
                return Err(Refused::Failed(detail));
            }
        }
        let end = self.writer.published().end();
        warn!(shard = self.shard.name, %epoch, %end, last_known = %plan.last_known, promised, "took the shard over");
        Ok(TakenOver { epoch, end, promised, nodes: survey.nodes.len(), plan })
    }

    /// Asks every other node for its promise.
    async fn ask_promises(&self, plan: &Plan) -> BTreeMap<NodeName, Option<Answer>> {
        let topology = self.around.map.topology();
        let others = topology.nodes().filter(|node| node.name != self.me.name);
        let asked = join_all(others.map(|node| async move {
            let wait = if plan.silent.contains(&node.name) { SILENT_WAIT } else { PROMISE_WAIT };
            let Surroundings { pool, map, .. } = &self.around;
            let answer = canvass::ask(pool, map, node, self.shard.index, &plan.epoch, wait).await;
            (node.name.clone(), answer.ok())
        }));
        asked.await.into_iter().collect()
    }

    /// This node will never lead in this epoch: whoever has promised it is free when it hears that.
    async fn give_up(&self, epoch: &Epoch) {
        self.around.map.release(self.shard.index, epoch);
        if let Err(refusal) = self.keeper.keep().await {
            warn!(shard = self.shard.name, detail = %refusal, "cannot write down that a takeover came to nothing");
        }
    }

    /// Makes it durable that this node leads in this epoch, and waits until it does.
    async fn begin_epoch(&self, epoch: &Epoch) -> Result<(), NotBegun> {
        let _changing = self.begin_to_change_hands(); // others may hear of the epoch before this node takes writes
        *self.told_to_lead.lock() = Some(epoch.clone());
        self.establish(epoch).await.map_err(|refusal| match refusal {
            Refusal::Unknown(_) => NotBegun::Unknown(refusal.to_string()),
            _ => NotBegun::No(refusal.to_string()),
        })?;
        if self.wait_until_leading(epoch, LEAD_WAIT).await {
            return Ok(());
        }
        if let Some(higher) = self.ballot().established().filter(|established| *established > epoch) {
            return Err(NotBegun::No(format!("epoch {higher} is established by now")));
        }
        warn!(shard = self.shard.name, %epoch, "leads by what is established, and takes no writes yet");
        Ok(())
    }

    /// The leader hands over: this node leads from now on, if its copy holds all that the leader's holds.
    pub async fn accept_grant(&self, from: &NodeName, grant: Grant) -> GrantAnswer {
        let Ok(_one) = self.taking_over.try_lock() else {
            return GrantAnswer::Refused { detail: format!("node {} is about to lead already", self.me.name) };
        };
        if self.ballot().established() == Some(&grant.epoch) {
            return GrantAnswer::Leads; // it was told before, and the answer was lost
        }
        let accepted = match self.check_grant(&grant) {
            Err(detail) => Err(detail),
            Ok(()) if grant.is_rehearsal => self.prepare(&grant.epoch).await.map(|()| GrantAnswer::Ready),
            Ok(()) => {
                let Grant { epoch, cursor, .. } = grant;
                *self.granted.lock() = Some(Granted { epoch: epoch.clone(), by: from.clone(), cursor });
                match self.begin_epoch(&epoch).await {
                    Ok(()) => Ok(GrantAnswer::Leads),
                    Err(NotBegun::No(detail) | NotBegun::Unknown(detail)) => Err(detail),
                }
            }
        };
        accepted.unwrap_or_else(|detail| GrantAnswer::Refused { detail })
    }

    /// What speaks against leading by this grant.
    fn check_grant(&self, grant: &Grant) -> Result<(), String> {
        let Grant { epoch, shard_uid, cursor, is_rehearsal } = grant;
        let (me, ballot) = (&self.me.name, self.ballot());
        if epoch.leader != *me {
            return Err(format!("this is node {me}, not {}", epoch.leader));
        }
        ballot.check_grant(epoch).map_err(|refused| format!("at node {me}, {refused}"))?;
        if self.writer.published().is_failed() {
            return Err(format!("the store of node {me} has failed"));
        }
        if self.settles_at.lock().is_some() {
            return Err(format!("the copy of node {me} was rewound, and is not whole yet"));
        }
        let mine = self.writer.published().with_history(|history| history.cursor());
        let holds_all = (self.uid(), &mine) == (*shard_uid, cursor);
        if !is_rehearsal && !holds_all {
            let (mine, theirs) = (seq_of(mine.as_ref()), seq_of(cursor.as_ref()));
            return Err(format!("the copy of node {me} ends at {mine}, the leader's at {theirs}"));
        }
        Ok(())
    }

    /// Gets ready to be granted an epoch. Its number is written down: should the leader die when it has yielded, and an
    /// operator let a third node lead, that one goes above it, and what was yielded is over.
    async fn prepare(&self, epoch: &Epoch) -> Result<(), String> {
        self.around.map.meet(self.shard.index, epoch.number);
        self.keeper.keep().await.map_err(|refusal| refusal.to_string())?;
        self.rehearse().await
    }

    /// Writes something down that changes nothing: what keeps the file busy for longer is over when that is done, and writes
    /// will not have to wait for it.
    pub(super) async fn rehearse(&self) -> Result<(), String> {
        let role = if self.leads() { Role::Leader } else { Role::Replica };
        let facts = Facts { role: Some(role), ..Facts::default() };
        self.writer.note(facts).await.map_err(|refusal| refusal.to_string())
    }
}

/// Why an epoch was not begun.
#[derive(Debug)]
enum NotBegun {
    /// It was not, and will not be.
    No(String),
    /// The commit failed: the file may say that it was (rule 9).
    Unknown(String),
}

/// What speaks against it, unless it can be forced and is.
fn judge(objections: &[Objection], force: bool) -> Result<(), Refused> {
    let standing: Vec<Objection> =
        objections.iter().filter(|objection| !(force && objection.can_be_forced)).cloned().collect();
    if standing.is_empty() { Ok(()) } else { Err(Refused::Objections(standing)) }
}
