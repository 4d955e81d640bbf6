//! The cluster that most tests here share.

use std::ops::Deref;
use std::sync::OnceLock;

use crate::support::encode::percent;
use crate::support::{At, Cluster, Request, Response, Spec};

/// The shared cluster, for one test; shows the nodes' logs when that test fails.
pub(crate) struct Api(&'static Cluster);

/// The cluster of two shards with a replica each, started by the first test that asks.
pub(crate) fn api() -> Api {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    Api(SHARED.get_or_init(|| Cluster::start(Spec::shards(2).replicas(1))))
}

impl Deref for Api {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.0
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.logs());
        }
    }
}

impl Api {
    /// A node that owns nothing of shard 0.
    pub(crate) fn stranger(&self) -> At {
        self.leader(1)
    }

    /// `/get` of a key at the leader of shard 0.
    pub(crate) fn stored(&self, key: impl AsRef<[u8]>) -> Response {
        self.get(self.leader(0), format!("/get?key={}", percent(key)))
    }

    /// Checks that a key holds exactly this.
    #[track_caller]
    pub(crate) fn holds(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let answer = self.stored(key).expect(200);
        assert_eq!(answer.body.escape_ascii().to_string(), value.as_ref().escape_ascii().to_string());
    }

    /// Checks that there is no such key.
    #[track_caller]
    pub(crate) fn lacks(&self, key: impl AsRef<[u8]>) {
        self.stored(key).expect(404);
    }

    /// A POST with a body and curl's label for `-d`.
    pub(crate) fn post_form(&self, target: &str, body: impl AsRef<[u8]>) -> Response {
        let form = Request::new("POST", target).header("Content-Type", "application/x-www-form-urlencoded").body(body);
        self.send(self.leader(0), &form)
    }
}
