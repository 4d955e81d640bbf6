//! Passes a request on to the node that owns its key, one hop, and brings its answer back.
//!
//! A write is sent once: when a byte of it has left and no answer came, the outcome is unknown and is called so (rule 22).

use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::debug;

use super::Store;
use super::call::{Answer, Call, Operation};
use super::error::{Applied, Code, Error};
use super::wire::{Forwarded, Reply};
use crate::clock::millis;
use crate::config::{Node, Shard};
use crate::metrics;
use crate::peer::{Ask, CallError, Class, Kind, RefusalCode};
use crate::types::Epoch;

/// A peer has so long to answer after the last byte was passed on (API.md, section 3).
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Operations and answers beyond this size travel by the bulk connection.
pub(super) const SMALL_BYTES_MAX: usize = 64 << 10;

impl Store {
    /// Asks one node, and counts what came of it.
    pub(super) async fn forward(&self, node: &Node, shard: &Shard, call: &Call) -> Result<Answer, Error> {
        let began = self.clock.now();
        let result = self.forward_once(node, shard, call, began).await;
        let took = self.clock.now().saturating_duration_since(began);
        let (forwards, index) = (&self.metrics.forwards, metrics::shard(node.shard));
        forwards.durations.time([index], took);
        forwards.requests.inc([index, outcome_index(&result)]);
        let code = result.as_ref().map_or_else(|error| error.code.name(), |_| "ok");
        debug!(request = %call.request_id, shard = shard.name, peer = %node.name, code, took_ms = millis(took), "forwarded");
        result
    }

    async fn forward_once(&self, node: &Node, shard: &Shard, call: &Call, now: Instant) -> Result<Answer, Error> {
        let is_write = call.operation.is_write();
        let body = Forwarded::encode(&call.operation, call.consistency, call.terms(), call.ack());
        let class = if body.len() > SMALL_BYTES_MAX { Class::Bulk } else { Class::Request };
        let mut reply = self.ask_owner(node, class, call, body, now).await;
        if let (Ok(Reply::UseBulk), Operation::Get { .. }) = (&reply, &call.operation) {
            let body = Forwarded::encode(&call.operation, call.consistency, call.terms(), None);
            reply = self.ask_owner(node, Class::Bulk, call, body, self.clock.now()).await;
        }
        if let (Err(CallError::Unsupported), Operation::Head { key }) = (&reply, &call.operation) {
            // An older program gives the value, too.
            let get = Call { operation: Operation::Get { key: key.clone() }, ..call.clone() };
            let Answer { outcome, served } = Box::pin(self.forward_once(node, shard, &get, self.clock.now())).await?;
            return Ok(Answer { outcome: outcome.described(), served });
        }
        let result = match reply {
            Ok(Reply::Answer(answer)) => return Ok(answer),
            Ok(Reply::Error(error)) => error,
            Ok(Reply::Moved(epoch)) => {
                self.map.merge(node.shard, &epoch);
                moved(node, &epoch)
            }
            Ok(Reply::UseBulk) => Error::new(Code::Internal, format!("{} answered another question", node.name))
                .applied(if is_write { Applied::Unknown } else { Applied::No }),
            Err(error) => describe(&error, node, is_write),
        };
        let leader = result.leader.clone().unwrap_or_else(|| node.address.to_string().into());
        Err(result.shard(&shard.name).leader(leader))
    }

    async fn ask_owner(
        &self,
        node: &Node,
        class: Class,
        call: &Call,
        body: Bytes,
        now: Instant,
    ) -> Result<Reply, CallError> {
        let ask = Ask {
            node,
            class,
            kind: Kind::Forward,
            shard: node.shard,
            epoch: self.map.epoch_of(node.shard),
            request_id: call.request_id,
            body,
            answer_wait: ANSWER_WAIT + call.ack().map_or(Duration::ZERO, |ack| ack.timeout),
            total_wait: call.deadline.saturating_duration_since(now),
        };
        Ok(Reply::decode(self.pool.ask(ask).await?, &self.place_of(node))?)
    }
}

/// What becomes of a forwarded request, by its names in the metrics.
pub(super) fn outcomes() -> impl Iterator<Item = &'static str> {
    ["ok"].into_iter().chain(Code::ALL.map(Code::name))
}

/// The place of a result among [`outcomes`].
fn outcome_index(result: &Result<Answer, Error>) -> usize {
    result.as_ref().map_or_else(|error| error.code.index().saturating_add(1), |_| 0)
}

/// The node that was asked does not lead the shard; nothing was done.
fn moved(node: &Node, epoch: &Epoch) -> Error {
    let detail = format!(
        "node {} does not lead the shard any more: {} does, in epoch {}",
        node.name, epoch.leader, epoch.number
    );
    Error::new(Code::NoLeader, detail).hint("nothing was done; try again in a second")
}

/// Says what a failed call means to the client.
fn describe(error: &CallError, node: &Node, is_write: bool) -> Error {
    let unknown = is_write && error.may_have_happened();
    let code = match error {
        CallError::NotSent(_) | CallError::Lost(_) => Code::ShardUnreachable,
        CallError::Busy(_) => Code::Overloaded,
        CallError::TimedOut(_) => Code::Deadline,
        CallError::Unsupported => Code::NotBuilt,
        CallError::Garbled(_) => Code::Internal,
        CallError::Refused(refusal) => match refusal.code {
            RefusalCode::TopologyMismatch | RefusalCode::WrongNode => Code::TopologyMismatch,
            RefusalCode::Stranger | RefusalCode::Version => Code::ShardUnreachable,
        },
    };
    let hint = match (code, is_write, unknown) {
        (_, _, true) => "the write may have taken effect, or may still: read the key before you write it again",
        (Code::TopologyMismatch, _, _) => "give both nodes the same sharding.toml, and restart the one that is wrong",
        (Code::NotBuilt, _, _) => "nothing was done: upgrade the older node",
        (Code::Overloaded, _, _) => "nothing was done; ask again more slowly",
        (_, true, false) => "nothing was written: check that node, then write again",
        (_, false, false) => "check that node; a copy that may be old is served with consistency=any",
    };
    Error::new(code, format!("node {} at {}: {error}", node.name, node.address))
        .applied(if unknown { Applied::Unknown } else { Applied::No })
        .hint(hint)
}
