//! The command line: what may be asked, and what it means. Everything that is wrong with it is found here (exit code 2).

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};

use crate::chooser::Popularity;
use crate::keyspace::STAMP_BYTES;
use crate::request::Form;
use crate::sizes::Sizes;

pub(crate) mod target;

use target::Target;

/// The command line.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "benchclient",
    version,
    about = ABOUT,
    after_help = AFTER_HELP,
    args_conflicts_with_subcommands = true,
    disable_help_flag = true,
    max_term_width = 110
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) load: LoadArgs,

    /// Print help
    #[arg(short, long, action = ArgAction::HelpShort, global = true)]
    help: Option<bool>,
}

const ABOUT: &str = "\
Load for an Ostraca cluster over HTTP, and proof that what was acknowledged can be read.

With --workload it measures throughput and latency percentiles of a mix of reads and writes: in a closed loop, in which \
each connection asks again when it was answered, or with --rate in an open one, in which requests start by a timetable \
and latency counts from there, so that no stall of the server is overlooked.

Without --workload it writes --iterations new random keys, reads them back --read-iterations times while a second writer \
runs, compares every value, and shows each worker.";

const AFTER_HELP: &str = "\
Examples:
  benchclient --workload set                       durable writes, 32 connections, 10 seconds
  benchclient --workload get --preload --connections 128
  benchclient --workload a --preload --rate 5000 --json today.json --plot today.svg
  benchclient --workload b --preload --route direct --verify
  benchclient compare yesterday.json today.json
  benchclient --addr 127.0.0.2:8080 --iterations 1000 --read-iterations 100000

Exit codes:
  0  no errors            1  requests failed, or --verify could not read everything
  2  wrong usage          5  there is no node, or no such file
  6  --verify found an acknowledged write missing or a value that is wrong
  130, 143  stopped by Ctrl-C or SIGTERM: what was measured until then is shown";

/// What else it can do.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// Compare two results of --json, and say which differences are more than noise
    Compare(CompareArgs),
}

/// What is compared.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Give several files per side, separated by commas, to compare runs: A1.json,A2.json,A3.json B1.json,B2.json,B3.json. \
On a shared machine run them in turn: A, B, A, B, … With fewer than three rounds on a side, seconds are compared, which \
tells nothing about how much whole runs differ from each other.

A difference is noise when 1 lies within the 95 % interval of the ratio (bootstrap of the medians).")]
pub(crate) struct CompareArgs {
    /// What was before: one or more results of --json
    #[arg(value_name = "A.json[,…]")]
    pub(crate) before: Files,
    /// What is now
    #[arg(value_name = "B.json[,…]")]
    pub(crate) after: Files,
    /// Exit with 1 when something became slower by more than noise
    #[arg(long)]
    pub(crate) fail_if_slower: bool,
}

/// Names of files, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files(pub(crate) Vec<PathBuf>);

impl FromStr for Files {
    type Err = String;

    fn from_str(text: &str) -> Result<Files, String> {
        let names: Vec<PathBuf> = text.split(',').map(PathBuf::from).collect();
        if names.iter().any(|name| name.as_os_str().is_empty()) {
            return Err("a file without a name".into());
        }
        Ok(Files(names))
    }
}

/// A mix of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Only writes
    Set,
    /// Only reads
    Get,
    /// YCSB A: half reads, half writes, zipfian
    A,
    /// YCSB B: 95 % reads, 5 % writes, zipfian
    B,
    /// YCSB C: only reads, zipfian
    C,
}

impl Workload {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Workload::Set => "set",
            Workload::Get => "get",
            Workload::A => "a",
            Workload::B => "b",
            Workload::C => "c",
        }
    }

    /// Of 100 requests, so many are reads.
    pub(crate) fn reads_percent(self) -> u32 {
        match self {
            Workload::Set => 0,
            Workload::A => 50,
            Workload::B => 95,
            Workload::Get | Workload::C => 100,
        }
    }

    /// What YCSB has for it.
    pub(crate) fn popularity(self) -> Popularity {
        match self {
            Workload::Set | Workload::Get => Popularity::Uniform,
            Workload::A | Workload::B | Workload::C => Popularity::Zipfian,
        }
    }
}

/// Which node is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RouteArg {
    /// The one that --addr names.
    Any,
    /// The leader of each key's shard.
    Direct,
}

/// A run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LoadArgs {
    /// Any node of the cluster: HOST:PORT, with or without http:// in front
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.2:8080", env = "KV_URL", value_parser = Target::parse)]
    pub(crate) addr: Target,

    /// Connections at once, each with one request (or burst) under way [default: 32, without --workload 1]
    #[arg(long, visible_alias = "connections", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) concurrency: Option<u16>,

    /// Bytes of each value: 100, a range 10..1000, or skewed:10..100000 (small ones more often)
    #[arg(long, value_name = "SIZE", default_value = "100")]
    pub(crate) value_bytes: Sizes,

    /// How long to wait for one answer: 500ms, 10s
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,

    /// Keys to write, over all workers together
    #[arg(long, value_name = "N", default_value_t = 1000, conflicts_with = "workload", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Write and read back (without --workload)")]
    pub(crate) iterations: u64,

    /// Reads of written keys, over all workers together; 0 for none
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100_000,
        conflicts_with = "workload",
        help_heading = "Write and read back (without --workload)"
    )]
    pub(crate) read_iterations: u64,

    /// What to measure: set or get alone, or YCSB's a (half reads), b (95 % reads) or c (only reads)
    #[arg(long, value_name = "NAME", hide_possible_values = true, help_heading = "Measure")]
    pub(crate) workload: Option<Workload>,

    /// How long to measure, after the warm-up
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration, help_heading = "Measure")]
    pub(crate) duration: Duration,

    /// How long to warm up before; what happens then is left out
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = warm_up, help_heading = "Measure")]
    pub(crate) warmup: Duration,

    /// Measure so many requests instead of a time, without a warm-up
    #[arg(long, value_name = "N", requires = "workload", conflicts_with_all = ["duration", "warmup", "rate"], value_parser = clap::value_parser!(u64).range(1..), help_heading = "Measure")]
    pub(crate) requests: Option<u64>,

    /// Requests a second, started by a timetable (an open loop); without it as many as can be (a closed loop)
    #[arg(long, value_name = "N", requires = "workload", value_parser = clap::value_parser!(u64).range(1..=10_000_000), help_heading = "Measure")]
    pub(crate) rate: Option<u64>,

    /// Requests that a connection sends at once, before it waits for their answers
    #[arg(long, value_name = "N", requires = "workload", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Measure")]
    pub(crate) pipeline: u16,

    /// Threads of this generator
    #[arg(long, value_name = "N", requires = "workload", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Measure")]
    pub(crate) threads: u16,

    /// Measure so many times over, to see the spread
    #[arg(long, value_name = "N", requires = "workload", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000), help_heading = "Measure")]
    pub(crate) rounds: u16,

    /// How many keys there are
    #[arg(long, value_name = "N", requires = "workload", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000), help_heading = "Keys")]
    pub(crate) keys: u64,

    /// Which keys are asked for how often: uniform; zipfian (0.99, YCSB's: a few keys most of the time); latest (keys
    /// are written in turn, and the newest are read most) [default: zipfian for a, b and c, else uniform]
    #[arg(long, value_name = "NAME", requires = "workload", hide_possible_values = true, help_heading = "Keys")]
    pub(crate) key_dist: Option<Popularity>,

    /// Names the keys: the same number, the same keys. What one run loaded another can read
    #[arg(long, value_name = "N", requires = "workload", default_value_t = 1, help_heading = "Keys")]
    pub(crate) seed: u64,

    /// Write every key once before measuring
    #[arg(long, requires = "workload", help_heading = "Keys")]
    pub(crate) preload: bool,

    /// Which node is asked: any is the one of --addr, which forwards what is not its own; direct is the leader of the
    /// key's shard, computed from /v1/cluster and followed when it changes
    #[arg(
        long,
        value_name = "NAME",
        requires = "workload",
        default_value = "any",
        hide_possible_values = true,
        help_heading = "Where and how well"
    )]
    pub(crate) route: RouteArg,

    /// Writes wait until they are on the disks of: leader (the default), replicas:N, or all
    #[arg(long, value_name = "COPIES", requires = "workload", conflicts_with = "set_template", value_parser = ack, help_heading = "Where and how well")]
    pub(crate) ack: Option<String>,

    /// Compare what is read with what was acknowledged, and read everything back at the end
    #[arg(long, requires = "workload", help_heading = "Where and how well")]
    pub(crate) verify: bool,

    /// Another server's way to read, with {key}: 'GET /GET/{key}'
    #[arg(long, value_name = "FORM", requires_all = ["workload", "set_template"], conflicts_with = "route", help_heading = "Where and how well")]
    pub(crate) get_template: Option<Form>,

    /// Another server's way to write; the body is the value: 'PUT /SET/{key}'
    #[arg(long, value_name = "FORM", requires_all = ["workload", "get_template"], help_heading = "Where and how well")]
    pub(crate) set_template: Option<Form>,

    /// Write the result there, for compare and for other programs
    #[arg(long, value_name = "FILE", requires = "workload", help_heading = "Results")]
    pub(crate) json: Option<PathBuf>,

    /// Draw latency and throughput over time there
    #[arg(long, value_name = "FILE.svg", requires = "workload", help_heading = "Results")]
    pub(crate) plot: Option<PathBuf>,
}

/// Two gigabytes for what is remembered of them.
const VERIFY_KEYS_MAX: u64 = 20_000_000;

impl LoadArgs {
    /// What clap cannot see.
    pub(crate) fn check(&self) -> Result<(), String> {
        let size = self.value_bytes.least();
        if self.verify && size < STAMP_BYTES {
            return Err(format!(
                "--verify needs values of at least {STAMP_BYTES} bytes, to tell writes apart\nhint: --value-bytes 100"
            ));
        }
        if self.verify && self.keys > VERIFY_KEYS_MAX {
            return Err(format!(
                "--verify keeps some 100 bytes per key in memory, so there are at most {VERIFY_KEYS_MAX} keys\nhint: --keys \
                 {VERIFY_KEYS_MAX}"
            ));
        }
        if self.rate.is_some_and(|rate| rate < u64::from(self.threads)) {
            return Err("fewer requests a second than threads\nhint: --threads 1".into());
        }
        Ok(())
    }

    /// Connections at once.
    pub(crate) fn connections(&self) -> usize {
        let default = if self.workload.is_some() { 32 } else { 1 };
        usize::from(self.concurrency.unwrap_or(default))
    }
}

/// `leader`, `all`, `replicas:2`.
fn ack(text: &str) -> Result<String, String> {
    let is_number = |digits: &str| digits.parse::<u32>().is_ok_and(|replicas| replicas > 0);
    match text {
        "leader" | "all" => Ok(text.to_owned()),
        _ if text.strip_prefix("replicas:").is_some_and(is_number) => Ok(text.to_owned()),
        _ => Err("write leader, all, or replicas:N with N from 1".into()),
    }
}

/// `500ms`, `10s`, `2m`; positive.
fn duration(text: &str) -> Result<Duration, String> {
    match warm_up(text)? {
        Duration::ZERO => Err("a time of nothing is over before it began: give at least 1ms".into()),
        time => Ok(time),
    }
}

/// The same, or nothing: `0s`.
fn warm_up(text: &str) -> Result<Duration, String> {
    const FORM: &str = "give a number and a unit: 500ms, 10s, 2m";
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(FORM)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| FORM)?;
    let millis = match unit {
        "ms" => number,
        "s" => number.saturating_mul(1_000),
        "m" => number.saturating_mul(60_000),
        _ => return Err(FORM.into()),
    };
    match millis {
        // A day keeps all sums far from overflow.
        0..=86_400_000 => Ok(Duration::from_millis(millis)),
        _ => Err("at most 1440m".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{CommandFactory, Parser};

    use super::{Args, Command, Workload, duration, warm_up};
    use crate::sizes::Sizes;

    fn parse(arguments: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["benchclient", "--addr", "127.0.0.2:8080"], arguments].concat())
    }

    #[test]
    fn arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn arguments_absent_have_the_documented_defaults() {
        let args = parse(&[]).expect("defaults").load;
        assert_eq!((args.iterations, args.read_iterations, args.connections()), (1000, 100_000, 1));
        assert_eq!((args.value_bytes, args.timeout), (Sizes::Fixed(100), Duration::from_secs(10)));
        let args = parse(&["--workload", "a"]).expect("a workload").load;
        assert_eq!((args.workload, args.connections(), args.keys), (Some(Workload::A), 32, 100_000));
    }

    #[test]
    fn arguments_of_the_first_release_are_taken() {
        let first = "--iterations 1000 --read-iterations 100000 --concurrency 4 --value-bytes 0 --timeout 500ms";
        let args = parse(&first.split(' ').collect::<Vec<_>>()).expect("the first flags").load;
        assert_eq!((args.connections(), args.check()), (4, Ok(())));
    }

    #[test]
    fn arguments_for_a_workload_alone_are_refused() {
        for flags in [
            &["--rate", "100"][..],
            &["--pipeline", "2"],
            &["--verify"],
            &["--preload"],
            &["--json", "x"],
            &["--workload", "a", "--iterations", "5"],
            &["--workload", "a", "--get-template", "GET /{key}"],
            &["--ack", "all"],
            &["--workload", "set", "--ack", "replicas:0"],
            &["--workload", "d"],
            &["--workload", "a", "--requests", "5", "--rate", "5"],
            &["compare", "a.json", "b.json"],
        ] {
            assert!(parse(flags).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn arguments_that_contradict_are_refused_with_a_hint() {
        for flags in [
            &["--workload", "a", "--verify", "--value-bytes", "10..100"][..],
            &["--workload", "a", "--verify", "--keys", "20000001"],
            &["--workload", "a", "--rate", "2", "--threads", "4"],
        ] {
            let refused = parse(flags).expect("clap takes them").load.check().expect_err("contradiction");
            assert!(refused.contains("hint:"), "{refused}");
        }
    }

    #[test]
    fn compare_takes_several_files_on_each_side() {
        let args = Args::try_parse_from(["benchclient", "compare", "a1,a2", "b1"]).expect("two sides");
        let Some(Command::Compare(compare)) = args.command else { panic!("{args:?}") };
        assert_eq!((compare.before.0.len(), compare.after.0.len()), (2, 1));
    }

    #[test]
    fn duration_with_a_unit_is_understood() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(warm_up("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn duration_without_unit_or_beyond_bounds_is_refused() {
        for text in ["", "10", "s", "-1s", "1h", "0s", "1441m", "99999999999999999999s", "18446744073709551615m"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
