// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the kernel has in use, to find what grows and what is left.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

use crate::{harness, system};

/// What the kernel and this process have in use.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Objects that are not there for their caches' sake, in KiB.
    pub slab: u64,
    /// Memory that belongs to nothing else that /proc/meminfo knows, in KiB: pages that somebody took.
    pub pages: u64,
    /// Open descriptors of this process.
    pub descriptors: u64,
}

impl Usage {
    /// The least of some measurements: what is to be freed may wait for a grace period or two.
    ///
    /// # Errors
    ///
    /// /proc cannot be read, or the caches not be dropped.
    pub fn settled() -> Result<Self> {
        let mut least = Self::now()?;
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(100));
            let now = Self::now()?;
            least.slab = least.slab.min(now.slab);
            least.pages = least.pages.min(now.pages);
            least.descriptors = least.descriptors.min(now.descriptors);
        }
        Ok(least)
    }

    fn now() -> Result<Self> {
        // Caches of files and names come and go with what the programs do.
        system::drop_caches()?;
        let table = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
        let field = |name: &str| meminfo(&table, name);
        let known = [
            "MemFree",
            "Buffers",
            "Cached",
            "SwapCached",
            "AnonPages",
            "Slab",
            "KernelStack",
            "PageTables",
            "VmallocUsed",
            "Percpu",
        ];
        let known: u64 = known.into_iter().map(field).sum();
        // CPUs keep free pages for themselves, many after much work; MemFree does not have them.
        let zones = fs::read_to_string("/proc/zoneinfo").context("/proc/zoneinfo")?;
        let known = known + free_at_cpus(&zones) * page_kib()?;
        Ok(Self {
            slab: field("SUnreclaim"),
            pages: field("MemTotal").saturating_sub(known),
            descriptors: harness::open_descriptors()?.len() as u64,
        })
    }
}

fn page_kib() -> Result<u64> {
    let size = sysconf(SysconfVar::PAGE_SIZE)?.context("no size of a page")?;
    Ok(u64::try_from(size)? / 1024)
}

/// Pages that CPUs keep in all zones: `count: 123` below `cpu: 0`.
fn free_at_cpus(zones: &str) -> u64 {
    let counts = zones
        .lines()
        .filter_map(|line| line.trim().strip_prefix("count:"));
    counts
        .filter_map(|text| text.trim().parse::<u64>().ok())
        .sum()
}

/// A figure of /proc/meminfo, in KiB; 0 if it is not there.
#[must_use]
pub fn meminfo(table: &str, name: &str) -> u64 {
    table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| *found == name)
        .and_then(|(_, value)| value.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
