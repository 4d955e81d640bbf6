//! The bytes of one simulated file, and what of them a power cut may take: each sector of 512 bytes that was written and
//! not synced may be there or not, on its own, and so may a change of the length.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::StdRng;

const SECTOR: usize = 512;

/// Most versions of one sector that are remembered between two syncs; of more, the oldest and the newest.
const VERSIONS_MAX: usize = 8;

type Sector = [u8; SECTOR];

#[derive(Debug)]
pub(crate) struct Sectors {
    /// What reads show.
    pub(crate) live: Vec<u8>,
    /// Sectors that were written since the last sync, with what stood there before, the durable version first.
    unsynced: BTreeMap<usize, Vec<Sector>>,
    /// Sectors that a failed sync forgot: reads show them, the disk holds an earlier version.
    forgotten: BTreeMap<usize, Vec<Sector>>,
    /// Lengths since the last sync, the durable one first.
    lengths: Vec<usize>,
}

impl Sectors {
    /// A file whose `contents` are durable.
    pub(crate) fn of(contents: Vec<u8>) -> Sectors {
        let lengths = vec![contents.len()];
        Sectors { live: contents, unsynced: BTreeMap::new(), forgotten: BTreeMap::new(), lengths }
    }

    /// Remembers what stands in a sector, before it changes.
    fn remember(&mut self, sector: usize) {
        let present = self.sector(sector);
        let forgotten = self.forgotten.remove(&sector); // written again, it will be synced again
        let versions = self.unsynced.entry(sector).or_insert_with(|| forgotten.unwrap_or_default());
        if versions.len() == VERSIONS_MAX {
            versions.remove(1);
        }
        versions.push(present);
    }

    /// A sector as reads show it; zeros beyond the end.
    fn sector(&self, sector: usize) -> Sector {
        let mut bytes = [0; SECTOR];
        let from = (sector * SECTOR).min(self.live.len());
        let to = (from + SECTOR).min(self.live.len());
        bytes[..to - from].copy_from_slice(&self.live[from..to]);
        bytes
    }

    /// Writes within the length.
    pub(crate) fn write(&mut self, offset: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        for sector in offset / SECTOR..=(offset + data.len() - 1) / SECTOR {
            self.remember(sector);
        }
        self.live[offset..offset + data.len()].copy_from_slice(data);
    }

    pub(crate) fn set_len(&mut self, len: usize) {
        for sector in len / SECTOR..self.live.len().div_ceil(SECTOR) {
            self.remember(sector); // should this cut be lost, its contents come back
        }
        self.live.resize(len, 0);
        self.lengths.push(len);
    }

    pub(crate) fn sync(&mut self) {
        self.unsynced.clear();
        self.lengths = vec![self.live.len()];
    }

    /// The system gives up on what it could not write, marks it clean, and says so once.
    pub(crate) fn sync_wrong(&mut self, dice: &mut StdRng) {
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            let map = if dice.random_bool(0.5) { &mut self.forgotten } else { &mut self.unsynced };
            map.insert(sector, versions);
        }
    }

    pub(crate) fn power_cycle(&mut self, dice: &mut StdRng) {
        let len = match dice.random_range(0..3) {
            0 => self.lengths[dice.random_range(0..self.lengths.len())],
            1 => self.lengths[0],
            _ => self.live.len(),
        };
        let loss = [0.0, 0.0, 0.05, 0.5, 0.95, 1.0][dice.random_range(0..6)];
        let mut settled = Vec::new();
        for (sector, mut versions) in std::mem::take(&mut self.unsynced) {
            versions.push(self.sector(sector));
            if dice.random_bool(loss) {
                settled.push((sector, settle(&versions, dice)));
            }
        }
        for (sector, versions) in std::mem::take(&mut self.forgotten) {
            settled.push((sector, settle(&versions, dice)));
        }
        self.live.resize(len, 0);
        for (sector, bytes) in settled {
            let from = (sector * SECTOR).min(len);
            let to = (from + SECTOR).min(len);
            self.live[from..to].copy_from_slice(&bytes[..to - from]);
        }
        self.lengths = vec![len];
    }
}

/// One of a sector's versions, or a mixture of two.
fn settle(versions: &[Sector], dice: &mut StdRng) -> Sector {
    let one = versions[dice.random_range(0..versions.len())];
    let other = versions[dice.random_range(0..versions.len())];
    let cut = dice.random_range(0..=SECTOR);
    match dice.random_range(0..10) {
        0..=4 => one,
        5..=7 => std::array::from_fn(|at| if at < cut { one[at] } else { other[at] }),
        _ => std::array::from_fn(|at| if dice.random_bool(0.5) { one[at] } else { other[at] }),
    }
}
