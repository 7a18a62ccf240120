// SPDX-License-Identifier: GPL-2.0-only

//! Requests: `struct kiocb`, answered at once or completed later.
//!
//! A request that the driver cannot answer at once is *deferred* if it is native AIO's.
//! Cancellation may strike at any point, so the order matters:
//!
//! 1. [`Request::defer`] gives the request an [`Id`]. The driver stores the [`Pending`] where a
//!    cancel will find it, marked as not to be completed by others yet;
//! 2. [`Submission::allow_cancel`], with no lock held: from here on [`Cancel::cancel`] may come;
//! 3. under its lock the driver unmarks it, or takes it back and answers at once
//!    ([`Submission::answer`]);
//! 4. otherwise [`Submission::queued`] is the outcome, and the submitting task touches the request
//!    no more.
//!
//! Each [`Outcome`] consumes the request or its submission, so a request is answered once: by its
//! file operation or by its [`Pending`].
//!
//! C headers: [`include/linux/aio.h`](srctree/include/linux/aio.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h).

use super::{
    bindings,
    open_file::{
        open_file,
        OpenFile, //
    }, //
};
use core::{
    marker::PhantomData,
    mem,
    ptr::NonNull, //
};
use kernel::{
    ffi::c_int,
    fs::Kiocb,
    prelude::*,
    sync::ArcBorrow, //
};

/// Number that the driver gives a request, to find it again.
pub(crate) type Id = usize;

/// `ECANCELED`, which not every kernel crate has a name for.
pub(crate) fn canceled() -> Error {
    Error::from_errno(-(bindings::ECANCELED as c_int))
}

/// Identity of an open file. Comparable, nothing more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId(usize);

impl FileId {
    /// That of the file with this data.
    pub(crate) fn of<T>(data: &T) -> Self {
        Self(core::ptr::from_ref(data) as usize)
    }
}

/// How a driver learns that a request is not wanted any more.
pub(crate) trait Cancel: Send + Sync + 'static {
    /// Request `id` should end soon: with `ECANCELED`, or as it would anyway if it is too late.
    ///
    /// Called with interrupts disabled and the AIO context's lock held, under which requests cannot
    /// be completed: the driver notes it, and completes from somewhere else. An unknown id is that
    /// of a request which is just being completed.
    fn cancel(self: ArcBorrow<'_, Self>, id: Id)
    where
        Self: Sized;
}

/// One read or write in progress, of a file with the operations of `T`.
pub(crate) struct Request<'a, T: 'static>(Kiocb<'a, KBox<OpenFile<T>>>);

impl<'a, T: 'static> Request<'a, T> {
    /// Wraps what a file operation got.
    ///
    /// # Safety
    ///
    /// `kiocb` and its file are valid for `'a`, the file is open with the operations of `T`, and
    /// the returned value's [`Outcome`] answers the file operation.
    pub(super) unsafe fn from_raw(kiocb: *mut bindings::kiocb) -> Self {
        // SAFETY: By the safety requirements.
        Self(unsafe { Kiocb::from_raw(kiocb) })
    }

    fn has_flag(&self, flag: c_int) -> bool {
        // SAFETY: By the type invariants of `Kiocb`.
        unsafe { (*self.0.as_raw()).ki_flags & flag != 0 }
    }

    /// Whether the caller wants `EAGAIN` rather than to wait: `O_NONBLOCK`, `RWF_NOWAIT`, io_uring.
    pub(crate) fn must_not_wait(&self) -> bool {
        // SAFETY: By the type invariants of `Kiocb`, it and its file are valid.
        let file_flags = unsafe { (*(*self.0.as_raw()).ki_filp).f_flags };
        self.has_flag(bindings::GLOBALFIFO_IOCB_NOWAIT) || file_flags & bindings::O_NONBLOCK != 0
    }

    /// Whether the caller cannot wait for anything, however short: `RWF_NOWAIT`, io_uring. Unlike
    /// `O_NONBLOCK`, which is about space and data.
    pub(crate) fn cannot_sleep(&self) -> bool {
        self.has_flag(bindings::GLOBALFIFO_IOCB_NOWAIT)
    }

    /// Whether a write is over only once the device has its bytes: `O_DSYNC`, `O_SYNC`,
    /// `RWF_DSYNC`.
    pub(crate) fn is_synchronous(&self) -> bool {
        self.has_flag(bindings::GLOBALFIFO_IOCB_DSYNC)
    }

    /// Whether the request can be deferred: it is native AIO's. All others wait by themselves, or
    /// poll.
    pub(crate) fn can_be_deferred(&self) -> bool {
        self.has_flag(bindings::GLOBALFIFO_IOCB_AIO_RW)
    }

    /// Answers the request at once.
    pub(crate) fn answer(self, result: Result<usize>) -> Outcome<'a> {
        Outcome::new(result)
    }

    /// Defers the request under the number `id`; see the module for what has to follow. Gives it
    /// back unless [`Request::can_be_deferred`].
    pub(crate) fn defer(self, id: Id) -> Result<(Pending, Submission<'a, T>), Self> {
        let kiocb = match NonNull::new(self.0.as_raw()) {
            Some(kiocb) if self.can_be_deferred() => kiocb,
            _ => return Err(self),
        };
        // SAFETY: The kiocb is valid; `private` is the file's to use.
        unsafe { (*kiocb.as_ptr()).private = id as *mut c_void };
        // INVARIANT: An AIO request that has not been answered stays valid until it is completed.
        Ok((Pending(kiocb), Submission(self)))
    }
}

/// The submitting task's side of a deferred request.
pub(crate) struct Submission<'a, T: 'static>(Request<'a, T>);

impl<'a, T: Cancel> Submission<'a, T> {
    /// Lets user space cancel the request. Not under a lock that [`Cancel::cancel`] takes.
    pub(crate) fn allow_cancel(&self) {
        // SAFETY: The kiocb is valid until its outcome, and its file has the operations of `T`.
        unsafe { bindings::kiocb_set_cancel_fn(self.0 .0.as_raw(), Some(cancel::<T>)) };
    }

    /// The request will be completed by its [`Pending`].
    pub(crate) fn queued(self) -> Outcome<'a> {
        Outcome::new(Err(EIOCBQUEUED))
    }

    /// The request has been taken back, with this answer. `pending` of another request is dropped,
    /// and this one left to its own.
    pub(crate) fn answer(self, pending: Pending, result: Result<usize>) -> Outcome<'a> {
        if pending.0.as_ptr() != self.0 .0.as_raw() {
            return self.queued();
        }
        mem::forget(pending);
        Outcome::new(result)
    }
}

/// # Safety
///
/// A `kiocb_cancel_fn`, of a request of a file with the operations of `T`.
unsafe extern "C" fn cancel<T: Cancel>(kiocb: *mut bindings::kiocb) -> c_int {
    // SAFETY: The AIO core calls this for requests that it has not seen completed, under the lock
    // that it completes under: kiocb and file are valid.
    let (open, id) = unsafe { (open_file::<T>((*kiocb).ki_filp), (*kiocb).private as Id) };
    open.data().cancel(id);
    0
}

/// The answer of a `read_iter` or `write_iter`.
pub(crate) struct Outcome<'a>(isize, PhantomData<fn(&'a ()) -> &'a ()>);

impl Outcome<'_> {
    fn new(result: Result<usize>) -> Self {
        let raw = match result {
            Ok(bytes) => bytes as isize,
            Err(error) => error.to_errno() as isize,
        };
        Self(raw, PhantomData)
    }

    /// As C has it: bytes, or a negative errno.
    pub(super) fn into_raw(self) -> isize {
        self.0
    }
}

/// A deferred request. It must be completed, once, or taken back ([`Submission::answer`]).
///
/// # Invariants
///
/// The kiocb is valid and has not been completed.
pub(crate) struct Pending(NonNull<bindings::kiocb>);

// SAFETY: A request may be completed from any thread and context.
unsafe impl Send for Pending {}

impl Pending {
    /// Completes the request. From any context, holding no lock of the driver's.
    pub(crate) fn complete(self, result: Result<usize>) {
        let kiocb = self.0.as_ptr();
        mem::forget(self);
        // SAFETY: By the type invariants, and it is given up here. AIO sets `ki_complete`.
        unsafe {
            if let Some(complete) = (*kiocb).ki_complete {
                complete(kiocb, Outcome::new(result).into_raw());
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // A request that is forgotten would keep its process from ever ending.
        pr_err!("a deferred request was dropped\n");
        Pending(self.0).complete(Err(EIO));
    }
}
