//! A checksum over a range of a copy's records, for comparing copies without stopping them: two copies that hold the same
//! keys with the same versions and values in a range have the same checksum of it.
//!
//! ```text
//!   xxh3-64 of, for each record in the order of keys:
//!   key │ version │ flags u8, [expiry varint], [content type] │ value          each byte string behind its varint length
//! ```
//!
//! It does not depend on how a file lays its records out. A range reaches from after one key up to and with another, or
//! to the end; each is read in one read transaction, bounded, so that nobody waits for it.

use bytes::{BufMut, BytesMut};
use xxhash_rust::xxh3::Xxh3;

use super::{Chunk, Engine, Error};
use crate::types::{Key, Record, Seq, Space, codec};

/// Most records in a range whose end the caller does not name.
pub const RANGE_RECORDS: usize = 4096;
/// Most records that one call reads; one that should have read more says where it stopped.
pub const RANGE_RECORDS_MAX: usize = 4 * RANGE_RECORDS;
/// Bytes of the records in a range whose end the caller does not name.
const RANGE_BYTES: usize = 1 << 20;
/// Bytes that one call reads, unless one record is larger.
const RANGE_BYTES_MAX: usize = 4 * RANGE_BYTES;

/// The range that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Range {
    /// Keys above this one; none: from the first.
    pub after: Option<Key>,
    /// Up to this one, which counts; none: as many as one call reads, and it says how far that was.
    pub until: Option<Key>,
    /// At most so many records.
    pub records_max: Option<usize>,
}

/// What a copy holds in a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// Over all records of the range.
    pub checksum: u64,
    /// How many they are.
    pub records: u64,
    /// Where the range really ends: the last key of it; none: the end of the copy.
    pub until: Option<Key>,
    /// No record of this copy lies behind the range.
    pub last: bool,
    /// The last entry that was applied when it was read.
    pub at: Seq,
}

/// Reads a range and sums it up.
pub fn of_range(engine: &dyn Engine, range: &Range) -> Result<Sum, Error> {
    let Range { after, until, records_max } = range;
    let (usual, bytes_max) =
        if until.is_some() { (RANGE_RECORDS_MAX, RANGE_BYTES_MAX) } else { (RANGE_RECORDS, RANGE_BYTES) };
    let records_max = records_max.unwrap_or(usual).clamp(1, RANGE_RECORDS_MAX);
    let Chunk { records, at, last } = engine.chunk(Space::Data, after.as_ref(), bytes_max)?;
    let within = |key: &Key| until.as_ref().is_none_or(|until| key <= until);
    let beyond = records.iter().position(|(key, _)| !within(key));
    let taken = beyond.unwrap_or(records.len()).min(records_max);
    let mut hash = Xxh3::new();
    for (key, bytes) in records.iter().take(taken) {
        let record = Record::decode(bytes.clone());
        let record = record.map_err(|what| Error::Corrupt(format!("the record of {key:?}: {what}")))?;
        add(&mut hash, key, &record);
    }
    let whole = beyond == Some(taken) || (taken == records.len() && last);
    let reached =
        if whole { until.clone() } else { records.get(..taken).and_then(<[_]>::last).map(|(key, _)| key.clone()) };
    Ok(Sum { checksum: hash.digest(), records: taken as u64, until: reached, last: taken == records.len() && last, at })
}

fn add(hash: &mut Xxh3, key: &Key, record: &Record) {
    let (mut head, mut version) = (BytesMut::new(), BytesMut::new());
    codec::put_bytes(&mut head, key.as_bytes());
    record.version.encode(&mut version);
    codec::put_bytes(&mut head, &version);
    head.put_u8(record.content.flags());
    record.content.encode_attributes(&mut head);
    codec::put_varint(&mut head, record.content.value.len() as u64);
    hash.update(&head);
    hash.update(&record.content.value);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::storage::Batch;
    use crate::storage::memory::MemoryEngine;
    use crate::types::{Content, Incarnation, Version};

    fn key(text: &str) -> Key {
        Key::new(text.as_bytes().to_vec(), 100).unwrap()
    }

    fn record(seq: u64, value: &[u8]) -> Record {
        let version = Version::Log { epoch: 1, seq: Seq(seq), incarnation: Incarnation(7) };
        Record { version, content: Content::of(Bytes::copy_from_slice(value)) }
    }

    fn holding(records: &[(&str, Record)]) -> MemoryEngine {
        let engine = MemoryEngine::new();
        let install = records.iter().map(|(name, record)| (Space::Data, key(name), record.encode())).collect();
        engine.commit(&Batch { install, ..Batch::default() }).unwrap();
        engine
    }

    fn many(count: u64) -> MemoryEngine {
        let names: Vec<String> = (0..count).map(|n| format!("{n:05}")).collect();
        let records: Vec<_> = names.iter().zip(1..).map(|(name, n)| (name.as_str(), record(n, b"v"))).collect();
        holding(&records)
    }

    fn whole(engine: &MemoryEngine) -> u64 {
        of_range(engine, &Range::default()).unwrap().checksum
    }

    #[test]
    fn checksum_is_that_of_its_golden_bytes() {
        let mut typed = record(300, b"\x00\xff");
        typed.content.content_type = Some(Bytes::from_static(b"a/b"));
        let golden = b"\x01a\x0b\x01\x01\x01\0\0\0\0\0\0\0\x07\x00\x00\
            \x01b\x0c\x01\x01\xac\x02\0\0\0\0\0\0\0\x07\x02\x03a/b\x02\x00\xff";
        assert_eq!(whole(&holding(&[("a", record(1, b"")), ("b", typed)])), xxhash_rust::xxh3::xxh3_64(golden));
        assert_eq!(whole(&holding(&[])), 0x2d06_8005_38d3_94c2, "xxh3 of nothing, as published");
    }

    #[test]
    fn checksum_differs_by_key_version_value_type_and_place() {
        let mut typed = record(1, b"x");
        typed.content.content_type = Some(Bytes::from_static(b"a/b"));
        let copies = [
            holding(&[("a", record(1, b"x"))]),
            holding(&[("b", record(1, b"x"))]),
            holding(&[("a", record(2, b"x"))]),
            holding(&[("a", record(1, b"y"))]),
            holding(&[("a", record(1, b""))]),
            holding(&[("a", typed)]),
            holding(&[("a", record(1, b"x")), ("b", record(2, b"x"))]),
            holding(&[("a", record(2, b"x")), ("b", record(1, b"x"))]),
        ];
        let mut sums: Vec<u64> = copies.iter().map(whole).collect();
        sums.sort_unstable();
        sums.dedup();
        assert_eq!(sums.len(), copies.len());
    }

    #[test]
    fn range_without_an_end_says_how_far_it_reaches() {
        let engine = many(10_000);
        let first = of_range(&engine, &Range::default()).unwrap();
        assert_eq!((first.records, first.last), (4096, false));
        assert_eq!(first.until, Some(key("04095")));
        let same = Range { until: first.until.clone(), ..Range::default() };
        assert_eq!(of_range(&engine, &same).unwrap(), first);
        let rest = Range { after: Some(key("08191")), ..Range::default() };
        let rest = of_range(&engine, &rest).unwrap();
        assert_eq!((rest.records, rest.until, rest.last), (1808, None, true));
    }

    #[test]
    fn range_with_an_end_is_whole_whether_or_not_that_key_is_there() {
        let engine = holding(&[("a", record(1, b"1")), ("c", record(2, b"2")), ("e", record(3, b"3"))]);
        let sum = |after: Option<&str>, until: &str| {
            of_range(&engine, &Range { after: after.map(key), until: Some(key(until)), records_max: None }).unwrap()
        };
        for (until, records, last) in
            [("a", 1, false), ("b", 1, false), ("c", 2, false), ("e", 3, true), ("z", 3, true)]
        {
            let found = sum(None, until);
            assert_eq!((found.records, found.last, found.until), (records, last, Some(key(until))), "{until}");
        }
        assert_eq!(sum(Some("c"), "d").records, 0);
        assert_eq!(sum(Some("a"), "z").checksum, whole(&holding(&[("c", record(2, b"2")), ("e", record(3, b"3"))])));
    }

    #[test]
    fn range_beyond_what_one_call_reads_says_where_it_stopped() {
        let engine = many(20_000);
        let sum = of_range(&engine, &Range { until: Some(key("99999")), ..Range::default() }).unwrap();
        assert_eq!((sum.records, sum.until, sum.last), (16_384, Some(key("16383")), false));
        let few = Range { until: Some(key("00100")), records_max: Some(10), after: None };
        assert_eq!(of_range(&engine, &few).unwrap().until, Some(key("00009")));
        let large = vec![0; 3 << 20];
        let engine = holding(&[("a", record(1, &large)), ("b", record(2, &large))]);
        let sum = of_range(&engine, &Range::default()).unwrap();
        assert_eq!((sum.records, sum.until, sum.last), (1, Some(key("a")), false));
        let sum = of_range(&engine, &Range { after: Some(key("a")), ..Range::default() }).unwrap();
        assert_eq!((sum.records, sum.until, sum.last), (1, None, true));
    }

    proptest! {
        #[test]
        fn ranges_that_follow_one_another_cover_every_record_once(
            keys in proptest::collection::btree_set("[a-c]{1,3}", 0..40),
            step in 1_usize..7,
        ) {
            let records: Vec<_> = keys.iter().map(|name| (name.as_str(), record(1, name.as_bytes()))).collect();
            let engine = holding(&records);
            let (mut after, mut found) = (None, 0);
            loop {
                let range = Range { after, until: None, records_max: Some(step) };
                let sum = of_range(&engine, &range).unwrap();
                found += sum.records;
                if sum.last {
                    break;
                }
                prop_assert!(sum.until.is_some() && sum.until > range.after);
                after = sum.until;
            }
            prop_assert_eq!(found, keys.len() as u64);
        }
    }
}
