// SPDX-License-Identifier: GPL-2.0-only

//! Busy waiting of a task: when to stop, and that it keeps its CPU meanwhile.
//!
//! Not for kernels with PREEMPT_RT, where a lock taken meanwhile may sleep: `driver/fast/` leaves
//! out what uses it.

use super::bindings;
use kernel::types::NotThreadSafe;

/// Lets the CPU rest for a moment; whether the task should stop, as others want the CPU or there is
/// a signal for it.
pub(crate) fn relax() -> bool {
    // SAFETY: May be called by any task.
    unsafe { bindings::globalfifo_relax() }
}

/// Whether another task is to have this CPU, be it at the next tick only (lazy preemption, which
/// [`relax`] ignores).
pub(crate) fn others_want_cpu() -> bool {
    // SAFETY: May be called by any task.
    unsafe { bindings::globalfifo_others_want_cpu() }
}

/// While it exists, the task keeps its CPU, except for interrupts. It must not sleep.
pub(crate) struct NoPreemption(NotThreadSafe);

impl NoPreemption {
    /// From now on.
    pub(crate) fn new() -> Self {
        // SAFETY: Undone by `drop`, on the same CPU.
        unsafe { bindings::globalfifo_preempt_disable() };
        Self(NotThreadSafe)
    }
}

impl Drop for NoPreemption {
    fn drop(&mut self) {
        // SAFETY: Done by `new`.
        unsafe { bindings::globalfifo_preempt_enable() };
    }
}
