// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tables of text.

/// Columns as wide as they need to be.
pub fn align(rows: &[Vec<String>], head: &[String]) -> String {
    let all = || std::iter::once(head).chain(rows.iter().map(Vec::as_slice));
    let columns = all().map(<[String]>::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = all().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in all().filter(|row| !row.is_empty()) {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(&format!("  {}\n", line.trim_end()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters_not_bytes() {
        let cells = |texts: [&str; 2]| texts.map(str::to_owned).to_vec();
        let text = align(&[cells(["µµ", "x"]), cells(["a", "y"])], &[]);
        assert_eq!(text, "  µµ  x\n  a   y\n");
    }
}
