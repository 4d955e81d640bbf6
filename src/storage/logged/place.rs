//! Where a copy's logs are kept: a directory for each, behind a seam, so that simulated disks can hold them.

use std::fmt::Debug;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::log::{Directory, FileDirectory, LogId};
use crate::storage::open::{self, OpenFault};

/// The directories of the logs of one copy, each by the id of its log.
pub trait Place: Send + Sync + Debug + 'static {
    /// The logs that there are, in any order.
    fn list(&self) -> io::Result<Vec<LogId>>;

    /// Makes a directory, durably, or opens the one that is there.
    fn create(&self, id: LogId) -> Result<Arc<dyn Directory>, OpenFault>;

    /// Opens a directory; none when there is none.
    fn open(&self, id: LogId) -> io::Result<Option<Arc<dyn Directory>>>;

    /// Removes a directory with what is in it; fine when there is none. It may come back when the power goes.
    fn remove(&self, id: LogId) -> io::Result<()>;

    /// A log's directory as a message names it.
    fn name(&self, id: LogId) -> String;
}

/// `FILE.log-ID` beside a database file.
#[derive(Debug, Clone)]
pub struct Beside(PathBuf);

impl Beside {
    /// Beside the database file at `path`.
    #[must_use]
    pub fn file(path: &Path) -> Beside {
        Beside(path.to_owned())
    }

    fn path(&self, id: LogId) -> PathBuf {
        open::with_suffix(&self.0, &format!(".log-{id}"))
    }
}

impl Place for Beside {
    fn list(&self) -> io::Result<Vec<LogId>> {
        let prefix = format!("{}.log-", self.0.file_name().unwrap_or_default().to_string_lossy());
        let mut logs = Vec::new();
        for entry in open::parent_of(&self.0).read_dir()? {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|name| u64::from_str_radix(name.strip_prefix(&prefix)?, 16).ok());
            logs.extend(id.map(LogId).filter(|id| self.path(*id).file_name() == Some(&name)));
        }
        Ok(logs)
    }

    fn create(&self, id: LogId) -> Result<Arc<dyn Directory>, OpenFault> {
        Ok(Arc::new(FileDirectory::create(&self.path(id))?))
    }

    fn open(&self, id: LogId) -> io::Result<Option<Arc<dyn Directory>>> {
        match FileDirectory::open(&self.path(id)) {
            Ok(directory) => Ok(Some(Arc::new(directory))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn remove(&self, id: LogId) -> io::Result<()> {
        match std::fs::remove_dir_all(self.path(id)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn name(&self, id: LogId) -> String {
        self.path(id).display().to_string()
    }
}
