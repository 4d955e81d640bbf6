//! What nodes say to each other: the handshake, and the envelope of every request.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::clock::millis;
use crate::types::codec::{self, Malformed, Reader};
use crate::types::{ClusterUid, Epoch, NodeName, RequestId, ShardIndex};

/// The newest protocol version that this program speaks.
pub const PROTOCOL_MAX: u8 = 1;
/// The oldest: one before the newest, once there are two.
pub const PROTOCOL_MIN: u8 = 1;
/// Longest frame (rule 16): a constant of the protocol, above the largest value that can be set (64 MiB).
pub const FRAME_BYTES_MAX: usize = 80 << 20;
/// First bytes of a handshake: anything else on the socket is not a peer.
const MAGIC: [u8; 4] = *b"OSTR";

/// Which connection carries a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Forwarded requests and questions, small.
    Request,
    /// Polls.
    Replication,
    /// Large values and snapshots.
    Bulk,
}

impl Class {
    fn byte(self) -> u8 {
        match self {
            Class::Request => 0,
            Class::Replication => 1,
            Class::Bulk => 2,
        }
    }

    fn from_byte(byte: u8) -> Result<Class, Malformed> {
        match byte {
            0 => Ok(Class::Request),
            1 => Ok(Class::Replication),
            2 => Ok(Class::Bulk),
            _ => Err(Malformed("a class of a newer program")),
        }
    }
}

/// What a request asks for. The bodies are defined where they are sent and served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A client's operation on a key (`store::wire`).
    Forward,
    /// What a copy holds: uid, cursor, lag, a key's version (`store::wire`).
    Inspect,
    /// What a node knows of the cluster: uid, epochs (`cluster::exchange`).
    Facts,
    /// A replica's poll, whose cursor is its acknowledgement (`replication::pair::wire`).
    Poll,
    /// Begins a snapshot.
    SnapshotBegin,
    /// Asks for a snapshot's next records.
    SnapshotChunk,
    /// Asks for the entries that a snapshot needs to become a prefix.
    SnapshotLog,
    /// Asks for a promise to let a node lead (`cluster::canvass`).
    Promise,
    /// Hands a shard over to the node that is asked (`replication::pair::grant`).
    Grant,
    /// Asks a leader for its history (`replication::pair::witness`).
    History,
    /// Asks a leader for its records of some keys.
    Records,
    /// Asks a node for a part of its ledger of lost writes (`store::lost`).
    LostWrites,
    /// Asks a node what it knows of one write (`replication::pair::receipt`).
    Receipt,
}

impl Kind {
    const ALL: [(u16, Kind); 13] = [
        (1, Kind::Forward),
        (2, Kind::Inspect),
        (3, Kind::Facts),
        (4, Kind::Poll),
        (5, Kind::SnapshotBegin),
        (6, Kind::SnapshotChunk),
        (7, Kind::SnapshotLog),
        (8, Kind::Promise),
        (9, Kind::Grant),
        (20, Kind::History),
        (21, Kind::Records),
        (22, Kind::LostWrites),
        (23, Kind::Receipt),
    ];

    /// The names of all kinds, in the metrics.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Kind::ALL.iter().map(|(_, kind)| kind.name())
    }

    /// Its place among [`Kind::names`].
    #[must_use]
    pub fn index(self) -> usize {
        Kind::ALL.iter().position(|(_, kind)| *kind == self).unwrap_or(usize::MAX)
    }

    /// Its name in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Forward => "forward",
            Kind::Inspect => "inspect",
            Kind::Facts => "facts",
            Kind::Poll => "poll",
            Kind::SnapshotBegin => "snapshot-begin",
            Kind::SnapshotChunk => "snapshot-chunk",
            Kind::SnapshotLog => "snapshot-log",
            Kind::Promise => "promise",
            Kind::Grant => "grant",
            Kind::History => "history",
            Kind::Records => "records",
            Kind::LostWrites => "lost-writes",
            Kind::Receipt => "receipt",
        }
    }

    /// Its number on the wire.
    #[must_use]
    pub fn number(self) -> u16 {
        Kind::ALL.iter().find(|(_, kind)| *kind == self).map_or(0, |(number, _)| *number)
    }

    /// The kind of this number; none for one of a newer program, which is answered [`Status::Unsupported`].
    #[must_use]
    pub fn from_number(number: u16) -> Option<Kind> {
        Kind::ALL.iter().find(|(candidate, _)| *candidate == number).map(|(_, kind)| *kind)
    }
}

/// What stands on every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Names the client's request in the logs of all nodes.
    pub request_id: RequestId,
    /// What is asked for; a number that this program may not know.
    pub kind: u16,
    /// The sender's cluster, once it has one (rule 1).
    pub cluster: Option<ClusterUid>,
    /// The sender's placement (rule 16).
    pub placement: u64,
    /// The shard concerned.
    pub shard: ShardIndex,
    /// The highest epoch of that shard that the sender knows (rule 15).
    pub epoch: Option<Epoch>,
    /// Who asks.
    pub from: NodeName,
    /// How long the sender will wait, in whole milliseconds.
    pub remaining: Duration,
    /// Which connection it came by.
    pub class: Class,
}

impl Envelope {
    /// Appends the envelope to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64(self.request_id.0);
        out.put_u16(self.kind);
        put_cluster(out, self.cluster);
        out.put_u64(self.placement);
        codec::put_varint(out, u64::from(self.shard.0));
        codec::put_option(out, self.epoch.as_ref(), |out, epoch| epoch.encode(out));
        put_name(out, &self.from);
        codec::put_varint(out, millis(self.remaining));
        out.put_u8(self.class.byte());
    }

    /// Takes an envelope from `reader`. What is the same as in the connection's last one is not decoded again.
    pub fn decode(reader: &mut Reader, recent: &mut Recent) -> Result<Envelope, Malformed> {
        let request_id = RequestId(reader.u64()?);
        let kind = u16::from_be_bytes([reader.u8()?, reader.u8()?]);
        let Sender { cluster, placement, shard, epoch, from } = recent.sender(reader)?;
        let remaining = Duration::from_millis(reader.varint()?);
        let class = Class::from_byte(reader.u8()?)?;
        Ok(Envelope { request_id, kind, cluster, placement, shard, epoch, from, remaining, class })
    }
}

/// The part of an envelope that hardly changes from one request of a connection to the next.
#[derive(Debug, Clone)]
struct Sender {
    cluster: Option<ClusterUid>,
    placement: u64,
    shard: ShardIndex,
    epoch: Option<Epoch>,
    from: NodeName,
}

/// What a connection's last request said of its sender, and as which bytes.
#[derive(Debug, Default)]
pub struct Recent(Option<(Bytes, Sender)>);

impl Recent {
    fn sender(&mut self, reader: &mut Reader) -> Result<Sender, Malformed> {
        if let Some((bytes, sender)) = &self.0
            && reader.skip(bytes)
        {
            return Ok(sender.clone());
        }
        let before = reader.clone();
        let sender = Sender {
            cluster: take_cluster(reader)?,
            placement: reader.u64()?,
            shard: ShardIndex(reader.varint_u32()?),
            epoch: reader.option(Epoch::decode)?,
            from: take_name(reader)?,
        };
        let bytes = before.clone().take(before.remaining() - reader.remaining())?;
        // A copy, for it would hold all that was read with it.
        self.0 = Some((Bytes::copy_from_slice(&bytes), sender.clone()));
        Ok(sender)
    }
}

/// A request as its server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asks for what.
    pub envelope: Envelope,
    /// What the kind says.
    pub body: Bytes,
}

/// How a request was met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It was served; the body is the answer of its kind.
    Served,
    /// The server does not know the kind, or cannot read the body: it runs another program version.
    Unsupported,
    /// The server does not talk to the sender.
    Refused(Refusal),
}

/// Why a node does not talk to another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// The kind of reason.
    pub code: RefusalCode,
    /// The reason, with both sides' facts, for the logs of both.
    pub detail: String,
}

/// The kinds of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalCode {
    /// The placements differ (rule 16).
    TopologyMismatch,
    /// Another cluster's node (rule 13).
    Stranger,
    /// The address belongs to another node than the caller thinks.
    WrongNode,
    /// No protocol version in common.
    Version,
}

impl RefusalCode {
    /// All of them, in the order of the metrics' label.
    pub const ALL: [RefusalCode; 4] =
        [RefusalCode::TopologyMismatch, RefusalCode::Stranger, RefusalCode::WrongNode, RefusalCode::Version];

    /// Its name in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            RefusalCode::TopologyMismatch => "topology-mismatch",
            RefusalCode::Stranger => "stranger",
            RefusalCode::WrongNode => "wrong-node",
            RefusalCode::Version => "version",
        }
    }

    /// Its place in [`RefusalCode::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        RefusalCode::ALL.iter().position(|code| *code == self).unwrap_or(usize::MAX)
    }

    fn byte(self) -> u8 {
        match self {
            RefusalCode::TopologyMismatch => 1,
            RefusalCode::Stranger => 2,
            RefusalCode::WrongNode => 3,
            RefusalCode::Version => 4,
        }
    }

    fn from_byte(byte: u8) -> Result<RefusalCode, Malformed> {
        match byte {
            1 => Ok(RefusalCode::TopologyMismatch),
            2 => Ok(RefusalCode::Stranger),
            3 => Ok(RefusalCode::WrongNode),
            4 => Ok(RefusalCode::Version),
            _ => Err(Malformed("a refusal of a newer program")),
        }
    }
}

impl Refusal {
    /// Appends the refusal to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.code.byte());
        codec::put_bytes(out, self.detail.as_bytes());
    }

    /// Takes a refusal from `reader`.
    pub fn decode(reader: &mut Reader) -> Result<Refusal, Malformed> {
        Ok(Refusal { code: RefusalCode::from_byte(reader.u8()?)?, detail: reader.string()? })
    }
}

/// The caller's first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Oldest protocol that the caller speaks.
    pub protocol_min: u8,
    /// Newest protocol that the caller speaks.
    pub protocol_max: u8,
    /// The caller's cluster, once it has one.
    pub cluster: Option<ClusterUid>,
    /// The caller's placement; its human description follows for the logs.
    pub placement: u64,
    /// The placement in words.
    pub placement_text: String,
    /// Fingerprint of the caller's addresses; a difference is only a warning.
    pub addresses: u64,
    /// Who calls.
    pub from: NodeName,
    /// Whom the caller means to reach.
    pub to: NodeName,
    /// What the connection will carry.
    pub class: Class,
}

impl Hello {
    /// Appends the hello to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_slice(&MAGIC);
        out.put_u8(self.protocol_min);
        out.put_u8(self.protocol_max);
        put_cluster(out, self.cluster);
        out.put_u64(self.placement);
        codec::put_bytes(out, self.placement_text.as_bytes());
        out.put_u64(self.addresses);
        put_name(out, &self.from);
        put_name(out, &self.to);
        out.put_u8(self.class.byte());
    }

    /// Takes a hello from `reader`. A newer caller may say more after what is read here.
    pub fn decode(reader: &mut Reader) -> Result<Hello, Malformed> {
        if reader.take(MAGIC.len())?[..] != MAGIC {
            return Err(Malformed("not a peer's handshake"));
        }
        Ok(Hello {
            protocol_min: reader.u8()?,
            protocol_max: reader.u8()?,
            cluster: take_cluster(reader)?,
            placement: reader.u64()?,
            placement_text: reader.string()?,
            addresses: reader.u64()?,
            from: take_name(reader)?,
            to: take_name(reader)?,
            class: Class::from_byte(reader.u8()?)?,
        })
    }
}

/// The server's first frame, when it talks to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The protocol that both will speak.
    pub protocol: u8,
    /// The server's cluster, once it has one.
    pub cluster: Option<ClusterUid>,
    /// Fingerprint of the server's addresses.
    pub addresses: u64,
    /// Who answers.
    pub name: NodeName,
}

impl Welcome {
    /// Appends the welcome to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.protocol);
        put_cluster(out, self.cluster);
        out.put_u64(self.addresses);
        put_name(out, &self.name);
    }

    /// Takes a welcome from `reader`.
    pub fn decode(reader: &mut Reader) -> Result<Welcome, Malformed> {
        Ok(Welcome {
            protocol: reader.u8()?,
            cluster: take_cluster(reader)?,
            addresses: reader.u64()?,
            name: take_name(reader)?,
        })
    }
}

/// Appends a node's name.
pub fn put_name(out: &mut BytesMut, name: &NodeName) {
    codec::put_bytes(out, name.as_str().as_bytes());
}

/// Takes a node's name.
pub fn take_name(reader: &mut Reader) -> Result<NodeName, Malformed> {
    Ok(NodeName::new(reader.string()?))
}

/// Appends a cluster uid that may be none.
pub fn put_cluster(out: &mut BytesMut, cluster: Option<ClusterUid>) {
    codec::put_option(out, cluster.as_ref(), |out, uid| out.put_u64(uid.0));
}

/// Takes a cluster uid that may be none.
pub fn take_cluster(reader: &mut Reader) -> Result<Option<ClusterUid>, Malformed> {
    Ok(reader.option(Reader::u64)?.map(ClusterUid))
}
