//! Files: how they come to be, and which are refused, with their contents left alone.

use std::fs;
use std::path::{Path, PathBuf};

use ::redb::{Database, ReadableTable};
use tempfile::TempDir;

use super::{OnFile, Scribe, identity, key, options, put, value};
use crate::storage::layout::{DATA, FORMAT, LOG, META};
use crate::storage::open::{OpenFault, incoming_path, replace};
use crate::storage::redb::RedbEngine;
use crate::storage::{Batch, Engine, Error, Identity};
use crate::types::{Seq, ShardIndex, Space};

/// A directory with a closed file that holds two entries.
fn closed_file() -> (TempDir, PathBuf) {
    let OnFile(dir) = OnFile::new();
    let path = dir.path().join("shard.redb");
    open(&path).unwrap().commit(&Scribe::new().batch([put("a", "1"), put("b", "2")])).unwrap();
    (dir, path)
}

fn open(path: &Path) -> Result<RedbEngine, OpenFault> {
    open_as(path, &identity())
}

fn open_as(path: &Path, identity: &Identity) -> Result<RedbEngine, OpenFault> {
    RedbEngine::open(path, identity, options()).map_err(|error| {
        assert!(!error.remedy().is_empty() && error.to_string().contains(&*path.to_string_lossy()));
        error.fault
    })
}

/// Changes a closed file behind the engine's back.
fn tamper(path: &Path, change: impl FnOnce(&::redb::WriteTransaction)) {
    let txn = Database::open(path).unwrap().begin_write().unwrap();
    change(&txn);
    txn.commit().unwrap();
}

#[test]
fn open_creates_directory_and_file_and_leaves_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one/two/shard.redb");
    let engine = open(&path).unwrap();
    assert_eq!(engine.state().unwrap().history.end(), Seq::ZERO);
    let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["shard.redb"]);
    assert!(engine.free_bytes().unwrap() > 0);
    assert!(engine.stats().unwrap().file_bytes > 0);
}

#[test]
fn open_after_a_crash_in_the_first_creation_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard.redb");
    fs::write(dir.path().join("shard.redb.new"), b"redb, and then the power went").unwrap();
    open(&path).unwrap().commit(&Scribe::new().batch([put("a", "1")])).unwrap();
    assert_eq!(value(&open(&path).unwrap(), "a").as_deref(), Some(&b"1"[..]));
}

#[test]
fn open_twice_is_refused_as_held() {
    let (_dir, path) = closed_file();
    let engine = open(&path).unwrap();
    let held = open(&path).unwrap_err();
    assert!(matches!(held, OpenFault::Held { .. }), "{held:?}");
    if cfg!(target_os = "linux") {
        assert_eq!(held, OpenFault::Held { pid: Some(std::process::id()) });
    }
    drop(engine);
    open(&path).unwrap();
}

#[test]
fn open_with_another_identity_is_refused_and_changes_nothing() {
    let (_dir, path) = closed_file();
    let fault = |change: fn(&mut Identity)| {
        let mut wanted = identity();
        change(&mut wanted);
        open_as(&path, &wanted).unwrap_err()
    };
    assert!(matches!(fault(|wanted| wanted.shard_name = "Mumbai".to_owned()), OpenFault::Shard { .. }));
    assert!(matches!(fault(|wanted| wanted.shard = ShardIndex(2)), OpenFault::Shard { .. }));
    assert_eq!(fault(|wanted| wanted.shard_count = 5), OpenFault::ShardCount { found: 4, wanted: 5 });
    assert!(matches!(fault(|wanted| wanted.hash = "fnv1".to_owned()), OpenFault::Hash { .. }));
    assert_eq!(value(&open(&path).unwrap(), "a").as_deref(), Some(&b"1"[..]));
}

#[test]
fn open_of_another_format_is_refused() {
    let (_dir, path) = closed_file();
    tamper(&path, |txn| {
        txn.open_table(META).unwrap().insert("format", &(FORMAT + 1).to_be_bytes()[..]).unwrap();
    });
    assert_eq!(open(&path).unwrap_err(), OpenFault::Format { found: FORMAT + 1, known: FORMAT });
}

#[test]
fn open_of_a_strangers_file_is_refused_and_leaves_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard.redb");
    for bytes in [&b""[..], b"x", b"a text that somebody wrote", &[0; 8192]] {
        fs::write(&path, bytes).unwrap();
        assert!(matches!(open(&path).unwrap_err(), OpenFault::Foreign(_)), "{} bytes", bytes.len());
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
    fs::remove_file(&path).unwrap();
    let table: ::redb::TableDefinition<'_, u64, u64> = ::redb::TableDefinition::new("theirs");
    let txn = Database::create(&path).unwrap().begin_write().unwrap();
    txn.open_table(table).unwrap().insert(1, 2).unwrap();
    txn.commit().unwrap();
    assert!(matches!(open(&path).unwrap_err(), OpenFault::Foreign(_)), "another program's redb file");
    let txn = ::redb::ReadableDatabase::begin_read(&Database::open(&path).unwrap()).unwrap();
    assert_eq!(txn.open_table(table).unwrap().get(1).unwrap().unwrap().value(), 2);
}

#[test]
fn open_of_a_truncated_file_is_refused_as_damaged() {
    let (_dir, path) = closed_file();
    let bytes = fs::read(&path).unwrap();
    for keep in [9, 100, 4096, bytes.len() / 2] {
        fs::write(&path, &bytes[..keep]).unwrap();
        let fault = open(&path).unwrap_err();
        assert!(matches!(fault, OpenFault::Damaged(_)), "{keep} bytes: {fault:?}");
        assert_eq!(fs::read(&path).unwrap(), &bytes[..keep]);
    }
}

#[test]
fn open_where_the_directory_cannot_be_made_says_so() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), b"in the way").unwrap();
    let fault = open(&dir.path().join("file/shard.redb")).unwrap_err();
    assert!(matches!(fault, OpenFault::Directory(_)), "{fault:?}");
}

#[test]
fn open_of_a_log_with_a_gap_is_refused_as_damaged() {
    let (_dir, path) = closed_file();
    tamper(&path, |txn| drop(txn.open_table(LOG).unwrap().remove(2).unwrap()));
    let fault = open(&path).unwrap_err();
    assert!(matches!(fault, OpenFault::Damaged(_)), "{fault:?}");
}

#[test]
fn incoming_left_over_is_replaced_and_does_not_serve() {
    let (_dir, serving) = closed_file();
    let path = incoming_path(&serving);
    let incoming = || RedbEngine::create_incoming(&path, &identity(), options());
    let engine = incoming().unwrap();
    assert!(engine.state().unwrap().incoming);
    engine.commit(&Scribe::new().batch([put("half", "received")])).unwrap();
    assert!(matches!(incoming().unwrap_err().fault, OpenFault::Held { .. }), "one snapshot at a time");
    drop(engine);
    assert_eq!(open(&path).unwrap_err(), OpenFault::Incoming);
    let engine = incoming().unwrap();
    assert_eq!(value(&engine, "half"), None, "begun anew");
    assert_eq!(engine.state().unwrap().history.end(), Seq::ZERO);
}

#[test]
fn incoming_complete_takes_the_serving_files_place_while_open() {
    let (dir, serving) = closed_file();
    let old = open(&serving).unwrap();
    let path = incoming_path(&serving);
    let engine = RedbEngine::create_incoming(&path, &identity(), options()).unwrap();
    let mut scribe = Scribe::new();
    engine.commit(&Batch { incoming: Some(false), ..scribe.batch([put("a", "received")]) }).unwrap();
    replace(&path, &serving).unwrap();
    assert_eq!(value(&old, "a").as_deref(), Some(&b"1"[..]), "readers of the old file go on");
    drop(old);
    engine.commit(&scribe.batch([put("b", "after")])).unwrap();
    drop(engine);
    let engine = open(&serving).unwrap();
    assert_eq!(value(&engine, "a").as_deref(), Some(&b"received"[..]));
    assert_eq!(value(&engine, "b").as_deref(), Some(&b"after"[..]));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn damaged_record_is_an_error_of_that_read_only() {
    let (_dir, path) = closed_file();
    tamper(&path, |txn| {
        txn.open_table(DATA).unwrap().insert(&b"a"[..], &b"\xff rubbish"[..]).unwrap();
    });
    let engine = open(&path).unwrap();
    let read = engine.get(Space::Data, &key("a"));
    assert!(matches!(read, Err(Error::Corrupt(_))), "{read:?}");
    assert_eq!(value(&engine, "b").as_deref(), Some(&b"2"[..]));
    engine.commit(&Scribe::after(2).batch([put("a", "mended")])).unwrap();
    assert_eq!(value(&engine, "a").as_deref(), Some(&b"mended"[..]));
}

#[test]
fn damaged_log_entry_is_an_error_when_it_is_applied() {
    let (_dir, path) = closed_file();
    let engine = open(&path).unwrap();
    engine.commit(&Batch { apply_to: None, ..Scribe::after(2).batch([put("a", "later")]) }).unwrap();
    drop(engine);
    tamper(&path, |txn| {
        let mut log = txn.open_table(LOG).unwrap();
        let mut bytes = log.get(3).unwrap().unwrap().value().to_vec();
        bytes[10] ^= 1;
        log.insert(3, &bytes[..]).unwrap();
    });
    let engine = open(&path).unwrap();
    let applied = engine.commit(&Batch { apply_to: Some(Seq(3)), ..Batch::default() });
    assert!(matches!(applied, Err(Error::Corrupt(_))), "{applied:?}");
    assert!(matches!(engine.state(), Err(Error::Failed(_))), "a commit that failed is final");
    drop(engine);
    assert_eq!(value(&open(&path).unwrap(), "a").as_deref(), Some(&b"1"[..]), "nothing of it was applied");
}

#[test]
fn unclean_is_what_a_crash_leaves() {
    let (_dir, path) = closed_file();
    assert!(!open(&path).unwrap().state().unwrap().unclean);
    let engine = open(&path).unwrap();
    engine.commit(&Scribe::after(2).batch([put("c", "3")])).unwrap();
    let crashed = path.with_extension("copy");
    fs::copy(&path, &crashed).unwrap(); // all that was synced, and no proper closing
    let engine = open(&crashed).unwrap();
    assert!(engine.state().unwrap().unclean);
    assert_eq!(value(&engine, "c").as_deref(), Some(&b"3"[..]));
}
