//! A copy's files on a real disk: its own, and the one that a snapshot is received into.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::ledger::Ledger;
use super::logged::Logged;
use super::open::{self, OpenError, Options};
use super::{Engine, Error, Files, Identity};
use crate::random::Random;

/// The files of one copy.
#[derive(Debug)]
pub struct DiskFiles {
    /// The copy's own file; the incoming one stands beside it.
    path: PathBuf,
    identity: Identity,
    options: Options,
    random: Random,
    ledger: Arc<Ledger>,
    replaced: Mutex<Replaced>,
}

/// What tells the engines that were opened here that their file is replaced.
#[derive(Debug, Default)]
struct Replaced {
    own: Option<Arc<AtomicBool>>,
    incoming: Option<Arc<AtomicBool>>,
}

impl DiskFiles {
    /// The files of the copy whose own file is at `path`.
    #[must_use]
    pub fn new(path: &Path, identity: Identity, options: Options, random: Random) -> DiskFiles {
        let ledger = Arc::new(Ledger::beside(path, identity.shard, random.clone()));
        DiskFiles { path: path.to_owned(), identity, options, random, ledger, replaced: Mutex::default() }
    }

    /// Opens the copy's own file, or creates it.
    pub fn open(&self) -> Result<Logged, OpenError> {
        let engine = Logged::open(&self.path, &self.identity, self.options, self.random.clone())?;
        self.replaced.lock().own = Some(engine.is_replaced());
        Ok(engine)
    }
}

impl Files for DiskFiles {
    fn create_incoming(&self) -> Result<Arc<dyn Engine>, Error> {
        let engine = Logged::create_incoming(&self.path, &self.identity, self.options, self.random.clone());
        let engine = engine.map_err(|error| Error::Failed(error.to_string()))?;
        self.replaced.lock().incoming = Some(engine.is_replaced());
        Ok(Arc::new(engine))
    }

    fn promote_incoming(&self) -> Result<(), Error> {
        let incoming = open::incoming_path(&self.path);
        open::replace(&incoming, &self.path).map_err(|error| Error::Failed(error.to_string()))?;
        let mut replaced = self.replaced.lock();
        let incoming = replaced.incoming.take();
        if let Some(old) = std::mem::replace(&mut replaced.own, incoming) {
            old.store(true, Ordering::SeqCst);
        }
        Ok(())
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

    fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }
}
