// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A child that runs, and how it is waited for and ended: by its own descriptor, never by name or by a number that may be someone else's.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::Signal;

use crate::cancel;

/// How long a child has to end by itself after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(2);

/// A started child; dropping it ends it.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    pidfd: OwnedFd,
}

impl Running {
    /// Starts a child; `name` is for messages.
    pub fn start(name: &str, mut command: Command) -> Result<Self> {
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pidfd = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .with_context(|| format!("cannot watch {name}: this needs Linux 5.3 or newer"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            pidfd,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id: of the program itself, which takes the place of the child that starts it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Readable when it has ended.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Its status if it has ended.
    pub fn try_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until it ends. When the lab is asked to end meanwhile, the child is ended too and the answer is an error.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        // Without a limit it has ended.
        self.wait_until(None)?
            .with_context(|| format!("cannot wait for {}", self.name))
    }

    /// The same, but not longer than this.
    pub fn wait_for(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        self.wait_until(Some(Instant::now() + limit))
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
        if let Some(cancel) = cancel::fd() {
            fds.push(PollFd::from_borrowed_fd(cancel, PollFlags::IN));
        }
        loop {
            let left = deadline.and_then(|deadline| {
                Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok()
            });
            match rustix::event::poll(&mut fds, left.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(0) => return Ok(None),
                other => other.context("cannot wait for a child")?,
            };
            let ended = fds.first().is_some_and(|fd| !fd.revents().is_empty());
            if ended {
                return self
                    .child
                    .wait()
                    .map(Some)
                    .with_context(|| format!("cannot wait for {}", self.name));
            }
            drop(fds);
            self.end();
            return Err(cancel::interrupted().into());
        }
    }

    /// Waits this long; true if it has ended.
    fn ended_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match rustix::event::poll(&mut fds, left.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
                Ok(ready) => return ready > 0,
            }
        }
    }

    /// Sends a signal; a child that has ended is no error.
    pub fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, signal);
    }

    /// Gives it time to end by itself: for a program whose own children are gone only then.
    pub fn settle(&self) {
        self.ended_within(PATIENCE);
    }

    /// Ends it: politely, then not.
    pub fn end(&mut self) {
        self.end_within(PATIENCE);
    }

    /// The same, with another limit for the polite way. Half-way it is asked again: the device, which waits for a slow peer to take the guest's bytes,
    /// then ends at once, and leaves no socket behind.
    pub fn end_within(&mut self, limit: Duration) {
        if self.try_status().is_some() {
            return;
        }
        let ended = [limit / 2; 2].into_iter().any(|half| {
            self.signal(Signal::TERM);
            self.ended_within(half)
        });
        if !ended {
            self.signal(Signal::KILL);
        }
        let _ = self.child.wait();
    }

    /// Lets it outlive this.
    pub fn leave(self) {
        std::mem::forget(self);
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// How a signal ended a process, if one did. Nobody here sends SIGKILL without a word: it is the kernel's when memory is short.
pub fn killed(status: ExitStatus) -> Option<String> {
    let signal = status.signal()?;
    let why = if signal == Signal::KILL.as_raw() {
        " (out of memory?)"
    } else {
        ""
    };
    Some(format!("was killed by signal {signal}{why}"))
}

/// The status as `sh` gives it.
pub fn shell_status(status: ExitStatus) -> u8 {
    let status = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(255);
    u8::try_from(status).unwrap_or(255)
}
