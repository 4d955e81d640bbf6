//! How this node's last contact with each other node went: what `/v1/cluster` shows as a node's state, and what is
//! logged once when it changes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tracing::{error, info, warn};

use super::message::{Refusal, RefusalCode};
use crate::types::NodeName;

/// The last contact with a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contact {
    /// It answered.
    Up,
    /// It could not be reached, or did not answer in time.
    Down(String),
    /// It does not talk to this node, or this node not to it.
    Refused(Refusal),
}

impl Contact {
    /// Its name in `/v1/cluster`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Contact::Up => "up",
            Contact::Down(_) => "down",
            Contact::Refused(_) => "refused",
        }
    }

    /// Whether two contacts say the same, apart from their wording.
    fn is_like(&self, other: &Contact) -> bool {
        match (self, other) {
            (Contact::Refused(a), Contact::Refused(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

/// What is known of one node.
#[derive(Debug, Clone)]
struct Entry {
    contact: Contact,
    /// Since when it has been so.
    since: Instant,
    /// Its trouble was logged, and so its end will be.
    reported: bool,
}

/// A node that could not be reached is reported when it still cannot be after so long: nodes that start together, or one
/// that restarts, are no news.
const REPORT_AFTER: Duration = Duration::from_secs(2);

/// Nodes that are remembered for their drift; those that call may go by any name. More are not noted.
const DRIFTED_MAX: usize = 1024;

/// Names that are remembered as refused; they may be strangers'. Beyond it the metrics count, and the log says no more.
const TURNED_AWAY_MAX: usize = 256;

/// The last contact with every node. Bounded by the nodes of the map; strangers are not entered.
#[derive(Debug, Default)]
pub struct Contacts {
    nodes: RwLock<BTreeMap<NodeName, Entry>>,
    /// Nodes whose addresses or replica lists differ from ours (rule 16: a warning, not a refusal).
    drifted: Mutex<BTreeMap<NodeName, Drift>>,
    /// Nodes that this one refused, and why. At most [`TURNED_AWAY_MAX`].
    turned_away: Mutex<BTreeMap<NodeName, RefusalCode>>,
}

/// A node whose file names other nodes or addresses than ours.
#[derive(Debug, Clone, Copy)]
struct Drift {
    /// Fingerprint of what it names.
    theirs: u64,
    since: Instant,
}

impl Contacts {
    /// Enters how a contact went, and logs it when that is news.
    pub fn note(&self, node: &NodeName, contact: Contact, now: Instant) {
        let mut nodes = self.nodes.write();
        let before = nodes.get(node);
        let same = before.filter(|entry| entry.contact.is_like(&contact));
        let since = same.map_or(now, |entry| entry.since);
        let was_reported = before.is_some_and(|entry| entry.reported);
        let is_reported = same.is_some() && was_reported;
        let lasts = now.saturating_duration_since(since) >= REPORT_AFTER;
        let reported = match &contact {
            Contact::Up if was_reported => {
                info!(peer = %node, "peer is up again");
                false
            }
            Contact::Up => false,
            Contact::Down(detail) if !is_reported && lasts => {
                warn!(peer = %node, detail, "peer is down");
                true
            }
            Contact::Refused(refusal) if !is_reported => {
                error!(peer = %node, code = refusal.code.name(), detail = refusal.detail, "peer is refused");
                true
            }
            Contact::Down(_) | Contact::Refused(_) => is_reported,
        };
        nodes.insert(node.clone(), Entry { contact, since, reported });
    }

    /// Whether the last contact went well. Cheap, for every answer asks it.
    #[must_use]
    pub fn is_up(&self, node: &NodeName) -> bool {
        self.nodes.read().get(node).is_some_and(|entry| entry.contact == Contact::Up)
    }

    /// The last contact with a node, and since when it has been so.
    #[must_use]
    pub fn of(&self, node: &NodeName) -> Option<(Contact, Instant)> {
        self.nodes.read().get(node).map(|entry| (entry.contact.clone(), entry.since))
    }

    /// Enters that this node refused one that called, and logs it once for a name and a reason, until it is welcome again.
    /// Returns whether that was news.
    pub fn note_refused(&self, from: &NodeName, refusal: &Refusal) -> bool {
        let mut turned_away = self.turned_away.lock();
        let known = turned_away.get(from);
        let is_news = known != Some(&refusal.code) && (known.is_some() || turned_away.len() < TURNED_AWAY_MAX);
        if is_news {
            turned_away.insert(from.clone(), refusal.code);
            warn!(peer = %from, code = refusal.code.name(), detail = refusal.detail, "refused a peer");
        }
        is_news
    }

    /// Enters that this node welcomed one that called.
    pub fn note_welcomed(&self, from: &NodeName) {
        if self.turned_away.lock().remove(from).is_some() {
            info!(peer = %from, "a peer that was refused is welcome again");
        }
    }

    /// Whether a node's file names other nodes or addresses than ours.
    #[must_use]
    pub fn is_drifted(&self, node: &NodeName) -> bool {
        self.drifted.lock().contains_key(node)
    }

    /// The last contact with every node that there was one with, and since when it has been so.
    #[must_use]
    pub fn all(&self) -> Vec<(NodeName, Contact, Instant)> {
        let nodes = self.nodes.read();
        nodes.iter().map(|(node, entry)| (node.clone(), entry.contact.clone(), entry.since)).collect()
    }

    /// Enters that a node's file names other nodes or addresses than ours, and logs it once per difference.
    pub fn note_addresses(&self, node: &NodeName, ours: u64, theirs: u64, now: Instant) {
        let mut drifted = self.drifted.lock();
        let before = drifted.get(node).copied();
        if ours == theirs {
            if drifted.remove(node).is_some() {
                info!(peer = %node, "peer's sharding.toml names the same nodes as ours again");
            }
        } else if before.is_none_or(|drift| drift.theirs != theirs) && drifted.len() < DRIFTED_MAX {
            warn!(peer = %node, "peer's sharding.toml names other nodes or addresses than ours: bring the files together");
            let since = before.map_or(now, |drift| drift.since);
            drifted.insert(node.clone(), Drift { theirs, since });
        }
    }

    /// Nodes whose files name other nodes or addresses than ours, and since when that has been seen.
    #[must_use]
    pub fn drifted(&self) -> Vec<(NodeName, Instant)> {
        self.drifted.lock().iter().map(|(node, drift)| (node.clone(), drift.since)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn contact_keeps_its_beginning_while_it_says_the_same() {
        let (clock, contacts, node) = (Clock::manual(), Contacts::default(), NodeName::new("A/1"));
        let start = clock.now();
        let down = |detail: &str| Contact::Down(detail.into());
        contacts.note(&node, down("refused"), clock.now());
        clock.advance(Duration::from_secs(5));
        contacts.note(&node, down("timed out"), clock.now());
        assert_eq!(contacts.all(), [(node.clone(), down("timed out"), start)]);
        contacts.note(&node, Contact::Up, clock.now());
        assert_eq!(contacts.of(&node), Some((Contact::Up, clock.now())));
    }

    #[test]
    fn drift_keeps_its_beginning_and_ends_when_the_files_agree() {
        let (clock, contacts, node) = (Clock::manual(), Contacts::default(), NodeName::new("A/1"));
        let start = clock.now();
        for theirs in [2, 2, 3] {
            contacts.note_addresses(&node, 1, theirs, clock.now());
            clock.advance(Duration::from_secs(1));
        }
        assert_eq!(contacts.drifted(), [(node.clone(), start)]);
        contacts.note_addresses(&node, 1, 1, clock.now());
        assert_eq!(contacts.drifted(), []);
    }
}

#[cfg(test)]
mod refused {
    use super::*;

    #[test]
    fn refused_peer_that_calls_again_and_again_is_news_once_until_it_is_welcome() {
        let (contacts, node) = (Contacts::default(), NodeName::new("A/1"));
        let refusal = |code| Refusal { code, detail: "why".into() };
        assert!(contacts.note_refused(&node, &refusal(RefusalCode::TopologyMismatch)));
        assert!(!contacts.note_refused(&node, &refusal(RefusalCode::TopologyMismatch)));
        assert!(contacts.note_refused(&node, &refusal(RefusalCode::Stranger)), "for another reason");
        contacts.note_welcomed(&node);
        assert!(contacts.note_refused(&node, &refusal(RefusalCode::Stranger)));
    }

    #[test]
    fn refused_strangers_beyond_the_bound_are_not_remembered() {
        let contacts = Contacts::default();
        let refusal = Refusal { code: RefusalCode::Stranger, detail: "why".into() };
        let news = (0..2 * TURNED_AWAY_MAX).filter(|n| contacts.note_refused(&NodeName::new(n.to_string()), &refusal));
        assert_eq!(news.count(), TURNED_AWAY_MAX);
    }
}
