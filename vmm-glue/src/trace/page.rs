// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A trace as one HTML page that needs no network: the arrays of all events and page/page.js, which
//! draws them. It must not know how the trace came about.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use maud::DOCTYPE;
use maud::Markup;
use maud::PreEscaped;
use maud::html;
use serde_json::json;

use super::report::Report;

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
/// What stands for `<` in the events' texts: as it is, it could end their element.
const LESS_THAN: char = '\u{1}';
/// Chains of which the page's table has a row.
const LISTED: usize = 300;

/// The page.
pub fn page(report: &Report) -> String {
    let data = Data::new(report);
    let title = format!("trace of {}", report.command.join(" "));
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "One timeline: " code { (report.command.join(" ")) } }
                    @for (number, line) in report.quality().lines().enumerate() {
                        p.warning[number > 1] { (line) }
                    }
                }
                nav {
                    input #search type="search" placeholder="search: a name, a field, a lane" aria-label="search";
                    output #matches {}
                    button #in title="zoom in: +" { "+" }
                    button #out title="zoom out: -" { "−" }
                    button #all title="show all: 0" { "all" }
                    output #span {}
                    span.help { "wheel or + − zooms · drag or ← → moves · click chooses a chain · / searches" }
                }
                div #view {
                    canvas #canvas tabindex="0" role="img" aria-label="lanes of the guest's tasks, its driver, QEMU's threads and the daemon" {}
                    div #tip {}
                }
                section.columns {
                    div {
                        h2 #chains-title {}
                        div.scroll { table #chains {} }
                    }
                    div {
                        h2 #steps-title {}
                        div.scroll { table #steps {} }
                    }
                }
                (data.markup())
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
    .into_string()
}

/// The elements that hold the trace, by their ids.
struct Data {
    meta: String,
    text: String,
    arrays: Vec<(&'static str, String)>,
}

impl Data {
    fn new(report: &Report) -> Self {
        let timeline = &report.timeline;
        let places = timeline.places();
        let lane_of: std::collections::HashMap<_, _> = places.iter().zip(0_u16..).collect();
        let origin = timeline.events.first().map_or(0, |event| event.ns);
        let (mut at, mut lasts, mut lane, mut text) =
            (Vec::new(), Vec::new(), Vec::new(), String::new());
        for event in &timeline.events {
            at.extend(((event.ns - origin) as f64).to_le_bytes());
            lasts.extend((event.lasts as f64).to_le_bytes());
            lane.extend(
                lane_of
                    .get(&event.place)
                    .copied()
                    .unwrap_or_default()
                    .to_le_bytes(),
            );
            for part in [&*event.name, " ", &*event.text] {
                text.extend(part.chars().map(|c| match c {
                    '<' => LESS_THAN,
                    c if c.is_control() => ' ',
                    c => c,
                }));
            }
            text.push('\n');
        }
        let mut by: Vec<&str> = Vec::new();
        let (mut start, mut event, mut after, mut whose) =
            (vec![0; 4], Vec::new(), Vec::new(), Vec::new());
        let mut steps = 0_u32;
        for chain in &report.chains {
            for step in &chain.steps {
                event.extend(u32::try_from(step.event).unwrap_or(u32::MAX).to_le_bytes());
                let cause = step.after.and_then(|after| i32::try_from(after).ok());
                after.extend(cause.unwrap_or(-1).to_le_bytes());
                let number = by
                    .iter()
                    .position(|known| *known == step.by)
                    .unwrap_or_else(|| {
                        by.push(step.by);
                        by.len() - 1
                    });
                whose.push(u8::try_from(number).unwrap_or(u8::MAX));
                steps += 1;
            }
            start.extend(steps.to_le_bytes());
        }
        let lanes: Vec<_> = places
            .iter()
            .map(|place| json!({"label": timeline.label(*place), "kind": place.kind()}))
            .collect();
        let listed = report.chains.iter().take(LISTED);
        let chains: Vec<_> = listed
            .map(|chain| json!([chain.fifo, chain.position, chain.bytes]))
            .collect();
        let shares: Vec<_> = report
            .shares()
            .into_iter()
            .map(|(by, mut times)| {
                times.sort_unstable();
                json!([by, times.len(), times.get(times.len() / 2), times.last()])
            })
            .collect();
        let meta = json!({
            "origin": origin as f64 / 1e9, "bound": report.bound(), "lanes": lanes, "by": by, "chains": chains, "shares": shares,
        });
        let arrays = [
            ("at", at),
            ("lasts", lasts),
            ("lane", lane),
            ("chain-start", start),
            ("step-event", event),
            ("step-after", after),
            ("step-by", whose),
        ];
        Self {
            meta: meta.to_string().replace('<', "\\u003c"),
            text,
            arrays: arrays
                .map(|(id, bytes)| (id, BASE64_STANDARD.encode(bytes)))
                .into(),
        }
    }

    fn markup(&self) -> Markup {
        html! {
            script #meta type="application/json" { (PreEscaped(&self.meta)) }
            @for (id, base64) in &self.arrays {
                script id=(id) type="text/plain" { (PreEscaped(base64)) }
            }
            script #text type="text/plain" { (PreEscaped(&self.text)) }
        }
    }
}

#[cfg(test)]
mod tests;
