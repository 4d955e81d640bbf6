//! `route=redirect`: `307` with `Location: http://{owner}{path}?{query}` and `route=local` in it.

use crate::fixture::{Api, api};
use crate::support::{At, Request, Response};

/// The path and query of a `Location` at the leader of shard 0.
#[track_caller]
fn location(api: &Api, answer: &Response) -> String {
    assert_eq!(answer.status, 307, "{answer:?}");
    let here = format!("http://{}", api.address(api.leader(0)));
    let target = answer.must("location").strip_prefix(&here).unwrap_or_else(|| panic!("not {here}: {answer:?}"));
    target.to_owned()
}

/// Parameters of a target, in no order.
fn parameters(target: &str) -> Vec<&str> {
    let mut parameters: Vec<&str> = target.split_once('?').map(|(_, query)| query.split('&').collect()).unwrap();
    parameters.sort_unstable();
    parameters
}

/// Nodes that do not lead shard 0.
fn others(api: &Api) -> [At; 3] {
    [api.leader(1), api.replica(1), api.replica(0)]
}

#[test]
fn redirect_points_at_the_owner_and_keeps_path_and_query() {
    let api = api();
    let key = api.key(0, "redirect");
    for at in others(&api) {
        let answer = api.get(at, format!("/set?key={key}&value=a+b%00&route=redirect"));
        let target = location(&api, &answer);
        assert!(target.starts_with("/set?"), "{target}");
        assert_eq!(parameters(&target), [format!("key={key}").as_str(), "route=local", "value=a+b%00"]);
        api.get(api.leader(0), target).expect(200);
        api.holds(&key, b"a b\0");

        let target = location(&api, &api.get(at, format!("/get?route=redirect&key={key}")));
        assert_eq!(api.get(api.leader(0), target).expect(200).body, b"a b\0");
        api.get(api.leader(0), format!("/delete?key={key}")).expect(200);
    }
}

#[test]
fn redirect_by_header_is_followed_without_a_circle() {
    let api = api();
    let key = api.key(0, "redirect-header");
    for at in others(&api) {
        let request = |target: String| Request::new("PUT", target).header("KV-Route", "redirect").body("v");
        let target = location(&api, &api.send(at, &request(format!("/v1/kv/{key}"))));
        assert_eq!(target, format!("/v1/kv/{key}?route=local"));
        api.lacks(&key);
        // A client that follows sends the header again: the query wins.
        api.send(api.leader(0), &request(target)).expect(201);
        api.delete_key(at, key.as_bytes()).expect(204);
    }
}

#[test]
fn redirect_keeps_the_path_as_it_was_written() {
    let api = api();
    let of_shard_0 = |n: &i32| api.shard_of(&[b"redirect/..//\x00\xff+", format!("{n}/").as_bytes()].concat()) == 0;
    let path = format!("redirect%2F..//%00%FF+{}/", (0..).find(of_shard_0).unwrap());
    let answer = api.send(api.stranger(), &Request::new("PUT", format!("/v1/kv/{path}?route=redirect")).body("v"));
    assert_eq!(location(&api, &answer), format!("/v1/kv/{path}?route=local"));
}

#[test]
fn redirect_at_the_owner_is_served() {
    let api = api();
    let key = api.key(0, "redirect-owner");
    api.get(api.leader(0), format!("/set?key={key}&value=v&route=redirect")).expect(200);
    api.holds(&key, "v");
}

#[test]
fn route_in_the_query_wins_over_the_header() {
    let api = api();
    let key = api.key(0, "redirect-wins");
    let request = Request::get(format!("/set?key={key}&value=v&route=forward")).header("KV-Route", "redirect");
    api.send(api.stranger(), &request).expect(200);
    api.holds(&key, "v");
    let request = Request::get(format!("/get?key={key}&route=redirect")).header("KV-Route", "forward");
    location(&api, &api.send(api.stranger(), &request));
}
