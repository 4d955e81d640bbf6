//! Opening a file with its log: what the file does not hold yet is applied again, in memory.
//!
//! | the file says | and its log | then |
//! |---|---|---|
//! | no log | | it gets one with its first entry |
//! | a log | opens | what is above the file's `applied` is in the overlay when this returns |
//! | a log, sealed | is not there, or does not open | the file holds all of it: it is served, and gets another log |
//! | a log | is not there, or does not open | refused: acknowledged writes may be in it |
//!
//! Directories of other logs are never read. Those that the file replaced are removed, others are named in the log.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use ::redb::StorageBackend;
use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::{Mutex, RwLock};

use super::extent::Extent;
use super::feeder::{Bell, Feeder};
use super::layers::Layers;
use super::overlay::Overlay;
use super::{Beside, Commits, Front, Inner, Logged, Place, Sizes};
use crate::random::Random;
use crate::storage::layout::LogRow;
use crate::storage::log::{Log, LogId, Recovered};
use crate::storage::open::{OpenError, OpenFault, Options, incoming_path};
use crate::storage::redb::RedbEngine;
use crate::storage::transaction::Feed;
use crate::storage::{Engine, Error, Identity, State};
use crate::types::ShardIndex;

/// Bytes of pages that one transaction of a feed may change, at most. Its fsync puts them into the device's queue at once,
/// before whatever a commit syncs meanwhile: with 24 MiB some writes waited 70 to 130 ms, with 4 MiB about 15 ms, and 1 MiB
/// is no better. Smaller transactions cost no more bytes, for slices of the order of keys share hardly a page.
const SLICE_BYTES_MAX: usize = 4 << 20;

impl Logged {
    /// Opens the serving file at `path`, or creates it with its directory. Recovers by itself from a crash.
    pub fn open(path: &Path, identity: &Identity, options: Options, random: Random) -> Result<Logged, OpenError> {
        let file = RedbEngine::open(path, identity, options)?;
        Logged::beside(path, file, identity.shard, options, random).map_err(|fault| OpenError::at(path, fault))
    }

    /// Makes a fresh file beside the one at `path`, to receive a snapshot into, in the place of one that was left over. When
    /// it is complete, [`crate::storage::open::replace`] gives it the name of the other, with the engine open.
    pub fn create_incoming(
        path: &Path,
        identity: &Identity,
        options: Options,
        random: Random,
    ) -> Result<Logged, OpenError> {
        let incoming = incoming_path(path);
        let file = RedbEngine::create_incoming(&incoming, identity, options)?;
        let replace = Beside::file(path).list().map_err(|error| OpenFault::Directory(error.to_string()));
        let replace = replace.and_then(|logs| Ok(file.set_replaced_logs(&logs)?));
        let opened = replace.and_then(|()| Logged::beside(path, file, identity.shard, options, random));
        opened.map_err(|fault| OpenError::at(&incoming, fault))
    }

    fn beside(
        path: &Path,
        file: RedbEngine,
        shard: ShardIndex,
        options: Options,
        random: Random,
    ) -> Result<Logged, OpenFault> {
        let place = Arc::new(Beside::file(path));
        let mut logged = Logged::start(file, place, shard, options, Sizes::default(), random)?;
        let feeder = Feeder::spawn(&logged.inner);
        logged.feeder = Some(feeder.map_err(|error| OpenFault::Disk(format!("no thread for the feeder: {error}")))?);
        Ok(logged)
    }

    /// Opens what a backend and a place for logs hold, or begins a new copy: the seam for simulated disks. Nobody feeds the
    /// file but the caller ([`Logged::feed_once`]), and the drop.
    pub fn on_backend(
        backend: impl StorageBackend,
        place: Arc<dyn Place>,
        identity: &Identity,
        options: Options,
        sizes: Sizes,
        random: Random,
    ) -> Result<Logged, OpenError> {
        let file = RedbEngine::on_backend(backend, identity, options)?;
        Logged::start(file, place, identity.shard, options, sizes, random)
            .map_err(|fault| OpenError { file: "(backend)".into(), fault })
    }

    fn start(
        file: RedbEngine,
        place: Arc<dyn Place>,
        shard: ShardIndex,
        options: Options,
        sizes: Sizes,
        random: Random,
    ) -> Result<Logged, OpenFault> {
        let (row, replaced) = file.logs()?;
        let mut opened =
            Opened { state: file.state()?, extent: Extent::of(&file.state()?), active: Overlay::default() };
        let front = match row {
            Some(row) => {
                let log = opened.open_log(&file, &*place, &row, shard, sizes)?;
                let place = Arc::clone(&place);
                log.map(|log| Front { log, after: row.after, place, is_forgotten: AtomicBool::new(false) })
            }
            None => None,
        };
        if !opened.state.incoming {
            tidy_up(&*place, row.map(|row| row.id), &replaced);
        }
        let Opened { state, extent, active } = opened;
        let layers = Layers { active: Arc::new(active), frozen: None, file: file.view() };
        let inner = Inner {
            layers: ArcSwap::from_pointee(layers),
            file,
            front: ArcSwapOption::from_pointee(front),
            state: RwLock::new(state),
            commits: Mutex::new(Commits { row, extent, cursors: std::collections::BTreeMap::new() }),
            feeding: Mutex::default(),
            bell: Bell::default(),
            failure: OnceLock::new(),
            is_replaced: Arc::new(AtomicBool::new(false)),
            place,
            shard,
            sizes,
            // Half of the cache may be unwritten; branch pages want some of that.
            slice_bytes: (options.cache_bytes / 8 * 3).min(SLICE_BYTES_MAX),
            random,
        };
        if inner.layers.load().active.len() > 0 {
            inner.bell.ring(|ring| ring.has_work = true);
        }
        Ok(Logged { inner: Arc::new(inner), feeder: None })
    }

    /// Set it when another file stands in the place of this one: nothing is brought into it any more, and its log goes
    /// when the engine does.
    #[must_use]
    pub fn is_replaced(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.inner.is_replaced)
    }
}

/// What an opening finds out.
struct Opened {
    state: State,
    extent: Extent,
    active: Overlay,
}

impl Opened {
    /// Opens the log that the file names and takes what it holds; none when the file does not need it, and it is of no use.
    fn open_log(
        &mut self,
        file: &RedbEngine,
        place: &dyn Place,
        row: &LogRow,
        shard: ShardIndex,
        sizes: Sizes,
    ) -> Result<Option<Log>, OpenFault> {
        let name = place.name(row.id);
        let directory = place.open(row.id).map_err(|error| OpenFault::Disk(format!("{name}: {error}")))?;
        let opened = match directory {
            None => Err(OpenFault::LogMissing(name.clone())),
            Some(directory) => Log::open(directory, row.id, shard, self.state.applied, sizes.log),
        };
        let end = self.state.history.end();
        let opened = opened.and_then(|(log, recovered)| match log.end() {
            last if last < end => Err(OpenFault::Damaged(format!("its log {name} ends at {last}, the file at {end}"))),
            _ => Ok((log, recovered)),
        });
        match opened {
            Ok((log, recovered)) => {
                self.take(file, row, &log, recovered)?;
                Ok(Some(log))
            }
            Err(_) if row.is_sealed && row.after == end => {
                place.remove(row.id).map_err(|error| OpenFault::Disk(format!("{name}: {error}")))?; // nothing was ever in it
                Ok(None)
            }
            Err(fault) if row.is_sealed => {
                tracing::warn!(log = name, detail = %fault, "the log beside the file cannot be used, and nothing is lost: \
                    the file holds all of it. Replicas that are behind fetch a snapshot");
                self.extent = Extent::after(end);
                self.show_extent();
                let position = self.state.position();
                let feed = Feed { records: &[], rows: &[], cursors: &[], position, log_row: None };
                file.feed(&feed, self.state.history.clone())?; // it no longer says that there are entries
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }

    fn take(&mut self, file: &RedbEngine, row: &LogRow, log: &Log, recovered: Recovered) -> Result<(), Error> {
        let Recovered { entries, apply_to } = recovered;
        // The table holds what came before the log, unless a part in between is gone already.
        let table_reaches = log.start() == row.after && file.view().queue_end()? == Some(row.after);
        if !table_reaches && self.extent.start < log.start() {
            self.extent.start = log.start();
        }
        for entry in &entries {
            let (seq, bytes) = (entry.entry.seq, entry.bytes.len());
            self.state.history.extend(&entry.entry.epoch, entry.entry.incarnation, seq);
            self.extent.push(seq, bytes);
            if seq <= apply_to {
                self.active.apply(&entry.entry, None);
            }
        }
        self.state.applied = self.state.applied.max(apply_to);
        self.state.unclean |= !entries.is_empty();
        self.show_extent();
        if !entries.is_empty() {
            tracing::info!(entries = entries.len(), "brought back from the log what the file did not hold yet");
        }
        Ok(())
    }

    fn show_extent(&mut self) {
        (self.state.log_start, self.state.log_bytes) = (self.extent.start, self.extent.bytes);
    }
}

/// Removes the logs that this file replaced, and names those that nobody knows.
fn tidy_up(place: &dyn Place, own: Option<LogId>, replaced: &[LogId]) {
    let others = place.list().unwrap_or_default().into_iter().filter(|id| Some(*id) != own);
    for id in others {
        let name = place.name(id);
        if !replaced.contains(&id) {
            tracing::warn!(
                log = name,
                "a log that belongs to another database file, and is not read; if that file is gone for \
                good, remove it"
            );
        } else if let Err(error) = place.remove(id) {
            tracing::warn!(log = name, detail = %error, "the log of a replaced file cannot be removed");
        }
    }
}

impl Extent {
    /// As a file says that it is.
    pub(super) fn of(state: &State) -> Extent {
        let mut extent = Extent::after(state.log_start);
        extent.extend(state.history.end(), state.log_bytes);
        extent
    }
}
