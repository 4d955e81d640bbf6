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
//! A connection begins in a loop of our own (`super::plain`), which serves what nearly all requests are, and is handed to
//! hyper at the first request that is anything else. The bounds above hold in both.
//!
//! HTTP/1.1 and 1.0 only. HTTP/2 would bring windows and streams that a client can hold open, each of which would need a
//! bound of its own here, and curl does not ask for it on plain `http://`.
//!
//! A client may close its sending side and still read its answer, as `nc` does. So one that has gone for good is noticed
//! when it is answered, and not before; a request's deadline bounds that.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::util::ServiceExt;

use super::Service;
use super::ahead::Ahead;
use super::plain;
use super::slots::{Activity, Slot, Slots};
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

/// Serves `service` on `listener` until `shutdown`, then lets requests that run finish. Returns how many connections had to
/// be cut. Connections that were upgraded are no longer ours and go on.
pub async fn serve(
    listener: TcpListener,
    service: Service,
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
                let open = Open::begin(&metrics);
                let connection = Connection::new(service.clone(), http.clone(), shutdown.clone(), cut.clone());
                connections.spawn(async move {
                    connection.run(stream, &slot).await;
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

/// HTTP as hyper is to speak it.
pub(super) fn protocol(settings: &Settings) -> http1::Builder {
    let head_bytes_max = settings.header_bytes_max + URI_BYTES_MAX;
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .max_header_size(head_bytes_max)
        .max_buf_size(head_bytes_max + (8 << 10))
        .half_close(true);
    http
}

/// What a connection is made of.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// A connection, and what it needs of its node.
pub(super) struct Connection {
    service: Service,
    http: http1::Builder,
    activity: Arc<Activity>,
    shutdown: CancellationToken,
    cut: CancellationToken,
}

impl Connection {
    /// A new connection. It ends soon after `shutdown`, and at once after `cut`.
    pub(super) fn new(
        service: Service,
        http: http1::Builder,
        shutdown: CancellationToken,
        cut: CancellationToken,
    ) -> Connection {
        Connection { service, http, activity: Arc::default(), shutdown, cut }
    }

    /// Serves it to its end, or until it must make room or is cut: without a request, dropping it loses nothing.
    async fn run(&self, stream: TcpStream, slot: &Slot) {
        let is_stopping = AtomicBool::new(false);
        // A set of one: it looks at its future only when that has something new, and not at every turn of the connection.
        let mut ends: FuturesUnordered<_> = [self.must_end(slot, &is_stopping)].into_iter().collect();
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(detail = %error, "cannot set TCP_NODELAY");
        }
        let served = self.serve(stream, &is_stopping);
        tokio::select! {
            biased; // what is asked of a connection is known before its turn
            _ = ends.next() => {}
            served = served => if let Err(error) = served {
                tracing::debug!(detail = %error, "a connection ended in an error");
            },
        }
    }

    /// Returns when the connection has to end at once, and says before when it has to end soon.
    async fn must_end(&self, slot: &Slot, is_stopping: &AtomicBool) {
        tokio::select! {
            () = self.shutdown.cancelled() => is_stopping.store(true, Ordering::Relaxed),
            () = slot.is_wanted_back(&self.activity) => return,
        }
        tokio::select! {
            () = self.cut.cancelled() => {}
            () = slot.is_wanted_back(&self.activity) => {}
        }
    }

    /// Serves it to its end. Its errors are the client's: it went away, or sent what is not HTTP.
    pub(super) async fn serve(&self, stream: impl Stream, is_stopping: &AtomicBool) -> io::Result<()> {
        let mut stream = Stalling::new(stream, WRITE_STALL_MAX, Arc::clone(&self.activity));
        let plain = plain::Connection::new(&self.service.api, &mut stream, &self.activity, is_stopping);
        match plain.serve().await? {
            None => Ok(()),
            Some(unread) => Box::pin(self.serve_with_hyper(Ahead::new(unread, stream))).await.map_err(io::Error::other),
        }
    }

    /// Leaves it all to hyper.
    pub(super) async fn serve_with_hyper(&self, stream: impl Stream) -> hyper::Result<()> {
        let service = service_fn(|request| {
            let under_way = self.activity.request();
            let answering = self.service.router.clone().oneshot(request);
            async move {
                let answer = answering.await;
                drop(under_way);
                answer
            }
        });
        let connection = self.http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        tokio::pin!(connection);
        tokio::select! {
            biased; // a request that is here already is one that runs
            ended = connection.as_mut() => return ended,
            () = self.shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }
}

/// Whether an accept failed because the connection was gone before it was taken.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
