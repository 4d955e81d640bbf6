//! Invariant: nothing is readable before it is durable (rule 8). Who looks at the very moment of an fdatasync sees the
//! state before; who looks in the middle of a feed sees what was answered, whichever layer holds it.

use std::sync::Arc;

use ostraca::storage::logged::Logged;
use ostraca::storage::{Engine, Entries};
use ostraca::types::Seq;
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::model::{Memory, Model};
use super::subject::{InFront, Subject};
use super::workload::Workload;
use super::{disk_with_a_copy, fail, first_seed, runs};

/// What a look has found: the first thing that was wrong.
type Found = Arc<Mutex<Result<u64, String>>>;

/// A look at everything, which must be as the model says.
fn look(engine: &Arc<Logged>, model: &Model, found: &Found) -> Box<dyn FnOnce() + Send> {
    let (engine, model, found) = (Arc::clone(engine), model.clone(), Arc::clone(found));
    Box::new(move || {
        let beyond = engine.entries(Seq(model.end), 1).unwrap();
        let looked = match beyond {
            Entries::Found(entries) if entries.is_empty() => model.check(&*engine, Memory::Loose),
            beyond => Err(format!("{beyond:?} can be read")),
        };
        let mut found = found.lock();
        *found = std::mem::replace(&mut *found, Ok(0)).and_then(|looks| looked.map(|()| looks + 1));
    })
}

#[test]
fn nothing_is_readable_at_the_moment_of_its_fdatasync_and_all_else_is() {
    let mut looks = 0;
    for seed in first_seed()..first_seed() + runs().div_ceil(10) {
        let mut dice = StdRng::seed_from_u64(seed);
        let disk = disk_with_a_copy();
        let engine = InFront::open(&disk).unwrap();
        let (workload, mut model) = (Workload::serving(), Model::default());
        let found: Found = Arc::new(Mutex::new(Ok(0)));
        for round in 0..20 {
            let batch = workload.entries(&mut dice, &model);
            disk.interrupt_next_sync(look(&engine, &model, &found));
            engine.commit(&batch).unwrap();
            model = model.after(&batch);
            if round % 4 == 3 {
                for call in [1, 5, 10] {
                    disk.interrupt(call, look(&engine, &model, &found));
                    engine.feed_once().unwrap();
                    let batch = workload.entries(&mut dice, &model);
                    disk.do_not_interrupt();
                    engine.commit(&batch).unwrap();
                    model = model.after(&batch);
                }
            }
        }
        looks += found.lock().clone().unwrap_or_else(|what| fail("nothing_is_readable", seed, &what));
    }
    assert!(looks > 20 * runs().div_ceil(10), "it has looked {looks} times only");
}
