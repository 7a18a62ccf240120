// SPDX-License-Identifier: GPL-2.0-only

//! Memory of a process, pinned, to be written to in any context, interrupts included. Of the fast
//! edition alone.
//!
//! At most [`Pinned::PAGES`] pages of a few requests: they are not charged to `RLIMIT_MEMLOCK`.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h). How pinned pages are to be
//! treated: `Documentation/core-api/pin_user_pages.rst`, case 2.

use super::{
    bindings,
    user_memory::{
        Dest,
        UserMemory, //
    },
};
use core::ptr;
use kernel::{
    ffi::{
        c_int,
        c_uint,
        c_ulong, //
    },
    iov::IovIterDest,
    mm::Mm,
    sync::aref::ARef,
    types::Opaque, //
};

/// The memory of a read, pinned where that can be done.
///
/// Only anonymous pages are, which while they are pinned are neither written back nor reclaimed;
/// and none that is part of something larger, so that one can see whether it has been unmapped. At
/// most [`Pinned::PAGES`].
///
/// # Invariants
///
/// The first `count` of `pieces` are pieces of pinned pages, one each.
pub(crate) struct Pinned {
    pieces: [bindings::bio_vec; Self::PAGES],
    count: usize,
    /// Value of the address space's sequence of mappings when it was pinned.
    mappings: c_uint,
    /// Nobody has tried to pin it.
    is_untried: bool,
}

impl Default for Pinned {
    /// Not pinned, and not tried.
    fn default() -> Self {
        Self {
            pieces: Default::default(),
            count: 0,
            mappings: 0,
            is_untried: true,
        }
    }
}

// SAFETY: Pages belong to no thread, and can be let go of in any context.
unsafe impl Send for Pinned {}

impl Pinned {
    /// What fits into one page, wherever it begins.
    const PAGES: usize = 2;

    /// Pins all that `memory` stands for, if it is there as it is: nothing is faulted in, and no
    /// lock of the address space is waited for. By a task of the process.
    pub(crate) fn pin(memory: &mut UserMemory<Dest>) -> Self {
        let mut pinned = Self {
            is_untried: false,
            ..Self::default()
        };
        if memory.is_of_current() {
            // SAFETY: As was just checked; the iterator is valid and used by nobody else meanwhile.
            unsafe { pinned.pin_current(memory.mm(), IovIterDest::from_raw(memory.iter_raw())) };
        }
        pinned
    }

    /// As [`Pinned::pin`], from a kernel thread.
    pub(crate) fn pin_entered(memory: &mut UserMemory<Dest>) -> Self {
        let mm = ARef::from(memory.mm());
        let mut pinned = Self {
            is_untried: false,
            ..Self::default()
        };
        memory.enter(|to| {
            // SAFETY: `enter` has given the current task that address space.
            unsafe { pinned.pin_current(&mm, to) };
        });
        pinned
    }

    /// # Safety
    ///
    /// `to` is user-backed, in the memory of the current task, whose address space is `mm`.
    unsafe fn pin_current(&mut self, mm: &Mm, to: &mut IovIterDest<'_>) {
        let len = to.len();
        // SAFETY: A valid iterator, and user-backed by the safety requirements.
        let (in_one_piece, address) = unsafe {
            (
                bindings::iov_iter_single_seg_count(to.as_raw()),
                bindings::globalfifo_iter_address(to.as_raw()) as usize,
            )
        };
        let offset = address % bindings::PAGE_SIZE;
        let Some(end) = offset.checked_add(len) else {
            return;
        };
        let num_pages = end.div_ceil(bindings::PAGE_SIZE);
        if len == 0 || in_one_piece != len || num_pages > Self::PAGES {
            return;
        }
        // Before the pages are found: what changes from then on is seen.
        // SAFETY: The address space is valid.
        if !unsafe { bindings::globalfifo_mappings_begin(mm.as_raw(), &mut self.mappings) } {
            return;
        }
        let mut pages = [ptr::null_mut(); Self::PAGES];
        // SAFETY: There is room for so many pages.
        let got = unsafe {
            bindings::globalfifo_pin_at_hand(
                address as c_ulong,
                num_pages as c_int,
                pages.as_mut_ptr(),
            )
        };
        let got = usize::try_from(got).unwrap_or(0);
        let (mut offset, mut left) = (offset, len);
        for (page, piece) in pages.into_iter().take(got).zip(&mut self.pieces) {
            let here = left.min(bindings::PAGE_SIZE - offset);
            piece.bv_page = page;
            piece.bv_offset = offset as u32;
            piece.bv_len = here as u32;
            (offset, left) = (0, left - here);
        }
        // INVARIANT: As just pinned.
        self.count = got;
        let suitable = got == num_pages
            && self.pieces().iter().all(|piece| {
                // SAFETY: By the type invariants.
                unsafe { bindings::globalfifo_page_is_small_and_anonymous(piece.bv_page) }
            });
        if !suitable {
            self.release();
            return;
        }
        for piece in self.pieces() {
            // SAFETY: By the type invariants.
            unsafe { bindings::set_page_dirty_lock(piece.bv_page) };
        }
    }

    /// Whether it is pinned.
    pub(crate) fn is_pinned(&self) -> bool {
        self.count > 0
    }

    /// Whether nobody has tried to pin it.
    pub(crate) fn is_untried(&self) -> bool {
        self.is_untried
    }

    /// Lets go of the memory. Not under a lock, as it may be freed by that.
    pub(crate) fn release(&mut self) {
        for piece in self.pieces() {
            // SAFETY: Pinned by the type invariants, and forgotten here. Any context, as for block
            // devices.
            unsafe { bindings::unpin_user_page(piece.bv_page) };
        }
        // INVARIANT: None is pinned.
        self.count = 0;
    }

    /// Bytes.
    fn len(&self) -> usize {
        self.pieces()
            .iter()
            .map(|piece| piece.bv_len as usize)
            .sum()
    }

    fn pieces(&self) -> &[bindings::bio_vec] {
        self.pieces.get(..self.count).unwrap_or(&[])
    }

    /// Runs `work` with all of it as the destination, from the beginning, in any context; `None`
    /// when it is not pinned, or the process may have changed its mappings since (`munmap`,
    /// `mprotect`, `mremap`, `fork`, `MADV_DONTNEED`): the address decides then what becomes of the
    /// read.
    pub(crate) fn with<R>(
        &self,
        memory: &UserMemory<Dest>,
        work: impl FnOnce(&mut IovIterDest<'_>) -> R,
    ) -> Option<R> {
        let pieces = self.pieces();
        // SAFETY: The address space is valid.
        let changed =
            unsafe { bindings::globalfifo_mappings_changed(memory.mm().as_raw(), self.mappings) };
        let is_mapped = pieces.iter().all(|piece| {
            // SAFETY: By the type invariants.
            unsafe { bindings::globalfifo_page_is_mapped(piece.bv_page) }
        });
        if pieces.is_empty() || changed || !is_mapped || !memory.is_inhabited() {
            return None;
        }
        let iter = Opaque::<bindings::iov_iter>::uninit();
        // SAFETY: The pieces outlive the iterator, which is written before it is used, by nobody
        // else; it is a destination.
        let to = unsafe {
            bindings::iov_iter_bvec(
                iter.get(),
                bindings::ITER_DEST,
                pieces.as_ptr(),
                pieces.len(),
                self.len(),
            );
            IovIterDest::from_raw(iter.get())
        };
        let result = work(to);
        for piece in pieces {
            // Again: the process may have said since that it can do without the contents
            // (`MADV_FREE`). SAFETY: By the type invariants. For anonymous pages that is a flag, to
            // be set in any context.
            unsafe { bindings::globalfifo_mark_dirty(piece.bv_page) };
        }
        Some(result)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.release();
    }
}
