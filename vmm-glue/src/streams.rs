// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reading and writing the lab's standard streams, whatever is behind them: file, pipe, terminal, with or without O_NONBLOCK.
//!
//! O_NONBLOCK belongs to the open file, which other programs share (node, ssh and editors leave it set): it is neither trusted nor changed.
//! This file must not know what the bytes mean.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::exit::Exit;
use crate::exit::FAILURE;

/// As a shell reports a process that SIGPIPE ended.
const BROKEN_PIPE: u8 = 128 + 13;

/// A stream that the lab writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stdout => "standard output",
            Self::Stderr => "standard error",
        })
    }
}

impl Output {
    /// Writes all bytes, waiting for room as long as it takes.
    pub fn write(self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => write_all(rustix::stdio::stdout(), bytes),
            Self::Stderr => write_all(rustix::stdio::stderr(), bytes),
        }
    }

    /// What a failed write means for the lab: a reader that has gone ends it without a word, everything else is told.
    pub fn failure(self, err: &io::Error) -> Exit {
        if err.kind() == io::ErrorKind::BrokenPipe {
            return Exit {
                status: BROKEN_PIPE,
                message: String::new(),
            };
        }
        Exit {
            status: FAILURE,
            message: format!("cannot write to {self}: {err}"),
        }
    }
}

/// Writes all bytes; a descriptor that would block is waited for.
pub fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(to, PollFlags::OUT)?,
            Err(err) => return Err(err.into()),
        }
    }
    Ok(())
}

/// Reads once; 0 is the end. A descriptor that would block is waited for.
pub fn read(from: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(from, &mut *buffer) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(from, PollFlags::IN)?,
            other => return Ok(other?),
        }
    }
}

fn wait(fd: BorrowedFd<'_>, events: PollFlags) -> io::Result<()> {
    match rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, events)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

/// The first output that is not complete; set by [`line`] and [`is_incomplete`].
static FAILED: std::sync::OnceLock<Exit> = std::sync::OnceLock::new();

/// Writes a line of the lab's own. That it fails is kept for the end: see [`failed`].
pub fn line(to: Output, text: &str) {
    if let Err(err) = to.write(format!("{text}\n").as_bytes())
        && to == Output::Stdout
    {
        let _ = FAILED.set(to.failure(&err));
    }
}

/// Keeps for the end that a file that was asked for is not complete.
pub fn is_incomplete(exit: Exit) {
    let _ = FAILED.set(exit);
}

/// Why the lab's own standard output, or a file that was asked for, is not complete, if so.
pub fn failed() -> Option<&'static Exit> {
    FAILED.get()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    fn set_nonblocking(fd: BorrowedFd<'_>) {
        rustix::io::ioctl_fionbio(fd, true).unwrap();
    }

    #[test]
    fn all_bytes_pass_a_pipe_that_does_not_block() {
        let (mut reader, writer) = io::pipe().unwrap();
        set_nonblocking(writer.as_fd());
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let sender = std::thread::spawn(move || write_all(writer.as_fd(), &sent));
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        sender.join().unwrap().unwrap();
        assert!(got == expected, "{} bytes", got.len());
    }

    #[test]
    fn an_empty_pipe_that_does_not_block_is_not_at_its_end() {
        let (reader, writer) = io::pipe().unwrap();
        set_nonblocking(reader.as_fd());
        let receiver = std::thread::spawn(move || {
            let mut buffer = [0; 10];
            let count = read(reader.as_fd(), &mut buffer).unwrap();
            let end = read(reader.as_fd(), &mut buffer).unwrap();
            (count, end)
        });
        write_all(writer.as_fd(), b"late").unwrap();
        drop(writer);
        assert_eq!(receiver.join().unwrap(), (4, 0));
    }

    #[test]
    fn only_a_closed_pipe_ends_without_a_word() {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let err = write_all(full.unwrap().as_fd(), b"x").unwrap_err();
        let exit = Output::Stdout.failure(&err);
        assert_eq!(exit.status, 1);
        assert!(exit.message.contains("No space left on device"), "{exit}");
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let err = write_all(writer.as_fd(), b"x").unwrap_err();
        let exit = Output::Stdout.failure(&err);
        assert_eq!((exit.status, exit.message.as_str()), (141, ""));
    }
}
