//! What must be right with any request before its route is looked at: one host, a header block within its limit, a
//! transfer coding and an expectation that we know, a path that can be decoded.

use axum::http::header::{EXPECT, HOST, TRANSFER_ENCODING};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Version};

use super::error::{Kind, Problem};
use super::params::{self, Plus};
use crate::config::Settings;
use crate::store::Code;

/// Refuses what no route could take.
pub(super) fn check(parts: &Parts, settings: &Settings) -> Result<(), Problem> {
    check_size(&parts.headers, settings.header_bytes_max)?;
    check_host(&parts.headers, parts.version)?;
    check_transfer_coding(&parts.headers)?;
    check_expectation(&parts.headers)?;
    let path = parts.uri.path();
    if path.contains('%') {
        params::decode(path.as_bytes(), Plus::Plus).map_err(|_| params::bad_percent("the path"))?;
    }
    Ok(())
}

/// Whether the client waits for a `100 Continue` before it sends its body.
pub(super) fn awaits_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// The block as it stood on the wire: `name: value` and a line end each. The request line has a bound of its own.
fn check_size(headers: &HeaderMap, max: usize) -> Result<(), Problem> {
    let len: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if len > max {
        return Err(Problem::new(
            Kind::HeadersTooLarge,
            format!("the header block has {len} bytes; the limit is {max}"),
        )
        .limit(max, "limits.header_bytes_max in sharding.toml"));
    }
    Ok(())
}

/// RFC 9112, section 3.2: `400` for none, for two, and for one that is no host.
fn check_host(headers: &HeaderMap, version: Version) -> Result<(), Problem> {
    let mut hosts = headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else {
        return if version == Version::HTTP_11 { Err(no_host("there is no Host header")) } else { Ok(()) };
    };
    if hosts.next().is_some() {
        return Err(no_host("there are two Host headers"));
    }
    let is_host = is_plain_host(host.as_bytes())
        || host.is_empty()
        || !host.as_bytes().contains(&b'@') && Authority::try_from(host.as_bytes()).is_ok();
    if is_host { Ok(()) } else { Err(no_host("the Host header is no host")) }
}

/// Names and IPv4 addresses, with a port or without: what nearly all are. Others are looked at more closely.
fn is_plain_host(host: &[u8]) -> bool {
    let colon = host.iter().position(|byte| *byte == b':').unwrap_or(host.len());
    let (name, port) = host.split_at(colon);
    let is_name =
        !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    is_name && port.get(1..).unwrap_or_default().iter().all(u8::is_ascii_digit) && port.len() <= 6
}

fn no_host(detail: &str) -> Problem {
    Problem::bad_request(detail).hint("send one Host header, with the host and port of the address you connected to")
}

/// A body under another coding than `chunked` would be stored as it was coded for the way.
fn check_transfer_coding(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.get_all(TRANSFER_ENCODING).iter().all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Ok(());
    }
    Err(Problem::new(Kind::Store(Code::NotBuilt), "the only transfer coding that is known is chunked")
        .hint("send the bytes as they are, with a Content-Length or chunked"))
}

fn check_expectation(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(EXPECT) {
        Some(_) if !awaits_continue(headers) => {
            Err(Problem::new(Kind::ExpectationFailed, "the only expectation that can be met is 100-continue"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;

    fn status(path: &str, headers: &[(&str, &str)], version: Version) -> u16 {
        let mut request = Request::builder().uri(path).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, _) = request.body(Body::empty()).unwrap().into_parts();
        check(&parts, &Settings::default()).map_or_else(|problem| problem.status().as_u16(), |()| 200)
    }

    #[test]
    fn host_must_be_there_once_and_be_one() {
        assert_eq!(status("/", &[("host", "a:80")], Version::HTTP_11), 200);
        for good in ["[::1]:80", "a", "a-b.c", "127.0.0.1:8080", "a_b", "a:", "a:123456"] {
            let by_the_book = Authority::try_from(good).is_ok();
            assert_eq!(status("/", &[("host", good)], Version::HTTP_11) == 200, by_the_book, "{good}");
        }
        assert_eq!(status("/", &[], Version::HTTP_11), 400);
        assert_eq!(status("/", &[], Version::HTTP_10), 200);
        assert_eq!(status("/", &[("host", "a"), ("host", "a")], Version::HTTP_10), 400);
        for bad in ["a b", "a@b", "a/b", "a:b:c"] {
            assert_eq!(status("/", &[("host", bad)], Version::HTTP_11), 400, "{bad}");
        }
    }

    #[test]
    fn headers_over_the_limit_are_431() {
        let long = "x".repeat(16 << 10);
        assert_eq!(status("/", &[("host", "a"), ("x", &long)], Version::HTTP_11), 431);
        assert_eq!(status("/", &[("host", "a"), ("x", &long[100..])], Version::HTTP_11), 200);
    }

    #[test]
    fn expectation_other_than_continue_is_417() {
        assert_eq!(status("/", &[("host", "a"), ("expect", "100-Continue")], Version::HTTP_11), 200);
        assert_eq!(status("/", &[("host", "a"), ("expect", "coffee")], Version::HTTP_11), 417);
    }

    #[test]
    fn transfer_coding_other_than_chunked_is_501() {
        assert_eq!(status("/", &[("host", "a"), ("transfer-encoding", "Chunked")], Version::HTTP_11), 200);
        for coding in ["gzip", "gzip, chunked"] {
            assert_eq!(status("/", &[("host", "a"), ("transfer-encoding", coding)], Version::HTTP_11), 501, "{coding}");
        }
    }

    #[test]
    fn path_with_a_bare_percent_is_400() {
        assert_eq!(status("/v1/kv/a%2Fb", &[("host", "a")], Version::HTTP_11), 200);
        assert_eq!(status("/v1/kv/a%2", &[("host", "a")], Version::HTTP_11), 400);
        assert_eq!(status("/nowhere%zz", &[("host", "a")], Version::HTTP_11), 400);
    }
}
