// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Listing 9.1: SIGINT and SIGTERM caught with signal().

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

use super::show::{holds, say};
use super::{Desk, process};

/// Says which signal came and ends the process, with nothing but what a handler may call: write(2)
/// and _exit(2). A handler that calls printf or exit can lock up the program it interrupts.
extern "C" fn say_and_end(signal: c_int) {
    let text: &[u8] = match signal {
        libc::SIGINT => b"caught 2, SIGINT\n",
        libc::SIGTERM => b"caught 15, SIGTERM\n",
        _ => b"caught something else\n",
    };
    // SAFETY: The text is valid for its length.
    unsafe { libc::write(libc::STDOUT_FILENO, text.as_ptr().cast(), text.len()) };
    // SAFETY: Ends the process.
    unsafe { libc::_exit(0) };
}

fn catch(signal: c_int) -> Result<()> {
    let handler = say_and_end as extern "C" fn(c_int);
    // SAFETY: The handler calls only what signal-safety(7) allows.
    let old = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    if old == libc::SIG_ERR {
        return Err(Errno::last()).context("signal()");
    }
    Ok(())
}

fn victim(catches: bool) -> Result<()> {
    if catches {
        catch(libc::SIGINT)?;
        catch(libc::SIGTERM)?;
    }
    say!("ready");
    loop {
        nix::unistd::pause();
    }
}

pub(super) fn run(_: &Desk) -> Result<()> {
    for (signal, catches, expected) in [
        (Signal::SIGINT, true, Some("caught 2, SIGINT")),
        (Signal::SIGTERM, true, Some("caught 15, SIGTERM")),
        (Signal::SIGINT, false, None),
    ] {
        let mut child = process::start(|| victim(catches))?;
        let ready = child.line()?;
        let how = if catches { "with" } else { "without" };
        say!("process {} {how} handlers: {ready}", child.pid());
        say!("$ kill -{} {}", signal as c_int, child.pid());
        child.signal(signal)?;
        if let Some(expected) = expected {
            let line = child.line()?;
            holds!(line == expected, "it said {line:?}");
            let status = child.wait()?;
            holds!(
                matches!(status, WaitStatus::Exited(_, 0)),
                "it ended by itself, with status 0"
            );
        } else {
            let status = child.wait()?;
            holds!(
                matches!(status, WaitStatus::Signaled(_, Signal::SIGINT, _)),
                "it said nothing and was ended by the signal"
            );
        }
    }
    Ok(())
}
