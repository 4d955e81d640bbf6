//! What a request that did not succeed is counted as.
//!
//! | code | when |
//! |---|---|
//! | the server's own (`no-leader`, `overloaded`, …) | an answer with a `problem+json` body |
//! | `http-500`, … | another answer that is not a success |
//! | `missing`, `wrong-value` | an acknowledged key read back as absent, or with other bytes |
//! | `connect`, `connect-timeout` | no connection: nothing was sent |
//! | `timeout`, `reset`, `closed`, `bad-answer`, `transport` | the outcome is unknown: a write may have taken effect |

use std::error::Error;
use std::io::ErrorKind;

use serde_json::Value;

/// A code to count by, and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Short, lower case, the same for failures of the same kind.
    pub(crate) code: String,
    /// What happened this time, with the server's hint when it gave one.
    pub(crate) detail: String,
}

/// Longest code taken from an answer; a longer one is no code of ours.
const CODE_BYTES_MAX: usize = 64;

impl Failure {
    /// A failure with this code.
    pub(crate) fn new(code: &str, detail: impl Into<String>) -> Failure {
        Failure { code: code.to_owned(), detail: detail.into() }
    }

    /// An answer that is not a success. `body` may be cut off: then its `code` is not found, and the status counts.
    pub(crate) fn answer(status: u16, body: &[u8]) -> Failure {
        let problem: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |field: &str| problem.get(field).and_then(Value::as_str);
        let code = match text("code").filter(|code| is_code(code)) {
            Some(code) => code.to_owned(),
            None => format!("http-{status}"),
        };
        let detail = match (text("detail").or_else(|| text("title")), text("hint")) {
            (Some(what), Some(hint)) => format!("{status}: {what} (hint: {hint})"),
            (Some(what), None) => format!("{status}: {what}"),
            (None, _) => format!("answered {status}"),
        };
        Failure { code, detail }
    }

    /// An answer that never came, or not whole.
    pub(crate) fn transport(error: &reqwest::Error) -> Failure {
        let code = match (error.is_connect(), error.is_timeout()) {
            (true, true) => "connect-timeout",
            (true, false) => "connect",
            (false, true) => "timeout",
            (false, false) => broken_by(error),
        };
        Failure::new(code, innermost(error))
    }
}

/// Which kind of broken connection: the outermost cause that says so.
fn broken_by(error: &reqwest::Error) -> &'static str {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(hyper) = this.downcast_ref::<hyper::Error>() {
            if hyper.is_incomplete_message() || hyper.is_closed() || hyper.is_canceled() {
                return "closed";
            }
            if hyper.is_parse() {
                return "bad-answer";
            }
        }
        if let Some(io) = this.downcast_ref::<std::io::Error>() {
            match io.kind() {
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => return "reset",
                ErrorKind::UnexpectedEof => return "closed",
                _ => {}
            }
        }
        cause = this.source();
    }
    "transport"
}

/// The last cause: "Connection refused (os error 111)" says more than "error sending request".
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn is_code(text: &str) -> bool {
    (1..=CODE_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::Failure;

    #[test]
    fn answer_with_problem_json_counts_by_its_code() {
        let body = br#"{"code":"no-leader","detail":"Nobody leads Delhi.","hint":"Try again.","title":"x"}"#;
        assert_eq!(
            Failure::answer(503, body),
            Failure::new("no-leader", "503: Nobody leads Delhi. (hint: Try again.)")
        );
    }

    #[test]
    fn answer_without_a_usable_code_counts_by_its_status() {
        for body in [&b""[..], b"<html>", b"[]", b"null", br#"{"code":7}"#, br#"{"code":""}"#, br#"{"code":"a b\n"}"#] {
            assert_eq!(Failure::answer(502, body).code, "http-502");
        }
        let long = format!(r#"{{"code":"{}"}}"#, "x".repeat(65));
        assert_eq!(Failure::answer(500, long.as_bytes()).code, "http-500");
    }
}
