//! `--ack` and `--ack-timeout` of the commands that write: for which copies a write waits.

use std::time::Duration;

use super::keys::parse_timeout;

/// For which copies a write waits.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Acking {
    /// Wait until the write is on the disks of: leader (the default), replicas:N, or all
    #[arg(long, value_name = "COPIES", value_parser = parse_ack)]
    ack: Option<String>,
    /// How long to wait for them, such as 500ms or 5s; the write is done all the same [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = parse_timeout, requires = "ack")]
    ack_timeout: Option<Duration>,
}

impl Acking {
    /// The parameters that ask for it.
    pub(crate) fn parameters(&self) -> String {
        let ack = self.ack.as_ref().map(|ack| format!("&ack={ack}"));
        let timeout = self.ack_timeout.map(|time| format!("&ack_timeout={}ms", time.as_millis()));
        [ack, timeout].into_iter().flatten().collect()
    }
}

fn parse_ack(text: &str) -> Result<String, String> {
    let is_number = |digits: &str| digits.parse::<u32>().is_ok_and(|replicas| replicas > 0);
    match text {
        "leader" | "all" => Ok(text.to_owned()),
        _ if text.strip_prefix("replicas:").is_some_and(is_number) => Ok(text.to_owned()),
        _ => Err("write leader, all, or replicas:N with N from 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acking_becomes_parameters() {
        assert_eq!(Acking::default().parameters(), "");
        let acking = Acking { ack: Some("replicas:2".into()), ack_timeout: Some(Duration::from_secs(2)) };
        assert_eq!(acking.parameters(), "&ack=replicas:2&ack_timeout=2000ms");
    }

    #[test]
    fn ack_names_copies_that_can_be_meant() {
        for text in ["leader", "all", "replicas:1", "replicas:12"] {
            assert_eq!(parse_ack(text), Ok(text.to_owned()));
        }
        for text in ["", "none", "replicas", "replicas:", "replicas:0", "replicas:-1", "replicas:x", "1", "all&x=y"] {
            assert!(parse_ack(text).is_err(), "{text}");
        }
    }
}
