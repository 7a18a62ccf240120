// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The goals, and whether a run meets them.
//!
//! The verdict comes from the confidence interval of a goal's figure: *met* if all of it keeps to the limit, *missed* if none of it does, and
//! *undecided* if the limit lies within, or if there were too few rounds for an interval.

use serde::Serialize;

use super::interval::Estimate;
use super::interval::Interval;
use super::plan::GLOBALFIFO;
use super::plan::Group;
use super::plan::OPEN_CLOSE;
use super::plan::SERIAL;
use super::plan::STRANGERS;
use super::results::Metric;
use super::results::Name;
use super::results::Results;

/// What a figure must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// Not more.
    AtMost(f64),
    /// Not less.
    AtLeast(f64),
}

/// What became of a goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The whole interval keeps to the limit.
    Met,
    /// No part of it does.
    Missed,
    /// The limit lies within the interval, or there is none yet.
    Undecided,
    /// This run has no figure for it.
    NotMeasured,
}

/// A goal with its figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goal {
    /// Which work.
    pub work: String,
    /// Compared with what.
    pub against: &'static str,
    /// What is wanted.
    pub limit: Limit,
    /// What is; its unit goes without saying or is in `work`.
    pub figure: Option<Estimate>,
    /// And so.
    pub verdict: Verdict,
    /// Measurements that the figure is made of: another round of them makes it more exact.
    #[serde(skip)]
    pub sources: Vec<Name>,
}

impl Limit {
    /// The number.
    pub fn value(self) -> f64 {
        match self {
            Self::AtMost(limit) | Self::AtLeast(limit) => limit,
        }
    }

    fn judge(self, Interval { low, high }: Interval) -> Verdict {
        let (all, some) = match self {
            Self::AtMost(limit) => (high <= limit, low <= limit),
            Self::AtLeast(limit) => (low >= limit, high >= limit),
        };
        match (all, some) {
            (true, _) => Verdict::Met,
            (false, true) => Verdict::Undecided,
            (false, false) => Verdict::Missed,
        }
    }
}

impl Goal {
    /// Judges.
    pub fn new(
        work: impl Into<String>,
        against: &'static str,
        limit: Limit,
        figure: Option<Estimate>,
    ) -> Self {
        let verdict = match figure {
            None => Verdict::NotMeasured,
            Some(figure) => figure
                .interval
                .map_or(Verdict::Undecided, |interval| limit.judge(interval)),
        };
        Self {
            work: work.into(),
            against,
            limit,
            figure,
            verdict,
            sources: Vec::new(),
        }
    }

    /// About the ratio of two measurements.
    fn of_ratio(
        results: &Results,
        (work, against): (impl Into<String>, &'static str),
        limit: Limit,
        [ours, theirs]: [Name; 2],
        metric: Metric,
    ) -> Self {
        let figure = Estimate::of(&results.ratios(&ours, &theirs, metric));
        Self {
            sources: vec![ours, theirs],
            ..Self::new(work, against, limit, figure)
        }
    }

    /// About a measurement itself.
    fn of_itself(results: &Results, work: &str, limit: Limit, name: Name, metric: Metric) -> Self {
        let figure = results.estimate(&name, metric);
        Self {
            sources: vec![name],
            ..Self::new(work, "itself", limit, figure)
        }
    }
}

/// What the guest's measurements say of the goals.
pub fn judge(results: &Results) -> Vec<Goal> {
    let mut goals = round_trips(results);
    goals.extend(throughput(results));
    goals.extend(requests(results));
    goals.extend(notices(results));
    goals.extend(waiters(results));
    goals.push(strangers(results));
    goals
}

/// Against the peer, at one size.
fn beside_serial(
    results: &Results,
    work: String,
    limit: Limit,
    (group, size): (Group, u64),
    metric: Metric,
) -> Goal {
    let names = [GLOBALFIFO, SERIAL].map(|way| Name::new(group, size, way));
    Goal::of_ratio(results, (work, SERIAL), limit, names, metric)
}

fn round_trips(results: &Results) -> Vec<Goal> {
    let metrics = [(Metric::P50, "p50"), (Metric::P99, "p99")];
    let cases = [(64, "64 B"), (4096, "4 KiB")];
    cases
        .into_iter()
        .flat_map(|case| metrics.map(|metric| (case, metric)))
        .map(|((size, text), (metric, percentile))| {
            let work = format!("{text} round trip, {percentile}");
            let limit = Limit::AtMost(0.8);
            beside_serial(results, work, limit, (Group::RoundTrip, size), metric)
        })
        .collect()
}

fn throughput(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    let sizes = [(64 << 10, "64 KiB", 1.5), (1 << 20, "1 MiB", 3.0)];
    for (size, text, least) in sizes {
        for (group, direction) in [
            (Group::Send, "guest to host"),
            (Group::Receive, "host to guest"),
        ] {
            let work = format!("throughput {direction}, {text}");
            let limit = Limit::AtLeast(least);
            goals.push(beside_serial(
                results,
                work,
                limit,
                (group, size),
                Metric::ByteRate,
            ));
        }
    }
    goals.push(beside_serial(
        results,
        "64 B writes a second".to_owned(),
        Limit::AtLeast(2.0),
        (Group::Send, 64),
        Metric::OperationRate,
    ));
    goals
}

fn requests(results: &Results) -> Vec<Goal> {
    let name = |depth| Name::new(Group::Depth, depth, "libaio write");
    vec![
        Goal::of_ratio(
            results,
            ("4 KiB AIO at depth 32, requests a second", "depth 1"),
            Limit::AtLeast(4.0),
            [name(32), name(1)],
            Metric::OperationRate,
        ),
        Goal::of_itself(
            results,
            "4 KiB AIO at depth 32, interrupts a request",
            Limit::AtMost(0.25),
            name(32),
            Metric::Interrupts,
        ),
    ]
}

fn notices(results: &Results) -> Vec<Goal> {
    let name = |way| Name::new(Group::Notify, 0, way);
    ["SIGIO", "epoll", "libaio"]
        .map(|way| {
            Goal::of_ratio(
                results,
                (format!("{way} notification, p50"), "blocking read"),
                Limit::AtMost(1.25),
                [name(way), name("read")],
                Metric::P50,
            )
        })
        .into()
}

fn waiters(results: &Results) -> Vec<Goal> {
    const MANY: u64 = 10_000;
    let name = |count, way| Name::new(Group::Waiters, count, way);
    let mut goals: Vec<Goal> = ["libaio reads", "epoll, others idle", "SIGIO, others idle"]
        .map(|way| {
            let work = format!("cost of an event at 10,000 waiters: {way}");
            Goal::of_ratio(
                results,
                (work, "1 waiter"),
                Limit::AtMost(1.2),
                [name(MANY, way), name(1, way)],
                Metric::P50,
            )
        })
        .into();
    goals.push(Goal::of_itself(
        results,
        "kernel memory of a pending request, bytes",
        Limit::AtMost(1024.0),
        name(MANY, "libaio reads"),
        Metric::Memory,
    ));
    goals
}

fn strangers(results: &Results) -> Goal {
    let name = |count| Name::new(Group::OpenClose, count, OPEN_CLOSE);
    Goal::of_ratio(
        results,
        (
            "open and close beside 20,000 reads of another process, p50",
            "none waiting",
        ),
        Limit::AtMost(1.5),
        [name(STRANGERS as u64), name(0)],
        Metric::P50,
    )
}

#[cfg(test)]
mod tests {
    use globalfifo_bench_protocol::Measured;

    use super::super::plan::Extent;
    use super::super::plan::trials;
    use super::super::results::sample_rounds;
    use super::*;

    fn latency(nanos: u64) -> Measured {
        Measured {
            operations: 10,
            nanos: nanos * 10,
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

    fn verdict(goals: &[Goal], work: &str) -> Verdict {
        let goal = goals.iter().find(|goal| goal.work == work);
        goal.unwrap_or_else(|| panic!("no goal {work}")).verdict
    }

    #[test]
    fn without_figures_no_goal_is_met_or_missed() {
        let goals = judge(&Results::default());
        assert!(goals.len() > 15);
        assert!(
            goals
                .iter()
                .all(|goal| goal.verdict == Verdict::NotMeasured)
        );
    }

    #[test]
    fn faster_than_the_peer_is_met_and_a_little_faster_is_missed() {
        let results = sample_rounds(
            5,
            &[
                (Group::RoundTrip, 64, GLOBALFIFO, latency(70_000)),
                (Group::RoundTrip, 64, SERIAL, latency(100_000)),
                (Group::RoundTrip, 4096, GLOBALFIFO, latency(90_000)),
                (Group::RoundTrip, 4096, SERIAL, latency(100_000)),
                (Group::Send, 64 << 10, GLOBALFIFO, rate(1600)),
                (Group::Send, 64 << 10, SERIAL, rate(1000)),
                (Group::Send, 1 << 20, GLOBALFIFO, rate(2900)),
                (Group::Send, 1 << 20, SERIAL, rate(1000)),
            ],
        );
        let goals = judge(&results);
        assert_eq!(verdict(&goals, "64 B round trip, p50"), Verdict::Met);
        assert_eq!(verdict(&goals, "4 KiB round trip, p99"), Verdict::Missed);
        let send = |size| format!("throughput guest to host, {size}");
        assert_eq!(verdict(&goals, &send("64 KiB")), Verdict::Met);
        assert_eq!(verdict(&goals, &send("1 MiB")), Verdict::Missed);
        let receive = "throughput host to guest, 1 MiB";
        assert_eq!(verdict(&goals, receive), Verdict::NotMeasured);
    }

    #[test]
    fn a_goal_may_be_about_the_device_itself() {
        let many = |memory| Measured {
            waiter_bytes: Some(memory),
            ..latency(1000)
        };
        let depth = |operations, interrupts| Measured {
            operations,
            interrupts,
            nanos: 1_000_000_000,
            ..Measured::default()
        };
        let results = sample_rounds(
            5,
            &[
                (Group::Waiters, 10_000, "libaio reads", many(500.0)),
                (Group::Waiters, 1, "libaio reads", latency(500)),
                (Group::Depth, 1, "libaio write", depth(100, 100)),
                (Group::Depth, 32, "libaio write", depth(1000, 260)),
            ],
        );
        let goals = judge(&results);
        let met = "kernel memory of a pending request, bytes";
        assert_eq!(verdict(&goals, met), Verdict::Met);
        let missed = "cost of an event at 10,000 waiters: libaio reads";
        assert_eq!(verdict(&goals, missed), Verdict::Missed);
        let met = "4 KiB AIO at depth 32, requests a second";
        assert_eq!(verdict(&goals, met), Verdict::Met);
        let missed = "4 KiB AIO at depth 32, interrupts a request";
        assert_eq!(verdict(&goals, missed), Verdict::Missed);
    }

    #[test]
    fn a_close_that_walks_strangers_requests_misses_its_goal() {
        let beside = |strangers| {
            let results = sample_rounds(
                5,
                &[
                    (Group::OpenClose, 0, OPEN_CLOSE, latency(10_000)),
                    (Group::OpenClose, 20_000, OPEN_CLOSE, latency(strangers)),
                ],
            );
            let work = "open and close beside 20,000 reads of another process, p50";
            verdict(&judge(&results), work)
        };
        assert_eq!(beside(14_000), Verdict::Met);
        assert_eq!(beside(16_000), Verdict::Missed);
    }

    fn verdict_of(limit: Limit, values: &[f64]) -> Verdict {
        Goal::new("x", "y", limit, Estimate::of(values)).verdict
    }

    #[test]
    fn the_limit_itself_is_good_enough() {
        assert_eq!(verdict_of(Limit::AtMost(0.8), &[0.8; 5]), Verdict::Met);
        assert_eq!(verdict_of(Limit::AtLeast(3.0), &[3.0; 5]), Verdict::Met);
        assert_eq!(
            verdict_of(Limit::AtLeast(3.0), &[2.999; 5]),
            Verdict::Missed
        );
    }

    #[test]
    fn a_limit_within_the_interval_leaves_the_goal_undecided() {
        let values = [0.7, 0.75, 0.78, 0.79, 0.81];
        assert_eq!(verdict_of(Limit::AtMost(0.8), &values), Verdict::Undecided);
        assert_eq!(verdict_of(Limit::AtLeast(0.8), &values), Verdict::Undecided);
        assert_eq!(verdict_of(Limit::AtMost(0.82), &values), Verdict::Met);
        assert_eq!(verdict_of(Limit::AtMost(0.69), &values), Verdict::Missed);
        assert_eq!(verdict_of(Limit::AtLeast(0.7), &values), Verdict::Met);
        assert_eq!(verdict_of(Limit::AtLeast(0.82), &values), Verdict::Missed);
    }

    #[test]
    fn too_few_rounds_decide_nothing_however_good_they_are() {
        assert_eq!(
            verdict_of(Limit::AtMost(0.8), &[0.1; 4]),
            Verdict::Undecided
        );
        assert_eq!(verdict_of(Limit::AtMost(0.8), &[]), Verdict::NotMeasured);
    }

    #[test]
    fn every_goal_of_the_guest_says_what_it_is_made_of() {
        for extent in [Extent::QUICK, Extent::FULL] {
            let measured: Vec<Name> = trials(&extent, &[]).iter().map(Name::of).collect();
            for goal in judge(&Results::default()) {
                assert!(!goal.sources.is_empty(), "{}", goal.work);
                let all = goal.sources.iter().all(|name| measured.contains(name));
                assert!(all, "{}: {:?}", goal.work, goal.sources);
            }
        }
    }
}
