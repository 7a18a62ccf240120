// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ctrl-C and friends: one signal thread, and a file descriptor that everybody who waits also waits for.
//!
//! A first SIGINT, SIGTERM or SIGHUP (unless that was ignored from the start, as by nohup) makes every wait of the lab fail with [`Exit`]
//! 128 + n, so that what was started is ended and half-made files removed by those who own them. A second one ends the lab at once; its
//! children die with it (see `child`).

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering;

use anyhow::Context;
use anyhow::Result;
use rustix::event::EventfdFlags;
use signal_hook::consts::SIGCONT;
use signal_hook::consts::SIGHUP;
use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGTERM;
use signal_hook::consts::SIGWINCH;
use signal_hook::iterator::Signals;

use crate::exit::Exit;

/// Stands for "another part of the lab has failed": not a signal.
const ABORTED: i32 = -1;

struct Cancel {
    cause: AtomicI32,
    event: OwnedFd,
    resized: OwnedFd,
    continued: OwnedFd,
}

static CANCEL: OnceLock<Cancel> = OnceLock::new();
/// Whether a second signal changes nothing.
static PATIENT: AtomicBool = AtomicBool::new(false);

/// Starts listening to signals. Call once, before any thread.
pub fn install() -> Result<()> {
    let eventfd = |flags| {
        rustix::event::eventfd(0, EventfdFlags::CLOEXEC | flags).context("cannot create an eventfd")
    };
    let cancel = Cancel {
        cause: AtomicI32::new(0),
        event: eventfd(EventfdFlags::NONBLOCK)?,
        resized: eventfd(EventfdFlags::NONBLOCK)?,
        continued: eventfd(EventfdFlags::NONBLOCK)?,
    };
    if CANCEL.set(cancel).is_err() {
        return Ok(());
    }
    let mut wanted = vec![SIGINT, SIGTERM, SIGWINCH, SIGCONT];
    if !is_hangup_ignored() {
        wanted.push(SIGHUP);
    }
    let mut signals = Signals::new(wanted).context("cannot listen to signals")?;
    std::thread::spawn(move || signals.forever().for_each(deliver));
    Ok(())
}

/// From here on the lab ends in order, however often it is asked to: what it has started does not die with it.
pub fn end_in_order() {
    PATIENT.store(true, Ordering::SeqCst);
}

/// Whether the lab is to outlive its terminal (proc_pid_status(5), `SigIgn`: bit n − 1 is signal n).
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 << (SIGHUP - 1) != 0)
}

fn deliver(signal: i32) {
    if signal == SIGWINCH || signal == SIGCONT {
        if let Some(cancel) = CANCEL.get() {
            let _ = rustix::io::write(&cancel.resized, &1_u64.to_ne_bytes());
            if signal == SIGCONT {
                let _ = rustix::io::write(&cancel.continued, &1_u64.to_ne_bytes());
            }
        }
    } else if raise(signal) > 0 && !PATIENT.load(Ordering::SeqCst) {
        // Asked twice: nothing more is tidied up here, the next run does it.
        crate::tty::restore();
        std::process::exit(128 + signal);
    }
}

/// Sets the cause if there is none yet and wakes everybody; returns the earlier cause.
fn raise(cause: i32) -> i32 {
    let Some(cancel) = CANCEL.get() else { return 0 };
    let earlier = cancel
        .cause
        .compare_exchange(0, cause, Ordering::SeqCst, Ordering::SeqCst)
        .unwrap_or_else(|earlier| earlier);
    let _ = rustix::io::write(&cancel.event, &1_u64.to_ne_bytes());
    earlier
}

/// Makes all waits fail because one part of the work has failed.
pub fn abort() {
    raise(ABORTED);
}

/// Ends an [`abort`], once all that it was to end has ended. A signal stays.
pub fn resume() {
    let Some(cancel) = CANCEL.get() else { return };
    if cancel
        .cause
        .compare_exchange(ABORTED, 0, Ordering::SeqCst, Ordering::SeqCst)
        .is_ok()
    {
        let _ = rustix::io::read(&cancel.event, &mut [0; 8]);
    }
}

/// Ends the lab as Ctrl-C does.
pub fn ask() {
    raise(SIGINT);
}

/// The signal that ended the lab, if one did.
pub fn signal() -> Option<i32> {
    CANCEL
        .get()
        .map(|cancel| cancel.cause.load(Ordering::SeqCst))
        .filter(|cause| *cause > 0)
}

/// Fails once the lab has been asked to end.
pub fn check() -> Result<()> {
    match CANCEL
        .get()
        .map_or(0, |cancel| cancel.cause.load(Ordering::SeqCst))
    {
        0 => Ok(()),
        _ => Err(interrupted().into()),
    }
}

/// The error of everything that was cut short.
pub fn interrupted() -> Exit {
    let status = signal()
        .and_then(|signal| u8::try_from(128 + signal).ok())
        .unwrap_or(crate::exit::FAILURE);
    Exit {
        status,
        message: String::new(),
    }
}

/// Readable from the moment the lab has been asked to end.
pub fn fd() -> Option<BorrowedFd<'static>> {
    CANCEL.get().map(|cancel| cancel.event.as_fd())
}

/// Readable when the terminal's size may have changed; read it to reset it.
pub fn resized() -> Option<BorrowedFd<'static>> {
    CANCEL.get().map(|cancel| cancel.resized.as_fd())
}

/// Readable when the lab has been continued after a stop; read it to reset it.
pub fn continued() -> Option<BorrowedFd<'static>> {
    CANCEL.get().map(|cancel| cancel.continued.as_fd())
}
