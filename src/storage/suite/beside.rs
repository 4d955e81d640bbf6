//! A file and the log beside it: which of them is opened, needed, removed and refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::{LARGE, LoggedOnBackend, LoggedOnFile, Scribe, Subject, identity, options, put, value};
use crate::random::Random;
use crate::storage::compact::compact;
use crate::storage::files::DiskFiles;
use crate::storage::layout::{FORMAT, LOG};
use crate::storage::logged::{Fed, Logged, Sizes};
use crate::storage::open::OpenFault;
use crate::storage::redb::RedbEngine;
use crate::storage::{Batch, Engine, Entries, Error, Files, Trim};
use crate::types::{Cursor, Entry, NodeName, Seq, Space};

fn open(path: &Path) -> Result<Logged, OpenFault> {
    Logged::open(path, &identity(), options(), Random::system()).map_err(|error| error.fault)
}

/// The directories of logs beside a file.
fn logs(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|found| found.to_string_lossy().contains(".log-")).collect()
}

/// What a process that is killed now leaves: a copy of the file and of its log, in a directory of their own.
fn killed(path: &Path) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join(path.file_name().unwrap());
    fs::copy(path, &copy).unwrap();
    for log in logs(path) {
        copy_log(&log, directory.path());
    }
    (directory, copy)
}

fn copy_log(log: &Path, directory: &Path) {
    let place = directory.join(log.file_name().unwrap());
    fs::create_dir(&place).unwrap();
    for segment in fs::read_dir(log).unwrap() {
        let segment = segment.unwrap();
        fs::copy(segment.path(), place.join(segment.file_name())).unwrap();
    }
}

/// Two keys, of which nothing is in the file yet.
fn written() -> (LoggedOnFile, Logged, Scribe) {
    let place = LoggedOnFile::new();
    let (engine, mut scribe) = (place.open(), Scribe::new());
    engine.commit(&scribe.batch([put("a", "1"), put("b", "2")])).unwrap();
    (place, engine, scribe)
}

#[test]
fn file_of_a_killed_process_is_whole_with_its_log_and_refused_without() {
    let (place, engine, _) = written();
    let (_directory, copy) = killed(&place.path());
    let log = logs(&copy).pop().unwrap();
    let moved = log.with_extension("moved");
    fs::rename(&log, &moved).unwrap();
    let refused = open(&copy).unwrap_err();
    assert!(matches!(&refused, OpenFault::LogMissing(name) if *name == log.display().to_string()), "{refused:?}");
    fs::rename(&moved, &log).unwrap();
    let opened = open(&copy).unwrap();
    assert!(opened.state().unwrap().unclean);
    assert_eq!(opened.state().unwrap().history, engine.state().unwrap().history);
    assert_eq!((value(&opened, "a").as_deref(), value(&opened, "b").as_deref()), (Some(&b"1"[..]), Some(&b"2"[..])));
}

#[test]
fn file_that_was_closed_holds_everything_without_its_log() {
    let (place, engine, mut scribe) = written();
    drop(engine);
    let (_directory, copy) = killed(&place.path());
    fs::remove_dir_all(logs(&copy).pop().unwrap()).unwrap();
    let engine = open(&copy).unwrap();
    let state = engine.state().unwrap();
    assert!(!state.unclean);
    assert_eq!((state.log_start, state.applied, state.history.end()), (Seq(2), Seq(2), Seq(2)));
    assert_eq!(engine.entries(Seq(0), 1000), Ok(Entries::Trimmed), "what replicas may need went with the log");
    assert_eq!(engine.stats().unwrap().keys, 2);
    let trim = Some(Trim { up_to: Seq(2), keep_bytes: 0, entries_max: 9 });
    let cursors = vec![(NodeName::new("Delhi/1"), None::<Cursor>)];
    engine.commit(&Batch { trim, cursors, ..Batch::default() }).unwrap();
    engine.commit(&scribe.batch([put("c", "3")])).unwrap();
    drop(engine);
    assert_eq!(value(&open(&copy).unwrap(), "c").as_deref(), Some(&b"3"[..]));
    assert_eq!(logs(&copy).len(), 1, "it has another log");
}

#[test]
fn file_that_was_closed_and_written_again_needs_its_log_again() {
    let (place, engine, mut scribe) = written();
    drop(engine);
    let engine = place.open();
    let (_directory, before) = killed(&place.path());
    engine.commit(&scribe.batch([put("c", "3")])).unwrap();
    let (_directory, after) = killed(&place.path());
    for copy in [&before, &after] {
        fs::remove_dir_all(logs(copy).pop().unwrap()).unwrap();
    }
    assert_eq!(open(&before).unwrap().state().unwrap().history.end(), Seq(2));
    assert!(matches!(open(&after), Err(OpenFault::LogMissing(_))));
}

#[test]
fn file_that_was_never_written_has_no_log() {
    let place = LoggedOnFile::new();
    drop(place.open());
    assert_eq!(logs(&place.path()), Vec::<PathBuf>::new());
}

#[test]
fn log_of_another_file_is_neither_read_nor_removed() {
    let (place, engine, _) = written();
    let strange = logs(&place.path()).pop().unwrap();
    fs::remove_file(place.path()).unwrap(); // as if it had been moved away
    drop(engine);
    let engine = place.open();
    assert_eq!(engine.state().unwrap().history.end(), Seq::ZERO);
    engine.commit(&Scribe::new().batch([put("a", "other")])).unwrap();
    assert!(strange.is_dir());
    assert_eq!(value(&engine, "a").as_deref(), Some(&b"other"[..]));
}

#[test]
fn snapshot_in_the_place_of_a_file_takes_its_log_away_at_once_or_at_the_next_start() {
    let place = LoggedOnFile::new();
    let files = DiskFiles::new(&place.path(), identity(), options(), Random::system());
    let old = files.open().unwrap();
    old.commit(&Scribe::new().batch([put("a", "old")])).unwrap();
    let old_log = logs(&place.path()).pop().unwrap();
    let incoming = files.create_incoming().unwrap();
    let mut scribe = Scribe::new();
    incoming.commit(&scribe.batch([put("a", "received")])).unwrap();
    incoming.commit(&Batch { incoming: Some(false), ..Batch::default() }).unwrap();
    files.promote_incoming().unwrap();
    let (_directory, killed) = killed(&place.path());
    drop(old);
    assert!(!old_log.exists(), "its engine took it away");
    incoming.commit(&scribe.batch([put("b", "after")])).unwrap();
    drop(incoming);
    for path in [&place.path(), &killed] {
        let engine = open(path).unwrap();
        assert_eq!(value(&engine, "a").as_deref(), Some(&b"received"[..]));
    }
    assert_eq!((logs(&place.path()).len(), logs(&killed).len()), (1, 0), "the killed one had none yet");
}

#[test]
fn compact_brings_in_what_stands_in_the_log() {
    let (place, _engine, _) = written();
    let (_directory, copy) = killed(&place.path());
    let compacted = compact(&copy).unwrap();
    assert_eq!((compacted.keys, compacted.end), (2, Seq(2)));
    fs::remove_dir_all(logs(&copy).pop().unwrap()).unwrap();
    assert_eq!(value(&open(&copy).unwrap(), "b").as_deref(), Some(&b"2"[..]));
}

/// A file of format 1, with ten entries in its table.
fn older_file(path: &Path) -> Scribe {
    let mut scribe = Scribe::new();
    let engine = RedbEngine::open(path, &identity(), options()).unwrap();
    engine.commit(&scribe.batch((0..10).map(|n| put(format!("k{n}"), vec![7; LARGE])))).unwrap();
    drop(engine);
    let txn = ::redb::Database::open(path).unwrap().begin_write().unwrap();
    crate::storage::layout::write_format(&txn, 1).unwrap();
    txn.commit().unwrap();
    scribe
}

#[test]
fn older_file_keeps_its_queue_until_it_is_trimmed() {
    let place = LoggedOnFile::new();
    let mut scribe = older_file(&place.path());
    let engine = place.open();
    engine.commit(&scribe.batch([put("new", "1"), put("new", "2")])).unwrap();
    let seqs = |engine: &Logged, after| {
        let (mut seqs, mut last) = (Vec::new(), Seq(after));
        loop {
            let Entries::Found(found) = engine.entries(last, 12_000).unwrap() else { panic!("trimmed after {last}") };
            let Some(bytes) = found.last() else { return seqs };
            last = Entry::decode(bytes.clone()).unwrap().seq;
            seqs.extend(found.into_iter().map(|bytes| Entry::decode(bytes).unwrap().seq.0));
        }
    };
    assert_eq!(seqs(&engine, 0), (1..=12).collect::<Vec<_>>(), "from the table and from the log, without a gap");
    drop(engine);
    let engine = place.open();
    assert_eq!(seqs(&engine, 4), (5..=12).collect::<Vec<_>>());
    let trim = Trim { up_to: Seq(11), keep_bytes: 0, entries_max: 1000 };
    engine.commit(&Batch { trim: Some(trim), ..scribe.batch([put("new", "3")]) }).unwrap();
    assert_eq!(engine.entries(Seq(10), 1000), Ok(Entries::Trimmed));
    assert_eq!(seqs(&engine, 11), [12, 13]);
    drop(engine);
    let db = ::redb::Database::open(place.path()).unwrap();
    let txn = ::redb::ReadableDatabase::begin_read(&db).unwrap();
    assert_eq!(::redb::ReadableTableMetadata::len(&txn.open_table(LOG).unwrap()).unwrap(), 0, "its rows are gone");
}

#[test]
fn older_program_refuses_a_file_whose_newest_writes_are_in_a_log() {
    assert_eq!(FORMAT, 2, "a program of format 1 knows nothing of logs");
    let (place, engine, _) = written();
    drop(engine);
    let db = ::redb::Database::open(place.path()).unwrap();
    let txn = ::redb::ReadableDatabase::begin_read(&db).unwrap();
    assert_eq!(crate::storage::layout::read_identity(&txn).unwrap().0, 2);
}

#[test]
fn overlay_at_its_bound_has_no_room_until_it_is_fed() {
    let place = LoggedOnBackend::new();
    let engine = place.open_with(Sizes { overlay_bytes_max: 50_000, ..Sizes::default() });
    let mut scribe = Scribe::new();
    assert!(engine.room(Duration::ZERO));
    engine.commit(&scribe.batch((0..10).map(|n| put(format!("k{n}"), vec![1; 5000])))).unwrap();
    assert!(!engine.room(Duration::ZERO) && !engine.room(Duration::from_millis(5)));
    engine.commit(&scribe.batch([put("k", "taken all the same")])).unwrap();
    std::thread::scope(|threads| {
        let waits = threads.spawn(|| engine.room(Duration::from_secs(60)));
        assert_eq!(engine.feed_once(), Ok(Fed::Done));
        assert!(waits.join().unwrap(), "a feed wakes who waits");
    });
    assert_eq!(engine.feed_once(), Ok(Fed::Nothing));
    assert_eq!(value(&engine, "k9").map(|value| value.len()), Some(5000));
}

#[test]
fn feed_that_fails_is_final_and_loses_nothing() {
    let place = LoggedOnBackend::new();
    let (engine, mut scribe) = (place.open(), Scribe::new());
    engine.commit(&scribe.batch([put("a", "1")])).unwrap();
    place.backend.refuse_writes(true);
    assert!(matches!(engine.feed_once(), Err(Error::Failed(_))));
    assert!(matches!(engine.commit(&scribe.batch([put("a", "2")])), Err(Error::Failed(_))));
    assert!(engine.stats().is_err() && engine.state().is_err() && engine.entries(Seq(0), 1).is_err());
    assert!(engine.room(Duration::from_secs(60)) || engine.state().is_err(), "nobody waits for one that has failed");
    drop(engine);
    let engine = place.open();
    assert_eq!(value(&engine, "a").as_deref(), Some(&b"1"[..]));
    assert!(engine.state().unwrap().unclean);
}

/// The feeder's thread, readers and a writer at once: what a reader has seen it goes on seeing, and no count is ever wrong.
#[test]
fn readers_beside_a_writer_and_feeds_never_see_an_older_state() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let place = LoggedOnFile::new();
    let engine = place.open();
    let (done, keys) = (AtomicU64::new(0), 50_u64);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut scribe = Scribe::new();
            for round in 1..=300_u64 {
                engine.commit(&scribe.batch((0..keys).map(|key| put(format!("k{key}"), round.to_string())))).unwrap();
                if round % 20 == 0 {
                    engine.flush().unwrap();
                }
            }
            done.store(1, Ordering::SeqCst);
        });
        for reader in 0..2 {
            let (engine, done) = (&engine, &done);
            threads.spawn(move || {
                let mut seen = vec![0_u64; 50];
                let mut at = Seq::ZERO;
                while done.load(Ordering::SeqCst) == 0 {
                    for (key, seen) in seen.iter_mut().enumerate() {
                        let record = engine.get(Space::Data, &super::key(format!("k{key}"))).unwrap();
                        let now = record.map_or(0, |record| text_number(&record.content.value));
                        assert!(now >= *seen, "k{key} was {seen}, and now {now}");
                        *seen = now;
                    }
                    let stats = engine.stats().unwrap();
                    assert!(stats.keys == 0 || stats.keys == keys, "{} keys", stats.keys);
                    if reader == 0 {
                        let chunk = engine.chunk(Space::Data, None, usize::MAX).unwrap();
                        assert!(chunk.at >= at && chunk.at.0 % keys == 0, "{} after {at}", chunk.at);
                        at = chunk.at;
                        let round = (chunk.at.0 / keys).to_string();
                        let of_round = chunk.records.iter().filter(|(_, record)| record.ends_with(round.as_bytes()));
                        assert!(at == Seq::ZERO || of_round.count() as u64 == keys, "a walk shows one position");
                    }
                }
            });
        }
    });
}

fn text_number(text: &[u8]) -> u64 {
    String::from_utf8_lossy(text).parse().unwrap()
}
