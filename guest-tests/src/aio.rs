// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Native AIO (`io_setup(2)` and its kin), called directly: libaio adds nothing to it.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc;

/// `IOCB_CMD_*` of `linux/aio_abi.h`.
pub const PREAD: u16 = 0;
/// See [`PREAD`].
pub const PWRITE: u16 = 1;
/// See [`PREAD`].
pub const FSYNC: u16 = 2;
/// See [`PREAD`].
pub const FDSYNC: u16 = 3;
/// See [`PREAD`].
pub const POLL: u16 = 5;
/// See [`PREAD`].
pub const PREADV: u16 = 7;
/// See [`PREAD`].
pub const PWRITEV: u16 = 8;

/// `IOCB_FLAG_RESFD`.
const FLAG_RESFD: u32 = 1;

/// `struct iocb`, little-endian.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Iocb {
    /// Comes back in the event.
    pub data: u64,
    /// Of the kernel.
    pub key: u32,
    /// `RWF_*`.
    pub rw_flags: i32,
    /// `IOCB_CMD_*`.
    pub opcode: u16,
    /// Priority.
    pub reqprio: i16,
    /// Descriptor.
    pub fd: u32,
    /// Buffer, vectors, or poll events.
    pub buf: u64,
    /// Bytes, or number of vectors.
    pub nbytes: u64,
    /// Position.
    pub offset: i64,
    /// Zero.
    pub reserved2: u64,
    /// `IOCB_FLAG_*`.
    pub flags: u32,
    /// Descriptor of an eventfd.
    pub resfd: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The request's `data`.
    pub data: u64,
    obj: u64,
    /// Bytes, or a negative error number.
    pub res: i64,
    res2: i64,
}

impl Iocb {
    /// A read into `buffer`, which must stay until the request is done.
    pub fn read(fd: &impl AsRawFdLike, buffer: &mut [u8]) -> Self {
        Self::new(fd, PREAD, buffer.as_mut_ptr() as u64, buffer.len())
    }

    /// A write of `bytes`, which must stay until the request is done.
    pub fn write(fd: &impl AsRawFdLike, bytes: &[u8]) -> Self {
        Self::new(fd, PWRITE, bytes.as_ptr() as u64, bytes.len())
    }

    /// Any request.
    pub fn new(fd: &impl AsRawFdLike, opcode: u16, buf: u64, count: usize) -> Self {
        Self {
            opcode,
            fd: fd.raw().cast_unsigned(),
            buf,
            nbytes: count as u64,
            ..Self::default()
        }
    }

    /// With a number that comes back in the event.
    pub fn data(mut self, data: u64) -> Self {
        self.data = data;
        self
    }

    /// With an eventfd to be signalled.
    pub fn resfd(mut self, eventfd: &impl AsRawFd) -> Self {
        self.flags |= FLAG_RESFD;
        self.resfd = eventfd.as_raw_fd().cast_unsigned();
        self
    }
}

/// What has a descriptor: files of the standard library, and FIFOs.
pub trait AsRawFdLike {
    /// The descriptor.
    fn raw(&self) -> RawFd;
}

impl<T: std::os::fd::AsFd> AsRawFdLike for T {
    fn raw(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// An AIO context; requests in it end with it.
#[derive(Debug)]
pub struct Context(libc::c_ulong);

impl Context {
    /// `io_setup(2)`.
    pub fn new(requests: u32) -> Result<Self> {
        let mut id: libc::c_ulong = 0;
        // SAFETY: `id` is valid.
        let made = unsafe { libc::syscall(libc::SYS_io_setup, requests, &raw mut id) };
        Errno::result(made).context("io_setup")?;
        Ok(Self(id))
    }

    /// `io_submit(2)` of one request.
    ///
    /// The caller keeps the request and its buffers in place until it is done: the kernel checks
    /// addresses, but a buffer that is reused meanwhile gets bytes that were meant for it.
    pub fn submit(&self, iocb: &mut Iocb) -> Result<(), Errno> {
        let mut list = [&raw mut *iocb];
        // SAFETY: The list has one entry, a valid iocb.
        let done = unsafe { libc::syscall(libc::SYS_io_submit, self.0, 1, list.as_mut_ptr()) };
        Errno::result(done).map(drop)
    }

    /// `io_submit(2)` of many; how many were taken.
    pub fn submit_all(&self, iocbs: &mut [Iocb]) -> Result<usize, Errno> {
        let mut list: Vec<*mut Iocb> = iocbs.iter_mut().map(|iocb| &raw mut *iocb).collect();
        // SAFETY: The list has that many entries, all valid.
        let done =
            unsafe { libc::syscall(libc::SYS_io_submit, self.0, list.len(), list.as_mut_ptr()) };
        Errno::result(done).map(|count| usize::try_from(count).unwrap_or(0))
    }

    /// `io_getevents(2)`: waits for `min` events, takes up to `max`.
    pub fn events(&self, min: usize, max: usize, limit: Duration) -> Result<Vec<Event>> {
        let mut events = vec![Event::default(); max];
        let mut timeout = libc::timespec {
            tv_sec: i64::try_from(limit.as_secs())?,
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        // SAFETY: There is room for `max` events, and the timeout is valid.
        let got = unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.0,
                min,
                max,
                events.as_mut_ptr(),
                &raw mut timeout,
            )
        };
        events.truncate(usize::try_from(
            Errno::result(got).context("io_getevents")?,
        )?);
        Ok(events)
    }

    /// The next event, which must come soon.
    pub fn event(&self) -> Result<Event> {
        let events = self.events(1, 1, crate::harness::SOON)?;
        events.first().copied().context("no event came")
    }

    /// The next `n` events as a map from `data` to `res`.
    pub fn results(&self, n: usize) -> Result<BTreeMap<u64, i64>> {
        let events = self.events(n, n, crate::harness::SOON)?;
        Ok(events.iter().map(|event| (event.data, event.res)).collect())
    }

    /// `io_cancel(2)`.
    pub fn cancel(&self, iocb: &mut Iocb) -> Result<(), Errno> {
        let mut event = Event::default();
        let iocb = &raw mut *iocb;
        // SAFETY: Both are valid.
        let done = unsafe { libc::syscall(libc::SYS_io_cancel, self.0, iocb, &raw mut event) };
        Errno::result(done).map(drop)
    }

    /// `io_destroy(2)`.
    pub fn destroy(self) -> Result<(), Errno> {
        let id = self.0;
        std::mem::forget(self);
        // SAFETY: Takes a number.
        Errno::result(unsafe { libc::syscall(libc::SYS_io_destroy, id) }).map(drop)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: Takes a number.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}
