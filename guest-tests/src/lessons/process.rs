// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A second process of a lesson, and what it says. Only for lessons of a single thread.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stdout, fork, pipe};

use crate::harness::SOON;

/// A child process; ended on drop.
pub(super) struct Part {
    pid: Pid,
    said: File,
    pending: Vec<u8>,
    ended: bool,
}

/// What a child process does with an outcome: it exits, without a look at what it has of its parent's.
fn end(outcome: &Result<()>) -> ! {
    let code = match outcome {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "in the other process: {error:#}");
            1
        }
    };
    // SAFETY: Ends the process.
    unsafe { nix::libc::_exit(code) }
}

/// Runs `body` in a child process, whose standard output is read by [`Part::line`].
pub(super) fn start(body: impl FnOnce() -> Result<()>) -> Result<Part> {
    let (read, write): (OwnedFd, OwnedFd) = pipe()?;
    // SAFETY: This process has one thread, so the child can do what it likes.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(read);
            end(&prepare(write).and_then(|()| body()))
        }
        ForkResult::Parent { child } => Ok(Part {
            pid: child,
            said: File::from(read),
            pending: Vec::new(),
            ended: false,
        }),
    }
}

fn prepare(stdout: OwnedFd) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    dup2_stdout(stdout).context("dup2")
}

impl Part {
    /// Its process ID.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Signals it.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid, signal).context("kill")
    }

    /// Its next line, which must come soon.
    pub(super) fn line(&mut self) -> Result<String> {
        self.line_within(SOON)?
            .context("the other process said nothing")
    }

    /// Its next line, if one comes within `limit`.
    pub(super) fn line_within(&mut self, limit: Duration) -> Result<Option<String>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.said.as_fd(), PollFlags::POLLIN)];
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            if poll(&mut fds, left)? == 0 {
                return Ok(None);
            }
            let mut part = [0; 512];
            let got = self.said.read(&mut part)?;
            if got == 0 {
                bail!("the other process ended too soon");
            }
            self.pending
                .extend_from_slice(part.get(..got).unwrap_or(&[]));
        }
    }

    /// How it ended, which must come soon.
    pub(super) fn wait(mut self) -> Result<WaitStatus> {
        let mut status = WaitStatus::StillAlive;
        crate::harness::eventually("the end of the other process", || {
            status = waitpid(self.pid, Some(WaitPidFlag::WNOHANG))?;
            Ok(status != WaitStatus::StillAlive)
        })?;
        self.ended = true;
        Ok(status)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.ended {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}
