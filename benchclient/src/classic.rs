//! Without `--workload`: writes new keys, reads them back while a second writer runs, compares every value.
//!
//! ```text
//! write: N keys, C workers → read: M times one of the acknowledged keys, C workers ┐→ a line per worker
//!                            second writer, as long as they read                   ┘
//! ```

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use comfy_table::Table;

use crate::args::LoadArgs;
use crate::load::Outcome;
use crate::plan::{Check, Extent, Keep, Pace, Source};
use crate::request::Op;
use crate::session::{EXIT_ERRORS, Session, Task, fail};
use crate::tables::{aligned, new_table};
use crate::tally::{Tally, as_f64};
use crate::text::{grouped, millis, print, printable, rate, say};

/// A phase with its name and what it does.
struct Finished {
    label: &'static str,
    op: Op,
    outcome: Outcome,
}

/// Does what the arguments say, prints the result, and says how it went.
pub(crate) async fn run(args: LoadArgs) -> ExitCode {
    // New keys every time: what comes back was written by this run.
    let session = match Session::open(args, rand::random()).await {
        Ok(session) => session,
        Err(code) => return code,
    };
    let phases = phases(&session).await;
    let failed: u64 = phases.iter().map(|phase| phase.outcome.total().failed()).sum();
    print(&render(&phases));
    if session.interrupted() {
        say("Stopped by a signal: this is what was done until then; requests under way are not counted.\n");
        return session.signals.exit_code();
    }
    if failed == 0 {
        return ExitCode::SUCCESS;
    }
    fail(&format!("{} requests failed (see above)", grouped(failed)), EXIT_ERRORS)
}

async fn phases(session: &Session) -> Vec<Finished> {
    let (args, connections) = (&session.args, session.args.connections());
    say(&format!(
        "{}: {} keys {}… of {} bytes, then {} reads beside a second writer; {connections} at a time\n",
        args.addr.base(),
        grouped(args.iterations),
        session.keys.prefix(),
        args.value_bytes,
        grouped(args.read_iterations),
    ));
    let task = |label, source, from, to, workers, keep| Task {
        label,
        source,
        pace: Pace::Closed,
        extent: Extent::Turns(from, to),
        check: Check::Once,
        workers,
        keep,
    };
    let writing = task("write", Source::Each(Op::Set), 0, args.iterations, connections, Keep::Acknowledged);
    let mut outcome = session.carry_out(Arc::new(session.plan(writing, true))).await;
    let acknowledged = std::mem::take(&mut outcome.kept);
    let written = Finished { label: "write", op: Op::Set, outcome };
    if args.read_iterations == 0 || session.interrupted() {
        return vec![written];
    }
    if acknowledged.is_empty() {
        say("No write was acknowledged, so there is nothing to read back.\n");
        return vec![written];
    }
    let among = Source::Among(Arc::new(acknowledged));
    let reading = session.plan(task("read", among, 0, args.read_iterations, connections, Keep::Nothing), true);
    let beside = task("second writer", Source::Each(Op::Set), args.iterations, u64::MAX, 1, Keep::Nothing);
    let beside = Arc::new(session.plan(beside, true));
    // Ends when the readers have ended; the request under way is waited for.
    let read_all = async {
        let outcome = session.carry_out(Arc::new(reading)).await;
        beside.stop.store(true, Ordering::Relaxed);
        outcome
    };
    let second = session.carry_out_silently(Arc::clone(&beside), session.signals.interrupt(), |_, _| ());
    let (read, beside) = tokio::join!(read_all, second);
    vec![
        written,
        Finished { label: "read", op: Op::Get, outcome: read },
        Finished { label: "second writer", op: Op::Set, outcome: beside },
    ]
}

/// The table, a line per worker and one for all, then the failures by code.
fn render(phases: &[Finished]) -> String {
    let titles = ["phase", "worker", "ok", "failed", "per second", "mean ms", "min", "p50", "p99", "max"];
    let mut table = new_table(&titles);
    for phase in phases {
        for (number, worker) in (1_usize..).zip(&phase.outcome.tallies) {
            add(&mut table, phase, &number.to_string(), worker);
        }
        add(&mut table, phase, "all", &phase.outcome.total());
    }
    format!("{table}\n{}", failures(phases))
}

fn add(table: &mut Table, phase: &Finished, worker: &str, tally: &Tally) {
    let op = tally.op(phase.op);
    let seconds = as_f64(phase.outcome.measured()) / 1e9;
    let per_second = if seconds > 0.0 { as_f64(op.response.count()) / seconds } else { 0.0 };
    let latencies = match crate::measure::latency(&op.response) {
        Some(l) => [l.mean_us, l.min_us, l.p50_us, l.p99_us, l.max_us].map(millis),
        None => [const { String::new() }; 5].map(|_| "-".into()),
    };
    let texts = [phase.label.to_owned(), worker.to_owned()]
        .into_iter()
        .chain([grouped(op.response.count()), grouped(op.failed), rate(per_second)])
        .chain(latencies);
    table.add_row(texts.enumerate().map(|(column, text)| aligned(column == 0, text)));
}

fn failures(phases: &[Finished]) -> String {
    let mut text = String::new();
    for phase in phases {
        for ((_, code), failures) in phase.outcome.total().failures_by_code() {
            text.push_str(&format!("{} failed: {} × {code}. ", phase.label, grouped(failures.count)));
            text.push_str(&format!("The first: {}\n", printable(&failures.first)));
        }
        if phase.outcome.gave_up > 0 {
            text.push_str(&format!(
                "{}: {} of {} workers gave up after 30 seconds of nothing but failures.\n",
                phase.label,
                phase.outcome.gave_up,
                phase.outcome.tallies.len()
            ));
        }
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}
