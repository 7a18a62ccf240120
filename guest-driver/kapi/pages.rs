// SPDX-License-Identifier: GPL-2.0-only

//! Pages of a user process, used where they are: read by a device, or written to when the process is
//! not running.
//!
//! C headers: [`include/linux/uio.h`](srctree/include/linux/uio.h), `iov_iter_extract_pages`, and
//! [`include/linux/scatterlist.h`](srctree/include/linux/scatterlist.h). How pinned pages are to be
//! treated: `Documentation/core-api/pin_user_pages.rst`, case 1.

use super::{
    bindings,
    iter::Source, //
};
use core::{
    pin::Pin,
    ptr, //
};
use kernel::{
    error::to_result,
    iov::IovIterDest,
    prelude::*,
    types::Opaque, //
};

/// A piece of user memory, pinned: it stays where it is and is not given to anybody else. What the
/// process writes to it meanwhile is seen by the device.
///
/// # Invariants
///
/// Each of `pages` is pinned, and they hold `len` bytes from an offset in the first. `table` lists
/// these bytes.
pub(crate) struct UserPages {
    pages: KVec<*mut bindings::page>,
    table: Pin<KBox<Opaque<bindings::sg_table>>>,
    len: usize,
}

// SAFETY: Pages and a list of them, which belong to no thread and can be let go of in any context.
unsafe impl Send for UserPages {}

impl UserPages {
    /// Pins the next bytes of `from`, at most `most` and at most `num_pages` pages, in one piece; they
    /// count as copied. May sleep.
    ///
    /// # Errors
    ///
    /// `EFAULT` and others when there is no memory there that could be pinned, `EINVAL` when it is
    /// not a process's, `ENOMEM`. Then nothing has been taken.
    pub(crate) fn pin(from: &mut Source<'_, '_>, most: usize, num_pages: usize) -> Result<Self> {
        let mut pages = KVec::with_capacity(num_pages, GFP_KERNEL)?;
        let table = KBox::new(Opaque::uninit(), GFP_KERNEL)?;
        let (len, offset) = from.extract(most, &mut pages)?;
        // SAFETY: The table is written before it is used; the pages are valid.
        let listed = to_result(unsafe {
            bindings::sg_alloc_table_from_pages_segment(
                table.get(),
                pages.as_mut_ptr(),
                pages.len() as u32,
                offset as u32,
                len,
                u32::MAX,
                bindings::GFP_KERNEL,
            )
        });
        if let Err(error) = listed {
            // SAFETY: Pinned by `extract`, and forgotten here.
            unsafe { bindings::unpin_user_pages(pages.as_mut_ptr(), pages.len()) };
            from.put_back(len);
            return Err(error);
        }
        // INVARIANT: `extract` has pinned the pages, the table was made of them.
        Ok(Self {
            pages,
            table: KBox::into_pin(table),
            len,
        })
    }

    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The list of the bytes' places.
    pub(super) fn table(&self) -> *mut bindings::sg_table {
        self.table.get()
    }
}

impl Drop for UserPages {
    fn drop(&mut self) {
        // SAFETY: By the type invariants. Both may be done in any context, as by block devices when
        // a request has ended.
        unsafe {
            bindings::sg_free_table(self.table.get());
            bindings::unpin_user_pages(self.pages.as_mut_ptr(), self.pages.len());
        }
    }
}

/// What to do about user memory that is not in reach: swapped out, never touched, shared until written to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// Fault it in, which takes as long as whoever provides it does.
    Fault,
    /// Leave it alone, also while the process's memory is being rearranged.
    Leave,
}

/// A piece of user memory, pinned, to be written to in any context.
///
/// Only memory that nobody but processes can change or take away is: anonymous pages, which while they are
/// pinned are neither written back nor reclaimed; and none that is part of something larger, so that one can
/// see whether it has been unmapped. At most [`Landing::PAGES`].
///
/// # Invariants
///
/// The first `count` of `pieces` are pieces of pinned pages, one each.
pub(crate) struct Landing {
    pieces: [bindings::bio_vec; Self::PAGES],
    count: usize,
}

// SAFETY: Pages belong to no thread, and can be let go of in any context.
unsafe impl Send for Landing {}

impl Landing {
    /// What fits into one page, wherever it begins.
    const PAGES: usize = 2;

    /// Pins all that `to` stands for, the user memory of the current process. `None` when it is not of
    /// the kind described; and with [`Absent::Leave`] when it is not in reach as it is. May sleep.
    ///
    /// # Safety
    ///
    /// `to` is user-backed.
    pub(super) unsafe fn pin(to: &mut IovIterDest<'_>, absent: Absent) -> Option<Self> {
        let len = to.len();
        // SAFETY: A valid iterator, and user-backed by the safety requirements.
        let (in_one_piece, address) = unsafe {
            (
                bindings::iov_iter_single_seg_count(to.as_raw()),
                bindings::globalfifo_iter_address(to.as_raw()) as usize,
            )
        };
        let offset = address % bindings::PAGE_SIZE;
        let num_pages = offset.checked_add(len)?.div_ceil(bindings::PAGE_SIZE);
        if len == 0 || in_one_piece != len || num_pages > Self::PAGES {
            return None;
        }
        let mut landing = Self {
            pieces: Default::default(),
            count: 0,
        };
        let mut pages = [ptr::null_mut(); Self::PAGES];
        let (at, count) = (address as c_ulong, num_pages as c_int);
        // SAFETY: There is room for so many pages.
        let got = unsafe {
            match absent {
                Absent::Fault => bindings::pin_user_pages_fast(
                    at,
                    count,
                    bindings::FOLL_WRITE | bindings::FOLL_LONGTERM,
                    pages.as_mut_ptr(),
                ),
                Absent::Leave => bindings::globalfifo_pin_at_hand(at, count, pages.as_mut_ptr()),
            }
        };
        let got = usize::try_from(got).ok()?;
        let (mut offset, mut left) = (offset, len);
        for (page, piece) in pages.into_iter().take(got).zip(&mut landing.pieces) {
            let here = left.min(bindings::PAGE_SIZE - offset);
            piece.bv_page = page;
            piece.bv_offset = offset as u32;
            piece.bv_len = here as u32;
            (offset, left) = (0, left - here);
        }
        // INVARIANT: As just pinned.
        landing.count = got;
        let suitable = got == num_pages
            && landing.pieces().iter().all(|piece| {
                // SAFETY: By the type invariants.
                unsafe { bindings::globalfifo_page_is_small_and_anonymous(piece.bv_page) }
            });
        if !suitable {
            return None;
        }
        for piece in landing.pieces() {
            // SAFETY: By the type invariants.
            unsafe { bindings::set_page_dirty_lock(piece.bv_page) };
        }
        Some(landing)
    }

    /// Bytes.
    pub(super) fn len(&self) -> usize {
        self.pieces()
            .iter()
            .map(|piece| piece.bv_len as usize)
            .sum()
    }

    fn pieces(&self) -> &[bindings::bio_vec] {
        self.pieces.get(..self.count).unwrap_or(&[])
    }

    /// Runs `work` with all of it as the destination, from the beginning, in any context; `None` when the
    /// process may have other memory there by now.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut IovIterDest<'_>) -> R) -> Option<R> {
        let pieces = self.pieces();
        let is_mapped = pieces.iter().all(|piece| {
            // SAFETY: By the type invariants.
            unsafe { bindings::globalfifo_page_is_mapped(piece.bv_page) }
        });
        if !is_mapped {
            return None;
        }
        let iter = Opaque::<bindings::iov_iter>::uninit();
        // SAFETY: The pieces outlive the iterator, which is written before it is used, by nobody else; it is
        // a destination.
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
            // Again: the process may have said since that it can do without the contents (`MADV_FREE`).
            // SAFETY: By the type invariants. For anonymous pages that is a flag, to be set in any context.
            unsafe { bindings::globalfifo_mark_dirty(piece.bv_page) };
        }
        Some(result)
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        for piece in self.pieces() {
            // SAFETY: Pinned by the type invariants, and forgotten here. Any context, as for `UserPages`.
            unsafe { bindings::unpin_user_page(piece.bv_page) };
        }
    }
}

impl Source<'_, '_> {
    /// Whether the next bytes, at most `most` and at most `num_pages` pages, can be read without a page fault.
    pub(crate) fn is_at_hand(&mut self, most: usize, num_pages: usize) -> bool {
        let most = most.min(num_pages.saturating_mul(bindings::PAGE_SIZE));
        // SAFETY: The iterator is valid.
        unsafe { bindings::globalfifo_is_at_hand(self.iter().as_raw(), most) }
    }

    /// Pins pages with the next bytes, at most `most`, into the capacity of `pages`: how many bytes,
    /// and where in the first page they begin.
    fn extract(
        &mut self,
        most: usize,
        pages: &mut KVec<*mut bindings::page>,
    ) -> Result<(usize, usize)> {
        let iter = self.iter().as_raw();
        let mut array = pages.as_mut_ptr();
        let mut offset = 0;
        // SAFETY: The iterator is valid, and there is room for so many pages. Only memory of
        // processes is pinned by this, which the shim makes sure of.
        let got = unsafe {
            bindings::globalfifo_pin_pages(
                iter,
                &mut array,
                most,
                pages.capacity() as u32,
                &mut offset,
            )
        };
        let len = usize::try_from(got).map_err(|_| Error::from_errno(got as c_int))?;
        if len == 0 {
            return Err(EFAULT);
        }
        debug_assert!(ptr::eq(array, pages.as_mut_ptr()));
        // SAFETY: So many pages hold the bytes, and were written to the array.
        unsafe { pages.inc_len((offset + len).div_ceil(bindings::PAGE_SIZE)) };
        self.took(len);
        Ok((len, offset))
    }
}
