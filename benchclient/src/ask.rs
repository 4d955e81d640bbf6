//! Questions beside the load: is anybody there, which shards are there, how much processor time have you used. One
//! request on a connection of its own, with a time-out.

use std::net::SocketAddr;
use std::time::Duration;

use crate::args::target::Target;
use crate::cluster::{About, Cluster, cpu_seconds};
use crate::failure::Failure;
use crate::link::Link;

/// How long a node may take to answer such a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The answer to `GET path`: its status and body.
pub(crate) async fn get(address: SocketAddr, host: &str, path: &str) -> Result<(u16, Vec<u8>), Failure> {
    let mut link = Link::new(address);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let exchange = async {
        link.open().await?;
        link.out().extend_from_slice(request.as_bytes());
        link.push((), true);
        let mut answer = None;
        std::future::poll_fn(|cx| {
            link.poll_answers(cx, || (), |(), came, ()| answer = Some((came.status, came.body.to_vec())))
        })
        .await?;
        answer.ok_or_else(|| Failure::new("closed", "no answer came"))
    };
    match tokio::time::timeout(ANSWER_TIMEOUT, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::new("timeout", format!("no answer within {ANSWER_TIMEOUT:?}"))),
    }
}

/// Is there a node at all? Any node that runs will do, ready or not.
pub(crate) async fn hello(address: SocketAddr, target: &Target) -> Result<(), Failure> {
    match get(address, target.authority(), "/livez").await? {
        (200 | 503, _) => Ok(()),
        (status, _) => Err(Failure::new("not-a-node", format!("GET /livez answered {status}"))),
    }
}

/// The cluster as this node sees it.
pub(crate) async fn cluster(address: SocketAddr, host: &str) -> Result<Cluster, String> {
    match get(address, host, "/v1/cluster").await {
        Ok((200, body)) => Cluster::parse(&body).map_err(|error| format!("its /v1/cluster is not understood: {error}")),
        Ok((status, _)) => Err(format!("GET /v1/cluster answered {status}")),
        Err(failure) => Err(failure.detail),
    }
}

/// What this node says about itself; nothing if it does not say.
pub(crate) async fn about(address: SocketAddr, host: &str) -> About {
    match get(address, host, "/admin/v1/status").await {
        Ok((200, body)) => About::parse(&body),
        _ => About::default(),
    }
}

/// Processor seconds that each of these nodes has used so far; `None` unless all of them say.
pub(crate) async fn cpu_of(nodes: &[String]) -> Option<Vec<f64>> {
    let mut all = Vec::new();
    for node in nodes {
        let address = node.parse().ok()?;
        let (_, metrics) = get(address, node, "/metrics").await.ok().filter(|(status, _)| *status == 200)?;
        all.push(cpu_seconds(&metrics)?);
    }
    (!all.is_empty()).then_some(all)
}
