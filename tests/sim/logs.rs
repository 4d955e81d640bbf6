//! The directories of logs on a simulated disk: which files were made and removed since a directory was synced may be
//! forgotten when the power goes, each on its own.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use ostraca::storage::log::{Directory, LogId, SegmentFile};
use ostraca::storage::logged::Place;
use ostraca::storage::open::OpenFault;
use rand::RngExt;
use rand::rngs::StdRng;
use redb::StorageBackend;

use super::disk::{Disk, Goes, Lies, wrong};
use super::sectors::Sectors;

/// The names in a directory, each with the number of its file on the disk.
type Names = BTreeMap<String, usize>;

/// A directory.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    live: Names,
    durable: Names,
    /// It was removed, which may be forgotten.
    is_removed: bool,
}

impl Folder {
    pub(crate) fn power_cycle(&mut self, dice: &mut StdRng) {
        if self.is_removed && dice.random_bool(0.5) {
            self.live.clear();
            self.durable.clear();
            return;
        }
        self.is_removed = false;
        let loss = [0.0, 0.5, 1.0][dice.random_range(0..3)];
        let names: Vec<String> = self.live.keys().chain(self.durable.keys()).cloned().collect();
        for name in names {
            if dice.random_bool(loss) {
                match self.durable.get(&name) {
                    Some(file) => drop(self.live.insert(name, *file)),
                    None => drop(self.live.remove(&name)),
                }
            }
        }
        self.durable = self.live.clone();
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.is_removed
    }
}

/// The place for the logs of the disk's copy.
#[derive(Debug)]
pub(crate) struct Logs(pub(crate) Disk);

impl Place for Logs {
    fn list(&self) -> io::Result<Vec<LogId>> {
        if self.0.call_of_directory(false)? == Goes::Wrong {
            return Err(wrong());
        }
        let state = self.0.state.lock();
        Ok(state.folders.iter().filter(|(_, folder)| !folder.is_removed).map(|(id, _)| LogId(*id)).collect())
    }

    fn create(&self, id: LogId) -> Result<Arc<dyn Directory>, OpenFault> {
        let disk = |error: io::Error| OpenFault::Disk(error.to_string());
        if self.0.call_of_directory(false).map_err(disk)? == Goes::Wrong {
            return Err(disk(wrong()));
        }
        self.0.state.lock().folders.entry(id.0).or_default().is_removed = false;
        Ok(Arc::new(LogFolder { disk: self.0.clone(), id: id.0 }))
    }

    fn open(&self, id: LogId) -> io::Result<Option<Arc<dyn Directory>>> {
        if self.0.call_of_directory(false)? == Goes::Wrong {
            return Err(wrong());
        }
        let state = self.0.state.lock();
        let is_there = state.folders.get(&id.0).is_some_and(|folder| !folder.is_removed);
        Ok(is_there.then(|| Arc::new(LogFolder { disk: self.0.clone(), id: id.0 }) as Arc<dyn Directory>))
    }

    fn remove(&self, id: LogId) -> io::Result<()> {
        if self.0.call_of_directory(false)? == Goes::Wrong {
            return Err(wrong());
        }
        if let Some(folder) = self.0.state.lock().folders.get_mut(&id.0) {
            folder.is_removed = true;
            folder.live.clear();
        }
        Ok(())
    }

    fn name(&self, id: LogId) -> String {
        format!("log {id}")
    }
}

/// An open directory.
#[derive(Debug)]
struct LogFolder {
    disk: Disk,
    id: u64,
}

impl LogFolder {
    /// Does `work` on the names, unless the call goes wrong.
    fn with<T>(
        &self,
        is_sync: bool,
        work: impl FnOnce(&mut Folder, &mut Vec<Sectors>) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.disk.call_of_directory(is_sync)? == Goes::Wrong {
            return Err(wrong());
        }
        let mut state = self.disk.state.lock();
        let truth = state.tells_the_truth(Lies::OfDirectories);
        let super::disk::State { folders, files, .. } = &mut *state;
        let folder = folders.get_mut(&self.id).ok_or(io::ErrorKind::NotFound)?;
        if is_sync && !truth {
            let mut unused = Folder::default();
            return work(&mut unused, files);
        }
        work(folder, files)
    }

    fn file(&self, number: usize) -> Box<dyn SegmentFile> {
        Box::new(LogFile(self.disk.file(number)))
    }
}

impl Directory for LogFolder {
    fn list(&self) -> io::Result<Vec<String>> {
        self.with(false, |folder, _| Ok(folder.live.keys().cloned().collect()))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        let number = self.with(false, |folder, files| {
            files.push(Sectors::of(Vec::new()));
            folder.live.insert(name.to_owned(), files.len() - 1);
            Ok(files.len() - 1)
        })?;
        Ok(self.file(number))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        let number = self.with(false, |folder, _| {
            let number = folder.live.get(name).copied();
            number.ok_or_else(|| io::ErrorKind::NotFound.into())
        })?;
        Ok(self.file(number))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(false, |folder, _| match folder.live.remove(name) {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(true, |folder, _| {
            folder.durable = folder.live.clone();
            Ok(())
        })
    }
}

/// An open segment. Unlike a database file it grows when it is written beyond its end.
#[derive(Debug)]
struct LogFile(Disk);

impl SegmentFile for LogFile {
    fn size(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_growing(offset, data)
    }

    fn sync_data(&self) -> io::Result<()> {
        StorageBackend::sync_data(&self.0)
    }

    fn drop_cache(&self) {} // a power cycle does it
}
