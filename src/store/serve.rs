//! Serves peers: every kind of request is understood here, handed to its place, and its answer rendered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::Store;
use super::call::{Answer, Call, Consistency, Operation, Outcome, Reach, Wishes};
use super::error::{Code, Error};
use super::forward::SMALL_BYTES_MAX;
use super::wire::{Forwarded, Reply as Forward};
use super::{local, lost};
use crate::clock::millis;
use crate::cluster::{canvass, exchange};
use crate::peer::{Class, Envelope, Kind, Met, Reply, Request, Service};
use crate::replication::pair::Pair;
use crate::replication::pair::grant::{Grant, GrantAnswer};
use crate::replication::pair::receipt::Question;
use crate::replication::pair::wire::{
    HistoryAnswer, Inspect, NextChunk, NextLog, Poll, PollAnswer, RecordsAnswer, RecordsQuestion, SnapshotAnswer,
};
use crate::types::{Epoch, Key, Malformed, ShardIndex};

impl Service for Store {
    /// Small operations take no task: a point read costs less than one, and a write is in the writer's queue once it was
    /// polled.
    fn meet(self: &Arc<Self>, request: Request) -> Met {
        let is_forward = request.envelope.kind == Kind::Forward.number();
        if !is_forward || request.envelope.class == Class::Bulk {
            return Met::Waits(request);
        }
        let began = self.clock.now();
        self.learn(&request.envelope);
        let reply = match Forwarded::decode(request.body.clone()) {
            Ok(Forwarded { operation, consistency, terms, .. }) if !operation.is_write() && terms.session.is_none() => {
                match self.serve_read(&request.envelope, &operation, consistency, terms.max_stale, began) {
                    Some(reply) => Reply::served(reply.encode()),
                    None => return Met::Waits(request),
                }
            }
            Ok(forwarded) => {
                let (store, envelope) = (Arc::clone(self), request.envelope);
                return Met::Begun(Box::pin(async move {
                    let reply = store.serve_forward(&envelope, forwarded, began).await;
                    store.count_peer(Kind::Forward.index(), began);
                    Reply::served(reply.encode())
                }));
            }
            Err(_) => Reply::unsupported(),
        };
        self.count_peer(Kind::Forward.index(), began);
        Met::Answered(reply)
    }

    async fn handle(&self, request: Request) -> Reply {
        let kind = Kind::from_number(request.envelope.kind).map_or(usize::MAX, Kind::index);
        let began = self.clock.now();
        let reply = self.answer_peer(request).await;
        self.count_peer(kind, began);
        reply
    }
}

impl Store {
    fn count_peer(&self, kind: usize, began: Instant) {
        self.metrics.peers.requests.inc([kind]);
        self.metrics.peers.durations.time([kind], self.clock.now().saturating_duration_since(began));
    }

    /// Every message brings what its sender knows of the shard (rule 15).
    fn learn(&self, envelope: &Envelope) {
        if let Some(epoch) = &envelope.epoch {
            self.map.merge(envelope.shard, epoch);
        }
    }

    async fn answer_peer(&self, request: Request) -> Reply {
        let Request { envelope, body } = request;
        self.learn(&envelope);
        let Some(kind) = Kind::from_number(envelope.kind) else { return Reply::unsupported() };
        let answer = match kind {
            Kind::Facts => exchange::answer(&self.map, &self.local, body),
            Kind::Forward => match Forwarded::decode(body) {
                Ok(forwarded) => Ok(self.serve_forward(&envelope, forwarded, self.clock.now()).await.encode()),
                Err(error) => Err(error),
            },
            Kind::Promise => match canvass::decode_question(body) {
                Ok(epoch) => Ok(self.promise(envelope.shard, &epoch).await.encode()),
                Err(error) => Err(error),
            },
            Kind::Inspect
            | Kind::Poll
            | Kind::SnapshotBegin
            | Kind::SnapshotChunk
            | Kind::SnapshotLog
            | Kind::Grant
            | Kind::History
            | Kind::Records
            | Kind::LostWrites
            | Kind::Receipt => self.serve_copy(kind, &envelope, body).await,
        };
        answer.map_or_else(|_| Reply::unsupported(), Reply::served)
    }

    /// A forwarded operation: served here, or refused. It is never forwarded again.
    async fn serve_forward(&self, envelope: &Envelope, forwarded: Forwarded, began: Instant) -> Forward {
        let Forwarded { operation, consistency, terms, ack } = forwarded;
        let pair = match self.owned(envelope, operation.key()) {
            Ok(pair) => pair,
            Err(error) => return Forward::Error(error),
        };
        let needs_leader = operation.is_write() || consistency == Consistency::Leader;
        if let (true, Some(epoch)) = (needs_leader, self.moved(pair)) {
            return Forward::Moved(epoch);
        }
        let call = Call {
            operation,
            consistency,
            wishes: Wishes::boxed(terms, ack),
            reach: Reach::Local,
            deadline: began + envelope.remaining,
            request_id: envelope.request_id,
        };
        // Once this was polled the work does not end with the peer's connection.
        let result = local::execute(pair, &self.place_of(&pair.me), &self.clock, &call).await;
        self.log_forwarded(envelope, pair, &result, began);
        self.rendered(envelope, pair, result)
    }

    /// A read that waits for nobody; none when it has to wait until it is known who leads.
    fn serve_read(
        &self,
        envelope: &Envelope,
        operation: &Operation,
        consistency: Consistency,
        max_stale: Option<Duration>,
        began: Instant,
    ) -> Option<Forward> {
        let pair = match self.owned(envelope, operation.key()) {
            Ok(pair) => pair,
            Err(error) => return Some(Forward::Error(error)),
        };
        if let (true, Some(epoch)) = (consistency == Consistency::Leader, self.moved(pair)) {
            return Some(Forward::Moved(epoch));
        }
        let result = local::read(pair, &self.place_of(&pair.me), &self.clock, operation, consistency, max_stale);
        if result.as_ref().is_err_and(Error::was_not_led) && pair.is_unsettled() {
            return None;
        }
        self.log_forwarded(envelope, pair, &result, began);
        Some(self.rendered(envelope, pair, result))
    }

    /// What the node that forwarded is told.
    fn rendered(&self, envelope: &Envelope, pair: &Pair, result: Result<Answer, Error>) -> Forward {
        match result {
            Ok(answer) if is_too_large(&answer, envelope.class) => Forward::UseBulk,
            Ok(answer) => Forward::Answer(answer),
            Err(error) => match self.moved(pair).filter(|_| error.was_not_led()) {
                Some(epoch) => Forward::Moved(epoch),
                None => Forward::Error(error),
            },
        }
    }

    /// The epoch in which another node leads the shard.
    fn moved(&self, pair: &Pair) -> Option<Epoch> {
        let leads_elsewhere = self.map.leader_of(&pair.shard).name != self.me.name;
        if leads_elsewhere { self.map.epoch_of(pair.shard.index) } else { None }
    }

    /// Promises to let another node lead; the promise stands in this node's own file, whatever the shard.
    async fn promise(&self, shard: ShardIndex, epoch: &Epoch) -> canvass::Answer {
        match self.copies.values().next() {
            Some(pair) => pair.promise(shard, epoch).await,
            None => {
                canvass::Answer::Refused { detail: format!("node {} has no file to write a promise to", self.me.name) }
            }
        }
    }

    /// This node's copy of the key's shard, unless the sender is wrong about it.
    fn owned(&self, envelope: &Envelope, key: &Key) -> Result<&Pair, Error> {
        let shard = self.map.topology().placement.shard_of(key);
        let pair = self.copies.get(&shard).filter(|_| shard == envelope.shard);
        pair.map(|pair| &**pair).ok_or_else(|| self.second_hop(shard))
    }

    /// The owner's side of a forwarded request, under the request id of the node where it arrived. What is this node's
    /// fault is for its operator; what is not is there for who follows a request, as is what the sender passes on itself.
    fn log_forwarded(&self, envelope: &Envelope, pair: &Pair, result: &Result<Answer, Error>, began: Instant) {
        let (request, peer, shard) = (envelope.request_id, &envelope.from, &pair.shard.name);
        let is_moved = |error: &Error| error.was_not_led() && self.moved(pair).is_some();
        let took_ms = || millis(self.clock.now().saturating_duration_since(began));
        match result {
            Ok(_) => debug!(%request, shard, %peer, code = "ok", took_ms = took_ms(), "served a forwarded request"),
            Err(error) if error.code.is_server_fault() && !is_moved(error) => {
                let (code, applied, detail) = (error.code.name(), error.applied.name(), &error.detail);
                warn!(%request, shard, %peer, code, applied, took_ms = took_ms(), detail, "a forwarded request failed");
            }
            Err(error) => {
                debug!(%request, shard, %peer, code = error.code.name(), took_ms = took_ms(), "refused a forwarded request");
            }
        }
    }

    fn second_hop(&self, shard: ShardIndex) -> Error {
        let name = self.map.topology().shard(shard).map_or_else(|| shard.to_string(), |shard| shard.name.clone());
        Error::new(
            Code::ForwardingLoop,
            format!("the request was forwarded to node {}, which does not lead shard {name} either", self.me.name),
        )
        .hint("the nodes disagree about who leads the shard: compare their sharding.toml and kv status")
        .shard(name)
    }

    /// Requests that concern one copy.
    async fn serve_copy(&self, kind: Kind, envelope: &Envelope, body: bytes::Bytes) -> Result<bytes::Bytes, Malformed> {
        let pair = self.copies.get(&envelope.shard).map(Arc::clone);
        Ok(match kind {
            Kind::Poll => {
                let poll = Poll::decode(body)?;
                match pair {
                    Some(pair) => pair.answer_poll(&envelope.from, &poll, envelope.remaining).await,
                    None => PollAnswer::NotOurs { detail: self.no_copy(envelope) },
                }
                .encode()
            }
            Kind::Inspect => {
                let inspect = Inspect::decode(body)?;
                let pair = pair.ok_or(Malformed("no copy of that shard is here"))?;
                let inspection = pair.answer_inspect(inspect).await;
                inspection.map_err(|_| Malformed("the copy cannot be read"))?.encode()
            }
            Kind::Grant => {
                let grant = Grant::decode(body)?;
                match pair {
                    Some(pair) => pair.accept_grant(&envelope.from, grant).await,
                    None => GrantAnswer::Refused { detail: self.no_copy(envelope) },
                }
                .encode()
            }
            Kind::History => match pair {
                Some(pair) => pair.answer_history(),
                None => HistoryAnswer::NotLeading { detail: self.no_copy(envelope) },
            }
            .encode(),
            Kind::Records => {
                let question = RecordsQuestion::decode(body)?;
                match pair {
                    Some(pair) => pair.answer_records(question).await,
                    None => RecordsAnswer::Refused { detail: self.no_copy(envelope) },
                }
                .encode()
            }
            Kind::LostWrites => {
                let at = lost::decode_at(body)?;
                let given = match pair {
                    Some(pair) => lost::part_of(&pair, at).await,
                    None => Err(self.no_copy(envelope)),
                };
                lost::encode_given(&given)
            }
            Kind::Receipt => {
                let question = Question::decode(body)?;
                let pair = pair.ok_or(Malformed("no copy of that shard is here"))?;
                let said = pair.answer_receipt(question).await;
                said.map_err(|_| Malformed("the copy cannot be read"))?.encode()
            }
            Kind::SnapshotBegin | Kind::SnapshotChunk | Kind::SnapshotLog => {
                let Some(pair) = pair else {
                    return Ok(SnapshotAnswer::Ended { detail: self.no_copy(envelope) }.encode());
                };
                serve_snapshot(&pair, kind, envelope, body).await?.encode()
            }
            Kind::Facts | Kind::Forward | Kind::Promise => unreachable!("served by the store as a whole"),
        })
    }

    fn no_copy(&self, envelope: &Envelope) -> String {
        format!("node {} holds no copy of shard {}", self.me.name, envelope.shard)
    }
}

async fn serve_snapshot(
    pair: &Pair,
    kind: Kind,
    envelope: &Envelope,
    body: bytes::Bytes,
) -> Result<SnapshotAnswer, Malformed> {
    Ok(match kind {
        Kind::SnapshotChunk => pair.snapshot_chunk(&envelope.from, NextChunk::decode(body)?).await,
        Kind::SnapshotLog => pair.snapshot_log(&envelope.from, NextLog::decode(body)?).await,
        _ => pair.begin_snapshot(&envelope.from),
    })
}

/// Whether a value would hold up the small requests behind it.
fn is_too_large(answer: &Answer, class: Class) -> bool {
    let Outcome::Found(record) = &answer.outcome else { return false };
    class != Class::Bulk && record.content.value.len() > SMALL_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::clock::Clock;
    use crate::config::{Node, Settings, Shard, Topology};
    use crate::metrics::{Labels, Metrics};
    use crate::peer::Status;
    use crate::peer::pool::Tcp;
    use crate::placement::{HashFunction, Placement};
    use crate::random::Random;
    use crate::storage::memory::{MemoryEngine, MemoryFiles};
    use crate::storage::{Batch, Engine, LogEntry};
    use crate::store::assembly::{Assembled, Materials, assemble};
    use crate::store::view::Readiness;
    use crate::types::{Content, Entry, Key, NodeName, RequestId, Seq, ShardIndex};

    /// A leader of one shard with one replica, which nobody runs.
    async fn leader(engine: Arc<MemoryEngine>) -> Assembled {
        let node = |ordinal: u16| Node {
            name: NodeName::new(format!("A/{ordinal}")),
            address: ([127, 0, 0, 1], 1 + ordinal).into(),
            shard: ShardIndex(0),
        };
        let shard = Shard { name: "A".into(), index: ShardIndex(0), copies: vec![node(0), node(1)] };
        let topology = Topology { placement: Placement { hash: HashFunction::Fnv1a, shards: 1 }, shards: vec![shard] };
        let node = assemble(Materials {
            topology: Arc::new(topology),
            settings: Arc::new(Settings::default()),
            me: node(0),
            engine,
            files: Arc::new(MemoryFiles::default()),
            clock: Clock::real(),
            random: Random::seeded(1),
            connector: Box::new(Tcp),
            metrics: Arc::new(Metrics::new(&Labels::default())),
        })
        .unwrap();
        node.start();
        while !node.store.readiness(Readiness::Writes).iter().all(|check| check.verdict.passes()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        node
    }

    fn deadline() -> Instant {
        Clock::real().now() + Duration::from_secs(10)
    }

    async fn poll(store: &Arc<Store>, cursor_of: Option<&Entry>) -> (Seq, Vec<Entry>) {
        let envelope = Envelope {
            request_id: RequestId(1),
            kind: Kind::Poll.number(),
            cluster: None,
            placement: store.local.placement,
            shard: ShardIndex(0),
            epoch: None,
            from: NodeName::new("A/1"),
            remaining: Duration::from_millis(20),
            class: Class::Replication,
        };
        let shard_uid = store.copies[&ShardIndex(0)].uid();
        let poll = Poll { shard_uid, cursor: cursor_of.map(Entry::cursor), is_unsettled: false };
        let reply = store.handle(Request { envelope, body: poll.encode() }).await;
        assert_eq!(reply.status, Status::Served);
        match PollAnswer::decode(reply.body).unwrap() {
            PollAnswer::Entries { end, entries, .. } => {
                (end, entries.into_iter().map(|bytes| Entry::decode(bytes).unwrap()).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    /// Between a commit and its publication a poll could carry away an entry that the leader's history did not have yet;
    /// the replica's next poll then looked like the proof that the leader had lost data, and the leader halted.
    #[tokio::test]
    async fn poll_between_a_commit_and_its_publication_gets_nothing_that_is_not_published() {
        let engine = Arc::new(MemoryEngine::new());
        let node = leader(Arc::clone(&engine)).await;
        let put = Operation::Put { key: Key::new("k", 10).unwrap(), content: Content::of("v") };
        let call = Call {
            operation: put,
            consistency: crate::store::Consistency::Leader,
            wishes: None,
            reach: Reach::Local,
            deadline: deadline(),
            request_id: RequestId(2),
        };
        node.store.execute(call).await.unwrap();
        let (end, entries) = poll(&node.store, None).await;
        assert_eq!((end, entries.len()), (Seq(1), 1));
        let unpublished = Entry { seq: Seq(2), ..entries[0].clone() };
        let bytes = unpublished.encode();
        let append = vec![LogEntry { entry: unpublished, bytes }];
        engine.commit(&Batch { append, apply_to: Some(Seq(2)), ..Batch::default() }).unwrap();
        assert_eq!(poll(&node.store, None).await, (Seq(1), entries.clone()));
        assert_eq!(poll(&node.store, entries.first()).await, (Seq(1), vec![]));
    }
}
