//! What a replica makes of its leader's answers, and how fresh its copy is. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Halt;
use super::wire::PollAnswer;
use crate::types::{Seq, ShardUid};

/// Polls whose announced end is not applied yet; when more are waiting, later ones are not remembered, which makes the
/// copy look older than it is, never younger.
const PENDING_MAX: usize = 64;

/// A leader that cannot be reached is reported when it still cannot be after so long.
const REPORT_AFTER: Duration = Duration::from_secs(2);

/// What a replica is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FollowState {
    /// It has not reached its leader yet.
    Starting,
    /// It has everything that its leader had announced.
    Streaming,
    /// It is behind, and pulling.
    CatchingUp,
    /// It receives a snapshot; so many records so far.
    Snapshot {
        /// Records received.
        records: u64,
    },
    /// It cannot reach its leader, or nobody leads.
    Away(String),
    /// Its leader reads a file that does not name it.
    NotListed(String),
    /// Its leader has lost data that this copy holds (rule 13): it keeps it and waits for an operator.
    LeaderLostData(String),
    /// Its history left the leader's (rule 21): it lists what the leader never had, and takes it back.
    Returning,
    /// The same, and it cannot: it keeps what it has.
    OffHistory(Halt),
    /// It cannot write what it gets.
    Stuck(String),
}

impl FollowState {
    /// Its name in a status.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            FollowState::Starting => "starting",
            FollowState::Streaming => "streaming",
            FollowState::CatchingUp => "catching-up",
            FollowState::Snapshot { .. } => "snapshot",
            FollowState::Away(_) => "away",
            FollowState::NotListed(_) => "not-listed",
            FollowState::LeaderLostData(_) => "leader-lost-data",
            FollowState::Returning => "returning",
            FollowState::OffHistory(_) => "off-history",
            FollowState::Stuck(_) => "stuck",
        }
    }

    /// What is wrong, if something is.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        match self {
            FollowState::Starting
            | FollowState::Streaming
            | FollowState::CatchingUp
            | FollowState::Snapshot { .. }
            | FollowState::Returning => None,
            FollowState::OffHistory(halt) => Some(&halt.why),
            FollowState::Away(detail)
            | FollowState::NotListed(detail)
            | FollowState::LeaderLostData(detail)
            | FollowState::Stuck(detail) => Some(detail),
        }
    }
}

/// What to do after an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Take the answer's entries (there may be none); first adopt this uid, if the copy has none.
    Append {
        /// The shard's uid by its leader.
        adopt: Option<ShardUid>,
    },
    /// Throw nothing away yet, and receive a snapshot.
    Snapshot,
    /// List what the leader never had, and take it back (rule 21).
    ComeBack,
    /// Keep what is there, say so, and ask again later.
    Stay(FollowState),
}

/// Decides what an answer means to a copy with this uid. `holds_data`: a copy that holds nothing may take any uid; one
/// that holds data never replaces it from a leader with another (rule 13).
#[must_use]
pub fn step(mine: Option<ShardUid>, holds_data: bool, answer: &PollAnswer) -> Step {
    let lost = |theirs: ShardUid| {
        Step::Stay(FollowState::LeaderLostData(format!(
            "the leader's file has shard uid {theirs}, this copy's data has {}: the leader was started without its data",
            mine.map_or_else(|| "none".into(), |uid| uid.to_string())
        )))
    };
    match answer {
        PollAnswer::Entries { shard_uid, .. } | PollAnswer::Snapshot { shard_uid }
            if holds_data && mine != Some(*shard_uid) =>
        {
            lost(*shard_uid)
        }
        PollAnswer::Entries { shard_uid, .. } => {
            Step::Append { adopt: (mine != Some(*shard_uid)).then_some(*shard_uid) }
        }
        PollAnswer::Snapshot { .. } => Step::Snapshot,
        PollAnswer::LostData { detail } => Step::Stay(FollowState::LeaderLostData(detail.clone())),
        PollAnswer::OffHistory => Step::ComeBack,
        PollAnswer::NotLeading { detail } => Step::Stay(FollowState::Away(detail.clone())),
        PollAnswer::NotOurs { detail } => Step::Stay(FollowState::NotListed(detail.clone())),
    }
}

/// A replica's view of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follower {
    state: FollowState,
    /// Since when it has been doing that.
    since: Option<Instant>,
    /// What was logged last.
    reported: Option<&'static str>,
    had_full_copy: bool,
    /// It was rewound, and is not where it is whole yet.
    is_unsettled: bool,
    /// It is not on the history of the leader that it asked last, whatever it has been doing since.
    is_off: bool,
    /// Sending time of the last poll whose announced end is applied (rule 24).
    fresh_as_of: Option<Instant>,
    /// The leader's end as it announced it last, and when that was.
    heard: Option<(Seq, Instant)>,
    /// Sending times and announced ends of later polls, oldest first.
    pending: VecDeque<(Instant, Seq)>,
}

impl Follower {
    /// A replica that has just opened its file. `had_full_copy`: the file holds data.
    #[must_use]
    pub fn new(had_full_copy: bool) -> Follower {
        Follower {
            state: FollowState::Starting,
            since: None,
            reported: None,
            had_full_copy,
            is_unsettled: false,
            is_off: false,
            fresh_as_of: None,
            heard: None,
            pending: VecDeque::new(),
        }
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> &FollowState {
        &self.state
    }

    /// Since when; none when it has not done anything else since it started.
    #[must_use]
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Enters what it is doing; returns whether that is to be logged: other news than the last. A leader that is away is
    /// news only when it stays away, for leaders restart; and being a little behind is not, for under load a copy is
    /// behind and whole again many times a second.
    pub fn enter(&mut self, state: FollowState, now: Instant) -> bool {
        if self.state.name() != state.name() {
            self.since = Some(now);
        }
        self.is_off |= matches!(state, FollowState::Returning | FollowState::OffHistory(_));
        self.state = state;
        let lasts = self.since.is_some_and(|since| now.saturating_duration_since(since) >= REPORT_AFTER);
        let passes = matches!(self.state, FollowState::Away(_) | FollowState::CatchingUp);
        let is_news = self.reported != Some(self.state.name()) && (lasts || !passes);
        if is_news {
            self.reported = Some(self.state.name());
        }
        is_news
    }

    /// Whether the copy was ever whole.
    #[must_use]
    pub fn had_full_copy(&self) -> bool {
        self.had_full_copy
    }

    /// Whether it may serve as a replica: not a copy that knows that it is not on its leader's history.
    #[must_use]
    pub fn may_serve(&self) -> bool {
        self.had_full_copy && !self.is_off
    }

    /// It is rewound: it is not whole, whatever is applied, until it has settled. How old it is, nobody knows.
    pub fn unsettled(&mut self) {
        self.pending.clear();
        (self.had_full_copy, self.is_unsettled, self.fresh_as_of) = (false, true, None);
    }

    /// It is where its records are what its history says.
    pub fn settled(&mut self) {
        (self.had_full_copy, self.is_unsettled, self.is_off) = (true, false, false);
    }

    /// A poll sent then was answered with this end: the copy is on that leader's history.
    pub fn announced(&mut self, sent: Instant, end: Seq) {
        self.is_off = false;
        self.heard = Some((end, sent));
        if self.pending.len() < PENDING_MAX {
            self.pending.push_back((sent, end));
        }
    }

    /// The leader's end as it announced it last, and when the poll was sent that it answered.
    #[must_use]
    pub fn heard(&self) -> Option<(Seq, Instant)> {
        self.heard
    }

    /// Everything up to this seq is applied; returns whether that is all that was announced.
    pub fn applied(&mut self, seq: Seq) -> bool {
        if self.is_unsettled {
            return false;
        }
        while let Some((sent, end)) = self.pending.front().copied() {
            if end > seq {
                return false;
            }
            self.fresh_as_of = Some(sent);
            self.pending.pop_front();
        }
        self.had_full_copy = true;
        true
    }

    /// A snapshot has replaced the copy: what was announced before it says nothing about it.
    pub fn replaced(&mut self) {
        self.pending.clear();
        (self.had_full_copy, self.is_unsettled, self.is_off) = (true, false, false);
    }

    /// The copy was thrown away: it holds nothing, and serves nothing until it is whole again.
    pub fn emptied(&mut self, now: Instant) {
        *self = Follower { since: Some(now), ..Follower::new(false) };
    }

    /// Upper bound of the copy's age, by rule 24; none after a start.
    #[must_use]
    pub fn stale(&self, now: Instant) -> Option<Duration> {
        self.fresh_as_of.map(|sent| now.saturating_duration_since(sent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::types::UnixMs;

    fn entries(uid: u64) -> PollAnswer {
        PollAnswer::Entries { shard_uid: ShardUid(uid), end: Seq(3), time: UnixMs(0), entries: vec![] }
    }

    #[test]
    fn step_never_replaces_data_from_a_leader_with_another_uid() {
        let snapshot = PollAnswer::Snapshot { shard_uid: ShardUid(6) };
        for answer in [entries(6), snapshot.clone()] {
            let step = step(Some(ShardUid(5)), true, &answer);
            assert!(matches!(step, Step::Stay(FollowState::LeaderLostData(_))), "{step:?}");
        }
        assert_eq!(step(None, false, &entries(6)), Step::Append { adopt: Some(ShardUid(6)) });
        assert_eq!(step(Some(ShardUid(5)), false, &entries(6)), Step::Append { adopt: Some(ShardUid(6)) });
        assert_eq!(step(Some(ShardUid(6)), true, &entries(6)), Step::Append { adopt: None });
        assert_eq!(step(Some(ShardUid(6)), true, &snapshot), Step::Snapshot);
    }

    #[test]
    fn follower_that_flutters_is_logged_once_and_one_that_stays_behind_again() {
        let (clock, mut follower) = (Clock::manual(), Follower::new(true));
        let away = || FollowState::Away("no leader".into());
        assert!(follower.enter(FollowState::Streaming, clock.now()));
        for passing in [FollowState::CatchingUp, away()] {
            for state in [passing.clone(), FollowState::Streaming, passing.clone()] {
                assert!(!follower.enter(state.clone(), clock.now()), "{state:?} passes");
            }
            clock.advance(REPORT_AFTER);
            assert!(follower.enter(passing.clone(), clock.now()), "{passing:?} lasts");
            assert!(!follower.enter(passing.clone(), clock.now()), "{passing:?} was logged");
            assert!(follower.enter(FollowState::Streaming, clock.now()), "it is over");
        }
    }

    /// The bug: a copy off the history that received a snapshot, or whose leader went away, served what was lost.
    #[test]
    fn copy_off_the_history_serves_nothing_whatever_it_does_until_a_leader_takes_it() {
        let (clock, off) = (Clock::manual(), FollowState::OffHistory(Halt { why: "why".into(), next: "next".into() }));
        let doing =
            [FollowState::Returning, FollowState::Snapshot { records: 0 }, FollowState::Away("no leader".into()), off];
        let mut follower = Follower::new(true);
        for state in doing.clone() {
            follower.enter(state, clock.now());
            assert!(!follower.may_serve(), "{follower:?}");
        }
        let mut taken = follower.clone();
        taken.announced(clock.now(), Seq(10));
        follower.replaced();
        assert!(taken.may_serve() && follower.may_serve());
    }

    #[test]
    fn stale_is_the_age_of_the_last_poll_whose_end_is_applied() {
        let (clock, mut follower) = (Clock::manual(), Follower::new(false));
        assert_eq!(follower.stale(clock.now()), None);
        follower.announced(clock.now(), Seq(10));
        clock.advance(Duration::from_millis(50));
        follower.announced(clock.now(), Seq(20));
        assert!(!follower.applied(Seq(9)));
        assert_eq!(follower.stale(clock.now()), None);
        assert!(!follower.had_full_copy());
        assert!(!follower.applied(Seq(12)));
        assert_eq!(follower.stale(clock.now()), Some(Duration::from_millis(50)));
        clock.advance(Duration::from_millis(30));
        assert!(follower.applied(Seq(20)));
        assert_eq!(follower.stale(clock.now()), Some(Duration::from_millis(30)));
        assert!(follower.had_full_copy());
        follower.announced(clock.now(), Seq(30));
        follower.emptied(clock.now());
        assert_eq!((follower.stale(clock.now()), follower.had_full_copy()), (None, false));
        assert_eq!(follower.state(), &FollowState::Starting);
    }
}
