// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The order of measurements: rounds of everything, then more rounds of what the undecided goals are made of.
//!
//! Verdicts are looked at after each block of rounds only, not after each round: whoever looks often enough sees any verdict once.
//! This file must not know machines: a [`Host`] measures.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;

use super::goals;
use super::goals::Verdict;
use super::interval::LEAST_ROUNDS;
use super::plan::Trial;
use super::results::Figures;
use super::results::Name;
use super::results::Results;

/// Rounds of a block, and so of everything: as many as an interval wants.
pub const BLOCK: usize = LEAST_ROUNDS;

/// How far a run may go to decide every goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Rounds.
    pub most: usize,
    /// Time for all of them.
    pub time: Duration,
}

/// What measures.
pub trait Host {
    /// Measures once; the inner error is why the guest could not.
    fn measure(&mut self, trial: &Trial) -> Result<Result<Figures, String>>;

    /// A round of `count` trials begins.
    fn begin(&mut self, round: usize, count: usize);

    /// Whether there is time for another measurement.
    fn in_time(&self) -> bool;
}

/// What became of the rounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ran {
    /// Rounds of everything.
    pub all: usize,
    /// Rounds of what took the most.
    pub most: usize,
    /// The time was up before the bound of rounds was reached.
    pub out_of_time: bool,
}

/// Measures until every goal is decided, or a bound reached.
pub fn run(
    trials: &[Trial],
    bounds: Bounds,
    results: &mut Results,
    host: &mut impl Host,
) -> Result<Ran> {
    let mut ran = Ran::default();
    let mut wanted: BTreeSet<Name> = trials.iter().map(Name::of).collect();
    while !wanted.is_empty() && ran.most < bounds.most {
        for _ in 0..BLOCK.min(bounds.most - ran.most) {
            ran.most += 1;
            if ran.most <= BLOCK {
                ran.all = ran.most;
            }
            host.begin(ran.most, wanted.len());
            for trial in in_turn(trials, ran.most) {
                // Rounds stay side by side: one without a figure has an empty place.
                let figures = if wanted.contains(&Name::of(trial)) && host.in_time() {
                    measure(trial, results, host)?
                } else {
                    None
                };
                results.add(trial, figures);
            }
            if !host.in_time() {
                ran.out_of_time = true;
                return Ok(ran);
            }
        }
        wanted = undecided(trials, results);
    }
    Ok(ran)
}

fn measure(trial: &Trial, results: &mut Results, host: &mut impl Host) -> Result<Option<Figures>> {
    // What did not work once would take its time limit again.
    if is_known_bad(trial, results) {
        return Ok(None);
    }
    Ok(match host.measure(trial)? {
        Ok(figures) => Some(figures),
        Err(why) => {
            results.trouble(&trial.name(), &why);
            None
        }
    })
}

fn is_known_bad(trial: &Trial, results: &Results) -> bool {
    let troubles = results.troubles();
    troubles.contains_key(&trial.way) || troubles.contains_key(&trial.name())
}

/// Measurements of which another round helps.
fn undecided(trials: &[Trial], results: &Results) -> BTreeSet<Name> {
    let works = |name: &Name| {
        let mut of_name = trials.iter().filter(|trial| Name::of(trial) == *name);
        of_name.any(|trial| !is_known_bad(trial, results))
    };
    let goals = goals::judge(results).into_iter();
    goals
        .filter(|goal| goal.verdict == Verdict::Undecided && goal.sources.iter().all(works))
        .flat_map(|goal| goal.sources)
        .collect()
}

/// Every other round is backwards: what comes first in one comes last in the next, so that neither a change of the
/// machine's speed nor what a measurement leaves behind favours one of two that are compared.
fn in_turn(trials: &[Trial], round: usize) -> Box<dyn Iterator<Item = &Trial> + '_> {
    if round % 2 == 1 {
        Box::new(trials.iter())
    } else {
        Box::new(trials.iter().rev())
    }
}

#[cfg(test)]
mod tests {
    use globalfifo_bench_protocol::Measured;

    use super::super::plan::GLOBALFIFO;
    use super::super::plan::Group;
    use super::super::plan::SERIAL;
    use super::super::results::Metric;
    use super::super::results::idle_trial;
    use super::*;

    /// A machine whose peer takes 1000 ns for everything; `ours` says what a globalfifo trial takes.
    struct Fake<F> {
        ours: F,
        done: Vec<String>,
        rounds: Vec<usize>,
        time: usize,
    }

    impl<F: FnMut(&Trial, usize) -> Result<u64, String>> Host for Fake<F> {
        fn measure(&mut self, trial: &Trial) -> Result<Result<Figures, String>> {
            let same = |name: &&String| **name == trial.name();
            let turn = self.done.iter().filter(same).count();
            self.done.push(trial.name());
            let nanos = match trial.way.as_str() {
                GLOBALFIFO => (self.ours)(trial, turn),
                _ => Ok(1000),
            };
            Ok(nanos.map(|nanos| Figures {
                guest: Measured {
                    operations: 1_000_000 / nanos,
                    bytes: 1_000_000 / nanos,
                    nanos: 1_000_000,
                    latencies: vec![(nanos, 1000)],
                    ..Measured::default()
                },
                host_cpu_nanos: 0,
            }))
        }

        fn begin(&mut self, _round: usize, count: usize) {
            self.rounds.push(count);
        }

        fn in_time(&self) -> bool {
            self.done.len() < self.time
        }
    }

    fn trials() -> Vec<Trial> {
        let both = |group, size| [GLOBALFIFO, SERIAL].map(|way| idle_trial(group, size, way));
        [
            both(Group::RoundTrip, 64),
            both(Group::Send, 1 << 20),
            both(Group::Send, 512),
        ]
        .concat()
    }

    fn ran<F: FnMut(&Trial, usize) -> Result<u64, String>>(
        most: usize,
        time: usize,
        ours: F,
    ) -> (Ran, Fake<F>, Results) {
        let mut host = Fake {
            ours,
            done: Vec::new(),
            rounds: Vec::new(),
            time,
        };
        let bounds = Bounds {
            most,
            time: Duration::MAX,
        };
        let mut results = Results::default();
        let ran = run(&trials(), bounds, &mut results, &mut host).unwrap();
        (ran, host, results)
    }

    #[test]
    fn goals_that_are_decided_have_one_block_of_rounds() {
        let (ran, host, _) = ran(100, usize::MAX, |_, _| Ok(100));
        assert_eq!((ran.all, ran.most, ran.out_of_time), (5, 5, false));
        assert_eq!(host.rounds, [6; 5]);
        // Forwards, then backwards.
        assert_eq!(host.done[0], host.done[11]);
    }

    #[test]
    fn only_what_is_undecided_has_more_rounds() {
        // The round trip is at its limit of 0.8, in turn better and worse; what is sent is far from its own.
        let ours = |trial: &Trial, turn| match trial.group {
            Group::RoundTrip => Ok(if turn % 2 == 0 { 700 } else { 900 }),
            _ => Ok(100),
        };
        let (ran, host, results) = ran(12, usize::MAX, ours);
        assert_eq!((ran.all, ran.most), (5, 12));
        assert_eq!(host.rounds, [[6; 5].as_slice(), &[2; 7]].concat());
        let name = |way| Name::new(Group::RoundTrip, 64, way);
        let ratios = results.ratios(&name(GLOBALFIFO), &name(SERIAL), Metric::P50);
        assert_eq!(ratios.len(), 12);
        // Rounds stay side by side.
        let all = results
            .names()
            .iter()
            .map(|name| results.rounds(name).len());
        assert_eq!(all.collect::<Vec<_>>(), [12; 6]);
    }

    #[test]
    fn rounds_stop_when_their_block_has_decided() {
        let ours = |trial: &Trial, turn| match trial.group {
            Group::RoundTrip => Ok(if turn == 0 { 900 } else { 500 }),
            _ => Ok(100),
        };
        let (ran, ..) = ran(100, usize::MAX, ours);
        assert_eq!(ran.most, 10);
    }

    #[test]
    fn the_time_ends_a_round_in_its_middle() {
        let (ran, host, results) = ran(100, 9, |_, _| Ok(100));
        assert_eq!((ran.most, ran.out_of_time), (2, true));
        assert_eq!(host.done.len(), 9);
        let of_two = |name: &Name| results.rounds(name).iter().flatten().count();
        let measured: usize = results.names().iter().map(of_two).sum();
        assert_eq!(measured, 9);
    }

    #[test]
    fn what_failed_is_not_measured_again_nor_its_goal_waited_for() {
        let ours = |trial: &Trial, turn| match trial.group {
            Group::RoundTrip if turn == 2 => Err("it did not end in time".to_owned()),
            _ => Ok(100),
        };
        let (ran, host, results) = ran(100, usize::MAX, ours);
        assert_eq!(ran.most, 5);
        let failed = "round-trip/64/globalfifo";
        assert_eq!(host.done.iter().filter(|name| *name == failed).count(), 3);
        assert_eq!(
            results.troubles().get(failed).unwrap(),
            "it did not end in time"
        );
    }

    #[test]
    fn fewer_rounds_than_a_block_can_be_asked_for() {
        let (ran, host, _) = ran(2, usize::MAX, |_, _| Ok(100));
        assert_eq!((ran.all, ran.most), (2, 2));
        assert_eq!(host.rounds, [6; 2]);
    }
}
