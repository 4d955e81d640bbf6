//! A leader hands its shard over (rule 20), and the answer, as bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::wire::{put_cursor, put_text, put_uid, take_cursor, take_uid};
use crate::types::codec::{Malformed, Reader};
use crate::types::{Cursor, Epoch, ShardUid};

/// A leader hands its shard over (rule 20).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The epoch in which the asked node leads from now on.
    pub epoch: Epoch,
    /// The uid of the shard's data.
    pub shard_uid: Option<ShardUid>,
    /// The leader's last entry: the asked node holds it, and nothing else.
    pub cursor: Option<Cursor>,
    /// It is not handed over yet: the asked node says whether anything but what it still lacks speaks against it, and
    /// writes something down, so that whatever keeps its file busy is over when writes wait for it.
    pub is_rehearsal: bool,
}

impl Grant {
    /// The grant as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.epoch.encode(&mut out);
        put_uid(&mut out, self.shard_uid);
        put_cursor(&mut out, self.cursor.as_ref());
        out.put_u8(u8::from(self.is_rehearsal));
        out.freeze()
    }

    /// Reads a grant.
    pub fn decode(bytes: Bytes) -> Result<Grant, Malformed> {
        let mut reader = Reader::new(bytes);
        Ok(Grant {
            epoch: Epoch::decode(&mut reader)?,
            shard_uid: take_uid(&mut reader)?,
            cursor: take_cursor(&mut reader)?,
            is_rehearsal: reader.bool()?,
        })
    }
}

/// The answer to a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantAnswer {
    /// It leads in that epoch: that is durable.
    Leads,
    /// Nothing speaks against it.
    Ready,
    /// It does not, and will not by this grant.
    Refused {
        /// Why.
        detail: String,
    },
}

impl GrantAnswer {
    /// The answer as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            GrantAnswer::Leads => out.put_u8(1),
            GrantAnswer::Ready => out.put_u8(3),
            GrantAnswer::Refused { detail } => put_text(&mut out, 2, detail),
        }
        out.freeze()
    }

    /// Reads an answer.
    pub fn decode(bytes: Bytes) -> Result<GrantAnswer, Malformed> {
        let mut reader = Reader::new(bytes);
        Ok(match reader.u8()? {
            1 => GrantAnswer::Leads,
            3 => GrantAnswer::Ready,
            2 => GrantAnswer::Refused { detail: reader.string()? },
            _ => return Err(Malformed("an answer of a newer program")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, NodeName, Seq};

    #[test]
    fn grant_and_its_answers_come_back_from_their_bytes() {
        let epoch = Epoch { number: 300, leader: NodeName::new("A/1") };
        let cursor = Cursor { epoch: Epoch::first(NodeName::new("A/0")), incarnation: Incarnation(1), seq: Seq(300) };
        for (cursor, is_rehearsal) in [(None, true), (Some(cursor), false)] {
            let grant = Grant { epoch: epoch.clone(), shard_uid: Some(ShardUid(5)), cursor, is_rehearsal };
            assert_eq!(Grant::decode(grant.encode()), Ok(grant));
        }
        for answer in [GrantAnswer::Leads, GrantAnswer::Ready, GrantAnswer::Refused { detail: "why".into() }] {
            assert_eq!(GrantAnswer::decode(answer.encode()), Ok(answer));
        }
    }
}
