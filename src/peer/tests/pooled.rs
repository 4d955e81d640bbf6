//! The pool: connections opened when needed, given up when broken, and no request sent twice.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Echo, PIPE_BYTES, local, local_of};
use crate::clock::Clock;
use crate::config::Node;
use crate::metrics::{Labels, Metrics};
use crate::peer::client::CallError;
use crate::peer::message::{Class, Kind, RefusalCode};
use crate::peer::pool::{Ask, Connector, Opening, Pool, Stream};
use crate::peer::server::Listener;
use crate::peer::{Contacts, Local};
use crate::random::Random;
use crate::types::{NodeName, RequestId, ShardIndex};

/// How the far end behaves, connection by connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// Nobody listens.
    Refused,
    /// It connects after so many milliseconds, and serves.
    Serves(u64),
    /// It accepts, and says nothing.
    Silent,
    /// It speaks HTTP, and is no node.
    Http,
}

/// A transport to one node; what is behind the door is up to the test.
#[derive(Debug, Clone)]
struct Street(Arc<Behind>);

#[derive(Debug)]
struct Behind {
    door: Mutex<Door>,
    opened: AtomicU32,
    local: Arc<Local>,
    echo: Arc<Echo>,
    /// Breaks the connections that are open.
    broken: Mutex<CancellationToken>,
    silent: Mutex<Vec<DuplexStream>>,
}

impl std::fmt::Debug for Echo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Echo")
    }
}

impl Connector for Street {
    fn connect<'a>(&'a self, _: &'a Node) -> Opening<'a> {
        Box::pin(async move {
            let door = *self.0.door.lock();
            self.0.opened.fetch_add(1, Ordering::SeqCst);
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            match door {
                Door::Refused => return Err(io::ErrorKind::ConnectionRefused.into()),
                Door::Silent => self.0.silent.lock().push(far),
                Door::Http => drop(tokio::spawn(answer_http(far))),
                Door::Serves(after_ms) => {
                    sleep(Duration::from_millis(after_ms)).await;
                    self.serve(far);
                }
            }
            Ok(Box::new(near) as Box<dyn Stream>)
        })
    }
}

impl Street {
    fn new(local: Arc<Local>) -> Street {
        let behind = Behind {
            door: Mutex::new(Door::Serves(0)),
            opened: AtomicU32::new(0),
            local,
            echo: Echo::at_once(),
            broken: Mutex::default(),
            silent: Mutex::default(),
        };
        Street(Arc::new(behind))
    }

    fn serve(&self, mut far: DuplexStream) {
        let listener = Listener {
            local: Arc::clone(&self.0.local),
            contacts: Arc::new(Contacts::default()),
            metrics: Arc::new(Metrics::new(&Labels::default())),
            clock: Clock::real(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let (echo, broken) = (Arc::clone(&self.0.echo), self.0.broken.lock().clone());
        tokio::spawn(async move {
            tokio::select! {
                () = broken.cancelled() => {}
                () = async {
                    read_head(&mut far).await;
                    far.write_all(SWITCHING).await.unwrap();
                    listener.serve(far, echo).await;
                } => {}
            }
        });
    }

    /// Breaks what is open; later connections are whole.
    fn break_connections(&self) {
        std::mem::take(&mut *self.0.broken.lock()).cancel();
    }

    fn set(&self, door: Door) {
        *self.0.door.lock() = door;
    }

    fn opened(&self) -> u32 {
        self.0.opened.load(Ordering::SeqCst)
    }
}

const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ostraca-peer\r\n\r\n";

async fn read_head(stream: &mut DuplexStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
}

async fn answer_http(mut stream: DuplexStream) {
    read_head(&mut stream).await;
    stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.unwrap();
}

fn pool(street: &Street) -> Pool {
    let contacts = Arc::new(Contacts::default());
    Pool::new(local("A/0"), contacts, Clock::real(), Random::seeded(1), Box::new(street.clone()))
}

fn node() -> Node {
    Node { name: NodeName::new("B/0"), address: ([127, 0, 0, 1], 9000).into(), shard: ShardIndex(0) }
}

async fn ask(pool: &Pool, class: Class, body: &'static str, total_ms: u64) -> Result<Bytes, CallError> {
    let node = node();
    let ask = Ask {
        node: &node,
        class,
        kind: Kind::Inspect,
        shard: ShardIndex(0),
        epoch: None,
        request_id: RequestId(1),
        body: body.into(),
        answer_wait: Duration::from_secs(2),
        total_wait: Duration::from_millis(total_ms),
    };
    pool.ask(ask).await
}

#[tokio::test]
async fn connection_is_shared_by_all_requests_of_a_class() {
    let street = Street::new(local("B/0"));
    let pool = pool(&street);
    let asks = (0..20).map(|_| ask(&pool, Class::Request, "body", 5000));
    for answer in futures_util::future::join_all(asks).await {
        assert_eq!(answer, Ok("body".into()));
    }
    assert_eq!(street.opened(), 1);
    ask(&pool, Class::Bulk, "body", 5000).await.unwrap();
    assert_eq!(street.opened(), 2);
}

#[tokio::test]
async fn connection_that_broke_meanwhile_is_opened_again_for_a_request_that_has_not_left() {
    let street = Street::new(local("B/0"));
    let pool = pool(&street);
    for n in 1..=20 {
        assert_eq!(ask(&pool, Class::Request, "body", 5000).await, Ok("body".into()), "round {n}");
        street.break_connections();
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(street.0.echo.begun.lock().len(), 20, "each once");
}

#[tokio::test]
async fn node_that_cannot_be_reached_was_not_sent_anything() {
    let street = Street::new(local("B/0"));
    let pool = pool(&street);
    for door in [Door::Refused, Door::Http] {
        street.set(door);
        let error = ask(&pool, Class::Request, "body", 5000).await.unwrap_err();
        assert!(matches!(error, CallError::NotSent(_)), "{door:?}: {error:?}");
    }
    street.set(Door::Serves(0));
    assert_eq!(ask(&pool, Class::Request, "body", 5000).await, Ok("body".into()), "it is back");
}

#[tokio::test(start_paused = true)]
async fn node_that_accepts_and_says_nothing_is_given_up_on_within_two_seconds() {
    let street = Street::new(local("B/0"));
    let pool = pool(&street);
    street.set(Door::Silent);
    let asks = (0..5).map(|_| ask(&pool, Class::Request, "body", 30_000));
    let all = timeout(Duration::from_millis(2100), futures_util::future::join_all(asks)).await;
    for answer in all.expect("all of them together") {
        assert!(matches!(answer, Err(CallError::NotSent(_))), "{answer:?}");
    }
}

#[tokio::test]
async fn node_of_another_placement_is_refused_without_sending() {
    let street = Street::new(local_of("B/0", 2, None));
    let pool = pool(&street);
    let refused = ask(&pool, Class::Request, "body", 5000).await.unwrap_err();
    let CallError::Refused(refusal) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.code, RefusalCode::TopologyMismatch);
    assert!(street.0.echo.begun.lock().is_empty());
}

/// The bug: the owner was told the time that was left before the connection was opened, and so took writes whose client
/// had long been answered.
#[tokio::test]
async fn owner_is_told_the_time_that_is_left_after_connecting() {
    let street = Street::new(local("B/0"));
    let pool = pool(&street);
    street.set(Door::Serves(400));
    assert_eq!(ask(&pool, Class::Request, "body", 1000).await, Ok("body".into()));
    let remaining = street.0.echo.begun.lock()[0].envelope.remaining;
    assert!(remaining <= Duration::from_millis(600), "{remaining:?}");
}
