// SPDX-License-Identifier: GPL-2.0-only

//! Asynchronous notification: the list of files that asked for SIGIO with `O_ASYNC`.
//!
//! Only [`super::chardev`] puts files on a list and takes them off: the driver signals.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h), `struct fasync_struct`.

use super::bindings;
use core::{
    cell::UnsafeCell,
    ptr, //
};
use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// Band of a signal: `siginfo_t.si_code`, where the owner chose a signal with `F_SETSIG`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Band {
    /// Data to read.
    In = bindings::POLL_IN,
    /// Space to write to.
    Out = bindings::POLL_OUT,
    /// Failure of the device.
    Err = bindings::POLL_ERR,
    /// End of the other side.
    Hup = bindings::POLL_HUP,
}

/// The files to be signalled.
///
/// Locking is the C side's: entries are added and removed under its `fasync_lock`, and walked under
/// RCU.
///
/// # Invariants
///
/// `head` is only ever touched by `fasync_helper` and `kill_fasync`. Every file on the list is
/// valid.
pub(crate) struct FasyncList {
    head: UnsafeCell<*mut bindings::fasync_struct>,
    /// Number of files. `Relaxed`: it orders nothing.
    files: Atomic<i32>,
}

// SAFETY: All access to `head` goes through C functions that lock by themselves.
unsafe impl Send for FasyncList {}
// SAFETY: As above.
unsafe impl Sync for FasyncList {}

impl FasyncList {
    /// Makes an empty list.
    pub(crate) fn new() -> Result<Arc<Self>> {
        // INVARIANT: A null head is the empty list.
        let list = Self {
            head: UnsafeCell::new(ptr::null_mut()),
            files: Atomic::new(0),
        };
        Ok(Arc::new(list, GFP_KERNEL)?)
    }

    /// Adds `file` where `on` is not 0, and removes it otherwise, as the `fasync` file operation is
    /// asked to; whether that changed the list.
    ///
    /// # Safety
    ///
    /// `file` is valid, and [`FasyncList::remove`] is called before it is freed.
    pub(super) unsafe fn set(
        &self,
        fd: c_int,
        file: *mut bindings::file,
        on: c_int,
    ) -> Result<bool> {
        // SAFETY: By the type invariants and the safety requirements.
        let changed = unsafe { bindings::fasync_helper(fd, file, on, self.head.get()) };
        if changed > 0 {
            self.files.fetch_add(if on == 0 { -1 } else { 1 }, Relaxed);
        }
        // Positive is «changed», zero «nothing to change»; both are success to the VFS.
        to_result(changed.min(0))?;
        Ok(changed > 0)
    }

    /// Takes `file` off the list if it is on it.
    ///
    /// # Safety
    ///
    /// `file` is valid.
    pub(super) unsafe fn remove(&self, file: *mut bindings::file) {
        if !self.is_empty() {
            // SAFETY: By the safety requirements. To remove does not fail.
            let _ = unsafe { self.set(-1, file, 0) };
        }
    }

    /// Whether no file is on the list. A hint only: the list may change at any time.
    pub(crate) fn is_empty(&self) -> bool {
        // SAFETY: An aligned pointer is read in one piece and never dereferenced.
        unsafe { ptr::read_volatile(self.head.get()) }.is_null()
    }

    /// Number of files on the list. A hint only, as [`FasyncList::is_empty`].
    pub(crate) fn len(&self) -> u32 {
        self.files.load(Relaxed).try_into().unwrap_or(0)
    }

    /// Sends SIGIO, or the signal chosen with `F_SETSIG`, to the owner of every file on the list.
    /// Any context.
    pub(crate) fn signal(&self, band: Band) {
        // SAFETY: By the type invariants; `kill_fasync` takes only locks of its own.
        unsafe { bindings::kill_fasync(self.head.get(), bindings::SIGIO as i32, band as i32) };
    }
}
