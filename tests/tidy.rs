//! What the compiler does not check about the code's shape: the layers, the stories at the heads of files, their size,
//! and that nothing is left half done.
//!
//! A file is read as text, with comments, literals and test modules blanked out, so line numbers stay true. The scanner
//! knows just enough Rust for this code; its own tests are at the end.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Most lines of a file, its test modules not counted.
const LINES_MAX: usize = 500;

/// A source file under `src/`.
struct Source {
    /// Its path below the package's directory.
    path: String,
    /// As it is.
    text: String,
    /// With comments, literals and test modules blanked out.
    code: String,
    /// Its whole module stands under `#[cfg(test)]`.
    is_test: bool,
}

impl Source {
    /// The module path: `store/call.rs` is `[store, call]`, `store/mod.rs` is `[store]`.
    fn module(&self) -> Vec<&str> {
        let inside = self.path.split_once("src/").unwrap().1.trim_end_matches(".rs");
        inside.split('/').filter(|part| *part != "mod").collect()
    }

    /// Whether it belongs to the library; binaries import the crate by its name and stand above all layers.
    fn is_library(&self) -> bool {
        self.path.starts_with("src/") && self.path != "src/main.rs" && !self.path.starts_with("src/bin/")
    }

    /// The line in which a byte of `code` stands, from 1.
    fn line(&self, at: usize) -> usize {
        1 + self.code[..at].matches('\n').count()
    }
}

/// Every Rust file of the library, the binaries and `benchclient`.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(&root.join("src"), &mut paths);
    collect(&root.join("benchclient/src"), &mut paths);
    paths.sort();
    assert!(!paths.is_empty(), "no sources below {}", root.display());
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = without_tests(&blank(&text));
        Source { path: path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), text, code, is_test: false }
    };
    let mut sources: Vec<Source> = paths.into_iter().map(read).collect();
    let tests: Vec<String> = sources.iter().flat_map(test_files).collect();
    for source in &mut sources {
        if tests.iter().any(|test| source.path == format!("{test}.rs") || source.path.starts_with(&format!("{test}/")))
        {
            source.code = source.code.chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }).collect();
            source.is_test = true;
        }
    }
    sources
}

/// The paths, without their ending, of the modules that a file declares under `#[cfg(test)]`.
fn test_files(source: &Source) -> Vec<String> {
    let stem = source.path.trim_end_matches(".rs");
    let directory =
        ["mod", "lib", "main"].iter().find_map(|root| stem.strip_suffix(root)?.strip_suffix('/')).unwrap_or(stem);
    let blanked = blank(&source.text);
    let after = blanked.match_indices("#[cfg(test)]").map(|(at, mark)| blanked[at + mark.len()..].trim_start());
    let name = |item: &str| Some(item.strip_prefix("mod ")?.split_once(';')?.0.trim().to_owned());
    after.filter_map(name).filter(|name| !name.contains('{')).map(|name| format!("{directory}/{name}")).collect()
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// Panics with all findings, if there are any.
fn none(findings: String) {
    assert!(findings.is_empty(), "\n{findings}");
}

#[test]
fn layers_files_import_only_modules_declared_above_their_own() {
    let sources = sources();
    let lib = sources.iter().find(|source| source.path == "src/lib.rs").expect("src/lib.rs");
    let layers = declared_modules(&lib.code);
    assert!(!layers.is_empty(), "src/lib.rs declares no modules");
    let mut findings = String::new();
    for source in sources.iter().filter(|source| source.is_library() && source.path != "src/lib.rs") {
        let module = source.module();
        let Some(own) = layers.iter().position(|layer| layer == module[0]) else {
            writeln!(findings, "{}: src/lib.rs does not declare `{}`", source.path, module[0]).unwrap();
            continue;
        };
        for (at, name) in imports(&source.code, module.len()) {
            let line = source.line(at);
            match layers.iter().position(|layer| *layer == name) {
                Some(layer) if layer <= own => {}
                Some(_) => writeln!(
                    findings,
                    "{}:{line}: `{}` uses `{name}`, which src/lib.rs declares below it",
                    source.path, module[0]
                )
                .unwrap(),
                None => {
                    writeln!(findings, "{}:{line}: `crate::{name}` is no module of src/lib.rs", source.path).unwrap()
                }
            }
        }
    }
    none(findings);
}

#[test]
fn files_open_with_their_story() {
    let mut findings = String::new();
    for source in sources() {
        if !source.text.starts_with("//! ") {
            writeln!(findings, "{}: does not open with `//!`", source.path).unwrap();
        }
    }
    none(findings);
}

#[test]
fn files_are_short_enough_to_read() {
    let mut findings = String::new();
    for source in sources().iter().filter(|source| !source.is_test) {
        let lines = kept_lines(&source.text);
        if lines > LINES_MAX {
            writeln!(findings, "{}: {lines} lines without its tests, more than {LINES_MAX}", source.path).unwrap();
        }
    }
    none(findings);
}

#[test]
fn nothing_is_left_half_done() {
    let mut findings = String::new();
    for source in sources() {
        for word in ["todo!", "unimplemented!", "dbg!"] {
            for (at, _) in source.code.match_indices(word).filter(|(at, _)| starts_word(&source.code, *at)) {
                writeln!(findings, "{}:{}: {word}", source.path, source.line(at)).unwrap();
            }
        }
    }
    none(findings);
}

#[test]
fn imports_are_by_name() {
    let mut findings = String::new();
    for source in sources() {
        for (at, _) in source.code.match_indices("::*") {
            writeln!(findings, "{}:{}: a glob import", source.path, source.line(at)).unwrap();
        }
        for (at, _) in source.code.match_indices("::{*").chain(source.code.match_indices(", *}")) {
            writeln!(findings, "{}:{}: a glob import", source.path, source.line(at)).unwrap();
        }
    }
    none(findings);
}

// ---- the scanner

/// The modules that a crate's root declares, in order.
fn declared_modules(code: &str) -> Vec<String> {
    let declared = |line: &str| {
        let line = line.trim();
        let rest = line.strip_prefix("pub ").unwrap_or(line);
        let rest = rest.strip_prefix("(crate) ").unwrap_or(rest).strip_prefix("mod ")?;
        rest.strip_suffix(';').map(str::to_owned)
    };
    code.lines().filter_map(declared).collect()
}

/// The top-level modules that a file names, with their places: after `crate::`, and after as many `super::` as the file
/// is deep.
fn imports(code: &str, depth: usize) -> Vec<(usize, String)> {
    let up = "super::".repeat(depth);
    let mut found = Vec::new();
    for prefix in ["crate::", &up] {
        for (at, _) in code.match_indices(prefix).filter(|(at, _)| starts_word(code, *at)) {
            let after = code[..at].ends_with("super::");
            if !after {
                found.extend(first_names(&code[at + prefix.len()..]).into_iter().map(|name| (at, name)));
            }
        }
    }
    found
}

/// The first names of a path, or of each path of a `{…}` group.
fn first_names(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else { return vec![first_name(rest)] };
    let mut names = vec![first_name(group)];
    let mut depth = 0;
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(first_name(&group[at + 1..])),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn first_name(rest: &str) -> String {
    rest.trim_start().chars().take_while(|letter| is_word(*letter)).collect()
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Whether what stands at this place is not the end of a longer name.
fn starts_word(code: &str, at: usize) -> bool {
    !code[..at].chars().next_back().is_some_and(is_word)
}

/// The text with comments and literals replaced by blanks; newlines stay, and so do lengths in bytes.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => at + find(&bytes[at..], b"\n").unwrap_or(bytes.len() - at),
            b'/' if bytes[at..].starts_with(b"/*") => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' if is_raw_string(bytes, at) => raw_string_end(bytes, at),
            b'\'' => char_end(bytes, at),
            _ => {
                at += 1;
                continue;
            }
        };
        out[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at = end;
    }
    String::from_utf8(out).unwrap()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start + 2, 1);
    while at < bytes.len() && depth > 0 {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
        } else {
            at += 1;
        }
    }
    at
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn is_raw_string(bytes: &[u8], at: usize) -> bool {
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    let after_name = at > 0 && is_word(char::from(bytes[at - 1])) && bytes[at - 1] != b'b';
    !after_name && bytes.get(at + 1 + hashes) == Some(&b'"')
}

fn raw_string_end(bytes: &[u8], start: usize) -> usize {
    let hashes = bytes[start + 1..].iter().take_while(|byte| **byte == b'#').count();
    let body = start + hashes + 2;
    let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    find(&bytes[body..], &close).map_or(bytes.len(), |at| body + at + close.len())
}

/// The end of a character literal; a lifetime ends at once.
fn char_end(bytes: &[u8], start: usize) -> usize {
    let rest = std::str::from_utf8(&bytes[start + 1..]).unwrap();
    let mut letters = rest.char_indices();
    match letters.next() {
        Some((_, '\\')) => {
            let escaped = letters.next().map_or(0, |(at, letter)| at + letter.len_utf8());
            start + 1 + rest[escaped..].find('\'').map_or(0, |at| escaped + at + 1)
        }
        Some((_, letter)) if rest[letter.len_utf8()..].starts_with('\'') => start + 2 + letter.len_utf8(),
        _ => start + 1,
    }
}

/// The code with every item under `#[cfg(test)]` blanked out.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(start) = out.find("#[cfg(test)]") {
        let end = item_end(&out, start);
        let blanked: String = out[start..end].chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }).collect();
        out = format!("{}{blanked}{}", &out[..start], &out[end..]);
    }
    out
}

/// Where the item that begins here ends: at a `;` outside of brackets, or after its `{…}`.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0;
    for (at, letter) in code[start..].char_indices() {
        match letter {
            '{' | '(' | '[' => depth += 1,
            '}' if depth == 1 => return start + at + 1,
            '}' | ')' | ']' => depth -= 1,
            ';' if depth == 0 => return start + at + 1,
            _ => {}
        }
    }
    code.len()
}

/// How many lines do not belong to a test module. A blank or comment line belongs to what stands around it, so a test
/// module is cut from its `#[cfg(test)]` to its end.
fn kept_lines(text: &str) -> usize {
    let blanked = blank(text);
    let mut in_tests = 0;
    let mut rest = blanked.as_str();
    let mut offset = 0;
    while let Some(at) = rest.find("#[cfg(test)]") {
        let start = offset + at;
        let end = item_end(&blanked, start);
        in_tests += blanked[start..end].matches('\n').count() + 1;
        offset = end;
        rest = &blanked[end..];
    }
    text.lines().count() - in_tests
}

// ---- the scanner's own tests

#[test]
fn scanner_sees_imports_and_not_comments_literals_or_tests() {
    let text = r##"//! crate::comment
use crate::types::{Key, codec};
use crate::{clock, store::{a, b}, api};
fn f<'a>(x: &'a str) -> char { let s = "crate::literal \" "; let r = r#"crate::raw " "#; let c = '"'; crate::server::go(); '\'' }
/* crate::block /* nested */ crate::still */
#[cfg(test)]
mod tests { use super::super::hidden; use crate::hidden; fn g() { if x { y } } }
use super::sibling;
use super::super::peer::Frame;
mycrate::no();
"##;
    let code = without_tests(&blank(text));
    assert_eq!(code.len(), text.len());
    let names: Vec<String> = imports(&code, 2).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["types", "clock", "store", "api", "server", "peer"]);
    assert!(imports(&code, 1).iter().any(|(_, name)| name == "sibling"));
}

#[test]
fn scanner_counts_lines_without_tests() {
    let text = "a\nb\n#[cfg(test)]\nmod tests {\n    x\n}\nc\n";
    assert_eq!(kept_lines(text), 3);
    assert_eq!(declared_modules("pub mod a;\nmod b;\n pub(crate) mod c;\nmod d {}\n"), ["a", "b"]);
}
