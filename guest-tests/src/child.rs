// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Children of a test: forked, so that they share its open files, and led step by step.
//!
//! Knows processes, nothing of FIFOs. A child that is left behind ends with the test.

use std::fs;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::harness::{eventually, limit};
use crate::system;

/// How long one side waits for the other: some prepare for long, and a test may take 60 seconds.
const PATIENCE: Duration = Duration::from_secs(40);

/// One end of the line between a test and its child.
#[derive(Debug)]
pub struct Line {
    hear: PipeReader,
    say: PipeWriter,
}

impl Line {
    /// Tells the other end to go on.
    pub fn say(&self) -> Result<()> {
        (&self.say).write_all(b".").context("the other end is gone")
    }

    /// Waits until the other end has said something.
    pub fn hear(&self) -> Result<()> {
        let patience = PollTimeout::try_from(limit(PATIENCE))?;
        let mut fds = [PollFd::new(self.hear.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, patience) {
                Ok(0) => bail!("the other process said nothing in time"),
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("poll"),
            }
        }
        let mut byte = [0; 1];
        (&self.hear)
            .read_exact(&mut byte)
            .context("the other process is gone")
    }
}

/// A child that has not been waited for.
#[derive(Debug)]
pub struct Child {
    /// Its process id.
    pub pid: Pid,
    /// To the child.
    pub line: Line,
}

/// Forks a child that does `work` and exits: with status 0 if that succeeded.
pub fn start(work: impl FnOnce(&Line) -> Result<()>) -> Result<Child> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    ensure!(
        threads == 1,
        "only a process with one thread may fork, not with {threads}"
    );
    let (from_child, to_parent) = pipe()?;
    let (from_parent, to_child) = pipe()?;
    let parent = Pid::this();
    // SAFETY: This process has one thread, so that its child can do everything.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Child {
            pid: child,
            line: Line {
                hear: from_child,
                say: to_child,
            },
        }),
        ForkResult::Child => {
            // Else the end of one side would not be seen by the other.
            drop((from_child, to_child));
            let line = Line {
                hear: from_parent,
                say: to_parent,
            };
            let result = end_with(parent).and_then(|()| work(&line));
            if let Err(error) = &result {
                eprintln!("in the child: {error:?}");
            }
            // SAFETY: Ends the process.
            unsafe { libc::_exit(result.is_err().into()) }
        }
    }
}

/// Has the kernel kill this process when its parent ends.
pub fn end_with(parent: Pid) -> Result<()> {
    // SAFETY: The command takes a number.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    // In a new namespace the parent has no id.
    let now = Pid::parent();
    ensure!(now == parent || now.as_raw() == 0, "the parent has ended");
    Ok(())
}

impl Child {
    /// Waits until the child has ended by itself, with status 0.
    pub fn join(self) -> Result<()> {
        match waitpid(self.pid, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            other => bail!("the child ended so: {other:?}"),
        }
    }

    /// Waits until the child sleeps in system call `number`.
    pub fn asleep_in(&self, number: i64) -> Result<()> {
        let pid = self.pid.as_raw();
        eventually("the call blocks", || system::sleeps_in(pid, number))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid, signal).context("kill")
    }

    /// Kills the child, and gives the time until it was gone.
    pub fn kill(self) -> Result<Duration> {
        let started = Instant::now();
        self.signal(Signal::SIGKILL)?;
        match waitpid(self.pid, None)? {
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => Ok(started.elapsed()),
            other => bail!("the child ended so: {other:?}"),
        }
    }
}
