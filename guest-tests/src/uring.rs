// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! io_uring in small steps: a request in, its completion out, and a look at the kernel's helpers.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Submitter, opcode, squeue};
use nix::errno::Errno;
use nix::libc::{self, iovec};

use crate::aio::AsRawFdLike;
use crate::harness::SOON;

/// Requests a ring takes at a time.
const ENTRIES: u32 = 256;

/// How long the kernel thread of a ring with SQPOLL stays awake without work, in milliseconds: short,
/// so that tests also meet it asleep.
const SQPOLL_IDLE: u32 = 20;

/// What the ring said of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The number of the request.
    pub data: u64,
    /// Bytes, events, or a negative error number.
    pub res: i32,
    /// `IORING_CQE_F_*`.
    pub flags: u32,
}

impl Completion {
    /// More completions of the same request will come.
    pub fn more(&self) -> bool {
        io_uring::cqueue::more(self.flags)
    }

    /// Which of the provided buffers was used.
    pub fn buffer(&self) -> Option<u16> {
        io_uring::cqueue::buffer_select(self.flags)
    }
}

/// A ring. Its requests end with it.
pub struct Ring {
    ring: IoUring,
    done: VecDeque<Completion>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Ring");
        shown.field("done", &self.done).finish_non_exhaustive()
    }
}

impl Ring {
    /// A plain ring.
    pub fn new() -> Result<Self> {
        let ring = IoUring::new(ENTRIES).context("io_uring_setup")?;
        Ok(Self::from(ring))
    }

    /// One with `IORING_SETUP_SQPOLL`: a kernel thread submits.
    pub fn with_sqpoll() -> Result<Self> {
        let ring = IoUring::builder()
            .setup_sqpoll(SQPOLL_IDLE)
            .build(ENTRIES)
            .context("io_uring_setup with SQPOLL")?;
        Ok(Self::from(ring))
    }

    fn from(ring: IoUring) -> Self {
        let done = VecDeque::new();
        Self { ring, done }
    }

    /// To register buffers and files.
    pub fn submitter(&self) -> Submitter<'_> {
        self.ring.submitter()
    }

    /// Queues a request under the number `data`, to be submitted with what follows.
    ///
    /// The caller keeps the buffers in place until it is done: the kernel checks addresses, but a
    /// buffer that is reused meanwhile gets bytes that were meant for it.
    pub fn queue(&mut self, entry: squeue::Entry, data: u64) -> Result<()> {
        let entry = entry.user_data(data);
        // SAFETY: The kernel checks what the entry refers to; see above for its lifetime.
        unsafe { self.ring.submission().push(&entry) }.context("the submission queue is full")
    }

    /// Submits what is queued.
    pub fn flush(&mut self) -> Result<()> {
        self.ring.submit().context("io_uring_enter")?;
        Ok(())
    }

    /// Submits a request under the number `data`.
    pub fn submit(&mut self, entry: squeue::Entry, data: u64) -> Result<()> {
        self.queue(entry, data)?;
        self.flush()
    }

    /// The next completion, if one comes within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<Completion>> {
        self.reap();
        if self.done.is_empty() {
            let limit = Timespec::from(limit);
            let arguments = SubmitArgs::new().timespec(&limit);
            match self.ring.submitter().submit_with_args(1, &arguments) {
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR)) => {}
                Err(error) => return Err(error).context("io_uring_enter"),
            }
            self.reap();
        }
        Ok(self.done.pop_front())
    }

    /// The next completion, which must come soon.
    pub fn completion(&mut self) -> Result<Completion> {
        self.wait(SOON)?.context("no completion came")
    }

    /// The next `n` completions, from number to result.
    pub fn results(&mut self, n: usize) -> Result<BTreeMap<u64, i32>> {
        (0..n)
            .map(|_| self.completion().map(|done| (done.data, done.res)))
            .collect()
    }

    /// Submits a request and gives its result, which must come soon.
    pub fn run(&mut self, entry: squeue::Entry) -> Result<Result<usize, Errno>> {
        self.submit(entry, u64::MAX)?;
        Ok(outcome(self.completion()?.res))
    }

    /// `ASYNC_CANCEL` of the request `target`, itself under the number `data`.
    pub fn cancel(&mut self, target: u64, data: u64) -> Result<()> {
        self.submit(opcode::AsyncCancel::new(target).build(), data)
    }

    fn reap(&mut self) {
        self.done
            .extend(self.ring.completion().map(|entry| Completion {
                data: entry.user_data(),
                res: entry.result(),
                flags: entry.flags(),
            }));
    }
}

/// A completion's result as a call would give it.
pub fn outcome(res: i32) -> Result<usize, Errno> {
    usize::try_from(res).map_err(|_| Errno::from_raw(-res))
}

/// READ.
pub fn read(fd: &impl AsRawFdLike, room: &mut [u8]) -> squeue::Entry {
    let length = u32::try_from(room.len()).unwrap_or(u32::MAX);
    opcode::Read::new(Fd(fd.raw()), room.as_mut_ptr(), length)
        .offset(u64::MAX)
        .build()
}

/// WRITE.
pub fn write(fd: &impl AsRawFdLike, bytes: &[u8]) -> squeue::Entry {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    opcode::Write::new(Fd(fd.raw()), bytes.as_ptr(), length)
        .offset(u64::MAX)
        .build()
}

/// READV.
pub fn readv(fd: &impl AsRawFdLike, rooms: &[iovec]) -> squeue::Entry {
    let count = u32::try_from(rooms.len()).unwrap_or(u32::MAX);
    opcode::Readv::new(Fd(fd.raw()), rooms.as_ptr(), count)
        .offset(u64::MAX)
        .build()
}

/// WRITEV.
pub fn writev(fd: &impl AsRawFdLike, parts: &[iovec]) -> squeue::Entry {
    let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    opcode::Writev::new(Fd(fd.raw()), parts.as_ptr(), count)
        .offset(u64::MAX)
        .build()
}

/// POLL_ADD for `events`, once or until removed.
pub fn poll(fd: &impl AsRawFdLike, events: i16, multishot: bool) -> squeue::Entry {
    opcode::PollAdd::new(Fd(fd.raw()), u32::from(events.cast_unsigned()))
        .multi(multishot)
        .build()
}

/// How many threads of this process io_uring has for requests that block.
pub fn workers() -> Result<usize> {
    let mut count = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let name = fs::read_to_string(task?.path().join("comm")).unwrap_or_default();
        count += usize::from(name.starts_with("iou-wrk"));
    }
    Ok(count)
}
