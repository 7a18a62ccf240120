// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A report as one HTML page that opens anywhere: style and charts are in it, and nothing is fetched.

mod verdicts;

use maud::DOCTYPE;
use maud::Markup;
use maud::PreEscaped;
use maud::html;

use super::plan;
use super::plan::Group;
use super::report::Report;
use super::report::Trace;
use super::results::Metric;
use super::results::Name;
use super::results::Results;
use super::stats::real;
use super::svg;
use super::svg::Axis;
use super::svg::Bar;
use super::svg::Line;
use super::svg::Scale;
use super::table;
use super::units;

const STYLE: &str = include_str!("page.css");
/// Steps of a histogram to a decade.
const STEPS: f64 = 25.0;

/// The page.
pub fn render(report: &Report) -> String {
    let results = &report.results;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "globalfifo beside its peers" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "globalfifo beside its peers" }
                ul.facts { @for line in report.facts.lines() { li { (line) } } }
                (verdicts::mitigations(report))
                (verdicts::goals(report))
                (verdicts::changes(report))
                (latencies(results))
                (traces(&report.traces))
                (by_size(results))
                (notification(results))
                (requests(results))
                (waiters(results))
                (strangers(results))
                (not_measured(results))
                h2 { "All figures" }
                p { "Medians of the rounds; below them the lowest and the highest." }
                @for group in Group::ALL { (figures(results, group)) }
            }
        }
    };
    page.into_string()
}

/// Histograms, one for each size.
fn latencies(results: &Results) -> Markup {
    let sizes = results.parameters(Group::RoundTrip);
    let ways = results.ways(Group::RoundTrip);
    let percent = Axis {
        label: "share of round trips",
        scale: Scale::Linear,
        ticks: Vec::new(),
        format: |value| format!("{} %", units::number(value * 100.0)),
    };
    html! {
        @if !sizes.is_empty() { h2 { (Group::RoundTrip.title()) } }
        div.charts {
            @for size in sizes {
                @let drawn: Vec<Line> = ways.iter().filter_map(|way| {
                    let found = results.latencies(&Name::new(Group::RoundTrip, size, way))?;
                    Some(Line { points: found.density(STEPS), filled: true, ..line(way) })
                }).collect();
                (chart(&format!("{}: how long round trips take", units::size(size)), &drawn, &svg::lines(&time("time"), &percent, &drawn)))
            }
            (lines_by(results, Group::RoundTrip, Metric::P50, "p50 by size", &time("p50")))
            (lines_by(results, Group::RoundTrip, Metric::P99, "p99 by size", &time("p99")))
        }
    }
}

/// Links to single round trips.
fn traces(traces: &[Trace]) -> Markup {
    html! {
        @if let Some(first) = traces.first() {
            p {
                "From the write to the read, step by step, of " (first.of) " round trips of " (plan::TRACED) " bytes in a boot of their own; tracing makes them slower: "
                @for (number, trace) in traces.iter().enumerate() {
                    @if number > 0 { ", " }
                    a href=(trace.file) { "the " (trace.which) " one, " (units::time(real(trace.nanos))) }
                }
                "."
            }
        }
    }
}

fn by_size(results: &Results) -> Markup {
    html! {
        @for group in [Group::Send, Group::Receive, Group::Loopback] {
            @if !results.parameters(group).is_empty() {
                h2 { (group.title()) }
                div.charts {
                    (lines_by(results, group, Metric::ByteRate, "throughput by size of a call", &log("bytes a second", units::rate)))
                    (lines_by(results, group, Metric::HostCpu, "the host's CPU time for each MB", &time("CPU time a MB")))
                    (lines_by(results, group, Metric::GuestCpu, "the guest's CPU time for each MB", &time("CPU time a MB")))
                }
            }
        }
    }
}

fn notification(results: &Results) -> Markup {
    let bars: Vec<Bar> = results
        .ways(Group::Notify)
        .into_iter()
        .filter_map(|way| bar(results, &Name::new(Group::Notify, 0, way), way.to_owned()))
        .collect();
    html! {
        @if !bars.is_empty() {
            h2 { (Group::Notify.title()) }
            p { "Both threads are in the guest and the write goes through the device: its way there and back is in every bar but those of the pipe." }
            div.charts { (chart("p50, and p99 behind it", &[], &svg::bars(&bars))) }
        }
    }
}

fn requests(results: &Results) -> Markup {
    html! {
        @if !results.parameters(Group::Depth).is_empty() {
            h2 { (Group::Depth.title()) }
            div.charts {
                (lines_by(results, Group::Depth, Metric::OperationRate, "requests a second", &log("requests a second", units::per_second)))
                (lines_by(results, Group::Depth, Metric::Interrupts, "interrupts a request", &linear("interrupts a request", units::number)))
            }
        }
    }
}

fn waiters(results: &Results) -> Markup {
    html! {
        @if !results.parameters(Group::Waiters).is_empty() {
            h2 { (Group::Waiters.title()) }
            p { "Where all are woken or signalled, an event counts once for each of them." }
            div.charts {
                (lines_by(results, Group::Waiters, Metric::P50, "time for an event, p50", &time("p50")))
                (lines_by(results, Group::Waiters, Metric::Memory, "kernel memory of a waiter", &linear("bytes", units::number)))
            }
        }
    }
}

fn strangers(results: &Results) -> Markup {
    let bars: Vec<Bar> = results
        .parameters(Group::OpenClose)
        .into_iter()
        .filter_map(|count| {
            let name = Name::new(Group::OpenClose, count, plan::OPEN_CLOSE);
            bar(results, &name, table::parameter(Group::OpenClose, count))
        })
        .collect();
    html! {
        @if !bars.is_empty() {
            h2 { (Group::OpenClose.title()) }
            p { "The file that is opened and closed has no request of its own." }
            div.charts { (chart("p50, and p99 behind it", &[], &svg::bars(&bars))) }
        }
    }
}

/// A bar of the median, with its tail.
fn bar(results: &Results, name: &Name, text: String) -> Option<Bar> {
    let median = |metric| results.spread(name, metric).map(|spread| spread.median);
    let (value, tail) = (median(Metric::P50)?, median(Metric::P99)?);
    Some(Bar {
        colour: 0,
        name: text,
        value,
        tail,
        text: format!("{}, p99 {}", units::time(value), units::time(tail)),
    })
}

fn not_measured(results: &Results) -> Markup {
    html! {
        @if !results.troubles().is_empty() {
            h2 { "Not measured" }
            ul { @for (what, why) in results.troubles() { li { (what) ": " (why) } } }
        }
    }
}

/// A metric of a group by its parameter, a line for each way.
fn lines_by(results: &Results, group: Group, metric: Metric, title: &str, y: &Axis) -> Markup {
    let parameters = results.parameters(group);
    let lines: Vec<Line> = results
        .ways(group)
        .into_iter()
        .map(|way| {
            let points = parameters.iter().filter_map(|parameter| {
                let spread = results.spread(&Name::new(group, *parameter, way), metric)?;
                Some((real(*parameter), spread.median))
            });
            Line {
                points: points.collect(),
                ..line(way)
            }
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    if lines.is_empty() {
        return html! {};
    }
    let sizes = ![Group::Depth, Group::Waiters].contains(&group);
    let x = Axis {
        label: match group {
            Group::Depth => "requests in flight",
            Group::Waiters => "waiters",
            _ => "size",
        },
        scale: Scale::Log,
        ticks: parameters.iter().copied().map(real).collect(),
        format: if sizes {
            short_size
        } else {
            |value| format!("{value}")
        },
    };
    chart(title, &lines, &svg::lines(&x, y, &lines))
}

fn chart(title: &str, lines: &[Line], drawing: &Markup) -> Markup {
    html! {
        figure {
            figcaption { (title) }
            @if lines.len() > 1 {
                ul.legend {
                    @for line in lines { li class=(format!("s{}", line.colour)) { (line.name) } }
                }
            }
            (drawing)
        }
    }
}

/// A line of a way, yet without points: each way has a colour of its own throughout.
fn line(way: &str) -> Line {
    let known = [
        plan::GLOBALFIFO,
        plan::SERIAL,
        plan::VSOCK,
        plan::PIPE,
        plan::DEVICE_ALONE,
    ];
    let others = || {
        let requests = plan::REQUESTS.into_iter().map(|(.., name)| name);
        let waiters = plan::WAITERS.into_iter().map(|(_, name)| name);
        requests
            .zip(0..)
            .chain(waiters.zip(0..))
            .find(|(name, _)| *name == way)
            .map(|(_, colour)| colour)
    };
    let colour = known.iter().position(|name| *name == way).or_else(others);
    Line {
        colour: colour.unwrap_or_default(),
        name: way.to_owned(),
        points: Vec::new(),
        filled: false,
    }
}

fn time(label: &'static str) -> Axis {
    log(label, units::time)
}

fn log(label: &'static str, format: fn(f64) -> String) -> Axis {
    Axis {
        label,
        scale: Scale::Log,
        ticks: Vec::new(),
        format,
    }
}

fn linear(label: &'static str, format: fn(f64) -> String) -> Axis {
    Axis {
        scale: Scale::Linear,
        ..log(label, format)
    }
}

/// As at a tick, where there is little room.
fn short_size(bytes: f64) -> String {
    const KIB: f64 = 1024.0;
    match bytes {
        ..KIB => format!("{bytes}"),
        bytes if bytes < KIB * KIB => format!("{}K", bytes / KIB),
        bytes => format!("{}M", bytes / KIB / KIB),
    }
}

/// Tables that have anything in them.
fn shown_metrics(
    results: &Results,
    group: Group,
) -> impl Iterator<Item = &'static (&'static str, Metric)> {
    let names = results
        .names()
        .iter()
        .filter(move |name| name.group == group);
    let names: Vec<&Name> = names.collect();
    let any = move |metric| {
        names
            .iter()
            .any(|name| results.spread(name, metric).is_some())
    };
    table::metrics(group)
        .iter()
        .filter(move |(_, metric)| any(*metric))
}

fn figures(results: &Results, group: Group) -> Markup {
    let ways = results.ways(group);
    let shown = |parameter, way: &str, metric| {
        let spread = results.spread(&Name::new(group, parameter, way), metric)?;
        let text = |value| table::figure(metric, value);
        Some((
            text(spread.median),
            (spread.low < spread.high)
                .then(|| format!("{} … {}", text(spread.low), text(spread.high))),
        ))
    };
    html! {
        @if !ways.is_empty() {
            details {
                summary { (group.title()) }
                @for (title, metric) in shown_metrics(results, group) {
                    h3 { (title) }
                    table {
                        tr { th {} @for way in &ways { th { (way) } } }
                        @for parameter in results.parameters(group) {
                            tr {
                                th scope="row" { (table::parameter(group, parameter)) }
                                @for way in &ways {
                                    td {
                                        @if let Some((median, range)) = shown(parameter, way, *metric) {
                                            (median)
                                            @if let Some(range) = range { br; small { (range) } }
                                        } @else { "–" }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use globalfifo_bench_protocol::Measured;

    use super::super::baseline::Baseline;
    use super::super::changes::Changes;
    use super::super::facts::Facts;
    use super::super::results::sample_rounds;
    use super::*;

    fn page() -> String {
        render(&report())
    }

    fn report() -> Report {
        let measured = |nanos| Measured {
            operations: 100,
            bytes: 6400,
            nanos: 1_000_000,
            guest_cpu_nanos: 1000,
            interrupts: 7,
            latencies: vec![(nanos, 90), (nanos * 3, 10)],
            waiter_bytes: Some(400.0),
        };
        let figures = [
            (Group::RoundTrip, 64, plan::GLOBALFIFO, measured(60_000)),
            (Group::RoundTrip, 64, plan::SERIAL, measured(120_000)),
            (Group::Send, 64, plan::GLOBALFIFO, measured(1)),
            (Group::Notify, 0, "read", measured(90_000)),
            (Group::Depth, 32, "libaio write", measured(1)),
            (Group::Waiters, 10_000, "libaio reads", measured(70_000)),
            (Group::OpenClose, 0, plan::OPEN_CLOSE, measured(10_000)),
            (
                Group::OpenClose,
                20_000,
                plan::OPEN_CLOSE,
                measured(900_000),
            ),
        ];
        let mut results = sample_rounds(5, &figures);
        results.trouble("vsock", "<it> does not build");
        let earlier = Baseline {
            facts: Facts::default(),
            results: results.clone(),
        };
        let mut report = Report::new(Facts::default(), results, None, None);
        report.changes = Some(Changes::since(&earlier, &report.facts, &report.results));
        report
    }

    #[test]
    fn a_traced_round_trip_is_linked_with_its_time() {
        let mut report = report();
        report.traces = vec![Trace {
            which: "worst",
            file: "worst.html".to_owned(),
            page: String::new(),
            nanos: 1_500_000,
            of: 700,
        }];
        let page = render(&report);
        let link = r#"<a href="worst.html">the worst one, 1.50 ms</a>"#;
        assert!(
            page.contains(link) && page.contains("of 700 round trips"),
            "{page}"
        );
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = page();
        for outside in ["http:", "https:", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn everything_measured_is_on_the_page_and_text_stays_text() {
        let page = page();
        for group in [
            Group::RoundTrip,
            Group::Send,
            Group::Notify,
            Group::Depth,
            Group::Waiters,
            Group::OpenClose,
        ] {
            assert!(page.contains(group.title()), "{group:?}");
        }
        assert!(page.contains("&lt;it&gt; does not build"));
        assert!(page.matches("<svg").count() >= 9);
        assert!(!page.contains("NaN"));
        for class in ["met", "missed", "unknown", "same"] {
            assert!(page.contains(&format!("class=\"{class}\"")), "{class}");
        }
        assert!(page.contains("4 met, 1 missed, 19 not measured"));
    }

    #[test]
    fn ways_side_by_side_differ_in_colour() {
        for group in [
            vec![
                plan::GLOBALFIFO,
                plan::SERIAL,
                plan::VSOCK,
                plan::PIPE,
                plan::DEVICE_ALONE,
            ],
            plan::REQUESTS.into_iter().map(|(.., name)| name).collect(),
            plan::WAITERS.into_iter().map(|(_, name)| name).collect(),
        ] {
            let colours: std::collections::HashSet<usize> =
                group.iter().map(|way| line(way).colour).collect();
            assert_eq!(colours.len(), group.len());
        }
    }
}
