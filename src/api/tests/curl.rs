//! Section 1: the curl routes, and who may change data.

use super::{FORM, parse, serve, value_after};

#[tokio::test]
async fn set_get_delete_answer_as_curl_users_expect() {
    let served = serve().await;
    let set = served.ask("GET /set?key=b&value=hello+world").await;
    assert_eq!((set.status, &set.body[..]), (200, &b"OK\n"[..]));
    assert_eq!(set.header("content-type"), Some("text/plain; charset=utf-8"));
    let get = served.ask("GET /get?key=b").await;
    assert_eq!((get.status, &get.body[..]), (200, &b"hello world"[..]));
    assert_eq!(get.header("content-type"), Some("application/octet-stream"));
    for _ in 0..2 {
        let delete = served.ask("DELETE /delete?key=b").await;
        assert_eq!((delete.status, &delete.body[..]), (200, &b"OK\n"[..]));
    }
    assert_eq!(served.ask("GET /get?key=b").await.problem(), (404, "key-not-found".into()));
}

#[tokio::test]
async fn set_without_value_stores_the_body_raw() {
    let served = serve().await;
    let put = |body: &'static [u8], headers: &'static [&'static str]| {
        let served = &served;
        async move { value_after(served, "PUT /set?key=b", headers, body).await }
    };
    assert_eq!(put(b"\x00\xff\r\n", &[]).await, (200, "\\x00\\xff\\r\\n".into()));
    assert_eq!(put(b"", &[]).await, (200, String::new()), "an empty body is an empty value");
    assert_eq!(put(b"value=x", &["Content-Type: text/plain"]).await, (200, "value=x".into()));
    let chunked = b"POST /set?key=b HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(parse(&served.raw(chunked).await).status, 200);
    assert_eq!(served.ask("GET /get?key=b").await.body, b"abcde");
}

#[tokio::test]
async fn set_form_is_a_form_only_when_all_its_fields_are_parameters() {
    let served = serve().await;
    let form = |line: &'static str, body: &'static [u8]| {
        let served = &served;
        async move { value_after(served, line, &[FORM], body).await }
    };
    assert_eq!(form("POST /set", b"key=b&value=1+2%25").await, (200, "1 2%".into()));
    assert_eq!(form("POST /set?key=b", b"value=3").await, (200, "3".into()));
    assert_eq!(form("POST /set?value=4", b"key=b").await, (200, "4".into()));
    assert_eq!(form("POST /set?key=b", b"just text").await, (200, "just text".into()));
    assert_eq!(form("POST /set?key=b", b"x=1&y=2").await, (200, "x=1&y=2".into()));
    assert_eq!(form("POST /set?key=b", b"value=100%").await, (200, "value=100%".into()));
    assert_eq!(form("POST /set?key=b", b"").await, (200, String::new()), "an empty body is an empty value");
    assert_eq!(form("POST /set?key=b", b"timeout=2s").await.0, 400, "a form without a value");
    assert_eq!(form("POST /set?key=b&value=1", b"raw").await.0, 400, "a value beside a raw body");
    assert_eq!(form("POST /set?key=b", b"key=b&value=1").await.0, 400, "a key in query and form");
    assert_eq!(form("POST /set", b"key=b&value=1&value=2").await.0, 400);
}

#[tokio::test]
async fn set_value_beside_a_raw_body_is_400_and_beside_an_empty_one_is_taken() {
    let served = serve().await;
    assert_eq!(served.send("POST /set?key=b&value=1", &[], b"2").await.problem(), (400, "bad-request".into()));
    assert_eq!(served.send("POST /set?key=b&value=1", &["Content-Length: 0"], b"").await.status, 200);
    let chunked = |data: &str| {
        format!(
            "POST /set?key=b&value=1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{data}0\r\n\r\n"
        )
    };
    assert_eq!(parse(&served.raw(chunked("").as_bytes()).await).status, 200);
    assert_eq!(parse(&served.raw(chunked("1\r\nx\r\n").as_bytes()).await).status, 400);
}

#[tokio::test]
async fn set_get_without_value_is_400() {
    let served = serve().await;
    assert_eq!(served.ask("GET /set?key=b").await.status, 400);
    assert_eq!(served.send("GET /set?key=b", &[], b"raw").await.status, 400);
    assert_eq!(served.ask("GET /set?key=b&value=").await.status, 200);
}

#[tokio::test]
async fn set_multipart_or_encoded_body_is_415() {
    let served = serve().await;
    for header in ["Content-Type: multipart/form-data; boundary=x", "Content-Encoding: gzip"] {
        let reply = served.send("POST /set?key=b", &[header], b"x").await;
        assert_eq!(reply.problem(), (415, "unsupported-media-type".into()), "{header}");
    }
}

#[tokio::test]
async fn key_missing_empty_or_given_twice_is_400() {
    let served = serve().await;
    for line in
        ["GET /get", "GET /get?key=", "GET /get?key", "GET /get?key=a&key=a", "GET /set?value=1", "POST /delete"]
    {
        assert_eq!(served.ask(line).await.problem(), (400, "bad-request".into()), "{line}");
    }
}

#[tokio::test]
async fn delete_takes_a_form_and_no_other_body() {
    let served = serve().await;
    served.ask("GET /set?key=b&value=1").await;
    assert_eq!(value_after(&served, "POST /delete", &[FORM], b"key=b").await.0, 200);
    assert_eq!(served.ask("GET /get?key=b").await.status, 404);
    assert_eq!(served.send("POST /delete?key=b", &[], b"x").await.status, 400);
    assert_eq!(served.send("POST /delete?key=b", &[FORM], b"x=1").await.status, 400);
}

#[tokio::test]
async fn unknown_parameter_is_400_and_says_what_was_meant() {
    let served = serve().await;
    let reply = served.ask("GET /get?key=b&consistancy=any").await;
    assert_eq!(reply.problem(), (400, "bad-request".into()));
    assert!(reply.json()["hint"].as_str().unwrap().contains("consistency"));
}

#[tokio::test]
async fn percent_without_two_hex_digits_is_400_in_paths_too() {
    let served = serve().await;
    for line in ["GET /get?key=%", "GET /get?key=%4", "GET /get?key=%zz", "GET /v1/kv/a%", "GET /v1/kv/%g0"] {
        assert_eq!(served.ask(line).await.problem(), (400, "bad-request".into()), "{line}");
    }
}

#[tokio::test]
async fn next_replication_key_is_a_line_of_json() {
    let served = serve().await;
    let empty = served.ask("GET /next-replication-key").await;
    assert_eq!(empty.body, b"{\"Key\":\"\",\"Value\":\"\",\"Op\":\"\",\"Err\":null}\n");
    assert_eq!(empty.header("content-type"), Some("application/json"));
    assert_eq!(served.ask("GET /next-replication-key?key=1").await.status, 400);
}

#[tokio::test]
async fn state_changing_request_of_another_site_is_403() {
    let served = serve().await;
    served.ask("GET /set?key=b&value=kept").await;
    for header in ["Sec-Fetch-Site: cross-site", "Origin: null", "Origin: http://evil.example", "Sec-Purpose: prefetch"]
    {
        for line in ["GET /set?key=b&value=1", "GET /delete?key=b", "PUT /v1/kv/b", "DELETE /v1/kv/b", "POST /purge"] {
            assert_eq!(
                served.send(line, &[header], b"").await.problem(),
                (403, "cross-site".into()),
                "{line} {header}"
            );
        }
        assert_eq!(served.send("GET /get?key=b", &[header], b"").await.body, b"kept", "reading changes nothing");
    }
    let own = format!("Origin: http://{}", served.address);
    assert_eq!(served.send("GET /set?key=b&value=1", &[&own, "Sec-Fetch-Site: same-origin"], b"").await.status, 200);
}
