//! A forwarded operation and its outcome, as bytes. The entry node alone parses and renders; between nodes travel these.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::ack::{Ack, Unconfirmed};
use super::call::{Acks, Answer, Consistency, Operation, Outcome, Place, Served};
use super::error::{Applied, Code, Error};
use super::reads::{Since, Terms};
use crate::clock::millis;
use crate::storage::Role;
use crate::types::codec::{self, Malformed, Reader};
use crate::types::entry::{OP_DELETE, decode_change, decode_key, encode_put};
use crate::types::{Change, Epoch, Key, Record, Version};

/// Stands after the key of a read.
const NO_CHANGE: u8 = 0;
/// Stands after the key of a read that wants no value. An older program cannot read it, and says so.
const NO_VALUE: u8 = 2;
/// Stands after the key of a write, before what happens to it.
const CHANGE: u8 = 1;

/// A client's operation on its way to the node that owns the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Forwarded {
    /// What is to be done.
    pub(super) operation: Operation,
    /// What a read must guarantee.
    pub(super) consistency: Consistency,
    /// The numbers that belong to it.
    pub(super) terms: Terms,
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
    pub(super) fn encode(operation: &Operation, consistency: Consistency, terms: Terms, ack: Option<Ack>) -> Bytes {
        let value_bytes = if let Operation::Put { content, .. } = operation { content.value.len() } else { 0 };
        let mut out = BytesMut::with_capacity(operation.key().as_bytes().len() + value_bytes + 32);
        put_wanted(&mut out, consistency, terms);
        codec::put_bytes(&mut out, operation.key().as_bytes());
        match operation {
            Operation::Get { .. } => out.put_u8(NO_CHANGE),
            Operation::Head { .. } => out.put_u8(NO_VALUE),
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
        let (consistency, terms) = take_wanted(&mut reader)?;
        let key = decode_key(&mut reader)?;
        let operation = match reader.u8()? {
            NO_CHANGE => Operation::Get { key },
            NO_VALUE => Operation::Head { key },
            CHANGE => operation(key, decode_change(&mut reader)?),
            _ => return Err(Malformed("an operation of a newer program")),
        };
        let ack = if reader.remaining() > 0 { Some(Ack::decode(&mut reader)?) } else { None };
        reader.finish()?;
        Ok(Forwarded { operation, consistency, terms, ack })
    }
}

fn operation(key: Key, change: Change) -> Operation {
    match change {
        Change::Put(content) => Operation::Put { key, content },
        Change::Delete => Operation::Delete { key },
    }
}

const LEADER: u8 = 0;
const ANY: u8 = 1;
/// From here on, an older program cannot read it, and says so.
const BOUNDED: u8 = 2;
const SESSION: u8 = 3;
const LEADER_IN_SESSION: u8 = 4;

/// What a request must guarantee, with its numbers.
fn put_wanted(out: &mut BytesMut, consistency: Consistency, terms: Terms) {
    match (terms.session, terms.max_stale) {
        (Some(Since(position)), _) => {
            out.put_u8(if consistency == Consistency::Session { SESSION } else { LEADER_IN_SESSION });
            put_position(out, position);
        }
        (None, Some(max_stale)) => {
            out.put_u8(BOUNDED);
            codec::put_varint(out, millis(max_stale));
        }
        (None, None) => out.put_u8(consistency_byte(consistency)),
    }
}

fn take_wanted(reader: &mut Reader) -> Result<(Consistency, Terms), Malformed> {
    Ok(match reader.u8()? {
        LEADER => (Consistency::Leader, Terms::default()),
        ANY => (Consistency::Any, Terms::default()),
        BOUNDED => (Consistency::Bounded, Terms::max_stale(Duration::from_millis(reader.varint()?))),
        SESSION => (Consistency::Session, Terms::since(reader.option(Version::decode)?)),
        LEADER_IN_SESSION => (Consistency::Leader, Terms::since(reader.option(Version::decode)?)),
        _ => return Err(Malformed("a consistency of a newer program")),
    })
}

fn consistency_byte(consistency: Consistency) -> u8 {
    match consistency {
        Consistency::Leader => LEADER,
        Consistency::Any => ANY,
        Consistency::Bounded => BOUNDED,
        Consistency::Session => SESSION,
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
                put_served(&mut out, answer);
                put_outcome(&mut out, &answer.outcome);
                if is_of_nothing(&answer.outcome) {
                    // At the end, where an older program does not look.
                    put_position(&mut out, answer.served.position.as_deref().copied());
                }
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
                let mut served = take_served(&mut reader, place)?;
                let outcome = take_outcome(&mut reader)?;
                if is_of_nothing(&outcome) && reader.remaining() > 0 {
                    served.position = reader.option(Version::decode)?.map(Box::new);
                }
                Ok(Reply::Answer(Answer { outcome, served }))
            }
            REPLY_ERROR => Ok(Reply::Error(take_error(&mut reader)?)),
            REPLY_USE_BULK => Ok(Reply::UseBulk),
            REPLY_MOVED => Ok(Reply::Moved(Epoch::decode(&mut reader)?)),
            _ => Err(Malformed("a reply of a newer program")),
        }
    }
}

/// Beside the consistency of an answer: a position follows. Only those get one who asked for it.
const WITH_POSITION: u8 = 0x80;

fn put_served(out: &mut BytesMut, Answer { outcome, served }: &Answer) {
    let position = served.position.as_deref().filter(|_| !is_of_nothing(outcome));
    out.put_slice(&served.place.wire);
    out.put_u8(u8::from(served.role == Role::Replica));
    out.put_u8(consistency_byte(served.consistency) | if position.is_some() { WITH_POSITION } else { 0 });
    codec::put_option(out, served.stale_ms.as_ref(), |out, ms| codec::put_varint(out, *ms));
    if let Some(position) = position {
        position.encode(out);
    }
}

/// A delete that found nothing: it tells how far the leader was instead of a version.
fn is_of_nothing(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Deleted { version: None, .. })
}

fn put_position(out: &mut BytesMut, position: Option<Version>) {
    codec::put_option(out, position.as_ref(), |out, position| position.encode(out));
}

fn take_served(reader: &mut Reader, place: &Arc<Place>) -> Result<Served, Malformed> {
    let place = take_place(reader, place)?;
    let role = if reader.bool()? { Role::Replica } else { Role::Leader };
    let byte = reader.u8()?;
    let consistency = match byte & !WITH_POSITION {
        LEADER => Consistency::Leader,
        ANY => Consistency::Any,
        BOUNDED => Consistency::Bounded,
        SESSION => Consistency::Session,
        _ => return Err(Malformed("a consistency of a newer program")),
    };
    let stale_ms = reader.option(Reader::varint)?;
    let position = if byte & WITH_POSITION == 0 { None } else { Some(Box::new(Version::decode(reader)?)) };
    Ok(Served { place, role, consistency, stale_ms, position })
}

/// The node that was asked says where it is; it may know itself by another address than this node does.
fn take_place(reader: &mut Reader, asked: &Arc<Place>) -> Result<Arc<Place>, Malformed> {
    if reader.skip(&asked.wire) {
        return Ok(Arc::clone(asked));
    }
    let shard = reader.string()?;
    let node: SocketAddr = reader.string()?.parse().map_err(|_| Malformed("an address that is none"))?;
    Ok(Arc::new(Place::new(&shard, asked.index, node, asked.forwarded)))
}

fn put_outcome(out: &mut BytesMut, outcome: &Outcome) {
    match outcome {
        Outcome::Found(record) => {
            out.put_u8(1);
            record.encode_head(out);
            out.put_slice(&record.content.value);
        }
        Outcome::Missing => out.put_u8(2),
        Outcome::Described { record, value_bytes } => {
            out.put_u8(5);
            codec::put_varint(out, *value_bytes);
            record.encode_head(out);
        }
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
        5 => {
            let value_bytes = reader.varint()?;
            let remaining = reader.remaining();
            Outcome::Described { record: Record::decode(reader.take(remaining)?)?, value_bytes }
        }
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

const CODES: [(u8, Code); 18] = [
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
    (17, Code::TooStale),
    (18, Code::SessionLost),
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
    if let Some(stale_ms) = error.stale_ms {
        codec::put_varint(out, stale_ms); // at the end, where an older program does not look
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
        leader: reader.option(Reader::string)?.map(Into::into),
        unconfirmed: (code == Some(Code::AckTimeout)).then(|| take_unconfirmed(reader)).transpose()?,
        stale_ms: if code != Some(Code::AckTimeout) && reader.remaining() > 0 { Some(reader.varint()?) } else { None },
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
    use crate::types::{Content, Incarnation, NodeName, Seq, ShardIndex};

    fn key() -> Key {
        Key::new(&b"\x00k\xff"[..], 10).unwrap()
    }

    fn place(host: u8) -> Arc<Place> {
        Arc::new(Place::new("S", ShardIndex(0), ([127, 0, 0, host], 8080).into(), None))
    }

    fn by_leader(host: u8) -> Served {
        let (role, consistency) = (Role::Leader, Consistency::Leader);
        Served { place: place(host), role, consistency, stale_ms: Some(0), position: None }
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
            Forwarded::encode(&put, Consistency::Leader, Terms::default(), None).escape_ascii().to_string(),
            golden.escape_ascii().to_string()
        );
        let served = by_leader(2);
        let found = Outcome::Found(Record { version: version(), content: Content::of("v") });
        let golden = b"\x01\x01S\x0e127.0.0.2:8080\x00\x00\x01\x00\x01\x01\x00\x0c\x01\x01\xac\x02\0\0\0\0\0\0\0\x07v";
        let answer = Reply::Answer(Answer { outcome: found, served });
        assert_eq!(answer.encode().escape_ascii().to_string(), golden.escape_ascii().to_string());
        let error = Error::new(Code::NoLeader, "d").hint("h").shard("S").applied(Applied::Unknown);
        let golden = b"\x02\x02\x02\x01d\x01h\x01\x01S\x00";
        assert_eq!(Reply::Error(error).encode().escape_ascii().to_string(), golden.escape_ascii().to_string());
    }

    /// How far the leader was stands where a program that does not know of it does not look.
    #[test]
    fn position_of_a_delete_of_nothing_stands_behind_all_that_an_older_program_reads() {
        let outcome = Outcome::Deleted { version: None, acks: Acks { have: 1, of: 2 } };
        let without = Reply::Answer(Answer { outcome: outcome.clone(), served: by_leader(2) });
        let with = Served { position: Some(Box::new(version())), ..by_leader(2) };
        let with = Reply::Answer(Answer { outcome, served: with });
        let older = without.encode();
        let known = older.len() - 1; // all but the byte that says that no position follows
        assert!(with.encode().starts_with(&older[..known]));
        assert_eq!(Reply::decode(older.slice(..known), &place(2)), Ok(without));
    }

    #[test]
    fn every_operation_and_reply_comes_back() {
        let content = Content { content_type: Some("a/b".into()), ..Content::of(&b"\x00\xff"[..]) };
        for operation in [
            Operation::Get { key: key() },
            Operation::Head { key: key() },
            Operation::Put { key: key(), content: content.clone() },
            Operation::Delete { key: key() },
        ] {
            for (consistency, terms) in [
                (Consistency::Leader, Terms::default()),
                (Consistency::Any, Terms::default()),
                (Consistency::Bounded, Terms::max_stale(Duration::from_millis(300))),
                (Consistency::Session, Terms::since(None)),
                (Consistency::Session, Terms::since(Some(version()))),
                (Consistency::Leader, Terms::since(Some(version()))),
            ] {
                let bytes = Forwarded::encode(&operation, consistency, terms, None);
                let forwarded = Forwarded { operation: operation.clone(), consistency, terms, ack: None };
                assert_eq!(bytes[0] > 1, terms.are_any(), "what an older program does not know, it must refuse");
                assert_eq!(Forwarded::decode(bytes), Ok(forwarded));
            }
        }
        for wanted in [Wanted::All, Wanted::Replicas(300)] {
            let ack = Some(Ack { wanted, timeout: Duration::from_millis(1500), is_forwarded: true });
            let (operation, consistency) = (Operation::Delete { key: key() }, Consistency::Leader);
            let terms = Terms::default();
            let bytes = Forwarded::encode(&operation, consistency, terms, ack);
            let without = Forwarded::encode(&operation, consistency, terms, None);
            assert!(bytes.len() > without.len() && bytes.starts_with(&without), "an older node finds bytes left over");
            assert_eq!(Forwarded::decode(bytes), Ok(Forwarded { operation, consistency, terms, ack }));
        }
        let acks = Acks { have: 1, of: 2 };
        for outcome in [
            Outcome::Found(Record { version: version(), content }),
            Outcome::Missing,
            Outcome::Found(Record { version: version(), content: Content::of("12345") }).described(),
            Outcome::Stored { version: version(), created: true, acks },
            Outcome::Deleted { version: None, acks },
        ] {
            for (role, consistency, stale_ms, position) in [
                (Role::Leader, Consistency::Leader, Some(0), None),
                (Role::Leader, Consistency::Leader, Some(0), Some(version())),
                (Role::Replica, Consistency::Any, None, None),
                (Role::Replica, Consistency::Bounded, Some(300), None),
                (Role::Replica, Consistency::Session, None, Some(version())),
            ] {
                let position = position.map(Box::new);
                let served = Served { place: place(2), role, consistency, stale_ms, position };
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
            let replies = match code {
                Code::AckTimeout => vec![error.unconfirmed(unconfirmed)],
                _ => vec![Error { stale_ms: Some(300), ..error.clone() }, error],
            };
            for reply in replies.into_iter().map(Reply::Error) {
                assert_eq!(Reply::decode(reply.encode(), &place(2)), Ok(reply));
            }
        }
    }

    /// A node that listens where the asking one does not expect it is named as it names itself.
    #[test]
    fn reply_of_a_node_with_another_address_says_where_it_is() {
        let served = by_leader(3);
        let reply = Reply::Answer(Answer { outcome: Outcome::Missing, served });
        assert_eq!(Reply::decode(reply.encode(), &place(2)), Ok(reply));
    }
}
