//! A shard with its leader (node 0) and its replicas (1 and on), and a second shard where a stranger is needed.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ostraca::clock::Clock;
use ostraca::config::{Node, Settings, Shard, Topology};
use ostraca::metrics::{Labels, Metrics};
use ostraca::placement::{HashFunction, Placement};
use ostraca::random::Random;
use ostraca::storage::{Chunk, Engine, Entries, State};
use ostraca::store::assembly::{Assembled, Materials, assemble};
use ostraca::store::view::{CopyStatus, Readiness};
use ostraca::store::{Answer, Call, Consistency, Error, Operation, Outcome, Reach, Store};
use ostraca::types::{Content, Key, NodeName, RequestId, Seq, ShardIndex, Space};
use parking_lot::RwLock;
use tokio::time::sleep;

use crate::disk::{Disk, Opened, Probe};
use crate::net::{Net, Plug};

/// Longest wait for anything.
const WAIT_MAX: Duration = Duration::from_secs(40);
/// How long a write may take.
pub(crate) const WRITE_MAX: Duration = Duration::from_secs(10);

/// Several nodes, their disks and the network between them.
pub(crate) struct Cluster {
    pub(crate) net: Net,
    topology: Arc<Topology>,
    settings: Arc<Settings>,
    clock: Clock,
    slots: Vec<Slot>,
}

struct Slot {
    node: Node,
    disk: Disk,
    running: Option<Running>,
}

struct Running {
    assembled: Assembled,
    store: Arc<Store>,
    engine: Arc<Probe>,
    alive: Arc<RwLock<bool>>,
}

/// Settings in which a replica polls often and a leader keeps no log behind its replicas.
pub(crate) fn settings() -> Settings {
    Settings { poll_interval: Duration::from_millis(20), log_retain_bytes: 0, ..Settings::default() }
}

impl Cluster {
    /// One shard; nothing runs yet.
    pub(crate) fn new(replicas: usize) -> Cluster {
        Cluster::with(replicas, settings())
    }

    pub(crate) fn with(replicas: usize, settings: Settings) -> Cluster {
        let node = |ordinal: usize| Node {
            name: NodeName::new(format!("S/{ordinal}")),
            address: SocketAddr::from(([127, 0, 0, 1], u16::try_from(9000 + ordinal).unwrap())),
            shard: ShardIndex(0),
        };
        let copies: Vec<Node> = (0..=replicas).map(node).collect();
        let slots = copies.iter().map(|node| Slot { node: node.clone(), disk: Disk::default(), running: None });
        let slots = slots.collect();
        let shard = Shard { name: "S".into(), index: ShardIndex(0), copies };
        let placement = Placement { hash: HashFunction::Fnv1a, shards: 1 };
        let topology = Arc::new(Topology { placement, shards: vec![shard] });
        Cluster { net: Net::default(), topology, settings: Arc::new(settings), clock: Clock::real(), slots }
    }

    /// All nodes, started, and the leader leading.
    pub(crate) async fn started(replicas: usize) -> Cluster {
        let mut cluster = Cluster::new(replicas);
        (0..=replicas).for_each(|node| cluster.start(node));
        cluster.wait_leading().await;
        cluster
    }

    pub(crate) fn start(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        assert!(slot.running.is_none(), "node {at} runs already");
        let Opened { engine, files, alive } = slot.disk.open();
        let materials = Materials {
            topology: Arc::clone(&self.topology),
            settings: Arc::clone(&self.settings),
            me: slot.node.clone(),
            engine: Arc::clone(&engine) as Arc<dyn Engine>,
            files,
            clock: self.clock.clone(),
            random: Random::system(),
            connector: Box::new(Plug { net: self.net.clone(), me: slot.node.address }),
            metrics: Arc::new(Metrics::new(&Labels::default())),
        };
        let assembled = assemble(materials).unwrap();
        let store = Arc::clone(&assembled.store);
        self.net.open(slot.node.address, assembled.listener(), Arc::clone(&store));
        assembled.start();
        slot.running = Some(Running { assembled, store, engine, alive });
    }

    /// Ends a node between two instructions: nothing that it does afterwards reaches its disk or the network.
    pub(crate) fn kill(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        let Running { assembled, alive, .. } = slot.running.take().unwrap();
        self.net.close(slot.node.address);
        *alive.write() = false;
        tokio::spawn(assembled.stop()); // its threads and tasks go, too
    }

    /// What nodes that start from now on read in their file.
    pub(crate) fn set_settings(&mut self, settings: Settings) {
        self.settings = Arc::new(settings);
    }

    pub(crate) fn restart(&mut self, at: usize) {
        self.kill(at);
        self.start(at);
    }

    pub(crate) fn disk(&self, at: usize) -> &Disk {
        &self.slots[at].disk
    }

    pub(crate) fn address(&self, at: usize) -> SocketAddr {
        self.slots[at].node.address
    }

    pub(crate) fn engine(&self, at: usize) -> &Probe {
        &self.running(at).engine
    }

    pub(crate) fn store(&self, at: usize) -> Arc<Store> {
        Arc::clone(&self.running(at).store)
    }

    fn running(&self, at: usize) -> &Running {
        self.slots[at].running.as_ref().unwrap()
    }

    // ---- requests

    pub(crate) async fn put(&self, at: usize, key: &str, value: impl Into<bytes::Bytes>) -> Result<Answer, Error> {
        execute(&self.store(at), put(key, value), Consistency::Leader, WRITE_MAX).await
    }

    /// A write that may not take long.
    pub(crate) async fn put_soon(&self, at: usize, key: &str, value: String) -> Result<Answer, Error> {
        execute(&self.store(at), put(key, value), Consistency::Leader, Duration::from_millis(500)).await
    }

    pub(crate) async fn delete(&self, at: usize, key: &str) -> Result<Answer, Error> {
        execute(&self.store(at), Operation::Delete { key: named(key) }, Consistency::Leader, WRITE_MAX).await
    }

    /// The value that this node's own copy holds.
    pub(crate) async fn get_any(&self, at: usize, key: &str) -> Result<Option<String>, Error> {
        let call = call(Operation::Get { key: named(key) }, Consistency::Any, Reach::Local, WRITE_MAX);
        match self.store(at).execute(call).await?.outcome {
            Outcome::Found(record) => Ok(Some(String::from_utf8_lossy(&record.content.value).into_owned())),
            _ => Ok(None),
        }
    }

    pub(crate) async fn status(&self, at: usize) -> CopyStatus {
        self.store(at).status().await.copies.remove(0)
    }

    /// What the running nodes say is wrong, for the message of a test that fails.
    async fn problems(&self) -> String {
        let mut lines = String::new();
        for running in self.slots.iter().filter_map(|slot| slot.running.as_ref()) {
            let status = running.store.status().await;
            writeln!(lines, "{} of {:?}: {:?}", status.node, status.cluster, status.problems).unwrap();
        }
        lines
    }

    // ---- waiting

    pub(crate) async fn wait_leading(&self) {
        self.wait_state(0, "leading").await;
    }

    pub(crate) async fn wait_state(&self, at: usize, state: &str) {
        until(&format!("node {at} is {state}"), async || {
            let found = self.status(at).await.state;
            if found == state { Ok(()) } else { Err(format!("{found}\n{}", self.problems().await)) }
        })
        .await;
    }

    /// Waits until every running copy holds exactly what this one holds.
    pub(crate) async fn wait_same(&self, leader: usize) {
        for at in (0..self.slots.len()).filter(|at| *at != leader && self.slots[*at].running.is_some()) {
            self.wait_same_at(leader, at).await;
        }
    }

    /// Waits until one copy holds exactly what another holds.
    pub(crate) async fn wait_same_at(&self, leader: usize, at: usize) {
        until(&format!("node {at} equals node {leader}"), async || {
            compare(&Contents::of(self.disk(leader))?, &Contents::of(self.disk(at))?)
        })
        .await;
    }

    /// Waits until a node has written down what it knows of the shard's leader.
    pub(crate) async fn wait_known(&self, at: usize, epoch: u64) {
        until(&format!("node {at} has epoch {epoch} on its disk"), async || {
            let state = self.disk(at).look().state().unwrap();
            let known = self.store(at).cluster().shards[0].epoch;
            if state.leadership.is_some() && known == epoch { Ok(()) } else { Err(format!("{known}, {state:?}")) }
        })
        .await;
    }

    /// Waits until every running replica holds exactly what its leader holds, log and history included.
    pub(crate) async fn wait_converged(&self) {
        for at in (1..self.slots.len()).filter(|at| self.slots[*at].running.is_some()) {
            until(&format!("node {at} equals its leader"), async || {
                compare(&Contents::of(self.disk(0))?, &Contents::of(self.disk(at))?)
            })
            .await;
            // What is durable is seen at once; that it makes the copy whole, an instant later.
            until_true("the copy serves", || {
                self.store(at).readiness(Readiness::Reads).iter().all(|check| check.verdict.passes())
            })
            .await;
        }
    }
}

/// What a copy holds on its disk.
struct Contents {
    records: Vec<(Key, bytes::Bytes)>,
    state: State,
    log: Vec<bytes::Bytes>,
}

impl Contents {
    /// Looks while others write: a log that is trimmed between two looks is looked at again.
    fn of(disk: &Disk) -> Result<Contents, String> {
        let engine = disk.look();
        let state = engine.state().unwrap();
        let Chunk { records, .. } = engine.chunk(Space::Data, None, usize::MAX).unwrap();
        match engine.entries(state.log_start, usize::MAX).unwrap() {
            Entries::Found(log) => Ok(Contents { records, state, log }),
            Entries::Trimmed => Err("the log is being trimmed".into()),
        }
    }
}

fn compare(leader: &Contents, replica: &Contents) -> Result<(), String> {
    let (ours, theirs) = (&leader.state, &replica.state);
    if ours.history != theirs.history || ours.shard_uid != theirs.shard_uid {
        return Err(format!("{:?} {:?} and {:?} {:?}", ours.shard_uid, ours.history, theirs.shard_uid, theirs.history));
    }
    if leader.records != replica.records {
        let missing = leader.records.iter().find(|record| !replica.records.contains(record));
        let extra = replica.records.iter().find(|record| !leader.records.contains(record));
        return Err(format!("lacks or differs in {missing:?}, has {extra:?}"));
    }
    let both = leader.log.len().min(replica.log.len());
    let (ours, theirs) = (&leader.log[leader.log.len() - both..], &replica.log[replica.log.len() - both..]);
    if ours == theirs { Ok(()) } else { Err("the logs differ".into()) }
}

/// The last entry that a disk holds.
pub(crate) fn end(disk: &Disk) -> Seq {
    disk.look().state().unwrap().history.end()
}

pub(crate) fn named(key: &str) -> Key {
    Key::new(key.as_bytes().to_vec(), 1024).unwrap()
}

pub(crate) fn put(key: &str, value: impl Into<bytes::Bytes>) -> Operation {
    Operation::Put { key: named(key), content: Content::of(value) }
}

fn call(operation: Operation, consistency: Consistency, reach: Reach, within: Duration) -> Call {
    let deadline = Clock::real().now() + within;
    Call { operation, consistency, wishes: None, reach, deadline, request_id: RequestId(1) }
}

pub(crate) async fn execute(
    store: &Arc<Store>,
    operation: Operation,
    consistency: Consistency,
    within: Duration,
) -> Result<Answer, Error> {
    store.execute(call(operation, consistency, Reach::Forward, within)).await
}

/// A write through a node.
pub(crate) async fn write(store: &Arc<Store>, key: &str, value: &str) -> Result<Answer, Error> {
    execute(store, put(key, value.to_owned()), Consistency::Leader, WRITE_MAX).await
}

/// The leader's value, through a node.
pub(crate) async fn read(store: &Arc<Store>, key: &str) -> Result<Option<String>, Error> {
    let answer = execute(store, Operation::Get { key: named(key) }, Consistency::Leader, WRITE_MAX).await?;
    Ok(match answer.outcome {
        Outcome::Found(record) => Some(String::from_utf8_lossy(&record.content.value).into_owned()),
        _ => None,
    })
}

/// Waits until `check` is content; panics with its last complaint.
pub(crate) async fn until(what: &str, mut check: impl AsyncFnMut() -> Result<(), String>) {
    let clock = Clock::real();
    let give_up = clock.now() + WAIT_MAX;
    loop {
        match check().await {
            Ok(()) => return,
            Err(complaint) => assert!(clock.now() < give_up, "waited in vain until {what}: {complaint}"),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a condition holds.
pub(crate) async fn until_true(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, async || if condition() { Ok(()) } else { Err("not yet".into()) }).await;
}
