//! What an operator asks about who leads a shard: to hand it over, to take it over, and what a takeover would cost.
//!
//! A plan is made by any node. A switchover is done by the leader, a takeover by the copy that is to lead; any other node
//! says whom to ask.

use std::sync::Arc;
use std::time::Instant;

use super::Store;
use super::operate::Refused;
use super::view::{HandedOver, ObjectionView, PlanCopy, TakenOver, TakeoverPlan};
use crate::clock::millis;
use crate::config::{Node, Shard};
use crate::replication::pair::Pair;
use crate::replication::pair::promote::{self, Refused as NotTaken};
use crate::replication::pair::switchover::{self, Refused as NotHandedOver};
use crate::replication::pair::takeover::{Objection, Plan, Survey};
use crate::types::Seq;
use crate::types::seq::seq_of;

impl Store {
    /// What a takeover would come to, by the copy that is named, or by the one that holds the most.
    pub async fn takeover_plan(&self, shard: &str, to: Option<&str>) -> Result<TakeoverPlan, Refused> {
        let shard = self.shard_named(shard)?;
        let named = to.map(|to| self.node_named(to)).transpose()?;
        let pair = self.any_copy()?;
        let survey = pair.survey(shard).await;
        let best = survey.best().and_then(|best| self.map.topology().node(&best));
        let target = named.or(best).ok_or_else(|| {
            let copies: Vec<String> =
                shard.copies.iter().map(|copy| format!("{} ({})", copy.name, copy.address)).collect();
            Refused::Warned {
                detail: format!("no copy of {} that could lead it answers", shard.name),
                hint: format!("start one that is whole: {}", copies.join(", ")),
            }
        })?;
        Ok(self.plan_view(shard, target, &survey, &survey.plan(shard, &target.name)))
    }

    /// Has this node take a shard over; `to` names it, so that whoever asks knows it. Goes on by itself when its caller leaves.
    pub async fn take_over(self: &Arc<Self>, shard: &str, to: &str, force: bool) -> Result<TakenOver, Refused> {
        let (shard, target) = (self.shard_named(shard)?, self.node_named(to)?);
        if target.name != self.me.name {
            return Err(elsewhere(
                format!("this is node {}; {} itself takes the shard over", self.me.name, target.name),
                target,
            ));
        }
        let pair = self.copies.get(&shard.index).map(Arc::clone).ok_or_else(|| no_copy(shard, target))?;
        let began = self.clock.now();
        let taken = self.tasks.carry(async move { pair.take_over(force).await }).await;
        let promote::TakenOver { epoch, plan, end, promised, nodes } = taken.map_err(not_taken)?;
        Ok(TakenOver {
            shard: shard.name.clone(),
            leader: target.name.to_string(),
            address: target.address.to_string(),
            epoch: epoch.number,
            end: end.0,
            missing: missing(&plan, end),
            promised,
            nodes,
            took_ms: millis(self.clock.now().saturating_duration_since(began)),
        })
    }

    /// Has this node, which leads it, hand a shard over. Goes on by itself when its caller leaves.
    pub async fn switch_over(
        self: &Arc<Self>,
        shard: &str,
        to: &str,
        deadline: Instant,
    ) -> Result<HandedOver, Refused> {
        let (shard, target) = (self.shard_named(shard)?, self.node_named(to)?.clone());
        let leader = self.map.leader_of(shard);
        if target.name == leader.name {
            return Err(Refused::Conflict(format!("{} leads {} already", target.name, shard.name)));
        }
        if !shard.copies.iter().any(|copy| copy.name == target.name) {
            return Err(no_copy(shard, &target));
        }
        if leader.name != self.me.name {
            return Err(elsewhere(
                format!("this is node {}; {} leads {}", self.me.name, leader.name, shard.name),
                leader,
            ));
        }
        let pair = self.copies.get(&shard.index).map(Arc::clone).ok_or_else(|| no_copy(shard, leader))?;
        let to = target.clone();
        let handed = self.tasks.carry(async move { pair.switch_over(to, deadline).await }).await;
        let switchover::HandedOver { epoch, end, paused } = handed.map_err(not_handed_over)?;
        Ok(HandedOver {
            shard: shard.name.clone(),
            leader: target.name.to_string(),
            address: target.address.to_string(),
            epoch: epoch.number,
            end: end.0,
            paused_ms: millis(paused),
        })
    }

    pub(super) fn shard_named(&self, name: &str) -> Result<&Shard, Refused> {
        let topology = self.map.topology();
        topology.shards.iter().find(|shard| shard.name == name).ok_or_else(|| {
            let names: Vec<&str> = topology.shards.iter().map(|shard| shard.name.as_str()).collect();
            Refused::Unknown {
                detail: format!("this cluster has no shard {name:?}"),
                hint: format!("its shards are {}", names.join(", ")),
            }
        })
    }

    /// A node by its name or its address.
    fn node_named(&self, name: &str) -> Result<&Node, Refused> {
        let topology = self.map.topology();
        let found = topology.nodes().find(|node| node.name.as_str() == name || node.address.to_string() == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = topology.nodes().map(|node| node.name.as_str()).collect();
            Refused::Unknown {
                detail: format!("this cluster has no node {name:?}"),
                hint: format!("its nodes are {}", names.join(", ")),
            }
        })
    }

    fn any_copy(&self) -> Result<&Arc<Pair>, Refused> {
        self.copies
            .values()
            .next()
            .ok_or_else(|| Refused::Failed(format!("node {} holds no copy of any shard", self.me.name)))
    }

    fn plan_view(&self, shard: &Shard, target: &Node, survey: &Survey, plan: &Plan) -> TakeoverPlan {
        let leader = self.map.leader_of(shard);
        let copies = shard.copies.iter().map(|node| {
            let copy = survey.copy(&node.name);
            PlanCopy {
                node: node.name.to_string(),
                address: node.address.to_string(),
                state: copy.map_or("silent", |copy| copy.state.name()).to_owned(),
                end: copy.map(|copy| seq_of(copy.cursor.as_ref()).0),
                heard_end: copy.and_then(|copy| copy.heard).map(|heard| heard.end.0),
                heard_ms: copy.and_then(|copy| copy.heard).map(|heard| heard.ms),
            }
        });
        TakeoverPlan {
            shard: shard.name.clone(),
            leader: leader.name.to_string(),
            leader_address: leader.address.to_string(),
            epoch: survey.epoch.number,
            to: target.name.to_string(),
            address: target.address.to_string(),
            next_epoch: plan.epoch.number,
            end: plan.end.map(|end| end.0),
            missing: plan.end.map(|end| missing(plan, end)),
            best: plan.best.as_ref().map(ToString::to_string),
            nodes: survey.nodes.len(),
            silent: plan.silent.iter().map(ToString::to_string).collect(),
            copies: copies.collect(),
            objections: plan.objections.iter().map(objection_view).collect(),
        }
    }
}

/// Entries that are known to have been durable somewhere, and are not in a copy that ends there.
fn missing(plan: &Plan, end: Seq) -> u64 {
    plan.last_known.since(end)
}

fn objection_view(objection: &Objection) -> ObjectionView {
    let Objection { what, next, can_be_forced } = objection.clone();
    ObjectionView { what, next, can_be_forced }
}

fn elsewhere(detail: String, node: &Node) -> Refused {
    Refused::Elsewhere { detail, address: node.address.to_string() }
}

fn no_copy(shard: &Shard, node: &Node) -> Refused {
    let copies: Vec<&str> = shard.copies.iter().map(|copy| copy.name.as_str()).collect();
    Refused::Unknown {
        detail: format!("{} holds no copy of {}", node.name, shard.name),
        hint: format!("its copies are {}", copies.join(", ")),
    }
}

fn not_taken(refused: NotTaken) -> Refused {
    match refused {
        NotTaken::Failed(detail) => Refused::Conflict(detail),
        NotTaken::Objections(objections) => {
            let what: Vec<&str> = objections.iter().map(|objection| objection.what.as_str()).collect();
            let next = objections.first().map(|objection| objection.next.clone()).unwrap_or_default();
            let can_be_forced = objections.iter().all(|objection| objection.can_be_forced);
            let forced = if can_be_forced { "; --force goes on in spite of it" } else { "" };
            Refused::Warned { detail: what.join("; "), hint: format!("{next}{forced}") }
        }
    }
}

fn not_handed_over(refused: NotHandedOver) -> Refused {
    match refused {
        NotHandedOver::Unchanged(detail) => Refused::Conflict(detail),
        NotHandedOver::Unconfirmed(detail) => Refused::Unconfirmed(detail),
        NotHandedOver::Failed(detail) => Refused::Failed(detail),
    }
}
