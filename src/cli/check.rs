//! `kv check FILE`: everything that is wrong with a `sharding.toml`, or who is who in it.

use std::path::PathBuf;

use serde::Serialize;

use super::exit::{Done, Exit, Failure};
use super::keys::{Output, json};
use super::table;
use crate::config::{self, Config, Faults, default_db_location};

/// Check a sharding.toml: every fault at once, each with its line and remedy
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The file
    #[arg(default_value = "sharding.toml")]
    file: PathBuf,
    /// How the result is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Only the nodes, for scripts: name, shard, role, address and database file, with tabs between them
    #[arg(long, conflicts_with = "output")]
    nodes: bool,
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Json {
    valid: bool,
    faults: Vec<JsonFault>,
    nodes: Vec<JsonNode>,
}

#[derive(Serialize)]
struct JsonFault {
    line: Option<usize>,
    what: String,
    remedy: String,
}

#[derive(Serialize)]
struct JsonNode {
    shard: String,
    index: u32,
    node: String,
    role: &'static str,
    address: String,
    db_location: String,
}

impl Check {
    /// Reads the file, and shows what it says.
    pub(crate) fn run(&self) -> Result<Done, Failure> {
        match (config::load(&self.file), self.output) {
            (Ok(config), Output::Table) if self.nodes => Ok(Done::ok(lines(&config))),
            (Ok(config), Output::Table) => Ok(Done::ok(self.render(&config))),
            (Ok(config), Output::Json) => {
                Ok(Done::ok(json(&Json { valid: true, faults: Vec::new(), nodes: nodes(&config) })))
            }
            (Err(faults), Output::Table) => Err(faulty(&faults, &format!("kv check {}", self.file.display()))),
            (Err(faults), Output::Json) => {
                let faults = faults.faults.into_iter().map(|fault| JsonFault {
                    line: fault.line,
                    what: fault.what,
                    remedy: fault.remedy,
                });
                let found = Json { valid: false, faults: faults.collect(), nodes: Vec::new() };
                Ok(Done { exit: Exit::Error, stdout: json(&found), note: None })
            }
        }
    }

    fn render(&self, config: &Config) -> String {
        let placement = config.topology.placement;
        let nodes = nodes(config);
        let head = format!(
            "{} is right: {} shards on {} nodes, hash {}\n\n",
            self.file.display(),
            placement.shards,
            nodes.len(),
            placement.hash
        );
        let rows = nodes.into_iter().map(|node| {
            vec![node.shard, node.index.to_string(), node.role.to_owned(), node.node, node.address, node.db_location]
        });
        head + &table::render(&["SHARD", "IDX", "ROLE", "NODE", "ADDRESS", "FILE"], &[1], rows.collect())
    }
}

/// A line per node, for scripts that have no parser of JSON at hand. No column can hold a tab.
fn lines(config: &Config) -> String {
    let line = |node: JsonNode| {
        format!("{}\t{}\t{}\t{}\t{}\n", node.node, node.shard, node.role, node.address, node.db_location)
    };
    nodes(config).into_iter().map(line).collect()
}

/// A file with faults, as every command reports it that needs the file.
pub(crate) fn faulty(faults: &Faults, next: &str) -> Failure {
    let title = match faults.faults.len() {
        1 => format!("{} has a fault", faults.file),
        count => format!("{} has {count} faults", faults.file),
    };
    Failure::new(Exit::Error, title, faults.to_string(), format!("put it right, then {next}"))
}

fn nodes(config: &Config) -> Vec<JsonNode> {
    let shards = config.topology.shards.iter();
    let copies =
        shards.flat_map(|shard| shard.copies.iter().enumerate().map(move |(position, copy)| (shard, position, copy)));
    let node = |(shard, position, copy): (&config::Shard, usize, &config::Node)| JsonNode {
        shard: shard.name.clone(),
        index: shard.index.0,
        node: copy.name.to_string(),
        role: if position == 0 { "leader" } else { "replica" },
        address: copy.address.to_string(),
        db_location: default_db_location(&copy.name).display().to_string(),
    };
    copies.map(node).collect()
}
