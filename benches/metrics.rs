//! What a request pays for being counted: one counter and one histogram, of tables as large as a node's.

use criterion::{Criterion, criterion_group, criterion_main};
use ostraca::metrics::{Labels, Metrics};
use std::hint::black_box;
use std::time::Duration;

fn count_a_request(criterion: &mut Criterion) {
    let some = |count: usize| vec!["value"; count];
    let labels = Labels { routes: some(20), methods: some(6), outcomes: some(26), ..Labels::default() };
    let metrics = Metrics::new(&labels);
    criterion.bench_function("metrics_count_a_request", |bencher| {
        bencher.iter(|| {
            let (route, method, outcome) = black_box((3, 0, 0));
            metrics.http.requests.inc([route, method, outcome]);
            metrics.http.durations.time([route, outcome], black_box(Duration::from_micros(80)));
        });
    });
}

criterion_group!(benches, count_a_request);
criterion_main!(benches);
