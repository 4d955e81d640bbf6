//! A node's disk in memory: it outlives the node, can be killed with it, and calls the test at the moments that matter.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ostraca::storage::ledger::{Ledger, Page};
use ostraca::storage::memory::{Failing, MemoryDisk, MemoryEngine};
use ostraca::storage::{Batch, Chunk, Engine, Entries, Error, Files, State, Stats};
use ostraca::types::{Change, Entry, Key, Mutation, Record, Seq, ShardIndex, Space};
use parking_lot::{Condvar, Mutex, RwLock};

/// Longest stay at a [`Stop`]: a test that forgets to let go fails with words instead of hanging.
const STOP_MAX: Duration = Duration::from_secs(60);

/// What an engine is about to do, or has just done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A commit with entries in it is durable and readable, and nobody was told.
    Committed,
    /// A commit to an incoming file comes.
    Receiving,
    /// A snapshot's records are about to be read.
    Chunk,
    /// Entries are about to be read.
    Entries,
    /// Who leads, or is promised to, is about to be written down.
    Deciding,
    /// That is durable, and nobody was told.
    Decided,
    /// What the copy is doing is about to be written down, and nothing else.
    Noting,
    /// The end of the log is about to be taken back.
    Rewinding,
    /// That is durable, and nobody was told.
    Rewound,
}

type Hook = Arc<dyn Fn(Moment) + Send + Sync>;

/// What the test wants to be called for.
#[derive(Clone, Default)]
pub(crate) struct Hooks(Arc<Mutex<Option<Hook>>>);

impl Hooks {
    /// Calls `hook` from now on, on the thread that does the work.
    pub(crate) fn set(&self, hook: impl Fn(Moment) + Send + Sync + 'static) {
        *self.0.lock() = Some(Arc::new(hook));
    }

    pub(crate) fn clear(&self) {
        *self.0.lock() = None;
    }

    /// Holds the first thread that comes to this moment.
    pub(crate) fn stop_at(&self, moment: Moment) -> Stop {
        self.stop_at_nth(moment, 1)
    }

    /// Holds the thread that comes to this moment as the `nth`, counted from 1.
    pub(crate) fn stop_at_nth(&self, moment: Moment, nth: u32) -> Stop {
        let stop = Stop(Arc::default());
        let (inner, left) = (Arc::clone(&stop.0), Mutex::new(nth));
        self.set(move |at| {
            let is_it = at == moment && {
                let mut left = left.lock();
                *left = left.wrapping_sub(1);
                *left == 0
            };
            if is_it {
                inner.stay();
            }
        });
        stop
    }

    fn call(&self, moment: Moment) {
        let hook = self.0.lock().clone();
        if let Some(hook) = hook {
            hook(moment);
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooks")
    }
}

/// A place where a thread is held until the test lets it go, or drops this.
pub(crate) struct Stop(Arc<Place>);

#[derive(Default)]
struct Place {
    state: Mutex<PlaceState>,
    changed: Condvar,
}

#[derive(Default)]
struct PlaceState {
    arrived: bool,
    open: bool,
}

impl Place {
    fn stay(&self) {
        let mut state = self.state.lock();
        state.arrived = true;
        let timed_out = self.changed.wait_while_for(&mut state, |state| !state.open, STOP_MAX).timed_out();
        assert!(!timed_out, "nobody let this thread go");
    }
}

impl Stop {
    /// Whether a thread is held here, or was.
    pub(crate) fn has_arrived(&self) -> bool {
        self.0.state.lock().arrived
    }

    pub(crate) fn let_go(&self) {
        self.0.state.lock().open = true;
        self.0.changed.notify_all();
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// The engine of a node that can be killed: a dead one's commits do not reach the disk.
pub(crate) struct Probe {
    inner: MemoryEngine,
    is_incoming: bool,
    alive: Arc<RwLock<bool>>,
    hooks: Hooks,
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("is_incoming", &self.is_incoming).finish_non_exhaustive()
    }
}

impl Engine for Probe {
    fn get(&self, space: Space, key: &Key) -> Result<Option<Record>, Error> {
        self.inner.get(space, key)
    }

    fn contains(&self, space: Space, key: &Key) -> Result<bool, Error> {
        self.inner.contains(space, key)
    }

    fn state(&self) -> Result<State, Error> {
        self.inner.state()
    }

    fn commit(&self, batch: &Batch) -> Result<(), Error> {
        if self.is_incoming {
            self.hooks.call(Moment::Receiving);
        } else if batch.leadership.is_some() {
            self.hooks.call(Moment::Deciding);
        } else if batch.role.is_some() {
            self.hooks.call(Moment::Noting);
        } else if batch.rewind.is_some() {
            self.hooks.call(Moment::Rewinding);
        }
        {
            let alive = self.alive.read();
            if !*alive {
                return Err(Error::Failed("the process was killed".into()));
            }
            self.inner.commit(batch)?;
        }
        if !batch.append.is_empty() && !self.is_incoming {
            self.hooks.call(Moment::Committed);
        }
        if batch.rewind.is_some() {
            self.hooks.call(Moment::Rewound);
        }
        if batch.leadership.is_some() && !self.is_incoming {
            self.hooks.call(Moment::Decided);
        }
        Ok(())
    }

    fn entries(&self, after: Seq, bytes_max: usize) -> Result<Entries, Error> {
        self.hooks.call(Moment::Entries);
        self.inner.entries(after, bytes_max)
    }

    fn chunk(&self, space: Space, after: Option<&Key>, bytes_max: usize) -> Result<Chunk, Error> {
        self.hooks.call(Moment::Chunk);
        self.inner.chunk(space, after, bytes_max)
    }

    fn stats(&self) -> Result<Stats, Error> {
        self.inner.stats()
    }

    fn free_bytes(&self) -> Option<u64> {
        self.inner.free_bytes()
    }
}

/// What a node finds again when it is started again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    file: Arc<Mutex<MemoryDisk>>,
    pub(crate) hooks: Hooks,
    free_bytes: Arc<Mutex<Option<u64>>>,
    fails_at_opening: Arc<Mutex<Option<Failing>>>,
    snapshots: Arc<AtomicU32>,
    ledger: Kept,
}

/// The ledger of lost writes, which outlives its copy.
#[derive(Debug, Clone)]
struct Kept(Arc<Ledger>);

impl Default for Kept {
    fn default() -> Kept {
        Kept(Arc::new(Ledger::in_memory(ShardIndex(0))))
    }
}

impl Disk {
    /// Opens what is there, for one life of a node.
    pub(crate) fn open(&self) -> Opened {
        let alive = Arc::new(RwLock::new(true));
        let inner = MemoryEngine::on(&self.file.lock());
        if let Some(when) = self.fails_at_opening.lock().take() {
            inner.fail_next_commit(when);
        }
        let engine =
            Arc::new(Probe { inner, is_incoming: false, alive: Arc::clone(&alive), hooks: self.hooks.clone() });
        let files = Arc::new(NodeFiles { disk: self.clone(), alive: Arc::clone(&alive), incoming: Mutex::default() });
        Opened { engine, files, alive }
    }

    /// Looks at what is durable, whoever has it open.
    pub(crate) fn look(&self) -> MemoryEngine {
        MemoryEngine::on(&self.file.lock())
    }

    /// Takes everything away.
    pub(crate) fn wipe(&self) {
        *self.file.lock() = MemoryDisk::default();
    }

    /// What is there now, as a backup that later writes do not change.
    pub(crate) fn backup(&self) -> MemoryDisk {
        let (from, to) = (self.look(), MemoryEngine::new());
        let state = from.state().unwrap();
        let Chunk { records, .. } = from.chunk(Space::Data, None, usize::MAX).unwrap();
        let batch = Batch {
            install: records.into_iter().map(|(key, record)| (Space::Data, key, record)).collect(),
            adopt: Some(state.history),
            cursors: state.cursors,
            shard_uid: state.shard_uid,
            cluster_uid: state.cluster_uid,
            epoch: state.epoch,
            leadership: state.leadership,
            role: state.role,
            ..Batch::default()
        };
        to.commit(&batch).unwrap();
        to.disk()
    }

    /// Puts a backup in the place of what is there.
    pub(crate) fn restore(&self, backup: MemoryDisk) {
        *self.file.lock() = backup;
    }

    /// What the ledger lists: keys and values, in its order; no value: a delete.
    pub(crate) fn lost(&self) -> Vec<(String, Option<String>)> {
        let (mut at, mut lost) = (0, Vec::new());
        loop {
            let part = self.ledger.0.read(at).unwrap();
            let Some(body) = part.body else { return lost };
            for entry in Page::decode(body).unwrap().entries {
                for Mutation { key, change, .. } in Entry::decode(entry).unwrap().mutations {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let value = match change {
                        Change::Put(content) => Some(text(&content.value)),
                        Change::Delete => None,
                    };
                    lost.push((text(key.as_bytes()), value));
                }
            }
            at = part.next;
        }
    }

    /// How many snapshots were begun.
    pub(crate) fn snapshots(&self) -> u32 {
        self.snapshots.load(Ordering::SeqCst)
    }

    /// The first commit of the next life fails.
    pub(crate) fn fail_at_opening(&self, when: Failing) {
        *self.fails_at_opening.lock() = Some(when);
    }

    /// What the disk says of its free space to snapshots that begin from now on.
    pub(crate) fn set_free_bytes_for_snapshots(&self, bytes: Option<u64>) {
        *self.free_bytes.lock() = bytes;
    }
}

/// A disk as one life of a node has it open.
pub(crate) struct Opened {
    pub(crate) engine: Arc<Probe>,
    pub(crate) files: Arc<NodeFiles>,
    pub(crate) alive: Arc<RwLock<bool>>,
}

impl Probe {
    pub(crate) fn fail_next_commit(&self, when: Failing) {
        self.inner.fail_next_commit(when);
    }
}

/// Where a snapshot is received: promoting it makes it the file that the next life opens.
#[derive(Debug)]
pub(crate) struct NodeFiles {
    disk: Disk,
    alive: Arc<RwLock<bool>>,
    incoming: Mutex<Option<MemoryDisk>>,
}

impl Files for NodeFiles {
    fn create_incoming(&self) -> Result<Arc<dyn Engine>, Error> {
        self.disk.snapshots.fetch_add(1, Ordering::SeqCst);
        let inner = MemoryEngine::new();
        inner.commit(&Batch { incoming: Some(true), ..Batch::default() })?;
        inner.set_free_bytes(*self.disk.free_bytes.lock());
        *self.incoming.lock() = Some(inner.disk());
        let (alive, hooks) = (Arc::clone(&self.alive), self.disk.hooks.clone());
        Ok(Arc::new(Probe { inner, is_incoming: true, alive, hooks }))
    }

    fn promote_incoming(&self) -> Result<(), Error> {
        let alive = self.alive.read();
        let incoming = self.incoming.lock().take();
        match (*alive, incoming) {
            (true, Some(incoming)) => {
                *self.disk.file.lock() = incoming;
                Ok(())
            }
            _ => Err(Error::Failed("no incoming file is there".into())),
        }
    }

    fn discard_incoming(&self) {
        *self.incoming.lock() = None;
    }

    fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.disk.ledger.0)
    }
}
