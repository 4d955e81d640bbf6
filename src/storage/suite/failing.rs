//! What is kept after something went wrong (rule 9): after a failed commit nothing is answered any more, and a reopening
//! finds the batch whole or not at all.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ThreadId};

use ::redb::StorageBackend;
use parking_lot::{Condvar, Mutex};

use super::{OnBackend, Scribe, Subject, identity, key, put, value};
use crate::storage::memory::{Failing, MemoryEngine};
use crate::storage::open::Options;
use crate::storage::redb::RedbEngine;
use crate::storage::{Batch, Engine, Error};
use crate::types::{Seq, Space};

/// Every method must answer that the store failed.
fn refuses_everything(engine: &impl Engine) {
    let key = key("a");
    let answers = [
        engine.get(Space::Data, &key).map(drop),
        engine.contains(Space::Data, &key).map(drop),
        engine.state().map(drop),
        engine.commit(&Scribe::after(1).batch([put("a", "more")])),
        engine.commit(&Batch::default()),
        engine.entries(Seq::ZERO, 1000).map(drop),
        engine.chunk(Space::Data, None, 1000).map(drop),
        engine.stats().map(drop),
    ];
    for (method, answer) in answers.iter().enumerate() {
        assert!(matches!(answer, Err(Error::Failed(_))), "method {method} answered {answer:?}");
    }
}

/// One batch is durable, the commit of a second one fails. Returns whether the second is there after a reopening.
fn second_batch_fails<S: Subject>(subject: &S, break_disk: impl FnOnce(&S::Engine)) -> bool {
    let engine = subject.open();
    let mut scribe = Scribe::new();
    engine.commit(&scribe.batch([put("a", "1"), put("b", "1")])).unwrap();
    break_disk(&engine);
    let failed = engine.commit(&scribe.batch([put("a", "2"), put("b", "2")]));
    assert!(matches!(failed, Err(Error::Failed(_))), "{failed:?}");
    refuses_everything(&engine);
    drop(engine);
    let engine = subject.open();
    let state = engine.state().unwrap();
    assert!(state.unclean);
    let both = (value(&engine, "a").unwrap(), value(&engine, "b").unwrap());
    match (state.history.end().0, &both.0[..], &both.1[..]) {
        (2, b"1", b"1") => false,
        (4, b"2", b"2") => true,
        other => panic!("half a batch: {other:?}"),
    }
}

#[test]
fn commit_failed_in_redb_refuses_everything_until_reopened() {
    let place = OnBackend::default();
    second_batch_fails(&place, |_| place.refuse_writes(true));
}

#[test]
fn commit_failed_in_memory_refuses_everything_until_reopened() {
    let fails =
        |when| second_batch_fails(&super::InMemory::default(), |engine: &MemoryEngine| engine.fail_next_commit(when));
    assert!(!fails(Failing::Before));
    assert!(fails(Failing::After));
}

#[test]
fn commit_at_the_gate_is_invisible_until_let_through() {
    let engine = Arc::new(MemoryEngine::new());
    let gate = engine.hold_commits();
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            engine.commit(&Scribe::new().batch([put("a", "1")])).unwrap();
            done.store(true, Ordering::SeqCst);
        });
        gate.wait_for_commit();
        assert_eq!(value(&*engine, "a"), None, "readers go on, and see nothing of it");
        assert!(!done.load(Ordering::SeqCst));
        drop(gate);
    });
    assert_eq!(value(&*engine, "a").as_deref(), Some(&b"1"[..]));
    assert_eq!(engine.commits(), 1);
}

#[test]
fn memory_faults_of_reads_and_space_are_what_the_test_says() {
    let engine = MemoryEngine::new();
    assert_eq!(engine.free_bytes(), None);
    engine.set_free_bytes(Some(7));
    assert_eq!(engine.free_bytes(), Some(7));
    engine.fail_reads(true);
    assert!(matches!(engine.get(Space::Data, &key("a")), Err(Error::Failed(_))));
    engine.fail_reads(false);
    assert_eq!(engine.get(Space::Data, &key("a")), Ok(None));
}

/// A backend on which the reads of one thread stand still until they are let go.
#[derive(Debug, Clone, Default)]
struct Stalling {
    inner: OnBackend,
    stalled: Arc<(Mutex<Option<ThreadId>>, Condvar)>,
    reached: Arc<AtomicBool>,
}

impl StorageBackend for Stalling {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (stalled, changed) = &*self.stalled;
        let mut stalled = stalled.lock();
        if *stalled == Some(thread::current().id()) {
            self.reached.store(true, Ordering::SeqCst);
            changed.wait_while(&mut stalled, |stalled| stalled.is_some());
        }
        drop(stalled);
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }
}

#[test]
fn commit_while_a_reader_stands_still_goes_through() {
    let backend = Stalling::default();
    let uncached = Options { cache_bytes: 0 };
    let engine = RedbEngine::on_backend(backend.clone(), &identity(), uncached).unwrap();
    let mut scribe = Scribe::new();
    engine.commit(&scribe.batch((0..100).map(|i| put(format!("k{i}"), vec![0; 1000])))).unwrap();
    let (stalled, changed) = &*backend.stalled;
    thread::scope(|threads| {
        let reader = threads.spawn(|| {
            *stalled.lock() = Some(thread::current().id());
            engine.chunk(Space::Data, None, usize::MAX).unwrap()
        });
        while !backend.reached.load(Ordering::SeqCst) {
            assert!(!reader.is_finished(), "the reader must reach the backend");
            thread::yield_now();
        }
        engine.commit(&scribe.batch([put("k1", "new")])).unwrap();
        assert_eq!(value(&engine, "k1").as_deref(), Some(&b"new"[..]), "another reader sees it");
        *stalled.lock() = None;
        changed.notify_all();
        let chunk = reader.join().unwrap();
        assert_eq!(
            (chunk.at, chunk.records.len()),
            (Seq(100), 100),
            "the first reader's state is the one it began with"
        );
    });
}
