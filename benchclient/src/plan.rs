//! What a phase of load is to do: decided before it begins, shared by all its workers, and not changed by them (but for
//! the counters that hand out turns).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::chooser::Chooser;
use crate::cluster::Cluster;
use crate::keyspace::{Keyspace, Stamp};
use crate::ledger::Ledger;
use crate::request::{Forms, Op};

/// Which requests are made.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// Drawn from a workload.
    Drawn(Chooser),
    /// The same for the key of every turn's number, one after the other.
    Each(Op),
    /// The same for keys of this list, one after the other.
    Listed(Op, Arc<Vec<u64>>),
    /// Reads of keys of this list, each as likely. It is not empty.
    Among(Arc<Vec<u64>>),
}

/// When requests are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Each worker asks again when it was answered.
    Closed,
    /// So many a second, whatever the server does.
    Open(u64),
}

/// When it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// After these turns, from the first up to the second; all of them are measured.
    Turns(u64, u64),
    /// After a warm-up and a measured time.
    Time(Duration, Duration),
}

/// What is done with the values that are read.
#[derive(Debug, Clone)]
pub(crate) enum Check {
    /// Nothing.
    No,
    /// Every key has one value, which follows from its number; an absent key is a failure.
    Once,
    /// Writes are entered in the ledger, and reads compared with it.
    Ledger(Arc<Mutex<Ledger>>),
    /// Compared with the ledger, with nothing being written any more.
    LastLook(Arc<Mutex<Ledger>>),
}

/// Which keys' numbers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// None.
    Nothing,
    /// Those whose writes were acknowledged.
    Acknowledged,
    /// Those whose requests failed for other reasons than what the key holds: they can be tried again.
    Undone,
}

/// Which node is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// The one that was named.
    Any,
    /// The leader of the key's shard, as the cluster's map says.
    Direct,
}

/// A node's address, resolved and as it stands in `Host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// To connect to.
    pub(crate) address: SocketAddr,
    /// `host:port`.
    pub(crate) host: Arc<str>,
}

/// The plan.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What the live line and the tables call it.
    pub(crate) label: &'static str,
    /// The node that was named.
    pub(crate) target: Place,
    /// How requests are written.
    pub(crate) forms: Forms,
    /// The cluster's map as it is now; `None` when the server has none.
    pub(crate) cluster: watch::Receiver<Option<Arc<Cluster>>>,
    /// Told when an answer suggests that the map is old.
    pub(crate) map_is_old: Arc<tokio::sync::Notify>,
    /// Which node is asked.
    pub(crate) route: Route,
    /// Keys and values.
    pub(crate) keys: Keyspace,
    /// Names this process in the values that it writes.
    pub(crate) run: u64,
    /// Which requests.
    pub(crate) source: Source,
    /// When.
    pub(crate) pace: Pace,
    /// How long.
    pub(crate) extent: Extent,
    /// How values that are read are judged.
    pub(crate) check: Check,
    /// Workers over all threads, each with one connection to each node that it asks.
    pub(crate) workers: usize,
    /// Requests that a worker sends at once.
    pub(crate) pipeline: usize,
    /// At most one per worker is of use.
    pub(crate) threads: usize,
    /// How long a burst may take.
    pub(crate) timeout: Duration,
    /// A tally per worker, or per thread.
    pub(crate) per_worker: bool,
    /// Keep the numbers of some keys: eight bytes each.
    pub(crate) keep: Keep,
    /// The next turn.
    pub(crate) next: AtomicU64,
    /// Set when no further turn is to begin; what is under way is waited for.
    pub(crate) stop: AtomicBool,
}

impl Plan {
    /// The next turn's number, unless there is none. Without a bound on turns they are not counted.
    pub(crate) fn turn(&self) -> Option<u64> {
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        match self.extent {
            Extent::Time(..) => Some(0),
            Extent::Turns(_, end) => Some(self.next.fetch_add(1, Ordering::Relaxed)).filter(|turn| *turn < end),
        }
    }

    /// The stamp of write number `write` in this phase.
    pub(crate) fn stamp(&self, write: u64) -> Stamp {
        match self.check {
            Check::Once => ONLY,
            _ => Stamp { run: self.run, write },
        }
    }
}

/// The stamp of values that a key has once and for all.
pub(crate) const ONLY: Stamp = Stamp { run: 0, write: 0 };

/// The ledger; a thread that panicked has ended the run.
pub(crate) fn locked(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}
