//! `--workload`: preload, rounds of measurement, reading back; then what came of it.
//!
//! ```text
//! header → preload (every key once) → round 1 … n (warm-up, measured) → verify (every key written to) → report, files
//! ```

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::args::{LoadArgs, RouteArg, Workload};
use crate::ask;
use crate::chooser::Chooser;
use crate::clock::unix_seconds;
use crate::cluster::About;
use crate::ledger::Ledger;
use crate::load::Outcome;
use crate::measure;
use crate::plan::{Check, Extent, Keep, Pace, Source, locked};
use crate::plot;
use crate::request::Op;
use crate::result::{Document, FORMAT, Preload, Round, Server, Settings, Verify, middle};
use crate::session::{EXIT_ERRORS, EXIT_UNAVAILABLE, EXIT_WRONG, Session, Task, fail};
use crate::tables;
use crate::tally::as_f64;
use crate::text::{grouped, print, say};
use crate::warn::warnings;

/// Preloading and reading back use at least so many connections: they should be over soon.
const BULK_CONNECTIONS: usize = 64;
/// How often what failed in them is tried again, a second apart.
const BULK_PASSES: usize = 30;
/// How long all nodes together may take to tell their processor time; a node that hangs must not hold up a report.
const METRICS_TIMEOUT: Duration = Duration::from_secs(2);
/// How many wrong keys are named.
const EXAMPLES_MAX: usize = 10;

/// Codes of values that are not what they may be.
const WRONG: [&str; 4] = ["missing", "stale-value", "wrong-value", "phantom-value"];

/// A workload on its way.
struct Run {
    session: Session,
    workload: Workload,
    check: Check,
    ledger: Option<Arc<Mutex<Ledger>>>,
    chooser: Chooser,
    document: Document,
}

/// Does what the arguments say, prints the result, and says how it went.
pub(crate) async fn run(args: LoadArgs) -> ExitCode {
    let Some(workload) = args.workload else { unreachable!("without a workload there is another run") };
    if let Err(error) = args.check() {
        return fail(&error, 2);
    }
    for file in [&args.json, &args.plot].into_iter().flatten() {
        // Found out now, not when the measurement is over.
        if let Err(error) = std::fs::OpenOptions::new().append(true).create(true).open(file) {
            return fail(&format!("{} cannot be written: {error}", file.display()), EXIT_UNAVAILABLE);
        }
    }
    let seed = args.seed;
    let session = match Session::open(args, seed).await {
        Ok(session) => session,
        Err(code) => return code,
    };
    let mut run = Run::new(session, workload).await;
    print(&tables::header(&run.document.server, &run.document.settings, run.session.keys.prefix()));
    if let Err(code) = run.preload().await {
        return code;
    }
    run.rounds().await;
    run.verify().await;
    run.finish()
}

impl Run {
    async fn new(session: Session, workload: Workload) -> Run {
        let args = &session.args;
        let ledger =
            args.verify.then(|| Arc::new(Mutex::new(Ledger::new(usize::try_from(args.keys).unwrap_or(usize::MAX)))));
        let check = ledger.as_ref().map_or(Check::No, |ledger| Check::Ledger(Arc::clone(ledger)));
        let popularity = args.key_dist.unwrap_or(workload.popularity());
        let chooser = Chooser::new(args.keys, workload.reads_percent(), popularity, Arc::default());
        let document = Document {
            format: FORMAT,
            benchclient: env!("CARGO_PKG_VERSION").into(),
            at_unix_s: unix_seconds(),
            server: server(&session).await,
            settings: settings(args, workload),
            preload: None,
            rounds: Vec::new(),
            verify: None,
        };
        Run { workload, check, ledger, chooser, document, session }
    }

    /// Writes every key once. What fails is tried again; what still fails ends the run.
    async fn preload(&mut self) -> Result<(), ExitCode> {
        if !self.session.args.preload {
            return Ok(());
        }
        let keys = self.session.args.keys;
        let start = self.session.clock.now();
        let left = self.bulk("preload", Op::Set, None, self.check.clone(), |_| ()).await;
        if self.session.interrupted() {
            say("Stopped by a signal while preloading: nothing was measured.\n");
            return Err(self.session.signals.exit_code());
        }
        if let Some((left, why)) = left {
            let what = format!("{} of {} keys could not be written: {why}", grouped(left), grouped(keys));
            return Err(fail(&format!("{what}\nhint: `kv status` says what is wrong"), EXIT_ERRORS));
        }
        let seconds = as_f64(self.session.clock.now() - start) / 1e9;
        self.document.preload = Some(Preload { keys, seconds });
        let speed = crate::text::rate(as_f64(keys) / seconds.max(1e-3));
        print(&format!("preloaded   {} keys in {seconds:.1} s, {speed} a second\n", grouped(keys)));
        Ok(())
    }

    /// One request for each of these keys (or for all), over and over for those that fail. How many are left, and why.
    async fn bulk(
        &self,
        label: &'static str,
        op: Op,
        keys: Option<Vec<u64>>,
        check: Check,
        mut seen: impl FnMut(&Outcome),
    ) -> Option<(u64, String)> {
        let mut source = match keys {
            None => (Source::Each(op), self.session.args.keys),
            Some(keys) => listed(op, keys),
        };
        for pass in 1.. {
            let task = Task {
                label,
                source: source.0.clone(),
                pace: Pace::Closed,
                extent: Extent::Turns(0, source.1),
                check: check.clone(),
                workers: self.session.args.connections().max(BULK_CONNECTIONS),
                keep: Keep::Undone,
            };
            let mut outcome = self.session.carry_out(Arc::new(self.session.plan(task, false))).await;
            seen(&outcome);
            let left = std::mem::take(&mut outcome.kept);
            let done = outcome.total().succeeded() + outcome.total().failed();
            if left.is_empty() && done >= source.1 || self.session.interrupted() {
                return None;
            }
            let why = outcome
                .total()
                .failures_by_code()
                .into_iter()
                .next()
                .map(|((_, code), failures)| format!("{code}, {}", failures.first));
            if pass == BULK_PASSES || outcome.gave_up > 0 {
                let left = u64::try_from(left.len()).unwrap_or(0).max(source.1.saturating_sub(done));
                return Some((left, why.unwrap_or_default()));
            }
            source = listed(op, left);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        None
    }

    async fn rounds(&mut self) {
        for number in 1..=self.session.args.rounds {
            if self.session.interrupted() {
                break;
            }
            if self.session.args.rounds > 1 {
                say(&format!("round {number} of {}\n", self.session.args.rounds));
            }
            let round = self.round().await;
            self.document.rounds.push(round);
        }
    }

    async fn round(&self) -> Round {
        let args = &self.session.args;
        let extent = match args.requests {
            Some(requests) => Extent::Turns(0, requests),
            None => Extent::Time(args.warmup, args.duration),
        };
        let task = Task {
            label: "measure",
            source: Source::Drawn(self.chooser.clone()),
            pace: args.rate.map_or(Pace::Closed, Pace::Open),
            extent,
            check: self.check.clone(),
            workers: args.connections(),
            keep: Keep::Nothing,
        };
        let warm_up = if args.requests.is_some() { Duration::ZERO } else { args.warmup };
        let interrupt = self.session.signals.interrupt();
        let cpu_before = async {
            tokio::select! {
                () = tokio::time::sleep(warm_up) => self.server_cpu().await,
                () = interrupt.cancelled() => None,
            }
        };
        let load = self.session.carry_out(Arc::new(self.session.plan(task, false)));
        let (outcome, before) = tokio::join!(load, cpu_before);
        let after = self.server_cpu().await;
        let ops: Vec<Op> = match self.workload.reads_percent() {
            0 => vec![Op::Set],
            100 => vec![Op::Get],
            _ => Op::ALL.to_vec(),
        };
        let cluster = self.session.cluster();
        let shards: Vec<String> =
            cluster.iter().flat_map(|cluster| &cluster.shards).map(|shard| shard.name.to_string()).collect();
        let mut round = measure::round(&outcome, &ops, &shards, self.session.interrupted());
        let counted = as_f64(round.ok() + round.failed());
        let used = before.zip(after).and_then(|(before, after)| measure::used(&before, &after));
        round.server_cpu_us = used.filter(|_| counted > 0.0).map(|seconds| seconds * 1e6 / counted);
        round.warnings = warnings(&self.document.settings, &round);
        round
    }

    /// Processor seconds of each node so far.
    async fn server_cpu(&self) -> Option<Vec<f64>> {
        let nodes: Vec<String> = self.session.cluster()?.nodes.iter().map(|node| node.address.clone()).collect();
        tokio::time::timeout(METRICS_TIMEOUT, ask::cpu_of(&nodes)).await.ok().flatten()
    }

    /// Reads back every key that was written to.
    async fn verify(&mut self) {
        let Some(ledger) = &self.ledger else { return };
        let touched = locked(ledger).touched();
        let unknown = locked(ledger).unknown();
        let keys = u64::try_from(touched.len()).unwrap_or(0);
        let mut result = Verify {
            keys,
            right: 0,
            unread: 0,
            wrong: 0,
            unknown: u64::try_from(unknown).unwrap_or(0),
            examples: Vec::new(),
        };
        for failure in self.document.rounds.iter().flat_map(|round| &round.failures) {
            if WRONG.contains(&failure.code.as_str()) {
                result.wrong += failure.count;
                result.examples.push(format!("while it ran, {}: {}", failure.code, failure.first));
            }
        }
        if !touched.is_empty() && !self.session.interrupted() {
            let check = Check::LastLook(Arc::clone(ledger));
            let left = self.bulk("verify", Op::Get, Some(touched), check, |outcome| {
                let total = outcome.total();
                result.right += total.succeeded();
                for ((_, code), failures) in total.failures_by_code() {
                    if WRONG.contains(&code) {
                        result.wrong += failures.count;
                        result.examples.push(format!("{code}: {}", failures.first));
                    }
                }
            });
            result.unread = left.await.map_or(0, |(left, _)| left);
        }
        if self.session.interrupted() {
            result.unread = keys.saturating_sub(result.right);
        }
        result.examples.truncate(EXAMPLES_MAX);
        self.document.verify = Some(result);
    }

    /// The report, the files, and the exit code.
    fn finish(self) -> ExitCode {
        let Document { settings, rounds, verify, .. } = &self.document;
        if rounds.len() > 1 {
            print(&tables::rounds(&self.document));
        }
        if let Some((number, round)) = middle(rounds) {
            if rounds.len() > 1 {
                print(&format!("\nround {} of {}, the median by throughput:\n", number + 1, rounds.len()));
            }
            print(&tables::round(settings, round));
        }
        if let Some(verify) = verify {
            print(&tables::verify(verify));
        }
        if let Err(error) = self.write_files() {
            return fail(&error, EXIT_ERRORS);
        }
        if self.session.interrupted() {
            say("Stopped by a signal: this is what was measured until then; requests under way are not counted.\n");
        }
        let wrong = verify.as_ref().is_some_and(|verify| verify.wrong > 0);
        let unread = verify.as_ref().is_some_and(|verify| verify.unread > 0);
        let failed = tables::total_failed(rounds);
        if wrong {
            fail("acknowledged writes are missing, or values are wrong (see above)", EXIT_WRONG)
        } else if self.session.interrupted() {
            self.session.signals.exit_code()
        } else if failed > 0 {
            fail(&format!("{} requests failed (see above)", grouped(failed)), EXIT_ERRORS)
        } else if unread {
            fail("not everything could be read back (see above)", EXIT_ERRORS)
        } else {
            ExitCode::SUCCESS
        }
    }

    fn write_files(&self) -> Result<(), String> {
        if let Some(file) = &self.session.args.json {
            let text = serde_json::to_string_pretty(&self.document).map_err(|error| error.to_string())?;
            write(file, &format!("{text}\n"))?;
        }
        if let Some(file) = &self.session.args.plot
            && !self.document.rounds.is_empty()
        {
            write(file, &plot::svg(&self.document)?)?;
        }
        Ok(())
    }
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    std::fs::write(file, text).map_err(|error| format!("{} cannot be written: {error}", file.display()))
}

fn listed(op: Op, keys: Vec<u64>) -> (Source, u64) {
    let count = u64::try_from(keys.len()).unwrap_or(0);
    (Source::Listed(op, Arc::new(keys)), count)
}

async fn server(session: &Session) -> Server {
    let cluster = session.cluster();
    let about = match &cluster {
        Some(_) => ask::about(session.target.address, &session.target.host).await,
        None => About::default(),
    };
    Server {
        target: session.args.addr.base(),
        version: about.version,
        cluster: cluster.as_ref().map(|cluster| cluster.name.clone()),
        profile: cluster.as_ref().map(|cluster| cluster.profile.clone()),
        topology: cluster.as_ref().map(|cluster| cluster.topology()),
        durability: asked_for(about.durability, session.args.ack.as_deref()),
    }
}

/// What an acknowledged write means: by the server, and by what writes ask for beside.
fn asked_for(durability: Option<String>, ack: Option<&str>) -> Option<String> {
    match (durability, ack) {
        (Some(durability), Some(ack)) => Some(format!("{durability}, ack={ack}")),
        (None, Some(ack)) => Some(format!("ack={ack}")),
        (durability, None) => durability,
    }
}

fn settings(args: &LoadArgs, workload: Workload) -> Settings {
    Settings {
        workload: workload.name().into(),
        reads_percent: workload.reads_percent(),
        keys: args.keys,
        key_dist: args.key_dist.unwrap_or(workload.popularity()).name().into(),
        value_bytes: args.value_bytes.to_string(),
        seed: args.seed,
        connections: args.connections(),
        pipeline: usize::from(args.pipeline),
        threads: usize::from(args.threads).min(args.connections()),
        route: match args.route {
            RouteArg::Any => "any".into(),
            RouteArg::Direct => "direct".into(),
        },
        rate: args.rate,
        warmup_s: if args.requests.is_some() { 0.0 } else { args.warmup.as_secs_f64() },
        duration_s: if args.requests.is_some() { None } else { Some(args.duration.as_secs_f64()) },
        requests: args.requests,
        timeout_s: args.timeout.as_secs_f64(),
        verify: args.verify,
    }
}
