//! A copy's files on a real disk: its own, and the one that a snapshot is received into.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use super::open::{self, OpenError, Options};
use super::redb::RedbEngine;
use super::{Engine, Error, Files, Identity};

/// The redb files of one copy.
#[derive(Debug, Clone)]
pub struct RedbFiles {
    /// The copy's own file; the incoming one stands beside it.
    pub path: PathBuf,
    /// What the files must be.
    pub identity: Identity,
    /// How they are opened.
    pub options: Options,
}

impl RedbFiles {
    /// Opens the copy's own file, or creates it.
    pub fn open(&self) -> Result<RedbEngine, OpenError> {
        RedbEngine::open(&self.path, &self.identity, self.options)
    }
}

impl Files for RedbFiles {
    fn create_incoming(&self) -> Result<Arc<dyn Engine>, Error> {
        let path = open::incoming_path(&self.path);
        let engine = RedbEngine::create_incoming(&path, &self.identity, self.options);
        engine.map(|engine| Arc::new(engine) as Arc<dyn Engine>).map_err(|error| Error::Failed(error.to_string()))
    }

    fn promote_incoming(&self) -> Result<(), Error> {
        let incoming = open::incoming_path(&self.path);
        open::replace(&incoming, &self.path).map_err(|error| Error::Failed(error.to_string()))
    }

    fn discard_incoming(&self) {
        let incoming = open::incoming_path(&self.path);
        match std::fs::remove_file(&incoming) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(file = %incoming.display(), detail = %error, "a broken-off snapshot cannot be removed; delete the file");
            }
            Ok(()) | Err(_) => {}
        }
    }
}
