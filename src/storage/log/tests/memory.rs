//! A directory in memory: keeps everything, counts the calls, and fails the one it is told to.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::storage::log::directory::{Directory, SegmentFile};

/// The bytes of a file; whoever has it open goes on after its name is gone.
type Contents = Arc<Mutex<Vec<u8>>>;

/// Clones are the same directory.
#[derive(Debug, Clone, Default)]
pub(super) struct MemoryDirectory(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    files: Mutex<BTreeMap<String, Contents>>,
    calls: AtomicU64,
    fails_at: AtomicU64,
    /// Bytes that fit on the disk, 0 for any.
    space: AtomicU64,
    syncs: AtomicU64,
}

#[derive(Debug)]
struct MemoryFile(Contents, MemoryDirectory);

impl MemoryDirectory {
    /// A copy that shares nothing.
    pub(super) fn copied(&self) -> MemoryDirectory {
        let copy = MemoryDirectory::default();
        for (name, contents) in self.0.files.lock().iter() {
            copy.put(name, contents.lock().clone());
        }
        copy
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.files.lock().keys().cloned().collect()
    }

    pub(super) fn contents(&self, name: &str) -> Vec<u8> {
        self.0.files.lock()[name].lock().clone()
    }

    pub(super) fn put(&self, name: &str, contents: Vec<u8>) {
        self.0.files.lock().insert(name.to_owned(), Arc::new(Mutex::new(contents)));
    }

    pub(super) fn delete(&self, name: &str) {
        self.0.files.lock().remove(name);
    }

    pub(super) fn flip(&self, name: &str, at: usize) {
        self.0.files.lock()[name].lock()[at] ^= 0x10;
    }

    /// The `n`-th call from now fails, counted from 1; others do not.
    pub(super) fn fail_at(&self, n: u64) {
        self.0.fails_at.store(self.calls() + n, Ordering::Relaxed);
    }

    /// From now on the files cannot grow beyond so many bytes in all.
    pub(super) fn limit_space(&self, bytes: u64) {
        self.0.space.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::Relaxed)
    }

    /// Files synced so far.
    pub(super) fn syncs(&self) -> u64 {
        self.0.syncs.load(Ordering::Relaxed)
    }

    fn file_bytes(&self) -> u64 {
        self.0.files.lock().values().map(|contents| contents.lock().len() as u64).sum()
    }

    fn call(&self) -> io::Result<()> {
        let call = self.0.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if call == self.0.fails_at.load(Ordering::Relaxed) {
            return Err(io::Error::other("an injected fault"));
        }
        Ok(())
    }
}

impl Directory for MemoryDirectory {
    fn list(&self) -> io::Result<Vec<String>> {
        self.call()?;
        Ok(self.names())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        self.call()?;
        let mut files = self.0.files.lock();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let contents = Contents::default();
        files.insert(name.to_owned(), Arc::clone(&contents));
        Ok(Box::new(MemoryFile(contents, self.clone())))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        self.call()?;
        let files = self.0.files.lock();
        let contents = files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemoryFile(Arc::clone(contents), self.clone())))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.call()?;
        self.0.files.lock().remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        self.call()
    }
}

impl SegmentFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        self.1.call()?;
        Ok(self.0.lock().len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.1.call()?;
        let contents = self.0.lock();
        let from = usize::try_from(offset).unwrap();
        out.copy_from_slice(contents.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.1.call()?;
        let space = self.1.0.space.load(Ordering::Relaxed);
        if space > 0 && self.1.file_bytes() + data.len() as u64 > space {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut contents = self.0.lock();
        let from = usize::try_from(offset).unwrap();
        let len = contents.len().max(from + data.len());
        contents.resize(len, 0);
        contents[from..from + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.1.call()?;
        self.1.0.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn drop_cache(&self) {}
}
