// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where the seconds of a run go, as a table. It must not know how any of the steps is done.

use std::fmt::Write;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

use fifo_lab_agent::Mark;

static BEGIN: OnceLock<Instant> = OnceLock::new();

/// The lab's own start. The first call is it.
pub fn begin() -> Instant {
    *BEGIN.get_or_init(Instant::now)
}

/// Moments of a machine's start.
#[derive(Debug, Clone)]
pub struct Boot {
    /// Start of the machine's first process.
    pub started: Instant,
    /// Start of QEMU.
    pub spawned: Instant,
    /// The agent's first words.
    pub ready: Instant,
    /// Ends of the guest's steps, by its own clock, which starts with its kernel.
    pub marks: Vec<Mark>,
}

/// Moments of a whole run.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Of the machine.
    pub boot: Boot,
    /// The command was sent.
    pub sent: Instant,
    /// The last byte of its output was written.
    pub done: Instant,
}

/// What the guest's steps are: name, part of the table, words for people.
const STEPS: [(&str, &str, &str); 6] = [
    ("kernel", "kernel", "until its first process"),
    ("root", "userland", "root file system"),
    ("udev", "userland", "start of udev"),
    ("driver", "userland", "driver and its device nodes"),
    ("handover", "userland", "start of the agent"),
    ("agent", "agent", "its ports"),
];

impl Ran {
    /// The table, for a run whose machine has ended at `end`.
    pub fn table(&self, end: Instant) -> String {
        let boot = &self.boot;
        let up = boot.marks.last().map_or(0, |mark| mark.millis);
        let booted = boot.ready.saturating_duration_since(boot.spawned);
        // Until the kernel's clock starts.
        let firmware = booted.saturating_sub(Duration::from_millis(up));
        let mut rows = vec![
            ("host", "checks of the set-up", boot.started - begin()),
            ("host", "file servers, device", boot.spawned - boot.started),
            ("firmware", "QEMU, firmware, kernel image", firmware),
        ];
        let mut before = 0;
        for mark in &boot.marks {
            let step = STEPS.iter().find(|(name, ..)| *name == mark.step);
            let Some((_, part, words)) = step else {
                continue;
            };
            let took = mark.millis.saturating_sub(before);
            rows.push((part, words, Duration::from_millis(took)));
            before = mark.millis;
        }
        rows.extend([
            ("agent", "shares", self.sent - boot.ready),
            ("command", "start, output, end", self.done - self.sent),
            ("host", "end of the machine", end - self.done),
            ("total", "", end - begin()),
        ]);
        table(&rows)
    }
}

fn table(rows: &[(&str, &str, Duration)]) -> String {
    let mut text = format!("{:<10}{:>8}  {}\n", "part", "seconds", "what");
    for (part, what, took) in rows {
        let line = format!("{part:<10}{:>8.2}  {what}", took.as_secs_f64());
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_steps_are_between_its_marks_and_the_parts_add_up_to_the_total() {
        let at = |millis| begin() + Duration::from_millis(millis);
        let mark = |(step, millis): (&str, u64)| Mark {
            step: step.to_owned(),
            millis,
        };
        let marks = [
            ("kernel", 2000),
            ("root", 2500),
            ("udev", 2700),
            ("driver", 3000),
            ("handover", 3100),
            ("agent", 3150),
        ];
        let ran = Ran {
            boot: Boot {
                started: at(100),
                spawned: at(150),
                ready: at(3800),
                marks: marks.map(mark).into(),
            },
            sent: at(3820),
            done: at(4000),
        };
        let table = ran.table(at(4010));
        let seconds: Vec<_> = table
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().nth(1).unwrap().to_owned())
            .collect();
        assert_eq!(
            seconds,
            [
                "0.10", "0.05", "0.50", "2.00", "0.50", "0.20", "0.30", "0.10", "0.05", "0.02",
                "0.18", "0.01", "4.01"
            ]
        );
        assert!(table.contains("kernel        2.00  until its first process\n"));
    }
}
