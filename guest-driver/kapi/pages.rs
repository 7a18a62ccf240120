// SPDX-License-Identifier: GPL-2.0-only

//! The data of a write in other ways than an ordinary copy: read by the device where it is, copied
//! only if it is there, or copied as suits QEMU's translator. Of the fast edition alone.
//!
//! C headers: [`include/linux/uio.h`](srctree/include/linux/uio.h), `iov_iter_extract_pages`, and
//! [`include/linux/scatterlist.h`](srctree/include/linux/scatterlist.h). How pinned pages are to be
//! treated: `Documentation/core-api/pin_user_pages.rst`, case 1.

use super::{
    bindings,
    source::Source, //
};
use core::{
    mem::MaybeUninit,
    pin::Pin,
    ptr, //
};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    error::to_result,
    iov::IovIterSource,
    prelude::*,
    sync::SetOnce,
    types::Opaque, //
};

/// Whether pages have to be there already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Present {
    /// Pages that are not present are an error: none is faulted in.
    Required,
    /// Pages that are not there are faulted in.
    FaultIn,
}

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
    /// Pins the next bytes of `from`, at most `most` and at most `num_pages` pages, in one piece;
    /// they count as copied. Sleeps in a page fault, unless they are to be [`Present`].
    ///
    /// # Errors
    ///
    /// `EFAULT` and others when there is no memory there that could be pinned, `EINVAL` when it is
    /// not a process's, `ENOMEM`. Then nothing has been taken.
    pub(crate) fn pin(
        from: &mut Source<'_, '_>,
        most: usize,
        num_pages: usize,
        present: Present,
    ) -> Result<Self> {
        let mut pages = KVec::with_capacity(num_pages, GFP_KERNEL_ACCOUNT)?;
        let table = KBox::new(Opaque::uninit(), GFP_KERNEL_ACCOUNT)?;
        let (len, offset) = from.extract(most, &mut pages, present)?;
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

/// Whether QEMU's translator runs this, once it is known.
static IN_TCG: SetOnce<bool> = SetOnce::new();

fn runs_in_tcg() -> bool {
    IN_TCG.copy().unwrap_or_else(|| {
        // SAFETY: It asks the CPU, which may be done anywhere.
        let answer = unsafe { bindings::globalfifo_runs_in_tcg() };
        IN_TCG.populate(answer);
        answer
    })
}

/// Bytes that are copied without string instructions, at least: QEMU's translator makes a loop of
/// these that stores its registers with each eight bytes. What the kernel has for that bypasses the
/// cache, which the translator does not mind, but a real CPU would: the device needs the bytes at
/// once.
///
/// Gain (docs/performance.md): 64 KiB guest to host 2.35 to 3.2 of virtio-serial under TCG, none
/// elsewhere.
const NO_STRINGS: usize = 4096;

/// As [`IovIterSource::copy_from_iter_raw`]; how many bytes.
pub(super) fn copy_from(from: &mut IovIterSource<'_>, out: &mut [MaybeUninit<u8>]) -> usize {
    let mut copied = 0;
    if out.len() >= NO_STRINGS && runs_in_tcg() {
        // SAFETY: The iterator is valid, and `out` has room for so many bytes.
        copied = unsafe {
            bindings::_copy_from_iter_nocache(out.as_mut_ptr().cast(), out.len(), from.as_raw())
        };
    }
    // Also the last few bytes before memory that is not there, which that leaves out.
    if let Some(rest @ [_, ..]) = out.get_mut(copied..) {
        copied += from.copy_from_iter_raw(rest).len();
    }
    copied
}

impl Source<'_, '_> {
    /// Pins pages with the next bytes, at most `most`, into the capacity of `pages`: how many
    /// bytes, and where in the first page they begin.
    fn extract(
        &mut self,
        most: usize,
        pages: &mut KVec<*mut bindings::page>,
        present: Present,
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
                present == Present::Required,
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
