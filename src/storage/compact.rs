//! Gives the disk back what a file no longer needs: its pages are moved together, and its end is cut off. Offline, for it
//! rewrites much of the file, and nothing else may have it open.
//!
//! What stands in the log beside it is brought into it first. The file stays a database at every moment: redb moves pages in transactions, and shortens the file only behind one
//! that is durable. A crash or an error leaves all the data there, at most less space gained; `tests/sim` cuts the power
//! at any call of it.

use std::fs::File;
use std::path::Path;

use ::redb::backends::FileBackend;
use ::redb::{CompactionError, Database, ReadableDatabase, ReadableTableMetadata, StorageBackend};

use super::layout::{self, DATA, fault};
use super::logged::Logged;
use super::open::{self, OpenError, OpenFault, Options};
use super::{Error, Identity, migrate, redb as engine};
use crate::random::Random;
use crate::types::Seq;

/// Pages kept in memory meanwhile.
const CACHE_BYTES: usize = 64 << 20;

/// Sizes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Its length.
    pub bytes: u64,
    /// What it takes on the disk; less than its length where it has holes.
    pub disk_bytes: u64,
}

/// A file that was compacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compacted {
    /// What the file says that it is.
    pub identity: Identity,
    /// Keys that it holds.
    pub keys: u64,
    /// The last entry of its log.
    pub end: Seq,
    /// Before.
    pub before: Size,
    /// After.
    pub after: Size,
}

/// Compacts the file at `path`, whichever shard's it is. Refuses one that is in use, that is not ours, or that a snapshot
/// is being received into.
pub fn compact(path: &Path) -> Result<Compacted, OpenError> {
    compact_file(path).map_err(|fault| OpenError::at(path, fault))
}

fn compact_file(path: &Path) -> Result<Compacted, OpenFault> {
    bring_log_in(path)?;
    let file = existing(path)?;
    let same = file.try_clone().map_err(disk)?;
    let (backend, before) = (FileBackend::new(file)?, size(&same)?);
    let Contents { identity, keys, end } = on_backend(backend)?;
    let after = size(&same)?;
    Ok(Compacted { identity, keys, end, before, after })
}

fn existing(path: &Path) -> Result<File, OpenFault> {
    let file = open::open_existing(path)?.ok_or_else(|| OpenFault::Disk("there is no such file".to_owned()))?;
    open::drop_cached_pages(&file);
    Ok(file)
}

/// Opens and closes a file whose newest writes stand in the log beside it: then it holds them itself.
fn bring_log_in(path: &Path) -> Result<(), OpenFault> {
    let look = || {
        let backend = FileBackend::new(existing(path)?)?;
        layout::guarded(|| {
            let (db, _) = engine::open_database(backend, CACHE_BYTES)?;
            let (txn, identity) = (db.begin_read().map_err(fault)?, read_contents(&db)?.identity);
            let row = layout::read_log_row(&txn)?;
            Ok::<_, OpenFault>((identity, row.is_some_and(|row| !row.is_sealed)))
        })
    };
    let (identity, needs_log) = look()?;
    if !needs_log {
        return Ok(());
    }
    let options = Options { cache_bytes: CACHE_BYTES };
    drop(Logged::open(path, &identity, options, Random::system()).map_err(|error| error.fault)?);
    if look()?.1 {
        return Err(OpenFault::Disk(
            "what stands in the log beside it cannot be brought into it: is the disk full?".to_owned(),
        ));
    }
    Ok(())
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// What it says that it is.
    pub identity: Identity,
    /// Keys that it holds.
    pub keys: u64,
    /// The last entry of its log.
    pub end: Seq,
}

/// Compacts what a backend holds: the seam for simulated disks.
pub fn on_backend(backend: impl StorageBackend) -> Result<Contents, OpenFault> {
    layout::guarded(|| {
        let (mut db, _) = engine::open_database(backend, CACHE_BYTES)?;
        let contents = read_contents(&db)?;
        while db.compact().map_err(cannot)? {} // until nothing moves any more
        Ok(contents)
    })
}

/// Reads what the file is, and refuses it when this program would not serve from it.
fn read_contents(db: &Database) -> Result<Contents, OpenFault> {
    let txn = db.begin_read().map_err(fault)?;
    let (format, identity) = layout::read_identity(&txn)?;
    migrate::steps_from(format, migrate::STEPS)?;
    let state = layout::read_state(&txn, false)?;
    if state.incoming {
        return Err(OpenFault::Incoming);
    }
    let keys = txn.open_table(DATA).map_err(fault)?.len().map_err(fault)?;
    Ok(Contents { identity, keys, end: state.history.end() })
}

fn cannot(error: CompactionError) -> OpenFault {
    match error {
        CompactionError::Storage(error) => OpenFault::from(fault(error)),
        error => OpenFault::from(Error::Failed(error.to_string())),
    }
}

fn size(file: &File) -> Result<Size, OpenFault> {
    let bytes = file.metadata().map_err(disk)?.len();
    Ok(Size { bytes, disk_bytes: open::file_bytes(file).map_err(disk)? })
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn disk(error: std::io::Error) -> OpenFault {
    OpenFault::Disk(error.to_string())
}
