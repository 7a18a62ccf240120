// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which CPU a thread of a measurement runs on, where the guest has several.
//!
//! To wake a CPU that sleeps takes longer than everything else about an event where it is emulated. Whether
//! that has to be done depends on where the guest's scheduler happens to have put a thread, which differs
//! from one measurement to the next, so where events are compared threads have their places: who waits is on
//! the CPU that takes the device's interrupts, and who causes an event on another.

use std::fs;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::meter::device_of;
use crate::system;

/// This thread.
const SELF: Pid = Pid::from_raw(0);

/// Keeps this thread on the CPU that takes the interrupts of the FIFO at `path`, or on the first, until it is
/// dropped. Threads started meanwhile inherit that.
#[derive(Debug)]
pub struct Place {
    before: CpuSet,
    cpu: usize,
}

impl Place {
    /// From now on.
    pub fn beside_interrupts(path: Option<&str>) -> Result<Self> {
        let cpu = path.map_or(Ok(0), interrupted_cpu)?;
        let before = sched_getaffinity(SELF).context("sched_getaffinity")?;
        let mut only = CpuSet::new();
        only.set(cpu)?;
        sched_setaffinity(SELF, &only).context("sched_setaffinity")?;
        Ok(Self { before, cpu })
    }

    /// For the thread that calls it: any CPU but that, if there are others.
    pub fn elsewhere(&self) -> impl FnOnce() -> Result<()> + Send + 'static {
        let mut others = self.before;
        let cpu = self.cpu;
        move || {
            others.unset(cpu)?;
            let any = (0..CpuSet::count()).any(|cpu| others.is_set(cpu).unwrap_or_default());
            if any {
                sched_setaffinity(SELF, &others).context("sched_setaffinity")?;
            }
            Ok(())
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What worked before works again; if not, the next measurement fails by itself.
        let _ = sched_setaffinity(SELF, &self.before);
    }
}

fn interrupted_cpu(path: &str) -> Result<usize> {
    let (_, line) = system::interrupts(&device_of(path)?)?;
    let number = line.split(':').next().unwrap_or_default().trim();
    let file = format!("/proc/irq/{number}/effective_affinity_list");
    let cpu = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    cpu.trim()
        .parse()
        .with_context(|| format!("{file}: {cpu:?}"))
}
