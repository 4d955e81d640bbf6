//! A directory on a disk that loses, on purpose, all that it may lose when the power goes: each sector that was written
//! and not synced, on its own, as a whole or in part; a file's length; the name of a file that was made, and that a file
//! was removed. After a sync that failed, sectors may be lost although reads still show them, and a later sync says that
//! all is well; dropping the cache brings that to light.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::storage::log::directory::{Directory, SegmentFile};

const SECTOR: usize = 512;

type Sector = [u8; SECTOR];
type Names = BTreeMap<String, usize>;

/// A promise that a disk may break, to see whether that is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lie {
    /// A file's sync does nothing.
    Sync,
    /// A directory's sync does nothing.
    DirectorySync,
    /// Dropping the cache does nothing.
    DropCache,
}

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The power goes: this call and all that follow fail.
    PowerCut,
    /// The next sync of a file fails.
    SyncFails,
}

/// Clones are the same disk.
#[derive(Debug, Clone)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    files: Vec<Contents>,
    names: Names,
    durable_names: Names,
    calls: u64,
    fault: Option<(u64, Fault)>,
    power: bool,
    lie: Option<Lie>,
    dice: StdRng,
}

/// The bytes of a file.
#[derive(Debug)]
struct Contents {
    /// What reads show.
    live: Vec<u8>,
    /// Sectors written since the last sync, with what stood there before, the durable version first.
    unsynced: BTreeMap<usize, Vec<Sector>>,
    /// Sectors that a failed sync forgot.
    forgotten: BTreeMap<usize, Vec<Sector>>,
    /// Lengths since the last sync, the durable one first.
    lengths: Vec<usize>,
}

#[derive(Debug)]
struct OpenFile(Disk, usize);

impl Disk {
    pub(super) fn new(seed: u64, lie: Option<Lie>) -> Disk {
        Disk(Arc::new(Mutex::new(State {
            files: Vec::new(),
            names: Names::new(),
            durable_names: Names::new(),
            calls: 0,
            fault: None,
            power: true,
            lie,
            dice: StdRng::seed_from_u64(seed),
        })))
    }

    /// Plans a fault at the `n`-th call from now, counted from 1.
    pub(super) fn plan(&self, n: u64, fault: Fault) {
        let mut state = self.0.lock();
        state.fault = Some((state.calls + n, fault));
    }

    pub(super) fn cut_power(&self) {
        self.0.lock().power = false;
    }

    pub(super) fn has_power(&self) -> bool {
        self.0.lock().power
    }

    /// Loses what may be lost, and gives the power back, with no fault planned.
    pub(super) fn power_cycle(&self) {
        let mut state = self.0.lock();
        let State { files, names, durable_names, dice, fault, power, .. } = &mut *state;
        files.iter_mut().for_each(|file| file.power_cycle(dice));
        let loss = [0.0, 0.5, 1.0][dice.random_range(0..3)];
        for name in names.keys().chain(durable_names.keys()).cloned().collect::<BTreeSet<_>>() {
            if dice.random_bool(loss) {
                match durable_names.get(&name) {
                    Some(file) => names.insert(name, *file),
                    None => names.remove(&name),
                };
            }
        }
        *durable_names = names.clone();
        (*fault, *power) = (None, true);
    }
}

impl State {
    /// True: the call goes wrong, with a failed sync.
    fn call(&mut self, is_sync: bool) -> io::Result<bool> {
        self.calls += 1;
        match self.fault {
            Some((at, Fault::PowerCut)) if self.calls >= at => self.power = false,
            Some((at, Fault::SyncFails)) if self.calls >= at && is_sync && self.power => {
                self.fault = None;
                return Ok(true);
            }
            _ => {}
        }
        if self.power { Ok(false) } else { Err(io::Error::other("the power is gone")) }
    }
}

impl Contents {
    fn empty() -> Contents {
        Contents { live: Vec::new(), unsynced: BTreeMap::new(), forgotten: BTreeMap::new(), lengths: vec![0] }
    }

    /// A sector as reads show it; zeros beyond the end.
    fn sector(&self, sector: usize) -> Sector {
        let mut bytes = [0; SECTOR];
        let from = (sector * SECTOR).min(self.live.len());
        let to = (from + SECTOR).min(self.live.len());
        bytes[..to - from].copy_from_slice(&self.live[from..to]);
        bytes
    }

    fn remember(&mut self, sector: usize) {
        let present = self.sector(sector);
        let forgotten = self.forgotten.remove(&sector);
        self.unsynced.entry(sector).or_insert_with(|| forgotten.unwrap_or_default()).push(present);
    }

    fn write(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        (offset / SECTOR..end.div_ceil(SECTOR)).for_each(|sector| self.remember(sector));
        if end > self.live.len() {
            self.live.resize(end, 0);
            self.lengths.push(end);
        }
        self.live[offset..end].copy_from_slice(data);
    }

    fn sync(&mut self) {
        self.unsynced.clear();
        self.lengths = vec![self.live.len()];
    }

    fn sync_wrong(&mut self, dice: &mut StdRng) {
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            let map = if dice.random_bool(0.5) { &mut self.forgotten } else { &mut self.unsynced };
            map.insert(sector, versions);
        }
    }

    fn drop_cache(&mut self, dice: &mut StdRng) {
        for (sector, versions) in std::mem::take(&mut self.forgotten) {
            let settled = settle(&versions, dice);
            self.put(sector, &settled);
        }
    }

    fn power_cycle(&mut self, dice: &mut StdRng) {
        let loss = [0.0, 0.0, 0.05, 0.5, 0.95, 1.0][dice.random_range(0..6)];
        self.drop_cache(dice);
        for (sector, mut versions) in std::mem::take(&mut self.unsynced) {
            versions.push(self.sector(sector));
            if dice.random_bool(loss) {
                let settled = settle(&versions, dice);
                self.put(sector, &settled);
            }
        }
        let len = match dice.random_range(0..3) {
            0 => self.lengths[dice.random_range(0..self.lengths.len())],
            1 => self.lengths[0],
            _ => self.live.len(),
        };
        self.live.resize(len, 0);
        self.lengths = vec![len];
    }

    /// Sets what is within the file's length of a sector.
    fn put(&mut self, sector: usize, bytes: &Sector) {
        let from = (sector * SECTOR).min(self.live.len());
        let to = (from + SECTOR).min(self.live.len());
        self.live[from..to].copy_from_slice(&bytes[..to - from]);
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
        _ => {
            let mask: u64 = dice.random();
            std::array::from_fn(|at| if mask >> (at % 64) & 1 == 0 { one[at] } else { other[at] })
        }
    }
}

impl Directory for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.0.lock();
        state.call(false)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        let mut state = self.0.lock();
        state.call(false)?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.files.push(Contents::empty());
        let number = state.files.len() - 1;
        state.names.insert(name.to_owned(), number);
        Ok(Box::new(OpenFile(self.clone(), number)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        let mut state = self.0.lock();
        state.call(false)?;
        let number = state.names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(OpenFile(self.clone(), number)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.call(false)?;
        state.names.remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.call(false)?;
        if state.lie != Some(Lie::DirectorySync) {
            state.durable_names = state.names.clone();
        }
        Ok(())
    }
}

impl OpenFile {
    fn with<T>(&self, work: impl FnOnce(&mut Contents, &mut StdRng) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.0.lock();
        state.call(false)?;
        let State { files, dice, .. } = &mut *state;
        work(&mut files[self.1], dice)
    }
}

impl SegmentFile for OpenFile {
    fn size(&self) -> io::Result<u64> {
        self.with(|file, _| Ok(file.live.len() as u64))
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        self.with(|file, _| {
            out.copy_from_slice(file.live.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let written = self.with(|file, _| {
            file.write(offset, data);
            Ok(())
        });
        if written.is_err() {
            // The power goes within the call: some of it is on its way.
            let mut state = self.0.0.lock();
            let State { files, dice, .. } = &mut *state;
            let some = dice.random_range(0..=data.len());
            files[self.1].write(offset, &data[..some]);
        }
        written
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.0.lock();
        let goes_wrong = state.call(true)?;
        let State { files, dice, lie, .. } = &mut *state;
        if goes_wrong {
            files[self.1].sync_wrong(dice);
            return Err(io::Error::other("the sync failed"));
        }
        if *lie != Some(Lie::Sync) {
            files[self.1].sync();
        }
        Ok(())
    }

    fn drop_cache(&self) {
        let mut state = self.0.0.lock();
        let State { files, dice, lie, .. } = &mut *state;
        if *lie != Some(Lie::DropCache) {
            files[self.1].drop_cache(dice);
        }
    }
}
