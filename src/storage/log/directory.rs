//! Where a log's segments live: a directory of files, behind a seam, so that simulated disks can lose what a power cut
//! may lose.
//!
//! What is expected of an implementation is what a file system promises, and no more: written bytes are durable after
//! [`SegmentFile::sync_data`], with as much of the file's length as is needed to read them; a created or removed file is
//! durable as such after [`Directory::sync`].

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::storage::open::{self, OpenFault};

/// A directory that holds the segments of one log. All methods block.
pub trait Directory: Send + Sync + Debug + 'static {
    /// The names of the files in it, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes an empty file; an error when there is one with this name.
    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>>;

    /// Opens a file that is there, to read and write.
    fn open(&self, name: &str) -> io::Result<Box<dyn SegmentFile>>;

    /// Removes a file; whoever has it open goes on reading it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes durable which files there are.
    fn sync(&self) -> io::Result<()>;
}

/// An open file of a [`Directory`]. Offsets and lengths are in bytes.
pub trait SegmentFile: Send + Sync + Debug + 'static {
    /// How many bytes the file has.
    fn size(&self) -> io::Result<u64>;

    /// Fills `out` from `offset` on; an error when the file ends before.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset`; the file grows when it reaches beyond the end.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes durable what was written, and the length.
    fn sync_data(&self) -> io::Result<()>;

    /// Asks the system to forget what it keeps of the file in memory, so that reads show what the disk holds (rule 9).
    /// Advice: what is not synced stays.
    fn drop_cache(&self);
}

/// A directory of the file system.
#[derive(Debug)]
pub struct FileDirectory {
    path: PathBuf,
    /// Held open, to sync it.
    handle: File,
}

impl FileDirectory {
    /// Makes the directory, with those above it, durable, or opens the one that is there.
    pub fn create(path: &Path) -> Result<FileDirectory, OpenFault> {
        open::prepare_directory(&path.join("segment"))?;
        FileDirectory::open(path).map_err(|error| OpenFault::Directory(format!("{}: {error}", path.display())))
    }

    /// Opens a directory that is there.
    pub fn open(path: &Path) -> io::Result<FileDirectory> {
        Ok(FileDirectory { path: path.to_owned(), handle: File::open(path)? })
    }
}

impl Directory for FileDirectory {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        Ok(Box::new(FileSegment(options.open(self.path.join(name))?)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(Box::new(FileSegment(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// A file of a [`FileDirectory`].
#[derive(Debug)]
struct FileSegment(File);

impl SegmentFile for FileSegment {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn drop_cache(&self) {
        open::drop_cached_pages(&self.0);
    }
}
