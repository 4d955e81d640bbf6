//! Controls: how a request is to be served. Each can come as a query parameter or as a header (API.md, section 3); the
//! two disagreeing is `400`, except for `route`, whose query wins: that is how a followed redirect ends.
//!
//! A control that is documented and not built is `501`, one that we do not know is `400`: none is ever ignored. Times are
//! whole numbers with a unit, `500ms` or `2s`; a bare number is milliseconds.

use std::time::{Duration, Instant};

use axum::http::header::{CONNECTION, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName};

use super::ack;
use super::error::Problem;
use super::params::Params;
use crate::config::Settings;
use crate::store::Consistency;
use crate::store::ack::Ack;
use crate::types::Token;

/// The controls of data routes, as parameters.
pub(super) const DATA: &[&str] = &["consistency", "max_stale", "session", "ack", "ack_timeout", "route", "timeout"];
/// The control of routes that ask other nodes.
pub(super) const TIME: &[&str] = &["timeout"];

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// How the headers of controls, and of answers, begin.
const PREFIX: &str = "kv-";
/// Each control's header.
const HEADERS: &[(&str, &str)] = &[
    ("consistency", "kv-consistency"),
    ("max_stale", "kv-max-stale"),
    ("session", "kv-session"),
    ("ack", "kv-ack"),
    ("ack_timeout", "kv-ack-timeout"),
    ("route", "kv-route"),
    ("timeout", "kv-timeout"),
];
/// Headers that only answers carry; a client that sends an answer's headers back does no harm, so they are dropped.
const OF_ANSWERS: &[&str] = &["kv-shard", "kv-node", "kv-role", "kv-forwarded", "kv-stale-ms", "kv-acks"];

/// How far a request may travel, as the client asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Route {
    /// To the owner, by this node.
    #[default]
    Forward,
    /// To the owner, by the client.
    Redirect,
    /// Nowhere.
    Local,
}

/// The controls of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Controls {
    /// What a read must guarantee.
    pub(super) consistency: Consistency,
    /// Oldest that a `bounded` read may be; those have it, and no others.
    pub(super) max_stale: Option<Duration>,
    /// What a session has seen.
    pub(super) session: Option<Token>,
    /// How far it may travel.
    pub(super) route: Route,
    /// What a write waits for beyond its leader's disk.
    pub(super) ack: Option<Ack>,
    /// When the client stops waiting.
    pub(super) deadline: Instant,
}

impl Controls {
    /// Understands the controls of a request that began at `began`, of those that its route takes.
    pub(super) fn read(
        params: &Params,
        headers: &HeaderMap,
        accepts: &[&str],
        began: Instant,
        settings: &Settings,
    ) -> Result<Controls, Problem> {
        let is_headed = headers.keys().any(|name| name.as_str().starts_with(PREFIX));
        if is_headed {
            refuse_unknown(headers, accepts)?;
        } else if !params.have_any(accepts) {
            // Nearly all requests come without: not worth a look for each.
            let deadline = began + settings.request_timeout;
            let (consistency, route) = (Consistency::default(), Route::default());
            return Ok(Controls { consistency, max_stale: None, session: None, route, ack: None, deadline });
        }
        let route = route(params.text("route")?.or(header("route", headers)?))?;
        let consistency = consistency(one("consistency", params, headers)?, route)?;
        Ok(Controls {
            consistency,
            max_stale: max_stale(one("max_stale", params, headers)?, consistency)?,
            session: session(one("session", params, headers)?, consistency)?,
            route,
            ack: ack::read(one("ack", params, headers)?, one("ack_timeout", params, headers)?, settings)?,
            deadline: began + timeout(one("timeout", params, headers)?, settings)?,
        })
    }
}

/// Who asks for this node's copy (`route=local`) and for no consistency gets what that copy holds, labelled as `any` where
/// it is not the leader's; who asks for the leader's gets that or an error.
fn consistency(text: Option<&str>, route: Route) -> Result<Consistency, Problem> {
    match text {
        None if route == Route::Local => Ok(Consistency::Any),
        None | Some("leader") => Ok(Consistency::Leader),
        Some("any") => Ok(Consistency::Any),
        Some("bounded") => Ok(Consistency::Bounded),
        Some("session") => Ok(Consistency::Session),
        Some(other) => Err(bad("consistency", other, "leader, bounded, session or any")),
    }
}

/// The age that belongs to `bounded`, and to nothing else.
fn max_stale(text: Option<&str>, consistency: Consistency) -> Result<Option<Duration>, Problem> {
    match (text, consistency) {
        (None, Consistency::Bounded) => Err(Problem::bad_request("consistency=bounded is there without max_stale")
            .hint("say how old the answer may be: consistency=bounded&max_stale=500ms")),
        (None, _) => Ok(None),
        (Some(text), Consistency::Bounded) => match duration(text) {
            Some(age) => Ok(Some(age)),
            None => Err(bad("max_stale", text, "a time, as 500ms or 2s")),
        },
        (Some(_), other) => Err(Problem::bad_request(format!(
            "max_stale is there with consistency={}, which has no use for it",
            other.name()
        ))
        .hint("say consistency=bounded, or leave max_stale out")),
    }
}

/// A session's token. A read that is to keep what it promises is served by a copy that is as far, or by the leader.
fn session(text: Option<&str>, consistency: Consistency) -> Result<Option<Token>, Problem> {
    let Some(text) = text else { return Ok(None) };
    if matches!(consistency, Consistency::Any | Consistency::Bounded) {
        let name = consistency.name();
        return Err(Problem::bad_request(format!(
            "a session's token is there with consistency={name}, which ignores it"
        ))
        .hint("say consistency=session, or leave the token out"));
    }
    Token::parse(text.as_bytes()).map(Some).map_err(|fault| {
        Problem::bad_request(format!("the session's token cannot be read: {}", fault.0))
            .hint("send the KV-Session of an answer as it is, or none to begin a new session")
    })
}

fn route(text: Option<&str>) -> Result<Route, Problem> {
    match text {
        None | Some("forward") => Ok(Route::Forward),
        Some("redirect") => Ok(Route::Redirect),
        Some("local") => Ok(Route::Local),
        Some(other) => Err(bad("route", other, "forward, redirect or local")),
    }
}

fn timeout(text: Option<&str>, settings: &Settings) -> Result<Duration, Problem> {
    let max = settings.request_timeout;
    let Some(text) = text else { return Ok(max) };
    match duration(text) {
        Some(time) if time > max => {
            let max = max.as_millis();
            Err(Problem::bad_request(format!("timeout={text} is longer than a request may take, {max} ms"))
                .hint(format!("ask for at most {max}ms"))
                .extra("limit", u64::try_from(max).unwrap_or(u64::MAX))
                .extra("setting", "limits.request_timeout_ms in sharding.toml"))
        }
        Some(time) if !time.is_zero() => Ok(time),
        _ => Err(bad("timeout", text, "a time above zero, as 500ms or 2s")),
    }
}

/// `500ms`, `2s`, or bare milliseconds.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (digits, unit_ms) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => text.strip_suffix('s').map_or((text, 1), |digits| (digits, 1000)),
    };
    if !is_number(digits) {
        return None;
    }
    // Beyond u64 it is surely longer than any request may take: saturate, and let the bound say so.
    Some(Duration::from_millis(digits.parse().unwrap_or(u64::MAX).saturating_mul(unit_ms)))
}

pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

pub(super) fn bad(name: &str, value: &str, instead: &str) -> Problem {
    Problem::bad_request(format!("{name}={} is not understood", value.escape_debug()))
        .hint(format!("{name} is {instead}"))
}

/// A control from query and header, which must not disagree.
fn one<'a>(name: &str, params: &'a Params, headers: &'a HeaderMap) -> Result<Option<&'a str>, Problem> {
    match (params.text(name)?, header(name, headers)?) {
        (Some(asked), Some(headed)) if asked != headed => Err(Problem::bad_request(format!(
            "{name} is {} in the query and {} in the header",
            asked.escape_debug(),
            headed.escape_debug()
        ))
        .hint("say it once")),
        (asked, headed) => Ok(asked.or(headed)),
    }
}

fn header<'a>(name: &str, headers: &'a HeaderMap) -> Result<Option<&'a str>, Problem> {
    let Some((_, header)) = HEADERS.iter().find(|(control, _)| *control == name) else { return Ok(None) };
    let mut values = headers.get_all(*header).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::bad_request(format!("the header {header} is there twice")).hint("send it once"));
    }
    let text = std::str::from_utf8(value.as_bytes());
    Ok(Some(text.map_err(|_| Problem::bad_request(format!("the header {header} is not UTF-8")))?.trim()))
}

/// Refuses `KV-` headers that are no control of this route. Those of answers are dropped, and unknown ones that
/// `Connection` names, for they were meant for the previous hop; a control is never dropped, whatever `Connection` says.
pub(super) fn refuse_unknown(headers: &HeaderMap, accepts: &[&str]) -> Result<(), Problem> {
    for name in headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with(PREFIX)) {
        let control = HEADERS.iter().find(|(_, header)| *header == name);
        match control {
            Some((control, _)) if accepts.contains(control) => {}
            Some(_) => {
                return Err(
                    Problem::bad_request(format!("the header {name} is no control of this route")).hint("leave it out")
                );
            }
            None if OF_ANSWERS.contains(&name) || is_named_by_connection(name, headers) => {}
            None => {
                let known: Vec<&str> = HEADERS.iter().map(|(_, header)| *header).collect();
                return Err(Problem::bad_request(format!("the control {name} is unknown"))
                    .hint(format!("controls are {}", known.join(", "))));
            }
        }
    }
    Ok(())
}

fn is_named_by_connection(name: &str, headers: &HeaderMap) -> bool {
    let options = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    options.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case(name))
}

/// Refuses the conditions of a write, which are decided on the writer and come later; they are never ignored.
pub(super) fn refuse_conditions(headers: &HeaderMap) -> Result<(), Problem> {
    for (name, shown) in [(IF_MATCH, "If-Match"), (IF_NONE_MATCH, "If-None-Match")] {
        if headers.contains_key(name) {
            return Err(Problem::not_built(format_args!("{shown} on a write")));
        }
    }
    if headers.contains_key(IDEMPOTENCY_KEY) {
        return Err(Problem::not_built("Idempotency-Key"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::params::Accepts;
    use super::*;
    use crate::clock::Clock;
    use axum::http::HeaderValue;

    fn read(query: &str, headers: &[(&'static str, &'static str)]) -> Result<(Consistency, Route, u128), u16> {
        let params = Params::of_query(query, &Accepts { own: &[], controls: DATA, not_built: &[] }).unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let began = Clock::manual().now();
        match Controls::read(&params, &map, DATA, began, &Settings::default()) {
            Ok(read) => Ok((read.consistency, read.route, read.deadline.duration_since(began).as_millis())),
            Err(problem) => Err(problem.status().as_u16()),
        }
    }

    #[test]
    fn controls_without_any_are_the_defaults() {
        assert_eq!(read("", &[]), Ok((Consistency::Leader, Route::Forward, 30_000)));
        assert_eq!(read("ack=leader&consistency=leader&route=forward", &[]), read("", &[]));
    }

    #[test]
    fn controls_come_from_the_query_or_from_headers() {
        let wanted = Ok((Consistency::Any, Route::Local, 1_500));
        assert_eq!(read("consistency=any&route=local&timeout=1500ms", &[]), wanted);
        assert_eq!(read("", &[("kv-consistency", "any"), ("kv-route", "local"), ("kv-timeout", "1500")]), wanted);
        assert_eq!(read("consistency=any&route=local", &[("kv-consistency", "any"), ("kv-timeout", "1500")]), wanted);
    }

    #[test]
    fn controls_that_disagree_are_400_but_route_in_the_query_wins() {
        assert_eq!(read("consistency=any", &[("kv-consistency", "leader")]), Err(400));
        assert_eq!(read("timeout=1s", &[("kv-timeout", "2s")]), Err(400));
        assert_eq!(read("", &[("kv-timeout", "2s"), ("kv-timeout", "2s")]), Err(400));
        assert_eq!(read("route=local", &[("kv-route", "redirect")]), Ok((Consistency::Any, Route::Local, 30_000)));
    }

    #[test]
    fn controls_local_without_a_consistency_ask_for_whatever_this_nodes_copy_holds() {
        assert_eq!(read("route=local", &[]), read("route=local&consistency=any", &[]));
        let leader = Ok((Consistency::Leader, Route::Local, 30_000));
        assert_eq!(read("route=local&consistency=leader", &[]), leader);
    }

    #[test]
    fn controls_unknown_headers_are_400_and_those_of_answers_are_dropped() {
        assert_eq!(read("", &[("kv-consistancy", "any")]), Err(400));
        assert_eq!(read("", &[("kv-shard", "x"), ("kv-acks", "1/2"), ("kv-stale-ms", "0")]), read("", &[]));
        assert_eq!(read("", &[("kv-hop", "x"), ("connection", "close, KV-Hop")]), read("", &[]));
        assert_eq!(
            read("", &[("kv-session", "x"), ("connection", "kv-session")]),
            Err(400),
            "a control is never dropped"
        );
        assert_eq!(read("", &[("kv-ack", "x"), ("connection", "kv-ack")]), Err(400), "a control is never dropped");
    }

    fn controls(query: &str) -> Result<Controls, u16> {
        let params = Params::of_query(query, &Accepts { own: &[], controls: DATA, not_built: &[] }).unwrap();
        let read = Controls::read(&params, &HeaderMap::new(), DATA, Clock::manual().now(), &Settings::default());
        read.map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn bounded_and_max_stale_come_together_or_are_400() {
        for (query, ms) in [("max_stale=500ms", 500), ("max_stale=2s", 2_000), ("max_stale=0", 0)] {
            let read = controls(&format!("consistency=bounded&{query}")).unwrap();
            assert_eq!((read.consistency, read.max_stale), (Consistency::Bounded, Some(Duration::from_millis(ms))));
        }
        for query in [
            "consistency=bounded",
            "max_stale=500ms",
            "consistency=any&max_stale=500ms",
            "consistency=session&max_stale=500ms",
            "route=local&max_stale=500ms",
            "consistency=bounded&max_stale=",
            "consistency=bounded&max_stale=soon",
            "consistency=bounded&max_stale=-1s",
        ] {
            assert_eq!(controls(query), Err(400), "{query}");
        }
    }

    #[test]
    fn session_takes_a_token_or_begins_without_one_and_rubbish_is_400() {
        let mut token = Vec::new();
        Token::default().put_moved(&mut token, None, None);
        let token = String::from_utf8(token).unwrap();
        let read = controls("consistency=session").unwrap();
        assert_eq!((read.consistency, read.session), (Consistency::Session, None));
        for (query, consistency) in [("consistency=session&", Consistency::Session), ("", Consistency::Leader)] {
            let read = controls(&format!("{query}session={token}")).unwrap();
            assert_eq!((read.consistency, read.session), (consistency, Some(Token::default())));
        }
        for query in ["session=", "session=x", "session=%ff", "consistency=session&session=rubbish"] {
            assert_eq!(controls(query), Err(400), "{query}");
        }
        for ignores in ["consistency=any", "route=local", "consistency=bounded&max_stale=1s"] {
            assert_eq!(controls(&format!("{ignores}&session={token}")), Err(400), "{ignores}");
        }
    }

    #[test]
    fn controls_that_mean_nothing_are_400() {
        for query in ["ack=none", "ack=", "ack_timeout=1s", "consistency=strong", "route=proxy", "route="] {
            assert_eq!(read(query, &[]), Err(400), "{query}");
        }
    }

    #[test]
    fn timeout_is_a_number_with_a_unit_above_zero_and_at_most_the_limit() {
        for (text, ms) in [("500ms", 500), ("2s", 2_000), ("1500", 1_500), ("30s", 30_000), ("30000", 30_000)] {
            assert_eq!(read(&format!("timeout={text}"), &[]), Ok((Consistency::Leader, Route::Forward, ms)), "{text}");
        }
        for text in ["31s", "30001ms", "0", "0s", "", "s", "ms", "-1s", "1.5s", "1m", "99999999999999999999s", "%2B1s"]
        {
            assert_eq!(read(&format!("timeout={text}"), &[]), Err(400), "{text}");
        }
    }
}
