// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for requests. A request that is completed twice, or forgotten, or completed under a lock, fails the test.

use crate::prelude::*;
use crate::sync::ArcBorrow;
use crate::world::{self, Point};
use std::cell::Cell;
use std::marker::PhantomData;
use std::mem;
use std::rc::Rc;

/// As in `kapi`.
pub(crate) type Id = usize;

/// As in `kapi`.
pub(crate) fn canceled() -> Error {
    ECANCELED
}

/// As in `kapi`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct FileId(pub(crate) usize);

impl FileId {
    pub(crate) fn of<T>(data: &T) -> Self {
        Self(std::ptr::from_ref(data) as usize)
    }
}

/// As in `kapi`.
pub(crate) trait Cancel: 'static {
    fn cancel(self: ArcBorrow<'_, Self>, id: Id)
    where
        Self: Sized;
}

/// How a call or a request is made.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct How {
    /// `O_NONBLOCK`.
    pub(crate) must_not_wait: bool,
    /// `O_DSYNC`.
    pub(crate) is_synchronous: bool,
    /// Native AIO.
    pub(crate) can_be_deferred: bool,
}

thread_local! {
    static COMPLETIONS: Cell<u64> = const { Cell::new(0) };
}

/// `struct kiocb`.
#[derive(Debug)]
pub(crate) struct Kiocb {
    how: How,
    id: Cell<Id>,
    can_be_cancelled: Cell<bool>,
    result: Cell<Option<Result<usize>>>,
    /// Its place among all completions.
    order: Cell<u64>,
}

impl Kiocb {
    pub(crate) fn new(how: How) -> Rc<Self> {
        Rc::new(Self {
            how,
            id: Cell::new(0),
            can_be_cancelled: Cell::new(false),
            result: Cell::new(None),
            order: Cell::new(0),
        })
    }

    /// Result, once it is completed.
    pub(crate) fn result(&self) -> Option<Result<usize>> {
        self.result.get()
    }

    /// Its place among all completions.
    pub(crate) fn order(&self) -> u64 {
        self.order.get()
    }

    /// Its number, or 0 if it was never deferred.
    pub(crate) fn id(&self) -> Id {
        self.id.get()
    }

    /// Its number, if io_cancel would find it.
    pub(crate) fn cancellable(&self) -> Option<Id> {
        (self.can_be_cancelled.get() && self.result.get().is_none()).then(|| self.id.get())
    }

    fn complete(&self, result: Result<usize>) {
        world::assert_unlocked("a completion");
        assert!(self.result.get().is_none(), "a request is completed twice");
        world::reach(Point::Completing);
        self.result.set(Some(result));
        COMPLETIONS.set(COMPLETIONS.get() + 1);
        self.order.set(COMPLETIONS.get());
    }
}

/// As in `kapi`.
pub(crate) struct Request<'a, T: 'static>(Rc<Kiocb>, PhantomData<(&'a (), T)>);

impl<'a, T: 'static> Request<'a, T> {
    pub(crate) fn new(kiocb: &Rc<Kiocb>) -> Self {
        Self(kiocb.clone(), PhantomData)
    }

    pub(crate) fn must_not_wait(&self) -> bool {
        self.0.how.must_not_wait
    }

    pub(crate) fn cannot_sleep(&self) -> bool {
        false
    }

    pub(crate) fn is_synchronous(&self) -> bool {
        self.0.how.is_synchronous
    }

    pub(crate) fn can_be_deferred(&self) -> bool {
        self.0.how.can_be_deferred
    }

    pub(crate) fn answer(self, result: Result<usize>) -> Outcome<'a> {
        self.0.complete(result);
        Outcome(PhantomData)
    }

    pub(crate) fn defer(self, id: Id) -> Result<(Pending, Submission<'a, T>), Self> {
        if !self.can_be_deferred() {
            return Err(self);
        }
        self.0.id.set(id);
        Ok((Pending(self.0.clone()), Submission(self)))
    }
}

/// As in `kapi`.
pub(crate) struct Submission<'a, T: 'static>(Request<'a, T>);

impl<'a, T: Cancel> Submission<'a, T> {
    pub(crate) fn allow_cancel(&self) {
        world::assert_unlocked("allow_cancel");
        self.0 .0.can_be_cancelled.set(true);
        world::reach(Point::Submitting);
    }

    pub(crate) fn queued(self) -> Outcome<'a> {
        Outcome(PhantomData)
    }

    pub(crate) fn answer(self, pending: Pending, result: Result<usize>) -> Outcome<'a> {
        assert!(
            Rc::ptr_eq(&pending.0, &self.0 .0),
            "the answer of another request"
        );
        let kiocb = pending.take();
        kiocb.complete(result);
        Outcome(PhantomData)
    }
}

/// As in `kapi`; the result is in the [`Kiocb`].
pub(crate) struct Outcome<'a>(PhantomData<&'a ()>);

/// As in `kapi`.
#[derive(Debug)]
pub(crate) struct Pending(Rc<Kiocb>);

impl Pending {
    /// Of a request that no call has made, for tests of what keeps requests.
    pub(crate) fn of(kiocb: &Rc<Kiocb>) -> Self {
        Self(kiocb.clone())
    }

    fn take(self) -> Rc<Kiocb> {
        let kiocb = self.0.clone();
        // The other reference: forgetting this one must not keep the kiocb.
        let mut this = mem::ManuallyDrop::new(self);
        drop(mem::replace(&mut this.0, kiocb.clone()));
        kiocb
    }

    pub(crate) fn complete(self, result: Result<usize>) {
        self.take().complete(result);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a deferred request was forgotten");
    }
}
