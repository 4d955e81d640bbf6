//! A shard's lost writes: what the ledgers of its copies list, gathered by any node, part by part.
//!
//! One part of one ledger is in memory at a time, about a MiB or one large write. A copy that cannot be asked, or whose
//! ledger is damaged, is named in the last line, and does not keep the others from being listed.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, stream};

use super::Store;
use super::operate::Refused;
use super::view::{Listing, LostWrite, LostWritesEnd, SilentNode};
use crate::config::Node;
use crate::peer::{Ask, CallError, Class, Kind};
use crate::replication::pair::Pair;
use crate::storage::ledger::{Page, Part, Return};
use crate::types::codec::{self, Malformed, Reader};
use crate::types::{Change, Entry, Mutation, UnixMs};

/// A node that has not given a part of its ledger in so long is silent.
const PART_WAIT: Duration = Duration::from_secs(10);

/// What a node gives of its ledger.
pub(super) type Given = Result<Part, String>;

pub(super) fn encode_given(given: &Given) -> Bytes {
    let mut out = BytesMut::new();
    match given {
        Ok(Part { body, next, damage }) => {
            out.put_u8(1);
            codec::put_varint(&mut out, *next);
            codec::put_option(&mut out, damage.as_ref(), |out, text| codec::put_bytes(out, text.as_bytes()));
            codec::put_option(&mut out, body.as_ref(), |out, body| codec::put_bytes(out, body));
        }
        Err(detail) => {
            out.put_u8(2);
            codec::put_bytes(&mut out, detail.as_bytes());
        }
    }
    out.freeze()
}

fn decode_given(bytes: Bytes) -> Result<Given, Malformed> {
    let mut reader = Reader::new(bytes);
    Ok(match reader.u8()? {
        1 => {
            let (next, damage) = (reader.varint()?, reader.option(Reader::string)?);
            Ok(Part { body: reader.option(Reader::bytes)?, next, damage })
        }
        2 => Err(reader.string()?),
        _ => return Err(Malformed("an answer about a ledger of a newer program")),
    })
}

pub(super) fn decode_at(body: Bytes) -> Result<u64, Malformed> {
    Reader::new(body).varint()
}

/// A part of a copy's ledger.
pub(super) async fn part_of(pair: &Pair, at: u64) -> Given {
    pair.read_ledger(at).await.map_err(|error| error.to_string())
}

/// Where the gathering is.
struct Gathering {
    store: Arc<Store>,
    /// The copies that are still to be asked, the next one last.
    nodes: Vec<Node>,
    /// How far the next one's ledger is read.
    at: u64,
    listing: Listing,
    end: LostWritesEnd,
    is_over: bool,
}

impl Store {
    /// Lines of JSON, a lost write each, and the last one says how many there were and who is silent.
    pub fn lost_writes(self: &Arc<Self>, shard: &str) -> Result<impl Stream<Item = Bytes> + Send + use<>, Refused> {
        let nodes = self.shard_named(shard)?.copies.iter().rev().cloned().collect();
        let end = LostWritesEnd { done: true, writes: 0, nodes: Vec::new(), silent: Vec::new(), damaged: Vec::new() };
        let gathering =
            Gathering { store: Arc::clone(self), nodes, at: 0, listing: Listing::default(), end, is_over: false };
        Ok(stream::unfold(gathering, |mut gathering| async move { Some((gathering.next().await?, gathering)) }))
    }

    async fn ledger_part(&self, node: &Node, at: u64) -> Given {
        if let Some(pair) = self.copies.get(&node.shard).filter(|_| node.name == self.me.name) {
            return part_of(pair, at).await;
        }
        let mut body = BytesMut::new();
        codec::put_varint(&mut body, at);
        let ask = Ask {
            node,
            class: Class::Bulk,
            kind: Kind::LostWrites,
            shard: node.shard,
            epoch: self.map.epoch_of(node.shard),
            request_id: self.pool.new_request_id(),
            body: body.freeze(),
            answer_wait: PART_WAIT,
            total_wait: PART_WAIT,
        };
        let answer = self.pool.ask(ask).await.and_then(|bytes| Ok(decode_given(bytes)?));
        answer.unwrap_or_else(|error: CallError| Err(error.to_string()))
    }
}

impl Gathering {
    /// The next lines; none when all is told.
    async fn next(&mut self) -> Option<Bytes> {
        while let Some(node) = self.nodes.last().cloned() {
            let given = self.store.ledger_part(&node, self.at).await;
            let lines = given.and_then(|part| {
                self.end.damaged.extend(part.damage.map(|why| SilentNode { node: node.name.to_string(), why }));
                self.at = part.next;
                let lines = part.body.map(|body| lines(&node, body)).transpose();
                lines.map_err(|fault| format!("its ledger cannot be read: {fault}"))
            });
            match lines {
                Ok(Some((lines, writes))) => {
                    self.listing.writes += writes;
                    self.end.writes += writes;
                    return Some(lines);
                }
                Ok(None) => {}
                Err(why) => self.end.silent.push(SilentNode { node: node.name.to_string(), why }),
            }
            let listing = std::mem::take(&mut self.listing);
            self.end.nodes.push(Listing { node: node.name.to_string(), ..listing });
            self.nodes.pop();
            self.at = 0;
        }
        (!std::mem::replace(&mut self.is_over, true)).then(|| line(&self.end).into())
    }
}

/// The lines of a frame, and how many writes they are.
fn lines(node: &Node, body: Bytes) -> Result<(Bytes, u64), Malformed> {
    let Page { back, entries } = Page::decode(body)?;
    let (mut out, mut writes) = (Vec::new(), 0);
    for bytes in entries {
        let entry = Entry::decode(bytes)?;
        for mutation in &entry.mutations {
            out.extend_from_slice(&line(&lost_write(node, &back, &entry, mutation)));
            writes += 1;
        }
    }
    Ok((out.into(), writes))
}

fn line(value: &impl serde::Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_else(|error| unreachable!("a view is JSON: {error}"));
    line.push(b'\n');
    line
}

fn lost_write(node: &Node, back: &Return, entry: &Entry, mutation: &Mutation) -> LostWrite {
    let (key, key_b64) = text(mutation.key.as_bytes());
    let (op, content) = match &mutation.change {
        Change::Put(content) => ("put", Some(content)),
        Change::Delete => ("delete", None),
    };
    let (value, value_b64) = content.map_or((None, None), |content| text(&content.value));
    let content_type = content.and_then(|content| content.content_type.as_ref());
    LostWrite {
        key,
        key_b64,
        value,
        value_b64,
        op: op.into(),
        content_type: content_type.map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
        version: entry.version().to_string(),
        time: (entry.time > UnixMs(0)).then_some(entry.time.0),
        epoch: entry.epoch.number,
        leader: entry.epoch.leader.to_string(),
        superseded_by: back.superseded_by.to_string(),
        node: node.name.to_string(),
        complete: back.complete,
        lost_at_most: (!back.complete).then(|| back.end.since(back.common)),
    }
}

/// Bytes as JSON holds them: as text, or else in base64url.
fn text(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(URL_SAFE_NO_PAD.encode(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_comes_back_from_its_bytes() {
        for given in [
            Ok(Part { body: Some(Bytes::from_static(b"frame")), next: 300, damage: Some("byte 28".into()) }),
            Ok(Part { body: None, next: 0, damage: None }),
            Err("it cannot be read".to_owned()),
        ] {
            assert_eq!(decode_given(encode_given(&given)), Ok(given));
        }
    }
}
