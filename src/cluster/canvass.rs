//! Asking for promises: a node that is to take a shard over asks every other to let it lead in a new epoch (rule 19).

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::ballot::Refused;
use super::map::ClusterMap;
use crate::config::Node;
use crate::peer::{Ask, CallError, Class, Kind, Pool};
use crate::types::codec::{self, Malformed, Reader};
use crate::types::{Epoch, Seq, ShardIndex};

/// What a node says to the question for a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has promised, durably, and does not follow or lead below that epoch any more.
    Given {
        /// The last entry of its copy of the shard, if it holds one: nothing comes to it any more.
        end: Option<Seq>,
    },
    /// It has not.
    Refused {
        /// Why; names whom it has promised.
        detail: String,
    },
}

/// The question as bytes.
#[must_use]
pub fn encode_question(epoch: &Epoch) -> Bytes {
    let mut out = BytesMut::new();
    epoch.encode(&mut out);
    out.freeze()
}

/// Reads the question.
pub fn decode_question(bytes: Bytes) -> Result<Epoch, Malformed> {
    Epoch::decode(&mut Reader::new(bytes))
}

impl Answer {
    /// A refusal in words.
    #[must_use]
    pub fn refused(refused: &Refused) -> Answer {
        Answer::Refused { detail: refused.to_string() }
    }

    /// The answer as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Answer::Given { end } => {
                out.put_u8(1);
                codec::put_option(&mut out, end.as_ref(), |out, end| codec::put_varint(out, end.0));
            }
            Answer::Refused { detail } => {
                out.put_u8(2);
                codec::put_bytes(&mut out, detail.as_bytes());
            }
        }
        out.freeze()
    }

    /// Reads an answer.
    pub fn decode(bytes: Bytes) -> Result<Answer, Malformed> {
        let mut reader = Reader::new(bytes);
        Ok(match reader.u8()? {
            1 => Answer::Given { end: reader.option(Reader::varint)?.map(Seq) },
            2 => Answer::Refused { detail: reader.string()? },
            _ => return Err(Malformed("an answer of a newer program")),
        })
    }
}

/// Asks one node to promise an epoch of a shard.
pub async fn ask(
    pool: &Pool,
    map: &ClusterMap,
    node: &Node,
    shard: ShardIndex,
    epoch: &Epoch,
    wait: Duration,
) -> Result<Answer, CallError> {
    let ask = Ask {
        node,
        class: Class::Request,
        kind: Kind::Promise,
        shard,
        epoch: map.epoch_of(shard),
        request_id: pool.new_request_id(),
        body: encode_question(epoch),
        answer_wait: wait,
        total_wait: wait,
    };
    Ok(Answer::decode(pool.ask(ask).await?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeName;

    #[test]
    fn question_and_answers_come_back_from_their_bytes() {
        let epoch = Epoch { number: 300, leader: NodeName::new("A/1") };
        assert_eq!(decode_question(encode_question(&epoch)), Ok(epoch.clone()));
        for answer in [
            Answer::Given { end: None },
            Answer::Given { end: Some(Seq(300)) },
            Answer::refused(&Refused::Promised(epoch)),
        ] {
            assert_eq!(Answer::decode(answer.encode()), Ok(answer));
        }
    }
}
