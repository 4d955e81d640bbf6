//! The newest entries of a log, in memory: what polls of replicas that keep up read. Pure.

use std::collections::VecDeque;

use bytes::Bytes;

use super::segment::Gathered;
use crate::types::Seq;

/// A queue of the newest entries, bounded in bytes: beyond the bound the oldest leave, and are read from the files.
#[derive(Debug)]
pub(super) struct Recent {
    /// The entry before the first.
    after: Seq,
    entries: VecDeque<Bytes>,
    bytes: usize,
    bytes_max: usize,
}

impl Recent {
    pub(super) fn new(after: Seq, bytes_max: usize) -> Recent {
        Recent { after, entries: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Adds the next entry.
    pub(super) fn push(&mut self, entry: Bytes) {
        self.bytes += entry.len();
        self.entries.push_back(entry);
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.len();
            self.after = self.after.next();
        }
    }

    /// Takes what `batch` wants next, if it is here; false if it is not.
    pub(super) fn read(&self, batch: &mut Gathered) -> bool {
        if batch.last < self.after {
            return false;
        }
        let skipped = usize::try_from(batch.last.since(self.after)).unwrap_or(usize::MAX).min(self.entries.len());
        batch.take(batch.last, self.entries.range(skipped..).cloned());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(recent: &Recent, after: u64, bytes_max: usize) -> Option<Vec<Bytes>> {
        let mut batch = Gathered::new(Seq(after), bytes_max);
        recent.read(&mut batch).then_some(batch.entries)
    }

    #[test]
    fn recent_beyond_its_bound_forgets_the_oldest() {
        let mut recent = Recent::new(Seq(10), 5);
        ["aa", "bb", "c", "ddd"].into_iter().for_each(|entry| recent.push(entry.into()));
        assert_eq!(read(&recent, 11, 100), None);
        assert_eq!(read(&recent, 12, 100), Some(vec!["c".into(), "ddd".into()]));
        assert_eq!(read(&recent, 12, 1), Some(vec!["c".into()]));
        assert_eq!(read(&recent, 13, 1), Some(vec!["ddd".into()]));
        assert_eq!(read(&recent, 14, 1), Some(vec![]));
    }

    #[test]
    fn recent_entry_larger_than_its_bound_is_not_kept() {
        let mut recent = Recent::new(Seq(0), 2);
        recent.push("aaa".into());
        assert_eq!(read(&recent, 0, 100), None);
        assert_eq!(read(&recent, 1, 100), Some(vec![]));
    }
}
