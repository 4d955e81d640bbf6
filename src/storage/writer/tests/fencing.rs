//! What becomes of writes when their leader's leave ends, or is stale, before, while and after they are taken (rule 17).

use std::sync::Arc;
use std::time::Duration;

use super::{Bench, answer, epoch, metrics, put, set_mode, written};
use crate::clock::Clock;
use crate::storage::Engine;
use crate::storage::memory::MemoryEngine;
use crate::storage::writer::{
    Facts, Handle, Mandate, Mode, Options, Published, Refusal, STALE_AFTER, Upkeep, Writer, spawn,
};
use crate::types::{Incarnation, Seq};

fn leading(mandate: &Mandate) -> Mode {
    Mode::Leading { epoch: epoch(), incarnation: Incarnation(7), mandate: mandate.clone() }
}

#[test]
fn write_behind_the_end_of_the_leave_gets_no_seq() {
    let mut bench = Bench::closed();
    let mandate = Mandate::new(bench.clock.now());
    bench.set_mode(leading(&mandate));
    assert_eq!(bench.run([put("a", "1")]), [Ok(written(1, false))]);
    mandate.end();
    assert!(matches!(bench.run([put("b", "2")])[..], [Err(Refusal::Closed(_))]));
    assert_eq!(bench.log().len(), 1);
}

#[test]
fn writes_are_held_while_the_leave_is_stale_and_while_the_shard_is_handed_over() {
    let mut bench = Bench::closed();
    let mandate = Mandate::new(bench.clock.now());
    bench.set_mode(leading(&mandate));
    bench.clock.advance(STALE_AFTER);
    assert_eq!(bench.run([put("a", "1")]), [Err(Refusal::Held)]);
    mandate.renew(bench.clock.now());
    assert_eq!(bench.run([put("a", "1")]), [Ok(written(1, false))]);
    bench.set_mode(Mode::Holding);
    assert_eq!(bench.run([put("a", "2")]), [Err(Refusal::Held)]);
    bench.set_mode(leading(&mandate));
    assert_eq!(bench.run([put("a", "2")]), [Ok(written(2, true))], "no seq was spent");
}

#[test]
fn write_before_a_fence_in_the_queue_is_answered_by_its_own_leave() {
    let mut bench = Bench::closed();
    let (former, next) = (Mandate::new(bench.clock.now()), Mandate::new(bench.clock.now()));
    bench.set_mode(leading(&former));
    let ((before, answered_before), (after, answered_after)) = (bench.write(put("a", "1")), bench.write(put("b", "2")));
    let (fence, fenced) = set_mode(leading(&next));
    let items = [before, fence, after].into_iter().inspect(|item| {
        if matches!(item, crate::storage::writer::Item::SetMode { .. }) {
            former.end(); // when the first write has its seq
        }
    });
    bench.writer.run_once(items);
    assert_eq!(answer(answered_before), Err(Refusal::Fenced));
    assert_eq!((answer(fenced), answer(answered_after)), (Ok(()), Ok(written(2, false))));
}

/// A writer with its thread, in whose commits the test can stop.
struct Running {
    handle: Handle,
    engine: Arc<MemoryEngine>,
    clock: Clock,
    mandate: Mandate,
}

impl Running {
    async fn start() -> Running {
        let (engine, clock) = (Arc::new(MemoryEngine::new()), Clock::manual());
        let options = Options { shard: super::SHARD, min_free_bytes: super::MIN_FREE, metrics: metrics() };
        let state = engine.state().unwrap();
        let upkeep = Box::new(|_: &dyn Engine, _| Upkeep::default());
        let writer = Writer::new(Arc::clone(&engine) as Arc<dyn Engine>, &state, clock.clone(), options, upkeep);
        let (handle, _) = spawn(writer).unwrap();
        let mandate = Mandate::new(clock.now());
        handle.set_mode(leading(&mandate), Facts::default()).await.unwrap();
        Running { handle, engine, clock, mandate }
    }

    /// Begins a write, does something while its commit waits for the disk, and gives its answer.
    async fn write_while(&self, meanwhile: impl FnOnce()) -> Result<Seq, Refusal> {
        let gate = self.engine.hold_commits();
        let (handle, deadline) = (self.handle.clone(), self.clock.now() + Duration::from_secs(600));
        let write = tokio::spawn(async move { handle.write(put("k", "v"), deadline).await });
        tokio::task::yield_now().await;
        gate.wait_for_commit();
        meanwhile();
        drop(gate);
        Ok(write.await.unwrap()?.version.unwrap().seq())
    }

    fn published(&self) -> &Published {
        self.handle.published()
    }
}

#[tokio::test]
async fn write_whose_leave_ends_in_its_commit_is_there_and_not_confirmed() {
    let running = Running::start().await;
    assert_eq!(running.write_while(|| running.mandate.end()).await, Err(Refusal::Fenced));
    assert_eq!(running.published().end(), Seq(1), "it may last: a replica may have it");
}

/// A process that was stopped in a commit does not know what happened meanwhile.
#[tokio::test]
async fn write_in_whose_commit_the_process_stood_still_is_answered_when_its_leave_is_renewed_or_ended() {
    let running = Running::start().await;
    let asking = |outcome: fn(&Mandate, &Clock)| {
        running.clock.advance(2 * STALE_AFTER);
        let (mandate, clock) = (running.mandate.clone(), running.clock.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            outcome(&mandate, &clock);
        });
    };
    assert_eq!(running.write_while(|| asking(|mandate, clock| mandate.renew(clock.now()))).await, Ok(Seq(1)));
    assert_eq!(running.write_while(|| asking(|mandate, _| mandate.end())).await, Err(Refusal::Fenced));
}
