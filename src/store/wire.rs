//! A forwarded operation and its outcome, as bytes. The entry node alone parses and renders; between nodes travel these.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::ack::{Ack, Unconfirmed};
use super::call::{Acks, Answer, Consistency, Operation, Outcome, Place, Served};
use super::error::{Applied, Code, Error};
use crate::storage::Role;
use crate::types::codec::{self, Malformed, Reader};
use crate::types::entry::{OP_DELETE, decode_change, decode_key, encode_put};
use crate::types::{Change, Epoch, Key, Record, Version};

/// Stands after the key of a read.
const NO_CHANGE: u8 = 0;
/// Stands after the key of a write, before what happens to it.
const CHANGE: u8 = 1;

/// A client's operation on its way to the node that owns the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Forwarded {
    /// What is to be done.
    pub(super) operation: Operation,
    /// What a read must guarantee.
    pub(super) consistency: Consistency,
    /// What a write waits for.
    pub(super) ack: Option<Ack>,
}

/// What the owner says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// The answer, as a client of the owner would have got it.
    Answer(Answer),
    /// The error, likewise.
    Error(Error),
    /// Nothing was done: the shard is led in this epoch, by another node (rule 22).
    Moved(Epoch),
    /// The value is too large for this connection: ask again by the bulk one. Only reads are answered so.
    UseBulk,
}

impl Forwarded {
    /// The operation as bytes.
    #[must_use]
    pub(super) fn encode(operation: &Operation, consistency: Consistency, ack: Option<Ack>) -> Bytes {
        let value_bytes = if let Operation::Put { content, .. } = operation { content.value.len() } else { 0 };
        let mut out = BytesMut::with_capacity(operation.key().as_bytes().len() + value_bytes + 32);
        out.put_u8(match consistency {
            Consistency::Leader => 0,
            Consistency::Any => 1,
        });
        codec::put_bytes(&mut out, operation.key().as_bytes());
        match operation {
            Operation::Get { .. } => out.put_u8(NO_CHANGE),
            Operation::Put { content, .. } => {
                out.put_u8(CHANGE);
                encode_put(&mut out, content);
            }
            Operation::Delete { .. } => out.put_slice(&[CHANGE, OP_DELETE]),
        }
        if let Some(ack) = ack {
            ack.encode(&mut out); // a node that does not know it stumbles over what is left, and refuses the write
        }
        out.freeze()
    }

    /// Reads an operation.
    pub(super) fn decode(bytes: Bytes) -> Result<Forwarded, Malformed> {
        let mut reader = Reader::new(bytes);
        let consistency = take_consistency(&mut reader)?;
        let key = decode_key(&mut reader)?;
        let operation = operation(key, reader.option(decode_change)?);
        let ack = if reader.remaining() > 0 { Some(Ack::decode(&mut reader)?) } else { None };
        reader.finish()?;
        Ok(Forwarded { operation, consistency, ack })
    }
}

fn operation(key: Key, change: Option<Change>) -> Operation {
    match change {
        None => Operation::Get { key },
        Some(Change::Put(content)) => Operation::Put { key, content },
        Some(Change::Delete) => Operation::Delete { key },
    }
}

fn take_consistency(reader: &mut Reader) -> Result<Consistency, Malformed> {
    match reader.u8()? {
        0 => Ok(Consistency::Leader),
        1 => Ok(Consistency::Any),
        _ => Err(Malformed("a consistency of a newer program")),
    }
}

const REPLY_ANSWER: u8 = 1;
const REPLY_ERROR: u8 = 2;
const REPLY_USE_BULK: u8 = 3;
const REPLY_MOVED: u8 = 4;

impl Reply {
    /// The reply as bytes.
    #[must_use]
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size());
        match self {
            Reply::Answer(answer) => {
                out.put_u8(REPLY_ANSWER);
                put_served(&mut out, &answer.served);
                put_outcome(&mut out, &answer.outcome);
            }
            Reply::Error(error) => {
                out.put_u8(REPLY_ERROR);
                put_error(&mut out, error);
            }
            Reply::UseBulk => out.put_u8(REPLY_USE_BULK),
            Reply::Moved(epoch) => {
                out.put_u8(REPLY_MOVED);
                epoch.encode(&mut out);
            }
        }
        out.freeze()
    }

    /// About how many bytes it takes, so that they are set aside at once.
    fn size(&self) -> usize {
        match self {
            Reply::Answer(Answer { outcome, served }) => {
                let value = if let Outcome::Found(record) = outcome { record.content.value.len() } else { 0 };
                served.place.wire.len() + value + 96
            }
            Reply::Error(error) => error.detail.len() + error.hint.len() + 96,
            Reply::UseBulk => 1,
            Reply::Moved(epoch) => epoch.leader.as_str().len() + 16,
        }
    }

    /// Reads a reply of whoever is at `place`; a value shares the memory of `bytes`.
    pub(super) fn decode(bytes: Bytes, place: &Arc<Place>) -> Result<Reply, Malformed> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            REPLY_ANSWER => {
                let served = take_served(&mut reader, place)?;
                Ok(Reply::Answer(Answer { outcome: take_outcome(&mut reader)?, served }))
            }
            REPLY_ERROR => Ok(Reply::Error(take_error(&mut reader)?)),
            REPLY_USE_BULK => Ok(Reply::UseBulk),
            REPLY_MOVED => Ok(Reply::Moved(Epoch::decode(&mut reader)?)),
            _ => Err(Malformed("a reply of a newer program")),
        }
    }
}

fn put_served(out: &mut BytesMut, served: &Served) {
    out.put_slice(&served.place.wire);
    out.put_u8(u8::from(served.role == Role::Replica));
    out.put_u8(u8::from(served.consistency == Consistency::Any));
    codec::put_option(out, served.stale_ms.as_ref(), |out, ms| codec::put_varint(out, *ms));
}

fn take_served(reader: &mut Reader, place: &Arc<Place>) -> Result<Served, Malformed> {
    let place = take_place(reader, place)?;
    let role = if reader.bool()? { Role::Replica } else { Role::Leader };
    let consistency = take_consistency(reader)?;
    let stale_ms = reader.option(Reader::varint)?;
    Ok(Served { place, role, consistency, stale_ms })
}

/// The node that was asked says where it is; it may know itself by another address than this node does.
fn take_place(reader: &mut Reader, asked: &Arc<Place>) -> Result<Arc<Place>, Malformed> {
    if reader.skip(&asked.wire) {
        return Ok(Arc::clone(asked));
    }
    let shard = reader.string()?;
    let node: SocketAddr = reader.string()?.parse().map_err(|_| Malformed("an address that is none"))?;
    Ok(Arc::new(Place::new(&shard, node, asked.forwarded)))
}

fn put_outcome(out: &mut BytesMut, outcome: &Outcome) {
    match outcome {
        Outcome::Found(record) => {
            out.put_u8(1);
            record.encode_head(out);
            out.put_slice(&record.content.value);
        }
        Outcome::Missing => out.put_u8(2),
        Outcome::Stored { version, created, acks } => {
            out.put_u8(3);
            version.encode(out);
            out.put_u8(u8::from(*created));
            put_acks(out, *acks);
        }
        Outcome::Deleted { version, acks } => {
            out.put_u8(4);
            codec::put_option(out, version.as_ref(), |out, version| version.encode(out));
            put_acks(out, *acks);
        }
    }
}

fn take_outcome(reader: &mut Reader) -> Result<Outcome, Malformed> {
    Ok(match reader.u8()? {
        1 => {
            let remaining = reader.remaining();
            Outcome::Found(Record::decode(reader.take(remaining)?)?)
        }
        2 => Outcome::Missing,
        3 => Outcome::Stored { version: Version::decode(reader)?, created: reader.bool()?, acks: take_acks(reader)? },
        4 => Outcome::Deleted { version: reader.option(Version::decode)?, acks: take_acks(reader)? },
        _ => return Err(Malformed("an outcome of a newer program")),
    })
}

fn put_acks(out: &mut BytesMut, acks: Acks) {
    codec::put_varint(out, u64::from(acks.have));
    codec::put_varint(out, u64::from(acks.of));
}

fn take_acks(reader: &mut Reader) -> Result<Acks, Malformed> {
    Ok(Acks { have: reader.varint_u32()?, of: reader.varint_u32()? })
}

const CODES: [(u8, Code); 16] = [
    (1, Code::ShardUnreachable),
    (2, Code::NoLeader),
    (3, Code::Overloaded),
    (4, Code::Deadline),
    (5, Code::WrongShard),
    (6, Code::TopologyMismatch),
    (7, Code::StorageFailed),
    (8, Code::DiskFull),
    (9, Code::ForwardingLoop),
    (10, Code::ValueTooLarge),
    (11, Code::KeyTooLong),
    (12, Code::NotBuilt),
    (13, Code::Internal),
    (14, Code::AtRisk),
    (15, Code::TooFewReplicas),
    (16, Code::AckTimeout),
];
const _: () = assert!(CODES.len() == Code::ALL.len(), "every code has a number here and a place in Code::ALL");

fn put_error(out: &mut BytesMut, error: &Error) {
    let code = CODES.iter().find(|(_, code)| *code == error.code).map_or(0, |(byte, _)| *byte);
    out.put_u8(code);
    out.put_u8(match error.applied {
        Applied::No => 0,
        Applied::Yes => 1,
        Applied::Unknown => 2,
    });
    codec::put_bytes(out, error.detail.as_bytes());
    codec::put_bytes(out, error.hint.as_bytes());
    codec::put_option(out, error.shard.as_ref(), |out, text| codec::put_bytes(out, text.as_bytes()));
    codec::put_option(out, error.leader.as_ref(), |out, text| codec::put_bytes(out, text.as_bytes()));
    if let Some(Unconfirmed { version, acks }) = error.unconfirmed.as_deref() {
        codec::put_option(out, version.as_ref(), |out, version| version.encode(out));
        put_acks(out, *acks);
    }
}

fn take_error(reader: &mut Reader) -> Result<Error, Malformed> {
    let byte = reader.u8()?;
    let code = CODES.iter().find(|(candidate, _)| *candidate == byte).map(|(_, code)| *code);
    let applied = match reader.u8()? {
        0 => Applied::No,
        1 => Applied::Yes,
        2 => Applied::Unknown,
        _ => return Err(Malformed("an outcome of a newer program")),
    };
    Ok(Error {
        code: code.unwrap_or(Code::Internal), // of a newer program: its words still say what happened
        applied,
        detail: reader.string()?,
        hint: reader.string()?,
        shard: reader.option(Reader::string)?,
        leader: reader.option(Reader::string)?,
        unconfirmed: (code == Some(Code::AckTimeout)).then(|| take_unconfirmed(reader)).transpose()?,
    })
}

fn take_unconfirmed(reader: &mut Reader) -> Result<Box<Unconfirmed>, Malformed> {
    let version = reader.option(Version::decode)?;
    Ok(Box::new(Unconfirmed { version, acks: take_acks(reader)? }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::store::ack::Wanted;
    use crate::types::{Content, Incarnation, NodeName, Seq};

    fn key() -> Key {
        Key::new(&b"\x00k\xff"[..], 10).unwrap()
    }

    fn place(host: u8) -> Arc<Place> {
        Arc::new(Place::new("S", ([127, 0, 0, host], 8080).into(), None))
    }

    fn version() -> Version {
        Version::Log { epoch: 1, seq: Seq(300), incarnation: Incarnation(7) }
    }

    /// Two program versions meet on the wire: these bytes change only together with the protocol version.
    #[test]
    fn forwarded_and_reply_have_their_golden_bytes() {
        let put = Operation::Put { key: key(), content: Content::of("v") };
        let golden = b"\x00\x03\x00k\xff\x01\x01\x00\x01v";
        assert_eq!(
            Forwarded::encode(&put, Consistency::Leader, None).escape_ascii().to_string(),
            golden.escape_ascii().to_string()
        );
        let served =
            Served { place: place(2), role: Role::Leader, consistency: Consistency::Leader, stale_ms: Some(0) };
        let found = Outcome::Found(Record { version: version(), content: Content::of("v") });
        let golden = b"\x01\x01S\x0e127.0.0.2:8080\x00\x00\x01\x00\x01\x01\x00\x0c\x01\x01\xac\x02\0\0\0\0\0\0\0\x07v";
        let answer = Reply::Answer(Answer { outcome: found, served });
        assert_eq!(answer.encode().escape_ascii().to_string(), golden.escape_ascii().to_string());
        let error = Error::new(Code::NoLeader, "d").hint("h").shard("S").applied(Applied::Unknown);
        let golden = b"\x02\x02\x02\x01d\x01h\x01\x01S\x00";
        assert_eq!(Reply::Error(error).encode().escape_ascii().to_string(), golden.escape_ascii().to_string());
    }

    #[test]
    fn every_operation_and_reply_comes_back() {
        let content = Content { content_type: Some("a/b".into()), ..Content::of(&b"\x00\xff"[..]) };
        for operation in [
            Operation::Get { key: key() },
            Operation::Put { key: key(), content: content.clone() },
            Operation::Delete { key: key() },
        ] {
            for consistency in [Consistency::Leader, Consistency::Any] {
                let bytes = Forwarded::encode(&operation, consistency, None);
                let ack = None;
                assert_eq!(Forwarded::decode(bytes), Ok(Forwarded { operation: operation.clone(), consistency, ack }));
            }
        }
        for wanted in [Wanted::All, Wanted::Replicas(300)] {
            let ack = Some(Ack { wanted, timeout: Duration::from_millis(1500), is_forwarded: true });
            let (operation, consistency) = (Operation::Delete { key: key() }, Consistency::Leader);
            let bytes = Forwarded::encode(&operation, consistency, ack);
            let without = Forwarded::encode(&operation, consistency, None);
            assert!(bytes.len() > without.len() && bytes.starts_with(&without), "an older node finds bytes left over");
            assert_eq!(Forwarded::decode(bytes), Ok(Forwarded { operation, consistency, ack }));
        }
        let acks = Acks { have: 1, of: 2 };
        for outcome in [
            Outcome::Found(Record { version: version(), content }),
            Outcome::Missing,
            Outcome::Stored { version: version(), created: true, acks },
            Outcome::Deleted { version: None, acks },
        ] {
            for (role, consistency, stale_ms) in
                [(Role::Leader, Consistency::Leader, Some(0)), (Role::Replica, Consistency::Any, None)]
            {
                let served = Served { place: place(2), role, consistency, stale_ms };
                let reply = Reply::Answer(Answer { outcome: outcome.clone(), served });
                assert_eq!(Reply::decode(reply.encode(), &place(2)), Ok(reply));
            }
        }
        let moved = Reply::Moved(Epoch { number: 300, leader: NodeName::new("A/1") });
        for reply in [Reply::UseBulk, moved] {
            assert_eq!(Reply::decode(reply.encode(), &place(2)), Ok(reply));
        }
        for (_, code) in CODES {
            let error = Error::new(code, "detail").leader("127.0.0.2:8080");
            let unconfirmed = Unconfirmed { version: Some(version()), acks };
            let reply = Reply::Error(if code == Code::AckTimeout { error.unconfirmed(unconfirmed) } else { error });
            assert_eq!(Reply::decode(reply.encode(), &place(2)), Ok(reply));
        }
    }

    /// A node that listens where the asking one does not expect it is named as it names itself.
    #[test]
    fn reply_of_a_node_with_another_address_says_where_it_is() {
        let served =
            Served { place: place(3), role: Role::Leader, consistency: Consistency::Leader, stale_ms: Some(0) };
        let reply = Reply::Answer(Answer { outcome: Outcome::Missing, served });
        assert_eq!(Reply::decode(reply.encode(), &place(2)), Ok(reply));
    }
}
