//! What was written since the last feed began: the newest state of each key, in memory. One writer inserts, many read.
//!
//! The map is cut into shards with a lock each, so readers hardly ever meet each other or the writer; an entry of several
//! mutations holds the locks of all of its shards at once, so that nobody sees half of it. A key and its record are one
//! allocation, of the bytes that the file will hold: the less a key takes here, the more keys are in a feed, and the less
//! each costs the device. Keys are hashed with a random state per map: strangers choose them.
//!
//! Not ordered: point reads are what it is for. The first walk over a range sorts the keys; from then on new keys are
//! noted as they come.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashSet};
use std::hash::{Hash, Hasher, RandomState};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::storage::Error;
use crate::types::{Change, Entry, Key, Mutation, Space};

/// Enough that two readers and a writer seldom want the same one.
const SHARDS: usize = 64;

/// What a key costs beside the bytes of itself and its record, about: its place in the map, and what an allocation adds.
const KEY_OVERHEAD: usize = 112;

/// The newest state of every key that was written.
#[derive(Debug)]
pub(super) struct Overlay {
    shards: Box<[RwLock<Shard>]>,
    /// About what it takes in memory, in bytes.
    bytes: AtomicUsize,
    keys: AtomicUsize,
    /// Somebody has walked it: new keys are noted in `order`.
    is_ordered: AtomicBool,
    order: Mutex<Order>,
}

type Shard = HashSet<State, RandomState>;

/// What a key holds: the encoded record, as the file will have it; none: the key is gone.
pub(super) type Held = Option<Bytes>;

/// The state of one key.
#[derive(Debug)]
struct State {
    /// The key, and behind it the record; nothing behind it when the key is gone.
    bytes: Bytes,
    key_len: u32,
    /// Whether the layer below has the key, as far as is known.
    below: AtomicU8,
}

const BELOW_UNKNOWN: u8 = 0;
const BELOW_ABSENT: u8 = 1;
const BELOW_PRESENT: u8 = 2;

/// The keys in order, as far as anybody has asked for it.
#[derive(Debug, Default)]
struct Order {
    sorted: BTreeSet<Key>,
    /// Noted since.
    new: Vec<Key>,
}

impl State {
    fn of(mutation: &Mutation, entry: &Entry, below: u8) -> State {
        let key = mutation.key.as_bytes();
        let key_len = u32::try_from(key.len()).unwrap_or_else(|_| unreachable!("a key has at most some KiB"));
        let record = match &mutation.change {
            Change::Put(content) => entry.record(content).encode(),
            Change::Delete => Bytes::new(),
        };
        let mut bytes = Vec::with_capacity(key.len() + record.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(&record);
        State { bytes: bytes.into(), key_len, below: AtomicU8::new(below) }
    }

    fn key(&self) -> &[u8] {
        self.bytes.get(..self.key_len as usize).unwrap_or_default()
    }

    fn is_put(&self) -> bool {
        self.bytes.len() > self.key_len as usize
    }

    fn record(&self) -> Option<&[u8]> {
        self.bytes.get(self.key_len as usize..).filter(|record| !record.is_empty())
    }

    fn held(&self) -> Held {
        self.is_put().then(|| self.bytes.slice(self.key_len as usize..))
    }

    fn shared_key(&self) -> Key {
        Key::new(self.bytes.slice(..self.key_len as usize), usize::MAX)
            .unwrap_or_else(|fault| unreachable!("it was a key before: {fault}"))
    }
}

/// States are found by their keys.
impl Borrow<[u8]> for State {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.key().hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        self.key() == other.key()
    }
}

impl Eq for State {}

impl Default for Overlay {
    fn default() -> Overlay {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Overlay {
            shards,
            bytes: AtomicUsize::new(0),
            keys: AtomicUsize::new(0),
            is_ordered: AtomicBool::new(false),
            order: Mutex::default(),
        }
    }
}

impl Overlay {
    /// What the overlay knows of `key`: none when it was not written.
    pub(super) fn get(&self, space: Space, key: &Key) -> Option<Held> {
        self.shard(space, key).read().get(key.as_bytes()).map(State::held)
    }

    /// The same, without the record.
    pub(super) fn contains(&self, space: Space, key: &Key) -> Option<bool> {
        self.shard(space, key).read().get(key.as_bytes()).map(State::is_put)
    }

    /// Takes the effects of an entry, all at once. `existed`: whether the key of its only mutation had a record before, if
    /// that is known; it saves a look when keys are counted.
    pub(super) fn apply(&self, entry: &Entry, existed: Option<bool>) {
        if let [only] = &entry.mutations[..] {
            let below = existed.map_or(BELOW_UNKNOWN, |existed| if existed { BELOW_PRESENT } else { BELOW_ABSENT });
            let state = State::of(only, entry, below);
            return self.insert(&mut self.shard(only.space, &only.key).write(), state);
        }
        let mut places: Vec<usize> = entry.mutations.iter().map(|mutation| shard_of(&mutation.key)).collect();
        places.sort_unstable();
        places.dedup();
        let locked = places.into_iter().filter_map(|place| Some((place, self.shards.get(place)?.write())));
        let mut locked: Vec<(usize, RwLockWriteGuard<'_, Shard>)> = locked.collect(); // in order: nobody else takes two
        for mutation in &entry.mutations {
            let Space::Data = mutation.space; // one table yet; a second space makes this a choice
            let state = State::of(mutation, entry, BELOW_UNKNOWN);
            let place = shard_of(&mutation.key);
            if let Some((_, shard)) = locked.iter_mut().find(|(locked, _)| *locked == place) {
                self.insert(shard, state);
            }
        }
    }

    #[expect(clippy::mutable_key_type, reason = "what changes in a state is no part of its key")]
    fn insert(&self, shard: &mut Shard, state: State) {
        let added = state.bytes.len();
        match shard.take(state.key()) {
            Some(before) => {
                state.below.store(before.below.into_inner(), Ordering::Relaxed);
                self.bytes.fetch_add(added, Ordering::Relaxed);
                self.bytes.fetch_sub(before.bytes.len(), Ordering::Relaxed);
            }
            None => {
                if self.is_ordered.load(Ordering::SeqCst) {
                    self.order.lock().new.push(state.shared_key());
                }
                self.bytes.fetch_add(added + KEY_OVERHEAD, Ordering::Relaxed);
                self.keys.fetch_add(1, Ordering::Relaxed);
            }
        }
        shard.insert(state);
    }

    /// About what it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many keys were written, those that are gone included.
    pub(super) fn len(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// Sorts the keys that nobody has sorted yet, so that a walk that follows does it for few.
    pub(super) fn prepare_walk(&self) {
        if !self.is_ordered.swap(true, Ordering::SeqCst) {
            // What is inserted from here on is noted, and what was inserted before is found here; both may be.
            for shard in &self.shards {
                let keys: Vec<Key> = shard.read().iter().map(State::shared_key).collect();
                self.order.lock().new.extend(keys);
            }
        }
        let mut order = self.order.lock();
        let new = std::mem::take(&mut order.new);
        order.sorted.extend(new);
    }

    /// The states of the keys above `after` and up to `until`, in order. Exact when nobody inserts meanwhile.
    pub(super) fn walk(&self, after: Option<&Key>, until: Option<&Key>) -> Vec<(Key, Held)> {
        self.prepare_walk();
        if after.zip(until).is_some_and(|(after, until)| after >= until) {
            return Vec::new();
        }
        let order = self.order.lock();
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), until.map_or(Bound::Unbounded, Bound::Included));
        let states = order.sorted.range::<Key, _>(range).map(|key| (key.clone(), self.get(Space::Data, key).flatten()));
        states.collect()
    }

    /// Shows every key with its encoded record, in order. Readers go on; nobody may insert any more.
    pub(super) fn with_sorted<T>(&self, work: impl FnOnce(&[(&[u8], Option<&[u8]>)]) -> T) -> T {
        let shards: Vec<RwLockReadGuard<'_, Shard>> = self.shards.iter().map(|shard| shard.read()).collect();
        let states = shards.iter().flat_map(|shard| shard.iter().map(|state| (state.key(), state.record())));
        let mut sorted: Vec<(&[u8], Option<&[u8]>)> = states.collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        work(&sorted)
    }

    /// How many keys there are more, or fewer, than in the layer below. Where nobody has said whether that has a key, it is
    /// looked up there once, as long as `looks` are left; beyond them, a key counts as if nothing had changed.
    pub(super) fn keys_added(
        &self,
        looks: &mut usize,
        below: impl Fn(&Key) -> Result<bool, Error>,
    ) -> Result<i64, Error> {
        let mut added = 0;
        for shard in &self.shards {
            let is_unknown = |state: &&State| state.below.load(Ordering::Relaxed) == BELOW_UNKNOWN;
            let unknown: Vec<Key> =
                shard.read().iter().filter(is_unknown).take(*looks).map(State::shared_key).collect();
            *looks -= unknown.len();
            for key in unknown {
                let known = if below(&key)? { BELOW_PRESENT } else { BELOW_ABSENT }; // without the lock: it reads the file
                if let Some(state) = shard.read().get(key.as_bytes()) {
                    state.below.store(known, Ordering::Relaxed);
                }
            }
            for state in &*shard.read() {
                added += match state.below.load(Ordering::Relaxed) {
                    BELOW_UNKNOWN => 0,
                    known => i64::from(state.is_put()) - i64::from(known == BELOW_PRESENT),
                };
            }
        }
        Ok(added)
    }

    fn shard(&self, space: Space, key: &Key) -> &RwLock<Shard> {
        let Space::Data = space;
        self.shards.get(shard_of(key)).unwrap_or_else(|| unreachable!("the remainder is below the number of shards"))
    }
}

/// Which shard a key is in. Keys that share one by somebody's intent share a lock, no more.
fn shard_of(key: &Key) -> usize {
    let tail = key.as_bytes().iter().rev().take(8);
    tail.fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(*byte))) % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::key::KEY_BYTES_CEILING;
    use crate::types::{Content, Epoch, Incarnation, NodeName, Record, Seq, ShardIndex, UnixMs};

    fn key(name: impl Into<Bytes>) -> Key {
        Key::new(name, KEY_BYTES_CEILING).unwrap()
    }

    fn entry(seq: u64, changes: &[(&str, Option<&str>)]) -> Entry {
        let mutations = changes.iter().map(|(name, value)| Mutation {
            space: Space::Data,
            key: key(name.to_string()),
            change: value.map_or(Change::Delete, |value| Change::Put(Content::of(value.to_owned()))),
        });
        Entry {
            shard: ShardIndex(0),
            epoch: Epoch::first(NodeName::new("A/0")),
            incarnation: Incarnation(1),
            seq: Seq(seq),
            time: UnixMs(1),
            mutations: mutations.collect(),
        }
    }

    fn walked(overlay: &Overlay, after: Option<&str>, until: Option<&str>) -> Vec<(String, bool)> {
        let (after, until) = (after.map(|name| key(name.to_owned())), until.map(|name| key(name.to_owned())));
        let states = overlay.walk(after.as_ref(), until.as_ref()).into_iter();
        states.map(|(key, record)| (String::from_utf8(key.as_bytes().to_vec()).unwrap(), record.is_some())).collect()
    }

    #[test]
    fn walk_is_in_order_with_keys_from_before_and_after_the_first_walk() {
        let overlay = Overlay::default();
        overlay.apply(&entry(1, &[("c", Some("1")), ("a", Some("1"))]), None);
        assert_eq!(walked(&overlay, None, None), [("a".into(), true), ("c".into(), true)]);
        overlay.apply(&entry(2, &[("b", Some("2")), ("a", None), ("d", None)]), None);
        assert_eq!(walked(&overlay, Some("a"), Some("c")), [("b".into(), true), ("c".into(), true)]);
        assert_eq!(walked(&overlay, Some("c"), None), [("d".into(), false)]);
        assert_eq!(walked(&overlay, Some("d"), Some("d")), []);
        let all = overlay.with_sorted(|states| states.iter().map(|(key, _)| key.to_vec()).collect::<Vec<_>>());
        assert_eq!(all, [b"a", b"b", b"c", b"d"]);
    }

    #[test]
    fn get_gives_the_encoded_record_of_the_newest_write() {
        let overlay = Overlay::default();
        let second = entry(2, &[("k", Some("2"))]);
        overlay.apply(&entry(1, &[("k", Some("1"))]), None);
        overlay.apply(&second, None);
        let record = second.record(&Content::of("2")).encode();
        assert_eq!(overlay.get(Space::Data, &key("k")), Some(Some(record)));
        assert_eq!(overlay.get(Space::Data, &key("kk")), None, "a key that begins with another");
        overlay.apply(&entry(3, &[("k", None)]), None);
        assert_eq!(overlay.get(Space::Data, &key("k")), Some(None));
    }

    #[test]
    fn keys_added_follows_what_is_below_and_what_comes_later() {
        let overlay = Overlay::default();
        let below = |key: &Key| Ok(key.as_bytes() == b"old");
        overlay.apply(&entry(1, &[("old", Some("1")), ("new", Some("1")), ("nothing", None)]), None);
        assert!(overlay.keys_added(&mut 0, |_| panic!("no looks are left")) == Ok(0));
        assert_eq!(overlay.keys_added(&mut 3, below), Ok(1));
        overlay.apply(&entry(2, &[("old", None), ("nothing", Some("2"))]), None);
        assert_eq!(overlay.keys_added(&mut 9, |_| panic!("looked up already")), Ok(1));
        overlay.apply(&entry(3, &[("said", Some("3"))]), Some(true));
        overlay.apply(&entry(4, &[("said", None)]), Some(true));
        assert_eq!(overlay.keys_added(&mut 9, |_| panic!("it was said")), Ok(0));
        overlay.apply(&entry(5, &[("newer", None)]), None);
        assert!(overlay.keys_added(&mut 9, |_| Err(Error::Failed("no".into()))).is_err());
    }

    #[test]
    fn bytes_follow_values_that_are_replaced() {
        let overlay = Overlay::default();
        overlay.apply(&entry(1, &[("k", Some(""))]), None);
        let empty = overlay.bytes();
        overlay.apply(&entry(2, &[("k", Some(&"x".repeat(1000)))]), None);
        assert_eq!(overlay.bytes(), empty + 1000);
        overlay.apply(&entry(3, &[("k", Some(""))]), None);
        assert_eq!((overlay.bytes(), overlay.len()), (empty, 1));
        overlay.apply(&entry(4, &[("k", None)]), None);
        assert!(overlay.bytes() < empty && overlay.bytes() > KEY_OVERHEAD);
    }

    /// An entry's mutations are seen all or none: whoever reads one of them and then the other sees no older state.
    #[test]
    fn entry_of_two_keys_is_never_seen_by_half() {
        let overlay = Overlay::default();
        let done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for seq in 1..=20_000 {
                    overlay.apply(&entry(seq, &[("first", Some("v")), ("second", Some("v"))]), None);
                }
                done.store(true, Ordering::SeqCst);
            });
            let seq_of = |name| {
                let record = overlay.get(Space::Data, &key(name)).flatten();
                record.map_or(0, |record| Record::decode(record).unwrap().version.seq().0)
            };
            while !done.load(Ordering::SeqCst) {
                let first = seq_of("first");
                let second = seq_of("second");
                assert!(second >= first, "{second} after {first}");
                assert!(seq_of("first") >= second);
            }
        });
    }
}
