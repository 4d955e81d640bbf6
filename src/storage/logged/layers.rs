//! What readers see, newest first: what was written since the last feed began, what a feed is bringing into the file, and
//! the file. One value is published for all three, so that a feed that ends takes its keys out of the middle and shows
//! them in the file at once.

use std::sync::Arc;

use bytes::Bytes;

use super::overlay::{Held, Overlay};
use crate::storage::layout;
use crate::storage::view::View;
use crate::storage::{Chunk, Error};
use crate::types::{Key, Record, Seq, Space};

/// The layers.
#[derive(Debug, Clone)]
pub(super) struct Layers {
    /// Takes what is written.
    pub(super) active: Arc<Overlay>,
    /// Is being brought into the file; nobody inserts any more.
    pub(super) frozen: Option<Arc<Overlay>>,
    /// The file, as it is without both.
    pub(super) file: Arc<View>,
}

impl Layers {
    /// The record of `key`, or none.
    pub(super) fn get(&self, space: Space, key: &Key) -> Result<Option<Record>, Error> {
        let frozen = || self.frozen.as_ref()?.get(space, key);
        match self.active.get(space, key).or_else(frozen) {
            Some(held) => held.map(|bytes| layout::decode_shared(key, bytes)).transpose(),
            None => self.file.get(space, key),
        }
    }

    /// Whether there is a record of `key`.
    pub(super) fn contains(&self, space: Space, key: &Key) -> Result<bool, Error> {
        match self.active.contains(space, key) {
            Some(exists) => Ok(exists),
            None => self.contained_below(space, key),
        }
    }

    fn contained_below(&self, space: Space, key: &Key) -> Result<bool, Error> {
        match self.frozen.as_ref().and_then(|frozen| frozen.contains(space, key)) {
            Some(exists) => Ok(exists),
            None => self.file.contains(space, key),
        }
    }

    /// About what both overlays take in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.active.bytes() + self.frozen.as_ref().map_or(0, |frozen| frozen.bytes())
    }

    /// How many keys exist. A leader knows of each key that it writes whether it existed; what a replica writes, and what an
    /// opening brings back, is looked up when it is counted: at most so many, the others count as if they changed nothing.
    pub(super) fn keys(&self, mut looks: usize) -> Result<u64, Error> {
        let mut keys = i64::try_from(self.file.keys()?).unwrap_or(i64::MAX);
        if let Some(frozen) = &self.frozen {
            keys += frozen.keys_added(&mut looks, |key| self.file.contains(Space::Data, key))?;
        }
        keys += self.active.keys_added(&mut looks, |key| self.contained_below(Space::Data, key))?;
        u64::try_from(keys).map_err(|_| Error::Corrupt(format!("the store counts {keys} keys")))
    }

    /// What the file holds above `after`, for [`Layers::chunk`]: so much that at least one record of it is left when the
    /// overlays' states have taken their places, if there is one.
    pub(super) fn base(&self, space: Space, after: Option<&Key>, bytes_max: usize) -> Result<Chunk, Error> {
        let mut base = self.file.chunk(space, after, bytes_max)?;
        while !base.last && !base.records.iter().any(|(key, _)| self.shows(space, key)) {
            let reached = base.records.last().map(|(key, _)| key.clone());
            let more = self.file.chunk(space, reached.as_ref(), bytes_max)?;
            base.records.extend(more.records);
            base.last = more.last;
        }
        Ok(base)
    }

    /// Whether a key of the file still exists.
    fn shows(&self, space: Space, key: &Key) -> bool {
        let frozen = || self.frozen.as_ref()?.contains(space, key);
        self.active.contains(space, key).or_else(frozen).unwrap_or(true)
    }

    /// The records above `after`: the file's ([`Layers::base`]) with those of the overlays in their places, about
    /// `bytes_max` bytes of them, but at least one. Exact when nobody inserts meanwhile.
    pub(super) fn chunk(&self, after: Option<&Key>, base: Chunk, bytes_max: usize, at: Seq) -> Chunk {
        let Chunk { mut records, mut last, .. } = base;
        let until = if last { None } else { records.last().map(|(key, _)| key.clone()) };
        for overlay in self.frozen.iter().chain([&self.active]) {
            records = merged(records, overlay.walk(after, until.as_ref()));
        }
        let mut size = 0;
        let beyond = records.iter().position(|(key, record)| {
            size += key.as_bytes().len() + record.len();
            size > bytes_max
        });
        if let Some(beyond) = beyond.map(|beyond| beyond.max(1)).filter(|beyond| *beyond < records.len()) {
            records.truncate(beyond);
            last = false;
        }
        Chunk { records, at, last }
    }
}

/// Both lists are in key order; where both have a key, the newer state counts.
fn merged(older: Vec<(Key, Bytes)>, newer: Vec<(Key, Held)>) -> Vec<(Key, Bytes)> {
    if newer.is_empty() {
        return older;
    }
    let mut merged = Vec::with_capacity(older.len() + newer.len());
    let (mut older, mut newer) = (older.into_iter().peekable(), newer.into_iter().peekable());
    while let Some((key, _)) = newer.peek() {
        merged.extend(std::iter::from_fn(|| older.next_if(|(old, _)| old < key)));
        older.next_if(|(old, _)| old == key);
        merged.extend(newer.next().and_then(|(key, record)| Some((key, record?))));
    }
    merged.extend(older);
    merged
}
