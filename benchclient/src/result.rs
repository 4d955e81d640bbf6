//! A result as it is kept: what was asked of whom, and what came of each round. Reports, plots and comparisons are made
//! from it and from nothing else, so that what a file holds is what was shown.
//!
//! Times are microseconds unless a name says otherwise. A file of another `format` is refused, never misread.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) mod testing;

/// The format of this file.
pub(crate) const FORMAT: u32 = 1;

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Document {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// The version of this program.
    pub(crate) benchclient: String,
    /// When it began, in seconds since 1970.
    pub(crate) at_unix_s: u64,
    /// Who was asked.
    pub(crate) server: Server,
    /// For what.
    pub(crate) settings: Settings,
    /// Writing all keys before.
    pub(crate) preload: Option<Preload>,
    /// The measurements.
    pub(crate) rounds: Vec<Round>,
    /// Reading everything back.
    pub(crate) verify: Option<Verify>,
}

/// What the server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Server {
    /// `http://HOST:PORT`.
    pub(crate) target: String,
    /// Its version.
    pub(crate) version: Option<String>,
    /// The cluster's name.
    pub(crate) cluster: Option<String>,
    /// How the cluster works.
    pub(crate) profile: Option<String>,
    /// Shards, copies and nodes in a line.
    pub(crate) topology: Option<String>,
    /// What an acknowledged write means.
    pub(crate) durability: Option<String>,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) workload: String,
    pub(crate) reads_percent: u32,
    pub(crate) keys: u64,
    pub(crate) key_dist: String,
    pub(crate) value_bytes: String,
    pub(crate) seed: u64,
    pub(crate) connections: usize,
    pub(crate) pipeline: usize,
    pub(crate) threads: usize,
    pub(crate) route: String,
    /// Requests a second; absent in a closed loop.
    pub(crate) rate: Option<u64>,
    pub(crate) warmup_s: f64,
    /// Absent when a number of requests was measured.
    pub(crate) duration_s: Option<f64>,
    pub(crate) requests: Option<u64>,
    pub(crate) timeout_s: f64,
    pub(crate) verify: bool,
}

/// Writing all keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Preload {
    pub(crate) keys: u64,
    pub(crate) seconds: f64,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Round {
    /// How long was measured.
    pub(crate) measured_s: f64,
    /// A signal ended it early.
    pub(crate) interrupted: bool,
    /// `get`, `set`: those that the workload has.
    pub(crate) ops: BTreeMap<String, OpResult>,
    /// By shard, and whether the node that was asked had to forward.
    pub(crate) places: Vec<PlaceResult>,
    /// By operation, shard and code.
    pub(crate) failures: Vec<FailureResult>,
    /// Requests of an open loop that were due and never sent.
    pub(crate) unsent: u64,
    /// This program's own part.
    pub(crate) generator: Generator,
    /// Processor time of all nodes per request, as their metrics tell; absent where they do not.
    pub(crate) server_cpu_us: Option<f64>,
    /// Second by second, from the start of the warm-up.
    pub(crate) seconds: Vec<SecondResult>,
    /// What makes these figures doubtful.
    pub(crate) warnings: Vec<String>,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpResult {
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    /// Successes a second.
    pub(crate) per_second: f64,
    /// From the intended start.
    pub(crate) response: Option<Latency>,
    /// From the sending.
    pub(crate) service: Option<Latency>,
    /// Pairs of a part of all requests (0 to 1) and the response time that it did not exceed.
    pub(crate) spectrum: Vec<(f64, f64)>,
}

/// Percentiles.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) mean_us: f64,
    pub(crate) min_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

/// One operation at one shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlaceResult {
    pub(crate) op: String,
    pub(crate) shard: String,
    pub(crate) forwarded: bool,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    pub(crate) response: Option<Latency>,
}

/// Failures of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FailureResult {
    pub(crate) op: String,
    pub(crate) shard: String,
    pub(crate) code: String,
    pub(crate) count: u64,
    /// What the first one said.
    pub(crate) first: String,
}

/// What the generator itself did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Generator {
    /// Its processor time per request.
    pub(crate) cpu_us: f64,
    /// Part of a processor that its busiest thread used, 0 to 1.
    pub(crate) busy: f64,
    /// Part of the time in which a thread could have run and got no processor, the worst of all.
    pub(crate) waited: Option<f64>,
    /// In an open loop: how late requests were sent although a connection was free.
    pub(crate) own_delay: Option<Latency>,
}

/// What was answered in a second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SecondResult {
    /// Since the load began; the first is 0.
    pub(crate) second: u64,
    /// `warm-up`, `measured` or, when requests were answered after the end, `late`.
    pub(crate) part: Part,
    /// Shorter than a second: the last one, or one that the warm-up ends in.
    pub(crate) partial: bool,
    pub(crate) ops: BTreeMap<String, SecondOpResult>,
}

/// What a second belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    WarmUp,
    Measured,
    Late,
}

/// One operation in a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct SecondOpResult {
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    pub(crate) response: Option<Latency>,
}

/// Reading back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verify {
    /// Keys that were written to.
    pub(crate) keys: u64,
    /// Of these, how many hold what they may hold.
    pub(crate) right: u64,
    /// Could not be read.
    pub(crate) unread: u64,
    /// Hold what they must not, and reads during the run that returned it.
    pub(crate) wrong: u64,
    /// Writes whose outcome is unknown; both outcomes are right.
    pub(crate) unknown: u64,
    /// What was wrong, a few of them.
    pub(crate) examples: Vec<String>,
}

impl Round {
    /// Successes a second of all operations.
    pub(crate) fn per_second(&self) -> f64 {
        self.ops.values().map(|op| op.per_second).sum()
    }

    /// Failures of all operations.
    pub(crate) fn failed(&self) -> u64 {
        self.ops.values().map(|op| op.failed).sum()
    }

    /// Successes of all operations.
    pub(crate) fn ok(&self) -> u64 {
        self.ops.values().map(|op| op.ok).sum()
    }
}

/// The round whose throughput is the median, and its place.
pub(crate) fn middle(rounds: &[Round]) -> Option<(usize, &Round)> {
    let mut order: Vec<(usize, &Round)> = rounds.iter().enumerate().collect();
    order.sort_by(|a, b| a.1.per_second().total_cmp(&b.1.per_second()));
    order.get(rounds.len().saturating_sub(1) / 2).copied()
}
