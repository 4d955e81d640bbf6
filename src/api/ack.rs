//! The controls `ack` and `ack_timeout`: for which copies a write waits, and how long (API.md, section 3).
//!
//! `ack=all` of a shard without replicas is its leader alone, and the answer's `KV-Acks: 1/1` says so; whoever needs another
//! disk asks for `replicas:1`, which such a shard refuses.

use std::time::Duration;

use super::controls::{bad, duration, is_number};
use super::error::Problem;
use crate::config::Settings;
use crate::store::Store;
use crate::store::ack::{Ack, Wanted};
use crate::types::Key;

/// How long a write waits for replicas when it does not say: a replica that restarts is back by then. Not longer than a
/// request may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Understands both; none: the leader's disk is enough.
pub(super) fn read(ack: Option<&str>, timeout: Option<&str>, settings: &Settings) -> Result<Option<Ack>, Problem> {
    let max = settings.request_timeout;
    let timeout = match timeout.map(|text| (text, duration(text))) {
        None => TIMEOUT.min(max),
        Some((text, Some(time))) if time > max => {
            let max = max.as_millis();
            return Err(Problem::bad_request(format!(
                "ack_timeout={text} is longer than a request may take, {max} ms"
            ))
            .hint(format!("ask for at most {max}ms"))
            .extra("limit", u64::try_from(max).unwrap_or(u64::MAX))
            .extra("setting", "limits.request_timeout_ms in sharding.toml"));
        }
        Some((_, Some(time))) if !time.is_zero() && ack.is_some() => time,
        Some((_, Some(time))) if !time.is_zero() => {
            return Err(Problem::bad_request("there is an ack_timeout and no ack: what should it wait for?")
                .hint("say ack=all or ack=replicas:N, or leave ack_timeout out"));
        }
        Some((text, _)) => return Err(bad("ack_timeout", text, "a time above zero, as 500ms or 2s")),
    };
    let wanted = match ack {
        None | Some("leader") => return Ok(None),
        Some("all") => Wanted::All,
        Some(text) => Wanted::Replicas(replicas(text).ok_or_else(|| bad("ack", text, "leader, replicas:N or all"))?),
    };
    Ok(Some(Ack { wanted, timeout, is_forwarded: false }))
}

/// The number of `replicas:N`, one at least; beyond what a number can hold it is surely more than there are.
fn replicas(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("replicas:").filter(|digits| is_number(digits))?;
    Some(digits.parse().unwrap_or(u32::MAX)).filter(|replicas| *replicas > 0)
}

/// Refuses what the key's shard can never do, and what a read cannot mean.
pub(super) fn check(ack: Ack, key: &Key, is_write: bool, store: &Store) -> Result<(), Problem> {
    if !is_write {
        return Err(Problem::bad_request("ack says what a write waits for, and this is a read")
            .hint("leave ack and ack_timeout out; consistency= says what a read must guarantee"));
    }
    store.check_wanted(key, ack.wanted).map_err(|replicas| {
        let wanted = match ack.wanted {
            Wanted::Replicas(wanted) => format!("ack=replicas:{wanted}"),
            Wanted::All => "ack=all".to_owned(),
        };
        Problem::bad_request(format!(
            "{wanted} cannot be had: replicas of the key's shard in sharding.toml: {replicas}"
        ))
        .hint("ask for as many as there are, or for ack=all")
        .extra("replicas", replicas)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(ack: Option<&str>, timeout: Option<&str>) -> Result<Option<(Wanted, u128)>, u16> {
        let read = read(ack, timeout, &Settings::default());
        read.map(|ack| ack.map(|ack| (ack.wanted, ack.timeout.as_millis())))
            .map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn ack_of_the_leader_is_the_default_and_waits_for_nothing() {
        assert_eq!(asked(None, None), Ok(None));
        assert_eq!(asked(Some("leader"), None), Ok(None));
        assert_eq!(asked(Some("leader"), Some("1s")), Ok(None));
    }

    #[test]
    fn ack_of_replicas_waits_for_its_timeout_or_five_seconds() {
        assert_eq!(asked(Some("all"), None), Ok(Some((Wanted::All, 5_000))));
        assert_eq!(asked(Some("replicas:2"), Some("500ms")), Ok(Some((Wanted::Replicas(2), 500))));
        assert_eq!(asked(Some("all"), Some("30s")), Ok(Some((Wanted::All, 30_000))));
        assert_eq!(asked(Some("replicas:99999999999"), None), Ok(Some((Wanted::Replicas(u32::MAX), 5_000))));
        let short = Settings { request_timeout: Duration::from_secs(1), ..Settings::default() };
        assert_eq!(read(Some("all"), None, &short).unwrap().unwrap().timeout, Duration::from_secs(1));
    }

    #[test]
    fn ack_that_means_nothing_is_400() {
        for ack in ["", "none", "ALL", "replicas", "replicas:", "replicas:0", "replicas:x", "replicas:-1", "1"] {
            assert_eq!(asked(Some(ack), None), Err(400), "{ack}");
        }
        for timeout in ["", "0", "0s", "soon", "-1s", "31s"] {
            assert_eq!(asked(Some("all"), Some(timeout)), Err(400), "{timeout}");
        }
        assert_eq!(asked(None, Some("1s")), Err(400), "nothing to wait for");
    }
}
