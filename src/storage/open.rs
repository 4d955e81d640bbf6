//! Opening database files: why one is refused, and the steps on the directory that a crash must not tear.
//!
//! ```text
//! new        FILE.new: write, sync ─ rename to FILE ─ sync the directory
//! snapshot   FILE.incoming: receive, sync ─ rename over FILE ─ sync the directory (rule 14)
//! ```
//!
//! A crash in the first creation may leave a file that does not open; it is called `FILE.new`, and the next opening
//! writes it afresh. A file that is refused keeps its contents.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::{Error, holder};

/// How a database is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Bytes of pages that are kept in memory.
    pub cache_bytes: usize,
}

/// A file that was not opened, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {fault}", file.display())]
pub struct OpenError {
    /// The file.
    pub file: PathBuf,
    /// Why it was refused.
    pub fault: OpenFault,
}

/// Why a file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenFault {
    /// Another process (or this one) has it open.
    #[error("{} has the file open", process(*.pid))]
    Held {
        /// Its id, when it can be known.
        pid: Option<u32>,
    },
    /// Some other program's file.
    #[error("this is not a database of this program: {0}")]
    Foreign(String),
    /// One of ours once, and damaged since.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// Written by a newer version of this program, or by one so old that nothing here reads it (`migrate`).
    #[error("the file has format {found}; this program reads and writes format {known}")]
    Format {
        /// The format of the file.
        found: u32,
        /// The format that this program knows.
        known: u32,
    },
    /// The copy of another shard.
    #[error("the file belongs to shard {found}, not to {wanted}")]
    Shard {
        /// Name and index in the file.
        found: String,
        /// Name and index in the configuration.
        wanted: String,
    },
    /// Made for another number of shards.
    #[error("the file was made for {found} shards; the configuration has {wanted}")]
    ShardCount {
        /// Shards when the file was made.
        found: u32,
        /// Shards now.
        wanted: u32,
    },
    /// Made for another hash function.
    #[error("the file was made for keys placed by {found}; the configuration says {wanted}")]
    Hash {
        /// The hash when the file was made.
        found: String,
        /// The hash now.
        wanted: String,
    },
    /// A snapshot that was never completed.
    #[error("the file is a snapshot that was not received to its end")]
    Incoming,
    /// It needs the log beside it, which is not there.
    #[error("the file was not closed, and the log that holds its newest writes is not there: {0}")]
    LogMissing(String),
    /// Its directory cannot be made or written.
    #[error("its directory cannot be written: {0}")]
    Directory(String),
    /// The disk, or a permission.
    #[error("it cannot be opened: {0}")]
    Disk(String),
}

/// A process as a message names it.
fn process(pid: Option<u32>) -> String {
    match pid {
        Some(pid) if pid == std::process::id() => format!("this process ({pid})"),
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

impl OpenError {
    /// A refusal of the file at `path`; looks for who holds it, where that is the reason.
    pub(super) fn at(path: &Path, fault: OpenFault) -> OpenError {
        let fault = match fault {
            OpenFault::Held { pid: None } => OpenFault::Held { pid: holder::of(path) },
            fault => fault,
        };
        OpenError { file: path.to_owned(), fault }
    }

    /// What to do next.
    #[must_use]
    pub fn remedy(&self) -> String {
        let file = self.file.display();
        match &self.fault {
            OpenFault::Held { pid: Some(pid) } => {
                format!("stop that process (`ps -p {pid}` shows it), or name another file (--db-location)")
            }
            OpenFault::Held { pid: None } => format!(
                "stop the process that has it open (`fuser {file}` names it), or name another file (--db-location)"
            ),
            OpenFault::Foreign(_) => {
                "nothing was changed in it; check --db-location, or move the file out of the way".to_owned()
            }
            OpenFault::Damaged(_) => format!(
                "at a replica, move {file} away: the node then fetches everything from its leader; at a leader, copy \
                 the file of a replica or of a backup here before the next start, for an empty leader has lost the data"
            ),
            OpenFault::Format { found, known } if found < known => {
                "open it with a version in between first, which brings it up; nothing was changed in it".to_owned()
            }
            OpenFault::Format { .. } => {
                "start it with the version of the program that wrote it; nothing was changed in it".to_owned()
            }
            OpenFault::Shard { .. } => {
                "check --shard and --db-location: each copy of a shard has a file of its own".to_owned()
            }
            OpenFault::ShardCount { .. } | OpenFault::Hash { .. } => {
                "put the configuration back as it was: with another placement most keys of this file would belong \
                 elsewhere, and no answer would find them"
                    .to_owned()
            }
            OpenFault::Incoming => format!("delete {file}: it never served, and the node fetches a new snapshot"),
            OpenFault::LogMissing(_) => {
                "put that directory back beside the file (whoever copied the file copies it, too); without it, the newest \
                 writes are lost: then treat the file as damaged"
                    .to_owned()
            }
            OpenFault::Directory(_) => {
                "make the directory writable for the user that runs this, or give another --db-location".to_owned()
            }
            OpenFault::Disk(_) => "check the file's permissions and the disk".to_owned(),
        }
    }
}

impl From<Error> for OpenFault {
    fn from(error: Error) -> OpenFault {
        match error {
            Error::Corrupt(detail) => OpenFault::Damaged(detail),
            Error::Failed(detail) => OpenFault::Disk(detail),
        }
    }
}

impl From<::redb::DatabaseError> for OpenFault {
    fn from(error: ::redb::DatabaseError) -> OpenFault {
        use ::redb::{DatabaseError, StorageError};
        match error {
            DatabaseError::DatabaseAlreadyOpen => OpenFault::Held { pid: None },
            DatabaseError::UpgradeRequired(version) => {
                OpenFault::Foreign(format!("it is a database of redb's file format {version}"))
            }
            DatabaseError::Storage(StorageError::Corrupted(detail)) => OpenFault::Damaged(detail),
            DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                OpenFault::Foreign(error.to_string())
            }
            DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                OpenFault::Damaged("it ends too early".to_owned())
            }
            error => OpenFault::Disk(error.to_string()),
        }
    }
}

/// Where a snapshot for the file at `path` is received.
#[must_use]
pub fn incoming_path(path: &Path) -> PathBuf {
    with_suffix(path, ".incoming")
}

/// Where the file at `path` is created.
pub(super) fn new_path(path: &Path) -> PathBuf {
    with_suffix(path, ".new")
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Puts a complete file in the place of another, or where none was, and makes that durable: rename, and sync the
/// directory. Engines that have either file open go on with the file that they opened.
pub fn replace(complete: &Path, place: &Path) -> Result<(), OpenError> {
    let renamed = fs::rename(complete, place).and_then(|()| sync_directory(parent_of(place)));
    renamed.map_err(|error| OpenError { file: place.to_owned(), fault: OpenFault::Directory(error.to_string()) })
}

/// Makes sure that the directory of `path` is there and can be written: a later snapshot will need it, too.
pub(super) fn prepare_directory(path: &Path) -> Result<(), OpenFault> {
    let dir = parent_of(path);
    create_directory(dir)
        .and_then(|()| Ok(rustix::fs::access(dir, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)?))
        .map_err(|error| OpenFault::Directory(format!("{}: {error}", dir.display())))
}

/// Creates a directory and those above it, and makes each durable: a file in a directory that a power cut takes away is
/// lost, however well it was synced.
fn create_directory(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = parent_of(dir);
    create_directory(parent)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !dir.is_dir() => Err(error),
        _ => sync_directory(parent),
    }
}

/// The directory of a path, `.` for a bare name.
pub(super) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Opens a file that is there; none when there is none. An empty one is refused: it may be what is left of a database.
pub(super) fn open_existing(path: &Path) -> Result<Option<File>, OpenFault> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(disk)?,
    };
    let metadata = file.metadata().map_err(disk)?;
    match (metadata.is_file(), metadata.len()) {
        (false, _) => Err(OpenFault::Foreign("it is not a regular file".to_owned())),
        (true, 0) => Err(OpenFault::Foreign("it is empty".to_owned())),
        (true, _) => Ok(Some(file)),
    }
}

/// Opens an empty file, emptying one that a crash left behind. The lock is taken before, so that nobody's file is
/// emptied, and is the engine's from then on.
pub(super) fn open_empty(path: &Path) -> Result<File, OpenFault> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(disk)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenFault::Held { pid: holder::of(path) }),
        Err(TryLockError::Error(error)) => return Err(disk(error)),
    }
    file.set_len(0).map_err(disk)?;
    Ok(file)
}

/// Drops the file's pages from the system's cache (rule 9): after a failed fsync they may hold what the disk does not.
/// Done at every opening, for at a clean one it costs only the reads that follow. Advice: where the system does not take
/// it, nothing is lost that was not lost before.
pub(super) fn drop_cached_pages(file: &File) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed) {
        tracing::debug!(detail = %error, "the system did not drop the cached pages of the database");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Bytes that an ordinary user can still write to the file's disk.
pub(super) fn free_bytes(file: &File) -> Option<u64> {
    let disk = rustix::fs::fstatvfs(file).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Bytes that the file takes on the disk; less than its length where it has holes.
pub(super) fn file_bytes(file: &File) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.blocks() * 512)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn disk(error: io::Error) -> OpenFault {
    OpenFault::Disk(error.to_string())
}
