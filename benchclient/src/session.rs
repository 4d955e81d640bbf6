//! What every kind of run begins with: the node is looked for, the cluster's map fetched, signals listened to. And what
//! it ends with: an exit code.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use tokio_util::sync::CancellationToken;

use crate::args::LoadArgs;
use crate::args::target::Target;
use crate::ask;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::follow::Map;
use crate::keyspace::Keyspace;
use crate::live::Live;
use crate::load::{self, Outcome};
use crate::plan::{Check, Extent, Keep, Pace, Place, Plan, Route, Source};
use crate::request::Forms;
use crate::signals::Signals;
use crate::text::say;

/// Something failed.
pub(crate) const EXIT_ERRORS: u8 = 1;
/// There is no node to talk to.
pub(crate) const EXIT_UNAVAILABLE: u8 = 5;
/// An acknowledged write is gone, or a value is wrong.
pub(crate) const EXIT_WRONG: u8 = 6;

/// A run that has found its server.
#[derive(Debug)]
pub(crate) struct Session {
    /// What was asked for.
    pub(crate) args: LoadArgs,
    /// The node that was named.
    pub(crate) target: Place,
    /// Time.
    pub(crate) clock: Clock,
    /// The cluster; none with another server.
    pub(crate) map: Map,
    /// Keys and values.
    pub(crate) keys: Keyspace,
    /// Names this process in its values.
    pub(crate) run: u64,
    /// Ctrl-C.
    pub(crate) signals: Signals,
}

/// What differs from plan to plan of a run.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) label: &'static str,
    pub(crate) source: Source,
    pub(crate) pace: Pace,
    pub(crate) extent: Extent,
    pub(crate) check: Check,
    pub(crate) workers: usize,
    pub(crate) keep: Keep,
}

impl Session {
    /// Finds the server, or says how it ends.
    pub(crate) async fn open(args: LoadArgs, seed: u64) -> Result<Session, ExitCode> {
        let signals = Signals::listen();
        let interrupt = signals.interrupt();
        let found = tokio::select! {
            () = interrupt.cancelled() => return Err(signals.exit_code()),
            found = find(&args) => found,
        };
        let (target, map) = found.map_err(|error| fail(&error, EXIT_UNAVAILABLE))?;
        let keys = Keyspace::new(seed, args.value_bytes);
        Ok(Session { args, target, clock: Clock::start(), map, keys, run: rand::random(), signals })
    }

    /// The cluster as it is now.
    pub(crate) fn cluster(&self) -> Option<Arc<Cluster>> {
        self.map.newest.borrow().clone()
    }

    /// Whether a signal came.
    pub(crate) fn interrupted(&self) -> bool {
        self.signals.interrupt().is_cancelled()
    }

    /// How reads and writes look at this server.
    fn forms(&self) -> Forms {
        match (&self.args.get_template, &self.args.set_template) {
            (Some(get), Some(set)) => Forms { get: get.clone(), set: set.clone() },
            _ => Forms::native(self.args.ack.as_deref()),
        }
    }

    /// A plan for this task.
    pub(crate) fn plan(&self, task: Task, per_worker: bool) -> Plan {
        let route = match self.args.route {
            crate::args::RouteArg::Any => Route::Any,
            crate::args::RouteArg::Direct => Route::Direct,
        };
        let first = if let Extent::Turns(first, _) = task.extent { first } else { 0 };
        Plan {
            label: task.label,
            target: self.target.clone(),
            forms: self.forms(),
            cluster: self.map.newest.clone(),
            map_is_old: Arc::clone(&self.map.is_old),
            route,
            keys: self.keys.clone(),
            run: self.run,
            source: task.source,
            pace: task.pace,
            extent: task.extent,
            check: task.check,
            workers: task.workers,
            pipeline: usize::from(self.args.pipeline),
            threads: usize::from(self.args.threads),
            timeout: self.args.timeout,
            per_worker,
            keep: task.keep,
            next: AtomicU64::new(first),
            stop: AtomicBool::new(false),
        }
    }

    /// Carries out a plan with a live line.
    pub(crate) async fn carry_out(&self, plan: Arc<Plan>) -> Outcome {
        let total = if let Extent::Turns(first, end) = plan.extent { Some(end - first) } else { None };
        let mut live = Live::new(plan.label, total);
        self.carry_out_silently(plan, self.signals.interrupt(), |second, window| live.show(second, window)).await
    }

    /// Carries out a plan until it ends or is interrupted.
    pub(crate) async fn carry_out_silently(
        &self,
        plan: Arc<Plan>,
        interrupt: CancellationToken,
        watch: impl FnMut(&crate::recorder::Second, crate::recorder::Window),
    ) -> Outcome {
        load::run(plan, self.clock, interrupt, watch).await
    }
}

/// Prints an error and gives its exit code.
pub(crate) fn fail(message: &str, code: u8) -> ExitCode {
    say(&format!("error: {message}\n"));
    ExitCode::from(code)
}

async fn find(args: &LoadArgs) -> Result<(Place, Map), String> {
    let base = args.addr.base();
    let target = resolve(&args.addr).await?;
    if args.get_template.is_some() {
        return Ok((target, Map::fixed(None)));
    }
    if let Err(failure) = ask::hello(target.address, &args.addr).await {
        return Err(nobody_there(&base, &failure));
    }
    if args.workload.is_none() {
        return Ok((target, Map::fixed(None)));
    }
    let direct = args.route == crate::args::RouteArg::Direct;
    match ask::cluster(target.address, &target.host).await {
        Ok(cluster) if direct && !cluster.places_keys() => Err(format!(
            "{base} places keys by {}, which this benchclient does not know\nhint: --route any, or a benchclient of the server's version",
            cluster.hash_name
        )),
        Ok(cluster) => Ok((target.clone(), Map::follow(target, Arc::new(cluster)))),
        Err(error) if direct => Err(format!("--route direct needs the cluster's map: {error}\nhint: --route any")),
        Err(_) => Ok((target, Map::fixed(None))),
    }
}

async fn resolve(target: &Target) -> Result<Place, String> {
    let mut found = tokio::net::lookup_host(target.authority()).await.map_err(|error| {
        format!("{} is not known: {error}\nhint: name a node with --addr HOST:PORT", target.authority())
    })?;
    let address = found.next().ok_or_else(|| format!("{} has no address", target.authority()))?;
    Ok(Place { address, host: target.authority().into() })
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
            "name a node with --addr HOST:PORT; for another server see --get-template",
        ),
    };
    format!("{what}\nhint: {hint}")
}
