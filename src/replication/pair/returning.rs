//! A copy that holds what its shard's leader never had comes back, by itself (rule 21).
//!
//! ```text
//!   off history ─▶ the leader's history: L ─▶ ledger: all beyond L ═ fsync ─┬─▶ the leader's records of the touched keys, F
//!                                                                          │     └▶ one batch: log and history end at L,
//!                                                                          │        those records, F ═ fsync ─▶ follow
//!                                                                          └─▶ the log does not reach back: snapshot
//! ```
//!
//! - Nothing is taken back that is not in the ledger, durably. A crash anywhere begins anew, and lists nothing twice.
//! - From the moment that it is known, until it has applied F, the copy serves nothing: what it holds is no prefix.
//! - Another leader on the way: it begins anew. Records that were fetched from one are worth nothing to another.
//!
//! | what | bound | beyond it |
//! |---|---|---|
//! | keys that were touched, and their records | `KEYS_MAX`, `RECORDS_BYTES_MAX` | snapshot |
//! | keys in a question | `QUESTION_KEYS_MAX` | the next question |
//! | the ledger | `storage.ledger_bytes_max` | the copy stays as it is, and says so |

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::{info, warn};

use super::diverged::{Course, Parted, Settling, decide, settling};
use super::follow::stuck;
use super::follower::FollowState;
use super::wire::{HistoryAnswer, RecordsAnswer, RecordsQuestion};
use super::{Halt, Pair};
use crate::cluster::Part;
use crate::peer::{CallError, Class, Kind};
use crate::storage::ledger::{self, Ledger, PAGE_BYTES, Return, Session};
use crate::storage::{Engine, Entries, Error, Rewind};
use crate::types::{
    Change, Cursor, Entry, Epoch, History, Key, Mutation, Record, Seq, ShardIndex, ShardUid, Space, UnixMs, Version,
};

/// A leader that has not answered in so long is away.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Most keys whose records are fetched one by one.
const KEYS_MAX: usize = 1 << 20;
/// Most bytes of records that are fetched one by one: they are in memory at once.
const RECORDS_BYTES_MAX: usize = 64 << 20;
/// Keys in one question.
const QUESTION_KEYS_MAX: usize = 1024;

/// What the leader wrote.
struct Theirs {
    uid: ShardUid,
    epoch: Epoch,
    history: History,
}

/// The records of the touched keys, and the leader's end behind them.
struct Fetched {
    replace: Vec<(Space, Key, Option<Bytes>)>,
    settles_at: Option<Cursor>,
}

impl Pair {
    /// Comes back to the leader's history, or says why not.
    pub(super) async fn come_back(&self) -> Result<(), FollowState> {
        if self.writer.published().is_failed() {
            return Err(FollowState::Stuck("this copy's store has failed; restart this node".into())); // rule 9
        }
        if !matches!(self.follow_state(), FollowState::OffHistory(_)) {
            self.enter(FollowState::Returning); // another try goes on saying why the last one ended
        }
        let theirs = self.ask_history().await?;
        let mine = self.writer.published().history();
        let log_start = self.read(|engine| engine.log_extent()).await.map_err(unreadable)?.start;
        let is_settled = self.settles_at.lock().is_none();
        let parted = Parted { mine: (self.uid(), &mine), theirs: (theirs.uid, &theirs.history), log_start, is_settled };
        match decide(parted, self.me.name.as_str()) {
            Course::Follow => Ok(()),
            Course::Stay(halt) => Err(FollowState::OffHistory(halt)),
            Course::Rewind(to) => {
                let keys = self.list_lost(&mine, &theirs, to, log_start).await?;
                let fetched = match keys {
                    Some(keys) => self.fetch(keys, &theirs).await?,
                    None => None,
                };
                match fetched {
                    Some(fetched) => self.rewind(to, fetched).await,
                    None => self.receive_snapshot(Some(to)).await,
                }
            }
            Course::Snapshot { to, .. } => {
                self.list_lost(&mine, &theirs, to, log_start).await?;
                self.receive_snapshot(Some(to)).await
            }
        }
    }

    /// Looks how far a copy has come that was rewound: it serves when it has come to where it is whole. One that has passed
    /// that place with another leader takes a snapshot.
    pub(super) fn look_whether_settled(&self) -> Option<Settling> {
        let mut settles_at = self.settles_at.lock();
        let at = settles_at.as_ref()?;
        let settling = self.writer.published().with_history(|history| settling(history, at));
        if settling == Settling::Settled {
            *settles_at = None;
            self.follower.lock().settled();
            info!(shard = self.shard.name, "back on the leader's history, and whole");
        }
        Some(settling)
    }

    /// Whether the entry at which this copy is whole lies behind all that its leader has written: it was another leader's, who
    /// told it, and this one has not got it. It would be found out with later entries, but there may be none for long.
    pub(super) fn is_beyond(&self, end: Seq) -> bool {
        self.settles_at.lock().as_ref().is_some_and(|at| end < at.seq)
    }

    async fn ask_history(&self) -> Result<Theirs, FollowState> {
        let leader = self.around.map.leader_of(&self.shard);
        let answer = self.ask_leader(leader, Class::Bulk, Kind::History, Bytes::new(), ANSWER_WAIT).await;
        match answer.and_then(|bytes| Ok(HistoryAnswer::decode(bytes)?)) {
            Ok(HistoryAnswer::Mine { shard_uid: uid, epoch, history }) => Ok(Theirs { uid, epoch, history }),
            Ok(HistoryAnswer::NotLeading { detail }) => Err(FollowState::Away(detail)),
            Err(CallError::Unsupported) => Err(FollowState::OffHistory(Halt {
                why: "this copy holds writes that the shard's present leader never had, and that runs a program which cannot \
                      say where they part; it keeps them and pulls nothing"
                    .into(),
                next: format!("upgrade {}; the rest happens by itself", leader.name),
            })),
            Err(error) => Err(broke_off(&error)),
        }
    }

    /// Lists everything beyond `to` in the ledger, durably; returns the keys that were touched, unless there are too many.
    async fn list_lost(
        &self,
        mine: &History,
        theirs: &Theirs,
        to: Seq,
        log_start: Seq,
    ) -> Result<Option<Vec<Key>>, FollowState> {
        let back = Return {
            common: to,
            end: mine.end(),
            superseded_by: theirs.epoch.clone(),
            complete: log_start <= to,
            at: self.around.clock.unix_ms(),
        };
        let listing = Listing {
            back,
            mine: mine.clone(),
            log_start,
            shard: self.shard.index,
            engine: self.engine(),
            ledger: self.files.ledger(),
            bytes_max: self.around.settings.ledger_bytes_max,
        };
        let listed = tokio::task::spawn_blocking(move || listing.list()).await;
        let Listed { keys, writes } = match listed {
            Ok(Ok(listed)) => listed,
            Ok(Err(NotListed::Unreadable(error))) => return Err(unreadable(error)),
            Ok(Err(NotListed::Ledger(error))) => return Err(self.not_listed(&error)),
            Err(panic) => return Err(FollowState::Stuck(format!("listing lost writes panicked: {panic}"))),
        };
        let (common, end, leader) = (to.0, mine.end().0, &theirs.epoch.leader);
        warn!(shard = self.shard.name, common, end, %leader, writes, complete = log_start <= to,
            "this copy holds writes that the shard's leader never had: they are in its ledger; kv shard lost-writes lists them");
        Ok(keys)
    }

    fn not_listed(&self, error: &ledger::Error) -> FollowState {
        let shard = &self.shard.name;
        let away = format!("kv shard lost-writes {shard} > lost.ndjson; then move the file away");
        let next = match error {
            ledger::Error::Full { .. } => format!("{away}, or raise storage.ledger_bytes_max and restart this node"),
            ledger::Error::Damaged { .. } => away,
            ledger::Error::Failed { .. } => "put the disk right; it begins again by itself".into(),
        };
        FollowState::OffHistory(Halt {
            why: format!(
                "this copy holds writes that the shard's present leader never had, and takes nothing back that it cannot list: \
                 {error}"
            ),
            next,
        })
    }

    /// Fetches the leader's records of these keys; none when they are too many to hold.
    async fn fetch(&self, keys: Vec<Key>, theirs: &Theirs) -> Result<Option<Fetched>, FollowState> {
        let mut fetched = Fetched { replace: Vec::with_capacity(keys.len()), settles_at: theirs.history.cursor() };
        let (mut rest, mut bytes) = (&keys[..], 0);
        while !rest.is_empty() {
            let asked = rest.split_at(rest.len().min(QUESTION_KEYS_MAX)).0;
            let (records, at) = self.ask_records(asked, &theirs.epoch).await?;
            let (answered, behind) = rest.split_at(records.len().min(asked.len()));
            if answered.is_empty() {
                return Err(FollowState::Away("the leader sent none of the records that were asked for".into()));
            }
            bytes += records.iter().flatten().map(Bytes::len).sum::<usize>();
            if bytes > RECORDS_BYTES_MAX {
                return Ok(None);
            }
            let replace = answered.iter().zip(records).map(|(key, record)| (Space::Data, key.clone(), record));
            fetched.replace.extend(replace);
            (fetched.settles_at, rest) = (at, behind);
        }
        Ok(Some(fetched))
    }

    async fn ask_records(
        &self,
        keys: &[Key],
        epoch: &Epoch,
    ) -> Result<(Vec<Option<Bytes>>, Option<Cursor>), FollowState> {
        let leader = self.around.map.leader_of(&self.shard);
        let body = RecordsQuestion { keys: keys.to_vec() }.encode();
        let answer = self.ask_leader(leader, Class::Bulk, Kind::Records, body, ANSWER_WAIT).await;
        match answer.and_then(|bytes| Ok(RecordsAnswer::decode(bytes)?)).map_err(|error| broke_off(&error))? {
            RecordsAnswer::Records { epoch: led, records, at } if led == *epoch => {
                let damaged = |what| FollowState::Away(format!("the leader sent a record that cannot be read: {what}"));
                records
                    .iter()
                    .flatten()
                    .try_for_each(|record| Record::decode(record.clone()).map(drop))
                    .map_err(damaged)?;
                Ok((records, at))
            }
            RecordsAnswer::Records { .. } => Err(FollowState::Away("the shard's leader has changed".into())),
            RecordsAnswer::Refused { detail } => Err(FollowState::Away(detail)),
        }
    }

    /// Takes back what is listed.
    async fn rewind(&self, to: Seq, fetched: Fetched) -> Result<(), FollowState> {
        self.check_space(&fetched).await?;
        // What a takeover by this node counts on stays as it is until that is over.
        let Ok(_nobody) = self.taking_over.try_lock() else {
            return Err(FollowState::Away("this node is about to lead the shard".into()));
        };
        self.check_promises()?;
        if self.part() != Part::Follow {
            return Err(FollowState::Away("the shard's leader has changed".into()));
        }
        let Fetched { replace, settles_at } = fetched;
        let keys = replace.len();
        // Before it is done: whoever reads meanwhile sees no mixture.
        self.follower.lock().unsettled();
        self.settles_at.lock().clone_from(&settles_at);
        let end = self.writer.published().end();
        let rewind = Rewind { to, replace, settles_at };
        self.writer.rewind(rewind).await.map_err(|refusal| stuck(&refusal))?;
        warn!(shard = self.shard.name, end = end.0, to = to.0, keys, "took back what the shard's leader never had");
        let settles = self.settles_at.lock().is_some(); // not in the condition, which would hold the lock
        if settles {
            self.look_whether_settled();
        } else {
            self.follower.lock().settled(); // the leader holds nothing at all
        }
        Ok(())
    }

    /// A rewind writes what it fetched, and what waits for the file; others count on the reserve.
    async fn check_space(&self, fetched: &Fetched) -> Result<(), FollowState> {
        let bytes = fetched.replace.iter().filter_map(|(_, _, record)| record.as_ref()).map(Bytes::len).sum::<usize>();
        let needed = self.around.settings.min_free_bytes + 2 * bytes as u64;
        match self.read(|engine| Ok(engine.free_bytes())).await.map_err(unreadable)? {
            Some(free) if free < needed => Err(FollowState::Stuck(format!(
                "{free} bytes are free on the disk, and coming back takes {needed}; free some space, it begins again by itself"
            ))),
            _ => Ok(()),
        }
    }
}

fn unreadable(error: Error) -> FollowState {
    FollowState::Stuck(format!("this copy cannot be read: {error}"))
}

fn broke_off(error: &CallError) -> FollowState {
    FollowState::Away(format!("the way back to the leader's history broke off: {error}"))
}

/// Lists what a copy holds beyond an entry.
struct Listing {
    back: Return,
    mine: History,
    /// The entry before the first of the log.
    log_start: Seq,
    shard: ShardIndex,
    engine: Arc<dyn Engine>,
    ledger: Arc<Ledger>,
    bytes_max: u64,
}

/// What was listed.
struct Listed {
    /// The keys that were touched; none when there are too many, or not all are known.
    keys: Option<Vec<Key>>,
    /// Writes that the ledger has now.
    writes: u64,
}

enum NotListed {
    Unreadable(Error),
    Ledger(ledger::Error),
}

impl From<Error> for NotListed {
    fn from(error: Error) -> NotListed {
        NotListed::Unreadable(error)
    }
}

impl From<ledger::Error> for NotListed {
    fn from(error: ledger::Error) -> NotListed {
        NotListed::Ledger(error)
    }
}

impl Listing {
    /// Lists records that the log does not explain any more, then the log.
    fn list(&self) -> Result<Listed, NotListed> {
        let is_lost = |entry: &Entry| {
            let (seq, to) = (entry.seq, self.back.common);
            seq > to && self.mine.cursor_at(seq).is_some_and(|cursor| cursor == entry.cursor())
        };
        let mut session = self.ledger.open(is_lost)?;
        if !self.back.complete {
            self.list_records(&mut session)?;
        }
        let keys = self.list_entries(&mut session)?;
        Ok(Listed { keys: keys.filter(|_| self.back.complete), writes: session.writes() })
    }

    /// What is left in the data of lost entries before the log.
    fn list_records(&self, session: &mut Session<'_>) -> Result<(), NotListed> {
        let mut after: Option<Key> = None;
        loop {
            let chunk = self.engine.chunk(Space::Data, after.as_ref(), PAGE_BYTES)?;
            after = chunk.records.last().map(|(key, _)| key.clone()).or(after);
            let mut lost = Vec::new();
            for (key, record) in chunk.records {
                let damaged = |what| Error::Corrupt(format!("the record of {key:?}: {what}"));
                lost.extend(self.entry_of(&key, Record::decode(record).map_err(damaged)?));
            }
            self.append(session, lost)?;
            if chunk.last {
                return Ok(());
            }
        }
    }

    /// The entry that a record is left of, if that was lost and is not in the log.
    fn entry_of(&self, key: &Key, record: Record) -> Option<Entry> {
        let Version::Log { seq, .. } = record.version;
        let cursor = self.mine.cursor_at(seq).filter(|_| seq > self.back.common && seq <= self.log_start)?;
        let mutation = Mutation { space: Space::Data, key: key.clone(), change: Change::Put(record.content) };
        let time = UnixMs(0); // not known
        let Cursor { epoch, incarnation, .. } = cursor;
        Some(Entry { shard: self.shard, epoch, incarnation, seq, time, mutations: vec![mutation] })
    }

    fn list_entries(&self, session: &mut Session<'_>) -> Result<Option<Vec<Key>>, NotListed> {
        let mut keys = BTreeSet::new();
        let mut last = self.back.common.max(self.log_start);
        while last < self.back.end {
            let found = match self.engine.entries(last, PAGE_BYTES)? {
                Entries::Found(found) if !found.is_empty() => found,
                _ => return Err(Error::Corrupt(format!("the log does not hold what follows {last}")).into()),
            };
            let mut lost = Vec::with_capacity(found.len());
            for bytes in found {
                let damaged = |what| Error::Corrupt(format!("the entry after {last}: {what}"));
                let entry = Entry::decode(bytes).map_err(damaged)?;
                last = entry.seq;
                if keys.len() <= KEYS_MAX {
                    keys.extend(entry.mutations.iter().map(|mutation| mutation.key.clone()));
                }
                lost.push(entry);
            }
            self.append(session, lost)?;
        }
        Ok((keys.len() <= KEYS_MAX).then(|| keys.into_iter().collect()))
    }

    /// Lists those that are not listed.
    fn append(&self, session: &mut Session<'_>, mut lost: Vec<Entry>) -> Result<(), NotListed> {
        lost.retain(|entry| !session.lists(entry));
        if !lost.is_empty() {
            session.append(&self.back, &lost, self.bytes_max)?;
        }
        Ok(())
    }
}
