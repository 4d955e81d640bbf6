//! Rule 9: after a failed commit the outcome is unknown, and the copy takes nothing more until its process restarts.

use std::sync::Arc;

use super::{Bench, answer, delete, entry, leading, log, put, set_mode, written};
use crate::clock::Clock;
use crate::storage::memory::{Failing, MemoryEngine};
use crate::storage::writer::{Mode, Options, Refusal, Upkeep, Writer, spawn};
use crate::storage::{Batch, Chunk, Engine, Entries, Error, State, Stats};
use crate::types::{Key, Record, Seq, Space};

/// Writes after one of which the commit failed: all are unknown, none is announced, and nothing is taken any more.
fn fail(when: Failing) -> Bench {
    let mut bench = Bench::leading();
    bench.run([put("durable", "1")]);
    bench.engine.fail_next_commit(when);
    let published = bench.writer.published();
    for answer in bench.run([put("k", "v"), delete("durable"), delete("nothing")]) {
        assert!(matches!(answer, Err(Refusal::Unknown(_))), "{answer:?}");
    }
    assert!(published.is_failed());
    assert_eq!((published.end(), published.history().end()), (Seq(1), Seq(1)), "nothing further is offered");
    for answer in bench.run([put("later", "v"), delete("nothing")]) {
        assert!(matches!(answer, Err(Refusal::Closed(_))), "{answer:?}");
    }
    let (item, opened) = set_mode(leading());
    bench.writer.run_once([item]);
    let _ = answer(opened);
    assert!(matches!(bench.run([put("later", "v")])[..], [Err(Refusal::Closed(_))]), "no mode opens it again");
    bench
}

#[test]
fn commit_that_fails_before_it_took_effect_is_unknown_and_final() {
    let bench = fail(Failing::Before);
    let reopened = Bench::on(&bench.engine.disk());
    assert_eq!(
        (reopened.value("durable"), reopened.value("k"), reopened.value("later")),
        (Some("1".into()), None, None)
    );
    assert_eq!(reopened.log().len(), 1);
}

#[test]
fn commit_that_fails_after_it_took_effect_is_unknown_and_goes_on_from_there_when_reopened() {
    let bench = fail(Failing::After);
    let mut reopened = Bench::on(&bench.engine.disk());
    assert_eq!((reopened.value("durable"), reopened.value("k")), (None, Some("v".into())));
    reopened.set_mode(leading());
    assert_eq!(reopened.run([put("k", "w")]), [Ok(written(4, true))], "seq goes on after what was unknown");
}

#[test]
fn entries_whose_commit_fails_move_no_cursor() {
    let mut bench = Bench::following();
    bench.run_append(vec![entry(1, put("a", "1"))]).unwrap();
    bench.engine.fail_next_commit(Failing::Before);
    assert!(matches!(bench.run_append(vec![entry(2, put("b", "2"))]), Err(Refusal::Unknown(_))));
    assert_eq!(bench.writer.published().history().end(), Seq(1), "the cursor is what is durable");
    assert!(matches!(bench.run_append(vec![entry(2, put("b", "2"))]), Err(Refusal::Closed(_))));
}

#[test]
fn write_whose_key_cannot_be_looked_at_is_refused_and_the_others_are_not() {
    let mut bench = Bench::leading();
    bench.engine.fail_reads(true);
    assert!(matches!(bench.run([put("k", "v")])[..], [Err(Refusal::Failed(_))]));
    bench.engine.fail_reads(false);
    assert_eq!(bench.value("k"), None);
    assert_eq!(bench.run([put("k", "v")]), [Ok(written(1, false))], "no seq was spent on it");
}

/// An engine that breaks in the middle of a commit.
#[derive(Debug)]
struct Panicking(MemoryEngine);

impl Engine for Panicking {
    fn get(&self, space: Space, key: &Key) -> Result<Option<Record>, Error> {
        self.0.get(space, key)
    }
    fn contains(&self, space: Space, key: &Key) -> Result<bool, Error> {
        self.0.contains(space, key)
    }
    fn state(&self) -> Result<State, Error> {
        self.0.state()
    }
    fn commit(&self, batch: &Batch) -> Result<(), Error> {
        assert!(batch.append.is_empty(), "a bug that the test wanted");
        self.0.commit(batch)
    }
    fn entries(&self, after: Seq, bytes_max: usize) -> Result<Entries, Error> {
        self.0.entries(after, bytes_max)
    }
    fn chunk(&self, space: Space, after: Option<&Key>, bytes_max: usize) -> Result<Chunk, Error> {
        self.0.chunk(space, after, bytes_max)
    }
    fn stats(&self) -> Result<Stats, Error> {
        self.0.stats()
    }
    fn free_bytes(&self) -> Option<u64> {
        None
    }
}

/// The bug: a writer whose thread had panicked left the copy looking healthy, and told every later client that the node
/// was stopping.
#[tokio::test]
async fn writer_that_panics_leaves_a_copy_that_says_it_has_failed() {
    let (engine, clock): (Arc<dyn Engine>, _) = (Arc::new(Panicking(MemoryEngine::new())), Clock::manual());
    let options = Options { shard: super::SHARD, min_free_bytes: 0, metrics: super::metrics() };
    let state = engine.state().unwrap();
    let writer = Writer::new(engine, &state, clock.clone(), options, Box::new(|_, _| Upkeep::default()));
    let (handle, thread) = spawn(writer).unwrap();
    handle.set_mode(leading(), super::Facts::default()).await.unwrap();
    let deadline = clock.now() + std::time::Duration::from_secs(60);
    let first = handle.write(put("k", "v"), deadline).await;
    assert!(matches!(first, Err(Refusal::Unknown(_))), "{first:?}");
    assert!(thread.join().is_err());
    assert!(handle.published().is_failed(), "nothing is offered or taken any more");
    let later = handle.write(put("k", "v"), deadline).await;
    let Err(Refusal::Closed(reason)) = later else { panic!("{later:?}") };
    assert!(reason.contains("restart"), "{reason}");
    assert!(handle.set_mode(Mode::Following, super::Facts::default()).await.is_err());
    assert_eq!(log(&*handle.published().engine()), vec![]);
}

/// The bug: a store that a read had found broken stayed `ready` for as long as nobody wrote.
#[test]
fn store_that_fails_without_a_commit_is_noticed_when_idle() {
    let mut bench = Bench::leading();
    bench.engine.fail_reads(true);
    bench.writer.run_once([]);
    assert!(bench.writer.published().is_failed());
    bench.engine.fail_reads(false);
    assert!(matches!(bench.run([put("k", "v")])[..], [Err(Refusal::Closed(_))]));
}
