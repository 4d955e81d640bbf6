//! A copy comes back to its leader's history (rule 21), and the power goes at each call of the disk on the way: in the
//! listing of what was lost, in the rewind, and in the recovery. Whenever it was, nothing is taken back that is not listed,
//! nothing is listed twice, and the copy is the one before or the one after.

use ostraca::random::Random;
use ostraca::storage::ledger::{Ledger, Page, Return};
use ostraca::storage::log::LogId;
use ostraca::storage::logged::Place;
use ostraca::storage::{Batch, Engine, Rewind};
use ostraca::types::{
    Change, Content, Cursor, Entry, Epoch, Incarnation, Key, Mutation, NodeName, Record, Seq, ShardIndex, Space,
    UnixMs, Version,
};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::disk::{Disk, Fault};
use super::logs::Logs;
use super::model::Model;
use super::subject::{Direct, InFront, Subject};
use super::{disk_with_a_copy, first_seed, identity};

/// The last entry that copy and leader have in common.
const COMMON: u64 = 20;
/// Entries that were lost.
const LOST: u64 = 15;
/// Where the ledger stands on the disk.
const LEDGER: LogId = LogId(0xfeed);
/// No return takes so many calls.
const CALLS_MAX: u64 = 2000;

#[test]
fn rewind_cut_off_at_each_call_is_done_or_not_and_lists_everything_once() {
    at_each_call::<Direct>();
}

#[test]
fn rewind_with_a_log_in_front_cut_off_at_each_call_is_done_or_not_and_lists_everything_once() {
    at_each_call::<InFront>();
}

fn at_each_call<S: Subject>() {
    let (mut before, mut after) = (0, 0);
    for call in 1..CALLS_MAX {
        match cut_at::<S>(call) {
            Some(true) => after += 1,
            Some(false) => before += 1,
            None => {
                println!("{before} cuts left the copy as it was, {after} found it rewound");
                assert!(before > 5 && after > 0, "a return takes several calls: {before}, {after}");
                return;
            }
        }
    }
    panic!("a return does not end");
}

/// Whether the copy was rewound when the power came back; none when the return makes no such call.
fn cut_at<S: Subject>(call: u64) -> Option<bool> {
    let disk = disk_with_a_copy();
    disk.seed(first_seed() ^ call);
    let mut dice = StdRng::seed_from_u64(first_seed());
    let (workload, mut model) = (S::workload(), Model::default());
    let engine = S::open(&disk).unwrap();
    while model.end < COMMON {
        let batch = entry(model.end + 1, format!("common {}", model.end));
        commit(&*engine, &mut model, &batch);
    }
    S::beside(&engine, &disk, &mut dice, &workload, &mut model, true).unwrap();
    while model.end < COMMON + LOST {
        let batch = entry(model.end + 1, format!("lost {}", model.end));
        commit(&*engine, &mut model, &batch);
    }
    drop(ledger(&disk)); // its directory is there, as a node's is
    let (lost, rewound) = (model.clone(), model.after(&rewind()));
    disk.plan(call, Fault::PowerCut);
    let returned = come_back(&*engine, &disk);
    let is_over = disk.is_planned();
    disk.cut_power();
    drop(engine);
    disk.power_cycle();
    if is_over {
        assert_eq!(returned, Ok(()));
    }
    let engine = S::open(&disk).unwrap_or_else(|error| panic!("call {call}: it does not open: {error}"));
    let is_rewound = match (lost.check(&*engine, S::MEMORY), rewound.check(&*engine, S::MEMORY)) {
        (Ok(()), Err(_)) => false,
        (Err(_), Ok(())) => true,
        (without, with) => panic!("call {call}: neither the copy before ({without:?}) nor the one after ({with:?})"),
    };
    if is_rewound {
        assert_eq!(listed(&disk), expected(), "call {call}: it was taken back, and has to be listed");
    } else {
        come_back(&*engine, &disk).unwrap_or_else(|what| panic!("call {call}: once more: {what}"));
        rewound.check(&*engine, S::MEMORY).unwrap_or_else(|what| panic!("call {call}: after the second time: {what}"));
        assert_eq!(listed(&disk), expected(), "call {call}: after the second time");
    }
    // It follows on, and what it held is there after the next death.
    let mut model = rewound;
    commit(&*engine, &mut model, &entry(COMMON + 1, "the leader's".into()));
    disk.cut_power();
    drop(engine);
    disk.power_cycle();
    model.check(&*S::open(&disk).unwrap(), S::MEMORY).unwrap_or_else(|what| panic!("call {call}: at the end: {what}"));
    (!is_over).then_some(is_rewound)
}

fn commit(engine: &dyn Engine, model: &mut Model, batch: &Batch) {
    engine.commit(batch).unwrap();
    *model = model.after(batch);
}

/// What a copy does that comes back: lists what is not listed, in two frames, and rewinds.
fn come_back(engine: &dyn Engine, disk: &Disk) -> Result<(), String> {
    let ledger = ledger(disk)?;
    let mut session = ledger.open(|entry| entry.seq > Seq(COMMON)).map_err(|error| error.to_string())?;
    let lost: Vec<Entry> = (COMMON + 1..=COMMON + LOST).map(lost_entry).collect();
    for half in lost.chunks(8) {
        let new: Vec<Entry> = half.iter().filter(|entry| !session.lists(entry)).cloned().collect();
        if !new.is_empty() {
            session.append(&back(), &new, 1 << 30).map_err(|error| error.to_string())?;
        }
    }
    engine.commit(&rewind()).map_err(|error| error.to_string())
}

fn ledger(disk: &Disk) -> Result<Ledger, String> {
    let directory = Logs(disk.clone()).create(LEDGER).map_err(|fault| fault.to_string())?;
    Ok(Ledger::in_directory(directory, identity().shard, Random::seeded(1)))
}

fn listed(disk: &Disk) -> Vec<u64> {
    let (ledger, mut at, mut seqs) = (ledger(disk).unwrap(), 0, Vec::new());
    loop {
        let part = ledger.read(at).unwrap();
        assert_eq!(part.damage, None);
        let Some(body) = part.body else { return seqs };
        let entries = Page::decode(body).unwrap().entries.into_iter();
        seqs.extend(entries.map(|bytes| Entry::decode(bytes).unwrap().seq.0));
        at = part.next;
    }
}

fn expected() -> Vec<u64> {
    (COMMON + 1..=COMMON + LOST).collect()
}

fn back() -> Return {
    let superseded_by = Epoch { number: 2, leader: NodeName::new("Mumbai/1") };
    Return { common: Seq(COMMON), end: Seq(COMMON + LOST), superseded_by, complete: true, at: UnixMs(1) }
}

/// Every lost entry touched a key that is also among the common ones.
fn rewind() -> Batch {
    let record = |seq: u64| {
        let version = Version::Log { epoch: 1, seq: Seq(seq), incarnation: Incarnation(1) };
        (!seq.is_multiple_of(3)).then(|| Record { version, content: Content::of(format!("theirs {seq}")) }.encode())
    };
    let keys = (COMMON + 1..=COMMON + LOST).map(key_of).collect::<std::collections::BTreeSet<_>>();
    let replace = keys.into_iter().zip(1..).map(|(key, seq)| (Space::Data, key, record(seq))).collect();
    let epoch = Epoch { number: 2, leader: NodeName::new("Mumbai/1") };
    let settles_at = Some(Cursor { epoch, incarnation: Incarnation(2), seq: Seq(COMMON + 5) });
    Batch { rewind: Some(Rewind { to: Seq(COMMON), replace, settles_at }), ..Batch::default() }
}

fn key_of(seq: u64) -> Key {
    Key::new(format!("key {}", seq % 7).into_bytes(), 100).unwrap()
}

fn lost_entry(seq: u64) -> Entry {
    entry(seq, format!("lost {}", seq - 1)).append.remove(0).entry
}

fn entry(seq: u64, value: String) -> Batch {
    let mutation = Mutation { space: Space::Data, key: key_of(seq), change: Change::Put(Content::of(value)) };
    let entry = Entry {
        shard: ShardIndex(2),
        epoch: Epoch::first(NodeName::new("Mumbai/0")),
        incarnation: Incarnation(1),
        seq: Seq(seq),
        time: UnixMs(seq),
        mutations: vec![mutation],
    };
    let append = vec![ostraca::storage::LogEntry { bytes: entry.encode(), entry }];
    Batch { append, apply_to: Some(Seq(seq)), ..Batch::default() }
}
