//! Invariant: compacting changes nothing that a file holds, whenever the power goes in it, and whichever call fails.

use ostraca::storage::{Batch, Engine, LogEntry, Trim, compact};
use ostraca::types::{
    Change, Content, Entry, Epoch, Incarnation, Key, Mutation, NodeName, Seq, ShardIndex, Space, UnixMs,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::disk::{Disk, Fault};
use super::model::{Memory, Model};
use super::workload::Workload;
use super::{disk_with_a_copy, fail, first_seed, open, runs};

/// Batches that a file has seen before it is compacted: enough to leave free pages behind.
const BATCHES: u64 = 60;

/// A closed file with a life behind it, and what it must hold.
fn lived_in(seed: u64) -> (Disk, Model) {
    let mut dice = StdRng::seed_from_u64(seed);
    let disk = disk_with_a_copy();
    let (mut workload, mut model) = (Workload::new(), Model::default());
    let engine = open(&disk).unwrap();
    for _ in 0..BATCHES {
        let batch = workload.batch(&mut dice, &model);
        engine.commit(&batch).unwrap();
        model = model.after(&batch);
    }
    drop(engine);
    (disk, model)
}

fn check(disk: &Disk, model: &Model) -> Result<(), String> {
    let engine = open(disk).map_err(|error| format!("it does not open any more: {error}"))?;
    model.check(&engine, Memory::Exact)
}

/// One entry that does the same to so many keys.
fn to_all_keys(seq: u64, keys: usize, change: &Change) -> Batch {
    let key = |n| Key::new(format!("key {n}").into_bytes(), 100).unwrap();
    let mutation = |n| Mutation { space: Space::Data, key: key(n), change: change.clone() };
    let entry = Entry {
        shard: ShardIndex(2),
        epoch: Epoch::first(NodeName::new("Mumbai/0")),
        incarnation: Incarnation(1),
        seq: Seq(seq),
        time: UnixMs(seq),
        mutations: (0..keys).map(mutation).collect(),
    };
    let append = vec![LogEntry { bytes: entry.encode(), entry }];
    Batch { append, apply_to: Some(Seq(seq)), ..Batch::default() }
}

#[test]
fn compacting_after_deletes_gives_space_back_and_keeps_everything() {
    let (disk, mut model) = (disk_with_a_copy(), Model::default());
    let engine = open(&disk).unwrap();
    let trim = Some(Trim { up_to: Seq(3), keep_bytes: 0, entries_max: 9 });
    let batches = [
        to_all_keys(1, 500, &Change::Put(Content::of(vec![7; 5000]))),
        to_all_keys(2, 490, &Change::Delete),
        Batch { trim, ..to_all_keys(3, 3, &Change::Put(Content::of("kept"))) },
    ];
    for batch in batches {
        engine.commit(&batch).unwrap();
        model = model.after(&batch);
    }
    drop(engine);
    let before = disk.contents().len();
    let contents = compact::on_backend(disk.clone()).unwrap();
    let after = disk.contents().len();
    assert!(after * 4 < before, "{before} bytes became {after}");
    assert_eq!((contents.identity.shard_name.as_str(), contents.end.0, contents.keys), ("Mumbai", 3, 13));
    check(&disk, &model).unwrap();
}

#[test]
fn compacting_cut_off_at_any_call_loses_nothing() {
    let (mut cut, mut finished) = (0, 0);
    let disks = runs().div_ceil(4);
    let files: Vec<_> = (0..4).map(lived_in).collect();
    for seed in first_seed()..first_seed() + disks {
        let mut dice = StdRng::seed_from_u64(seed);
        let (lived_in, model) = &files[dice.random_range(0..files.len())];
        let disk = Disk::new(lived_in.contents());
        disk.seed(dice.random());
        let fault = if dice.random_bool(0.7) { Fault::PowerCut } else { Fault::Error };
        if dice.random_bool(0.5) {
            disk.plan_at_sync(dice.random_range(1..25), fault);
        } else {
            disk.plan(dice.random_range(1..600), fault);
        }
        let done = compact::on_backend(disk.clone()).is_ok();
        finished += u64::from(done && disk.has_power());
        cut += u64::from(!done);
        disk.cut_power();
        disk.power_cycle();
        if let Err(what) = check(&disk, model) {
            fail("compacting_cut_off", seed, &what);
        }
        compact::on_backend(disk.clone()).unwrap_or_else(|fault| fail("compacting_cut_off", seed, &fault.to_string()));
        if let Err(what) = check(&disk, model) {
            fail("compacting_cut_off", seed, &format!("after the second attempt: {what}"));
        }
    }
    println!("{cut} cut off, {finished} finished, of {disks}");
    assert!(disks < 100 || cut.min(finished) > disks / 20, "it must see both: {cut} cut off, {finished} finished");
}
