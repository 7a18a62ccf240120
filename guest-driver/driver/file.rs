// SPDX-License-Identifier: GPL-2.0-only

//! What an open file of a FIFO does: the file operations, in terms of [`Fifo`].

use super::fifo::Fifo;
use crate::{
    kapi::{
        aio::FileId,
        chardev::{
            put_user_int,
            references,
            FileOperations,
            Mode, //
        },
        ioctls,
        iter::{
            Request,
            Source,
            UserBytes, //
        },
        wait::{
            Events,
            PollTable, //
        },
    },
    registry,
};
use kernel::{
    fs::File,
    iov::IovIterDest,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
};

impl FileOperations for Fifo {
    fn open(minor: u32) -> Result<Arc<Self>> {
        let fifo = registry::find(minor)?;
        fifo.opened();
        Ok(fifo)
    }

    fn release(self: ArcBorrow<'_, Self>) {
        self.closed();
    }

    fn read(
        self: ArcBorrow<'_, Self>,
        request: &Request,
        to: &mut IovIterDest<'_>,
    ) -> Result<usize> {
        Fifo::read(self, request, to)
    }

    fn write(
        self: ArcBorrow<'_, Self>,
        request: &Request,
        from: &mut Source<'_, '_>,
    ) -> Result<usize> {
        Fifo::write(self, request, from)
    }

    #[inline]
    fn write_at_hand(self: ArcBorrow<'_, Self>, bytes: UserBytes) -> Option<usize> {
        self.write_along(&bytes)
    }

    fn poll(self: ArcBorrow<'_, Self>, file: &File, table: &mut PollTable) -> Events {
        self.wait_queue().poll_wait(file, table);
        self.events(table.asks_for(Events::IN))
    }

    fn ioctl(
        self: ArcBorrow<'_, Self>,
        mode: Mode,
        command: u32,
        argument: usize,
    ) -> Result<isize> {
        match command {
            ioctls::FIFO_CLEAR | ioctls::ALIAS_CLEAR => {
                if !mode.can_write() {
                    return Err(EBADF);
                }
                self.clear()?;
            }
            ioctls::FIONREAD => {
                let level = i32::try_from(self.level()?).unwrap_or(i32::MAX);
                put_user_int(level, argument)?;
            }
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }

    fn fsync(self: ArcBorrow<'_, Self>) -> Result {
        Fifo::flush(self)
    }

    fn flush(self: ArcBorrow<'_, Self>, file: &File) {
        self.end_requests_of(FileId::of(file), references(file));
    }

    fn fasync(&self, file: &File, mode: Mode, fd: i32, on: bool) -> Result {
        if mode.can_read() {
            self.readers().set(fd, file, on)?;
        }
        if mode.can_write() {
            if let Err(error) = self.writers().set(fd, file, on) {
                if mode.can_read() {
                    // Removing never fails.
                    let _ = self.readers().set(-1, file, false);
                }
                return Err(error);
            }
        }
        Ok(())
    }
}
