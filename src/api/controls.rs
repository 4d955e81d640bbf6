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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Controls {
    /// What a read must guarantee.
    pub(super) consistency: Consistency,
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
            return Ok(Controls { consistency: Consistency::default(), route: Route::default(), ack: None, deadline });
        }
        for name in ["max_stale", "session"] {
            if one(name, params, headers)?.is_some() {
                return Err(Problem::not_built(format_args!("the control {name}")));
            }
        }
        let route = route(params.text("route")?.or(header("route", headers)?))?;
        Ok(Controls {
            consistency: consistency(one("consistency", params, headers)?, route)?,
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
        Some(name @ ("bounded" | "session")) => {
            Err(Problem::not_built(format_args!("consistency={name}"))
                .hint("use consistency=leader or consistency=any"))
        }
        Some(other) => Err(bad("consistency", other, "leader or any")),
    }
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
            Err(501),
            "a control is never dropped"
        );
        assert_eq!(read("", &[("kv-ack", "x"), ("connection", "kv-ack")]), Err(400), "a control is never dropped");
    }

    #[test]
    fn controls_that_are_not_built_are_501() {
        for query in ["consistency=bounded", "consistency=session", "session=x"] {
            assert_eq!(read(query, &[]), Err(501), "{query}");
        }
        assert_eq!(read("consistency=bounded&max_stale=500ms", &[]), Err(501));
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
