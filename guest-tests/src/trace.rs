// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The kernel's own record of what happened when: tracefs, on the clock that user space can read too.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};

const TRACEFS: &str = "/sys/kernel/tracing";

/// A trace in progress; ended on drop.
#[derive(Debug)]
pub struct Trace(());

/// One traced event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Which task was running.
    pub pid: i32,
    /// Microseconds of CLOCK_MONOTONIC.
    pub micros: u64,
    /// Name of the event.
    pub name: String,
    /// What it says, as in the trace file.
    pub text: String,
}

impl Trace {
    /// Starts to record the `events` (`system/name`, and a filter or nothing).
    ///
    /// # Errors
    ///
    /// Those of tracefs: not mounted, no such event, a bad filter, not root.
    pub fn start(events: &[(&str, &str)]) -> Result<Self> {
        let trace = Self(());
        set("tracing_on", "0")?;
        set("trace_clock", "mono")?;
        set("trace", "")?;
        for (event, filter) in events {
            if !filter.is_empty() {
                set(&format!("events/{event}/filter"), filter)?;
            }
            set(&format!("events/{event}/enable"), "1")?;
        }
        set("tracing_on", "1")?;
        Ok(trace)
    }

    /// What was recorded so far, in order.
    pub fn events(&self) -> Result<Vec<Event>> {
        let text = fs::read_to_string(Path::new(TRACEFS).join("trace"))?;
        Ok(text.lines().filter_map(parse).collect())
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // All of them: nothing else traces here.
        let _ = set("tracing_on", "0").and_then(|()| set("events/enable", "0"));
    }
}

/// Now, in microseconds of CLOCK_MONOTONIC.
pub fn now_micros() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(now.tv_sec())? * 1_000_000 + u64::try_from(now.tv_nsec())? / 1000)
}

fn set(file: &str, value: &str) -> Result<()> {
    let path = Path::new(TRACEFS).join(file);
    fs::write(&path, value).with_context(|| format!("writing {value:?} to {}", path.display()))
}

/// `  sh-98  [000] d..1.  8.563953: irq_handler_entry: irq=22 name=virtio1`
fn parse(line: &str) -> Option<Event> {
    if line.starts_with('#') {
        return None;
    }
    let (head, rest) = line.split_once(": ")?;
    let time = head.split_whitespace().next_back()?;
    let (seconds, fraction) = time.split_once('.')?;
    let (task, _) = head.split_once('[')?;
    let pid = task.trim_end().rsplit_once('-')?.1.parse().ok()?;
    let (name, text) = rest.split_once([':', '(']).unwrap_or((rest, ""));
    Some(Event {
        pid,
        micros: seconds.parse::<u64>().ok()? * 1_000_000 + fraction.parse::<u64>().ok()?,
        name: name.trim().to_owned(),
        text: text.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn trace_lines_are_understood() {
        let line =
            "     my-prog-98      [000] dNh1.     8.563953: irq_handler_entry: irq=22 name=virtio1";
        let event = parse(line).expect("an event");
        assert_eq!((event.pid, event.micros), (98, 8_563_953));
        assert_eq!(
            (event.name.as_str(), event.text.as_str()),
            ("irq_handler_entry", "irq=22 name=virtio1")
        );
        let line = "  sh-7  [001] .....    12.000001: sys_write(fd: 1, buf: 5, count: 2)";
        let event = parse(line).expect("an event");
        assert_eq!(
            (event.pid, event.micros, event.name.as_str()),
            (7, 12_000_001, "sys_write")
        );
        assert!(parse("# tracer: nop").is_none());
        assert!(parse("").is_none());
    }
}
