//! The serving end: requests side by side within bounds, whatever the caller does meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::{Echo, PATIENT, PIPE_BYTES, ask, connect, local, request, serve, serve_as};
use crate::peer::frame::Frame;
use crate::peer::message::{Class, Request};
use crate::peer::server::{Met, Reply, Service};
use crate::types::NodeName;

/// A frame as it goes over the wire.
fn wire(frame: Frame) -> Vec<u8> {
    let encoded = frame.encode();
    [encoded.head, encoded.body].concat()
}

fn hello() -> Vec<u8> {
    wire(Frame::Hello(local("A/0").hello(&NodeName::new("B/0"), Class::Request)))
}

fn numbered(id: u64, body: impl Into<Bytes>) -> Vec<u8> {
    wire(Frame::Request { id, request: request(body) })
}

#[tokio::test]
async fn request_goes_on_when_its_caller_hangs_up() {
    let permits = Arc::new(Semaphore::new(0));
    let echo = Echo::with(&permits);
    let (mut near, serving) = serve(&echo);
    near.write_all(&[hello(), numbered(1, "body")].concat()).await.unwrap();
    while echo.begun.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(near);
    serving.connection.await.unwrap();
    assert_eq!(serving.tasks.len(), 2, "the request, and whoever would write its answer");
    permits.add_permits(1);
    serving.tasks.close();
    timeout(Duration::from_secs(10), serving.tasks.wait()).await.expect("it ends by itself");
    assert_eq!(permits.available_permits(), 0, "it was served to its end");
}

#[tokio::test]
async fn request_that_was_cut_off_is_not_begun() {
    let echo = Echo::at_once();
    let (mut near, serving) = serve(&echo);
    let cut = numbered(2, "cut off");
    near.write_all(&[hello(), numbered(1, "whole"), cut[..cut.len() - 1].to_vec()].concat()).await.unwrap();
    while echo.begun.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(near);
    serving.connection.await.unwrap();
    let begun: Vec<Bytes> = echo.begun.lock().iter().map(|request| request.body.clone()).collect();
    assert_eq!(begun, ["whole"]);
}

#[tokio::test]
async fn caller_that_breaks_the_protocol_is_hung_up_on_and_what_it_asked_before_is_served() {
    let garbage: [&[u8]; 4] = [
        b"\x00\x00\x00\x02\x63\x00",     // no such frame
        b"\x00\x00\x00\x03\x04\x01\x02", // an envelope that is cut short
        b"\x05\x00\x00\x01\x04",         // longer than the protocol allows
        b"\x00\x00\x00\x00",             // nothing
    ];
    for bytes in garbage {
        let echo = Echo::at_once();
        let (mut near, serving) = serve(&echo);
        near.write_all(&[hello(), numbered(1, "before"), bytes.to_vec(), numbered(2, "after")].concat()).await.unwrap();
        serving.connection.await.unwrap();
        serving.tasks.close();
        timeout(Duration::from_secs(10), serving.tasks.wait()).await.expect("nothing is left behind");
        let begun: Vec<Bytes> = echo.begun.lock().iter().map(|request| request.body.clone()).collect();
        assert_eq!(begun, ["before"], "{}", bytes.escape_ascii());
        let mut answers = Vec::new();
        near.read_to_end(&mut answers).await.unwrap();
        assert!(answers.ends_with(b"before"), "{}", answers.escape_ascii());
    }
}

#[tokio::test(start_paused = true)]
async fn caller_that_reads_no_answers_ends_its_connection_and_holds_nothing() {
    let echo = Echo::at_once();
    let (mut near, serving) = serve(&echo);
    let large = numbered(1, vec![0; PIPE_BYTES / 2]);
    near.write_all(&hello()).await.unwrap();
    for _ in 0..8 {
        near.write_all(&large).await.unwrap(); // answers to four of these fill the pipe
    }
    timeout(Duration::from_secs(10), serving.connection).await.expect("after two seconds").unwrap();
    serving.tasks.close();
    timeout(Duration::from_secs(10), serving.tasks.wait()).await.expect("nothing is left behind");
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_bound_wait_unread_until_others_are_done() {
    let permits = Arc::new(Semaphore::new(0));
    let echo = Echo::with(&permits);
    let (near, _serving) = serve(&echo);
    let connection = connect(near).await;
    let calls: Vec<_> = (0..1100)
        .map(|n| {
            let connection = Arc::clone(&connection);
            tokio::spawn(async move { ask(&connection, request(format!("{n}")), PATIENT).await })
        })
        .collect();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(echo.begun.lock().len(), 1024);
    permits.add_permits(10);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(echo.begun.lock().len(), 1034);
    permits.add_permits(2000);
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), Ok(Bytes::from(format!("{n}"))));
    }
}

#[tokio::test(start_paused = true)]
async fn node_that_stops_reads_no_new_request_and_finishes_those_it_has() {
    let permits = Arc::new(Semaphore::new(0));
    let echo = Echo::with(&permits);
    let (near, serving) = serve(&echo);
    let connection = connect(near).await;
    let call = {
        let connection = Arc::clone(&connection);
        tokio::spawn(async move { ask(&connection, request("in time"), PATIENT).await })
    };
    sleep(Duration::from_millis(100)).await;
    serving.stop.cancel();
    serving.connection.await.unwrap();
    let late = {
        let connection = Arc::clone(&connection);
        tokio::spawn(async move { ask(&connection, request("too late"), PATIENT).await })
    };
    sleep(Duration::from_millis(100)).await;
    permits.add_permits(2);
    assert_eq!(call.await.unwrap(), Ok("in time".into()));
    assert!(late.await.unwrap().is_err());
    assert_eq!(echo.begun.lock().len(), 1);
}

/// A service that begins everything at once, and answers when the test says so.
struct Promises {
    begun: AtomicUsize,
    go: Arc<Semaphore>,
}

impl Service for Promises {
    fn meet(self: &Arc<Self>, request: Request) -> Met {
        let service = Arc::clone(self);
        Met::Begun(Box::pin(async move {
            service.begun.fetch_add(1, Ordering::SeqCst);
            service.go.acquire().await.unwrap().forget();
            Reply::served(request.body)
        }))
    }

    async fn handle(&self, _: Request) -> Reply {
        panic!("all is begun at once")
    }
}

fn promises() -> Arc<Promises> {
    Arc::new(Promises { begun: AtomicUsize::new(0), go: Arc::new(Semaphore::new(0)) })
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_is_answered_when_the_node_stops_meanwhile() {
    let service = promises();
    let (near, serving) = serve_as(&local("B/0"), &service);
    let connection = connect(near).await;
    let calls: Vec<_> = (0..3)
        .map(|n| {
            let connection = Arc::clone(&connection);
            tokio::spawn(async move { ask(&connection, request(format!("{n}")), PATIENT).await })
        })
        .collect();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(service.begun.load(Ordering::SeqCst), 3);
    serving.stop.cancel();
    serving.connection.await.unwrap();
    service.go.add_permits(3);
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), Ok(Bytes::from(format!("{n}"))));
    }
    serving.tasks.close();
    timeout(Duration::from_secs(10), serving.tasks.wait()).await.expect("nothing is left behind");
}

#[tokio::test(start_paused = true)]
async fn no_more_is_begun_for_one_connection_than_the_bound_allows() {
    let service = promises();
    let (near, _serving) = serve_as(&local("B/0"), &service);
    let connection = connect(near).await;
    let calls: Vec<_> = (0..1100)
        .map(|n| {
            let connection = Arc::clone(&connection);
            tokio::spawn(async move { ask(&connection, request(format!("{n}")), PATIENT).await })
        })
        .collect();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(service.begun.load(Ordering::SeqCst), 1024);
    service.go.add_permits(1100);
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), Ok(Bytes::from(format!("{n}"))));
    }
}
