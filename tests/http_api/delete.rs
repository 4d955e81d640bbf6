//! `/delete`: API.md, section 1, third row.

use crate::fixture::api;
use crate::support::Request;
use crate::support::problem::refused;

#[test]
fn delete_answers_ok_for_each_method_whether_or_not_the_key_was_there() {
    let api = api();
    for method in ["GET", "POST", "DELETE"] {
        let key = api.key(0, &format!("delete-{method}"));
        api.put_key(api.leader(0), key.as_bytes(), b"v").expect(201);
        for at in [api.stranger(), api.leader(0), api.replica(0)] {
            let answer = api.send(at, &Request::new(method, format!("/delete?key={key}"))).expect(200);
            assert_eq!(answer.text(), "OK\n");
            assert_eq!(answer.must("content-type"), "text/plain; charset=utf-8");
            api.lacks(&key);
        }
    }
}

#[test]
fn delete_without_key_or_with_unknown_parameters_is_refused() {
    let api = api();
    for target in ["/delete", "/delete?key=", "/delete?key=a&key=a", "/delete?key=a&value=b", "/delete?key=a&x=y"] {
        refused(&api.get(api.leader(0), target), 400, "bad-request");
    }
}

#[test]
fn delete_then_set_is_a_new_key() {
    let api = api();
    let key = api.key(0, "delete-again");
    api.put_key(api.leader(0), key.as_bytes(), b"v").expect(201);
    api.delete_key(api.leader(0), key.as_bytes()).expect(204);
    api.put_key(api.leader(0), key.as_bytes(), b"w").expect(201);
    api.holds(&key, "w");
}
