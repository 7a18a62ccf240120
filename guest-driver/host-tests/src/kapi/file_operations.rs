// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in: the operations of an open file, to be called by tests.

use super::kiocb::{Outcome, Request};
use super::open_file::ProcessId;
use super::poll::PollTable;
use super::source::Source;
use super::wait::Events;
use crate::fs::File;
use crate::iov::IovIterDest;
use crate::prelude::*;
use crate::sync::ArcBorrow;

/// As in `kapi`.
pub(crate) trait FileOperations: Sized + 'static {
    fn read<'a>(
        self: ArcBorrow<'_, Self>,
        request: Request<'a, Self>,
        to: &mut IovIterDest<'_>,
    ) -> Outcome<'a>;

    fn write<'a>(
        self: ArcBorrow<'_, Self>,
        request: Request<'a, Self>,
        from: &mut Source<'_, '_>,
    ) -> Outcome<'a>;

    fn wait_for_splice(
        self: ArcBorrow<'_, Self>,
        direction: Direction,
        must_not_wait: bool,
    ) -> Result;

    fn poll(self: ArcBorrow<'_, Self>, file: &File, mode: Mode, table: &PollTable<'_>) -> Events;

    fn ioctl(
        self: ArcBorrow<'_, Self>,
        file: &File,
        command: u32,
        argument: usize,
    ) -> Result<isize>;

    fn fsync(self: ArcBorrow<'_, Self>) -> Result;

    fn fasync_changed(self: ArcBorrow<'_, Self>, on: bool);

    fn closed_by(self: ArcBorrow<'_, Self>, process: ProcessId);
}

/// As in `kapi`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// As in `kapi`.
#[derive(Clone, Copy)]
pub(crate) struct Mode {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Mode {
    pub(crate) const READ_WRITE: Self = Self {
        read: true,
        write: true,
    };

    pub(crate) fn can_read(self) -> bool {
        self.read
    }

    pub(crate) fn can_write(self) -> bool {
        self.write
    }
}
