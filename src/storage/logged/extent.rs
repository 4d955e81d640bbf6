//! How far back the log can be read, and what may leave it: decided here on sums, without a disk.
//!
//! ```text
//!   ─┬──────────────┬──────┬──┬──┬─▶      blocks: the part of the log from before the opening, or some KiB of entries
//!  start          …      …    …   end     trimming takes them from the front
//! ```
//!
//! It stops inside a block where somebody needs what follows: then what the rest of the block has is estimated. Where it
//! stops for the sake of what is kept, it keeps the whole block.
//!
//! The files keep what stands before the start until a segment of it is whole and applied; nobody is shown it.

use std::collections::VecDeque;

use crate::storage::Trim;
use crate::types::Seq;

/// Entries are summed up in blocks of about so many bytes: trimming is that exact.
const BLOCK_BYTES: u64 = 4 << 10;

/// The part of the log that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    /// The entry before the first that can be read.
    pub(super) start: Seq,
    /// Bytes of the entries that can be read.
    pub(super) bytes: u64,
    blocks: VecDeque<Block>,
}

/// Some entries that follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    /// The last of them.
    end: Seq,
    /// All of them.
    bytes: u64,
    /// The last one alone, as far as is known.
    last_bytes: u64,
}

impl Extent {
    /// An empty log, after `start`.
    pub(super) fn after(start: Seq) -> Extent {
        Extent { start, bytes: 0, blocks: VecDeque::new() }
    }

    /// A part of the log that nobody has looked into, up to and with `end`.
    pub(super) fn extend(&mut self, end: Seq, bytes: u64) {
        if end > self.end() {
            self.bytes += bytes;
            self.blocks.push_back(Block { end, bytes, last_bytes: 1 }); // at least
        }
    }

    /// One entry more.
    pub(super) fn push(&mut self, seq: Seq, bytes: usize) {
        let bytes = bytes as u64;
        self.bytes += bytes;
        match self.blocks.back_mut() {
            Some(block) if block.bytes + bytes <= BLOCK_BYTES => {
                *block = Block { end: seq, bytes: block.bytes + bytes, last_bytes: bytes };
            }
            _ => self.blocks.push_back(Block { end: seq, bytes, last_bytes: bytes }),
        }
    }

    /// Takes from the front what `trim` allows, and nothing after `applied`.
    pub(super) fn trim(&mut self, trim: &Trim, applied: Seq) {
        let bound = trim.up_to.min(applied);
        let before = self.start;
        while let Some(block) = self.blocks.front_mut().filter(|_| self.start < bound) {
            let kept = self.bytes - block.bytes;
            if kept + block.last_bytes <= trim.keep_bytes {
                return; // its last entry is one of those that fit in what is kept
            }
            if self.start.since(before) >= trim.entries_max as u64 {
                return;
            }
            if block.end > bound {
                let rest = block.bytes / block.end.since(self.start) * block.end.since(bound);
                (self.start, self.bytes, block.bytes) = (bound, kept + rest, rest);
                return;
            }
            (self.start, self.bytes) = (block.end, kept);
            self.blocks.pop_front();
        }
    }

    /// Bytes of the entries up to `seq`, about.
    pub(super) fn bytes_up_to(&self, seq: Seq) -> u64 {
        let beyond = self.blocks.iter().rev().take_while(|block| block.end > seq).map(|block| block.bytes);
        self.bytes - beyond.sum::<u64>()
    }

    fn end(&self) -> Seq {
        self.blocks.back().map_or(self.start, |block| block.end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trim(up_to: u64, keep_bytes: u64, entries_max: usize) -> Trim {
        Trim { up_to: Seq(up_to), keep_bytes, entries_max }
    }

    #[test]
    fn part_that_nobody_has_looked_into_goes_when_enough_is_left_without_it() {
        let mut extent = Extent::after(Seq(5));
        extent.extend(Seq(100), 50_000);
        extent.push(Seq(101), 5000);
        let steps = [
            (trim(5, 0, 9999), 5, 55_000),      // nothing of it may go
            (trim(101, 5001, 9999), 5, 55_000), // without it there would be too little
            (trim(101, 5000, 9999), 100, 5000), // a byte less is kept
            (trim(101, 5000, 9999), 100, 5000),
            (trim(101, 4999, 9999), 101, 0),
        ];
        for (trim, start, bytes) in steps {
            extent.trim(&trim, Seq(101));
            assert_eq!((extent.start, extent.bytes), (Seq(start), bytes), "{trim:?}");
        }
    }

    #[test]
    fn trim_that_stops_inside_a_block_stops_where_the_next_entry_is_needed() {
        let mut extent = Extent::after(Seq::ZERO);
        (1..=10).for_each(|seq| extent.push(Seq(seq), 100));
        extent.trim(&trim(4, 0, 9999), Seq(10));
        assert_eq!((extent.start, extent.bytes), (Seq(4), 600));
        extent.trim(&trim(10, 0, 9999), Seq(7));
        assert_eq!((extent.start, extent.bytes), (Seq(7), 300), "what is not applied stays");
        extent.push(Seq(11), 5000);
        extent.trim(&trim(9, 5100, 9999), Seq(11));
        assert_eq!(extent.start, Seq(7), "and so does a block of which something is kept");
        extent.trim(&trim(11, 0, 9999), Seq(11));
        assert_eq!((extent.start, extent.bytes), (Seq(11), 0));
    }

    proptest! {
        /// Against the rule itself: an entry goes when all before it are gone, nobody needs it, and it is not one of the
        /// newest that fit in what is kept. Blocks may only keep more, and less than a block more.
        #[test]
        fn trim_takes_no_entry_too_many_and_keeps_less_than_a_block_too_many(
            sizes in proptest::collection::vec(1_usize..6000, 1..80),
            trims in proptest::collection::vec((0_u64..90, 0_u64..60_000, 0_u64..90), 1..5),
        ) {
            let mut extent = Extent::after(Seq::ZERO);
            let mut exact = 0_u64;
            for (at, size) in sizes.iter().enumerate() {
                extent.push(Seq(at as u64 + 1), *size);
            }
            let bytes_after = |seq: u64| sizes.iter().skip(usize::try_from(seq).unwrap()).sum::<usize>() as u64;
            for (up_to, keep_bytes, applied) in trims {
                let bound = up_to.min(applied).min(sizes.len() as u64);
                while exact < bound && bytes_after(exact) > keep_bytes {
                    exact += 1;
                }
                extent.trim(&trim(up_to, keep_bytes, usize::MAX), Seq(applied));
                prop_assert!(extent.start.0 <= exact, "{} of {exact} at most", extent.start);
                prop_assert!(extent.bytes.abs_diff(bytes_after(extent.start.0)) <= BLOCK_BYTES);
                prop_assert!(bytes_after(extent.start.0) - bytes_after(exact) <= BLOCK_BYTES);
            }
        }
    }
}
