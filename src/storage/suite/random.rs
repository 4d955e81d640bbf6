//! Random batches on the engine in memory and on redb: after each batch, and after a reopening, both say the same.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{InMemory, LoggedOnBackend, OnBackend, Scribe, Subject, delete, epoch, key, put};
use crate::storage::{ApplyRule, Batch, Engine, Rewind, State, Trim};
use crate::types::{
    ClusterUid, Content, Cursor, Epoch, History, HistoryRow, Incarnation, NodeName, Record, Seq, ShardUid, Space,
    Version,
};

/// A key, and the seq of its record; none: there is none.
type Replaced = (u8, Option<u64>);

/// What a batch shall be, in terms of where the copy stands when it comes.
#[derive(Debug, Clone)]
struct Wish {
    /// Entries of so many mutations: a key of a few, and a value's length, or a delete.
    entries: Vec<Vec<(u8, Option<usize>)>>,
    /// How much of what is not applied is applied, in tenths.
    apply_tenths: Option<u64>,
    if_newer: bool,
    install: Vec<(u8, u64)>,
    adopt_beyond: Option<u64>,
    cursor: Option<(u8, Option<u64>)>,
    trim: Option<(u64, u64, usize)>,
    reopens_leader: bool,
    new_epoch: bool,
    uids: Option<u64>,
    incoming: Option<bool>,
    /// Instead of all the above but the facts: back to so many tenths of what is applied, with these records.
    rewind: Option<(u64, Vec<Replaced>)>,
}

fn wish() -> impl Strategy<Value = Wish> {
    let entry = vec((0_u8..12, proptest::option::of(0_usize..300)), 0..4);
    let rarely = |p| proptest::option::weighted(p, any::<u64>());
    (
        (vec(entry, 0..6), proptest::option::weighted(0.8, 0_u64..=10), proptest::bool::weighted(0.2)),
        (vec((0_u8..12, 1_u64..60), 0..2), proptest::option::weighted(0.05, 0_u64..5)),
        proptest::option::weighted(0.3, (0_u8..3, proptest::option::of(0_u64..50))),
        proptest::option::weighted(0.3, (0_u64..60, 0_u64..2000, 0_usize..8)),
        (proptest::bool::weighted(0.2), proptest::bool::weighted(0.1), rarely(0.1)),
        proptest::option::weighted(0.05, any::<bool>()),
        proptest::option::weighted(0.08, (0_u64..=10, vec((0_u8..12, proptest::option::of(1_u64..60)), 0..6))),
    )
        .prop_map(
            |((entries, apply_tenths, if_newer), (install, adopt_beyond), cursor, trim, leader, incoming, rewind)| {
                Wish {
                    entries,
                    apply_tenths,
                    if_newer,
                    install,
                    adopt_beyond,
                    cursor,
                    trim,
                    reopens_leader: leader.0,
                    new_epoch: leader.1,
                    uids: leader.2,
                    incoming,
                    rewind,
                }
            },
        )
}

/// The batch of a wish to rewind. What comes behind it is written by another leader.
fn rewinding(tenths: u64, records: Vec<Replaced>, scribe: &mut Scribe, applied: Seq) -> Batch {
    let to = Seq(applied.0 * tenths / 10);
    (scribe.end, scribe.incarnation) = (to, Incarnation(scribe.incarnation.0 + 1));
    let record = |(name, seq): Replaced| {
        let record = |seq| Record {
            version: Version::Log { epoch: 1, seq: Seq(seq), incarnation: Incarnation(9) },
            content: Content::of(format!("theirs {seq}")),
        };
        (Space::Data, key(vec![b'k', name]), seq.map(|seq| record(seq).encode()))
    };
    let settles_at = (tenths > 5).then(|| scribe.cursor());
    let rewind = Rewind { to, replace: records.into_iter().map(record).collect(), settles_at };
    Batch { rewind: Some(rewind), ..Batch::default() }
}

/// The batch that a wish means to a copy that stands where `scribe` wrote last, with `applied` applied.
fn batch(wish: Wish, scribe: &mut Scribe, applied: Seq) -> Batch {
    let mut applied = applied;
    if let Some((tenths, records)) = wish.rewind {
        let facts = (wish.uids.map(ShardUid), wish.uids.map(|uid| ClusterUid(!uid)));
        let batch = rewinding(tenths, records, scribe, applied);
        return Batch { shard_uid: facts.0, cluster_uid: facts.1, ..batch };
    }
    if wish.new_epoch {
        scribe.epoch = epoch(scribe.epoch.number + 1);
    }
    if wish.reopens_leader {
        scribe.incarnation = Incarnation(scribe.incarnation.0 + 1);
    }
    let adopt = wish.adopt_beyond.map(|more| {
        scribe.end = Seq(scribe.end.0 + more + 1);
        applied = scribe.end;
        let Scribe { epoch, incarnation, end } = scribe.clone();
        History::new(vec![HistoryRow { epoch, incarnation, first: Seq(1) }], end).unwrap()
    });
    let mutation = |(name, length): (u8, Option<usize>)| match length {
        Some(length) => put(vec![b'k', name], vec![name; length]),
        None => delete(vec![b'k', name]),
    };
    let entries = wish.entries.into_iter();
    let append = entries.map(|entry| scribe.entry(entry.into_iter().map(mutation).collect())).collect();
    let to = |tenths| Seq(applied.0 + scribe.end.since(applied) * tenths / 10);
    let record = |seq| Record {
        version: Version::Log { epoch: 1, seq: Seq(seq), incarnation: Incarnation(9) },
        content: Content::of(format!("installed {seq}")),
    };
    let cursor = |seq| Cursor { epoch: Epoch::first(NodeName::new("x")), incarnation: Incarnation(4), seq: Seq(seq) };
    Batch {
        append,
        existed: Vec::new(),
        apply_to: wish.apply_tenths.map(to),
        apply_rule: if wish.if_newer { ApplyRule::IfNewer } else { ApplyRule::InOrder },
        install: wish
            .install
            .into_iter()
            .map(|(at, seq)| (Space::Data, key(vec![b'k', at]), record(seq).encode()))
            .collect(),
        adopt,
        cursors: wish
            .cursor
            .into_iter()
            .map(|(name, seq)| (NodeName::new(format!("n{name}")), seq.map(cursor)))
            .collect(),
        trim: wish.trim.map(|(up_to, keep_bytes, entries_max)| Trim { up_to: Seq(up_to), keep_bytes, entries_max }),
        shard_uid: wish.uids.map(ShardUid),
        cluster_uid: wish.uids.map(|uid| ClusterUid(!uid)),
        epoch: wish.new_epoch.then(|| scribe.epoch.clone()),
        leadership: wish.uids.map(|uid| Bytes::copy_from_slice(&uid.to_be_bytes())),
        role: None,
        incoming: wish.incoming,
        rewind: None,
    }
}

/// Everything that an engine can be asked.
fn everything(engine: &dyn Engine) -> impl PartialEq + std::fmt::Debug + use<> {
    let state = engine.state().unwrap();
    let log = engine.entries(state.log_start, usize::MAX).unwrap();
    let before_log = state.log_start.0.checked_sub(1).map(|seq| engine.entries(Seq(seq), 1).unwrap());
    let some_log = engine.entries(state.log_start, 200).unwrap();
    let all = engine.chunk(Space::Data, None, usize::MAX).unwrap();
    let some = engine.chunk(Space::Data, Some(&key(vec![b'k', 4])), 300).unwrap();
    let stats = engine.stats().unwrap();
    (state, log, before_log, some_log, all, some, (stats.keys, stats.log_bytes))
}

/// Everything that does not depend on how far back the log reaches.
fn all_but_the_log(engine: &dyn Engine) -> impl PartialEq + std::fmt::Debug + use<> {
    let state = State { log_start: Seq::ZERO, log_bytes: 0, unclean: false, ..engine.state().unwrap() };
    let all = engine.chunk(Space::Data, None, usize::MAX).unwrap();
    let (mut walked, mut chunk) = (Vec::new(), engine.chunk(Space::Data, Some(&key(vec![b'k', 4])), 300).unwrap());
    while let Some((reached, _)) = chunk.records.last().cloned().filter(|_| !chunk.last) {
        assert_eq!(chunk.at, all.at);
        walked.append(&mut chunk.records); // what fits in one depends on what is deleted there
        chunk = engine.chunk(Space::Data, Some(&reached), 300).unwrap();
    }
    walked.append(&mut chunk.records);
    let each: Vec<_> = (0..12).map(|name| engine.get(Space::Data, &key(vec![b'k', name])).unwrap()).collect();
    (state, all, walked, each, engine.stats().unwrap().keys)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn engines_after_random_batches_say_the_same(wishes in vec((wish(), proptest::bool::weighted(0.1)), 1..25)) {
        let (backend, memory) = (OnBackend::default(), InMemory::default());
        let (mut one, mut two) = (backend.open(), memory.open());
        let mut scribe = Scribe::new();
        for (wish, reopen) in wishes {
            let batch = batch(wish, &mut scribe, two.state().unwrap().applied);
            one.commit(&batch).unwrap();
            two.commit(&batch).unwrap();
            prop_assert_eq!(everything(&one), everything(&two));
            if reopen {
                let before = everything(&two);
                drop((one, two));
                (one, two) = (backend.open(), memory.open());
                prop_assert_eq!(everything(&one), everything(&two));
                prop_assert_eq!(everything(&one), before);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))] // its log is on a real disk

    /// What a node serves from, against the engine in memory: fed and opened again now and then. Its log may reach further
    /// back, and has the same entries.
    #[test]
    fn log_in_front_after_random_batches_says_what_memory_says(
        wishes in vec((wish(), proptest::bool::weighted(0.3), proptest::bool::weighted(0.1)), 1..25)
    ) {
        let (place, memory) = (LoggedOnBackend::new(), InMemory::default());
        let (mut one, mut two) = (place.open(), memory.open());
        let mut scribe = Scribe::new();
        for (wish, feeds, reopen) in wishes {
            let trim = wish.trim.map(|(up_to, keep_bytes, _)| (up_to, keep_bytes, usize::MAX)); // it may take more at once
            let wish = Wish { if_newer: false, install: Vec::new(), adopt_beyond: None, incoming: None, trim, ..wish };
            let batch = batch(wish, &mut scribe, two.state().unwrap().applied);
            one.commit(&batch).unwrap();
            two.commit(&batch).unwrap();
            prop_assert_eq!(all_but_the_log(&one), all_but_the_log(&two));
            if feeds {
                one.flush().unwrap();
                prop_assert_eq!(all_but_the_log(&one), all_but_the_log(&two));
            }
            if reopen {
                drop((one, two));
                (one, two) = (place.open(), memory.open());
                let state = one.state().unwrap();
                // Entries that are not applied are brought back from the log, although it was closed properly.
                prop_assert!(!state.unclean || state.applied < state.history.end());
                prop_assert_eq!(all_but_the_log(&one), all_but_the_log(&two));
            }
            let start = two.state().unwrap().log_start;
            for bytes_max in [1, 300, usize::MAX] {
                prop_assert_eq!(one.entries(start, bytes_max).unwrap(), two.entries(start, bytes_max).unwrap());
            }
        }
    }
}
