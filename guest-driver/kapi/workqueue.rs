// SPDX-License-Identifier: GPL-2.0-only

//! A work queue of the module's own, so that unloading can wait for all work to be over.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h).

use super::bindings;
use core::ptr;
use kernel::{
    prelude::*,
    workqueue::{
        DelayedWork,
        Queue, //
    },
};

/// `struct workqueue_struct`; all work in it is done when it is dropped.
///
/// # Invariants
///
/// A valid work queue, which nobody else destroys.
pub(crate) struct WorkQueue(*mut bindings::workqueue_struct);

// SAFETY: Work queues are made to be used from many threads and contexts.
unsafe impl Send for WorkQueue {}
// SAFETY: As above.
unsafe impl Sync for WorkQueue {}

/// Priority of the threads that run the work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// `WQ_HIGHPRI`: before all tasks without a real-time priority.
    High,
    /// That of an ordinary task: for work of which there may be no end.
    Normal,
}

/// What the freezer, which stops user space for a suspension or a hibernation, makes of the work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freezer {
    /// `WQ_FREEZABLE`: it waits for work that runs, and none begins until user space goes on. For
    /// work that soon ends.
    Stops,
    /// It runs on.
    Ignores,
}

impl WorkQueue {
    /// Creates a queue.
    pub(crate) fn new(name: &'static CStr, priority: Priority, freezer: Freezer) -> Result<Self> {
        let high = priority == Priority::High;
        let freezable = freezer == Freezer::Stops;
        let name = name.as_char_ptr();
        // SAFETY: `name` is a C string.
        let queue = unsafe { bindings::globalfifo_alloc_workqueue(name, high, freezable) };
        if queue.is_null() {
            return Err(ENOMEM);
        }
        // INVARIANT: Just made.
        Ok(Self(queue))
    }

    /// The queue, to put work in. From any context.
    pub(crate) fn queue(&self) -> &Queue {
        // SAFETY: By the type invariants.
        unsafe { Queue::from_raw(self.0) }
    }

    /// Waits until no work is left.
    pub(crate) fn drain(&self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::drain_workqueue(self.0) };
    }
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::destroy_workqueue(self.0) };
    }
}

/// Has `work` run now if it waits for its time, and waits until it is over. To be called before a
/// [`WorkQueue`] goes that it may be waiting for: [`WorkQueue::drain`] does not see it yet.
pub(crate) fn flush_delayed<T, const ID: u64>(work: &DelayedWork<T, ID>) {
    // SAFETY: `DelayedWork` is transparent over `struct delayed_work`, and was initialised.
    unsafe {
        bindings::flush_delayed_work(
            ptr::from_ref(work)
                .cast::<bindings::delayed_work>()
                .cast_mut(),
        )
    };
}

/// A reference to the module: while it exists, unloading is refused.
///
/// For work that may take for ever. Such work has to be put in by somebody who holds the module.
pub(crate) struct InUse(());

impl InUse {
    /// From now on.
    pub(crate) fn new() -> Self {
        // SAFETY: Undone by `drop`. Work of the module runs, and unloading waits for it: so the
        // module is there.
        unsafe { bindings::globalfifo_get_module() };
        Self(())
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        // SAFETY: Done by `new`. The work that drops this is still waited for by unloading.
        unsafe { bindings::globalfifo_put_module() };
    }
}
