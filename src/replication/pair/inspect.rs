//! What a copy holds: asked by an opening leader (rule 13), by `/v1/explain`, and by people.

use std::time::Duration;

use super::risk::{self, Age, AtRisk};
use super::wire::{CopyState, Heard, Inspect, Inspection, Lag};
use super::{Duty, Pair};
use crate::clock::millis;
use crate::cluster::ClusterMap;
use crate::config::Node;
use crate::peer::{Ask, CallError, Class, Kind, Pool};
use crate::storage::checksum::{self, Range, Sum};
use crate::storage::writer::Refusal;
use crate::storage::{Engine, Entries, Error};
use crate::types::{Entry, Key, NodeName, Seq, Space};

/// Asks a node what its copy holds, and with `key` also which version of that key.
pub async fn ask(
    pool: &Pool,
    map: &ClusterMap,
    node: &Node,
    key: Option<Key>,
    wait: Duration,
) -> Result<Inspection, CallError> {
    let ask = Ask {
        node,
        class: Class::Request,
        kind: Kind::Inspect,
        shard: node.shard,
        epoch: map.epoch_of(node.shard),
        request_id: pool.new_request_id(),
        body: Inspect { key }.encode(),
        answer_wait: wait,
        total_wait: wait,
    };
    Ok(Inspection::decode(pool.ask(ask).await?)?)
}

impl Pair {
    /// Says what this copy holds, and, at a leader, how far its replicas are behind.
    pub async fn answer_inspect(&self, inspect: Inspect) -> Result<Inspection, Error> {
        let version = match inspect.key {
            Some(key) => self.read(move |engine| engine.get(Space::Data, &key)).await?.map(|record| record.version),
            None => None,
        };
        let cursor = self.writer.published().with_history(|history| history.cursor());
        let lags = if self.is_leading() { self.lags().await } else { Vec::new() };
        let (state, heard) = (self.copy_state(), self.heard());
        Ok(Inspection { shard_uid: self.uid(), cursor, version, lags, state, heard })
    }

    /// What this copy could do for its shard.
    fn copy_state(&self) -> CopyState {
        match self.duty() {
            _ if self.writer.published().is_failed() => CopyState::Failed,
            Duty::Halted(_) => CopyState::Halted,
            Duty::Leading if self.is_leading() => CopyState::Leading,
            _ if self.had_full_copy() => CopyState::Whole,
            _ => CopyState::Partial,
        }
    }

    /// What this replica heard of its leader.
    #[must_use]
    pub fn heard(&self) -> Option<Heard> {
        let (end, at) = self.follower.lock().heard()?;
        Some(Heard { end, ms: millis(self.around.clock.now().saturating_duration_since(at)) })
    }

    /// What is on this leader's disk only; none when it does not lead, or has no replicas.
    #[must_use]
    pub fn at_risk(&self) -> Option<AtRisk> {
        let counts = self.leads() && self.shard.copies.len() > 1;
        let end = self.writer.published().end();
        counts.then(|| risk::at_risk(&self.leader.lock(), end, self.around.clock.now()))
    }

    /// The age of the oldest entry at risk, in milliseconds: an upper bound, or by the log's clock when it is from before
    /// this leadership.
    pub async fn at_risk_ms(&self, at_risk: AtRisk) -> u64 {
        match at_risk.oldest {
            None => 0,
            Some(Age::AtMost(age)) => millis(age),
            Some(Age::Older(since)) => {
                let acknowledged = self.with_leader(|leader| leader.greatest_acknowledged());
                self.age_after(acknowledged).await.max(millis(since))
            }
        }
    }

    /// Why this leader refuses writes at this moment, for what would be at risk; none: it does not, or does not lead.
    #[must_use]
    pub fn refuses_more(&self) -> Option<Refusal> {
        let limits = risk::Limits::of(&self.around.settings).filter(|_| self.leads())?;
        let next = self.writer.published().end().next();
        risk::check(&self.leader.lock(), next, limits, self.around.clock.now()).err()
    }

    /// How far each replica that was ever seen is behind.
    pub async fn lags(&self) -> Vec<Lag> {
        let seen: Vec<(NodeName, Seq)> = self.with_leader(|leader| {
            let seen = leader.replicas().filter(|(_, replica)| replica.cursor.is_some());
            seen.map(|(name, replica)| (name.clone(), replica.acknowledged())).collect()
        });
        let mut lags = Vec::new();
        for (name, acknowledged) in seen {
            let entries = self.writer.published().end().since(acknowledged);
            let ms = if entries == 0 { 0 } else { self.age_after(acknowledged).await };
            lags.push(Lag { replica: name.to_string(), entries, ms });
        }
        lags
    }

    /// Age of the first entry after a seq, in milliseconds by the leader's clock; of the oldest that the log holds when it
    /// does not reach back so far.
    async fn age_after(&self, seq: Seq) -> u64 {
        let now = self.around.clock.unix_ms();
        let first = self.first_entry_after(seq).await;
        first.ok().flatten().map_or(0, |entry| now.0.saturating_sub(entry.time.0))
    }

    /// What is to be said when the disk has less free space than writes want to see (`storage.min_free_bytes`).
    #[must_use]
    pub fn disk_is_low(&self) -> Option<String> {
        const MIB: u64 = 1 << 20;
        let (free, least) = (self.engine().free_bytes()?, self.around.settings.min_free_bytes);
        (free < least).then(|| {
            format!(
                "the disk of {} has {} MiB free, less than the {} MiB of storage.min_free_bytes: writes are refused, deletes \
                 and reads are not",
                self.me.name,
                free / MIB,
                least / MIB
            )
        })
    }

    /// The oldest entry that some replica has not acknowledged; none at a replica, and when all have everything.
    pub async fn oldest_unacknowledged(&self) -> Result<Option<Entry>, Error> {
        if !self.is_leading() {
            return Ok(None);
        }
        let least = self.with_leader(|leader| leader.replicas().map(|(_, replica)| replica.acknowledged()).min());
        match least {
            Some(least) => self.first_entry_after(least).await,
            None => Ok(None),
        }
    }

    /// The checksum of a range of this copy's records.
    pub async fn checksum(&self, range: Range) -> Result<Sum, Error> {
        self.read(move |engine| checksum::of_range(engine, &range)).await
    }

    async fn first_entry_after(&self, seq: Seq) -> Result<Option<Entry>, Error> {
        let found = self.read(move |engine| {
            let after = seq.max(engine.stats()?.log_start);
            engine.entries(after, 1)
        });
        match found.await? {
            Entries::Found(entries) => match entries.into_iter().next() {
                Some(bytes) => Entry::decode(bytes).map(Some).map_err(|error| Error::Corrupt(error.to_string())),
                None => Ok(None),
            },
            Entries::Trimmed => Ok(None), // trimmed between the two looks: acknowledged meanwhile
        }
    }

    /// Reads from the store away from the threads that serve requests.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Engine) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let engine = self.engine();
        tokio::task::spawn_blocking(move || read(&*engine))
            .await
            .unwrap_or_else(|panic| Err(Error::Failed(format!("reading panicked: {panic}"))))
    }
}
