//! The store on a simulated disk, one invariant per file.
//!
//! - [`compact`]: the same in the middle of giving space back.
//! - [`crash`]: the power goes at any call, in a recovery too: what was committed is there, as a whole.
//! - [`io_error`]: any one call fails: nothing is lost, torn or unopenable, and the engine says that it failed.
//! - [`rewind`]: the power goes at each call of a copy's return: it is done or not, and what was lost is listed once.
//! - [`teeth`]: the same checker on a disk whose fsync lies must find what is lost.
//! - [`visible`]: nothing is shown before it is durable.
//!
//! Crashes and errors strike the two engines of [`subject`]: redb alone, and the log in front of it.
//!
//! Every run is made of one number. A failure prints it with the command that runs it again; `OSTRACA_SIM_RUNS` sets how
//! many are made (600 disks of five crashes each are usual), `OSTRACA_SIM_SEED` the first.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests panic")]

mod compact;
mod crash;
mod disk;
mod io_error;
mod logs;
mod model;
mod rewind;
mod sectors;
mod subject;
mod teeth;
mod visible;
mod workload;

use ostraca::storage::Identity;
use ostraca::storage::open::{OpenError, Options};
use ostraca::storage::redb::RedbEngine;
use ostraca::types::ShardIndex;

use disk::Disk;

/// The first seed of a run of many.
fn first_seed() -> u64 {
    number("OSTRACA_SIM_SEED").unwrap_or(0)
}

/// How many seeds are run.
fn runs() -> u64 {
    number("OSTRACA_SIM_RUNS").unwrap_or(600)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")))
}

/// Fails a test with the command that runs the same again.
fn fail(test: &str, seed: u64, what: &str) -> ! {
    panic!("seed {seed}: {what}\nagain: OSTRACA_SIM_SEED={seed} OSTRACA_SIM_RUNS=1 cargo test --test sim {test}")
}

fn identity() -> Identity {
    Identity { shard_name: "Mumbai".to_owned(), shard: ShardIndex(2), shard_count: 4, hash: "fnv1a".to_owned() }
}

/// Opens the copy on a disk, without a log. The cache is too small to answer reads, so that they reach the disk.
fn open(disk: &Disk) -> Result<RedbEngine, OpenError> {
    RedbEngine::on_backend(disk.clone(), &identity(), Options { cache_bytes: 16 << 10 })
}

/// A disk with an empty copy, properly closed. (Creation on a real disk happens under another name, and is not part of
/// what must survive.)
fn disk_with_a_copy() -> Disk {
    use std::sync::OnceLock;
    static MADE: OnceLock<Vec<u8>> = OnceLock::new();
    let contents = MADE.get_or_init(|| {
        let disk = Disk::new(Vec::new());
        drop(open(&disk).unwrap());
        disk.contents()
    });
    Disk::new(contents.clone())
}
