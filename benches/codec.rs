//! The hand-written codec: entries (log, disk and wire), records (the `data` table) and frames (between nodes), each to
//! bytes and back, with a small value and with one of 16 KiB. Decoding hands out slices and copies no value; an entry's
//! checksum is read over all of it, both ways.

#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ostraca::peer::frame::Frame;
use ostraca::peer::{Class, Envelope, Kind, Request};
use ostraca::types::key::KEY_BYTES_CEILING;
use ostraca::types::{
    Change, ClusterUid, Content, Entry, Epoch, Incarnation, Key, Mutation, NodeName, Record, RequestId, Seq,
    ShardIndex, Space, UnixMs,
};

/// Bytes of the values.
const VALUE_BYTES: [usize; 2] = [100, 16 << 10];
/// Bytes of the length before each frame, which the connection's cutter takes away before a frame is decoded.
const LENGTH_BYTES: usize = 4;

fn content(value_bytes: usize) -> Content {
    Content { content_type: Some(Bytes::from_static(b"text/plain")), ..Content::of(vec![7; value_bytes]) }
}

fn entry(value_bytes: usize) -> Entry {
    let key = Key::new(&b"user:0123456789abcdef"[..], KEY_BYTES_CEILING).unwrap();
    Entry {
        shard: ShardIndex(2),
        epoch: Epoch::first(NodeName::new("Hyderabad/0")),
        incarnation: Incarnation(7),
        seq: Seq(1_000_000),
        time: UnixMs(1_600_000_000_000),
        mutations: vec![Mutation { space: Space::Data, key, change: Change::Put(content(value_bytes)) }],
    }
}

fn record(value_bytes: usize) -> Record {
    Record { version: entry(0).version(), content: content(value_bytes) }
}

fn frame(value_bytes: usize) -> Frame {
    let envelope = Envelope {
        request_id: RequestId(7),
        kind: Kind::Forward.number(),
        cluster: Some(ClusterUid(8)),
        placement: 9,
        shard: ShardIndex(3),
        epoch: Some(Epoch::first(NodeName::new("Delhi/0"))),
        from: NodeName::new("Hyderabad/0"),
        remaining: Duration::from_secs(30),
        class: Class::Request,
    };
    Frame::Request { id: 5, request: Request { envelope, body: Bytes::from(vec![7; value_bytes]) } }
}

fn entries(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec_entry");
    for value_bytes in VALUE_BYTES {
        let (entry, bytes) = (entry(value_bytes), entry(value_bytes).encode());
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::new("encode", value_bytes), |bencher| {
            bencher.iter(|| black_box(&entry).encode());
        });
        group.bench_function(BenchmarkId::new("decode", value_bytes), |bencher| {
            bencher.iter(|| Entry::decode(black_box(bytes.clone())).unwrap());
        });
    }
    group.finish();
}

fn records(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec_record");
    for value_bytes in VALUE_BYTES {
        let (record, bytes) = (record(value_bytes), record(value_bytes).encode());
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::new("encode", value_bytes), |bencher| {
            bencher.iter(|| black_box(&record).encode());
        });
        group.bench_function(BenchmarkId::new("decode", value_bytes), |bencher| {
            bencher.iter(|| Record::decode(black_box(bytes.clone())).unwrap());
        });
    }
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec_frame");
    for value_bytes in VALUE_BYTES {
        let frame = frame(value_bytes);
        let encoded = frame.clone().encode();
        let bytes = Bytes::from([encoded.head.slice(LENGTH_BYTES..), encoded.body.clone()].concat());
        group.throughput(Throughput::Bytes(encoded.len() as u64));
        group.bench_function(BenchmarkId::new("encode", value_bytes), |bencher| {
            bencher.iter_batched(|| frame.clone(), Frame::encode, BatchSize::SmallInput);
        });
        group.bench_function(BenchmarkId::new("decode", value_bytes), |bencher| {
            bencher.iter(|| Frame::decode(black_box(bytes.clone())).unwrap());
        });
    }
    group.finish();
}

criterion_group! {
    name = codec;
    config = Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1));
    targets = entries, records, frames
}
criterion_main!(codec);
