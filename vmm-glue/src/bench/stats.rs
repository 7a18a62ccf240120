// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Medians with their spread, ratios, and latency distributions.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Values beyond a quantile of the tail that there should be on average. With fewer than three, the slowest value seen is in more than one
/// measurement of twenty faster than the quantile itself (the rule of three: e⁻³ is 0.05).
const BEYOND: u64 = 3;

/// The median of several rounds, with the lowest and the highest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
}

impl Spread {
    /// Of some values; `None` if there is none, or one that is no number.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        if sorted.iter().any(|value| !value.is_finite()) {
            return None;
        }
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            median: median(&sorted)?,
            low: *sorted.first()?,
            high: *sorted.last()?,
        })
    }
}

/// The middle one of sorted values, or the mean of the middle two; `None` if there is none, or if one is no number.
pub fn median(sorted: &[f64]) -> Option<f64> {
    // Infinities and NaN are at the ends.
    let ends = [sorted.first()?, sorted.last()?];
    if ends.into_iter().any(|end| !end.is_finite()) {
        return None;
    }
    middle(sorted.len(), |place| sorted.get(place).copied())
}

/// The same of `count` values that are to be had by their places.
pub fn middle(count: usize, at: impl Fn(usize) -> Option<f64>) -> Option<f64> {
    let upper = at(count / 2)?;
    if count.is_multiple_of(2) {
        Some(f64::midpoint(at(count / 2 - 1)?, upper))
    } else {
        Some(upper)
    }
}

/// What was measured side by side in each round, divided: a machine that was slow in a round was so for both.
pub fn ratios(ours: &[Option<f64>], theirs: &[Option<f64>]) -> Vec<f64> {
    let pairs = ours.iter().zip(theirs);
    let ratio = |(ours, theirs): (&Option<f64>, &Option<f64>)| {
        let theirs = (*theirs)?;
        (theirs > 0.0).then_some((*ours)? / theirs)
    };
    pairs.filter_map(ratio).collect()
}

/// A distribution of nanoseconds.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// From values and how often each was seen; `None` if there are none.
    pub fn of(counts: impl IntoIterator<Item = (u64, u64)>) -> Option<Self> {
        let mut histogram = Histogram::new(3).ok()?;
        for (value, count) in counts {
            histogram.record_n(value, count).ok()?;
        }
        (!histogram.is_empty()).then_some(Self(histogram))
    }

    /// The value that this share (0 to 1) of all does not exceed.
    pub fn quantile(&self, share: f64) -> f64 {
        real(self.0.value_at_quantile(share))
    }

    /// The value that all but one in `many` do not exceed: `None` if there are too few for it.
    pub fn but_one_in(&self, many: u64) -> Option<f64> {
        let enough = self.count() >= BEYOND.checked_mul(many)?;
        enough.then(|| self.quantile(1.0 - 1.0 / real(many)))
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The share of values in each of the steps that a decade is cut into, from the first that has any to the last: the step's middle, and the
    /// share.
    pub fn density(&self, steps_a_decade: f64) -> Vec<(f64, f64)> {
        let step_of = |value: u64| (real(value.max(1)).log10() * steps_a_decade).floor();
        let mut steps: Vec<(f64, u64)> = Vec::new();
        for seen in self.0.iter_recorded() {
            let step = step_of(seen.value_iterated_to());
            // Steps without values are part of the picture.
            while let Some((last, _)) = steps.last()
                && *last < step
            {
                steps.push((last + 1.0, 0));
            }
            match steps.last_mut() {
                Some((_, count)) => *count += seen.count_at_value(),
                None => steps.push((step, seen.count_at_value())),
            }
        }
        let all = real(self.count());
        let middle = |step: f64| 10_f64.powf((step + 0.5) / steps_a_decade);
        steps
            .into_iter()
            .map(|(step, count)| (middle(step), real(count) / all))
            .collect()
    }
}

/// A count as a number to calculate with.
#[expect(
    clippy::cast_precision_loss,
    reason = "figures to be shown with three digits"
)]
pub fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_whatever_the_order() {
        let spread = Spread::of([3.0, 1.0, 100.0]).unwrap();
        assert_eq!((spread.median, spread.low, spread.high), (3.0, 1.0, 100.0));
        assert_eq!(Spread::of([1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([1.0, f64::NAN]), None);
    }

    #[test]
    fn ratios_are_of_the_same_round_and_rounds_that_lack_one_do_not_count() {
        // Everything was ten times slower in the second round; the ratio was not.
        let ours = [Some(2.0), Some(20.0), None, Some(1.0)];
        let theirs = [Some(1.0), Some(10.0), Some(1.0), Some(0.0)];
        assert_eq!(ratios(&ours, &theirs), [2.0, 2.0]);
        assert!(ratios(&[None], &[Some(1.0)]).is_empty());
        // A round that only one of the two had.
        assert_eq!(ratios(&[Some(1.0), Some(2.0)], &[Some(4.0)]), [0.25]);
    }

    #[test]
    fn quantiles_are_those_of_all_values() {
        let latencies = Latencies::of([(100, 98), (1000, 1), (5000, 1)]).unwrap();
        assert_eq!(latencies.count(), 100);
        let near = |got: f64, want: f64| (got - want).abs() <= want / 500.0;
        assert!(near(latencies.quantile(0.5), 100.0));
        assert!(near(latencies.quantile(0.99), 1000.0));
        assert!(near(latencies.quantile(1.0), 5000.0));
        assert!(Latencies::of([]).is_none());
    }

    #[test]
    fn a_quantile_of_the_tail_wants_three_values_beyond_it() {
        let of = |count: u64| Latencies::of([(100, count - 2), (9000, 2)]).unwrap();
        assert_eq!(of(2999).but_one_in(1000), None);
        assert!(of(3000).but_one_in(1000).is_some());
        assert_eq!(of(29_999).but_one_in(10_000), None);
        assert!(of(30_000).but_one_in(10_000).is_some());
        // 10 of 30,000 are more than one in 10,000, and fewer than one in 1000.
        let slow = Latencies::of([(100, 29_990), (9000, 10)]).unwrap();
        let found = slow.but_one_in(10_000).unwrap();
        assert!((8990.0..9010.0).contains(&found), "{found}");
        assert!(slow.but_one_in(1000).unwrap() < 101.0);
        assert_eq!(slow.but_one_in(u64::MAX), None);
    }

    #[test]
    fn a_density_adds_up_and_rises_with_the_values() {
        let latencies = Latencies::of([(10, 5), (11, 5), (100, 10)]).unwrap();
        let density = latencies.density(10.0);
        // 10 to 100 is a decade; between the first step and the last there is nothing.
        assert_eq!(density.len(), 11);
        assert_eq!(density.iter().filter(|(_, share)| *share > 0.0).count(), 2);
        assert!((density.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(density.is_sorted_by(|a, b| a.0 < b.0));
    }
}
