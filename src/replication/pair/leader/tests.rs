//! What polls mean to a leader, what leaves its log, and what happens at the queue's bound.

use super::*;
use crate::clock::Clock;
use crate::types::Incarnation;

const UID: Option<ShardUid> = Some(ShardUid(5));
const BOUNDS: Bounds = Bounds { retain_bytes: 100, queue_bytes_max: 1000, queue_entries_max: 50 };

fn name(text: &str) -> NodeName {
    NodeName::new(text)
}

fn epoch() -> Epoch {
    Epoch::first(name("A/0"))
}

fn history(end: u64) -> History {
    let mut history = History::default();
    for seq in 1..=end {
        history.extend(&epoch(), Incarnation(1), Seq(seq));
    }
    history
}

fn cursor(seq: u64) -> Cursor {
    Cursor { epoch: epoch(), incarnation: Incarnation(1), seq: Seq(seq) }
}

fn poll(leader: &mut Leader, from: &str, at: Option<Cursor>, end: u64, now: Instant) -> Verdict {
    let (from, history, epoch) = (name(from), history(end), epoch());
    let facts = PollFacts { from: &from, shard_uid: UID, cursor: at.as_ref() };
    leader.poll(facts, Mine { shard_uid: UID, epoch: &epoch, history: &history }, now)
}

fn leader() -> Leader {
    Leader::new([name("A/1"), name("A/2")], &[])
}

fn extent(log_start: u64, log_bytes: u64) -> LogExtent {
    LogExtent { start: Seq(log_start), bytes: log_bytes }
}

fn trimmed_to(leader: &mut Leader, end: u64, now: Instant) -> Option<u64> {
    leader.upkeep(&extent(0, 500), BOUNDS, Seq(end), now).trim.map(|trim| trim.up_to.0)
}

#[test]
fn poll_on_history_acknowledges_and_is_written_down_once() {
    let (mut leader, now) = (leader(), Clock::manual().now());
    assert_eq!(poll(&mut leader, "A/1", Some(cursor(7)), 9, now), Verdict::After(Seq(7)));
    assert_eq!((leader.acknowledged(Seq(7)), leader.acknowledged(Seq(8))), (1, 0));
    let written = leader.upkeep(&extent(0, 0), BOUNDS, Seq(9), now).cursors;
    assert_eq!(written, vec![(name("A/1"), Some(cursor(7)))]);
    assert_eq!(leader.upkeep(&extent(0, 0), BOUNDS, Seq(9), now).cursors, vec![]);
}

#[test]
fn replica_that_was_rewound_and_is_not_whole_counts_for_nothing_and_holds_the_log() {
    let (mut leader, now) = (leader(), Clock::manual().now());
    for (is_unsettled, counted) in [(false, 7), (true, 0), (false, 7)] {
        assert_eq!(poll(&mut leader, "A/1", Some(cursor(7)), 9, now), Verdict::After(Seq(7)));
        leader.settles(&name("A/1"), is_unsettled);
        assert_eq!(leader.greatest_acknowledged(), Seq(counted));
        assert_eq!(leader.acknowledged(Seq(1)), u32::from(!is_unsettled));
        assert_eq!(leader.has_acknowledged(&name("A/1"), Seq(1)), !is_unsettled);
        assert_eq!(leader.queue_entries(Seq(0), Seq(9)), 2, "from its cursor on");
    }
}

#[test]
fn poll_beyond_the_end_is_lost_data_and_acknowledges_nothing() {
    let (mut leader, now) = (leader(), Clock::manual().now());
    assert!(matches!(poll(&mut leader, "A/1", Some(cursor(10)), 9, now), Verdict::LostData(_)));
    assert_eq!(leader.acknowledged(Seq(1)), 0);
}

#[test]
fn poll_with_another_uid_is_lost_data_only_if_it_holds_data() {
    let (mut leader, now, history, epoch, from) = (leader(), Clock::manual().now(), history(9), epoch(), name("A/1"));
    let mine = Mine { shard_uid: UID, epoch: &epoch, history: &history };
    let other = Some(ShardUid(6));
    let holding = cursor(3);
    let facts = PollFacts { from: &from, shard_uid: other, cursor: Some(&holding) };
    assert!(matches!(leader.poll(facts, mine, now), Verdict::LostData(_)));
    assert_eq!(leader.poll(PollFacts { cursor: None, ..facts }, mine, now), Verdict::After(Seq::ZERO));
}

#[test]
fn poll_from_an_earlier_epoch_off_history_is_to_be_rewound() {
    let (mut leader, now, from) = (leader(), Clock::manual().now(), name("A/1"));
    let newer = Epoch { number: 2, leader: name("A/2") };
    let mut history = history(5);
    history.extend(&newer, Incarnation(9), Seq(6));
    let ahead = cursor(8);
    let facts = PollFacts { from: &from, shard_uid: UID, cursor: Some(&ahead) };
    let mine = Mine { shard_uid: UID, epoch: &newer, history: &history };
    assert_eq!(leader.poll(facts, mine, now), Verdict::OffHistory);
}

/// A leader began anew without its file, took writes, and an operator made the replica with the data lead: what the former
/// leader holds is no proof that this one has lost data. After a loss of its own file it would be.
#[test]
fn poll_with_another_uid_from_before_a_takeover_does_not_halt_the_new_leader() {
    let (mut leader, now, from) = (leader(), Clock::manual().now(), name("A/1"));
    let newer = Epoch { number: 2, leader: name("A/2") };
    let (grown, mut anew) = (history(5), History::default());
    anew.extend(&newer, Incarnation(9), Seq(1));
    let holding = cursor(3); // of epoch 1
    let facts = PollFacts { from: &from, shard_uid: Some(ShardUid(6)), cursor: Some(&holding) };
    let mut judged =
        |epoch: &Epoch, history: &History| leader.poll(facts, Mine { shard_uid: UID, epoch, history }, now);
    assert_eq!(judged(&newer, &grown), Verdict::OffHistory);
    assert!(matches!(judged(&newer, &anew), Verdict::LostData(_)), "its own data began in its own epoch");
    assert!(matches!(judged(&newer, &History::default()), Verdict::LostData(_)), "it has none");
    assert!(matches!(judged(&epoch(), &grown), Verdict::LostData(_)), "nobody took over");
}

#[test]
fn poll_of_a_stranger_pins_nothing() {
    let (mut leader, now) = (leader(), Clock::manual().now());
    assert_eq!(poll(&mut leader, "B/1", None, 9, now), Verdict::NotOurs);
    assert_eq!(trimmed_to(&mut leader, 9, now), Some(9));
}

#[test]
fn trim_goes_to_the_least_cursor_that_was_ever_seen() {
    let (mut leader, now) = (leader(), Clock::manual().now());
    assert_eq!(trimmed_to(&mut leader, 20, now), Some(20), "an unseen replica pins nothing");
    poll(&mut leader, "A/1", Some(cursor(12)), 20, now);
    assert_eq!(trimmed_to(&mut leader, 20, now), Some(12));
    poll(&mut leader, "A/2", Some(cursor(4)), 20, now);
    assert_eq!(trimmed_to(&mut leader, 20, now), Some(4));
    poll(&mut leader, "A/2", None, 20, now);
    assert_eq!(trimmed_to(&mut leader, 20, now), None, "a replica seen empty needs everything");
}

#[test]
fn trim_is_held_by_a_snapshot_until_it_lapses() {
    let (mut leader, clock) = (leader(), Clock::manual());
    assert!(leader.pin(&name("A/1"), 1, Seq(3), clock.now()));
    assert_eq!(trimmed_to(&mut leader, 20, clock.now()), Some(3));
    clock.advance(PIN_LAPSE / 2);
    assert!(leader.touch_pin(&name("A/1"), 1, clock.now()));
    clock.advance(PIN_LAPSE / 2);
    assert_eq!(trimmed_to(&mut leader, 20, clock.now()), Some(3));
    clock.advance(PIN_LAPSE);
    assert!(!leader.touch_pin(&name("A/1"), 1, clock.now()));
    assert_eq!(trimmed_to(&mut leader, 20, clock.now()), Some(20));
}

/// The bug: a node that is no replica by this node's file could hold the log and both places for snapshots.
#[test]
fn pin_of_a_stranger_is_refused() {
    let (mut leader, now) = (leader(), Clock::manual().now());
    assert!(!leader.pin(&name("B/1"), 1, Seq(3), now));
    assert_eq!(trimmed_to(&mut leader, 20, now), Some(20));
}

#[test]
fn pins_beyond_the_bound_are_refused_and_a_new_one_replaces_the_same_replicas() {
    let now = Clock::manual().now();
    let mut leader = Leader::new(["A/1", "A/2", "A/3"].map(name), &[]);
    assert!(leader.pin(&name("A/1"), 1, Seq(3), now) && leader.pin(&name("A/2"), 2, Seq(3), now));
    assert!(!leader.pin(&name("A/3"), 3, Seq(3), now));
    assert!(leader.pin(&name("A/2"), 4, Seq(5), now));
    assert!(!leader.touch_pin(&name("A/2"), 2, now));
}

#[test]
fn queue_bound_counts_what_is_not_acknowledged_and_not_what_is_retained() {
    let (mut leader, now) = (leader(), Clock::manual().now());
    poll(&mut leader, "A/1", Some(cursor(500)), 500, now);
    leader.upkeep(&extent(0, 90), BOUNDS, Seq(500), now);
    assert!(leader.replicas().all(|(_, replica)| !replica.given_up), "it has everything");
    leader.upkeep(&extent(0, 90), BOUNDS, Seq(551), now);
    let given_up: Vec<_> = leader.replicas().map(|(_, replica)| replica.given_up).collect();
    assert_eq!(given_up, [true, false], "51 entries behind, however few bytes they have");
}

#[test]
fn trim_is_not_held_by_a_cursor_that_the_log_no_longer_reaches() {
    let remembered = [(name("A/1"), Some(cursor(5)))];
    let (mut leader, now) = (Leader::new([name("A/1")], &remembered), Clock::manual().now());
    let trim = leader.upkeep(&extent(10, 500), BOUNDS, Seq(40), now).trim;
    assert_eq!(trim.map(|trim| trim.up_to), Some(Seq(40)));
}

#[test]
fn snapshot_that_holds_the_most_ends_at_the_bound() {
    let (mut leader, now) = (leader(), Clock::manual().now());
    poll(&mut leader, "A/2", Some(cursor(60)), 60, now);
    assert!(leader.pin(&name("A/1"), 1, Seq(5), now));
    assert_eq!(leader.upkeep(&extent(5, 500), BOUNDS, Seq(60), now).trim.map(|trim| trim.up_to), Some(Seq(60)));
    assert!(!leader.touch_pin(&name("A/1"), 1, now));
}

#[test]
fn snapshot_that_arrived_makes_room_for_the_next() {
    let now = Clock::manual().now();
    let mut leader = Leader::new(["A/1", "A/2", "A/3"].map(name), &[]);
    assert!(leader.pin(&name("A/1"), 1, Seq(3), now) && leader.pin(&name("A/2"), 2, Seq(3), now));
    poll(&mut leader, "A/1", Some(cursor(2)), 9, now);
    assert!(!leader.pin(&name("A/3"), 3, Seq(3), now), "an old copy that polls proves nothing");
    poll(&mut leader, "A/1", Some(cursor(3)), 9, now);
    assert!(leader.pin(&name("A/3"), 3, Seq(3), now));
}

#[test]
fn queue_at_its_bound_gives_up_on_the_furthest_behind_only() {
    let (mut leader, now) = (leader(), Clock::manual().now());
    poll(&mut leader, "A/1", Some(cursor(60)), 60, now);
    poll(&mut leader, "A/2", Some(cursor(1)), 60, now);
    assert_eq!(leader.upkeep(&extent(1, 500), BOUNDS, Seq(60), now).trim.map(|trim| trim.up_to), Some(Seq(60)));
    let given_up: Vec<_> = leader.replicas().map(|(_, replica)| replica.given_up).collect();
    assert_eq!(given_up, [false, true]);
    poll(&mut leader, "A/2", Some(cursor(50)), 60, now);
    leader.upkeep(&extent(40, 100), BOUNDS, Seq(60), now);
    assert!(leader.replicas().all(|(_, replica)| !replica.given_up), "it is back, and within reach");
}

#[test]
fn pause_keeps_small_batches_apart_and_lets_single_writes_and_full_batches_through() {
    let (mut leader, clock, replica) = (leader(), Clock::manual(), name("A/1"));
    assert_eq!(leader.pause(&replica, 1, clock.now()), Duration::ZERO, "its first");
    leader.gave(&replica, clock.now());
    assert_eq!(leader.pause(&replica, 1, clock.now()), PACE);
    assert_eq!(leader.pause(&replica, WORTHWHILE_ENTRIES, clock.now()), Duration::ZERO);
    assert_eq!(leader.pause(&name("A/2"), 1, clock.now()), Duration::ZERO, "another's");
    clock.advance(PACE);
    assert_eq!(leader.pause(&replica, 1, clock.now()), Duration::ZERO, "a while ago");
}
