// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The part of the page that judges: goals, what changed since an earlier run, and the mitigations that figures depend on.

use maud::Markup;
use maud::html;

use super::super::changes::Change;
use super::super::changes::Row;
use super::super::gauge::gauge;
use super::super::goals::Goal;
use super::super::goals::Verdict;
use super::super::interval::CONFIDENCE;
use super::super::plan::Group;
use super::super::report::Report;
use super::super::table;

/// Every goal with its interval.
pub fn goals(report: &Report) -> Markup {
    let class = |goal: &Goal| match goal.verdict {
        Verdict::Met => "met",
        Verdict::Missed => "missed",
        Verdict::Undecided => "undecided",
        Verdict::NotMeasured => "unknown",
    };
    html! {
        h2 { "Goals" }
        p {
            "Ratios of what was measured side by side in each round: median ["
            (CONFIDENCE) " % confidence interval]. A goal is met if the whole interval keeps to the limit, missed if no part of it does, "
            "and undecided if the limit lies within. In the picture the limit is the line in the middle; the ends are a quarter and four times of it."
        }
        p.sum { (table::count(report)) }
        div.wide { table {
            tr { th { "goal" } th { "against" } th { "wanted" } th { "is" } th { "" } th { "rounds" } th { "" } }
            @for goal in &report.goals {
                tr class=(class(goal)) {
                    td { (goal.work) }
                    td { (goal.against) }
                    td.figure { (table::limit(goal.limit)) }
                    @if let Some(figure) = &goal.figure {
                        td.figure { (table::estimate(figure)) }
                        td { (gauge(figure, goal.limit.value())) }
                        td { (figure.rounds) }
                    } @else { td { "–" } td {} td {} }
                    td.verdict { (table::verdict(goal)) }
                }
            }
        } }
    }
}

/// What is faster or slower than in an earlier run; nothing if there is none.
pub fn changes(report: &Report) -> Markup {
    let Some(changes) = &report.changes else {
        return html! {};
    };
    let of = |group: Group| -> Vec<&Row> {
        let rows = changes.rows.iter();
        rows.filter(|row| row.name.group == group).collect()
    };
    html! {
        h2 { "Against the baseline" }
        p {
            "How many times as fast it is now: median [" (CONFIDENCE) " % confidence interval]. Where a peer was measured beside it, each round is "
            "divided by the peer's first. What differs from one boot to the next is not in the interval."
        }
        p.sum { (table::changed(changes)) }
        @let notes = table::notes(changes);
        @if !notes.is_empty() { ul.facts { @for note in notes { li { (note) } } } }
        @for (group, rows) in Group::ALL.map(|group| (group, of(group))) {
            @if !rows.is_empty() {
                @let other = rows.iter().filter(|row| row.change != Change::Same).count();
                details open[other > 0] {
                    summary { (group.title()) ": " (other) " of " (rows.len()) " not the same" }
                    div.wide { table {
                        tr { th { "" } th { "" } th { "before" } th { "now" } th { "as fast" } th { "" } th { "compared" } th { "" } }
                        @for row in rows { (changed(row)) }
                    } }
                }
            }
        }
    }
}

fn changed(row: &Row) -> Markup {
    let class = match row.change {
        Change::Faster => "met",
        Change::Slower => "missed",
        Change::Same => "same",
        Change::Unknown => "unknown",
    };
    html! {
        tr class=(class) {
            td { (table::row_name(row)) }
            td { (table::metric(row.metric)) }
            td.figure { (table::figure(row.metric, row.before)) }
            td.figure { (table::figure(row.metric, row.now)) }
            td.figure { "× " (table::estimate(&row.speed)) }
            td { (gauge(&row.speed, 1.0)) }
            td { (table::beside(row)) }
            td.verdict { (table::change(row)) }
        }
    }
}

/// The kernels' answers to the processors' vulnerabilities, in full.
pub fn mitigations(report: &Report) -> Markup {
    let (host, guest) = (
        &report.facts.host.processor.mitigations,
        &report.facts.guest.processor.mitigations,
    );
    let mut names: Vec<&String> = host.keys().chain(guest.keys()).collect();
    names.sort();
    names.dedup();
    let cell = |text: Option<&String>| text.map_or_else(|| "–".to_owned(), String::clone);
    html! {
        @if !names.is_empty() {
            details {
                summary { "Mitigations in full" }
                div.wide { table {
                    tr { th { "vulnerability" } th { "host" } th { "guest" } }
                    @for name in names {
                        tr { td { (name) } td { (cell(host.get(name))) } td { (cell(guest.get(name))) } }
                    }
                } }
            }
        }
    }
}
