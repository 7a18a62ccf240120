// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! POSIX AIO (`aio_read(3)` and its kin) as glibc has it: on threads of its own.

use std::mem;
use std::os::fd::RawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{self, aiocb, c_int, c_void, sigevent, sigval};

use crate::aio::AsRawFdLike;
use crate::harness::SOON;

/// `aio_cancel(3)`: it was cancelled.
pub const CANCELED: c_int = libc::AIO_CANCELED;
/// `aio_cancel(3)`: it is being done, and cannot be cancelled.
pub const NOT_CANCELED: c_int = libc::AIO_NOTCANCELED;
/// `aio_cancel(3)`: it had been done before.
pub const ALL_DONE: c_int = libc::AIO_ALLDONE;

/// What `sigevent` looks like for SIGEV_THREAD; the libc crate does not show that part of its union.
#[repr(C)]
struct ThreadEvent {
    value: *mut c_void,
    signal: c_int,
    notify: c_int,
    function: extern "C" fn(sigval),
    attributes: *mut c_void,
    rest: [u64; 4],
}

const _: () = assert!(size_of::<ThreadEvent>() == size_of::<sigevent>());

/// A control block with its buffer.
#[derive(Debug)]
pub struct Control {
    /// From a box, so that it stays where it is.
    block: *mut aiocb,
    /// Where bytes are put and taken from. The C library has its address.
    buffer: Vec<u8>,
}

impl Control {
    /// For a read of up to `length` bytes.
    pub fn reader(fd: &impl AsRawFdLike, length: usize) -> Self {
        Self::with(fd.raw(), vec![0; length])
    }

    /// For a write of `bytes`, or with none for an fsync.
    pub fn writer(fd: &impl AsRawFdLike, bytes: &[u8]) -> Self {
        Self::with(fd.raw(), bytes.to_vec())
    }

    /// For whatever is behind the number `fd`.
    pub fn with(fd: RawFd, mut buffer: Vec<u8>) -> Self {
        // SAFETY: A control block is to be zeroed before use.
        let mut block: aiocb = unsafe { mem::zeroed() };
        block.aio_fildes = fd;
        block.aio_buf = buffer.as_mut_ptr().cast();
        block.aio_nbytes = buffer.len();
        block.aio_sigevent.sigev_notify = libc::SIGEV_NONE;
        let block = Box::into_raw(Box::new(block));
        Self { block, buffer }
    }

    /// The block, to be changed before it is submitted.
    pub fn block(&mut self) -> &mut aiocb {
        // SAFETY: It came from a box, and the C library looks at it only while a request is pending.
        unsafe { &mut *self.block }
    }

    /// For lists of requests.
    pub fn raw(&self) -> *mut aiocb {
        self.block
    }

    /// Asks for `signal`, queued with `value`.
    pub fn notify_by_signal(&mut self, signal: c_int, value: usize) {
        self.block().aio_sigevent = by_signal(signal, value);
    }

    /// Asks for `function(value)` on a thread.
    pub fn notify_by_thread(&mut self, function: extern "C" fn(sigval), value: usize) {
        self.block().aio_sigevent = by_thread(function, value);
    }

    /// `aio_read(3)`.
    pub fn read(&mut self) -> Result<(), Errno> {
        // SAFETY: Block and buffer stay until the request is done; see `drop`.
        Errno::result(unsafe { libc::aio_read(self.block) }).map(drop)
    }

    /// `aio_write(3)`.
    pub fn write(&mut self) -> Result<(), Errno> {
        // SAFETY: As for `read`.
        Errno::result(unsafe { libc::aio_write(self.block) }).map(drop)
    }

    /// `aio_fsync(3)` with `O_SYNC` or `O_DSYNC`.
    pub fn fsync(&mut self, operation: c_int) -> Result<(), Errno> {
        // SAFETY: As for `read`.
        Errno::result(unsafe { libc::aio_fsync(operation, self.block) }).map(drop)
    }

    /// `aio_error(3)`: `EINPROGRESS` until it is done.
    pub fn state(&self) -> Result<(), Errno> {
        // SAFETY: The block is valid.
        match unsafe { libc::aio_error(self.block) } {
            0 => Ok(()),
            error => Err(Errno::from_raw(error)),
        }
    }

    /// `aio_return(3)`, once it is done: bytes, or the error of `aio_error(3)`.
    pub fn result(&mut self) -> Result<usize, Errno> {
        let state = self.state();
        // SAFETY: The block is valid.
        let returned = unsafe { libc::aio_return(self.block) };
        match (state, usize::try_from(returned)) {
            (Ok(()), Ok(count)) => Ok(count),
            (Err(error), Err(_)) => Err(error),
            // The two contradict each other.
            _ => Err(Errno::EPROTO),
        }
    }

    /// Waits with `aio_suspend(3)` until it is done, and gives the result.
    pub fn wait(&mut self) -> Result<usize, Errno> {
        suspend(&[self.block], Some(SOON))?;
        self.result()
    }

    /// `aio_cancel(3)`.
    pub fn cancel(&mut self) -> Result<c_int, Errno> {
        let fd = self.block().aio_fildes;
        // SAFETY: The block is valid.
        Errno::result(unsafe { libc::aio_cancel(fd, self.block) })
    }

    /// The buffer.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if self.state() == Err(Errno::EINPROGRESS) {
            // A thread of the C library still uses both: they are given up.
            mem::forget(mem::take(&mut self.buffer));
            return;
        }
        // SAFETY: It came from a box, and nothing uses it any more.
        drop(unsafe { Box::from_raw(self.block) });
    }
}

/// A `sigevent` for SIGEV_SIGNAL.
pub fn by_signal(signal: c_int, value: usize) -> sigevent {
    // SAFETY: All zero is a valid one.
    let mut event: sigevent = unsafe { mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = signal;
    event.sigev_value.sival_ptr = std::ptr::without_provenance_mut(value);
    event
}

/// A `sigevent` for SIGEV_THREAD.
pub fn by_thread(function: extern "C" fn(sigval), value: usize) -> sigevent {
    let event = ThreadEvent {
        value: std::ptr::without_provenance_mut(value),
        signal: 0,
        notify: libc::SIGEV_THREAD,
        function,
        attributes: std::ptr::null_mut(),
        rest: [0; 4],
    };
    // SAFETY: The C library's own layout, and of that size.
    unsafe { mem::transmute(event) }
}

/// `aio_suspend(3)`: waits until one of the requests is done. Null entries are skipped.
pub fn suspend(list: &[*mut aiocb], limit: Option<Duration>) -> Result<(), Errno> {
    let timeout = limit.map(|limit| libc::timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(limit.subsec_nanos()),
    });
    let timeout = timeout
        .as_ref()
        .map_or(std::ptr::null(), std::ptr::from_ref);
    let count = c_int::try_from(list.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: The entries are null or valid blocks.
    let done = unsafe { libc::aio_suspend(list.as_ptr().cast(), count, timeout) };
    Errno::result(done).map(drop)
}

/// `aio_cancel(3)` of all requests of `fd`.
pub fn cancel_all(fd: RawFd) -> Result<c_int, Errno> {
    // SAFETY: Without a block, all are meant.
    Errno::result(unsafe { libc::aio_cancel(fd, std::ptr::null_mut()) })
}

/// `lio_listio(3)`; each block's `aio_lio_opcode` says what to do.
pub fn listio(mode: c_int, list: &[*mut aiocb], event: Option<&mut sigevent>) -> Result<(), Errno> {
    let event = event.map_or(std::ptr::null_mut(), std::ptr::from_mut);
    let count = c_int::try_from(list.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: The entries are null or valid blocks, the event null or valid.
    let done = unsafe { libc::lio_listio(mode, list.as_ptr(), count, event) };
    Errno::result(done).map(drop)
}
