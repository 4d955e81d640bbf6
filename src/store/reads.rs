//! Reads that ask for more than a consistency: no older than so much (rule 24), or as far as a session has seen (rule 25).
//!
//! ```text
//!   this node's copy, if it is a replica's and meets the terms ─▶ the leader ─▶ the other replicas, each if its copy does
//! ```
//!
//! A copy that does not meet the terms passes the read on at once, and waits for nothing: the leader is one hop away and
//! always meets them, and while it is away nothing comes that could be waited for. Only a read that may not leave this node
//! (`route=local`) waits for what its session has seen. Whether what a session has seen is lost is for the leader alone to
//! say: a replica may be off the history, or behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::Store;
use super::call::{Answer, Call, Consistency, Place, Reach, Served};
use super::error::{Applied, Code, Error};
use super::local::{not_leading, outcome_of, read, served, storage_failed};
use crate::clock::Clock;
use crate::config::Shard;
use crate::replication::pair::Pair;
use crate::storage::Entries;
use crate::types::session::{Reached, position_of, reached};
use crate::types::{Seq, Space, Version};

/// Longest wait of a read that may not leave this node for what its session has seen. Beyond it: `too-stale`.
const SESSION_WAIT_MAX: Duration = Duration::from_secs(2);
/// Longest wait for a commit that can be read already to be announced.
const ANNOUNCE_WAIT_MAX: Duration = Duration::from_secs(1);

/// The numbers of a request's consistency. The default is that of requests which need none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// Oldest that an answer may be; of `bounded` reads, which have it.
    pub max_stale: Option<Duration>,
    /// Of what belongs to a session: how far it has seen the key's shard. A write is refused when that is lost.
    pub session: Option<Since>,
}

/// How far a session has seen a shard; none when it has not met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since(pub Option<Version>);

impl Terms {
    /// Those of a `bounded` read.
    #[must_use]
    pub fn max_stale(max_stale: Duration) -> Terms {
        Terms { max_stale: Some(max_stale), session: None }
    }

    /// Those of a session.
    #[must_use]
    pub fn since(position: Option<Version>) -> Terms {
        Terms { max_stale: None, session: Some(Since(position)) }
    }

    /// Whether there are any.
    #[must_use]
    pub fn are_any(&self) -> bool {
        self.max_stale.is_some() || self.session.is_some()
    }
}

impl Store {
    /// Serves a read with terms, by the first copy that meets them.
    pub(super) async fn read_on_terms(self: &Arc<Self>, call: Call) -> Result<Answer, Error> {
        let shard = self.shard_of(call.operation.key());
        let mut best = None;
        if let Some(pair) = self.replica_here(shard, &call) {
            match self.read_this_copy(pair, &call).await {
                Ok(answer) => return Ok(answer),
                Err(refusal) if call.reach == Reach::Local => return Err(refusal),
                Err(refusal) => best = refusal.stale_ms,
            }
        }
        let leader = self.map.leader_of(shard).name.clone();
        let refusal = match self.execute_by_route(asked_of_the_leader(&call)).await {
            Ok(answer) => return Ok(answer),
            Err(error) if call.reach == Reach::Local || !error.is_retryable() => return Err(error),
            Err(error) => error,
        };
        if call.consistency != Consistency::Leader {
            let others = shard.copies.iter().filter(|copy| copy.name != leader && copy.name != self.me.name);
            for node in others {
                match self.forward(node, shard, &call).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => best = best.into_iter().chain(error.stale_ms).min(),
                }
            }
        }
        Err(unmet(shard, &call, refusal, best))
    }

    /// This node's copy of the shard, when it could serve the read without leading.
    fn replica_here(&self, shard: &Shard, call: &Call) -> Option<&Arc<Pair>> {
        let pair = self.copies.get(&shard.index)?;
        let would_lead = self.map.leader_of(shard).name == self.me.name;
        let serves = match call.consistency {
            Consistency::Bounded => pair.serves_any(),
            Consistency::Session => pair.serves_sessions(self.clock.now()),
            Consistency::Leader | Consistency::Any => false,
        };
        (serves && !would_lead).then_some(pair)
    }

    async fn read_this_copy(&self, pair: &Pair, call: &Call) -> Result<Answer, Error> {
        let place = self.place_of(&pair.me);
        let Some(Since(since)) = call.terms().session else {
            let max_stale = call.terms().max_stale;
            return read(pair, &place, &self.clock, &call.operation, call.consistency, max_stale);
        };
        if call.reach == Reach::Local
            && let Some(position) = since
        {
            wait_until_reached(pair, position, &self.clock, call.deadline).await?;
        }
        read_in_session(pair, &place, &self.clock, call).await
    }
}

/// The leader's present value is no older than anything: an older program at the leader can give it, too.
fn asked_of_the_leader(call: &Call) -> Call {
    match call.consistency {
        Consistency::Bounded => Call { consistency: Consistency::Leader, wishes: None, ..call.clone() },
        Consistency::Leader | Consistency::Any | Consistency::Session => call.clone(),
    }
}

/// Nobody meets the terms: what the leader said, and the best bound that is known.
fn unmet(shard: &Shard, call: &Call, leader: Error, best: Option<u64>) -> Error {
    let Some(max) = call.terms().max_stale else {
        let hint = "no copy that can be reached holds what this session has seen: ask again in a moment; \
                    consistency=any may be older than that";
        return if call.consistency == Consistency::Session { leader.hint(hint) } else { leader };
    };
    let age = match best {
        Some(ms) => format!("the freshest that is known is at most {ms} ms old"),
        None => "nobody can say how old the others are".to_owned(),
    };
    let detail = format!(
        "no copy of shard {} that is at most {} ms old can be reached: {age}; and {}",
        shard.name,
        max.as_millis(),
        leader.detail
    );
    let mut error = Error::new(Code::TooStale, detail).shard(&shard.name).hint(TOO_STALE_HINT);
    (error.leader, error.stale_ms) = (leader.leader, best);
    error
}

const TOO_STALE_HINT: &str = "allow more with max_stale=, or take what a copy has with consistency=any";

/// Refuses when a copy is older than a read allows, or may be.
pub(super) fn check_age(pair: &Pair, stale: Option<Duration>, max: Duration) -> Result<(), Error> {
    if stale.is_some_and(|stale| stale <= max) {
        return Ok(());
    }
    let stale_ms = stale.map(millis_up);
    let age = stale_ms.map_or_else(|| "of unknown age".to_owned(), |ms| format!("up to {ms} ms old"));
    let detail = format!("this node's copy of shard {} is {age}, more than {} ms", pair.shard.name, max.as_millis());
    Err(Error { stale_ms, ..Error::new(Code::TooStale, detail).hint(TOO_STALE_HINT) })
}

/// Serves a session's read from a copy that is as far as the session: the leader's, or a replica's.
pub(super) async fn read_in_session(
    pair: &Pair,
    place: &Arc<Place>,
    clock: &Clock,
    call: &Call,
) -> Result<Answer, Error> {
    let leads = pair.is_leading();
    if !leads && (call.consistency != Consistency::Session || !pair.serves_sessions(clock.now())) {
        return Err(not_leading(pair));
    }
    let result = try_read_in_session(pair, place, clock, call, leads).await;
    result.map_err(|error| error.shard(&pair.shard.name))
}

async fn try_read_in_session(
    pair: &Pair,
    place: &Arc<Place>,
    clock: &Clock,
    call: &Call,
    leads: bool,
) -> Result<Answer, Error> {
    let since = call.terms().session.and_then(|Since(position)| position);
    let published = pair.writer.published();
    // The age is taken before the read, and so is the engine with its history: what is read may be newer, never older.
    let stale = if leads { Some(Duration::ZERO) } else { pair.stale(clock.now()) };
    let (engine, standing) = published.with_history(|history| {
        (published.engine(), since.map_or(Reached::Yes, |position| reached(history, position)))
    });
    if let (Some(position), Reached::NotYet | Reached::Never) = (since, standing) {
        return Err(if leads { lost(pair, position) } else { not_leading(pair) });
    }
    let found = engine.get(Space::Data, call.operation.key()).map_err(|error| storage_failed(&error, Applied::No))?;
    // A commit can be read a moment before it is announced, and is the only one that can. The session must not forget that
    // it has seen it: so it is announced first.
    let announced = published.end();
    let beyond = engine.entries(announced, 1).map_err(|error| storage_failed(&error, Applied::No))?;
    if beyond != Entries::Found(Vec::new()) && !is_announced(pair, announced.next()).await {
        return Err(not_leading(pair));
    }
    // What was looked at first may not be what was read, nor what was waited for: the copy may have left that history
    // meanwhile, and taken it back.
    if !(if leads { pair.is_leading() } else { pair.serves_sessions(clock.now()) }) {
        return Err(not_leading(pair));
    }
    let position = published.with_history(|history| {
        let has_reached = since.is_none_or(|position| reached(history, position) == Reached::Yes);
        let is_same = has_reached && Arc::ptr_eq(&engine, &published.engine());
        is_same.then(|| history.cursor().map(|cursor| position_of(&cursor)))
    });
    let Some(position) = position else { return Err(not_leading(pair)) }; // another file, or history, has taken its place meanwhile
    let outcome = outcome_of(&call.operation, found);
    Ok(Answer {
        outcome,
        served: Served { position: position.map(Box::new), ..served(place, leads, Consistency::Session, stale) },
    })
}

async fn is_announced(pair: &Pair, seq: Seq) -> bool {
    let mut end = pair.writer.published().subscribe();
    matches!(timeout(ANNOUNCE_WAIT_MAX, end.wait_for(|end| *end >= seq)).await, Ok(Ok(_)))
}

/// Waits until this copy is as far as a session, or says why it is not.
async fn wait_until_reached(pair: &Pair, position: Version, clock: &Clock, deadline: Instant) -> Result<(), Error> {
    let left = deadline.saturating_duration_since(clock.now()).min(SESSION_WAIT_MAX);
    let mut end = pair.writer.published().subscribe();
    let _ = timeout(left, end.wait_for(|end| *end >= position.seq())).await; // either way, look
    let name = &pair.shard.name;
    match standing(pair, position) {
        Reached::Yes => Ok(()),
        Reached::NotYet => Err(Error::new(
            Code::TooStale,
            format!("this node's copy of shard {name} is behind what the session has seen"),
        )
        .shard(name)
        .hint("ask again in a moment, or leave route=local out: the leader has it")),
        Reached::Never => Err(Error::new(
            Code::SessionLost,
            format!("this node's copy of shard {name} does not have in its history what the session has seen"),
        )
        .shard(name)
        .hint("leave route=local out: the leader says whether it is lost, or only this copy is off the history")),
    }
}

/// Refuses a session's write when what the session has seen is lost: the next read would not tell any more.
pub(super) fn check_session(pair: &Pair, session: Option<Since>) -> Result<(), Error> {
    let Some(Since(Some(position))) = session else { return Ok(()) };
    if standing(pair, position) == Reached::Yes { Ok(()) } else { Err(lost(pair, position)) }
}

fn standing(pair: &Pair, position: Version) -> Reached {
    pair.writer.published().with_history(|history| reached(history, position))
}

/// What the leader says of a position that its history does not have.
fn lost(pair: &Pair, position: Version) -> Error {
    let Version::Log { epoch, seq, .. } = position;
    let (name, known) = (&pair.shard.name, pair.epoch().number);
    if epoch > known {
        let detail = format!(
            "the session has seen epoch {epoch} of shard {name}; node {} leads it in epoch {known}, and has not heard \
             of a later one yet",
            pair.me.name
        );
        return Error::new(Code::NoLeader, detail).hint("nothing was done; try again in a second");
    }
    Error::new(
        Code::SessionLost,
        format!(
            "the session has seen shard {name} up to entry {seq} of epoch {epoch}, which its leader does not have: \
             writes up to there were lost with another copy"
        ),
    )
    .hint("nothing was done; read again, without KV-Session, what must be right: that begins a new session")
}

/// How far this copy is; none when it is empty.
pub(super) fn position(pair: &Pair) -> Option<Version> {
    pair.writer.published().with_history(|history| history.cursor().map(|cursor| position_of(&cursor)))
}

/// Whole milliseconds, rounded up: a bound.
pub(super) fn millis_up(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_in_milliseconds_is_rounded_up() {
        let cases = [(0, 0), (1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2)];
        assert!(cases.iter().all(|(nanos, ms)| millis_up(Duration::from_nanos(*nanos)) == *ms));
    }
}
