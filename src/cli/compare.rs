//! Compares a shard's copies range by range while writes go on. What is asked and waited for is handed in, so that tests
//! need no network.
//!
//! ```text
//!   leader at seq a ─▶ replica at seq b >= a ─▶ leader at seq c          the same range each time
//! ```
//!
//! Equal sums are equal data. Unequal ones may be a write in flight: but a copy that follows holds at b what its leader
//! held at b, so when the leader's sum at a and at c is one and the same and the replica's between them is another, the
//! copies differ. Seen twice, it counts; a key that was made and deleted between a and c may fool it once. Equal sums mean
//! equal data whichever of the two looks at the leader the replica's equals, so the range has to hold still only between
//! two looks that follow one another at once. A range that changes too often even so is cut smaller, and so is one that
//! differs: this until it is small enough to name, that down to single keys, which are looked at again and again, with
//! growing pauses, before one is said to be written without a pause.

use crate::store::view::RangeSum;

/// Times that a range of several records is compared before it is cut: smaller ones change less often.
const ATTEMPTS: u32 = 4;
/// Times that a single key is compared before it counts as written without a pause.
const KEY_ATTEMPTS: u32 = 10;
/// The pause grows with the attempts, up to so many times its length.
const PAUSES_MAX: u32 = 5;
/// Times that the same difference must be seen.
const SIGHTINGS: u32 = 2;
/// Times that a copy is asked again while it has not come as far as its leader was.
const BEHIND_ASKS: u32 = 50;
/// A range of so many records or fewer that differs is named as it is.
const SMALL: u64 = 16;
/// Most ranges that are named for one copy; there may be more.
pub(crate) const NAMED_MAX: usize = 20;

/// What is asked of a copy. Keys in base64url.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Span {
    /// From behind this key.
    pub(crate) after: Option<String>,
    /// Up to this one, which counts; none: as far as one answer reaches.
    pub(crate) until: Option<String>,
    /// At most so many records.
    pub(crate) limit: Option<u64>,
}

/// The copies, as they are asked.
pub(crate) trait Copies {
    /// The sum of a range of the leader's copy.
    async fn leader(&self, span: Span) -> Result<RangeSum, String>;
    /// The sum of a range of a replica's copy.
    async fn replica(&self, replica: usize, span: Span) -> Result<RangeSum, String>;
    /// Lets writes in flight arrive.
    async fn pause(&self);
    /// So many records were compared.
    fn progress(&self, records: u64);
}

/// A range in which two copies differ, or that changes too often to be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    /// From behind this key.
    pub(crate) after: Option<String>,
    /// What the leader holds in it, and where it ends.
    pub(crate) leader: RangeSum,
    /// What the replica holds in it.
    pub(crate) replica: RangeSum,
}

/// What was found of one replica.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Found {
    /// Where it differs; at most [`NAMED_MAX`].
    pub(crate) differs: Vec<Range>,
    /// Where it could not be compared, for it changes too often: single keys; at most as many.
    pub(crate) busy: Vec<Range>,
    /// Why some or all of it was not compared: it is away, or behind.
    pub(crate) missing: Option<String>,
    /// It has stopped following: waiting for it once was enough.
    pub(crate) stalled: bool,
}

/// The whole comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Ranges that the leader's copy was read in.
    pub(crate) ranges: u64,
    /// Records of the leader's copy.
    pub(crate) records: u64,
    /// The leader's last entry when the last range was read.
    pub(crate) at: u64,
    /// One for each replica.
    pub(crate) found: Vec<Found>,
}

enum Verdict {
    Same,
    Differs(Range),
    Busy(Range),
    Missing(String),
    /// The leader's last range has become too long for one answer.
    Grown,
}

/// Walks the leader's copy and compares each replica's. An error is the leader's.
pub(crate) async fn compare(copies: &impl Copies, replicas: usize) -> Result<Comparison, String> {
    let mut all = Comparison { ranges: 0, records: 0, at: 0, found: vec![Found::default(); replicas] };
    let mut after = None;
    'walk: loop {
        let first = copies.leader(Span { after: after.clone(), ..Span::default() }).await?;
        let before = all.found.clone();
        for (replica, found) in all.found.iter_mut().enumerate() {
            if found.missing.is_none() && !check(copies, replica, found, &after, &first).await? {
                all.found = before;
                continue 'walk; // its end moved: read the range anew
            }
        }
        (all.ranges, all.records, all.at) = (all.ranges + 1, all.records + first.records, first.at);
        copies.progress(all.records);
        if first.until_b64.is_none() {
            return Ok(all);
        }
        after = first.until_b64;
    }
}

/// Compares one range of one replica, and notes what was found; false when the range has to be read anew.
async fn check(
    copies: &impl Copies,
    replica: usize,
    found: &mut Found,
    after: &Option<String>,
    leader: &RangeSum,
) -> Result<bool, String> {
    // Ranges still to be looked at, the next one last: a large one that differs makes room for smaller ones.
    let mut open = vec![(after.clone(), leader.clone())];
    while let Some((after, leader)) = open.pop() {
        match judge(copies, replica, found, &after, leader).await? {
            Verdict::Same => {}
            Verdict::Grown => return Ok(false),
            Verdict::Missing(why) => {
                found.missing = Some(why);
                return Ok(true);
            }
            Verdict::Differs(range) if range.leader.records <= SMALL => note(&mut found.differs, range),
            Verdict::Busy(range) if is_key(&range.leader) => note(&mut found.busy, range),
            // What is not looked at any closer here is "or more" to the reader: a list that is full says so.
            Verdict::Differs(_) | Verdict::Busy(_) if found.differs.len().max(found.busy.len()) >= NAMED_MAX => {}
            Verdict::Differs(range) | Verdict::Busy(range) => match cut(copies, &range).await? {
                Some(parts) => open.extend(parts.into_iter().rev()),
                None if range.leader.records <= SMALL => note(&mut found.busy, range),
                None => return Ok(false),
            },
        }
    }
    Ok(true)
}

fn note(ranges: &mut Vec<Range>, range: Range) {
    if ranges.len() < NAMED_MAX {
        ranges.push(range);
    }
}

/// Whether there is nothing left to cut.
fn is_key(range: &RangeSum) -> bool {
    range.records <= 1
}

/// Cuts a range into about sixteen; none when it grows as fast as it is cut.
async fn cut(copies: &impl Copies, range: &Range) -> Result<Option<Vec<(Option<String>, RangeSum)>>, String> {
    // A small one is cut into keys at once. One of some dozens is not: reading it costs as much as reading a key.
    let limit = Some(if range.leader.records <= SMALL { 1 } else { (range.leader.records / SMALL).max(SMALL) });
    let until = &range.leader.until_b64;
    let mut parts = Vec::new();
    let mut after = range.after.clone();
    loop {
        let part = copies.leader(Span { after: after.clone(), until: until.clone(), limit }).await?;
        let reached = part.until_b64.clone();
        parts.push((after, part));
        if reached == *until {
            return Ok(Some(parts));
        }
        if parts.len() as u64 > 4 * SMALL {
            return Ok(None);
        }
        after = reached;
    }
}

/// Compares a range until it is clear what it is, or clear that it does not become clear.
async fn judge(
    copies: &impl Copies,
    replica: usize,
    found: &mut Found,
    after: &Option<String>,
    mut leader: RangeSum,
) -> Result<Verdict, String> {
    let is_open = leader.until_b64.is_none();
    let attempts = if is_key(&leader) { KEY_ATTEMPTS } else { ATTEMPTS };
    let mut sightings = 0;
    for attempt in 1.. {
        let span = Span { after: after.clone(), until: leader.until_b64.clone(), limit: None };
        let seen = match ask_up_to(copies, replica, found, &span, &leader).await {
            Ok(seen) => seen,
            Err(why) => return Ok(Verdict::Missing(why)),
        };
        if is_same(&leader, &seen) {
            return Ok(Verdict::Same);
        }
        if seen.at < leader.at {
            let behind = leader.at - seen.at;
            return Ok(Verdict::Missing(format!("it is {behind} entries behind its leader, and does not come nearer")));
        }
        // The last range keeps its own bound, so that it is cut where a first look would cut it.
        let again = copies.leader(span).await?;
        if is_open && again.until_b64.is_some() {
            return Ok(Verdict::Grown);
        }
        if is_same(&again, &seen) {
            return Ok(Verdict::Same);
        }
        sightings = if is_same(&leader, &again) { sightings + 1 } else { 0 };
        let range = Range { after: after.clone(), leader: again.clone(), replica: seen };
        if sightings >= SIGHTINGS {
            return Ok(Verdict::Differs(range));
        }
        if attempt >= attempts {
            return Ok(Verdict::Busy(range));
        }
        leader = again;
        for _ in 0..attempt.min(PAUSES_MAX) {
            copies.pause().await;
        }
    }
    unreachable!("the last attempt returns")
}

/// Asks a replica until it has come as far as its leader was, or it does not come nearer.
async fn ask_up_to(
    copies: &impl Copies,
    replica: usize,
    found: &mut Found,
    span: &Span,
    leader: &RangeSum,
) -> Result<RangeSum, String> {
    let mut asks = 1;
    loop {
        let seen = copies.replica(replica, span.clone()).await?;
        if seen.at >= leader.at || is_same(leader, &seen) {
            return Ok(seen);
        }
        if found.stalled || asks >= BEHIND_ASKS {
            found.stalled = true;
            return Ok(seen);
        }
        asks += 1;
        copies.pause().await;
    }
}

fn is_same(one: &RangeSum, other: &RangeSum) -> bool {
    (&one.checksum, one.records, &one.until_b64) == (&other.checksum, other.records, &other.until_b64)
}

#[cfg(test)]
mod tests;
