// SPDX-License-Identifier: GPL-2.0-only

//! The table that a `poll` registers with.
//!
//! The kernel crate's [`kernel::sync::poll::PollTable`] takes a condition variable, which wakes
//! without a key. It also hides which events the caller asks for.
//!
//! C header: [`include/linux/poll.h`](srctree/include/linux/poll.h).

use super::{
    bindings,
    wait::{
        Events,
        PollQueue, //
    },
};
use core::marker::PhantomData;
use kernel::fs::File;

/// `struct poll_table_struct` of a poll in progress.
///
/// # Invariants
///
/// `table` is null, or valid for `'a`.
pub(crate) struct PollTable<'a> {
    table: *mut bindings::poll_table,
    _lifetime: PhantomData<&'a bindings::poll_table>,
}

impl PollTable<'_> {
    /// Wraps what the `poll` file operation got.
    ///
    /// # Safety
    ///
    /// `table` is null or valid for as long as the returned value exists.
    pub(super) unsafe fn from_raw(table: *mut bindings::poll_table) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            table,
            _lifetime: PhantomData,
        }
    }

    /// Registers `queue`, whose wake-ups from now on make the caller poll again.
    pub(crate) fn register(&self, file: &File, queue: &PollQueue) {
        // SAFETY: The file is valid, the table by the type invariants. The queue's drop unregisters
        // whatever is on it.
        unsafe { bindings::poll_wait(file.as_ptr(), queue.as_raw(), self.table) };
    }

    /// Whether the caller wants any of `events`, or all that hold: C's `poll_requested_events()`.
    pub(crate) fn asks_for(&self, events: Events) -> bool {
        // SAFETY: By the type invariants the table is valid unless it is null.
        self.table.is_null() || unsafe { (*self.table)._key } & events.bits() != 0
    }
}
