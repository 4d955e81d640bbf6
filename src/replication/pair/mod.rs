//! A leader and its replicas (REPLICATION.md, rules 5 to 14 and 17 to 25).
//!
//! ```text
//!   replica                                     leader
//!   follow: poll(cursor) ───────────────────▶  poll: the cursor is the acknowledgement
//!                                               answered at once when there is news, else after 100 ms
//!           ◀── entries after the cursor ─────
//!   writer: one commit {log, data, cursor}
//! ```
//!
//! What is decided is in pure code: [`leader`] (what a poll means, what may leave the log), [`follower`] (what an answer
//! means, how fresh the copy is), [`diverged`] (where a copy and its leader part), [`opening`] (whether a node may lead at
//! its start), [`takeover`] (whether one may take over), [`risk`] (what is on one disk only, and whether more of it may
//! be), and [`receipt`] (whether a write lasted). What is done stands in [`roles`] (lead or follow, as the map says), [`lead`], [`polls`], [`witness`], [`follow`],
//! [`receive`], [`returning`], [`reset`], [`promote`], [`switchover`] and [`acks`], and the two meet in [`Pair`].

pub mod acks;
pub mod diverged;
pub mod follow;
pub mod follower;
pub mod grant;
pub mod inspect;
pub mod lead;
pub mod leader;
pub mod opening;
pub mod polls;
pub mod promote;
pub mod receipt;
pub mod receive;
pub mod reset;
pub mod returning;
pub mod risk;
pub mod roles;
pub mod switchover;
pub mod takeover;
pub mod wire;
pub mod witness;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use crate::clock::Clock;
use crate::cluster::{Ballot, ClusterMap, Keeper, Part};
use crate::config::{Node, Settings, Shard};
use crate::metrics::{self, Metrics};
use crate::peer::{Local, Pool};
use crate::random::Random;
use crate::storage::ledger::{self, Part as LedgerPart, Summary};
use crate::storage::writer::{GuardSource, Handle, Leave, Mandate, Upkeep};
use crate::storage::{Engine, Files, State};
use crate::types::{Cursor, Epoch, Incarnation, NodeName, Seq, ShardUid};

pub use follower::{FollowState, Follower};
pub use leader::Leader;

use diverged::{Settling, settling};
use opening::Holding;

/// What the copy is doing for its shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Duty {
    /// It would lead, and is finding out whether it may (rule 13).
    Starting,
    /// It takes writes, in this incarnation.
    Leading,
    /// It would lead and must not: its file lacks what a replica holds.
    Halted(Halt),
    /// It led, or would lead, and must not: another leads, or is about to.
    StandingAside(Halt),
    /// It pulls from the leader.
    Following,
}

/// Why a copy that would lead must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halt {
    /// The reason.
    pub why: String,
    /// What decides: for the operator to do.
    pub next: String,
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.why, self.next)
    }
}

/// What a pair needs of its node.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Who leads what.
    pub map: Arc<ClusterMap>,
    /// The way to other nodes.
    pub pool: Arc<Pool>,
    /// Who this node is to them.
    pub local: Arc<Local>,
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub random: Random,
    /// Limits and intervals.
    pub settings: Arc<Settings>,
    /// Where the node counts.
    pub metrics: Arc<Metrics>,
}

/// A copy that was opened, before it does anything.
#[derive(Debug)]
pub struct Opened {
    /// The one way to change it.
    pub writer: Handle,
    /// Shared with the writer's upkeep ([`upkeep_source`]).
    pub leader: Arc<Mutex<Leader>>,
    /// Where a snapshot would be received.
    pub files: Arc<dyn Files>,
    /// Writes down who leads.
    pub keeper: Arc<Keeper>,
    /// Drawn at this opening (rule 3).
    pub incarnation: Incarnation,
}

/// One copy of one shard, and its part in keeping the copies alike.
#[derive(Debug)]
pub struct Pair {
    /// The shard.
    pub shard: Shard,
    /// This node.
    pub me: Node,
    /// The one way to change the copy.
    pub writer: Handle,
    around: Surroundings,
    files: Arc<dyn Files>,
    keeper: Arc<Keeper>,
    duty: RwLock<Held>,
    /// The shard's uid, once drawn or learnt (rule 1).
    uid: RwLock<Option<ShardUid>>,
    incarnation: Incarnation,
    /// The file had not been closed properly when this process opened it.
    opened_unclean: bool,
    leader: Arc<Mutex<Leader>>,
    /// The greatest seq that a replica has acknowledged: a write above it need not ask the leader's view for its copies.
    acknowledged: AtomicU64,
    /// Writes that wait until replicas have them.
    acks: acks::Acks,
    follower: Mutex<Follower>,
    /// Wakes the task that leads: a replica has shown that this leader lost data.
    halted: Notify,
    /// Which replica has shown it, by holding what; until the task that leads has seen it.
    shown: Mutex<Option<(NodeName, Holding)>>,
    /// Where a copy that was rewound is whole again (rule 21); none: it is.
    settles_at: Mutex<Option<Cursor>>,
    /// What an operator asks of a replica.
    resets: reset::Requests,
    /// What an operator asks of the leader.
    switchovers: switchover::Requests,
    /// How many reasons there are to think that the shard is changing hands: what comes to this node meanwhile waits for a
    /// moment, instead of being refused.
    changing_hands: watch::Sender<u32>,
    /// The epoch in which this node was just told to lead, by an operator or by the leader before it: what the other copies
    /// hold was looked at then.
    told_to_lead: Mutex<Option<Epoch>>,
    /// One takeover at a time.
    taking_over: tokio::sync::Mutex<()>,
    /// Who handed the shard over to this node, for which epoch, and held what then; until it leads.
    granted: Mutex<Option<Granted>>,
}

/// A leader that handed its shard over.
#[derive(Debug)]
struct Granted {
    epoch: Epoch,
    by: NodeName,
    cursor: Option<Cursor>,
}

/// A duty, and since when the copy has it.
#[derive(Debug)]
struct Held {
    duty: Duty,
    since: Instant,
    /// A leader's leave to take writes.
    mandate: Option<Mandate>,
}

impl Pair {
    /// A copy as its file was opened; it does nothing until [`Pair::run`] runs.
    #[must_use]
    pub fn new(shard: Shard, me: Node, opened: Opened, state: &State, around: Surroundings) -> Pair {
        let Opened { writer, leader, files, keeper, incarnation } = opened;
        let leads = around.map.part_of(&shard, &me.name) != Part::Follow;
        let settled = |at: &Cursor| settling(&state.history, at) == Settling::Settled;
        let settles_at = state.settles_at.clone().filter(|at| !settled(at));
        let mut follower = Follower::new(state.history.end() > Seq::ZERO);
        if settles_at.is_some() {
            follower.unsettled();
        }
        let duty = if leads { Duty::Starting } else { Duty::Following };
        let since = around.clock.now();
        Pair {
            shard,
            me,
            writer,
            around,
            files,
            keeper,
            duty: RwLock::new(Held { duty, since, mandate: None }),
            uid: RwLock::new(state.shard_uid),
            incarnation,
            opened_unclean: state.unclean,
            leader,
            acknowledged: AtomicU64::new(u64::MAX), // not known before the first poll
            acks: acks::Acks::default(),
            follower: Mutex::new(follower),
            halted: Notify::new(),
            shown: Mutex::default(),
            settles_at: Mutex::new(settles_at),
            resets: reset::Requests::default(),
            switchovers: switchover::Requests::default(),
            changing_hands: watch::Sender::new(0),
            told_to_lead: Mutex::default(),
            taking_over: tokio::sync::Mutex::default(),
            granted: Mutex::default(),
        }
    }

    /// What the copy is doing.
    #[must_use]
    pub fn duty(&self) -> Duty {
        self.duty.read().duty.clone()
    }

    /// Since when it has been doing that, whatever its reasons.
    #[must_use]
    pub fn duty_since(&self) -> Instant {
        self.duty.read().since
    }

    /// Takes up a duty that is not to lead; true when it had another.
    fn enter_duty(&self, duty: Duty) -> bool {
        self.enter_duty_with(duty, None)
    }

    /// Takes up a duty; true when it had another.
    fn enter_duty_with(&self, duty: Duty, mandate: Option<Mandate>) -> bool {
        let mut held = self.duty.write();
        let is_new = std::mem::discriminant(&held.duty) != std::mem::discriminant(&duty);
        if is_new {
            held.since = self.around.clock.now();
        }
        held.duty = duty;
        held.mandate = mandate;
        drop(held);
        self.acks.arrived(); // who waits for a replica looks whether this node still leads
        is_new
    }

    /// Whether it takes writes and answers for the shard.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.leave() == Some(Leave::Good)
    }

    /// Whether it leads as far as is known, be it that this has to be found out again first.
    #[must_use]
    pub fn leads(&self) -> bool {
        let held = self.duty.read();
        held.duty == Duty::Leading && held.mandate.as_ref().is_some_and(Mandate::holds)
    }

    /// What a leader's leave to take writes is worth now; none when it does not lead.
    fn leave(&self) -> Option<Leave> {
        let held = self.duty.read();
        let mandate = held.mandate.as_ref().filter(|_| held.duty == Duty::Leading)?;
        Some(mandate.leave(self.around.clock.now()))
    }

    /// What this node knows of who leads the shard.
    #[must_use]
    pub fn ballot(&self) -> Ballot {
        self.around.map.ballot_of(self.shard.index)
    }

    /// The epoch in which this copy leads, or knows that another does.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.around.map.epoch_or_first(&self.shard)
    }

    /// Writes down whatever this node learns of who leads what.
    pub async fn keep_facts(self: Arc<Self>) {
        Arc::clone(&self.keeper).run().await;
    }

    /// Where polls and snapshots are counted, and the shard's place there.
    fn counters(&self) -> (&metrics::Replication, usize) {
        (&self.around.metrics.replication, metrics::shard(self.shard.index))
    }

    /// The store that serves.
    #[must_use]
    pub fn engine(&self) -> Arc<dyn Engine> {
        self.writer.published().engine()
    }

    /// Whether the file had not been closed properly when this process opened it.
    #[must_use]
    pub fn opened_unclean(&self) -> bool {
        self.opened_unclean
    }

    /// A part of this copy's ledger of lost writes, from `at` on.
    pub async fn read_ledger(&self, at: u64) -> Result<LedgerPart, ledger::Error> {
        let ledger = self.files.ledger();
        let file = ledger.file();
        let read = tokio::task::spawn_blocking(move || ledger.read(at)).await;
        read.unwrap_or_else(|panic| Err(ledger::Error::Failed { file, what: format!("reading panicked: {panic}") }))
    }

    /// The file of this copy's ledger of lost writes, and how much it lists: one that has changed is looked through.
    pub async fn ledger(&self) -> (String, Result<Summary, ledger::Error>) {
        let ledger = self.files.ledger();
        let file = ledger.file();
        let failed =
            |panic| Err(ledger::Error::Failed { file: file.clone(), what: format!("reading panicked: {panic}") });
        let summary = tokio::task::spawn_blocking(move || ledger.summary()).await.unwrap_or_else(failed);
        (file, summary)
    }

    /// The shard's uid, once known.
    #[must_use]
    pub fn uid(&self) -> Option<ShardUid> {
        *self.uid.read()
    }

    /// Looks at the replicas, as their leader sees them.
    pub fn with_leader<T>(&self, look: impl FnOnce(&mut Leader) -> T) -> T {
        look(&mut self.leader.lock())
    }

    /// How many replicas have acknowledged this seq. Every write asks, moments after it got its seq.
    #[must_use]
    pub fn copies_with(&self, seq: Seq) -> u32 {
        if seq.0 > self.acknowledged.load(Ordering::Acquire) {
            return 0;
        }
        self.leader.lock().acknowledged(seq)
    }

    /// What the copy does as a replica, and whether it ever was whole.
    #[must_use]
    pub fn follow_state(&self) -> FollowState {
        self.follower.lock().state().clone()
    }

    /// Since when; none when it has not done anything else since it started.
    #[must_use]
    pub fn follow_since(&self) -> Option<Instant> {
        self.follower.lock().since()
    }

    /// Whether the copy was ever whole: until then it serves nothing.
    #[must_use]
    pub fn had_full_copy(&self) -> bool {
        self.follower.lock().had_full_copy()
    }

    /// Whether the copy may serve `any` reads without leading: a replica's, or that of a leader which may not lead now. One
    /// that was never whole serves nothing, nor does a leader that has lost data, nor a copy that knows that it is not on its
    /// leader's history.
    #[must_use]
    pub fn serves_any(&self) -> bool {
        let may = matches!(self.duty.read().duty, Duty::Following | Duty::Starting | Duty::StandingAside(_));
        may && self.follower.lock().may_serve()
    }

    /// The same for sessions (rule 25): not one whose history has left the leader's, or may have, for it has not been whole
    /// behind any leader since it started, or led itself. What is seen there could be missing everywhere else.
    #[must_use]
    pub fn serves_sessions(&self, now: Instant) -> bool {
        let follower = self.follower.lock();
        let is_off = matches!(follower.state(), FollowState::OffHistory(_)) || follower.stale(now).is_none();
        drop(follower);
        !is_off && self.serves_any()
    }

    /// Upper bound of the copy's age (rule 24): zero at a leader, none when it cannot be bounded.
    #[must_use]
    pub fn stale(&self, now: Instant) -> Option<Duration> {
        if self.is_leading() { Some(Duration::ZERO) } else { self.follower.lock().stale(now) }
    }
}

/// The upkeep that a copy's writer asks for: acknowledgements to write down, and what may leave the log.
pub fn upkeep_source(
    leader: Arc<Mutex<Leader>>,
    settings: Arc<Settings>,
    clock: Clock,
) -> impl FnMut(&dyn Engine, Seq) -> Upkeep + Send {
    let bounds = leader::Bounds {
        retain_bytes: settings.log_retain_bytes,
        queue_bytes_max: settings.queue_bytes_max,
        queue_entries_max: settings.queue_entries_max,
    };
    move |engine, end| {
        let (log, now) = (engine.log_extent(), clock.now());
        let mut leader = leader.lock();
        leader.mark(end, now);
        match log {
            Ok(log) => leader.upkeep(&log, bounds, end, now),
            Err(_) => Upkeep::default(), // the commit that follows says what is wrong
        }
    }
}

/// What a copy's writer asks before it gives a seq; none where the file sets no limit to what is at risk.
pub fn guard_source(leader: Arc<Mutex<Leader>>, settings: &Settings) -> Option<GuardSource> {
    let limits = risk::Limits::of(settings)?;
    Some(Box::new(move |next, now| risk::check(&leader.lock(), next, limits, now)))
}
