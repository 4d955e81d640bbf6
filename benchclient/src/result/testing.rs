//! Made-up results for tests.

use std::collections::BTreeMap;

use super::{Generator, Latency, OpResult, Part, Round, SecondOpResult, SecondResult, Settings};

/// A plain measurement.
pub(crate) fn settings() -> Settings {
    Settings {
        workload: "get".into(),
        reads_percent: 100,
        keys: 1000,
        key_dist: "uniform".into(),
        value_bytes: "100".into(),
        seed: 1,
        connections: 32,
        pipeline: 1,
        threads: 1,
        route: "any".into(),
        rate: None,
        warmup_s: 1.0,
        duration_s: Some(5.0),
        requests: None,
        timeout_s: 10.0,
        verify: false,
    }
}

fn latency(p50_us: f64) -> Option<Latency> {
    let times = |factor: f64| p50_us * factor;
    Some(Latency {
        mean_us: times(1.1),
        min_us: times(0.5),
        p50_us,
        p90_us: times(1.5),
        p99_us: times(2.0),
        p999_us: times(3.0),
        max_us: times(5.0),
    })
}

/// A round of so many requests a second, whose seconds differ by a hundredth.
pub(crate) fn round(per_second: f64, p50_us: f64) -> Round {
    let op = OpResult {
        ok: 1000,
        failed: 0,
        per_second,
        response: latency(p50_us),
        service: latency(p50_us),
        spectrum: Vec::new(),
    };
    let second = |number: u32| {
        let factor = 1.0 + f64::from(number % 3) / 100.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
        let ok = (per_second * factor) as u64;
        SecondResult {
            second: u64::from(number),
            part: if number == 0 { Part::WarmUp } else { Part::Measured },
            partial: false,
            ops: BTreeMap::from([("get".into(), SecondOpResult { ok, failed: 0, response: latency(p50_us * factor) })]),
        }
    };
    Round {
        measured_s: 5.0,
        interrupted: false,
        ops: BTreeMap::from([("get".into(), op)]),
        places: Vec::new(),
        failures: Vec::new(),
        unsent: 0,
        generator: Generator { cpu_us: 5.0, busy: 0.3, waited: None, own_delay: None },
        server_cpu_us: Some(16.0),
        seconds: (0..6).map(second).collect(),
        warnings: Vec::new(),
    }
}
