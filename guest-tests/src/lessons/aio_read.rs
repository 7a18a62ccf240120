//! Listing 9.12: aio_read, with questions until it is done.

use anyhow::Result;
use nix::errno::Errno;

use super::Desk;
use super::clock::{Deadline, compute, millis};
use super::show::{holds, say, text};
use crate::fifo::Fifo;
use crate::posix_aio::Control;
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
    Ok(())
}
