// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A finished trace, with all that is known of how good it is; as JSON and as text. docs/trace.md has
//! the schema. It must not know how the trace came about, or pages.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::RangeInclusive;

use anyhow::Result;
use serde_json::Value;
use serde_json::json;

use super::chain;
use super::chain::Chain;
use super::clock::Clock;
use super::event::Event;
use super::event::Timeline;

/// Chains that the text shows in full.
const SHOWN: usize = 5;

/// Interrupts of the device while the command ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interrupts {
    /// Their number in the guest; `None` where no driver serves the device.
    pub irq: Option<u64>,
    /// As /proc/interrupts counted them.
    pub counted: u64,
    /// As the trace has them.
    pub traced: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Report {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Its exit status.
    pub status: u8,
    /// All events.
    pub timeline: Timeline,
    /// What led to what.
    pub chains: Vec<Chain>,
    /// The guest's clock.
    pub clock: Clock,
    /// Interrupts.
    pub interrupts: Interrupts,
    /// Events that the guest's kernel and the daemon dropped.
    pub lost: (u64, u64),
    /// Context switches of QEMU's threads that the host's kernel dropped.
    pub lost_switches: u64,
    /// Why QEMU's threads are not among the lanes, if they are not.
    pub qemu_trouble: Option<String>,
}

impl Report {
    /// By how many nanoseconds a time of the guest's may be wrong.
    pub fn bound(&self) -> u64 {
        self.clock.bound_ns()
    }

    /// The events of a time alone, and those of these chains that are wholly within it.
    pub fn cut(&self, chains: &[usize], time: RangeInclusive<u64>) -> Self {
        let events = &self.timeline.events;
        let first = events.partition_point(|event| event.ns < *time.start());
        let last = events.partition_point(|event| event.ns <= *time.end());
        let within = first..last.max(first);
        let moved = |chain: &Chain| {
            let step = |step: &chain::Step| {
                let event = step.event.checked_sub(first)?;
                within
                    .contains(&step.event)
                    .then_some(chain::Step { event, ..*step })
            };
            let steps = chain.steps.iter().map(step).collect::<Option<_>>()?;
            Some(Chain { steps, ..*chain })
        };
        Self {
            command: self.command.clone(),
            timeline: Timeline {
                events: events.get(within.clone()).unwrap_or_default().to_vec(),
                tasks: self.timeline.tasks.clone(),
                threads: self.timeline.threads.clone(),
                main_loop: self.timeline.main_loop,
            },
            chains: chains
                .iter()
                .filter_map(|at| moved(self.chains.get(*at)?))
                .collect(),
            clock: self.clock.clone(),
            qemu_trouble: self.qemu_trouble.clone(),
            ..*self
        }
    }

    /// As JSON.
    pub fn json(&self) -> Result<Vec<u8>> {
        let (inversions, worst) = chain::inversions(&self.timeline, &self.chains);
        let steps = |chain: &Chain| {
            let step = |step: &chain::Step| json!({"event": step.event, "after": step.after, "by": step.by});
            chain.steps.iter().map(step).collect::<Vec<Value>>()
        };
        let chains: Vec<_> = self
            .chains
            .iter()
            .map(|chain| {
                json!({
                    "fifo": chain.fifo, "position": chain.position, "bytes": chain.bytes, "steps": steps(chain),
                })
            })
            .collect();
        let events: Vec<_> = self
            .timeline
            .events
            .iter()
            .map(|event| self.event(event))
            .collect();
        let whole = json!({
            "format": "globalfifo-trace",
            "version": 1,
            "command": self.command,
            "status": self.status,
            "clock": {
                "error_bound_ns": self.bound(),
                "offset_ns": self.clock.offset().round(),
                "drift_ppm": self.clock.drift(),
                "exchanges": self.clock.exchanges,
            },
            "interrupts": {
                "irq": self.interrupts.irq,
                "counted": self.interrupts.counted,
                "traced": self.interrupts.traced,
            },
            "lost": {"guest": self.lost.0, "daemon": self.lost.1, "qemu": self.lost_switches},
            "qemu": {"threads": self.timeline.threads.len(), "trouble": self.qemu_trouble},
            "inversions": {"count": inversions, "worst_ns": worst},
            "events": events,
            "chains": chains,
        });
        let mut bytes = serde_json::to_vec(&whole)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    fn event(&self, event: &Event) -> Value {
        json!({
            "ns": event.ns,
            "lasts_ns": event.lasts,
            "place": event.place.kind(),
            "lane": self.timeline.label(event.place),
            "cpu": event.cpu,
            "pid": event.pid,
            "name": event.name,
            "text": event.text,
        })
    }

    /// How good it is, in lines.
    pub fn quality(&self) -> String {
        let mut text = format!(
            "{} events, {}; times of the guest are right to {}",
            self.timeline.events.len(),
            match self.chains.len() {
                1 => "1 chain".to_owned(),
                chains => format!("{chains} chains"),
            },
            micros(self.bound()),
        );
        let drift = self.clock.drift();
        let drift = drift.map_or_else(|| "not known".to_owned(), |ppm| format!("{ppm:+.1} ppm"));
        add(
            &mut text,
            &format!(" ({} exchanges, drift {drift})\n", self.clock.exchanges),
        );
        let Interrupts {
            irq,
            counted,
            traced,
        } = self.interrupts;
        let interrupts = match irq {
            Some(irq) => format!(
                "interrupts of the device (irq {irq}): {counted} in /proc/interrupts, {traced} in the trace\n"
            ),
            None => "no driver serves the device: it has no interrupt\n".to_owned(),
        };
        add(&mut text, &interrupts);
        let (inversions, worst) = chain::inversions(&self.timeline, &self.chains);
        if inversions > 0 {
            add(
                &mut text,
                &format!(
                    "{inversions} effects seem to come before their causes, by up to {}\n",
                    micros(worst)
                ),
            );
        }
        for (lost, whose) in [
            (self.lost.0, "the guest's kernel"),
            (self.lost.1, "the daemon"),
            (self.lost_switches, "the host's kernel, for QEMU's threads,"),
        ] {
            if lost > 0 {
                add(
                    &mut text,
                    &format!("{lost} events are missing: {whose} had no room for them\n"),
                );
            }
        }
        if let Some(why) = &self.qemu_trouble {
            add(
                &mut text,
                &format!("QEMU's threads are not traced: {why}\n"),
            );
        }
        text
    }

    /// The first chains step by step, then where the time of all went.
    pub fn text(&self) -> String {
        let mut text = self.quality();
        for chain in self.chains.iter().take(SHOWN) {
            self.chain(&mut text, chain);
        }
        if self.chains.len() > SHOWN {
            add(
                &mut text,
                &format!(
                    "\n… and {} chains more: -o FILE.html shows them all\n",
                    self.chains.len() - SHOWN
                ),
            );
        }
        add(
            &mut text,
            "\nwhere the time went          links      median         worst\n",
        );
        for (by, mut times) in self.shares() {
            times.sort_unstable();
            let median = times.get(times.len() / 2).copied().unwrap_or_default();
            let worst = times.last().copied().unwrap_or_default();
            let line = format!(
                "  {by:<24} {:>7} {:>11} {:>13}\n",
                times.len(),
                micros(median),
                micros(worst)
            );
            add(&mut text, &line);
        }
        text
    }

    fn chain(&self, text: &mut String, chain: &Chain) {
        let (from, _) = chain.span(&self.timeline);
        let Chain {
            fifo,
            position,
            bytes,
            ..
        } = chain;
        add(
            text,
            &format!("\nFIFO {fifo}: {bytes} bytes from position {position}\n"),
        );
        for step in &chain.steps {
            let Some(event) = self.timeline.events.get(step.event) else {
                continue;
            };
            let line = format!(
                "  {:>12}  {:<18} {:<18} {}\n",
                format!("+{}", micros(event.ns - from)),
                self.timeline.label(event.place),
                event.name,
                event.text
            );
            add(text, &line);
        }
    }

    /// Times between a step and the one before, by who took them.
    pub fn shares(&self) -> BTreeMap<&'static str, Vec<u64>> {
        let mut shares: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for chain in &self.chains {
            for step in &chain.steps {
                let before = step.after.and_then(|after| chain.steps.get(after));
                let time =
                    |step: &chain::Step| self.timeline.events.get(step.event).map(|event| event.ns);
                if let Some((from, to)) = before.and_then(time).zip(time(step)) {
                    shares
                        .entry(step.by)
                        .or_default()
                        .push(to.saturating_sub(from));
                }
            }
        }
        shares
    }
}

fn add(text: &mut String, more: &str) {
    // A string takes everything.
    let _ = text.write_str(more);
}

/// Microseconds, to a tenth.
pub fn micros(ns: u64) -> String {
    format!("{}.{} µs", ns / 1000, ns % 1000 / 100)
}

#[cfg(test)]
pub mod tests {
    use super::super::clock::Exchange;
    use super::super::event::Place;
    use super::*;

    /// A write that becomes a message, on the host's clock.
    pub fn small() -> Report {
        let event = |ns, place, name: &str, text: &str| Event {
            ns,
            lasts: 0,
            place,
            cpu: (place != Place::Daemon).then_some(0),
            pid: 7,
            name: name.into(),
            text: text.into(),
        };
        let timeline = Timeline {
            events: vec![
                event(
                    1000,
                    Place::Driver(0),
                    "write",
                    "device=v fifo=0 position=0 bytes=2",
                ),
                event(
                    4500,
                    Place::Driver(0),
                    "send",
                    "device=v fifo=0 messages=1 position=2",
                ),
                event(9000, Place::Daemon, "pop", "fifo=0 position=0 bytes=2"),
            ],
            ..Timeline::default()
        };
        let exchange = Exchange {
            before: 0,
            host: 20_000,
            after: 40_000,
        };
        Report {
            command: vec!["echo".to_owned(), "</script>".to_owned()],
            status: 0,
            chains: chain::link(&timeline, &|_| true, 0),
            timeline,
            clock: Clock::new(&[vec![exchange]]).unwrap(),
            interrupts: Interrupts {
                irq: Some(9),
                counted: 2,
                traced: 2,
            },
            lost: (0, 3),
            lost_switches: 0,
            qemu_trouble: Some("no <reason>".to_owned()),
        }
    }

    #[test]
    fn json_has_events_and_what_led_to_what() {
        let json: Value = serde_json::from_slice(&small().json().unwrap()).unwrap();
        assert_eq!(json["format"], "globalfifo-trace");
        assert_eq!(json["clock"]["error_bound_ns"], 21_000);
        assert_eq!(json["events"][2]["lane"], "daemon");
        assert_eq!(json["events"][1]["ns"], 4500);
        assert_eq!(json["lost"]["daemon"], 3);
        let steps = json["chains"][0]["steps"].as_array().unwrap();
        let events: Vec<_> = steps.iter().map(|step| step["event"].as_u64()).collect();
        assert_eq!(events, [Some(0), Some(1), Some(2)]);
        assert_eq!(steps[2]["after"], 1);
    }

    #[test]
    fn text_has_the_steps_with_their_times_and_what_is_missing() {
        let text = small().text();
        assert!(text.contains("right to 21.0 µs"), "{text}");
        assert!(text.contains("+3.5 µs  driver, CPU 0      send"), "{text}");
        assert!(text.contains("3 events are missing: the daemon"), "{text}");
        assert!(
            text.contains("QEMU's threads are not traced: no <reason>"),
            "{text}"
        );
        assert!(!text.contains("before their causes"), "{text}");
    }
}
