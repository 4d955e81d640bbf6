//! Requests that change data must not come from another site's page: a browser on a node's network would otherwise send
//! them for any page that its user visits. Browsers say where a request comes from; curl says nothing, and is served.
//!
//! What it does not promise: a page whose own host name resolves to this node (DNS rebinding) is of "this host".

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::error::{Kind, Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");

/// Refuses a state-changing request of another site's page, or of a browser that guesses what its user will want next.
pub(super) fn refuse_cross_site(headers: &HeaderMap) -> Result<(), Problem> {
    let texts = |name: HeaderName| headers.get_all(name).iter().map(HeaderValue::as_bytes);
    if texts(SEC_FETCH_SITE).any(|site| site != b"same-origin" && site != b"none") {
        return Err(refusal("Sec-Fetch-Site says that another site sent this"));
    }
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    if headers.get_all(ORIGIN).iter().any(|origin| !is_this_host(origin.as_bytes(), host)) {
        return Err(refusal("Origin is not this host"));
    }
    if texts(SEC_PURPOSE).any(names_prefetch) {
        return Err(refusal("Sec-Purpose says that this is a prefetch"));
    }
    Ok(())
}

fn refusal(detail: &str) -> Problem {
    Problem::new(Kind::CrossSite, detail)
}

/// Whether an origin (`scheme://host[:port]`) is the host that the request was sent to; `null` never is.
fn is_this_host(origin: &[u8], host: Option<&[u8]>) -> bool {
    let (Ok(origin), Some(Ok(host))) = (std::str::from_utf8(origin), host.map(std::str::from_utf8)) else {
        return false;
    };
    let (authority, default_port) = match origin.split_once("://") {
        Some((scheme, authority)) if scheme.eq_ignore_ascii_case("http") => (authority, ":80"),
        Some((scheme, authority)) if scheme.eq_ignore_ascii_case("https") => (authority, ":443"),
        _ => return false,
    };
    let bare = |authority: &'_ str| authority.strip_suffix(default_port).unwrap_or(authority).to_ascii_lowercase();
    !authority.is_empty() && bare(authority) == bare(host)
}

fn names_prefetch(purpose: &[u8]) -> bool {
    purpose.split(|byte| matches!(byte, b',' | b';' | b' ' | b'\t')).any(|word| word.eq_ignore_ascii_case(b"prefetch"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        map.insert(HOST, HeaderValue::from_static("127.0.0.2:8080"));
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        refuse_cross_site(&map).is_err()
    }

    #[test]
    fn origin_of_curl_and_of_this_host_is_served() {
        assert!(!is_refused(&[]));
        assert!(!is_refused(&[("origin", "http://127.0.0.2:8080"), ("sec-fetch-site", "same-origin")]));
        assert!(!is_refused(&[("sec-fetch-site", "none")]), "typed into the address bar");
    }

    #[test]
    fn origin_of_another_host_is_refused() {
        for origin in [
            "null",
            "http://evil.example",
            "http://127.0.0.2",
            "http://127.0.0.2:8081",
            "",
            "file://",
            "ftp://127.0.0.2:8080",
        ] {
            assert!(is_refused(&[("origin", origin)]), "{origin}");
        }
        assert!(is_refused(&[("origin", "http://127.0.0.2:8080"), ("origin", "null")]));
    }

    #[test]
    fn origin_default_port_may_be_left_out() {
        assert!(is_this_host(b"http://Kv.example", Some(b"kv.example:80")));
        assert!(is_this_host(b"https://kv.example", Some(b"kv.example")));
        assert!(!is_this_host(b"https://kv.example", Some(b"kv.example:80")));
        assert!(!is_this_host(b"http://kv.example", None));
    }

    #[test]
    fn fetch_site_that_is_not_ours_is_refused() {
        for site in ["cross-site", "same-site", "", "Same-Origin"] {
            assert!(is_refused(&[("sec-fetch-site", site)]), "{site}");
        }
    }

    #[test]
    fn prefetch_is_refused() {
        assert!(is_refused(&[("sec-purpose", "prefetch")]));
        assert!(is_refused(&[("sec-purpose", "prefetch;prerender")]));
        assert!(!is_refused(&[("sec-purpose", "something")]));
    }
}
