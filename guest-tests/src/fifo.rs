// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `/dev/globalfifo` as a test wants it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFlags, PollTimeout};

/// The first FIFO.
pub const PATH: &str = "/dev/globalfifo0";

/// What a FIFO holds where nothing else was asked for.
pub const CAPACITY: usize = 4096;

/// `F_SETSIG` of `fcntl(2)`, which the libc crate does not know for this target.
const F_SETSIG: i32 = 10;

mod ioctls {
    nix::ioctl_none_bad!(fifo_clear, 0x1);
    nix::ioctl_none!(alias_clear, 0xF1, 1);
    nix::ioctl_read_bad!(fionread, nix::libc::FIONREAD, nix::libc::c_int);
    nix::ioctl_none_bad!(unknown, 0x4242);
}

/// An open FIFO.
#[derive(Debug)]
pub struct Fifo(File);

impl Fifo {
    /// Opens `path` for reading and writing, with `flags` (`O_NONBLOCK` …).
    pub fn open_at(path: &str, flags: i32) -> Result<Self> {
        Self::open_as(path, true, true, flags)
    }

    /// Opens `path` for reading, writing or both.
    pub fn open_as(path: &str, read: bool, write: bool, flags: i32) -> Result<Self> {
        let file = OpenOptions::new()
            .read(read)
            .write(write)
            .custom_flags(flags)
            .open(path)
            .with_context(|| format!("opening {path}"))?;
        Ok(Self(file))
    }

    /// Opens the first FIFO for reading and writing.
    pub fn open(flags: i32) -> Result<Self> {
        Self::open_at(PATH, flags)
    }

    /// Opens the first FIFO, empty.
    pub fn open_empty(flags: i32) -> Result<Self> {
        let fifo = Self::open(flags)?;
        fifo.clear()?;
        Ok(fifo)
    }

    /// FIFO_CLEAR.
    pub fn clear(&self) -> Result<(), Errno> {
        // SAFETY: The request has no argument.
        unsafe { ioctls::fifo_clear(self.fd()) }.map(drop)
    }

    /// FIFO_CLEAR by its properly encoded number.
    pub fn clear_by_alias(&self) -> Result<(), Errno> {
        // SAFETY: The request has no argument.
        unsafe { ioctls::alias_clear(self.fd()) }.map(drop)
    }

    /// A request that no driver knows.
    pub fn unknown_ioctl(&self) -> Result<(), Errno> {
        // SAFETY: The request has no argument.
        unsafe { ioctls::unknown(self.fd()) }.map(drop)
    }

    /// FIONREAD: bytes that can be read.
    pub fn level(&self) -> Result<usize> {
        let mut level = 0;
        // SAFETY: The argument is a valid int.
        unsafe { ioctls::fionread(self.fd(), &raw mut level) }.context("FIONREAD")?;
        Ok(usize::try_from(level)?)
    }

    /// One `read(2)` of at most `n` bytes.
    pub fn read(&self, n: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; n];
        let got = nix::unistd::read(self.as_fd(), &mut bytes)?;
        bytes.truncate(got);
        Ok(bytes)
    }

    /// One `write(2)`.
    pub fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        nix::unistd::write(self.as_fd(), bytes)
    }

    /// Reads exactly `n` bytes.
    pub fn read_exact(&self, n: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; n];
        (&self.0).read_exact(&mut bytes).context("reading")?;
        Ok(bytes)
    }

    /// Writes all of `bytes`.
    pub fn write_all(&self, bytes: &[u8]) -> Result<()> {
        (&self.0).write_all(bytes).context("writing")
    }

    /// The events of `poll(2)` that hold now.
    pub fn events(&self) -> Result<PollFlags> {
        self.poll_for(PollFlags::POLLIN | PollFlags::POLLOUT, PollTimeout::ZERO)
    }

    /// Waits with `poll(2)` for one of `events`; empty when none came in time. (Not with nix's, which
    /// does not know POLLRDHUP.)
    pub fn poll_for(&self, events: PollFlags, timeout: PollTimeout) -> Result<PollFlags> {
        let mut fd = libc::pollfd {
            fd: self.fd(),
            events: events.bits(),
            revents: 0,
        };
        // SAFETY: One valid structure, for the call.
        let polled = unsafe { libc::poll(&raw mut fd, 1, timeout.into()) };
        Errno::result(polled).context("poll")?;
        Ok(PollFlags::from_bits_retain(fd.revents))
    }

    /// Waits until `n` bytes can be read.
    pub fn wait_level(&self, n: usize) -> Result<()> {
        crate::harness::eventually(&format!("{n} readable bytes"), || Ok(self.level()? >= n))
    }

    /// Writes single bytes until the FIFO is full (it must have O_NONBLOCK); how many it took.
    pub fn fill(&self) -> Result<usize> {
        let mut count: usize = 0;
        loop {
            match self.write(&[u8::try_from(count % 251)?]) {
                Ok(1) => count += 1,
                Err(Errno::EAGAIN) => return Ok(count),
                other => bail!("writing byte {count}: {other:?}"),
            }
        }
    }

    /// Reads until the FIFO is empty (it must have O_NONBLOCK).
    pub fn drain(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut part = [0; 4096];
        loop {
            match (&self.0).read(&mut part) {
                Ok(0) => return Ok(bytes),
                Ok(n) => bytes.extend_from_slice(part.get(..n).unwrap_or(&[])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(bytes),
                Err(error) => return Err(error).context("reading"),
            }
        }
    }

    /// The number of the descriptor.
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Sets or clears file status flags (`O_ASYNC`, `O_NONBLOCK`) with `fcntl(2)`.
    pub fn set_flags(&self, flags: i32, on: bool) -> Result<()> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let mut now = OFlag::from_bits_retain(fcntl(self, FcntlArg::F_GETFL)?);
        now.set(OFlag::from_bits_retain(flags), on);
        fcntl(self, FcntlArg::F_SETFL(now)).context("F_SETFL")?;
        Ok(())
    }

    /// Makes this process the owner, and asks for SIGIO or the signal `signal`.
    pub fn enable_signals(&self, signal: Option<i32>) -> Result<()> {
        let pid = i32::try_from(std::process::id())?;
        for (command, argument) in [(libc::F_SETOWN, pid), (F_SETSIG, signal.unwrap_or(0))] {
            // SAFETY: Both commands take an integer.
            let set = unsafe { libc::fcntl(self.fd(), command, argument) };
            Errno::result(set).context("F_SETOWN or F_SETSIG")?;
        }
        self.set_flags(libc::O_ASYNC, true)
    }
}

impl AsFd for Fifo {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Bytes that are different everywhere: a counter, run through a mixer.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}
