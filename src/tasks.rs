//! Every background activity of a node, in one table: what it does, what happens on an error, and on a stop.
//!
//! Stopping is: refuse new work, finish what is under way, flush, leave within a deadline.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// How long a stopping node waits for what is under way.
pub const STOP_WAIT: Duration = Duration::from_secs(5);

/// What runs in the background.
///
/// | task | on an error | on a stop |
/// |---|---|---|
/// | `Copy` | a leader asks again until it can decide, a replica backs off and polls again | dropped between two batches |
/// | `Exchange` | asks again at the next round | dropped |
///
/// Besides these, a node's tracker holds what others began: a client's write ([`Tasks::carry`]), which finishes, and the
/// connections of peers, which read no new request and finish those they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// Leads a shard or follows its leader, whichever is this node's part now.
    Copy,
    /// Exchanges the cluster's facts with other nodes, and writes them down.
    Exchange,
}

/// The tasks of one node.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Runs something to its end, also when its caller leaves meanwhile, and returns what came of it; none when it
    /// panicked.
    pub async fn carry<F>(&self, task: F) -> Option<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.tracker.spawn(task).await.ok() // dropping the handle does not end the task
    }

    /// Runs something that may be dropped at any wait when the node stops.
    pub fn spawn_until_stop<F>(&self, kind: TaskKind, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
            debug!(?kind, "task ended");
        });
    }

    /// Cancelled when the node stops.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// All tasks, for whoever starts many of its own.
    #[must_use]
    pub fn tracker(&self) -> TaskTracker {
        self.tracker.clone()
    }

    /// Asks all tasks to stop, and waits for them, at most [`STOP_WAIT`]. False when some are still running.
    pub async fn stop(&self) -> bool {
        self.stop.cancel();
        self.tracker.close();
        let stopped = tokio::time::timeout(STOP_WAIT, self.tracker.wait()).await.is_ok();
        if !stopped {
            warn!(running = self.tracker.len(), "some work did not finish within {STOP_WAIT:?}; leaving it");
        }
        stopped
    }
}
