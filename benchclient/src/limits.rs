//! As many open files as the system lets us have: every connection is one, and many systems begin with 1,024.

/// Raises the soft limit to the hard one. That it could not be raised shows when a connection cannot be opened.
#[cfg(unix)]
pub(crate) fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Nothing to raise.
#[cfg(not(unix))]
pub(crate) fn raise_open_files() {}
