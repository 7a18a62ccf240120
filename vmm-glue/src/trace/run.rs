// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A traced run: the guest's program `tracer` around the command, the daemon's events beside it, and
//! both put together afterwards. It must not know how a report is shown.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use serde::Deserialize;

use super::chain;
use super::clock;
use super::clock::Clock;
use super::daemon::Traced;
use super::daemon::Tracing;
use super::guest;
use super::qemu::Threads;
use super::qemu::Watch;
use super::report::Interrupts;
use super::report::Report;
use crate::vm::accel::Accel;
use crate::vm::machine::Machine;

/// Name of the folder in which the guest leaves its part.
pub const SHARE: &str = "globalfifo-trace";

/// What the guest's program says of its run; times are of the guest's CLOCK_MONOTONIC.
#[derive(Debug, Deserialize)]
struct Meta {
    /// None where no driver serves the device.
    irq: Option<u64>,
    status: u8,
    started: u64,
    counted: u64,
    interrupts_before: u64,
    interrupts_after: u64,
    dropped: u64,
}

/// The host's side of a run that goes on.
#[derive(Debug)]
pub struct Recorder {
    daemon: Tracing,
    qemu: Result<Watch>,
    raises: bool,
}

/// The host's side of a run.
#[derive(Debug, Default)]
pub struct Recorded {
    daemon: Traced,
    threads: Threads,
    /// FIFOs where what is written is read.
    loops: HashSet<u64>,
}

impl Recorder {
    /// Begins, with the daemon at this control socket.
    ///
    /// # Errors
    ///
    /// The daemon does not answer. QEMU's threads that cannot be watched are no error: the report says why.
    pub fn begin(machine: &Machine, control: &Path) -> Result<Self> {
        let qemu = machine.workers().first().copied();
        let qemu = qemu.context("QEMU has ended").and_then(Watch::begin);
        Ok(Self {
            daemon: Tracing::begin(control)?,
            qemu,
            // KVM takes notifications by itself, in the kernel.
            raises: matches!(machine.accel, Accel::Tcg),
        })
    }

    /// Ends with what has happened by now.
    ///
    /// # Errors
    ///
    /// The daemon has ended.
    pub fn end(self) -> Result<Recorded> {
        let threads = self.qemu.map(Watch::end);
        let mut threads = threads.unwrap_or_else(|why| Threads::none(format!("{why:#}")));
        if !self.raises {
            threads.main = None;
        }
        let loops = self.daemon.loops.clone();
        Ok(Recorded {
            daemon: self.daemon.end()?,
            threads,
            loops,
        })
    }
}

/// Puts the sides together: what the guest left in `dir`, and what the host has recorded.
///
/// # Errors
///
/// The guest could not trace, or has left less than it should.
pub fn assemble(dir: &Path, recorded: Recorded, command: &[String]) -> Result<Report> {
    let Recorded {
        daemon: traced,
        threads,
        loops,
    } = recorded;
    let read = |name: &str| {
        let path = dir.join(name);
        let bytes = fs::read(&path).with_context(|| format!("the guest has left no {name}"))?;
        // A task may call itself anything.
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    if let Ok(why) = fs::read_to_string(dir.join("error")) {
        anyhow::bail!("the guest cannot trace: {why}");
    }
    let meta: Meta = serde_json::from_str(&read("meta.json")?).context("meta.json")?;
    let rows = rows(&read("exchanges")?);
    let clock = Clock::new(&clock::matched(&rows, &traced.config_reads))?;
    let mut timeline =
        guest::timeline(&read("lab-command.trace")?, &read("lab-all.trace")?, &clock);
    let (from, to) = (clock.to_host(meta.started), clock.to_host(meta.counted));
    // A time in the text has its microseconds alone.
    let since = from.saturating_sub(clock::ROUNDING_NS);
    let of_device = timeline
        .events
        .iter()
        .filter(|event| &*event.name == "irq_handler_entry" && (since..=to).contains(&event.ns));
    let interrupts = Interrupts {
        irq: meta.irq,
        counted: meta.interrupts_after.saturating_sub(meta.interrupts_before),
        traced: of_device.count() as u64,
    };
    // What the daemon did before the command and after it is nobody's.
    let bound = clock.bound_ns();
    let mut events = traced.events;
    events.retain(|event| {
        (from.saturating_sub(bound)..=to.saturating_add(bound)).contains(&event.ns)
    });
    timeline.events.append(&mut events);
    let threads = threads.within(from.saturating_sub(bound), to.saturating_add(bound));
    timeline.events.extend(threads.events);
    timeline.threads = threads.names;
    timeline.main_loop = threads.main;
    timeline.events.sort_by_key(|event| event.ns);
    let chains = chain::link(&timeline, &|fifo| loops.contains(&fifo), bound);
    Ok(Report {
        command: command.to_vec(),
        status: meta.status,
        timeline,
        chains,
        clock,
        interrupts,
        lost: (meta.dropped, traced.lost),
        lost_switches: threads.lost,
        qemu_trouble: threads.trouble,
    })
}

/// Rows of times before and after, with an empty line between rows.
fn rows(text: &str) -> Vec<Vec<(u64, u64)>> {
    text.split("\n\n")
        .map(|row| {
            let pair = |line: &str| {
                let (before, after) = line.split_once(' ')?;
                Some((before.parse().ok()?, after.parse().ok()?))
            };
            row.lines().filter_map(pair).collect::<Vec<_>>()
        })
        .filter(|row| !row.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_divided_by_empty_lines() {
        assert_eq!(
            rows("1 2\n3 4\n\n5 6\n\n"),
            [vec![(1, 2), (3, 4)], vec![(5, 6)]]
        );
        assert!(rows("").is_empty());
    }

    #[test]
    fn what_the_guest_says_is_wrong_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let failure = |dir: &Path| {
            let result = assemble(dir, Recorded::default(), &[]);
            format!("{:#}", result.unwrap_err())
        };
        assert!(failure(dir.path()).contains("meta.json"));
        fs::write(dir.path().join("error"), "no tracefs").unwrap();
        assert!(failure(dir.path()).contains("no tracefs"));
    }
}
