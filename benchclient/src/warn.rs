//! What makes a round's figures doubtful, in words: the generator as the bottleneck, a timetable that was not kept, keys
//! that were not there. Pure.

use crate::result::{Round, Settings};
use crate::text::{grouped, rate};

/// A thread that uses more of a processor than that has no time to spare.
const BUSY_MAX: f64 = 0.9;
/// A thread that waits for a processor longer than that, of all the time, measures its own waiting.
const WAITED_MAX: f64 = 0.2;
/// One request in a hundred may be sent that late by our own doing, in microseconds.
const OWN_DELAY_MAX_US: f64 = 1_000.0;
/// Below this part of the rate that was asked for, it was not reached.
const RATE_REACHED: f64 = 0.98;

/// All warnings that apply.
pub(crate) fn warnings(settings: &Settings, round: &Round) -> Vec<String> {
    [
        generator_busy(settings, round),
        generator_starved(round),
        own_delay(round),
        rate_missed(settings, round),
        absent(round),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn generator_busy(settings: &Settings, round: &Round) -> Option<String> {
    let busy = round.generator.busy;
    (busy > BUSY_MAX).then(|| {
        format!(
            "benchclient used {:.0} % of a processor: it, and not the server, may be what limits these figures. \
             Try --threads {}, or run it on a machine of its own.",
            busy * 100.0,
            settings.threads + 1
        )
    })
}

fn generator_starved(round: &Round) -> Option<String> {
    let waited = round.generator.waited.filter(|waited| *waited > WAITED_MAX)?;
    Some(format!(
        "benchclient waited for a processor {:.0} % of the time, because others (the server too, if it runs here) \
         had them all: latencies include that waiting. A lower --rate, or a machine of its own, shows the server alone.",
        waited * 100.0
    ))
}

fn own_delay(round: &Round) -> Option<String> {
    let late = round.generator.own_delay.filter(|delay| delay.p99_us > OWN_DELAY_MAX_US)?;
    Some(format!(
        "benchclient fell behind its own timetable: 1 in 100 requests was sent more than {:.1} ms late although a \
         connection was free. The response times include that; the service times do not.",
        late.p99_us / 1e3
    ))
}

fn rate_missed(settings: &Settings, round: &Round) -> Option<String> {
    let asked = settings.rate?;
    let (reached, unsent) = (round.per_second(), round.unsent);
    let failing = round.failed() > 0 && unsent == 0;
    if round.interrupted || failing || (unsent == 0 && reached >= crate::tally::as_f64(asked) * RATE_REACHED) {
        return None;
    }
    let unsent = if unsent > 0 {
        format!(" {} requests were due and never sent, and are in no latency above.", grouped(unsent))
    } else {
        String::new()
    };
    Some(format!(
        "{} a second were asked for and {} reached: the server, or {} connections, cannot do more.{unsent} Response \
         times then say how long the queue became, not how quick the server is.",
        grouped(asked),
        rate(reached),
        settings.connections
    ))
}

fn absent(round: &Round) -> Option<String> {
    let absent = |code: &str| code == "key-not-found" || code == "http-404";
    let count: u64 = round.failures.iter().filter(|failure| absent(&failure.code)).map(|failure| failure.count).sum();
    (count > 0).then(|| format!("{} reads found no key: --preload writes all keys first.", grouped(count)))
}

#[cfg(test)]
mod tests {
    use super::warnings;
    use crate::result::{FailureResult, Latency, Round, Settings, testing};

    fn warned(settings: &Settings, round: &Round) -> String {
        warnings(settings, round).join("\n")
    }

    fn latency(us: f64) -> Option<Latency> {
        Some(Latency { mean_us: us, min_us: us, p50_us: us, p90_us: us, p99_us: us, p999_us: us, max_us: us })
    }

    #[test]
    fn round_without_faults_has_no_warning() {
        let mut round = testing::round(1000.0, 400.0);
        round.generator.own_delay = latency(200.0);
        assert_eq!(warned(&Settings { rate: Some(1000), ..testing::settings() }, &round), "");
    }

    #[test]
    fn generator_without_time_to_spare_is_named_as_the_limit() {
        let mut round = testing::round(1000.0, 400.0);
        round.generator.busy = 0.97;
        let text = warned(&testing::settings(), &round);
        assert!(text.contains("97 % of a processor") && text.contains("--threads 2"), "{text}");
        round.generator.busy = 0.5;
        round.generator.waited = Some(0.4);
        assert!(warned(&testing::settings(), &round).contains("waited for a processor 40 %"));
    }

    #[test]
    fn timetable_that_was_not_kept_is_told_apart_from_a_slow_server() {
        let mut round = testing::round(1000.0, 400.0);
        round.generator.own_delay = latency(4_900.0);
        assert!(warned(&testing::settings(), &round).contains("4.9 ms late although a connection was free"));
        let settings = Settings { rate: Some(5_000), ..testing::settings() };
        let round = Round { unsent: 7_000, ..testing::round(1000.0, 400.0) };
        let text = warned(&settings, &round);
        assert!(
            text.contains("5,000 a second were asked for and 1,000 reached") && text.contains("7,000 requests"),
            "{text}"
        );
    }

    #[test]
    fn keys_that_were_not_there_name_the_remedy() {
        let mut round = testing::round(1000.0, 400.0);
        let (op, shard, code) = ("get".into(), "One".into(), "key-not-found".into());
        round.failures.push(FailureResult { op, shard, code, count: 12, first: String::new() });
        assert!(warned(&testing::settings(), &round).contains("12 reads found no key: --preload"));
    }
}
