//! What one node knows of who leads one shard, and what it has promised. Pure (rules 15, 17, 19 and 20).
//!
//! ```text
//!   established ── somebody leads, or has led, in this epoch: told to everybody, merged by the highest, never taken back
//!   promised ───── given to a node that is taking over: not told as a fact, for a takeover that fails must fence nobody
//! ```
//!
//! A node that has promised an epoch neither leads nor follows in one below it. A number is promised to one name only, and
//! never again below the highest that was promised before: so of two takeovers that a majority allows, one sees the other.
//!
//! A promise ends when an epoch that is as high is established, or when the node that it was given to has given up
//! ([`Ballot::release`]): such a node never uses that number again. A leader that hands its shard over gives a promise that
//! is never taken back ([`Ballot::yield_to`]): whoever holds it may lead already.

use bytes::{BufMut, BytesMut};

use crate::types::codec::{self, Malformed, Reader};
use crate::types::{Epoch, NodeName};

/// What one node knows of who leads one shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ballot {
    /// The highest epoch in which somebody leads, or has led; none: nobody has yet, as far as this node knows.
    established: Option<Epoch>,
    /// What was promised and is neither established nor given up, the lowest first. One that was given later does not end
    /// an earlier one: whoever holds that may lead already, and not be heard of yet.
    promises: Vec<Promise>,
    /// The highest number that this node has promised, or knows as established; only grows.
    highest: u64,
}

/// Most promises that are held at once: each is a takeover that has neither come to its end nor been given up. Beyond it,
/// further ones are refused.
const PROMISES_MAX: usize = 16;

/// A promise to neither lead nor follow below an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// The epoch, with the name of whoever may lead in it.
    pub epoch: Epoch,
    /// The leader itself gave it, handing over: it is not taken back.
    pub is_yield: bool,
}

/// Why an epoch was not promised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Somebody leads in one that is as high.
    #[error("epoch {0} is established")]
    Established(Epoch),
    /// It is promised to another, or one that is as high is.
    #[error("epoch {0} is promised")]
    Promised(Epoch),
    /// That number was used up by an attempt that was given up.
    #[error("epochs up to {0} were tried before")]
    Tried(u64),
    /// Too many takeovers are under way.
    #[error("{0} takeovers are under way already")]
    TooMany(usize),
}

impl Ballot {
    /// A shard that is led in this epoch.
    #[must_use]
    pub fn led_in(epoch: Epoch) -> Ballot {
        Ballot { highest: epoch.number, established: Some(epoch), promises: Vec::new() }
    }

    /// The highest epoch in which somebody leads, or has led.
    #[must_use]
    pub fn established(&self) -> Option<&Epoch> {
        self.established.as_ref()
    }

    /// The highest epoch that is promised.
    #[must_use]
    pub fn promised(&self) -> Option<&Promise> {
        self.promises.last()
    }

    /// All that is promised, the lowest first.
    #[must_use]
    pub fn promises(&self) -> &[Promise] {
        &self.promises
    }

    /// The highest number that this node has met.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether both say the same about who leads and who may.
    #[must_use]
    pub fn agrees_with(&self, other: &Ballot) -> bool {
        (&self.established, &self.promises) == (&other.established, &other.promises)
    }

    /// The promise that forbids to lead or follow in this epoch.
    #[must_use]
    pub fn bars(&self, epoch: &Epoch) -> Option<&Promise> {
        self.promised().filter(|promise| promise.epoch > *epoch)
    }

    /// What speaks against leading in an epoch that the leader hands over (rule 20). A number leads one name only, so one
    /// that is established or promised under another name is over, whichever of the names is the higher.
    pub fn check_grant(&self, epoch: &Epoch) -> Result<(), Refused> {
        if let Some(established) = self.established.as_ref().filter(|established| epoch.number <= established.number) {
            return Err(Refused::Established(established.clone()));
        }
        match self.promised().filter(|promised| epoch.number <= promised.epoch.number && promised.epoch != *epoch) {
            Some(promised) => Err(Refused::Promised(promised.epoch.clone())),
            None => Ok(()),
        }
    }

    /// Notes that a number is in use: the next takeover goes above it.
    pub fn meet(&mut self, number: u64) {
        self.highest = self.highest.max(number);
    }

    /// Takes a fact; true when it is news. A promise that is not above it is spent, and so is a yield of the same number:
    /// nobody else would take that back, and whoever it was given to may not lead in it any more ([`Ballot::check_grant`]).
    pub fn establish(&mut self, epoch: &Epoch) -> bool {
        if self.established.as_ref() >= Some(epoch) {
            return false;
        }
        self.established = Some(epoch.clone());
        self.highest = self.highest.max(epoch.number);
        let is_yielded = |promise: &Promise| promise.is_yield && promise.epoch.number == epoch.number;
        self.promises.retain(|promise| promise.epoch > *epoch && !is_yielded(promise));
        true
    }

    /// Promises an epoch. The same one may be promised again; true when it is news.
    pub fn promise(&mut self, epoch: &Epoch) -> Result<bool, Refused> {
        self.give(Promise { epoch: epoch.clone(), is_yield: false })
    }

    /// The leader's own promise, which is not taken back.
    pub fn yield_to(&mut self, epoch: &Epoch) -> Result<bool, Refused> {
        self.give(Promise { epoch: epoch.clone(), is_yield: true })
    }

    fn give(&mut self, promise: Promise) -> Result<bool, Refused> {
        if self.promised() == Some(&promise) {
            return Ok(false);
        }
        let number = promise.epoch.number;
        if let Some(established) = self.established.as_ref().filter(|epoch| number <= epoch.number) {
            return Err(Refused::Established(established.clone()));
        }
        if let Some(promised) = self.promised().filter(|promised| number <= promised.epoch.number) {
            return Err(Refused::Promised(promised.epoch.clone()));
        }
        if number <= self.highest.max(1) {
            return Err(Refused::Tried(self.highest.max(1))); // 1 is the file's
        }
        if self.promises.len() >= PROMISES_MAX {
            return Err(Refused::TooMany(PROMISES_MAX));
        }
        self.highest = number;
        self.promises.push(promise);
        Ok(true)
    }

    /// Takes a promise back, for the node that it was given to has given up; true when it was this one.
    pub fn release(&mut self, epoch: &Epoch) -> bool {
        self.drop_promises(|promise| promise.epoch == *epoch)
    }

    /// Gives up what this node had promised itself: it has just started, so that takeover has come to nothing.
    pub fn forget_own(&mut self, me: &NodeName) -> bool {
        self.drop_promises(|promise| promise.epoch.leader == *me)
    }

    fn drop_promises(&mut self, goes: impl Fn(&Promise) -> bool) -> bool {
        let before = self.promises.len();
        self.promises.retain(|promise| promise.is_yield || !goes(promise));
        self.promises.len() < before
    }

    /// Appends the ballot to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        codec::put_option(out, self.established.as_ref(), |out, epoch| epoch.encode(out));
        codec::put_varint(out, self.highest);
        codec::put_varint(out, self.promises.len() as u64);
        for promise in &self.promises {
            promise.epoch.encode(out);
            out.put_u8(u8::from(promise.is_yield));
        }
    }

    /// Takes a ballot from `reader`.
    pub fn decode(reader: &mut Reader) -> Result<Ballot, Malformed> {
        Ok(Ballot {
            established: reader.option(Epoch::decode)?,
            highest: reader.varint()?,
            promises: reader
                .list(PROMISES_MAX, |reader| Ok(Promise { epoch: Epoch::decode(reader)?, is_yield: reader.bool()? }))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(number: u64, leader: &str) -> Epoch {
        Epoch { number, leader: NodeName::new(leader) }
    }

    fn led() -> Ballot {
        Ballot::led_in(epoch(4, "A"))
    }

    #[test]
    fn promise_of_one_number_goes_to_one_name_only_and_its_refusal_names_it() {
        let mut ballot = led();
        assert_eq!(ballot.promise(&epoch(5, "B")), Ok(true));
        assert_eq!(ballot.promise(&epoch(5, "B")), Ok(false), "the same may be asked again");
        assert_eq!(ballot.promise(&epoch(5, "C")), Err(Refused::Promised(epoch(5, "B"))));
        assert_eq!(ballot.promise(&epoch(5, "A")), Err(Refused::Promised(epoch(5, "B"))), "whatever the names' order");
        assert_eq!(ballot.promise(&epoch(6, "C")), Ok(true), "a later takeover goes above it");
        assert_eq!(ballot.promise(&epoch(5, "B")), Err(Refused::Promised(epoch(6, "C"))));
    }

    #[test]
    fn promise_of_a_number_that_is_established_is_refused_whatever_the_names() {
        for leader in ["A", "B"] {
            assert_eq!(led().promise(&epoch(4, leader)), Err(Refused::Established(epoch(4, "A"))));
            assert_eq!(led().promise(&epoch(3, leader)), Err(Refused::Established(epoch(4, "A"))));
        }
        assert_eq!(Ballot::default().promise(&epoch(1, "B")), Err(Refused::Tried(1)), "the first epoch is the file's");
        assert_eq!(Ballot::default().promise(&epoch(2, "B")), Ok(true));
    }

    #[test]
    fn promise_bars_all_below_it_and_is_spent_by_what_is_as_high() {
        let mut ballot = led();
        ballot.promise(&epoch(6, "B")).unwrap();
        assert!(ballot.bars(&epoch(4, "A")).is_some() && ballot.bars(&epoch(6, "A")).is_some());
        assert!(ballot.bars(&epoch(6, "B")).is_none() && ballot.bars(&epoch(7, "A")).is_none());
        assert!(ballot.establish(&epoch(6, "A")), "a fact, though below the promise");
        assert!(ballot.bars(&epoch(6, "A")).is_some(), "which holds");
        assert!(ballot.establish(&epoch(6, "B")));
        assert_eq!(ballot.promised(), None);
        assert!(!ballot.establish(&epoch(6, "A")) && !ballot.establish(&epoch(5, "Z")), "facts never go back");
        assert_eq!(ballot.established(), Some(&epoch(6, "B")));
    }

    /// A delayed question of an attempt that was given up must find its number used up, or a later attempt of the same node
    /// would count a promise that was released.
    #[test]
    fn promise_that_was_released_uses_its_number_up() {
        let mut ballot = led();
        ballot.promise(&epoch(5, "B")).unwrap();
        assert!(!ballot.release(&epoch(5, "C")));
        assert!(ballot.release(&epoch(5, "B")));
        assert!(ballot.bars(&epoch(4, "A")).is_none(), "the leader leads on");
        for leader in ["B", "C"] {
            assert_eq!(ballot.promise(&epoch(5, leader)), Err(Refused::Tried(5)));
        }
        assert_eq!(ballot.promise(&epoch(6, "C")), Ok(true));
    }

    /// The node that was promised the lower one may lead already, and not be heard of yet.
    #[test]
    fn promise_above_another_does_not_end_it() {
        let mut ballot = led();
        ballot.promise(&epoch(5, "B")).unwrap();
        ballot.promise(&epoch(6, "C")).unwrap();
        assert!(ballot.release(&epoch(6, "C")));
        assert!(ballot.bars(&epoch(4, "A")).is_some(), "5 (B) holds");
        assert!(ballot.establish(&epoch(5, "B")));
        assert_eq!(ballot.promises(), []);
    }

    #[test]
    fn promises_beyond_the_bound_are_refused() {
        let mut ballot = led();
        for number in 5..21 {
            ballot.promise(&epoch(number, "B")).unwrap();
        }
        assert_eq!(ballot.promise(&epoch(21, "B")), Err(Refused::TooMany(16)));
    }

    #[test]
    fn yield_is_never_taken_back() {
        let mut ballot = led();
        assert_eq!(ballot.yield_to(&epoch(5, "B")), Ok(true));
        assert!(!ballot.release(&epoch(5, "B")) && !ballot.forget_own(&NodeName::new("B")));
        assert!(ballot.bars(&epoch(4, "A")).is_some());
        assert_eq!(ballot.promise(&epoch(5, "B")), Err(Refused::Promised(epoch(5, "B"))), "another kind of promise");
        assert_eq!(ballot.promise(&epoch(6, "A")), Ok(true), "an operator may take over above it");
        assert!(ballot.release(&epoch(6, "A")) && ballot.bars(&epoch(4, "A")).is_some(), "5 is yielded all the same");
        ballot.establish(&epoch(6, "A"));
        assert_eq!(ballot.promised(), None);
    }

    /// Bug: the names were compared. A node that had promised a number to a takeover took the same number from a leader that
    /// handed over, when its own name was the higher: two leaders of one number, of which the takeover's was fenced later.
    #[test]
    fn grant_of_a_number_that_is_promised_or_established_under_another_name_is_refused_whatever_the_names() {
        for other in ["A", "C"] {
            let mut ballot = led();
            assert_eq!(ballot.check_grant(&epoch(5, "B")), Ok(()));
            ballot.promise(&epoch(5, other)).unwrap();
            assert_eq!(ballot.check_grant(&epoch(5, "B")), Err(Refused::Promised(epoch(5, other))));
            assert_eq!(ballot.check_grant(&epoch(6, "B")), Ok(()));
            ballot.establish(&epoch(5, other));
            assert_eq!(ballot.check_grant(&epoch(5, "B")), Err(Refused::Established(epoch(5, other))));
            assert_eq!(ballot.check_grant(&epoch(6, "B")), Ok(()));
        }
        let mut own = led();
        own.promise(&epoch(5, "B")).unwrap();
        assert_eq!(own.check_grant(&epoch(5, "B")), Ok(()));
    }

    /// Else the leader that had yielded would follow nobody ever after.
    #[test]
    fn yield_is_over_when_its_number_is_established_under_another_name() {
        for other in ["A", "C"] {
            let mut ballot = led();
            ballot.yield_to(&epoch(5, "B")).unwrap();
            assert!(ballot.establish(&epoch(5, other)));
            assert_eq!(ballot.promised(), None);
        }
    }

    #[test]
    fn number_that_was_met_is_not_promised() {
        let mut ballot = led();
        ballot.meet(6);
        ballot.meet(5);
        assert_eq!(ballot.promise(&epoch(6, "B")), Err(Refused::Tried(6)));
        assert_eq!((ballot.promise(&epoch(7, "B")), ballot.check_grant(&epoch(6, "C")).is_err()), (Ok(true), true));
    }

    #[test]
    fn own_promise_is_forgotten_at_a_start_and_others_are_kept() {
        let mut ballot = led();
        ballot.promise(&epoch(5, "B")).unwrap();
        assert!(!ballot.clone().forget_own(&NodeName::new("C")));
        assert!(ballot.forget_own(&NodeName::new("B")));
        assert_eq!((ballot.promised(), ballot.highest()), (None, 5));
    }

    #[test]
    fn ballot_comes_back_from_its_bytes() {
        let mut yielding = led();
        yielding.yield_to(&epoch(9, "B")).unwrap();
        for ballot in [Ballot::default(), led(), yielding] {
            let mut out = BytesMut::new();
            ballot.encode(&mut out);
            let mut reader = Reader::new(out.freeze());
            assert_eq!(Ballot::decode(&mut reader), Ok(ballot));
            assert_eq!(reader.finish(), Ok(()));
        }
    }
}
