//! One request to a node, and what its answer means for the exit code.
//!
//! The rule that everything here serves: a write that may have taken effect is never called failed. Only an answer that
//! says `applied: no`, or a connection that was never made, is a failure that is safe to try again.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, redirect};
use serde::Deserialize;

use super::exit::{Exit, Failure};
use super::target::Target;
use crate::config::settings::VALUE_BYTES_CEILING;

/// Longest wait for a connection; a node of a healthy network answers in a millisecond.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a server may take over a request when nobody says otherwise (API.md: `timeout=`).
const SERVER_TIMEOUT: Duration = Duration::from_secs(30);

/// Connecting, and the way back: the server's own time-out must come first, for its answer knows whether a write was
/// applied.
const MARGIN: Duration = Duration::from_secs(3);

/// Largest answer that is read, in bytes: the largest value, and room to spare. A longer one is an error.
const ANSWER_BYTES_MAX: u64 = VALUE_BYTES_CEILING + (1 << 20);

/// What is asked.
#[derive(Debug)]
pub(crate) struct Ask {
    /// GET reads; everything else writes.
    pub(crate) method: Method,
    /// Path and query, already encoded.
    pub(crate) path: String,
    /// The value of a PUT, and its type.
    pub(crate) body: Option<(Vec<u8>, String)>,
}

impl Ask {
    /// A read of this path.
    pub(crate) fn get(path: impl Into<String>) -> Ask {
        Ask { method: Method::GET, path: path.into(), body: None }
    }

    fn is_write(&self) -> bool {
        self.method != Method::GET
    }
}

/// A 2xx answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The status, 200 to 299.
    pub(crate) status: u16,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The whole body.
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// A header's text; none when it is absent or not ASCII.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A client that goes straight to the node it is given: no proxy, no redirects, HTTP/1.1.
pub(crate) fn client(whole: Duration) -> Result<Client, Failure> {
    let builder = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT.min(whole))
        .timeout(whole)
        .user_agent(concat!("kv/", env!("CARGO_PKG_VERSION")));
    builder.build().map_err(|error| {
        Failure::new(Exit::Error, "the HTTP client cannot start", chain(&error), "check the limits of this machine")
    })
}

/// How long to wait for a server that may take `asked` over the request.
pub(crate) fn patience(asked: Option<Duration>) -> Duration {
    asked.unwrap_or(SERVER_TIMEOUT) + MARGIN
}

/// Runs what waits for the network, on this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::new(Exit::Error, "the network cannot be used", error.to_string(), "check the limits of this machine")
    })?;
    runtime.block_on(work)
}

/// Asks the target's first server, once.
pub(crate) async fn send(target: &Target, ask: Ask, timeout: Option<Duration>) -> Result<Reply, Failure> {
    let client = client(patience(timeout))?;
    ask_one(&client, &target.base, &ask).await.map_err(|failure| suggest_another(failure, target))
}

/// Asks one server, once.
pub(crate) async fn ask_one(client: &Client, base: &str, ask: &Ask) -> Result<Reply, Failure> {
    let mut request = client.request(ask.method.clone(), format!("{base}{}", ask.path));
    if let Some((body, content_type)) = &ask.body {
        request = request.header("content-type", content_type).body(body.clone());
    }
    let response = request.send().await.map_err(|error| broken(ask.is_write(), &error, base))?;
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    match read_body(response).await {
        Ok(body) if (200..300).contains(&status) => Ok(Reply { status, headers, body }),
        Ok(body) => Err(refused(ask.is_write(), status, &body, base)),
        // The status of a write came whole: what it says holds, whatever became of the words behind it.
        Err(_) if ask.is_write() && (200..300).contains(&status) => Ok(Reply { status, headers, body: Vec::new() }),
        Err(_) if ask.is_write() => Err(refused(true, status, b"", base)),
        Err(detail) => {
            let hint = "try again; kv status shows what is wrong";
            Err(Failure::new(Exit::Unavailable, "the answer broke off", format!("{base}: {detail}"), hint))
        }
    }
}

/// Asks one server for something that may be long; the answer's body is left to the caller.
pub(crate) async fn stream(client: &Client, base: &str, path: &str) -> Result<reqwest::Response, Failure> {
    let response = client.get(format!("{base}{path}")).send().await.map_err(|error| broken(false, &error, base))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    Err(refused(false, status.as_u16(), &read_body(response).await.unwrap_or_default(), base))
}

async fn read_body(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| chain(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() as u64 > ANSWER_BYTES_MAX {
            return Err(format!("it has more than {ANSWER_BYTES_MAX} bytes"));
        }
    }
    Ok(body)
}

/// A connection that failed: before anything was sent, or after.
fn broken(is_write: bool, error: &reqwest::Error, base: &str) -> Failure {
    let detail = format!("{base}: {}", chain(error));
    if error.is_connect() {
        let hint = "start the node (./launch.sh), or ask another with --url";
        return Failure::new(Exit::Unavailable, "the server cannot be reached", detail, hint);
    }
    if error.is_builder() {
        return Failure::usage(detail, "check --url and --content-type");
    }
    let what = if error.is_timeout() { "no answer came in time" } else { "the connection broke" };
    if is_write {
        return unknown(format!("{what}, after the write was sent"), detail);
    }
    Failure::new(Exit::Unavailable, what, detail, "try again; kv status shows what is wrong")
}

fn unknown(title: String, detail: String) -> Failure {
    let hint = "the write may have taken effect, or may yet: look with kv get before you repeat it";
    Failure::new(Exit::Unknown, title, detail, hint)
}

/// The parts of problem+json that matter here. Everything is optional: another server may be at the address.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
    code: Option<String>,
    applied: Option<String>,
    hint: Option<String>,
}

/// What an answer other than 2xx means.
fn refused(is_write: bool, status: u16, body: &[u8], base: &str) -> Failure {
    let Ok(Problem { code: Some(code), title, detail, applied, hint }) = serde_json::from_slice(body) else {
        return unexplained(is_write, status, base);
    };
    let exit = match (applied.as_deref(), code.as_str(), status) {
        (Some("unknown"), _, _) => Exit::Unknown,
        (_, "key-not-found", _) => Exit::NotFound,
        (Some("no"), _, 502..=504) => Exit::Unavailable,
        (None, _, 502..=504) if !is_write => Exit::Unavailable,
        (None, _, 500..) if is_write => Exit::Unknown,
        _ => Exit::Error,
    };
    let title = title.unwrap_or_else(|| code.clone());
    let detail = match detail {
        Some(detail) => format!("{detail} ({status} {code} from {base})"),
        None => format!("{status} {code} from {base}"),
    };
    let next = match exit {
        Exit::Unknown => "look with kv get before you repeat the write",
        Exit::Unavailable => "try again; kv status shows what is wrong",
        _ => "kv status shows what is wrong",
    };
    Failure::new(exit, title, detail, hint.filter(|hint| !hint.is_empty()).unwrap_or_else(|| next.to_owned()))
}

/// An error without a word of explanation: a proxy in between, a stranger at the address, or an answer that broke off.
fn unexplained(is_write: bool, status: u16, base: &str) -> Failure {
    let detail = format!("{base} answered {status}, and not as a kv server does");
    match status {
        500.. if is_write => unknown("an error that does not say whether the write was applied".to_owned(), detail),
        502..=504 => {
            Failure::new(Exit::Unavailable, "the server is not available", detail, "try again, or check --url")
        }
        _ => Failure::new(Exit::Error, "this is not an answer of a kv server", detail, "check --url"),
    }
}

/// Where the file knows other nodes, a node that cannot be reached is no dead end.
fn suggest_another(failure: Failure, target: &Target) -> Failure {
    match target.others.first() {
        Some(other) if failure.exit == Exit::Unavailable && failure.title == "the server cannot be reached" => {
            let hint = format!("start the node (./launch.sh), or ask another: --url {other}");
            Failure { hint, ..failure }
        }
        _ => failure,
    }
}

/// An error with its causes, which is where reqwest says what happened; without the URL, which may hold a long key.
fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text = if text.is_empty() { words } else { format!("{text}: {words}") };
        }
        cause = next.source();
    }
    if text.is_empty() { if error.is_timeout() { "timed out".to_owned() } else { "failed".to_owned() } } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit_of(is_write: bool, status: u16, code: &str, applied: &str) -> u8 {
        let body = format!(r#"{{"code":"{code}","applied":"{applied}","title":"t","detail":"d","hint":"h"}}"#);
        refused(is_write, status, body.as_bytes(), "http://x").exit.code()
    }

    #[test]
    fn refused_answers_end_with_their_exit_codes() {
        assert_eq!(exit_of(false, 404, "key-not-found", "no"), 3);
        assert_eq!(exit_of(false, 404, "no-such-route", "no"), 1);
        for status in [502, 503, 504] {
            assert_eq!(exit_of(true, status, "any", "no"), 5);
            assert_eq!(exit_of(false, status, "any", "no"), 5);
            assert_eq!(exit_of(true, status, "any", "unknown"), 7);
        }
        assert_eq!(exit_of(true, 504, "ack-timeout", "yes"), 1);
        assert_eq!(exit_of(true, 500, "storage-failed", "unknown"), 7);
        assert_eq!(exit_of(true, 507, "disk-full", "no"), 1);
        assert_eq!(exit_of(true, 400, "bad-request", "no"), 1);
        assert_eq!(exit_of(true, 413, "value-too-large", "no"), 1);
        assert_eq!(exit_of(true, 421, "topology-mismatch", "no"), 1);
    }

    #[test]
    fn refused_without_an_explanation_never_calls_a_write_failed() {
        for body in ["", "<html>", "{}", "[1]"] {
            assert_eq!(refused(true, 502, body.as_bytes(), "x").exit, Exit::Unknown, "{body}");
            assert_eq!(refused(false, 502, body.as_bytes(), "x").exit, Exit::Unavailable, "{body}");
            assert_eq!(refused(true, 404, body.as_bytes(), "x").exit, Exit::Error, "{body}");
            assert_eq!(refused(false, 404, body.as_bytes(), "x").exit, Exit::Error, "{body}");
            assert_eq!(refused(false, 302, body.as_bytes(), "x").exit, Exit::Error, "{body}");
        }
        let without_applied = br#"{"code":"deadline","title":"t"}"#;
        assert_eq!(refused(true, 504, without_applied, "x").exit, Exit::Unknown);
        assert_eq!(refused(false, 504, without_applied, "x").exit, Exit::Unavailable);
    }

    #[test]
    fn refused_shows_the_servers_words() {
        let body =
            br#"{"code":"no-leader","applied":"no","title":"nobody leads","detail":"Delhi starts","hint":"wait"}"#;
        let failure = refused(true, 503, body, "http://x");
        assert_eq!(failure.title, "nobody leads");
        assert!(failure.detail.contains("Delhi starts") && failure.detail.contains("503 no-leader"), "{failure}");
        assert_eq!(failure.hint, "wait");
    }
}
