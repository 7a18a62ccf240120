// SPDX-License-Identifier: GPL-2.0-only

//! Asynchronous notification: the list of files that asked for SIGIO with `FASYNC`.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h), `struct fasync_struct`.

use super::bindings;
use core::{
    cell::UnsafeCell,
    ptr, //
};
use kernel::{
    error::to_result,
    fs::File,
    prelude::*, //
};

/// What a signal reports in `siginfo_t.si_code` when the owner asked for a real-time signal.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Band {
    /// There is data to read.
    In = bindings::POLL_IN,
    /// There is space to write to.
    Out = bindings::POLL_OUT,
    /// The device failed.
    Err = bindings::POLL_ERR,
    /// The other side is gone.
    Hup = bindings::POLL_HUP,
}

/// The files to be signalled.
///
/// Locking is the C side's: entries are added and removed under its `fasync_lock`, and walked under
/// RCU, so every method may be called from any context, hard interrupts included, except
/// [`FasyncList::set`], which allocates.
///
/// # Invariants
///
/// `head` is only ever touched by `fasync_helper` and `kill_fasync`. The owner of the list outlives
/// every file in it: the VFS removes a file's entry (`fasync(-1, file, 0)`) before its `release`.
pub(crate) struct FasyncList {
    head: UnsafeCell<*mut bindings::fasync_struct>,
}

// SAFETY: All access to `head` goes through C functions that lock by themselves.
unsafe impl Send for FasyncList {}
// SAFETY: As above.
unsafe impl Sync for FasyncList {}

impl FasyncList {
    /// An empty list.
    pub(crate) const fn new() -> Self {
        // INVARIANT: A null head is the empty list.
        Self {
            head: UnsafeCell::new(ptr::null_mut()),
        }
    }

    /// Adds (`on`) or removes `file`, as the `fasync` file operation is asked to.
    pub(crate) fn set(&self, fd: i32, file: &File, on: bool) -> Result {
        // SAFETY: By the type invariants, the list may be passed to `fasync_helper`, and `file` is
        // a valid file.
        let changed =
            unsafe { bindings::fasync_helper(fd, file.as_ptr(), i32::from(on), self.head.get()) };
        // Positive is «changed», zero «nothing to change»; both are success to the VFS.
        to_result(changed.min(0))
    }

    /// Whether no file asked for signals. A hint only: the list may change at any time.
    pub(crate) fn is_empty(&self) -> bool {
        // SAFETY: An aligned pointer is read in one piece and never dereferenced.
        unsafe { ptr::read_volatile(self.head.get()) }.is_null()
    }

    /// Sends SIGIO, or the signal chosen with `F_SETSIG`, to every owner.
    pub(crate) fn signal(&self, band: Band) {
        // SAFETY: By the type invariants, the list may be passed to `kill_fasync`, which takes
        // only locks of its own.
        unsafe { bindings::kill_fasync(self.head.get(), bindings::SIGIO as i32, band as i32) };
    }
}
