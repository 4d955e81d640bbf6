//! Keeps the cluster's map fresh while load runs: asks for it every second, and at once when an answer suggests that it
//! is old (a forwarded answer to a direct request, a broken connection).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::ask;
use crate::cluster::Cluster;
use crate::plan::Place;

/// How old a map may become unnoticed.
const INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two questions: a node that is away must not be stormed with them.
const PAUSE: Duration = Duration::from_millis(100);

/// The map as it is now, and how to say that it is old.
#[derive(Debug)]
pub(crate) struct Map {
    /// Always the newest that is known.
    pub(crate) newest: watch::Receiver<Option<Arc<Cluster>>>,
    /// To be notified.
    pub(crate) is_old: Arc<Notify>,
    task: Option<JoinHandle<()>>,
}

impl Map {
    /// A map that stays as it is: none, or one that nobody follows.
    pub(crate) fn fixed(cluster: Option<Arc<Cluster>>) -> Map {
        Map { newest: watch::channel(cluster).1, is_old: Arc::default(), task: None }
    }

    /// Begins with this one and follows it until it is dropped.
    pub(crate) fn follow(target: Place, cluster: Arc<Cluster>) -> Map {
        let (to, newest) = watch::channel(Some(cluster));
        let is_old = Arc::new(Notify::new());
        let task = tokio::spawn(follow(target, to, Arc::clone(&is_old)));
        Map { newest, is_old, task: Some(task) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn follow(target: Place, to: watch::Sender<Option<Arc<Cluster>>>, is_old: Arc<Notify>) {
    loop {
        tokio::time::sleep(PAUSE).await;
        // Told in time, or not at all: both mean that it is time to ask.
        let _ = tokio::time::timeout(INTERVAL, is_old.notified()).await;
        let known = to.borrow().clone();
        let Some(newest) = ask_anybody(&target, known.as_deref()).await else { continue };
        let leads = |cluster: &Cluster| cluster.shards.iter().map(|shard| shard.leader.clone()).collect::<Vec<_>>();
        // States of nodes come and go; workers only need to know who leads.
        if known.is_none_or(|known| leads(&known) != leads(&newest) && known.shards.len() == newest.shards.len()) {
            to.send_replace(Some(Arc::new(newest)));
        }
    }
}

/// The node that was named first, then the others, should it be away.
async fn ask_anybody(target: &Place, known: Option<&Cluster>) -> Option<Cluster> {
    if let Ok(cluster) = ask::cluster(target.address, &target.host).await {
        return Some(cluster);
    }
    for node in known.map(|known| known.nodes.as_slice()).unwrap_or_default() {
        let Ok(address) = node.address.parse() else { continue };
        if address != target.address
            && let Ok(cluster) = ask::cluster(address, &node.address).await
        {
            return Some(cluster);
        }
    }
    None
}
