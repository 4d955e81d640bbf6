//! A request's session (API.md, section 3): what its token asks of the store, and the token that its answer hands back.
//!
//! Every write hands one out, for whoever wants to read it anywhere; a read does when a session or a token was asked for.

use super::controls::Controls;
use super::error::Problem;
use super::reply::Lines;
use crate::store::{Consistency, Operation, Served, Store, Terms};
use crate::types::{ClusterUid, Token, Version, session};

/// What the store has to keep beside the consistency that was asked for.
pub(super) fn terms(operation: &Operation, controls: &Controls, store: &Store) -> Result<Terms, Problem> {
    let is_session = controls.session.is_some() || controls.consistency == Consistency::Session;
    if !is_session {
        let max_stale = controls.max_stale.filter(|_| !operation.is_write());
        return Ok(Terms { max_stale, session: None });
    }
    let Some(token) = &controls.session else {
        return Ok(if operation.is_write() { Terms::default() } else { Terms::since(None) });
    };
    let shard = store.shard_index_of(operation.key());
    check(token, store.cluster_uid(), token.has_room(shard))?;
    let position = token.position(shard);
    // A write needs nothing of a session that has not met its shard.
    Ok(if operation.is_write() && position.is_none() { Terms::default() } else { Terms::since(position) })
}

fn check(token: &Token, cluster: Option<ClusterUid>, has_room: bool) -> Result<(), Problem> {
    if !token.is_of(cluster) {
        return Err(Problem::bad_request("the session's token is of another cluster")
            .hint("send no token: that begins a new session"));
    }
    if !has_room {
        let max = session::SHARDS_MAX;
        return Err(Problem::bad_request(format!("the session has met {max} shards, more than a token can hold"))
            .hint("send no token: that begins a new session")
            .extra("limit", max));
    }
    Ok(())
}

/// What an answer says of the session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session<'a> {
    token: Option<&'a Token>,
    /// The request asked for one.
    is_asked: bool,
    store: &'a Store,
}

impl<'a> Session<'a> {
    /// That of a request with these controls.
    pub(super) fn new(controls: &'a Controls, store: &'a Store) -> Session<'a> {
        let is_asked = controls.session.is_some() || controls.consistency == Consistency::Session;
        Session { token: controls.session.as_ref(), is_asked, store }
    }

    /// The line of a read: how far the copy was that answered.
    pub(super) fn put_after_read(self, lines: &mut Lines, served: &Served) {
        if self.is_asked {
            let (empty, cluster) = (Token::default(), self.store.cluster_uid());
            let moved = served.position.as_deref().map(|position| (served.place.index, *position));
            lines.add_with("kv-session", |line| self.token.unwrap_or(&empty).put_moved(line, cluster, moved));
        }
    }

    /// The line of a write: its version, or how far the leader was when there was nothing to write.
    pub(super) fn put_after_write(self, lines: &mut Lines, served: &Served, version: Option<Version>) {
        let Some(position) = version.or_else(|| served.position.as_deref().copied()) else { return };
        let (shard, cluster) = (served.place.index, self.store.cluster_uid());
        lines.add_with("kv-session", |line| match self.token {
            Some(token) => token.put_moved(line, cluster, Some((shard, position))),
            None => session::put_first(line, cluster, shard, position),
        });
    }
}
