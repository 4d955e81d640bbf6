//! Comparisons of made-up results.

use super::{Side, read, render};
use crate::result::testing::{round, settings};
use crate::result::{Document, FORMAT, Round, Server};

fn document(rounds: Vec<Round>) -> Document {
    Document {
        format: FORMAT,
        benchclient: "0.1.0".into(),
        at_unix_s: 0,
        server: Server { target: "http://127.0.0.2:8080".into(), ..Server::default() },
        settings: settings(),
        preload: None,
        rounds,
        verify: None,
    }
}

fn side(rounds: Vec<Round>) -> Side {
    Side { first: document(rounds.clone()), rounds }
}

fn line<'a>(text: &'a str, name: &str) -> &'a str {
    let found = text.lines().find(|line| line.trim_start().starts_with(name));
    found.unwrap_or_else(|| panic!("no line of {name} in\n{text}"))
}

#[test]
fn comparison_of_rounds_tells_a_change_from_noise() {
    let before = side([100.0, 101.0, 99.0, 100.5, 98.0].map(|rate| round(rate * 1000.0, 400.0 + rate)).to_vec());
    let after = side([130.0, 131.0, 129.0, 128.0].map(|rate| round(rate * 1000.0, 370.0 + rate)).to_vec());
    let (text, slower) = render(&before, &after);
    assert!(text.contains("5 rounds with 4 rounds"), "{text}");
    assert!(line(&text, "per second").contains("better") && line(&text, "per second").contains("1.3"), "{text}");
    assert!(line(&text, "get p50").contains("within the noise"), "{text}");
    assert!(!slower);
    let (text, slower) = render(&after, &before);
    assert!(line(&text, "per second").contains("WORSE") && slower, "{text}");
}

#[test]
fn comparison_of_single_rounds_uses_their_seconds_and_says_so() {
    let (text, slower) = render(&side(vec![round(1000.0, 400.0)]), &side(vec![round(1001.0, 800.0)]));
    assert!(text.contains("compared: the seconds"), "{text}");
    assert!(line(&text, "per second").contains("within the noise"), "{text}");
    assert!(line(&text, "get p99 ").contains("WORSE") && slower, "{text}");
}

#[test]
fn comparison_of_different_things_says_what_differs() {
    let mut after = side(vec![round(1000.0, 400.0)]);
    after.first.settings.connections = 128;
    let (text, _) = render(&side(vec![round(1000.0, 400.0)]), &after);
    assert!(text.contains("differs: setting connections: 32 before, 128 after"), "{text}");
}

#[test]
fn comparison_of_too_little_says_so() {
    let mut short = round(1000.0, 400.0);
    short.seconds.truncate(3);
    let (text, _) = render(&side(vec![short.clone()]), &side(vec![short]));
    assert!(line(&text, "per second").contains("too few values"), "{text}");
}

#[test]
fn results_are_read_back_as_they_were_written_and_others_refused() {
    let directory = std::env::temp_dir().join(format!("benchclient-compare-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let file = directory.join("result.json");
    let document = document(vec![round(1000.0, 400.0)]);
    std::fs::write(&file, serde_json::to_string(&document).expect("JSON")).expect("written");
    let known = read(&file).expect("a result");
    assert_eq!((known.settings, known.rounds.len()), (document.settings, 1));
    for (text, part) in
        [("", "no result"), ("{}", "no result"), (r#"{"format":9}"#, "format 9"), (r#"{"format":1}"#, "damaged")]
    {
        std::fs::write(&file, text).expect("written");
        let refused = read(&file).expect_err("no result");
        assert!(refused.contains(part), "{refused}");
    }
    std::fs::remove_dir_all(&directory).expect("removed");
    assert!(read(&file).is_err_and(|error| error.contains("cannot be read")));
}
