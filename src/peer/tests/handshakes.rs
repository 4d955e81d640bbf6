//! Who is talked to, and what becomes of whoever is not.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{Echo, PATIENT, ask, local, local_of, request, serve, serve_as};
use crate::peer::client::{CallError, Connection};
use crate::peer::message::{Class, Hello, RefusalCode};
use crate::types::NodeName;

async fn refused(hello: Hello) -> Option<RefusalCode> {
    let (near, serving) = serve_as(&local_of("B/0", 1, Some(7)), &Echo::at_once());
    let outcome = Connection::open(near, hello).await;
    match outcome {
        Ok(_) => None,
        Err(CallError::Refused(refusal)) => {
            serving.connection.await.unwrap(); // it hangs up
            assert!(!refusal.detail.is_empty());
            Some(refusal.code)
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn handshake_is_refused_with_its_reason() {
    let to = NodeName::new("B/0");
    let hello = |placement, cluster| local_of("A/0", placement, cluster).hello(&to, Class::Bulk);
    assert_eq!(refused(hello(1, None)).await, None);
    assert_eq!(refused(hello(1, Some(7))).await, None);
    assert_eq!(refused(hello(2, None)).await, Some(RefusalCode::TopologyMismatch));
    assert_eq!(refused(hello(1, Some(8))).await, Some(RefusalCode::Stranger));
    assert_eq!(refused(Hello { to: NodeName::new("C/0"), ..hello(1, None) }).await, Some(RefusalCode::WrongNode));
    let newer = Hello { protocol_min: 9, protocol_max: 9, ..hello(1, None) };
    assert_eq!(refused(newer).await, Some(RefusalCode::Version));
}

/// A connection that was welcomed before its caller had met a cluster does not stay open to another one.
#[tokio::test]
async fn request_of_a_node_that_has_joined_another_cluster_is_refused() {
    let (near, _serving) = serve_as(&local_of("B/0", 1, Some(7)), &Echo::at_once());
    let connection = super::connect(near).await;
    let mut strange = request("body");
    strange.envelope.cluster = Some(crate::types::ClusterUid(8));
    let refused = ask(&connection, strange, PATIENT).await.unwrap_err();
    let CallError::Refused(refusal) = &refused else { panic!("{refused:?}") };
    assert_eq!((refusal.code, refused.may_have_happened()), (RefusalCode::Stranger, false));
    assert_eq!(ask(&connection, request("on"), PATIENT).await, Ok("on".into()));
}

#[tokio::test(start_paused = true)]
async fn caller_that_is_no_peer_is_hung_up_on() {
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x00\x00\x00\x03\x01\x02\x03", b"\x00\x00\x00\x00", b""] {
        let (mut near, serving) = serve(&Echo::at_once());
        near.write_all(bytes).await.unwrap();
        let hung_up = timeout(Duration::from_secs(3), serving.connection).await;
        hung_up.expect("within two seconds").unwrap();
        assert_eq!(near.read(&mut [0; 16]).await.unwrap(), 0, "{}", bytes.escape_ascii());
    }
}

/// The bug: whoever connected could announce a first frame of 80 MiB, for which memory was set aside before anybody knew
/// who it was.
#[tokio::test(start_paused = true)]
async fn first_frame_of_a_stranger_is_not_waited_for_when_it_is_too_long() {
    let (mut near, serving) = serve(&Echo::at_once());
    near.write_all(b"\x00\x20\x00\x00\x01OSTR").await.unwrap(); // 2 MiB
    timeout(Duration::from_secs(1), serving.connection).await.expect("at once").unwrap();
}

#[tokio::test]
async fn peer_that_hangs_up_or_answers_nonsense_is_not_sent_anything() {
    let answers: [&[u8]; 4] = [b"", b"\x00\x00\x00\x01\x63", b"\x7f\xff\xff\xff", b"HTTP/1.1 400 Bad Request\r\n\r\n"];
    for answer in answers {
        let (near, mut far) = tokio::io::duplex(1 << 10);
        let hello = local("A/0").hello(&NodeName::new("B/0"), Class::Request);
        let (opened, ()) = tokio::join!(Connection::open(near, hello), async {
            far.write_all(answer).await.unwrap();
            drop(far);
        });
        let error = opened.map(drop).unwrap_err();
        assert!(matches!(error, CallError::NotSent(_)), "{error:?}");
    }
}
