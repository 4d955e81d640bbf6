//! Which server a command asks: `--url`, else `KV_URL`, else the first address in `./sharding.toml`.

use std::net::SocketAddr;
use std::path::Path;

use reqwest::Url;

use super::exit::{Exit, Failure};
use crate::config::{self, Topology};

/// Where the cluster's file is looked for when no server is named.
pub(crate) const FILE: &str = "sharding.toml";

/// The servers that a command may ask, the first first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The one that is asked, such as `http://127.0.0.2:8080`, without a slash at its end.
    pub(crate) base: String,
    /// Other nodes of the same cluster, from the file; none when the file does not know the first one.
    pub(crate) others: Vec<String>,
}

impl Target {
    /// Chooses. `url` is what the option or the environment says; an empty one counts as none.
    pub(crate) fn choose(url: Option<&str>, directory: &Path) -> Result<Target, Failure> {
        let path = directory.join(FILE);
        match url.filter(|url| !url.is_empty()) {
            Some(url) => {
                let (base, address) = base_of(url)?;
                let known = path.exists().then(|| config::load(&path).ok()).flatten();
                let others = known.map(|config| others_of(&config.topology, address)).unwrap_or_default();
                Ok(Target { base, others })
            }
            None => from_file(&path),
        }
    }

    /// Every server, the chosen one first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.base.as_str()).chain(self.others.iter().map(String::as_str))
    }
}

fn from_file(path: &Path) -> Result<Target, Failure> {
    if !path.exists() {
        return Err(Failure::usage(
            format!("no server is named, and there is no ./{FILE} to find one in"),
            "add --url http://127.0.0.2:8080, or set KV_URL, or change to the directory of sharding.toml",
        ));
    }
    let config = config::load(path).map_err(|faults| {
        let title = format!("./{FILE} is faulty");
        Failure::new(Exit::Error, title, faults.to_string(), "put it right, or name a server with --url")
    })?;
    let mut addresses = config.topology.nodes().map(|node| url_of(node.address));
    let Some(base) = addresses.next() else { unreachable!("a valid file has a node") };
    Ok(Target { base, others: addresses.collect() })
}

/// The other nodes of the file, if the one that was named is in it: else the file is another cluster's.
fn others_of(topology: &Topology, named: Option<SocketAddr>) -> Vec<String> {
    let is_known = named.is_some_and(|address| topology.node_at(address).is_some());
    let others = topology.nodes().filter(|node| is_known && Some(node.address) != named);
    others.map(|node| url_of(node.address)).collect()
}

/// `http://ip:port`.
pub(crate) fn url_of(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// `http://host:port` from what a person wrote, which may lack the scheme; and the address, when the host is one.
fn base_of(written: &str) -> Result<(String, Option<SocketAddr>), Failure> {
    const HINT: &str = "write it as http://127.0.0.2:8080";
    let refuse = |why: &str| Err(Failure::usage(format!("the server's URL {written:?} {why}"), HINT));

    let full = if written.contains("://") { written.to_owned() } else { format!("http://{written}") };
    let url = match Url::parse(&full) {
        Ok(url) => url,
        Err(error) => return refuse(&format!("cannot be read: {error}")),
    };
    if url.scheme() == "https" {
        return refuse("asks for https, which is not built yet");
    }
    if url.scheme() != "http" {
        return refuse("is not one of http");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("holds a user or password, which nothing here asks for");
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return refuse("has more than host and port");
    }
    let Some(host) = url.host_str() else { return refuse("has no host") };
    let port = url.port_or_known_default().unwrap_or(80);
    let authority = format!("{host}:{port}");
    let address = authority.parse().ok();
    Ok((format!("http://{authority}"), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), include_str!("../../sharding.toml")).unwrap();
        directory
    }

    #[test]
    fn target_option_wins_and_keeps_the_files_others_only_of_its_own_cluster() {
        let directory = shipped();
        let target = Target::choose(Some("127.0.0.3:8080"), directory.path()).unwrap();
        assert_eq!(target.base, "http://127.0.0.3:8080");
        assert_eq!(target.others.len(), 7);
        assert!(!target.others.contains(&target.base));
        let stranger = Target::choose(Some("http://127.0.0.3:9999/"), directory.path()).unwrap();
        assert_eq!((stranger.base.as_str(), stranger.others.len()), ("http://127.0.0.3:9999", 0));
    }

    #[test]
    fn target_without_option_is_the_files_first_address() {
        let directory = shipped();
        for url in [None, Some("")] {
            let target = Target::choose(url, directory.path()).unwrap();
            assert_eq!(target.base, "http://127.0.0.2:8080");
            assert_eq!(target.all().count(), 8);
        }
    }

    #[test]
    fn target_without_anything_says_how_to_name_one() {
        let directory = tempfile::tempdir().unwrap();
        let failure = Target::choose(None, directory.path()).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.hint.contains("--url") && failure.hint.contains("KV_URL"));
        std::fs::write(directory.path().join(FILE), "x = 1").unwrap();
        let failure = Target::choose(None, directory.path()).unwrap_err();
        assert_eq!(failure.exit, Exit::Error);
        assert!(failure.detail.contains("unknown key"), "{failure}");
    }

    #[test]
    fn target_urls_of_other_kinds_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let ok = |url| Target::choose(Some(url), directory.path()).unwrap().base;
        assert_eq!(ok("localhost:8080"), "http://localhost:8080");
        assert_eq!(ok("[::1]:8080"), "http://[::1]:8080");
        assert_eq!(ok("http://example.com"), "http://example.com:80");
        for url in ["https://a:1", "ftp://a:1", "http://a:1/x", "http://a:1/?q", "http://u@a:1", "http://", "a:b:c"] {
            assert_eq!(Target::choose(Some(url), directory.path()).unwrap_err().exit, Exit::Usage, "{url}");
        }
    }
}
