//! One node, over HTTP: write a key, read it back, ask whether anybody is there. The only file that knows routes and the
//! HTTP library; a faster connection of our own can take its place.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, Response, StatusCode};

use crate::args::Target;
use crate::failure::Failure;

/// A client of one node. Keeps as many connections alive as there are requests at a time.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    client: Client,
    base: String,
}

/// How long a connection may take to open; on loopback and in one data centre it is there in milliseconds, or never.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the node may take to say that it is alive.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of an error's body is read for its code; a longer one is cut off, and its connection is not used again.
const ERROR_BYTES_MAX: usize = 64 << 10;

impl Node {
    /// A client of the node at `target` that waits at most `timeout` for a whole answer.
    pub(crate) fn new(target: &Target, timeout: Duration) -> Result<Node, String> {
        let client = Client::builder()
            .user_agent(concat!("benchclient/", env!("CARGO_PKG_VERSION")))
            // What is measured is this node: no proxy from the environment, no other node by redirect, no hidden second try.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            .build()
            .map_err(|error| format!("the HTTP client could not be made: {error}"))?;
        Ok(Node { client, base: target.base() })
    }

    /// Is there a node at all? Any node that runs will do, ready or not.
    pub(crate) async fn hello(&self) -> Result<(), Failure> {
        let request = self.client.get(format!("{}/livez", self.base)).timeout(HELLO_TIMEOUT);
        let response = request.send().await.map_err(|error| Failure::transport(&error))?;
        match response.status() {
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => Ok(()),
            status => Err(Failure::new("not-a-node", format!("GET /livez answered {status}"))),
        }
    }

    /// Writes a value; `Ok` is an acknowledgement.
    pub(crate) async fn put(&self, key: &str, value: Bytes) -> Result<(), Failure> {
        let request = self.client.put(self.url(key)).header("content-type", "application/octet-stream").body(value);
        let response = request.send().await.map_err(|error| Failure::transport(&error))?;
        if response.status().is_success() { drain(response).await } else { Err(refusal(response).await) }
    }

    /// Reads an acknowledged key; anything but `expected` is a failure.
    pub(crate) async fn get(&self, key: &str, expected: &[u8]) -> Result<(), Failure> {
        let response = self.client.get(self.url(key)).send().await.map_err(|error| Failure::transport(&error))?;
        match response.status() {
            StatusCode::OK => compare(response, key, expected).await,
            StatusCode::NOT_FOUND => {
                let said = refusal(response).await;
                Err(Failure::new("missing", format!("{key} was acknowledged, and is not there ({})", said.detail)))
            }
            _ => Err(refusal(response).await),
        }
    }

    fn url(&self, key: &str) -> String {
        format!("{}/v1/kv/{key}", self.base)
    }
}

/// Reads the value piece by piece and stops at the first that differs, so that no answer can fill the memory.
async fn compare(mut response: Response, key: &str, expected: &[u8]) -> Result<(), Failure> {
    let mut rest = expected;
    while let Some(piece) = response.chunk().await.map_err(|error| Failure::transport(&error))? {
        rest = rest.strip_prefix(&piece[..]).ok_or_else(|| {
            let at = expected.len() - rest.len();
            Failure::new("wrong-value", format!("{key} came back with other bytes, from byte {at} on or soon after"))
        })?;
    }
    if rest.is_empty() {
        return Ok(());
    }
    let got = expected.len() - rest.len();
    Err(Failure::new("wrong-value", format!("{key} came back with {got} of its {} bytes", expected.len())))
}

/// Reads what a success says to its end: only then can the connection be used again.
async fn drain(mut response: Response) -> Result<(), Failure> {
    let mut left = ERROR_BYTES_MAX;
    while let Some(piece) = response.chunk().await.map_err(|error| Failure::transport(&error))? {
        left = left
            .checked_sub(piece.len())
            .ok_or_else(|| Failure::new("bad-answer", "the answer to a write had a body without end"))?;
    }
    Ok(())
}

/// Why the node refused, as far as its answer can be read.
async fn refusal(mut response: Response) -> Failure {
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while body.len() < ERROR_BYTES_MAX {
        match response.chunk().await {
            Ok(Some(piece)) => body.extend_from_slice(&piece),
            Ok(None) | Err(_) => break,
        }
    }
    Failure::answer(status, &body)
}
