// SPDX-License-Identifier: GPL-2.0-only

//! The file operations of a FIFO, in terms of [`Fifo`](super::fifo::Fifo).

use super::fifo::file::FifoFile;
use crate::{
    kapi::{
        file_operations::{
            Direction,
            FileOperations,
            Mode, //
        },
        kiocb::{
            Cancel,
            Id,
            Outcome,
            Request, //
        },
        open_file::{
            opener_may_write,
            ProcessId, //
        },
        poll::PollTable,
        source::Source,
        wait::Events, //
    },
    uapi, //
};
use kernel::{
    fs::File,
    iov::IovIterDest,
    prelude::*,
    sync::ArcBorrow,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

/// Events that a descriptor of this mode can make use of.
fn events_of(mode: Mode) -> Events {
    let mut events = Events::ERR | Events::HUP;
    if mode.can_read() {
        events |= Events::IN;
    } else {
        events = events.without(Events::READ_HUP);
    }
    if mode.can_write() {
        events |= Events::OUT;
    }
    events
}

impl FileOperations for FifoFile {
    fn read<'a>(
        self: ArcBorrow<'_, Self>,
        request: Request<'a, Self>,
        to: &mut IovIterDest<'_>,
    ) -> Outcome<'a> {
        self.fifo.as_arc_borrow().read(self, request, to)
    }

    fn write<'a>(
        self: ArcBorrow<'_, Self>,
        request: Request<'a, Self>,
        from: &mut Source<'_, '_>,
    ) -> Outcome<'a> {
        self.fifo.as_arc_borrow().write(self, request, from)
    }

    fn wait_for_splice(
        self: ArcBorrow<'_, Self>,
        direction: Direction,
        must_not_wait: bool,
    ) -> Result {
        self.fifo
            .as_arc_borrow()
            .wait_for_splice(direction, must_not_wait)
    }

    fn poll(self: ArcBorrow<'_, Self>, file: &File, mode: Mode, table: &PollTable<'_>) -> Events {
        let fifo = self.fifo.as_arc_borrow();
        table.register(file, fifo.notifier.polls_for(mode));
        let wants_data = mode.can_read() && table.asks_for(Events::IN);
        fifo.readiness(wants_data).and(events_of(mode))
    }

    fn ioctl(
        self: ArcBorrow<'_, Self>,
        file: &File,
        command: u32,
        argument: usize,
    ) -> Result<isize> {
        match command {
            uapi::FIFO_CLEAR | uapi::IOC_CLEAR => {
                // Also through a descriptor for reading: textbooks do that.
                if !opener_may_write(file) {
                    return Err(EBADF);
                }
                self.fifo.as_arc_borrow().clear()?;
            }
            uapi::FIONREAD => {
                let level = i32::try_from(self.fifo.level()?).unwrap_or(i32::MAX);
                let to = UserPtr::from_addr(argument);
                UserSlice::new(to, size_of::<i32>())
                    .writer()
                    .write(&level)?;
            }
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }

    fn fsync(self: ArcBorrow<'_, Self>) -> Result {
        self.fifo.as_arc_borrow().flush()
    }

    fn fasync_changed(self: ArcBorrow<'_, Self>, on: bool) {
        self.fifo.trace.fasync(on.into());
    }

    fn closed_by(self: ArcBorrow<'_, Self>, process: ProcessId) {
        self.fifo
            .as_arc_borrow()
            .end_requests_of(self.id(), process);
        self.forget_ended();
    }
}

impl Cancel for FifoFile {
    fn cancel(self: ArcBorrow<'_, Self>, id: Id) {
        self.fifo.as_arc_borrow().cancel(id);
        // The process is there still, so its memory is not freed here.
        self.forget(id);
    }
}
