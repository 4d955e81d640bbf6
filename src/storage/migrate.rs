//! From one file format to the next: a file that an older program wrote is brought up to [`FORMAT`] when it is opened.
//!
//! ```text
//!   format 1 ─ step ─▶ 2 ─ step ─▶ 3 = FORMAT          each step one transaction, which also writes the new number
//! ```
//!
//! - A crash between two steps, or in one, leaves a file of one format or the other, and the next opening goes on.
//! - Only a file that is about to be opened is changed: one of another shard, or of a newer format, is left as it is.
//! - There is no way back: an older program refuses the file. Whoever adds a step says so in the release's notes.
//! - The rows of `meta` that say what a file is (format, shard, shard count, hash) mean the same in every format, for they
//!   are read before any step.

use ::redb::{Database, Durability, WriteTransaction};

use super::layout::{self, FORMAT, fault};
use super::open::OpenFault;
use super::{Error, Identity};

/// Brings a file from one format to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// The format that it finds; it leaves the next one.
    from: u32,
    /// What it changes, for the log.
    what: &'static str,
    run: fn(&WriteTransaction) -> Result<(), Error>,
}

/// Every step there is, without a gap up to [`FORMAT`].
pub(super) const STEPS: &[Step] = &[Step {
    from: 1,
    what: "from here on the newest writes stand in a log beside the file; an older program would not look there",
    run: |_| Ok(()),
}];

const _: () = assert!(reach(STEPS, FORMAT), "the steps must follow one another, and end at the format of this program");

#[expect(clippy::indexing_slicing, reason = "no iterators at compile time; checked against the length")]
const fn reach(steps: &[Step], format: u32) -> bool {
    let mut at = 0;
    while at < steps.len() {
        if steps[at].from as usize + (steps.len() - at) != format as usize {
            return false;
        }
        at += 1;
    }
    true
}

/// Checks that a file of this format can be opened, with the steps that bring it there.
pub(super) fn steps_from(format: u32, steps: &'static [Step]) -> Result<&'static [Step], OpenFault> {
    let missing = usize::try_from(FORMAT.saturating_sub(format)).unwrap_or(usize::MAX);
    let needed = steps.len().checked_sub(missing).and_then(|first| steps.get(first..));
    needed.filter(|_| format <= FORMAT).ok_or(OpenFault::Format { found: format, known: FORMAT })
}

/// Takes the steps, one transaction each.
pub(super) fn run(db: &Database, steps: &[Step], identity: &Identity) -> Result<(), Error> {
    for step in steps {
        tracing::info!(shard = identity.shard_name, from = step.from, to = step.from + 1, "{}", step.what);
        let mut txn = db.begin_write().map_err(fault)?;
        txn.set_durability(Durability::Immediate).map_err(|error| Error::Failed(error.to_string()))?;
        (step.run)(&txn)?;
        layout::write_format(&txn, step.from + 1)?;
        txn.commit().map_err(fault)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ::redb::ReadableDatabase;

    use super::super::layout::META;
    use super::super::open::Options;
    use super::super::redb::RedbEngine;
    use super::super::{Batch, Engine};
    use super::*;
    use crate::types::{Epoch, NodeName, ShardIndex};

    /// In an older format, let us say, the role was called otherwise.
    const RENAMES_THE_ROLE: Step = Step {
        from: FORMAT - 1,
        what: "the row `position_in_life` becomes `role`",
        run: |txn| {
            let mut meta = txn.open_table(META).map_err(fault)?;
            let role = meta.remove("position_in_life").map_err(fault)?.map(|row| row.value().to_vec());
            let role = role.ok_or_else(|| Error::Corrupt("there is no `position_in_life`".to_owned()))?;
            meta.insert("role", &role[..]).map_err(fault)?;
            Ok(())
        },
    };
    const FAILS: Step = Step { run: |_| Err(Error::Failed("on purpose".to_owned())), ..RENAMES_THE_ROLE };

    fn identity() -> Identity {
        Identity { shard_name: "Delhi".to_owned(), shard: ShardIndex(3), shard_count: 4, hash: "fnv1a".to_owned() }
    }

    fn open(path: &Path, steps: &'static [Step]) -> Result<RedbEngine, OpenFault> {
        RedbEngine::open_with_steps(path, &identity(), Options { cache_bytes: 1 << 20 }, steps)
    }

    /// A closed file as the older program would have left it.
    fn older_file(path: &Path) {
        let epoch = Epoch::first(NodeName::new("Delhi/0"));
        let engine = open(path, STEPS).unwrap();
        engine.commit(&Batch { epoch: Some(epoch), ..Batch::default() }).unwrap();
        drop(engine);
        let txn = Database::open(path).unwrap().begin_write().unwrap();
        layout::write_format(&txn, FORMAT - 1).unwrap();
        txn.open_table(META).unwrap().insert("position_in_life", &b"leader"[..]).unwrap();
        txn.commit().unwrap();
    }

    fn has_row(path: &Path, row: &str) -> bool {
        let txn = Database::open(path).unwrap().begin_read().unwrap();
        txn.open_table(META).unwrap().get(row).unwrap().is_some()
    }

    #[test]
    fn older_file_is_brought_up_once_and_keeps_what_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shard.redb");
        older_file(&path);
        for steps in [&[RENAMES_THE_ROLE][..], STEPS] {
            // the second opening needs no step any more
            let state = open(&path, steps).unwrap().state().unwrap();
            assert_eq!(state.role, Some(super::super::Role::Leader));
            assert_eq!(state.epoch, Some(Epoch::first(NodeName::new("Delhi/0"))));
        }
        assert!(!has_row(&path, "position_in_life"));
    }

    #[test]
    fn older_file_without_a_step_and_newer_file_are_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shard.redb");
        older_file(&path);
        assert_eq!(open(&path, &[]).unwrap_err(), OpenFault::Format { found: FORMAT - 1, known: FORMAT });
        assert!(has_row(&path, "position_in_life"));
        let txn = Database::open(&path).unwrap().begin_write().unwrap();
        layout::write_format(&txn, FORMAT + 1).unwrap();
        txn.commit().unwrap();
        let newer = open(&path, &[RENAMES_THE_ROLE]).unwrap_err();
        assert_eq!(newer, OpenFault::Format { found: FORMAT + 1, known: FORMAT });
        assert!(has_row(&path, "position_in_life"));
    }

    #[test]
    fn file_of_another_shard_takes_no_step() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shard.redb");
        older_file(&path);
        let other = Identity { shard: ShardIndex(2), ..identity() };
        let opened = RedbEngine::open_with_steps(&path, &other, Options { cache_bytes: 1 << 20 }, &[RENAMES_THE_ROLE]);
        assert!(matches!(opened, Err(OpenFault::Shard { .. })), "{opened:?}");
        assert!(has_row(&path, "position_in_life"));
    }

    #[test]
    fn step_that_fails_changes_nothing_and_the_next_opening_takes_it_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shard.redb");
        older_file(&path);
        assert!(matches!(open(&path, &[FAILS]), Err(OpenFault::Disk(_))));
        assert!(has_row(&path, "position_in_life"));
        open(&path, &[RENAMES_THE_ROLE]).unwrap();
        assert!(!has_row(&path, "position_in_life"));
    }

    #[test]
    fn steps_must_follow_one_another_up_to_the_format() {
        let step = |from| Step { from, ..RENAMES_THE_ROLE };
        assert!(reach(&[], 7) && reach(&[step(6)], 7) && reach(&[step(5), step(6)], 7));
        assert!(!reach(&[step(5)], 7) && !reach(&[step(7)], 7) && !reach(&[step(4), step(6)], 7));
    }
}
