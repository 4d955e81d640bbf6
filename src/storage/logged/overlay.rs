//! What was written since the last feed began: the newest state of each key, in memory. One writer inserts, many read.
//!
//! The map is cut into shards with a lock each, so readers hardly ever meet each other or the writer; an entry of several
//! mutations holds the locks of all of its shards at once, so that nobody sees half of it. Values share the memory of the
//! entry that brought them. Keys are hashed with a random state per map: strangers choose them.
//!
//! Not ordered: point reads are what it is for. The first walk over a range sorts the keys; from then on new keys are
//! noted as they come.

use std::collections::hash_map::{Entry as Slots, RandomState};
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::storage::{Error, LogEntry};
use crate::types::{Change, Content, Key, Record, Space};

/// Enough that two readers and a writer seldom want the same one.
const SHARDS: usize = 64;

/// What a key costs beside its own bytes and its value's, about: its place in the map, its record, its allocations.
const KEY_OVERHEAD: usize = 320;

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

type Shard = HashMap<Key, Slot, RandomState>;

/// One key.
#[derive(Debug)]
struct Slot {
    /// None: the key is gone.
    record: Option<Record>,
    /// Whether the layer below has the key; looked up when somebody counts keys.
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
    /// What the overlay knows of `key`: none when it was not written; the inner none when it is gone.
    pub(super) fn get(&self, space: Space, key: &Key) -> Option<Option<Record>> {
        self.shard(space, key).read().get(key).map(|slot| slot.record.clone())
    }

    /// The same, without the record.
    pub(super) fn contains(&self, space: Space, key: &Key) -> Option<bool> {
        self.shard(space, key).read().get(key).map(|slot| slot.record.is_some())
    }

    /// Takes the effects of an entry, all at once.
    pub(super) fn apply(&self, LogEntry { entry, bytes }: &LogEntry) {
        let changes = entry.mutations.iter().map(|mutation| {
            let Space::Data = mutation.space; // one table yet; a second space makes this a choice
            let record = match &mutation.change {
                Change::Put(content) => Some(Record { version: entry.version(), content: shared(bytes, content) }),
                Change::Delete => None,
            };
            (&mutation.key, record)
        });
        if let [only] = &entry.mutations[..] {
            let mut shard = self.shard(only.space, &only.key).write();
            changes.for_each(|(key, record)| self.insert(&mut shard, bytes, key, record));
            return;
        }
        let mut places: Vec<usize> = entry.mutations.iter().map(|mutation| shard_of(&mutation.key)).collect();
        places.sort_unstable();
        places.dedup();
        let mut locked: HashMap<usize, RwLockWriteGuard<'_, Shard>> = HashMap::new(); // in order: nobody else takes two
        for place in places {
            if let Some(shard) = self.shards.get(place) {
                locked.insert(place, shard.write());
            }
        }
        for (key, record) in changes {
            if let Some(shard) = locked.get_mut(&shard_of(key)) {
                self.insert(shard, bytes, key, record);
            }
        }
    }

    fn insert(&self, shard: &mut Shard, bytes: &Bytes, key: &Key, record: Option<Record>) {
        let size_of = |record: &Option<Record>| record.as_ref().map_or(0, |record| record.content.value.len());
        let added = size_of(&record);
        let key = shared_key(bytes, key);
        let cost = key.as_bytes().len() * 2 + KEY_OVERHEAD;
        match shard.entry(key) {
            Slots::Occupied(mut place) => {
                let removed = size_of(&place.get().record);
                place.get_mut().record = record;
                self.bytes.fetch_add(added, Ordering::Relaxed);
                self.bytes.fetch_sub(removed, Ordering::Relaxed);
            }
            Slots::Vacant(place) => {
                if self.is_ordered.load(Ordering::SeqCst) {
                    self.order.lock().new.push(place.key().clone());
                }
                place.insert(Slot { record, below: AtomicU8::new(BELOW_UNKNOWN) });
                self.bytes.fetch_add(added + cost, Ordering::Relaxed);
                self.keys.fetch_add(1, Ordering::Relaxed);
            }
        }
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
                let keys: Vec<Key> = shard.read().keys().cloned().collect();
                self.order.lock().new.extend(keys);
            }
        }
        let mut order = self.order.lock();
        let new = std::mem::take(&mut order.new);
        order.sorted.extend(new);
    }

    /// The states of the keys above `after` and up to `until`, in order. Exact when nobody inserts meanwhile.
    pub(super) fn walk(&self, after: Option<&Key>, until: Option<&Key>) -> Vec<(Key, Option<Record>)> {
        self.prepare_walk();
        if after.zip(until).is_some_and(|(after, until)| after >= until) {
            return Vec::new();
        }
        let order = self.order.lock();
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), until.map_or(Bound::Unbounded, Bound::Included));
        let states = order.sorted.range::<Key, _>(range).map(|key| (key.clone(), self.get(Space::Data, key).flatten()));
        states.collect()
    }

    /// Shows every key with its state, in order. Readers go on; nobody may insert any more.
    pub(super) fn with_sorted<T>(&self, work: impl FnOnce(&[(&Key, Option<&Record>)]) -> T) -> T {
        let shards: Vec<RwLockReadGuard<'_, Shard>> = self.shards.iter().map(|shard| shard.read()).collect();
        let states = shards.iter().flat_map(|shard| shard.iter().map(|(key, slot)| (key, slot.record.as_ref())));
        let mut sorted: Vec<(&Key, Option<&Record>)> = states.collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        work(&sorted)
    }

    /// How many keys there are more, or fewer, than in the layer below. Each key is looked up there once.
    pub(super) fn keys_added(&self, below: impl Fn(&Key) -> Result<bool, Error>) -> Result<i64, Error> {
        let mut added = 0;
        for shard in &self.shards {
            for (key, slot) in &*shard.read() {
                let was = match slot.below.load(Ordering::Relaxed) {
                    BELOW_UNKNOWN => {
                        let present = below(key)?;
                        let known = if present { BELOW_PRESENT } else { BELOW_ABSENT };
                        slot.below.store(known, Ordering::Relaxed);
                        present
                    }
                    known => known == BELOW_PRESENT,
                };
                added += i64::from(slot.record.is_some()) - i64::from(was);
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

/// The content, sharing the memory of the entry's `bytes`. An entry that was made here still holds a part of its request:
/// what came with that in one buffer must not stay in memory with it.
fn shared(bytes: &Bytes, content: &Content) -> Content {
    Content {
        expiry: content.expiry,
        content_type: content.content_type.as_ref().map(|content_type| shared_bytes(bytes, content_type)),
        value: shared_bytes(bytes, &content.value),
    }
}

fn shared_key(bytes: &Bytes, key: &Key) -> Key {
    Key::new(shared_bytes(bytes, key.bytes()), usize::MAX)
        .unwrap_or_else(|fault| unreachable!("the same bytes are a key again: {fault}"))
}

fn shared_bytes(bytes: &Bytes, part: &Bytes) -> Bytes {
    let (whole, inner) = (bytes.as_ptr_range(), part.as_ptr_range());
    if whole.start <= inner.start && inner.end <= whole.end { part.clone() } else { Bytes::copy_from_slice(part) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::types::key::KEY_BYTES_CEILING;
    use crate::types::{Entry, Epoch, Incarnation, Mutation, NodeName, Seq, ShardIndex, UnixMs};

    fn key(name: impl Into<Bytes>) -> Key {
        Key::new(name, KEY_BYTES_CEILING).unwrap()
    }

    fn entry(seq: u64, changes: &[(&str, Option<&str>)]) -> LogEntry {
        let mutations = changes.iter().map(|(name, value)| Mutation {
            space: Space::Data,
            key: key(name.to_string()),
            change: value.map_or(Change::Delete, |value| Change::Put(Content::of(value.to_owned()))),
        });
        let entry = Entry {
            shard: ShardIndex(0),
            epoch: Epoch::first(NodeName::new("A/0")),
            incarnation: Incarnation(1),
            seq: Seq(seq),
            time: UnixMs(1),
            mutations: mutations.collect(),
        };
        LogEntry { bytes: entry.encode(), entry }
    }

    fn walked(overlay: &Overlay, after: Option<&str>, until: Option<&str>) -> Vec<(String, bool)> {
        let (after, until) = (after.map(|name| key(name.to_owned())), until.map(|name| key(name.to_owned())));
        let states = overlay.walk(after.as_ref(), until.as_ref()).into_iter();
        states.map(|(key, record)| (String::from_utf8(key.as_bytes().to_vec()).unwrap(), record.is_some())).collect()
    }

    #[test]
    fn walk_is_in_order_with_keys_from_before_and_after_the_first_walk() {
        let overlay = Overlay::default();
        overlay.apply(&entry(1, &[("c", Some("1")), ("a", Some("1"))]));
        assert_eq!(walked(&overlay, None, None), [("a".into(), true), ("c".into(), true)]);
        overlay.apply(&entry(2, &[("b", Some("2")), ("a", None), ("d", None)]));
        assert_eq!(walked(&overlay, Some("a"), Some("c")), [("b".into(), true), ("c".into(), true)]);
        assert_eq!(walked(&overlay, Some("c"), None), [("d".into(), false)]);
        assert_eq!(walked(&overlay, Some("d"), Some("d")), []);
        let all =
            overlay.with_sorted(|states| states.iter().map(|(key, _)| key.as_bytes().to_vec()).collect::<Vec<_>>());
        assert_eq!(all, [b"a", b"b", b"c", b"d"]);
    }

    #[test]
    fn value_shares_the_entrys_memory_and_not_that_of_its_request() {
        let overlay = Overlay::default();
        let mut request = Bytes::from(vec![7; 100_000]);
        let mut made_here = entry(1, &[("k", Some(""))]);
        let value = request.split_to(100);
        made_here.entry.mutations[0].change = Change::Put(Content::of(value.clone()));
        made_here.bytes = made_here.entry.encode();
        overlay.apply(&made_here);
        let kept = overlay.get(Space::Data, &key("k")).unwrap().unwrap().content.value;
        assert_eq!(kept, value);
        assert!(!request.as_ptr_range().contains(&kept.as_ptr()) && kept.as_ptr() != value.as_ptr());
        let received = Entry::decode(made_here.bytes.clone()).unwrap();
        overlay.apply(&LogEntry { entry: received, bytes: made_here.bytes.clone() });
        let kept = overlay.get(Space::Data, &key("k")).unwrap().unwrap().content.value;
        assert!(made_here.bytes.as_ptr_range().contains(&kept.as_ptr()));
    }

    #[test]
    fn keys_added_follows_what_is_below_and_what_comes_later() {
        let overlay = Overlay::default();
        let below = |key: &Key| Ok(key.as_bytes() == b"old");
        overlay.apply(&entry(1, &[("old", Some("1")), ("new", Some("1")), ("nothing", None)]));
        assert_eq!(overlay.keys_added(below), Ok(1));
        overlay.apply(&entry(2, &[("old", None), ("nothing", Some("2"))]));
        assert_eq!(overlay.keys_added(|_| panic!("looked up already")), Ok(1));
        assert!(overlay.keys_added(|_| Err(Error::Failed("no".into()))).is_ok());
        overlay.apply(&entry(3, &[("newer", None)]));
        assert!(overlay.keys_added(|_| Err(Error::Failed("no".into()))).is_err());
    }

    #[test]
    fn bytes_follow_values_that_are_replaced() {
        let overlay = Overlay::default();
        overlay.apply(&entry(1, &[("k", Some(""))]));
        let empty = overlay.bytes();
        overlay.apply(&entry(2, &[("k", Some(&"x".repeat(1000)))]));
        assert_eq!(overlay.bytes(), empty + 1000);
        overlay.apply(&entry(3, &[("k", None)]));
        assert_eq!((overlay.bytes(), overlay.len()), (empty, 1));
    }

    /// An entry's mutations are seen all or none: whoever reads one of them and then the other sees no older state.
    #[test]
    fn entry_of_two_keys_is_never_seen_by_half() {
        let overlay = Overlay::default();
        let done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for seq in 1..=20_000 {
                    overlay.apply(&entry(seq, &[("first", Some("v")), ("second", Some("v"))]));
                }
                done.store(true, Ordering::SeqCst);
            });
            let seq_of = |name| {
                let record = overlay.get(Space::Data, &key(name)).flatten();
                record.map_or(0, |record| record.version.seq().0)
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
