// SPDX-License-Identifier: GPL-2.0-only

//! Requests that are put aside and completed later: native AIO's `struct kiocb`.
//!
//! C headers: [`include/linux/aio.h`](srctree/include/linux/aio.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h).
//!
//! The order in which a request is put aside matters, because cancellation may strike at any point:
//!
//! 1. [`Request::defer`] gives it an [`Id`]; the driver stores the [`Pending`] where a cancel will
//!    look, marked as not to be completed by others yet;
//! 2. [`Request::allow_cancel`], with no lock held: from here on [`Cancel::cancel`] may come;
//! 3. under its lock the driver unmarks it, or takes it back ([`Pending::withdraw`]) and answers at
//!    once;
//! 4. unless taken back, the file operation returns `EIOCBQUEUED` and touches the request no more.

use super::{
    bindings,
    chardev::{
        file_data,
        FileOperations, //
    },
    iter::Request,
    pages::{
        Absent,
        Landing, //
    },
};
use core::{
    mem,
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    error::to_result,
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    mm::{
        Mm,
        MmWithUser, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        ArcBorrow, //
    },
    types::Opaque, //
};

/// Number that the driver gives a request, to find it again.
pub(crate) type Id = usize;

/// Which open file a request belongs to: comparable, nothing more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId(usize);

impl FileId {
    /// Of a file.
    pub(crate) fn of(file: &kernel::fs::File) -> Self {
        Self(file.as_ptr() as usize)
    }
}

/// How a driver is told that a request is not wanted any more.
pub(crate) trait Cancel: FileOperations {
    /// The request `id` should end soon: with `ECANCELED`, or as it would anyway if it is too late.
    ///
    /// Called with interrupts disabled and the AIO context's lock held, under which requests cannot
    /// be completed: the driver notes it, and completes from somewhere else. An unknown id is that of
    /// a request which is just being completed.
    fn cancel(self: ArcBorrow<'_, Self>, id: Id)
    where
        Self: Sized;
}

impl Request {
    /// Whether the request can be put aside: it comes from native AIO. All others wait by themselves,
    /// or poll.
    pub(crate) fn can_be_deferred(&self) -> bool {
        // SAFETY: By the type invariants the kiocb is valid.
        unsafe { (*self.as_raw()).ki_flags & bindings::GLOBALFIFO_IOCB_AIO_RW != 0 }
    }

    /// Puts the request aside under the number `id`; see the module for what has to follow.
    /// `EINVAL` unless [`Request::can_be_deferred`].
    pub(crate) fn defer(&self, id: Id) -> Result<Pending> {
        if !self.can_be_deferred() {
            return Err(EINVAL);
        }
        // SAFETY: By the type invariants the kiocb is valid; `private` is the file's to use.
        unsafe { (*self.as_raw()).private = id as *mut c_void };
        // INVARIANT: An AIO request that has not been answered stays valid until it is completed.
        Ok(Pending(NonNull::new(self.as_raw()).ok_or(EINVAL)?))
    }

    /// Lets user space cancel the request. Not under a lock that [`Cancel::cancel`] takes.
    pub(crate) fn allow_cancel<T: Cancel>(&self) {
        // SAFETY: By the type invariants the kiocb is valid. It ignores all but AIO requests.
        unsafe { bindings::kiocb_set_cancel_fn(self.as_raw(), Some(cancel::<T>)) };
    }
}

/// # Safety
///
/// A `kiocb_cancel_fn`, of a request of a file with the operations of `T`.
unsafe extern "C" fn cancel<T: Cancel>(kiocb: *mut bindings::kiocb) -> c_int {
    // SAFETY: The AIO core calls this for requests that it has not seen completed, under the lock
    // that it completes under: kiocb and file are valid.
    let (this, id) = unsafe { (file_data::<T>((*kiocb).ki_filp), (*kiocb).private as Id) };
    this.cancel(id);
    0
}

/// A request that was put aside. It must be completed, once, or withdrawn.
///
/// # Invariants
///
/// The kiocb is valid and has not been completed.
pub(crate) struct Pending(NonNull<bindings::kiocb>);

// SAFETY: A request may be completed from any thread and context.
unsafe impl Send for Pending {}

impl Pending {
    /// The file it belongs to.
    pub(crate) fn file(&self) -> FileId {
        // SAFETY: By the type invariants.
        FileId(unsafe { (*self.0.as_ptr()).ki_filp } as usize)
    }

    /// Completes the request. From any context, holding no lock of the driver's.
    pub(crate) fn complete(self, result: Result<usize>) {
        let kiocb = self.0.as_ptr();
        mem::forget(self);
        let result = match result {
            Ok(bytes) => bytes as isize,
            Err(error) => error.to_errno() as isize,
        };
        // SAFETY: By the type invariants, and it is given up here. AIO sets `ki_complete`.
        unsafe {
            if let Some(complete) = (*kiocb).ki_complete {
                complete(kiocb, result);
            }
        }
    }

    /// Takes the request back: the file operation answers it itself.
    pub(crate) fn withdraw(self) {
        mem::forget(self);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // A request that is forgotten would keep its process from ever ending.
        pr_err!("an asynchronous request was dropped\n");
        Pending(self.0).complete(Err(EIO));
    }
}

/// Buffers in the memory of the process that asked, to be used when it is not running.
///
/// # Invariants
///
/// `iter` is a user-backed iterator, `vector` null or the array of segments it owns.
struct UserIter {
    mm: ARef<Mm>,
    iter: Opaque<bindings::iov_iter>,
    vector: *const c_void,
}

// An iterator holds addresses of others, never its own: it may move.
impl Unpin for UserIter {}

// SAFETY: The iterator names addresses, and is used by one thread at a time.
unsafe impl Send for UserIter {}

impl UserIter {
    /// # Safety
    ///
    /// `iter` is valid and user-backed, in the memory of the current process.
    unsafe fn copy(iter: *mut bindings::iov_iter) -> Result<Self> {
        let current = kernel::current!();
        let mm = current.mm().ok_or(EFAULT)?;
        let copy = Opaque::uninit();
        let mut vector = ptr::null();
        // SAFETY: By the safety requirements, and `copy` is written before it is read.
        to_result(unsafe { bindings::globalfifo_dup_iter(copy.get(), iter, &mut vector) })?;
        // INVARIANT: As `dup_iter` made them.
        Ok(Self {
            mm: ARef::from(&**mm),
            iter: copy,
            vector,
        })
    }

    /// Runs `work` where the addresses mean what they meant to the process; `None` when it is gone.
    fn with<R>(&mut self, work: impl FnOnce(*mut bindings::iov_iter) -> R) -> Option<R> {
        let mm = self.mm.mmget_not_zero()?;
        // The last reference may be this one. Dropping it ends the process's AIO contexts, which
        // waits for requests that only we complete: that must happen somewhere else.
        let mm = MmWithUser::into_mmput_async(mm);
        // SAFETY: `mm` has users. The shim refuses unless this is a kernel thread without memory.
        if !unsafe { bindings::globalfifo_use_mm(mm.as_raw()) } {
            return None;
        }
        let result = work(self.iter.get());
        // SAFETY: Used just above.
        unsafe { bindings::kthread_unuse_mm(mm.as_raw()) };
        Some(result)
    }
}

impl Drop for UserIter {
    fn drop(&mut self) {
        // SAFETY: By the type invariants; null is nothing to free.
        unsafe { bindings::kfree(self.vector) };
    }
}

/// Where a read that was put aside wants its data.
pub(crate) struct UserDest {
    iter: UserIter,
    /// The same place, if it is pinned.
    landing: Option<Landing>,
    /// Nobody has tried to pin it.
    untried: bool,
}

impl UserDest {
    /// Remembers `to`, of a request of the current process. With `pin` it is pinned, where that can be
    /// done.
    pub(crate) fn remember(to: &mut IovIterDest<'_>, pin: bool) -> Result<Self> {
        // SAFETY: Requests that can be put aside have user-backed buffers; `dup_iter` checks.
        let iter = unsafe { UserIter::copy(to.as_raw()) }?;
        // SAFETY: As was just checked.
        let landing = pin.then(|| unsafe { Landing::pin(to, Absent::Fault) });
        Ok(Self {
            iter,
            landing: landing.flatten(),
            untried: !pin,
        })
    }

    /// Whether to try [`UserDest::pin_together`] with it.
    pub(crate) fn is_untried(&self) -> bool {
        self.untried
    }

    /// Whether it is in the memory of the current process.
    pub(crate) fn is_of_current(&self) -> bool {
        let current = kernel::current!();
        current
            .mm()
            .is_some_and(|mm| ptr::eq(mm.as_raw(), self.iter.mm.as_raw()))
    }

    /// Pins it, as [`UserDest::pin_together`] does, by a task of the process ([`UserDest::is_of_current`]).
    pub(crate) fn pin_by_current(&mut self) {
        self.untried = false;
        // SAFETY: The iterator is valid, a destination, user-backed, and used by nobody else meanwhile.
        let to = unsafe { IovIterDest::from_raw(self.iter.iter.get()) };
        // SAFETY: Likewise.
        self.landing = unsafe { Landing::pin(to, Absent::Leave) };
    }

    /// Pins the memory of those that belong to the same process as the first, as far as it is in reach and
    /// can be pinned. From a work queue only.
    pub(crate) fn pin_together<'a>(mut several: impl Iterator<Item = &'a mut Self>) {
        let Some(first) = several.next() else {
            return;
        };
        let pin = |iter, landing: &mut Option<_>| {
            // SAFETY: The iterator is valid, a destination, user-backed, and used by nobody else meanwhile.
            *landing = unsafe { Landing::pin(IovIterDest::from_raw(iter), Absent::Leave) };
        };
        let mm = first.iter.mm.as_raw();
        first.untried = false;
        let landing = &mut first.landing;
        first.iter.with(|iter| {
            pin(iter, landing);
            for other in several.filter(|other| other.iter.mm.as_raw() == mm) {
                other.untried = false;
                pin(other.iter.iter.get(), &mut other.landing);
            }
        });
    }

    /// How many bytes there are for [`UserDest::with_landing`], if that is possible.
    pub(crate) fn pinned_len(&self) -> Option<usize> {
        self.landing.as_ref().map(Landing::len)
    }

    /// Runs `work` with the destination, from the beginning, in any context. `None` when it is not pinned, or
    /// the process has unmapped it.
    pub(crate) fn with_landing<R>(
        &self,
        work: impl FnOnce(&mut IovIterDest<'_>) -> R,
    ) -> Option<R> {
        self.landing.as_ref()?.with(work)
    }

    /// Lets go of the pinned memory. Not under a lock, as it may be freed by that.
    pub(crate) fn forget_landing(&mut self) {
        self.landing = None;
    }

    /// Runs `work` with the destination. From a work queue only. `None` when the process is gone.
    pub(crate) fn with<R>(&mut self, work: impl FnOnce(&mut IovIterDest<'_>) -> R) -> Option<R> {
        self.iter.with(|iter| {
            // SAFETY: The iterator is valid, a destination, and used by nobody else meanwhile.
            work(unsafe { IovIterDest::from_raw(iter) })
        })
    }
}

/// Where a write that was put aside has its data.
pub(crate) struct UserSource(UserIter);

impl UserSource {
    /// Remembers `from`, of a request of the current process.
    pub(crate) fn remember(from: &mut IovIterSource<'_>) -> Result<Self> {
        // SAFETY: Requests that can be put aside have user-backed buffers; `dup_iter` checks.
        Ok(Self(unsafe { UserIter::copy(from.as_raw()) }?))
    }

    /// Bytes that are left of it.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: The iterator is valid, a source, and used by nobody else meanwhile.
        unsafe { IovIterSource::from_raw(self.0.iter.get()) }.len()
    }

    /// Runs `work` with the source. From a work queue only. `None` when the process is gone.
    pub(crate) fn with<R>(&mut self, work: impl FnOnce(&mut IovIterSource<'_>) -> R) -> Option<R> {
        self.0.with(|iter| {
            // SAFETY: The iterator is valid, a source, and used by nobody else meanwhile.
            work(unsafe { IovIterSource::from_raw(iter) })
        })
    }
}
