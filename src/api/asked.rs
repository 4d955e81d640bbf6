//! A request on its way through a handler: what all handlers know of it, and the one call that they make.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use parking_lot::Mutex;

use super::Api;
use super::ack;
use super::alarm::Alarm;
use super::answer;
use super::controls::{Controls, Route};
use super::error::{Kind, Problem};
use super::params::{Accepts, Params};
use super::reply::Reply;
use super::session::{self, Session};
use crate::config::Settings;
use crate::store::{Answer, Applied, Call, Code, Operation, Reach, Store, Wishes};
use crate::types::{Key, RequestId};

/// How long after its deadline a call may still answer, with a better error than the one made here.
const OVERTIME: Duration = Duration::from_millis(500);

/// The head of a request, and when it came.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) api: &'a Api,
    pub(super) parts: &'a Parts,
    /// Names it in the logs.
    pub(super) id: RequestId,
    /// Where its time-out starts.
    pub(super) began: Instant,
    /// Its connection's.
    pub(super) alarm: Mutex<&'a mut Alarm>,
}

impl Asked<'_> {
    pub(super) fn store(&self) -> &Store {
        &self.api.store
    }

    pub(super) fn settings(&self) -> &Settings {
        self.store().settings()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// The parameters of the query.
    pub(super) fn query(&self, accepts: &Accepts) -> Result<Params, Problem> {
        Params::of_query(self.parts.uri.query().unwrap_or_default(), accepts)
    }

    /// The controls of query (or form) and headers.
    pub(super) fn controls(&self, params: &Params, accepts: &Accepts) -> Result<Controls, Problem> {
        Controls::read(params, self.headers(), accepts.controls, self.began, self.settings())
    }

    /// The key that a parameter names.
    pub(super) fn key(&self, params: &Params) -> Result<Key, Problem> {
        let bytes = params.get("key").cloned().unwrap_or_default();
        Key::new(bytes, self.settings().key_bytes_max).map_err(Problem::key)
    }

    /// What is left of the request's time.
    pub(super) fn time_left(&self, deadline: Instant) -> Duration {
        deadline.saturating_duration_since(self.store().clock().now())
    }

    /// The redirect to the key's owner, when one was asked for and the owner is not here.
    pub(super) fn elsewhere(&self, key: &Key, controls: &Controls) -> Option<Reply> {
        if controls.route != Route::Redirect {
            return None;
        }
        let owner = self.store().locate(key);
        (!owner.is_here).then(|| answer::redirect(&owner, &self.parts.uri))
    }

    /// What its answer says of a session.
    pub(super) fn session<'a>(&'a self, controls: &'a Controls) -> Session<'a> {
        Session::new(controls, self.store())
    }

    /// A read of a key, as far as the request wants it: HEAD wants no value.
    pub(super) fn read(&self, key: Key) -> Operation {
        if self.parts.method == Method::HEAD { Operation::Head { key } } else { Operation::Get { key } }
    }

    /// Has the store do it. The store keeps the deadline itself; should it not, the request ends all the same, and a write
    /// ends as unknown.
    pub(super) async fn call(&self, operation: Operation, controls: &Controls) -> Result<Answer, Problem> {
        let is_write = operation.is_write();
        if let Some(ack) = controls.ack {
            ack::check(ack, operation.key(), is_write, self.store())?;
        }
        let call = Call {
            wishes: Wishes::boxed(session::terms(&operation, controls, self.store())?, controls.ack),
            operation,
            consistency: controls.consistency,
            reach: if controls.route == Route::Forward { Reach::Forward } else { Reach::Local },
            deadline: controls.deadline,
            request_id: self.id,
        };
        // Pinned here: it is large, for it holds all that forwarding takes, and would be moved on its way.
        let work = pin!(self.api.store.execute(call));
        match self.in_time(controls.deadline, work).await {
            Ok(answer) => Ok(answer?),
            Err(late) if is_write => Err(late.applied(Applied::Unknown).hint(
                "the write may still take effect: read the key before you write again, or ask with a longer timeout=",
            )),
            Err(late) => Err(late),
        }
    }

    /// Waits for `work` until shortly after `deadline`.
    pub(super) async fn in_time<T>(&self, deadline: Instant, work: impl Future<Output = T>) -> Result<T, Problem> {
        let due = tokio::time::Instant::from_std(deadline + OVERTIME);
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.alarm.lock().poll(due, cx).map(|()| {
                Err(Problem::new(Kind::Store(Code::Deadline), "the request's time is over and nobody has answered"))
            }),
        })
        .await
    }
}
