//! The program as a user runs it without `--workload`, against a small HTTP server that behaves well or badly on purpose.

#![expect(clippy::unwrap_used, reason = "a test's set-up that fails should fail the test")]

use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

mod stub;

use stub::{Mood, Server, bench_at, command, stderr, stdout};

/// `ok` and `failed` of the line for all workers of this phase.
fn totals(output: &Output, phase: &str) -> (u64, u64) {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.trim_start().starts_with(phase) && line.contains(" all "));
    let line = line.unwrap_or_else(|| panic!("no line of {phase} in:\n{text}{}", stderr(output)));
    let (_, figures) = line.split_once(" all ").unwrap();
    let mut figures = figures.split_whitespace().map(|figure| figure.replace(',', "").parse().unwrap());
    (figures.next().unwrap(), figures.next().unwrap())
}

/// Few requests, for a worker pauses after each failure.
const SMALL: &[&str] = &["--iterations", "30", "--read-iterations", "12"];

#[test]
fn run_against_a_good_server_counts_everything_and_exits_0() {
    let server = Server::start(Mood::Good);
    let output = server.bench(&["--iterations", "200", "--read-iterations", "500", "--concurrency", "4"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(totals(&output, "write"), (200, 0));
    assert_eq!(totals(&output, "read"), (500, 0));
    let (second, failed) = totals(&output, "second writer");
    assert!(second > 0 && failed == 0, "{}", stdout(&output));
    // Header, 4 + 1 of writing, 4 + 1 of reading, 1 + 1 of the second writer.
    assert_eq!(stdout(&output).lines().count(), 13, "{}", stdout(&output));
}

#[test]
fn run_keeps_its_connections_alive() {
    let server = Server::start(Mood::Good);
    server.bench(&["--iterations", "100", "--read-iterations", "100"]);
    // The hello, the worker that writes, the one that reads, and the second writer.
    let connections = server.connections.load(Ordering::SeqCst);
    assert!(connections <= 4, "{connections} connections for 200 requests and more");
}

#[test]
fn run_with_refused_writes_counts_them_by_code_and_reads_only_what_was_acknowledged() {
    let server = Server::start(Mood::RefusesSomeWrites);
    let output = server.bench(SMALL);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(totals(&output, "write"), (20, 10));
    assert_eq!(totals(&output, "read"), (12, 0));
    let text = stdout(&output);
    assert!(
        text.contains("write failed: 10 × overloaded. The first: 503: Too much at once. (hint: Wait a second.)"),
        "{text}"
    );
}

#[test]
fn run_with_values_that_differ_exits_1_and_says_wrong_value() {
    for mood in [Mood::Corrupts, Mood::Shortens, Mood::Lengthens] {
        let output = Server::start(mood).bench(SMALL);
        assert_eq!(output.status.code(), Some(1), "{mood:?}");
        assert_eq!(totals(&output, "read"), (0, 12), "{mood:?}");
        assert!(stdout(&output).contains("12 × wrong-value"), "{mood:?}: {}", stdout(&output));
    }
}

#[test]
fn run_with_acknowledged_keys_that_are_gone_exits_1_and_says_missing() {
    let output = Server::start(Mood::Forgets).bench(SMALL);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(totals(&output, "read"), (0, 12));
    assert!(stdout(&output).contains("12 × missing"), "{}", stdout(&output));
}

#[test]
fn run_with_empty_values_compares_them_too() {
    let size = ["--value-bytes", "0", "--iterations", "10", "--read-iterations", "10"];
    assert_eq!(Server::start(Mood::Good).bench(&size).status.code(), Some(0));
    assert_eq!(Server::start(Mood::Lengthens).bench(&size).status.code(), Some(1));
}

#[test]
fn run_with_broken_connections_counts_them_by_kind() {
    let hung_up = Server::start(Mood::HangsUp).bench(&["--iterations", "5", "--read-iterations", "5"]);
    assert!(stdout(&hung_up).contains("5 × closed"), "{}", stdout(&hung_up));
    let silent =
        Server::start(Mood::Silent).bench(&["--iterations", "5", "--read-iterations", "2", "--timeout", "200ms"]);
    assert!(stdout(&silent).contains("2 × timeout"), "{}", stdout(&silent));
    assert_eq!((hung_up.status.code(), silent.status.code()), (Some(1), Some(1)));
}

#[test]
fn run_without_any_acknowledged_write_reads_nothing_and_says_so() {
    let output = Server::start(Mood::Broken).bench(&["--iterations", "3"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("3 × http-500"), "{}", stdout(&output));
    assert!(stderr(&output).contains("nothing to read back"), "{}", stderr(&output));
}

#[test]
fn run_without_a_server_exits_5_with_a_hint() {
    // Port 1 (tcpmux) is used by nobody, and is never given to another test's server.
    let output = bench_at("127.0.0.1:1", SMALL);
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).contains("no node at") && stderr(&output).contains("./launch.sh"), "{}", stderr(&output));
}

#[test]
fn run_against_a_stranger_exits_5_and_writes_nothing() {
    let output = Server::start(Mood::Stranger).bench(SMALL);
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).contains("no Ostraca node"), "{}", stderr(&output));
}

#[test]
fn usage_errors_exit_2() {
    for arguments in [&["--concurrency", "0"][..], &["--iterations", "0"], &["--timeout", "3"], &["--nonsense"]] {
        assert_eq!(bench_at("127.0.0.1:1", arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(bench_at("https://127.0.0.1:1", &[]).status.code(), Some(2));
}

#[cfg(unix)]
#[test]
fn interrupt_in_the_middle_prints_what_there_is_and_exits_130() {
    let server = Server::start(Mood::Good);
    // More than can be done before the signal comes.
    let arguments = ["--iterations", "100", "--read-iterations", "1000000000"];
    let mut bench = command(&server.address.to_string(), &arguments);
    let child = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    thread::sleep(Duration::from_millis(1500));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert_eq!(totals(&output, "write"), (100, 0));
    let (read, failed) = totals(&output, "read");
    assert!(read > 0 && failed == 0);
    assert!(stderr(&output).contains("Stopped by a signal"), "{}", stderr(&output));
}
