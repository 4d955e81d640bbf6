//! The accept loop, and what bounds a connection.
//!
//! | what | bound | at the bound |
//! |---|---|---|
//! | connections | `limits.connections_max`, and what the descriptors allow | new ones wait in the kernel's queue, and quiet ones make room: `super::slots` |
//! | a head that arrives slowly, or not at all; idleness between requests | [`HEAD_WAIT_MAX`] | closed |
//! | a head's size | `limits.header_bytes_max` and 64 KiB of path and query | `431`, `414` |
//! | a body | its deadline and limits: `super::body` | `504`, `413`, `503` |
//! | a client that does not read its answer | [`WRITE_STALL_MAX`] | closed |
//! | stopping | [`STOP_WAIT_MAX`] | what still runs is cut |
//!
//! HTTP/1.1 and 1.0 only. HTTP/2 would bring windows and streams that a client can hold open, each of which would need a
//! bound of its own here, and curl does not ask for it on plain `http://`.
//!
//! A client may close its sending side and still read its answer, as `nc` does. So one that has gone for good is noticed
//! when it is answered, and not before; a request's deadline bounds that.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::util::{MapResponse, ServiceExt};

use super::gather::{Direct, Gather};
use super::slots::{Activity, Slots};
use super::stall::Stalling;
use crate::config::Settings;
use crate::metrics::Metrics;

/// How long the head of a request may take to arrive, counted from the end of the request before it.
pub const HEAD_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a write may make no progress.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(30);
/// How long connections may take to finish what they do when the node stops.
pub const STOP_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest path and query; what the URI parser takes.
const URI_BYTES_MAX: usize = 64 << 10;
/// A pause after an accept that failed for want of descriptors or memory, in which some may come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `shutdown`, then lets requests that run finish. Returns how many connections had to
/// be cut. Connections that were upgraded are no longer ours and go on.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: &Settings,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> usize {
    let slots = Slots::new(settings.connections_max);
    let mut accepts = true;
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    let http = protocol(settings);
    loop {
        let next = async {
            let slot = slots.acquire().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            next = next => next,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                accepts = true;
                let activity = Arc::new(Activity::default());
                let connection = connection(
                    stream,
                    http.clone(),
                    router.clone(),
                    Arc::clone(&activity),
                    shutdown.clone(),
                    cut.clone(),
                );
                let open = Open::begin(&metrics);
                connections.spawn(async move {
                    tokio::select! {
                        () = connection => {}
                        () = slot.is_wanted_back(&activity) => {} // it has no request: dropping it loses nothing
                    }
                    drop(open);
                    drop(slot);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if std::mem::take(&mut accepts) {
                    tracing::warn!(detail = %error, "cannot accept connections; trying again until it works");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if timeout(STOP_WAIT_MAX, connections.wait()).await.is_ok() {
        return 0;
    }
    let unfinished = connections.len();
    tracing::warn!(unfinished, "connections did not finish in time and are cut");
    cut.cancel();
    connections.wait().await;
    unfinished
}

/// A connection in the metrics.
struct Open(Arc<Metrics>);

impl Open {
    fn begin(metrics: &Arc<Metrics>) -> Open {
        metrics.http.accepted.inc();
        metrics.http.connections.inc();
        Open(Arc::clone(metrics))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.http.connections.dec();
    }
}

fn protocol(settings: &Settings) -> http1::Builder {
    let head_bytes_max = settings.header_bytes_max + URI_BYTES_MAX;
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .max_header_size(head_bytes_max)
        .max_buf_size(head_bytes_max + (8 << 10))
        .half_close(true);
    http
}

/// Serves one connection to its end. Its errors are the client's: it went away, or sent what is not HTTP.
async fn connection(
    stream: TcpStream,
    http: http1::Builder,
    router: Router,
    activity: Arc<Activity>,
    shutdown: CancellationToken,
    cut: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(detail = %error, "cannot set TCP_NODELAY");
    }
    let direct = Direct::default();
    let stream =
        TokioIo::new(Gather::new(Stalling::new(stream, WRITE_STALL_MAX, Arc::clone(&activity)), direct.clone()));
    let service = MapResponse::new(router, move |response: Response| {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            direct.set();
        }
        response
    });
    let service = service_fn(move |request| {
        let under_way = activity.request();
        let answering = service.clone().oneshot(request);
        async move {
            let answer = answering.await;
            drop(under_way);
            answer
        }
    });
    let connection = http.serve_connection(stream, service).with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = cut.cancelled() => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(detail = %error, "a connection ended in an error");
    }
}

/// Whether an accept failed because the connection was gone before it was taken.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
