//! An error answer, checked as a whole: API.md, section 4.

use serde_json::Value;

use super::raw::Response;

/// Checks that an answer is the problem with this status and code of which nothing was applied; gives its JSON.
#[track_caller]
pub fn refused(answer: &Response, status: u16, code: &str) -> Value {
    problem(answer, status, code, "no")
}

/// Checks that an answer is the problem with this status, code and `applied`; gives its JSON.
#[track_caller]
pub fn problem(answer: &Response, status: u16, code: &str, applied: &str) -> Value {
    assert_eq!(answer.status, status, "wanted {status} {code}: {answer:?}");
    let body = well_formed(answer);
    assert_eq!(body["code"], code, "{answer:?}");
    assert_eq!(body["applied"], applied, "{answer:?}");
    body
}

/// Checks what is true of every problem; gives its JSON.
#[track_caller]
pub fn well_formed(answer: &Response) -> Value {
    assert_eq!(answer.must("content-type"), "application/problem+json", "{answer:?}");
    let body = answer.json();
    let code = body["code"].as_str().unwrap_or_else(|| panic!("no code in {answer:?}"));
    assert_eq!(body["type"], format!("urn:ostraca:{code}"), "{answer:?}");
    assert_eq!(body["status"], answer.status, "{answer:?}");
    for field in ["title", "detail", "hint"] {
        assert!(body[field].as_str().is_some_and(|text| !text.trim().is_empty()), "{field} says nothing: {answer:?}");
    }
    assert!(matches!(body["applied"].as_str(), Some("no" | "yes" | "unknown")), "{answer:?}");
    assert!(body["retryable"].is_boolean(), "{answer:?}");
    assert!(answer.text().contains("\n  \""), "pretty-printed: {answer:?}");
    assert!(answer.text().ends_with("}\n"), "{answer:?}");
    if answer.status == 503 {
        let seconds: u64 = answer.must("retry-after").parse().unwrap_or_else(|_| panic!("an integer: {answer:?}"));
        assert!(seconds >= 1, "{answer:?}");
    }
    no_cross_origin(answer);
    body
}

/// No answer ever lets a foreign page read it.
#[track_caller]
pub fn no_cross_origin(answer: &Response) {
    for (name, _) in &answer.headers {
        assert!(!name.to_ascii_lowercase().starts_with("access-control-"), "{answer:?}");
    }
}
