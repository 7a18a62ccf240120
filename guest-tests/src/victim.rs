// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A test's program once more, as a process that is to be killed while its requests wait.

use std::convert::Infallible;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::libc;

use crate::fifo::PATH;
use crate::harness::{self, eventually};
use crate::{check, check_eq, system};

/// Set in the environment of the process.
const ENV: &str = "GLOBALFIFO_VICTIM";
/// Where it says that it is ready.
const READY: &str = "/run/globalfifo-victim";

/// If this is the process, it does `work`, which ends by [`wait`].
pub fn main(work: impl FnOnce() -> Result<Infallible>) -> Option<ExitCode> {
    std::env::var_os(ENV)?;
    let Err(error) = work();
    eprintln!("{error:?}");
    Some(ExitCode::FAILURE)
}

/// Says that everything waits, and sleeps until the end.
///
/// # Errors
///
/// When it cannot be said.
pub fn wait() -> Result<Infallible> {
    system::write(READY, "ready")?;
    loop {
        nix::unistd::pause();
    }
}

/// Starts the process and kills it once it is ready: it dies at once, and holds on to nothing of the driver's,
/// which is then loaded anew.
///
/// # Errors
///
/// When that is not so.
pub fn kill() -> Result<()> {
    let _ = std::fs::remove_file(READY);
    let mut child = Command::new(std::env::current_exe()?)
        .env(ENV, "1")
        .spawn()?;
    eventually("the victim is ready", || {
        Ok(std::fs::read(READY).is_ok_and(|text| text == b"ready"))
    })?;
    let started = Instant::now();
    child.kill()?;
    let status = child.wait()?;
    let took = started.elapsed();
    check_eq!(status.signal(), Some(libc::SIGKILL));
    check!(took < harness::limit(Duration::from_secs(1)));
    // The last reference to the file may be dropped a little later, by a kernel thread.
    let mut outcome = Ok(());
    eventually("rmmod", || {
        outcome = system::unload_module();
        Ok(outcome.is_ok())
    })
    .and(outcome)
    .context("rmmod after the process is gone")?;
    system::load_module()?;
    system::wait_for_file(PATH, true)
}
