//! Frames: a 32-bit big-endian length, a type byte, and what the type says. Reading is left to tokio-util's
//! length-delimited codec; writing hands out a head and a body apart, so that a large value is never copied.

use bytes::{BufMut, Bytes, BytesMut};
use tokio_util::codec::LengthDelimitedCodec;

use super::message::{Envelope, FRAME_BYTES_MAX, Hello, Recent, Refusal, Request, Status, Welcome};
use crate::types::codec::{self, Malformed, Reader};

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const REFUSE: u8 = 3;
const REQUEST: u8 = 4;
const RESPONSE: u8 = 5;

const STATUS_SERVED: u8 = 0;
const STATUS_UNSUPPORTED: u8 = 1;
const STATUS_REFUSED: u8 = 2;

/// Longest frame of a handshake; the longest part of it lists the shards.
const HANDSHAKE_BYTES_MAX: usize = 1 << 20;
/// Bodies up to this size are copied next to their head; larger ones are written where they lie.
const COPY_BYTES_MAX: usize = 16 << 10;
/// Bytes of the length before each frame.
const LENGTH_BYTES: usize = 4;

/// One message on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The caller introduces itself.
    Hello(Hello),
    /// The server will talk.
    Welcome(Welcome),
    /// The server will not.
    Refuse(Refusal),
    /// A request; `id` is unique among those under way on its connection.
    Request {
        /// Comes back on the response.
        id: u64,
        /// What is asked.
        request: Request,
    },
    /// The answer to the request with this id.
    Response {
        /// The request's.
        id: u64,
        /// How it was met.
        status: Status,
        /// What the kind says.
        body: Bytes,
    },
}

/// A frame ready to be written, in one piece or two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Length, type, and everything but the body; behind it a body of at most `COPY_BYTES_MAX`.
    pub head: Bytes,
    /// A larger body, not copied.
    pub body: Bytes,
}

impl Encoded {
    /// Bytes on the wire.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// A frame is never empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The codec that cuts a byte stream into frames, and refuses one that is too long before reading it. It begins with what
/// a handshake may take, for memory is set aside by the announced length; whoever has shaken hands is allowed more
/// ([`allow_all_frames`]).
#[must_use]
pub fn cutter() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().length_field_length(LENGTH_BYTES).max_frame_length(HANDSHAKE_BYTES_MAX).new_codec()
}

/// Lets pass what the protocol allows.
pub fn allow_all_frames(cutter: &mut LengthDelimitedCodec) {
    cutter.set_max_frame_length(FRAME_BYTES_MAX);
}

impl Frame {
    /// The frame as it goes on the wire. Panics on a frame longer than the protocol allows: values are bounded far below.
    #[must_use]
    pub fn encode(self) -> Encoded {
        let mut head = begin(128);
        let body = match self {
            Frame::Hello(hello) => {
                head.put_u8(HELLO);
                hello.encode(&mut head);
                Bytes::new()
            }
            Frame::Welcome(welcome) => {
                head.put_u8(WELCOME);
                welcome.encode(&mut head);
                Bytes::new()
            }
            Frame::Refuse(refusal) => {
                head.put_u8(REFUSE);
                refusal.encode(&mut head);
                Bytes::new()
            }
            Frame::Request { id, request } => return encode_request(id, &request.envelope, &request.body),
            Frame::Response { id, status, body } => return encode_response(id, &status, &body),
        };
        finish(head, &body)
    }

    /// Reads a frame that the cutter cut, without its length. Bodies share the memory of `bytes`.
    pub fn decode(bytes: Bytes) -> Result<Frame, Malformed> {
        Frame::decode_after(bytes, &mut Recent::default())
    }

    /// The same, when `recent` is what the connection's last request left behind.
    pub fn decode_after(bytes: Bytes, recent: &mut Recent) -> Result<Frame, Malformed> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            HELLO => Ok(Frame::Hello(Hello::decode(&mut reader)?)),
            WELCOME => Ok(Frame::Welcome(Welcome::decode(&mut reader)?)),
            REFUSE => Ok(Frame::Refuse(Refusal::decode(&mut reader)?)),
            REQUEST => {
                let id = reader.varint()?;
                let envelope = Envelope::decode(&mut reader, recent)?;
                Ok(Frame::Request { id, request: Request { envelope, body: reader.rest() } })
            }
            RESPONSE => {
                let id = reader.varint()?;
                let status = decode_status(&mut reader)?;
                Ok(Frame::Response { id, status, body: reader.rest() })
            }
            _ => Err(Malformed("a frame of an unknown type")),
        }
    }
}

/// A request as it goes on the wire.
#[must_use]
pub fn encode_request(id: u64, envelope: &Envelope, body: &Bytes) -> Encoded {
    let mut head = begin(128 + copied(body));
    head.put_u8(REQUEST);
    codec::put_varint(&mut head, id);
    envelope.encode(&mut head);
    finish(head, body)
}

/// A response as it goes on the wire.
#[must_use]
pub fn encode_response(id: u64, status: &Status, body: &Bytes) -> Encoded {
    let mut head = begin(32 + copied(body));
    head.put_u8(RESPONSE);
    codec::put_varint(&mut head, id);
    encode_status(&mut head, status);
    finish(head, body)
}

/// A head that begins with room for the length, known at the end.
fn begin(capacity: usize) -> BytesMut {
    let mut head = BytesMut::with_capacity(LENGTH_BYTES + capacity);
    head.put_u32(0);
    head
}

/// How much of a body stands right behind its head.
fn copied(body: &Bytes) -> usize {
    if body.len() <= COPY_BYTES_MAX { body.len() } else { 0 }
}

fn finish(mut head: BytesMut, body: &Bytes) -> Encoded {
    let len = head.len() - LENGTH_BYTES + body.len();
    assert!(len <= FRAME_BYTES_MAX, "a frame of {len} bytes; the protocol allows {FRAME_BYTES_MAX}");
    let len = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    head.iter_mut().zip(len).for_each(|(byte, length_byte)| *byte = length_byte);
    let is_copied = copied(body) == body.len();
    if is_copied {
        head.extend_from_slice(body);
    }
    Encoded { head: head.freeze(), body: if is_copied { Bytes::new() } else { body.clone() } }
}

fn encode_status(out: &mut BytesMut, status: &Status) {
    match status {
        Status::Served => out.put_u8(STATUS_SERVED),
        Status::Unsupported => out.put_u8(STATUS_UNSUPPORTED),
        Status::Refused(refusal) => {
            out.put_u8(STATUS_REFUSED);
            refusal.encode(out);
        }
    }
}

fn decode_status(reader: &mut Reader) -> Result<Status, Malformed> {
    match reader.u8()? {
        STATUS_SERVED => Ok(Status::Served),
        STATUS_UNSUPPORTED => Ok(Status::Unsupported),
        STATUS_REFUSED => Ok(Status::Refused(Refusal::decode(reader)?)),
        _ => Err(Malformed("a response with an unknown status")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::peer::message::{Class, Kind, PROTOCOL_MAX, PROTOCOL_MIN, RefusalCode};
    use crate::types::{ClusterUid, Epoch, NodeName, RequestId, ShardIndex};
    use proptest::prelude::*;

    fn whole(frame: Frame) -> Vec<u8> {
        let encoded = frame.encode();
        [encoded.head, encoded.body].concat()
    }

    fn samples() -> Vec<(Frame, &'static [u8])> {
        let name = NodeName::new;
        let hello = Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            cluster: Some(ClusterUid(0xab)),
            placement: 1,
            placement_text: "p".into(),
            addresses: 2,
            from: name("A/0"),
            to: name("B/0"),
            class: Class::Replication,
        };
        let welcome = Welcome { protocol: 1, cluster: None, addresses: 2, name: name("B/0") };
        let refusal = Refusal { code: RefusalCode::TopologyMismatch, detail: "no".into() };
        let envelope = Envelope {
            request_id: RequestId(7),
            kind: Kind::Poll.number(),
            cluster: None,
            placement: 1,
            shard: ShardIndex(3),
            epoch: Some(Epoch::first(name("B/0"))),
            from: name("A/0"),
            remaining: Duration::from_millis(300),
            class: Class::Replication,
        };
        let request = Request { envelope, body: Bytes::from_static(b"\x00\xff") };
        vec![
            (
                Frame::Hello(hello),
                b"\x00\x00\x00\x2b\x01OSTR\x01\x01\x01\0\0\0\0\0\0\0\xab\0\0\0\0\0\0\0\x01\x01p\0\0\0\0\0\0\0\x02\x03A/0\x03B/0\x01",
            ),
            (Frame::Welcome(welcome), b"\x00\x00\x00\x0f\x02\x01\x00\0\0\0\0\0\0\0\x02\x03B/0"),
            (Frame::Refuse(refusal.clone()), b"\x00\x00\x00\x05\x03\x01\x02no"),
            (
                Frame::Request { id: 5, request },
                b"\x00\x00\x00\x25\x04\x05\0\0\0\0\0\0\0\x07\x00\x04\x00\0\0\0\0\0\0\0\x01\x03\x01\x01\x03B/0\x03A/0\xac\x02\x01\x00\xff",
            ),
            (
                Frame::Response { id: 5, status: Status::Served, body: Bytes::from_static(b"ok") },
                b"\x00\x00\x00\x05\x05\x05\x00ok",
            ),
            (
                Frame::Response { id: 300, status: Status::Refused(refusal), body: Bytes::new() },
                b"\x00\x00\x00\x08\x05\xac\x02\x02\x01\x02no",
            ),
        ]
    }

    /// Two program versions meet on the wire: these bytes change only together with the protocol version.
    #[test]
    fn frames_have_their_golden_bytes() {
        for (frame, golden) in samples() {
            let bytes = whole(frame.clone());
            assert_eq!(bytes.escape_ascii().to_string(), golden.escape_ascii().to_string(), "{frame:?}");
            assert_eq!(Frame::decode(Bytes::from(bytes[LENGTH_BYTES..].to_vec())), Ok(frame));
        }
    }

    proptest! {
        #[test]
        fn decode_rubbish_never_panics(bytes: Vec<u8>) {
            let _ = Frame::decode(bytes.into());
        }

        #[test]
        fn decode_a_cut_frame_never_panics(which in 0_usize..6, keep in 0_usize..64) {
            let (frame, _) = samples().remove(which);
            let bytes = whole(frame);
            let end = (LENGTH_BYTES + keep).min(bytes.len());
            let _ = Frame::decode(Bytes::from(bytes[LENGTH_BYTES..end].to_vec()));
        }
    }
}
