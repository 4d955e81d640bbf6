//! Addresses that nobody else uses: not a running cluster, not another test of this process, not another test process.
//!
//! A port that was free a moment ago may be taken when a server starts, and a node must come back at its own address
//! after a kill. So a cluster claims a whole block, and holds the claim (a bound listener) for as long as it lives:
//!
//! - where all of 127.0.0.0/8 answers (Linux): the 24-bit network `127.X.Y.0`; nodes at `.10:8080`, `.11:8080`, …; the
//!   claim is a listener at `.1`. Outgoing connections come from 127.0.0.1, so their ports cannot collide.
//! - elsewhere (macOS): a run of ports of 127.0.0.1 below the ephemeral range; the claim is a listener on the first.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{SystemTime, UNIX_EPOCH};

/// Most nodes of one cluster.
pub const NODES_MAX: u16 = 60;

/// The port of a network's claim.
const CLAIM_PORT: u16 = 17_999;
/// The port of every node, where a node has an address of its own.
const NODE_PORT: u16 = 8080;
/// Attempts before giving up: a machine with so many claims is broken.
const ATTEMPTS: u64 = 200;

/// A claimed block of addresses.
#[derive(Debug)]
pub struct Block {
    /// Bound as long as the block is claimed; never accepted from.
    _claim: TcpListener,
    base: Base,
}

#[derive(Debug, Clone, Copy)]
enum Base {
    Network([u8; 2]),
    Ports(u16),
}

impl Block {
    /// Claims a block that nobody holds and whose first `nodes` addresses can be bound.
    pub fn claim(nodes: u16) -> Block {
        assert!(nodes <= NODES_MAX, "{nodes} nodes do not fit a block of {NODES_MAX}");
        let own_network = TcpListener::bind((Ipv4Addr::new(127, 64, 0, 1), 0)).is_ok();
        (0..ATTEMPTS)
            .find_map(|attempt| try_claim(own_network, seed().wrapping_add(attempt.wrapping_mul(7919)), nodes))
            .unwrap_or_else(|| panic!("no free block of {nodes} loopback addresses in {ATTEMPTS} attempts"))
    }

    /// The address of the node with this number.
    pub fn node(&self, number: u16) -> SocketAddr {
        self.base.node(number)
    }
}

impl Base {
    fn claim_address(self) -> SocketAddr {
        match self {
            Base::Network([x, y]) => (Ipv4Addr::new(127, x, y, 1), CLAIM_PORT).into(),
            Base::Ports(first) => (Ipv4Addr::LOCALHOST, first).into(),
        }
    }

    fn node(self, number: u16) -> SocketAddr {
        match self {
            Base::Network([x, y]) => {
                let host = u8::try_from(10 + number).unwrap();
                (Ipv4Addr::new(127, x, y, host), NODE_PORT).into()
            }
            Base::Ports(first) => (Ipv4Addr::LOCALHOST, first + 1 + number).into(),
        }
    }
}

fn try_claim(own_network: bool, number: u64, nodes: u16) -> Option<Block> {
    let base = if own_network {
        let network = number % (180 * 254);
        Base::Network([u8::try_from(64 + network / 254).unwrap(), u8::try_from(1 + network % 254).unwrap()])
    } else {
        let blocks = u64::from((32_000 - 12_000) / (NODES_MAX + 4));
        Base::Ports(12_000 + u16::try_from(number % blocks).unwrap() * (NODES_MAX + 4))
    };
    let claim = TcpListener::bind(base.claim_address()).ok()?;
    let all_free = (0..nodes).all(|node| TcpListener::bind(base.node(node)).is_ok());
    all_free.then_some(Block { _claim: claim, base })
}

/// Differs from process to process and from call to call.
fn seed() -> u64 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    u64::from(std::process::id()).wrapping_mul(104_729) ^ u64::from(nanos)
}
