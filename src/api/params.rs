//! Parameters of a query or a form: strict decoding, no parameter twice, none that the route does not have.
//!
//! `+` is a space here and only here; `%` must be followed by two hex digits. A form body counts as a form only when it
//! is well formed and all its fields are parameters of the route; else it is a value that happens to wear curl's label.

use bytes::Bytes;

use super::error::Problem;

/// What a route's parameters are called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Accepts {
    /// Parameters of the route itself.
    pub(super) own: &'static [&'static str],
    /// Controls that may also come as headers ([`super::controls`]).
    pub(super) controls: &'static [&'static str],
    /// Documented parameters that are not built yet: refused with `501`, never ignored.
    pub(super) not_built: &'static [&'static str],
}

impl Accepts {
    /// Every parameter of the route, built or not.
    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.own.iter().chain(self.controls).chain(self.not_built).copied()
    }
}

/// The decoded parameters of a request, query and form together.
#[derive(Debug, Default)]
pub(super) struct Params {
    found: Vec<(&'static str, Bytes)>,
}

/// A `%` that is not followed by two hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadPercent;

impl Params {
    /// Reads a query, `400` for what is malformed, unknown or there twice, `501` for what is not built. Empty pieces
    /// (`a=1&&b=2`) say nothing.
    pub(super) fn of_query(query: &str, accepts: &Accepts) -> Result<Params, Problem> {
        let mut params = Params::default();
        for piece in query.split('&').filter(|piece| !piece.is_empty()) {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            let name = decode(name.as_bytes(), Plus::Space).map_err(|BadPercent| bad_percent("the query"))?;
            let value = decode(value.as_bytes(), Plus::Space).map_err(|BadPercent| bad_percent("the query"))?;
            let Some(known) = accepts.names().find(|known| known.as_bytes() == name) else {
                return Err(unknown(&name, accepts));
            };
            params.add(known, value)?;
        }
        params.refuse_not_built(accepts)?;
        Ok(params)
    }

    /// Adds the fields of `body` to those of the query when it is a form of this route, and says whether it is one. A
    /// form that repeats a field, or one of the query, is `400`.
    pub(super) fn join_form(&mut self, body: &[u8], accepts: &Accepts) -> Result<bool, Problem> {
        let Some(fields) = form(body, accepts) else { return Ok(false) };
        for (name, value) in fields {
            self.add(name, value)?;
        }
        self.refuse_not_built(accepts)?;
        Ok(true)
    }

    fn add(&mut self, name: &'static str, value: Bytes) -> Result<(), Problem> {
        if self.get(name).is_some() {
            return Err(Problem::bad_request(format!("the parameter {name} is given twice")).hint("give it once"));
        }
        self.found.push((name, value));
        Ok(())
    }

    fn refuse_not_built(&self, accepts: &Accepts) -> Result<(), Problem> {
        match self.found.iter().find(|(name, _)| accepts.not_built.contains(name)) {
            Some((name, _)) => Err(Problem::not_built(format_args!("the parameter {name}"))),
            None => Ok(()),
        }
    }

    /// The bytes of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&Bytes> {
        self.found.iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// Whether any parameter is one of `names`.
    pub(super) fn have_any(&self, names: &[&str]) -> bool {
        self.found.iter().any(|(found, _)| names.contains(found))
    }

    /// A parameter that must be text.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        self.get(name)
            .map(|value| std::str::from_utf8(value))
            .transpose()
            .map_err(|_| Problem::bad_request(format!("the parameter {name} is not UTF-8")))
    }
}

/// The fields of a form, or none when the body is not one of this route: a piece without `=` or without a name, a bad
/// `%`, a field that the route does not have. Fields beyond the second of one name add nothing, which bounds the list.
fn form(body: &[u8], accepts: &Accepts) -> Option<Vec<(&'static str, Bytes)>> {
    let mut fields: Vec<(&'static str, Bytes)> = Vec::new();
    for piece in body.split(|byte| *byte == b'&') {
        let equals = piece.iter().position(|byte| *byte == b'=')?;
        let (name, value) = piece.split_at(equals);
        let name = decode(name, Plus::Space).ok()?;
        let known = accepts.names().find(|known| known.as_bytes() == name)?;
        let value = decode(value.get(1..)?, Plus::Space).ok()?;
        if fields.iter().filter(|(name, _)| *name == known).count() < 2 {
            fields.push((known, value));
        }
    }
    Some(fields)
}

/// What `+` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plus {
    /// A space: in queries and forms.
    Space,
    /// Itself: in paths.
    Plus,
}

/// Decodes percent-encoding, once.
pub(super) fn decode(encoded: &[u8], plus: Plus) -> Result<Bytes, BadPercent> {
    let is_plain = |byte: &u8| *byte != b'%' && *byte != b'+';
    if encoded.iter().all(is_plain) {
        return Ok(Bytes::copy_from_slice(encoded));
    }
    let mut out = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => hex(bytes.next())? << 4 | hex(bytes.next())?,
            b'+' if plus == Plus::Space => b' ',
            byte => *byte,
        });
    }
    Ok(out.into())
}

fn hex(digit: Option<&u8>) -> Result<u8, BadPercent> {
    match digit {
        Some(digit @ b'0'..=b'9') => Ok(digit - b'0'),
        Some(digit @ b'a'..=b'f') => Ok(digit - b'a' + 10),
        Some(digit @ b'A'..=b'F') => Ok(digit - b'A' + 10),
        _ => Err(BadPercent),
    }
}

/// `400` for a `%` that encodes nothing.
pub(super) fn bad_percent(place: &str) -> Problem {
    Problem::bad_request(format!("in {place}, a % is not followed by two hex digits"))
        .hint("write a literal % as %25; curl -G --data-urlencode does it for you")
}

fn unknown(name: &[u8], accepts: &Accepts) -> Problem {
    let name = String::from_utf8_lossy(name);
    let nearest = accepts
        .names()
        .map(|known| (strsim::damerau_levenshtein(known, &name), known))
        .filter(|(distance, _)| *distance <= 2)
        .min();
    let hint = match nearest {
        Some((_, known)) => format!("did you mean {known}? A & in a value is written %26"),
        None => format!("this route takes {}; a & in a value is written %26", list(accepts)),
    };
    Problem::bad_request(format!("this route has no parameter {}", name.escape_debug())).hint(hint)
}

fn list(accepts: &Accepts) -> String {
    let names: Vec<&str> = accepts.own.iter().chain(accepts.controls).copied().collect();
    if names.is_empty() { "no parameters".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SET: Accepts = Accepts { own: &["key", "value"], controls: &["route"], not_built: &["ttl"] };

    fn query(text: &str) -> Result<Vec<(&'static str, String)>, u16> {
        match Params::of_query(text, &SET) {
            Ok(params) => {
                Ok(params.found.iter().map(|(name, value)| (*name, value.escape_ascii().to_string())).collect())
            }
            Err(problem) => Err(problem.status().as_u16()),
        }
    }

    #[test]
    fn query_plus_is_a_space_and_percent_is_decoded_once() {
        assert_eq!(query("key=a+b%2B%2541&value="), Ok(vec![("key", "a b+%41".into()), ("value", String::new())]));
        assert_eq!(query("k%65y=a=b"), Ok(vec![("key", "a=b".into())]));
        assert_eq!(query("key=%00%fF"), Ok(vec![("key", "\\x00\\xff".into())]));
    }

    #[test]
    fn query_percent_without_two_hex_digits_is_400() {
        for bad in ["key=%", "key=%4", "key=%zz", "key=%4g", "%=1", "key=a%%41"] {
            assert_eq!(query(bad), Err(400), "{bad}");
        }
    }

    #[test]
    fn query_unknown_or_repeated_parameter_is_400_and_unbuilt_501() {
        for bad in ["kye=1", "key=1&Key=2", "key=1&key=1", "key=1&%6bey=1", "key=1&=2"] {
            assert_eq!(query(bad), Err(400), "{bad}");
        }
        assert_eq!(query("key=1&ttl=5s"), Err(501));
        assert_eq!(query("&key=1&&"), Ok(vec![("key", "1".into())]));
    }

    fn joined(text: &str, body: &[u8]) -> Result<Option<String>, u16> {
        let mut params = Params::of_query(text, &SET).unwrap();
        match params.join_form(body, &SET) {
            Ok(true) => Ok(Some(params.get("value").map_or("-".into(), |v| v.escape_ascii().to_string()))),
            Ok(false) => Ok(None),
            Err(problem) => Err(problem.status().as_u16()),
        }
    }

    #[test]
    fn form_of_known_fields_is_a_form() {
        assert_eq!(joined("", b"key=a&value=b+c%ff"), Ok(Some("b c\\xff".into())));
        assert_eq!(joined("value=q", b"key=a"), Ok(Some("q".into())));
        assert_eq!(joined("key=a", b"value="), Ok(Some(String::new())));
    }

    #[test]
    fn form_that_is_not_well_formed_or_has_other_fields_is_a_value() {
        for raw in
            [&b"hello"[..], b"value", b"value=100%", b"x=1", b"value=a&b", b"value=1&x=2", b"{\"a\":1}", b"=1", b"a&"]
        {
            assert_eq!(joined("key=a", raw), Ok(None), "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn form_field_given_twice_counting_the_query_is_400() {
        assert_eq!(joined("key=a", b"key=a&value=b"), Err(400));
        assert_eq!(joined("key=a", b"value=b&value=b&value=c"), Err(400));
        assert_eq!(joined("key=a", b"value=b&ttl=5s"), Err(501));
    }

    proptest! {
        #[test]
        fn decode_any_bytes_written_in_hex_come_back(bytes: Vec<u8>) {
            let encoded: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(decode(encoded.as_bytes(), Plus::Space).unwrap(), bytes);
        }

        #[test]
        fn decode_rubbish_never_panics(bytes: Vec<u8>) {
            let _ = decode(&bytes, Plus::Plus);
            let _ = form(&bytes, &SET);
        }
    }
}
