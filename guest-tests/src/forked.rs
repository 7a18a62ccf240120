// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Another process of a test: a fork that does one thing, says how far it got, and is waited for with a limit.
//!
//! A call that sleeps where no signal reaches it holds up its own process alone. Knows nothing of FIFOs.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe, read, write};

use crate::harness::limit;

/// What a child says how far it got with, and hears when it is to go on.
#[derive(Debug)]
pub struct Parent {
    tell: OwnedFd,
    hear: OwnedFd,
}

/// A child process. Killed when this is dropped, if it still runs.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    hear: OwnedFd,
    tell: OwnedFd,
    over: bool,
}

impl Parent {
    /// Says `byte` to the parent.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn say(&self, byte: u8) -> Result<()> {
        write(&self.tell, &[byte]).context("telling the parent")?;
        Ok(())
    }

    /// Waits until the parent says to go on.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn await_go(&self) -> Result<()> {
        let mut byte = [0];
        if read(&self.hear, &mut byte)? == 0 {
            bail!("the parent is gone");
        }
        Ok(())
    }
}

impl Child {
    /// Starts a process that does `work`. Only from a process with one thread.
    ///
    /// # Errors
    ///
    /// When there can be none.
    pub fn start(work: impl FnOnce(&Parent) -> Result<()>) -> Result<Self> {
        let (hear, tell) = pipe()?;
        let (order, told) = pipe()?;
        // SAFETY: The caller has one thread, so that its child can do everything.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Self {
                pid: child,
                hear,
                tell: told,
                over: false,
            }),
            ForkResult::Child => {
                drop((hear, told));
                let parent = Parent { tell, hear: order };
                let status = match work(&parent) {
                    Ok(()) => 0,
                    Err(error) => {
                        eprintln!("in a child: {error:?}");
                        1
                    }
                };
                // SAFETY: Ends the process.
                unsafe { libc::_exit(status) }
            }
        }
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// What it says next, if it says something within `usual`, or longer on a slow kernel.
    ///
    /// # Errors
    ///
    /// Those of poll and read.
    pub fn says_within(&self, usual: Duration) -> Result<Option<u8>> {
        let mut fds = [PollFd::new(self.hear.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(limit(usual)).unwrap_or(PollTimeout::MAX);
        if poll(&mut fds, timeout)? == 0 {
            return Ok(None);
        }
        let mut byte = [0];
        let said = read(&self.hear, &mut byte)? == 1;
        Ok(said.then_some(byte[0]))
    }

    /// Says to go on.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn go(&self) -> Result<()> {
        write(&self.tell, b"g").context("telling a child")?;
        Ok(())
    }

    /// SIGKILL.
    ///
    /// # Errors
    ///
    /// Those of kill.
    pub fn kill(&self) -> Result<()> {
        kill(self.pid, Signal::SIGKILL).context("SIGKILL")
    }

    /// How it ended, if it is over within `usual`, or longer on a slow kernel.
    ///
    /// # Errors
    ///
    /// Those of waitpid.
    pub fn over_within(&mut self, usual: Duration) -> Result<Option<WaitStatus>> {
        let deadline = Instant::now() + limit(usual);
        loop {
            let status = waitpid(self.pid, Some(WaitPidFlag::WNOHANG))?;
            if status != WaitStatus::StillAlive {
                self.over = true;
                return Ok(Some(status));
            }
            if Instant::now() > deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end, which must come soon and be a good one.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn finish(mut self) -> Result<()> {
        match self.over_within(crate::harness::SOON)? {
            Some(WaitStatus::Exited(_, 0)) => Ok(()),
            Some(other) => bail!("a child ended like this: {other:?}"),
            None => bail!("a child still runs"),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.over {
            let _ = self.kill();
            // Not if it cannot be killed: then the test has failed, and is not to hang as well.
            let _ = self.over_within(Duration::from_secs(1));
        }
    }
}
