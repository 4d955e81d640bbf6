//! Answers of the store as HTTP: statuses of success, the value's bytes, and the headers that say what an answer is worth
//! (API.md, section 3).

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use bytes::Bytes;
use serde::Serialize;

use super::error::{Kind, Problem};
use super::params::{self, Plus};
use crate::placement::HashFunction;
use crate::store::{Acks, Answer, Applied, Code, Location, Outcome, Served};
use crate::types::{Record, Version};

/// An answer, whole: whoever writes it knows its length, and waits for nothing.
pub(super) type Response = axum::http::Response<Bytes>;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The answer to a read: the value, `404`, or what the request's conditions make of it.
pub(super) fn value(answer: Answer, conditions: &HeaderMap) -> Result<Response, Problem> {
    let mut headers = provenance(&answer.served);
    let guarantee = answer.served.consistency.name();
    headers.insert(HeaderName::from_static("kv-consistency"), HeaderValue::from_static(guarantee));
    if let Some(stale_ms) = answer.served.stale_ms {
        headers.insert(HeaderName::from_static("kv-stale-ms"), stale_ms.into());
    }
    match answer.outcome {
        Outcome::Found(record) => found(record, headers, conditions),
        Outcome::Missing => {
            let detail = format!("shard {} holds no such key", answer.served.place.shard);
            Err(Problem::new(Kind::KeyNotFound, detail).headers(headers))
        }
        other => Err(mismatch(&other)),
    }
}

fn found(record: Record, mut headers: HeaderMap, conditions: &HeaderMap) -> Result<Response, Problem> {
    let etag = etag(record.version);
    let etag_text = etag.as_bytes();
    if conditions.contains_key(IF_MATCH) && !names(conditions, &IF_MATCH, etag_text, Comparison::Strong) {
        let shown = String::from_utf8_lossy(etag_text).into_owned();
        return Err(Problem::new(Kind::PreconditionFailed, format!("the key's ETag is {shown}"))
            .header(ETAG, &shown)
            .headers(headers)
            .extra("etag", shown));
    }
    let is_known = names(conditions, &IF_NONE_MATCH, etag_text, Comparison::Weak);
    headers.insert(ETAG, etag);
    if is_known {
        return Ok(response(StatusCode::NOT_MODIFIED, headers, Bytes::new()));
    }
    let content_type = record.content.content_type.and_then(|bytes| HeaderValue::from_maybe_shared(bytes).ok());
    headers.insert(CONTENT_TYPE, content_type.unwrap_or(OCTETS));
    Ok(response(StatusCode::OK, headers, record.content.value))
}

/// The answer of the curl routes to a write that is done.
pub(super) fn done(answer: Answer) -> Result<Response, Problem> {
    let (mut headers, _) = written(answer)?;
    headers.insert(CONTENT_TYPE, TEXT);
    Ok(response(StatusCode::OK, headers, Bytes::from("OK\n")))
}

/// The answer of a resource to a write that is done: `201` when it was created, else `204`.
pub(super) fn changed(answer: Answer) -> Result<Response, Problem> {
    let (headers, created) = written(answer)?;
    let status = if created { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    Ok(response(status, headers, Bytes::new()))
}

/// The headers of a write, and whether it created the key.
fn written(answer: Answer) -> Result<(HeaderMap, bool), Problem> {
    let mut headers = provenance(&answer.served);
    let (version, Acks { have, of }, created) = match answer.outcome {
        Outcome::Stored { version, acks, created } => (Some(version), acks, created),
        Outcome::Deleted { version, acks } => (version, acks, false),
        other => return Err(mismatch(&other).applied(Applied::Unknown)),
    };
    if let Some(version) = version {
        headers.insert(ETAG, etag(version));
    }
    insert(&mut headers, "kv-acks", &format!("{have}/{of}"));
    Ok((headers, created))
}

/// Who gave the answer.
fn provenance(served: &Served) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(CACHE_CONTROL, NO_STORE);
    insert(&mut headers, "kv-shard", &served.place.shard);
    insert(&mut headers, "kv-node", &served.place.node.to_string());
    headers.insert(HeaderName::from_static("kv-role"), HeaderValue::from_static(served.role.name()));
    if let Some((from, to)) = served.place.forwarded {
        insert(&mut headers, "kv-forwarded", &format!("{from}->{to}"));
    }
    headers
}

/// `307` to the owner: the same path and query, with `route=local` in place of what the query says of `route`.
pub(super) fn redirect(owner: &Location, uri: &Uri) -> Response {
    let names_route = |piece: &&str| {
        let name = piece.split('=').next().unwrap_or_default();
        params::decode(name.as_bytes(), Plus::Space).is_ok_and(|name| name == "route")
    };
    let kept = uri.query().unwrap_or_default().split('&').filter(|piece| !piece.is_empty() && !names_route(piece));
    let query: Vec<&str> = kept.chain(["route=local"]).collect();
    let location = format!("http://{}{}?{}", owner.leader_address, uri.path(), query.join("&"));
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(CONTENT_TYPE, TEXT);
    insert(&mut headers, "kv-shard", &owner.name);
    insert(&mut headers, LOCATION.as_str(), &location);
    response(StatusCode::TEMPORARY_REDIRECT, headers, Bytes::from(format!("ask {}\n", owner.leader_address)))
}

/// A view as pretty-printed JSON.
pub(super) fn json(view: &impl Serialize) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(CONTENT_TYPE, JSON);
    response(StatusCode::OK, headers, Bytes::from(pretty(view)))
}

/// A view as JSON on one line.
pub(super) fn json_line(view: &impl Serialize) -> Response {
    let mut line = serde_json::to_vec(view).unwrap_or_else(|error| panic!("a view cannot be written: {error}"));
    line.push(b'\n');
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(CONTENT_TYPE, JSON);
    response(StatusCode::OK, headers, Bytes::from(line))
}

/// A view as pretty-printed JSON with an `ETag`, or `304` to a client that has it.
pub(super) fn json_tagged(view: &impl Serialize, conditions: &HeaderMap) -> Response {
    let text = pretty(view);
    let etag = format!("\"{:016x}\"", HashFunction::Fnv1a.hash(&text));
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    insert(&mut headers, ETAG.as_str(), &etag);
    if names(conditions, &IF_NONE_MATCH, etag.as_bytes(), Comparison::Weak) {
        return response(StatusCode::NOT_MODIFIED, headers, Bytes::new());
    }
    headers.insert(CONTENT_TYPE, JSON);
    response(StatusCode::OK, headers, Bytes::from(text))
}

/// Lines of text for people and probes.
pub(super) fn text(status: StatusCode, lines: String) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(CONTENT_TYPE, TEXT);
    response(status, headers, Bytes::from(lines))
}

/// A document of some other kind.
pub(super) fn document(media_type: &'static str, text: String) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response(StatusCode::OK, headers, Bytes::from(text))
}

/// Pretty-printed JSON that ends in a newline.
pub(super) fn pretty(document: &impl Serialize) -> Vec<u8> {
    let mut text =
        serde_json::to_vec_pretty(document).unwrap_or_else(|error| panic!("a view cannot be written: {error}"));
    text.push(b'\n');
    text
}

fn response(status: StatusCode, headers: HeaderMap, body: Bytes) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Names come from the configuration and may be any UTF-8; what no header can carry is left out.
fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

fn etag(version: Version) -> HeaderValue {
    HeaderValue::from_maybe_shared(format!("\"{version}\"").into_bytes())
        .unwrap_or_else(|_| unreachable!("a version is digits and dots: {version}"))
}

/// How tags are compared (RFC 9110, section 8.8.3.2). Ours are strong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// A weak tag never matches.
    Strong,
    /// A weak tag matches as if it were strong.
    Weak,
}

/// Whether a condition names `etag`, or `*`. A tag has no quote inside, so splitting at commas cannot make one up.
fn names(conditions: &HeaderMap, header: &HeaderName, etag: &[u8], comparison: Comparison) -> bool {
    let values = conditions.get_all(header).iter();
    values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).any(|tag| {
        let tag = tag.trim_ascii();
        tag == b"*" || tag == etag || comparison == Comparison::Weak && tag.strip_prefix(b"W/") == Some(etag)
    })
}

/// The owner answered another question than it was asked.
fn mismatch(outcome: &Outcome) -> Problem {
    let what = match outcome {
        Outcome::Found(_) | Outcome::Missing => "a read",
        Outcome::Stored { .. } => "a put",
        Outcome::Deleted { .. } => "a delete",
    };
    Problem::new(Kind::Store(Code::Internal), format!("the owner answered as if it had been asked for {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NodeName, ShardIndex};

    fn location(uri: &'static str) -> String {
        let owner = Location {
            shard: ShardIndex(1),
            name: "Delhi".to_owned(),
            leader: NodeName::new("Delhi/0"),
            leader_address: ([127, 0, 0, 5], 8080).into(),
            is_here: false,
        };
        let response = redirect(&owner, &Uri::from_static(uri));
        assert_eq!(response.status(), 307);
        response.headers()[LOCATION].to_str().unwrap().to_owned()
    }

    #[test]
    fn redirect_keeps_path_and_query_and_puts_route_local_in() {
        assert_eq!(location("/get?key=a%20b&route=redirect"), "http://127.0.0.5:8080/get?key=a%20b&route=local");
        assert_eq!(location("/get?r%6Fute=redirect&key=a"), "http://127.0.0.5:8080/get?key=a&route=local");
        assert_eq!(location("/v1/kv//a%2F/"), "http://127.0.0.5:8080/v1/kv//a%2F/?route=local");
        assert_eq!(location("/v1/kv/a?timeout=2s"), "http://127.0.0.5:8080/v1/kv/a?timeout=2s&route=local");
    }

    fn is_named(list: &'static str, comparison: Comparison) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(IF_MATCH, HeaderValue::from_static(list));
        names(&headers, &IF_MATCH, b"\"1.2.3\"", comparison)
    }

    #[test]
    fn condition_names_the_tag_in_a_list_or_by_a_star() {
        for list in ["\"1.2.3\"", "\"x\", \"1.2.3\"", "*", " \"1.2.3\" ,\"y\""] {
            assert!(is_named(list, Comparison::Strong), "{list}");
        }
        for list in ["1.2.3", "\"1.2.4\"", "", "\"*\""] {
            assert!(!is_named(list, Comparison::Weak), "{list}");
        }
        assert!(is_named("W/\"1.2.3\"", Comparison::Weak));
        assert!(!is_named("W/\"1.2.3\"", Comparison::Strong));
    }
}
