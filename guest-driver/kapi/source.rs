// SPDX-License-Identifier: GPL-2.0-only

//! The data of a write, of which what was copied can be given back.
//!
//! C header: [`include/linux/uio.h`](srctree/include/linux/uio.h).

use core::mem::MaybeUninit;
use kernel::iov::IovIterSource;

/// The data of a write.
pub(crate) struct Source<'a, 'data> {
    iter: &'a mut IovIterSource<'data>,
    copied: usize,
}

impl<'a, 'data> Source<'a, 'data> {
    /// Wraps the iterator of a `write_iter`.
    pub(crate) fn new(iter: &'a mut IovIterSource<'data>) -> Self {
        Self { iter, copied: 0 }
    }

    /// The iterator.
    pub(super) fn iter(&mut self) -> &mut IovIterSource<'data> {
        self.iter
    }

    /// Bytes not copied yet.
    pub(crate) fn len(&self) -> usize {
        self.iter.len()
    }

    /// Copies into the beginning of `out`; fewer bytes than asked for means memory that is not
    /// there. Sleeps in a page fault, unless there is a [`NoFaults`](super::user_memory::NoFaults).
    pub(super) fn copy(&mut self, out: &mut [MaybeUninit<u8>]) -> usize {
        let copied = self.copy_to(out);
        self.copied += copied;
        copied
    }

    /// As [`Source::copy`]; the bytes.
    #[cfg(GLOBALFIFO_FAST)]
    pub(crate) fn copy_out<'b>(&mut self, out: &'b mut [MaybeUninit<u8>]) -> &'b [u8] {
        let copied = self.iter.copy_from_iter_raw(out).len();
        self.copied += copied;
        // SAFETY: So many bytes were just written to `out`.
        unsafe { core::slice::from_raw_parts(out.as_ptr().cast(), copied) }
    }

    #[cfg(not(GLOBALFIFO_FAST))]
    fn copy_to(&mut self, out: &mut [MaybeUninit<u8>]) -> usize {
        self.iter.copy_from_iter_raw(out).len()
    }

    #[cfg(GLOBALFIFO_FAST)]
    fn copy_to(&mut self, out: &mut [MaybeUninit<u8>]) -> usize {
        super::pages::copy_from(self.iter, out)
    }

    /// Says that the next `bytes` were taken from the iterator in another way.
    #[cfg(GLOBALFIFO_FAST)]
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
