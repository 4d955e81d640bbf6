//! What a write waits for beyond its leader's disk (API.md, section 3: `ack`, `ack_timeout`), and what it is told when that
//! does not come in time. The waiting itself is the pair's ([`crate::replication::pair::acks`]).
//!
//! A write that asks for replicas is written first, and then waits for them: when they do not have it in time it is there all
//! the same, and the answer says so. Only what can never come true is refused before anything is written.

use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};

use super::call::Acks;
use super::error::{Applied, Code, Error};
use crate::clock::{Clock, millis};
use crate::config::Shard;
use crate::replication::pair::Pair;
use crate::replication::pair::acks::{Expected, Waited};
use crate::types::codec::{self, Malformed, Reader};
use crate::types::{NodeName, Seq, Version};

/// The owner of a forwarded write stops waiting so long before the request's end, so that its answer arrives; of a short
/// time, a quarter before.
const WAY_BACK: Duration = Duration::from_millis(500);

/// How many replicas a write waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// So many, one at least.
    Replicas(u32),
    /// Every one that the shard has: none, where it has none.
    All,
}

/// What a write waits for once it is durable on its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Which replicas.
    pub wanted: Wanted,
    /// For how long.
    pub timeout: Duration,
    /// It was forwarded: its answer has a way to go.
    pub is_forwarded: bool,
}

/// A write that is durable on its leader, and not, or not known to be, where it was asked to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unconfirmed {
    /// The key's version; none for a delete of nothing.
    pub version: Option<Version>,
    /// The copies that have it.
    pub acks: Acks,
}

impl Wanted {
    /// How many replicas that is of a shard; none when it has fewer.
    #[must_use]
    pub fn of(self, shard: &Shard) -> Option<u32> {
        let replicas = u32::try_from(shard.copies.len().saturating_sub(1)).unwrap_or(u32::MAX);
        match self {
            Wanted::Replicas(wanted) => (wanted <= replicas).then_some(wanted),
            Wanted::All => Some(replicas),
        }
    }
}

impl Ack {
    /// Appends it to a forwarded write. A node that does not know it refuses the whole.
    pub(super) fn encode(self, out: &mut BytesMut) {
        match self.wanted {
            Wanted::All => out.put_u8(ALL),
            Wanted::Replicas(wanted) => {
                out.put_u8(REPLICAS);
                codec::put_varint(out, u64::from(wanted));
            }
        }
        codec::put_varint(out, millis(self.timeout));
    }

    /// Reads it.
    pub(super) fn decode(reader: &mut Reader) -> Result<Ack, Malformed> {
        let wanted = match reader.u8()? {
            ALL => Wanted::All,
            REPLICAS => Wanted::Replicas(reader.varint_u32()?),
            _ => return Err(Malformed("an acknowledgement of a newer program")),
        };
        Ok(Ack { wanted, timeout: Duration::from_millis(reader.varint()?), is_forwarded: true })
    }

    /// Until when a write waits that is durable now.
    fn until(self, now: Instant, deadline: Instant) -> Instant {
        let left = deadline.saturating_duration_since(now);
        let way_back = if self.is_forwarded { WAY_BACK.min(left / 4) } else { Duration::ZERO };
        let deadline = deadline.checked_sub(way_back).unwrap_or(deadline);
        now.checked_add(self.timeout).map_or(deadline, |until| until.min(deadline))
    }
}

const ALL: u8 = 1;
const REPLICAS: u8 = 2;

/// A write on its way that will wait for replicas.
#[derive(Debug)]
pub(super) struct Waiting<'p> {
    pair: &'p Pair,
    expected: Expected<'p>,
    ack: Ack,
    /// How many replicas.
    wanted: u32,
}

/// To be called before the write is begun; refuses what this node's file makes impossible, which differs from that of the
/// node that took the request in.
pub(super) fn begin(pair: &Pair, ack: Ack) -> Result<Waiting<'_>, Error> {
    let Some(wanted) = ack.wanted.of(&pair.shard) else {
        let detail = format!("the sharding.toml of {} names fewer replicas of {}", pair.me.name, pair.shard.name);
        let hint = "nothing was written: give all nodes one sharding.toml, or ask for fewer replicas";
        return Err(Error::new(Code::TooFewReplicas, detail).hint(hint));
    };
    let Some(expected) = pair.expect_acks(ack.is_forwarded) else {
        let detail = format!("too many forwarded writes wait for the replicas of shard {} already", pair.shard.name);
        let hint =
            "nothing was written: kv status shows which replica is away; a shorter ack_timeout= makes room sooner";
        return Err(Error::new(Code::Overloaded, detail).hint(hint));
    };
    Ok(Waiting { pair, expected, ack, wanted })
}

impl Waiting<'_> {
    /// Waits until the replicas have a write that is durable here; gives the replicas that have it.
    pub(super) async fn confirm(
        self,
        clock: &Clock,
        deadline: Instant,
        version: Option<Version>,
        seq: Seq,
    ) -> Result<u32, Error> {
        let began = clock.now();
        let epoch = version.map_or_else(|| self.pair.epoch().number, |Version::Log { epoch, .. }| epoch);
        let until = self.ack.until(began, deadline);
        let waited = self.expected.wait(epoch, seq, self.wanted, until).await;
        let took = millis(clock.now().saturating_duration_since(began));
        let unconfirmed = |replicas: u32, why: String| {
            let acks = acks(self.pair, replicas);
            let Acks { have, of } = acks;
            Error::new(Code::AckTimeout, format!("the write is known to be on {have} of {of} copies: {why}"))
                .applied(Applied::Yes)
                .hint(
                    "the write is done, and may reach the other copies yet: do not send it again; kv status shows them",
                )
                .unconfirmed(Unconfirmed { version, acks })
        };
        match waited {
            Waited::Enough { replicas } => Ok(replicas),
            Waited::TooFew { replicas } => {
                let lacking = self.pair.lacking_replicas(seq);
                let names: Vec<&str> = lacking.iter().map(NodeName::as_str).collect();
                let names = if names.is_empty() { "a replica".to_owned() } else { names.join(", ") }; // it came just now
                let why = format!("{names} had not acknowledged it after {took} ms");
                Err(unconfirmed(replicas, why))
            }
            Waited::Handed { replicas } => {
                let why = "another node, which has it, began to lead the shard, and learns now who else has it";
                Err(unconfirmed(replicas, why.to_owned()))
            }
            Waited::Fenced => Err(Error::new(
                Code::NoLeader,
                "the node that took the write stopped leading the shard before it was acknowledged",
            )
            .applied(Applied::Unknown)
            .hint(
                "it may last, or be lost with what the former leader alone holds: read the key before you write it again",
            )),
        }
    }
}

/// Copies known to hold a write: this one, and the replicas that acknowledged it.
pub(super) fn acks(pair: &Pair, replicas: u32) -> Acks {
    let of = u32::try_from(pair.shard.copies.len()).unwrap_or(u32::MAX);
    Acks { have: replicas.saturating_add(1).min(of), of }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Node;
    use crate::types::{NodeName, ShardIndex};

    fn shard(copies: u16) -> Shard {
        let node = |ordinal: u16| Node {
            name: NodeName::new(format!("A/{ordinal}")),
            address: ([127, 0, 0, 1], 1 + ordinal).into(),
            shard: ShardIndex(0),
        };
        Shard { name: "A".into(), index: ShardIndex(0), copies: (0..copies).map(node).collect() }
    }

    #[test]
    fn wanted_replicas_are_at_most_those_that_there_are() {
        for (wanted, copies, expected) in [
            (Wanted::All, 1, Some(0)),
            (Wanted::All, 3, Some(2)),
            (Wanted::Replicas(1), 1, None),
            (Wanted::Replicas(1), 2, Some(1)),
            (Wanted::Replicas(2), 3, Some(2)),
            (Wanted::Replicas(3), 3, None),
        ] {
            assert_eq!(wanted.of(&shard(copies)), expected, "{wanted:?} of {copies} copies");
        }
    }

    #[test]
    fn ack_waits_for_its_timeout_and_never_past_the_deadline() {
        let now = Clock::manual().now();
        let ms = Duration::from_millis;
        let ack = |timeout, is_forwarded| Ack { wanted: Wanted::All, timeout, is_forwarded };
        assert_eq!(ack(ms(500), false).until(now, now + ms(2000)), now + ms(500));
        assert_eq!(ack(ms(5000), false).until(now, now + ms(2000)), now + ms(2000));
        assert_eq!(ack(ms(5000), true).until(now, now + ms(2000)), now + ms(1500));
        assert_eq!(ack(ms(5000), true).until(now, now + ms(400)), now + ms(300));
        assert_eq!(ack(Duration::MAX, false).until(now, now + ms(2000)), now + ms(2000));
    }
}
