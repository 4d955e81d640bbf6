//! A directory in memory, for the ledger of a copy that lives there.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::storage::log::{Directory, SegmentFile};

type Contents = Arc<Mutex<Vec<u8>>>;

/// Files by name; whoever has one open goes on after its name is gone.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<BTreeMap<String, Contents>>);

#[derive(Debug)]
struct MemoryFile(Contents);

impl Directory for Memory {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        let mut files = self.0.lock();
        if files.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let contents = Contents::default();
        files.insert(name.to_owned(), Arc::clone(&contents));
        Ok(Box::new(MemoryFile(contents)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        let files = self.0.lock();
        let contents = files.get(name).ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(MemoryFile(Arc::clone(contents))))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().remove(name).map(drop).ok_or(ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl SegmentFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let contents = self.0.lock();
        let from = usize::try_from(offset).map_err(|_| ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(contents.get(from..from.saturating_add(out.len())).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut contents = self.0.lock();
        let from = usize::try_from(offset).map_err(|_| ErrorKind::InvalidInput)?;
        let len = contents.len().max(from + data.len());
        contents.resize(len, 0);
        if let Some(place) = contents.get_mut(from..from + data.len()) {
            place.copy_from_slice(data);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn drop_cache(&self) {}
}
