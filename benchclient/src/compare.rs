//! `benchclient compare A.json B.json`: what became faster or slower, and what only looks so.
//!
//! Rounds are compared with rounds when each side has at least three of them, in one file or in several. Else the seconds
//! of the measured time are, which is weaker: they know nothing of how much one run differs from the next.

use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use crate::args::{CompareArgs, Files};
use crate::result::{Document, FORMAT, Latency, OpResult, Part, Round, SecondOpResult};
use crate::session::{EXIT_ERRORS, EXIT_UNAVAILABLE, fail};
use crate::stats::{Ratio, Spread, compare, spread};
use crate::tables::{aligned, new_table};
use crate::tally::as_f64;
use crate::text::{millis, print, rate};

/// So many rounds on each side are compared as rounds.
const ROUNDS_MIN: usize = 3;

/// A figure that is compared.
struct Figure {
    name: String,
    /// More is better.
    rises: bool,
    before: Vec<f64>,
    after: Vec<f64>,
    show: fn(f64) -> String,
}

/// One side: all its rounds.
struct Side {
    first: Document,
    rounds: Vec<Round>,
}

/// Prints the comparison.
pub(crate) fn run(args: &CompareArgs) -> ExitCode {
    let (before, after) = match (read_all(&args.before), read_all(&args.after)) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(error), _) | (_, Err(error)) => return fail(&error, EXIT_UNAVAILABLE),
    };
    let (text, slower) = render(&before, &after);
    print(&text);
    if args.fail_if_slower && slower {
        return fail("something became slower by more than noise (see above)", EXIT_ERRORS);
    }
    ExitCode::SUCCESS
}

fn read_all(files: &Files) -> Result<Side, String> {
    let mut documents = files.0.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?.into_iter();
    let Some(first) = documents.next() else { return Err("no file".into()) };
    let mut rounds = first.rounds.clone();
    for document in documents {
        if document.settings != first.settings {
            return Err("the files of one side measured different things (their `settings` differ)".into());
        }
        rounds.extend(document.rounds);
    }
    Ok(Side { first, rounds })
}

fn read(file: &Path) -> Result<Document, String> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| format!("{name} cannot be read: {error}"))?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| format!("{name} is no result: {error}\nhint: make one with --json FILE"))?;
    match value.get("format").and_then(Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {}
        Some(format) => return Err(format!("{name} has format {format}; this benchclient knows {FORMAT}")),
        None => return Err(format!("{name} is no result of benchclient\nhint: make one with --json FILE")),
    }
    serde_json::from_value(value).map_err(|error| format!("{name} is damaged: {error}"))
}

/// The text, and whether something became slower.
fn render(before: &Side, after: &Side) -> (String, bool) {
    let rounds = before.rounds.len() >= ROUNDS_MIN && after.rounds.len() >= ROUNDS_MIN;
    let mut text = differences(&before.first, &after.first);
    text.push_str(&if rounds {
        format!("compared: {} rounds with {} rounds\n\n", before.rounds.len(), after.rounds.len())
    } else {
        "compared: the seconds of the measured time. How much whole runs differ from each other they do not show; for \
         that give --rounds 5, or several files per side.\n\n"
            .into()
    });
    let figures =
        if rounds { of_rounds(&before.rounds, &after.rounds) } else { of_seconds(&before.rounds, &after.rounds) };
    let mut table = new_table(&["", "before", "from", "to", "after", "from", "to", "ratio", "95 % from", "to", ""]);
    let mut slower = false;
    for figure in &figures {
        let ratio = compare(&figure.before, &figure.after);
        let verdict = verdict(figure, ratio);
        slower |= verdict == "WORSE";
        let side = |values: &[f64]| match spread(values) {
            Some(Spread { median, least, most }) => [median, least, most].map(figure.show),
            None => ["-".into(), String::new(), String::new()],
        };
        let ratios = ratio.map_or_else(
            || ["-".into(), String::new(), String::new()],
            |ratio| [ratio.ratio, ratio.low, ratio.high].map(|part| format!("{part:.3}")),
        );
        let texts = [figure.name.clone()]
            .into_iter()
            .chain(side(&figure.before))
            .chain(side(&figure.after))
            .chain(ratios)
            .chain([verdict.to_owned()]);
        table.add_row(texts.enumerate().map(|(column, text)| aligned(column == 0 || column == 10, text)));
    }
    text.push_str(&format!("{table}\n"));
    for (name, side) in [("before", before), ("after", after)] {
        let failed: u64 = side.rounds.iter().map(Round::failed).sum();
        if failed > 0 {
            text.push_str(&format!("{name}: {failed} requests failed, and are in no latency\n"));
        }
        for warning in side.rounds.iter().flat_map(|round| &round.warnings).take(2) {
            text.push_str(&format!("{name}: WARNING: {warning}\n"));
        }
    }
    (text, slower)
}

fn verdict(figure: &Figure, ratio: Option<Ratio>) -> &'static str {
    match ratio {
        None => "too few values to tell",
        Some(ratio) if ratio.is_noise() => "within the noise",
        Some(ratio) if (ratio.ratio > 1.0) == figure.rises => "better",
        Some(_) => "WORSE",
    }
}

/// What the two did not have in common: a comparison of different things should at least say so.
fn differences(before: &Document, after: &Document) -> String {
    let mut text = String::new();
    for (part, before, after) in [
        ("setting", serde_json::to_value(&before.settings), serde_json::to_value(&after.settings)),
        ("server", serde_json::to_value(&before.server), serde_json::to_value(&after.server)),
    ] {
        let (Ok(Value::Object(before)), Ok(Value::Object(after))) = (before, after) else { continue };
        for (name, was) in &before {
            let is = after.get(name).unwrap_or(&Value::Null);
            if was != is && name != "cluster" {
                text.push_str(&format!("differs: {part} {name}: {was} before, {is} after\n"));
            }
        }
    }
    text
}

fn of_rounds(before: &[Round], after: &[Round]) -> Vec<Figure> {
    let mut figures = vec![figure("per second", true, rate, before, after, |round| Some(round.per_second()))];
    for (name, _) in before.first().map(|round| &round.ops).into_iter().flatten() {
        for (percentile, of) in PERCENTILES {
            let of = |round: &Round| {
                let op: &OpResult = round.ops.get(name)?;
                op.response.as_ref().map(of)
            };
            figures.push(figure(&format!("{name} {percentile} ms"), false, millis, before, after, of));
        }
    }
    let micros = |value: f64| format!("{value:.1}");
    figures.push(figure("server CPU µs", false, micros, before, after, |round| round.server_cpu_us));
    figures.push(figure("benchclient CPU µs", false, micros, before, after, |round| Some(round.generator.cpu_us)));
    figures
}

fn of_seconds(before: &[Round], after: &[Round]) -> Vec<Figure> {
    let (b, a) = (seconds(before), seconds(after));
    let ok = |second: &&crate::result::SecondResult| Some(second.ops.values().map(|op| as_f64(op.ok)).sum());
    let mut figures = vec![figure("per second", true, rate, &b, &a, ok)];
    for (name, _) in before.first().map(|round| &round.ops).into_iter().flatten() {
        for (percentile, of) in PERCENTILES {
            let of = |second: &&crate::result::SecondResult| {
                let op: &SecondOpResult = second.ops.get(name)?;
                op.response.as_ref().map(of)
            };
            figures.push(figure(&format!("{name} {percentile} ms"), false, millis, &b, &a, of));
        }
    }
    figures
}

/// Whole seconds of the measured time.
fn seconds(rounds: &[Round]) -> Vec<&crate::result::SecondResult> {
    let all = rounds.iter().flat_map(|round| &round.seconds);
    all.filter(|second| second.part == Part::Measured && !second.partial).collect()
}

type Percentile = fn(&Latency) -> f64;

const PERCENTILES: [(&str, Percentile); 3] = [("p50", |l| l.p50_us), ("p99", |l| l.p99_us), ("p99.9", |l| l.p999_us)];

fn figure<T>(
    name: &str,
    rises: bool,
    show: fn(f64) -> String,
    before: &[T],
    after: &[T],
    of: impl Fn(&T) -> Option<f64>,
) -> Figure {
    let values = |side: &[T]| side.iter().filter_map(&of).collect();
    Figure { name: name.into(), rises, before: values(before), after: values(after), show }
}

#[cfg(test)]
mod tests;
