//! A session's token: how far somebody has seen each shard, so that any copy can tell whether it is as far (REPLICATION.md,
//! rule 25). Pure.
//!
//! A position is a [`Version`]: an entry's seq, and the leadership and opening that wrote it. The seq alone would not do:
//! after a takeover that lost writes, other entries stand under the same numbers.
//!
//! ```text
//!   token   format │ cluster │ count │ (shard, epoch, seq, incarnation) … │ checksum        all of it base64url
//! ```
//!
//! The checksum tells a token that was cut or mistyped from one whose writes were lost. It is no signature: who makes up a
//! token makes up promises to himself only.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{self, Malformed, Reader};
use super::history::History;
use super::ids::{ClusterUid, Incarnation, ShardIndex};
use super::seq::{Cursor, Seq, Version};

/// How the bytes are laid out.
const FORMAT: u8 = 1;
/// Most shards of which a token tells. A session that would go beyond it is refused before anything is done.
pub const SHARDS_MAX: usize = 128;
/// Most bytes of one position: shard, epoch, seq, incarnation.
const POSITION_BYTES_MAX: usize = 5 + 10 + 10 + 8;
/// Bytes of the rest: format, cluster, count, checksum.
const FRAME_BYTES: usize = 1 + 4 + 2 + 4;
/// Longest text of a token; longer ones are not looked at.
pub const TEXT_BYTES_MAX: usize = 6 << 10;
const _: () = assert!(
    (FRAME_BYTES + SHARDS_MAX * POSITION_BYTES_MAX).div_ceil(3) * 4 <= TEXT_BYTES_MAX,
    "what is given out must be taken back"
);

/// How far a session has seen each shard that it has met.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Token {
    /// The cluster's, as [`tag`] folds it; 0 when it was not known yet.
    cluster: u32,
    /// By shard, rising.
    positions: Vec<(ShardIndex, Version)>,
}

impl Token {
    /// Reads a token. The error says what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Token, Malformed> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Malformed("it is longer than any that is given out"));
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Malformed("it is not base64url"))?;
        let (body, sum) = bytes.split_last_chunk().ok_or(Malformed("it is cut short"))?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*sum) {
            return Err(Malformed("a part of it is missing or was changed"));
        }
        let mut reader = Reader::new(Bytes::copy_from_slice(body));
        if reader.u8()? != FORMAT {
            return Err(Malformed("it is of a newer program"));
        }
        let cluster = reader.u32()?;
        let positions = reader.list(SHARDS_MAX, take_position)?;
        reader.finish()?;
        if !positions.is_sorted_by(|(before, _), (shard, _)| before < shard) {
            return Err(Malformed("its shards are not in order"));
        }
        Ok(Token { cluster, positions })
    }

    /// Whether it may be of this cluster: one of the two may have been without a uid yet.
    #[must_use]
    pub fn is_of(&self, cluster: Option<ClusterUid>) -> bool {
        self.cluster == 0 || cluster.is_none_or(|cluster| self.cluster == tag(Some(cluster)))
    }

    /// How far it has seen a shard; none when it has not met it.
    #[must_use]
    pub fn position(&self, shard: ShardIndex) -> Option<Version> {
        let found = self.positions.iter().find(|(about, _)| *about == shard);
        found.map(|(_, position)| *position)
    }

    /// Whether it can take a position of this shard.
    #[must_use]
    pub fn has_room(&self, shard: ShardIndex) -> bool {
        self.positions.len() < SHARDS_MAX || self.position(shard).is_some()
    }

    /// The text of the token, with a shard's position in place of what it has of that shard.
    pub fn put_moved(&self, out: &mut Vec<u8>, cluster: Option<ClusterUid>, moved: Option<(ShardIndex, Version)>) {
        let kept = |(shard, _): &&(ShardIndex, Version)| moved.is_none_or(|(about, _)| about != *shard);
        let mut positions: Vec<_> = self.positions.iter().filter(kept).copied().chain(moved).collect();
        positions.sort_unstable_by_key(|(shard, _)| *shard);
        put_text(out, cluster.map_or(self.cluster, |cluster| tag(Some(cluster))), &positions);
    }
}

/// The text of a session's first token, which has met one shard.
pub fn put_first(out: &mut Vec<u8>, cluster: Option<ClusterUid>, shard: ShardIndex, position: Version) {
    put_text(out, tag(cluster), &[(shard, position)]);
}

fn put_text(out: &mut Vec<u8>, cluster: u32, positions: &[(ShardIndex, Version)]) {
    let mut bytes = BytesMut::with_capacity(FRAME_BYTES + positions.len() * POSITION_BYTES_MAX);
    bytes.put_u8(FORMAT);
    bytes.put_u32(cluster);
    codec::put_varint(&mut bytes, positions.len() as u64);
    for (shard, Version::Log { epoch, seq, incarnation }) in positions {
        codec::put_varint(&mut bytes, u64::from(shard.0));
        codec::put_varint(&mut bytes, *epoch);
        codec::put_varint(&mut bytes, seq.0);
        bytes.put_u64(incarnation.0);
    }
    let sum = crc32c::crc32c(&bytes);
    bytes.put_u32(sum);
    let at = out.len();
    out.resize(at + bytes.len().div_ceil(3) * 4, 0);
    let written = out.get_mut(at..).map_or(Ok(0), |room| URL_SAFE_NO_PAD.encode_slice(&bytes, room));
    out.truncate(at + written.unwrap_or_else(|error| unreachable!("there is room for all of it: {error}")));
}

fn take_position(reader: &mut Reader) -> Result<(ShardIndex, Version), Malformed> {
    let shard = ShardIndex(reader.varint_u32()?);
    let (epoch, seq) = (reader.varint()?, Seq(reader.varint()?));
    if seq == Seq::ZERO {
        return Err(Malformed("a position before the first entry"));
    }
    Ok((shard, Version::Log { epoch, seq, incarnation: Incarnation(reader.u64()?) }))
}

/// A cluster's uid in four bytes that are not 0; 0 for none. Enough to tell a mix-up: what a stranger's token says of its
/// shards matches no history anyway.
fn tag(cluster: Option<ClusterUid>) -> u32 {
    let Some(ClusterUid(uid)) = cluster else { return 0 };
    let [a, b, c, d, e, f, g, h] = uid.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]) ^ u32::from_be_bytes([e, f, g, h])).max(1)
}

/// Where a cursor stands, as sessions remember it.
#[must_use]
pub fn position_of(cursor: &Cursor) -> Version {
    Version::Log { epoch: cursor.epoch.number, seq: cursor.seq, incarnation: cursor.incarnation }
}

/// How a copy stands to a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// It holds that entry, and all that came before it.
    Yes,
    /// Not yet, as far as it can tell: its own part of the history may be a beginning of that one.
    NotYet,
    /// Its history went on without that entry.
    Never,
}

/// How the copy with this history stands to a position.
#[must_use]
pub fn reached(history: &History, position: Version) -> Reached {
    let Version::Log { epoch, seq, incarnation } = position;
    let (rows, end) = (history.rows(), history.end());
    let is_its = |row: &super::HistoryRow| row.incarnation == incarnation && row.epoch.number == epoch;
    if seq <= end {
        let at = rows.partition_point(|row| row.first <= seq);
        let row = at.checked_sub(1).and_then(|at| rows.get(at));
        return if row.is_some_and(is_its) { Reached::Yes } else { Reached::Never };
    }
    // It may come, unless what this copy holds was written later than that, or has left that opening behind.
    match rows.split_last() {
        Some((last, earlier)) if last.epoch.number > epoch || earlier.iter().any(is_its) => Reached::Never,
        _ => Reached::NotYet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, HistoryRow, NodeName};
    use proptest::prelude::*;

    fn version(epoch: u64, incarnation: u64, seq: u64) -> Version {
        Version::Log { epoch, seq: Seq(seq), incarnation: Incarnation(incarnation) }
    }

    fn text(token: &Token, cluster: Option<u64>, moved: Option<(u32, Version)>) -> Vec<u8> {
        let mut out = b"before".to_vec();
        let moved = moved.map(|(shard, position)| (ShardIndex(shard), position));
        token.put_moved(&mut out, cluster.map(ClusterUid), moved);
        out.split_off(6)
    }

    fn positions() -> impl Strategy<Value = std::collections::BTreeMap<u32, (u64, u64, u64)>> {
        proptest::collection::btree_map(any::<u32>(), (any::<u64>(), any::<u64>(), 1..u64::MAX), 0..SHARDS_MAX)
    }

    proptest! {
        #[test]
        fn token_comes_back_from_its_text_and_moves(
            positions in positions(), cluster: Option<u64>, shard: u32, to in (any::<u64>(), any::<u64>(), 1..u64::MAX),
        ) {
            let to = version(to.0, to.1, to.2);
            let mut token = Token::default();
            for (shard, (epoch, incarnation, seq)) in &positions {
                let moved = Some((*shard, version(*epoch, *incarnation, *seq)));
                token = Token::parse(&text(&token, cluster, moved)).unwrap();
            }
            prop_assert!(token.is_of(cluster.map(ClusterUid)) && token.is_of(None));
            let moved = Token::parse(&text(&token, None, Some((shard, to)))).unwrap();
            prop_assert_eq!(moved.position(ShardIndex(shard)), Some(to));
            prop_assert!(moved.is_of(cluster.map(ClusterUid)), "what is known of the cluster is kept");
            for (other, (epoch, incarnation, seq)) in positions.iter().filter(|(other, _)| **other != shard) {
                let position = Some(version(*epoch, *incarnation, *seq));
                prop_assert_eq!(moved.position(ShardIndex(*other)), position);
            }
        }

        #[test]
        fn token_of_rubbish_is_refused(bytes: Vec<u8>, letters in "[A-Za-z0-9_-]{0,200}") {
            // The checksum leaves rubbish one chance in four milliards.
            prop_assert!(Token::parse(&bytes).is_err());
            prop_assert!(Token::parse(letters.as_bytes()).is_err());
        }

        #[test]
        fn token_that_was_changed_or_cut_is_refused(positions in positions(), at: prop::sample::Index, by in 1_u8..64) {
            let at_version = |(shard, (epoch, incarnation, seq))| (ShardIndex(shard), version(epoch, incarnation, seq));
            let token = Token { cluster: 0, positions: positions.into_iter().map(at_version).collect() };
            let text = text(&token, Some(7), None);
            let at = at.index(text.len());
            prop_assert!(Token::parse(&text[..at]).is_err());
            let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let digit = alphabet.iter().position(|letter| *letter == text[at]).unwrap();
            let mut changed = text.clone();
            changed[at] = alphabet[(digit + usize::from(by)) % 64];
            prop_assert!(Token::parse(&changed).is_err());
        }
    }

    /// Tokens live longer than programs: these letters change only together with the format.
    #[test]
    fn token_has_its_golden_text() {
        let mut first = Vec::new();
        put_first(&mut first, Some(ClusterUid(0x0102_0304_0506_0708)), ShardIndex(2), version(3, 9, 300));
        assert_eq!(String::from_utf8(first.clone()).unwrap(), GOLDEN);
        let token = Token::parse(&first).unwrap();
        assert_eq!(token.position(ShardIndex(2)), Some(version(3, 9, 300)));
        assert_eq!(token.position(ShardIndex(3)), None);
    }

    const GOLDEN: &str = "AQQEBAwBAgOsAgAAAAAAAAAJZbBS2Q";

    #[test]
    fn token_of_another_cluster_is_told_from_one_of_a_cluster_without_a_uid() {
        let of = |cluster| Token::parse(&text(&Token::default(), cluster, None)).unwrap();
        assert!(of(Some(7)).is_of(Some(ClusterUid(7))) && of(Some(7)).is_of(None));
        assert!(!of(Some(7)).is_of(Some(ClusterUid(8))));
        assert!(of(None).is_of(Some(ClusterUid(8))));
        assert_eq!(tag(Some(ClusterUid(0))), 1);
    }

    #[test]
    fn token_that_is_full_has_room_for_the_shards_that_it_has_met() {
        let shards = u32::try_from(SHARDS_MAX).unwrap();
        let positions = (0..shards).map(|shard| (ShardIndex(shard), version(1, 1, 1))).collect();
        let token = Token { cluster: 0, positions };
        assert!(token.has_room(ShardIndex(0)) && !token.has_room(ShardIndex(shards)));
        assert_eq!(Token::parse(&text(&token, None, None)), Ok(token.clone()));
        assert!(Token::parse(&text(&token, None, Some((shards, version(1, 1, 1))))).is_err());
    }

    #[test]
    fn reached_is_told_by_the_row_that_wrote_the_entry() {
        let row = |number, leader: &str, incarnation, first| HistoryRow {
            epoch: Epoch { number, leader: NodeName::new(leader) },
            incarnation: Incarnation(incarnation),
            first: Seq(first),
        };
        let rows = vec![row(1, "A/0", 10, 1), row(1, "A/0", 11, 42), row(2, "A/1", 12, 50)];
        let history = History::new(rows.clone(), Seq(60)).unwrap();
        let (yes, not_yet, never) = (Reached::Yes, Reached::NotYet, Reached::Never);
        for (position, expected) in [
            (version(1, 10, 1), yes),
            (version(1, 10, 41), yes),
            (version(1, 10, 42), never), // another opening wrote that entry
            (version(1, 11, 42), yes),
            (version(1, 11, 55), never), // lost: the next leader never had it
            (version(1, 11, 61), never), // the same, beyond this copy's end
            (version(1, 99, 61), never), // an opening of an epoch that is over
            (version(2, 12, 60), yes),
            (version(2, 12, 61), not_yet),
            (version(2, 13, 61), not_yet), // the same leader after a restart
            (version(2, 13, 55), never),
            (version(3, 14, 61), not_yet), // a leader that this copy has not heard of
            (version(3, 14, 55), never),   // this copy left that history before
        ] {
            assert_eq!(reached(&history, position), expected, "{position}");
        }
        let before = History::new(rows[..2].to_vec(), Seq(45)).unwrap();
        assert_eq!(reached(&before, version(2, 12, 50)), not_yet);
        assert_eq!(reached(&before, version(1, 10, 46)), never);
        assert_eq!(reached(&History::default(), version(1, 10, 1)), not_yet);
    }
}
