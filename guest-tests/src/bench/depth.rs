// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Requests of 4 KiB with many of them in flight: how many a second, and how many interrupts each takes.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use globalfifo_bench_protocol::{Direction, Interface, Measured};

use super::meter::Meter;
use crate::aio::{Context, Iocb};
use crate::fifo::Fifo;
use crate::harness::SOON;
use crate::uring::{self, Ring};

/// Bytes of a request.
const SIZE: usize = 4096;

/// Keeps `depth` requests in flight: whatever is done is submitted again.
pub fn depth(
    path: &str,
    by: Interface,
    direction: Direction,
    depth: usize,
    time: Duration,
) -> Result<Measured> {
    let fifo = Fifo::open_at(path, 0)?;
    let mut buffers = vec![vec![0x5a; SIZE]; depth];
    match by {
        Interface::Aio => aio(path, &fifo, direction, &mut buffers, time),
        Interface::Uring => uring(path, &fifo, direction, &mut buffers, time),
    }
}

fn aio(
    path: &str,
    fifo: &Fifo,
    direction: Direction,
    buffers: &mut [Vec<u8>],
    time: Duration,
) -> Result<Measured> {
    let depth = buffers.len();
    let context = Context::new(u32::try_from(depth)?)?;
    let requests: Vec<Iocb> = (buffers.iter_mut().zip(0..))
        .map(|(buffer, number)| {
            match direction {
                Direction::Read => Iocb::read(fifo, buffer),
                Direction::Write => Iocb::write(fifo, buffer),
            }
            .data(number)
        })
        .collect();
    let meter = Meter::begin(Some(path))?;
    let mut moved = Moved::default();
    let mut idle = requests.clone();
    let mut in_flight = 0;
    loop {
        let running = meter.elapsed() < time;
        if running && !idle.is_empty() {
            let taken = context.submit_all(&mut idle).context("io_submit")?;
            idle.drain(..taken);
            in_flight += taken;
        }
        if in_flight == 0 {
            break;
        }
        for event in context.events(1, depth, SOON)? {
            moved.add(event.res)?;
            in_flight -= 1;
            let number = usize::try_from(event.data)?;
            idle.push(*requests.get(number).context("an event of no request")?);
        }
    }
    moved.over(meter)
}

fn uring(
    path: &str,
    fifo: &Fifo,
    direction: Direction,
    buffers: &mut [Vec<u8>],
    time: Duration,
) -> Result<Measured> {
    let mut ring = Ring::new()?;
    let entries: Vec<_> = buffers
        .iter_mut()
        .map(|buffer| match direction {
            Direction::Read => uring::read(fifo, buffer),
            Direction::Write => uring::write(fifo, buffer),
        })
        .collect();
    let meter = Meter::begin(Some(path))?;
    let mut moved = Moved::default();
    let mut in_flight = 0;
    for (entry, number) in entries.iter().zip(0..) {
        ring.queue(entry.clone(), number)?;
        in_flight += 1;
    }
    while in_flight > 0 {
        let completion = ring.completion()?;
        moved.add(completion.res.into())?;
        in_flight -= 1;
        if meter.elapsed() < time {
            let number = usize::try_from(completion.data)?;
            let entry = entries.get(number).context("a completion of no request")?;
            ring.queue(entry.clone(), completion.data)?;
            in_flight += 1;
        }
    }
    moved.over(meter)
}

/// What was done. A request may move less than it asks for: a FIFO gives what is there.
#[derive(Debug, Default)]
struct Moved {
    operations: u64,
    bytes: u64,
}

impl Moved {
    fn add(&mut self, res: i64) -> Result<()> {
        match u64::try_from(res) {
            Ok(0) => bail!("the FIFO has ended"),
            Ok(count) => {
                self.operations += 1;
                self.bytes += count;
                Ok(())
            }
            Err(_) => bail!("a request failed with error {}", -res),
        }
    }

    fn over(self, meter: Meter) -> Result<Measured> {
        Ok(Measured {
            operations: self.operations,
            bytes: self.bytes,
            ..meter.end()?
        })
    }
}
