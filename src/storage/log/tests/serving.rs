//! What a log gives back: reads from memory and from files, reopening, trimming.

use std::sync::Arc;

use super::{ID, SHARD, SMALL, append_each, bytes_of, create, entry, open, read_all};
use crate::storage::Entries;
use crate::storage::log::tests::memory::MemoryDirectory;
use crate::storage::log::{FileDirectory, Log, Options};
use crate::types::Seq;

#[test]
fn read_across_segments_gives_every_entry_in_order() {
    let directory = MemoryDirectory::default();
    let log = create(&directory, 10, SMALL);
    append_each(&log, 11..=60);
    assert!(directory.names().len() > 4, "{:?}", directory.names());
    for bytes_max in [1, 150, 1000, 1 << 20] {
        for after in [10, 11, 30, 59, 60] {
            assert_eq!(read_all(&log, after, bytes_max), bytes_of(after + 1..=60, 100), "{after} {bytes_max}");
        }
    }
    assert_eq!((log.start(), log.end()), (Seq(10), Seq(60)));
    assert_eq!(log.read(Seq(9), 100), Ok(Entries::Trimmed));
    assert_eq!(log.bytes(), bytes_of(11..=60, 100).iter().map(|bytes| bytes.len() as u64).sum::<u64>());
}

#[test]
fn read_of_frames_with_many_entries_begins_and_ends_inside_them() {
    let directory = MemoryDirectory::default();
    let log = create(&directory, 0, Options { recent_bytes: 0, ..SMALL });
    let entries: Vec<_> = (1..=90).map(|seq| entry(seq, 100)).collect();
    entries.chunks(9).for_each(|chunk| log.append(chunk, Seq::ZERO).unwrap());
    for after in 0..=90 {
        assert_eq!(read_all(&log, after, 300), bytes_of(after + 1..=90, 100), "{after}");
    }
}

#[test]
fn open_after_everything_gives_it_back_and_goes_on() {
    let directory = MemoryDirectory::default();
    let log = create(&directory, 0, SMALL);
    append_each(&log, 1..=40);
    drop(log);
    for lives in 0..5 {
        let last = 40 + lives * 7;
        let (log, recovered) = open(&directory, last - 12, SMALL).unwrap();
        assert_eq!((log.start(), log.end(), recovered.apply_to), (Seq(0), Seq(last), Seq(last)));
        assert_eq!(recovered.entries, (last - 11..=last).map(|seq| entry(seq, 100)).collect::<Vec<_>>());
        assert_eq!(read_all(&log, 0, 700), bytes_of(1..=last, 100));
        append_each(&log, last + 1..=last + 7);
        assert_eq!(read_all(&log, 0, 700), bytes_of(1..=last + 7, 100));
    }
}

#[test]
fn open_says_how_far_to_apply() {
    let directory = MemoryDirectory::default();
    let log = create(&directory, 5, SMALL);
    log.append(&[entry(6, 1), entry(7, 1)], Seq(5)).unwrap();
    assert_eq!(open(&directory, 5, SMALL).unwrap().1.apply_to, Seq(5));
    log.append(&[], Seq(6)).unwrap();
    let (_, recovered) = open(&directory, 5, SMALL).unwrap();
    assert_eq!((recovered.apply_to, recovered.entries.len()), (Seq(6), 2));
    assert_eq!(open(&directory, 7, SMALL).unwrap().1.apply_to, Seq(7));
}

#[test]
fn create_alone_is_a_log_that_opens() {
    let directory = MemoryDirectory::default();
    create(&directory, 77, SMALL);
    let (log, recovered) = open(&directory, 77, SMALL).unwrap();
    assert_eq!((log.start(), log.end(), log.bytes()), (Seq(77), Seq(77), 0));
    assert_eq!((recovered.apply_to, recovered.entries), (Seq(77), vec![]));
}

#[test]
fn drop_through_deletes_whole_applied_segments_and_keeps_bytes() {
    let directory = MemoryDirectory::default();
    let log = create(&directory, 0, SMALL);
    append_each(&log, 1..=100);
    let (all, files) = (log.bytes(), directory.names().len());
    assert_eq!(log.drop_through(Seq(0), 0), Ok(Seq(0)));
    let start = log.drop_through(Seq(50), 0).unwrap();
    assert!(start > Seq(20) && start <= Seq(50), "{start}");
    assert!(directory.names().len() < files);
    assert_eq!(log.read(start, 1).map(|entries| entries == Entries::Trimmed), Ok(false));
    assert_eq!(log.read(Seq(start.0 - 1), 1), Ok(Entries::Trimmed));
    assert_eq!(read_all(&log, start.0, 1000), bytes_of(start.0 + 1..=100, 100));
    assert_eq!(log.drop_through(Seq(100), all), Ok(start), "so much is to stay");
    let start = log.drop_through(Seq(100), 2000).unwrap();
    assert!((2000..5000).contains(&log.bytes()), "{}", log.bytes());
    let last = log.drop_through(Seq(100), 0).unwrap();
    assert!(last > start && last < Seq(100), "what is being written stays: {last}");
    let (log, _) = open(&directory, 100, SMALL).unwrap();
    assert_eq!((log.start(), log.end()), (last, Seq(100)));
}

#[test]
fn prepare_makes_the_next_segment_of_zeros_once_the_last_is_half_full() {
    let options = Options { segment_bytes: 16_000, recent_bytes: 0 };
    let directory = MemoryDirectory::default();
    let log = create(&directory, 0, options);
    assert!(!log.wants_segment());
    log.prepare().unwrap();
    assert_eq!(directory.names().len(), 1, "nothing was written yet");
    append_each(&log, 1..=4);
    assert!(log.wants_segment());
    log.prepare().unwrap();
    assert!(!log.wants_segment());
    let newest = directory.names().pop().unwrap();
    assert_eq!((directory.names().len(), directory.contents(&newest).len()), (2, 16_000));
    append_each(&log, 5..=80);
    assert_eq!(directory.names().len(), 2, "the second is used to its end");
    log.prepare().unwrap();
    append_each(&log, 81..=100);
    let plain: Vec<_> = directory.names().into_iter().filter(|name| directory.contents(name).len() < 16_000).collect();
    assert_eq!((plain.len(), directory.names().len()), (1, 3), "{plain:?}");
    for log in [log, open(&directory, 0, options).unwrap().0] {
        assert_eq!(read_all(&log, 0, 1000), bytes_of(1..=100, 100));
    }
}

#[test]
fn append_of_an_entry_larger_than_a_segment_is_one_frame() {
    let directory = MemoryDirectory::default();
    let log = create(&directory, 0, SMALL);
    append_each(&log, 1..=3);
    log.append(&[entry(4, 100_000)], Seq(4)).unwrap();
    append_each(&log, 5..=6);
    let (log, recovered) = open(&directory, 3, SMALL).unwrap();
    assert_eq!(recovered.entries, vec![entry(4, 100_000), entry(5, 100), entry(6, 100)]);
    assert_eq!(log.read(Seq(3), 10), Ok(Entries::Found(vec![entry(4, 100_000).bytes])));
}

#[test]
fn append_costs_one_write_and_one_sync() {
    let directory = MemoryDirectory::default();
    let log = create(&directory, 0, Options::default());
    let (calls, syncs) = (directory.calls(), directory.syncs());
    append_each(&log, 1..=10);
    assert_eq!((directory.calls() - calls, directory.syncs() - syncs), (20, 10));
}

#[test]
fn read_while_segments_are_deleted_is_trimmed_or_right() {
    let directory = MemoryDirectory::default();
    let log = create(&directory, 0, SMALL);
    append_each(&log, 1..=50);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while log.end() < Seq(1000) {
                    let start = log.start();
                    match log.read(start, 3000).unwrap() {
                        Entries::Trimmed => assert!(log.start() > start),
                        Entries::Found(found) => {
                            let last = start.0 + found.len() as u64;
                            assert_eq!(found, bytes_of(start.0 + 1..=last, 100));
                        }
                    }
                }
            });
        }
        for seq in 51..=1000 {
            append_each(&log, seq..=seq);
            log.drop_through(Seq(seq), 1000).unwrap();
        }
    });
}

#[test]
fn directory_of_the_file_system_holds_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a").join("FILE.log-1");
    let directory = || Arc::new(FileDirectory::create(&path).unwrap());
    let log = Log::create(directory(), ID, SHARD, Seq(0), SMALL).unwrap();
    append_each(&log, 1..=30);
    log.prepare().unwrap();
    append_each(&log, 31..=60);
    log.drop_through(Seq(30), 0).unwrap();
    let start = log.start();
    assert_eq!(read_all(&log, start.0, 500), bytes_of(start.0 + 1..=60, 100));
    let bytes = log.file_bytes().unwrap();
    assert!(bytes > log.bytes() && bytes < 20_000, "{bytes}");
    drop(log);
    let (log, recovered) = Log::open(directory(), ID, SHARD, Seq(50), SMALL).unwrap();
    assert_eq!((log.start(), log.end(), recovered.entries.len()), (start, Seq(60), 10));
    assert!(FileDirectory::open(&dir.path().join("none")).is_err());
}
