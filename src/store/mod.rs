//! The one door: what a node can be asked, by clients and by peers, and what it answers.
//!
//! ```text
//!   client ─ api ─▶ Store::execute ─▶ route ─▶ local ─▶ pair, writer          (this node's copy)
//!                                        └───▶ forward ═ peer ═▶ serve ─▶ local  (another node's)
//! ```
//!
//! - A request takes one hop at most.
//! - A write goes on by itself: a client that leaves takes nothing with it.

pub mod ack;
pub mod assembly;
pub mod bounds;
pub mod call;
pub mod error;
pub mod operate;
pub mod view;

mod forward;
mod local;
pub mod look;
mod lost;
mod problems;
pub mod reads;
mod receipt;
mod report;
mod route;
mod serve;
pub mod shards;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

pub use call::{Acks, Answer, Call, Consistency, Location, Operation, Outcome, Place, Reach, Served, Wishes};
pub use error::{Applied, Code, Error};
pub use reads::{Since, Terms};

use crate::clock::Clock;
use crate::cluster::ClusterMap;
use crate::config::{Node, Settings, Shard};
use crate::metrics::Metrics;
use crate::peer::{Contacts, Local, Pool};
use crate::replication::pair::Pair;
use crate::tasks::Tasks;
use crate::types::{ClusterUid, Key, NodeName, ShardIndex, UnixMs};
use ack::Wanted;
use route::{Route, Situation, route};

/// What a store is made of.
#[derive(Debug)]
pub struct Parts {
    /// This node.
    pub me: Node,
    /// The cluster as this node knows it.
    pub map: Arc<ClusterMap>,
    /// The way to other nodes.
    pub pool: Arc<Pool>,
    /// Who this node is to them.
    pub local: Arc<Local>,
    /// How the last contact with each of them went.
    pub contacts: Arc<Contacts>,
    /// Limits and intervals.
    pub settings: Arc<Settings>,
    /// Time.
    pub clock: Clock,
    /// Where the node counts.
    pub metrics: Arc<Metrics>,
    /// Where work goes that must finish.
    pub tasks: Tasks,
    /// The copies that this node holds; one in this profile.
    pub copies: BTreeMap<ShardIndex, Arc<Pair>>,
}

/// A node's store.
#[derive(Debug)]
pub struct Store {
    me: Node,
    map: Arc<ClusterMap>,
    pool: Arc<Pool>,
    local: Arc<Local>,
    contacts: Arc<Contacts>,
    settings: Arc<Settings>,
    clock: Clock,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    copies: BTreeMap<ShardIndex, Arc<Pair>>,
    /// Every copy of the map, by shard.
    places: Vec<Vec<Arc<Place>>>,
    started: Instant,
    started_at: UnixMs,
}

impl Store {
    /// A store of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Store {
        let Parts { me, map, pool, local, contacts, settings, clock, metrics, tasks, copies } = parts;
        let (started, started_at) = (clock.now(), clock.unix_ms());
        let place = |shard: &Shard, copy: &Node| {
            let forwarded = (copy.name != me.name).then_some((me.address, copy.address));
            Arc::new(Place::new(&shard.name, shard.index, copy.address, forwarded))
        };
        let places_of = |shard: &Shard| shard.copies.iter().map(|copy| place(shard, copy)).collect();
        let places = map.topology().shards.iter().map(places_of).collect();
        Store { me, map, pool, local, contacts, settings, clock, metrics, tasks, copies, places, started, started_at }
    }

    /// Serves a request, here or by the node that owns the key. Safe to drop: a write goes on by itself once this was
    /// polled.
    pub async fn execute(self: &Arc<Self>, call: Call) -> Result<Answer, Error> {
        if call.terms().are_any() && !call.operation.is_write() {
            return Box::pin(self.read_on_terms(call)).await; // boxed: it must not make the others' future larger
        }
        self.execute_by_route(call).await
    }

    /// Serves a request where its route says.
    async fn execute_by_route(self: &Arc<Self>, call: Call) -> Result<Answer, Error> {
        let shard = self.shard_of(call.operation.key());
        let at = self.situation(shard);
        let asked = at.leader;
        match route(call.operation.is_write(), call.consistency, call.reach, at) {
            Route::Local => match self.copies.get(&shard.index) {
                Some(pair) => self.serve_here(pair, asked, call).await,
                None => Err(self.wrong_shard(shard)),
            },
            Route::WrongShard => Err(self.wrong_shard(shard)),
            Route::Forward(node) if call.operation.is_write() => {
                let (store, node, asked) = (Arc::clone(self), node.clone(), asked.name.clone());
                // A client that leaves takes nothing with it, be the connection to the owner open or not yet.
                self.tasks.carry(async move { store.send(&node, &asked, &call).await }).await
            }
            Route::Forward(node) => self.send(node, &asked.name, &call).await,
            Route::ForwardToAny(nodes) => self.forward_to_any(&nodes, shard, &call).await,
        }
    }

    /// Serves a request from this node's copy. When that does not lead, or not now, it waits while it is being found out who
    /// does, whether or not its client does, and passes on what is led elsewhere by then.
    async fn serve_here(self: &Arc<Self>, pair: &Arc<Pair>, asked: &Node, call: Call) -> Result<Answer, Error> {
        let place = self.place_of(&pair.me);
        let result = local::execute_once(pair, &place, &self.clock, &call).await;
        if !result.as_ref().is_err_and(Error::was_not_led) {
            return result;
        }
        let (store, pair, asked) = (Arc::clone(self), Arc::clone(pair), asked.name.clone());
        let again = async move {
            let result = local::execute(&pair, &place, &store.clock, &call).await;
            store.pass_on(&asked, &call, result).await
        };
        self.tasks.carry(again).await
    }

    /// Forwards, and once more when the node that was asked does not lead any more.
    async fn send(&self, node: &Node, asked: &NodeName, call: &Call) -> Result<Answer, Error> {
        let shard = self.shard_of(call.operation.key());
        let result = self.forward(node, shard, call).await;
        self.pass_on(asked, call, result).await
    }

    /// What was not done because the shard is led elsewhere by now is sent there, once (rule 22).
    async fn pass_on(&self, asked: &NodeName, call: &Call, result: Result<Answer, Error>) -> Result<Answer, Error> {
        let shard = self.shard_of(call.operation.key());
        if !result.as_ref().is_err_and(|error| error.was_not_led() && self.map.leader_of(shard).name != *asked) {
            return result;
        }
        match route(call.operation.is_write(), call.consistency, call.reach, self.situation(shard)) {
            Route::Local => match self.copies.get(&shard.index) {
                Some(pair) => local::execute(pair, &self.place_of(&pair.me), &self.clock, call).await,
                None => Err(self.wrong_shard(shard)),
            },
            Route::WrongShard => Err(self.wrong_shard(shard)),
            Route::Forward(node) => self.forward(node, shard, call).await,
            Route::ForwardToAny(nodes) => self.forward_to_any(&nodes, shard, call).await,
        }
    }

    /// Asks one node after another until one serves. For reads.
    async fn forward_to_any(&self, nodes: &[&Node], shard: &Shard, call: &Call) -> Result<Answer, Error> {
        let mut first_error = None;
        for node in nodes {
            match self.forward(node, shard, call).await {
                Ok(answer) => return Ok(answer),
                Err(error) if !error.is_retryable() => return Err(error),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| self.wrong_shard(shard)))
    }

    /// The copy of its shard that a node of the map holds.
    fn place_of(&self, node: &Node) -> Arc<Place> {
        let places = self.places.get(node.shard.0 as usize).map_or(&[][..], Vec::as_slice);
        let place = places.iter().find(|place| place.node == node.address);
        Arc::clone(place.unwrap_or_else(|| unreachable!("{} is a node of the map", node.name)))
    }

    fn situation<'a>(&'a self, shard: &'a Shard) -> Situation<'a> {
        let pair = self.copies.get(&shard.index);
        Situation {
            me: &self.me,
            leader: self.map.leader_of(shard),
            copies: &shard.copies,
            leads_here: pair.is_some_and(|pair| pair.leads()),
            serves_any_here: pair.is_some_and(|pair| pair.serves_any()),
        }
    }

    fn shard_of(&self, key: &Key) -> &Shard {
        let topology = self.map.topology();
        let index = topology.placement.shard_of(key);
        topology.shard(index).unwrap_or_else(|| unreachable!("the placement yields an index of the map, not {index}"))
    }

    fn wrong_shard(&self, shard: &Shard) -> Error {
        let leader = self.map.leader_of(shard);
        Error::new(
            Code::WrongShard,
            format!("node {} does not serve this request of shard {}", self.me.name, shard.name),
        )
        .hint(format!("ask {}, or leave route=local away", leader.address))
        .shard(&shard.name)
        .leader(leader.address)
    }

    /// Where a key lives.
    #[must_use]
    pub fn locate(&self, key: &Key) -> Location {
        let shard = self.shard_of(key);
        let leader = self.map.leader_of(shard);
        Location {
            shard: shard.index,
            name: shard.name.clone(),
            leader: leader.name.clone(),
            leader_address: leader.address,
            is_here: leader.name == self.me.name,
        }
    }

    /// Whether a key's shard has the replicas that a write wants to wait for; else how many it has.
    pub fn check_wanted(&self, key: &Key, wanted: Wanted) -> Result<(), usize> {
        let shard = self.shard_of(key);
        wanted.of(shard).map(drop).ok_or(shard.copies.len() - 1)
    }

    /// Limits and intervals.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Where the node counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The cluster's uid, once known.
    #[must_use]
    pub fn cluster_uid(&self) -> Option<ClusterUid> {
        self.local.cluster()
    }

    /// The shard of a key.
    #[must_use]
    pub fn shard_index_of(&self, key: &Key) -> ShardIndex {
        self.map.topology().placement.shard_of(key)
    }

    /// Where this node listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.me.address
    }
}
