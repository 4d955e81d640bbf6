//! Plain tables: aligned columns without lines, that people read and `awk` takes apart.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// Renders rows under a header; columns named in `right` are aligned to the right. Ends in a newline.
pub(crate) fn render(header: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    lay_out(Some(header), header.len(), right, rows)
}

/// The same without a header.
pub(crate) fn plain(right: &[usize], rows: Vec<Vec<String>>) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    lay_out(None, columns, right, rows)
}

fn lay_out(header: Option<&[&str]>, columns: usize, right: &[usize], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).force_no_tty().set_content_arrangement(ContentArrangement::Disabled);
    if let Some(header) = header {
        table.set_header(header.to_vec());
    }
    table.add_rows(rows);
    for index in 0..columns {
        let Some(column) = table.column_mut(index) else { continue };
        column.set_padding((0, 2));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A number of bytes as a person reads it.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        None => format!("{bytes} B"),
        Some((unit, name)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
    }
}

/// A time in milliseconds as a person reads it: its two largest units.
pub(crate) fn duration(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let seconds = ms / 1000;
    let mut units = UNITS.iter().skip_while(|(unit, _)| *unit > seconds.max(1));
    let Some((large, name)) = units.next() else { return "0 s".to_owned() };
    let rest = seconds % large;
    match units.next() {
        Some((small, smaller)) if rest >= *small => format!("{} {name} {} {smaller}", seconds / large, rest / small),
        _ => format!("{} {name}", seconds / large),
    }
}

/// `1 node`, `2 nodes`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Entries of a log, counted.
pub(crate) fn entries(number: u64) -> String {
    if number == 1 { "1 entry".to_owned() } else { format!("{number} entries") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn render_columns_are_aligned_without_trailing_space() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), "20".to_owned()]];
        assert_eq!(render(&["NAME", "N"], &[1], rows), "NAME   N\na      1\nbcd   20\n");
    }

    #[test]
    fn size_has_one_digit_behind_the_point() {
        let cases =
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (16 << 20, "16.0 MiB"), (u64::MAX, "16777215.9 TiB")];
        for (bytes, expected) in cases {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn duration_has_its_two_largest_units() {
        let cases = [
            (0, "0 s"),
            (1999, "1 s"),
            (60_000, "1 m"),
            (192_000, "3 m 12 s"),
            (3_600_000, "1 h"),
            (3_661_000, "1 h 1 m"),
            (90_000_000, "1 d 1 h"),
            (86_460_000, "1 d"),
        ];
        for (ms, expected) in cases {
            assert_eq!(duration(ms), expected, "{ms}");
        }
    }
}
