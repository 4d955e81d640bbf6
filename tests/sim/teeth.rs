//! The checker itself: on a disk whose fsync lies, it must find that answered batches are lost.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::crash::lives;
use super::disk_with_a_copy;

#[test]
fn lying_fsync_is_found_in_most_lives() {
    let disks = 40;
    let mut found = 0;
    for seed in 0..disks {
        let disk = disk_with_a_copy();
        disk.lie();
        let lived = catch_unwind(AssertUnwindSafe(|| lives(seed, &disk)));
        found += u64::from(!matches!(lived, Ok(Ok(_)))); // redb panics on some of what such a disk leaves
    }
    println!("a lying fsync was found on {found} of {disks} disks");
    assert!(found * 10 >= disks * 9, "the checker found it on {found} of {disks} disks only");
}
