// SPDX-License-Identifier: GPL-2.0-only

//! An open file of a character device, and who has it open.
//!
//! Each has the driver's data, and the one [`FasyncList`] that it belongs to. It is taken off that
//! list before the list's reference goes, whatever the driver does.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h), `struct file`.

use super::{
    bindings,
    fasync::FasyncList, //
};
use kernel::{
    fs::File,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    types::ForeignOwnable, //
};

/// An open file: what its `private_data` points to.
///
/// # Invariants
///
/// The file is on no [`FasyncList`] but `fasync`.
pub(crate) struct OpenFile<T> {
    pub(super) data: Arc<T>,
    pub(super) fasync: Arc<FasyncList>,
}

impl<T> OpenFile<T> {
    /// The driver's data.
    pub(super) fn data(&self) -> ArcBorrow<'_, T> {
        self.data.as_arc_borrow()
    }
}

/// The open file behind a `struct file`.
///
/// # Safety
///
/// `file` is open with the operations of `T`, and stays so for `'a`.
pub(super) unsafe fn open_file<'a, T>(file: *mut bindings::file) -> &'a OpenFile<T> {
    // SAFETY: `open` stored a box of that type, and `release` has not run.
    unsafe { <KBox<OpenFile<T>> as ForeignOwnable>::borrow((*file).private_data) }
}

/// Identity of a table of descriptors (`struct files_struct`), and so of the process that has it.
/// Comparable, nothing more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessId(pub(super) usize);

impl ProcessId {
    /// That of the current task.
    pub(crate) fn of_current() -> Self {
        // SAFETY: May be called by any task.
        Self(unsafe { bindings::globalfifo_current_files() } as usize)
    }
}

/// Whether the task that opened `file` may write its node.
pub(crate) fn opener_may_write(file: &File) -> bool {
    // SAFETY: The file is valid.
    unsafe { bindings::globalfifo_opener_may_write(file.as_ptr()) }
}
