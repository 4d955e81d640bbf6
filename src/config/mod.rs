//! `sharding.toml`, the same file on every node: read → parse → validate → an immutable [`Topology`] and [`Settings`].
//!
//! A faulty file is refused with every fault at once, each with its line and its remedy.
//!
//! ```text
//! file      path → text                          the only part that touches the disk
//! parse     text → values with lines             syntax, unknown keys, types
//! validate  values → topology                    names, indices, addresses
//! settings  values → settings                    one table of keys and ranges
//! choice    topology and options → this node     for `kv serve`
//! ```

pub mod address;
pub mod choice;
pub mod fault;
pub mod file;
mod parse;
pub mod settings;
#[cfg(test)]
mod tests;
pub mod topology;
mod validate;

pub use address::parse_address;
pub use choice::{Wanted, choose_node, default_db_location};
pub use fault::{Fault, Faults};
pub use file::load;
pub use topology::{Node, Settings, Shard, StartAlone, Topology};

/// A file without faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The shards and their nodes.
    pub topology: Topology,
    /// All else.
    pub settings: Settings,
}

/// Checks the text of a file; `file_name` is what faults call it.
pub fn parse(text: &str, file_name: &str) -> Result<Config, Faults> {
    let mut faults = Vec::new();
    let raw = parse::parse_raw(text, &mut faults);
    let validated = raw.and_then(|raw| validate::validate(&raw, &mut faults));
    match validated {
        Some((topology, settings)) if faults.is_empty() => Ok(Config { topology, settings }),
        _ => Err(Faults::new(file_name, faults)),
    }
}
