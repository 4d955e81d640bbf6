//! A small reader of OpenMetrics text that is strict about what a scraper relies on: every family is announced once with
//! its help and type, its samples stand together and carry the suffixes of the type, units are in the names, histograms
//! add up, no series stands twice, and the text ends in `# EOF`.

use std::collections::{BTreeMap, BTreeSet};

/// Labels, sorted by name.
type Labels = BTreeMap<String, String>;

#[derive(Debug, Default)]
pub(super) struct Family {
    pub(super) help: String,
    pub(super) kind: String,
    pub(super) unit: Option<String>,
    pub(super) samples: Vec<(String, Labels, f64)>,
}

/// The families of a text, by name. Panics with what is wrong.
pub(super) fn read(text: &str) -> BTreeMap<String, Family> {
    let body = text.strip_suffix("# EOF\n").expect("the text ends in # EOF");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in body.lines() {
        if let Some(descriptor) = line.strip_prefix("# ") {
            let (keyword, rest) = descriptor.split_once(' ').expect(line);
            let (name, value) = rest.split_once(' ').expect(line);
            if keyword == "HELP" {
                assert!(families.insert(name.into(), Family::default()).is_none(), "family {name} stands twice");
                current = name.into();
            }
            assert_eq!(name, current, "a descriptor of another family: {line}");
            let family = families.get_mut(name).expect(line);
            assert!(family.samples.is_empty(), "{line} comes after samples");
            match keyword {
                "HELP" => family.help = value.into(),
                "TYPE" => family.kind = value.into(),
                "UNIT" => family.unit = Some(value.into()),
                _ => panic!("unknown descriptor: {line}"),
            }
            continue;
        }
        let family = families.get_mut(&current).expect(line);
        let (series, value) = line.rsplit_once(' ').expect(line);
        let (name, labels) = series_of(series);
        let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} stands under {current}"));
        let suffixes: &[&str] = match family.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            kind => panic!("{current} is a {kind:?}"),
        };
        assert!(suffixes.contains(&suffix), "{line}: a {} has no {suffix:?}", family.kind);
        family.samples.push((name.into(), labels, value.parse().expect(line)));
    }
    for (name, family) in &families {
        check(name, family);
    }
    families
}

fn check(name: &str, family: &Family) {
    assert!(family.help.len() > 5 && family.help.ends_with('.'), "{name} has the help {:?}", family.help);
    assert!(name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_'));
    assert!(!name.ends_with("_total"), "{name}: the suffix is the samples'");
    for unit in ["seconds", "bytes"] {
        let says = family.unit.as_deref() == Some(unit);
        assert_eq!(name.ends_with(&format!("_{unit}")), says, "{name} has the unit {:?}", family.unit);
    }
    let series: BTreeSet<_> = family.samples.iter().map(|(name, labels, _)| (name, labels)).collect();
    assert_eq!(series.len(), family.samples.len(), "{name} has a series twice");
    if family.kind == "histogram" {
        check_histogram(name, family);
    }
}

fn check_histogram(name: &str, family: &Family) {
    let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for (sample, labels, value) in &family.samples {
        if sample.ends_with("_bucket") {
            let mut labels = labels.clone();
            let le = labels.remove("le").expect("a bucket has le").replace("+Inf", "inf");
            buckets.entry(labels).or_default().push((le.parse().unwrap(), *value));
        }
    }
    for (labels, buckets) in buckets {
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name} {labels:?}: {buckets:?}");
        let count = family.samples.iter().find(|(sample, of, _)| *sample == format!("{name}_count") && *of == labels);
        let (le, all) = buckets.last().expect("buckets");
        assert!(
            le.is_infinite() && count.is_some_and(|(_, _, count)| count == all),
            "{name} {labels:?} does not add up"
        );
    }
}

/// Splits `name{label="value",…}`.
fn series_of(series: &str) -> (&str, Labels) {
    let Some((name, rest)) = series.split_once('{') else { return (series, Labels::new()) };
    let mut rest = rest.strip_suffix('}').expect(series);
    let mut labels = Labels::new();
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").expect(series);
        let end = end_of_value(after).unwrap_or_else(|| panic!("an open value in {series}"));
        let twice = labels.insert(label.to_owned(), after[..end].to_owned());
        assert_eq!(twice, None, "label {label} stands twice in {series}");
        rest = after[end + 1..].strip_prefix(',').unwrap_or(&after[end + 1..]);
    }
    (name, labels)
}

/// Where the quote stands that closes a value.
fn end_of_value(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, letter)| {
        let closes = letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        closes.then_some(at)
    })
}

#[test]
fn reader_finds_what_is_wrong() {
    let good = "# HELP a_seconds Help it.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\na_seconds_sum{x=\"y\"} 1.5\n\
        a_seconds_count{x=\"y\"} 2\na_seconds_bucket{le=\"1.0\",x=\"y\"} 1\na_seconds_bucket{le=\"+Inf\",x=\"y\"} 2\n# EOF\n";
    assert_eq!(read(good)["a_seconds"].samples.len(), 4);
    for (right, wrong) in [
        ("# EOF\n", ""),
        ("# UNIT a_seconds seconds\n", ""),
        ("Help it.", "Help it"),
        ("histogram", "counter"),
        ("_count{x=\"y\"} 2", "_count{x=\"y\"} 3"),
        ("{le=\"1.0\",x=\"y\"} 1", "{le=\"1.0\",x=\"y\"} 9"),
        ("a_seconds_sum", "b_seconds_sum"),
        ("{x=\"y\"} 1.5", "{x=\"y} 1.5"),
        ("{x=\"y\"} 1.5", "{x=\"y\"} one"),
    ] {
        let bad = good.replacen(right, wrong, 1);
        let read = std::panic::catch_unwind(|| read(&bad).len());
        assert!(read.is_err(), "took\n{bad}");
    }
}
