//! Which node serves a request. Pure: the map and this node's state in, a route out. A route names nodes of the map, never
//! an address that came with a request.

use super::call::{Consistency, Reach};
use crate::config::Node;

/// What a route depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation<'a> {
    /// This node.
    pub(super) me: &'a Node,
    /// Who leads the key's shard.
    pub(super) leader: &'a Node,
    /// All copies of the shard.
    pub(super) copies: &'a [Node],
    /// This node takes the shard's writes now.
    pub(super) leads_here: bool,
    /// This node holds a copy that may serve `any` reads.
    pub(super) serves_any_here: bool,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// This node's copy serves it, or says why it cannot.
    Local,
    /// This node serves it.
    Forward(&'a Node),
    /// The first of these that can be reached serves it.
    ForwardToAny(Vec<&'a Node>),
    /// It may not leave this node, and does not belong here.
    WrongShard,
}

/// Decides where a request goes.
#[must_use]
pub(super) fn route<'a>(is_write: bool, consistency: Consistency, reach: Reach, at: Situation<'a>) -> Route<'a> {
    let is_any_read = !is_write && consistency == Consistency::Any;
    let would_lead = at.leader.name == at.me.name;
    if (would_lead && !is_any_read) || at.leads_here || (is_any_read && at.serves_any_here) {
        return Route::Local;
    }
    match reach {
        Reach::Local if would_lead => Route::Local,
        Reach::Local => Route::WrongShard,
        Reach::Forward if is_any_read => {
            let others = at.copies.iter().filter(|copy| copy.name != at.me.name);
            let (leader, replicas): (Vec<_>, Vec<_>) = others.partition(|copy| copy.name == at.leader.name);
            let candidates: Vec<_> = leader.into_iter().chain(replicas).collect();
            if candidates.is_empty() { Route::Local } else { Route::ForwardToAny(candidates) }
        }
        Reach::Forward => Route::Forward(at.leader),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NodeName, ShardIndex};

    fn node(name: &str) -> Node {
        Node { name: NodeName::new(name), address: ([127, 0, 0, 1], 80).into(), shard: ShardIndex(0) }
    }

    /// `S/0` leads, `S/1` is its replica, `T/0` is a stranger to the shard.
    fn routed(me: &str, healthy: bool, is_write: bool, consistency: Consistency, reach: Reach) -> String {
        let copies = [node("S/0"), node("S/1")];
        let me = node(me);
        let at = Situation {
            me: &me,
            leader: &copies[0],
            copies: &copies,
            leads_here: healthy && me.name.as_str() == "S/0",
            serves_any_here: healthy && me.name.as_str() != "T/0",
        };
        match route(is_write, consistency, reach, at) {
            Route::Local => "local".into(),
            Route::WrongShard => "wrong-shard".into(),
            Route::Forward(node) => node.name.to_string(),
            Route::ForwardToAny(nodes) => {
                nodes.iter().map(|node| node.name.to_string()).collect::<Vec<_>>().join(" then ")
            }
        }
    }

    #[test]
    fn route_of_every_request_at_every_node() {
        use Consistency::{Any, Leader};
        use Reach::{Forward, Local};
        let cases = [
            // node, healthy, write, consistency, reach → route
            ("S/0", true, true, Leader, Forward, "local"),
            ("S/0", true, false, Leader, Local, "local"),
            ("S/0", true, false, Any, Forward, "local"),
            ("S/0", false, true, Leader, Forward, "local"), // and says why it cannot
            ("S/0", false, false, Any, Forward, "S/1"),     // a leader that may not lead has others serve `any`
            ("S/0", false, false, Any, Local, "local"),
            ("S/1", true, true, Leader, Forward, "S/0"),
            ("S/1", true, true, Any, Forward, "S/0"), // consistency says nothing about writes
            ("S/1", true, true, Leader, Local, "wrong-shard"),
            ("S/1", true, false, Leader, Forward, "S/0"),
            ("S/1", true, false, Leader, Local, "wrong-shard"),
            ("S/1", true, false, Any, Forward, "local"),
            ("S/1", true, false, Any, Local, "local"),
            ("S/1", false, false, Any, Forward, "S/0"), // a copy that was never whole serves nothing
            ("S/1", false, false, Any, Local, "wrong-shard"),
            ("T/0", true, true, Leader, Forward, "S/0"),
            ("T/0", true, false, Leader, Forward, "S/0"),
            ("T/0", true, false, Any, Forward, "S/0 then S/1"),
            ("T/0", true, false, Any, Local, "wrong-shard"),
        ];
        for (me, healthy, is_write, consistency, reach, expected) in cases {
            let found = routed(me, healthy, is_write, consistency, reach);
            assert_eq!(found, expected, "{me} healthy={healthy} write={is_write} {consistency:?} {reach:?}");
        }
    }
}
