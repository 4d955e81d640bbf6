//! Invariant: whenever the power goes, in a recovery too, every batch whose commit was answered is there, the one in
//! flight is there as a whole or not at all, and data, log, history and cursors fit each other.

use ostraca::storage::Engine;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::disk::{Disk, Fault};
use super::model::{Memory, Model};
use super::subject::{Direct, Failed, InFront, Subject};
use super::workload::Workload;
use super::{disk_with_a_copy, fail, first_seed, runs};

/// Crashes of one disk: a life after a crash begins with what the crash left.
const CRASHES: u64 = 5;

/// Most batches between two crashes.
const BATCHES_MAX: u64 = 12;

#[test]
fn power_cut_at_any_call_loses_no_answered_batch_and_halves_none() {
    power_cuts::<Direct>("power_cut_at_any_call_loses");
}

#[test]
fn power_cut_with_a_log_in_front_loses_no_answered_batch_and_halves_none() {
    power_cuts::<InFront>("power_cut_with_a_log");
}

fn power_cuts<S: Subject>(test: &str) {
    let mut seen = Seen::default();
    let disks = runs();
    for seed in first_seed()..first_seed() + disks {
        match lives::<S>(seed, &disk_with_a_copy()) {
            Ok(of_this_disk) => seen.add(of_this_disk),
            Err(what) => fail(test, seed, &what),
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

/// What was begun when the power went: what there may be besides what was answered.
#[derive(Debug, Clone, Default)]
struct InFlight {
    /// With all of the batch.
    whole: Option<Model>,
    /// With its facts alone: they are durable on their own before its entries are.
    facts: Option<Model>,
}

/// Several lives of one disk, each ended by a power cut. Says what was wrong.
pub(crate) fn lives<S: Subject>(seed: u64, disk: &Disk) -> Result<Seen, String> {
    let mut dice = StdRng::seed_from_u64(seed);
    disk.seed(dice.random());
    let mut seen = Seen::default();
    let mut workload = S::workload();
    let mut model = Model::default();
    for _ in 0..CRASHES {
        disk.plan(dice.random_range(1..150), Fault::PowerCut);
        let in_flight = life::<S>(disk, &mut dice, &mut workload, &mut model)?;
        disk.cut_power();
        seen.crashes += 1;
        let found = recover::<S>(disk, &mut dice, &model, &in_flight, &mut seen)?;
        seen.there += u64::from(found == Found::InFlight);
        seen.absent += u64::from(found == Found::Answered && in_flight.whole.is_some());
        match found {
            Found::Answered => {}
            Found::Facts => model = in_flight.facts.unwrap(),
            Found::InFlight => model = in_flight.whole.unwrap(),
        }
        workload.reopened();
    }
    Ok(seen)
}

/// Opens the disk and commits until the power goes. Returns what was in flight.
fn life<S: Subject>(
    disk: &Disk,
    dice: &mut StdRng,
    workload: &mut Workload,
    model: &mut Model,
) -> Result<InFlight, String> {
    let engine = match S::open(disk) {
        Ok(engine) => engine,
        Err(_) if !disk.has_power() => return Ok(InFlight::default()),
        Err(error) => return Err(format!("it does not open: {error}")),
    };
    if dice.random_bool(0.5) && disk.has_power() {
        disk.plan_at_sync(dice.random_range(1..BATCHES_MAX), Fault::PowerCut); // where most is at stake
    }
    if std::env::var("SIMDBG").is_ok() {
        let st = engine.state();
        eprintln!(
            "life opens: model end {} engine {:?}",
            model.end,
            st.map(|s| (s.history.end(), s.applied, s.log_start, s.unclean))
        );
    }
    let mut has_written = false;
    for _ in 0..dice.random_range(0..=BATCHES_MAX) {
        let batch = workload.batch(dice, model);
        let next = model.after(&batch);
        match engine.commit(&batch) {
            Ok(()) => *model = next,
            Err(_) if !disk.has_power() => {
                return Ok(InFlight { whole: Some(next), facts: Some(model.with_facts(&batch)) });
            }
            Err(error) => return Err(format!("a commit failed on a disk that works: {error}")),
        }
        has_written |= !batch.append.is_empty();
        match S::beside(&engine, disk, dice, workload, model, has_written) {
            Ok(()) => {}
            Err(Failed { in_flight, .. }) if !disk.has_power() => {
                return Ok(InFlight { whole: in_flight.map(|model| *model), facts: None });
            }
            Err(Failed { error, .. }) => return Err(format!("it failed on a disk that works: {error}")),
        }
    }
    let still_there = model.check(&*engine, S::MEMORY);
    if disk.has_power() {
        still_there.map_err(|what| format!("before any crash: {what}"))?;
    }
    if dice.random_bool(0.5) {
        disk.cut_power(); // before it is closed; otherwise somewhere in the closing, or after it
    }
    Ok(InFlight::default())
}

/// Which of the states that may be there is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Answered,
    Facts,
    InFlight,
}

/// Gives the power back, takes it again in the recovery now and then, and compares what is there at last.
fn recover<S: Subject>(
    disk: &Disk,
    dice: &mut StdRng,
    answered: &Model,
    in_flight: &InFlight,
    seen: &mut Seen,
) -> Result<Found, String> {
    let mut found = None;
    for _ in 0..3 {
        disk.power_cycle();
        if !dice.random_bool(0.4) {
            break;
        }
        disk.plan(dice.random_range(1..40), Fault::PowerCut);
        let opened = S::open(disk);
        seen.recoveries_cut += u64::from(!disk.has_power());
        match opened {
            Err(_) if !disk.has_power() => {}
            Err(error) => return Err(format!("it does not open after a crash: {error}")),
            Ok(engine) if disk.has_power() => {
                let compared = compare::<S>(&*engine, answered, in_flight, found);
                if disk.has_power() {
                    found = Some(compared?);
                }
            }
            Ok(_) => {}
        }
        disk.cut_power();
    }
    disk.power_cycle();
    let engine = S::open(disk).map_err(|error| format!("it does not open after a crash: {error}"))?;
    let found = compare::<S>(&*engine, answered, in_flight, found)?;
    if std::env::var("SIMDBG").is_ok() {
        let st = engine.state();
        eprintln!(
            "recovered {found:?}: answered end {} whole {:?} engine {:?}",
            answered.end,
            in_flight.whole.as_ref().map(|m| m.end),
            st.map(|s| (s.history.end(), s.applied, s.log_start, s.unclean))
        );
    }
    if dice.random_bool(0.5) {
        disk.cut_power();
        drop(engine);
        disk.power_cycle();
    }
    Ok(found)
}

/// What was found once must be found again.
fn compare<S: Subject>(
    engine: &S::Engine,
    answered: &Model,
    in_flight: &InFlight,
    before: Option<Found>,
) -> Result<Found, String> {
    let check = |model: Option<&Model>| model.is_some_and(|model| model.check(engine, S::MEMORY).is_ok());
    let found = match answered.check(engine, S::MEMORY) {
        Ok(()) => Found::Answered,
        Err(_) if check(in_flight.whole.as_ref()) => Found::InFlight,
        Err(_) if check(in_flight.facts.as_ref()) && S::MEMORY == Memory::Loose => Found::Facts,
        Err(without) => {
            let with = in_flight.whole.as_ref().map(|model| model.check(engine, S::MEMORY));
            return Err(format!("neither what was answered ({without}) nor with what was in flight ({with:?})"));
        }
    };
    match before {
        Some(before) if before != found => Err(format!("after one recovery it was {before:?}, now {found:?}")),
        _ => Ok(found),
    }
}
