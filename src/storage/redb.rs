//! The engine that serves: one redb file per shard copy, one write transaction per batch, one fsync per transaction.
//!
//! redb gives the transaction: copy-on-write pages and a header that flips when all of them are durable, so readers see
//! the last durable batch and never wait for the writer. What a copy knows of itself (positions, history, cursors) is
//! also kept in memory, and moves forward only after the transaction that says so is durable.
//!
//! After an error the outcome of a batch is unknown, and redb answers nothing any more: the engine says
//! [`Error::Failed`] to everything until the process opens the file again (rule 9).

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use ::redb::backends::FileBackend;
use ::redb::{Database, ReadableDatabase, StorageBackend, WriteTransaction};
use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};

use super::layout::{self, LogRow, fault};
use super::log::LogId;
use super::migrate::{self, STEPS, Step};
use super::open::{self, OpenError, OpenFault, Options};
use super::plan::{Plan, Position};
use super::transaction::{Feed, Records};
use super::view::View;
use super::{Batch, CacheStats, Chunk, Engine, Entries, Error, Identity, LogExtent, State, Stats, transaction};
use crate::types::{History, Key, Record, Seq, Space};

/// A shard copy in a redb file.
pub struct RedbEngine {
    /// The last durable state, for all readers; replaced by each commit. Before `db`, which closes the file.
    view: ArcSwap<View>,
    db: Database,
    /// The same open file, for its sizes; none on a backend. Not the path: a snapshot's file is renamed while it is open.
    file: Option<File>,
    /// As of the last durable batch.
    state: RwLock<State>,
    /// Batches are committed one after the other.
    writer: Mutex<()>,
    /// The first error; set once, and final.
    failure: OnceLock<String>,
}

/// What is expected of a file.
#[derive(Debug, Clone, Copy)]
enum Contents {
    /// Nothing: it is written now, to receive a snapshot or to serve.
    New { incoming: bool },
    /// A copy that serves.
    Serving {
        /// Bring it up when an older program wrote it.
        steps: &'static [Step],
    },
    /// Whatever is there, and nothing is fine.
    Any,
}

impl RedbEngine {
    /// Opens the serving file at `path`, or creates it with its directory. Recovers by itself from a crash.
    pub fn open(path: &Path, identity: &Identity, options: Options) -> Result<RedbEngine, OpenError> {
        RedbEngine::open_with_steps(path, identity, options, STEPS).map_err(|fault| OpenError::at(path, fault))
    }

    /// The same, with the steps that bring older files up.
    pub(super) fn open_with_steps(
        path: &Path,
        identity: &Identity,
        options: Options,
        steps: &'static [Step],
    ) -> Result<RedbEngine, OpenFault> {
        open::prepare_directory(path)?;
        if let Some(file) = open::open_existing(path)? {
            open::drop_cached_pages(&file);
            return RedbEngine::on_file(file, identity, options, Contents::Serving { steps });
        }
        let new_path = open::new_path(path);
        let file = open::open_empty(&new_path)?;
        if path.exists() {
            return Err(OpenFault::Held { pid: None }); // another process created it between our two looks
        }
        let engine = RedbEngine::on_file(file, identity, options, Contents::New { incoming: false })?;
        open::replace(&new_path, path).map_err(|error| error.fault)?;
        Ok(engine)
    }

    /// Makes a fresh file at `path` to receive a snapshot into, in the place of one that was left over. When it is
    /// complete, [`open::replace`] gives it the serving file's name, with the engine open.
    pub fn create_incoming(path: &Path, identity: &Identity, options: Options) -> Result<RedbEngine, OpenError> {
        open::prepare_directory(path)
            .and_then(|()| open::open_empty(path))
            .and_then(|file| RedbEngine::on_file(file, identity, options, Contents::New { incoming: true }))
            .map_err(|fault| OpenError::at(path, fault))
    }

    /// Opens what a backend holds, or writes a new copy to an empty one: the seam for simulated disks. Creation is not
    /// atomic here: a crash in it may leave a backend that does not open.
    pub fn on_backend(
        backend: impl StorageBackend,
        identity: &Identity,
        options: Options,
    ) -> Result<RedbEngine, OpenError> {
        layout::guarded(|| RedbEngine::start(backend, None, identity, options, Contents::Any))
            .map_err(|fault| OpenError { file: "(backend)".into(), fault })
    }

    fn on_file(file: File, identity: &Identity, options: Options, what: Contents) -> Result<RedbEngine, OpenFault> {
        let same = file.try_clone().map_err(|error| OpenFault::Disk(error.to_string()))?;
        let backend = FileBackend::new(file)?;
        layout::guarded(|| RedbEngine::start(backend, Some(same), identity, options, what))
    }

    fn start(
        backend: impl StorageBackend,
        file: Option<File>,
        identity: &Identity,
        options: Options,
        what: Contents,
    ) -> Result<RedbEngine, OpenFault> {
        let (db, repaired) = open_database(backend, options.cache_bytes)?;
        match what {
            Contents::New { incoming } => create_tables(&db, identity, incoming)?,
            Contents::Any if has_no_tables(&db)? => create_tables(&db, identity, false)?,
            Contents::Any | Contents::Serving { .. } => {}
        }
        let steps = if let Contents::Serving { steps } = what { steps } else { STEPS };
        bring_up(&db, identity, steps)?;
        let txn = db.begin_read().map_err(fault)?;
        let state = layout::read_state(&txn, repaired)?;
        if matches!(what, Contents::Serving { .. }) && state.incoming {
            return Err(OpenFault::Incoming);
        }
        drop(txn);
        let view = ArcSwap::from_pointee(View::open(&db, state.position())?);
        Ok(RedbEngine { view, db, file, state: RwLock::new(state), writer: Mutex::default(), failure: OnceLock::new() })
    }

    /// Refuses when an error came before.
    fn check(&self) -> Result<(), Error> {
        self.failure.get().map_or(Ok(()), |first| Err(Error::Failed(first.clone())))
    }

    /// From now on everything is refused.
    fn fail(&self, error: &Error) {
        if self.failure.set(error.lasting()).is_ok() {
            tracing::error!(detail = %error, "the store takes no more requests until the process restarts");
        }
    }

    /// Does `work` on the last durable state. A disk that failed is final; damaged data is the answer to this call only.
    fn read<T>(&self, work: impl FnOnce(&View) -> Result<T, Error>) -> Result<T, Error> {
        self.check()?;
        let result = layout::guarded(|| work(&self.view.load()));
        if let Err(error @ Error::Failed(_)) = &result {
            self.fail(error);
        }
        result
    }
}

/// For a log in front of the file.
impl RedbEngine {
    /// The last durable state, for whoever reads it at length or beside something else.
    pub(super) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Bytes that the file takes on the disk; zero on a backend.
    pub(super) fn file_bytes(&self) -> Result<u64, Error> {
        let bytes = self.file.as_ref().map_or(Ok(0), open::file_bytes);
        bytes.map_err(|error| Error::Failed(error.to_string()))
    }

    /// Which log stands beside the file, and which are of no use any more.
    pub(super) fn logs(&self) -> Result<(Option<LogRow>, Vec<LogId>), Error> {
        self.read(View::logs)
    }

    /// Writes down which log stands beside the file; durable when it returns.
    pub(super) fn set_log(&self, row: &LogRow) -> Result<(), Error> {
        self.set_row(|txn| layout::write_log_row(txn, row))
    }

    /// Writes down which logs are of no use any more; durable when it returns.
    pub(super) fn set_replaced_logs(&self, logs: &[LogId]) -> Result<(), Error> {
        self.set_row(|txn| layout::write_replaced_logs(txn, logs))
    }

    fn set_row(&self, write: impl FnOnce(&WriteTransaction) -> Result<(), Error>) -> Result<(), Error> {
        let _one_at_a_time = self.writer.lock();
        self.check()?;
        let position = self.state.read().position();
        self.change(|| transaction::durably(&self.db, write).map(|()| position)).map(drop)
    }

    /// Brings a part of a feed into the file, before its end.
    pub(super) fn feed_ahead(&self, records: Records<'_>) -> Result<(), Error> {
        let _one_at_a_time = self.writer.lock();
        self.check()?;
        let position = self.state.read().position();
        self.change(|| transaction::feed_ahead(&self.db, records).map(|()| position)).map(drop)
    }

    /// Brings a feed into the file; durable, and shown, when it returns. `history`: as of the feed's position.
    pub(super) fn feed(&self, feed: &Feed<'_>, history: History) -> Result<(), Error> {
        let _one_at_a_time = self.writer.lock();
        self.check()?;
        self.change(|| transaction::feed(&self.db, feed).map(|()| feed.position))?;
        let mut state = self.state.write();
        state.history = history;
        state.roll(&Batch { cursors: feed.cursors.to_vec(), ..Batch::default() }, feed.position);
        Ok(())
    }

    /// Does what changes the file and leaves it at the returned position, and shows that. An error is final.
    fn change(&self, work: impl FnOnce() -> Result<Position, Error>) -> Result<Position, Error> {
        let view = layout::guarded(|| View::open(&self.db, work()?)).inspect_err(|error| self.fail(error))?;
        let position = view.position;
        self.view.store(Arc::new(view));
        Ok(position)
    }
}

impl Engine for RedbEngine {
    fn get(&self, space: Space, key: &Key) -> Result<Option<Record>, Error> {
        self.read(|view| view.get(space, key))
    }

    fn contains(&self, space: Space, key: &Key) -> Result<bool, Error> {
        self.read(|view| view.contains(space, key))
    }

    fn state(&self) -> Result<State, Error> {
        self.check()?;
        Ok(self.state.read().clone())
    }

    fn commit(&self, batch: &Batch) -> Result<(), Error> {
        let _one_at_a_time = self.writer.lock();
        self.check()?;
        let plan = Plan::new(&self.state.read(), batch);
        if !batch.has_effect(&plan) {
            return Ok(());
        }
        let position = self.change(|| transaction::write(&self.db, batch, &plan))?;
        self.state.write().roll(batch, position);
        Ok(())
    }

    fn entries(&self, after: Seq, bytes_max: usize) -> Result<Entries, Error> {
        self.read(|view| view.entries(after, view.position.end, bytes_max))
    }

    fn chunk(&self, space: Space, after: Option<&Key>, bytes_max: usize) -> Result<Chunk, Error> {
        self.read(|view| view.chunk(space, after, bytes_max))
    }

    fn log_extent(&self) -> Result<LogExtent, Error> {
        self.check()?;
        let state = self.state.read();
        Ok(LogExtent { start: state.log_start, bytes: state.log_bytes })
    }

    fn stats(&self) -> Result<Stats, Error> {
        let keys = self.read(View::keys)?;
        let file_bytes = self.file_bytes()?;
        let state = self.state.read();
        let cache = cache_stats(&self.db);
        Ok(Stats { keys, file_bytes, log_bytes: state.log_bytes, log_start: state.log_start, cache })
    }

    fn free_bytes(&self) -> Option<u64> {
        self.file.as_ref().and_then(open::free_bytes)
    }
}

impl fmt::Debug for RedbEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbEngine").field("file", &self.file).field("failure", &self.failure.get()).finish()
    }
}

/// Opens the database of a backend; true when it had not been closed properly, and was recovered.
pub(super) fn open_database(backend: impl StorageBackend, cache_bytes: usize) -> Result<(Database, bool), OpenFault> {
    let repaired = Arc::new(AtomicBool::new(false));
    let repairing = Arc::clone(&repaired);
    let db = Database::builder()
        .set_cache_size(cache_bytes)
        .set_repair_callback(move |_| {
            if !repairing.swap(true, Ordering::Relaxed) {
                tracing::info!("the store was not closed properly last time: recovering");
            }
        })
        .create_with_backend(backend)?;
    let repaired = repaired.load(Ordering::Relaxed);
    Ok((db, repaired))
}

/// Refuses a file that is not what it must be, and brings one that is up to this program's format.
fn bring_up(db: &Database, identity: &Identity, steps: &'static [Step]) -> Result<(), OpenFault> {
    let (format, found) = layout::read_identity(&db.begin_read().map_err(fault)?)?;
    let steps = migrate::steps_from(format, steps)?;
    layout::check_identity(&found, identity)?;
    Ok(migrate::run(db, steps, identity)?)
}

fn cache_stats(db: &Database) -> CacheStats {
    let stats = db.cache_stats();
    CacheStats {
        bytes: stats.used_bytes() as u64,
        hits: stats.read_hits(),
        // redb reads hits and total one after the other and subtracts: under load the difference can wrap.
        misses: i64::try_from(stats.read_misses()).map_or(0, i64::unsigned_abs),
        evictions: stats.evictions(),
    }
}

fn has_no_tables(db: &Database) -> Result<bool, Error> {
    let txn = db.begin_read().map_err(fault)?;
    Ok(txn.list_tables().map_err(fault)?.next().is_none())
}

fn create_tables(db: &Database, identity: &Identity, incoming: bool) -> Result<(), Error> {
    let txn = db.begin_write().map_err(fault)?;
    layout::write_new(&txn, identity, incoming)?;
    txn.commit().map_err(fault)
}
