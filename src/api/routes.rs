//! The one table of documented routes: path, methods, and who answers. What stands here and is not built yet answers
//! `501`; what does not stand here is `404`.
//!
//! Paths are matched as they came, byte for byte. HEAD is answered like GET where GET only reads, and is `405` where it
//! would write; axum drops the body and keeps its length. OPTIONS is answered from the table.

use std::panic::AssertUnwindSafe;
use std::pin::pin;

use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use futures_util::FutureExt;
use parking_lot::Mutex;

use super::alarm::Alarm;
use super::asked::Asked;
use super::body::Upload;
use super::error::{Kind, Problem};
use super::reply::Reply;
use super::watch::Watch;
use super::{Api, admin, controls, curl, framing, health, kv, monitor, operate, origin, shards};
use crate::metrics::OTHER;
use crate::store::{Applied, Code};
use crate::types::RequestId;

/// A documented route.
struct Route {
    path: Path,
    methods: &'static [(Method, Deed)],
}

/// The paths of a route.
enum Path {
    /// Exactly this one.
    Is(&'static str),
    /// All that begin with this.
    Under(&'static str),
    /// What an operator asks about a shard: this, behind its name.
    OfShard(&'static str),
}

/// What a method of a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Reads, so HEAD goes too.
    Reads(Handler),
    /// Changes data, so another site's page may not ask for it.
    Writes(Handler),
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handler {
    Set,
    Get,
    Delete,
    NextReplicationKey,
    KvGet,
    KvPut,
    KvDelete,
    Cluster,
    Explain,
    Receipt,
    Live,
    Ready,
    Status,
    Metrics,
    ResetReplica,
    Checksum,
    TakeoverPlan,
    Takeover,
    Switchover,
    LostWrites,
    NotBuilt,
}

use Deed::{Reads, Writes};
use Handler::NotBuilt;
use Path::{Is, OfShard, Under};

/// The path under which operations stand.
const ADMIN: &str = "/admin/v1/";

/// API.md, sections 1 and 2. The first that matches answers.
const ROUTES: &[Route] = &[
    Route {
        path: Is("/set"),
        methods: &[
            (Method::GET, Writes(Handler::Set)),
            (Method::PUT, Writes(Handler::Set)),
            (Method::POST, Writes(Handler::Set)),
        ],
    },
    Route { path: Is("/get"), methods: &[(Method::GET, Reads(Handler::Get))] },
    Route {
        path: Is("/delete"),
        methods: &[
            (Method::GET, Writes(Handler::Delete)),
            (Method::POST, Writes(Handler::Delete)),
            (Method::DELETE, Writes(Handler::Delete)),
        ],
    },
    Route { path: Is("/purge"), methods: &[(Method::POST, Writes(NotBuilt))] },
    Route { path: Is("/next-replication-key"), methods: &[(Method::GET, Reads(Handler::NextReplicationKey))] },
    Route { path: Is("/v1/kv"), methods: KV },
    Route { path: Under(kv::UNDER), methods: KV },
    Route { path: Is("/v1/keys"), methods: &[(Method::GET, Reads(NotBuilt))] },
    Route { path: Is("/v1/batch"), methods: &[(Method::POST, Writes(NotBuilt))] },
    Route { path: Is("/v1/watch"), methods: &[(Method::GET, Reads(NotBuilt))] },
    Route { path: Is("/v1/explain"), methods: &[(Method::GET, Reads(Handler::Explain))] },
    Route { path: Is("/v1/receipt"), methods: &[(Method::GET, Reads(Handler::Receipt))] },
    Route { path: Is("/v1/cluster"), methods: &[(Method::GET, Reads(Handler::Cluster))] },
    Route { path: Is("/livez"), methods: &[(Method::GET, Reads(Handler::Live))] },
    Route { path: Is("/readyz"), methods: &[(Method::GET, Reads(Handler::Ready))] },
    Route { path: Is("/metrics"), methods: &[(Method::GET, Reads(Handler::Metrics))] },
    Route { path: Is("/openapi.json"), methods: &[(Method::GET, Reads(NotBuilt))] },
    Route { path: Is("/docs"), methods: &[(Method::GET, Reads(NotBuilt))] },
    Route { path: Is("/"), methods: &[(Method::GET, Reads(NotBuilt))] },
    Route { path: Is("/admin/v1/status"), methods: &[(Method::GET, Reads(Handler::Status))] },
    Route { path: Is("/admin/v1/replica/reset"), methods: &[(Method::POST, Writes(Handler::ResetReplica))] },
    Route { path: Is("/admin/v1/checksum"), methods: &[(Method::GET, Reads(Handler::Checksum))] },
    Route {
        path: OfShard(shards::TAKEOVER),
        methods: &[(Method::GET, Reads(Handler::TakeoverPlan)), (Method::POST, Writes(Handler::Takeover))],
    },
    Route { path: OfShard(shards::SWITCHOVER), methods: &[(Method::POST, Writes(Handler::Switchover))] },
    Route { path: OfShard(shards::LOST_WRITES), methods: &[(Method::GET, Reads(Handler::LostWrites))] },
    Route {
        path: Under(ADMIN),
        methods: &[
            (Method::GET, Reads(NotBuilt)),
            (Method::PUT, Writes(NotBuilt)),
            (Method::POST, Writes(NotBuilt)),
            (Method::DELETE, Writes(NotBuilt)),
        ],
    },
];

const KV: &[(Method, Deed)] = &[
    (Method::GET, Reads(Handler::KvGet)),
    (Method::PUT, Writes(Handler::KvPut)),
    (Method::DELETE, Writes(Handler::KvDelete)),
    (Method::POST, Writes(NotBuilt)),
];

impl Route {
    /// Its name in metrics and logs: its path, with a word for what a client puts there.
    fn name(&self) -> &'static str {
        match self.path {
            Is(exactly) => exactly,
            Under(kv::UNDER) => "/v1/kv/{key}",
            Under(ADMIN) => "/admin/v1/{operation}",
            Under(beginning) => beginning,
            OfShard(shards::TAKEOVER) => "/admin/v1/shards/{shard}/takeover",
            OfShard(shards::SWITCHOVER) => "/admin/v1/shards/{shard}/switchover",
            OfShard(shards::LOST_WRITES) => "/admin/v1/shards/{shard}/lost-writes",
            OfShard(deed) => deed,
        }
    }

    fn matches(&self, path: &str) -> bool {
        match self.path {
            Is(exactly) => path == exactly,
            Under(beginning) => path.starts_with(beginning),
            OfShard(deed) => shards::shard_of(path, deed).is_some(),
        }
    }

    /// What `method` does here; none when the route does not have it.
    fn deed(&self, method: &Method) -> Option<Deed> {
        let of = |wanted: &Method| self.methods.iter().find(|(method, _)| method == wanted).map(|(_, deed)| *deed);
        if *method == Method::HEAD { of(&Method::GET).filter(|deed| matches!(deed, Reads(_))) } else { of(method) }
    }

    /// The `Allow` header.
    fn allow(&self) -> String {
        let mut names: Vec<&str> = self.methods.iter().map(|(method, _)| method.as_str()).collect();
        if self.deed(&Method::HEAD).is_some() {
            names.insert(1, "HEAD");
        }
        names.push("OPTIONS");
        names.join(", ")
    }
}

/// The names of all routes, in the table's order.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ROUTES.iter().map(Route::name)
}

/// A route of the table, and its place there.
#[derive(Clone, Copy)]
pub(super) struct Entry(usize, &'static Route);

impl Entry {
    /// Its answer may be a stream, which hyper alone writes.
    pub(super) fn may_stream(self) -> bool {
        matches!(self.1.path, OfShard(shards::LOST_WRITES))
    }
}

/// The first route of the table that matches a path.
pub(super) fn find(path: &str) -> Option<Entry> {
    ROUTES.iter().enumerate().find(|(_, route)| route.matches(path)).map(|(place, route)| Entry(place, route))
}

/// Answers a request, whatever it is and whatever becomes of it; `found` is its path's route. A handler that panics answers
/// `500` and takes nothing else with it.
pub(super) async fn respond(
    api: &Api,
    found: Option<Entry>,
    parts: &Parts,
    mut upload: Upload<'_>,
    alarm: &mut Alarm,
) -> Reply {
    let (id, began) = (RequestId(rand::random()), api.store.clock().now());
    let asked = Asked { api, parts, id, began, alarm: Mutex::new(alarm) };
    let watch = Watch::begin(&asked, found.map_or((usize::MAX, OTHER), |Entry(place, route)| (place, route.name())));
    let route = found.map(|Entry(_, route)| route);
    let answer = {
        // Pinned here: the futures of all handlers are as large as the largest, and would be moved several times.
        let answering = pin!(answer(&asked, route, &mut upload));
        survive(parts, route, answering).await
    };
    upload.linger(framing::awaits_continue(&parts.headers));
    watch.end(&answer);
    answer.unwrap_or_else(Problem::into_reply)
}

async fn answer(asked: &Asked<'_>, route: Option<&Route>, upload: &mut Upload<'_>) -> Result<Reply, Problem> {
    let Parts { method, uri, headers, .. } = asked.parts;
    framing::check(asked.parts, asked.settings())?;
    if *method == Method::OPTIONS && uri.path() == "*" {
        return Ok(options("GET, HEAD, PUT, POST, DELETE, OPTIONS"));
    }
    let Some(route) = route else {
        return Err(Problem::new(Kind::NoSuchRoute, format!("there is no route {}", uri.path().escape_debug())));
    };
    if *method == Method::OPTIONS {
        return Ok(options(&route.allow()));
    }
    let handler = match route.deed(method) {
        None => return Err(Problem::method_not_allowed(method.as_str(), uri.path(), &route.allow())),
        Some(Reads(handler)) => handler,
        Some(Writes(handler)) => {
            origin::refuse_cross_site(headers)?;
            handler
        }
    };
    match handler {
        Handler::Set => curl::set(asked, upload).await,
        Handler::Get => curl::get(asked).await,
        Handler::Delete => curl::delete(asked, upload).await,
        Handler::NextReplicationKey => curl::next_replication_key(asked).await,
        Handler::KvGet => kv::get(asked).await,
        Handler::KvPut => kv::put(asked, upload).await,
        Handler::KvDelete => kv::delete(asked).await,
        Handler::Cluster => admin::cluster(asked),
        Handler::Explain => admin::explain(asked).await,
        Handler::Receipt => admin::receipt(asked).await,
        Handler::Live => health::live(asked),
        Handler::Ready => health::ready(asked),
        Handler::Status => admin::status(asked).await,
        Handler::Metrics => monitor::metrics(asked).await,
        Handler::ResetReplica => operate::reset_replica(asked).await,
        Handler::Checksum => operate::checksum(asked).await,
        Handler::TakeoverPlan => shards::plan(asked).await,
        Handler::Takeover => shards::take_over(asked).await,
        Handler::Switchover => shards::switch_over(asked).await,
        Handler::LostWrites => shards::lost_writes(asked),
        Handler::NotBuilt => {
            controls::refuse_unknown(headers, controls::DATA)?;
            Err(Problem::not_built(format_args!("{method} {}", uri.path().escape_debug())))
        }
    }
}

fn options(allow: &str) -> Reply {
    Reply::new(StatusCode::NO_CONTENT).line("allow", allow)
}

/// Turns a panic into an answer.
async fn survive(
    parts: &Parts,
    route: Option<&Route>,
    answer: impl Future<Output = Result<Reply, Problem>>,
) -> Result<Reply, Problem> {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| Err(panicked(parts, route)))
}

/// What became of a write whose handler panicked, nobody knows.
fn panicked(parts: &Parts, route: Option<&Route>) -> Problem {
    let is_write = matches!(route.and_then(|route| route.deed(&parts.method)), Some(Writes(_)));
    let applied = if is_write { Applied::Unknown } else { Applied::No };
    Problem::new(Kind::Store(Code::Internal), "the request's handler panicked").applied(applied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn route(path: &str) -> &'static Route {
        ROUTES.iter().find(|route| route.matches(path)).unwrap()
    }

    #[test]
    fn allow_names_head_only_where_get_reads() {
        assert_eq!(route("/set").allow(), "GET, PUT, POST, OPTIONS");
        assert_eq!(route("/delete").allow(), "GET, POST, DELETE, OPTIONS");
        assert_eq!(route("/get").allow(), "GET, HEAD, OPTIONS");
        assert_eq!(route("/v1/kv/a").allow(), "GET, HEAD, PUT, DELETE, POST, OPTIONS");
        assert_eq!(route("/purge").allow(), "POST, OPTIONS");
    }

    #[test]
    fn head_on_a_route_that_writes_is_none_of_its_methods() {
        assert_eq!(route("/set").deed(&Method::HEAD), None);
        assert_eq!(route("/delete").deed(&Method::HEAD), None);
        assert_eq!(route("/v1/kv/a").deed(&Method::HEAD), Some(Reads(Handler::KvGet)));
    }

    #[test]
    fn paths_match_byte_for_byte() {
        assert!(
            ROUTES.iter().all(|route| !route.matches("/get/") && !route.matches("//get") && !route.matches("/Get"))
        );
        assert_eq!(route("/v1/kv//a/../").deed(&Method::GET), Some(Reads(Handler::KvGet)));
        assert_eq!(route("/admin/v1/status").deed(&Method::GET), Some(Reads(Handler::Status)));
        assert_eq!(route("/admin/v1/takeover").deed(&Method::POST), Some(Writes(NotBuilt)));
        assert_eq!(route("/admin/v1/shards/a/takeover").deed(&Method::GET), Some(Reads(Handler::TakeoverPlan)));
        assert_eq!(route("/admin/v1/shards/a/takeover/").deed(&Method::GET), Some(Reads(NotBuilt)));
    }

    #[tokio::test]
    async fn panic_is_answered_and_in_a_write_its_outcome_is_unknown() {
        for (method, path, applied) in
            [("GET", "/set", "Unknown"), ("PUT", "/v1/kv/a", "Unknown"), ("GET", "/get", "No")]
        {
            let (parts, ()) = Request::builder().method(method).uri(path).body(()).unwrap().into_parts();
            let problem = survive(&parts, Some(route(path)), async { panic!("on purpose") }).await.unwrap_err();
            assert_eq!(problem.status(), 500);
            assert!(format!("{problem:?}").contains(&format!("applied: {applied}")), "{method} {path}");
        }
    }
}
