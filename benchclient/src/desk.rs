//! A worker's desk: makes requests, judges their answers, and enters both in ledger and recorder.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Nanos;
use crate::failure::{Applied, Failure};
use crate::lanes::Lanes;
use crate::ledger::{Found, ReadMark, Tick};
use crate::link::Answer;
use crate::plan::{Check, Keep, ONLY, Plan, Route, locked};
use crate::recorder::{Recorder, Times};
use crate::request::Op;
use crate::tally::Spot;

/// A request that is under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flight {
    op: Op,
    key: u64,
    shard: usize,
    /// `None`: when it is sent.
    intended: Option<Nanos>,
    sent: Nanos,
    mark: Mark,
}

/// What the ledger wants back.
#[derive(Debug, Clone, Copy)]
enum Mark {
    None,
    Write(Tick),
    Read(ReadMark),
}

impl Flight {
    /// It is sent now.
    pub(crate) fn send(&mut self, now: Nanos) {
        self.sent = now;
    }

    fn times(&self, done: Nanos) -> Times {
        Times { intended: self.intended.unwrap_or(self.sent), sent: self.sent, done }
    }
}

/// What a worker knows beside its connections.
#[derive(Debug)]
pub(crate) struct Desk {
    plan: Arc<Plan>,
    recorder: Arc<Mutex<Recorder>>,
    /// Numbers the writes of this worker where no ledger does. Only ever grows.
    writes: u64,
    key: Vec<u8>,
    /// The numbers of keys that were to be kept.
    pub(crate) kept: Vec<u64>,
    /// Of the burst under way: an answer was none that asks for a pause.
    some_went_well: bool,
}

impl Desk {
    /// For worker `number`.
    pub(crate) fn new(plan: Arc<Plan>, recorder: Arc<Mutex<Recorder>>, number: usize) -> Desk {
        let writes = u64::try_from(number).unwrap_or(0) << 40;
        Desk { plan, recorder, writes, key: Vec::new(), kept: Vec::new(), some_went_well: false }
    }

    /// Adds a request to the burst.
    pub(crate) fn request(&mut self, lanes: &mut Lanes, op: Op, key: u64, intended: Option<Nanos>) {
        let plan = &*self.plan;
        self.key.clear();
        plan.keys.push_key(key, &mut self.key);
        let (shard, lane) = lanes.of_key(&self.key);
        let (mut mark, out) = (Mark::None, lane.link.out());
        let put_key = |out: &mut Vec<u8>| out.extend_from_slice(&self.key);
        let mut wants_body = false;
        match op {
            Op::Get => {
                lane.cut.get(out, put_key);
                wants_body = !matches!(plan.check, Check::No);
                if let (Check::Ledger(ledger), Some(index)) = (&plan.check, index(key)) {
                    mark = Mark::Read(locked(ledger).begin_read(index));
                }
            }
            Op::Set => {
                let write = match (&plan.check, index(key)) {
                    (Check::Ledger(ledger), Some(index)) => {
                        let began = locked(ledger).begin_write(index);
                        mark = Mark::Write(began);
                        began
                    }
                    _ => {
                        self.writes += 1;
                        self.writes
                    }
                };
                let stamp = plan.stamp(write);
                lane.cut.set(out, put_key, plan.keys.value_bytes(key, stamp));
                plan.keys.push_value(key, stamp, out);
            }
        }
        lane.link.push(Flight { op, key, shard, intended, sent: 0, mark }, wants_body);
    }

    /// A burst is about to be sent.
    pub(crate) fn begin_burst(&mut self) {
        self.some_went_well = false;
    }

    /// Whether nothing of the burst went well: time for a pause.
    pub(crate) fn all_failed(&self) -> bool {
        !self.some_went_well
    }

    /// A request was sent by a worker that had nothing to do since `free_at`.
    pub(crate) fn sent(&self, flight: &Flight, free_at: Nanos) {
        if let Some(intended) = flight.intended {
            self.recorder().own_delay(intended, flight.sent.saturating_sub(intended.max(free_at)));
        }
    }

    /// An answer came.
    pub(crate) fn settle(&mut self, flight: Flight, answer: &Answer<'_>, now: Nanos) {
        let spot = Spot { op: flight.op, shard: flight.shard, forwarded: answer.forwarded };
        if answer.forwarded && self.plan.route == Route::Direct {
            self.plan.map_is_old.notify_one();
        }
        let judged = match (flight.op, answer.status) {
            (Op::Set, 200..=299) => {
                self.enter_write(&flight, Applied::Yes);
                Ok(())
            }
            (Op::Get, 200) => self.judge(&flight, Some(answer.body)),
            (Op::Get, 404) if !matches!(self.plan.check, Check::No) => match self.judge(&flight, None) {
                // Rightly absent; but whoever wanted to read something has not.
                Ok(()) if !matches!(self.plan.check, Check::LastLook(_)) => Err(Failure::answer(404, answer.body)),
                judged => judged,
            },
            (_, status) => {
                let failure = Failure::answer(status, answer.body);
                self.undone(&flight, failure.applied);
                Err(failure)
            }
        };
        self.some_went_well |= judged.is_ok() || answer.status == 404;
        match judged {
            Ok(()) => self.recorder().success(spot, flight.times(now)),
            Err(failure) => self.recorder().failure(spot, flight.times(now), failure),
        }
    }

    /// No answer came, or none that can be understood.
    pub(crate) fn fail(&mut self, flight: Flight, failure: Failure, now: Nanos) {
        self.undone(&flight, failure.applied);
        if self.plan.route == Route::Direct {
            self.plan.map_is_old.notify_one();
        }
        let spot = Spot { op: flight.op, shard: flight.shard, forwarded: false };
        let sent = if flight.sent == 0 { now } else { flight.sent };
        self.recorder().failure(spot, Flight { sent, ..flight }.times(now), failure);
    }

    fn undone(&mut self, flight: &Flight, applied: Applied) {
        if self.plan.keep == Keep::Undone {
            self.kept.push(flight.key);
        }
        self.enter_write(flight, applied);
    }

    fn enter_write(&mut self, flight: &Flight, applied: Applied) {
        if flight.op == Op::Set && applied == Applied::Yes && self.plan.keep == Keep::Acknowledged {
            self.kept.push(flight.key);
        }
        if let (Check::Ledger(ledger), Mark::Write(began), Some(index)) =
            (&self.plan.check, flight.mark, index(flight.key))
        {
            match applied {
                Applied::Yes => locked(ledger).acknowledged(index, began),
                Applied::No => locked(ledger).refused(index, began),
                Applied::Unknown => {}
            }
        }
    }

    /// May the key hold this?
    fn judge(&self, flight: &Flight, value: Option<&[u8]>) -> Result<(), Failure> {
        let plan = &*self.plan;
        if matches!(plan.check, Check::Once) {
            return self.judge_only(flight, value);
        }
        let found = self.found(flight, value);
        let verdict = match (&plan.check, flight.mark, index(flight.key)) {
            (Check::Ledger(ledger), Mark::Read(mark), _) => locked(ledger).check_read(mark, found),
            (Check::LastLook(ledger), _, Some(index)) => locked(ledger).check_last(index, found),
            _ => Ok(()),
        };
        verdict.map_err(|wrong| Failure::new(wrong.code(), format!("{}: {wrong}", plan.keys.key(flight.key))))
    }

    fn found(&self, flight: &Flight, value: Option<&[u8]>) -> Found {
        let Some(value) = value else { return Found::Nothing };
        match self.plan.keys.stamp_of(flight.key, value) {
            Some(stamp) if stamp.run == self.plan.run => Found::Ours(stamp.write),
            Some(_) => Found::Earlier,
            None => Found::Garbage,
        }
    }

    /// The key has one value; what is it instead?
    fn judge_only(&self, flight: &Flight, value: Option<&[u8]>) -> Result<(), Failure> {
        let keys = &self.plan.keys;
        let Some(value) = value else {
            return Err(Failure::new(
                "missing",
                format!("{} was acknowledged, and is not there", keys.key(flight.key)),
            ));
        };
        if keys.is_value(flight.key, ONLY, value) {
            return Ok(());
        }
        let expected = keys.value_bytes(flight.key, ONLY);
        let detail = if value.len() == expected {
            format!("{} came back with other bytes", keys.key(flight.key))
        } else {
            format!("{} came back with {} bytes instead of {expected}", keys.key(flight.key), value.len())
        };
        Err(Failure::new("wrong-value", detail))
    }

    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key's place in the ledger.
fn index(key: u64) -> Option<usize> {
    usize::try_from(key).ok()
}
