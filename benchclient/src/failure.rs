//! What a request that did not succeed is counted as.
//!
//! | code | when |
//! |---|---|
//! | the server's own (`no-leader`, `overloaded`, …) | an answer with a `problem+json` body |
//! | `http-500`, … | another answer that is not a success |
//! | `missing`, `wrong-value` | an acknowledged key read back as absent, or with other bytes |
//! | `connect`, `connect-timeout` | no connection: nothing was sent |
//! | `timeout`, `reset`, `closed`, `bad-answer`, `transport` | the outcome is unknown: a write may have taken effect |

use serde_json::Value;

/// A code to count by, and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Short, lower case, the same for failures of the same kind.
    pub(crate) code: String,
    /// What happened this time, with the server's hint when it gave one.
    pub(crate) detail: String,
    /// Whether the write took effect all the same.
    pub(crate) applied: Applied,
}

/// What is known about the effect of a write that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It had none, and will have none.
    No,
    /// It took effect, though less came of it than was asked for.
    Yes,
    /// It may have taken effect, or may do so later.
    Unknown,
}

/// Longest code taken from an answer; a longer one is no code of ours.
const CODE_BYTES_MAX: usize = 64;

impl Failure {
    /// A failure with this code; a write may have taken effect.
    pub(crate) fn new(code: &str, detail: impl Into<String>) -> Failure {
        Failure { code: code.to_owned(), detail: detail.into(), applied: Applied::Unknown }
    }

    /// A failure with this code, before anything was sent.
    pub(crate) fn unsent(code: &str, detail: impl Into<String>) -> Failure {
        Failure { applied: Applied::No, ..Failure::new(code, detail) }
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
        let applied = match text("applied") {
            Some("no") => Applied::No,
            Some("yes") => Applied::Yes,
            _ => Applied::Unknown,
        };
        Failure { code, detail, applied }
    }
}

fn is_code(text: &str) -> bool {
    (1..=CODE_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::{Applied, Failure};

    #[test]
    fn answer_with_problem_json_counts_by_its_code() {
        let body = br#"{"code":"no-leader","detail":"Nobody leads Delhi.","hint":"Try again.","title":"x"}"#;
        assert_eq!(
            Failure::answer(503, body),
            Failure::new("no-leader", "503: Nobody leads Delhi. (hint: Try again.)")
        );
    }

    #[test]
    fn answer_says_whether_the_write_took_effect_and_silence_means_unknown() {
        for (body, applied) in [
            (r#"{"applied":"no"}"#, Applied::No),
            (r#"{"applied":"yes"}"#, Applied::Yes),
            (r#"{"applied":"unknown"}"#, Applied::Unknown),
            (r#"{"code":"deadline"}"#, Applied::Unknown),
            ("Bad Gateway", Applied::Unknown),
        ] {
            assert_eq!(Failure::answer(504, body.as_bytes()).applied, applied, "{body}");
        }
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
