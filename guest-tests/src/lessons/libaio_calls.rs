// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Section 9.4.2: libaio's calls, which are the kernel's; and what it puts on top of them.

use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;

use super::Desk;
use super::show::{holds, say, text};
use crate::aio::{Context, Event, Iocb, PREADV, PWRITEV};
use crate::fifo::Fifo;

/// What io_set_callback stores in `iocb.data`: here a key into a table, in libaio the function's
/// address itself.
type Callback = fn(&Event) -> Result<()>;

fn read_done(event: &Event) -> Result<()> {
    say!("    callback read_done:  result {}", event.res);
    Ok(())
}

fn write_done(event: &Event) -> Result<()> {
    say!("    callback write_done: result {}", event.res);
    Ok(())
}

/// What io_queue_run does: takes the events that are there and calls what they carry.
fn run_queue(
    context: &Context,
    callbacks: &BTreeMap<u64, Callback>,
    wanted: usize,
) -> Result<usize> {
    let events = context.events(wanted, 8, crate::harness::SOON)?;
    for event in &events {
        callbacks.get(&event.data).context("an event of nobody's")?(event)?;
    }
    Ok(events.len())
}

pub(super) fn run(_: &Desk) -> Result<()> {
    let fifo = Fifo::open(0)?;
    let refused = Context::new(0).is_err();
    holds!(refused, "io_setup(0): refused");
    let context = Context::new(8)?;
    say!("io_setup(8): a context for 8 requests");

    let callbacks: BTreeMap<u64, Callback> = [(1, read_done as Callback), (2, write_done)].into();
    let mut room = [0u8; 16];
    let mut read = Iocb::read(&fifo, &mut room).data(1);
    let mut write = Iocb::write(&fifo, b"sixteen bytes!!!").data(2);
    context.submit(&mut read)?;
    context.submit(&mut write)?;
    say!("io_submit: a read, then a write; io_getevents and their callbacks:");
    let done = run_queue(&context, &callbacks, 2)?;
    holds!(
        done == 2 && &room == b"sixteen bytes!!!",
        "{done} events; the read has what was written: {}",
        text(&room)
    );

    vectors(&context, &fifo)?;

    let mut room = [0u8; 16];
    let mut read = Iocb::read(&fifo, &mut room);
    context.submit(&mut read)?;
    let answer = context.cancel(&mut read);
    let event = context.event()?;
    holds!(
        answer == Err(Errno::EINPROGRESS) && event.res == -i64::from(nix::libc::ECANCELED),
        "io_cancel of a waiting read: {answer:?}; event: {}",
        event.res
    );
    let answer = context.cancel(&mut read);
    holds!(
        answer == Err(Errno::EINVAL),
        "io_cancel of a finished one: {answer:?}"
    );

    let mut bad = Iocb::new(&fifo, 99, 0, 0);
    let answer = context.submit(&mut bad);
    holds!(
        answer == Err(Errno::EINVAL),
        "io_submit of an unknown operation: {answer:?}"
    );
    let mut room = [0u8; 16];
    let mut read = Iocb::read(&fifo, &mut room);
    context.submit(&mut read)?;
    let destroyed = context.destroy();
    holds!(
        destroyed == Ok(()),
        "io_destroy with a read waiting: {destroyed:?}, and the read is ended"
    );
    fifo.write_all(b"ours")?;
    let bytes = fifo.read_exact(4)?;
    holds!(
        bytes == b"ours",
        "it took nothing with it: {}",
        text(&bytes)
    );
    Ok(())
}

/// io_prep_preadv and io_prep_pwritev.
fn vectors(context: &Context, fifo: &Fifo) -> Result<()> {
    let gather = [
        IoSlice::new(b"in "),
        IoSlice::new(b""),
        IoSlice::new(b"three pieces"),
    ];
    let mut write = Iocb::new(fifo, PWRITEV, gather.as_ptr() as u64, gather.len());
    context.submit(&mut write)?;
    let wrote = context.event()?.res;
    holds!(
        wrote == 15,
        "IOCB_CMD_PWRITEV of 3, 0 and 12 bytes: result {wrote}"
    );
    fifo.wait_level(15)?;
    let (mut a, mut b) = ([0u8; 4], [0u8; 32]);
    let mut scatter = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)];
    let mut read = Iocb::new(fifo, PREADV, scatter.as_mut_ptr() as u64, scatter.len());
    context.submit(&mut read)?;
    let events = context.events(0, 1, Duration::ZERO)?;
    let got = events.first().map_or(0, |event| event.res);
    holds!(
        got == 15,
        "IOCB_CMD_PREADV into 4 and 32 bytes: result {got}, at once: the data was there"
    );
    let both = [&a[..], b.get(..11).unwrap_or(&[])].concat();
    holds!(
        both == b"in three pieces",
        "the two buffers: {}",
        text(&both)
    );
    Ok(())
}
