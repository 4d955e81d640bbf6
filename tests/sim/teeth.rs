//! The checker itself: on a disk whose fsync lies, it must find that answered batches are lost.

use super::crash::lives;
use super::disk_with_a_copy;

#[test]
fn lying_fsync_is_found_in_most_lives() {
    let disks = 40;
    let mut found = 0;
    for seed in 0..disks {
        let disk = disk_with_a_copy();
        disk.lie();
        found += u64::from(lives(seed, &disk).is_err());
    }
    println!("a lying fsync was found on {found} of {disks} disks");
    assert!(found * 10 >= disks * 9, "the checker found it on {found} of {disks} disks only");
}
