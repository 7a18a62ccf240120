// SPDX-License-Identifier: GPL-2.0-only

//! The operations of an open file, as a driver implements them.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h), `struct file_operations`.

use super::{
    bindings,
    fasync::FasyncList,
    kiocb::{
        Outcome,
        Request, //
    },
    open_file::ProcessId,
    poll::PollTable,
    source::Source,
    wait::Events, //
};
use kernel::{
    fs::File,
    iov::IovIterDest,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    ModuleMetadata, //
};

/// The operations of an open file. `Self` is the driver's data of one open file.
///
/// Every method may run at any time until the file is released, also after the device is gone.
pub(crate) trait FileOperations: Sized + Send + Sync + 'static {
    /// `read(2)` and its kin. Zero-length reads do not get here.
    fn read<'a>(
        self: ArcBorrow<'_, Self>,
        request: Request<'a, Self>,
        to: &mut IovIterDest<'_>,
    ) -> Outcome<'a>;

    /// `write(2)` and its kin. Zero-length writes do not get here.
    fn write<'a>(
        self: ArcBorrow<'_, Self>,
        request: Request<'a, Self>,
        from: &mut Source<'_, '_>,
    ) -> Outcome<'a>;

    /// Whether a splice must wait before it can move a byte in `direction`; `must_not_wait` makes
    /// it `EAGAIN`. Called without the pipe's lock.
    fn wait_for_splice(
        self: ArcBorrow<'_, Self>,
        direction: Direction,
        must_not_wait: bool,
    ) -> Result;

    /// `poll(2)`: registers with `table`, then gives the events that hold.
    fn poll(self: ArcBorrow<'_, Self>, file: &File, mode: Mode, table: &PollTable<'_>) -> Events;

    /// `ioctl(2)`.
    fn ioctl(
        self: ArcBorrow<'_, Self>,
        file: &File,
        command: u32,
        argument: usize,
    ) -> Result<isize>;

    /// `fsync(2)` and `fdatasync(2)`.
    fn fsync(self: ArcBorrow<'_, Self>) -> Result;

    /// The file was put on its list of [`Open::open`], or taken off.
    fn fasync_changed(self: ArcBorrow<'_, Self>, _on: bool) {}

    /// A process closed its last descriptor of this file.
    fn closed_by(self: ArcBorrow<'_, Self>, process: ProcessId);
}

/// What a new file is opened by.
pub(crate) trait Open: 'static {
    /// The data of an open file.
    type File: FileOperations;

    /// The module that the operations are part of.
    type OwnerModule: ModuleMetadata;

    /// Opens minor number `minor`: the data of the new file, and the list that `O_ASYNC` puts it
    /// on. Both are dropped once the file is released.
    fn open(minor: u32, mode: Mode) -> Result<(Arc<Self::File>, Arc<FasyncList>)>;
}

/// Direction of a splice, seen from the file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the file to a pipe.
    Read,
    /// From a pipe to the file.
    Write,
}

/// Mode in which a file was opened.
#[derive(Clone, Copy)]
pub(crate) struct Mode(pub(super) bindings::fmode_t);

impl Mode {
    /// Open for reading.
    pub(crate) fn can_read(self) -> bool {
        self.0 & bindings::GLOBALFIFO_FMODE_READ != 0
    }

    /// Open for writing.
    pub(crate) fn can_write(self) -> bool {
        self.0 & bindings::GLOBALFIFO_FMODE_WRITE != 0
    }
}
