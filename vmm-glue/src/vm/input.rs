// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest command's standard input: the lab's own, read only while this job may read it.
//!
//! A terminal that another job has is left to it; reading goes on when the lab is back in the foreground. This file must not know what the
//! command is.

use std::io::IsTerminal;
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::io::Errno;

use crate::cancel;
use crate::streams;
use crate::tty;
use crate::tty::Raw;
use crate::ui;

/// How often the lab looks whether it is in the foreground again: a shell's `fg` sends no signal to a job that was running.
const LOOK: Duration = Duration::from_millis(200);

/// Pressed this often in a row, the key below leaves a machine that no longer listens.
const ESCAPES: usize = 3;
/// Ctrl-]
const ESCAPE: u8 = 0x1d;

/// Feeds the guest's command until the end of file or until `take` has had enough, then calls `end`; with `raw`, the terminal is kept raw.
pub fn feed(
    raw: bool,
    mut take: impl FnMut(&[u8]) -> bool + Send + 'static,
    end: impl FnOnce() + Send + 'static,
) {
    thread::spawn(move || {
        if let Err(err) = copy(rustix::stdio::stdin(), raw, &mut take) {
            ui::warn(&format!("cannot read standard input: {err:#}"));
        }
        end();
    });
}

/// On a terminal, looks for the keys that leave a machine which no longer listens: true, once `leave` has been called.
pub fn escape(terminal: bool, leave: impl Fn() + Send + 'static) -> impl FnMut(&[u8]) -> bool {
    let mut pressed = 0;
    move |bytes| {
        if !terminal {
            return false;
        }
        for byte in bytes {
            pressed = if *byte == ESCAPE { pressed + 1 } else { 0 };
        }
        if pressed >= ESCAPES {
            leave();
        }
        pressed >= ESCAPES
    }
}

/// Passes on everything up to the end of file, or until `take` has had enough.
fn copy(from: BorrowedFd<'_>, raw: bool, take: &mut impl FnMut(&[u8]) -> bool) -> Result<()> {
    tty::do_not_stop_this_thread()?;
    let is_terminal = from.is_terminal();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if is_terminal {
            wait_for_input(from, raw)?;
        }
        match streams::read(from, &mut buffer) {
            // A terminal says so to a job in the background, and when it has been hung up.
            Err(err) if is_terminal && err.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                if !tty::is_in_background(from) {
                    return Ok(());
                }
            }
            Err(err) => return Err(err.into()),
            Ok(0) => return Ok(()),
            Ok(count) => {
                if !take(buffer.get(..count).unwrap_or_default()) {
                    return Ok(());
                }
            }
        }
    }
}

/// Returns once there is something to read and this job may read it.
fn wait_for_input(terminal: BorrowedFd<'_>, raw: bool) -> Result<()> {
    let mut was_away = false;
    loop {
        let is_away = tty::is_in_background(terminal);
        if was_away && !is_away && raw {
            Raw::again()?;
        }
        was_away = is_away;
        let events = if is_away {
            PollFlags::empty()
        } else {
            PollFlags::IN
        };
        let limit = is_away.then(|| Timespec::try_from(LOOK)).transpose()?;
        let mut fds = vec![PollFd::from_borrowed_fd(terminal, events)];
        let continued = cancel::continued();
        fds.extend(continued.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match rustix::event::poll(&mut fds, limit.as_ref()) {
            Err(Errno::INTR) | Ok(0) => continue,
            other => other?,
        };
        let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        if ready(1) {
            if let Some(continued) = continued {
                let _ = rustix::io::read(continued, &mut [0; 8]);
            }
            if raw {
                Raw::again()?;
            }
        } else if ready(0) {
            return Ok(());
        }
    }
}
