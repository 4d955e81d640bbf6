//! The curl routes: `/set`, `/get`, `/delete`, and the window into the replication queue.

use std::str;

use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, Method};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::Serialize;

use super::answer;
use super::asked::Asked;
use super::body::Upload;
use super::controls::{self, Controls};
use super::error::{Kind, Problem};
use super::params::{Accepts, Params};
use super::reply::Reply;
use crate::config::Settings;
use crate::store::Operation;
use crate::types::{Change, Content, Key, Mutation};

const GET: Accepts = Accepts { own: &["key"], controls: controls::DATA, not_built: &[] };
const SET: Accepts = Accepts { own: &["key", "value"], controls: controls::DATA, not_built: &["ttl"] };
const DELETE: Accepts = Accepts { own: &["key"], controls: controls::DATA, not_built: &[] };
const NOTHING: Accepts = Accepts { own: &[], controls: &[], not_built: &[] };

/// What a form may take beside its key and value: names and controls.
const FORM_SLACK_BYTES: usize = 4096;

/// `/get?key=K`: the value's bytes.
pub(super) async fn get(asked: &Asked<'_>) -> Result<Reply, Problem> {
    let params = asked.query(&GET)?;
    let (key, controls) = (asked.key(&params)?, asked.controls(&params, &GET)?);
    if let Some(redirect) = asked.elsewhere(&key, &controls) {
        return Ok(redirect);
    }
    let answer = asked.call(asked.read(key), &controls).await?;
    answer::value(answer, asked.headers(), asked.session(&controls))
}

/// `/set?key=K&value=V`, with the value in the query, in a form, or as the body.
pub(super) async fn set(asked: &Asked<'_>, upload: &mut Upload<'_>) -> Result<Reply, Problem> {
    let is_get = asked.parts.method == Method::GET;
    let refusal = |params: &Params| match params.get("value") {
        Some(_) => Some(Problem::bad_request("there is a value parameter and a body").hint("send the value once")),
        None => is_get.then(get_without_value),
    };
    let Written { key, controls, params, body } = match understand(asked, upload, &SET, refusal).await? {
        Understood::Elsewhere(redirect) => return Ok(redirect),
        Understood::Here(written) => written,
    };
    let value = value_of(&params, body, is_get)?;
    if value.len() > asked.settings().value_bytes_max {
        return Err(Problem::value_too_large(Some(value.len() as u64), asked.settings()));
    }
    answer::done(
        asked.call(Operation::Put { key, content: Content::of(value) }, &controls).await?,
        asked.session(&controls),
    )
}

/// The value that `/set` stores: its parameter, or its raw body (none: the body was a form).
fn value_of(params: &Params, body: Option<Bytes>, is_get: bool) -> Result<Bytes, Problem> {
    match (params.get("value"), body) {
        (Some(value), _) => Ok(value.clone()),
        (None, _) if is_get => Err(get_without_value()),
        (None, Some(raw)) => Ok(raw),
        (None, None) => {
            Err(Problem::bad_request("the form has no value").hint("add value=V to the form or to the query"))
        }
    }
}

fn get_without_value() -> Problem {
    Problem::bad_request("a GET of /set needs a value parameter")
        .hint("add &value=V, or send the value as the body of a PUT")
}

/// `/delete?key=K`, with the key in the query or in a form.
pub(super) async fn delete(asked: &Asked<'_>, upload: &mut Upload<'_>) -> Result<Reply, Problem> {
    let refusal = |_: &Params| {
        let problem = Problem::bad_request("/delete takes no body, save a form with its parameters");
        Some(problem.hint("send the key as ?key=K, and no body"))
    };
    let Written { key, controls, .. } = match understand(asked, upload, &DELETE, refusal).await? {
        Understood::Elsewhere(redirect) => return Ok(redirect),
        Understood::Here(written) => written,
    };
    answer::done(asked.call(Operation::Delete { key }, &controls).await?, asked.session(&controls))
}

/// A write of a curl route, understood.
struct Written {
    key: Key,
    controls: Controls,
    /// Of query and form together.
    params: Params,
    /// The body, when it is not a form.
    body: Option<Bytes>,
}

enum Understood {
    Here(Written),
    Elsewhere(Reply),
}

/// Understands a write. What the head alone shows to be wrong, or elsewhere, is answered before the body is read.
/// `refusal` says why these parameters cannot go with a raw body that is not empty.
async fn understand(
    asked: &Asked<'_>,
    upload: &mut Upload<'_>,
    accepts: &Accepts,
    refusal: impl Fn(&Params) -> Option<Problem>,
) -> Result<Understood, Problem> {
    controls::refuse_conditions(asked.headers())?;
    let label = label(asked.headers())?;
    let mut params = asked.query(accepts)?;
    let mut controls = asked.controls(&params, accepts)?;
    let is_key_known = label == Label::Raw || upload.is_empty() || params.get("key").is_some();
    if is_key_known && let Some(redirect) = asked.elsewhere(&asked.key(&params)?, &controls) {
        return Ok(Understood::Elsewhere(redirect));
    }
    let refused = refusal(&params);
    let len_max = match label {
        Label::Raw if refused.is_some() => 0,
        Label::Raw => asked.settings().value_bytes_max,
        Label::Form => form_bytes_max(accepts, asked.settings()),
    };
    let read = upload.read(len_max, asked.time_left(controls.deadline), asked.settings()).await;
    // Where no value may come as a body, what is wrong with one is not its length.
    let bytes = read.map_err(|problem| refused.filter(|_| problem.is_too_large()).unwrap_or(problem))?;
    let is_form = label == Label::Form && !bytes.is_empty() && join_form(&mut params, &bytes, accepts)?;
    if is_form {
        controls = asked.controls(&params, accepts)?;
    } else if !bytes.is_empty() {
        refusal(&params).map_or(Ok(()), Err)?;
    }
    let body = (!is_form).then_some(bytes);
    let key = asked.key(&params)?;
    match asked.elsewhere(&key, &controls) {
        Some(redirect) => Ok(Understood::Elsewhere(redirect)),
        None => Ok(Understood::Here(Written { key, controls, params, body })),
    }
}

/// Percent-encoding takes three bytes for one.
fn form_bytes_max(accepts: &Accepts, settings: &Settings) -> usize {
    let value_bytes_max = if accepts.own.contains(&"value") { settings.value_bytes_max } else { 0 };
    3 * (value_bytes_max + settings.key_bytes_max) + FORM_SLACK_BYTES
}

/// Adds the fields of a form, if it is one. A client that follows a redirect sends its form along, where `route=redirect`
/// would contradict the `route=local` of the new address.
fn join_form(params: &mut Params, body: &[u8], accepts: &Accepts) -> Result<bool, Problem> {
    let is_route_in_query = params.get("route").is_some();
    let is_form = params.join_form(body, accepts)?;
    if !is_route_in_query && params.get("route").is_some_and(|route| route == "redirect") {
        return Err(Problem::bad_request("route=redirect stands in a form, which would go along to the owner")
            .hint("put route=redirect into the query, or send KV-Route: redirect"));
    }
    Ok(is_form)
}

/// How a body is labelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    /// As a form, which curl's `-d` and `--data-binary` say of anything.
    Form,
    /// As anything else, or not at all.
    Raw,
}

fn label(headers: &HeaderMap) -> Result<Label, Problem> {
    refuse_content_encoding(headers)?;
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if essence.eq_ignore_ascii_case(b"multipart/form-data") {
        return Err(Problem::new(Kind::UnsupportedMediaType, "multipart/form-data is not taken here")
            .hint("send the value with curl --data-binary @FILE, or -T FILE, not with -F"));
    }
    let is_form = essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded");
    Ok(if is_form { Label::Form } else { Label::Raw })
}

/// A body that is compressed on its way would be stored compressed, and served as if it were not.
pub(super) fn refuse_content_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(Problem::new(Kind::UnsupportedMediaType, "a Content-Encoding cannot be kept with a value")
            .hint("send the bytes that you want back, without Content-Encoding"));
    }
    Ok(())
}

/// The oldest entry that some replica lacks, as people look at it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Window {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_b64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_b64: Option<String>,
    op: &'static str,
    err: Option<String>,
}

impl Window {
    fn of(mutation: Option<&Mutation>) -> Window {
        let (key, value, op) = match mutation {
            None => (&b""[..], &b""[..], ""),
            Some(Mutation { key, change: Change::Delete, .. }) => (key.as_bytes(), &b""[..], "delete"),
            Some(Mutation { key, change: Change::Put(content), .. }) => (key.as_bytes(), &content.value[..], "put"),
        };
        let (key, key_b64) = text_or_b64(key);
        let (value, value_b64) = text_or_b64(value);
        Window { key, key_b64, value, value_b64, op, err: None }
    }
}

fn text_or_b64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(URL_SAFE_NO_PAD.encode(bytes))),
    }
}

/// `/next-replication-key`: a window for people, not for replicas.
pub(super) async fn next_replication_key(asked: &Asked<'_>) -> Result<Reply, Problem> {
    asked.query(&NOTHING)?;
    controls::refuse_unknown(asked.headers(), NOTHING.controls)?;
    let deadline = asked.began + asked.settings().request_timeout;
    let oldest = asked.in_time(deadline, asked.store().oldest_unacknowledged()).await??;
    Ok(answer::json_line(&Window::of(oldest.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Space;

    fn window(key: &'static [u8], change: Change) -> String {
        let key = Key::new(key, 1024).unwrap();
        serde_json::to_string(&Window::of(Some(&Mutation { space: Space::Data, key, change }))).unwrap()
    }

    #[test]
    fn window_shows_text_as_text_and_other_bytes_as_base64() {
        assert_eq!(serde_json::to_string(&Window::of(None)).unwrap(), r#"{"Key":"","Value":"","Op":"","Err":null}"#);
        assert_eq!(window(b"k", Change::Put(Content::of("v"))), r#"{"Key":"k","Value":"v","Op":"put","Err":null}"#);
        assert_eq!(window(b"k", Change::Delete), r#"{"Key":"k","Value":"","Op":"delete","Err":null}"#);
        assert_eq!(
            window(b"\x00\xff", Change::Put(Content::of(&b"\xff"[..]))),
            r#"{"KeyB64":"AP8","ValueB64":"_w","Op":"put","Err":null}"#
        );
    }
}
