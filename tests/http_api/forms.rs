//! Bodies with curl's label for `-d` and `--data-binary`: a form only if it is well formed and each of its field names
//! is a parameter of `/set`, otherwise the raw value.

use crate::fixture::api;
use crate::support::Request;
use crate::support::problem::refused;

#[test]
fn form_value_is_decoded_as_a_form() {
    let api = api();
    api.post_form("/set?key=form-value", "value=a+b%2Bc%00%ff").expect(200);
    api.holds("form-value", b"a b+c\x00\xff");
}

#[test]
fn form_key_and_value_need_no_query() {
    let api = api();
    api.post_form("/set", "key=form+both&value=v").expect(200);
    api.holds("form both", "v");
    api.post_form("/set?value=w", "key=form+both").expect(200);
    api.holds("form both", "w");
}

#[test]
fn form_label_with_parameters_and_in_capitals_counts_too() {
    let api = api();
    for label in ["application/x-www-form-urlencoded; charset=utf-8", "APPLICATION/X-WWW-FORM-URLENCODED"] {
        let request = Request::new("POST", "/set?key=form-label").header("Content-Type", label).body("value=%41");
        api.send(api.leader(0), &request).expect(200);
        api.holds("form-label", "A");
    }
}

#[test]
fn form_label_on_bytes_that_are_no_form_of_ours_is_the_raw_value() {
    let api = api();
    let raw: [&[u8]; 11] = [
        b"hello world",
        b"hello",
        b"valu=abc",
        b"value=abc&colour=red",
        b"{\"value\": 1}",
        b"value=%zz",
        b"value=%4",
        b"value=100%",
        b"\x00\xff",
        b"=abc",
        b"a=b\nvalue=c",
    ];
    for body in raw {
        api.post_form("/set?key=form-raw", body).expect(200);
        api.holds("form-raw", body);
    }
}

#[test]
fn form_without_any_value_is_refused() {
    let api = api();
    refused(&api.post_form("/set", "key=form-no-value"), 400, "bad-request");
    refused(&api.post_form("/set?key=form-no-value", "route=forward"), 400, "bad-request");
    api.lacks("form-no-value");
}

#[test]
fn form_empty_body_is_an_empty_value() {
    let api = api();
    api.post_form("/set?key=form-empty", "").expect(200);
    api.holds("form-empty", "");
    api.post_form("/set?key=form-empty-2", "value=").expect(200);
    api.holds("form-empty-2", "");
}

#[test]
fn form_and_query_with_one_parameter_are_refused() {
    let api = api();
    refused(&api.post_form("/set?key=form-twice", "key=form-twice&value=v"), 400, "bad-request");
    refused(&api.post_form("/set?key=form-twice&value=v", "value=v"), 400, "bad-request");
    refused(&api.post_form("/set?key=form-twice", "value=v&value=v"), 400, "bad-request");
    api.lacks("form-twice");
}

#[test]
fn form_value_in_query_beside_a_labelled_body_that_is_no_form_is_refused() {
    let api = api();
    refused(&api.post_form("/set?key=form-beside&value=v", "hello"), 400, "bad-request");
    api.lacks("form-beside");
}

#[test]
fn form_put_counts_as_one_too() {
    let api = api();
    let request = Request::new("PUT", "/set?key=form-put")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body("value=%41");
    api.send(api.leader(0), &request).expect(200);
    api.holds("form-put", "A");
}

#[test]
fn form_with_a_control_obeys_it() {
    let api = api();
    let key = api.key(0, "form-control");
    let request = Request::new("POST", "/set")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(format!("key={key}&value=v&route=local"));
    refused(&api.send(api.stranger(), &request), 421, "wrong-shard");
    api.lacks(&key);
    refused(&api.post_form("/set?route=forward", format!("key={key}&value=v&route=forward")), 400, "bad-request");
    refused(&api.post_form("/set", format!("key={key}&value=v&ttl=60s")), 501, "not-built");
    api.lacks(&key);
}

#[test]
fn form_through_a_stranger_means_the_same() {
    let api = api();
    let key = api.key(0, "form-stranger");
    let request = Request::new("POST", format!("/set?key={key}"))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body("value=a+b%00");
    api.send(api.stranger(), &request).expect(200);
    api.holds(&key, "a b\0");
}
