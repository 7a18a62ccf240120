// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Suspends of the machine, which its clock ends, or one of its devices refuses.

use std::fs;

use anyhow::{Context as _, Result};

use crate::{check_eq, system};

/// Seconds of a sleep that nobody refuses.
const NAP: &str = "+3";
/// Where the kernel counts suspends.
const STATISTICS: &str = "/sys/power/suspend_stats";

/// Times that the kernel got as far as devices.
fn suspends() -> Result<u64> {
    let mut sum = 0;
    for name in ["success", "failed_suspend", "failed_suspend_late"] {
        let path = format!("{STATISTICS}/{name}");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        sum += text.trim().parse::<u64>()?;
    }
    Ok(sum)
}

/// Has the machine sleep, or start to.
///
/// # Errors
///
/// The kernel does not get as far as its devices.
pub fn suspend() -> Result<()> {
    let before = suspends()?;
    let alarm = "/sys/class/rtc/rtc0/wakealarm";
    // An old alarm would have the new one refused.
    system::write(alarm, "0")?;
    system::write(alarm, NAP)?;
    // It may be refused: that is the half of what is tested.
    let _ = fs::write("/sys/power/state", "freeze");
    system::write(alarm, "0")?;
    check_eq!(suspends()?, before + 1);
    Ok(())
}
