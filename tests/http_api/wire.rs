//! The wire itself: pipelining, hosts, lengths that contradict each other, rubbish, silence. Whatever a socket brings,
//! the node answers or closes, applies nothing that was not whole, and goes on serving the others.

use std::time::Duration;

use crate::fixture::{Api, api};
use crate::support::problem::refused;
use crate::support::raw::Connection;
use crate::support::{Cluster, Request, Spec};

/// Longest wait for a connection to be closed that should not stay open: above every limit of a whole request.
const CLOSED: Duration = Duration::from_secs(45);

fn connect(api: &Api) -> Connection {
    Connection::open(api.address(api.leader(0))).unwrap()
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let api = api();
    let (here, far) = (api.key(0, "pipeline"), api.key(1, "pipeline"));
    let host = api.address(api.leader(0));
    let mut bytes = Vec::new();
    for n in 0..20 {
        for key in [&here, &far] {
            bytes.extend(Request::new("PUT", format!("/v1/kv/{key}")).body(format!("value {n}")).to_bytes(host));
            bytes.extend(Request::get(format!("/get?key={key}")).to_bytes(host));
        }
    }
    let mut connection = connect(&api);
    connection.write(bytes).unwrap();
    for n in 0..20 {
        for key in [&here, &far] {
            connection.answer().unwrap().expect(if n == 0 { 201 } else { 204 });
            assert_eq!(connection.answer().unwrap().expect(200).text(), format!("value {n}"), "{key}");
        }
    }
}

#[test]
fn connection_stays_open_and_in_step_after_errors() {
    let api = api();
    let mut connection = connect(&api);
    for _ in 0..3 {
        for (target, status) in
            [("/get?key=wire-missing", 404), ("/get?key=%zz", 400), ("/nowhere", 404), ("/livez", 200)]
        {
            connection.ask(&Request::get(target)).unwrap().expect(status);
        }
    }
}

#[test]
fn host_must_be_there_once() {
    let api = api();
    let request = Request::get("/set?key=wire-host&value=v");
    let answer = connect(&api).ask(&request.clone().no_host()).unwrap();
    refused(&answer, 400, "bad-request");
    let answer = connect(&api).ask(&request.header("Host", "a").header("Host", "b")).unwrap();
    refused(&answer, 400, "bad-request");
    api.lacks("wire-host");
}

#[test]
fn target_in_absolute_form_is_understood() {
    let api = api();
    let host = api.address(api.leader(0));
    let put = Request::get(format!("http://{host}/set?key=wire-absolute&value=v"));
    connect(&api).ask(&put).unwrap().expect(200);
    api.holds("wire-absolute", "v");
}

#[test]
fn lengths_that_contradict_each_other_apply_nothing_of_the_second_request() {
    let api = api();
    let smuggled = "GET /set?key=wire-smuggled&value=evil HTTP/1.1\r\nHost: a\r\n\r\n";
    for head in [
        "PUT /v1/kv/wire-lengths HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "PUT /v1/kv/wire-lengths HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
        "PUT /v1/kv/wire-lengths HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "PUT /v1/kv/wire-lengths HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n",
        "PUT /v1/kv/wire-lengths HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        "PUT /v1/kv/wire-lengths HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "PUT /v1/kv/wire-lengths HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ] {
        let mut connection = connect(&api);
        connection.write(format!("{head}{smuggled}")).unwrap();
        connection.finish_sending();
        assert!(connection.is_closed_within(CLOSED), "{head:?} leaves the connection open");
        api.lacks("wire-smuggled");
    }
}

#[test]
fn chunks_that_are_none_are_refused_and_not_stored() {
    let api = api();
    for chunks in ["zz\r\nabc\r\n0\r\n\r\n", "3\r\nabcdef\r\n0\r\n\r\n", "-1\r\n", "ffffffffffffffffff\r\na"] {
        let mut connection = connect(&api);
        let head = "PUT /v1/kv/wire-chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        connection.write(format!("{head}{chunks}")).unwrap();
        connection.finish_sending();
        if let Ok(answer) = connection.answer() {
            assert!((400..500).contains(&answer.status), "{chunks:?}: {answer:?}");
        }
        api.lacks("wire-chunks");
    }
}

#[test]
fn rubbish_is_refused_and_harms_nobody() {
    let api = api();
    let rubbish: [&[u8]; 12] = [
        b"\r\n\r\n\r\n",
        b"\x00\x00\x00\x00",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET /get?key=\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /get?key=a HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"GET /get?key=a HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n",
        b"GET /get?key=a b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET get?key=a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ];
    for bytes in rubbish {
        let mut connection = connect(&api);
        connection.write(bytes).unwrap();
        connection.finish_sending();
        assert!(connection.is_closed_within(CLOSED), "still open after {:?}", bytes.escape_ascii().to_string());
        api.get(api.leader(0), "/livez").expect(200);
    }
}

#[test]
fn upgrade_to_something_else_is_not_believed() {
    let api = api();
    let request = Request::get("/livez").header("Connection", "Upgrade").header("Upgrade", "websocket");
    let answer = connect(&api).ask(&request).unwrap();
    assert_ne!(answer.status, 101, "{answer:?}");
    api.get(api.leader(0), "/livez").expect(200);
}

#[test]
fn half_a_request_and_then_silence_is_closed_and_delays_nobody() {
    // Other settings than the shared cluster's: a whole request may take two seconds, so that the test need not take 30.
    let cluster = Cluster::start(Spec::shards(1).config("[limits]\nrequest_timeout_ms = 2000\n"));
    let at = cluster.leader(0);
    let halves = [
        "GET /set?key=wire-half&value=v HT",
        "GET /set?key=wire-half&value=v HTTP/1.1\r\nHost: a\r\n",
        "PUT /v1/kv/wire-half HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf",
        "PUT /v1/kv/wire-half HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha",
    ];
    let mut silent: Vec<Connection> = (0..25)
        .flat_map(|_| halves)
        .map(|half| {
            let mut connection = Connection::open(cluster.address(at)).unwrap();
            connection.write(half).unwrap();
            connection
        })
        .collect();
    cluster.put_key(at, b"other", b"v").expect(201);
    for (number, connection) in silent.iter_mut().enumerate() {
        assert!(connection.is_closed_within(CLOSED), "still open: {:?}", halves[number % halves.len()]);
    }
    cluster.get(at, "/get?key=wire-half").expect(404);
    cluster.get(at, "/get?key=other").expect(200);
}

#[test]
fn half_a_request_and_then_leaving_stores_nothing() {
    let api = api();
    for (number, half) in [
        "PUT /v1/kv/wire-left HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf",
        "PUT /v1/kv/wire-left HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "PUT /v1/kv/wire-left HTTP/1.1\r\nHost: a\r\n",
    ]
    .iter()
    .enumerate()
    {
        for at in api.all() {
            let mut connection = Connection::open(api.address(at)).unwrap();
            connection.write(half).unwrap();
            if number % 2 == 0 { connection.leave() } else { connection.finish_sending() }
        }
    }
    // Nothing to wait for: what was never whole has nothing that could still arrive.
    api.get(api.leader(0), "/livez").expect(200);
    api.lacks("wire-left");
}
