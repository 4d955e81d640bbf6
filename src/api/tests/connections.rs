//! Connections: pipelining, bounds, stopping, upgrades.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Served, parse, serve, serve_with, store};
use crate::api::{Service, listen};
use crate::config::Settings;

#[tokio::test]
async fn client_that_closes_its_sending_side_still_gets_its_answer() {
    let served = serve().await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(parse(&answer).status, 200);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let served = serve().await;
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
    let last = "GET /nowhere HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let answer = served.raw((get("/set?key=b&value=1") + &get("/get?key=b") + last).as_bytes()).await;
    let text = String::from_utf8(answer).unwrap();
    let statuses: Vec<&str> = text.match_indices("HTTP/1.1 ").map(|(at, _)| &text[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "200", "404"]);
}

#[tokio::test]
async fn answer_does_not_wait_for_the_rest_of_the_next_request() {
    let served = serve().await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\nGET /liv").await.unwrap();
    let mut head = [0; 12];
    timeout(Duration::from_secs(5), stream.read_exact(&mut head)).await.expect("an answer").unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
}

#[tokio::test]
async fn request_that_cannot_be_parsed_is_400() {
    let served = serve().await;
    for request in [
        "GET /a b c\r\n\r\n",
        "\x01\x02\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
    ] {
        assert_eq!(parse(&served.raw(request.as_bytes()).await).status, 400, "{request}");
    }
}

#[tokio::test]
async fn connection_beyond_the_bound_waits_and_is_served_later() {
    let served = serve_with(Settings { connections_max: 1, ..Settings::default() }).await;
    let first = TcpStream::connect(served.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = served.ask("GET /livez");
    tokio::pin!(second);
    assert!(timeout(Duration::from_millis(200), second.as_mut()).await.is_err(), "it waits");
    drop(first);
    assert_eq!(second.await.status, 200);
}

#[tokio::test]
async fn shutdown_refuses_new_connections_and_closes_idle_ones() {
    let served = serve().await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    idle.read_exact(&mut head).await.unwrap();
    served.shutdown.cancel();
    let mut rest = Vec::new();
    timeout(Duration::from_secs(2), idle.read_to_end(&mut rest)).await.expect("it is closed").unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn route_added_to_the_router_bypasses_the_table_and_can_upgrade() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let upgrade = |request: axum::extract::Request| async {
        tokio::spawn(async {
            let upgraded = hyper::upgrade::on(request).await.unwrap();
            hyper_util::rt::TokioIo::new(upgraded).write_all(b"peer").await.unwrap();
        });
        let mut response = axum::response::Response::new(axum::body::Body::empty());
        *response.status_mut() = axum::http::StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("upgrade", axum::http::HeaderValue::from_static("ostraca"));
        response
    };
    let store = store(address, Settings::default()).await;
    let metrics = std::sync::Arc::clone(store.metrics());
    let service = Service::new(store).route("/v1/peer", axum::routing::any(upgrade));
    let shutdown = CancellationToken::new();
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move { listen::serve(listener, service, &Settings::default(), metrics, shutdown).await }
    });
    let served = Served { address, shutdown };
    let answer =
        served.raw(b"GET /v1/peer HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: ostraca\r\n\r\n").await;
    assert_eq!(parse(&answer).status, 101);
    assert_eq!(parse(&answer).body, b"peer");
}
