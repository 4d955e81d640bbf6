//! One conformance suite for every engine: the promises of [`super::Engine`], and a random comparison of all of them.
//!
//! `promises` holds what every engine keeps, `failing` what it keeps after a commit went wrong, `random` compares the
//! engines with each other, `opening` is about files only, `beside` about a file and the log beside it.

mod beside;
mod failing;
mod fed;
mod opening;
mod promises;
mod random;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::redb::StorageBackend;
use ::redb::backends::InMemoryBackend;
use bytes::Bytes;
use tempfile::TempDir;

use super::logged::{Beside, Logged, Sizes};
use super::memory::{MemoryDisk, MemoryEngine};
use super::open::Options;
use super::redb::RedbEngine;
use super::{Batch, Engine, Identity, LogEntry, log};
use crate::random::Random;
use crate::types::key::KEY_BYTES_CEILING;
use crate::types::{
    Change, Content, Cursor, Entry, Epoch, Incarnation, Key, Mutation, NodeName, Seq, ShardIndex, Space, UnixMs,
};

/// A place where one engine at a time keeps a copy.
trait Subject {
    type Engine: Engine;

    /// Opens what the last engine left, or something new. The last one must have been dropped.
    fn open(&self) -> Self::Engine;
}

/// A database file in a directory of its own.
struct OnFile(TempDir);

impl OnFile {
    fn new() -> OnFile {
        OnFile(tempfile::tempdir().unwrap())
    }
}

impl Subject for OnFile {
    type Engine = RedbEngine;

    fn open(&self) -> RedbEngine {
        RedbEngine::open(&self.0.path().join("shard.redb"), &identity(), options()).unwrap()
    }
}

/// A backend in memory that outlives its database, and can refuse to write.
#[derive(Debug, Clone, Default)]
struct OnBackend(Arc<BackendState>);

#[derive(Debug, Default)]
struct BackendState {
    memory: InMemoryBackend,
    refuses_writes: AtomicBool,
}

impl OnBackend {
    fn refuse_writes(&self, refuse: bool) {
        self.0.refuses_writes.store(refuse, Ordering::SeqCst);
    }

    fn may_write(&self) -> io::Result<()> {
        if self.0.refuses_writes.load(Ordering::SeqCst) { Err(io::Error::other("no writes now")) } else { Ok(()) }
    }
}

impl Subject for OnBackend {
    type Engine = RedbEngine;

    fn open(&self) -> RedbEngine {
        self.refuse_writes(false);
        RedbEngine::on_backend(self.clone(), &identity(), options()).unwrap()
    }
}

impl StorageBackend for OnBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.may_write()?;
        self.0.memory.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.may_write()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.may_write()?;
        self.0.memory.write(offset, data)
    }
}

/// A database file with a log beside it, as a node opens it.
struct LoggedOnFile(TempDir);

impl LoggedOnFile {
    fn new() -> LoggedOnFile {
        LoggedOnFile(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("shard.redb")
    }
}

impl Subject for LoggedOnFile {
    type Engine = Logged;

    fn open(&self) -> Logged {
        Logged::open(&self.path(), &identity(), options(), Random::system()).unwrap()
    }
}

/// A backend with logs in a directory of their own, of small segments; nobody feeds the file but the test.
struct LoggedOnBackend {
    backend: OnBackend,
    directory: TempDir,
}

impl LoggedOnBackend {
    fn new() -> LoggedOnBackend {
        LoggedOnBackend { backend: OnBackend::default(), directory: tempfile::tempdir().unwrap() }
    }

    fn open_with(&self, sizes: Sizes) -> Logged {
        self.backend.refuse_writes(false);
        let place = Arc::new(Beside::file(&self.directory.path().join("shard")));
        let sizes = Sizes { log: log::Options { segment_bytes: 10_000, recent_bytes: 2000 }, ..sizes };
        Logged::on_backend(self.backend.clone(), place, &identity(), options(), sizes, Random::system()).unwrap()
    }
}

impl Subject for LoggedOnBackend {
    type Engine = Logged;

    fn open(&self) -> Logged {
        self.open_with(Sizes::default())
    }
}

/// Maps in memory.
#[derive(Default)]
struct InMemory(MemoryDisk);

impl Subject for InMemory {
    type Engine = MemoryEngine;

    fn open(&self) -> MemoryEngine {
        MemoryEngine::on(&self.0)
    }
}

/// Runs every promise on every engine, as a test each.
macro_rules! suite {
    ($($module:ident: $test:ident),* $(,)?) => {
        mod redb_on_a_file {
            $( #[test] fn $test() { super::$module::$test(&super::OnFile::new()) } )*
        }
        mod redb_on_a_backend {
            $( #[test] fn $test() { super::$module::$test(&super::OnBackend::default()) } )*
        }
        mod memory {
            $( #[test] fn $test() { super::$module::$test(&super::InMemory::default()) } )*
        }
        mod logged_on_a_file {
            $( #[test] fn $test() { super::$module::$test(&super::LoggedOnFile::new()) } )*
        }
        mod logged_on_a_backend {
            $( #[test] fn $test() { super::$module::$test(&super::LoggedOnBackend::new()) } )*
        }
        mod logged_and_fed {
            $( #[test] fn $test() { super::$module::$test(&super::fed::FedAtOnce(super::LoggedOnBackend::new())) } )*
        }
    };
}

suite! {
    promises: batch_is_visible_and_survives_reopening_as_a_whole,
    promises: batch_that_is_empty_changes_nothing,
    promises: entry_of_several_mutations_applies_all_in_order,
    promises: value_of_any_bytes_comes_back,
    promises: delete_of_nothing_is_logged_and_leaves_nothing,
    promises: append_without_apply_changes_the_log_only,
    promises: apply_reads_earlier_entries_from_the_log,
    promises: apply_takes_entries_of_both_earlier_and_this_batch,
    promises: append_out_of_order_panics_and_changes_nothing,
    promises: apply_out_of_bounds_panics,
    promises: history_gets_a_row_with_each_opening_that_writes,
    promises: if_newer_keeps_what_is_newer,
    promises: trim_stops_at_each_of_its_bounds,
    promises: trim_never_takes_what_is_not_applied,
    promises: trim_of_everything_leaves_an_end_to_append_to,
    promises: entries_that_are_gone_are_answered_trimmed,
    promises: entries_are_bounded_in_bytes_and_at_least_one,
    promises: chunk_walks_binary_keys_in_order_within_its_bound,
    promises: chunk_of_an_empty_copy_is_last,
    promises: snapshot_is_installed_adopted_and_completed,
    promises: adopt_replaces_log_and_history,
    promises: rewind_takes_back_the_end_and_the_log_goes_on_from_there,
    promises: rewind_of_everything_and_of_nothing,
    promises: rewind_beyond_what_is_applied_or_beside_entries_panics,
    promises: cursor_none_differs_from_never_seen,
    promises: identities_are_kept,
    promises: stats_count_keys_and_log,
}

/// An engine may trim a few small entries at once; of values of this size it takes one after the other.
const LARGE: usize = 5000;

/// The shard that all of these tests are about.
fn identity() -> Identity {
    Identity { shard_name: "Delhi".to_owned(), shard: ShardIndex(3), shard_count: 4, hash: "fnv1a".to_owned() }
}

fn options() -> Options {
    Options { cache_bytes: 4 << 20 }
}

fn key(bytes: impl Into<Bytes>) -> Key {
    Key::new(bytes, KEY_BYTES_CEILING).unwrap()
}

fn epoch(number: u64) -> Epoch {
    Epoch { number, leader: NodeName::new("Delhi/0") }
}

fn put(at: impl Into<Bytes>, value: impl Into<Bytes>) -> Mutation {
    Mutation { space: Space::Data, key: key(at), change: Change::Put(Content::of(value)) }
}

fn delete(at: impl Into<Bytes>) -> Mutation {
    Mutation { space: Space::Data, key: key(at), change: Change::Delete }
}

/// Writes entries as a leader would: one after the other, under one epoch and incarnation.
#[derive(Debug, Clone)]
struct Scribe {
    epoch: Epoch,
    incarnation: Incarnation,
    end: Seq,
}

impl Scribe {
    /// Writes the first entry of a log next.
    fn new() -> Scribe {
        Scribe { epoch: epoch(1), incarnation: Incarnation(1), end: Seq::ZERO }
    }

    /// The same log goes on after `seq`.
    fn after(seq: u64) -> Scribe {
        Scribe { end: Seq(seq), ..Scribe::new() }
    }

    /// The leader's file was opened again.
    fn reopened(self) -> Scribe {
        Scribe { incarnation: Incarnation(self.incarnation.0 + 1), ..self }
    }

    fn entry(&mut self, mutations: Vec<Mutation>) -> LogEntry {
        self.end = self.end.next();
        let entry = Entry {
            shard: identity().shard,
            epoch: self.epoch.clone(),
            incarnation: self.incarnation,
            seq: self.end,
            time: UnixMs(1_000 + self.end.0),
            mutations,
        };
        LogEntry { bytes: entry.encode(), entry }
    }

    /// A batch that appends one entry per mutation and applies them.
    fn batch(&mut self, mutations: impl IntoIterator<Item = Mutation>) -> Batch {
        let append: Vec<LogEntry> = mutations.into_iter().map(|mutation| self.entry(vec![mutation])).collect();
        Batch { append, apply_to: Some(self.end), ..Batch::default() }
    }

    fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch.clone(), incarnation: self.incarnation, seq: self.end }
    }
}

/// What a client would read: the value, or nothing.
fn value(engine: &impl Engine, at: impl Into<Bytes>) -> Option<Bytes> {
    let key = key(at);
    let record = engine.get(Space::Data, &key).unwrap();
    assert_eq!(engine.contains(Space::Data, &key).unwrap(), record.is_some(), "contains and get disagree");
    record.map(|record| record.content.value)
}
