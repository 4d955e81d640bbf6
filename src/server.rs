//! The composition root. This branch holds the signature that the command line calls, and no server.

use std::path::PathBuf;

use crate::config::Config;
use crate::types::NodeName;

/// What a node needs to know before it starts.
#[derive(Debug)]
pub struct Options {
    /// The checked file.
    pub config: Config,
    /// Which node of the file this process is.
    pub node: NodeName,
    /// The node's database file.
    pub db_location: PathBuf,
    /// Where the configuration was read from, for messages.
    pub config_path: PathBuf,
}

/// Why a node did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server is on another branch.
    #[error("this program was built without its server")]
    NotHere,
}

/// Runs the node until it is told to stop; blocks.
pub fn run(_options: Options) -> Result<(), Error> {
    Err(Error::NotHere)
}
