// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The chain with the most steps as a picture: a column for each step, a row for each place, the times below.
//! Columns are as wide as their words, not as long as their times, which differ by thousands. It must not
//! know how the trace came about.

use std::fmt::Write;

use super::chain::Chain;
use super::event::Event;
use super::event::Place;
use super::report::Report;
use super::report::micros;

const LEFT: usize = 130;
const COLUMN: usize = 66;
const TOP: usize = 40;
const ROW: usize = 62;

const STYLE: &str = "
text { font: 11px system-ui, sans-serif; fill: #1b1f24; }
.back { fill: #ffffff; } .band { fill: #f6f8fa; } .quiet { fill: #656d76; } .title { font-size: 13px; font-weight: 600; }
.task { fill: #1a7f37; } .kernel { fill: #9a6700; } .interrupt { fill: #cf222e; } .driver { fill: #8250df; } .daemon { fill: #0969da; }
.link { fill: none; stroke: #bf3989; stroke-width: 1.4; } .tip { fill: #bf3989; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .back { fill: #0d1117; } .band { fill: #161b22; } .quiet { fill: #8d96a0; }
  .task { fill: #3fb950; } .kernel { fill: #d29922; } .interrupt { fill: #ff7b72; } .driver { fill: #bc8cff; } .daemon { fill: #58a6ff; }
  .link { stroke: #f778ba; } .tip { fill: #f778ba; }
}
";

/// The picture of a chain; without one, a line of text.
pub fn picture(report: &Report) -> String {
    let longest = report
        .chains
        .iter()
        .rev()
        .max_by_key(|chain| chain.steps.len());
    let empty = Chain {
        fifo: 0,
        position: 0,
        bytes: 0,
        steps: Vec::new(),
    };
    let chain = longest.unwrap_or(&empty);
    let events: Vec<&Event> = chain
        .steps
        .iter()
        .filter_map(|step| report.timeline.events.get(step.event))
        .collect();
    let mut rows: Vec<Place> = report.timeline.places();
    rows.retain(|place| events.iter().any(|event| event.place == *place));
    let width = LEFT + COLUMN * events.len().max(6) + 20;
    let height = TOP + ROW * rows.len() + 54;
    let start = events.first().map_or(0, |event| event.ns);
    let mut svg = String::new();
    let mut put = |text: String| {
        // A string takes everything.
        let _ = writeln!(svg, "{text}");
    };
    put(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">"
    ));
    put(format!(
        "<style>{STYLE}</style>\n<rect class=\"back\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>"
    ));
    let title = match longest {
        Some(chain) => format!(
            "{} bytes on their way, as traced; ± {}",
            chain.bytes,
            micros(report.bound())
        ),
        None => "nothing was written, so there is no chain".to_owned(),
    };
    put(format!(
        "<text class=\"title\" x=\"12\" y=\"24\">{}</text>",
        escaped(&title)
    ));
    for (number, place) in rows.iter().enumerate() {
        let y = TOP + number * ROW;
        put(format!(
            "<rect class=\"band\" x=\"6\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"4\"/>",
            width - 12,
            ROW - 4
        ));
        let label = escaped(&report.timeline.label(*place));
        put(format!(
            "<text class=\"quiet\" x=\"14\" y=\"{}\">{label}</text>",
            y + ROW / 2 + 2
        ));
    }
    let spot = |at: usize| {
        let place = events.get(at).map(|event| event.place);
        let row = rows
            .iter()
            .position(|row| Some(*row) == place)
            .unwrap_or_default();
        (
            LEFT + at * COLUMN + COLUMN / 2,
            TOP + row * ROW + ROW / 2 - 2,
        )
    };
    for (at, step) in chain.steps.iter().enumerate() {
        let Some(after) = step.after else { continue };
        let ((x1, y1), (x2, y2)) = (spot(after), spot(at));
        let (from, to) = (x1 + 5, x2.saturating_sub(8));
        let middle = usize::midpoint(from, to);
        put(format!(
            "<path class=\"link\" d=\"M{from} {y1} C{middle} {y1} {middle} {y2} {to} {y2}\"/>"
        ));
        put(format!(
            "<path class=\"tip\" d=\"M{} {y2} l-7 -3.5 v7 z\"/>",
            to + 3
        ));
    }
    for (at, event) in events.iter().enumerate() {
        let (x, y) = spot(at);
        put(format!(
            "<circle class=\"{}\" cx=\"{x}\" cy=\"{y}\" r=\"4.5\"/>",
            event.place.kind()
        ));
        // Neighbours in a row leave each other room.
        let label = if at % 2 == 0 { y - 11 } else { y + 20 };
        put(format!(
            "<text x=\"{x}\" y=\"{label}\" text-anchor=\"middle\">{}</text>",
            escaped(&event.name)
        ));
        let below = TOP + rows.len() * ROW + if at % 2 == 0 { 16 } else { 34 };
        let time = micros(event.ns.saturating_sub(start));
        put(format!(
            "<text class=\"quiet\" x=\"{x}\" y=\"{below}\" text-anchor=\"middle\">{time}</text>"
        ));
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::small;
    use super::*;

    #[test]
    fn the_picture_has_each_step_once_and_its_links() {
        let svg = picture(&small());
        for name in ["write", "send", "pop"] {
            assert_eq!(svg.matches(&format!(">{name}</text>")).count(), 1, "{svg}");
        }
        assert_eq!(svg.matches("class=\"link\"").count(), 2, "{svg}");
        assert_eq!(svg.matches("class=\"band\"").count(), 2, "{svg}");
        assert!(svg.contains(">8.0 µs</text>"), "{svg}");
    }

    #[test]
    fn a_trace_without_a_chain_says_so() {
        let mut report = small();
        report.chains.clear();
        assert!(picture(&report).contains("there is no chain"));
    }
}
