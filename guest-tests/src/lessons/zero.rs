// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Listing 9.16: asynchronous vectored reads from a zero device.

use std::io::IoSliceMut;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::libc::O_NONBLOCK;

use super::Desk;
use super::clock::settle;
use super::show::{holds, say};
use crate::aio::{Context, Event, Iocb, PREADV};
use crate::fifo::Fifo;
use crate::harness::SOON;
use crate::system;

/// What stands in where the machine has no zero FIFO.
const KERNELS_OWN: &str = "/dev/zero";

/// A FIFO that gives zeros which nobody wrote.
fn zero_fifo() -> Result<Option<(usize, String)>> {
    for index in 1..32 {
        let path = format!("/dev/globalfifo{index}");
        if !Path::new(&path).exists() {
            break;
        }
        let fifo = Fifo::open_at(&path, O_NONBLOCK)?;
        let flags = nix::poll::PollFlags::POLLIN;
        let ready = fifo.poll_for(flags, nix::poll::PollTimeout::from(500u16))?;
        if !ready.is_empty() && fifo.read(1) == Ok(vec![0]) {
            return Ok(Some((index, path)));
        }
    }
    Ok(None)
}

pub(super) fn run(_: &Desk) -> Result<()> {
    let found = zero_fifo()?;
    let path = match &found {
        Some((_, path)) => path.as_str(),
        None => {
            say!("no zero FIFO here (start the machine with --fifo loopback --fifo zero)");
            KERNELS_OWN
        }
    };
    say!("reading from {path}");
    let fifo = Fifo::open_as(path, true, false, 0)?;
    let index = found.as_ref().map(|(index, _)| *index);
    let before = counters(index)?;
    let context = Context::new(64)?;

    let sizes = [1, 0, 7, 100, 388, 3600];
    let mut parts: Vec<Vec<u8>> = sizes.iter().map(|size| vec![0xff; *size]).collect();
    let total: usize = sizes.iter().sum();
    let mut scatter: Vec<IoSliceMut<'_>> = parts.iter_mut().map(|p| IoSliceMut::new(p)).collect();
    let mut read = Iocb::new(&fifo, PREADV, scatter.as_mut_ptr() as u64, scatter.len());
    context.submit(&mut read)?;
    let event = context.event()?;
    let got = usize::try_from(event.res).context("the read failed")?;
    say!("IOCB_CMD_PREADV into {sizes:?}, {total} bytes: result {got}");
    let all: Vec<u8> = parts.concat();
    let zeros = all.iter().take_while(|byte| **byte == 0).count();
    let rest = all.get(zeros..).unwrap_or(&[]);
    holds!(
        got > 0 && zeros == got,
        "{zeros} bytes are zero, in order through the vector"
    );
    holds!(
        rest.iter().all(|byte| *byte == 0xff),
        "the {} after them are untouched",
        rest.len()
    );

    stream(&fifo, &context)?;
    if index.is_some() {
        let all = COUNT as u64 + 1;
        let done = |now: &Vec<u64>| {
            (1..COUNTERS.len())
                .map(|n| change(&before, now, n))
                .sum::<u64>()
        };
        let after = settle(|| counters(index), |now| done(now) == all)?;
        let [interrupts, submit, interrupt, passing, ended] =
            [0, 1, 2, 3, 4].map(|n| change(&before, &after, n));
        holds!(
            done(&after) == all && interrupts > 0,
            "{interrupts} interrupts; of {all} requests done at submit {submit}, by an interrupt \
             {interrupt}, in passing {passing}, otherwise {ended}"
        );
    }
    Ok(())
}

/// How many reads at once.
const COUNT: usize = 32;

/// Many reads at once: zeros without end, through interrupts.
fn stream(fifo: &Fifo, context: &Context) -> Result<()> {
    let mut rooms = vec![[0xffu8; 4096]; COUNT];
    let mut reads: Vec<Iocb> = rooms
        .iter_mut()
        .map(|room| Iocb::read(fifo, room))
        .collect();
    let taken = context.submit_all(&mut reads);
    let events: Vec<Event> = context.events(COUNT, COUNT, SOON)?;
    let bytes: i64 = events.iter().map(|event| event.res.max(0)).sum();
    holds!(
        taken == Ok(COUNT) && events.len() == COUNT && events.iter().all(|event| event.res > 0),
        "{COUNT} reads of 4096 bytes at once: {} events, {bytes} bytes",
        events.len()
    );
    let zeros: usize = rooms.iter().flatten().filter(|byte| **byte == 0).count();
    holds!(i64::try_from(zeros)? == bytes, "all of them zero");
    Ok(())
}

/// Counters of the FIFO, if it is one.
const COUNTERS: [&str; 5] = [
    "interrupts",
    "aio_at_submit",
    "aio_by_interrupt",
    "aio_in_passing",
    "aio_ended",
];

fn counters(index: Option<usize>) -> Result<Vec<u64>> {
    let names = COUNTERS.iter();
    names
        .map(|name| index.map_or(Ok(0), |index| system::counter(index, name)))
        .collect()
}

fn change(before: &[u64], after: &[u64], n: usize) -> u64 {
    match (before.get(n), after.get(n)) {
        (Some(before), Some(after)) => after - before,
        _ => 0,
    }
}
