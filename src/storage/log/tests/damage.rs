//! Torn tails are left out, and everything acknowledged is there; damage before them is refused, with words.

use std::ops::Range;

use super::memory::MemoryDirectory;
use super::{ID, SHARD, SMALL, append_each, bytes_of, create, damage, entry, open, read_all};
use crate::storage::log::frame::HEADER_BYTES;
use crate::storage::log::segment::{file_name, number_of};
use crate::storage::log::{Log, LogId, Options};
use crate::storage::open::OpenFault;
use crate::types::{Seq, ShardIndex};

/// One segment for all that these tests write, filled with zeros or not.
const ONE: Options = Options { segment_bytes: 1 << 17, recent_bytes: 0 };

/// A log of `frames` frames of one entry each, and where in which file each frame stands.
fn log_of(frames: u64, options: Options, zeros: bool) -> (MemoryDirectory, Vec<(String, Range<usize>)>) {
    let directory = MemoryDirectory::default();
    let log = create(&directory, 0, options);
    if zeros {
        log.append(&[], Seq(0)).unwrap();
        while !log.view.lock().is_half_full {
            log.append(&[], Seq(0)).unwrap();
        }
        log.prepare().unwrap();
        while log.view.lock().segments.len() == 1 {
            log.append(&[], Seq(0)).unwrap();
        }
    }
    let mut places = Vec::new();
    for seq in 1..=frames {
        let place = |log: &Log| {
            let tail = log.tail.lock();
            (file_name(tail.open.number), tail.offset as usize)
        };
        let before = place(&log);
        append_each(&log, seq..=seq);
        let after = place(&log);
        let from = if before.0 == after.0 { before.1 } else { HEADER_BYTES as usize };
        places.push((after.0, from..after.1));
    }
    (directory, places)
}

/// Opens it, and checks that it holds the entries up to `last`, takes the next ones, and holds them after another opening.
fn opens_with(directory: &MemoryDirectory, last: u64, options: Options) {
    let (log, recovered) = open(directory, 0, options).unwrap();
    assert_eq!((log.end(), recovered.entries.len() as u64), (Seq(last), last));
    assert_eq!(read_all(&log, 0, 1000), bytes_of(1..=last, 100));
    append_each(&log, last + 1..=last + 3);
    let (log, recovered) = open(directory, last, options).unwrap();
    assert_eq!(recovered.entries, (last + 1..=last + 3).map(|seq| entry(seq, 100)).collect::<Vec<_>>());
    assert_eq!(read_all(&log, 0, 1000), bytes_of(1..=last + 3, 100));
}

#[test]
fn tail_cut_at_any_byte_of_the_last_frames_keeps_the_frames_before() {
    let (directory, places) = log_of(6, ONE, false);
    for (before, (name, frame)) in (3..).zip(&places[3..]) {
        for len in frame.clone() {
            let copy = directory.copied();
            let mut contents = copy.contents(name);
            contents.truncate(len);
            copy.put(name, contents);
            opens_with(&copy, before, ONE);
        }
    }
}

#[test]
fn tail_with_any_byte_flipped_or_zeroed_keeps_the_frames_before() {
    for zeros in [false, true] {
        let (directory, places) = log_of(5, ONE, zeros);
        let (name, frame) = places.last().unwrap();
        for at in frame.clone() {
            let flipped = directory.copied();
            flipped.flip(name, at);
            opens_with(&flipped, 4, ONE);
            let zeroed = directory.copied();
            let mut contents = zeroed.contents(name);
            contents[frame.start..=at].fill(0);
            zeroed.put(name, contents);
            opens_with(&zeroed, 4, ONE);
        }
    }
}

#[test]
fn damage_before_the_last_frame_is_refused() {
    for zeros in [false, true] {
        let (directory, places) = log_of(5, ONE, zeros);
        let (name, last) = places.last().unwrap();
        for at in places[1].1.start..last.start {
            let copy = directory.copied();
            copy.flip(name, at);
            let words = damage(open(&copy, 0, ONE));
            assert!(words.contains("damaged at byte") && words.contains(name), "byte {at}: {words}");
        }
    }
}

#[test]
fn damage_to_what_is_applied_in_older_segments_does_not_stop_an_opening_and_is_noticed_by_a_read() {
    let (directory, places) = log_of(60, SMALL, false);
    let (name, frame) = &places[10];
    directory.flip(name, frame.end - 1);
    let (log, _) = open(&directory, 50, SMALL).unwrap();
    let words = log.read(Seq(10), 1).unwrap_err().to_string();
    assert!(words.contains(name) && words.contains("checksum"), "{words}");
    assert_eq!(read_all(&log, 11, 1000), bytes_of(12..=60, 100), "other frames are read");
}

#[test]
fn segment_that_is_torn_is_damage_when_a_later_one_was_begun() {
    let (directory, places) = log_of(60, SMALL, false);
    let last_of = |number: u32| places.iter().rev().find(|(name, _)| *name == file_name(number)).unwrap();
    let newest = number_of(&places.last().unwrap().0).unwrap();
    let (name, frame) = last_of(newest - 1);
    for at in frame.clone() {
        let copy = directory.copied();
        copy.flip(name, at);
        assert!(damage(open(&copy, 0, SMALL)).contains("damaged at byte"), "byte {at}");
    }
    // Even if of the later one only the head of its first frame is left.
    let copy = directory.copied();
    let later = file_name(newest);
    let mut contents = copy.contents(&later);
    contents.truncate(HEADER_BYTES as usize + 70);
    copy.put(&later, contents);
    assert_eq!(
        open(&copy.copied(), 0, SMALL).unwrap().1.apply_to,
        Seq(places.iter().filter(|(name, _)| *name != later).count() as u64)
    );
    copy.flip(name, frame.start);
    assert!(damage(open(&copy, 0, SMALL)).contains("was begun"));
}

#[test]
fn segment_that_is_missing_is_damage_unless_it_and_all_before_are_applied() {
    let (directory, places) = log_of(60, SMALL, false);
    let numbers: Vec<u32> = directory.names().iter().filter_map(|name| number_of(name)).collect();
    assert!(numbers.len() >= 6, "{numbers:?}");
    for missing in &numbers {
        let copy = directory.copied();
        copy.delete(&file_name(*missing));
        let end_of =
            |number: u32| places.iter().rposition(|(name, _)| *name <= file_name(number)).map_or(0, |at| at + 1);
        let words = damage(open(&copy, 0, SMALL));
        assert!(words.contains("missing") || words.contains("begins after"), "{missing}: {words}");
        let applied = end_of(*missing) as u64;
        if end_of(*missing) < 60 {
            let (log, recovered) = open(&copy, applied, SMALL).unwrap();
            assert_eq!(log.start(), Seq(applied), "those before it are left over");
            assert_eq!(recovered.entries.len() as u64, 60 - applied);
            let left: Vec<u32> = copy.names().iter().filter_map(|name| number_of(name)).collect();
            assert!(left.iter().all(|number| number > missing), "{left:?}");
        }
    }
}

#[test]
fn segment_prepared_behind_the_end_may_be_in_any_state() {
    let directory = MemoryDirectory::default();
    let log = create(&directory, 0, ONE);
    append_each(&log, 1..=30);
    assert_eq!(directory.names().len(), 1);
    for contents in [vec![], vec![0; 10], vec![7; 10], vec![0; 5000], vec![7; 5000]] {
        let copy = directory.copied();
        copy.put(&file_name(1), contents);
        opens_with(&copy, 30, ONE);
    }
    log.prepare().unwrap();
    assert_eq!(directory.names().len(), 2);
    opens_with(&directory.copied(), 30, ONE);
}

#[test]
fn segment_behind_a_closed_one_may_have_a_torn_first_frame_and_must_have_its_header() {
    let (directory, places) = log_of(60, SMALL, false);
    let newest = &places.last().unwrap().0;
    let kept = places.iter().filter(|(name, _)| name != newest).count() as u64;
    let contents = directory.contents(newest);
    let first = places.iter().find(|(name, _)| name == newest).unwrap().1.clone();
    for len in HEADER_BYTES as usize..first.end {
        let copy = directory.copied();
        copy.put(newest, contents[..len].to_vec());
        copy.delete(&file_name(number_of(newest).unwrap() + 1));
        opens_with(&copy, kept, SMALL);
    }
    for len in 0..HEADER_BYTES as usize {
        directory.put(newest, contents[..len].to_vec());
        directory.delete(&file_name(number_of(newest).unwrap() + 1));
        assert!(damage(open(&directory.copied(), 0, SMALL)).contains("no header"), "{len}");
    }
}

#[test]
fn segments_of_another_log_shard_or_place_are_refused() {
    let (directory, places) = log_of(60, SMALL, false);
    let other_id = LogId(99);
    let foreign = |id, shard| {
        let other = MemoryDirectory::default();
        let log = Log::create(std::sync::Arc::new(other.clone()), id, shard, Seq(0), SMALL).unwrap();
        (1..=60).for_each(|seq| log.append(&[entry(seq, 100)], Seq(seq)).unwrap());
        other
    };
    let middle = &places[30].0;

    let copy = directory.copied();
    copy.put(middle, foreign(other_id, SHARD).contents(middle));
    assert!(damage(open(&copy, 0, SMALL)).contains("belongs to log 0000000000000063"));

    copy.put(middle, foreign(ID, ShardIndex(4)).contents(middle));
    let Err(OpenFault::Shard { found, wanted }) = open(&copy, 0, SMALL) else { panic!("opened") };
    assert_eq!((found.as_str(), wanted.as_str()), ("(index 4)", "(index 3)"));

    copy.put(middle, directory.contents(&places[0].0));
    assert!(damage(open(&copy, 0, SMALL)).contains("was written as"));
}

#[test]
fn log_that_does_not_meet_what_is_applied_is_refused() {
    let directory = MemoryDirectory::default();
    append_each(&create(&directory, 10, SMALL), 11..=20);
    assert!(damage(open(&directory, 9, SMALL)).contains("begins after entry 10"));
    assert!(damage(open(&directory, 21, SMALL)).contains("ends with entry 20"));
    assert!(damage(open(&MemoryDirectory::default(), 0, SMALL)).contains("no segments"));
}

#[test]
fn files_with_other_names_are_left_alone() {
    let (directory, _) = log_of(5, SMALL, false);
    for name in ["1", "0000000001.bak", "-000000001", "lost+found", "99999999999"] {
        directory.put(name, vec![1, 2, 3]);
    }
    opens_with(&directory, 5, SMALL);
    assert_eq!(directory.contents("lost+found"), [1, 2, 3]);
}

#[test]
fn tail_with_a_frame_of_the_log_inside_a_value_is_a_torn_tail() {
    // A client may store a copy of a segment as a value: its frames say that they stand elsewhere.
    let (directory, places) = log_of(3, ONE, false);
    let (name, frame) = &places[1];
    let copied = directory.contents(name)[frame.clone()].to_vec();
    let mut contents = directory.contents(name);
    let torn_from = contents.len();
    contents.extend_from_slice(&[9; 50]);
    contents.extend_from_slice(&copied);
    directory.put(name, contents);
    opens_with(&directory.copied(), 3, ONE);
    assert!(torn_from > frame.end);
}
