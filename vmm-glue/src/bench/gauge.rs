// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A small picture of an interval beside a limit, for a cell of a table.
//!
//! This file must not know what the figures mean: the page has the colours, by the classes `gauge`, `limit`, `span` and `point`.

use maud::Markup;
use maud::html;

use super::interval::Estimate;

const WIDTH: f64 = 160.0;
const HEIGHT: f64 = 18.0;
const MIDDLE: f64 = HEIGHT / 2.0;
/// The picture ends at this many times the limit, and at as small a part of it.
const REACH: f64 = 4.0;
/// An interval that is narrower is still to be seen.
const THINNEST: f64 = 3.0;

/// Limit in the middle, interval and median by their ratio to it; nothing where there is no ratio.
pub fn gauge(estimate: &Estimate, limit: f64) -> Markup {
    let Some(interval) = estimate.interval else {
        return html! {};
    };
    let figures = [interval.low, estimate.value, interval.high];
    if limit <= 0.0 || figures.iter().any(|figure| *figure < 0.0) {
        return html! {};
    }
    let [low, point, high] = figures.map(|figure| place(figure / limit));
    let width = (high - low).max(THINNEST);
    let left = (f64::midpoint(low, high) - width / 2.0).clamp(0.0, WIDTH - width);
    html! {
        svg.gauge viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) width=(WIDTH) height=(HEIGHT) aria-hidden="true" {
            line.grid x1="0" x2=(WIDTH) y1=(MIDDLE) y2=(MIDDLE) {}
            rect.span x=(px(left)) y=(MIDDLE - 4.0) width=(px(width)) height="8" rx="2" {}
            line.limit x1=(WIDTH / 2.0) x2=(WIDTH / 2.0) y1="1" y2=(HEIGHT - 1.0) {}
            circle.point cx=(px(point)) cy=(MIDDLE) r="3" {}
        }
    }
}

/// Equal ratios are equal distances; 0 is at the left end, and so is whatever is out of reach.
fn place(ratio: f64) -> f64 {
    let share = (ratio.ln() / REACH.ln()).clamp(-1.0, 1.0);
    (share + 1.0) / 2.0 * WIDTH
}

fn px(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_in_the_middle_and_the_rest_is_kept_within_the_picture() {
        assert_eq!(place(1.0), WIDTH / 2.0);
        assert_eq!(place(2.0), WIDTH * 0.75);
        assert_eq!(place(0.5), WIDTH * 0.25);
        assert_eq!((place(0.0), place(1e9)), (0.0, WIDTH));
    }

    #[test]
    fn what_has_no_interval_or_no_ratio_has_no_picture() {
        let drawn = |values: &[f64], limit| {
            let estimate = Estimate::of(values).unwrap();
            gauge(&estimate, limit).into_string()
        };
        assert!(drawn(&[0.5; 5], 0.8).contains("<svg"));
        assert!(drawn(&[0.0; 5], 0.8).contains("<svg"));
        assert!(!drawn(&[0.0; 5], 0.8).contains("NaN"));
        assert!(drawn(&[0.5; 4], 0.8).is_empty());
        assert!(drawn(&[0.0; 5], 0.0).is_empty());
        assert!(drawn(&[-1.0; 5], 0.8).is_empty());
    }
}
