//! `--verify` against servers that keep their word, that lie, and that leave writes with an unknown outcome.

#![expect(clippy::unwrap_used, reason = "a test's set-up that fails should fail the test")]

use std::process::Output;

mod stub;

use stub::{Mood, Server, stderr, stdout};

/// Few requests, for a worker pauses after a failure. Several write the same key at the same time.
const FLAGS: &str = "--workload a --verify --keys 12 --requests 120 --connections 4 --timeout 5s";

fn verified(mood: Mood, more: &[&str]) -> Output {
    Server::start(mood).bench(&[&FLAGS.split(' ').collect::<Vec<_>>()[..], more].concat())
}

#[test]
fn server_that_keeps_its_word_is_verified() {
    for more in [&["--preload"][..], &["--preload", "--pipeline", "8", "--threads", "2", "--key-dist", "latest"]] {
        let output = verified(Mood::Good, more);
        assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
        assert!(stdout(&output).contains("verified: 12 keys were written to, 12 hold"), "{}", stdout(&output));
    }
}

#[test]
fn server_that_loses_an_acknowledged_write_is_caught() {
    // The 20th of the writes of a run that writes each key once.
    let lost = Server::start(Mood::LosesOneWrite);
    let flags = "--workload set --verify --preload --keys 30 --requests 1 --connections 1";
    let output = lost.bench(&flags.split(' ').collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(6), "{}{}", stdout(&output), stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("WRONG: 1 times") && text.contains("missing"), "{text}");
}

#[test]
fn server_that_loses_an_overwrite_is_caught_with_the_older_value() {
    let lost = Server::start(Mood::LosesOneWrite);
    // Ten keys, each written twice, one after the other: the 20th write is the second of the last key.
    let flags = "--workload set --verify --preload --keys 10 --requests 10 --connections 1 --key-dist latest";
    let output = lost.bench(&flags.split(' ').collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(6), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("an older value is there"), "{}", stdout(&output));
}

#[test]
fn server_that_returns_other_bytes_is_caught_while_it_runs() {
    for mood in [Mood::Corrupts, Mood::Shortens, Mood::Lengthens, Mood::Forgets] {
        let output = verified(mood, &["--preload"]);
        assert_eq!(output.status.code(), Some(6), "{mood:?}: {}{}", stdout(&output), stderr(&output));
        assert!(stdout(&output).contains("while it ran"), "{mood:?}: {}", stdout(&output));
    }
}

#[test]
fn writes_with_an_unknown_outcome_may_be_there_or_not() {
    for mood in [Mood::StoresAndHangsUp, Mood::DropsAndHangsUp] {
        let output = verified(mood, &[]);
        // Requests failed, which is told; nothing that was acknowledged is missing.
        assert_eq!(output.status.code(), Some(1), "{mood:?}: {}{}", stdout(&output), stderr(&output));
        let text = stdout(&output);
        assert!(text.contains("had an unknown outcome") && !text.contains("WRONG"), "{mood:?}: {text}");
    }
}

#[test]
fn writes_that_were_refused_must_not_be_there() {
    let output = verified(Mood::StoresWhatItRefuses, &["--key-dist", "latest"]);
    assert_eq!(output.status.code(), Some(6), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("refused"), "{}", stdout(&output));
    let honest = verified(Mood::RefusesSomeWrites, &["--key-dist", "latest"]);
    assert_eq!(honest.status.code(), Some(1), "{}{}", stdout(&honest), stderr(&honest));
}

#[test]
fn server_that_answers_no_read_leaves_the_run_unverified() {
    let server = Server::start(Mood::Silent);
    let flags = "--workload set --verify --keys 1 --requests 4 --connections 1 --timeout 100ms";
    let mut bench = stub::command(&server.address.to_string(), &flags.split(' ').collect::<Vec<_>>());
    let child = bench.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // It would try for half a minute; a signal ends that.
    while server.state.asked.lock().unwrap().len() < 6 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stdout(&output).contains("NOT VERIFIED: 1 keys"), "{}", stdout(&output));
}
