// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Figures whose horizontal axis is time: lanes with bars and marks, as text and as SVG.
//!
//! Knows nothing of what is drawn. The SVG has no scripts and no outside references, brings its own
//! background, and follows a viewer's dark mode.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Desk;
use super::show::say;

/// What a bar or a mark stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// In the legend.
    pub(super) label: &'static str,
    /// In text.
    pub(super) glyph: char,
    /// Name of its colour in [`STYLE`].
    pub(super) class: &'static str,
}

/// Something that takes time, in microseconds.
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) kind: Kind,
}

/// Something that happens at a time, in microseconds.
pub(super) struct Mark {
    pub(super) at: u64,
    pub(super) kind: Kind,
}

/// One line of a figure.
pub(super) struct Lane {
    /// At its left end.
    pub(super) name: String,
    /// Under the name.
    pub(super) note: String,
    pub(super) spans: Vec<Span>,
    pub(super) marks: Vec<Mark>,
}

impl Lane {
    /// The longest first, so that short ones are seen.
    fn by_length(&self) -> Vec<&Span> {
        let mut spans: Vec<&Span> = self.spans.iter().collect();
        spans.sort_by_key(|span| Reverse(span.to.saturating_sub(span.from)));
        spans
    }
}

/// A figure.
pub(super) struct Figure {
    /// Of its lesson, and of its file.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) lanes: Vec<Lane>,
}

/// What all figures look like: light, and dark where the viewer wants that.
pub(super) const STYLE: &str = "\
<style>
text{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;font-size:13px;fill:#1f2328}
.small{font-size:12px;fill:#57606a}.head{font-size:16px;font-weight:600}.bg{fill:#ffffff}.band{fill:#f3f5f7}
.line{stroke:#8c959f;stroke-width:1;fill:none}.grid{stroke:#d8dee4;stroke-width:1}.tip{fill:#57606a}
.work{fill:#2f74c0}.sleep{fill:#c9d1d9}.ask{fill:#d98a1f}.handle{fill:#1a8f5a}.flight{fill:#8a63c9}
.data{fill:#cf222e}.irq{fill:#1f2328}.user{stroke:#2f74c0}.kernel{stroke:#57606a}.driver{stroke:#1a8f5a}.device{stroke:#cf222e}
.user,.kernel,.driver,.device{stroke-width:1.6;fill:none}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}.small{fill:#9da7b1}.bg{fill:#14181d}.band{fill:#1d232a}
.line{stroke:#768390}.grid{stroke:#30363d}.tip{fill:#adbac7}
.work{fill:#4a94e6}.sleep{fill:#444c56}.ask{fill:#e8a33d}.handle{fill:#3fb97d}.flight{fill:#a98be0}
.data{fill:#ff6b6b}.irq{fill:#e6edf3}.user{stroke:#4a94e6}.kernel{stroke:#9da7b1}.driver{stroke:#3fb97d}.device{stroke:#ff6b6b}}
</style>
";

/// Columns of text that the time axis takes.
const COLUMNS: usize = 76;
/// Columns of text for a lane's name.
const NAMES: usize = 20;

/// Pixels.
const WIDTH: u64 = 960;
const LEFT: u64 = 190;
const RIGHT: u64 = 30;
const TOP: u64 = 52;
const LANE: u64 = 54;

impl Figure {
    /// Prints it, and writes it to a file if there is a place for it.
    pub(super) fn draw(&self, desk: &Desk) -> Result<()> {
        say!("{}", self.to_text());
        save(desk, self.id, &self.to_svg())
    }

    /// The end of the axis: a multiple of its step, in microseconds.
    fn end(&self) -> u64 {
        let spans = self
            .lanes
            .iter()
            .flat_map(|lane| lane.spans.iter().map(|s| s.to));
        let marks = self
            .lanes
            .iter()
            .flat_map(|lane| lane.marks.iter().map(|m| m.at));
        let last = spans.chain(marks).max().unwrap_or(1);
        last.div_ceil(step(last)) * step(last)
    }

    /// What is in it, each once, in order of appearance.
    fn kinds(&self) -> (Vec<Kind>, Vec<Kind>) {
        let (mut spans, mut marks) = (Vec::new(), Vec::new());
        for lane in &self.lanes {
            for kind in lane.spans.iter().map(|span| span.kind) {
                if !spans.contains(&kind) {
                    spans.push(kind);
                }
            }
            for kind in lane.marks.iter().map(|mark| mark.kind) {
                if !marks.contains(&kind) {
                    marks.push(kind);
                }
            }
        }
        (spans, marks)
    }

    fn to_text(&self) -> String {
        let end = self.end();
        let column = |at: u64| {
            let column = at.min(end) * (COLUMNS as u64 - 1) / end;
            usize::try_from(column).unwrap_or(0)
        };
        let put = |row: &mut Vec<char>, at: usize, glyph: char| {
            if let Some(cell) = row.get_mut(at) {
                *cell = glyph;
            }
        };
        let mut text = String::new();
        for lane in &self.lanes {
            let (mut above, mut row) = (vec![' '; COLUMNS], vec![' '; COLUMNS]);
            for mark in &lane.marks {
                put(&mut above, column(mark.at), mark.kind.glyph);
            }
            for span in lane.by_length() {
                for at in column(span.from)..=column(span.to) {
                    put(&mut row, at, span.kind.glyph);
                }
            }
            for (name, cells) in [(&lane.note, &above), (&lane.name, &row)] {
                let cells: String = cells.iter().collect();
                let _ = writeln!(text, "{name:>NAMES$} {}", cells.trim_end());
            }
        }
        let (mut ticks, mut labels) = (vec!['-'; COLUMNS], vec![' '; COLUMNS + 8]);
        for at in (0..=end).step_by(usize::try_from(step(end)).unwrap_or(1)) {
            put(&mut ticks, column(at), '+');
            for (offset, digit) in label(at).chars().enumerate() {
                put(&mut labels, column(at) + offset, digit);
            }
        }
        let (ticks, labels): (String, String) = (ticks.iter().collect(), labels.iter().collect());
        let _ = writeln!(text, "{:>NAMES$} {ticks}", "");
        let _ = writeln!(text, "{:>NAMES$} {}", "time, ms", labels.trim_end());
        let (spans, marks) = self.kinds();
        for kind in spans.into_iter().chain(marks) {
            let _ = writeln!(text, "{:>NAMES$} {} {}", "", kind.glyph, kind.label);
        }
        text
    }

    fn to_svg(&self) -> String {
        let end = self.end();
        let x = |at: u64| LEFT + at.min(end) * (WIDTH - LEFT - RIGHT) / end;
        let axis = TOP + LANE * self.lanes.len() as u64;
        let height = axis + 92;
        let mut svg = open_svg(WIDTH, height, self.title);
        for (lane, y) in self.lanes.iter().zip((TOP..).step_by(54)) {
            let _ = writeln!(
                svg,
                "<rect class=\"band\" x=\"{LEFT}\" y=\"{y}\" width=\"{}\" height=\"{}\"/>",
                WIDTH - LEFT - RIGHT,
                LANE - 6
            );
            let name = (&lane.name, y + 29, "");
            let note = (&lane.note, y + 43, " class=\"small\"");
            for (text, y, class) in [name, note] {
                let text = escape(text);
                let _ = writeln!(
                    svg,
                    "<text x=\"{}\" y=\"{y}\" text-anchor=\"end\"{class}>{text}</text>",
                    LEFT - 10
                );
            }
        }
        for at in (0..=end).step_by(usize::try_from(step(end)).unwrap_or(1)) {
            let x = x(at);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{x} {TOP}V{axis}\"/><path class=\"line\" d=\"M{x} {axis}v5\"/>"
            );
            let _ = writeln!(
                svg,
                "<text class=\"small\" x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                axis + 18,
                label(at)
            );
        }
        let _ = writeln!(
            svg,
            "<path class=\"line\" d=\"M{LEFT} {axis}H{}\"/>",
            WIDTH - RIGHT
        );
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">time since the start, ms</text>",
            LEFT + (WIDTH - LEFT - RIGHT) / 2,
            axis + 38
        );
        for (lane, y) in self.lanes.iter().zip((TOP..).step_by(54)) {
            for span in lane.by_length() {
                let (left, right) = (x(span.from), x(span.to));
                let Kind { class, label, .. } = span.kind;
                let _ = writeln!(
                    svg,
                    "<rect class=\"{class}\" x=\"{left}\" y=\"{}\" width=\"{}\" height=\"26\"><title>{label}, {} to {} ms</title></rect>",
                    y + 17,
                    right.saturating_sub(left + 1).max(3),
                    millis(span.from),
                    millis(span.to)
                );
            }
            for mark in &lane.marks {
                let Kind { class, label, .. } = mark.kind;
                let shape = mark_shape(mark.kind, x(mark.at), y + 15);
                let _ = writeln!(
                    svg,
                    "<path class=\"{class}\" d=\"{shape}\"><title>{label}, {} ms</title></path>",
                    millis(mark.at)
                );
            }
        }
        svg.push_str(&self.legend(axis + 64));
        svg.push_str("</svg>\n");
        svg
    }

    fn legend(&self, y: u64) -> String {
        let (mut svg, mut x) = (String::new(), 24);
        let (spans, marks) = self.kinds();
        let spans = spans.into_iter().map(|kind| (kind, false));
        for (kind, is_mark) in spans.chain(marks.into_iter().map(|kind| (kind, true))) {
            let Kind { class, label, .. } = kind;
            if is_mark {
                let _ = writeln!(
                    svg,
                    "<path class=\"{class}\" d=\"{}\"/>",
                    mark_shape(kind, x + 8, y)
                );
            } else {
                let _ = writeln!(
                    svg,
                    "<rect class=\"{class}\" x=\"{x}\" y=\"{}\" width=\"16\" height=\"12\"/>",
                    y - 11
                );
            }
            let _ = writeln!(svg, "<text x=\"{}\" y=\"{y}\">{label}</text>", x + 22);
            x += 22 + 7 * label.len() as u64 + 14;
        }
        svg
    }
}

/// A triangle that points down to `y`, or a stroke.
fn mark_shape(kind: Kind, x: u64, y: u64) -> String {
    if kind.glyph == '|' {
        format!("M{} {}h2v12h-2z", x - 1, y - 12)
    } else {
        format!("M{} {}h12l-6 11z", x - 6, y - 12)
    }
}

/// The beginning of an SVG file: size, style, background, title.
pub(super) fn open_svg(width: u64, height: u64, title: &str) -> String {
    let title = escape(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
         <title>{title}</title>\n{STYLE}<rect class=\"bg\" width=\"{width}\" height=\"{height}\"/>\n\
         <text class=\"head\" x=\"24\" y=\"30\">{title}</text>\n"
    )
}

/// Writes a figure's file.
pub(super) fn save(desk: &Desk, id: &str, svg: &str) -> Result<()> {
    let folder = desk.svg.as_deref().unwrap_or(Path::new("."));
    let path = folder.join(format!("{id}.svg"));
    match fs::write(&path, svg) {
        Ok(()) => say!("written: {}", path.display()),
        Err(error) if desk.svg.is_none() => {
            say!(
                "(not written as {}: {error}; --svg DIR says where)",
                path.display()
            );
        }
        Err(error) => return Err(error).context(format!("writing {}", path.display())),
    }
    Ok(())
}

/// For text in SVG.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Distance of the axis's labels, for six to twelve of them.
fn step(end: u64) -> u64 {
    let mut step = 1;
    for factor in [2, 5, 10]
        .into_iter()
        .cycle()
        .enumerate()
        .map(|(n, f)| f * 10u64.pow(u32::try_from(n / 3).unwrap_or(0)))
    {
        step = factor;
        if end / step <= 12 || step > 1_000_000_000 {
            break;
        }
    }
    step
}

fn millis(micros: u64) -> String {
    format!("{}.{:03}", micros / 1000, micros % 1000)
}

fn label(micros: u64) -> String {
    let text = millis(micros);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Figure, Kind, Lane, Mark, Span, label, step};

    const WORK: Kind = Kind {
        label: "work & <play>",
        glyph: '#',
        class: "work",
    };
    const DATA: Kind = Kind {
        label: "data",
        glyph: 'v',
        class: "data",
    };

    #[test]
    fn axes_have_round_steps() {
        assert_eq!(
            (step(100_000), step(12), step(13), step(60_000)),
            (10_000, 2, 2, 5_000)
        );
        assert_eq!(
            (label(0), label(2500), label(20_000)),
            ("0".into(), "2.5".into(), "20".into())
        );
    }

    #[test]
    fn a_figure_has_its_bars_and_marks() {
        let lane = Lane {
            name: "a < b".into(),
            note: String::new(),
            spans: vec![Span {
                from: 0,
                to: 50_000,
                kind: WORK,
            }],
            marks: vec![Mark {
                at: 100_000,
                kind: DATA,
            }],
        };
        let figure = Figure {
            id: "x",
            title: "t",
            lanes: vec![lane],
        };
        let text = figure.to_text();
        assert!(
            text.contains(&"#".repeat(38)) && !text.contains(&"#".repeat(39)),
            "{text}"
        );
        assert!(text.lines().next().unwrap().ends_with('v'), "{text}");
        let svg = figure.to_svg();
        assert!(
            svg.contains("a &lt; b") && svg.ends_with("</svg>\n"),
            "{svg}"
        );
    }
}
