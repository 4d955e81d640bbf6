//! Puts a node's parts together below HTTP: its copy, its writer, its way to other nodes, and the tasks that lead or
//! follow. The disk, time, chance and transport are handed in, so that tests and simulations run the same node.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tracing::warn;

use super::{Parts, Store};
use crate::clock::Clock;
use crate::cluster::{ClusterMap, Keeper, Part, exchange};
use crate::config::{Node, Settings, Shard, Topology};
use crate::metrics::Metrics;
use crate::peer::pool::Connector;
use crate::peer::server::Listener;
use crate::peer::{Contacts, Local, Pool};
use crate::random::Random;
use crate::replication::pair::{Leader, Opened, Pair, Surroundings, guard_source, upkeep_source};
use crate::storage::writer::{self, Writer};
use crate::storage::{self, Engine, Files, Identity, State};
use crate::tasks::{TaskKind, Tasks};
use crate::types::{Cursor, Incarnation, NodeName, ShardIndex, Standing};

/// What a node is made from.
#[derive(Debug)]
pub struct Materials {
    /// The shards and nodes of the file.
    pub topology: Arc<Topology>,
    /// The rest of the file.
    pub settings: Arc<Settings>,
    /// This node.
    pub me: Node,
    /// The opened copy of its shard.
    pub engine: Arc<dyn Engine>,
    /// Where a snapshot would be received.
    pub files: Arc<dyn Files>,
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub random: Random,
    /// The transport to other nodes.
    pub connector: Box<dyn Connector>,
    /// Where the node counts.
    pub metrics: Arc<Metrics>,
}

/// Why a node cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The topology has no such node: the caller did not check.
    #[error("{0} is no node of the configuration")]
    UnknownNode(NodeName),
    /// The opened file cannot be read.
    #[error("{0}")]
    Storage(#[from] storage::Error),
    /// The system gives no thread.
    #[error("cannot start the writer: {0}")]
    Thread(#[from] io::Error),
}

/// A node without HTTP.
#[derive(Debug)]
pub struct Assembled {
    /// The store: what HTTP and peers ask.
    pub store: Arc<Store>,
    writer: JoinHandle<()>,
    random: Random,
}

/// What the file of a shard's copy must be.
#[must_use]
pub fn identity(topology: &Topology, shard: &Shard) -> Identity {
    Identity {
        shard_name: shard.name.clone(),
        shard: shard.index,
        shard_count: topology.placement.shards,
        hash: topology.placement.hash.to_string(),
    }
}

/// Puts a node together. It takes nothing and asks nobody until [`Assembled::start`].
pub fn assemble(materials: Materials) -> Result<Assembled, Error> {
    let Materials { topology, settings, me, engine, files, clock, random, connector, metrics } = materials;
    let shard = topology.shard(me.shard).ok_or_else(|| Error::UnknownNode(me.name.clone()))?.clone();
    let state = engine.state()?;
    let map = Arc::new(ClusterMap::new(Arc::clone(&topology)));
    restore(&map, shard.index, &state, &me.name)?;
    say_who_leads(&map, &shard);
    let local = Arc::new(local(&topology, &me, &state));
    let contacts = Arc::new(Contacts::default());
    let pool = Pool::new(Arc::clone(&local), Arc::clone(&contacts), clock.clone(), random.clone(), connector);
    let around = Surroundings {
        map: Arc::clone(&map),
        pool: Arc::new(pool),
        local: Arc::clone(&local),
        clock: clock.clone(),
        random: random.clone(),
        settings: Arc::clone(&settings),
        metrics: Arc::clone(&metrics),
    };
    let pool = Arc::clone(&around.pool);
    let (pair, writer) = open_pair(shard, &me, engine, &state, files, around)?;
    let copies = [(me.shard, Arc::new(pair))].into();
    let tasks = Tasks::default();
    let store = Arc::new(Store::new(Parts { me, map, pool, local, contacts, settings, clock, metrics, tasks, copies }));
    Ok(Assembled { store, writer, random })
}

impl Assembled {
    /// Begins to lead or to follow, and to talk to other nodes.
    pub fn start(&self) {
        let Store { tasks, pool, map, local, .. } = &*self.store;
        for pair in self.store.copies.values().map(Arc::clone) {
            tasks.spawn_until_stop(TaskKind::Copy, Arc::clone(&pair).run());
            tasks.spawn_until_stop(TaskKind::Exchange, Arc::clone(&pair).keep_facts());
            tasks.spawn_until_stop(TaskKind::Exchange, pair.keep_cluster_uid());
        }
        let exchange = exchange::run(Arc::clone(pool), Arc::clone(map), Arc::clone(local), self.random.clone());
        tasks.spawn_until_stop(TaskKind::Exchange, exchange);
    }

    /// What serves peers' connections.
    #[must_use]
    pub fn listener(&self) -> Listener {
        let Store { tasks, local, contacts, metrics, clock, .. } = &*self.store;
        Listener {
            local: Arc::clone(local),
            contacts: Arc::clone(contacts),
            metrics: Arc::clone(metrics),
            clock: clock.clone(),
            tasks: tasks.tracker(),
            stop: tasks.stop_token(),
        }
    }

    /// Finishes what is under way and drains the writer; all that was acknowledged is on disk when it returns. False when
    /// the writer's thread had panicked.
    pub async fn stop(self) -> bool {
        self.store.tasks.stop().await;
        for pair in self.store.copies.values() {
            pair.writer.close();
        }
        let joined = tokio::task::spawn_blocking(move || self.writer.join()).await;
        matches!(joined, Ok(Ok(())))
    }
}

/// What was persisted wins over the file (rule 15). A file of an older program knows only its own shard's epoch.
fn restore(map: &ClusterMap, shard: ShardIndex, state: &State, me: &NodeName) -> Result<(), storage::Error> {
    if let Some(leadership) = &state.leadership {
        map.restore(leadership.clone(), me)
            .map_err(|what| storage::Error::Corrupt(format!("row `leadership`: {what}")))?;
    }
    if let Some(epoch) = &state.epoch {
        map.merge(shard, epoch);
    }
    Ok(())
}

/// Whoever reads the file would think that another leads: said once, at the start.
fn say_who_leads(map: &ClusterMap, shard: &Shard) {
    let (leader, first) = (map.leader_of(shard), shard.first_leader());
    if leader.name != first.name {
        let epoch = map.epoch_or_first(shard).number;
        warn!(
            shard = shard.name, leader = %leader.name, epoch, file = %first.name,
            "the shard is led by another node than the file names first, since a takeover or a switchover; kv shard switchover \
             moves the lead"
        );
    }
}

fn local(topology: &Topology, me: &Node, state: &State) -> Local {
    let names: Vec<&str> = topology.shards.iter().map(|shard| shard.name.as_str()).collect();
    let placement_text =
        format!("static, {}, {} shards: {}", topology.placement.hash, topology.placement.shards, names.join(", "));
    Local::new(me.name.clone(), topology.placement_hash(), placement_text, topology.addresses_hash(), state.cluster_uid)
}

fn open_pair(
    shard: Shard,
    me: &Node,
    engine: Arc<dyn Engine>,
    state: &State,
    files: Arc<dyn Files>,
    around: Surroundings,
) -> io::Result<(Pair, JoinHandle<()>)> {
    let others = shard.copies.iter().filter(|copy| copy.name != me.name).map(|copy| copy.name.clone());
    let leads = matches!(around.map.part_of(&shard, &me.name), Part::Lead(_));
    // A replica's file may be a copy of the leader's: those cursors are the leader's business, and would hold its log. Nor
    // does one count that is of an earlier leadership, and not on this history.
    let on_history = |cursor: &Option<Cursor>| matches!(state.history.standing(cursor.as_ref()), Standing::On(_));
    let remembered = state.cursors.iter().filter(|(_, cursor)| leads && on_history(cursor)).cloned();
    let leader = Arc::new(Mutex::new(Leader::new(others, &remembered.collect::<Vec<_>>())));
    let upkeep = upkeep_source(Arc::clone(&leader), Arc::clone(&around.settings), around.clock.clone());
    let (min_free_bytes, metrics) = (around.settings.min_free_bytes, Arc::clone(&around.metrics));
    let options = writer::Options { shard: shard.index, min_free_bytes, metrics };
    let mut writer = Writer::new(engine, state, around.clock.clone(), options, Box::new(upkeep));
    if let Some(guard) = guard_source(Arc::clone(&leader), &around.settings) {
        writer.set_guard(guard);
    }
    let (handle, thread) = writer::spawn(writer)?;
    let keeper = Arc::new(Keeper::new(Arc::clone(&around.map), handle.clone()));
    let copy = Opened { writer: handle, leader, files, keeper, incarnation: Incarnation(around.random.id()) };
    Ok((Pair::new(shard, me.clone(), copy, state, around), thread))
}
