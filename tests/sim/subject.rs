//! The engines that are tried: redb alone, as a snapshot is received into it, and the log in front of redb, as a node
//! serves from it. The latter is fed now and then, with commits in the middle of a feed.

use std::sync::{Arc, Mutex};

use ostraca::random::Random;
use ostraca::storage::log;
use ostraca::storage::logged::{Logged, Sizes};
use ostraca::storage::open::{OpenError, Options};
use ostraca::storage::redb::RedbEngine;
use ostraca::storage::{Engine, Error};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::disk::Disk;
use super::logs::Logs;
use super::model::{Memory, Model};
use super::workload::Workload;
use super::{identity, open};

/// The cache is too small to answer reads, so that they reach the disk.
const OPTIONS: Options = Options { cache_bytes: 16 << 10 };

/// An engine that is tried.
pub(crate) trait Subject {
    type Engine: Engine;
    const MEMORY: Memory;

    fn open(disk: &Disk) -> Result<Arc<Self::Engine>, OpenError>;

    fn workload() -> Workload;

    /// Something that goes on beside the commits, now and then. `has_written`: there was a commit of entries since the
    /// opening. The model follows commits of its own.
    fn beside(
        engine: &Arc<Self::Engine>,
        disk: &Disk,
        dice: &mut StdRng,
        workload: &Workload,
        model: &mut Model,
        has_written: bool,
    ) -> Result<(), Failed>;
}

/// What went on beside the commits failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    /// A commit had been begun, and has not been answered.
    pub(crate) in_flight: Option<Box<Model>>,
}

/// redb alone.
pub(crate) struct Direct;

impl Subject for Direct {
    type Engine = RedbEngine;
    const MEMORY: Memory = Memory::Exact;

    fn open(disk: &Disk) -> Result<Arc<RedbEngine>, OpenError> {
        open(disk).map(Arc::new)
    }

    fn workload() -> Workload {
        Workload::new()
    }

    fn beside(
        _: &Arc<RedbEngine>,
        _: &Disk,
        _: &mut StdRng,
        _: &Workload,
        _: &mut Model,
        _: bool,
    ) -> Result<(), Failed> {
        Ok(())
    }
}

/// The log in front of redb.
pub(crate) struct InFront;

impl Subject for InFront {
    type Engine = Logged;
    const MEMORY: Memory = Memory::Loose;

    fn open(disk: &Disk) -> Result<Arc<Logged>, OpenError> {
        let log = log::Options { segment_bytes: 6000, recent_bytes: 2000 };
        let sizes = Sizes { log, ..Sizes::default() };
        let (place, random) = (Arc::new(Logs(disk.clone())), Random::seeded(disk.draw()));
        Logged::on_backend(disk.clone(), place, &identity(), OPTIONS, sizes, random).map(Arc::new)
    }

    fn workload() -> Workload {
        Workload::serving()
    }

    fn beside(
        engine: &Arc<Logged>,
        disk: &Disk,
        dice: &mut StdRng,
        workload: &Workload,
        model: &mut Model,
        has_written: bool,
    ) -> Result<(), Failed> {
        if dice.random_bool(0.3) {
            engine.prepare_log().map_err(|error| Failed { error, in_flight: None })?;
        }
        if !dice.random_bool(0.3) {
            return Ok(());
        }
        let meanwhile = Arc::new(Mutex::new(Meanwhile { model: model.clone(), in_flight: None }));
        // The first commit writes to the file, which would wait for the feed, and the feed for it: there is one thread here.
        if has_written && model.end == model.applied && dice.random_bool(0.7) {
            let (engine, shared) = (Arc::clone(engine), Arc::clone(&meanwhile));
            let at = dice.random_range(1..30);
            let (dice, workload) = (StdRng::seed_from_u64(dice.random()), workload.clone());
            let commits = move || shared.lock().unwrap().commit(&engine, dice, &workload);
            disk.interrupt(at, Box::new(commits));
        }
        let fed = engine.feed_once();
        disk.do_not_interrupt();
        let Meanwhile { model: after, in_flight } = meanwhile.lock().unwrap().clone();
        *model = after;
        match (fed, in_flight) {
            (Ok(_), None) => Ok(()),
            (Err(error), in_flight) => Err(Failed { error, in_flight: in_flight.map(Box::new) }),
            (Ok(_), in_flight) => {
                let error = Error::Failed("a commit in the middle of a feed failed".to_owned());
                Err(Failed { error, in_flight: in_flight.map(Box::new) })
            }
        }
    }
}

/// What commits in the middle of a feed have done.
#[derive(Clone)]
struct Meanwhile {
    model: Model,
    in_flight: Option<Model>,
}

impl Meanwhile {
    fn commit(&mut self, engine: &Logged, mut dice: StdRng, workload: &Workload) {
        for _ in 0..dice.random_range(1..4) {
            let batch = workload.entries(&mut dice, &self.model);
            let next = self.model.after(&batch);
            if engine.commit(&batch).is_err() {
                self.in_flight = Some(next);
                return;
            }
            self.model = next;
        }
    }
}
