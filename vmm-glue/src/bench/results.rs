// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What was measured: figures by name and round, and the questions that are asked of them.

use std::collections::BTreeMap;

use globalfifo_bench_protocol::Measured;
use serde::Deserialize;
use serde::Serialize;

use super::interval::Estimate;
use super::plan::Group;
use super::plan::Trial;
use super::stats;
use super::stats::Latencies;
use super::stats::Spread;
use super::stats::real;

/// One measurement with what the host saw of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// As the guest has it.
    #[serde(flatten)]
    pub guest: Measured,
    /// CPU time of QEMU and of the devices' daemons.
    pub host_cpu_nanos: u64,
}

/// What can be asked of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Operations a second.
    OperationRate,
    /// Bytes a second.
    ByteRate,
    /// Nanoseconds that half of the operations took at most.
    P50,
    /// And 99 of 100.
    P99,
    /// And 999 of 1000.
    P999,
    /// And 9999 of 10,000: of all rounds together, as one round has too few.
    P9999,
    /// Interrupts on the device's line for each operation.
    Interrupts,
    /// Nanoseconds of the guest's CPUs for each MB (10⁶ bytes).
    GuestCpu,
    /// Nanoseconds of the host's CPUs for each MB.
    HostCpu,
    /// Kernel memory of a waiter, in bytes.
    Memory,
}

/// Which measurement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name {
    /// Kind of work.
    pub group: Group,
    /// Size, depth or number of waiters.
    pub parameter: u64,
    /// Peer or mechanism.
    pub way: String,
}

/// All figures of a run.
#[derive(Debug, Default, Clone)]
pub struct Results {
    /// A place for each round; empty where nothing could be measured.
    rounds: BTreeMap<Name, Vec<Option<Figures>>>,
    /// In the order of the plan.
    order: Vec<Name>,
    /// Why a way could not be measured.
    troubles: BTreeMap<String, String>,
}

impl Figures {
    /// An answer, where the measurement has one.
    pub fn metric(&self, metric: Metric) -> Option<f64> {
        let guest = &self.guest;
        let per = |amount: u64, of: u64| (of > 0).then(|| real(amount) / real(of));
        let megabytes = guest.bytes as f64 / 1e6;
        let per_megabyte = |nanos: u64| (megabytes > 0.0).then(|| real(nanos) / megabytes);
        match metric {
            Metric::OperationRate => per(guest.operations, guest.nanos).map(|rate| rate * 1e9),
            Metric::ByteRate => per(guest.bytes, guest.nanos).map(|rate| rate * 1e9),
            Metric::P50 => Some(self.latencies()?.quantile(0.5)),
            Metric::P99 => Some(self.latencies()?.quantile(0.99)),
            Metric::P999 => self.latencies()?.but_one_in(1000),
            Metric::P9999 => self.latencies()?.but_one_in(10_000),
            Metric::Interrupts => per(guest.interrupts, guest.operations),
            Metric::GuestCpu => per_megabyte(guest.guest_cpu_nanos),
            Metric::HostCpu => per_megabyte(self.host_cpu_nanos),
            Metric::Memory => guest.waiter_bytes,
        }
    }

    fn latencies(&self) -> Option<Latencies> {
        Latencies::of(self.guest.latencies.iter().copied())
    }
}

impl Name {
    /// Of a trial.
    pub fn of(trial: &Trial) -> Self {
        Self::new(trial.group, trial.parameter, &trial.way)
    }

    /// From its parts.
    pub fn new(group: Group, parameter: u64, way: &str) -> Self {
        Self {
            group,
            parameter,
            way: way.to_owned(),
        }
    }
}

impl Results {
    /// Adds what a round gave for a trial, or that it gave nothing.
    pub fn add(&mut self, trial: &Trial, figures: Option<Figures>) {
        let name = Name::of(trial);
        if !self.rounds.contains_key(&name) {
            self.order.push(name.clone());
        }
        self.rounds.entry(name).or_default().push(figures);
    }

    /// Puts all rounds of a measurement in place of what there is of it.
    pub fn put(&mut self, name: Name, rounds: Vec<Option<Figures>>) {
        if self.rounds.insert(name.clone(), rounds).is_none() {
            self.order.push(name);
        }
    }

    /// Notes why a way is not measured.
    pub fn trouble(&mut self, way: &str, why: &str) {
        self.troubles
            .entry(way.to_owned())
            .or_insert_with(|| why.to_owned());
    }

    /// Ways that were not measured, and why.
    pub fn troubles(&self) -> &BTreeMap<String, String> {
        &self.troubles
    }

    /// Everything that was to be measured, in the order of the plan.
    pub fn names(&self) -> &[Name] {
        &self.order
    }

    /// Figures of each round.
    pub fn rounds(&self, name: &Name) -> &[Option<Figures>] {
        self.rounds.get(name).map_or(&[], Vec::as_slice)
    }

    /// A metric in each round; one of all rounds together is a single value.
    pub fn values(&self, name: &Name, metric: Metric) -> Vec<Option<f64>> {
        if metric == Metric::P9999 {
            let together = self.latencies(name);
            return vec![together.and_then(|all| all.but_one_in(10_000))];
        }
        let rounds = self.rounds(name).iter();
        rounds
            .map(|figures| figures.as_ref().and_then(|figures| figures.metric(metric)))
            .collect()
    }

    /// A metric over all rounds.
    pub fn spread(&self, name: &Name, metric: Metric) -> Option<Spread> {
        Spread::of(self.values(name, metric).into_iter().flatten())
    }

    /// A metric with the interval of its median.
    pub fn estimate(&self, name: &Name, metric: Metric) -> Option<Estimate> {
        let values = self.values(name, metric).into_iter().flatten();
        Estimate::of(&values.collect::<Vec<f64>>())
    }

    /// A metric divided by that of another measurement, round by round.
    pub fn ratios(&self, ours: &Name, theirs: &Name, metric: Metric) -> Vec<f64> {
        stats::ratios(&self.values(ours, metric), &self.values(theirs, metric))
    }

    /// The latencies of all rounds together.
    pub fn latencies(&self, name: &Name) -> Option<Latencies> {
        let rounds = self.rounds(name).iter().flatten();
        Latencies::of(rounds.flat_map(|figures| figures.guest.latencies.iter().copied()))
    }

    /// Parameters of a group, in order.
    pub fn parameters(&self, group: Group) -> Vec<u64> {
        let mut parameters: Vec<u64> = self.of(group).map(|name| name.parameter).collect();
        parameters.sort_unstable();
        parameters.dedup();
        parameters
    }

    /// Ways of a group, in the order of the plan.
    pub fn ways(&self, group: Group) -> Vec<&str> {
        let mut ways = Vec::new();
        for name in self.of(group) {
            if !ways.contains(&name.way.as_str()) {
                ways.push(name.way.as_str());
            }
        }
        ways
    }

    fn of(&self, group: Group) -> impl Iterator<Item = &Name> {
        self.order.iter().filter(move |name| name.group == group)
    }
}

/// A trial of that name that does nothing, for tests.
#[cfg(test)]
pub fn idle_trial(group: Group, parameter: u64, way: &str) -> Trial {
    Trial {
        group,
        parameter,
        way: way.to_owned(),
        task: globalfifo_bench_protocol::Task {
            work: globalfifo_bench_protocol::Work::Idle,
            millis: 0,
        },
    }
}

/// The same figures in each of so many rounds, for tests.
#[cfg(test)]
pub fn sample_rounds(rounds: usize, figures: &[(Group, u64, &str, Measured)]) -> Results {
    sample(&vec![figures; rounds].concat())
}

/// Results with these figures in one round each, for tests.
#[cfg(test)]
pub fn sample(figures: &[(Group, u64, &str, Measured)]) -> Results {
    let mut results = Results::default();
    for (group, parameter, way, guest) in figures {
        let trial = idle_trial(*group, *parameter, way);
        let figures = Figures {
            guest: guest.clone(),
            host_cpu_nanos: 1_000_000,
        };
        results.add(&trial, Some(figures));
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_of_ten_thousand_is_of_all_rounds_together() {
        let round = Measured {
            latencies: vec![(100, 9_990), (9000, 10)],
            ..Measured::default()
        };
        let one = (Group::RoundTrip, 64, "pipe", round);
        let name = Name::new(Group::RoundTrip, 64, "pipe");
        let two = sample(&[one.clone(), one.clone()]);
        assert_eq!(two.spread(&name, Metric::P9999), None);
        let three = sample(&[one.clone(), one.clone(), one]);
        let spread = three.spread(&name, Metric::P9999).unwrap();
        assert!((8990.0..9010.0).contains(&spread.median), "{spread:?}");
        // A round has enough for the slowest of a thousand.
        assert_eq!(
            three.values(&name, Metric::P999).iter().flatten().count(),
            3
        );
    }

    #[test]
    fn figures_answer_what_they_can() {
        let figures = Figures {
            guest: Measured {
                operations: 1000,
                bytes: 2_000_000,
                nanos: 500_000_000,
                guest_cpu_nanos: 40_000_000,
                interrupts: 250,
                ..Measured::default()
            },
            host_cpu_nanos: 60_000_000,
        };
        assert_eq!(figures.metric(Metric::OperationRate), Some(2000.0));
        assert_eq!(figures.metric(Metric::ByteRate), Some(4e6));
        assert_eq!(figures.metric(Metric::Interrupts), Some(0.25));
        assert_eq!(figures.metric(Metric::GuestCpu), Some(20e6));
        assert_eq!(figures.metric(Metric::HostCpu), Some(30e6));
        assert_eq!(figures.metric(Metric::P50), None);
        assert_eq!(figures.metric(Metric::Memory), None);
        let none = Figures {
            guest: Measured::default(),
            host_cpu_nanos: 0,
        };
        assert_eq!(none.metric(Metric::OperationRate), None);
        assert_eq!(none.metric(Metric::GuestCpu), None);
    }

    #[test]
    fn rounds_stay_side_by_side_when_one_fails() {
        let trial = |way: &str| idle_trial(Group::Send, 64, way);
        let rate = |operations| {
            Some(Figures {
                guest: Measured {
                    operations,
                    nanos: 1_000_000_000,
                    ..Measured::default()
                },
                host_cpu_nanos: 0,
            })
        };
        let mut results = Results::default();
        results.add(&trial("a"), rate(10));
        results.add(&trial("b"), None);
        results.add(&trial("a"), rate(100));
        results.add(&trial("b"), rate(50));
        let name = |way| Name::new(Group::Send, 64, way);
        let ratios = results.ratios(&name("a"), &name("b"), Metric::OperationRate);
        assert_eq!(ratios, [2.0]);
        assert_eq!(results.ways(Group::Send), ["a", "b"]);
        assert_eq!(results.parameters(Group::Send), [64]);
    }
}
