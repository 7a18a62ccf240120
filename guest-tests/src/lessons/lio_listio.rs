// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Listing 9.14: lio_listio, many requests in one call.

use std::ptr;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc::{LIO_NOP, LIO_NOWAIT, LIO_READ, LIO_WAIT, LIO_WRITE, SIGRTMIN};

use super::Desk;
use super::clock::millis;
use super::show::{holds, text};
use crate::fifo::Fifo;
use crate::harness::SOON;
use crate::posix_aio::{Control, by_signal, listio};
use crate::signals;
use crate::trace::now_micros;

/// A request that says itself what it is for.
fn entry(mut control: Control, operation: i32) -> Control {
    control.block().aio_lio_opcode = operation;
    control
}

pub(super) fn run(_: &Desk) -> Result<()> {
    // Before the library makes threads, which inherit it.
    signals::block(SIGRTMIN())?;
    let fifo = Fifo::open(0)?;
    let mut first = entry(Control::writer(&fifo, b"one "), LIO_WRITE);
    let nothing = entry(Control::reader(&fifo, 4), LIO_NOP);
    let mut second = entry(Control::writer(&fifo, b"two "), LIO_WRITE);
    let mut read = entry(Control::reader(&fifo, 4), LIO_READ);
    let all = [
        first.raw(),
        ptr::null_mut(),
        nothing.raw(),
        second.raw(),
        read.raw(),
    ];
    let start = now_micros()?;
    let done = listio(LIO_WAIT, &all, None);
    let took = millis(now_micros()? - start);
    holds!(
        done == Ok(()),
        "LIO_WAIT: write 4, null, LIO_NOP, write 4, read 4: 0 after {took}"
    );
    let states = [first.state(), second.state(), read.state()];
    holds!(
        states == [Ok(()); 3],
        "nothing is in progress: aio_error {states:?}"
    );
    let counts = [first.result(), second.result(), read.result()];
    holds!(counts == [Ok(4); 3], "aio_return of the three: {counts:?}");
    let bytes = read.bytes();
    holds!(
        bytes == b"one ",
        "the read got {}: requests of one file are served in order",
        text(bytes)
    );
    let left = fifo.read_exact(4)?;
    holds!(left == b"two ", "and in the FIFO stayed {}", text(&left));
    without_waiting(&fifo)
}

fn without_waiting(fifo: &Fifo) -> Result<()> {
    let mut reads = [(); 3].map(|()| entry(Control::reader(fifo, 3), LIO_READ));
    let all = reads.each_ref().map(Control::raw);
    let start = now_micros()?;
    let done = listio(LIO_NOWAIT, &all, Some(&mut by_signal(SIGRTMIN(), 7)));
    let took = millis(now_micros()? - start);
    holds!(
        done == Ok(()),
        "LIO_NOWAIT: three reads of the empty FIFO: 0 after {took}"
    );
    let states = reads.each_ref().map(Control::state);
    holds!(
        states == [Err(Errno::EINPROGRESS); 3],
        "all three are in progress: aio_error {states:?}"
    );
    Fifo::open(0)?.write_all(b"abcdefghi")?;
    let signal = signals::take(SIGRTMIN(), SOON)?.context("no signal came")?;
    let counts = reads.each_mut().map(Control::result);
    holds!(
        counts == [Ok(3); 3],
        "signal {} when all were done: aio_return {counts:?}",
        signal.signal
    );
    let bytes: Vec<u8> = reads
        .iter()
        .flat_map(|read| read.bytes().to_vec())
        .collect();
    holds!(
        bytes == b"abcdefghi",
        "their buffers in order: {}",
        text(&bytes)
    );
    Ok(())
}
