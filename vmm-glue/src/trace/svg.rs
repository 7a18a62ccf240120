// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One chain as a picture: a column for each place, time runs down with a row for each step, whatever its length: times differ by
//! thousands. The picture carries what it was drawn from as metadata, so that it can be drawn anew without a trace. It must not know how
//! the trace came about.

use std::fmt::Write;

use serde::Deserialize;
use serde::Serialize;

use super::chain::Chain;
use super::report::Report;
use super::report::micros;

/// Width of the times at the left, and of a place.
const LEFT: usize = 74;
const COLUMN: usize = 116;
/// Height of the title and the places' names, and of a step.
const TOP: usize = 74;
const ROW: usize = 34;
/// From a place's left side to its dots.
const DOT: usize = 10;

const STYLE: &str = "
text { font: 12px system-ui, sans-serif; fill: #1b1f24; }
.back { fill: #ffffff; } .band { fill: #f6f8fa; } .quiet { fill: #57606a; } .title { font-size: 14px; font-weight: 600; }
.name { paint-order: stroke; stroke: #ffffff; stroke-width: 4px; stroke-linejoin: round; } .name.on-band { stroke: #f6f8fa; }
.task { fill: #1a7f37; } .kernel { fill: #9a6700; } .interrupt { fill: #cf222e; } .driver { fill: #8250df; } .qemu { fill: #57606a; } .daemon { fill: #0969da; }
.link { fill: none; stroke: #bf3989; stroke-width: 1.4; } .tip { fill: #bf3989; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .back { fill: #0d1117; } .band { fill: #161b22; } .quiet { fill: #9da7b1; }
  .name { stroke: #0d1117; } .name.on-band { stroke: #161b22; }
  .task { fill: #3fb950; } .kernel { fill: #d29922; } .interrupt { fill: #ff7b72; } .driver { fill: #bc8cff; } .qemu { fill: #afb8c1; } .daemon { fill: #58a6ff; }
  .link { stroke: #f778ba; } .tip { fill: #f778ba; }
}
";

/// What is drawn.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    title: String,
    /// Places from left to right: their kinds and what they are called.
    places: Vec<(String, String)>,
    steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Step {
    /// Nanoseconds since the first.
    ns: u64,
    /// Which of the places.
    place: usize,
    name: String,
    /// Which step led to it.
    after: Option<usize>,
}

impl Picture {
    /// The chain with the most steps; of several such, the first.
    pub fn longest(report: &Report) -> Self {
        Self::through("", report).unwrap_or_else(|| Self {
            title: "nothing was written, so there is no chain".to_owned(),
            ..Self::default()
        })
    }

    /// The chain with the most steps of those that have a step of this name; an empty name is any. `None` if there is none.
    pub fn through(name: &str, report: &Report) -> Option<Self> {
        let event = |step: &super::chain::Step| report.timeline.events.get(step.event);
        let passes = |chain: &&Chain| {
            let mut steps = chain.steps.iter().filter_map(event);
            name.is_empty() || steps.any(|event| &*event.name == name)
        };
        let chains = report.chains.iter().rev().filter(passes);
        let chain = chains.max_by_key(|chain| chain.steps.len())?;
        let events: Vec<_> = chain.steps.iter().filter_map(event).collect();
        let mut places = report.timeline.places();
        places.retain(|place| events.iter().any(|event| event.place == *place));
        let start = events.first().map_or(0, |event| event.ns);
        let steps = events.iter().zip(&chain.steps).map(|(event, step)| Step {
            ns: event.ns.saturating_sub(start),
            place: places
                .iter()
                .position(|place| *place == event.place)
                .unwrap_or_default(),
            name: event.name.to_string(),
            after: step.after,
        });
        Some(Self {
            title: format!(
                "{} bytes on their way, as traced; ± {}",
                chain.bytes,
                micros(report.bound())
            ),
            steps: steps.collect(),
            places: places
                .iter()
                .map(|place| (place.kind().to_owned(), report.timeline.label(*place)))
                .collect(),
        })
    }

    /// Names of its steps, in order of time.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|step| step.name.as_str())
    }

    /// What a picture was drawn from; `None` if it is none of these.
    #[cfg(test)]
    pub fn read(svg: &str) -> Option<Self> {
        let (_, rest) = svg.split_once("<metadata>")?;
        let (text, _) = rest.split_once("</metadata>")?;
        let text = text
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&");
        serde_json::from_str(&text).ok()
    }

    /// Draws it.
    pub fn svg(&self) -> String {
        let width = LEFT + COLUMN * self.places.len().max(4) + 6;
        let height = TOP + ROW * self.steps.len() + 14;
        let mut svg = String::new();
        let mut put = |text: String| {
            // A string takes everything.
            let _ = writeln!(svg, "{text}");
        };
        put(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">"
        ));
        let title = escaped(&self.title);
        put(format!("<title>{title}</title>"));
        let data = serde_json::to_string(self).unwrap_or_default();
        put(format!("<metadata>{}</metadata>", escaped(&data)));
        put(format!(
            "<style>{STYLE}</style>\n<rect class=\"back\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>"
        ));
        put(format!(
            "<text class=\"title\" x=\"12\" y=\"24\">{title}</text>"
        ));
        for (number, (_, label)) in self.places.iter().enumerate() {
            let x = LEFT + number * COLUMN;
            if number % 2 == 0 {
                put(format!(
                    "<rect class=\"band\" x=\"{x}\" y=\"38\" width=\"{COLUMN}\" height=\"{}\" rx=\"4\"/>",
                    height - 44
                ));
            }
            put(format!(
                "<text class=\"quiet\" x=\"{}\" y=\"55\">{}</text>",
                x + DOT - 4,
                escaped(label)
            ));
        }
        let spot = |at: usize| {
            let place = self.steps.get(at).map_or(0, |step| step.place);
            (LEFT + place * COLUMN + DOT, TOP + at * ROW + ROW / 2)
        };
        for (at, step) in self.steps.iter().enumerate() {
            let Some(after) = step.after else { continue };
            let ((x1, y1), (x2, y2)) = (spot(after), spot(at));
            let (from, to) = (y1 + 5, y2.saturating_sub(8));
            let middle = usize::midpoint(from, to);
            put(format!(
                "<path class=\"link\" d=\"M{x1} {from} C{x1} {middle} {x2} {middle} {x2} {to}\"/>"
            ));
            put(format!(
                "<path class=\"tip\" d=\"M{x2} {} l-3.5 -7 h7 z\"/>",
                to + 3
            ));
        }
        for (at, step) in self.steps.iter().enumerate() {
            let (x, y) = spot(at);
            let kind = self.places.get(step.place).map_or("", |(kind, _)| kind);
            let band = if step.place % 2 == 0 { " on-band" } else { "" };
            put(format!(
                "<circle class=\"{kind}\" cx=\"{x}\" cy=\"{y}\" r=\"4.5\"/>"
            ));
            put(format!(
                "<text class=\"name{band}\" x=\"{}\" y=\"{}\">{}</text>",
                x + 9,
                y + 4,
                escaped(&step.name)
            ));
            put(format!(
                "<text class=\"quiet\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                LEFT - 6,
                y + 4,
                moment(step.ns)
            ));
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// As wide as the margin is.
fn moment(ns: u64) -> String {
    if ns < 10_000_000 {
        micros(ns)
    } else {
        format!("{} µs", (ns + 500) / 1000)
    }
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
        let svg = Picture::longest(&small()).svg();
        for name in ["write", "send", "pop"] {
            assert_eq!(svg.matches(&format!(">{name}</text>")).count(), 1, "{svg}");
        }
        assert_eq!(svg.matches("class=\"link\"").count(), 2, "{svg}");
        assert_eq!(svg.matches("class=\"band\"").count(), 1, "{svg}");
        assert!(svg.contains(">8.0 µs</text>"), "{svg}");
        assert_eq!(
            (moment(9_999_999), moment(10_308_900)),
            ("9999.9 µs".to_owned(), "10309 µs".to_owned())
        );
    }

    #[test]
    fn a_picture_can_be_drawn_anew_from_itself() {
        let mut picture = Picture::longest(&small());
        picture.title = "a <b> & c".to_owned();
        let svg = picture.svg();
        assert_eq!(Picture::read(&svg), Some(picture));
        assert_eq!(Picture::read("<svg/>"), None);
    }

    #[test]
    fn only_a_chain_through_the_wanted_step_is_chosen() {
        let report = small();
        let through = |name| Picture::through(name, &report).map(|picture| picture.steps.len());
        assert_eq!((through("send"), through("read")), (Some(3), None));
    }

    #[test]
    fn a_trace_without_a_chain_says_so() {
        let mut report = small();
        report.chains.clear();
        let svg = Picture::longest(&report).svg();
        assert!(svg.contains("there is no chain"));
    }
}
