//! What every engine keeps. Each function takes a place that is new.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::{LARGE, Scribe, Subject, delete, epoch, key, put, value};
use crate::storage::{ApplyRule, Batch, Engine, Entries, Rewind, Role, State, Stats, Trim};
use crate::types::{
    ClusterUid, Content, Cursor, Entry, Epoch, History, HistoryRow, Incarnation, NodeName, Record, Seq, ShardUid,
    Space, Version,
};

fn found(engine: &impl Engine, after: u64) -> Vec<Bytes> {
    match engine.entries(Seq(after), usize::MAX).unwrap() {
        Entries::Found(entries) => entries,
        Entries::Trimmed => panic!("the log no longer holds what follows {after}"),
    }
}

fn seqs(entries: &[Bytes]) -> Vec<u64> {
    entries.iter().map(|bytes| Entry::decode(bytes.clone()).unwrap().seq.0).collect()
}

fn positions(state: &State) -> (u64, u64, u64) {
    (state.log_start.0, state.applied.0, state.history.end().0)
}

fn panics(engine: &impl Engine, batch: &Batch) -> bool {
    catch_unwind(AssertUnwindSafe(|| engine.commit(batch))).is_err()
}

pub(super) fn batch_is_visible_and_survives_reopening_as_a_whole<S: Subject>(subject: &S) {
    let engine = subject.open();
    let mut scribe = Scribe::new();
    let batch = Batch {
        cursors: vec![(NodeName::new("Delhi/1"), Some(scribe.cursor()))],
        role: Some(Role::Leader),
        epoch: Some(epoch(1)),
        ..scribe.batch([put("a", "1"), put("b", "2"), delete("a")])
    };
    engine.commit(&batch).unwrap();
    let check = |engine: &S::Engine| {
        assert_eq!(value(engine, "a"), None);
        assert_eq!(value(engine, "b").as_deref(), Some(&b"2"[..]));
        let appended: Vec<Bytes> = batch.append.iter().map(|entry| entry.bytes.clone()).collect();
        assert_eq!(found(engine, 0), appended);
        let state = engine.state().unwrap();
        assert_eq!(positions(&state), (0, 3, 3));
        assert_eq!(state.cursors, batch.cursors);
        assert_eq!(state.log_bytes, appended.iter().map(|bytes| bytes.len() as u64).sum::<u64>());
        state
    };
    let before = check(&engine);
    drop(engine);
    let after = check(&subject.open());
    assert_eq!(after, before);
    assert!(!after.unclean, "it was closed properly");
}

pub(super) fn batch_that_is_empty_changes_nothing(subject: &impl Subject) {
    let engine = subject.open();
    engine.commit(&Scribe::new().batch([put("a", "1")])).unwrap();
    let before = engine.state().unwrap();
    engine.commit(&Batch::default()).unwrap();
    assert_eq!(engine.state().unwrap(), before);
}

pub(super) fn entry_of_several_mutations_applies_all_in_order(subject: &impl Subject) {
    let engine = subject.open();
    let entry = Scribe::new().entry(vec![put("a", "1"), put("b", "1"), delete("a"), put("b", "2"), put("c", "3")]);
    engine.commit(&Batch { append: vec![entry], apply_to: Some(Seq(1)), ..Batch::default() }).unwrap();
    assert_eq!(value(&engine, "a"), None);
    assert_eq!(value(&engine, "b").as_deref(), Some(&b"2"[..]));
    assert_eq!(value(&engine, "c").as_deref(), Some(&b"3"[..]));
}

pub(super) fn value_of_any_bytes_comes_back(subject: &impl Subject) {
    let engine = subject.open();
    let large: Bytes = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let content = Content { content_type: Some(Bytes::from_static(b"text/plain")), ..Content::of(large) };
    let mut typed = put(&b"\x00\xff/"[..], "");
    typed.change = crate::types::Change::Put(content.clone());
    let mut scribe = Scribe::new();
    engine.commit(&scribe.batch([put("empty", ""), put("bytes", &b"\x00\xff"[..]), typed])).unwrap();
    assert_eq!(value(&engine, "empty"), Some(Bytes::new()));
    assert_eq!(value(&engine, "bytes").as_deref(), Some(&b"\x00\xff"[..]));
    let record = engine.get(Space::Data, &key(&b"\x00\xff/"[..])).unwrap();
    let version = Version::Log { epoch: 1, seq: Seq(3), incarnation: Incarnation(1) };
    assert_eq!(record, Some(Record { version, content }));
}

pub(super) fn delete_of_nothing_is_logged_and_leaves_nothing(subject: &impl Subject) {
    let engine = subject.open();
    engine.commit(&Scribe::new().batch([delete("a")])).unwrap();
    assert_eq!(value(&engine, "a"), None);
    assert_eq!(seqs(&found(&engine, 0)), [1]);
    assert_eq!(engine.stats().unwrap().keys, 0);
}

pub(super) fn append_without_apply_changes_the_log_only(subject: &impl Subject) {
    let engine = subject.open();
    let batch = Batch { apply_to: None, ..Scribe::new().batch([put("a", "1"), put("b", "2")]) };
    engine.commit(&batch).unwrap();
    assert_eq!(value(&engine, "a"), None);
    assert_eq!(seqs(&found(&engine, 0)), [1, 2]);
    assert_eq!(positions(&engine.state().unwrap()), (0, 0, 2));
}

pub(super) fn apply_reads_earlier_entries_from_the_log(subject: &impl Subject) {
    let engine = subject.open();
    let batch = Scribe::new().batch([put("a", "1"), put("b", "2"), delete("a")]);
    engine.commit(&Batch { apply_to: None, ..batch }).unwrap();
    drop(engine);
    let engine = subject.open();
    engine.commit(&Batch { apply_to: Some(Seq(2)), ..Batch::default() }).unwrap();
    assert_eq!(value(&engine, "a").as_deref(), Some(&b"1"[..]));
    assert_eq!(positions(&engine.state().unwrap()), (0, 2, 3));
    engine.commit(&Batch { apply_to: Some(Seq(3)), ..Batch::default() }).unwrap();
    assert_eq!(value(&engine, "a"), None);
    assert_eq!(positions(&engine.state().unwrap()), (0, 3, 3));
}

pub(super) fn apply_takes_entries_of_both_earlier_and_this_batch(subject: &impl Subject) {
    let engine = subject.open();
    let mut scribe = Scribe::new();
    engine.commit(&Batch { apply_to: None, ..scribe.batch([put("a", "1"), put("b", "1")]) }).unwrap();
    engine.commit(&Batch { apply_to: Some(Seq(3)), ..scribe.batch([put("a", "2"), put("b", "2")]) }).unwrap();
    assert_eq!(value(&engine, "a").as_deref(), Some(&b"2"[..]));
    assert_eq!(value(&engine, "b").as_deref(), Some(&b"1"[..]));
    assert_eq!(positions(&engine.state().unwrap()), (0, 3, 4));
}

pub(super) fn append_out_of_order_panics_and_changes_nothing(subject: &impl Subject) {
    let engine = subject.open();
    engine.commit(&Scribe::new().batch([put("a", "1")])).unwrap();
    let before = engine.state().unwrap();
    assert!(panics(&engine, &Scribe::after(2).batch([put("a", "gap")])), "a gap");
    assert!(panics(&engine, &Scribe::after(0).batch([put("a", "again")])), "a seq that was given");
    assert_eq!(engine.state().unwrap(), before);
    engine.commit(&Scribe::after(1).batch([put("a", "2")])).unwrap();
    assert_eq!(value(&engine, "a").as_deref(), Some(&b"2"[..]));
}

pub(super) fn apply_out_of_bounds_panics(subject: &impl Subject) {
    let engine = subject.open();
    engine.commit(&Scribe::new().batch([put("a", "1"), put("a", "2")])).unwrap();
    assert!(panics(&engine, &Batch { apply_to: Some(Seq(3)), ..Batch::default() }), "beyond the end");
    assert!(panics(&engine, &Batch { apply_to: Some(Seq(1)), ..Batch::default() }), "backwards");
    engine.commit(&Batch { apply_to: Some(Seq(2)), ..Batch::default() }).unwrap();
}

pub(super) fn history_gets_a_row_with_each_opening_that_writes(subject: &impl Subject) {
    let engine = subject.open();
    let mut scribe = Scribe::new();
    let mut batch = scribe.batch([put("a", "1"), put("a", "2")]);
    let mut scribe = scribe.reopened();
    let more = scribe.batch([put("a", "3")]);
    batch.append.extend(more.append);
    engine.commit(&Batch { apply_to: more.apply_to, ..batch }).unwrap();
    scribe.epoch = Epoch { number: 2, leader: NodeName::new("Delhi/1") };
    engine.commit(&scribe.batch([put("a", "4")])).unwrap();
    engine.commit(&scribe.batch([put("a", "5")])).unwrap();
    let row = |epoch: &Epoch, incarnation, first| HistoryRow {
        epoch: epoch.clone(),
        incarnation: Incarnation(incarnation),
        first: Seq(first),
    };
    let rows = vec![row(&epoch(1), 1, 1), row(&epoch(1), 2, 3), row(&scribe.epoch, 2, 4)];
    let history = History::new(rows, Seq(5)).unwrap();
    assert_eq!(engine.state().unwrap().history, history);
    drop(engine);
    assert_eq!(subject.open().state().unwrap().history, history);
}

pub(super) fn if_newer_keeps_what_is_newer(subject: &impl Subject) {
    let record = |seq, value: &'static str| {
        let version = Version::Log { epoch: 1, seq: Seq(seq), incarnation: Incarnation(1) };
        Record { version, content: Content::of(value) }.encode()
    };
    let engine = subject.open();
    let install = [("kept", 13), ("deleted late", 13), ("same", 12), ("older", 10), ("gone", 11)]
        .map(|(name, seq)| (Space::Data, key(name), record(seq, "installed")));
    let adopt = History::new(vec![HistoryRow { epoch: epoch(1), incarnation: Incarnation(1), first: Seq(1) }], Seq(11));
    engine.commit(&Batch { install: install.to_vec(), adopt: Some(adopt.unwrap()), ..Batch::default() }).unwrap();
    let mut scribe = Scribe::after(11);
    let entry = scribe.entry(vec![
        put("kept", "late"),
        delete("deleted late"),
        put("same", "late"),
        put("older", "new"),
        delete("gone"),
        put("absent", "new"),
    ]);
    let batch =
        Batch { append: vec![entry], apply_to: Some(Seq(12)), apply_rule: ApplyRule::IfNewer, ..Batch::default() };
    engine.commit(&batch).unwrap();
    let expected = [
        ("kept", Some("installed")),
        ("deleted late", Some("installed")),
        ("same", Some("installed")),
        ("older", Some("new")),
        ("gone", None),
        ("absent", Some("new")),
    ];
    for (name, expected) in expected {
        assert_eq!(value(&engine, name).as_deref(), expected.map(str::as_bytes), "{name}");
    }
}

pub(super) fn trim_stops_at_each_of_its_bounds(subject: &impl Subject) {
    let engine = subject.open();
    let batch = Scribe::new().batch((0..10).map(|i| put("key", vec![b'x'; LARGE + i])));
    let sizes: Vec<u64> = batch.append.iter().map(|entry| entry.bytes.len() as u64).collect();
    engine.commit(&batch).unwrap();
    let trim = |up_to, keep_bytes, entries_max| {
        let trim = Trim { up_to: Seq(up_to), keep_bytes, entries_max };
        engine.commit(&Batch { trim: Some(trim), ..Batch::default() }).unwrap();
        let state = engine.state().unwrap();
        assert_eq!(seqs(&found(&engine, state.log_start.0)), (state.log_start.0 + 1..=10).collect::<Vec<_>>());
        let kept = usize::try_from(state.log_start.0).unwrap();
        assert_eq!(state.log_bytes, sizes[kept..].iter().sum::<u64>());
        state.log_start.0
    };
    assert_eq!(trim(10, u64::MAX, 100), 0, "all fit in what is kept");
    assert_eq!(trim(2, 0, 100), 2, "up to");
    assert_eq!(trim(2, 0, 100), 2, "nothing more");
    assert_eq!(trim(10, 0, 3), 5, "entries at once");
    let newest_three: u64 = sizes[7..].iter().sum();
    assert_eq!(trim(10, newest_three, 100), 7, "what is kept may be as large as the bound");
    assert_eq!(trim(10, newest_three - 1, 100), 8, "and not a byte larger");
    assert_eq!(trim(1, 0, 100), 8, "a cursor that went back brings nothing back");
}

pub(super) fn trim_never_takes_what_is_not_applied(subject: &impl Subject) {
    let engine = subject.open();
    let trim = Some(Trim { up_to: Seq(3), keep_bytes: 0, entries_max: 100 });
    let batch = Scribe::new().batch((1..=3).map(|byte| put("a", vec![byte; LARGE])));
    engine.commit(&Batch { apply_to: Some(Seq(1)), trim, ..batch }).unwrap();
    assert_eq!(positions(&engine.state().unwrap()), (1, 1, 3));
    engine.commit(&Batch { apply_to: Some(Seq(3)), trim, ..Batch::default() }).unwrap();
    assert_eq!(positions(&engine.state().unwrap()), (3, 3, 3));
    assert_eq!(value(&engine, "a").as_deref(), Some(&[3; LARGE][..]));
}

pub(super) fn trim_of_everything_leaves_an_end_to_append_to(subject: &impl Subject) {
    let engine = subject.open();
    let mut scribe = Scribe::new();
    let trim = Some(Trim { up_to: Seq(9), keep_bytes: 0, entries_max: 100 });
    engine.commit(&Batch { trim, ..scribe.batch([put("a", "1"), put("a", "2")]) }).unwrap();
    assert_eq!(positions(&engine.state().unwrap()), (2, 2, 2));
    drop(engine);
    let engine = subject.open();
    assert_eq!(positions(&engine.state().unwrap()), (2, 2, 2));
    assert_eq!(engine.state().unwrap().log_bytes, 0);
    engine.commit(&scribe.batch([put("a", "3")])).unwrap();
    assert_eq!(seqs(&found(&engine, 2)), [3]);
}

pub(super) fn entries_that_are_gone_are_answered_trimmed(subject: &impl Subject) {
    let engine = subject.open();
    let trim = Some(Trim { up_to: Seq(2), keep_bytes: 0, entries_max: 100 });
    engine.commit(&Batch { trim, ..Scribe::new().batch((0..4).map(|_| put("a", vec![1; LARGE]))) }).unwrap();
    assert_eq!(engine.entries(Seq(0), usize::MAX), Ok(Entries::Trimmed));
    assert_eq!(engine.entries(Seq(1), usize::MAX), Ok(Entries::Trimmed));
    assert_eq!(seqs(&found(&engine, 2)), [3, 4]);
    assert_eq!(seqs(&found(&engine, 3)), [4]);
    assert!(found(&engine, 4).is_empty(), "the end");
    assert!(found(&engine, 5).is_empty(), "beyond the end");
}

pub(super) fn entries_are_bounded_in_bytes_and_at_least_one(subject: &impl Subject) {
    let engine = subject.open();
    assert!(found(&engine, 0).is_empty(), "a new copy");
    let batch = Scribe::new().batch((0..5).map(|_| put("a", vec![b'x'; 100])));
    let size = batch.append[0].bytes.len();
    engine.commit(&batch).unwrap();
    for (bytes_max, expected) in [(0, 1), (1, 1), (size, 1), (2 * size - 1, 1), (2 * size, 2), (usize::MAX, 5)] {
        let Entries::Found(entries) = engine.entries(Seq(0), bytes_max).unwrap() else { panic!("it is all there") };
        assert_eq!(entries.len(), expected, "{bytes_max} bytes");
    }
}

pub(super) fn chunk_walks_binary_keys_in_order_within_its_bound(subject: &impl Subject) {
    let engine = subject.open();
    let mut names: Vec<Vec<u8>> =
        vec![vec![0], vec![0, 0], vec![0, 255], b"a".to_vec(), b"a/b".to_vec(), vec![255; 1024]];
    names.extend((0_u8..=255).map(|byte| vec![b'k', byte]));
    engine.commit(&Scribe::new().batch(names.iter().map(|name| put(name.clone(), vec![1; 50])))).unwrap();
    names.sort();
    for bytes_max in [0, 1, 200, 5000, usize::MAX] {
        let (mut walked, mut after) = (Vec::new(), None);
        loop {
            let chunk = engine.chunk(Space::Data, after.as_ref(), bytes_max).unwrap();
            assert_eq!(chunk.at, Seq(names.len() as u64));
            let size: usize = chunk.records.iter().map(|(key, bytes)| key.as_bytes().len() + bytes.len()).sum();
            assert!(size <= bytes_max || chunk.records.len() == 1, "{size} bytes of at most {bytes_max}");
            for (key, bytes) in &chunk.records {
                assert_eq!(Record::decode(bytes.clone()).unwrap().content.value, vec![1; 50]);
                walked.push(key.as_bytes().to_vec());
            }
            after = chunk.records.last().map(|(key, _)| key.clone());
            if chunk.last {
                break;
            }
            assert!(after.is_some(), "a chunk that is not the last holds at least one record");
        }
        assert_eq!(walked, names, "{bytes_max} bytes at a time");
    }
}

pub(super) fn chunk_of_an_empty_copy_is_last(subject: &impl Subject) {
    let engine = subject.open();
    let chunk = engine.chunk(Space::Data, None, 1000).unwrap();
    assert!(chunk.records.is_empty() && chunk.last);
    engine.commit(&Scribe::new().batch([put("a", "1")])).unwrap();
    let chunk = engine.chunk(Space::Data, Some(&key("a")), 1000).unwrap();
    assert!(chunk.records.is_empty() && chunk.last, "above the last key");
}

/// The history of a source whose log begins after `end`.
fn adopted(end: u64) -> History {
    let row = |number, incarnation, first| HistoryRow {
        epoch: epoch(number),
        incarnation: Incarnation(incarnation),
        first: Seq(first),
    };
    History::new(vec![row(1, 1, 1), row(2, 7, 90)], Seq(end)).unwrap()
}

pub(super) fn snapshot_is_installed_adopted_and_completed(subject: &impl Subject) {
    let engine = subject.open();
    engine.commit(&Batch { incoming: Some(true), shard_uid: Some(ShardUid(5)), ..Batch::default() }).unwrap();
    let version = Version::Log { epoch: 1, seq: Seq(80), incarnation: Incarnation(1) };
    let record = Record { version, content: Content::of("v") }.encode();
    let install = ["a", "b", "c"].map(|name| (Space::Data, key(name), record.clone())).to_vec();
    engine.commit(&Batch { install, ..Batch::default() }).unwrap();
    assert!(engine.state().unwrap().incoming);
    let mut scribe = Scribe { epoch: epoch(2), incarnation: Incarnation(7), end: Seq(100) };
    let batch = Batch { adopt: Some(adopted(100)), incoming: Some(false), ..scribe.batch([put("b", "new")]) };
    engine.commit(&batch).unwrap();
    let state = engine.state().unwrap();
    assert!(!state.incoming);
    assert_eq!(positions(&state), (100, 101, 101));
    assert_eq!(state.history.rows(), adopted(100).rows(), "the entry goes on in the source's last row");
    assert_eq!(value(&engine, "a").as_deref(), Some(&b"v"[..]));
    assert_eq!(value(&engine, "b").as_deref(), Some(&b"new"[..]));
    assert_eq!(engine.entries(Seq(99), usize::MAX), Ok(Entries::Trimmed));
    assert_eq!(seqs(&found(&engine, 100)), [101]);
    drop(engine);
    assert_eq!(subject.open().state().unwrap(), state);
}

pub(super) fn adopt_replaces_log_and_history(subject: &impl Subject) {
    let engine = subject.open();
    engine.commit(&Batch { incoming: Some(true), ..Scribe::new().batch([put("a", "1"), put("a", "2")]) }).unwrap();
    engine.commit(&Batch { adopt: Some(adopted(90)), ..Batch::default() }).unwrap();
    engine.commit(&Batch { incoming: Some(false), ..Batch::default() }).unwrap();
    let state = engine.state().unwrap();
    assert_eq!((positions(&state), state.log_bytes), ((90, 90, 90), 0));
    assert_eq!(state.history, adopted(90));
    assert!(found(&engine, 90).is_empty());
    drop(engine);
    assert_eq!(subject.open().state().unwrap(), state);
}

/// The lost entries are 4 to 6; the leader holds `a` as it wrote it in 5, and no `d`.
fn rewind(to: u64) -> Rewind {
    let version = Version::Log { epoch: 2, seq: Seq(5), incarnation: Incarnation(9) };
    let record = Record { version, content: Content::of("theirs") };
    let settles_at = Some(Cursor { epoch: epoch(2), incarnation: Incarnation(9), seq: Seq(5) });
    let replace = vec![(Space::Data, key("a"), Some(record.encode())), (Space::Data, key("d"), None)];
    Rewind { to: Seq(to), replace, settles_at }
}

pub(super) fn rewind_takes_back_the_end_and_the_log_goes_on_from_there(subject: &impl Subject) {
    let engine = subject.open();
    let mut scribe = Scribe::new();
    engine.commit(&scribe.batch([put("a", "1"), put("b", "2")])).unwrap();
    let mut scribe = scribe.reopened();
    engine.commit(&scribe.batch([put("c", "3")])).unwrap();
    let common = engine.state().unwrap().history;
    engine.commit(&scribe.batch([put("a", "lost"), put("d", "lost")])).unwrap();
    let mut scribe = scribe.reopened();
    engine.commit(&scribe.batch([put("d", "lost too")])).unwrap();
    engine.commit(&Batch { rewind: Some(rewind(3)), shard_uid: Some(ShardUid(7)), ..Batch::default() }).unwrap();
    let check = |engine: &dyn Engine, end: u64| {
        let state = engine.state().unwrap();
        assert_eq!((state.settles_at, state.shard_uid), (rewind(3).settles_at, Some(ShardUid(7))));
        assert_eq!(positions(&engine.state().unwrap()), (3, end, end));
        assert_eq!(engine.entries(Seq(2), 1), Ok(Entries::Trimmed), "what came before is in the data alone");
        assert_eq!(engine.get(Space::Data, &key("d")), Ok(None));
        engine.get(Space::Data, &key("a")).unwrap().unwrap().content.value
    };
    assert_eq!(engine.state().unwrap().history, common);
    assert_eq!(check(&engine, 3), "theirs");
    assert_eq!((value(&engine, "b"), value(&engine, "c")), (Some("2".into()), Some("3".into())));
    assert!(found(&engine, 3).is_empty());
    let Stats { keys, log_bytes, log_start, .. } = engine.stats().unwrap();
    assert_eq!((keys, log_bytes, log_start), (3, 0, Seq(3)));
    drop(engine);
    let engine = subject.open();
    assert_eq!(engine.state().unwrap().history, common);
    assert_eq!(check(&engine, 3), "theirs");
    // What the leader wrote there instead.
    let mut theirs = Scribe { epoch: epoch(2), incarnation: Incarnation(9), end: Seq(3) };
    let batch = theirs.batch([put("e", "5"), put("a", "6")]);
    engine.commit(&batch).unwrap();
    assert_eq!(check(&engine, 5), "6");
    drop(engine);
    let engine = subject.open();
    assert_eq!(check(&engine, 5), "6");
    let appended: Vec<Bytes> = batch.append.iter().map(|entry| entry.bytes.clone()).collect();
    assert_eq!(found(&engine, 3), appended);
    assert_eq!(engine.state().unwrap().history.cursor(), Some(theirs.cursor()));
}

pub(super) fn rewind_of_everything_and_of_nothing(subject: &impl Subject) {
    let engine = subject.open();
    let mut scribe = Scribe::new();
    engine.commit(&scribe.batch([put("a", "1"), put("d", "2")])).unwrap();
    let all = Rewind { settles_at: None, ..rewind(2) };
    engine.commit(&Batch { rewind: Some(all), ..Batch::default() }).unwrap();
    assert_eq!(positions(&engine.state().unwrap()), (2, 2, 2));
    assert_eq!((value(&engine, "a"), value(&engine, "d")), (Some("theirs".into()), None));
    let gone = Rewind { to: Seq::ZERO, replace: vec![(Space::Data, key("a"), None)], settles_at: None };
    engine.commit(&Batch { rewind: Some(gone), ..Batch::default() }).unwrap();
    drop(engine);
    let engine = subject.open();
    let state = engine.state().unwrap();
    assert_eq!((positions(&state), state.history, state.settles_at), ((0, 0, 0), History::default(), None));
    assert_eq!(engine.stats().unwrap().keys, 0);
    engine.commit(&Scribe::new().batch([put("a", "3")])).unwrap();
    assert_eq!(value(&engine, "a"), Some("3".into()));
}

pub(super) fn rewind_beyond_what_is_applied_or_beside_entries_panics(subject: &impl Subject) {
    let engine = subject.open();
    let mut scribe = Scribe::new();
    engine.commit(&scribe.batch([put("a", "1")])).unwrap();
    let appended = scribe.entry(vec![put("a", "2")]);
    engine.commit(&Batch { append: vec![appended], ..Batch::default() }).unwrap();
    assert!(panics(&engine, &Batch { rewind: Some(rewind(2)), ..Batch::default() }), "2 is not applied");
    let beside = Batch { rewind: Some(rewind(1)), ..scribe.batch([put("a", "3")]) };
    assert!(panics(&engine, &beside));
    assert_eq!(positions(&engine.state().unwrap()), (0, 1, 2));
    engine.commit(&Batch { rewind: Some(rewind(1)), ..Batch::default() }).unwrap();
    assert_eq!(positions(&engine.state().unwrap()), (1, 1, 1));
}

pub(super) fn cursor_none_differs_from_never_seen<S: Subject>(subject: &S) {
    let (one, two) = (NodeName::new("Delhi/1"), NodeName::new("Delhi/2"));
    let cursor = |seq| Some(Cursor { seq: Seq(seq), ..Scribe::new().cursor() });
    let engine = subject.open();
    let commit = |engine: &S::Engine, cursors: &[(&NodeName, Option<Cursor>)]| {
        let cursors = cursors.iter().map(|(name, cursor)| ((*name).clone(), cursor.clone())).collect();
        engine.commit(&Batch { cursors, ..Batch::default() }).unwrap();
    };
    assert!(engine.state().unwrap().cursors.is_empty(), "never seen");
    commit(&engine, &[(&two, None)]);
    assert_eq!(engine.state().unwrap().cursors, [(two.clone(), None)]);
    commit(&engine, &[(&two, cursor(5)), (&one, cursor(7))]);
    commit(&engine, &[(&two, cursor(3))]);
    let expected = vec![(one.clone(), cursor(7)), (two.clone(), cursor(3))];
    assert_eq!(engine.state().unwrap().cursors, expected, "by name; a cursor may go back");
    drop(engine);
    let engine = subject.open();
    assert_eq!(engine.state().unwrap().cursors, expected);
    commit(&engine, &[(&one, None)]);
    assert_eq!(engine.state().unwrap().cursors, [(one, None), (two, cursor(3))], "a disk was emptied");
}

pub(super) fn identities_are_kept(subject: &impl Subject) {
    let engine = subject.open();
    let state = engine.state().unwrap();
    assert_eq!((state.shard_uid, state.cluster_uid, state.epoch, state.role), (None, None, None, None));
    assert_eq!(
        (state.history.end(), state.applied, state.incoming, state.unclean),
        (Seq::ZERO, Seq::ZERO, false, false)
    );
    let uids = Batch { shard_uid: Some(ShardUid(1)), cluster_uid: Some(ClusterUid(2)), ..Batch::default() };
    engine.commit(&uids).unwrap();
    engine.commit(&Batch { epoch: Some(epoch(3)), role: Some(Role::Replica), ..Batch::default() }).unwrap();
    engine.commit(&Scribe::new().batch([put("a", "1")])).unwrap(); // from here on there may be a log beside the file
    for leadership in [&b"first"[..], b"second"] {
        let leadership = Some(Bytes::from_static(leadership));
        engine.commit(&Batch { leadership, ..Batch::default() }).unwrap();
    }
    drop(engine);
    let state = subject.open().state().unwrap();
    assert_eq!((state.shard_uid, state.cluster_uid), (Some(ShardUid(1)), Some(ClusterUid(2))));
    assert_eq!((state.epoch, state.role), (Some(epoch(3)), Some(Role::Replica)));
    assert_eq!(state.leadership.as_deref(), Some(&b"second"[..]));
}

pub(super) fn stats_count_keys_and_log(subject: &impl Subject) {
    let engine = subject.open();
    let Stats { keys, log_bytes, .. } = engine.stats().unwrap();
    assert_eq!((keys, log_bytes), (0, 0));
    let batch = Scribe::new().batch([put("a", "1"), put("b", "2"), put("a", "3"), delete("b"), put("c", "4")]);
    engine.commit(&batch).unwrap();
    let Stats { keys, log_bytes, .. } = engine.stats().unwrap();
    let appended: u64 = batch.append.iter().map(|entry| entry.bytes.len() as u64).sum();
    assert_eq!((keys, log_bytes), (2, appended));
}
