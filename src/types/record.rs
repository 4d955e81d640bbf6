//! A record: a key's value with its version and what else is kept about it.
//!
//! ```text
//! format u8 = 1 │ flags u8 │ version (varint length + bytes) │ [expiry varint] │ [content type, varint length + bytes] │ value …
//! ```
//!
//! Flag 1: an expiry follows. Flag 2: a content type follows. Other flags are refused: a newer program wrote them.

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{self, Malformed, Reader};
use super::seq::{UnixMs, Version};

const FORMAT: u8 = 1;
const FLAG_EXPIRY: u8 = 1;
const FLAG_CONTENT_TYPE: u8 = 2;

/// Longest content type that is kept with a value; a longer one is refused at the edge.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// What a client stores under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// When it expires, by the leader's time (rule 27); none yet, the format has room for it.
    pub expiry: Option<UnixMs>,
    /// The `Content-Type` it was put with; none stands for `application/octet-stream`.
    pub content_type: Option<Bytes>,
    /// 0 bytes to 16 MiB, as they came.
    pub value: Bytes,
}

impl Content {
    /// A bare value.
    #[must_use]
    pub fn of(value: impl Into<Bytes>) -> Content {
        Content { expiry: None, content_type: None, value: value.into() }
    }

    /// The flags byte that says what precedes the value.
    #[must_use]
    pub fn flags(&self) -> u8 {
        u8::from(self.expiry.is_some()) * FLAG_EXPIRY + u8::from(self.content_type.is_some()) * FLAG_CONTENT_TYPE
    }

    /// Appends expiry and content type, as `flags` announces them.
    pub fn encode_attributes(&self, out: &mut BytesMut) {
        if let Some(UnixMs(expiry)) = self.expiry {
            codec::put_varint(out, expiry);
        }
        if let Some(content_type) = &self.content_type {
            codec::put_bytes(out, content_type);
        }
    }

    /// Takes expiry and content type, as `flags` announces them.
    pub(super) fn decode_attributes(
        flags: u8,
        reader: &mut Reader,
    ) -> Result<(Option<UnixMs>, Option<Bytes>), Malformed> {
        if flags & !(FLAG_EXPIRY | FLAG_CONTENT_TYPE) != 0 {
            return Err(Malformed("a record with flags of a newer program"));
        }
        let expiry = if flags & FLAG_EXPIRY != 0 { Some(UnixMs(reader.varint()?)) } else { None };
        let content_type = if flags & FLAG_CONTENT_TYPE != 0 { Some(reader.bytes()?) } else { None };
        Ok((expiry, content_type))
    }
}

/// A key's content and the version that its last write gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The version of the key's last write.
    pub version: Version,
    /// What the client stored.
    pub content: Content,
}

impl Record {
    /// The record as the `data` table holds it.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.content.value.len() + 64);
        self.encode_head(&mut out);
        out.put_slice(&self.content.value);
        out.freeze()
    }

    /// Appends everything but the value, which comes last.
    pub fn encode_head(&self, out: &mut BytesMut) {
        out.put_u8(FORMAT);
        out.put_u8(self.content.flags());
        let length_at = out.len();
        out.put_u8(0);
        self.version.encode(out);
        let length = out.len() - length_at - 1;
        // One byte of varint, for a version takes at most 29.
        let length = u8::try_from(length).ok().filter(|length| *length < 0x80);
        let length = length.unwrap_or_else(|| unreachable!("a version of more than 127 bytes"));
        out.iter_mut().skip(length_at).take(1).for_each(|byte| *byte = length);
        self.content.encode_attributes(out);
    }

    /// Reads a record; the value shares the memory of `bytes`.
    pub fn decode(bytes: Bytes) -> Result<Record, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != FORMAT {
            return Err(Malformed("a record of another format"));
        }
        let flags = reader.u8()?;
        let mut version = Reader::new(reader.bytes()?);
        let (expiry, content_type) = Content::decode_attributes(flags, &mut reader)?;
        let content = Content { expiry, content_type, value: reader.rest() };
        Ok(Record { version: Version::decode(&mut version)?, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, Seq};

    fn version() -> Version {
        Version::Log { epoch: 3, seq: Seq(300), incarnation: Incarnation(0x0102_0304_0506_0708) }
    }

    #[test]
    fn record_encoding_has_its_golden_bytes() {
        let content = Content {
            expiry: None,
            content_type: Some(Bytes::from_static(b"text/plain")),
            value: Bytes::from_static(b"\x00\xff"),
        };
        let bytes = Record { version: version(), content }.encode();
        let golden = b"\x01\x02\x0c\x01\x03\xac\x02\x01\x02\x03\x04\x05\x06\x07\x08\x0atext/plain\x00\xff";
        assert_eq!(bytes.escape_ascii().to_string(), golden.escape_ascii().to_string());
    }

    #[test]
    fn record_every_shape_comes_back() {
        for expiry in [None, Some(UnixMs(1 << 41))] {
            for content_type in [None, Some(Bytes::from_static(b"a/b"))] {
                for value in [&b""[..], b"v", &[0xff; 300]] {
                    let content =
                        Content { expiry, content_type: content_type.clone(), value: Bytes::copy_from_slice(value) };
                    let record = Record { version: version(), content };
                    assert_eq!(Record::decode(record.encode()), Ok(record));
                }
            }
        }
    }

    #[test]
    fn record_of_a_newer_program_is_refused() {
        let mut bytes = Record { version: version(), content: Content::of("v") }.encode().to_vec();
        bytes[1] = 0x80;
        assert!(Record::decode(bytes.into()).is_err());
    }
}
