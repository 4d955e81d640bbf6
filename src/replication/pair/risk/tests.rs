//! What is at risk, how old it is, and when that is too much: by tables, in time that stands still.

use super::*;
use crate::clock::Clock;
use crate::types::{Cursor, Epoch, Incarnation};

fn name(text: &str) -> NodeName {
    NodeName::new(text)
}

fn epoch() -> Epoch {
    Epoch::first(name("A/0"))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A leader of two replicas that begins behind entry 10.
struct Bench {
    leader: Leader,
    clock: Clock,
}

impl Bench {
    fn new() -> Bench {
        let clock = Clock::manual();
        let mut leader = Leader::new([name("A/1"), name("A/2")], &[]);
        leader.begin(&epoch(), Seq(10), clock.now());
        Bench { leader, clock }
    }

    /// A replica is heard of, with all up to here.
    fn heard(&mut self, replica: &str, seq: u64) {
        let cursor = Cursor { epoch: epoch(), incarnation: Incarnation(1), seq: Seq(seq) };
        self.leader.was_handed_over(&name(replica), Some(cursor), self.clock.now());
    }

    /// A commit that ends there.
    fn commit(&mut self, end: u64) {
        self.leader.mark(Seq(end), self.clock.now());
    }

    fn at_risk(&self, end: u64) -> (u64, Option<Age>) {
        let AtRisk { entries, oldest } = at_risk(&self.leader, Seq(end), self.clock.now());
        (entries, oldest)
    }

    fn check(&self, next: u64, limits: Limits) -> Result<(), Refusal> {
        check(&self.leader, Seq(next), limits, self.clock.now())
    }
}

const OFF: Limits = Limits { replicas_min: 0, entries_max: None, age_max: None };

#[test]
fn risk_is_what_no_replica_has_and_its_age_is_that_of_the_oldest() {
    let mut bench = Bench::new();
    bench.heard("A/1", 10);
    assert_eq!(bench.at_risk(10), (0, None));
    bench.commit(12);
    bench.clock.advance(ms(30));
    bench.commit(15);
    bench.clock.advance(ms(5));
    assert_eq!(bench.at_risk(15), (5, Some(Age::AtMost(ms(35)))));
    bench.heard("A/2", 11);
    assert_eq!(bench.at_risk(15), (4, Some(Age::AtMost(ms(35)))), "the greatest cursor counts");
    bench.heard("A/1", 12);
    assert_eq!(bench.at_risk(15), (3, Some(Age::AtMost(ms(5)))));
    bench.heard("A/1", 15);
    assert_eq!(bench.at_risk(15), (0, None));
}

#[test]
fn risk_of_entries_from_before_the_leadership_is_older_than_any_bound() {
    let mut bench = Bench::new();
    bench.clock.advance(ms(7));
    assert_eq!(bench.at_risk(10), (10, Some(Age::Older(ms(7)))), "nothing was heard: nothing is known to be elsewhere");
    assert!(!Age::Older(ms(7)).is_below(Duration::MAX));
    bench.heard("A/1", 9);
    bench.commit(11);
    assert_eq!(bench.at_risk(11), (2, Some(Age::Older(ms(7)))));
    bench.heard("A/1", 10);
    assert_eq!(bench.at_risk(11), (1, Some(Age::AtMost(ms(0)))));
    bench.heard("A/1", 4); // its disk was restored from an old backup
    assert_eq!(bench.at_risk(11).0, 7);
}

/// However long a replica is away, the marks stay few, and no age is too small or much too great.
#[test]
fn marks_are_thinned_out_and_ages_stay_upper_bounds() {
    let mut bench = Bench::new();
    bench.heard("A/1", 10);
    let began = bench.clock.now();
    let mut written = vec![(10, ms(0))];
    for step in 1..20_000_u64 {
        bench.clock.advance(ms(1 + step % 3));
        bench.commit(10 + step);
        written.push((10 + step, bench.clock.now().duration_since(began)));
    }
    let now = bench.clock.now().duration_since(began);
    let marks = bench.leader.marks().unwrap();
    assert!(marks.marks.len() <= MARKS_MAX, "{}", marks.marks.len());
    for (entry, at) in &written[1..] {
        let Age::AtMost(age) = marks.age(Seq(*entry), bench.clock.now()) else { panic!("entry {entry} has a mark") };
        let real = now - *at;
        assert!(age >= real, "entry {entry}: {age:?} is less than {real:?}");
        assert!(age <= real + now / 32 + ms(10), "entry {entry}: {age:?} is much more than {real:?}");
    }
    // Once the replica is back the marks begin anew.
    bench.heard("A/1", 10 + 19_999);
    bench.commit(10 + 19_999);
    bench.clock.advance(ms(3));
    bench.commit(10 + 20_000);
    assert_eq!(bench.at_risk(10 + 20_000), (1, Some(Age::AtMost(ms(0)))));
}

#[test]
fn check_counts_entries_with_the_one_that_would_come_next() {
    let mut bench = Bench::new();
    bench.heard("A/1", 10);
    let limits = Limits { entries_max: Some(3), ..OFF };
    for next in 11..=13 {
        assert_eq!(bench.check(next, limits), Ok(()), "{next}");
    }
    let Err(Refusal::AtRisk(why)) = bench.check(14, limits) else { panic!("the bound holds within a commit too") };
    assert!(
        why.starts_with("3 writes are on this leader's disk only") && why.contains("max_at_risk_entries = 3"),
        "{why}"
    );
    assert!(why.contains("A/1 was heard 0 ms ago, and is not known to have the last 3"), "{why}");
    assert!(why.contains("A/2 was not heard since this leader began"), "{why}");
    bench.heard("A/2", 11);
    assert_eq!(bench.check(14, limits), Ok(()));
    let seen = seen(&bench.leader, Seq(11), bench.clock.now());
    assert!(seen.contains("A/1 was heard 0 ms ago, and has everything"), "{seen}");
}

#[test]
fn check_adds_nothing_to_what_is_as_old_as_the_bound() {
    let mut bench = Bench::new();
    let limits = Limits { age_max: Some(ms(500)), ..OFF };
    assert!(bench.check(11, limits).is_err(), "nothing was heard of what was there before");
    bench.heard("A/1", 10);
    bench.clock.advance(ms(60_000));
    assert_eq!(bench.check(11, limits), Ok(()), "nothing is at risk, however long nothing was written");
    assert_eq!(bench.check(12, limits), Ok(()), "two in one commit");
    bench.commit(12);
    bench.clock.advance(ms(499));
    assert_eq!(bench.check(13, limits), Ok(()));
    bench.clock.advance(ms(1));
    let Err(Refusal::AtRisk(why)) = bench.check(13, limits) else { panic!("the oldest is as old as the bound") };
    assert!(why.contains("the oldest of them for 500 ms") && why.contains("max_at_risk_ms = 500"), "{why}");
    bench.heard("A/1", 12);
    assert_eq!(bench.check(13, limits), Ok(()));
}

#[test]
fn check_counts_replicas_that_asked_on_this_history_a_moment_ago() {
    let mut bench = Bench::new();
    let limits = |replicas_min| Limits { replicas_min, ..OFF };
    let Err(Refusal::TooFewReplicas(why)) = bench.check(11, limits(1)) else { panic!("none was heard") };
    assert!(why.starts_with("0 of 2 replicas") && why.contains("min_replicas = 1"), "{why}");
    bench.heard("A/1", 10);
    assert_eq!((bench.check(11, limits(1)), bench.check(11, limits(2)).is_err()), (Ok(()), true));
    bench.clock.advance(PRESENT_FOR - ms(1));
    bench.heard("A/2", 3); // far behind, and there
    assert_eq!(bench.check(11, limits(2)), Ok(()));
    bench.clock.advance(ms(1));
    assert_eq!((bench.check(11, limits(1)), bench.check(11, limits(2)).is_err()), (Ok(()), true));
    assert_eq!(bench.check(11, limits(0)), Ok(()));
}

#[test]
fn limits_that_the_file_does_not_set_are_none() {
    assert_eq!(Limits::of(&Settings::default()), None);
    let settings = Settings { max_at_risk: ms(500), ..Settings::default() };
    assert_eq!(Limits::of(&settings), Some(Limits { age_max: Some(ms(500)), ..OFF }));
    let settings = Settings { max_at_risk_entries: 7, min_replicas: 1, ..Settings::default() };
    assert_eq!(Limits::of(&settings), Some(Limits { replicas_min: 1, entries_max: Some(7), age_max: None }));
}
