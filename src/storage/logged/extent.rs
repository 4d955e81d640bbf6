//! How far back the log can be read, and what may leave it: decided here on sums, without a disk.
//!
//! ```text
//!   ─┬──────────────┬──────┬──┬──┬─▶      blocks: a whole part of the log from before the opening, or some KiB of entries
//!  start          …      …    …   end     trimming takes whole blocks from the front
//! ```
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
            Some(block) if block.bytes < BLOCK_BYTES => {
                *block = Block { end: seq, bytes: block.bytes + bytes, last_bytes: bytes };
            }
            _ => self.blocks.push_back(Block { end: seq, bytes, last_bytes: bytes }),
        }
    }

    /// Takes from the front what `trim` allows, nothing after `applied`, and never a part of a block.
    pub(super) fn trim(&mut self, trim: &Trim, applied: Seq) {
        let bound = trim.up_to.min(applied);
        let before = self.start;
        while let Some(block) = self.blocks.front() {
            let kept = self.bytes - block.bytes;
            let is_taken = self.start.since(before) < trim.entries_max as u64 && block.end <= bound;
            if !is_taken || kept + block.last_bytes <= trim.keep_bytes {
                return; // its last entry is one of those that fit in what is kept
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
