//! File descriptors: a node takes no more connections than leave enough of them for its file and its peers. Running out
//! would fail whatever needs one next: a poll of a replica, a snapshot's file.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// For the standard streams, the runtime, the database and a snapshot's file, with some to spare.
const OWN: u64 = 24;
/// However few descriptors there are, so many connections are taken: a node that takes none is of no use.
const CONNECTIONS_MIN: usize = 8;

/// Raises the soft limit on descriptors as far as the system lets it, and returns how many client connections fit: at most
/// `wanted`. `peer_connections` are those with other nodes, both ways.
#[must_use]
pub fn connections_that_fit(wanted: usize, peer_connections: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit); // what holds then is asked for below
        limit = getrlimit(Resource::Nofile);
    }
    let fitting = fit(wanted, peer_connections, limit.current);
    if fitting < wanted {
        warn!(
            connections_max = fitting,
            wanted,
            descriptors = limit.current,
            "fewer connections than limits.connections_max are taken at a time: this process may open too few files; raise \
             its limit (ulimit -n, LimitNOFILE), or lower limits.connections_max"
        );
    }
    fitting
}

/// `limit`: descriptors in all; none: no limit.
fn fit(wanted: usize, peer_connections: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return wanted };
    let left = limit.saturating_sub(OWN).saturating_sub(peer_connections as u64);
    wanted.min(usize::try_from(left).unwrap_or(usize::MAX).max(CONNECTIONS_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_file_and_peers() {
        assert_eq!(fit(10_000, 18, Some(1 << 20)), 10_000);
        assert_eq!(fit(10_000, 18, None), 10_000);
        assert_eq!(fit(10_000, 18, Some(1024)), 982);
        assert_eq!(fit(16, 18, Some(1024)), 16);
    }

    #[test]
    fn connections_of_a_node_with_hardly_any_descriptors_are_few_and_not_none() {
        assert_eq!(fit(10_000, 18, Some(64)), 22);
        assert_eq!(fit(10_000, 18, Some(10)), CONNECTIONS_MIN);
    }
}
