// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Figures of who calls whom: a column for each, an arrow for each step, from top to bottom.

use std::fmt::Write as _;

use anyhow::Result;

use super::Desk;
use super::figure::{escape, open_svg, save};
use super::show::say;

/// One step: at a time, from one column to another or within one.
pub(super) struct Step {
    /// Microseconds since the first, if it is known.
    pub(super) at: Option<u64>,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) text: String,
}

/// Steps that belong together.
pub(super) struct Part {
    pub(super) title: &'static str,
    pub(super) steps: Vec<Step>,
}

/// A figure.
pub(super) struct Sequence {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// Name of each column, and of its colour.
    pub(super) columns: [(&'static str, &'static str); 4],
    pub(super) parts: Vec<Part>,
}

/// Columns of text between two columns of the figure.
const PITCH: usize = 17;

/// Pixels.
const WIDTH: u64 = 960;
const FIRST: u64 = 170;
const APART: u64 = 165;
const NOTES: u64 = 700;
const TOP: u64 = 88;
const ROW: u64 = 24;

impl Sequence {
    /// Prints it, and writes it to a file if there is a place for it.
    pub(super) fn draw(&self, desk: &Desk) -> Result<()> {
        say!("{}", self.to_text());
        save(desk, self.id, &self.to_svg())
    }

    fn to_text(&self) -> String {
        let mut text = format!("{:>11}  ", "µs");
        for (name, _) in self.columns {
            let _ = write!(text, "{name:<PITCH$}");
        }
        text.push('\n');
        for part in &self.parts {
            let _ = writeln!(text, "{:>11}  -- {} --", "", part.title);
            for step in &part.steps {
                let mut row = vec![' '; PITCH * 3 + 5];
                for column in 0..self.columns.len() {
                    set(&mut row, column * PITCH + 2, '|');
                }
                let (low, high) = (step.from.min(step.to), step.from.max(step.to));
                for at in low * PITCH + 3..high * PITCH + 2 {
                    set(&mut row, at, '-');
                }
                match step.from.cmp(&step.to) {
                    std::cmp::Ordering::Less => set(&mut row, high * PITCH + 1, '>'),
                    std::cmp::Ordering::Greater => set(&mut row, low * PITCH + 3, '<'),
                    std::cmp::Ordering::Equal => set(&mut row, low * PITCH + 2, '*'),
                }
                let row: String = row.iter().collect();
                let at = step.at.map_or_else(String::new, |at| at.to_string());
                let _ = writeln!(text, "{at:>11}  {row}  {}", step.text);
            }
        }
        text
    }

    fn to_svg(&self) -> String {
        let rows: usize = self.parts.iter().map(|part| part.steps.len() + 1).sum();
        let bottom = TOP + ROW * rows as u64 + 8;
        let mut svg = open_svg(WIDTH, bottom + 20, self.title);
        let x = |column: usize| FIRST + APART * column as u64;
        let _ = writeln!(
            svg,
            "<text class=\"small\" x=\"{}\" y=\"{}\" text-anchor=\"end\">time, µs</text>",
            FIRST - 60,
            TOP - 22
        );
        for (column, (name, class)) in self.columns.iter().enumerate() {
            let x = x(column);
            let _ = writeln!(
                svg,
                "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{name}</text>",
                TOP - 22
            );
            let _ = writeln!(
                svg,
                "<path class=\"{class}\" d=\"M{x} {}V{bottom}\"/>",
                TOP - 14
            );
        }
        let mut y = TOP;
        for part in &self.parts {
            let _ = writeln!(
                svg,
                "<rect class=\"band\" x=\"24\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
                y - 6,
                WIDTH - 48,
                ROW - 5
            );
            let _ = writeln!(
                svg,
                "<text x=\"34\" y=\"{}\" font-weight=\"600\">{}</text>",
                y + 8,
                escape(part.title)
            );
            for step in &part.steps {
                y += ROW;
                let (from, to) = (x(step.from), x(step.to));
                let at = step.at.map_or_else(String::new, |at| at.to_string());
                let _ = writeln!(
                    svg,
                    "<text class=\"small\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{at}</text>",
                    FIRST - 60,
                    y + 4
                );
                let _ = writeln!(
                    svg,
                    "<text class=\"small\" x=\"{NOTES}\" y=\"{}\">{}</text>",
                    y + 4,
                    escape(&step.text)
                );
                let shape = match from.cmp(&to) {
                    std::cmp::Ordering::Less => format!("M{} {}l-9 -4v8z", to - 1, y),
                    std::cmp::Ordering::Greater => format!("M{} {}l9 -4v8z", to + 1, y),
                    std::cmp::Ordering::Equal => format!("M{} {y}l5 -5l5 5l-5 5z", from - 5),
                };
                if from != to {
                    let _ = writeln!(svg, "<path class=\"line\" d=\"M{from} {y}H{to}\"/>");
                }
                let _ = writeln!(svg, "<path class=\"tip\" d=\"{shape}\"/>");
            }
            y += ROW;
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn set(row: &mut [char], at: usize, glyph: char) {
    if let Some(cell) = row.get_mut(at) {
        *cell = glyph;
    }
}
