// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Charts as SVG for a page that has the colours: classes `s0`, `s1` … for what is drawn, `axis` and `grid` for the rest.
//!
//! This file must not know what the figures mean.

use maud::Markup;
use maud::html;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 82.0;
const RIGHT: f64 = 545.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 252.0;
/// Height of one bar with its gap.
const BAR: f64 = 30.0;
/// Where bars begin: their names are longer than those of ticks.
const BAR_LEFT: f64 = 120.0;
/// Where they end at most, for their figures to fit behind them.
const BAR_RIGHT: f64 = 405.0;

/// More than so many marks stand in each other's way.
const MOST_MARKS: usize = 6;

/// How values become places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences, from 0.
    Linear,
    /// Equal ratios.
    Log,
}

/// An axis.
#[derive(Debug, Clone)]
pub struct Axis {
    /// What it is of.
    pub label: &'static str,
    /// How values become places.
    pub scale: Scale,
    /// Values that are marked; if there are none, round ones.
    pub ticks: Vec<f64>,
    /// How a value is written.
    pub format: fn(f64) -> String,
}

/// A line, or an outline that is filled.
#[derive(Debug, Clone)]
pub struct Line {
    /// Number of its colour.
    pub colour: usize,
    /// Its name.
    pub name: String,
    /// Places, from left to right.
    pub points: Vec<(f64, f64)>,
    /// Fill the area below instead of marking the points.
    pub filled: bool,
}

/// A bar, with a thinner one that goes on from its end.
#[derive(Debug, Clone)]
pub struct Bar {
    /// Number of its colour.
    pub colour: usize,
    /// Its name.
    pub name: String,
    /// Its end.
    pub value: f64,
    /// The thinner one's end.
    pub tail: f64,
    /// What stands behind it.
    pub text: String,
}

/// Lines over two axes.
pub fn lines(x: &Axis, y: &Axis, lines: &[Line]) -> Markup {
    let across = Range::of(
        x,
        lines
            .iter()
            .flat_map(|line| &line.points)
            .map(|point| point.0),
    );
    let up = Range::of(
        y,
        lines
            .iter()
            .flat_map(|line| &line.points)
            .map(|point| point.1),
    );
    let place = |point: &(f64, f64)| {
        (
            LEFT + across.share(point.0) * (RIGHT - LEFT),
            BOTTOM - up.share(point.1) * (BOTTOM - TOP),
        )
    };
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" {
            @for value in y.marks(&up) {
                @let at = place(&(across.low, value)).1;
                line.grid x1=(LEFT) x2=(RIGHT) y1=(px(at)) y2=(px(at)) {}
                text.axis x=(LEFT - 6.0) y=(px(at + 4.0)) text-anchor="end" { (tick(&(y.format)(value))) }
            }
            @for value in x.marks(&across) {
                @let at = place(&(value, up.low)).0;
                line.grid x1=(px(at)) x2=(px(at)) y1=(TOP) y2=(BOTTOM) {}
                text.axis x=(px(at)) y=(BOTTOM + 16.0) text-anchor="middle" { (tick(&(x.format)(value))) }
            }
            text.axis x=(f64::midpoint(LEFT, RIGHT)) y=(BOTTOM + 38.0) text-anchor="middle" { (x.label) }
            text.axis transform=(format!("translate(12 {}) rotate(-90)", f64::midpoint(TOP, BOTTOM))) text-anchor="middle" { (y.label) }
            @for line in lines {
                @let places: Vec<(f64, f64)> = line.points.iter().map(place).collect();
                @if line.filled { path class=(format!("area s{}", line.colour)) d=(area(&places)) {} }
                path class=(format!("line s{}", line.colour)) d=(path(&places)) {}
                @if !line.filled {
                    @for (at, point) in places.iter().zip(&line.points) {
                        circle class=(format!("dot s{}", line.colour)) cx=(px(at.0)) cy=(px(at.1)) r="3.5" {
                            title { (line.name) ", " ((x.format)(point.0)) ": " ((y.format)(point.1)) }
                        }
                    }
                }
            }
        }
    }
}

/// Bars from 0, one below another.
pub fn bars(bars: &[Bar]) -> Markup {
    let end = bars
        .iter()
        .map(|bar| bar.value.max(bar.tail))
        .fold(0.0, f64::max);
    let length = |value: f64| {
        if end > 0.0 {
            value / end * (BAR_RIGHT - BAR_LEFT)
        } else {
            0.0
        }
    };
    let rows = || {
        bars.iter()
            .zip((0_u16..).map(|row| f64::from(row) * BAR + 6.0))
    };
    let height = rows().last().map_or(BAR, |(_, top)| top + BAR);
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" {
            @for (bar, top) in rows() {
                text.axis x=(BAR_LEFT - 8.0) y=(top + 15.0) text-anchor="end" { (bar.name) }
                rect class=(format!("tail s{}", bar.colour)) x=(BAR_LEFT) y=(top + 8.0) width=(px(length(bar.tail))) height="4" {}
                rect class=(format!("bar s{}", bar.colour)) x=(BAR_LEFT) y=(top) width=(px(length(bar.value))) height="20" {}
                text.axis x=(px(BAR_LEFT + length(bar.value.max(bar.tail)) + 8.0)) y=(top + 15.0) { (bar.text) }
            }
        }
    }
}

/// From where to where an axis goes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Range {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Range {
    fn of(axis: &Axis, values: impl Iterator<Item = f64>) -> Self {
        let log = axis.scale == Scale::Log;
        let fits = |value: &f64| value.is_finite() && (!log || *value > 0.0);
        let (mut low, mut high) = values
            .chain(axis.ticks.iter().copied())
            .filter(fits)
            .fold((f64::INFINITY, 0.0), |(low, high), value| {
                (f64::min(low, value), f64::max(high, value))
            });
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        match axis.scale {
            Scale::Linear => (low, high) = (0.0, if high > 0.0 { high * 1.05 } else { 1.0 }),
            // Some room, and never none.
            Scale::Log => (low, high) = (low / 1.15, high * 1.15),
        }
        Self {
            scale: axis.scale,
            low,
            high,
        }
    }

    /// Where a value lies between the ends, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value / self.low).log10() / (self.high / self.low).log10(),
        };
        if share.is_finite() {
            share.clamp(0.0, 1.0)
        } else {
            0.0
        }
    }

    fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

impl Axis {
    /// Values to be marked: those that were asked for, or some round ones.
    fn marks(&self, range: &Range) -> Vec<f64> {
        if !self.ticks.is_empty() {
            return self.ticks.clone();
        }
        match self.scale {
            Scale::Linear => {
                let step = round_step(range.high / 5.0);
                (0_u16..=10)
                    .map(|number| f64::from(number) * step)
                    .filter(|value| range.holds(*value))
                    .collect()
            }
            Scale::Log => {
                let marks = |digits: &[f64]| -> Vec<f64> {
                    let decades = range.low.log10().floor()..=range.high.log10().ceil();
                    let mut found = Vec::new();
                    let mut decade = *decades.start();
                    while decade <= *decades.end() {
                        found.extend(
                            digits
                                .iter()
                                .map(|digit| digit * 10_f64.powf(decade))
                                .filter(|value| range.holds(*value)),
                        );
                        decade += 1.0;
                    }
                    found
                };
                let fine = marks(&[1.0, 2.0, 5.0]);
                if fine.len() <= MOST_MARKS {
                    fine
                } else {
                    marks(&[1.0])
                }
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn round_step(least: f64) -> f64 {
    if least <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|step| *step >= least * 0.999)
        .unwrap_or(power * 10.0)
}

/// Without the zeros that a round value needs not: `5.00 ms` is `5 ms`.
fn tick(text: &str) -> String {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.contains('.') {
        format!(
            "{}{unit}",
            number.trim_end_matches('0').trim_end_matches('.')
        )
    } else {
        text.to_owned()
    }
}

/// A tenth of a pixel is enough.
fn px(value: f64) -> String {
    format!("{value:.1}")
}

fn path(places: &[(f64, f64)]) -> String {
    let steps = places.iter().map(|(x, y)| format!("{x:.1} {y:.1}"));
    match steps.collect::<Vec<_>>().join("L") {
        none if none.is_empty() => none,
        steps => format!("M{steps}"),
    }
}

fn area(places: &[(f64, f64)]) -> String {
    match (places.first(), places.last()) {
        (Some(first), Some(last)) => {
            format!(
                "{}L{:.1} {BOTTOM}L{:.1} {BOTTOM}Z",
                path(places),
                last.0,
                first.0
            )
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(scale: Scale) -> Axis {
        Axis {
            label: "label",
            scale,
            ticks: Vec::new(),
            format: |value| format!("{value}"),
        }
    }

    fn line(points: &[(f64, f64)]) -> Line {
        Line {
            colour: 0,
            name: "a <name>".to_owned(),
            points: points.to_vec(),
            filled: false,
        }
    }

    #[test]
    fn equal_ratios_are_equal_distances_on_a_log_axis() {
        let range = Range::of(&axis(Scale::Log), [1.0, 100.0].into_iter());
        let middle = range.share(10.0);
        assert!((middle - 0.5).abs() < 1e-9, "{middle}");
        assert!(range.share(1.0) > 0.0 && range.share(100.0) < 1.0);
    }

    #[test]
    fn marks_are_round_and_within_the_range() {
        let linear = axis(Scale::Linear);
        let range = Range::of(&linear, [3.0, 47.0].into_iter());
        assert_eq!(linear.marks(&range), [0.0, 10.0, 20.0, 30.0, 40.0]);
        let log = axis(Scale::Log);
        let range = Range::of(&log, [9.0, 1_000_000.0].into_iter());
        let marks = log.marks(&range);
        assert!(marks.iter().all(|mark| range.holds(*mark)), "{marks:?}");
        assert!((4..=MOST_MARKS).contains(&marks.len()), "{marks:?}");
    }

    #[test]
    fn marks_are_written_without_zeros_behind_the_point() {
        let cases = [
            ("5.00 ms", "5 ms"),
            ("0.50", "0.5"),
            ("100 µs", "100 µs"),
            ("64K", "64K"),
        ];
        for (text, short) in cases {
            assert_eq!(tick(text), short);
        }
    }

    #[test]
    fn whatever_is_drawn_the_numbers_are_numbers_and_the_names_text() {
        let cases: [&[(f64, f64)]; 4] = [
            &[],
            &[(0.0, 0.0)],
            &[(1.0, 5.0)],
            &[(1.0, 1e-9), (1e12, 3.0)],
        ];
        for points in cases {
            for scale in [Scale::Linear, Scale::Log] {
                let drawn = lines(&axis(scale), &axis(scale), &[line(points)]).into_string();
                for bad in ["NaN", "inf", "<name>"] {
                    assert!(!drawn.contains(bad), "{points:?}: {drawn}");
                }
            }
        }
    }

    #[test]
    fn the_longest_bar_ends_where_bars_end_and_none_is_fine() {
        let bar = |value, tail| Bar {
            colour: 1,
            name: "x".to_owned(),
            value,
            tail,
            text: String::new(),
        };
        let drawn = bars(&[bar(5.0, 10.0), bar(10.0, 10.0)]).into_string();
        let longest = format!("width=\"{:.1}\"", BAR_RIGHT - BAR_LEFT);
        assert_eq!(drawn.matches(&longest).count(), 3, "{drawn}");
        assert!(!bars(&[bar(0.0, 0.0)]).into_string().contains("NaN"));
    }
}
