//! Whether a copy may take its shard over from a leader that is gone, and what that would cost (rule 19). Pure.
//!
//! The node that is to lead asks every node what it knows. From the answers come the plan that an operator sees, with all
//! that speaks against it, and later the count of the promises. What can be forced is a loss that somebody may have to
//! accept; what cannot would not work.

use std::collections::BTreeMap;

use super::wire::{CopyState, Inspection};
use crate::cluster::canvass;
use crate::config::Shard;
use crate::types::seq::seq_of;
use crate::types::{Epoch, NodeName, Seq};

/// What one node said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The highest epoch's number that it has met of the shard.
    pub highest: u64,
    /// The highest epoch that it has promised of it.
    pub promised: Option<Epoch>,
    /// Its copy of the shard, if it holds one.
    pub copy: Option<Inspection>,
}

/// What all nodes said, and who is who.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// The epoch in which the shard is led.
    pub epoch: Epoch,
    /// Every node of the map; none: it was silent.
    pub nodes: BTreeMap<NodeName, Option<Said>>,
    /// The nodes that hold a copy, in the file's order.
    pub copies: Vec<NodeName>,
}

/// Something that speaks against a takeover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// A sentence.
    pub what: String,
    /// What to do instead.
    pub next: String,
    /// An operator may go on in spite of it.
    pub can_be_forced: bool,
}

/// What a takeover would come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The epoch that it would begin.
    pub epoch: Epoch,
    /// The last entry of the copy that would lead; none: it is silent.
    pub end: Option<Seq>,
    /// The last entry that is known to have been anywhere; none: nobody knows of more than what the copy holds.
    pub last_known: Seq,
    /// The copy that holds the most; none when no copy that could lead answers.
    pub best: Option<NodeName>,
    /// Nodes that did not answer.
    pub silent: Vec<NodeName>,
    /// All that speaks against it.
    pub objections: Vec<Objection>,
}

impl Survey {
    /// A node that answered.
    fn said(&self, node: &NodeName) -> Option<&Said> {
        self.nodes.get(node)?.as_ref()
    }

    /// A copy that answered.
    #[must_use]
    pub fn copy(&self, node: &NodeName) -> Option<&Inspection> {
        self.said(node)?.copy.as_ref()
    }

    /// Nodes that did not answer.
    #[must_use]
    pub fn silent(&self) -> Vec<NodeName> {
        self.nodes.iter().filter(|(_, said)| said.is_none()).map(|(name, _)| name.clone()).collect()
    }

    /// The copy that holds the most of those that could lead; the present leader only if nobody else can.
    #[must_use]
    pub fn best(&self) -> Option<NodeName> {
        let could = |name: &&NodeName| {
            let state = self.copy(name).map(|copy| copy.state);
            matches!(state, Some(CopyState::Whole | CopyState::Leading | CopyState::Unknown))
        };
        let rank = |name: &&NodeName| (**name != self.epoch.leader, position(self.copy(name)));
        // Of two that hold as much, the first of the file.
        self.copies.iter().rev().filter(could).max_by_key(rank).cloned()
    }

    /// The highest number that anybody has met.
    fn highest(&self) -> u64 {
        let met = self.nodes.values().flatten().map(|said| said.highest);
        met.chain([self.epoch.number]).max().unwrap_or(1)
    }

    /// The last entry that anybody holds, or heard that the leader held. What the newest copy's leader never had does not
    /// count: it was lost before.
    fn last_known(&self) -> Seq {
        let copies = || self.copies.iter().filter_map(|name| self.copy(name));
        let newest = copies().filter_map(|copy| position(Some(copy))).max();
        let heard = copies().filter_map(|copy| copy.heard).map(|heard| heard.end).max();
        newest.map_or(Seq::ZERO, |(_, seq)| seq).max(heard.unwrap_or(Seq::ZERO))
    }

    /// What a takeover by `target` would come to.
    #[must_use]
    pub fn plan(&self, shard: &Shard, target: &NodeName) -> Plan {
        let mut objections = self.impossible(shard, target);
        objections.extend(self.leader_lives(shard, target));
        objections.extend(self.others_hold_more(shard, target));
        objections.extend(self.promised_to_another(target));
        objections.extend(no_majority(self.nodes.len(), &self.silent()));
        let end = self.copy(target).map(|copy| end_of(Some(copy)));
        Plan {
            epoch: Epoch { number: self.highest() + 1, leader: target.clone() },
            end,
            last_known: self.last_known().max(end.unwrap_or(Seq::ZERO)),
            best: self.best(),
            silent: self.silent(),
            objections,
        }
    }

    fn impossible(&self, shard: &Shard, target: &NodeName) -> Vec<Objection> {
        let hard = |what: String, next: &str| vec![Objection { what, next: next.to_owned(), can_be_forced: false }];
        let name = &shard.name;
        if !self.copies.contains(target) {
            let copies: Vec<&str> = self.copies.iter().map(NodeName::as_str).collect();
            return hard(format!("{target} holds no copy of {name}"), &format!("its copies are {}", copies.join(", ")));
        }
        let Some(copy) = self.copy(target) else {
            return hard(format!("{target} does not answer"), "start it, or choose another copy");
        };
        match copy.state {
            CopyState::Leading if self.epoch.leader == *target => {
                hard(format!("{target} leads {name} already"), "kv status shows how it is")
            }
            CopyState::Partial => {
                hard(format!("the copy of {target} was never whole"), "choose another copy, or start one that is whole")
            }
            CopyState::Failed => hard(
                format!("the store of {target} has failed"),
                "put its disk right and restart it, or choose another copy",
            ),
            CopyState::Unknown => hard(format!("{target} runs an older program"), "upgrade it, or choose another copy"),
            CopyState::Halted => vec![Objection {
                what: format!("{target} does not lead because its copy lacks what a replica holds"),
                next: "choose the copy that holds it".into(),
                can_be_forced: true,
            }],
            CopyState::Leading | CopyState::Whole => Vec::new(),
        }
    }

    /// A leader that answers hands over without a loss.
    fn leader_lives(&self, shard: &Shard, target: &NodeName) -> Option<Objection> {
        let leader = &self.epoch.leader;
        let lives = leader != target && self.copy(leader).is_some_and(|copy| copy.state == CopyState::Leading);
        lives.then(|| Objection {
            what: format!("{leader} answers, and leads {}", shard.name),
            next: format!("hand it over without a loss: kv shard switchover {} --to {target}", shard.name),
            can_be_forced: true,
        })
    }

    fn others_hold_more(&self, shard: &Shard, target: &NodeName) -> Option<Objection> {
        let mine = self.copy(target)?;
        let others = self.copies.iter().filter(|name| *name != target && **name != self.epoch.leader);
        let comparable = others
            .filter_map(|name| Some((name, self.copy(name)?)))
            .filter(|(_, copy)| copy.state == CopyState::Whole && copy.shard_uid == mine.shard_uid);
        let (best, copy) = comparable.max_by_key(|(_, copy)| position(Some(copy)))?;
        let (theirs, mine) = (position(Some(copy))?, position(Some(mine)));
        let what = match mine {
            Some(mine) if theirs <= mine => return None,
            Some((epoch, _)) if theirs.0 > epoch => {
                format!("{best} holds entries of epoch {}, of which {target} holds none", theirs.0.number)
            }
            _ => format!(
                "{best} holds {} entries more than {target}",
                theirs.1.since(mine.map_or(Seq::ZERO, |(_, seq)| seq))
            ),
        };
        Some(Objection {
            what,
            next: format!("lose nothing of them: kv shard takeover {} --to {best}", shard.name),
            can_be_forced: true,
        })
    }

    fn promised_to_another(&self, target: &NodeName) -> Option<Objection> {
        let promised = self.nodes.iter().filter_map(|(name, said)| Some((name, said.as_ref()?.promised.as_ref()?)));
        let (by, epoch) = promised
            .filter(|(_, epoch)| epoch.leader != *target && **epoch > self.epoch)
            .max_by_key(|(_, epoch)| *epoch)?;
        Some(Objection {
            what: format!("{by} has promised the shard to {} (epoch {})", epoch.leader, epoch.number),
            next: format!("somebody is about to make {} lead: look with kv status first", epoch.leader),
            can_be_forced: true,
        })
    }
}

/// What speaks against going on without these nodes, of so many: a majority could not see it.
#[must_use]
pub fn no_majority(nodes: usize, without: &[NodeName]) -> Option<Objection> {
    let with = nodes - without.len();
    (with * 2 <= nodes).then(|| {
        let names: Vec<&str> = without.iter().map(NodeName::as_str).collect();
        Objection {
            what: format!(
                "only {with} of {nodes} nodes take part, which is no majority: another may be made leader at the same time, \
                 and neither sees the other; without {}",
                names.join(", ")
            ),
            next: "start more nodes; or make sure that the leader is gone and nobody else takes over".into(),
            can_be_forced: true,
        }
    })
}

/// Counts the promises, by the nodes that were asked; none for one that was silent. All that speaks against going on.
#[must_use]
pub fn count(
    survey: &Survey,
    target: &NodeName,
    answers: &BTreeMap<NodeName, Option<canvass::Answer>>,
) -> Vec<Objection> {
    let is_given = |answer: &Option<canvass::Answer>| matches!(answer, Some(canvass::Answer::Given { .. }));
    let without: Vec<NodeName> =
        answers.iter().filter(|(_, answer)| !is_given(answer)).map(|(name, _)| name.clone()).collect();
    let refusals = answers.iter().filter_map(|(name, answer)| match answer {
        Some(canvass::Answer::Refused { detail }) => Some(Objection {
            what: format!("{name} refuses: {detail}"),
            next: "somebody else may be taking the shard over: look with kv status".into(),
            can_be_forced: true,
        }),
        _ => None,
    });
    let mut objections: Vec<Objection> = refusals.collect();
    objections.extend(no_majority(survey.nodes.len(), &without));
    objections.extend(grown(survey, target, answers));
    objections
}

/// A copy that took entries after it was looked at, and has promised now: nothing more comes to it.
fn grown(
    survey: &Survey,
    target: &NodeName,
    answers: &BTreeMap<NodeName, Option<canvass::Answer>>,
) -> Option<Objection> {
    let mine = survey.copy(target)?;
    let ends = answers.iter().filter_map(|(name, answer)| match (survey.copy(name), answer) {
        (Some(copy), Some(canvass::Answer::Given { end: Some(end) }))
            if copy.shard_uid == mine.shard_uid
                && *name != survey.epoch.leader
                && copy.state == CopyState::Whole
                && epoch_of(copy) >= epoch_of(mine) =>
        {
            Some((*end, name))
        }
        _ => None,
    });
    let (end, best) = ends.max()?;
    let more = end.since(end_of(Some(mine)));
    (more > 0).then(|| Objection {
        what: format!("{best} holds {more} entries more than {target}"),
        next: format!("make {best} lead instead"),
        can_be_forced: true,
    })
}

/// Where a copy stands: of two, the one with the later epoch holds what its leader held, whatever the seq. A copy that was
/// left behind by a takeover may have gone further, with entries that were lost then.
fn position(copy: Option<&Inspection>) -> Option<(&Epoch, Seq)> {
    copy?.cursor.as_ref().map(|cursor| (&cursor.epoch, cursor.seq))
}

fn epoch_of(copy: &Inspection) -> Option<&Epoch> {
    position(Some(copy)).map(|(epoch, _)| epoch)
}

fn end_of(copy: Option<&Inspection>) -> Seq {
    seq_of(copy.and_then(|copy| copy.cursor.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::super::wire::Heard;
    use super::*;
    use crate::config::Node;
    use crate::types::{Cursor, Incarnation, ShardIndex, ShardUid};

    fn name(name: &str) -> NodeName {
        NodeName::new(name)
    }

    fn epoch(number: u64, leader: &str) -> Epoch {
        Epoch { number, leader: name(leader) }
    }

    fn copy(end: u64, state: CopyState) -> Said {
        let cursor = Cursor { epoch: epoch(1, "A"), incarnation: Incarnation(1), seq: Seq(end) };
        let copy = Inspection {
            shard_uid: Some(ShardUid(5)),
            cursor: Some(cursor),
            version: None,
            lags: Vec::new(),
            state,
            heard: Some(Heard { end: Seq(100), ms: 10 }),
        };
        Said { highest: 1, promised: None, copy: Some(copy) }
    }

    fn shard() -> Shard {
        let node = |copy: &str| Node { name: name(copy), address: ([127, 0, 0, 1], 1).into(), shard: ShardIndex(0) };
        Shard { name: "S".into(), index: ShardIndex(0), copies: ["A", "B", "C"].map(node).into() }
    }

    /// `A` leads and is gone, `B` and `C` are its replicas, `X` and `Y` hold other shards.
    fn survey() -> Survey {
        let stranger = || Some(Said { highest: 1, promised: None, copy: None });
        let nodes = [
            (name("A"), None),
            (name("B"), Some(copy(90, CopyState::Whole))),
            (name("C"), Some(copy(95, CopyState::Whole))),
            (name("X"), stranger()),
            (name("Y"), stranger()),
        ];
        Survey { epoch: epoch(1, "A"), nodes: nodes.into(), copies: ["A", "B", "C"].map(name).into() }
    }

    fn with(node: &str, said: Option<Said>) -> Survey {
        let mut survey = survey();
        survey.nodes.insert(name(node), said);
        survey
    }

    fn objections(survey: &Survey, target: &str) -> Vec<(String, bool)> {
        let plan = survey.plan(&shard(), &name(target));
        plan.objections.into_iter().map(|objection| (objection.what, objection.can_be_forced)).collect()
    }

    #[test]
    fn plan_by_the_copy_that_has_most_says_what_is_missing_and_has_no_objection() {
        let plan = survey().plan(&shard(), &name("C"));
        assert_eq!(plan.objections, []);
        assert_eq!((plan.epoch, plan.best, plan.silent), (epoch(2, "C"), Some(name("C")), vec![name("A")]));
        assert_eq!((plan.end, plan.last_known), (Some(Seq(95)), Seq(100)));
    }

    #[test]
    fn plan_by_a_copy_that_has_less_names_the_one_that_has_more() {
        assert_eq!(objections(&survey(), "B"), [("C holds 5 entries more than B".into(), true)]);
    }

    #[test]
    fn plan_beside_a_leader_that_answers_points_to_the_switchover() {
        let lives = with("A", Some(copy(100, CopyState::Leading)));
        assert_eq!(objections(&lives, "C"), [("A answers, and leads S".into(), true)]);
        let halted = with("A", Some(copy(0, CopyState::Halted)));
        assert_eq!(objections(&halted, "C"), [], "a leader that must not lead is no reason to wait");
        let found = objections(&halted, "A");
        assert!(found.len() == 2 && found[0].0.starts_with("A does not lead because"), "{found:?}");
    }

    #[test]
    fn plan_that_cannot_work_cannot_be_forced() {
        for (state, what) in [
            (CopyState::Partial, "the copy of C was never whole"),
            (CopyState::Failed, "the store of C has failed"),
            (CopyState::Unknown, "C runs an older program"),
        ] {
            assert_eq!(objections(&with("C", Some(copy(95, state))), "C"), [(what.into(), false)]);
        }
        assert_eq!(objections(&with("C", None), "C"), [("C does not answer".into(), false)]);
        assert_eq!(objections(&survey(), "X"), [("X holds no copy of S".into(), false)]);
        let leads = Survey { epoch: epoch(2, "C"), ..with("C", Some(copy(95, CopyState::Leading))) };
        assert_eq!(objections(&leads, "C"), [("C leads S already".into(), false)]);
    }

    #[test]
    fn plan_goes_above_every_number_that_anybody_has_met_and_names_who_was_promised() {
        let said = Said { highest: 7, promised: Some(epoch(7, "B")), copy: None };
        let survey = with("X", Some(said));
        assert_eq!(survey.plan(&shard(), &name("C")).epoch, epoch(8, "C"));
        assert_eq!(objections(&survey, "C"), [("X has promised the shard to B (epoch 7)".into(), true)]);
        assert_eq!(objections(&survey, "B").len(), 1, "its own promise is no objection, only what C holds");
    }

    #[test]
    fn plan_without_a_majority_of_all_nodes_names_the_silent() {
        let mut survey = survey();
        assert_eq!(objections(&survey, "C"), []);
        survey.nodes.insert(name("X"), None);
        assert_eq!(objections(&survey, "C"), [], "three of five");
        survey.nodes.insert(name("Y"), None);
        let found = objections(&survey, "C");
        assert!(
            found.len() == 1 && found[0].0.starts_with("only 2 of 5") && found[0].0.ends_with("A, X, Y"),
            "{found:?}"
        );
    }

    /// The bug: only the ends were compared, so a former leader with lost writes, not yet taken back, was proposed before the
    /// copy that had followed its successor: what that had confirmed would have been lost.
    #[test]
    fn copy_that_followed_the_later_leadership_holds_more_than_one_that_has_more_entries_of_an_earlier_one() {
        let mut later = copy(85, CopyState::Whole);
        later.copy.as_mut().unwrap().cursor.as_mut().unwrap().epoch = epoch(2, "D");
        let survey = with("B", Some(later)); // C has 95, of epoch 1
        assert_eq!(survey.best(), Some(name("B")));
        assert_eq!(objections(&survey, "B"), []);
        let against = objections(&survey, "C");
        assert!(against[0].0.contains("B holds entries of epoch 2, of which C holds none"), "{against:?}");
    }

    #[test]
    fn best_is_the_first_of_the_file_of_those_that_hold_as_much_and_the_leader_last() {
        assert_eq!(survey().best(), Some(name("C")));
        assert_eq!(with("C", Some(copy(90, CopyState::Whole))).best(), Some(name("B")));
        assert_eq!(with("A", Some(copy(99, CopyState::Whole))).best(), Some(name("C")));
        assert_eq!(with("C", Some(copy(95, CopyState::Partial))).best(), Some(name("B")));
    }

    /// Bug: seqs of different epochs were compared, and a former leader that had gone on alone was proposed to lead again, in
    /// place of the copies of its successor.
    #[test]
    fn plan_prefers_a_copy_of_the_later_epoch_to_one_that_went_further_in_an_earlier_one() {
        let mut survey = survey();
        let mut later = copy(95, CopyState::Whole);
        later.copy.as_mut().unwrap().cursor.as_mut().unwrap().epoch = epoch(2, "B");
        survey.nodes.extend([
            (name("A"), Some(copy(500, CopyState::Whole))),
            (name("B"), None),
            (name("C"), Some(later)),
        ]);
        survey.epoch = epoch(2, "B");
        assert_eq!(survey.best(), Some(name("C")));
        let plan = survey.plan(&shard(), &name("C"));
        assert_eq!((plan.objections, plan.last_known), (vec![], Seq(100)));
        let found = objections(&survey, "A");
        assert_eq!(found, [("C holds entries of epoch 2, of which A holds none".into(), true)]);
        let given = |end: u64| Some(canvass::Answer::Given { end: Some(Seq(end)) });
        let stranger = || Some(canvass::Answer::Given { end: None });
        let answers = [("A", given(500)), ("B", None), ("X", stranger()), ("Y", stranger())];
        let answers = answers.map(|(node, answer)| (name(node), answer)).into();
        assert_eq!(count(&survey, &name("C"), &answers), []);
    }

    fn counted(answers: &[(&str, Option<canvass::Answer>)]) -> Vec<String> {
        let answers = answers.iter().map(|(node, answer)| (name(node), answer.clone())).collect();
        count(&survey(), &name("C"), &answers).into_iter().map(|objection| objection.what).collect()
    }

    #[test]
    fn count_needs_a_majority_and_says_who_refused_and_whom_it_promised() {
        let given = |end: Option<u64>| Some(canvass::Answer::Given { end: end.map(Seq) });
        assert!(counted(&[("A", None), ("B", given(Some(90))), ("X", given(None)), ("Y", None)]).is_empty());
        let found = counted(&[("A", None), ("B", given(Some(90))), ("X", None), ("Y", None)]);
        assert!(found.len() == 1 && found[0].starts_with("only 2 of 5"), "{found:?}");
        let refused = Some(canvass::Answer::Refused { detail: "epoch 2 (B) is promised".into() });
        let found = counted(&[("A", None), ("B", refused.clone()), ("X", refused), ("Y", given(None))]);
        assert!(found.contains(&"B refuses: epoch 2 (B) is promised".into()) && found.len() == 3, "{found:?}");
    }

    #[test]
    fn count_sees_what_a_copy_took_after_it_was_looked_at() {
        let given = |end: u64| Some(canvass::Answer::Given { end: Some(Seq(end)) });
        let stranger = || Some(canvass::Answer::Given { end: None });
        let found = counted(&[("A", None), ("B", given(99)), ("X", stranger()), ("Y", stranger())]);
        assert_eq!(found, ["B holds 4 entries more than C"]);
    }
}
