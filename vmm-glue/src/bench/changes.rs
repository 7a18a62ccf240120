// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is faster or slower than in an earlier run, measurement by measurement.
//!
//! Two runs have no round in common. Where a measurement has a peer of which no change of the driver knows, each round is divided by the
//! peer's of the same round first: a machine that was slow then, or is slow now, was so for both. Other measurements are compared as they are.

use serde::Serialize;

use super::baseline::Baseline;
use super::facts::Facts;
use super::interval::Estimate;
use super::plan::DEVICE_ALONE;
use super::plan::Group;
use super::plan::PIPE;
use super::plan::PIPE_NOTICES;
use super::plan::SERIAL;
use super::plan::VSOCK;
use super::results::Metric;
use super::results::Name;
use super::results::Results;
use super::stats;
use super::stats::Spread;

/// What became of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// The whole interval is above 1.
    Faster,
    /// The whole interval is below 1.
    Slower,
    /// The interval holds 1: what difference there is cannot be told from chance.
    Same,
    /// One of the runs had too few rounds for an interval.
    Unknown,
}

/// A measurement that both runs have.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Which.
    #[serde(flatten)]
    pub name: Name,
    /// Time, or rate.
    pub metric: Metric,
    /// Median of the earlier run.
    pub before: f64,
    /// Median of this run.
    pub now: f64,
    /// How many times as fast it is now.
    pub speed: Estimate,
    /// The peer by which rounds were divided.
    pub beside: Option<&'static str>,
    /// And so.
    pub change: Change,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Changes {
    /// Measurements of both runs.
    pub rows: Vec<Row>,
    /// How many times as fast the peers are now: the machine's own change.
    pub machine: Option<Spread>,
    /// Facts of the two runs that differ.
    pub differences: Vec<String>,
    /// Measurements that only the earlier run has.
    pub only_before: usize,
    /// Measurements that only this run has.
    pub only_now: usize,
}

/// What is compared in a group.
fn metrics(group: Group) -> &'static [Metric] {
    match group {
        Group::RoundTrip => &[Metric::P50, Metric::P99],
        Group::Send | Group::Receive | Group::Loopback => &[Metric::ByteRate],
        Group::Depth => &[Metric::OperationRate],
        Group::Notify | Group::Waiters | Group::OpenClose => &[Metric::P50],
    }
}

/// Whether no driver of ours has a part in it.
fn is_peer(way: &str) -> bool {
    let notices = PIPE_NOTICES.map(|(_, name)| name);
    [SERIAL, VSOCK, PIPE].contains(&way) || notices.contains(&way)
}

/// The peer that is measured beside it.
fn peer_of(name: &Name) -> Option<&'static str> {
    match name.group {
        Group::RoundTrip | Group::Send | Group::Receive if name.way != DEVICE_ALONE => Some(SERIAL),
        Group::Loopback => Some(PIPE),
        // The first of them is the read.
        Group::Notify => PIPE_NOTICES.first().map(|(_, name)| *name),
        _ => None,
    }
}

impl Changes {
    /// Compares a run with an earlier one.
    pub fn since(earlier: &Baseline, facts: &Facts, results: &Results) -> Self {
        let both = (&earlier.results, results);
        let (peers, ours): (Vec<&Name>, Vec<&Name>) =
            results.names().iter().partition(|name| is_peer(&name.way));
        let speeds = |names: Vec<&Name>| -> Vec<Row> {
            let pairs = names.into_iter().flat_map(|name| {
                metrics(name.group)
                    .iter()
                    .map(move |metric| (name, *metric))
            });
            pairs
                .filter_map(|(name, metric)| row(both, name, metric))
                .collect()
        };
        let missing = |from: &Results, to: &Results| {
            let names = from.names().iter();
            names
                .filter(|name| !is_peer(&name.way))
                .filter(|name| has_any(from, name) && !has_any(to, name))
                .count()
        };
        Self {
            rows: speeds(ours),
            machine: Spread::of(speeds(peers).into_iter().map(|row| row.speed.value)),
            differences: facts.differences_to(&earlier.facts),
            only_before: missing(&earlier.results, results),
            only_now: missing(results, &earlier.results),
        }
    }

    /// Rows with this change.
    pub fn count(&self, change: Change) -> usize {
        self.rows.iter().filter(|row| row.change == change).count()
    }
}

fn has_any(results: &Results, name: &Name) -> bool {
    results.rounds(name).iter().any(Option::is_some)
}

fn row((before, now): (&Results, &Results), name: &Name, metric: Metric) -> Option<Row> {
    let median = |results: &Results| Some(results.spread(name, metric)?.median);
    let pair = peer_of(name)
        .filter(|peer| *peer != name.way)
        .map(|peer| (peer, Name::new(name.group, name.parameter, peer)))
        .filter(|(_, peer)| has_any(before, peer) && has_any(now, peer));
    let of = |results: &Results| {
        let own = speeds(results, name, metric);
        match &pair {
            Some((_, peer)) => stats::ratios(&own, &speeds(results, peer, metric)),
            None => own.into_iter().flatten().collect(),
        }
    };
    let speed = Estimate::of_two(&of(now), &of(before), |now, before| now / before)?;
    Some(Row {
        name: name.clone(),
        metric,
        before: median(before)?,
        now: median(now)?,
        speed,
        beside: pair.map(|(peer, _)| peer),
        change: judge(&speed),
    })
}

/// Rates, and times turned into rates: more is faster.
fn speeds(results: &Results, name: &Name, metric: Metric) -> Vec<Option<f64>> {
    let values = results.values(name, metric).into_iter();
    let speed = |value: f64| match metric {
        Metric::ByteRate | Metric::OperationRate => value,
        _ => 1.0 / value,
    };
    values.map(|value| value.map(speed)).collect()
}

fn judge(speed: &Estimate) -> Change {
    match speed.interval {
        None => Change::Unknown,
        Some(interval) if interval.low > 1.0 => Change::Faster,
        Some(interval) if interval.high < 1.0 => Change::Slower,
        Some(_) => Change::Same,
    }
}

#[cfg(test)]
mod tests {
    use globalfifo_bench_protocol::Measured;

    use super::super::plan::GLOBALFIFO;
    use super::super::results::Figures;
    use super::super::results::idle_trial;
    use super::super::results::sample_rounds;
    use super::*;

    fn latency(nanos: u64) -> Measured {
        Measured {
            latencies: vec![(nanos, 10)],
            ..Measured::default()
        }
    }

    fn rate(bytes: u64) -> Measured {
        Measured {
            operations: bytes / 64,
            bytes,
            nanos: 1_000_000_000,
            ..Measured::default()
        }
    }

    /// Rounds with these round trips of ours and of the peer.
    fn round_trips(rounds: &[(u64, u64)]) -> Results {
        let mut results = Results::default();
        for (ours, theirs) in rounds {
            for (way, nanos) in [(GLOBALFIFO, ours), (SERIAL, theirs)] {
                let figures = Figures {
                    guest: latency(*nanos),
                    host_cpu_nanos: 0,
                };
                results.add(&idle_trial(Group::RoundTrip, 64, way), Some(figures));
            }
        }
        results
    }

    fn changes(before: Results, now: &Results) -> Changes {
        let facts = Facts::default();
        let earlier = Baseline {
            facts: facts.clone(),
            results: before,
        };
        Changes::since(&earlier, &facts, now)
    }

    #[test]
    fn a_machine_that_is_slower_now_is_no_change_of_what_has_a_peer() {
        let before = [(50, 100), (51, 100), (49, 100), (52, 104), (50, 101)];
        // Twice as slow in all, and in one round five times.
        let now = before.map(|(ours, theirs)| (ours * 2, theirs * 2));
        let mut now = now.to_vec();
        now.push((250, 500));
        let found = changes(round_trips(&before), &round_trips(&now));
        assert_eq!(found.rows.len(), 2);
        for row in &found.rows {
            assert_eq!(row.change, Change::Same, "{row:?}");
            assert_eq!(row.beside, Some(SERIAL));
            assert!((row.speed.value - 1.0).abs() < 0.05);
        }
        let machine = found.machine.unwrap().median;
        assert!((machine - 0.5).abs() < 0.05, "{machine}");
        assert_eq!(found.count(Change::Same), 2);
    }

    #[test]
    fn half_the_time_is_twice_as_fast_and_half_the_rate_is_half_as_fast() {
        let run = |nanos, bytes| {
            let (trip, event) = (latency(nanos), latency(nanos));
            let figures = [
                (Group::Waiters, 10, "libaio reads", event),
                (Group::RoundTrip, 64, GLOBALFIFO, trip),
                (Group::Send, 64, DEVICE_ALONE, rate(bytes)),
            ];
            sample_rounds(5, &figures)
        };
        let found = changes(run(100, 1000), &run(50, 500));
        let of = |group| {
            found
                .rows
                .iter()
                .find(|row| row.name.group == group)
                .unwrap()
        };
        for group in [Group::Waiters, Group::RoundTrip] {
            assert_eq!(of(group).change, Change::Faster);
            assert_eq!(of(group).speed.value, 2.0);
            // No peer was measured.
            assert_eq!(of(group).beside, None);
        }
        assert_eq!(of(Group::Send).change, Change::Slower);
        assert_eq!(of(Group::Send).speed.value, 0.5);
        assert_eq!(
            (of(Group::Send).before, of(Group::Send).now),
            (1000.0, 500.0)
        );
    }

    #[test]
    fn few_rounds_of_either_run_leave_it_unknown() {
        let rounds = |count: usize| round_trips(&vec![(50, 100); count]);
        assert_eq!(
            changes(rounds(4), &rounds(20)).rows[0].change,
            Change::Unknown
        );
        assert_eq!(
            changes(rounds(20), &rounds(4)).rows[0].change,
            Change::Unknown
        );
        assert_eq!(changes(rounds(5), &rounds(5)).rows[0].change, Change::Same);
    }

    #[test]
    fn what_only_one_run_has_is_counted_and_not_compared() {
        let one = |size| sample_rounds(5, &[(Group::Send, size, GLOBALFIFO, rate(1000))]);
        let found = changes(one(64), &one(512));
        assert!(found.rows.is_empty());
        assert_eq!((found.only_before, found.only_now), (1, 1));
        assert_eq!(found.machine, None);
    }

    #[test]
    fn values_that_are_no_numbers_are_not_compared() {
        let idle = sample_rounds(5, &[(Group::Send, 64, GLOBALFIFO, rate(0))]);
        let found = changes(idle.clone(), &idle);
        assert!(found.rows.is_empty(), "{found:?}");
    }

    #[test]
    fn every_group_has_something_that_is_compared() {
        for group in Group::ALL {
            assert!(!metrics(group).is_empty());
        }
        assert!(is_peer("read of a pipe") && !is_peer("read"));
    }
}
