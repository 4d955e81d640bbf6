//! Runs a plan: threads, each with a runtime and workers of its own, and the main thread that puts their seconds together.
//!
//! ```text
//! thread: connect all ─→ ready ─┐                     ┌─→ recorders ─ a message per second ─→ main: live line, series
//!                               ├─ main: the window ──┤
//! thread: connect all ─→ ready ─┘                     └─→ workers … end ─→ tallies ─────────→ main: outcome
//! ```
//!
//! A thread has a runtime without helpers: an answer is handled where it arrives, and nothing is passed between
//! processors. One thread is enough for more than most servers can do on the same machine.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Nanos, nanos};
use crate::pacer::Pacer;
use crate::plan::{Extent, Pace, Plan};
use crate::recorder::{Recorder, SECOND, Second, Seconds, Window};
use crate::schedule::Schedule;
use crate::tally::Tally;
use crate::timer::Timer;
use crate::usage::{Reading, Usage};
use crate::worker::{Done, Worker};

/// How long an open loop goes on after its end with requests that were due before; what is then left was never sent.
const GRACE_MAX: Duration = Duration::from_secs(5);

/// What came of a plan.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// When what was measured.
    pub(crate) window: Window,
    /// When it was over.
    pub(crate) ended: Nanos,
    /// A tally per worker or per thread, as the plan says.
    pub(crate) tallies: Vec<Tally>,
    /// Second by second.
    pub(crate) seconds: Vec<Second>,
    /// Of each thread.
    pub(crate) usage: Vec<Usage>,
    /// Requests of an open loop that were due and never sent.
    pub(crate) unsent: u64,
    /// Workers that had nothing but failures.
    pub(crate) gave_up: usize,
    /// The numbers of keys that were to be kept.
    pub(crate) kept: Vec<u64>,
}

impl Outcome {
    /// All tallies added up.
    pub(crate) fn total(&self) -> Tally {
        let mut total = Tally::new();
        self.tallies.iter().for_each(|tally| total.add(tally));
        total
    }

    /// How long was measured.
    pub(crate) fn measured(&self) -> Nanos {
        self.window.measured(self.ended)
    }
}

/// What a thread hands back.
struct ThreadDone {
    ended: Nanos,
    tallies: Vec<Tally>,
    usage: Usage,
    unsent: u64,
    workers: Vec<Done>,
}

/// What a thread needs to begin.
#[derive(Clone)]
struct Start {
    plan: Arc<Plan>,
    clock: Clock,
    ready: mpsc::UnboundedSender<()>,
    window: watch::Receiver<Option<Window>>,
    seconds: mpsc::UnboundedSender<Second>,
    interrupt: CancellationToken,
}

/// Runs the plan to its end, or until `interrupt`: then what is under way is dropped, and not counted. Each whole second
/// is shown to `watch_second` at once.
pub(crate) async fn run(
    plan: Arc<Plan>,
    clock: Clock,
    interrupt: CancellationToken,
    mut watch_second: impl FnMut(&Second, Window),
) -> Outcome {
    let threads = plan.threads.clamp(1, plan.workers);
    let (seconds_in, mut seconds_out) = mpsc::unbounded_channel();
    let (ready_in, mut ready_out) = mpsc::unbounded_channel();
    let (window_in, window_out) = watch::channel(None);
    let start =
        Start { plan: Arc::clone(&plan), clock, ready: ready_in, window: window_out, seconds: seconds_in, interrupt };
    let handles: Vec<_> = (0..threads)
        .map(|thread| {
            let start = start.clone();
            std::thread::spawn(move || run_thread(thread, threads, start))
        })
        .collect();
    drop(start);
    for _ in 0..threads {
        ready_out.recv().await;
    }
    let window = window_of(plan.extent, clock.now());
    window_in.send_replace(Some(window));
    let mut series = Vec::new();
    let mut joined = Seconds::new(if plan.per_worker { plan.workers } else { threads });
    while let Some(part) = seconds_out.recv().await {
        if let Some(second) = joined.add(part) {
            watch_second(&second, window);
            series.push(second);
        }
    }
    series.extend(joined.rest());
    let mut outcome = Outcome {
        window,
        ended: window.start,
        tallies: Vec::new(),
        seconds: series,
        usage: Vec::new(),
        unsent: 0,
        gave_up: 0,
        kept: Vec::new(),
    };
    for handle in handles {
        // Its channel is closed, so it has ended.
        let done = handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        outcome.ended = outcome.ended.max(done.ended);
        outcome.tallies.extend(done.tallies);
        outcome.usage.push(done.usage);
        outcome.unsent += done.unsent;
        for mut worker in done.workers {
            outcome.gave_up += usize::from(worker.gave_up);
            outcome.kept.append(&mut worker.kept);
        }
    }
    outcome
}

fn window_of(extent: Extent, start: Nanos) -> Window {
    match extent {
        Extent::Turns(..) => Window { start, from: start, until: Nanos::MAX },
        Extent::Time(warm_up, measured) => {
            let from = start + nanos(warm_up);
            Window { start, from, until: from + nanos(measured) }
        }
    }
}

fn run_thread(thread: usize, threads: usize, start: Start) -> ThreadDone {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime for a thread of load: {error}"),
    };
    runtime.block_on(async move {
        let mut workers: Vec<Worker> = (thread..start.plan.workers)
            .step_by(threads)
            .map(|number| Worker::new(number, Arc::clone(&start.plan), start.clock))
            .collect();
        let mut connecting = JoinSet::new();
        for mut worker in workers.drain(..) {
            connecting.spawn(async move {
                worker.connect().await;
                worker
            });
        }
        let connected = tokio::select! {
            connected = connecting.join_all() => connected,
            () = start.interrupt.cancelled() => Vec::new(),
        };
        let _ = start.ready.send(());
        let mut window = start.window.clone();
        let Some(window) = window.wait_for(Option::is_some).await.ok().and_then(|window| *window) else {
            unreachable!("the main thread waits for this one")
        };
        load(connected, &start, window, u64::try_from(thread).unwrap_or(0), u64::try_from(threads).unwrap_or(1)).await
    })
}

/// The load of one thread.
async fn load(workers: Vec<Worker>, start: &Start, window: Window, thread: u64, threads: u64) -> ThreadDone {
    let (plan, clock) = (&start.plan, start.clock);
    let before = Reading::of_this_thread(clock.now());
    let recorder = || Arc::new(Mutex::new(Recorder::new(window, start.seconds.clone())));
    let shared = recorder();
    let pacer = match plan.pace {
        Pace::Closed => None,
        Pace::Open(rate) => {
            let grace = window.until.saturating_add(nanos(plan.timeout.min(GRACE_MAX)));
            let schedule = Schedule::new(window.start, rate, thread, threads);
            let burst = u64::try_from(plan.pipeline).unwrap_or(1);
            Some(Arc::new(Pacer::new(schedule, clock, window.until, grace, burst)))
        }
    };
    let mut recorders = Vec::new();
    let mut tasks = JoinSet::new();
    for worker in workers {
        let recorder = if plan.per_worker { recorder() } else { Arc::clone(&shared) };
        recorders.push(Arc::clone(&recorder));
        tasks.spawn(worker.work(recorder, window, pacer.clone()));
    }
    if !plan.per_worker {
        recorders = vec![shared];
    } else {
        drop(shared);
    }
    let ticking = tokio::spawn(tick(recorders.clone(), clock, window.start));
    let pacing = pacer.clone().map(|pacer| tokio::spawn(async move { pacer.run(Timer::new()).await }));
    let mut done = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = start.interrupt.cancelled() => break,
            worker = tasks.join_next() => match worker {
                Some(Ok(worker)) => done.push(worker),
                Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                None => break,
            },
        }
    }
    tasks.shutdown().await;
    ticking.abort();
    // The task holds the recorders until it has been dropped.
    let _ = ticking.await;
    if let Some(pacing) = pacing {
        pacing.abort();
        let _ = pacing.await;
    }
    let ended = clock.now();
    let tallies = recorders
        .into_iter()
        .filter_map(Arc::into_inner)
        .map(|recorder| recorder.into_inner().unwrap_or_else(PoisonError::into_inner).finish(ended));
    ThreadDone {
        ended,
        tallies: tallies.collect(),
        usage: before.until(Reading::of_this_thread(ended)),
        unsent: pacer.map_or(0, |pacer| pacer.unsent(ended)),
        workers: done,
    }
}

/// Sends away each second when it is over, also when nothing is answered.
async fn tick(recorders: Vec<Arc<Mutex<Recorder>>>, clock: Clock, start: Nanos) {
    loop {
        let into = clock.now().saturating_sub(start) % SECOND;
        tokio::time::sleep(Duration::from_nanos(SECOND - into)).await;
        for recorder in &recorders {
            recorder.lock().unwrap_or_else(PoisonError::into_inner).pass(clock.now());
        }
    }
}
