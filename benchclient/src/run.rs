//! A run from hello to exit code.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio_util::sync::CancellationToken;

use crate::args::Args;
use crate::failure::Failure;
use crate::http::Node;
use crate::keyspace::Keyspace;
use crate::phase::{Outcome, Phase, Work};
use crate::progress::{Counts, grouped, say, show};
use crate::report::{Finished, render};
use crate::signals::Signals;

/// Something failed, or did not come back as it was written.
const EXIT_ERRORS: u8 = 1;
/// There is no node to talk to.
const EXIT_UNAVAILABLE: u8 = 5;

/// Everything that the phases of a run share.
struct Run {
    args: Args,
    node: Node,
    keys: Keyspace,
    interrupt: CancellationToken,
}

/// Does what the arguments say, prints the result, and says how it went.
pub(crate) async fn run(args: Args) -> ExitCode {
    let signals = Signals::listen();
    let node = match Node::new(&args.addr, args.timeout) {
        Ok(node) => node,
        Err(error) => return fail(&error, EXIT_ERRORS),
    };
    let keys = Keyspace::new(rand::random(), args.value_bytes);
    let run = Run { args, node, keys, interrupt: signals.interrupt() };
    tokio::select! {
        () = run.interrupt.cancelled() => return signals.exit_code(),
        hello = run.node.hello() => if let Err(failure) = hello {
            return fail(&nobody_there(&run.args.addr.base(), &failure), EXIT_UNAVAILABLE);
        },
    }
    let phases = run.phases().await;
    let failed: u64 = phases.iter().map(|phase| phase.outcome.total().failures()).sum();
    print(&render(&phases));
    if run.interrupt.is_cancelled() {
        say("Stopped by a signal: this is what was done until then; requests under way are not counted.\n");
        return signals.exit_code();
    }
    if failed == 0 {
        return ExitCode::SUCCESS;
    }
    fail(&format!("{} requests failed (see above)", grouped(failed)), EXIT_ERRORS)
}

impl Run {
    async fn phases(&self) -> Vec<Finished> {
        let (args, prefix) = (&self.args, self.keys.prefix());
        say(&format!(
            "{}: {} keys {prefix}… of {} bytes, then {} reads beside a second writer; {} at a time\n",
            args.addr.base(),
            grouped(args.iterations),
            grouped(u64::try_from(args.value_bytes).unwrap_or(u64::MAX)),
            grouped(args.read_iterations),
            args.concurrency,
        ));
        let (mut written, acknowledged) = self.write().await;
        if args.read_iterations == 0 || self.interrupt.is_cancelled() {
            return vec![written];
        }
        if acknowledged.is_empty() {
            say("No write was acknowledged, so there is nothing to read back.\n");
            return vec![written];
        }
        written.outcome.acknowledged = Vec::new();
        let (read, beside) = self.read(acknowledged).await;
        vec![written, read, beside]
    }

    async fn write(&self) -> (Finished, Vec<u64>) {
        let counts = Counts::new("write", Some(self.args.iterations));
        let shown = show(vec![Arc::clone(&counts)]);
        let end = self.args.iterations;
        let phase = self.phase(Work::Write, 0..end, counts, self.interrupt.clone());
        let mut outcome = phase.run(self.args.concurrency).await;
        drop(shown);
        let acknowledged = std::mem::take(&mut outcome.acknowledged);
        (Finished { label: "write", outcome }, acknowledged)
    }

    /// The readers, and the writer beside them, which ends when they have ended.
    async fn read(&self, acknowledged: Vec<u64>) -> (Finished, Finished) {
        let reads = Counts::new("read", Some(self.args.read_iterations));
        let writes = Counts::new("second writer", None);
        let shown = show(vec![Arc::clone(&reads), Arc::clone(&writes)]);
        let all_read = self.interrupt.child_token();
        let turns = 0..self.args.read_iterations;
        let readers = self.phase(Work::Read(acknowledged), turns, reads, self.interrupt.clone());
        let second = self.phase(Work::WriteOnly, self.args.iterations..u64::MAX, writes, all_read.clone());
        let read_all = async {
            let outcome = readers.run(self.args.concurrency).await;
            all_read.cancel();
            outcome
        };
        let (read, beside): (Outcome, Outcome) = tokio::join!(read_all, second.run(1));
        drop(shown);
        (Finished { label: "read", outcome: read }, Finished { label: "second writer", outcome: beside })
    }

    fn phase(&self, work: Work, turns: std::ops::Range<u64>, counts: Arc<Counts>, finish: CancellationToken) -> Phase {
        Phase {
            node: self.node.clone(),
            keys: self.keys.clone(),
            work,
            next: AtomicU64::new(turns.start),
            end: turns.end,
            counts,
            finish,
            interrupt: self.interrupt.clone(),
        }
    }
}

/// Why the run cannot begin, and what to do.
fn nobody_there(base: &str, failure: &Failure) -> String {
    let (what, hint) = match failure.code.as_str() {
        "connect" | "connect-timeout" => (
            format!("no node at {base} ({})", failure.detail),
            "start a cluster with ./launch.sh, or name another node with --addr HOST:PORT",
        ),
        "timeout" => (
            format!("something listens at {base}, but did not answer within 5 seconds"),
            "is that node overloaded or stopped? Try another one with --addr HOST:PORT",
        ),
        _ => (
            format!("what answers at {base} is no Ostraca node ({})", failure.detail),
            "name a node with --addr HOST:PORT",
        ),
    };
    format!("{what}\nhint: {hint}")
}

fn fail(message: &str, code: u8) -> ExitCode {
    say(&format!("error: {message}\n"));
    ExitCode::from(code)
}

/// The result; whoever reads it may have gone.
fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
