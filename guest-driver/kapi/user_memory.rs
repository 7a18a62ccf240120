// SPDX-License-Identifier: GPL-2.0-only

//! Memory of a process, used while the process is not running: the buffers of deferred requests.
//!
//! [`UserMemory::enter`] gives a kernel thread the process's address space for the duration of a
//! closure. What copies there must do so without page faults ([`NoFaults`]), so that it never waits
//! for whoever provides a page; [`UserMemory::fault_in`] is the one place that waits.
//!
//! C headers: [`include/linux/uio.h`](srctree/include/linux/uio.h),
//! [`include/linux/kthread.h`](srctree/include/linux/kthread.h).

use super::{
    bindings,
    source::Source, //
};
use core::{
    marker::PhantomData,
    ptr, //
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
    sync::aref::ARef,
    types::{
        NotThreadSafe,
        Opaque, //
    },
};

/// Which way a request moves bytes.
pub(crate) trait Direction {
    /// The iterator of the kernel crate.
    type Iter;

    /// # Safety
    ///
    /// `iter` is valid, user-backed, of this direction, and used by nobody else for `'a`.
    unsafe fn borrow<'a>(iter: *mut bindings::iov_iter) -> &'a mut Self::Iter;

    /// # Safety
    ///
    /// `iter` is valid and user-backed, in the memory of the current task.
    unsafe fn fault_in(iter: *mut bindings::iov_iter, size: usize) -> usize;

    /// The C structure.
    fn as_raw(iter: &mut Self::Iter) -> *mut bindings::iov_iter;

    /// Bytes that are left.
    fn len(iter: &Self::Iter) -> usize;
}

/// To user space: the buffer of a read.
pub(crate) struct Dest;

impl Direction for Dest {
    type Iter = IovIterDest<'static>;

    unsafe fn borrow<'a>(iter: *mut bindings::iov_iter) -> &'a mut Self::Iter {
        // SAFETY: By the safety requirements.
        unsafe { IovIterDest::from_raw(iter) }
    }

    unsafe fn fault_in(iter: *mut bindings::iov_iter, size: usize) -> usize {
        // SAFETY: By the safety requirements.
        unsafe { bindings::fault_in_iov_iter_writeable(iter, size) }
    }

    fn as_raw(iter: &mut Self::Iter) -> *mut bindings::iov_iter {
        iter.as_raw()
    }

    fn len(iter: &Self::Iter) -> usize {
        iter.len()
    }
}

/// From user space: the buffer of a write.
pub(crate) struct Src;

impl Direction for Src {
    type Iter = IovIterSource<'static>;

    unsafe fn borrow<'a>(iter: *mut bindings::iov_iter) -> &'a mut Self::Iter {
        // SAFETY: By the safety requirements.
        unsafe { IovIterSource::from_raw(iter) }
    }

    unsafe fn fault_in(iter: *mut bindings::iov_iter, size: usize) -> usize {
        // SAFETY: By the safety requirements.
        unsafe { bindings::fault_in_iov_iter_readable(iter, size) }
    }

    fn as_raw(iter: &mut Self::Iter) -> *mut bindings::iov_iter {
        iter.as_raw()
    }

    fn len(iter: &Self::Iter) -> usize {
        iter.len()
    }
}

/// While it exists, the task takes no page faults: a copy to or from memory that is not there ends
/// short. On kernels without PREEMPT_RT the task is not preempted either. It must not sleep.
pub(crate) struct NoFaults(NotThreadSafe);

impl NoFaults {
    /// From now on.
    pub(crate) fn new() -> Self {
        // SAFETY: Undone by `drop`, by the same task.
        unsafe { bindings::globalfifo_nofault_begin() };
        Self(NotThreadSafe)
    }

    /// Whether the task should give up its CPU soon.
    pub(crate) fn must_end_soon(&self) -> bool {
        // SAFETY: May be called by any task.
        unsafe { bindings::globalfifo_need_resched() }
    }
}

impl Drop for NoFaults {
    fn drop(&mut self) {
        // SAFETY: Begun by `new`.
        unsafe { bindings::globalfifo_nofault_end() };
    }
}

/// Faults in the next `size` bytes of `to`, memory of the current process, or as many as there are.
/// May wait for as long as whoever provides the pages does.
///
/// # Errors
///
/// `EFAULT` when not even the first byte can be had.
pub(crate) fn fault_in_dest(to: &mut IovIterDest<'_>, size: usize) -> Result {
    let size = size.min(to.len());
    // SAFETY: The iterator is valid; what is not user-backed is never missing.
    let missing = unsafe { bindings::fault_in_iov_iter_writeable(to.as_raw(), size) };
    some_of(size, missing)
}

fn some_of(size: usize, missing: usize) -> Result {
    if missing < size {
        Ok(())
    } else {
        Err(EFAULT)
    }
}

/// The buffer of a deferred request: addresses, and the address space they belong to.
///
/// # Invariants
///
/// `iter` is a user-backed iterator of direction `D`, `vector` null or the array of segments it
/// owns.
pub(crate) struct UserMemory<D> {
    mm: ARef<Mm>,
    iter: Opaque<bindings::iov_iter>,
    vector: *const c_void,
    _direction: PhantomData<D>,
}

// An iterator holds addresses of others, never its own: it may move.
impl<D> Unpin for UserMemory<D> {}

// SAFETY: The iterator names addresses, and is used by one thread at a time.
unsafe impl<D> Send for UserMemory<D> {}

impl UserMemory<Dest> {
    /// Remembers `to`, of a request of the current process.
    pub(crate) fn of_dest(to: &mut IovIterDest<'_>) -> Result<Self> {
        // SAFETY: The iterator is valid and a destination.
        unsafe { Self::copy(to.as_raw()) }
    }
}

impl UserMemory<Src> {
    /// Remembers what is left of `from`, of a request of the current process.
    pub(crate) fn of_source(from: &mut Source<'_, '_>) -> Result<Self> {
        // SAFETY: The iterator is valid and a source.
        unsafe { Self::copy(from.iter().as_raw()) }
    }
}

impl<D: Direction> UserMemory<D> {
    /// # Safety
    ///
    /// `iter` is valid and of direction `D`.
    unsafe fn copy(iter: *mut bindings::iov_iter) -> Result<Self> {
        let current = kernel::current!();
        let mm = current.mm().ok_or(EFAULT)?;
        let copy = Opaque::uninit();
        let mut vector = ptr::null();
        // SAFETY: By the safety requirements, and `copy` is written before it is read. The shim
        // refuses what is not user-backed, and so in the memory of the current process.
        to_result(unsafe { bindings::globalfifo_dup_iter(copy.get(), iter, &mut vector) })?;
        // INVARIANT: As `dup_iter` made them.
        Ok(Self {
            mm: ARef::from(&**mm),
            iter: copy,
            vector,
            _direction: PhantomData,
        })
    }

    /// Bytes that are left.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: By the type invariants.
        D::len(unsafe { D::borrow(self.iter.get()) })
    }

    /// The address space.
    #[cfg(GLOBALFIFO_FAST)]
    pub(super) fn mm(&self) -> &Mm {
        &self.mm
    }

    /// Whether it is the address space of the current task.
    #[cfg(GLOBALFIFO_FAST)]
    pub(crate) fn is_of_current(&self) -> bool {
        let current = kernel::current!();
        current
            .mm()
            .is_some_and(|mm| ptr::eq(mm.as_raw(), self.mm.as_raw()))
    }

    /// Whether the process still lives there: not after its end, nor after `exec`, even if a page
    /// fault of another of its requests keeps the address space.
    pub(super) fn is_inhabited(&self) -> bool {
        // SAFETY: The address space is valid.
        unsafe { bindings::globalfifo_mm_is_inhabited(self.mm.as_raw()) }
    }

    /// The iterator.
    #[cfg(GLOBALFIFO_FAST)]
    pub(super) fn iter_raw(&self) -> *mut bindings::iov_iter {
        self.iter.get()
    }

    /// Runs `work` where the addresses mean what they meant to the process; `None` when the process
    /// is gone. From a kernel thread without memory of its own: elsewhere it warns and gives
    /// `None`.
    pub(crate) fn enter<R>(&mut self, work: impl FnOnce(&mut D::Iter) -> R) -> Option<R> {
        if !self.is_inhabited() {
            return None;
        }
        let mm = self.mm.mmget_not_zero()?;
        // The last reference may be this one. Dropping it ends the process's AIO contexts, which
        // waits for requests that only the driver completes: that must happen somewhere else.
        let mm = MmWithUser::into_mmput_async(mm);
        // SAFETY: `mm` has users. The shim refuses unless this is a kernel thread without memory.
        if !unsafe { bindings::globalfifo_use_mm(mm.as_raw()) } {
            return None;
        }
        // SAFETY: By the type invariants, and `self` is borrowed mutably.
        let result = work(unsafe { D::borrow(self.iter.get()) });
        // SAFETY: Used just above.
        unsafe { bindings::kthread_unuse_mm(mm.as_raw()) };
        Some(result)
    }

    /// Faults in the first `size` bytes, or as many as there are. May wait for as long as whoever
    /// provides the pages does.
    ///
    /// # Errors
    ///
    /// `EFAULT` when not even the first byte can be had, or the process is gone.
    pub(crate) fn fault_in(&mut self, size: usize) -> Result {
        let size = size.min(self.len());
        let missing = self.enter(|iter| {
            // SAFETY: By the type invariants, in the memory that `enter` has given the current
            // task.
            unsafe { D::fault_in(D::as_raw(iter), size) }
        });
        some_of(size, missing.unwrap_or(size))
    }
}

impl<D> Drop for UserMemory<D> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants; null is nothing to free.
        unsafe { bindings::kfree(self.vector) };
    }
}
