// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Section 9.4.3: what a driver had for asynchronous I/O then, and has now.

use std::time::Duration;

use anyhow::Result;

use super::Desk;
use super::clock::settle;
use super::show::{holds, say, text};
use super::source;
use crate::aio::{Context, FDSYNC, FSYNC, Iocb};
use crate::fifo::Fifo;
use crate::system;

const CHANGES: &str = "  then (up to Linux 3.x)                 now
  aio_read(kiocb, iovec, n, pos)         read_iter(kiocb, iov_iter)    since 3.16; aio_read gone in 4.1
  aio_write(kiocb, iovec, n, pos)        write_iter(kiocb, iov_iter)   likewise
  aio_fsync(kiocb, datasync)             fsync(file, start, end, datasync), from a worker since 4.18
  aio_complete(kiocb, res, res2)         kiocb->ki_complete(kiocb, res)
  retry, KIF_*, kick_iocb                none: return -EIOCBQUEUED and complete later
";

fn counters() -> Result<[u64; 2]> {
    Ok([
        system::counter(0, "aio_at_submit")?,
        system::counter(0, "aio_by_interrupt")?,
    ])
}

pub(super) fn run(_: &Desk) -> Result<()> {
    say!("{CHANGES}");
    source::TABLE.show("the driver's file operations: one pair for calls and requests")?;
    source::ENTRY_READ.show("read(), readv(), AIO, io_uring: all come here")?;
    source::DEFER.show("a request that cannot be answered at once is deferred: -EIOCBQUEUED")?;
    source::DONE.show("deferred requests are completed in order, outside the lock")?;
    source::COMPLETE.show("ki_complete itself")?;
    source::FLUSH.show("fsync: until the device has accepted what was written")?;

    let fifo = Fifo::open(0)?;
    let context = Context::new(8)?;
    let mut room = [0u8; 32];
    let before = counters()?;
    context.submit(&mut Iocb::read(&fifo, &mut room))?;
    let none = context.events(0, 1, Duration::ZERO)?;
    holds!(
        none.is_empty(),
        "a read of the empty FIFO: read_iter returned -EIOCBQUEUED, no event"
    );
    fifo.write_all(b"now")?;
    let event = context.event()?;
    let after = settle(counters, |after| *after != before)?;
    holds!(
        event.res == 3 && after == [before[0], before[1] + 1],
        "after a write: result {}, {}; [at submit, by interrupt] {before:?} -> {after:?}",
        event.res,
        text(room.get(..3).unwrap_or(&[]))
    );

    fifo.write_all(b"already here")?;
    fifo.wait_level(12)?;
    let before = counters()?;
    context.submit(&mut Iocb::read(&fifo, &mut room))?;
    let event = context.event()?;
    let after = settle(counters, |after| *after != before)?;
    holds!(
        event.res == 12 && after == [before[0] + 1, before[1]],
        "a read of what is there: result {}; [at submit, by interrupt] {before:?} -> {after:?}",
        event.res
    );

    context.submit(&mut Iocb::write(&fifo, b"to be accepted"))?;
    let event = context.event()?;
    holds!(
        event.res == 14,
        "a write: result {}, once the device has accepted it",
        event.res
    );
    for (operation, name) in [(FSYNC, "IOCB_CMD_FSYNC"), (FDSYNC, "IOCB_CMD_FDSYNC")] {
        context.submit(&mut Iocb::new(&fifo, operation, 0, 0))?;
        let event = context.event()?;
        holds!(event.res == 0, "{name}: result {}", event.res);
    }
    Ok(())
}
