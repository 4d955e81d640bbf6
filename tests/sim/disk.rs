//! A disk that loses, on purpose, all that it may lose.
//!
//! What was written and not yet synced may, after the power went, be there or not, for each sector of 512 bytes on its
//! own: the new bytes, the old ones, any that stood there in between, or a mixture of two (a torn sector). A change of
//! the length may be lost too. After a sync that failed, sectors may be gone although reads still show them, and although
//! a later sync says that all is well; they come to light when the cache is dropped.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redb::StorageBackend;

const SECTOR: usize = 512;

/// Most versions of one sector that are remembered between two syncs; of more, the oldest and the newest.
const VERSIONS_MAX: usize = 8;

type Sector = [u8; SECTOR];

/// Clones are the same disk.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// What reads show.
    live: Vec<u8>,
    /// Sectors that were written since the last sync, with what stood there before, the durable version first.
    unsynced: BTreeMap<usize, Vec<Sector>>,
    /// Sectors that a failed sync forgot: reads show them, the disk holds an earlier version.
    forgotten: BTreeMap<usize, Vec<Sector>>,
    /// Lengths since the last sync, the durable one first.
    lengths: Vec<usize>,
    calls: u64,
    syncs: u64,
    fault: Option<(When, Fault)>,
    power: bool,
    lying: bool,
    dice: StdRng,
}

/// The call at which a fault strikes, counted from the disk's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Call(u64),
    Sync(u64),
}

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The power goes: this call and all that follow fail.
    PowerCut,
    /// This call fails, the others do not.
    Error,
}

impl Disk {
    /// A disk on which `contents` are durable.
    pub(crate) fn new(contents: Vec<u8>) -> Disk {
        let lengths = vec![contents.len()];
        Disk(Arc::new(Mutex::new(State {
            live: contents,
            unsynced: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            lengths,
            calls: 0,
            syncs: 0,
            fault: None,
            power: true,
            lying: false,
            dice: StdRng::seed_from_u64(0),
        })))
    }

    /// Sets the dice that decide what is lost.
    pub(crate) fn seed(&self, seed: u64) {
        self.0.lock().dice = StdRng::seed_from_u64(seed);
    }

    /// From now on a sync says that all is well, and does nothing.
    pub(crate) fn lie(&self) {
        self.0.lock().lying = true;
    }

    /// Plans a fault at the `n`-th call from now, counted from 1.
    pub(crate) fn plan(&self, n: u64, fault: Fault) {
        let mut state = self.0.lock();
        state.fault = Some((When::Call(state.calls + n), fault));
    }

    /// Plans a fault at the `n`-th sync from now, counted from 1: there most is at stake.
    pub(crate) fn plan_at_sync(&self, n: u64, fault: Fault) {
        let mut state = self.0.lock();
        state.fault = Some((When::Sync(state.syncs + n), fault));
    }

    /// Whether the planned fault is still to come.
    pub(crate) fn is_planned(&self) -> bool {
        self.0.lock().fault.is_some()
    }

    /// Takes the power away.
    pub(crate) fn cut_power(&self) {
        self.0.lock().power = false;
    }

    /// Whether the power is there.
    pub(crate) fn has_power(&self) -> bool {
        self.0.lock().power
    }

    /// Loses what may be lost, and gives the power back, with no fault planned.
    pub(crate) fn power_cycle(&self) {
        self.0.lock().power_cycle();
    }

    /// What reads show.
    pub(crate) fn contents(&self) -> Vec<u8> {
        self.0.lock().live.clone()
    }
}

/// Whether a call does what it should.
#[derive(PartialEq, Eq)]
enum Goes {
    Well,
    Wrong,
}

impl State {
    fn call(&mut self) -> io::Result<Goes> {
        self.calls += 1;
        if !self.power {
            return Err(io::Error::other("the power is gone"));
        }
        match self.fault {
            Some((at, fault)) if at == When::Call(self.calls) || at == When::Sync(self.syncs) => {
                self.fault = None;
                self.power = fault != Fault::PowerCut;
                Ok(Goes::Wrong)
            }
            _ => Ok(Goes::Well),
        }
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

    fn write(&mut self, offset: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        for sector in offset / SECTOR..=(offset + data.len() - 1) / SECTOR {
            self.remember(sector);
        }
        self.live[offset..offset + data.len()].copy_from_slice(data);
    }

    fn set_len(&mut self, len: usize) {
        for sector in len / SECTOR..self.live.len().div_ceil(SECTOR) {
            self.remember(sector); // should this cut be lost, its contents come back
        }
        self.live.resize(len, 0);
        self.lengths.push(len);
    }

    fn sync(&mut self) {
        if !self.lying {
            self.unsynced.clear();
            self.lengths = vec![self.live.len()];
        }
    }

    /// The system gives up on what it could not write, marks it clean, and says so once.
    fn sync_wrong(&mut self) {
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            let map = if self.dice.random_bool(0.5) { &mut self.forgotten } else { &mut self.unsynced };
            map.insert(sector, versions);
        }
    }

    fn power_cycle(&mut self) {
        let len = match self.dice.random_range(0..3) {
            0 => self.lengths[self.dice.random_range(0..self.lengths.len())],
            1 => self.lengths[0],
            _ => self.live.len(),
        };
        let loss = [0.0, 0.0, 0.05, 0.5, 0.95, 1.0][self.dice.random_range(0..6)];
        let mut settled = Vec::new();
        for (sector, mut versions) in std::mem::take(&mut self.unsynced) {
            versions.push(self.sector(sector));
            if self.dice.random_bool(loss) {
                settled.push((sector, self.settle(&versions)));
            }
        }
        for (sector, versions) in std::mem::take(&mut self.forgotten) {
            settled.push((sector, self.settle(&versions)));
        }
        self.live.resize(len, 0);
        for (sector, bytes) in settled {
            let from = (sector * SECTOR).min(len);
            let to = (from + SECTOR).min(len);
            self.live[from..to].copy_from_slice(&bytes[..to - from]);
        }
        self.lengths = vec![len];
        self.fault = None;
        self.power = true;
    }

    /// One of a sector's versions, or a mixture of two.
    fn settle(&mut self, versions: &[Sector]) -> Sector {
        let one = versions[self.dice.random_range(0..versions.len())];
        let other = versions[self.dice.random_range(0..versions.len())];
        let cut = self.dice.random_range(0..=SECTOR);
        match self.dice.random_range(0..10) {
            0..=4 => one,
            5..=7 => std::array::from_fn(|at| if at < cut { one[at] } else { other[at] }),
            _ => std::array::from_fn(|at| if self.dice.random_bool(0.5) { one[at] } else { other[at] }),
        }
    }
}

fn wrong() -> io::Error {
    io::Error::other("an injected fault")
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.0.lock();
        if state.call()? == Goes::Wrong { Err(wrong()) } else { Ok(state.live.len() as u64) }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.call()? == Goes::Wrong {
            return Err(wrong());
        }
        let from = index(offset);
        let bytes = state.live.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        let goes = state.call()?;
        if goes == Goes::Well || state.dice.random_bool(0.5) {
            state.set_len(index(len));
        }
        if goes == Goes::Wrong { Err(wrong()) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.syncs += 1;
        if state.call()? == Goes::Wrong {
            if state.power {
                state.sync_wrong();
            }
            return Err(wrong());
        }
        state.sync();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        let offset = index(offset);
        if state.call()? == Goes::Wrong {
            let written = state.dice.random_range(0..=data.len());
            state.write(offset, &data[..written]);
            return Err(wrong());
        }
        state.write(offset, data);
        Ok(())
    }
}
