//! Every background activity of a node, in one table: what it does, what happens on an error, and on a stop.
//!
//! Stopping is: refuse new work, finish what is under way, flush, leave within a deadline.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
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
    /// Runs something to its end, also when its caller leaves meanwhile: its caller polls it as long as there is one, and
    /// when that is dropped it goes on in a task of its own. So it costs a task only when somebody leaves.
    pub fn carry<F>(&self, task: F) -> Carried<F>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        Carried { task: Some(Box::pin(task)), tracker: self.tracker.clone() }
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

/// Something that goes on when it is dropped ([`Tasks::carry`]).
#[derive(Debug)]
pub struct Carried<F>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    /// None once it is done, and while it is polled: one that panics is not carried on.
    task: Option<Pin<Box<F>>>,
    tracker: TaskTracker,
}

impl<F> Future for Carried<F>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut task = self.task.take().unwrap_or_else(|| unreachable!("polled after its end"));
        let polled = task.as_mut().poll(cx);
        if polled.is_pending() {
            self.task = Some(task);
        }
        polled
    }
}

impl<F> Drop for Carried<F>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn drop(&mut self) {
        // Without a runtime there is nobody left to carry it.
        if let (Some(task), Ok(runtime)) = (self.task.take(), Handle::try_current()) {
            self.tracker.spawn_on(task, &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Notify;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn carried_work_ends_with_its_caller_or_without_and_is_waited_for() {
        let (tasks, go, done) = (Tasks::default(), Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
        let work = || {
            let (go, done) = (Arc::clone(&go), Arc::clone(&done));
            tasks.carry(async move {
                go.notified().await;
                done.fetch_add(1, Ordering::SeqCst) + 1
            })
        };
        go.notify_one();
        assert_eq!(work().await, 1);
        assert_eq!(tasks.tracker().len(), 0, "it needed no task");
        let left = timeout(Duration::from_millis(10), work()).await;
        assert!(left.is_err());
        assert_eq!((tasks.tracker().len(), done.load(Ordering::SeqCst)), (1, 1));
        go.notify_one();
        assert!(tasks.stop().await);
        assert_eq!(done.load(Ordering::SeqCst), 2);
    }
}
