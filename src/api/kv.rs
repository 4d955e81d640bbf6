//! `/v1/kv/{key}`: a key as a resource.

use axum::http::header::CONTENT_TYPE;
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

use super::answer;
use super::asked::Asked;
use super::body::Upload;
use super::controls;
use super::curl::refuse_content_encoding;
use super::error::Problem;
use super::params::{self, Accepts, Params, Plus};
use super::reply::Reply;
use crate::store::Operation;
use crate::types::record::CONTENT_TYPE_BYTES_MAX;
use crate::types::{Content, Key};

const READ: Accepts = Accepts { own: &["key_b64"], controls: controls::DATA, not_built: &[] };
const PUT: Accepts = Accepts { own: &["key_b64"], controls: controls::DATA, not_built: &["ttl"] };
const DELETE: Accepts = Accepts { own: &["key_b64"], controls: controls::DATA, not_built: &[] };

/// The path under which keys stand.
pub(super) const UNDER: &str = "/v1/kv/";

/// base64url, with its padding or without.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// GET: the value's bytes, with the type that they were put with.
pub(super) async fn get(asked: &Asked<'_>) -> Result<Reply, Problem> {
    let params = asked.query(&READ)?;
    let (key, controls) = (key(asked, &params)?, asked.controls(&params, &READ)?);
    if let Some(redirect) = asked.elsewhere(&key, &controls) {
        return Ok(redirect);
    }
    let answer = asked.call(asked.read(key), &controls).await?;
    answer::value(answer, asked.headers(), asked.session(&controls))
}

/// PUT: stores the body as it is, and its type.
pub(super) async fn put(asked: &Asked<'_>, upload: &mut Upload<'_>) -> Result<Reply, Problem> {
    controls::refuse_conditions(asked.headers())?;
    let params = asked.query(&PUT)?;
    let (key, controls) = (key(asked, &params)?, asked.controls(&params, &PUT)?);
    refuse_content_encoding(asked.headers())?;
    let content_type = content_type(asked)?;
    if let Some(redirect) = asked.elsewhere(&key, &controls) {
        return Ok(redirect);
    }
    let settings = asked.settings();
    let value = upload.read(settings.value_bytes_max, asked.time_left(controls.deadline), settings).await?;
    let content = Content { expiry: None, content_type, value };
    answer::changed(asked.call(Operation::Put { key, content }, &controls).await?, asked.session(&controls))
}

/// DELETE: removes the key, whether or not it is there.
pub(super) async fn delete(asked: &Asked<'_>) -> Result<Reply, Problem> {
    controls::refuse_conditions(asked.headers())?;
    let params = asked.query(&DELETE)?;
    let (key, controls) = (key(asked, &params)?, asked.controls(&params, &DELETE)?);
    if let Some(redirect) = asked.elsewhere(&key, &controls) {
        return Ok(redirect);
    }
    answer::changed(asked.call(Operation::Delete { key }, &controls).await?, asked.session(&controls))
}

/// The key: the rest of the path, decoded once, or `key_b64`.
fn key(asked: &Asked<'_>, params: &Params) -> Result<Key, Problem> {
    let in_path = asked.parts.uri.path().strip_prefix(UNDER).filter(|rest| !rest.is_empty());
    let bytes = match (in_path, params.get("key_b64")) {
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request("there is a key in the path and a key_b64").hint("name the key once"));
        }
        (Some(rest), None) => {
            params::decode(rest.as_bytes(), Plus::Plus).map_err(|_| params::bad_percent("the path"))?
        }
        (None, Some(encoded)) => from_base64url("key_b64", encoded)?,
        (None, None) => Bytes::new(),
    };
    Key::new(bytes, asked.settings().key_bytes_max).map_err(Problem::key)
}

/// The bytes that a parameter encodes.
pub(super) fn from_base64url(name: &str, encoded: &[u8]) -> Result<Bytes, Problem> {
    let decoded = BASE64URL.decode(encoded).map_err(|error| {
        Problem::bad_request(format!("{name} is not base64url: {error}"))
            .hint("the alphabet is A-Z a-z 0-9 - and _; padding with = is optional")
    });
    decoded.map(Bytes::from)
}

/// The type that is kept with the value: none for the one that is served anyway.
fn content_type(asked: &Asked<'_>) -> Result<Option<Bytes>, Problem> {
    let mut values = asked.headers().get_all(CONTENT_TYPE).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::bad_request("there are two Content-Type headers").hint("send one"));
    }
    match value.as_bytes() {
        b"" | b"application/octet-stream" => Ok(None),
        long if long.len() > CONTENT_TYPE_BYTES_MAX => {
            let (len, max) = (long.len(), CONTENT_TYPE_BYTES_MAX);
            Err(Problem::bad_request(format!("the Content-Type has {len} bytes; {max} are kept"))
                .hint("send a shorter one")
                .extra("limit", max))
        }
        bytes => Ok(Some(Bytes::copy_from_slice(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_padding_is_optional_and_other_alphabets_are_400() {
        for encoded in ["AP8", "AP8="] {
            assert_eq!(from_base64url("key_b64", encoded.as_bytes()).unwrap(), &b"\x00\xff"[..], "{encoded}");
        }
        assert_eq!(from_base64url("key_b64", b"-_-_").unwrap(), &b"\xfb\xff\xbf"[..]);
        for bad in ["+/+/", "A", "AP8==", "AP 8", "AP9"] {
            assert_eq!(from_base64url("key_b64", bad.as_bytes()).unwrap_err().status(), 400, "{bad}");
        }
    }
}
