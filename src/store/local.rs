//! Serves a request from this node's own copy.

use std::sync::Arc;
use std::time::Duration;

use super::ack;
use super::call::{Answer, Call, Consistency, Operation, Outcome, Place, Served};
use super::error::{Applied, Code, Error};
use super::reads;
use crate::clock::Clock;
use crate::replication::pair::{Duty, Pair};
use crate::storage::writer::Refusal;
use crate::storage::{self, Role};
use crate::types::{Change, Key, Mutation, Record, Space};

/// How often one request waits until it is known who leads: once, or a few times when a change of hands is broken off.
/// Beyond it, it is refused.
const LOOKS_MAX: usize = 32;

/// Serves a read or a write, and waits while it is being found out who leads. A write returns when it is durable, or when its
/// time is over.
pub(super) async fn execute(pair: &Pair, place: &Arc<Place>, clock: &Clock, call: &Call) -> Result<Answer, Error> {
    let mut result = execute_once(pair, place, clock, call).await;
    for _ in 0..LOOKS_MAX {
        if !(result.as_ref().is_err_and(Error::was_not_led) && is_worth_another_look(pair, clock, call).await) {
            break;
        }
        result = execute_once(pair, place, clock, call).await;
    }
    result
}

/// While it is not known who leads, what was not done waits, and is looked at again.
async fn is_worth_another_look(pair: &Pair, clock: &Clock, call: &Call) -> bool {
    let left = call.deadline.saturating_duration_since(clock.now());
    !left.is_zero() && (pair.wait_until_settled(left).await || pair.is_leading())
}

/// The same without waiting for anybody to lead: a write is in the writer's queue, or refused, once this was polled.
pub(super) async fn execute_once(pair: &Pair, place: &Arc<Place>, clock: &Clock, call: &Call) -> Result<Answer, Error> {
    let result = match &call.operation {
        Operation::Get { .. } | Operation::Head { .. } if call.wishes.is_some() && call.terms().session.is_some() => {
            return reads::read_in_session(pair, place, clock, call).await;
        }
        Operation::Get { .. } | Operation::Head { .. } => {
            return read(pair, place, clock, &call.operation, call.consistency, call.terms().max_stale);
        }
        Operation::Put { key, content } => write(pair, place, clock, call, key, Change::Put(content.clone())).await,
        Operation::Delete { key } => write(pair, place, clock, call, key, Change::Delete).await,
    };
    result.map_err(|error| error.shard(&pair.shard.name))
}

/// Serves a read, at once: a point read waits for nobody.
pub(super) fn read(
    pair: &Pair,
    place: &Arc<Place>,
    clock: &Clock,
    operation: &Operation,
    consistency: Consistency,
    max_stale: Option<Duration>,
) -> Result<Answer, Error> {
    try_read(pair, place, clock, operation, consistency, max_stale).map_err(|error| error.shard(&pair.shard.name))
}

fn try_read(
    pair: &Pair,
    place: &Arc<Place>,
    clock: &Clock,
    operation: &Operation,
    consistency: Consistency,
    max_stale: Option<Duration>,
) -> Result<Answer, Error> {
    let leads = pair.is_leading();
    if !leads && (consistency == Consistency::Leader || !pair.serves_any()) {
        return Err(not_leading(pair));
    }
    // The age is taken before the read: what is read may be newer, never older.
    let stale = if leads { Some(Duration::ZERO) } else { pair.stale(clock.now()) };
    if let Some(max) = max_stale {
        reads::check_age(pair, stale, max)?;
    }
    let found = pair.engine().get(Space::Data, operation.key()).map_err(|error| storage_failed(&error, Applied::No))?;
    Ok(Answer { outcome: outcome_of(operation, found), served: served(place, leads, consistency, stale) })
}

/// What a read comes to.
pub(super) fn outcome_of(operation: &Operation, found: Option<Record>) -> Outcome {
    let outcome = found.map_or(Outcome::Missing, Outcome::Found);
    if matches!(operation, Operation::Head { .. }) { outcome.described() } else { outcome }
}

async fn write(
    pair: &Pair,
    place: &Arc<Place>,
    clock: &Clock,
    call: &Call,
    key: &Key,
    change: Change,
) -> Result<Answer, Error> {
    if !pair.is_leading() {
        return Err(not_leading(pair));
    }
    reads::check_session(pair, call.terms().session)?;
    let waiting = call.ack().map(|ack| ack::begin(pair, ack)).transpose()?;
    let left = call.deadline.saturating_duration_since(clock.now());
    let is_put = matches!(change, Change::Put(_));
    let mutation = Mutation { space: Space::Data, key: key.clone(), change };
    let written = tokio::time::timeout(left, pair.writer.write(mutation, call.deadline))
        .await
        .map_err(|_| outcome_unknown())?
        .map_err(|refusal| refused(pair, refusal))?;
    let seq = written.version.map_or_else(|| pair.writer.published().end(), |version| version.seq());
    let replicas = match waiting {
        None => pair.copies_with(seq),
        Some(waiting) => waiting.confirm(clock, call.deadline, written.version, seq).await?,
    };
    let acks = ack::acks(pair, replicas);
    let outcome = match written.version {
        Some(version) if is_put => Outcome::Stored { version, created: !written.existed, acks },
        version => Outcome::Deleted { version, acks },
    };
    let position = if written.version.is_none() { reads::position(pair).map(Box::new) } else { None };
    Ok(Answer {
        outcome,
        served: Served { position, ..served(place, true, Consistency::Leader, Some(Duration::ZERO)) },
    })
}

/// `asked`: what a read that the leader does not serve is.
pub(super) fn served(place: &Arc<Place>, leads: bool, asked: Consistency, stale: Option<Duration>) -> Served {
    Served {
        place: Arc::clone(place),
        role: if leads { Role::Leader } else { Role::Replica },
        consistency: if leads { Consistency::Leader } else { asked },
        stale_ms: stale.map(reads::millis_up),
        position: None,
    }
}

pub(super) fn not_leading(pair: &Pair) -> Error {
    let name = &pair.shard.name;
    if pair.writer.published().is_failed() {
        return storage_failed(&storage::Error::Failed("a commit failed".into()), Applied::No);
    }
    let detail = match pair.duty() {
        Duty::Starting => format!("shard {name} is starting: its leader asks its replicas what they hold"),
        Duty::Halted(halt) | Duty::StandingAside(halt) => halt.to_string(),
        Duty::Leading => format!("another node begins to lead shard {name}"),
        Duty::Following if pair.had_full_copy() => format!("node {} is a replica of shard {name}", pair.me.name),
        Duty::Following => format!("this replica of shard {name} has no full copy yet"),
    };
    Error::new(Code::NoLeader, detail).hint(
        "nothing was written; try again in a second. A read that may be old is served with consistency=any as soon as \
         a copy can be reached",
    )
}

/// The client's time is over while the write waits for the disk.
fn outcome_unknown() -> Error {
    Error::new(Code::Deadline, "the write was not durable before its deadline")
        .applied(Applied::Unknown)
        .hint("it may still take effect: read the key before you write it again")
}

pub(super) fn storage_failed(error: &storage::Error, applied: Applied) -> Error {
    Error::new(Code::StorageFailed, error.to_string())
        .applied(applied)
        .hint("this node's store takes nothing more: look at its log and its disk, then restart the node")
}

fn refused(pair: &Pair, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Closed(detail) if pair.writer.published().is_failed() => {
            storage_failed(&storage::Error::Failed(detail), Applied::No)
        }
        Refusal::Closed(detail) => {
            Error::new(Code::NoLeader, detail).hint("nothing was written; try again when the shard has a leader")
        }
        Refusal::Held => {
            Error::new(Code::NoLeader, refusal.to_string()).hint("nothing was written; try again in a second")
        }
        Refusal::Fenced => Error::new(Code::NoLeader, refusal.to_string()).applied(Applied::Unknown).hint(
            "it may last, or be lost with what the former leader alone holds: read the key before you write it again",
        ),
        Refusal::DeadlinePassed => Error::new(Code::Deadline, refusal.to_string())
            .hint("nothing was written: the shard is slow or overloaded; allow more time, or write less at once"),
        Refusal::Overloaded | Refusal::NoRoom => {
            Error::new(Code::Overloaded, refusal.to_string()).hint("nothing was written; write again more slowly")
        }
        Refusal::DiskFull { .. } => Error::new(Code::DiskFull, format!("node {}: {refusal}", pair.me.name)).hint(
            "nothing was written, reads go on: free space on the leader's disk; deletes are still taken, \
                   and `kv compact` of the stopped node gives their space back",
        ),
        Refusal::TooFewReplicas(detail) => Error::new(Code::TooFewReplicas, detail).hint(
            "nothing was written: start the replicas, and write again; kv status shows them. replication.min_replicas in the \
             leader's sharding.toml says how many there must be",
        ),
        Refusal::AtRisk(detail) => Error::new(Code::AtRisk, detail).hint(
            "nothing was written: start the replica, or let it catch up, and write again; kv status shows it. \
             replication.max_at_risk_entries and max_at_risk_ms in the leader's sharding.toml say how much may be at risk",
        ),
        Refusal::OutOfOrder { .. } => Error::new(Code::Internal, refusal.to_string()),
        Refusal::Failed(error) => storage_failed(&error, Applied::No),
        Refusal::Unknown(error) => storage_failed(&error, Applied::Unknown),
    }
}
