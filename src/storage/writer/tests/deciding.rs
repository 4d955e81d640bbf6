//! What the writer decides about each item, in the order of the queue.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Bench, answer, delete, entry, is_unanswered, leading, put, set_mode, value, written};
use crate::storage::memory::MemoryEngine;
use crate::storage::writer::{Facts, Item, Mode, Refusal, Upkeep, Written};
use crate::storage::{Batch, Engine, Role, Trim};
use crate::types::{Cursor, Incarnation, NodeName, Seq, ShardUid, UnixMs};

const NOTHING_DELETED: Written = Written { version: None, existed: false };

#[test]
fn writes_of_one_batch_share_a_commit_and_get_seqs_in_their_order() {
    let mut bench = Bench::leading();
    let before = bench.engine.commits();
    let answers = bench.run((0..100).map(|n| put(&format!("k{n}"), n.to_string())));
    let expected: Vec<_> = (1..=100).map(|seq| Ok(written(seq, false))).collect();
    assert_eq!(answers, expected);
    assert_eq!(bench.engine.commits() - before, 1);
    let log = bench.log();
    assert_eq!(log.len(), 100);
    for (n, entry) in log.iter().enumerate() {
        assert_eq!((entry.seq.0, entry.incarnation), (n as u64 + 1, Incarnation(7)));
        assert_eq!(entry.mutations, [put(&format!("k{n}"), n.to_string())]);
    }
    assert_eq!(bench.writer.published().end(), Seq(100));
}

#[test]
fn delete_of_nothing_writes_nothing_and_has_no_version() {
    let mut bench = Bench::leading();
    let before = bench.engine.commits();
    assert_eq!(bench.run([delete("k")]), [Ok(NOTHING_DELETED)]);
    assert_eq!((bench.engine.commits(), bench.log()), (before, vec![]));
}

#[test]
fn writes_of_one_key_in_one_batch_are_decided_on_each_other() {
    let mut bench = Bench::leading();
    let answers =
        bench.run([delete("k"), put("k", "1"), put("k", "2"), delete("k"), delete("k"), put("k", "3"), put("j", "x")]);
    let expected = [
        Ok(NOTHING_DELETED),
        Ok(written(1, false)), // created
        Ok(written(2, true)),  // replaced
        Ok(written(3, true)),
        Ok(NOTHING_DELETED),
        Ok(written(4, false)), // created again
        Ok(written(5, false)),
    ];
    assert_eq!(answers, expected);
    assert_eq!((bench.value("k"), bench.value("j")), (Some("3".into()), Some("x".into())));
    assert_eq!(bench.run([delete("k"), put("j", "y")]), [Ok(written(6, true)), Ok(written(7, true))]);
    assert_eq!(bench.value("k"), None);
}

/// The bound holds within a commit: each write is asked about with its own seq, in the order of the queue, and one that is
/// refused spends none.
#[test]
fn guard_is_asked_with_the_seq_of_each_write_and_what_it_refuses_is_not_there() {
    let mut bench = Bench::leading();
    let refused = || Refusal::AtRisk("enough".into());
    bench.writer.set_guard(Box::new(move |next, _| if next > Seq(2) { Err(refused()) } else { Ok(()) }));
    let answers = bench.run([put("a", "1"), put("b", "2"), put("c", "3"), delete("c"), delete("a")]);
    let expected = [
        Ok(written(1, false)),
        Ok(written(2, false)),
        Err(refused()),
        Ok(NOTHING_DELETED), // nothing is written, and nothing more is at risk
        Err(refused()),
    ];
    assert_eq!(answers, expected);
    assert_eq!((bench.value("a"), bench.value("c")), (Some("1".into()), None));
    assert_eq!(bench.writer.published().end(), Seq(2));
    bench.writer.set_guard(Box::new(|_, _| Ok(())));
    assert_eq!(bench.run([put("c", "3")]), [Ok(written(3, false))]);
}

#[test]
fn fence_in_the_queue_lets_pass_what_stands_before_it_and_refuses_what_stands_after() {
    let mut bench = Bench::leading();
    let (before, answered_before) = bench.write(put("a", "1"));
    let (fence, fenced) = set_mode(Mode::Closed("moved".into()));
    let (after, answered_after) = bench.write(put("b", "2"));
    bench.writer.run_once([before, fence, after]);
    assert_eq!(answer(answered_before), Ok(written(1, false)));
    assert_eq!(answer(fenced), Ok(()));
    assert_eq!(answer(answered_after), Err(Refusal::Closed("moved".into())));
    assert_eq!((bench.value("a"), bench.value("b")), (Some("1".into()), None));
    bench.set_mode(leading());
    assert_eq!(bench.run([put("b", "2")]), [Ok(written(2, false))], "no seq was spent on the refused one");
}

#[test]
fn writer_that_nobody_opened_takes_neither_writes_nor_entries() {
    let mut bench = Bench::closed();
    assert!(matches!(bench.run([put("k", "v")])[..], [Err(Refusal::Closed(_))]));
    assert!(matches!(bench.run_append(vec![entry(1, put("k", "v"))]), Err(Refusal::Closed(_))));
    assert_eq!(bench.log(), vec![]);
}

#[test]
fn modes_refuse_each_others_items() {
    let mut leader = Bench::leading();
    assert!(matches!(leader.run_append(vec![entry(1, put("k", "v"))]), Err(Refusal::Closed(_))));
    let mut replica = Bench::following();
    assert!(matches!(replica.run([put("k", "v")])[..], [Err(Refusal::Closed(_))]));
    assert_eq!((leader.log(), replica.log()), (vec![], vec![]));
}

#[test]
fn write_whose_deadline_has_passed_is_refused_and_not_applied() {
    let mut bench = Bench::leading();
    let (late, answered_late) = bench.write_within(put("late", "1"), Duration::from_millis(10));
    let (timely, answered_timely) = bench.write_within(put("timely", "2"), Duration::from_millis(11));
    bench.clock.advance(Duration::from_millis(10));
    bench.writer.run_once([late, timely]);
    assert_eq!(answer(answered_late), Err(Refusal::DeadlinePassed));
    assert_eq!(answer(answered_timely), Ok(written(1, false)));
    assert_eq!((bench.value("late"), bench.value("timely")), (None, Some("2".into())));
}

#[test]
fn disk_below_its_reserve_refuses_puts_and_takes_deletes_until_there_is_space() {
    let mut bench = Bench::leading();
    bench.run([put("k", "v")]);
    bench.engine.set_free_bytes(Some(999));
    let full = Err(Refusal::DiskFull { free: 999, needed: 1000 });
    assert_eq!(bench.run([put("j", "v"), delete("k"), put("i", "v")]), [full.clone(), Ok(written(2, true)), full]);
    bench.engine.set_free_bytes(Some(1000));
    assert_eq!(bench.run([put("j", "v")]), [Ok(written(3, false))]);
}

#[test]
fn disk_without_room_for_a_large_value_refuses_it_before_the_commit() {
    let mut bench = Bench::leading();
    bench.engine.set_free_bytes(Some(2000));
    let large = "v".repeat(2000);
    assert!(matches!(bench.run([put("k", large)])[..], [Err(Refusal::DiskFull { .. })]));
    assert_eq!(bench.run([put("k", "small")]), [Ok(written(1, false))]);
}

#[test]
fn disk_without_its_last_reserve_refuses_deletes_too_rather_than_fail_in_the_commit() {
    let mut bench = Bench::leading();
    bench.run([put("k", "v")]);
    bench.engine.set_free_bytes(Some(249));
    assert_eq!(bench.run([delete("k")]), [Err(Refusal::DiskFull { free: 249, needed: 250 })]);
    bench.engine.set_free_bytes(Some(250));
    assert_eq!(bench.run([delete("k")]), [Ok(written(2, true))]);
}

#[test]
fn engine_without_room_refuses_writes_and_entries_until_it_has_caught_up() {
    let mut bench = Bench::leading();
    bench.engine.set_room(false);
    assert_eq!(bench.run([put("k", "v"), delete("k")]), [Err(Refusal::NoRoom), Err(Refusal::NoRoom)]);
    bench.engine.set_room(true);
    assert_eq!(bench.run([put("k", "v")]), [Ok(written(1, false))]);

    let mut replica = Bench::following();
    replica.engine.set_room(false);
    assert_eq!(replica.run_append(vec![entry(1, put("k", "v"))]), Err(Refusal::NoRoom));
    replica.engine.set_room(true);
    assert_eq!(replica.run_append(vec![entry(1, put("k", "v"))]), Ok(Seq(1)));
}

#[test]
fn disk_below_its_reserve_refuses_the_leaders_entries_whole() {
    let mut bench = Bench::following();
    bench.engine.set_free_bytes(Some(0));
    let refusal = bench.run_append(vec![entry(1, put("k", "v"))]);
    assert!(matches!(refusal, Err(Refusal::DiskFull { .. })), "{refusal:?}");
    bench.engine.set_free_bytes(None);
    assert_eq!(bench.run_append(vec![entry(1, put("k", "v"))]), Ok(Seq(1)));
}

#[test]
fn time_of_entries_never_goes_back_when_the_clock_does() {
    let mut bench = Bench::leading();
    let ahead = UnixMs(bench.clock.unix_ms().0 + 5000);
    bench.writer.last_time = ahead; // as if the clock had shown this before it was set back
    bench.run([put("a", "1"), put("b", "2")]);
    bench.clock.advance(Duration::from_secs(6));
    bench.run([put("c", "3")]);
    let times: Vec<_> = bench.log().iter().map(|entry| entry.time.0 - ahead.0).collect();
    assert_eq!(times, [0, 0, 1000]);
}

#[test]
fn entries_that_do_not_follow_the_end_are_refused_whole() {
    let mut bench = Bench::following();
    assert_eq!(bench.run_append(vec![entry(1, put("a", "1")), entry(2, put("b", "2"))]), Ok(Seq(2)));
    let refused = |got| Err(Refusal::OutOfOrder { got: Seq(got), end: Seq(2) });
    assert_eq!(bench.run_append(vec![entry(2, put("b", "again"))]), refused(2), "not twice");
    assert_eq!(bench.run_append(vec![entry(4, put("d", "4"))]), refused(4), "no gap");
    assert_eq!(bench.run_append(vec![entry(3, put("c", "3")), entry(5, put("e", "5"))]), refused(5), "none inside");
    assert_eq!((bench.value("b"), bench.value("c"), bench.log().len()), (Some("2".into()), None, 2));
    assert_eq!(bench.run_append(vec![entry(3, put("c", "3"))]), Ok(Seq(3)));
    assert_eq!(bench.run_append(vec![]), Ok(Seq(3)));
}

#[test]
fn entries_of_a_leader_bring_its_history_and_cursor() {
    let mut bench = Bench::following();
    bench.run_append(vec![entry(1, put("a", "1")), entry(2, delete("a"))]).unwrap();
    let cursor = bench.writer.published().history().cursor();
    assert_eq!(cursor, Some(Cursor { epoch: super::epoch(), incarnation: Incarnation(7), seq: Seq(2) }));
    assert_eq!(bench.value("a"), None);
}

#[test]
fn facts_are_durable_when_they_are_answered_and_later_ones_win() {
    let mut bench = Bench::closed();
    let note = |uid, role| {
        let (reply, answer) = oneshot::channel();
        let facts = Facts { shard_uid: Some(ShardUid(uid)), role, ..Facts::default() };
        (Item::Note { facts, reply }, answer)
    };
    let ((first, answered_first), (second, answered_second)) = (note(1, Some(Role::Leader)), note(2, None));
    bench.writer.run_once([first, second]);
    assert_eq!((answer(answered_first), answer(answered_second)), (Ok(()), Ok(())));
    let state = bench.engine.state().unwrap();
    assert_eq!((state.shard_uid, state.role), (Some(ShardUid(2)), Some(Role::Leader)));
}

#[test]
fn swap_lets_the_new_file_serve_and_take_what_follows_its_end() {
    let mut bench = Bench::following();
    bench.run_append(vec![entry(1, put("old", "1"))]).unwrap();
    let incoming = Arc::new(MemoryEngine::new());
    let entries = (1..=5).map(|seq| entry(seq, put("new", seq.to_string()))).collect();
    incoming.commit(&Batch { append: entries, apply_to: Some(Seq(5)), ..Batch::default() }).unwrap();
    let (reply, swapped) = oneshot::channel();
    let (append, appended) = oneshot::channel();
    let published = bench.writer.published();
    bench.writer.run_once([
        Item::Swap { engine: Arc::clone(&incoming) as Arc<dyn Engine>, reply },
        Item::Append { entries: vec![entry(6, put("new", "6"))], reply: append },
    ]);
    assert_eq!((answer(swapped), answer(appended)), (Ok(()), Ok(Seq(6))));
    assert_eq!((published.end(), published.history().end()), (Seq(6), Seq(6)));
    assert_eq!(value(&*published.engine(), "new"), Some("6".into()));
    assert_eq!(value(&*published.engine(), "old"), None);
    assert_eq!(bench.log().len(), 1, "the old file is left as it was");
}

#[test]
fn upkeep_goes_with_the_next_commit_and_with_idleness() {
    let (engine, clock) = (Arc::new(MemoryEngine::new()), crate::clock::Clock::manual());
    let at = |seq| Cursor { epoch: super::epoch(), incarnation: Incarnation(7), seq: Seq(seq) };
    let mut asked = Vec::new();
    let (tell, told) = std::sync::mpsc::channel();
    let upkeep = move |_: &dyn Engine, end: Seq| {
        tell.send(end).unwrap();
        let trim = Trim { up_to: Seq(1), keep_bytes: 0, entries_max: 10 };
        let cursors = if end == Seq(2) { vec![(NodeName::new("A/1"), Some(at(1)))] } else { vec![] };
        Upkeep { cursors, trim: (end == Seq(2)).then_some(trim) }
    };
    let writer = super::writer(&engine, &clock, Box::new(upkeep));
    let mut bench = Bench { engine, writer, clock };
    bench.set_mode(leading());
    bench.run([put("a", "1"), put("b", "2")]);
    let state = bench.engine.state().unwrap();
    assert_eq!((state.log_start, &state.cursors[..]), (Seq(1), &[(NodeName::new("A/1"), Some(at(1)))][..]));
    bench.writer.run_once([]);
    asked.extend(told.try_iter());
    assert_eq!(asked, [Seq(0), Seq(2), Seq(2)], "it is asked for the log as the commit will leave it");
}

#[test]
fn write_is_neither_readable_nor_announced_nor_answered_before_its_commit() {
    let bench = Bench::leading();
    let (item, mut answered) = bench.write(put("k", "v"));
    let (gate, engine, published) = (bench.engine.hold_commits(), Arc::clone(&bench.engine), bench.writer.published());
    let mut writer = bench.writer;
    let running = std::thread::spawn(move || writer.run_once([item]));
    gate.wait_for_commit();
    assert_eq!((value(&*engine, "k"), published.end(), published.history().end()), (None, Seq(0), Seq(0)));
    assert!(is_unanswered(&mut answered));
    drop(gate);
    running.join().unwrap();
    assert_eq!(answer(answered), Ok(written(1, false)));
    assert_eq!((value(&*engine, "k"), published.end()), (Some("v".into()), Seq(1)));
}
