//! Which values a key may hold, from what was written and what was answered. Pure; the basis of `--verify`.
//!
//! Beginnings and ends of operations are counted by one clock, 1, 2, 3, …; a write's beginning is its number.
//!
//! ```text
//! write 3 ├──ok──┤            4 began after 3 had ended, so 3 is gone once 4 is acknowledged;
//! write 4           ├──ok──┤  5 and 4 overlapped, so either may have come last;
//! write 5              ├──?…  6 is unknown (a time-out, say): it may take effect at any time, or never
//! ```
//!
//! - A write is *dead* when an acknowledged write began after it had ended. A refused write never was.
//! - A key must hold one of its writes that are not dead. What was there before the run counts as a write that ended
//!   before everything: with no acknowledged write a key may hold that, or nothing.
//! - A read during the run may return what was not dead when it began, or began since. Reads are judged with a little
//!   mercy here (everything that began no earlier than the oldest write that was not dead counts), the last read-back is not.
//!
//! Memory: about 100 bytes per key that was written to, and 16 more for each write whose outcome is unknown.

use std::fmt;

/// A point of the ledger's clock.
pub(crate) type Tick = u64;

/// The end of a write that is under way, or whose outcome is unknown.
const NEVER: Tick = Tick::MAX;

/// One write to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Write {
    began: Tick,
    ended: Tick,
}

/// One key.
#[derive(Debug, Clone, Default)]
struct KeyState {
    /// When the latest of the acknowledged writes began; 0 when there is none. Only ever grows.
    newest: Tick,
    /// A write to it began, whatever became of it.
    touched: bool,
    /// Writes that are not dead, oldest first. Small: those that overlapped with the last one, and unknown ones.
    alive: Vec<Write>,
}

/// All keys of a run.
#[derive(Debug)]
pub(crate) struct Ledger {
    clock: Tick,
    keys: Vec<KeyState>,
}

/// What must be remembered of a read from its beginning to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadMark {
    /// The oldest write that was not dead.
    oldest: Tick,
    /// Whether an acknowledged write was known.
    written: bool,
}

/// What was found under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// The value of this write of this run.
    Ours(Tick),
    /// A value that an earlier run made for this key.
    Earlier,
    /// Bytes that nobody has written to this key.
    Garbage,
}

/// Why a key must not hold what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    /// An acknowledged write is gone, and nothing is there.
    Missing,
    /// An acknowledged write is gone, and an older value is there.
    Stale,
    /// Bytes that nobody wrote.
    Garbage,
    /// A write that was refused has taken effect, or one that never was.
    Phantom,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Violation::Missing => "an acknowledged write is gone: the key is not there",
            Violation::Stale => "an acknowledged write is gone: an older value is there",
            Violation::Garbage => "it holds bytes that nobody wrote to it",
            Violation::Phantom => "it holds a write that was refused, or that never was",
        })
    }
}

impl Violation {
    /// What it is counted as.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Violation::Missing => "missing",
            Violation::Stale => "stale-value",
            Violation::Garbage => "wrong-value",
            Violation::Phantom => "phantom-value",
        }
    }
}

impl Ledger {
    /// Of the keys 0 to `keys`, which hold anything or nothing.
    pub(crate) fn new(keys: usize) -> Ledger {
        Ledger { clock: 0, keys: vec![KeyState::default(); keys] }
    }

    /// A write begins; its number goes into its value.
    pub(crate) fn begin_write(&mut self, key: usize) -> Tick {
        let began = self.tick();
        let state = self.key(key);
        state.touched = true;
        state.alive.push(Write { began, ended: NEVER });
        began
    }

    /// It was acknowledged.
    pub(crate) fn acknowledged(&mut self, key: usize, began: Tick) {
        let ended = self.tick();
        let state = self.key(key);
        state.alive.iter_mut().filter(|write| write.began == began).for_each(|write| write.ended = ended);
        state.newest = state.newest.max(began);
        let newest = state.newest;
        state.alive.retain(|write| write.ended >= newest);
        state.alive.shrink_to(4);
    }

    /// It had no effect, and will have none.
    pub(crate) fn refused(&mut self, key: usize, began: Tick) {
        self.key(key).alive.retain(|write| write.began != began);
    }

    /// A read begins.
    pub(crate) fn begin_read(&mut self, key: usize) -> ReadMark {
        let state = self.key(key);
        let oldest = state.alive.iter().map(|write| write.began).min().unwrap_or(0);
        ReadMark { oldest, written: state.newest > 0 }
    }

    /// A read ends: may the key have held this at any time since it began?
    pub(crate) fn check_read(&mut self, mark: ReadMark, found: Found) -> Result<(), Violation> {
        match found {
            Found::Garbage => Err(Violation::Garbage),
            Found::Nothing if mark.written => Err(Violation::Missing),
            Found::Earlier if mark.written => Err(Violation::Stale),
            Found::Nothing | Found::Earlier => Ok(()),
            Found::Ours(began) if began > self.clock => Err(Violation::Phantom),
            Found::Ours(began) if began < mark.oldest => Err(Violation::Stale),
            Found::Ours(_) => Ok(()),
        }
    }

    /// With nothing under way any more: may the key hold this?
    pub(crate) fn check_last(&self, key: usize, found: Found) -> Result<(), Violation> {
        let Some(state) = self.keys.get(key) else { return Ok(()) };
        match found {
            Found::Garbage => Err(Violation::Garbage),
            Found::Nothing if state.newest > 0 => Err(Violation::Missing),
            Found::Earlier if state.newest > 0 => Err(Violation::Stale),
            Found::Nothing | Found::Earlier => Ok(()),
            Found::Ours(began) if state.alive.iter().any(|write| write.began == began) => Ok(()),
            Found::Ours(began) if began < state.newest => Err(Violation::Stale),
            Found::Ours(_) => Err(Violation::Phantom),
        }
    }

    /// The keys that were written to, with any outcome.
    pub(crate) fn touched(&self) -> Vec<u64> {
        (0..).zip(&self.keys).filter(|(_, state)| state.touched).map(|(number, _)| number).collect()
    }

    /// Writes whose outcome is unknown and that may still be found.
    pub(crate) fn unknown(&self) -> usize {
        self.keys.iter().map(|state| state.alive.iter().filter(|write| write.ended == NEVER).count()).sum()
    }

    fn tick(&mut self) -> Tick {
        self.clock += 1;
        self.clock
    }

    fn key(&mut self, key: usize) -> &mut KeyState {
        let keys = self.keys.len();
        self.keys.get_mut(key).unwrap_or_else(|| unreachable!("key {key} of {keys}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, Ledger, Violation};

    #[test]
    fn key_without_writes_may_hold_what_was_there_but_no_garbage() {
        let mut ledger = Ledger::new(1);
        let mark = ledger.begin_read(0);
        for found in [Found::Nothing, Found::Earlier] {
            assert_eq!((ledger.check_last(0, found), ledger.check_read(mark, found)), (Ok(()), Ok(())));
        }
        assert_eq!(ledger.check_last(0, Found::Garbage), Err(Violation::Garbage));
        assert_eq!(ledger.check_last(0, Found::Ours(7)), Err(Violation::Phantom));
        assert_eq!(ledger.check_read(mark, Found::Ours(7)), Err(Violation::Phantom));
        assert!(ledger.touched().is_empty());
    }

    #[test]
    fn key_after_an_acknowledged_write_holds_that_and_nothing_older() {
        let mut ledger = Ledger::new(2);
        let first = ledger.begin_write(1);
        ledger.acknowledged(1, first);
        let second = ledger.begin_write(1);
        ledger.acknowledged(1, second);
        assert_eq!(ledger.check_last(1, Found::Ours(second)), Ok(()));
        assert_eq!(ledger.check_last(1, Found::Ours(first)), Err(Violation::Stale));
        assert_eq!(ledger.check_last(1, Found::Nothing), Err(Violation::Missing));
        assert_eq!(ledger.check_last(1, Found::Earlier), Err(Violation::Stale));
        assert_eq!(ledger.touched(), [1]);
    }

    #[test]
    fn key_after_overlapping_writes_holds_either() {
        let mut ledger = Ledger::new(1);
        let one = ledger.begin_write(0);
        let other = ledger.begin_write(0);
        ledger.acknowledged(0, other);
        ledger.acknowledged(0, one);
        assert_eq!(
            (ledger.check_last(0, Found::Ours(one)), ledger.check_last(0, Found::Ours(other))),
            (Ok(()), Ok(()))
        );
        let last = ledger.begin_write(0);
        ledger.acknowledged(0, last);
        assert_eq!(ledger.check_last(0, Found::Ours(one)), Err(Violation::Stale));
    }

    #[test]
    fn key_after_an_unknown_write_holds_it_or_not_even_after_later_writes() {
        let mut ledger = Ledger::new(1);
        let sure = ledger.begin_write(0);
        ledger.acknowledged(0, sure);
        let unknown = ledger.begin_write(0);
        assert_eq!(ledger.unknown(), 1);
        for found in [sure, unknown] {
            assert_eq!(ledger.check_last(0, Found::Ours(found)), Ok(()));
        }
        assert_eq!(ledger.check_last(0, Found::Nothing), Err(Violation::Missing));
        let later = ledger.begin_write(0);
        ledger.acknowledged(0, later);
        for (found, expected) in [(later, Ok(())), (unknown, Ok(())), (sure, Err(Violation::Stale))] {
            assert_eq!(ledger.check_last(0, Found::Ours(found)), expected);
        }
    }

    #[test]
    fn key_after_only_an_unknown_write_may_be_absent() {
        let mut ledger = Ledger::new(1);
        let unknown = ledger.begin_write(0);
        for found in [Found::Nothing, Found::Earlier, Found::Ours(unknown)] {
            assert_eq!(ledger.check_last(0, found), Ok(()));
        }
        assert_eq!(ledger.touched(), [0]);
    }

    #[test]
    fn key_after_a_refused_write_does_not_hold_it() {
        let mut ledger = Ledger::new(1);
        let refused = ledger.begin_write(0);
        ledger.refused(0, refused);
        assert_eq!(ledger.check_last(0, Found::Ours(refused)), Err(Violation::Phantom));
        assert_eq!(ledger.touched(), [0], "it is looked at all the same");
    }

    #[test]
    fn read_sees_what_was_alive_when_it_began_or_began_since() {
        let mut ledger = Ledger::new(1);
        let first = ledger.begin_write(0);
        ledger.acknowledged(0, first);
        let second = ledger.begin_write(0);
        ledger.acknowledged(0, second);
        let mark = ledger.begin_read(0);
        let during = ledger.begin_write(0);
        ledger.acknowledged(0, during);
        for found in [second, during] {
            assert_eq!(ledger.check_read(mark, Found::Ours(found)), Ok(()));
        }
        assert_eq!(ledger.check_read(mark, Found::Ours(first)), Err(Violation::Stale));
        assert_eq!(ledger.check_read(mark, Found::Nothing), Err(Violation::Missing));
        assert_eq!(ledger.check_read(mark, Found::Earlier), Err(Violation::Stale));
    }

    #[test]
    fn read_that_began_before_the_first_acknowledgement_may_find_nothing() {
        let mut ledger = Ledger::new(1);
        let write = ledger.begin_write(0);
        let mark = ledger.begin_read(0);
        ledger.acknowledged(0, write);
        assert_eq!(ledger.check_read(mark, Found::Nothing), Ok(()));
    }
}
