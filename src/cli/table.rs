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
}
