// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The monitor of the chapter: asks for SIGIO on a FIFO and says so each time it comes. It never
//! reads, so `echo` and `cat` can be tried beside it.
//!
//! `monitor [PATH [STAMPS]]`: with a file STAMPS, the handler also writes when it ran to it, as
//! nanoseconds of CLOCK_MONOTONIC, a line each.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::{Context, Result};
use globalfifo_guest_tests::fifo::Fifo;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Where the handler writes its time stamps; negative for nowhere.
static STAMPS: AtomicI32 = AtomicI32::new(-1);

/// Room for a number and a newline, which a handler may not allocate.
struct Line {
    bytes: [u8; 32],
    length: usize,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut room = self.bytes.get_mut(self.length..).unwrap_or(&mut []);
        let written = room.write(bytes)?;
        self.length += written;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes with `write(2)`, which a signal handler may call.
fn put(fd: RawFd, text: &[u8]) {
    // SAFETY: The text is valid for its length.
    unsafe { libc::write(fd, text.as_ptr().cast(), text.len()) };
}

extern "C" fn input_handler(signum: i32) {
    let stamps = STAMPS.load(Ordering::Relaxed);
    if stamps >= 0 {
        let mut now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: The timespec is valid.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
        let mut line = Line {
            bytes: [0; 32],
            length: 0,
        };
        let _ = writeln!(line, "{}{:09}", now.tv_sec, now.tv_nsec);
        put(stamps, line.bytes.get(..line.length).unwrap_or(&[]));
    }
    let mut line = Line {
        bytes: [0; 32],
        length: 0,
    };
    let _ = writeln!(line, "{signum}");
    put(
        libc::STDOUT_FILENO,
        b"receive a signal from globalfifo,signalnum:",
    );
    put(
        libc::STDOUT_FILENO,
        line.bytes.get(..line.length).unwrap_or(&[]),
    );
}

fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments
        .next()
        .unwrap_or_else(|| "/dev/globalfifo".to_owned());
    if let Some(stamps) = arguments.next() {
        let file: File = OpenOptions::new().create(true).append(true).open(&stamps)?;
        STAMPS.store(file.into_raw_fd(), Ordering::Relaxed);
    }
    let fifo = Fifo::open_at(&path, 0)?;
    let action = SigAction::new(
        SigHandler::Handler(input_handler),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    // SAFETY: The handler calls only what signal-safety(7) allows.
    unsafe { sigaction(Signal::SIGIO, &action) }.context("sigaction")?;
    fifo.enable_signals(None)?;
    eprintln!("monitoring {path} (descriptor {})", fifo.fd().as_raw_fd());
    loop {
        nix::unistd::pause();
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("monitor: {error:#}");
            ExitCode::FAILURE
        }
    }
}
