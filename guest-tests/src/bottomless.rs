// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory whose page faults are never resolved: whoever touches it, the kernel included, stops there.
//!
//! Knows userfaultfd(2), nothing of FIFOs. The memory belongs to the process that made it, and is only to
//! be given to system calls.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc;

use crate::harness::Skip;
use crate::mapping::Mapping;

/// `UFFD_API`.
const API: u64 = 0xAA;
/// `UFFDIO_REGISTER_MODE_MISSING`.
const MISSING: u64 = 1;

/// `struct uffdio_api` of `linux/userfaultfd.h`.
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

mod ioctls {
    nix::ioctl_readwrite!(api, 0xAA, 0x3F, super::Api);
    nix::ioctl_readwrite!(register, 0xAA, 0x00, super::Register);
}

/// Such memory.
#[derive(Debug)]
pub struct Bottomless {
    memory: Mapping,
    _fd: OwnedFd,
}

impl Bottomless {
    /// Of `length` bytes, none of which is there.
    pub fn new(length: usize) -> Result<Self> {
        // SAFETY: Takes a number.
        let made = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
        let fd = match Errno::result(made) {
            Ok(fd) => i32::try_from(fd)?,
            Err(Errno::ENOSYS) => {
                return Err(Skip("needs userfaultfd (CONFIG_USERFAULTFD)").into());
            }
            Err(error) => return Err(error).context("userfaultfd"),
        };
        // SAFETY: A new descriptor, which nobody else has.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut api = Api {
            api: API,
            features: 0,
            ioctls: 0,
        };
        // SAFETY: The argument is such a structure.
        unsafe { ioctls::api(fd.as_raw_fd(), &raw mut api) }.context("UFFDIO_API")?;
        let memory = Mapping::private(length)?;
        let mut range = Register {
            start: memory.address(),
            length: length as u64,
            mode: MISSING,
            ioctls: 0,
        };
        // SAFETY: As above.
        unsafe { ioctls::register(fd.as_raw_fd(), &raw mut range) }.context("UFFDIO_REGISTER")?;
        Ok(Self { memory, _fd: fd })
    }

    /// Its address.
    pub fn address(&self) -> u64 {
        self.memory.address()
    }
}
