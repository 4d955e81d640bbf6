//! Answers whole, in pieces of every size, and wrong.

use super::{Decoder, Event};

/// What one answer came to: status, body, whether it was forwarded, whether the connection ends.
type Answer = (u16, Vec<u8>, bool, bool);

/// All whole answers in `text`, which arrives in pieces of `step` bytes and then ends.
fn answers(text: &[u8], step: usize) -> Result<Vec<Answer>, &'static str> {
    let mut decoder = Decoder::new();
    let (mut waiting, mut all, mut current) = (Vec::new(), Vec::new(), None::<Answer>);
    for piece in text.chunks(step) {
        waiting.extend_from_slice(piece);
        loop {
            let (taken, event) = decoder.next(&waiting)?;
            let more = taken > 0 || event.is_some();
            match event {
                Some(Event::Head(head)) => current = Some((head.status, Vec::new(), head.forwarded, head.close)),
                Some(Event::Body(piece)) => current.as_mut().expect("a head came first").1.extend_from_slice(piece),
                Some(Event::End) => all.extend(current.take()),
                None => {}
            }
            waiting.drain(..taken);
            if !more {
                break;
            }
        }
    }
    if decoder.closed() {
        all.extend(current.take());
    }
    Ok(all)
}

fn in_every_step(text: &str) -> Vec<Answer> {
    let whole = answers(text.as_bytes(), text.len()).expect("an answer");
    for step in 1..text.len() {
        assert_eq!(answers(text.as_bytes(), step).as_ref(), Ok(&whole), "in pieces of {step}");
    }
    whole
}

#[test]
fn answers_behind_one_another_are_told_apart_whatever_the_pieces() {
    let text = "HTTP/1.1 200 OK\r\nKV-Forwarded: a->b\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 204 No Content\r\n\r\n\
                HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(
        in_every_step(text),
        [(200, b"hello".to_vec(), true, false), (204, Vec::new(), false, false), (404, Vec::new(), false, false)]
    );
}

#[test]
fn answers_in_chunks_come_whole_with_extensions_and_trailers() {
    let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\n\
                HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nz";
    let all = in_every_step(text);
    assert_eq!(all[0].1, b"abc0123456789");
    assert_eq!(all[1].1, b"z");
}

#[test]
fn interim_answers_are_skipped() {
    let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 201 X\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(in_every_step(text), [(201, Vec::new(), false, false)]);
}

#[test]
fn answer_without_a_length_ends_with_its_connection() {
    let text = "HTTP/1.1 200 OK\r\n\r\nall of it";
    assert_eq!(in_every_step(text), [(200, b"all of it".to_vec(), false, true)]);
}

#[test]
fn answer_says_whether_its_connection_ends() {
    for (text, close) in [
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", false),
    ] {
        assert_eq!(in_every_step(text)[0].3, close, "{text}");
    }
}

#[test]
fn answer_that_is_cut_off_is_not_whole() {
    for text in ["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "HTTP/1.1 200 OK\r\nContent-Le", ""] {
        assert_eq!(answers(text.as_bytes(), 7), Ok(Vec::new()), "{text}");
    }
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    assert_eq!(answers(chunks.as_bytes(), 9), Ok(Vec::new()));
}

#[test]
fn answers_that_cannot_be_told_apart_are_faults() {
    for text in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        assert!(answers(text.as_bytes(), text.len()).is_err(), "{text}");
    }
    let endless = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", "1".repeat(9000));
    assert!(answers(endless.as_bytes(), 100).is_err());
}
