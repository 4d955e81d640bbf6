//! A disk that loses, on purpose, all that it may lose: of its files, what was written and not yet synced ([`Sectors`]); of
//! its directories, which files were made and removed ([`super::logs`]). After a sync that failed, sectors may be gone
//! although reads still show them, and although a later sync says that all is well; they come to light when the cache is
//! dropped, which a power cycle does.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redb::StorageBackend;

use super::logs::Folder;
use super::sectors::Sectors;

/// A file of a disk: its database file, at first. Clones are the same disk.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) state: Arc<Mutex<State>>,
    file: usize,
}

/// What is done between two calls of whoever uses the disk.
pub(crate) type Interruption = Box<dyn FnOnce() + Send>;

pub(crate) struct State {
    pub(crate) files: Vec<Sectors>,
    /// The directories of logs, by the log's id.
    pub(crate) folders: BTreeMap<u64, Folder>,
    calls: u64,
    syncs: u64,
    fault: Option<(When, Fault)>,
    power: bool,
    lies: Lies,
    interruption: Option<(When, Interruption)>,
    pub(crate) dice: StdRng,
}

/// Which syncs say that all is well, and do nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lies {
    Never,
    /// Those of the database file.
    OfTheDatabase,
    /// Those of the log's files.
    OfTheLog,
    /// Those of directories.
    OfDirectories,
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
    /// A disk on which the `contents` of the database file are durable, and nothing else is.
    pub(crate) fn new(contents: Vec<u8>) -> Disk {
        let state = State {
            files: vec![Sectors::of(contents)],
            folders: BTreeMap::new(),
            calls: 0,
            syncs: 0,
            fault: None,
            power: true,
            lies: Lies::Never,
            interruption: None,
            dice: StdRng::seed_from_u64(0),
        };
        Disk { state: Arc::new(Mutex::new(state)), file: 0 }
    }

    /// Another file of the same disk.
    pub(crate) fn file(&self, file: usize) -> Disk {
        Disk { state: Arc::clone(&self.state), file }
    }

    /// Sets the dice that decide what is lost.
    pub(crate) fn seed(&self, seed: u64) {
        self.state.lock().dice = StdRng::seed_from_u64(seed);
    }

    /// A number that depends on the seed.
    pub(crate) fn draw(&self) -> u64 {
        self.state.lock().dice.random()
    }

    /// From now on some syncs say that all is well, and do nothing.
    pub(crate) fn lie(&self, lies: Lies) {
        self.state.lock().lies = lies;
    }

    /// Plans a fault at the `n`-th call from now, counted from 1.
    pub(crate) fn plan(&self, n: u64, fault: Fault) {
        let mut state = self.state.lock();
        state.fault = Some((When::Call(state.calls + n), fault));
    }

    /// Plans a fault at the `n`-th sync from now, counted from 1: there most is at stake.
    pub(crate) fn plan_at_sync(&self, n: u64, fault: Fault) {
        let mut state = self.state.lock();
        state.fault = Some((When::Sync(state.syncs + n), fault));
    }

    /// Plans something to be done before the `n`-th call from now, counted from 1, or the first after it that is about the
    /// database file, by the thread that makes it: what another thread might do meanwhile.
    pub(crate) fn interrupt(&self, n: u64, interruption: Interruption) {
        let mut state = self.state.lock();
        state.interruption = Some((When::Call(state.calls + n), interruption));
    }

    /// The same, before the next sync.
    pub(crate) fn interrupt_next_sync(&self, interruption: Interruption) {
        let mut state = self.state.lock();
        state.interruption = Some((When::Sync(state.syncs + 1), interruption));
    }

    /// Forgets an interruption that has not come.
    pub(crate) fn do_not_interrupt(&self) {
        self.state.lock().interruption = None;
    }

    /// Whether the planned fault is still to come.
    pub(crate) fn is_planned(&self) -> bool {
        self.state.lock().fault.is_some()
    }

    /// Takes the power away.
    pub(crate) fn cut_power(&self) {
        self.state.lock().power = false;
    }

    /// Whether the power is there.
    pub(crate) fn has_power(&self) -> bool {
        self.state.lock().power
    }

    /// Loses what may be lost, and gives the power back, with no fault planned.
    pub(crate) fn power_cycle(&self) {
        self.state.lock().power_cycle();
    }

    /// What reads of the database file show.
    pub(crate) fn contents(&self) -> Vec<u8> {
        self.state.lock().files[0].live.clone()
    }

    /// Writes, beyond the end as well; cut short, it has written a part.
    pub(crate) fn write_growing(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let goes = self.call(false)?;
        let mut state = self.state.lock();
        let State { files, dice, .. } = &mut *state;
        let written = if goes == Goes::Wrong { dice.random_range(0..=data.len()) } else { data.len() };
        let (file, offset) = (&mut files[self.file], index(offset));
        if file.live.len() < offset + written && written > 0 {
            file.set_len(offset + written);
        }
        file.write(offset, &data[..written]);
        if goes == Goes::Wrong { Err(wrong()) } else { Ok(()) }
    }

    /// Begins a call: first what interrupts it, then whether it does what it should.
    fn call(&self, is_sync: bool) -> io::Result<Goes> {
        self.begin(is_sync, self.file == 0)
    }

    /// A call that is about a directory.
    pub(crate) fn call_of_directory(&self, is_sync: bool) -> io::Result<Goes> {
        self.begin(is_sync, false)
    }

    fn begin(&self, is_sync: bool, is_database: bool) -> io::Result<Goes> {
        let interruption = self.state.lock().count(is_sync, is_database);
        if let Some(interruption) = interruption {
            interruption(); // makes calls of its own
        }
        self.state.lock().go()
    }
}

/// Whether a call does what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goes {
    Well,
    Wrong,
}

impl State {
    /// Counts a call; gives what interrupts it.
    fn count(&mut self, is_sync: bool, is_database: bool) -> Option<Interruption> {
        self.calls += 1;
        self.syncs += u64::from(is_sync);
        let (calls, syncs) = (self.calls, self.syncs);
        let is_due = |when: When| match when {
            When::Call(_) => is_database && when.has_come(calls, syncs),
            When::Sync(at) => is_sync && at == syncs,
        };
        self.interruption.take_if(|(when, _)| is_due(*when)).map(|(_, interruption)| interruption)
    }

    fn go(&mut self) -> io::Result<Goes> {
        if !self.power {
            return Err(io::Error::other("the power is gone"));
        }
        match self.fault {
            Some((when, fault)) if when.has_come(self.calls, self.syncs) => {
                self.fault = None;
                self.power = fault != Fault::PowerCut;
                Ok(Goes::Wrong)
            }
            _ => Ok(Goes::Well),
        }
    }

    /// Whether the power is there, and the syncs of this kind are true.
    pub(crate) fn tells_the_truth(&self, about: Lies) -> bool {
        self.lies != about
    }

    fn power_cycle(&mut self) {
        for file in &mut self.files {
            file.power_cycle(&mut self.dice);
        }
        for folder in self.folders.values_mut() {
            folder.power_cycle(&mut self.dice);
        }
        self.folders.retain(|_, folder| !folder.is_gone());
        self.fault = None;
        self.interruption = None;
        self.power = true;
    }
}

impl When {
    fn has_come(self, calls: u64, syncs: u64) -> bool {
        match self {
            When::Call(at) => calls >= at,
            When::Sync(at) => syncs >= at,
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("calls", &self.calls).field("power", &self.power).finish_non_exhaustive()
    }
}

pub(crate) fn wrong() -> io::Error {
    io::Error::other("an injected fault")
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        if self.call(false)? == Goes::Wrong {
            return Err(wrong());
        }
        Ok(self.state.lock().files[self.file].live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.call(false)? == Goes::Wrong {
            return Err(wrong());
        }
        let state = self.state.lock();
        let from = index(offset);
        let bytes = state.files[self.file].live.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let goes = self.call(false)?;
        let mut state = self.state.lock();
        if goes == Goes::Well || state.dice.random_bool(0.5) {
            state.files[self.file].set_len(index(len));
        }
        if goes == Goes::Wrong { Err(wrong()) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let goes = self.call(true)?;
        let mut state = self.state.lock();
        let about = if self.file == 0 { Lies::OfTheDatabase } else { Lies::OfTheLog };
        let State { files, dice, power, .. } = &mut *state;
        if goes == Goes::Wrong {
            if *power {
                files[self.file].sync_wrong(dice);
            }
            return Err(wrong());
        }
        if state.tells_the_truth(about) {
            state.files[self.file].sync();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let goes = self.call(false)?;
        let mut state = self.state.lock();
        let State { files, dice, .. } = &mut *state;
        let written = if goes == Goes::Wrong { dice.random_range(0..=data.len()) } else { data.len() };
        files[self.file].write(index(offset), &data[..written]);
        if goes == Goes::Wrong { Err(wrong()) } else { Ok(()) }
    }
}
