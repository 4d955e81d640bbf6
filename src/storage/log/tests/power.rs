//! Invariant: whenever the power goes, in an opening too, and whichever sync fails, every append that was answered is
//! there, the one in flight is there as a whole or not at all, and what was found once is found again.

use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::disk::{Disk, Fault, Lie};
use super::{ID, SHARD, entry};
use crate::storage::log::{Log, Options};
use crate::storage::{Entries, Error, LogEntry};
use crate::types::Seq;

/// Lives of each disk.
const LIVES: u64 = 5;

/// How many disks; `OSTRACA_SIM_RUNS` says otherwise, as for `tests/sim`.
fn disks() -> u64 {
    std::env::var("OSTRACA_SIM_RUNS").map_or(400, |runs| runs.parse().unwrap())
}

/// What a log must hold.
#[derive(Debug, Clone, Default)]
struct Model {
    /// All entries since the first.
    entries: Vec<Bytes>,
    apply_to: u64,
}

/// What happened, to show that a run saw what it is meant to see.
#[derive(Debug, Default)]
struct Seen {
    crashes: u64,
    failed_syncs: u64,
    openings_cut: u64,
    there: u64,
    absent: u64,
    segments: u64,
}

/// One disk, and what its user knows.
struct World {
    disk: Disk,
    dice: StdRng,
    options: Options,
    model: Model,
    /// An append that was not answered would lead to this.
    in_flight: Option<Model>,
    /// How far the user has applied, durably.
    applied: u64,
    /// How far the log was told that it may be deleted.
    dropped: u64,
    life: u64,
}

#[test]
fn power_cut_at_any_call_loses_nothing_answered_and_halves_nothing() {
    let mut seen = Seen::default();
    let disks = disks();
    for seed in 0..disks {
        if let Err(what) = lives(seed, None, &mut seen) {
            panic!("seed {seed}: {what}");
        }
    }
    println!("{seen:?}");
    let Seen { crashes, failed_syncs, openings_cut, there, absent, segments } = seen;
    assert_eq!(crashes + failed_syncs, disks * LIVES);
    let least = failed_syncs.min(openings_cut).min(there).min(absent);
    assert!(disks < 100 || least > disks / 20, "it must see all of these");
    assert!(segments > 3 * disks, "{segments} segments");
}

#[test]
fn lying_disk_is_found() {
    for (lie, least) in [(Lie::Sync, 90), (Lie::DirectorySync, 20), (Lie::DropCache, 5)] {
        let found = (0..100).filter(|seed| lives(*seed, Some(lie), &mut Seen::default()).is_err()).count();
        println!("{lie:?}: found on {found} of 100 disks");
        assert!(found >= least, "{lie:?}: found on {found} of 100 disks only");
    }
}

/// Several lives of a log on one disk, each ended by a power cut or a sync that fails. Says what was wrong.
fn lives(seed: u64, lie: Option<Lie>, seen: &mut Seen) -> Result<(), String> {
    let mut dice = StdRng::seed_from_u64(seed);
    let segment_bytes = [1500, 12_000, 60_000][dice.random_range(0..3)];
    let disk = Disk::new(dice.random(), lie);
    let options = Options { segment_bytes, recent_bytes: 2000 };
    let log = Log::create(Arc::new(disk.clone()), ID, SHARD, Seq(0), options).map_err(|error| error.to_string())?;
    let model = Model::default();
    let mut world = World { disk, dice, options, model, in_flight: None, applied: 0, dropped: 0, life: 0 };
    let mut log = Some(log);
    for life in 1..=LIVES {
        world.life = life;
        let is_power_cut = world.dice.random_bool(0.75);
        let fault = if is_power_cut { Fault::PowerCut } else { Fault::SyncFails };
        world.disk.plan(world.dice.random_range(1..100), fault);
        let lived = log.take().ok_or("no log")?;
        while world.in_flight.is_none() && world.work(&lived)? {}
        drop(lived);
        if is_power_cut {
            seen.crashes += 1;
            world.disk.cut_power();
            world.disk.power_cycle();
        } else {
            seen.failed_syncs += 1; // the process restarts, and the system does not
        }
        log = Some(world.recover(seen)?);
    }
    Ok(())
}

impl World {
    /// One step of a user. False: the log has failed, as it was meant to.
    fn work(&mut self, log: &Log) -> Result<bool, String> {
        let end = self.model.entries.len() as u64;
        match self.dice.random_range(0..10) {
            0..=5 => return self.append(log),
            6 => return goes_on(log.prepare()),
            7 => self.applied = self.dice.random_range(self.applied..=self.model.apply_to),
            8 => {
                self.dropped = self.applied;
                return goes_on(log.drop_through(Seq(self.applied), self.dice.random_range(0..20_000)));
            }
            _ => {
                let after = self.dice.random_range(log.start().0..=end);
                let bytes_max = self.dice.random_range(0..10_000);
                match log.read(Seq(after), bytes_max) {
                    Ok(Entries::Found(found)) => self.check_read(after, &found)?,
                    Ok(Entries::Trimmed) => return Err(format!("nothing after {after} of {end}")),
                    Err(error) => return goes_on(Err::<(), _>(error)),
                }
            }
        }
        Ok(true)
    }

    fn append(&mut self, log: &Log) -> Result<bool, String> {
        let end = self.model.entries.len() as u64;
        let appended: Vec<LogEntry> =
            (end + 1..=end + self.dice.random_range(0..6)).map(|seq| self.entry(seq)).collect();
        let mut next = self.model.clone();
        next.entries.extend(appended.iter().map(|entry| entry.bytes.clone()));
        next.apply_to = self.dice.random_range(self.model.apply_to..=next.entries.len() as u64);
        let done = log.append(&appended, Seq(next.apply_to));
        if done.is_ok() {
            self.model = next;
        } else {
            self.in_flight = Some(next);
        }
        goes_on(done)
    }

    /// Sizes differ from life to life: an entry that was lost is not confused with the one in its place.
    fn entry(&mut self, seq: u64) -> LogEntry {
        entry(seq, usize::try_from(self.dice.random_range(0..300) * 10 + self.life).unwrap())
    }

    fn check_read(&self, after: u64, found: &[Bytes]) -> Result<(), String> {
        let after = usize::try_from(after).unwrap();
        let expected = self.model.entries[after..].iter();
        if found.is_empty() && after < self.model.entries.len() {
            return Err(format!("a read after {after} finds nothing"));
        }
        let is_right = found.iter().eq(expected.take(found.len()));
        if is_right { Ok(()) } else { Err(format!("a read after {after} finds other entries")) }
    }

    /// Opens the log, with the power going again in between, and compares it with what must be there.
    fn recover(&mut self, seen: &mut Seen) -> Result<Log, String> {
        let mut found = None;
        for _ in 0..3 {
            if self.dice.random_bool(0.6) {
                break;
            }
            self.disk.plan(self.dice.random_range(1..30), Fault::PowerCut);
            match self.open() {
                Ok(opened) => found = Some(self.compare(opened, found)?.1),
                Err(_) if !self.disk.has_power() => seen.openings_cut += 1,
                Err(words) => return Err(words),
            }
            self.disk.cut_power();
            self.disk.power_cycle();
        }
        let opened = self.open()?;
        let (log, is_in_flight) = self.compare(opened, found)?;
        if let Some(in_flight) = self.in_flight.take() {
            if is_in_flight {
                self.model = in_flight;
                seen.there += 1;
            } else {
                seen.absent += 1;
            }
        }
        let start = log.start().0;
        if start > self.dropped {
            return Err(format!("it begins after {start}, and only {} may be deleted", self.dropped));
        }
        if !self.disk.has_power() {
            return Err("the power is gone".to_owned());
        }
        let Ok(Entries::Found(all)) = log.read(Seq(start), usize::MAX) else {
            return Err("it cannot be read".to_owned());
        };
        if start + all.len() as u64 != self.model.entries.len() as u64 {
            return Err(format!("a read of all finds {} after {start}", all.len()));
        }
        self.check_read(start, &all)?;
        seen.segments += log.view.lock().segments.len() as u64;
        Ok(log)
    }

    fn open(&self) -> Result<(Log, Model), String> {
        let opened = Log::open(Arc::new(self.disk.clone()), ID, SHARD, Seq(self.applied), self.options);
        let (log, recovered) = opened.map_err(|fault| format!("it does not open: {fault}"))?;
        let mut entries = self.model.entries[..usize::try_from(self.applied).unwrap()].to_vec();
        entries.extend(recovered.entries.into_iter().map(|entry| entry.bytes));
        if log.end().0 != entries.len() as u64 {
            return Err(format!("it ends with {}, and gives {} entries", log.end(), entries.len()));
        }
        Ok((log, Model { entries, apply_to: recovered.apply_to.0 }))
    }

    /// Says whether what was in flight is there; what was found once must be found again.
    fn compare(&self, (log, is): (Log, Model), before: Option<bool>) -> Result<(Log, bool), String> {
        let same = |model: &Model| model.entries == is.entries && model.apply_to.max(self.applied) == is.apply_to;
        let is_in_flight = match &self.in_flight {
            Some(in_flight) if same(in_flight) && (before != Some(false) || !same(&self.model)) => true,
            _ if same(&self.model) => false,
            _ => {
                let (found, answered) = (is.entries.len(), self.model.entries.len());
                return Err(format!("neither what was answered nor with what was in flight: {found} for {answered}"));
            }
        };
        if before.is_some_and(|before| before != is_in_flight) {
            return Err(format!("what was in flight was there: {before:?}, and now: {is_in_flight}"));
        }
        Ok((log, is_in_flight))
    }
}

/// Whether the user goes on; an error is the one that was planned.
fn goes_on<T>(done: Result<T, Error>) -> Result<bool, String> {
    match done {
        Ok(_) => Ok(true),
        Err(Error::Failed(_)) => Ok(false),
        Err(error) => Err(format!("not a failure of the disk: {error}")),
    }
}
