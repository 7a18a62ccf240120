// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Stacks in the kernel's trace: each event with the functions that led to it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::trace::{Event, Trace};

const TRACEFS: &str = "/sys/kernel/tracing";

/// Makes the kernel note with each event how it got there; until dropped.
pub(super) struct Stacks(());

impl Stacks {
    /// Begins.
    pub(super) fn record() -> Result<Self> {
        write("options/stacktrace", "1")?;
        Ok(Self(()))
    }

    /// Ends the trace; its events, each with the names of the functions on its stack.
    pub(super) fn take(self, trace: &Trace) -> Result<Vec<(Event, Vec<String>)>> {
        write("tracing_on", "0")?;
        let text = fs::read_to_string(Path::new(TRACEFS).join("trace"))?;
        let mut stacks = stacks_in(&text).into_iter();
        let mut all: Vec<(Event, Vec<String>)> = Vec::new();
        for event in trace.events()? {
            if event.name == STACK {
                let stack = stacks.next().unwrap_or_default();
                // Several CPUs' lines are mixed.
                let same = |(other, _): &&mut (Event, Vec<String>)| other.pid == event.pid;
                if let Some((_, of_event)) = all.iter_mut().rev().find(same) {
                    *of_event = stack;
                }
            } else {
                all.push((event, Vec::new()));
            }
        }
        Ok(all)
    }
}

impl Drop for Stacks {
    fn drop(&mut self) {
        let _ = write("options/stacktrace", "0");
    }
}

/// The trace's name for what follows an event.
const STACK: &str = "<stack trace>";

/// The groups of lines like ` => fasync_helper` after each [`STACK`].
fn stacks_in(text: &str) -> Vec<Vec<String>> {
    let mut stacks: Vec<Vec<String>> = Vec::new();
    for line in text.lines() {
        if line.ends_with(STACK) {
            stacks.push(Vec::new());
        } else if let (Some(name), Some(stack)) =
            (line.trim().strip_prefix("=> "), stacks.last_mut())
        {
            stack.push(name.to_owned());
        }
    }
    stacks
}

fn write(file: &str, text: &str) -> Result<()> {
    let path = Path::new(TRACEFS).join(file);
    fs::write(&path, text).with_context(|| format!("writing {text:?} to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::stacks_in;

    #[test]
    fn stacks_are_found() {
        let text = "# tracer: nop\n sh-9 [000] .. 1.0: kill_fasync: (kill_fasync+0x0)\n \
                    sh-9 [000] .. 1.0: <stack trace>\n => kill_fasync\n => _RNv9interrupt\n \
                    sh-9 [000] .. 1.1: <stack trace>\n => vp_notify\n";
        assert_eq!(
            stacks_in(text),
            [vec!["kill_fasync", "_RNv9interrupt"], vec!["vp_notify"]]
        );
    }
}
