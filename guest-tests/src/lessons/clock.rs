// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Time, and how to spend it.

use std::time::Duration;

use anyhow::{Result, bail};
use nix::time::{ClockId, clock_gettime};

use crate::harness::SOON;
use crate::trace::now_micros;

/// Microseconds of CPU that this thread has used.
fn cpu_micros() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(u64::try_from(now.tv_sec())? * 1_000_000 + u64::try_from(now.tv_nsec())? / 1000)
}

/// Uses the CPU for `micros`; from when to when.
pub(super) fn compute(micros: u64) -> Result<(u64, u64)> {
    let from = now_micros()?;
    let end = cpu_micros()? + micros;
    while cpu_micros()? < end {
        std::hint::spin_loop();
    }
    Ok((from, now_micros()?))
}

/// Sleeps until the clock says `micros`: how long something slow takes, not how a lesson waits.
pub(super) fn sleep_until(micros: u64) -> Result<()> {
    let now = now_micros()?;
    std::thread::sleep(Duration::from_micros(micros.saturating_sub(now)));
    Ok(())
}

/// When to give up waiting.
pub(super) struct Deadline(u64);

impl Deadline {
    /// Soon.
    pub(super) fn soon() -> Result<Self> {
        Ok(Self(now_micros()? + u64::try_from(SOON.as_micros())?))
    }

    /// Fails once it has passed.
    pub(super) fn check(&self, what: &str) -> Result<()> {
        if now_micros()? > self.0 {
            bail!("did not happen within {} s: {what}", SOON.as_secs());
        }
        Ok(())
    }
}

/// What `read` says once that is `right`, or after a while: the driver counts a thing after doing it.
pub(super) fn settle<T>(read: impl Fn() -> Result<T>, right: impl Fn(&T) -> bool) -> Result<T> {
    let deadline = Deadline::soon()?;
    loop {
        let value = read()?;
        if right(&value) || deadline.check("").is_err() {
            return Ok(value);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Microseconds as milliseconds.
pub(super) fn millis(micros: u64) -> String {
    format!("{}.{:03} ms", micros / 1000, micros % 1000)
}
