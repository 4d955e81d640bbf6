//! What the nodes say about themselves: shards and leaders from `GET /v1/cluster`, versions and durability from
//! `GET /admin/v1/status`. Pure: text in, types out.
//!
//! A key's shard is its 64-bit FNV hash modulo the number of shards: a rule that is part of the store's interface, so a
//! client can ask the right node at once. A hash that is not known here means that shards cannot be told, not a guess.

use std::hash::Hasher;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

/// A cluster's map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// Its name, which it drew at random.
    pub(crate) name: String,
    /// How keys, copies and leadership work there.
    pub(crate) profile: String,
    /// As the nodes call it.
    pub(crate) hash_name: String,
    /// `None` when this client does not know that hash.
    hash: Option<Hash>,
    /// By index.
    pub(crate) shards: Vec<Shard>,
    /// Name, address and state.
    pub(crate) nodes: Vec<Node>,
}

/// A shard and where its copies are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shard {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// `ip:port`; `None` while nobody is known to lead.
    pub(crate) leader: Option<Arc<str>>,
    /// How many replicas it has.
    pub(crate) replicas: usize,
}

/// A node as the one that was asked sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Node {
    /// Its name.
    #[serde(default)]
    pub(crate) name: String,
    /// `ip:port`.
    pub(crate) address: String,
    /// `up`, or what else it is.
    #[serde(default)]
    pub(crate) state: String,
}

/// A hash that places keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Fnv1a,
    Fnv1,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    cluster: Option<String>,
    #[serde(default)]
    profile: String,
    hash_function: String,
    #[serde(default)]
    nodes: Vec<Node>,
    shards: Vec<WireShard>,
}

#[derive(Deserialize)]
struct WireShard {
    name: String,
    index: usize,
    #[serde(default)]
    leader: Option<String>,
    #[serde(default)]
    replicas: Vec<Value>,
}

impl Cluster {
    /// Understands the answer of `/v1/cluster`.
    pub(crate) fn parse(body: &[u8]) -> Result<Cluster, String> {
        let mut wire: Wire = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        wire.shards.sort_by_key(|shard| shard.index);
        if wire.shards.is_empty() || wire.shards.iter().enumerate().any(|(place, shard)| shard.index != place) {
            return Err("its shards are not numbered 0, 1, 2, …".into());
        }
        let hash = match wire.hash_function.as_str() {
            "fnv1a" => Some(Hash::Fnv1a),
            "fnv1" => Some(Hash::Fnv1),
            _ => None,
        };
        let shard = |shard: WireShard| Shard {
            name: shard.name.into(),
            leader: shard.leader.filter(|leader| !leader.is_empty()).map(Into::into),
            replicas: shard.replicas.len(),
        };
        Ok(Cluster {
            name: wire.cluster.unwrap_or_else(|| "not named yet".into()),
            profile: wire.profile,
            hash_name: wire.hash_function,
            hash,
            shards: wire.shards.into_iter().map(shard).collect(),
            nodes: wire.nodes,
        })
    }

    /// The index of the shard that owns a key; `None` when that cannot be known here.
    pub(crate) fn shard_of(&self, key: &[u8]) -> Option<usize> {
        let shards = u64::try_from(self.shards.len()).ok()?;
        usize::try_from(self.hash?.of(key) % shards).ok()
    }

    /// Whether shards can be told from keys.
    pub(crate) fn places_keys(&self) -> bool {
        self.hash.is_some()
    }

    /// `fnv1a, 4 shards × 2 copies, 8 nodes (1 away)`.
    pub(crate) fn topology(&self) -> String {
        let copies: Vec<usize> = self.shards.iter().map(|shard| shard.replicas + 1).collect();
        let (least, most) = (copies.iter().min().copied().unwrap_or(1), copies.iter().max().copied().unwrap_or(1));
        let copies = if least == most { format!("{most}") } else { format!("{least} to {most}") };
        let counted = |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
        let away = self.nodes.iter().filter(|node| node.state != "up").count();
        let away = if away == 0 { String::new() } else { format!(" ({away} not up)") };
        format!(
            "{}, {} × {copies} {}, {}{away}",
            self.hash_name,
            counted(self.shards.len(), "shard", "shards"),
            if most == 1 { "copy" } else { "copies" },
            counted(self.nodes.len(), "node", "nodes"),
        )
    }
}

impl Hash {
    fn of(self, key: &[u8]) -> u64 {
        match self {
            Hash::Fnv1a => {
                let mut hasher = fnv::FnvHasher::default();
                hasher.write(key); // not `Hash for [u8]`, which would add a length
                hasher.finish()
            }
            Hash::Fnv1 => key.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                hash.wrapping_mul(0x0000_0100_0000_01b3) ^ u64::from(*byte)
            }),
        }
    }
}

/// What a node says about itself, as far as it belongs above a measurement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct About {
    /// The server's version.
    pub(crate) version: Option<String>,
    /// What an acknowledgement means there.
    pub(crate) durability: Option<String>,
}

impl About {
    /// Understands the answer of `/admin/v1/status`; what is not there is not known.
    pub(crate) fn parse(body: &[u8]) -> About {
        let status: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |field: &str| match status.get(field)? {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        };
        About { version: text("version"), durability: text("durability") }
    }
}

/// The processor seconds that a node has used, from the answer of `/metrics`.
pub(crate) fn cpu_seconds(metrics: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(metrics).ok()?;
    text.lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::{About, Cluster, Hash, cpu_seconds};

    const VIEW: &str = r#"{"cluster":"65a2","profile":"static","hash_function":"fnv1a","placement":"0x7a",
        "nodes":[{"name":"A/0","address":"127.0.0.2:1","state":"up"},{"name":"B/0","address":"127.0.0.3:1","state":"away"}],
        "shards":[{"name":"B","index":1,"epoch":1,"leader":null,"replicas":[]},
                  {"name":"A","index":0,"epoch":1,"leader":"127.0.0.2:1","replicas":["127.0.0.22:1"]}]}"#;

    #[test]
    fn cluster_is_understood_with_its_shards_in_order() {
        let cluster = Cluster::parse(VIEW.as_bytes()).expect("a view");
        assert_eq!(cluster.topology(), "fnv1a, 2 shards × 1 to 2 copies, 2 nodes (1 not up)");
        assert_eq!(cluster.shards[0].leader.as_deref(), Some("127.0.0.2:1"));
        assert_eq!(cluster.shards[1].leader, None);
        assert_eq!(&*cluster.shards[1].name, "B");
    }

    #[test]
    fn cluster_that_makes_no_sense_is_refused() {
        for text in
            ["", "[]", "{}", &VIEW.replace("\"index\":1", "\"index\":2"), r#"{"hash_function":"fnv1a","shards":[]}"#]
        {
            assert!(Cluster::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn cluster_with_an_unknown_hash_tells_no_shards() {
        let cluster = Cluster::parse(VIEW.replace("fnv1a", "rendezvous").as_bytes()).expect("a view");
        assert_eq!((cluster.shard_of(b"a"), cluster.places_keys()), (None, false));
    }

    #[test]
    fn hashes_have_the_published_values() {
        assert_eq!(Hash::Fnv1.of(b"foobar"), 0x340d_8765_a4dd_a9c2);
        assert_eq!(Hash::Fnv1a.of(b"foobar"), 0x8594_4171_f739_67e8);
        let cluster = Cluster::parse(VIEW.as_bytes()).expect("a view");
        assert_eq!((cluster.shard_of(b"foobar"), cluster.shard_of(b"a")), (Some(0), Some(0)));
        assert_eq!(cluster.shard_of(b"b"), Some(1), "0xaf63df4c8601f1a5 is odd");
    }

    #[test]
    fn about_takes_what_is_there() {
        let about = About::parse(br#"{"version":"0.1.0","durability":"fsync"}"#);
        assert_eq!((about.version.as_deref(), about.durability.as_deref()), (Some("0.1.0"), Some("fsync")));
        assert_eq!(About::parse(b"nothing"), About::default());
    }

    #[test]
    fn cpu_seconds_are_found_among_metrics() {
        let text = b"# HELP process_cpu_seconds x\nprocess_cpu_seconds_total 12.5\nother 1\n";
        assert_eq!((cpu_seconds(text), cpu_seconds(b"")), (Some(12.5), None));
    }
}
