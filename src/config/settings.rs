//! The settings of the file that are numbers: where each stands, what it may be, and which field of [`Settings`] it sets.
//! One table, so that a setting has its key, its range and its field in one line, and none can lack one of them.

use std::time::Duration;

use super::fault::{At, Fault, quote};
use super::topology::{Settings, StartAlone};
use crate::clock::millis;
use crate::types::key::KEY_BYTES_CEILING;

/// One numeric setting.
pub(super) struct Setting {
    /// The table of the file that it stands in.
    pub(super) table: &'static str,
    /// Its key there; ends in its unit.
    pub(super) key: &'static str,
    /// Least value that makes sense.
    min: u64,
    /// Greatest value that makes sense.
    max: u64,
    /// Sets the field, to a value within the range.
    set: fn(&mut Settings, u64),
    /// Reads the field.
    pub(super) get: fn(&Settings) -> u64,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// Largest value that can be set: a peer frame (80 MiB) holds it with room to spare (rule 16).
pub const VALUE_BYTES_CEILING: u64 = 64 * MIB;

/// Declares a line of the table for a field that is itself a number.
macro_rules! number {
    ($table:literal, $key:literal, $range:expr, $field:ident) => {
        Setting {
            table: $table,
            key: $key,
            min: *$range.start(),
            max: *$range.end(),
            set: |settings, value| settings.$field = saturated(value),
            get: |settings| saturated(settings.$field),
        }
    };
}

/// Declares a line of the table for a duration in milliseconds.
macro_rules! duration {
    ($table:literal, $key:literal, $range:expr, $field:ident) => {
        Setting {
            table: $table,
            key: $key,
            min: *$range.start(),
            max: *$range.end(),
            set: |settings, value| settings.$field = Duration::from_millis(value),
            get: |settings| millis(settings.$field),
        }
    };
}

/// Every numeric setting.
pub(super) static SETTINGS: [Setting; 16] = [
    number!("limits", "key_bytes_max", 1..=KEY_BYTES_CEILING as u64, key_bytes_max),
    number!("limits", "value_bytes_max", 1..=VALUE_BYTES_CEILING, value_bytes_max),
    number!("limits", "header_bytes_max", 8 * KIB..=MIB, header_bytes_max), // hyper reads no less than 8 KiB at once
    duration!("limits", "request_timeout_ms", 100..=600_000, request_timeout),
    number!("limits", "connections_max", 16..=1_000_000, connections_max),
    number!("limits", "body_bytes_in_flight_max", MIB..=TIB, body_bytes_in_flight_max),
    number!("storage", "cache_bytes", MIB..=TIB, cache_bytes),
    number!("storage", "min_free_bytes", MIB..=TIB, min_free_bytes),
    number!("storage", "ledger_bytes_max", 64 * KIB..=TIB, ledger_bytes_max),
    number!("replication", "log_retain_bytes", 0..=TIB, log_retain_bytes),
    number!("replication", "queue_bytes_max", 64 * KIB..=64 * TIB, queue_bytes_max),
    number!("replication", "queue_entries_max", 100..=1_000_000_000_000, queue_entries_max),
    duration!("replication", "poll_interval_ms", 1..=1_000, poll_interval), // a peer that is silent for 2 s counts as gone
    number!("replication", "min_replicas", 0..=64, min_replicas),
    number!("replication", "max_at_risk_entries", 0..=1_000_000_000_000, max_at_risk_entries),
    duration!("replication", "max_at_risk_ms", 0..=86_400_000, max_at_risk),
];

/// The key of the one setting that is a word, in `[replication]`.
pub(super) const START_ALONE: &str = "start_alone";

/// The table that [`START_ALONE`] stands in.
pub(super) const START_ALONE_TABLE: &str = "replication";

/// Between the integer types of fields and file; every range fits both on the machines that we build for.
fn saturated<A: TryInto<B>, B: Bounded>(value: A) -> B {
    value.try_into().unwrap_or(B::MAX)
}

trait Bounded {
    const MAX: Self;
}

impl Bounded for u64 {
    const MAX: u64 = u64::MAX;
}

impl Bounded for usize {
    const MAX: usize = usize::MAX;
}

/// The settings of a file, as they were written.
#[derive(Default)]
pub(super) struct RawSettings {
    /// Numbers, each with its line of the table.
    pub(super) numbers: Vec<(&'static Setting, At<i128>)>,
    /// `start_alone`.
    pub(super) start_alone: Option<At<String>>,
}

/// The settings, with the default for whatever the file does not say; adds what is out of range to `faults`.
pub(super) fn validate_settings(raw: &RawSettings, faults: &mut Vec<Fault>) -> Settings {
    let mut settings = Settings::default();
    for (setting, written) in &raw.numbers {
        let in_range = u64::try_from(written.value).ok().filter(|value| (setting.min..=setting.max).contains(value));
        match in_range {
            Some(value) => (setting.set)(&mut settings, value),
            None => faults.push(Fault::at(
                written.line,
                format!("{}.{} is {}, out of its range", setting.table, setting.key, written.value),
                format!("choose from {} to {}", with_size(setting, setting.min), with_size(setting, setting.max)),
            )),
        }
    }
    if let Some(word) = &raw.start_alone {
        match word.value.as_str() {
            "lead" => settings.start_alone = StartAlone::Lead,
            "wait" => settings.start_alone = StartAlone::Wait,
            other => faults.push(Fault::at(
                word.line,
                format!("replication.start_alone is {}", quote(other)),
                "write \"lead\" (lead, and warn that writes are at risk) or \"wait\" (refuse writes until a majority answers)",
            )),
        }
    }
    check_together(raw, &settings, faults);
    settings
}

/// The bounds that must hold a largest value.
fn check_together(raw: &RawSettings, settings: &Settings, faults: &mut Vec<Fault>) {
    let value_bytes_max = saturated::<usize, u64>(settings.value_bytes_max);
    for key in ["body_bytes_in_flight_max", "queue_bytes_max"] {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else { continue };
        let bound = (setting.get)(settings);
        if bound >= value_bytes_max {
            continue;
        }
        let written =
            raw.numbers.iter().find(|(candidate, _)| candidate.key == key || candidate.key == "value_bytes_max");
        faults.push(Fault {
            line: written.map(|(_, at)| at.line),
            what: format!(
                "{}.{key} is {bound}, less than one value may have (limits.value_bytes_max = {value_bytes_max})",
                setting.table
            ),
            remedy: format!("raise {key} to {value_bytes_max} at least, or lower limits.value_bytes_max"),
        });
    }
}

/// A bound as a person reads it: with KiB, MiB, … beside it where it counts bytes.
fn with_size(setting: &Setting, value: u64) -> String {
    let units = [(TIB, "TiB"), (1 << 30, "GiB"), (MIB, "MiB"), (KIB, "KiB")];
    match units.iter().find(|(size, _)| setting.key.contains("bytes") && value >= *size && value.is_multiple_of(*size))
    {
        Some((size, unit)) => format!("{value} ({} {unit})", value / size),
        None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_defaults_are_within_their_ranges() {
        for setting in &SETTINGS {
            let default = (setting.get)(&Settings::default());
            assert!((setting.min..=setting.max).contains(&default), "{} is {default} by default", setting.key);
        }
    }

    #[test]
    fn settings_each_sets_the_field_that_it_reads() {
        for setting in &SETTINGS {
            let mut settings = Settings::default();
            (setting.set)(&mut settings, setting.max);
            assert_eq!((setting.get)(&settings), setting.max, "{}", setting.key);
            let others = SETTINGS.iter().filter(|other| other.key != setting.key);
            for other in others {
                assert_eq!(
                    (other.get)(&settings),
                    (other.get)(&Settings::default()),
                    "{} set by {}",
                    other.key,
                    setting.key
                );
            }
        }
    }
}
