//! Writes down what this node must not forget about leaders: in its own file, of all shards, in one row (rules 15 and 19).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::sleep;
use tracing::warn;

use super::map::ClusterMap;
use crate::storage::writer::{Facts, Handle, Refusal};
use crate::types::{Epoch, ShardIndex};

/// Between two attempts to write down what was learnt.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Writes the map's facts and promises to the node's file.
#[derive(Debug)]
pub struct Keeper {
    map: Arc<ClusterMap>,
    writer: Handle,
    /// What the file says. Held while it is written, so that an older state never overwrites a newer one, and while the file
    /// is replaced.
    written: Mutex<Bytes>,
}

impl Keeper {
    /// A keeper that writes through this writer, to a file from which the map was restored.
    #[must_use]
    pub fn new(map: Arc<ClusterMap>, writer: Handle) -> Keeper {
        let written = Mutex::new(map.encode());
        Keeper { map, writer, written }
    }

    /// Makes what is known and promised now durable.
    pub async fn keep(&self) -> Result<(), Refusal> {
        self.write(&mut *self.written.lock().await, None, Facts::default()).await
    }

    /// Makes a fact durable, and only then known: nobody is told of it, and nothing is done on it, before. What the copy
    /// writes down of itself with it is durable in the same commit.
    pub async fn establish(&self, shard: ShardIndex, epoch: &Epoch, facts: Facts) -> Result<(), Refusal> {
        let mut written = self.written.lock().await;
        self.write(&mut written, Some((shard, epoch)), facts).await?;
        self.map.merge(shard, epoch);
        Ok(())
    }

    async fn write(
        &self,
        written: &mut Bytes,
        fact: Option<(ShardIndex, &Epoch)>,
        facts: Facts,
    ) -> Result<(), Refusal> {
        let leadership = self.map.encode_with(fact);
        let news = (leadership != *written).then(|| leadership.clone());
        let facts = Facts { leadership: news, ..facts };
        if facts != Facts::default() {
            self.writer.note(facts).await?;
            *written = leadership;
        }
        Ok(())
    }

    /// What the file says; nothing is written to it while the guard lives. Whoever replaces the file copies this into the new
    /// one, for a promise that was written in between would be lost with the old one.
    pub async fn pause(&self) -> MutexGuard<'_, Bytes> {
        self.written.lock().await
    }

    /// Writes down whatever is learnt, for as long as the node runs. What has to be durable first does not wait for this.
    pub async fn run(self: Arc<Self>) {
        let mut news = self.map.subscribe();
        news.mark_changed();
        while news.changed().await.is_ok() {
            while let Err(refusal) = self.keep().await {
                if self.writer.published().is_failed() {
                    return; // nothing is written before a restart, and a restart learns it again
                }
                warn!(detail = %refusal, "cannot write down who leads");
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}
