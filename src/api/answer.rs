//! Answers of the store as HTTP: statuses of success, the value's bytes, and the headers that say what an answer is worth
//! (API.md, section 3).

use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use bytes::Bytes;
use serde::Serialize;

use super::error::{Kind, Problem};
use super::params::{self, Plus};
use super::reply::{Lines, Reply};
use super::session::Session;
use crate::placement::HashFunction;
use crate::storage::Role;
use crate::store::ack::Unconfirmed;
use crate::store::{Acks, Answer, Applied, Code, Consistency, Location, Outcome, Place, Served};
use crate::types::{Record, Version};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// What a usual document takes.
const DOCUMENT_BYTES: usize = 512;
const OCTETS: &str = "content-type: application/octet-stream\r\n";
const NO_STORE: &str = "cache-control: no-store\r\n";

/// The answer to a read: the value, `404`, or what the request's conditions make of it.
pub(super) fn value(answer: Answer, conditions: &HeaderMap, session: Session<'_>) -> Result<Reply, Problem> {
    let Answer { outcome, served } = answer;
    let mut lines = provenance(&served);
    lines.add_text(match served.consistency {
        Consistency::Leader => "kv-consistency: leader\r\n",
        Consistency::Any => "kv-consistency: any\r\n",
        Consistency::Bounded => "kv-consistency: bounded\r\n",
        Consistency::Session => "kv-consistency: session\r\n",
    });
    if let Some(stale_ms) = served.stale_ms {
        lines.add_with("kv-stale-ms", |line| line.extend_from_slice(itoa::Buffer::new().format(stale_ms).as_bytes()));
    }
    session.put_after_read(&mut lines, &served);
    match outcome {
        Outcome::Found(record) => found(record, lines, conditions),
        Outcome::Described { record, value_bytes } => Ok(match found(record, lines, conditions)? {
            reply if reply.status() == StatusCode::OK => {
                reply.line("content-length", itoa::Buffer::new().format(value_bytes))
            }
            reply => reply,
        }),
        Outcome::Missing => {
            let detail = format!("shard {} holds no such key", served.place.shard);
            Err(Problem::new(Kind::KeyNotFound, detail).lines(&lines))
        }
        other => Err(mismatch(&other)),
    }
}

fn found(record: Record, mut lines: Lines, conditions: &HeaderMap) -> Result<Reply, Problem> {
    let is_conditional = conditions.contains_key(IF_MATCH) || conditions.contains_key(IF_NONE_MATCH);
    let met = if is_conditional { check(conditions, record.version, &lines)? } else { StatusCode::OK };
    lines.add_with("etag", |line| put_etag(line, record.version));
    lines.add_text(NO_STORE);
    if met == StatusCode::NOT_MODIFIED {
        return Ok(Reply::new(met).lines(lines));
    }
    match record.content.content_type {
        Some(content_type) => lines.add("content-type", content_type),
        None => lines.add_text(OCTETS),
    }
    Ok(Reply::new(met).lines(lines).body(record.content.value))
}

/// What conditions make of a read that found a record of this version: `200`, `304`, or the problem that one does not hold.
fn check(conditions: &HeaderMap, version: Version, lines: &Lines) -> Result<StatusCode, Problem> {
    let mut etag = Vec::new();
    put_etag(&mut etag, version);
    if conditions.contains_key(IF_MATCH) && !names(conditions, &IF_MATCH, &etag, Comparison::Strong) {
        let shown = String::from_utf8_lossy(&etag).into_owned();
        return Err(Problem::new(Kind::PreconditionFailed, format!("the key's ETag is {shown}"))
            .line("etag", &shown)
            .lines(lines)
            .extra("etag", shown));
    }
    let is_known = names(conditions, &IF_NONE_MATCH, &etag, Comparison::Weak);
    Ok(if is_known { StatusCode::NOT_MODIFIED } else { StatusCode::OK })
}

/// The answer of the curl routes to a write that is done.
pub(super) fn done(answer: Answer, session: Session<'_>) -> Result<Reply, Problem> {
    let (lines, _) = written(answer, session)?;
    Ok(Reply::new(StatusCode::OK).lines(lines).line("content-type", TEXT).body("OK\n"))
}

/// The answer of a resource to a write that is done: `201` when it was created, else `204`.
pub(super) fn changed(answer: Answer, session: Session<'_>) -> Result<Reply, Problem> {
    let (lines, created) = written(answer, session)?;
    let status = if created { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    Ok(Reply::new(status).lines(lines))
}

/// The lines of a write, and whether it created the key.
fn written(answer: Answer, session: Session<'_>) -> Result<(Lines, bool), Problem> {
    let mut lines = provenance(&answer.served);
    let (version, Acks { have, of }, created) = match answer.outcome {
        Outcome::Stored { version, acks, created } => (Some(version), acks, created),
        Outcome::Deleted { version, acks } => (version, acks, false),
        other => return Err(mismatch(&other).applied(Applied::Unknown)),
    };
    lines.add_text(NO_STORE);
    if let Some(version) = version {
        lines.add_with("etag", |line| put_etag(line, version));
    }
    lines.add_with("kv-acks", |line| {
        for piece in [itoa::Buffer::new().format(have), "/", itoa::Buffer::new().format(of)] {
            line.extend_from_slice(piece.as_bytes());
        }
    });
    session.put_after_write(&mut lines, &answer.served, version);
    Ok((lines, created))
}

/// A write that is done, and not where it was asked to be: its version, and which copies have it.
pub(super) fn unconfirmed(problem: Problem, unconfirmed: &Unconfirmed) -> Problem {
    let Unconfirmed { version, acks: Acks { have, of } } = unconfirmed;
    let acks = format!("{have}/{of}");
    let problem = problem.line("kv-acks", &acks).extra("acks", acks);
    let Some(version) = version else { return problem };
    let etag = format!("\"{version}\"");
    problem.line("etag", &etag).extra("etag", etag)
}

/// Who gave the answer.
fn provenance(served: &Served) -> Lines {
    let mut lines = Lines::beginning(served.place.rendered.get_or_init(|| place(&served.place).into_text()));
    lines.add_text(match served.role {
        Role::Leader => "kv-role: leader\r\n",
        Role::Replica => "kv-role: replica\r\n",
    });
    lines
}

/// What is the same in all answers of a copy.
fn place(place: &Place) -> Lines {
    let mut lines = Lines::default();
    lines.add("kv-shard", &place.shard);
    lines.add("kv-node", place.node.to_string());
    if let Some((from, to)) = place.forwarded {
        lines.add("kv-forwarded", format!("{from}->{to}"));
    }
    lines
}

/// `307` to the owner: the same path and query, with `route=local` in place of what the query says of `route`.
pub(super) fn redirect(owner: &Location, uri: &Uri) -> Reply {
    let names_route = |piece: &&str| {
        let name = piece.split('=').next().unwrap_or_default();
        params::decode(name.as_bytes(), Plus::Space).is_ok_and(|name| name == "route")
    };
    let kept = uri.query().unwrap_or_default().split('&').filter(|piece| !piece.is_empty() && !names_route(piece));
    let query: Vec<&str> = kept.chain(["route=local"]).collect();
    let location = format!("http://{}{}?{}", owner.leader_address, uri.path(), query.join("&"));
    Reply::new(StatusCode::TEMPORARY_REDIRECT)
        .line("cache-control", "no-store")
        .line("content-type", TEXT)
        .line("kv-shard", &owner.name)
        .line("location", location)
        .body(format!("ask {}\n", owner.leader_address))
}

/// A view as pretty-printed JSON.
pub(super) fn json(view: &impl Serialize) -> Reply {
    document(JSON, pretty(view))
}

/// A view as JSON on one line.
pub(super) fn json_line(view: &impl Serialize) -> Reply {
    let mut line = serde_json::to_vec(view).unwrap_or_else(|error| panic!("a view cannot be written: {error}"));
    line.push(b'\n');
    document(JSON, line)
}

/// A view as pretty-printed JSON with an `ETag`, or `304` to a client that has it.
pub(super) fn json_tagged(view: &impl Serialize, conditions: &HeaderMap) -> Reply {
    let text = pretty(view);
    let etag = format!("\"{:016x}\"", HashFunction::Fnv1a.hash(&text));
    let is_known = names(conditions, &IF_NONE_MATCH, etag.as_bytes(), Comparison::Weak);
    let reply = Reply::new(if is_known { StatusCode::NOT_MODIFIED } else { StatusCode::OK })
        .line("cache-control", "no-cache")
        .line("etag", etag);
    if is_known { reply } else { reply.line("content-type", JSON).body(text) }
}

/// Lines of text for people and probes.
pub(super) fn text(status: StatusCode, lines: String) -> Reply {
    Reply::new(status).line("cache-control", "no-store").line("content-type", TEXT).body(lines)
}

/// A document of some other kind.
pub(super) fn document(media_type: &'static str, text: impl Into<Bytes>) -> Reply {
    Reply::new(StatusCode::OK).line("cache-control", "no-store").line("content-type", media_type).body(text)
}

/// Pretty-printed JSON that ends in a newline.
pub(super) fn pretty(document: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::with_capacity(DOCUMENT_BYTES);
    serde_json::to_writer_pretty(&mut text, document)
        .unwrap_or_else(|error| panic!("a view cannot be written: {error}"));
    text.push(b'\n');
    text
}

fn put_etag(out: &mut Vec<u8>, version: Version) {
    out.push(b'"');
    version.put_text(out);
    out.push(b'"');
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
        Outcome::Found(_) | Outcome::Described { .. } | Outcome::Missing => "a read",
        Outcome::Stored { .. } => "a put",
        Outcome::Deleted { .. } => "a delete",
    };
    Problem::new(Kind::Store(Code::Internal), format!("the owner answered as if it had been asked for {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NodeName, ShardIndex};
    use axum::http::HeaderValue;

    fn location(uri: &'static str) -> String {
        let owner = Location {
            shard: ShardIndex(1),
            name: "Delhi".to_owned(),
            leader: NodeName::new("Delhi/0"),
            leader_address: ([127, 0, 0, 5], 8080).into(),
            is_here: false,
        };
        let reply = redirect(&owner, &Uri::from_static(uri));
        assert_eq!(reply.status(), 307);
        reply.get("location").unwrap().to_owned()
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
