//! The file as a whole: one test for each way of getting it wrong, with its line and its remedy, and the shipped file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::settings::SETTINGS;
use super::*;
use crate::placement::HashFunction;
use crate::types::{NodeName, ShardIndex};

const SHIPPED: &str = include_str!("../../sharding.toml");

/// Two shards with a replica each; the base that tests spoil. Line 1 is empty.
const GOOD: &str = r#"
[[shards]]
name = "Hyderabad"
idx = 0
address = "127.0.0.2:8080"
replicas = ["127.0.0.22:8080"]

[[shards]]
name = "Bangalore"
idx = 1
address = "127.0.0.3:8080"
replicas = ["127.0.0.33:8080"]
"#;

fn faults(text: &str) -> Vec<Fault> {
    parse(text, "sharding.toml").expect_err("a faulty file was taken").faults
}

/// The good file with `from` replaced, which must be there, once for each `to`.
fn spoilt(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from:?} is not in the base");
    GOOD.replacen(from, to, 1)
}

/// Expects exactly one fault, in this line, whose text holds these words.
#[track_caller]
fn expect_one(text: &str, line: usize, what: &str, remedy: &str) {
    let found = faults(text);
    let [fault] = found.as_slice() else { panic!("{} faults, not one: {found:#?}", found.len()) };
    assert_eq!(fault.line, Some(line), "{fault}");
    assert!(fault.what.contains(what), "what: {:?} lacks {what:?}", fault.what);
    assert!(fault.remedy.contains(remedy), "remedy: {:?} lacks {remedy:?}", fault.remedy);
}

#[test]
fn file_without_faults_becomes_a_topology() {
    let config = parse(GOOD, "sharding.toml").unwrap();
    assert_eq!(config.settings, Settings::default());
    assert_eq!((config.topology.placement.hash, config.topology.placement.shards), (HashFunction::Fnv1a, 2));
    let nodes: Vec<String> =
        config.topology.nodes().map(|node| format!("{} {} {}", node.name, node.address, node.shard)).collect();
    assert_eq!(
        nodes,
        [
            "Hyderabad/0 127.0.0.2:8080 0",
            "Hyderabad/1 127.0.0.22:8080 0",
            "Bangalore/0 127.0.0.3:8080 1",
            "Bangalore/1 127.0.0.33:8080 1"
        ]
    );
}

#[test]
fn shards_in_any_order_are_put_by_index() {
    let text = GOOD.replace("idx = 0", "idx = 7").replace("idx = 1", "idx = 0").replace("idx = 7", "idx = 1");
    let topology = parse(&text, "x").unwrap().topology;
    let names: Vec<(u32, &str)> = topology.shards.iter().map(|shard| (shard.index.0, shard.name.as_str())).collect();
    assert_eq!(names, [(0, "Bangalore"), (1, "Hyderabad")]);
    assert_eq!(topology.shard(ShardIndex(1)).unwrap().name, "Hyderabad");
}

#[test]
fn nodes_given_names_replace_those_by_position() {
    let text = format!("{GOOD}[[nodes]]\naddress = \"127.0.0.22:8080\"\nname = \"rack-7/b\"\n");
    let topology = parse(&text, "x").unwrap().topology;
    assert_eq!(topology.node_at("127.0.0.22:8080".parse().unwrap()).unwrap().name, NodeName::new("rack-7/b"));
    assert!(topology.node(&NodeName::new("Hyderabad/1")).is_none());
}

#[test]
fn hash_and_profile_words_are_read() {
    let config = parse(&format!("hash = \"fnv1\"\nprofile = \"static\"{GOOD}"), "x").unwrap();
    assert_eq!(config.topology.placement.hash, HashFunction::Fnv1);
    expect_one(&format!("hash = \"md5\"{GOOD}"), 1, "\"md5\"", "fnv1a");
    expect_one(&format!("profile = \"dynamo\"{GOOD}"), 1, "not built yet", "static");
    expect_one(&format!("profile = \"magic\"{GOOD}"), 1, "not known", "static");
}

#[test]
fn settings_are_read_from_their_tables() {
    let text = format!(
        "{GOOD}[limits]\nrequest_timeout_ms = 1_500\n[storage]\ncache_bytes = 0x200000\n[replication]\nstart_alone = \"wait\"\n"
    );
    let settings = parse(&text, "x").unwrap().settings;
    assert_eq!(settings.request_timeout, Duration::from_millis(1500));
    assert_eq!(settings.cache_bytes, 2 << 20);
    assert_eq!(settings.start_alone, StartAlone::Wait);
    assert_eq!(settings.key_bytes_max, 1024);
}

#[test]
fn settings_out_of_range_name_the_range() {
    expect_one(&format!("{GOOD}[limits]\nvalue_bytes_max = 67_108_865\n"), 14, "67108865", "67108864 (64 MiB)");
    expect_one(&format!("{GOOD}[limits]\nkey_bytes_max = 0\n"), 14, "is 0", "from 1 to 16384 (16 KiB)");
    expect_one(&format!("{GOOD}[replication]\npoll_interval_ms = -5\n"), 14, "is -5", "from 1 to 1000");
    expect_one(&format!("{GOOD}[storage]\ncache_bytes = 99999999999999999999\n"), 14, "out of its range", "TiB");
    expect_one(&format!("{GOOD}[replication]\nstart_alone = \"maybe\"\n"), 14, "\"maybe\"", "\"wait\"");
}

#[test]
fn settings_bound_below_one_value_is_refused() {
    expect_one(&format!("{GOOD}[limits]\nbody_bytes_in_flight_max = 1048576\n"), 14, "less than one value", "16777216");
    expect_one(&format!("{GOOD}[replication]\nqueue_bytes_max = 1048576\n"), 14, "less than one value", "16777216");
    let both = format!("{GOOD}[limits]\nvalue_bytes_max = 1024\n[replication]\nqueue_bytes_max = 1048576\n");
    assert_eq!(parse(&both, "x").unwrap().settings.queue_bytes_max, 1 << 20);
}

#[test]
fn settings_that_ask_for_more_replicas_than_a_shard_has_are_refused() {
    let with = |setting: &str| format!("{GOOD}[replication]\n{setting}\n");
    assert_eq!(parse(&with("min_replicas = 1"), "x").unwrap().settings.min_replicas, 1);
    expect_one(&with("min_replicas = 2"), 14, "fewer: \"Hyderabad\", \"Bangalore\"", "remove min_replicas");
    let alone = spoilt("replicas = [\"127.0.0.33:8080\"]", "replicas = []");
    for key in ["min_replicas", "max_at_risk_entries", "max_at_risk_ms"] {
        expect_one(&format!("{alone}[replication]\n{key} = 1\n"), 14, "fewer: \"Bangalore\"", "its replicas");
        parse(&format!("{alone}[replication]\n{key} = 0\n"), "x").unwrap();
    }
}

#[test]
fn names_used_twice_are_refused() {
    expect_one(&spoilt("Bangalore", "Hyderabad"), 9, "in line 3", "name of its own");
    expect_one(&spoilt("Bangalore", "HYDERABAD"), 9, "differs only in case", "name of its own");
    let clash = format!("{GOOD}[[nodes]]\naddress = \"127.0.0.33:8080\"\nname = \"Hyderabad/1\"\n");
    expect_one(&clash, 15, "two nodes are called \"Hyderabad/1\"", "[[nodes]]");
    let one_file = format!("{GOOD}[[nodes]]\naddress = \"127.0.0.33:8080\"\nname = \"hyderabad-1\"\n");
    expect_one(&one_file, 15, "data/hyderabad-1.redb", "[[nodes]]");
}

#[test]
fn names_with_strange_characters_are_refused() {
    expect_one(&spoilt("Bangalore", "Banga lore"), 9, "holds ' '", "letters");
    expect_one(&spoilt("Bangalore", "Banga/lore"), 9, "holds '/'", "letters");
    expect_one(&spoilt("Bangalore", "Bengalūru"), 9, "holds 'ū'", "letters");
    expect_one(&spoilt("Bangalore", ""), 9, "is empty", "letters");
    expect_one(&spoilt("Bangalore", &"b".repeat(65)), 9, "65 characters", "64");
    let node = format!("{GOOD}[[nodes]]\naddress = \"127.0.0.33:8080\"\nname = \"a b\"\n");
    expect_one(&node, 15, "node name \"a b\"", "digits");
}

#[test]
fn nodes_that_are_nowhere_or_twice_are_refused() {
    let stranger = format!("{GOOD}[[nodes]]\naddress = \"127.0.0.99:8080\"\nname = \"x\"\n");
    expect_one(&stranger, 14, "no shard's address", "[[shards]]");
    let node = "[[nodes]]\naddress = \"127.0.0.33:8080\"\n";
    expect_one(&format!("{GOOD}{node}name = \"x\"\n{node}name = \"y\"\n"), 17, "named twice", "keep one");
    expect_one(&format!("{GOOD}{node}"), 13, "without name", "name = ");
}

#[test]
fn indices_used_twice_are_refused() {
    expect_one(&spoilt("idx = 1", "idx = 0"), 10, "shard \"Hyderabad\" (line 4)", "free one: 1");
}

#[test]
fn indices_with_a_gap_are_refused() {
    expect_one(&spoilt("idx = 1", "idx = 2"), 10, "leaves a gap", "missing: 1");
    expect_one(&spoilt("idx = 0", "idx = 4294967295"), 4, "leaves a gap", "missing: 0");
    expect_one(&spoilt("idx = 0", "idx = 4294967296"), 4, "no index", "from 0");
    expect_one(&spoilt("idx = 0", "idx = -1"), 4, "no index", "from 0");
}

#[test]
fn addresses_used_twice_are_refused() {
    expect_one(&spoilt("127.0.0.3:8080", "127.0.0.2:8080"), 11, "the leader of shard \"Hyderabad\" (line 5)", "own");
    expect_one(&spoilt("127.0.0.33:8080", "127.0.0.2:8080"), 12, "the leader of shard \"Hyderabad\"", "own");
    expect_one(&spoilt("127.0.0.33:8080", "127.0.0.3:8080"), 12, "the leader of shard \"Bangalore\"", "own");
    let twice = spoilt("\"127.0.0.33:8080\"", "\"127.0.0.33:8080\",\n\"127.0.0.33:8080\"");
    expect_one(&twice, 13, "a replica of shard \"Bangalore\" (line 12)", "own");
    expect_one(&spoilt("127.0.0.33:8080", "127.0.0.22:8080"), 12, "a replica of shard \"Hyderabad\"", "own");
}

#[test]
fn addresses_that_are_none_are_refused() {
    expect_one(&spoilt("127.0.0.3:8080", "localhost:8080"), 11, "host name", "IP address");
    expect_one(&spoilt("127.0.0.33:8080", "127.0.0.33"), 12, "has no port", ":8080");
}

#[test]
fn keys_unknown_name_the_nearest() {
    expect_one(
        &spoilt("replicas = [\"127.0.0.33:8080\"]", "replica = []"),
        12,
        "\"replica\" in [[shards]]",
        "replicas?",
    );
    expect_one(&spoilt("replicas = [\"127.0.0.33:8080\"]", "colour = 1"), 12, "\"colour\"", "known here: name, idx");
    expect_one(&format!("hsah = \"fnv1\"{GOOD}"), 1, "at the top", "hash?");
    expect_one(&format!("{GOOD}[limits]\nvalue_byte_max = 1\n"), 14, "in [limits]", "value_bytes_max?");
    expect_one(&format!("{GOOD}[limits]\ncache_bytes = 1\n"), 14, "in [limits]", "[storage]");
    expect_one(&format!("start_alone = \"wait\"{GOOD}"), 1, "at the top", "[replication]");
    expect_one(&format!("{GOOD}[limit]\n"), 13, "\"limit\"", "limits?");
    expect_one(
        &format!("{GOOD}[[nodes]]\nadress=\"\"\naddress=\"127.0.0.33:8080\"\nname=\"x\""),
        14,
        "[[nodes]]",
        "address?",
    );
}

#[test]
fn keys_missing_are_named_at_their_table() {
    expect_one(&spoilt("idx = 1\n", ""), 8, "[[shards]] without idx", "idx = 0");
    expect_one(&spoilt("name = \"Bangalore\"\n", ""), 8, "without name", "name = ");
    expect_one(&spoilt("address = \"127.0.0.3:8080\"\n", ""), 8, "without address", "address = ");
    assert!(parse(&spoilt("replicas = [\"127.0.0.33:8080\"]\n", ""), "x").is_ok());
}

#[test]
fn values_of_wrong_types_are_refused() {
    expect_one(&spoilt("\"Bangalore\"", "7"), 9, "name must be text, not of type integer", "quotes");
    expect_one(&spoilt("idx = 1", "idx = \"1\""), 10, "whole number, not of type string", "without quotes");
    expect_one(&spoilt("idx = 1", "idx = 1.0"), 10, "not of type float", "without quotes");
    expect_one(&spoilt("[\"127.0.0.33:8080\"]", "\"127.0.0.33:8080\""), 12, "a list of addresses", "replicas = [");
    expect_one(&spoilt("\"127.0.0.33:8080\"", "8080"), 12, "a replica must be text", "quotes");
    expect_one("shards = 3\n", 1, "a list of tables", "[[shards]]");
    expect_one(&format!("limits = 3{GOOD}"), 1, "limits must be a table", "[limits]");
    expect_one(&format!("hash = 1{GOOD}"), 1, "hash must be text", "quotes");
    expect_one(&format!("{GOOD}[limits]\nconnections_max = \"many\"\n"), 14, "limits.connections_max", "quotes");
}

#[test]
fn file_without_shards_says_so() {
    for text in ["", "# nothing\n", "hash = \"fnv1\"\n", "shards = []\n"] {
        let found = faults(text);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].what.contains("no shards") && found[0].remedy.contains("[[shards]]"), "{}", found[0]);
    }
}

#[test]
fn syntax_errors_have_their_lines() {
    expect_one(&spoilt("\"Bangalore\"", "Bangalore"), 9, "not TOML", "quotes");
    expect_one(&spoilt("idx = 1", "idx = 1\nidx = 1"), 11, "duplicate key", "");
    expect_one(&spoilt("idx = 1", "idx"), 10, "not TOML", "key = value");
    expect_one(&spoilt("[\"127.0.0.33:8080\"]", "[\"127.0.0.33:8080\""), 12, "not TOML", "lists in [ ]");
}

#[test]
fn faults_of_all_kinds_come_at_once() {
    let text = r#"
colour = "blue"
[[shards]]
name = "A"
idx = 0
address = "host:1"
replicas = ["127.0.0.1:1", "127.0.0.1:1"]
[[shards]]
name = "A"
idx = 0
[limits]
key_bytes_max = 0
"#;
    let lines: Vec<Option<usize>> = faults(text).iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [2, 6, 7, 8, 9, 10, 12].map(Some));
}

#[test]
fn load_what_is_no_file_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let of = |path: &Path| load(path).unwrap_err().to_string();
    assert!(of(&directory.path().join("none.toml")).contains("no such file"));
    assert!(of(directory.path()).contains("a directory"));
    let path = directory.path().join("bad.toml");
    std::fs::write(&path, b"a = 1\nb = \xff\n").unwrap();
    assert!(of(&path).contains("bad.toml:2: the file is not UTF-8"), "{}", of(&path));
    std::fs::write(&path, vec![b'#'; (4 << 20) + 1]).unwrap();
    assert!(of(&path).contains("more than"));
    std::fs::write(&path, SHIPPED).unwrap();
    assert_eq!(load(&path).unwrap(), parse(SHIPPED, "x").unwrap());
}

#[test]
fn shipped_file_describes_the_eight_nodes() {
    let config = parse(SHIPPED, "sharding.toml").unwrap();
    assert_eq!(config.settings, Settings::default());
    let shards: Vec<(&str, Vec<String>)> = config
        .topology
        .shards
        .iter()
        .map(|shard| (shard.name.as_str(), shard.copies.iter().map(|copy| copy.address.to_string()).collect()))
        .collect();
    let pair = |leader: &str, replica: &str| vec![format!("127.0.0.{leader}:8080"), format!("127.0.0.{replica}:8080")];
    assert_eq!(
        shards,
        [
            ("Hyderabad", pair("2", "22")),
            ("Bangalore", pair("3", "33")),
            ("Mumbai", pair("4", "44")),
            ("Delhi", pair("5", "55"))
        ]
    );
}

/// The shipped file shows every setting, and the values that it shows are the defaults.
#[test]
fn shipped_file_uncommented_is_the_default() {
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    let text: String = SHIPPED.lines().map(|line| uncomment(line) + "\n").collect();
    assert_eq!(parse(&text, "x").unwrap(), parse(SHIPPED, "x").unwrap());

    let document = text.parse::<toml::Table>().unwrap();
    for setting in &SETTINGS {
        let shown =
            document.get(setting.table).and_then(|table| table.get(setting.key)).and_then(toml::Value::as_integer);
        let default = (setting.get)(&Settings::default());
        assert_eq!(shown, Some(i64::try_from(default).unwrap()), "{}.{}", setting.table, setting.key);
    }
    assert_eq!(document["replication"]["start_alone"].as_str(), Some("lead"));
    assert_eq!(document["hash"].as_str(), Some(HashFunction::default().name()));
    assert_eq!(document["profile"].as_str(), Some("static"));
    assert_eq!(document["nodes"].as_array().map(Vec::len), Some(1));
}

fn choose(text: &str, address: Option<&str>, shard: Option<&str>, replica: bool) -> Result<String, String> {
    let topology = parse(text, "x").unwrap().topology;
    let wanted = Wanted { address, shard, replica };
    choose_node(&topology, wanted).map(|node| node.name.to_string()).map_err(|fault| fault.to_string())
}

#[test]
fn choice_address_or_shard_and_role_find_the_node() {
    let ok = |name: &str| Ok(name.to_owned());
    assert_eq!(choose(GOOD, Some("127.0.0.22:8080"), None, false), ok("Hyderabad/1"));
    assert_eq!(choose(GOOD, Some("127.0.0.3:8080"), None, false), ok("Bangalore/0"));
    assert_eq!(choose(GOOD, None, Some("Bangalore"), false), ok("Bangalore/0"));
    assert_eq!(choose(GOOD, None, Some("Bangalore"), true), ok("Bangalore/1"));
    assert_eq!(choose(GOOD, Some("127.0.0.2:8080"), Some("Hyderabad"), false), ok("Hyderabad/0"));
    assert_eq!(choose(GOOD, Some("127.0.0.22:8080"), Some("Hyderabad"), true), ok("Hyderabad/1"));
    let single = "[[shards]]\nname = \"A\"\nidx = 0\naddress = \"127.0.0.2:1\"\n";
    assert_eq!(choose(single, None, None, false), ok("A/0"));
}

#[test]
fn choice_that_contradicts_the_file_names_both() {
    let refused = |address, shard, replica, words: &[&str]| {
        let fault = choose(GOOD, address, shard, replica).unwrap_err();
        for word in words {
            assert!(fault.contains(word), "{fault:?} lacks {word:?}");
        }
    };
    refused(Some("127.0.0.2:8080"), Some("Bangalore"), false, &["127.0.0.2:8080", "Hyderabad", "--shard Bangalore"]);
    refused(Some("127.0.0.2:8080"), None, true, &["127.0.0.2:8080 is the leader", "--replica", "127.0.0.22:8080"]);
    refused(Some("127.0.0.9:8080"), None, false, &["nowhere in the file", "127.0.0.2:8080", "127.0.0.33:8080"]);
    refused(Some("localhost:8080"), None, false, &["--http-addr", "host name"]);
    refused(None, Some("Hiderabad"), false, &["did you mean --shard Hyderabad"]);
    refused(None, Some("Paris"), false, &["Hyderabad, Bangalore"]);
    refused(None, None, false, &["does not say which", "127.0.0.22:8080"]);
}

#[test]
fn choice_of_several_replicas_asks_for_the_address() {
    let three = spoilt("[\"127.0.0.33:8080\"]", "[\"127.0.0.33:8080\", \"127.0.0.34:8080\"]");
    let fault = choose(&three, None, Some("Bangalore"), true).unwrap_err();
    assert!(fault.contains("2 replicas") && fault.contains("--http-addr: 127.0.0.33:8080"), "{fault}");
    let none = spoilt("replicas = [\"127.0.0.33:8080\"]", "replicas = []");
    assert!(choose(&none, None, Some("Bangalore"), true).unwrap_err().contains("no replicas"));
}

#[test]
fn db_location_follows_from_the_name() {
    let of = |name: &str| default_db_location(&NodeName::new(name));
    assert_eq!(of("Hyderabad/0"), PathBuf::from("data/hyderabad.redb"));
    assert_eq!(of("Hyderabad/1"), PathBuf::from("data/hyderabad-1.redb"));
    assert_eq!(of("rack-7/b"), PathBuf::from("data/rack-7-b.redb"));
    assert_eq!(of("../x"), PathBuf::from("data/..-x.redb"));
}

proptest! {
    #[test]
    fn parse_any_text_never_panics(text in ".{0,400}") {
        let _ = parse(&text, "x");
    }

    /// Text that looks like the real thing, with pieces missing, doubled and out of place.
    #[test]
    fn parse_any_shuffled_file_never_panics_and_faults_have_lines_of_the_file(
        pieces in proptest::collection::vec((0_usize..60, any::<bool>()), 0..60)
    ) {
        let lines: Vec<&str> = SHIPPED.lines().filter(|line| !line.starts_with("# ") && !line.is_empty()).collect();
        let text: String = pieces
            .iter()
            .filter_map(|(at, uncomment)| lines.get(at % lines.len()).map(|line| (line, uncomment)))
            .map(|(line, uncomment)| if *uncomment { line.trim_start_matches('#').to_owned() } else { (*line).to_owned() } + "\n")
            .collect();
        if let Err(faults) = parse(&text, "x") {
            let count = text.lines().count();
            for fault in faults.faults {
                prop_assert!(fault.line.is_none_or(|line| (1..=count + 1).contains(&line)), "{} of {} lines", fault, count);
            }
        }
    }

    /// Every valid file gives back what it was made of.
    #[test]
    fn parse_any_valid_layout_keeps_it(order in Just((0_u32..6).collect::<Vec<_>>()).prop_shuffle(), replicas in 0_usize..4) {
        let mut expected = BTreeMap::new();
        let mut text = String::new();
        for idx in &order {
            let copies: Vec<String> = (0..=replicas).map(|copy| format!("10.0.{idx}.{}:8080", copy + 1)).collect();
            text += &format!("[[shards]]\nname = \"s{idx}\"\nidx = {idx}\naddress = {:?}\nreplicas = {:?}\n", copies[0], &copies[1..]);
            expected.insert(*idx, copies);
        }
        let topology = parse(&text, "x").unwrap().topology;
        for (idx, copies) in expected {
            let shard = topology.shard(ShardIndex(idx)).unwrap();
            prop_assert_eq!(&shard.copies.iter().map(|copy| copy.address.to_string()).collect::<Vec<_>>(), &copies);
            prop_assert_eq!(shard.first_leader().name.as_str(), format!("s{idx}/0"));
        }
    }
}
