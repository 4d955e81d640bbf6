//! `kv compact FILE`: gives the disk back what a stopped node's file no longer needs.

use std::path::PathBuf;

use serde::Serialize;

use super::exit::{Done, Exit, Failure};
use super::keys::{Output, json};
use super::table;
use crate::storage::compact::{Compacted, compact};
use crate::storage::open::{OpenError, OpenFault};

/// Give back the disk space that a stopped node's database file no longer needs
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The node must be stopped: a file in use is refused. Nothing is lost when this is interrupted. What a node needs soon
again it takes again: worth doing after many keys were deleted, or after a replica was away for long.")]
pub(crate) struct Compact {
    /// The database file, such as data/hyderabad.redb
    file: PathBuf,
    /// How the result is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Json<'a> {
    file: String,
    shard: &'a str,
    index: u32,
    keys: u64,
    end: u64,
    bytes_before: u64,
    bytes_after: u64,
    disk_bytes_before: u64,
    disk_bytes_after: u64,
}

impl Compact {
    /// Blocks until it is done.
    pub(crate) fn run(&self) -> Result<Done, Failure> {
        let file = self.file.display();
        if !self.file.exists() {
            return Err(Failure::new(
                Exit::Error,
                "there is no such file",
                file.to_string(),
                "kv check shows where each node keeps its file",
            ));
        }
        let compacted = compact(&self.file).map_err(|error| self.refused(&error))?;
        let Compacted { identity, keys, end, before, after } = &compacted;
        Ok(Done::ok(match self.output {
            Output::Table => self.render(&compacted).into_bytes(),
            Output::Json => json(&Json {
                file: file.to_string(),
                shard: &identity.shard_name,
                index: identity.shard.0,
                keys: *keys,
                end: end.0,
                bytes_before: before.bytes,
                bytes_after: after.bytes,
                disk_bytes_before: before.disk_bytes,
                disk_bytes_after: after.disk_bytes,
            }),
        }))
    }

    fn render(&self, Compacted { identity, keys, end, before, after }: &Compacted) -> String {
        let head = format!(
            "{}: shard {} (index {} of {}), {keys} keys, log up to seq {end}\n",
            self.file.display(),
            identity.shard_name,
            identity.shard,
            identity.shard_count
        );
        let row = |name: &str, bytes: u64| vec![name.to_owned(), table::size(bytes), format!("{bytes} bytes")];
        let freed = before.bytes.saturating_sub(after.bytes);
        let rows = vec![row("before", before.bytes), row("after", after.bytes), row("freed", freed)];
        head + &table::plain(&[1, 2], rows)
    }

    fn refused(&self, error: &OpenError) -> Failure {
        let hint = match &error.fault {
            OpenFault::Held { pid: Some(pid) } => {
                format!("stop the node (kill {pid}), run this again, and start the node")
            }
            OpenFault::Held { pid: None } => "stop the node, run this again, and start the node".to_owned(),
            _ => error.remedy(),
        };
        Failure::new(Exit::Error, "the file was not compacted", error.to_string(), hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::storage::files::DiskFiles;
    use crate::storage::open::Options;
    use crate::storage::{Batch, Engine, Identity};
    use crate::types::{ShardIndex, ShardUid};

    fn compact_at(file: &std::path::Path) -> Result<Done, Failure> {
        Compact { file: file.to_owned(), output: Output::Json }.run()
    }

    #[test]
    fn compact_prints_what_the_file_is_and_its_sizes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.redb");
        let identity =
            Identity { shard_name: "Delhi".to_owned(), shard: ShardIndex(3), shard_count: 4, hash: "fnv1".to_owned() };
        let files = DiskFiles::new(&path, identity, Options { cache_bytes: 1 << 20 }, Random::system());
        let engine = files.open().unwrap();
        engine.commit(&Batch { shard_uid: Some(ShardUid(1)), ..Batch::default() }).unwrap();

        let held = compact_at(&path).unwrap_err();
        assert!(held.detail.contains("has the file open") && held.hint.contains("stop the node"), "{held}");
        drop(engine);

        let done = compact_at(&path).unwrap();
        let found: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!((&found["shard"], &found["index"], &found["keys"]), (&"Delhi".into(), &3.into(), &0.into()));
        assert!(found["bytes_after"].as_u64() <= found["bytes_before"].as_u64());
        assert_eq!(found["bytes_after"], std::fs::metadata(&path).unwrap().len());
        let table = Compact { file: path, output: Output::Table }.run().unwrap();
        let table = String::from_utf8(table.stdout).unwrap();
        assert!(table.contains("shard Delhi (index 3 of 4), 0 keys") && table.contains("\nfreed "), "{table}");
        assert_eq!(files.open().unwrap().state().unwrap().shard_uid, Some(ShardUid(1)));
    }

    #[test]
    fn compact_of_nothing_or_of_a_strangers_file_is_refused_and_makes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.redb");
        assert_eq!(compact_at(&path).unwrap_err().title, "there is no such file");
        assert!(!path.exists());
        std::fs::write(&path, "a text that somebody wrote").unwrap();
        assert!(compact_at(&path).unwrap_err().detail.contains("not a database of this program"));
        assert_eq!(std::fs::read(&path).unwrap(), b"a text that somebody wrote");
    }
}
