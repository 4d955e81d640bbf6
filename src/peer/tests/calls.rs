//! The calling end: each caller gets its own answer or a true word about what became of its request (rule 22).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{
    Echo, PATIENT, PIPE_BYTES, UNKNOWN_KIND, ask, connect, connect_raw, connect_to_test, receive_request, request,
    request_of, response, send, serve,
};
use crate::peer::client::{CallError, Connection, Patience};

/// Begins a call; its request is queued when this returns.
async fn begin(
    connection: &Arc<Connection>,
    body: impl Into<Bytes>,
    patience: Patience,
) -> JoinHandle<Result<Bytes, CallError>> {
    let (connection, request) = (Arc::clone(connection), request(body));
    let call = tokio::spawn(async move { ask(&connection, request, patience).await });
    tokio::task::yield_now().await;
    call
}

fn patience(answer_ms: u64, total_ms: u64) -> Patience {
    Patience { answer: Duration::from_millis(answer_ms), total: Duration::from_millis(total_ms) }
}

#[tokio::test]
async fn answers_in_any_order_reach_the_callers_that_asked() {
    let (hold, mut held) = mpsc::unbounded_channel();
    let echo = Arc::new(Echo { permits: None, begun: parking_lot::Mutex::default(), held: Some(hold) });
    let (near, _serving) = serve(&echo);
    let connection = connect(near).await;
    let mut calls = Vec::new();
    for n in 0..100 {
        calls.push(begin(&connection, format!("{n}"), PATIENT).await);
    }
    let mut answers = Vec::new();
    for _ in 0..100 {
        answers.push(held.recv().await.unwrap());
    }
    answers.sort_by_key(|(body, _)| crc32c::crc32c(body)); // some other order
    for (_, go) in answers {
        go.send(()).unwrap();
        tokio::task::yield_now().await;
    }
    for (n, answer) in join_all(calls).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), Ok(Bytes::from(format!("{n}"))));
    }
}

#[tokio::test]
async fn frames_of_all_sizes_come_back_whole() {
    let echo = Echo::at_once();
    let (near, _serving) = serve(&echo);
    let connection = connect(near).await;
    let sizes = [0, 1, 16 << 10, (16 << 10) + 1, PIPE_BYTES, PIPE_BYTES + 1, 5_000_000];
    let bodies =
        sizes.map(|size| Bytes::from((0..size).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect::<Vec<u8>>()));
    let calls = bodies.iter().map(|body| ask(&connection, request(body.clone()), PATIENT));
    for (body, answer) in bodies.iter().zip(join_all(calls).await) {
        assert!(answer.as_ref() == Ok(body), "{} bytes", body.len());
    }
}

#[tokio::test]
async fn connection_lost_after_a_request_left_may_have_happened_and_before_it_did_not() {
    let (connection, mut far) = connect_to_test().await;
    let call = begin(&connection, "left", PATIENT).await;
    assert_eq!(receive_request(&mut far).await.1, "left");
    drop(far);
    let lost = call.await.unwrap().unwrap_err();
    assert!(matches!(lost, CallError::Lost(_)) && lost.may_have_happened(), "{lost:?}");
    assert!(connection.is_closed());
    let refused = ask(&connection, request("stays"), PATIENT).await.unwrap_err();
    assert!(matches!(refused, CallError::NotSent(_)) && !refused.may_have_happened(), "{refused:?}");
}

#[tokio::test]
async fn connection_that_breaks_in_the_middle_of_an_answer_is_lost() {
    let (connection, mut far) = connect_to_test().await;
    let call = begin(&connection, "body", PATIENT).await;
    receive_request(&mut far).await;
    let mut stream = far.into_inner();
    stream.write_all(b"\x00\x00\x00\x05\x05\x00").await.unwrap(); // two of five bytes
    drop(stream);
    assert!(matches!(call.await.unwrap(), Err(CallError::Lost(_))));
}

#[tokio::test(start_paused = true)]
async fn silent_peer_is_timed_out_and_its_connection_closed() {
    let (connection, mut far) = connect_to_test().await;
    let call = begin(&connection, "body", patience(2000, 30_000)).await;
    receive_request(&mut far).await;
    let timed_out = timeout(Duration::from_millis(2100), call).await.expect("two seconds after it left");
    let timed_out = timed_out.unwrap().unwrap_err();
    assert!(matches!(timed_out, CallError::TimedOut(_)) && timed_out.may_have_happened(), "{timed_out:?}");
    assert!(connection.is_closed(), "the next caller learns by a new handshake whether the peer is back");
}

#[tokio::test(start_paused = true)]
async fn peer_that_answers_others_is_slow_and_not_silent() {
    let (connection, mut far) = connect_to_test().await;
    let slow = begin(&connection, "slow", patience(2000, 30_000)).await;
    receive_request(&mut far).await;
    let quick = begin(&connection, "quick", PATIENT).await;
    let (id, _) = receive_request(&mut far).await;
    sleep(Duration::from_secs(1)).await;
    send(&mut far, response(id, "quick")).await;
    assert_eq!(quick.await.unwrap(), Ok("quick".into()));
    assert!(matches!(slow.await.unwrap(), Err(CallError::TimedOut(_))));
    assert!(!connection.is_closed());
}

/// The bug: the connection was closed by the first caller that ran out of time, however little it had.
#[tokio::test(start_paused = true)]
async fn caller_with_little_time_does_not_close_the_connection_that_others_use() {
    let (connection, mut far) = connect_to_test().await;
    let patient = begin(&connection, "patient", PATIENT).await;
    let (id, _) = receive_request(&mut far).await;
    for hasty in [patience(2000, 10), patience(500, 30_000)] {
        let hasty = begin(&connection, "hasty", hasty).await;
        receive_request(&mut far).await;
        assert!(matches!(hasty.await.unwrap(), Err(CallError::TimedOut(_))));
    }
    send(&mut far, response(id, "patient")).await;
    assert_eq!(patient.await.unwrap(), Ok("patient".into()));
}

#[tokio::test]
async fn answer_that_comes_after_its_caller_has_left_is_nobody_elses() {
    let (connection, mut far) = connect_to_test().await;
    let early = begin(&connection, "early", PATIENT).await;
    let (early_id, _) = receive_request(&mut far).await;
    early.abort();
    assert!(early.await.is_err());
    let late = begin(&connection, "late", PATIENT).await;
    let (late_id, _) = receive_request(&mut far).await;
    assert_ne!(early_id, late_id);
    send(&mut far, response(early_id, "early")).await;
    send(&mut far, response(77_777, "a stranger's")).await;
    send(&mut far, response(late_id, "late")).await;
    assert_eq!(late.await.unwrap(), Ok("late".into()));
}

#[tokio::test(start_paused = true)]
async fn peer_that_takes_no_bytes_ends_the_connection_and_what_has_not_left_did_not_happen() {
    let (connection, _far) = connect_to_test().await;
    let large = begin(&connection, vec![0; 4 * PIPE_BYTES], PATIENT).await;
    sleep(Duration::from_millis(10)).await; // its first bytes are on their way
    let behind = begin(&connection, "behind", PATIENT).await;
    let hasty = begin(&connection, "hasty", patience(50, 50)).await;
    let hasty = hasty.await.unwrap().unwrap_err();
    assert!(matches!(hasty, CallError::NotSent(_)), "{hasty:?}");
    let (large, behind) = (large.await.unwrap().unwrap_err(), behind.await.unwrap().unwrap_err());
    assert!(matches!(large, CallError::Lost(_)), "{large:?}");
    assert!(matches!(behind, CallError::NotSent(_)), "{behind:?}");
    assert!(connection.is_closed());
}

#[tokio::test]
async fn peer_that_breaks_the_protocol_is_not_talked_to_any_more() {
    let garbage: [&[u8]; 3] = [
        b"\x00\x00\x00\x02\x63\x00",     // no such frame
        b"\x00\x00\x00\x03\x01\x02\x03", // a handshake that cannot be read, and not now
        b"\x7f\xff\xff\xff\x05\x00\x00", // longer than the protocol allows
    ];
    for bytes in garbage {
        let (connection, mut far) = connect_to_test().await;
        let call = begin(&connection, "body", PATIENT).await;
        receive_request(&mut far).await;
        let mut stream = far.into_inner();
        stream.write_all(bytes).await.unwrap();
        assert!(matches!(call.await.unwrap(), Err(CallError::Lost(_))), "{}", bytes.escape_ascii());
        assert!(connection.is_closed());
    }
}

#[tokio::test]
async fn kind_that_the_peer_does_not_know_is_unsupported_and_the_connection_goes_on() {
    let echo = Echo::at_once();
    let (near, _serving) = serve(&echo);
    let connection = connect(near).await;
    let unsupported = ask(&connection, request_of(UNKNOWN_KIND, ""), PATIENT).await;
    assert_eq!(unsupported, Err(CallError::Unsupported));
    assert_eq!(ask(&connection, request("on"), PATIENT).await, Ok("on".into()));
}

#[tokio::test]
async fn requests_beyond_the_bound_are_refused_and_not_sent() {
    let (connection, _far) = connect_to_test().await;
    let mut calls = Vec::new();
    for _ in 0..8192 {
        calls.push(begin(&connection, "", PATIENT).await);
    }
    let busy = ask(&connection, request("one too many"), PATIENT).await.unwrap_err();
    assert!(matches!(busy, CallError::Busy(_)) && !busy.may_have_happened(), "{busy:?}");
    calls.pop().unwrap().abort();
    tokio::task::yield_now().await;
    let call = begin(&connection, "there is a place again", PATIENT).await;
    tokio::task::yield_now().await;
    assert!(!call.is_finished());
}

#[tokio::test(start_paused = true)]
async fn connection_that_nobody_uses_is_closed_by_its_caller_and_by_a_server_that_hears_nothing() {
    let (near, serving) = serve(&Echo::at_once());
    let connection = connect(near).await;
    for n in 0..5 {
        assert_eq!(ask(&connection, request(format!("{n}")), PATIENT).await, Ok(format!("{n}").into()));
        sleep(Duration::from_secs(50)).await;
    }
    assert!(!connection.is_closed(), "it was used");
    sleep(Duration::from_secs(130)).await; // it looks when its last caller's patience would have ended, and from then on
    assert!(connection.is_closed());
    timeout(Duration::from_secs(1), serving.connection).await.expect("the server sees it").unwrap();
    let refused = ask(&connection, request("late"), PATIENT).await.unwrap_err();
    assert!(matches!(refused, CallError::NotSent(_)), "{refused:?}");

    let (near, serving) = serve(&Echo::at_once());
    let silent = connect_raw(near).await;
    timeout(Duration::from_secs(601), serving.connection).await.expect("though it is not closed").unwrap();
    drop(silent);
}
