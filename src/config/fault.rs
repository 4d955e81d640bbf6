//! What is wrong with a file or an option, said so that its reader can put it right: where, what, and what to do.
//!
//! ```text
//! sharding.toml:9: idx 0 is also that of shard "Hyderabad" (line 4)
//!     remedy: give it an index that is free: 1
//! ```

use std::fmt;

/// A value, and the line that it stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At<T> {
    /// From 1.
    pub(super) line: usize,
    /// The value.
    pub(super) value: T,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The line of the file, counted from 1; none when the fault is no line's, such as a missing file.
    pub line: Option<usize>,
    /// What is wrong, with the names and numbers as they were written.
    pub what: String,
    /// What puts it right.
    pub remedy: String,
}

impl Fault {
    /// A fault in a line of the file.
    #[must_use]
    pub fn at(line: usize, what: impl Into<String>, remedy: impl Into<String>) -> Fault {
        Fault { line: Some(line), what: what.into(), remedy: remedy.into() }
    }

    /// A fault of the file as a whole, or of the command line.
    #[must_use]
    pub fn general(what: impl Into<String>, remedy: impl Into<String>) -> Fault {
        Fault { line: None, what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl std::error::Error for Fault {}

/// Everything that is wrong with one file, by line. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// The file as its reader named it.
    pub file: String,
    /// The faults; those without a line first.
    pub faults: Vec<Fault>,
}

impl Faults {
    /// Takes the faults of `file` and puts them in the order of their lines.
    #[must_use]
    pub fn new(file: impl Into<String>, mut faults: Vec<Fault>) -> Faults {
        assert!(!faults.is_empty(), "a file without faults was refused");
        faults.sort_by_key(|fault| fault.line);
        Faults { file: file.into(), faults }
    }
}

impl fmt::Display for Faults {
    /// Two lines for each fault: where and what, then the remedy. No newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            match fault.line {
                Some(line) => writeln!(f, "{}:{line}: {}", self.file, fault.what)?,
                None => writeln!(f, "{}: {}", self.file, fault.what)?,
            }
            write!(f, "    remedy: {}", fault.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// Longest part of somebody's text that a message repeats, in characters.
const QUOTE_CHARS_MAX: usize = 60;

/// `text` in quotes, with control characters escaped and cut where it gets long.
pub(super) fn quote(text: &str) -> String {
    if text.chars().count() <= QUOTE_CHARS_MAX {
        return format!("{text:?}");
    }
    let head: String = text.chars().take(QUOTE_CHARS_MAX).collect();
    format!("{head:?}…")
}

/// The known word that `word` was probably meant to be, if one is near.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.chars().count() > QUOTE_CHARS_MAX {
        return None; // nothing that we know is so long, and comparing costs the product of both lengths
    }
    let distance = |candidate: &str| strsim::damerau_levenshtein(&word.to_lowercase(), &candidate.to_lowercase());
    let (distance, found) = known.into_iter().map(|candidate| (distance(candidate), candidate)).min()?;
    (distance <= 1 + found.len() / 4).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_display_sorts_by_line_and_names_the_remedy() {
        let faults = vec![Fault::at(9, "b", "do b"), Fault::at(2, "a", "do a"), Fault::general("c", "do c")];
        assert_eq!(
            Faults::new("x.toml", faults).to_string(),
            "x.toml: c\n    remedy: do c\nx.toml:2: a\n    remedy: do a\nx.toml:9: b\n    remedy: do b"
        );
    }

    #[test]
    fn nearest_misspelt_word_is_found_and_a_stranger_is_not() {
        let known = ["address", "name", "replicas", "idx"];
        assert_eq!(nearest("adress", known), Some("address"));
        assert_eq!(nearest("Replica", known), Some("replicas"));
        assert_eq!(nearest("indx", known), Some("idx"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest(&"a".repeat(100_000), known), None);
    }

    #[test]
    fn quote_long_or_strange_text_is_cut_and_escaped() {
        assert_eq!(quote("a\u{1b}[31m"), r#""a\u{1b}[31m""#);
        assert!(quote(&"x".repeat(500)).chars().count() < 70);
    }
}
