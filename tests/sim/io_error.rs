//! Invariant: when one call to the disk fails, whichever it is, nothing that was answered is lost, nothing is torn, the
//! file opens again, and the engine that met the error answers nothing any more (rule 9).

use ostraca::storage::{Batch, Engine, Error};
use ostraca::types::{Key, Seq, Space};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::disk::{Disk, Fault};
use super::model::Model;
use super::subject::{Direct, InFront, Subject};
use super::workload::Workload;
use super::{disk_with_a_copy, fail, first_seed, runs};

/// The calls of which each fails once.
const CALLS: u64 = 200;

#[test]
fn error_at_each_of_the_first_calls_loses_nothing_and_is_final() {
    errors::<Direct>("error_at_each_of_the_first_calls_loses");
}

#[test]
fn error_at_each_of_the_first_calls_with_a_log_in_front_loses_nothing_and_is_final() {
    errors::<InFront>("error_at_each_of_the_first_calls_with");
}

fn errors<S: Subject>(test: &str) {
    let mut met = Met::default();
    for seed in first_seed()..first_seed() + runs().div_ceil(CALLS) {
        for call in 1..=CALLS {
            if let Err(what) = one_error::<S>(seed, call, &mut met) {
                fail(test, seed, &format!("call {call}: {what}"));
            }
        }
    }
    println!("{met:?}");
    assert!(met.opening > 0 && met.commit > 0 && met.read + met.beside > 0, "each kind of work met an error: {met:?}");
}

/// Where errors struck.
#[derive(Debug, Default)]
struct Met {
    opening: u64,
    commit: u64,
    beside: u64,
    read: u64,
}

fn one_error<S: Subject>(seed: u64, call: u64, met: &mut Met) -> Result<(), String> {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut workload = S::workload();
    let disk = disk_with_a_copy();
    disk.seed(seed ^ call);
    disk.plan(call, Fault::Error);
    let mut model = Model::default();
    let mut in_flight = Vec::new();
    match S::open(&disk) {
        Err(_) => met.opening += 1,
        Ok(engine) => {
            let mut has_written = false;
            while disk.is_planned() {
                // until it strikes: every batch makes calls
                let batch = workload.batch(&mut dice, &model);
                let next = model.after(&batch);
                let committed = engine.commit(&batch);
                if let Err(error) = committed {
                    met.commit += 1;
                    refuses(&*engine, &error)?;
                    in_flight = vec![next, model.with_facts(&batch)];
                    break;
                }
                model = next;
                has_written |= !batch.append.is_empty();
                if let Err(failed) = S::beside(&engine, &disk, &mut dice, &workload, &mut model, has_written) {
                    met.beside += 1;
                    refuses(&*engine, &failed.error)?;
                    in_flight = failed.in_flight.into_iter().map(|model| *model).collect();
                    break;
                }
                if let Err(error) = engine.chunk(Space::Data, None, usize::MAX) {
                    met.read += 1;
                    refuses(&*engine, &error)?;
                    break;
                }
            }
        }
    }
    reopen::<S>(&disk, &mut dice, &mut workload, &model, &in_flight)
}

/// Every call after an error must say that the store failed.
fn refuses(engine: &impl Engine, first: &Error) -> Result<(), String> {
    let key = Key::new("key 1", 10).unwrap();
    let answers = [
        Err(first.clone()),
        engine.state().map(drop),
        engine.get(Space::Data, &key).map(drop),
        engine.entries(Seq::ZERO, 1).map(drop),
        engine.chunk(Space::Data, None, 1).map(drop),
        engine.stats().map(drop),
        engine.commit(&Batch { apply_to: Some(Seq::ZERO), ..Batch::default() }),
    ];
    match answers.iter().position(|answer| !matches!(answer, Err(Error::Failed(_)))) {
        Some(at) => Err(format!("answer {at} after the error was {:?}", answers[at])),
        None => Ok(()),
    }
}

/// The process restarts, and drops what the system has cached: what was answered is there, and writes go on.
fn reopen<S: Subject>(
    disk: &Disk,
    dice: &mut StdRng,
    workload: &mut Workload,
    answered: &Model,
    in_flight: &[Model],
) -> Result<(), String> {
    disk.power_cycle();
    let engine = S::open(disk).map_err(|error| format!("it does not open any more: {error}"))?;
    let mut model = match answered.check(&*engine, S::MEMORY) {
        Ok(()) => answered.clone(),
        Err(what) => {
            let found = in_flight.iter().find(|model| model.check(&*engine, S::MEMORY).is_ok());
            found.cloned().ok_or(what)?
        }
    };
    workload.reopened();
    for _ in 0..3 {
        let batch = workload.batch(dice, &model);
        engine.commit(&batch).map_err(|error| format!("a commit after the reopening: {error}"))?;
        model = model.after(&batch);
    }
    drop(engine);
    let engine = S::open(disk).map_err(|error| format!("it does not open a second time: {error}"))?;
    model.check(&*engine, S::MEMORY)
}
