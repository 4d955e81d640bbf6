//! A network in memory: connections can be refused, cut, broken in the middle of a frame, and frozen.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use ostraca::config::Node;
use ostraca::peer::pool::{Connector, Opening, Stream};
use ostraca::peer::server::Listener;
use ostraca::peer::{Kind, Reply, Request, Service};
use ostraca::store::Store;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Bytes that a wire holds.
const WIRE_BYTES: usize = 64 << 10;

/// All wires between all nodes.
#[derive(Clone, Default)]
pub(crate) struct Net(Arc<Mutex<Wiring>>);

#[derive(Default)]
struct Wiring {
    doors: BTreeMap<SocketAddr, Door>,
    cut: BTreeSet<(SocketAddr, SocketAddr)>,
    wires: Vec<Wire>,
    /// Bytes that a node may still send in answers before its wire breaks; negative: any number.
    budgets: BTreeMap<SocketAddr, Arc<AtomicI64>>,
    frozen: BTreeMap<SocketAddr, watch::Sender<bool>>,
    /// Nodes that run a program which knows no look at a key without its value.
    older: BTreeSet<SocketAddr>,
}

#[derive(Clone)]
struct Door {
    listener: Listener,
    store: Arc<Store>,
}

struct Wire {
    ends: (SocketAddr, SocketAddr),
    broken: CancellationToken,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Net")
    }
}

impl Net {
    /// From now on a node answers at this address.
    pub(crate) fn open(&self, at: SocketAddr, listener: Listener, store: Arc<Store>) {
        self.0.lock().doors.insert(at, Door { listener, store });
    }

    /// Nobody answers at this address any more, and all wires from and to it break.
    pub(crate) fn close(&self, at: SocketAddr) {
        self.0.lock().doors.remove(&at);
        self.break_wires(|ends| ends.0 == at || ends.1 == at);
    }

    /// Two nodes do not reach each other any more.
    pub(crate) fn cut(&self, a: SocketAddr, b: SocketAddr) {
        self.0.lock().cut.extend([(a, b), (b, a)]);
        self.break_wires(|ends| ends == (a, b) || ends == (b, a));
    }

    /// The first node does not reach the second any more; the second still reaches the first.
    pub(crate) fn cut_one_way(&self, from: SocketAddr, to: SocketAddr) {
        self.0.lock().cut.insert((from, to));
        self.break_wires(|ends| ends == (from, to));
    }

    pub(crate) fn heal(&self, a: SocketAddr, b: SocketAddr) {
        self.0.lock().cut.retain(|ends| *ends != (a, b) && *ends != (b, a));
    }

    /// The wire on which a node's answers have come to so many more bytes breaks there.
    pub(crate) fn break_answers_after(&self, from: SocketAddr, bytes: i64) {
        self.0.lock().budget(from).store(bytes, Ordering::SeqCst);
    }

    /// What a node sends and is sent stays on the wires for as long as it is frozen.
    pub(crate) fn freeze(&self, node: SocketAddr, frozen: bool) {
        self.0.lock().frozen(node).send_replace(frozen);
    }

    /// From now on a node is one that runs an older program.
    pub(crate) fn make_older(&self, node: SocketAddr) {
        self.0.lock().older.insert(node);
        self.break_wires(|ends| ends.1 == node);
    }

    fn break_wires(&self, which: impl Fn((SocketAddr, SocketAddr)) -> bool) {
        self.0.lock().wires.retain(|wire| {
            let breaks = which(wire.ends);
            if breaks {
                wire.broken.cancel();
            }
            !breaks && !wire.broken.is_cancelled()
        });
    }

    fn connect(&self, from: SocketAddr, to: SocketAddr) -> io::Result<Box<dyn Stream>> {
        let mut wiring = self.0.lock();
        let door = wiring.doors.get(&to).filter(|_| !wiring.cut.contains(&(from, to))).cloned();
        let door = door.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        let (near, near_relay) = tokio::io::duplex(WIRE_BYTES);
        let (far, far_relay) = tokio::io::duplex(WIRE_BYTES);
        let broken = CancellationToken::new();
        wiring.wires.push(Wire { ends: (from, to), broken: broken.clone() });
        let frozen = [wiring.frozen(from).subscribe(), wiring.frozen(to).subscribe()];
        let budget = wiring.budget(to);
        tokio::spawn(async move {
            let ((near_read, near_write), (far_read, far_write)) =
                (tokio::io::split(near_relay), tokio::io::split(far_relay));
            tokio::select! {
                () = broken.cancelled() => {}
                () = relay(near_read, far_write, frozen.clone(), None) => {}
                () = relay(far_read, near_write, frozen.clone(), Some(&budget)) => {}
            }
        });
        tokio::spawn(answer(far, door, wiring.older.contains(&to)));
        Ok(Box::new(near))
    }
}

impl Wiring {
    fn budget(&mut self, node: SocketAddr) -> Arc<AtomicI64> {
        Arc::clone(self.budgets.entry(node).or_insert_with(|| Arc::new(AtomicI64::new(-1))))
    }

    fn frozen(&mut self, node: SocketAddr) -> &watch::Sender<bool> {
        self.frozen.entry(node).or_insert_with(|| watch::Sender::new(false))
    }
}

/// Passes bytes on until an end closes, or the budget is used up.
async fn relay(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut frozen: [watch::Receiver<bool>; 2],
    budget: Option<&AtomicI64>,
) {
    let mut buffer = vec![0; WIRE_BYTES];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        for node in &mut frozen {
            let _ = node.wait_for(|frozen| !frozen).await;
        }
        let passed = budget.map_or(read, |budget| spend(budget, read));
        if to.write_all(&buffer[..passed]).await.is_err() || passed < read {
            let _ = to.flush().await;
            return;
        }
    }
}

/// How many of `wanted` bytes may pass. The budget that breaks a wire is gone with it.
fn spend(budget: &AtomicI64, wanted: usize) -> usize {
    let wanted_bytes = i64::try_from(wanted).unwrap();
    let mut passed = wanted;
    let _ = budget.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
        ..0 => None,
        left if left < wanted_bytes => {
            passed = usize::try_from(left).unwrap();
            Some(-1)
        }
        left => Some(left - wanted_bytes),
    });
    passed
}

/// The far end: answers the upgrade as a node's HTTP server does, and serves the peer.
async fn answer(mut stream: DuplexStream, door: Door, is_older: bool) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let switching = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ostraca-peer\r\n\r\n";
    if stream.write_all(switching).await.is_ok() {
        match is_older {
            false => door.listener.serve(stream, door.store).await,
            true => door.listener.serve(stream, Arc::new(Older(door.store))).await,
        }
    }
}

/// A store of an older program: it cannot read a look at a key without its value, which ends in a byte that it does not
/// know.
struct Older(Arc<Store>);

impl Service for Older {
    async fn handle(&self, request: Request) -> Reply {
        let is_unknown = request.envelope.kind == Kind::Forward.number() && request.body.ends_with(&[2]);
        if is_unknown { Reply::unsupported() } else { self.0.handle(request).await }
    }
}

/// A node's plug in the network.
#[derive(Debug)]
pub(crate) struct Plug {
    pub(crate) net: Net,
    pub(crate) me: SocketAddr,
}

impl Connector for Plug {
    fn connect<'a>(&'a self, node: &'a Node) -> Opening<'a> {
        Box::pin(async move { self.net.connect(self.me, node.address) })
    }
}
