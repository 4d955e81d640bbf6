//! The command line: what may be asked, and what it means. Everything that is wrong with it is found here (exit code 2).

use std::time::Duration;

use clap::Parser;

/// Writes random keys to an Ostraca cluster, then reads them back while a second
/// writer runs, and says how long it took and what went wrong.
///
/// Each worker sends its next request when the last one is answered (a closed
/// loop), over a kept-alive connection. Latency is measured from sending to the
/// last byte of the answer, for successes only; failures are counted by their
/// code. Each value read is compared with what was written: `missing` and
/// `wrong-value` mean that an acknowledged write did not come back.
///
/// Exit codes: 0 no errors, 1 errors, 2 usage, 5 no node there, 130 or 143 stopped
/// by a signal.
#[derive(Debug, Clone, Parser)]
#[command(name = "benchclient", version, verbatim_doc_comment)]
pub(crate) struct Args {
    /// Any node of the cluster: HOST:PORT, with or without http:// in front
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.2:8080", env = "KV_URL", value_parser = Target::parse)]
    pub(crate) addr: Target,

    /// Keys to write, over all workers together
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) iterations: u64,

    /// Reads of written keys, over all workers together; 0 for none
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) read_iterations: u64,

    /// Workers that write, and then read; each has one request under way
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) concurrency: u16,

    /// Bytes of each value (random bytes)
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_bytes)]
    pub(crate) value_bytes: usize,

    /// How long to wait for one answer: 500ms, 10s
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// The node to load: an `http://HOST:PORT` without anything behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    authority: String,
}

impl Target {
    /// Understands `HOST:PORT`, `http://HOST:PORT` and the same with a `/` at the end.
    pub(crate) fn parse(text: &str) -> Result<Target, String> {
        let bare = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) => return Err(format!("only http:// is spoken here, not {scheme}://")),
            None => text,
        };
        let authority = bare.strip_suffix('/').unwrap_or(bare);
        if authority.contains(['/', '?', '#', '@']) || authority.contains(char::is_whitespace) {
            return Err("give only a host and a port, such as 127.0.0.2:8080".into());
        }
        let (host, port) = authority
            .rsplit_once(':')
            .filter(|(host, _)| !host.contains(':') || host.ends_with(']'))
            .ok_or_else(|| format!("the port is missing: write {authority}:8080 ([::1]:8080 for an IPv6 address)"))?;
        if host.is_empty() {
            return Err(format!("the host is missing: write 127.0.0.1:{port}"));
        }
        match port.parse::<u16>() {
            Ok(1..) => Ok(Target { authority: authority.to_owned() }),
            _ => Err(format!("{port:?} is not a port: give a number from 1 to 65535")),
        }
    }

    /// `http://HOST:PORT`, to which a path is appended.
    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.authority)
    }
}

/// The largest value that any cluster can be set to take; beyond it every write would be refused.
const VALUE_BYTES_MAX: usize = 64 << 20;

fn value_bytes(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(bytes) if bytes <= VALUE_BYTES_MAX => Ok(bytes),
        Ok(_) => Err(format!("values have at most {VALUE_BYTES_MAX} bytes")),
        Err(_) => Err("give a number of bytes".into()),
    }
}

/// `500ms`, `10s`, `2m`; positive.
fn duration(text: &str) -> Result<Duration, String> {
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
        0 => Err("a wait of nothing never succeeds: give at least 1ms".into()),
        // An hour is longer than anyone waits for one answer, and keeps deadlines far from overflow.
        1..=3_600_000 => Ok(Duration::from_millis(millis)),
        _ => Err("at most 60m".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{CommandFactory, Parser};

    use super::{Args, Target, duration};

    #[test]
    fn arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn arguments_absent_have_the_documented_defaults() {
        let args = Args::parse_from(["benchclient", "--addr", "127.0.0.2:8080"]);
        assert_eq!(
            (args.iterations, args.read_iterations, args.concurrency, args.value_bytes),
            (1000, 100_000, 1, 100)
        );
    }

    #[test]
    fn target_with_or_without_scheme_is_the_same_node() {
        for text in ["127.0.0.2:8080", "http://127.0.0.2:8080", "HTTP://127.0.0.2:8080/", "127.0.0.2:8080/"] {
            assert_eq!(Target::parse(text).map(|t| t.base()), Ok("http://127.0.0.2:8080".into()), "{text}");
        }
        assert_eq!(Target::parse("[::1]:80").map(|t| t.base()), Ok("http://[::1]:80".into()));
        assert_eq!(Target::parse("localhost:80").map(|t| t.base()), Ok("http://localhost:80".into()));
    }

    #[test]
    fn target_that_is_none_is_refused_with_what_to_write() {
        for (text, part) in [
            ("127.0.0.2", "127.0.0.2:8080"),
            ("::1", "[::1]:8080"),
            (":8080", "host is missing"),
            ("https://127.0.0.2:8080", "only http://"),
            ("127.0.0.2:0", "1 to 65535"),
            ("127.0.0.2:http", "1 to 65535"),
            ("127.0.0.2:8080/set?key=a", "only a host and a port"),
            ("user@127.0.0.2:8080", "only a host and a port"),
            ("", "port is missing"),
        ] {
            let Err(message) = Target::parse(text) else { panic!("{text} was taken") };
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn duration_with_a_unit_is_understood() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
    }

    #[test]
    fn duration_without_unit_or_beyond_bounds_is_refused() {
        for text in ["", "10", "s", "-1s", "1h", "0s", "61m", "99999999999999999999s", "18446744073709551615m"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
