// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory whose page faults the test resolves: `userfaultfd(2)`.
//!
//! An access to such memory sleeps until the test says so, as one to a file of a server that does not answer does.
//! Knows nothing of FIFOs.

use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc::{self, c_int, c_void};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Size of a page.
pub const PAGE: usize = 4096;

/// `UFFD_API`.
const API: u64 = 0xAA;
/// `UFFDIO_REGISTER_MODE_MISSING`.
const MISSING: u64 = 1;

/// `struct uffdio_api`.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    start: u64,
    length: u64,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_zeropage`.
#[repr(C)]
struct ZeroPage {
    start: u64,
    length: u64,
    mode: u64,
    zeroed: i64,
}

mod ioctls {
    nix::ioctl_readwrite!(api, 0xAA, 0x3F, super::Api);
    nix::ioctl_readwrite!(register, 0xAA, 0x00, super::Register);
    nix::ioctl_readwrite!(zero_page, 0xAA, 0x04, super::ZeroPage);
}

/// Pages that are missing until [`Missing::resolve`]. Unmapped by nobody: a test's process ends with them.
#[derive(Debug)]
pub struct Missing {
    fd: OwnedFd,
    start: usize,
    length: usize,
}

impl Missing {
    /// `pages` missing pages.
    ///
    /// # Errors
    ///
    /// When the kernel has no userfaultfd (CONFIG_USERFAULTFD), or refuses it.
    pub fn new(pages: usize) -> Result<Self> {
        // SAFETY: The call takes flags alone.
        let fd =
            unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
        let fd = Errno::result(fd).context("userfaultfd")?;
        // SAFETY: A descriptor that was just made, and that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(c_int::try_from(fd)?) };
        let mut api = Api {
            api: API,
            features: 0,
            ioctls: 0,
        };
        // SAFETY: The argument is valid for the call.
        unsafe { ioctls::api(fd.as_raw_fd(), &raw mut api) }.context("UFFDIO_API")?;
        let length = pages * PAGE;
        // SAFETY: A new mapping, anywhere.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Errno::last()).context("mmap");
        }
        let start = start as usize;
        let mut register = Register {
            start: start as u64,
            length: length as u64,
            mode: MISSING,
            ioctls: 0,
        };
        // SAFETY: The argument is valid for the call.
        unsafe { ioctls::register(fd.as_raw_fd(), &raw mut register) }
            .context("UFFDIO_REGISTER")?;
        Ok(Self { fd, start, length })
    }

    /// Lets the program that the process executes next have the descriptor, so that faults go on to wait.
    pub fn outlive_exec(&self) -> Result<(), Errno> {
        let none = nix::fcntl::FdFlag::empty();
        nix::fcntl::fcntl(&self.fd, nix::fcntl::FcntlArg::F_SETFD(none)).map(drop)
    }

    /// Where the pages are.
    pub fn address(&self) -> u64 {
        self.start as u64
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether an access waits for a page, or comes to within `limit`.
    ///
    /// # Errors
    ///
    /// Those of poll.
    pub fn is_awaited(&self, limit: Duration) -> Result<bool> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        Ok(poll(&mut fds, timeout)? == 1)
    }

    /// Gives all pages, full of zeros, and wakes who waits for them.
    ///
    /// # Errors
    ///
    /// Those of `UFFDIO_ZEROPAGE`.
    pub fn resolve(&self) -> Result<()> {
        let mut page = ZeroPage {
            start: self.start as u64,
            length: self.length as u64,
            mode: 0,
            zeroed: 0,
        };
        // SAFETY: The argument is valid for the call.
        unsafe { ioctls::zero_page(self.fd.as_raw_fd(), &raw mut page) }
            .context("UFFDIO_ZEROPAGE")?;
        Ok(())
    }

    /// `read(2)` into the first `n` bytes.
    ///
    /// # Errors
    ///
    /// Those of read.
    pub fn read_from(&self, fd: c_int, n: usize) -> Result<usize, Errno> {
        let n = n.min(self.length);
        // SAFETY: The mapping has that many bytes and no Rust reference to any of them lives.
        let read = unsafe { libc::read(fd, self.start as *mut c_void, n) };
        Errno::result(read).map(isize::cast_unsigned)
    }

    /// The first `n` bytes; they must be there.
    pub fn bytes(&self, n: usize) -> Vec<u8> {
        let n = n.min(self.length);
        // SAFETY: The mapping has that many bytes, and lives as long as the process.
        unsafe { std::slice::from_raw_parts(self.start as *const u8, n) }.to_vec()
    }
}
