// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Listing 9.2: SIGIO on a terminal's input. The terminal is a pty pair, so the lesson can type.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc::{self, c_int};

use super::show::{holds, say};
use super::{Desk, process};

/// Long enough for a signal that should not come.
const QUIET: Duration = Duration::from_millis(200);

/// Reads what was typed and says so, with read(2) and write(2) only.
extern "C" fn input_handler(_: c_int) {
    let mut line = [0u8; 64];
    // SAFETY: There is room for that many bytes.
    let got = unsafe { libc::read(libc::STDIN_FILENO, line.as_mut_ptr().cast(), line.len()) };
    let text = line.get(..usize::try_from(got).unwrap_or(0)).unwrap_or(&[]);
    for part in [&b"SIGIO, and read: "[..], text] {
        // SAFETY: The text is valid for its length.
        unsafe { libc::write(libc::STDOUT_FILENO, part.as_ptr().cast(), part.len()) };
    }
}

/// The other process: its standard input signals it.
fn listener(terminal: &File) -> Result<()> {
    nix::unistd::dup2_stdin(terminal)?;
    let handler = input_handler as extern "C" fn(c_int);
    // SAFETY: The handler calls only what signal-safety(7) allows.
    unsafe { libc::signal(libc::SIGIO, handler as libc::sighandler_t) };
    let own = nix::unistd::getpid().as_raw();
    // SAFETY: Takes no pointers.
    let owned = unsafe { libc::fcntl(libc::STDIN_FILENO, libc::F_SETOWN, own) };
    Errno::result(owned).context("F_SETOWN")?;
    // SAFETY: Takes no pointers.
    let flags = unsafe { libc::fcntl(libc::STDIN_FILENO, libc::F_GETFL) };
    let flags = Errno::result(flags).context("F_GETFL")? | libc::O_ASYNC;
    // SAFETY: Takes no pointers.
    let set = unsafe { libc::fcntl(libc::STDIN_FILENO, libc::F_SETFL, flags) };
    Errno::result(set).context("F_SETFL")?;
    say!("ready");
    loop {
        nix::unistd::pause();
    }
}

/// Both ends of a new terminal: the keyboard and screen, and what a program sees.
fn terminal() -> Result<(File, File)> {
    // SAFETY: Takes a number.
    let fd = unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY) };
    let fd = Errno::result(fd).context("posix_openpt")?;
    // SAFETY: The descriptor is new, and nobody else's.
    let keyboard = unsafe { File::from_raw_fd(fd) };
    // SAFETY: Takes a number.
    Errno::result(unsafe { libc::grantpt(keyboard.as_raw_fd()) }).context("grantpt")?;
    // SAFETY: Takes a number.
    Errno::result(unsafe { libc::unlockpt(keyboard.as_raw_fd()) }).context("unlockpt")?;
    let mut number: c_int = 0;
    // SAFETY: The request gives an int.
    let asked = unsafe { libc::ioctl(keyboard.as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
    Errno::result(asked).context("TIOCGPTN")?;
    let path = format!("/dev/pts/{number}");
    let program = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("opening {path}"))?;
    say!("a new terminal: {path}");
    Ok((keyboard, program))
}

pub(super) fn run(_: &Desk) -> Result<()> {
    let (mut keyboard, program) = terminal()?;
    let mut child = process::start(|| listener(&program))?;
    let ready = child.line()?;
    say!(
        "process {} set O_ASYNC on its standard input: {ready}",
        child.pid()
    );

    say!("typing h e l");
    keyboard.write_all(b"hel")?;
    let early = child.line_within(QUIET)?;
    holds!(early.is_none(), "no signal: there is no line to read yet");
    say!("typing l o Enter");
    keyboard.write_all(b"lo\n")?;
    let line = child.line()?;
    holds!(
        line == "SIGIO, and read: hello",
        "the process said {line:?}"
    );
    say!("typing a second line");
    keyboard.write_all(b"again\n")?;
    let line = child.line()?;
    holds!(
        line == "SIGIO, and read: again",
        "the process said {line:?}"
    );
    Ok(())
}
