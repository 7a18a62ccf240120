//! A report on a terminal: ratios and goals first, then the figures.

use super::goals::Goal;
use super::goals::Limit;
use super::goals::Verdict;
use super::plan::GLOBALFIFO;
use super::plan::Group;
use super::report::Report;
use super::results::Metric;
use super::results::Name;
use super::results::Results;
use super::stats::Spread;
use super::units;

/// Everything, as text.
pub fn render(report: &Report) -> String {
    let mut text = report.facts.lines().join("\n");
    text.push_str("\n\nGoals: medians of the rounds' ratios [lowest … highest]\n");
    text.push_str(&goals(&report.goals));
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
    }
}

/// A figure with its unit.
pub fn figure(metric: Metric, value: f64) -> String {
    match metric {
        Metric::OperationRate => units::per_second(value),
        Metric::ByteRate => units::rate(value),
        Metric::P50 | Metric::P99 | Metric::P999 | Metric::GuestCpu | Metric::HostCpu => {
            units::time(value)
        }
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
        Group::Waiters => format!("{value} waiting"),
    }
}

/// Met, missed, or not measured.
pub fn verdict(goal: &Goal) -> &'static str {
    match goal.verdict {
        Verdict::Met => "met",
        Verdict::Missed => "MISSED",
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

/// Median, and what the rounds differ by.
pub fn spread(spread: Spread) -> String {
    let Spread { median, low, high } = spread;
    format!(
        "{} [{} … {}]",
        units::number(median),
        units::number(low),
        units::number(high)
    )
}

fn goals(goals: &[Goal]) -> String {
    let rows = goals.iter().map(|goal| {
        vec![
            verdict(goal).to_owned(),
            goal.figure.map_or_else(|| "–".to_owned(), spread),
            limit(goal.limit),
            format!("{} / {}", goal.work, goal.against),
        ]
    });
    align(&rows.collect::<Vec<_>>(), &[])
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
            let ratio = results.ratio(&name(GLOBALFIFO), &name(way), metric);
            ratio.map_or_else(
                || "–".to_owned(),
                |ratio| format!("× {}", units::number(ratio.median)),
            )
        }));
        row.extend(ways.iter().map(|way| shown(median(*value, way))));
        row
    });
    Some(align(&rows.collect::<Vec<_>>(), &head))
}

/// Columns as wide as they need to be.
fn align(rows: &[Vec<String>], head: &[String]) -> String {
    let all = || std::iter::once(head).chain(rows.iter().map(Vec::as_slice));
    let columns = all().map(<[String]>::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = all().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in all().filter(|row| !row.is_empty()) {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(&format!("  {}\n", line.trim_end()));
    }
    text
}

#[cfg(test)]
mod tests {
    use globalfifo_bench_protocol::Measured;

    use super::super::plan::SERIAL;
    use super::super::report::Facts;
    use super::super::results::sample;
    use super::*;

    fn latency(nanos: u64) -> Measured {
        Measured {
            latencies: vec![(nanos, 10)],
            ..Measured::default()
        }
    }

    #[test]
    fn goals_come_before_figures_and_ratios_before_medians() {
        let results = sample(&[
            (Group::RoundTrip, 64, GLOBALFIFO, latency(60)),
            (Group::RoundTrip, 64, SERIAL, latency(120)),
        ]);
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
            .find("met           0.50 [0.50 … 0.50]  ≤ 0.80")
            .unwrap();
        assert!(goal < text.find("Round trip with").unwrap());
        assert!(text.contains("not measured: vsock: it does not build"));
    }

    #[test]
    fn columns_are_aligned_by_characters_not_bytes() {
        let cells = |texts: [&str; 2]| texts.map(str::to_owned).to_vec();
        let text = align(&[cells(["µµ", "x"]), cells(["a", "y"])], &[]);
        assert_eq!(text, "  µµ  x\n  a   y\n");
    }
}
