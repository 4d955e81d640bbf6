//! A leader begins to lead: it asks all nodes whether they know a higher epoch (rule 18), and its copies what they hold,
//! before its first write (rule 13), draws the uid if that is missing (rule 1), and stops when a replica shows that it has
//! lost data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::leader::Mine;
use super::opening::{self, Count, Holding, Opening, Word};
use super::wire::Inspection;
use super::{Duty, Granted, Halt, Held, Pair, Surroundings, inspect};
use crate::cluster::{Part, exchange};
use crate::config::{Node, StartAlone};
use crate::peer::CallError;
use crate::storage::Role;
use crate::storage::writer::{Facts, Leave, Mode, Refusal, STALE_AFTER};
use crate::types::{ClusterUid, Epoch, NodeName, ShardUid};

/// How long an opening leader waits for its copies (rule 13).
const OPENING_WAIT: Duration = Duration::from_secs(2);
/// One question of the opening; a silent node is asked again until [`OPENING_WAIT`] is over.
const QUESTION_WAIT: Duration = Duration::from_millis(500);
/// Between two questions to a node that refuses connections.
const QUESTION_PAUSE: Duration = Duration::from_millis(50);
/// A halted leader asks again in so long: its operator may have decided.
const HALTED_PAUSE: Duration = Duration::from_secs(1);
/// A leader that finds its shard promised to another asks again in so long.
const PROMISED_PAUSE: Duration = Duration::from_millis(200);
/// A leader's leave to take writes is renewed so often.
const RENEW_PAUSE: Duration = Duration::from_millis(100);
const _: () = assert!(RENEW_PAUSE.as_millis() * 5 < STALE_AFTER.as_millis(), "a busy machine is no reason to ask");
/// Between two looks at whether the cluster's uid is known and written down.
const CLUSTER_UID_PAUSE: Duration = Duration::from_millis(100);

/// What was heard while a leader begins.
#[derive(Debug, Default)]
struct Answers {
    copies: BTreeMap<NodeName, Option<Holding>>,
    has_warned: bool,
}

impl Answers {
    /// Says why nothing happens, once.
    fn warn_once(&mut self, warn: impl FnOnce()) {
        if !std::mem::replace(&mut self.has_warned, true) {
            warn();
        }
    }
}

/// Whether a node may lead.
#[derive(Debug)]
enum MayLead {
    /// It may, without having heard from these copies.
    Yes { silent: Vec<NodeName> },
    /// It asks again in so long.
    NotYet(Duration),
}

impl Pair {
    /// Leads the shard in this epoch, once nothing speaks against it, until the map gives this node another part, or the
    /// store fails. When a replica shows that this leader has lost data, it stops taking writes and asks again.
    pub(super) async fn lead(&self, epoch: &Epoch) {
        let part = Part::Lead(epoch.clone());
        self.enter_duty(Duty::Starting);
        let mut answers = Answers::default();
        loop {
            let may_lead = tokio::select! {
                () = self.other_part(&part) => return,
                may_lead = self.find_out(epoch, &mut answers) => may_lead,
            };
            match may_lead {
                MayLead::Yes { silent } => {
                    if !self.begin_to_lead(epoch, &silent).await {
                        return; // the store has failed, or another leads
                    }
                    let goes_on = tokio::select! {
                        goes_on = self.reign(&part) => goes_on,
                        () = self.keep_mandate(epoch) => false,
                    };
                    if !goes_on {
                        return;
                    }
                }
                MayLead::NotYet(pause) => {
                    tokio::select! {
                        () = self.other_part(&part) => return,
                        () = sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// Leads, and does what an operator asks of a leader; true when a replica has shown that this leader lost data, false
    /// when another part came up.
    async fn reign(&self, part: &Part) -> bool {
        loop {
            let asked = tokio::select! {
                () = self.other_part_or_leave(part) => break,
                () = self.halted.notified() => return true,
                () = self.switchovers.arrived.notified() => self.switchovers.take(),
            };
            if let (Some(asked), Part::Lead(epoch)) = (asked, part) {
                self.hand_over(epoch, asked).await; // never broken off: it knows itself what speaks against going on
            }
        }
        self.switchovers.refuse(&format!("node {} does not lead shard {} any more", self.me.name, self.shard.name));
        false
    }

    /// Renews this leader's leave to take writes, for as long as it leads. When the process stood still for so long that others
    /// may have taken it for gone, it asks first, as at a start (rule 18); what came to it meanwhile waits for that.
    async fn keep_mandate(&self, epoch: &Epoch) {
        let mandate = self.duty.read().mandate.clone();
        let Some(mandate) = mandate else { return std::future::pending().await };
        loop {
            sleep(RENEW_PAUSE).await;
            if mandate.leave(self.around.clock.now()) == Leave::Stale {
                warn!(shard = self.shard.name, "this process stood still: asking whether another leads by now");
                self.ask_again(epoch).await;
            }
            mandate.renew(self.around.clock.now());
        }
    }

    /// Asks all nodes until nothing speaks against leading. What is established elsewhere ends this leader's leave by itself.
    async fn ask_again(&self, epoch: &Epoch) {
        let nodes = self.around.map.topology().nodes().count();
        loop {
            match opening::count(&self.ask_nodes(epoch).await, nodes) {
                Count::Majority => return,
                Count::Minority { .. } if self.around.settings.start_alone == StartAlone::Lead => return,
                Count::Minority { .. } | Count::Promised { .. } => sleep(PROMISED_PAUSE).await,
            }
        }
    }

    /// Finds out whether this node may lead: nothing higher is known to a majority of all nodes (rule 18), and no copy holds
    /// what this one lacks (rule 13). Whoever was just told to lead has found out already.
    async fn find_out(&self, epoch: &Epoch, answers: &mut Answers) -> MayLead {
        if self.told_to_lead.lock().take_if(|told| told == epoch).is_some() {
            return MayLead::Yes { silent: Vec::new() };
        }
        answers.copies.extend(self.shown.lock().take().map(|(name, holding)| (name, Some(holding))));
        let (words, heard) = tokio::join!(self.ask_nodes(epoch), self.ask_copies());
        for (name, heard) in heard {
            let known = answers.copies.entry(name).or_insert(None);
            *known = heard.or(known.take()); // what was heard once holds until it is heard otherwise
        }
        let silent = match self.judge_opening(&answers.copies) {
            Opening::Lead { silent } => silent,
            Opening::LostData { copies, detail } => {
                self.halt(&copies, &detail).await;
                return MayLead::NotYet(HALTED_PAUSE);
            }
        };
        let nodes = self.around.map.topology().nodes().count();
        let waits = self.around.settings.start_alone == StartAlone::Wait;
        match opening::count(&words, nodes) {
            Count::Majority => {}
            Count::Promised { by, epoch } => {
                answers.warn_once(|| {
                    warn!(shard = self.shard.name, node = %by, %epoch, "not leading: that node has promised the shard to another; \
                        this ends when that one leads or gives up");
                });
                return MayLead::NotYet(PROMISED_PAUSE);
            }
            Count::Minority { silent } if waits => {
                answers.warn_once(|| {
                    warn!(shard = self.shard.name, ?silent, "start_alone = \"wait\": taking no writes before a majority of all \
                        nodes answers; start them, or set start_alone = \"lead\" and restart this node, or choose who leads: \
                        kv shard takeover {} --to {} --force", self.shard.name, self.me.name);
                });
                return MayLead::NotYet(HALTED_PAUSE);
            }
            Count::Minority { silent } => {
                warn!(
                    shard = self.shard.name,
                    ?silent,
                    "no majority of all nodes answers: leading all the same (start_alone), \
                    without knowing whether another leads by now; what is written is at risk"
                );
            }
        }
        if waits && silent.len() * 2 >= self.shard.copies.len() {
            answers.warn_once(|| {
                warn!(
                    shard = self.shard.name,
                    ?silent,
                    "start_alone = \"wait\": taking no writes before more copies answer; start \
                    them, or set start_alone = \"lead\" and restart this node"
                );
            });
            return MayLead::NotYet(HALTED_PAUSE);
        }
        MayLead::Yes { silent }
    }

    /// Asks every other node whether it knows a higher epoch (rule 18), until a majority has said that it does not, at most
    /// [`OPENING_WAIT`]. What is established is in the map then, and this node's part another.
    async fn ask_nodes(&self, epoch: &Epoch) -> BTreeMap<NodeName, Word> {
        let topology = Arc::clone(self.around.map.topology());
        let others: Vec<&Node> = topology.nodes().filter(|node| node.name != self.me.name).collect();
        let mut words: BTreeMap<NodeName, Word> = others.iter().map(|node| (node.name.clone(), Word::Silent)).collect();
        let mut asking: FuturesUnordered<_> = others
            .into_iter()
            .map(|node| async move { (node, ask_until_heard(|| self.ask_facts(node)).await) })
            .collect();
        while opening::count(&words, words.len() + 1) != Count::Majority
            && let Some((node, heard)) = asking.next().await
        {
            if let Some(facts) = heard {
                words.insert(node.name.clone(), opening::word(&facts, self.shard.index, epoch));
            }
        }
        words
    }

    async fn ask_facts(&self, node: &Node) -> Result<exchange::Facts, CallError> {
        let Surroundings { pool, map, local, .. } = &self.around;
        exchange::ask(pool, map, local, node, QUESTION_WAIT).await
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
                // One who does not lead any more tells nobody: its successor asks all, this node too, before it draws another.
                Ok(()) if self.around.local.cluster().is_some() || self.is_leading() => {
                    self.around.local.adopt(uid);
                }
                Ok(()) => {}
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

    /// Makes it durable that this node leads in this epoch, with what the copy is then, in one commit, or none where the file
    /// says so already: while a shard changes hands, writes wait for it.
    pub(super) async fn establish(&self, epoch: &Epoch) -> Result<(), Refusal> {
        let uid = *self.uid.write().get_or_insert_with(|| ShardUid(self.around.random.id()));
        let facts = Facts {
            shard_uid: Some(uid),
            cluster_uid: self.around.local.cluster(),
            epoch: Some(epoch.clone()),
            role: Some(Role::Leader),
            ..Facts::default()
        };
        let says_so = self.engine().state().is_ok_and(|state| {
            let said = (state.shard_uid, state.cluster_uid, state.epoch, state.role);
            said == (facts.shard_uid, facts.cluster_uid, facts.epoch.clone(), facts.role)
        });
        let facts = if says_so { Facts::default() } else { facts };
        self.keeper.establish(self.shard.index, epoch, facts).await
    }

    /// Opens the shard for writes; false when the store does not take even that, or another leads by now.
    async fn begin_to_lead(&self, epoch: &Epoch, silent: &[NodeName]) -> bool {
        for name in silent {
            warn!(shard = self.shard.name, replica = %name, "a replica is silent: leading without knowing what it holds");
        }
        let leading = async {
            self.establish(epoch).await?;
            let Some(mandate) = self.around.map.mandate(&self.shard, &self.me.name, epoch, self.around.clock.now())
            else {
                return Ok(false);
            };
            let mode = Mode::Leading { epoch: epoch.clone(), incarnation: self.incarnation, mandate: mandate.clone() };
            self.begin_view(epoch);
            self.writer.set_mode(mode, Facts::default()).await?;
            self.enter_duty_with(Duty::Leading, Some(mandate));
            Ok::<bool, Refusal>(true)
        };
        match leading.await {
            Ok(true) => {
                self.around.map.announcements.notify_one();
                info!(shard = self.shard.name, %epoch, end = self.writer.published().end().0, "leading");
                true
            }
            Ok(false) => false,
            Err(refusal) => {
                error!(shard = self.shard.name, detail = %refusal, "cannot lead: the store does not take it");
                false
            }
        }
    }

    /// From here on the view of the replicas is that of this leadership. Nothing is known of them before they poll, save of
    /// the leader that handed over.
    fn begin_view(&self, epoch: &Epoch) {
        let (end, now) = (self.writer.published().end(), self.around.clock.now());
        let granted = self.granted.lock().take().filter(|granted| granted.epoch == *epoch);
        let mut leader = self.leader.lock();
        leader.begin(epoch, end, now);
        if let Some(Granted { by, cursor, .. }) = granted {
            leader.was_handed_over(&by, cursor, now);
        }
        self.acknowledged.store(leader.greatest_acknowledged().0, Ordering::Release);
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
            *held = Held { duty, since: self.around.clock.now(), mandate: None };
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
