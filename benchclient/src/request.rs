//! Requests as bytes. A form such as `PUT /v1/kv/{key}` is cut once; a request is then four copies into a buffer that is
//! already there.

use std::str::FromStr;

/// What is done with a key. Indexes tables: reads first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Op {
    /// Reads its value.
    Get,
    /// Writes a value.
    Set,
}

impl Op {
    /// Both.
    pub(crate) const ALL: [Op; 2] = [Op::Get, Op::Set];

    /// As it is called in reports and on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Op::Get => "get",
            Op::Set => "set",
        }
    }

    /// Its place in a table of both.
    pub(crate) fn index(self) -> usize {
        match self {
            Op::Get => 0,
            Op::Set => 1,
        }
    }
}

/// A request's method and path, in which `{key}` stands for the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form {
    method: String,
    before: String,
    after: String,
}

impl FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> Result<Form, String> {
        const FORM: &str = "write a method and a path with {key} in it, such as 'PUT /SET/{key}'";
        let (method, path) = text.trim().split_once(' ').ok_or(FORM)?;
        let (before, after) = path.trim().split_once("{key}").ok_or(FORM)?;
        let is_method = !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase());
        let is_path = |part: &str| part.bytes().all(|b| b.is_ascii_graphic()) && !part.contains("{key}");
        if is_method && before.starts_with('/') && is_path(before) && is_path(after) {
            return Ok(Form { method: method.into(), before: before.into(), after: after.into() });
        }
        Err(FORM.into())
    }
}

/// How keys are read and written at a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forms {
    /// A read; its answer's body is the value.
    pub(crate) get: Form,
    /// A write; its body is the value.
    pub(crate) set: Form,
}

impl Forms {
    /// Ostraca's own; writes ask for this acknowledgement.
    pub(crate) fn native(ack: Option<&str>) -> Forms {
        let of = |method: &str, after: String| Form { method: method.into(), before: "/v1/kv/".into(), after };
        Forms {
            get: of("GET", String::new()),
            set: of("PUT", ack.map_or_else(String::new, |ack| format!("?ack={ack}"))),
        }
    }

    /// The same, ready to be sent to this `HOST:PORT`.
    pub(crate) fn cut(&self, host: &str) -> Cut {
        let of = |form: &Form, end: &str| {
            let Form { method, before, after } = form;
            (format!("{method} {before}").into_bytes(), format!("{after} HTTP/1.1\r\nHost: {host}{end}").into_bytes())
        };
        Cut { get: of(&self.get, "\r\n\r\n"), set: of(&self.set, "\r\nContent-Length: ") }
    }
}

/// What stands before and behind the key in requests to one node.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    get: (Vec<u8>, Vec<u8>),
    set: (Vec<u8>, Vec<u8>),
}

impl Cut {
    /// Appends a read.
    pub(crate) fn get(&self, out: &mut Vec<u8>, key: impl FnOnce(&mut Vec<u8>)) {
        out.extend_from_slice(&self.get.0);
        key(out);
        out.extend_from_slice(&self.get.1);
    }

    /// Appends a write of so many bytes up to its body, which the caller appends.
    pub(crate) fn set(&self, out: &mut Vec<u8>, key: impl FnOnce(&mut Vec<u8>), value_bytes: usize) {
        out.extend_from_slice(&self.set.0);
        key(out);
        out.extend_from_slice(&self.set.1);
        push_decimal(out, value_bytes);
        out.extend_from_slice(b"\r\n\r\n");
    }
}

/// Appends a number's digits; `write!` costs several times as much, and this runs for every write.
fn push_decimal(out: &mut Vec<u8>, mut number: usize) {
    let start = out.len();
    loop {
        let digit = u8::try_from(number % 10).unwrap_or_else(|_| unreachable!("a digit"));
        out.push(b'0' + digit);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::{Form, Forms};

    #[test]
    fn requests_are_what_http_wants() {
        let cut = Forms::native(None).cut("127.0.0.2:8080");
        let mut out = Vec::new();
        cut.get(&mut out, |out| out.extend_from_slice(b"a"));
        cut.set(&mut out, |out| out.extend_from_slice(b"b"), 1203);
        let text = String::from_utf8_lossy(&out);
        assert_eq!(
            text,
            "GET /v1/kv/a HTTP/1.1\r\nHost: 127.0.0.2:8080\r\n\r\n\
             PUT /v1/kv/b HTTP/1.1\r\nHost: 127.0.0.2:8080\r\nContent-Length: 1203\r\n\r\n"
        );
    }

    #[test]
    fn requests_of_writes_alone_ask_for_an_acknowledgement() {
        let cut = Forms::native(Some("replicas:1")).cut("h:1");
        let mut out = Vec::new();
        cut.get(&mut out, |out| out.extend_from_slice(b"a"));
        cut.set(&mut out, |out| out.extend_from_slice(b"b"), 3);
        let text = String::from_utf8_lossy(&out);
        assert!(text.starts_with("GET /v1/kv/a HTTP/1.1\r\n"), "{text}");
        assert!(text.contains("PUT /v1/kv/b?ack=replicas:1 HTTP/1.1\r\n"), "{text}");
    }

    #[test]
    fn forms_of_other_servers_keep_what_stands_behind_the_key() {
        let form: Form = "GET /get/{key}?raw=1".parse().expect("a form");
        let mut out = Vec::new();
        Forms { get: form.clone(), set: form }.cut("h:1").get(&mut out, |out| out.extend_from_slice(b"k"));
        assert_eq!(out, b"GET /get/k?raw=1 HTTP/1.1\r\nHost: h:1\r\n\r\n");
    }

    #[test]
    fn forms_that_are_none_are_refused() {
        for text in
            ["", "GET", "GET /x", "/x/{key}", "get /{key}", "GET {key}", "GET /{key}/{key}", "GET /a b{key}\r\n"]
        {
            assert!(text.parse::<Form>().is_err(), "{text}");
        }
    }
}
