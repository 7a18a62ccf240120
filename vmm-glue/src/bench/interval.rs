// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Confidence intervals of medians: the bootstrap over rounds.
//!
//! Method: the percentile interval of medians of resampled rounds. Its tails are those of the *expanded* percentile interval (T. Hesterberg,
//! "What Teachers Should Know About the Bootstrap", 2015, section 4.2): the plain one is too narrow for few rounds, as a normal interval with z
//! in place of Student's t is. BCa is not used: its acceleration comes from the jackknife, which does not hold for a median.
//! Chance has a fixed seed: the same figures give the same interval.
//!
//! This file must not know what the figures mean.

use serde::Serialize;

use super::stats::median;
use super::stats::middle;

/// Confidence of an interval: in so many of 100 runs the true median lies in it.
pub const CONFIDENCE: u32 = 95;
/// Rounds below which there is no interval: even the one from the lowest to the highest of four holds the median in 87 of 100 runs only.
pub const LEAST_ROUNDS: usize = 5;

/// Resamples: the rarest tail below, 0.00095, is then three of them. An interval takes about a millisecond.
const RESAMPLES: usize = 4000;
/// Where chance begins.
const SEED: u64 = 0x5eed_f1f0;
/// Share of resamples beyond each end of the interval, by number of rounds: Φ(−√(n/(n−1)) · t), t being Student's quantile 0.975 for n−1
/// degrees of freedom. A number of rounds between two of the table has the tail of the lower one, which makes the interval wider.
const TAILS: [(usize, f64); 19] = [
    (5, 0.000_95),
    (6, 0.002_43),
    (7, 0.004_11),
    (8, 0.005_74),
    (9, 0.007_22),
    (10, 0.008_55),
    (11, 0.009_72),
    (12, 0.010_76),
    (13, 0.011_67),
    (14, 0.012_48),
    (15, 0.013_21),
    (17, 0.014_44),
    (20, 0.015_88),
    (25, 0.017_58),
    (30, 0.018_75),
    (40, 0.020_26),
    (60, 0.021_80),
    (120, 0.023_38),
    (usize::MAX, 0.025),
];

/// A confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// A figure as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// Best guess: the median of the rounds.
    pub value: f64,
    /// Where the true figure lies; `None` if there were fewer than [`LEAST_ROUNDS`].
    pub interval: Option<Interval>,
    /// Rounds; of two samples those of the smaller.
    pub rounds: usize,
}

impl Estimate {
    /// The median of rounds; `None` if there is none, or a value that is no number.
    pub fn of(values: &[f64]) -> Option<Self> {
        Self::made(&[values], |medians| medians.first().copied())
    }

    /// What `figure` makes of the medians of two samples that have nothing in common: two machines, or two runs.
    pub fn of_two(ours: &[f64], theirs: &[f64], figure: impl Fn(f64, f64) -> f64) -> Option<Self> {
        Self::made(&[ours, theirs], |medians| match medians {
            [ours, theirs] => Some(figure(*ours, *theirs)),
            _ => None,
        })
    }

    fn made(samples: &[&[f64]], figure: impl Fn(&[f64]) -> Option<f64>) -> Option<Self> {
        let samples: Vec<Vec<f64>> = samples.iter().map(|sample| sorted(sample)).collect();
        let rounds = samples.iter().map(Vec::len).min()?;
        let medians = samples.iter().map(|sample| median(sample));
        let value = figure(&medians.collect::<Option<Vec<f64>>>()?)?;
        let interval = tail(rounds).and_then(|tail| interval(&samples, figure, tail));
        value.is_finite().then_some(Self {
            value,
            interval,
            rounds,
        })
    }
}

/// The order of rounds does not count.
fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// Share of resamples beyond each end.
fn tail(rounds: usize) -> Option<f64> {
    let known = TAILS.iter().rev().find(|(least, _)| *least <= rounds);
    known.map(|(_, tail)| *tail)
}

fn interval(
    samples: &[Vec<f64>],
    figure: impl Fn(&[f64]) -> Option<f64>,
    tail: f64,
) -> Option<Interval> {
    let mut chance = fastrand::Rng::with_seed(SEED);
    let mut drawn = Vec::new();
    let mut medians = Vec::new();
    let mut figures = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        medians.clear();
        for sample in samples {
            medians.push(resampled(sample, &mut chance, &mut drawn)?);
        }
        figures.push(figure(&medians).filter(|figure| figure.is_finite())?);
    }
    figures.sort_unstable_by(f64::total_cmp);
    let beyond = share_of(tail, RESAMPLES);
    Some(Interval {
        low: *figures.get(beyond)?,
        high: *figures.get(RESAMPLES - 1 - beyond)?,
    })
}

/// The median of as many values as there are, each any of them.
fn resampled(sorted: &[f64], chance: &mut fastrand::Rng, drawn: &mut Vec<usize>) -> Option<f64> {
    drawn.clear();
    drawn.extend((0..sorted.len()).map(|_| chance.usize(..sorted.len())));
    drawn.sort_unstable();
    let at = |place: usize| sorted.get(*drawn.get(place)?).copied();
    middle(drawn.len(), at)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share between 0 and 1 of a small number"
)]
fn share_of(share: f64, count: usize) -> usize {
    (share * count as f64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Simulated runs. With a coverage of 95 %, that of so many is below 90 % once in a thousand times.
    const RUNS: u32 = 200;

    /// A value of a distribution that machines' figures resemble: many at the bottom, a long tail. Its median is 1.
    fn log_normal(chance: &mut fastrand::Rng) -> f64 {
        // Box and Muller.
        let radius = (-2.0 * f64::ln(1.0 - chance.f64())).sqrt();
        let angle = std::f64::consts::TAU * chance.f64();
        (0.3 * radius * angle.cos()).exp()
    }

    fn sample(rounds: usize, chance: &mut fastrand::Rng) -> Vec<f64> {
        (0..rounds).map(|_| log_normal(chance)).collect()
    }

    /// Of `runs` intervals, the share that holds the truth.
    fn coverage(
        runs: u32,
        mut interval: impl FnMut(&mut fastrand::Rng) -> Interval,
        truth: f64,
    ) -> f64 {
        let mut chance = fastrand::Rng::with_seed(1);
        let holds = (0..runs).filter(|_| {
            let interval = interval(&mut chance);
            (interval.low..=interval.high).contains(&truth)
        });
        f64::from(u32::try_from(holds.count()).unwrap()) / f64::from(runs)
    }

    #[test]
    fn the_true_median_lies_in_the_interval_as_often_as_is_said() {
        for rounds in [5, 7, 20] {
            let share = coverage(
                RUNS,
                |chance| {
                    Estimate::of(&sample(rounds, chance))
                        .unwrap()
                        .interval
                        .unwrap()
                },
                1.0,
            );
            assert!((0.9..0.999).contains(&share), "{rounds} rounds: {share}");
        }
    }

    #[test]
    fn the_true_ratio_of_two_runs_lies_in_the_interval_as_often_as_is_said() {
        for (before, after) in [(5, 5), (5, 15)] {
            let ratio = |chance: &mut fastrand::Rng| {
                let (ours, theirs) = (sample(after, chance), sample(before, chance));
                let ratio = Estimate::of_two(&ours, &theirs, |ours, theirs| ours / theirs);
                ratio.unwrap().interval.unwrap()
            };
            let share = coverage(RUNS, ratio, 1.0);
            assert!(share > 0.9, "{before} and {after} rounds: {share}");
        }
    }

    #[test]
    fn more_rounds_make_the_interval_narrower() {
        let mut chance = fastrand::Rng::with_seed(2);
        let mut width = |rounds| {
            let widths = (0..20).map(|_| {
                let found = Estimate::of(&sample(rounds, &mut chance)).unwrap();
                let Interval { low, high } = found.interval.unwrap();
                high - low
            });
            widths.sum::<f64>()
        };
        let (few, many) = (width(5), width(40));
        assert!(many < few / 2.0, "{few} {many}");
    }

    #[test]
    fn the_same_figures_give_the_same_interval_whatever_their_order() {
        let values = [1.0, 4.0, 2.0, 8.0, 5.0, 7.0];
        let mut sorted = values;
        sorted.sort_unstable_by(f64::total_cmp);
        assert_eq!(Estimate::of(&values), Estimate::of(&values));
        assert_eq!(Estimate::of(&values), Estimate::of(&sorted));
    }

    #[test]
    fn few_rounds_have_a_value_and_no_interval() {
        assert_eq!(Estimate::of(&[]), None);
        for rounds in 1..LEAST_ROUNDS {
            let found = Estimate::of(&vec![2.0; rounds]).unwrap();
            assert_eq!((found.value, found.interval), (2.0, None));
            assert_eq!(found.rounds, rounds);
        }
        let five = Estimate::of(&[3.0, 1.0, 2.0, 5.0, 4.0]).unwrap();
        let all = Interval {
            low: 1.0,
            high: 5.0,
        };
        assert_eq!((five.value, five.interval), (3.0, Some(all)));
    }

    #[test]
    fn ties_have_an_interval_of_one_point() {
        let tied = Estimate::of(&[0.0; 5]).unwrap();
        let point = Interval {
            low: 0.0,
            high: 0.0,
        };
        assert_eq!(tied.interval, Some(point));
    }

    #[test]
    fn what_is_no_number_has_no_estimate() {
        assert_eq!(Estimate::of(&[1.0, f64::NAN, 1.0, 1.0, 1.0]), None);
        assert_eq!(Estimate::of(&[f64::INFINITY; 5]), None);
        let ratio = |ours: &[f64], theirs: &[f64]| Estimate::of_two(ours, theirs, |a, b| a / b);
        assert_eq!(ratio(&[1.0; 5], &[0.0; 5]), None);
        // The median may be a number where a resample's ratio is none.
        let zeros = ratio(&[1.0; 5], &[0.0, 0.0, 1.0, 1.0, 1.0]).unwrap();
        assert_eq!((zeros.value, zeros.interval), (1.0, None));
    }

    #[test]
    fn the_tail_of_a_number_between_two_is_that_of_the_lower() {
        assert_eq!(tail(4), None);
        assert_eq!(tail(5), Some(0.000_95));
        assert_eq!(tail(16), tail(15));
        assert_eq!(tail(119), tail(60));
        assert!(TAILS.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn the_interval_holds_the_estimate_and_stays_within_the_values(
            values in proptest::collection::vec(-1e6..1e6, 5..30)
        ) {
            let found = Estimate::of(&values).unwrap();
            let Interval { low, high } = found.interval.unwrap();
            prop_assert!(low <= found.value && found.value <= high);
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(least <= low && high <= most);
        }

        #[test]
        fn a_factor_of_all_figures_is_a_factor_of_the_interval(
            values in proptest::collection::vec(0.1..10.0, 5..12),
        ) {
            let plain = Estimate::of(&values).unwrap().interval.unwrap();
            let doubled: Vec<f64> = values.iter().map(|value| value * 2.0).collect();
            let doubled = Estimate::of(&doubled).unwrap().interval.unwrap();
            prop_assert_eq!(doubled.low, plain.low * 2.0);
            prop_assert_eq!(doubled.high, plain.high * 2.0);
        }
    }
}
