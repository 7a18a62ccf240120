// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Listing 9.12: aio_read, with questions until it is done; and a write behind a read that waits.

use std::time::Duration;

use anyhow::Result;
use nix::errno::Errno;
use nix::libc;

use super::Desk;
use super::clock::{Deadline, compute, millis};
use super::show::{holds, say, text};
use crate::fifo::Fifo;
use crate::posix_aio::{Control, listio, suspend};
use crate::trace::now_micros;

pub(super) fn run(_: &Desk) -> Result<()> {
    let fifo = Fifo::open(0)?;
    let mut read = Control::reader(&fifo, 64);
    let start = now_micros()?;
    read.read()?;
    let took = now_micros()? - start;
    say!(
        "aio_read of 64 bytes from the empty FIFO returned after {}",
        millis(took)
    );
    let state = read.state();
    holds!(state == Err(Errno::EINPROGRESS), "aio_error: {state:?}");

    let mut asked = 0;
    let deadline = Deadline::soon()?;
    while read.state() == Err(Errno::EINPROGRESS) {
        asked += 1;
        compute(1000)?;
        if asked == 10 {
            say!("asked {asked} times, a millisecond of work after each; now somebody writes");
            Fifo::open(0)?.write_all(b"at last")?;
        }
        deadline.check("the end of aio_read")?;
    }
    say!(
        "asked {asked} times in all, in {}",
        millis(now_micros()? - start)
    );
    let state = read.state();
    holds!(state == Ok(()), "aio_error: {state:?}, 0");
    let count = read.result();
    holds!(
        count == Ok(7),
        "aio_return: {count:?}, as read() would: what is there, not 64"
    );
    let bytes = read.bytes().get(..7).unwrap_or(&[]);
    holds!(bytes == b"at last", "the buffer: {}", text(bytes));
    holds!(asked >= 10, "it was in progress for {asked} questions");
    a_write_behind(&fifo)
}

/// The C library serves the requests of a descriptor one after the other.
fn a_write_behind(fifo: &Fifo) -> Result<()> {
    say!("aio_read on the empty FIFO again, and behind it aio_write on the same descriptor");
    let mut read = Control::reader(fifo, 64);
    read.read()?;
    let mut behind = Control::writer(fifo, b"behind");
    behind.write()?;
    let state = suspend(&[behind.raw()], Some(Duration::from_millis(200)));
    holds!(
        state == Err(Errno::EAGAIN),
        "aio_suspend for the write gives up after 200 ms: {state:?}; the read is first, and waits for that very write"
    );
    let other = nix::unistd::dup(fifo)?;
    let mut beside = Control::writer(&other, b"beside");
    beside.write()?;
    let count = beside.wait();
    holds!(
        count == Ok(6),
        "aio_write on a duplicate of the descriptor is done: {count:?}"
    );
    let count = read.wait();
    let bytes = read.bytes().get(..6).unwrap_or(&[]);
    holds!(
        count == Ok(6) && bytes == b"beside",
        "it ends the read: {count:?}, {}",
        text(bytes)
    );
    let count = behind.wait();
    let bytes = fifo.read_exact(6)?;
    holds!(
        count == Ok(6) && bytes == b"behind",
        "and then comes the write behind it: {count:?}, {}",
        text(&bytes)
    );

    let mut read = Control::reader(fifo, 64);
    read.block().aio_lio_opcode = libc::LIO_READ;
    let mut behind = Control::writer(fifo, b"behind");
    behind.block().aio_lio_opcode = libc::LIO_WRITE;
    listio(libc::LIO_NOWAIT, &[read.raw(), behind.raw()], None)?;
    let state = suspend(&[behind.raw()], Some(Duration::from_millis(200)));
    holds!(
        state == Err(Errno::EAGAIN),
        "both in one lio_listio: the write waits behind the read as well: {state:?}"
    );
    nix::unistd::write(&other, b"beside")?;
    holds!(
        read.wait() == Ok(6) && behind.wait() == Ok(6),
        "a write by somebody else ends both"
    );
    fifo.read_exact(6)?;
    Ok(())
}
