//! A connection against servers that behave, stop in the middle, and say strange things. Each server is a script.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Link;
use crate::failure::{Applied, Failure};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

/// What came of a burst: number, status and body of each answer; and how the exchange ended.
type Came = (Vec<(u32, u16, Vec<u8>)>, Result<(), Failure>);

/// A server that runs `script` with each connection, one after the other; the script's turn is its number.
async fn server<F, Fut>(script: F) -> SocketAddr
where
    F: Fn(usize, TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        for turn in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            script(turn, stream).await;
        }
    });
    address
}

/// Reads so many requests without bodies.
async fn requests(stream: &mut TcpStream, count: usize) {
    let (mut seen, mut text) = (0, Vec::new());
    while seen < count {
        text.push(stream.read_u8().await.expect("a request"));
        if text.ends_with(b"\r\n\r\n") {
            seen += 1;
        }
    }
}

async fn exchange(link: &mut Link<u32>, count: u32) -> Came {
    link.open().await.expect("a connection");
    for number in 0..count {
        link.out().extend_from_slice(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        link.push(number, true);
    }
    let mut came = Vec::new();
    let end = std::future::poll_fn(|cx| {
        link.poll_answers(cx, || (), |number, answer, ()| came.push((number, answer.status, answer.body.to_vec())))
    })
    .await;
    (came, end)
}

fn code(end: &Result<(), Failure>) -> &str {
    end.as_ref().err().map_or("ok", |failure| failure.code.as_str())
}

#[tokio::test]
async fn burst_gets_its_answers_in_order_whatever_the_pieces() {
    let address = server(|_, mut stream| async move {
        requests(&mut stream, 3).await;
        let text = format!("{OK}HTTP/1.1 404 X\r\nContent-Length: 1\r\n\r\n-HTTP/1.1 204 X\r\n\r\n");
        for piece in text.as_bytes().chunks(7) {
            stream.write_all(piece).await.expect("the client reads");
            stream.flush().await.expect("sent");
            tokio::task::yield_now().await;
        }
        stream.read_u8().await.ok();
    })
    .await;
    let (came, end) = exchange(&mut Link::new(address), 3).await;
    assert_eq!(came, [(0, 200, b"hi".to_vec()), (1, 404, b"-".to_vec()), (2, 204, Vec::new())]);
    assert_eq!(code(&end), "ok");
}

#[tokio::test]
async fn connection_that_stays_is_used_again() {
    let address = server(|turn, mut stream| async move {
        assert_eq!(turn, 0, "a second connection");
        for _ in 0..3 {
            requests(&mut stream, 1).await;
            stream.write_all(OK.as_bytes()).await.expect("sent");
        }
    })
    .await;
    let mut link = Link::new(address);
    for _ in 0..3 {
        assert_eq!(exchange(&mut link, 1).await.0.len(), 1);
    }
}

#[tokio::test]
async fn connection_that_was_closed_while_idle_is_replaced_unnoticed() {
    let address = server(|_, mut stream| async move {
        requests(&mut stream, 1).await;
        stream.write_all(OK.as_bytes()).await.expect("sent");
    })
    .await;
    let mut link = Link::new(address);
    for _ in 0..3 {
        let (came, end) = exchange(&mut link, 1).await;
        assert_eq!((came.len(), code(&end)), (1, "ok"));
        // Let the end of the connection arrive.
        while link.is_open() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn connection_that_ends_behind_an_answer_leaves_the_rest_unanswered() {
    for last in
        ["HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nto the end"]
    {
        let address = server(move |_, mut stream| async move {
            requests(&mut stream, 3).await;
            stream.write_all(format!("{OK}{last}").as_bytes()).await.expect("sent");
        })
        .await;
        let mut link = Link::new(address);
        let (came, end) = exchange(&mut link, 3).await;
        assert_eq!((came.len(), code(&end)), (2, "closed"), "{last}");
        assert_eq!(end.map_err(|failure| failure.applied), Err(Applied::Unknown));
        assert_eq!(link.abandon().collect::<Vec<_>>(), [2]);
        assert_eq!(link.waiting(), 0);
    }
}

#[tokio::test]
async fn connection_that_ends_in_the_middle_of_an_answer_has_failed() {
    for (half, code_) in
        [("", "closed"), ("HTTP/1.1 20", "closed"), ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "closed")]
    {
        let address = server(move |_, mut stream| async move {
            requests(&mut stream, 1).await;
            stream.write_all(half.as_bytes()).await.expect("sent");
        })
        .await;
        let mut link = Link::new(address);
        let (came, end) = exchange(&mut link, 1).await;
        assert_eq!((came.len(), code(&end)), (0, code_), "{half}");
        link.abandon().for_each(drop);
        // The half answer is not taken for the beginning of the next one.
        let (came, end) = exchange(&mut link, 1).await;
        assert_eq!((came.len(), code(&end)), (0, code_), "{half}, again");
    }
}

#[tokio::test]
async fn answers_that_nobody_asked_for_or_that_are_none_are_faults() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(super::INPUT_BYTES));
    for text in [format!("{OK}{OK}"), "220 smtp ready\r\n".into(), long] {
        let address = server(move |_, mut stream| {
            let text = text.clone();
            async move {
                requests(&mut stream, 1).await;
                stream.write_all(text.as_bytes()).await.ok();
                stream.read_u8().await.ok();
            }
        })
        .await;
        let (_, end) = exchange(&mut Link::new(address), 1).await;
        assert_eq!(code(&end), "bad-answer");
    }
}

#[tokio::test]
async fn burst_and_answers_larger_than_what_sockets_hold_do_not_block_each_other() {
    const SIZE: usize = 8 << 20;
    let address = server(|_, mut stream| async move {
        // Sends its whole answer before it reads on: whoever only writes would wait for ever.
        requests(&mut stream, 1).await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream.write_all(&vec![7; SIZE]).await.expect("the client reads while it writes");
        let mut body = vec![0; SIZE];
        stream.read_exact(&mut body).await.expect("the rest of the request");
        stream.write_all(OK.as_bytes()).await.expect("sent");
    })
    .await;
    let mut link = Link::new(address);
    link.open().await.expect("a connection");
    link.out().extend_from_slice(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    link.push(0, true);
    link.out().extend_from_slice(&vec![b'x'; SIZE]);
    link.push(1, false);
    let mut sizes = Vec::new();
    std::future::poll_fn(|cx| link.poll_answers(cx, || (), |_, answer, ()| sizes.push(answer.body.len())))
        .await
        .expect("both answers");
    assert_eq!(sizes, [SIZE, 0], "what was not asked for is not kept");
}

#[tokio::test]
async fn connection_to_nobody_is_told_before_anything_was_sent() {
    // Port 1 (tcpmux) is used by nobody.
    let mut link: Link<u32> = Link::new(([127, 0, 0, 1], 1).into());
    let failure = link.open().await.expect_err("nobody is there");
    assert_eq!((failure.code.as_str(), failure.applied), ("connect", Applied::No));
}
