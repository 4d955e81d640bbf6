//! From what the threads counted to a round of the result. Pure.

use std::collections::BTreeMap;

use crate::clock::Nanos;
use crate::load::Outcome;
use crate::recorder::{SECOND, Second, Window};
use crate::request::Op;
use crate::result::{
    FailureResult, Generator, Latency, OpResult, Part, PlaceResult, Round, SecondOpResult, SecondResult,
};
use crate::tally::{Latencies, Spot, Summary, Tally, as_f64};
use crate::usage::Usage;

/// Parts of all requests for which the spectrum holds a latency: finer towards the slow end, where it matters.
const SPECTRUM: [f64; 21] = [
    0.0, 0.1, 0.25, 0.5, 0.625, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.98, 0.99, 0.995, 0.9975, 0.999, 0.9995,
    0.9999, 0.99999, 1.0,
];

/// A round, without warnings yet. `shards` are the names by index.
pub(crate) fn round(outcome: &Outcome, ops: &[Op], shards: &[String], interrupted: bool) -> Round {
    let total = outcome.total();
    let measured = as_f64(outcome.measured()) / 1e9;
    let name = |shard: usize| shards.get(shard).cloned().unwrap_or_else(|| "?".into());
    let failure = |((op, shard, code), failures): (&(Op, usize, String), &crate::tally::Failures)| FailureResult {
        op: op.name().into(),
        shard: name(*shard),
        code: code.clone(),
        count: failures.count,
        first: failures.first.clone(),
    };
    Round {
        measured_s: measured,
        interrupted,
        ops: ops.iter().map(|op| (op.name().to_owned(), op_result(&total, *op, measured))).collect(),
        places: places(&total, ops, shards, name),
        failures: total.failures().iter().map(failure).collect(),
        unsent: outcome.unsent,
        generator: generator(&outcome.usage, &total),
        server_cpu_us: None,
        seconds: outcome
            .seconds
            .iter()
            .map(|second| second_result(second, ops, outcome.window, outcome.ended))
            .collect(),
        warnings: Vec::new(),
    }
}

fn op_result(total: &Tally, op: Op, measured: f64) -> OpResult {
    let tally = total.op(op);
    let quantile = |part: &f64| (*part, micros(tally.response.quantile(*part)));
    let any = tally.response.count() > 0;
    OpResult {
        ok: tally.response.count(),
        failed: tally.failed,
        per_second: if measured > 0.0 { as_f64(tally.in_time) / measured } else { 0.0 },
        response: latency(&tally.response),
        service: latency(&tally.service),
        spectrum: if any { SPECTRUM.iter().map(quantile).collect() } else { Vec::new() },
    }
}

fn places(total: &Tally, ops: &[Op], shards: &[String], name: impl Fn(usize) -> String) -> Vec<PlaceResult> {
    let mut places = Vec::new();
    for op in ops {
        for shard in 0..=shards.len() {
            for forwarded in [false, true] {
                let Some(place) = total.place(Spot { op: *op, shard, forwarded }) else { continue };
                places.push(PlaceResult {
                    op: op.name().into(),
                    shard: name(shard),
                    forwarded,
                    ok: place.response.count(),
                    failed: place.failed,
                    response: latency(&place.response),
                });
            }
        }
    }
    places
}

fn generator(usage: &[Usage], total: &Tally) -> Generator {
    let part = |part: Nanos, usage: &Usage| as_f64(part) / as_f64(usage.wall.max(1));
    let cpu: Nanos = usage.iter().map(|usage| usage.cpu).sum();
    let waited = usage.iter().map(|usage| usage.waited.map(|waited| part(waited, usage)));
    Generator {
        cpu_us: as_f64(cpu) / 1e3 / as_f64(total.answered.max(1)),
        busy: usage.iter().map(|usage| part(usage.cpu, usage)).fold(0.0, f64::max),
        waited: waited.fold(None, |worst: Option<f64>, waited| Some(waited?.max(worst.unwrap_or(0.0)))),
        own_delay: latency(&total.own_delay),
    }
}

fn second_result(second: &Second, ops: &[Op], window: Window, ended: Nanos) -> SecondResult {
    let (from, until) = (window.start + second.number * SECOND, window.start + (second.number + 1) * SECOND);
    let (part, whole) = if until <= window.from {
        (Part::WarmUp, true)
    } else if from >= window.until {
        (Part::Late, true)
    } else {
        (Part::Measured, from >= window.from && until <= window.until)
    };
    let of = |op: &Op| {
        let seen = second.op(*op);
        let result =
            SecondOpResult { ok: seen.response.count(), failed: seen.failed, response: latency(&seen.response) };
        (op.name().to_owned(), result)
    };
    let ops: BTreeMap<String, SecondOpResult> = ops.iter().map(of).collect();
    SecondResult { second: second.number, part, partial: !whole || until > ended, ops }
}

/// What all counters together grew by; `None` if one began anew meanwhile, for its node was restarted.
pub(crate) fn used(before: &[f64], after: &[f64]) -> Option<f64> {
    let grew = before.iter().zip(after).map(|(before, after)| Some(after - before).filter(|grown| *grown >= 0.0));
    if before.len() == after.len() { grew.sum() } else { None }
}

/// Microseconds.
pub(crate) fn micros(nanos: Nanos) -> f64 {
    as_f64(nanos) / 1e3
}

/// Percentiles in microseconds; `None` when there is nothing.
pub(crate) fn latency(latencies: &Latencies) -> Option<Latency> {
    latencies.summary().map(|Summary { mean, min, p50, p90, p99, p999, max }| Latency {
        mean_us: mean / 1e3,
        min_us: micros(min),
        p50_us: micros(p50),
        p90_us: micros(p90),
        p99_us: micros(p99),
        p999_us: micros(p999),
        max_us: micros(max),
    })
}

#[cfg(test)]
mod tests {
    use super::used;

    #[test]
    fn counters_grow_together_unless_one_began_anew() {
        assert_eq!(used(&[1.0, 2.0], &[1.5, 4.0]), Some(2.5));
        assert_eq!(used(&[1.0, 2.0], &[9.0, 0.5]), None);
        assert_eq!(used(&[1.0], &[1.0, 2.0]), None);
    }
}
