//! What a writer knows about its keys: each key has one writer, each value is unique, and each answer moves what may be
//! stored. The rules: acknowledged means stored; `applied: no` means never stored; anything else means either, and may
//! still happen later, so such a key gets no further write.

use crate::support::cluster::kv_target;
use crate::support::problem::well_formed;
use crate::support::raw::{Exchange, exchange};
use crate::support::{At, Cluster, Request, Response};

/// What a key holds: a value, or nothing.
pub(crate) type State = Option<Vec<u8>>;

/// How a write ended, as far as its writer can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A 2xx.
    Acknowledged,
    /// `applied: no`, or it never left.
    Refused,
    /// Everything else.
    Unknown,
}

/// A key and what may be stored under it.
#[derive(Debug)]
pub(crate) struct Tracked {
    /// The key.
    pub(crate) key: Vec<u8>,
    /// After the last acknowledged write.
    certain: State,
    /// After a write whose outcome is unknown: the last one, for none follows it.
    possible: Option<State>,
    /// What must not be there, for the message.
    refused: Vec<State>,
    /// Acknowledged writes that have a version, so that each is one entry of the log; a delete of nothing has none.
    pub(crate) entries: u64,
}

impl Tracked {
    /// A key that was never written.
    pub(crate) fn new(key: Vec<u8>) -> Tracked {
        Tracked { key, certain: None, possible: None, refused: Vec::new(), entries: 0 }
    }

    /// Whether its state is known, so that it can be written again.
    pub(crate) fn is_certain(&self) -> bool {
        self.possible.is_none()
    }

    /// Sends a write (none: a delete) through a node, and notes what came of it.
    pub(crate) fn write(&mut self, cluster: &Cluster, through: At, value: State) -> Outcome {
        assert!(self.is_certain(), "no write follows one of unknown outcome");
        let request = match &value {
            Some(value) => Request::new("PUT", kv_target(&self.key)).body(value),
            None => Request::new("DELETE", kv_target(&self.key)),
        };
        let exchange = exchange(cluster.address(through), &request);
        let has_version = matches!(&exchange, Exchange::Answered(answer) if answer.header("etag").is_some());
        let outcome = outcome_of(exchange);
        self.entries += u64::from(has_version && outcome == Outcome::Acknowledged);
        match outcome {
            Outcome::Acknowledged => self.certain = value,
            Outcome::Refused => self.refused.push(value),
            Outcome::Unknown => self.possible = Some(value),
        }
        outcome
    }

    /// Panics when the key cannot hold this.
    pub(crate) fn check(&self, seen: &State, at: At) {
        let allowed = *seen == self.certain || self.possible.as_ref() == Some(seen);
        let verdict =
            if self.refused.contains(seen) { "a write said to be unapplied is there" } else { "a write is lost" };
        assert!(
            allowed,
            "{verdict}: key {:?} at {at:?} holds {:?}; acknowledged {:?}, unknown {:?}",
            String::from_utf8_lossy(&self.key),
            shown(seen),
            shown(&self.certain),
            self.possible.as_ref().map(shown),
        );
    }

    /// Reads the key through a node, by default at its leader; an answer must be right, an error must be honest.
    pub(crate) fn check_read(&self, cluster: &Cluster, through: At) {
        match exchange(cluster.address(through), &Request::get(kv_target(&self.key))) {
            Exchange::Answered(answer) if answer.status == 200 => self.check(&Some(answer.body), through),
            Exchange::Answered(answer) if answer.status == 404 => self.check(&None, through),
            Exchange::Answered(answer) => honest(&answer),
            Exchange::NotSent(_) | Exchange::Lost(_) => {}
        }
    }
}

/// What a writer may conclude from what came back.
pub(crate) fn outcome_of(exchange: Exchange) -> Outcome {
    match exchange {
        Exchange::NotSent(_) => Outcome::Refused,
        Exchange::Lost(_) => Outcome::Unknown,
        Exchange::Answered(answer) if (200..300).contains(&answer.status) => Outcome::Acknowledged,
        Exchange::Answered(answer) => {
            honest(&answer);
            match answer.json()["applied"].as_str() {
                Some("no") => Outcome::Refused,
                Some("unknown") => Outcome::Unknown,
                other => panic!("an error that says applied: {other:?}: {answer:?}"),
            }
        }
    }
}

/// The errors that killed and stopped nodes may cause.
fn honest(answer: &Response) {
    assert!(matches!(answer.status, 502..=504), "{answer:?}");
    well_formed(answer);
}

/// The start of a value, for a message.
fn shown(state: &State) -> Option<String> {
    state.as_ref().map(|value| value[..value.len().min(60)].escape_ascii().to_string())
}
