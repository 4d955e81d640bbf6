//! Invariant: whenever the power goes, in a recovery too, every batch whose commit was answered is there, the one in
//! flight is there as a whole or not at all, and data, log, history and cursors fit each other.

use ostraca::storage::Engine;
use ostraca::storage::redb::RedbEngine;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::disk::{Disk, Fault};
use super::model::Model;
use super::workload::Workload;
use super::{disk_with_a_copy, fail, first_seed, open, runs};

/// Crashes of one disk: a life after a crash begins with what the crash left.
const CRASHES: u64 = 5;

/// Most batches between two crashes.
const BATCHES_MAX: u64 = 12;

#[test]
fn power_cut_at_any_call_loses_no_answered_batch_and_halves_none() {
    let mut seen = Seen::default();
    let disks = runs();
    for seed in first_seed()..first_seed() + disks {
        match lives(seed, &disk_with_a_copy()) {
            Ok(of_this_disk) => seen.add(of_this_disk),
            Err(what) => fail("power_cut", seed, &what),
        }
    }
    println!("{seen:?}");
    assert_eq!(seen.crashes, disks * CRASHES);
    let Seen { recoveries_cut, there, absent, .. } = seen;
    assert!(disks < 100 || recoveries_cut.min(there).min(absent) > disks / 20, "it must see all of these: {seen:?}");
}

/// What happened, to show that the run saw what it is meant to see.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// Times that the power went.
    pub(crate) crashes: u64,
    /// Of them, in a recovery.
    pub(crate) recoveries_cut: u64,
    /// Batches that were in flight, and were there afterwards.
    pub(crate) there: u64,
    /// Batches that were in flight, and were not.
    pub(crate) absent: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: Seen) {
        self.crashes += other.crashes;
        self.recoveries_cut += other.recoveries_cut;
        self.there += other.there;
        self.absent += other.absent;
    }
}

/// Several lives of one disk, each ended by a power cut. Says what was wrong.
pub(crate) fn lives(seed: u64, disk: &Disk) -> Result<Seen, String> {
    let mut dice = StdRng::seed_from_u64(seed);
    disk.seed(dice.random());
    let mut seen = Seen::default();
    let mut workload = Workload::new();
    let mut model = Model::default();
    for _ in 0..CRASHES {
        disk.plan(dice.random_range(1..150), Fault::PowerCut);
        let in_flight = life(disk, &mut dice, &mut workload, &mut model)?;
        disk.cut_power();
        seen.crashes += 1;
        let after = recover(disk, &mut dice, &model, in_flight.as_ref(), &mut seen)?;
        if let Some(in_flight) = in_flight {
            let there = after == Found::InFlight;
            seen.there += u64::from(there);
            seen.absent += u64::from(!there);
            if there {
                model = in_flight;
            }
        }
        workload.reopened();
    }
    Ok(seen)
}

/// Opens the disk and commits until the power goes. Returns the state that a batch in flight would lead to.
fn life(disk: &Disk, dice: &mut StdRng, workload: &mut Workload, model: &mut Model) -> Result<Option<Model>, String> {
    let engine = match open(disk) {
        Ok(engine) => engine,
        Err(_) if !disk.has_power() => return Ok(None),
        Err(error) => return Err(format!("it does not open: {error}")),
    };
    if dice.random_bool(0.5) && disk.has_power() {
        disk.plan_at_sync(dice.random_range(1..BATCHES_MAX), Fault::PowerCut); // where most is at stake
    }
    for _ in 0..dice.random_range(0..=BATCHES_MAX) {
        let batch = workload.batch(dice, model);
        let next = model.after(&batch);
        match engine.commit(&batch) {
            Ok(()) => *model = next,
            Err(_) if !disk.has_power() => return Ok(Some(next)),
            Err(error) => return Err(format!("a commit failed on a disk that works: {error}")),
        }
    }
    let still_there = model.check(&engine);
    if disk.has_power() {
        still_there.map_err(|what| format!("before any crash: {what}"))?;
    }
    if dice.random_bool(0.5) {
        disk.cut_power(); // before it is closed; otherwise somewhere in the closing, or after it
    }
    Ok(None)
}

/// Which of the two states that may be there is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Answered,
    InFlight,
}

/// Gives the power back, takes it again in the recovery now and then, and compares what is there at last.
fn recover(
    disk: &Disk,
    dice: &mut StdRng,
    answered: &Model,
    in_flight: Option<&Model>,
    seen: &mut Seen,
) -> Result<Found, String> {
    let mut found = None;
    for _ in 0..3 {
        disk.power_cycle();
        if !dice.random_bool(0.4) {
            break;
        }
        disk.plan(dice.random_range(1..40), Fault::PowerCut);
        let opened = open(disk);
        seen.recoveries_cut += u64::from(!disk.has_power());
        match opened {
            Err(_) if !disk.has_power() => {}
            Err(error) => return Err(format!("it does not open after a crash: {error}")),
            Ok(engine) if disk.has_power() => {
                let compared = compare(&engine, answered, in_flight, found);
                if disk.has_power() {
                    found = Some(compared?);
                }
            }
            Ok(_) => {}
        }
        disk.cut_power();
    }
    disk.power_cycle();
    let engine = open(disk).map_err(|error| format!("it does not open after a crash: {error}"))?;
    let found = compare(&engine, answered, in_flight, found)?;
    if dice.random_bool(0.5) {
        disk.cut_power();
        drop(engine);
        disk.power_cycle();
    }
    Ok(found)
}

/// What was found once must be found again.
fn compare(
    engine: &RedbEngine,
    answered: &Model,
    in_flight: Option<&Model>,
    before: Option<Found>,
) -> Result<Found, String> {
    let with = in_flight.map_or(Err("nothing was in flight".to_owned()), |model| model.check(engine));
    let without = answered.check(engine);
    let found = match (with, without) {
        (_, Ok(())) => Found::Answered,
        (Ok(()), Err(_)) => Found::InFlight,
        (Err(with), Err(without)) => {
            return Err(format!("neither what was answered ({without}) nor with what was in flight ({with})"));
        }
    };
    match before {
        Some(before) if before != found => Err(format!("after one recovery it was {before:?}, now {found:?}")),
        _ => Ok(found),
    }
}
