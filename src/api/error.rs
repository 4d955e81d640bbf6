//! Failures as clients see them: `application/problem+json` (RFC 9457), and the only place that knows their status codes.
//!
//! Every problem says what happened, whether a write took effect (`applied`), whether asking again can help, and what to
//! do next. A write whose outcome is not known says `unknown`, and is never reported as failed or as done.

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};

use super::answer;
use super::reply::{Lines, Reply};
use crate::config::Settings;
use crate::store::{Applied, Code, Error};
use crate::types::KeyFault;

/// The kinds of problems: those of HTTP itself, and those of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The request is malformed.
    BadRequest,
    /// Another site's page sent it.
    CrossSite,
    /// There is no such key.
    KeyNotFound,
    /// There is no such route.
    NoSuchRoute,
    /// The route has no such method.
    MethodNotAllowed,
    /// The label of the body says that it is something we do not take.
    UnsupportedMediaType,
    /// An `Expect` that is not `100-continue`.
    ExpectationFailed,
    /// A condition does not hold.
    PreconditionFailed,
    /// The header block is over its limit.
    HeadersTooLarge,
    /// An operation that cannot be done now, or not by this node.
    OperationConflict,
    /// An operation that another node has to be asked for.
    WrongNode,
    /// What the store says.
    Store(Code),
}

impl Kind {
    /// Those of HTTP itself, in the order of the metrics' label.
    const OWN: [Kind; 9] = [
        Kind::BadRequest,
        Kind::CrossSite,
        Kind::KeyNotFound,
        Kind::NoSuchRoute,
        Kind::MethodNotAllowed,
        Kind::UnsupportedMediaType,
        Kind::ExpectationFailed,
        Kind::PreconditionFailed,
        Kind::HeadersTooLarge,
    ];

    /// The codes of all kinds.
    pub(super) fn codes() -> impl Iterator<Item = &'static str> {
        Kind::OWN.into_iter().chain(Code::ALL.map(Kind::Store)).map(|kind| table(kind).1)
    }

    /// Its place among [`Kind::codes`].
    fn index(self) -> usize {
        match self {
            Kind::Store(code) => Kind::OWN.len().saturating_add(code.index()),
            own => Kind::OWN.iter().position(|kind| *kind == own).unwrap_or(usize::MAX),
        }
    }
}

/// A refusal or a failure, ready to be rendered. Boxed: it travels in the `Err` of every handler.
#[derive(Debug)]
pub(super) struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    kind: Kind,
    applied: Applied,
    retryable: bool,
    detail: String,
    hint: String,
    /// Further members: `limit`, `setting`, `shard`, `leader`, `etag`.
    extras: Map<String, Value>,
    lines: Lines,
}

/// The JSON, in the order in which people read it.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    applied: &'static str,
    retryable: bool,
    hint: &'a str,
    #[serde(flatten)]
    extras: &'a Map<String, Value>,
}

/// The table of API.md, section 4: status, code, title, and the hint where nobody has a better one.
fn table(kind: Kind) -> (StatusCode, &'static str, &'static str, &'static str) {
    const CURL: &str = "see the API description for what this route takes";
    const LATER: &str = "ask again in a moment";
    match kind {
        Kind::BadRequest => (StatusCode::BAD_REQUEST, "bad-request", "The request is malformed", CURL),
        Kind::CrossSite => (
            StatusCode::FORBIDDEN,
            "cross-site",
            "Pages of other sites may not change data",
            "send the request from a program, or from a page of this host",
        ),
        Kind::KeyNotFound => (
            StatusCode::NOT_FOUND,
            "key-not-found",
            "There is no such key",
            "check the key's spelling, or set it first",
        ),
        Kind::NoSuchRoute => (
            StatusCode::NOT_FOUND,
            "no-such-route",
            "There is no such route",
            "try /get?key=K, /set?key=K&value=V, /delete?key=K or /v1/kv/K",
        ),
        Kind::MethodNotAllowed => (
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "This route does not have this method",
            "use one of the methods that the Allow header names",
        ),
        Kind::UnsupportedMediaType => (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "The body is of a kind that is not taken here",
            "send the value's bytes as they are, for example with curl -T FILE",
        ),
        Kind::ExpectationFailed => (
            StatusCode::EXPECTATION_FAILED,
            "expectation-failed",
            "The expectation cannot be met",
            "send no Expect header, or Expect: 100-continue",
        ),
        Kind::PreconditionFailed => (
            StatusCode::PRECONDITION_FAILED,
            "precondition-failed",
            "The condition does not hold",
            "read the key again and decide by its present ETag",
        ),
        Kind::HeadersTooLarge => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers-too-large",
            "The header block is too large",
            "send fewer or shorter headers, or raise the setting",
        ),
        Kind::Store(code) => {
            let (status, title, hint) = store_table(code, LATER);
            (status, code.name(), title, hint)
        }
        Kind::OperationConflict => (
            StatusCode::CONFLICT,
            "operation-conflict",
            "The operation cannot be done now",
            "kv status shows the state of every node",
        ),
        Kind::WrongNode => (
            StatusCode::MISDIRECTED_REQUEST,
            "wrong-node",
            "Another node has to be asked",
            "send the request to the address that `address` names",
        ),
    }
}

/// The lines of the store's codes: status, title and hint.
fn store_table(code: Code, later: &'static str) -> (StatusCode, &'static str, &'static str) {
    match code {
        Code::ShardUnreachable => (
            StatusCode::BAD_GATEWAY,
            "The node that owns the key cannot be reached",
            "start that node; until then read with consistency=any",
        ),
        Code::NoLeader => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Nobody leads the key's shard now",
            "ask again in a moment; read with consistency=any",
        ),
        Code::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "The node has too much to do", later),
        Code::Deadline => (
            StatusCode::GATEWAY_TIMEOUT,
            "Time ran out",
            "ask again, with a longer timeout=; read with consistency=any",
        ),
        Code::WrongShard => (
            StatusCode::MISDIRECTED_REQUEST,
            "The key belongs to another shard",
            "ask the leader, or leave route=local out",
        ),
        Code::TopologyMismatch => (
            StatusCode::MISDIRECTED_REQUEST,
            "Two nodes disagree about the placement",
            "give both nodes the same sharding.toml and restart the one that was wrong",
        ),
        Code::StorageFailed => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "The store failed",
            "look into the node's log, repair the disk, restart the node",
        ),
        Code::DiskFull => (
            StatusCode::INSUFFICIENT_STORAGE,
            "The disk is full",
            "free space on the node's disk; keys that are deleted make room in its file, which kv compact gives back",
        ),
        Code::ForwardingLoop => (
            StatusCode::LOOP_DETECTED,
            "The request would have been passed on twice",
            "compare the nodes' sharding.toml: they disagree about who owns what",
        ),
        Code::ValueTooLarge => {
            (StatusCode::PAYLOAD_TOO_LARGE, "The value is too large", "send less, or raise the setting")
        }
        Code::KeyTooLong => {
            (StatusCode::URI_TOO_LONG, "The key is too long", "use a shorter key, or raise the setting")
        }
        Code::NotBuilt => (
            StatusCode::NOT_IMPLEMENTED,
            "This is documented but not built yet",
            "do without it, or wait for a later version",
        ),
        Code::AtRisk => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many writes are on one disk only",
            "start the replica, or let it catch up, and write again; kv status shows it",
        ),
        Code::TooFewReplicas => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too few replicas are there",
            "start the replicas, and write again; kv status shows them",
        ),
        Code::AckTimeout => (
            StatusCode::GATEWAY_TIMEOUT,
            "The write is done, and not where it was asked to be",
            "do not send it again; kv status shows which replica is behind",
        ),
        Code::TooStale => (
            StatusCode::SERVICE_UNAVAILABLE,
            "No copy that can be reached is fresh enough",
            "ask again in a moment, or read with consistency=any",
        ),
        Code::SessionLost => (
            StatusCode::CONFLICT,
            "What this session has seen is lost",
            "read again without KV-Session: that begins a new session",
        ),
        Code::Internal => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "We made a mistake",
            "look into the node's log, and report what you find there",
        ),
    }
}

impl Problem {
    /// A problem of which nothing was applied, with the usual hint of its kind.
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Problem {
        Problem(Box::new(Parts {
            kind,
            applied: Applied::No,
            retryable: matches!(kind, Kind::Store(Code::Overloaded | Code::Deadline)),
            detail: detail.into(),
            hint: String::new(),
            extras: Map::new(),
            lines: Lines::default(),
        }))
    }

    /// A malformed request.
    pub(super) fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(Kind::BadRequest, detail)
    }

    /// Documented, and not built yet.
    pub(super) fn not_built(what: impl std::fmt::Display) -> Problem {
        Problem::new(Kind::Store(Code::NotBuilt), format!("{what} is documented but not built yet"))
    }

    /// A method that the route does not have, with those that it has.
    pub(super) fn method_not_allowed(method: &str, path: &str, allow: &str) -> Problem {
        Problem::new(Kind::MethodNotAllowed, format!("{path} has no method {method}; it has {allow}"))
            .line("allow", allow)
    }

    /// A body over the limit for values; `len` as far as it is known.
    pub(super) fn value_too_large(len: Option<u64>, settings: &Settings) -> Problem {
        let max = settings.value_bytes_max;
        let what = len.map_or_else(|| "the value goes on".to_owned(), |len| format!("the value has {len} bytes"));
        Problem::new(Kind::Store(Code::ValueTooLarge), format!("{what}; the limit is {max}"))
            .limit(max, "limits.value_bytes_max in sharding.toml")
    }

    /// Some bytes that are no key, wherever they came from.
    pub(super) fn key(fault: KeyFault) -> Problem {
        match fault {
            KeyFault::Empty => {
                Problem::bad_request("the key is missing or empty").hint("name a key of at least one byte")
            }
            KeyFault::TooLong { max, .. } => Problem::new(Kind::Store(Code::KeyTooLong), fault.to_string())
                .limit(max, "limits.key_bytes_max in sharding.toml"),
        }
    }

    /// Says what to do next.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.0.hint = hint.into();
        self
    }

    /// Says whether the write took effect.
    pub(super) fn applied(mut self, applied: Applied) -> Problem {
        self.0.applied = applied;
        self
    }

    /// Names the limit that was exceeded, and the setting that raises it.
    pub(super) fn limit(self, limit: usize, setting: &'static str) -> Problem {
        self.extra("limit", limit).extra("setting", setting)
    }

    /// Adds a member to the document.
    pub(super) fn extra(mut self, name: &'static str, value: impl Into<Value>) -> Problem {
        self.0.extras.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a line to the answer's head.
    pub(super) fn line(mut self, name: &'static str, value: &str) -> Problem {
        self.0.lines.add(name, value);
        self
    }

    /// Adds the lines that tell who gave the answer.
    pub(super) fn lines(mut self, lines: &Lines) -> Problem {
        self.0.lines.extend(lines);
        self
    }

    /// The status that it is sent with.
    pub(super) fn status(&self) -> StatusCode {
        table(self.0.kind).0
    }

    /// Whether a body was over its limit.
    pub(super) fn is_too_large(&self) -> bool {
        self.0.kind == Kind::Store(Code::ValueTooLarge)
    }

    /// For the log: what happened.
    pub(super) fn detail(&self) -> &str {
        &self.0.detail
    }

    /// For the log: its code.
    pub(super) fn code(&self) -> &'static str {
        table(self.0.kind).1
    }

    /// Its place among [`Kind::codes`].
    pub(super) fn index(&self) -> usize {
        self.0.kind.index()
    }

    /// For the log: the shard that is concerned.
    pub(super) fn shard(&self) -> Option<&str> {
        self.0.extras.get("shard").and_then(Value::as_str)
    }

    /// For the log: whether a write took effect.
    pub(super) fn applied_name(&self) -> &'static str {
        self.0.applied.name()
    }

    /// Whether the fault is this node's or another's, not the client's: its operator should read of it.
    pub(super) fn is_server_fault(&self) -> bool {
        matches!(self.0.kind, Kind::Store(code) if code.is_server_fault())
    }

    /// Whether the fault is this node's own.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.0.kind, Kind::Store(Code::Internal | Code::StorageFailed))
    }

    /// The answer.
    pub(super) fn into_reply(self) -> Reply {
        let Parts { kind, applied, retryable, detail, hint, extras, lines } = *self.0;
        let (status, code, title, usual_hint) = table(kind);
        let document = Document {
            r#type: format!("urn:ostraca:{code}"),
            title,
            status: status.as_u16(),
            detail: &detail,
            code,
            applied: applied.name(),
            retryable,
            hint: if hint.is_empty() { usual_hint } else { &hint },
            extras: &extras,
        };
        let reply = Reply::new(status).body(answer::pretty(&document)).lines(lines);
        let reply = reply.line("content-type", "application/problem+json").line("cache-control", "no-store");
        if status == StatusCode::SERVICE_UNAVAILABLE { reply.line("retry-after", "1") } else { reply }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let retryable = error.is_retryable();
        let mut problem = Problem::new(Kind::Store(error.code), error.detail).hint(error.hint).applied(error.applied);
        problem.0.retryable = retryable;
        for (name, value) in [("shard", error.shard), ("leader", error.leader.map(String::from))] {
            if let Some(value) = value {
                problem = problem.extra(name, value);
            }
        }
        if let Some(ms) = error.stale_ms {
            problem = problem.extra("stale_ms", ms).line("kv-stale-ms", &ms.to_string());
        }
        match error.unconfirmed {
            Some(unconfirmed) => answer::unconfirmed(problem, &unconfirmed),
            None => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Acks;
    use crate::store::ack::Unconfirmed;
    use crate::types::{Incarnation, Seq, Version};

    fn text(problem: Problem) -> String {
        String::from_utf8(problem.into_reply().into_body().to_vec()).unwrap()
    }

    #[test]
    fn problem_document_has_its_members_in_order_and_ends_in_a_newline() {
        let error = Error::new(Code::WrongShard, "not here").shard("Delhi").leader("127.0.0.5:8080");
        let expected = "{\n  \"type\": \"urn:ostraca:wrong-shard\",\n  \"title\": \"The key belongs to another shard\",\n  \
            \"status\": 421,\n  \"detail\": \"not here\",\n  \"code\": \"wrong-shard\",\n  \"applied\": \"no\",\n  \
            \"retryable\": false,\n  \"hint\": \"ask the leader, or leave route=local out\",\n  \
            \"leader\": \"127.0.0.5:8080\",\n  \"shard\": \"Delhi\"\n}\n";
        assert_eq!(text(error.into()), expected);
    }

    #[test]
    fn problem_of_a_write_that_may_have_happened_says_unknown() {
        let error = Error::new(Code::Deadline, "no word").applied(Applied::Unknown);
        assert!(text(error.into()).contains("\"applied\": \"unknown\""));
    }

    #[test]
    fn problem_of_a_write_that_was_not_acknowledged_says_what_was_written_and_where() {
        let version = Version::Log { epoch: 1, seq: Seq(7), incarnation: Incarnation(0xab) };
        let unconfirmed = |version| Unconfirmed { version, acks: Acks { have: 1, of: 3 } };
        let error = Error::new(Code::AckTimeout, "late").applied(Applied::Yes);
        let reply = Problem::from(error.clone().unconfirmed(unconfirmed(Some(version)))).into_reply();
        let etag = "\"1.7.00000000000000ab\"";
        assert_eq!((reply.status().as_u16(), reply.get("etag"), reply.get("kv-acks")), (504, Some(etag), Some("1/3")));
        let document: Value = serde_json::from_slice(&reply.into_body()).unwrap();
        assert_eq!((&document["applied"], &document["acks"]), (&"yes".into(), &"1/3".into()));
        assert_eq!((&document["etag"], &document["retryable"]), (&etag.into(), &false.into()));
        assert_eq!(Problem::from(error.unconfirmed(unconfirmed(None))).into_reply().get("etag"), None);
    }

    #[test]
    fn problem_every_503_says_when_to_come_back() {
        for code in [Code::NoLeader, Code::Overloaded, Code::AtRisk, Code::TooFewReplicas, Code::TooStale] {
            let reply = Problem::from(Error::new(code, "busy")).into_reply();
            assert_eq!(reply.status(), 503);
            let seconds: u32 = reply.get("retry-after").unwrap().parse().unwrap();
            assert!(seconds >= 1);
        }
    }

    #[test]
    fn problem_statuses_of_the_store_are_those_of_the_contract() {
        let promised = [
            (Code::ShardUnreachable, 502),
            (Code::NoLeader, 503),
            (Code::Overloaded, 503),
            (Code::Deadline, 504),
            (Code::WrongShard, 421),
            (Code::TopologyMismatch, 421),
            (Code::StorageFailed, 500),
            (Code::DiskFull, 507),
            (Code::ForwardingLoop, 508),
            (Code::ValueTooLarge, 413),
            (Code::KeyTooLong, 414),
            (Code::NotBuilt, 501),
            (Code::AtRisk, 503),
            (Code::TooFewReplicas, 503),
            (Code::AckTimeout, 504),
            (Code::TooStale, 503),
            (Code::SessionLost, 409),
            (Code::Internal, 500),
        ];
        for (code, status) in promised {
            assert_eq!(Problem::from(Error::new(code, "")).status(), status, "{code:?}");
        }
    }
}
