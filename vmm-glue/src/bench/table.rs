// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A report on a terminal: ratios and goals first, then the figures.

use super::changes::Change;
use super::changes::Changes;
use super::changes::Row;
use super::goals::Goal;
use super::goals::Limit;
use super::goals::Verdict;
use super::interval::CONFIDENCE;
use super::interval::Estimate;
use super::interval::LEAST_ROUNDS;
use super::plan::GLOBALFIFO;
use super::plan::Group;
use super::report::Report;
use super::results::Metric;
use super::results::Name;
use super::results::Results;
use super::stats::Spread;
use super::units;
use crate::columns::align;

/// Everything, as text.
pub fn render(report: &Report) -> String {
    let mut text = report.facts.lines().join("\n");
    text.push_str(&format!(
        "\n\nGoals: medians of the rounds' ratios [{CONFIDENCE} % confidence interval]\n{}  {}\n",
        goals(&report.goals),
        count(report)
    ));
    if let Some(found) = &report.changes {
        text.push_str(&changes(found));
    }
    for group in Group::ALL {
        for (title, metric) in metrics(group) {
            if let Some(table) = figures(&report.results, group, *metric) {
                text.push_str(&format!("\n{}: {title}\n{table}", group.title()));
            }
        }
    }
    for (way, why) in report.results.troubles() {
        text.push_str(&format!("\nnot measured: {way}: {why}\n"));
    }
    text
}

/// What is worth a table of its own, by group.
pub fn metrics(group: Group) -> &'static [(&'static str, Metric)] {
    match group {
        Group::RoundTrip => &[
            ("p50", Metric::P50),
            ("p99", Metric::P99),
            ("p99.9", Metric::P999),
            ("p99.99 of all rounds together", Metric::P9999),
        ],
        Group::Send | Group::Receive | Group::Loopback => &[
            ("bytes a second", Metric::ByteRate),
            ("guest CPU time a MB", Metric::GuestCpu),
            (
                "host CPU time a MB (QEMU, the guest in it, and the daemon)",
                Metric::HostCpu,
            ),
        ],
        Group::Notify => &[("p50", Metric::P50), ("p99", Metric::P99)],
        Group::Depth => &[
            ("requests a second", Metric::OperationRate),
            ("interrupts a request", Metric::Interrupts),
        ],
        Group::Waiters => &[
            ("p50", Metric::P50),
            ("kernel memory of a waiter", Metric::Memory),
        ],
        Group::OpenClose => &[("p50", Metric::P50), ("p99", Metric::P99)],
    }
}

/// A figure with its unit.
pub fn figure(metric: Metric, value: f64) -> String {
    match metric {
        Metric::OperationRate => units::per_second(value),
        Metric::ByteRate => units::rate(value),
        Metric::P50
        | Metric::P99
        | Metric::P999
        | Metric::P9999
        | Metric::GuestCpu
        | Metric::HostCpu => units::time(value),
        Metric::Interrupts => units::number(value),
        Metric::Memory => units::memory(value),
    }
}

/// The parameter of a group as it is shown.
pub fn parameter(group: Group, value: u64) -> String {
    match group {
        Group::RoundTrip | Group::Send | Group::Receive | Group::Loopback => units::size(value),
        Group::Notify => String::new(),
        Group::Depth => format!("depth {value}"),
        Group::Waiters | Group::OpenClose => format!("{value} waiting"),
    }
}

/// Met, missed, undecided, or not measured.
pub fn verdict(goal: &Goal) -> &'static str {
    match goal.verdict {
        Verdict::Met => "met",
        Verdict::Missed => "MISSED",
        Verdict::Undecided => "undecided",
        Verdict::NotMeasured => "not measured",
    }
}

/// `≤ 0.80`
pub fn limit(limit: Limit) -> String {
    match limit {
        Limit::AtMost(value) => format!("≤ {}", units::number(value)),
        Limit::AtLeast(value) => format!("≥ {}", units::number(value)),
    }
}

/// A figure with its interval, or why it has none.
pub fn estimate(estimate: &Estimate) -> String {
    let value = units::number(estimate.value);
    match estimate.interval {
        Some(interval) => format!(
            "{value} [{} … {}]",
            units::number(interval.low),
            units::number(interval.high)
        ),
        None => format!(
            "{value} [{} of at least {LEAST_ROUNDS} rounds]",
            estimate.rounds
        ),
    }
}

/// How many goals have which verdict: `21 met, 1 missed, 2 undecided, 2 not measured`.
pub fn count(report: &Report) -> String {
    let kinds = [
        (Verdict::Met, "met"),
        (Verdict::Missed, "missed"),
        (Verdict::Undecided, "undecided"),
        (Verdict::NotMeasured, "not measured"),
    ];
    let counts = kinds.map(|(verdict, name)| (report.count(verdict), name));
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let text: Vec<String> = counts
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    text.join(", ")
}

fn goals(goals: &[Goal]) -> String {
    let rows = goals.iter().map(|goal| {
        let figure = goal.figure.as_ref();
        vec![
            verdict(goal).to_owned(),
            figure.map_or_else(|| "–".to_owned(), estimate),
            limit(goal.limit),
            figure.map_or_else(String::new, |figure| format!("n = {}", figure.rounds)),
            format!("{} / {}", goal.work, goal.against),
        ]
    });
    align(&rows.collect::<Vec<_>>(), &[])
}

/// What is said of a change.
pub fn change(row: &Row) -> &'static str {
    match row.change {
        Change::Faster => "faster",
        Change::Slower => "SLOWER",
        Change::Same => "same",
        Change::Unknown => "too few rounds",
    }
}

/// What the two runs do not have in common, and what the machine itself did: a sentence each.
pub fn notes(changes: &Changes) -> Vec<String> {
    let mut notes: Vec<String> = changes
        .differences
        .iter()
        .map(|difference| format!("not the same in both runs: {difference}"))
        .collect();
    if let Some(Spread { median, low, high }) = changes.machine {
        notes.push(format!(
            "virtio-serial, vsock and pipe, of which no driver of ours is a part: × {} [{} … {}] as fast",
            units::number(median),
            units::number(low),
            units::number(high)
        ));
    }
    let only = |count: usize, run: &str| {
        let what = if count == 1 {
            "measurement"
        } else {
            "measurements"
        };
        (count > 0).then(|| format!("{count} {what} only in {run}"))
    };
    notes.extend(only(changes.only_before, "the baseline"));
    notes.extend(only(changes.only_now, "this run"));
    notes
}

/// The metric of a row, as a word.
pub fn metric(metric: Metric) -> &'static str {
    match metric {
        Metric::P50 => "p50",
        Metric::P99 => "p99",
        Metric::ByteRate => "bytes a second",
        _ => "requests a second",
    }
}

/// How a row was compared.
pub fn beside(row: &Row) -> String {
    row.beside
        .map_or_else(|| "as it is".to_owned(), |peer| format!("beside {peer}"))
}

/// `4 KiB globalfifo`, below the title of its group.
pub fn row_name(row: &Row) -> String {
    let parameter = parameter(row.name.group, row.name.parameter);
    format!("{parameter} {}", row.name.way).trim().to_owned()
}

fn changes(changes: &Changes) -> String {
    let mut text = format!(
        "\nAgainst the baseline: how many times as fast it is now [{CONFIDENCE} % confidence interval]\n"
    );
    let rows = changes.rows.iter().map(|row| {
        vec![
            change(row).to_owned(),
            format!("× {}", estimate(&row.speed)),
            format!(
                "{} {}, {}",
                row.name.group.name(),
                row_name(row),
                metric(row.metric)
            ),
            format!(
                "{} → {}",
                figure(row.metric, row.before),
                figure(row.metric, row.now)
            ),
            beside(row),
        ]
    });
    text.push_str(&align(&rows.collect::<Vec<_>>(), &[]));
    text.push_str(&format!("  {}\n", changed(changes)));
    for note in notes(changes) {
        text.push_str(&format!("  {note}\n"));
    }
    text
}

/// `3 faster, 1 slower, 40 same`
pub fn changed(changes: &Changes) -> String {
    let count = |change| changes.count(change);
    let unknown = match count(Change::Unknown) {
        0 => String::new(),
        count => format!(", {count} with too few rounds"),
    };
    format!(
        "{} faster, {} slower, {} same{unknown}",
        count(Change::Faster),
        count(Change::Slower),
        count(Change::Same)
    )
}

/// Ways side by side, a row for each parameter: the ratio to each peer, then the medians. A group without parameters has a row for each way.
fn figures(results: &Results, group: Group, metric: Metric) -> Option<String> {
    let ways = results.ways(group);
    let median = |parameter, way: &str| {
        let name = Name::new(group, parameter, way);
        results.spread(&name, metric).map(|spread| spread.median)
    };
    let shown =
        |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| figure(metric, value));
    let parameters = results.parameters(group);
    let any = parameters
        .iter()
        .any(|parameter| ways.iter().any(|way| median(*parameter, way).is_some()));
    if !any {
        return None;
    }
    if group == Group::Notify {
        let base = median(0, "read");
        let rows = ways.iter().map(|way| {
            let value = median(0, way);
            let ratio = value.zip(base).map(|(value, base)| value / base);
            vec![
                (*way).to_owned(),
                ratio.map_or_else(
                    || "–".to_owned(),
                    |ratio| format!("× {}", units::number(ratio)),
                ),
                shown(value),
            ]
        });
        return Some(align(&rows.collect::<Vec<_>>(), &[]));
    }
    let peers = ways.contains(&GLOBALFIFO);
    let mut head = vec![String::new()];
    let others: Vec<&str> = ways
        .iter()
        .copied()
        .filter(|way| peers && *way != GLOBALFIFO)
        .collect();
    head.extend(others.iter().map(|way| format!("/ {way}")));
    head.extend(ways.iter().map(|way| (*way).to_owned()));
    let rows = parameters.iter().map(|value| {
        let name = |way: &str| Name::new(group, *value, way);
        let mut row = vec![parameter(group, *value)];
        row.extend(others.iter().map(|way| {
            let ratio = results.ratios(&name(GLOBALFIFO), &name(way), metric);
            Spread::of(ratio).map_or_else(
                || "–".to_owned(),
                |ratio| format!("× {}", units::number(ratio.median)),
            )
        }));
        row.extend(ways.iter().map(|way| shown(median(*value, way))));
        row
    });
    Some(align(&rows.collect::<Vec<_>>(), &head))
}

#[cfg(test)]
mod tests {
    use globalfifo_bench_protocol::Measured;

    use super::super::baseline::Baseline;
    use super::super::facts::Facts;
    use super::super::plan::SERIAL;
    use super::super::results::sample;
    use super::super::results::sample_rounds;
    use super::*;

    fn latency(nanos: u64) -> Measured {
        Measured {
            latencies: vec![(nanos, 10)],
            ..Measured::default()
        }
    }

    #[test]
    fn goals_come_before_figures_and_ratios_before_medians() {
        let figures = [
            (Group::RoundTrip, 64, GLOBALFIFO, latency(60)),
            (Group::RoundTrip, 64, SERIAL, latency(120)),
        ];
        let results = sample_rounds(5, &figures);
        let mut report = Report::new(Facts::default(), results, None, None);
        report.results.trouble("vsock", "it does not build");
        let text = render(&report);
        let expected = "
Round trip with an echo on the host: p50
         / virtio-serial  globalfifo  virtio-serial
  64 B  × 0.50           60.0 ns     120 ns
";
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeeze(&text).contains(&squeeze(expected)), "{text}");
        let goal = text
            .find("met           0.50 [0.50 … 0.50]  ≤ 0.80  n = 5  64 B round trip, p50")
            .unwrap();
        assert!(goal < text.find("Round trip with").unwrap());
        assert!(text.contains("  2 met, "), "{text}");
        assert!(text.contains("not measured: vsock: it does not build"));
    }

    #[test]
    fn what_is_faster_than_the_baseline_is_said_with_both_figures() {
        let trips = |nanos| sample_rounds(5, &[(Group::RoundTrip, 64, GLOBALFIFO, latency(nanos))]);
        let mut facts = Facts::default();
        let earlier = Baseline {
            facts: facts.clone(),
            results: trips(120),
        };
        facts.guest.cpus = 2;
        let mut report = Report::new(facts, trips(60), None, None);
        report.changes = Some(Changes::since(&earlier, &report.facts, &report.results));
        let text = render(&report);
        let line = "  faster  × 2.00 [2.00 … 2.00]  round-trip 64 B globalfifo, p50  120 ns → 60.0 ns  as it is";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("2 faster, 0 slower, 0 same\n"), "{text}");
        assert!(text.contains("not the same in both runs: guest CPUs: 0, now 2"));
    }

    #[test]
    fn too_few_rounds_for_a_verdict_are_said() {
        let report = Report::new(
            Facts::default(),
            sample(&[
                (Group::RoundTrip, 64, GLOBALFIFO, latency(60)),
                (Group::RoundTrip, 64, SERIAL, latency(120)),
            ]),
            None,
            None,
        );
        let text = render(&report);
        let line = "undecided     0.50 [1 of at least 5 rounds]  ≤ 0.80  n = 1";
        assert!(text.contains(line), "{text}");
    }
}
