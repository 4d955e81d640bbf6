//! A log in front of a file that is fed after every commit: what the suite asks is then answered by the file, where
//! otherwise it is answered from memory.

use super::{LoggedOnBackend, Subject};
use crate::storage::logged::Logged;
use crate::storage::{Batch, Chunk, Engine, Entries, Error, State, Stats};
use crate::types::{Key, Record, Seq, Space};

/// A place for it.
pub(super) struct FedAtOnce(pub(super) LoggedOnBackend);

/// The engine.
#[derive(Debug)]
pub(super) struct Fed(Logged);

impl Subject for FedAtOnce {
    type Engine = Fed;

    fn open(&self) -> Fed {
        Fed(self.0.open())
    }
}

impl Engine for Fed {
    fn get(&self, space: Space, key: &Key) -> Result<Option<Record>, Error> {
        self.0.get(space, key)
    }
    fn contains(&self, space: Space, key: &Key) -> Result<bool, Error> {
        self.0.contains(space, key)
    }
    fn state(&self) -> Result<State, Error> {
        self.0.state()
    }
    fn commit(&self, batch: &Batch) -> Result<(), Error> {
        self.0.commit(batch)?;
        self.0.flush()
    }
    fn entries(&self, after: Seq, bytes_max: usize) -> Result<Entries, Error> {
        self.0.entries(after, bytes_max)
    }
    fn chunk(&self, space: Space, after: Option<&Key>, bytes_max: usize) -> Result<Chunk, Error> {
        self.0.chunk(space, after, bytes_max)
    }
    fn stats(&self) -> Result<Stats, Error> {
        self.0.stats()
    }
    fn free_bytes(&self) -> Option<u64> {
        self.0.free_bytes()
    }
}
