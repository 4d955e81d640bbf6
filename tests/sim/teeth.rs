//! The checker itself: on a disk whose fsync lies, it must find that answered batches are lost. Each kind of lie stands for
//! a mistake in the code: not to sync the log, to let go of the log before the file is durable, not to sync its directory.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::crash::lives;
use super::disk::Lies;
use super::disk_with_a_copy;
use super::subject::{Direct, InFront, Subject};

/// On how many of 100 disks the lie is found.
fn found<S: Subject>(lies: Lies) -> usize {
    let find = |seed: &u64| {
        let disk = disk_with_a_copy();
        disk.lie(lies);
        let lived = catch_unwind(AssertUnwindSafe(|| lives::<S>(*seed, &disk)));
        !matches!(lived, Ok(Ok(_))) // redb panics on some of what such a disk leaves
    };
    let found = (0..100).filter(find).count();
    println!("{lies:?} was found on {found} of 100 disks");
    found
}

#[test]
fn lying_fsync_is_found_in_most_lives() {
    assert!(found::<Direct>(Lies::OfTheDatabase) >= 80);
}

#[test]
fn lying_fsync_of_the_log_is_found_in_most_lives() {
    assert!(found::<InFront>(Lies::OfTheLog) >= 80);
}

#[test]
fn lying_fsync_of_the_file_behind_a_log_is_found_in_most_lives() {
    assert!(found::<InFront>(Lies::OfTheDatabase) >= 80);
}

#[test]
fn lying_fsync_of_the_logs_directory_is_found_in_many_lives() {
    assert!(found::<InFront>(Lies::OfDirectories) >= 30);
}
