//! From the text of `sharding.toml` to values with their lines. Here: syntax, keys, and the type of each value. What the
//! values mean together is `validate`'s.
//!
//! A fault never ends the work: what is missing or of a wrong type becomes none, and the rest is still looked at, so that
//! a reader gets all faults in one go. Only a syntax error does end it, for behind one nothing can be said for certain.

use std::net::SocketAddr;

use toml::Spanned;
use toml::de::{DeInteger, DeString, DeTable, DeValue};

use super::address::parse_address;
use super::fault::{At, Fault, nearest, quote};
use super::settings::{RawSettings, SETTINGS, START_ALONE, START_ALONE_TABLE};
use crate::placement::HashFunction;

/// What the file says, before anybody has asked whether it makes sense.
#[derive(Default)]
pub(super) struct Raw {
    /// `hash`, or its default.
    pub(super) hash: HashFunction,
    /// `[[shards]]`, in the file's order.
    pub(super) shards: Vec<RawShard>,
    /// `shards` stands in the file, but is of another type: a fault already, and none of missing shards.
    pub(super) shards_are_no_tables: bool,
    /// `[[nodes]]`, in the file's order.
    pub(super) nodes: Vec<RawNode>,
    /// `[limits]`, `[storage]`, `[replication]`.
    pub(super) settings: RawSettings,
}

/// One `[[shards]]`.
#[derive(Default)]
pub(super) struct RawShard {
    /// `name`.
    pub(super) name: Option<At<String>>,
    /// `idx`.
    pub(super) idx: Option<At<u32>>,
    /// `address`.
    pub(super) address: Option<At<SocketAddr>>,
    /// `replicas`; none in the place of one that is no address, for the others' names count on.
    pub(super) replicas: Vec<Option<At<SocketAddr>>>,
}

/// One `[[nodes]]`.
#[derive(Default)]
pub(super) struct RawNode {
    /// `address`.
    pub(super) address: Option<At<SocketAddr>>,
    /// `name`.
    pub(super) name: Option<At<String>>,
}

const TOP_KEYS: [&str; 7] = ["shards", "nodes", "hash", "profile", "limits", "storage", "replication"];
const SHARD_KEYS: [&str; 4] = ["name", "idx", "address", "replicas"];
const NODE_KEYS: [&str; 2] = ["address", "name"];
const SETTING_TABLES: [&str; 3] = ["limits", "storage", "replication"];

/// Reads the text; adds what it stumbles over to `faults`. None when the text is no TOML.
pub(super) fn parse_raw(text: &str, faults: &mut Vec<Fault>) -> Option<Raw> {
    let mut reader = Reader { lines: Lines::new(text), faults };
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        reader.syntax(&errors);
        return None;
    }
    Some(reader.document(document.get_ref()))
}

/// Turns offsets into lines, and collects faults.
struct Reader<'t, 'f> {
    lines: Lines<'t>,
    faults: &'f mut Vec<Fault>,
}

impl Reader<'_, '_> {
    /// One fault for each line that is not TOML; the parser may stumble over a line more than once.
    fn syntax(&mut self, errors: &[toml::de::Error]) {
        let mut last = None;
        for error in errors {
            let line = error.span().map_or(1, |span| self.lines.of(span.start));
            if last.replace(line) == Some(line) {
                continue;
            }
            let what = format!("this is not TOML: {}, in {}", error.message(), quote(self.lines.text(line).trim()));
            let remedy = "write key = value, with text in double quotes and lists in [ ]; further faults show once this one is gone";
            self.faults.push(Fault::at(line, what, remedy));
        }
    }

    fn document(&mut self, document: &DeTable<'_>) -> Raw {
        let mut raw = Raw::default();
        for (key, value) in document {
            match key.get_ref().as_ref() {
                "shards" => {
                    raw.shards = self.tables(value, "shards").into_iter().map(|at| self.shard(&at)).collect();
                    raw.shards_are_no_tables = !value.get_ref().as_array().is_some_and(|list| list.is_empty());
                }
                "nodes" => raw.nodes = self.tables(value, "nodes").into_iter().map(|at| self.node(&at)).collect(),
                "hash" => raw.hash = self.hash(value).unwrap_or_default(),
                "profile" => self.profile(value),
                table if SETTING_TABLES.contains(&table) => self.settings(table, value, &mut raw.settings),
                _ => self.unknown_key(key, "at the top of the file", &TOP_KEYS),
            }
        }
        raw
    }

    fn shard(&mut self, table: &At<&DeTable<'_>>) -> RawShard {
        let mut shard = RawShard::default();
        for (key, value) in table.value {
            match key.get_ref().as_ref() {
                "name" => shard.name = self.string(value, "name"),
                "idx" => shard.idx = self.index(value),
                "address" => shard.address = self.address(value, "address"),
                "replicas" => shard.replicas = self.replicas(value),
                _ => self.unknown_key(key, "in [[shards]]", &SHARD_KEYS),
            }
        }
        self.missing(table, "[[shards]]", "name", "name = \"Hyderabad\"");
        self.missing(table, "[[shards]]", "idx", "idx = 0, counted from 0 without a gap");
        self.missing(table, "[[shards]]", "address", "address = \"127.0.0.2:8080\", where its leader listens");
        shard
    }

    fn node(&mut self, table: &At<&DeTable<'_>>) -> RawNode {
        let mut node = RawNode::default();
        for (key, value) in table.value {
            match key.get_ref().as_ref() {
                "address" => node.address = self.address(value, "address"),
                "name" => node.name = self.string(value, "name"),
                _ => self.unknown_key(key, "in [[nodes]]", &NODE_KEYS),
            }
        }
        self.missing(table, "[[nodes]]", "address", "address = \"127.0.0.22:8080\", one that a shard names");
        self.missing(table, "[[nodes]]", "name", "name = \"Hyderabad/1\", the name that the node keeps for ever");
        node
    }

    fn hash(&mut self, value: &Spanned<DeValue<'_>>) -> Option<HashFunction> {
        let word = self.string(value, "hash")?;
        let found = HashFunction::ALL.into_iter().find(|function| function.name() == word.value);
        if found.is_none() {
            let what = format!("hash {} is not known", quote(&word.value));
            self.faults.push(Fault::at(word.line, what, "write \"fnv1a\" (the default) or \"fnv1\""));
        }
        found
    }

    fn profile(&mut self, value: &Spanned<DeValue<'_>>) {
        let Some(word) = self.string(value, "profile") else { return };
        let what = match word.value.as_str() {
            "static" => return,
            later @ ("slots" | "range" | "dynamo" | "ring") => format!("profile \"{later}\" is not built yet"),
            other => format!("profile {} is not known", quote(other)),
        };
        self.faults.push(Fault::at(word.line, what, "write \"static\", or leave the line out"));
    }

    fn settings(&mut self, table_name: &str, value: &Spanned<DeValue<'_>>, raw: &mut RawSettings) {
        let DeValue::Table(table) = value.get_ref() else {
            let written = DeValue::type_str(value.get_ref());
            self.wrong_type(
                value,
                table_name,
                written,
                "a table",
                &format!("write [{table_name}] in a line of its own"),
            );
            return;
        };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let setting = SETTINGS.iter().find(|setting| setting.table == table_name && setting.key == name);
            if let Some(setting) = setting {
                let place = format!("{table_name}.{name}");
                raw.numbers.extend(self.integer(value, &place, "write it without quotes").map(|at| (setting, at)));
            } else if name == START_ALONE && table_name == START_ALONE_TABLE {
                raw.start_alone = self.string(value, "replication.start_alone");
            } else {
                self.unknown_key(key, &format!("in [{table_name}]"), &setting_keys(table_name));
            }
        }
    }

    /// The tables of an array of tables.
    fn tables<'d>(&mut self, value: &'d Spanned<DeValue<'d>>, name: &str) -> Vec<At<&'d DeTable<'d>>> {
        let remedy = format!("begin each of them with a line [[{name}]]");
        let Some(elements) = value.get_ref().as_array() else {
            let written = DeValue::type_str(value.get_ref());
            self.wrong_type(value, name, written, "a list of tables", &remedy);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for element in elements.iter() {
            match element.get_ref() {
                DeValue::Table(table) => tables.push(At { line: self.lines.of(element.span().start), value: table }),
                other => self.wrong_type(element, &format!("a part of {name}"), other.type_str(), "a table", &remedy),
            }
        }
        tables
    }

    fn replicas(&mut self, value: &Spanned<DeValue<'_>>) -> Vec<Option<At<SocketAddr>>> {
        let remedy = "write a list: replicas = [\"127.0.0.22:8080\"]";
        match value.get_ref() {
            DeValue::Array(elements) => elements.iter().map(|element| self.address(element, "a replica")).collect(),
            other => {
                self.wrong_type(value, "replicas", other.type_str(), "a list of addresses", remedy);
                Vec::new()
            }
        }
    }

    fn address(&mut self, value: &Spanned<DeValue<'_>>, place: &str) -> Option<At<SocketAddr>> {
        let text = self.string(value, place)?;
        match parse_address(&text.value) {
            Ok(address) => Some(At { line: text.line, value: address }),
            Err(fault) => {
                self.faults.push(Fault::at(text.line, fault.what, fault.remedy));
                None
            }
        }
    }

    fn index(&mut self, value: &Spanned<DeValue<'_>>) -> Option<At<u32>> {
        let remedy = "count the shards from 0, without quotes";
        let written = self.integer(value, "idx", remedy)?;
        if let Ok(index) = u32::try_from(written.value) {
            return Some(At { line: written.line, value: index });
        }
        self.faults.push(Fault::at(written.line, format!("idx is {}, which no index can be", written.value), remedy));
        None
    }

    fn string(&mut self, value: &Spanned<DeValue<'_>>, place: &str) -> Option<At<String>> {
        match value.get_ref() {
            DeValue::String(text) => Some(At { line: self.line_of(value), value: text.to_string() }),
            other => {
                self.wrong_type(value, place, other.type_str(), "text", "write it in double quotes");
                None
            }
        }
    }

    /// An integer, of whatever size: ranges are checked by those who know them.
    fn integer(&mut self, value: &Spanned<DeValue<'_>>, place: &str, remedy: &str) -> Option<At<i128>> {
        match value.get_ref() {
            DeValue::Integer(integer) => Some(At { line: self.line_of(value), value: saturating_integer(integer) }),
            other => {
                self.wrong_type(value, place, other.type_str(), "a whole number", remedy);
                None
            }
        }
    }

    fn wrong_type(&mut self, value: &Spanned<DeValue<'_>>, place: &str, is: &str, must: &str, remedy: &str) {
        let line = self.line_of(value);
        self.faults.push(Fault::at(line, format!("{place} must be {must}, not of type {is}"), remedy));
    }

    fn missing(&mut self, table: &At<&DeTable<'_>>, place: &str, key: &str, example: &str) {
        if table.value.keys().any(|present| present.get_ref() == key) {
            return;
        }
        self.faults.push(Fault::at(table.line, format!("{place} without {key}"), format!("add {example}")));
    }

    fn unknown_key(&mut self, key: &Spanned<DeString<'_>>, place: &str, known: &[&str]) {
        let name = key.get_ref().as_ref();
        let elsewhere = SETTING_TABLES.into_iter().find(|table| setting_keys(table).contains(&name));
        let remedy = match (elsewhere, nearest(name, known.iter().copied())) {
            (Some(table), _) => format!("move it under [{table}]"),
            (None, Some(found)) => format!("did you mean {found}?"),
            (None, None) => format!("remove it; known here: {}", known.join(", ")),
        };
        self.faults.push(Fault::at(
            self.lines.of(key.span().start),
            format!("unknown key {} {place}", quote(name)),
            remedy,
        ));
    }

    fn line_of(&self, value: &Spanned<DeValue<'_>>) -> usize {
        self.lines.of(value.span().start)
    }
}

/// Every key that may stand in a table of settings.
fn setting_keys(table: &str) -> Vec<&'static str> {
    let word = (table == START_ALONE_TABLE).then_some(START_ALONE);
    SETTINGS.iter().filter(|setting| setting.table == table).map(|setting| setting.key).chain(word).collect()
}

/// The integer, or the greatest one when it has more digits than that: no range reaches so far.
fn saturating_integer(integer: &DeInteger<'_>) -> i128 {
    i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX)
}

/// Where the lines of a text begin.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Lines<'t> {
        let after_newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Lines { text, starts: std::iter::once(0).chain(after_newlines).collect() }
    }

    /// The line, from 1, that holds this offset.
    fn of(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    /// The text of a line.
    fn text(&self, line: usize) -> &'t str {
        self.text.lines().nth(line - 1).unwrap_or_default()
    }
}
