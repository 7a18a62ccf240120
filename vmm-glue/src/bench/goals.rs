//! The goals, and whether a run meets them.

use serde::Serialize;

use super::plan::GLOBALFIFO;
use super::plan::Group;
use super::plan::SERIAL;
use super::results::Metric;
use super::results::Name;
use super::results::Results;
use super::stats::Spread;

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
    /// The median keeps to the limit.
    Met,
    /// It does not.
    Missed,
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
    pub figure: Option<Spread>,
    /// And so.
    pub verdict: Verdict,
}

impl Limit {
    fn kept(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

impl Goal {
    /// Judges.
    pub fn new(
        work: impl Into<String>,
        against: &'static str,
        limit: Limit,
        figure: Option<Spread>,
    ) -> Self {
        let verdict = match figure {
            None => Verdict::NotMeasured,
            Some(figure) if limit.kept(figure.median) => Verdict::Met,
            Some(_) => Verdict::Missed,
        };
        Self {
            work: work.into(),
            against,
            limit,
            figure,
            verdict,
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
    goals
}

/// Against the peer, at one size.
fn peer(results: &Results, group: Group, size: u64, metric: Metric) -> Option<Spread> {
    let name = |way| Name::new(group, size, way);
    results.ratio(&name(GLOBALFIFO), &name(SERIAL), metric)
}

fn round_trips(results: &Results) -> Vec<Goal> {
    let metrics = [(Metric::P50, "p50"), (Metric::P99, "p99")];
    let cases = [(64, "64 B"), (4096, "4 KiB")];
    cases
        .into_iter()
        .flat_map(|case| metrics.map(|metric| (case, metric)))
        .map(|((size, text), (metric, percentile))| {
            Goal::new(
                format!("{text} round trip, {percentile}"),
                SERIAL,
                Limit::AtMost(0.8),
                peer(results, Group::RoundTrip, size, metric),
            )
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
            goals.push(Goal::new(
                format!("throughput {direction}, {text}"),
                SERIAL,
                Limit::AtLeast(least),
                peer(results, group, size, Metric::ByteRate),
            ));
        }
    }
    goals.push(Goal::new(
        "64 B writes a second",
        SERIAL,
        Limit::AtLeast(2.0),
        peer(results, Group::Send, 64, Metric::OperationRate),
    ));
    goals
}

fn requests(results: &Results) -> Vec<Goal> {
    let name = |depth| Name::new(Group::Depth, depth, "libaio write");
    vec![
        Goal::new(
            "4 KiB AIO at depth 32, requests a second",
            "depth 1",
            Limit::AtLeast(4.0),
            results.ratio(&name(32), &name(1), Metric::OperationRate),
        ),
        Goal::new(
            "4 KiB AIO at depth 32, interrupts a request",
            "itself",
            Limit::AtMost(0.25),
            results.spread(&name(32), Metric::Interrupts),
        ),
    ]
}

fn notices(results: &Results) -> Vec<Goal> {
    let name = |way| Name::new(Group::Notify, 0, way);
    ["SIGIO", "epoll", "libaio"]
        .map(|way| {
            Goal::new(
                format!("{way} notification, p50"),
                "blocking read",
                Limit::AtMost(1.25),
                results.ratio(&name(way), &name("read"), Metric::P50),
            )
        })
        .into()
}

fn waiters(results: &Results) -> Vec<Goal> {
    const MANY: u64 = 10_000;
    let name = |count, way| Name::new(Group::Waiters, count, way);
    let mut goals: Vec<Goal> = ["libaio reads", "epoll, others idle", "SIGIO, others idle"]
        .map(|way| {
            Goal::new(
                format!("cost of an event at 10,000 waiters: {way}"),
                "1 waiter",
                Limit::AtMost(1.2),
                results.ratio(&name(MANY, way), &name(1, way), Metric::P50),
            )
        })
        .into();
    goals.push(Goal::new(
        "kernel memory of a pending request, bytes",
        "itself",
        Limit::AtMost(1024.0),
        results.spread(&name(MANY, "libaio reads"), Metric::Memory),
    ));
    goals
}

#[cfg(test)]
mod tests {
    use globalfifo_bench_protocol::Measured;

    use super::super::results::sample;
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
        let results = sample(&[
            (Group::RoundTrip, 64, GLOBALFIFO, latency(70_000)),
            (Group::RoundTrip, 64, SERIAL, latency(100_000)),
            (Group::RoundTrip, 4096, GLOBALFIFO, latency(90_000)),
            (Group::RoundTrip, 4096, SERIAL, latency(100_000)),
            (Group::Send, 64 << 10, GLOBALFIFO, rate(1600)),
            (Group::Send, 64 << 10, SERIAL, rate(1000)),
            (Group::Send, 1 << 20, GLOBALFIFO, rate(2900)),
            (Group::Send, 1 << 20, SERIAL, rate(1000)),
        ]);
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
        let results = sample(&[
            (Group::Waiters, 10_000, "libaio reads", many(500.0)),
            (Group::Waiters, 1, "libaio reads", latency(500)),
            (Group::Depth, 1, "libaio write", depth(100, 100)),
            (Group::Depth, 32, "libaio write", depth(1000, 260)),
        ]);
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
    fn the_limit_itself_is_good_enough() {
        let exactly = |value| Spread::of([value]);
        let at_most = Goal::new("x", "y", Limit::AtMost(0.8), exactly(0.8));
        assert_eq!(at_most.verdict, Verdict::Met);
        let at_least = Goal::new("x", "y", Limit::AtLeast(3.0), exactly(2.999));
        assert_eq!(at_least.verdict, Verdict::Missed);
    }
}
