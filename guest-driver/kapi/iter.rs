// SPDX-License-Identifier: GPL-2.0-only

//! The request behind a `read_iter` or `write_iter`, and the data that a write brings.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h), `struct kiocb`,
//! [`include/linux/uio.h`](srctree/include/linux/uio.h), and
//! [`include/linux/uaccess.h`](srctree/include/linux/uaccess.h).

use super::bindings;
use core::mem::MaybeUninit;
use kernel::{
    iov::IovIterSource,
    prelude::*,
    sync::SetOnce, //
};

/// Least bytes that are copied without string instructions by QEMU's translator, which makes a loop of them that
/// stores its registers with each eight bytes. What the kernel has for that bypasses the cache, which the translator
/// does not mind, but a real CPU would: the device looks for the bytes at once.
const NO_STRINGS: usize = 4096;

/// Whether that translator runs this, once it is known.
static IN_TCG: SetOnce<bool> = SetOnce::new();

fn runs_in_tcg() -> bool {
    IN_TCG.copy().unwrap_or_else(|| {
        // SAFETY: It asks the CPU, which may be done anywhere.
        let answer = unsafe { bindings::globalfifo_runs_in_tcg() };
        IN_TCG.populate(answer);
        answer
    })
}

/// One read or write in progress, `struct kiocb`.
///
/// # Invariants
///
/// Valid, with a valid file, for the duration of the file operation it was made for.
pub(crate) struct Request(*mut bindings::kiocb);

impl Request {
    /// Wraps what a file operation got.
    ///
    /// # Safety
    ///
    /// `kiocb` and its file are valid for as long as the returned value exists.
    pub(crate) unsafe fn from_raw(kiocb: *mut bindings::kiocb) -> Self {
        // INVARIANT: By the safety requirements.
        Self(kiocb)
    }

    /// The C structure.
    pub(super) fn as_raw(&self) -> *mut bindings::kiocb {
        self.0
    }

    /// Whether the caller wants `EAGAIN` rather than to wait: `O_NONBLOCK`, `RWF_NOWAIT`, io_uring.
    pub(crate) fn must_not_wait(&self) -> bool {
        // SAFETY: By the type invariants, kiocb and file are valid.
        let (flags, file_flags) = unsafe { ((*self.0).ki_flags, (*(*self.0).ki_filp).f_flags) };
        flags & bindings::GLOBALFIFO_IOCB_NOWAIT != 0 || file_flags & bindings::O_NONBLOCK != 0
    }
}

/// The bytes of a `write(2)` as the VFS hands them over: memory of the current process.
pub(crate) struct UserBytes {
    from: *const c_void,
    len: usize,
}

impl UserBytes {
    /// `len` bytes from there on.
    ///
    /// # Safety
    ///
    /// It is a range of addresses of user space (`access_ok()`), mapped or not.
    pub(super) unsafe fn new(from: *const c_char, len: usize) -> Self {
        Self {
            from: from.cast(),
            len,
        }
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies all of them to `out`, which has that length; false if some would have to be fetched first, or
    /// there is no such memory. Any context.
    pub(super) fn copy_at_hand(&self, out: &mut [MaybeUninit<u8>]) -> bool {
        let len = self.len.min(out.len());
        // SAFETY: There is room for so many bytes, and what they are copied from was checked to be none of
        // the kernel's.
        let left = unsafe {
            bindings::globalfifo_copy_from_user_atomic(out.as_mut_ptr().cast(), self.from, len)
        };
        left == 0 && len == self.len
    }
}

/// The data of a write, from which what was copied can be given back.
pub(crate) struct Source<'a, 'data> {
    iter: &'a mut IovIterSource<'data>,
    copied: usize,
}

impl<'a, 'data> Source<'a, 'data> {
    /// Wraps the iterator of a `write_iter`.
    pub(crate) fn new(iter: &'a mut IovIterSource<'data>) -> Self {
        Self { iter, copied: 0 }
    }

    /// The iterator, to be remembered: what was copied has been given back.
    pub(crate) fn iter(&mut self) -> &mut IovIterSource<'data> {
        self.iter
    }

    /// Bytes not copied yet.
    pub(crate) fn len(&self) -> usize {
        self.iter.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies into the beginning of `out`; fewer bytes than asked for means a bad address. May sleep.
    pub(super) fn copy(&mut self, out: &mut [MaybeUninit<u8>]) -> usize {
        let mut copied = 0;
        if out.len() >= NO_STRINGS && runs_in_tcg() {
            // SAFETY: The iterator is valid, and `out` has room for so many bytes.
            copied = unsafe {
                bindings::_copy_from_iter_nocache(
                    out.as_mut_ptr().cast(),
                    out.len(),
                    self.iter.as_raw(),
                )
            };
        }
        // Also the last few bytes before a bad address, which that leaves out.
        if let Some(rest @ [_, ..]) = out.get_mut(copied..) {
            copied += self.iter.copy_from_iter_raw(rest).len();
        }
        self.copied += copied;
        copied
    }

    /// Says that the next `bytes` were taken from the iterator in another way.
    pub(super) fn took(&mut self, bytes: usize) {
        self.copied += bytes;
    }

    /// Gives back the last `bytes` copied, so that they are copied again next time.
    pub(crate) fn put_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.copied);
        self.copied -= bytes;
        // SAFETY: At least `bytes` have been copied from the iterator and not been given back.
        unsafe { self.iter.revert(bytes) };
    }
}
