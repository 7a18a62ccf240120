// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that runs out on demand: the N-th allocation of a call fails, for N = 1, 2, 3 …
//!
//! By the kernel's fault injection and `fail-nth` of this thread, whose next call is the one that fails. Of what is called this knows
//! nothing but that the driver is a module.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;

use crate::harness::Skip;
use crate::{check, system};

/// More failures in a row than any call can have.
const MOST: u32 = 2000;

/// Kinds of failure that the kernel has knobs for.
const KINDS: [&str; 3] = ["failslab", "fail_page_alloc", "fail_usercopy"];

/// Which allocations fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those that the driver makes or has made, page allocations too; and its copies from and to
    /// user memory.
    Driver,
    /// All of the call, also before it gets to the driver.
    Call,
}

/// The failures of this thread; the knobs are put back when this is dropped.
#[derive(Debug)]
pub struct Failures {
    nth: File,
}

impl Failures {
    /// Failures of `scope` alone.
    ///
    /// # Errors
    ///
    /// [`Skip`] on a kernel that cannot inject any.
    pub fn new(scope: Scope) -> Result<Self> {
        if !Path::new("/sys/kernel/debug/failslab/require-start").exists() {
            return Err(Skip("needs a kernel with fault injection (CONFIG_FAILSLAB)").into());
        }
        let driver = module_text()?;
        for kind in KINDS {
            let (start, end) = match (scope, kind) {
                (Scope::Driver, _) => driver,
                (Scope::Call, "failslab") => (0, u64::MAX),
                // Nothing is there.
                (Scope::Call, _) => (1, 1),
            };
            knob(kind, "require-start", &start.to_string())?;
            knob(kind, "require-end", &end.to_string())?;
            // A report of each failure would be one too many.
            knob(kind, "verbose", "0")?;
        }
        knob("failslab", "ignore-gfp-wait", "0")?;
        knob("fail_page_alloc", "ignore-gfp-wait", "0")?;
        knob("fail_page_alloc", "min-order", "0")?;
        let nth = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/proc/thread-self/fail-nth")?;
        Ok(Self { nth })
    }

    /// Runs `call` with its allocation number `nth` failing; whether it came to that.
    fn during<T>(&self, nth: u32, call: impl FnOnce() -> T) -> Result<(T, bool)> {
        self.nth.write_all_at(nth.to_string().as_bytes(), 0)?;
        let result = call();
        let mut left = [0; 16];
        let length = self.nth.read_at(&mut left, 0)?;
        self.nth.write_all_at(b"0", 0)?;
        let left = String::from_utf8_lossy(left.get(..length).unwrap_or(&[])).into_owned();
        Ok((result, left.trim() == "0"))
    }
}

impl Drop for Failures {
    fn drop(&mut self) {
        for kind in KINDS {
            let _ = knob(kind, "require-start", "0");
            let _ = knob(kind, "require-end", &u64::MAX.to_string());
            let _ = knob(kind, "verbose", "2");
        }
        let _ = knob("failslab", "ignore-gfp-wait", "1");
        let _ = knob("fail_page_alloc", "ignore-gfp-wait", "1");
        let _ = knob("fail_page_alloc", "min-order", "1");
    }
}

/// Sets a knob; kinds that the kernel does not have need none.
fn knob(kind: &str, name: &str, value: &str) -> Result<()> {
    let path = format!("/sys/kernel/debug/{kind}/{name}");
    if Path::new(&path).exists() {
        system::write(&path, value)?;
    }
    Ok(())
}

/// Where the driver's code is.
fn module_text() -> Result<(u64, u64)> {
    let modules = fs::read_to_string("/proc/modules")?;
    let line = modules
        .lines()
        .find(|line| line.starts_with("globalfifo "))
        .context("globalfifo is not loaded")?;
    let mut words = line.split_whitespace();
    let size: u64 = words.nth(1).context("no size")?.parse()?;
    let start = words.find_map(|word| word.strip_prefix("0x"));
    let start = u64::from_str_radix(start.context("no address")?, 16)?;
    Ok((start, start + size))
}

/// Has each allocation of `call` fail in turn. For each, and at the end for none, there is a fresh
/// state to call with, and `check` gets it back with the result.
///
/// # Errors
///
/// Those of `prepare` and `check`, and one of `call` with which nothing failed.
pub fn walk<S, T>(
    scope: Scope,
    mut prepare: impl FnMut() -> Result<S>,
    mut call: impl FnMut(&mut S) -> Result<T, Errno>,
    mut check: impl FnMut(S, Result<T, Errno>) -> Result<()>,
) -> Result<u32> {
    let failures = Failures::new(scope)?;
    for nth in 1..=MOST {
        let mut state = prepare()?;
        let (result, struck) = failures.during(nth, || call(&mut state))?;
        if let (false, Err(error)) = (struck, &result) {
            bail!("{error} though nothing failed");
        }
        let error = result.as_ref().err().copied();
        check(state, result).with_context(|| format!("failure {nth}, which gave {error:?}"))?;
        if !struck {
            return Ok(nth - 1);
        }
    }
    bail!("{MOST} failures, and no end")
}

/// As [`walk`], of a call that is known to allocate.
///
/// # Errors
///
/// Those of [`walk`], and when nothing failed.
pub fn walk_some<S, T>(
    scope: Scope,
    prepare: impl FnMut() -> Result<S>,
    call: impl FnMut(&mut S) -> Result<T, Errno>,
    check: impl FnMut(S, Result<T, Errno>) -> Result<()>,
) -> Result<()> {
    let failures = walk(scope, prepare, call, check)?;
    check!(failures > 0);
    Ok(())
}
