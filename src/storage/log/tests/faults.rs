//! A call to the disk that fails: nothing is promised afterwards, and what was promised is there after the next opening.

use std::sync::Arc;

use super::memory::MemoryDirectory;
use super::{ID, SHARD, SMALL, append_each, bytes_of, create, entry, open, read_all};
use crate::storage::log::{Log, Options};
use crate::storage::{Entries, Error};
use crate::types::Seq;

/// Segments that take some frames before they are filled with zeros.
const ROOMY: Options = Options { segment_bytes: 16_000, recent_bytes: 0 };

/// What a caller does with a log; returns the last entry whose append was answered.
fn work(log: &Log, from: u64) -> Result<u64, (u64, Error)> {
    for seq in from..from + 30 {
        let answered = seq - 1;
        log.append(&[entry(seq, 100)], Seq(answered)).map_err(|error| (answered, error))?;
        if seq % 3 == 0 {
            log.prepare().map_err(|error| (seq, error))?;
            log.read(Seq(seq - 3), 1000).map_err(|error| (seq, error))?;
        }
        if seq % 5 == 0 {
            log.drop_through(Seq(seq - 5), 500).map_err(|error| (seq, error))?;
        }
    }
    Ok(from + 29)
}

#[test]
fn fault_at_any_call_is_final_and_loses_nothing_answered() {
    for call in 1.. {
        let directory = MemoryDirectory::default();
        let log = create(&directory, 0, SMALL);
        directory.fail_at(call);
        let Err((answered, error)) = work(&log, 1) else {
            assert!(call > 60, "only {call} calls");
            return;
        };
        let words = error.to_string();
        assert!(words.contains("an injected fault") && words.contains("the log"), "call {call}: {words}");
        let calls = directory.calls();
        let again = Err(error);
        assert_eq!(log.append(&[], Seq(answered)).map(|()| Entries::Trimmed), again, "call {call}");
        assert_eq!(log.read(Seq(answered), 1), again, "call {call}");
        assert_eq!(log.prepare().map(|()| Entries::Trimmed), again, "call {call}");
        assert_eq!(log.drop_through(Seq(0), 0).map(|_| Entries::Trimmed), again, "call {call}");
        assert_eq!(directory.calls(), calls, "the disk is left alone");
        let applied = answered.saturating_sub(10).max(log.start().0);
        let (log, recovered) = open(&directory, applied, SMALL).unwrap();
        assert!(log.end() == Seq(answered) || log.end() == Seq(answered + 1), "call {call}: {} {answered}", log.end());
        assert_eq!(recovered.entries.len() as u64, log.end().0 - applied);
        assert_eq!(read_all(&log, applied, 500), bytes_of(applied + 1..=log.end().0, 100));
        work(&log, log.end().0 + 1).unwrap();
    }
}

#[test]
fn fault_at_any_call_of_an_opening_is_told_and_the_next_opening_succeeds() {
    let directory = MemoryDirectory::default();
    append_each(&create(&directory, 0, SMALL), 1..=30);
    let newest = directory.names().into_iter().rev().find(|name| directory.contents(name).len() > 100).unwrap();
    let mut torn = directory.contents(&newest);
    torn.extend_from_slice(&[7; 33]);
    directory.put(&newest, torn);
    for call in 1.. {
        let copy = directory.copied();
        copy.fail_at(call);
        match open(&copy, 25, SMALL) {
            Ok(_) => return assert!(call > 10, "only {call} calls"),
            Err(fault) => assert!(fault.to_string().contains("an injected fault"), "{fault}"),
        }
        let (log, recovered) = open(&copy, 25, SMALL).unwrap();
        assert_eq!((log.end(), recovered.entries.len()), (Seq(30), 5));
    }
}

#[test]
fn fault_at_any_call_of_a_creation_is_told() {
    for call in 1.. {
        let directory = MemoryDirectory::default();
        directory.fail_at(call);
        match Log::create(Arc::new(directory.clone()), ID, SHARD, Seq(0), SMALL) {
            Ok(_) => return assert!(call > 4, "only {call} calls"),
            Err(error) => assert!(error.to_string().contains("an injected fault"), "{error}"),
        }
    }
}

#[test]
fn prepare_without_space_leaves_nothing_behind_and_appends_go_on() {
    let directory = MemoryDirectory::default();
    let log = create(&directory, 0, ROOMY);
    append_each(&log, 1..=4);
    assert!(log.wants_segment());
    let used = log.file_bytes().unwrap();
    directory.limit_space(used + 10_000);
    log.prepare().unwrap();
    assert_eq!(log.file_bytes(), Ok(used));
    assert!(!log.wants_segment(), "it is not tried at every commit");
    append_each(&log, 5..=20);
    assert_eq!(read_all(&log, 0, 5000), bytes_of(1..=20, 100));
    directory.limit_space(0);
    assert!(log.wants_segment(), "in the next segment it is tried again");
    log.prepare().unwrap();
    assert!(log.file_bytes().unwrap() > u64::from(ROOMY.segment_bytes));
}

#[test]
fn append_while_segments_are_prepared_and_read_keeps_all() {
    let directory = MemoryDirectory::default();
    let log = create(&directory, 0, SMALL);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while log.end() < Seq(2000) {
                log.prepare().unwrap();
            }
        });
        scope.spawn(|| {
            while log.end() < Seq(2000) {
                let end = log.end().0;
                assert!(read_all(&log, end.saturating_sub(30), 700).len() as u64 >= 30.min(end));
            }
        });
        append_each(&log, 1..=2000);
    });
    assert_eq!(read_all(&log, 0, 5000), bytes_of(1..=2000, 100));
    assert_eq!(open(&directory, 0, SMALL).unwrap().1.entries.len(), 2000);
}

#[test]
#[should_panic(expected = "entry 3 is appended after 1")]
fn append_that_leaves_out_an_entry_panics() {
    let log = create(&MemoryDirectory::default(), 0, SMALL);
    append_each(&log, 1..=1);
    let _ = log.append(&[entry(3, 1)], Seq(1));
}

#[test]
#[should_panic(expected = "applied up to 2, and now to 1")]
fn append_that_takes_back_an_apply_panics() {
    let log = create(&MemoryDirectory::default(), 0, SMALL);
    append_each(&log, 1..=2);
    let _ = log.append(&[], Seq(1));
}

#[test]
#[should_panic(expected = "entries are to be applied up to 4, and the log ends with 3")]
fn append_that_applies_beyond_the_end_panics() {
    let log = create(&MemoryDirectory::default(), 0, SMALL);
    append_each(&log, 1..=2);
    let _ = log.append(&[entry(3, 1)], Seq(4));
}
