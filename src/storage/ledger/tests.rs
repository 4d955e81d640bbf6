//! What a ledger promises: nothing is lost, listed twice, or passed over in silence, through crashes and damage.

use super::memory::Memory;
use super::*;
use crate::types::{Change, Content, Epoch, Incarnation, Mutation, NodeName, Space, UnixMs};

fn entry(seq: u64, value: &str) -> Entry {
    let key = Key::new(format!("k{seq}").into_bytes(), 100).unwrap();
    let change = Change::Put(Content::of(value.to_owned()));
    Entry {
        shard: ShardIndex(0),
        epoch: Epoch::first(NodeName::new("A/0")),
        incarnation: Incarnation(1),
        seq: Seq(seq),
        time: UnixMs(seq),
        mutations: vec![Mutation { space: Space::Data, key, change }],
    }
}

fn back() -> Return {
    let superseded_by = Epoch { number: 2, leader: NodeName::new("A/1") };
    Return { common: Seq(0), end: Seq(9), superseded_by, complete: true, at: UnixMs(5) }
}

fn listed(ledger: &Ledger) -> (Vec<u64>, Option<String>) {
    let (mut at, mut seqs, mut damage) = (0, Vec::new(), None);
    loop {
        let part = ledger.read(at).unwrap();
        damage = damage.or(part.damage);
        let Some(body) = part.body else { return (seqs, damage) };
        seqs.extend(ledger.entries(body).unwrap().iter().map(|entry| entry.seq.0));
        at = part.next;
    }
}

fn ledger() -> (Arc<Memory>, Ledger) {
    let memory = Arc::new(Memory::default());
    let ledger = Ledger::in_directory(Arc::clone(&memory) as Arc<dyn Directory>, ShardIndex(0), Random::seeded(7));
    (memory, ledger)
}

fn reopened(memory: &Arc<Memory>) -> Ledger {
    Ledger::in_directory(Arc::clone(memory) as Arc<dyn Directory>, ShardIndex(0), Random::seeded(8))
}

fn size(memory: &Memory) -> u64 {
    memory.open(NAME).unwrap().size().unwrap()
}

#[test]
fn ledger_that_was_never_begun_is_empty_and_makes_no_file() {
    let (memory, ledger) = ledger();
    assert_eq!(ledger.summary(), Ok(Summary::default()));
    assert_eq!(listed(&ledger), (vec![], None));
    assert!(memory.list().unwrap().is_empty());
}

#[test]
fn ledger_lists_what_was_appended_after_a_restart_too_and_nothing_twice() {
    let (memory, ledger) = ledger();
    let mut session = ledger.open(|_| true).unwrap();
    session.append(&back(), &[entry(1, "a"), entry(2, "b")], 1 << 20).unwrap();
    drop(session);
    let ledger = reopened(&memory);
    let mut session = ledger.open(|entry| entry.seq > Seq(1)).unwrap();
    assert!(!session.lists(&entry(1, "a")), "it is none of those that the copy is about to list");
    assert!(session.lists(&entry(2, "b")) && !session.lists(&entry(3, "c")));
    session.append(&back(), &[entry(3, "c")], 1 << 20).unwrap();
    assert_eq!(listed(&ledger), (vec![1, 2, 3], None));
    assert_eq!(ledger.summary().unwrap(), Summary { writes: 3, bytes: size(&memory) });
    let (third, other) = (entry(3, "c"), entry(4, "d"));
    assert_eq!(ledger.lists(&third.mutations[0].key, third.version()), Ok(true));
    assert_eq!(ledger.lists(&third.mutations[0].key, other.version()), Ok(false));
    assert_eq!(ledger.lists(&other.mutations[0].key, third.version()), Ok(false));
}

#[test]
fn ledger_at_its_bound_refuses_and_keeps_what_it_has() {
    let (memory, ledger) = ledger();
    let mut session = ledger.open(|_| true).unwrap();
    session.append(&back(), &[entry(1, "a")], 200).unwrap();
    let refused = session.append(&back(), &[entry(2, &"b".repeat(100))], 200).unwrap_err();
    assert!(matches!(refused, Error::Full { max: 200, .. }), "{refused}");
    assert!(refused.to_string().contains("storage.ledger_bytes_max"));
    assert_eq!(listed(&ledger), (vec![1], None));
    // Moved away, another begins.
    drop(session);
    memory.remove(NAME).unwrap();
    assert_eq!(ledger.summary(), Ok(Summary::default()));
    ledger.open(|_| true).unwrap().append(&back(), &[entry(2, "b")], 200).unwrap();
    assert_eq!(listed(&ledger), (vec![2], None));
}

/// A crash may leave any beginning of the last frame, and nothing of the others.
#[test]
fn ledger_cut_at_any_byte_lists_the_frames_before_it_and_goes_on() {
    let (memory, whole) = ledger();
    let mut session = whole.open(|_| true).unwrap();
    session.append(&back(), &[entry(1, "a")], 1 << 20).unwrap();
    let first = size(&memory);
    session.append(&back(), &[entry(2, "b")], 1 << 20).unwrap();
    drop(session);
    let file = memory.open(NAME).unwrap();
    let bytes = read(&*file, 0, size(&memory)).unwrap();
    for cut in 0..bytes.len() {
        let memory = Arc::new(Memory::default());
        memory.create(NAME).unwrap().write_at(0, &bytes[..cut]).unwrap();
        let ledger = reopened(&memory);
        let expected: &[u64] = if (cut as u64) < first { &[] } else { &[1] };
        if cut as u64 >= HEADER_BYTES {
            assert_eq!(listed(&ledger), (expected.to_vec(), None), "cut at {cut}");
        }
        let mut session = ledger.open(|_| true).unwrap();
        session.append(&back(), &[entry(3, "c")], 1 << 20).unwrap();
        drop(session);
        assert_eq!(listed(&ledger), ([expected, &[3]].concat(), None), "cut at {cut}");
        assert_eq!(listed(&reopened(&memory)).0, [expected, &[3]].concat(), "cut at {cut}");
    }
}

#[test]
fn ledger_damaged_in_the_middle_says_so_lists_the_rest_and_takes_nothing_more() {
    let (memory, ledger) = ledger();
    let mut session = ledger.open(|_| true).unwrap();
    session.append(&back(), &[entry(1, "a")], 1 << 20).unwrap();
    let second = size(&memory);
    session.append(&back(), &[entry(2, "b")], 1 << 20).unwrap();
    let third = size(&memory);
    session.append(&back(), &[entry(3, "c")], 1 << 20).unwrap();
    drop(session);
    let file = memory.open(NAME).unwrap();
    for at in [second, second + 12, second + HEAD_BYTES + 3, third - 1] {
        let mut byte = [0];
        file.read_at(at, &mut byte).unwrap();
        file.write_at(at, &[byte[0] ^ 4]).unwrap();
        let (seqs, damage) = listed(&reopened(&memory));
        assert_eq!(seqs, [1, 3], "byte {at}");
        assert!(damage.unwrap().contains(&format!("byte {second}")));
        assert!(matches!(reopened(&memory).open(|_| true), Err(Error::Damaged { .. })), "byte {at}");
        file.write_at(at, &byte).unwrap();
    }
    assert_eq!(listed(&reopened(&memory)), (vec![1, 2, 3], None));
    file.write_at(3, b"x").unwrap();
    assert!(matches!(reopened(&memory).open(|_| true), Err(Error::Damaged { .. })), "its header");
}

#[test]
fn ledger_of_another_shard_is_refused() {
    let (memory, ledger) = ledger();
    ledger.open(|_| true).unwrap().append(&back(), &[entry(1, "a")], 1 << 20).unwrap();
    let other = Ledger::in_directory(memory, ShardIndex(1), Random::seeded(8));
    assert!(matches!(other.open(|_| true), Err(Error::Damaged { .. })));
}
