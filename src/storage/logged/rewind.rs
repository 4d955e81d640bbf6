//! A rewind: the end of the log is taken back, with what it did to the data (rule 21).
//!
//! All of it happens in the file, in one transaction: first a feed brings everything there, then the records of the keys that
//! are concerned change, history and position go back, and the file forgets the log that stands beside it. So a recovery has
//! nothing to learn: it finds the file before, with its log, or the file after, without one. The next entry begins another
//! log. The price is what the old one held before that place: nobody can be fed from there any more.
//!
//! Whoever still reads the old log goes on; it is removed behind the last of them, or at the next opening.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::extent::Extent;
use super::layers::Layers;
use super::{Commits, Fed, Inner};
use crate::storage::{Batch, Engine, Error, State};

impl Inner {
    /// Commits a batch with a rewind. Called like every commit, by one thread at a time: nothing is committed between the
    /// feed and the transaction.
    pub(super) fn rewind(&self, batch: &Batch) -> Result<(), Error> {
        if self.feed_once(false)? == Fed::NoSpace {
            return Err(Error::Failed("the disk has too little space to take anything back".to_owned()));
        }
        let _one_at_a_time = self.feeding.lock();
        let mut commits = self.commits.lock();
        self.check()?;
        self.rewind_file(&mut commits, batch).inspect_err(|error| self.fail(error))
    }

    fn rewind_file(&self, commits: &mut Commits, batch: &Batch) -> Result<(), Error> {
        self.file.commit(batch)?;
        let mut state = self.state.write();
        *state = State { unclean: state.unclean, ..self.file.state()? };
        *commits = Commits { row: None, extent: Extent::of(&state), cursors: std::collections::BTreeMap::new() };
        self.layers.store(Arc::new(Layers { active: Arc::default(), frozen: None, file: self.file.view() }));
        if let Some(front) = self.front.swap(None) {
            front.is_forgotten.store(true, Ordering::SeqCst);
        }
        Ok(())
    }
}
