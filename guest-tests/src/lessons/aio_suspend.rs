// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Listing 9.13: aio_suspend instead of questions.

use std::ptr;
use std::time::Duration;

use anyhow::{Result, anyhow};
use nix::errno::Errno;
use nix::libc::O_NONBLOCK;

use super::Desk;
use super::clock::{millis, sleep_until};
use super::show::{holds, say, text};
use crate::fifo::Fifo;
use crate::harness::SOON;
use crate::posix_aio::{Control, suspend};
use crate::trace::now_micros;

pub(super) fn run(_: &Desk) -> Result<()> {
    let fifo = Fifo::open(0)?;
    let mut read = Control::reader(&fifo, 64);
    read.read()?;
    let start = now_micros()?;
    let gave_up = suspend(&[read.raw()], Some(Duration::from_millis(50)));
    let took = now_micros()? - start;
    holds!(
        gave_up == Err(Errno::EAGAIN) && took >= 50_000,
        "aio_suspend with a timeout of 50 ms, and no data: {gave_up:?} after {}",
        millis(took)
    );

    // A file of its own: the library serves requests of one file one after the other.
    let other_file = Fifo::open(0)?;
    let mut second = Control::reader(&other_file, 64);
    second.read()?;
    say!("two reads wait; aio_suspend with both and a null pointer; a thread writes 30 ms later");
    let start = now_micros()?;
    let writer = std::thread::spawn(move || -> Result<u64> {
        let by = Fifo::open(O_NONBLOCK)?;
        sleep_until(start + 30_000)?;
        let at = now_micros()?;
        by.write_all(b"for one of you")?;
        Ok(at)
    });
    let woken = suspend(&[read.raw(), ptr::null_mut(), second.raw()], Some(SOON));
    let end = now_micros()?;
    let written = writer
        .join()
        .map_err(|_| anyhow!("the writer panicked"))??;
    holds!(
        woken == Ok(()) && end > written,
        "aio_suspend returned 0, {} after the write",
        millis(end.saturating_sub(written))
    );
    let states = [read.state(), second.state()];
    say!("  aio_error of the two: {states:?}");
    let (done, other) = match states {
        [Ok(()), Err(Errno::EINPROGRESS)] => (&mut read, &mut second),
        [Err(Errno::EINPROGRESS), Ok(())] => (&mut second, &mut read),
        _ => return Err(anyhow!("not one done, and one in progress")),
    };
    let count = done.result();
    let bytes = done.bytes().get(..14).unwrap_or(&[]);
    holds!(
        count == Ok(14) && bytes == b"for one of you",
        "one is done: aio_return {count:?}, its buffer {}",
        text(bytes)
    );
    Fifo::open(0)?.write_all(b"!")?;
    let count = other.wait();
    holds!(
        count == Ok(1),
        "one more byte ends the other: aio_return {count:?}"
    );
    Ok(())
}
