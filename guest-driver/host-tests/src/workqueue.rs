// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for `kernel::workqueue`: work waits in [`crate::world`] until a test runs it.

use crate::init::PinInit;
use crate::prelude::Result;
use crate::sync::Arc;
use crate::world;
use std::cell::Cell;
use std::marker::PhantomData;
use std::rc::Rc;

/// `struct work_struct`.
#[derive(Debug)]
pub struct Work<T, const ID: u64 = 0> {
    is_queued: Cell<bool>,
    runs: Rc<Cell<bool>>,
    _of: PhantomData<fn(T)>,
}

impl<T, const ID: u64> Work<T, ID> {
    /// Not queued.
    pub fn idle() -> Self {
        Self {
            is_queued: Cell::new(false),
            runs: Rc::default(),
            _of: PhantomData,
        }
    }
}

impl<T, const ID: u64> PinInit<Work<T, ID>> for Work<T, ID> {
    fn make(self) -> Result<Self, std::convert::Infallible> {
        Ok(self)
    }
}

/// What has work.
pub trait HasWork<T, const ID: u64 = 0> {
    /// That.
    fn work(&self) -> &Work<T, ID>;
}

/// What the work is.
pub trait WorkItem<const ID: u64 = 0> {
    /// Pointer to what has it.
    type Pointer;

    /// Does it.
    fn run(this: Self::Pointer);
}

/// A queue.
#[derive(Debug)]
pub struct Queue;

impl Queue {
    /// As in the kernel crate.
    pub fn enqueue<W, const ID: u64>(&self, work: W) -> Result<(), W>
    where
        W: RawWorkItem<ID>,
    {
        work.enqueue()
    }
}

/// Pointers to what has work.
pub trait RawWorkItem<const ID: u64>: Sized {
    /// Queues it, or gives it back if it is queued.
    fn enqueue(self) -> Result<(), Self>;
}

impl<T, const ID: u64> RawWorkItem<ID> for Arc<T>
where
    T: HasWork<T, ID> + WorkItem<ID, Pointer = Arc<T>> + 'static,
{
    fn enqueue(self) -> Result<(), Self> {
        if self.work().is_queued.replace(true) {
            return Err(self);
        }
        let runs = self.work().runs.clone();
        let run = move || {
            self.work().is_queued.set(false);
            T::run(self);
        };
        world::queue_work(runs, Box::new(run));
        Ok(())
    }
}

/// As in the kernel crate.
#[macro_export]
macro_rules! impl_has_work {
    ($(impl HasWork<Self $(, $id:ident)?> for $type:ident { self.$field:ident })*) => {
        $(
            impl $crate::workqueue::HasWork<$type $(, $id)?> for $type {
                fn work(&self) -> &$crate::workqueue::Work<$type $(, $id)?> {
                    &self.$field
                }
            }
        )*
    };
}

/// As in the kernel crate.
#[macro_export]
macro_rules! new_work {
    ($name:literal) => {
        $crate::workqueue::Work::idle()
    };
}

pub use impl_has_work;
pub use new_work;
