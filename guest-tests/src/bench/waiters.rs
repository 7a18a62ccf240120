// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Events while thousands wait: what one costs, and what memory a waiter takes.
//!
//! The thread that causes an event also waits for it: a figure is the time from before the write
//! until all that should be notified are.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use globalfifo_bench_protocol::{Measured, Waiter};
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::meter::{Latencies, Meter, slab};
use super::place::Place;
use crate::aio::{Context, Iocb};
use crate::fifo::Fifo;
use crate::harness::SOON;
use crate::signals;

/// Descriptors beside those that wait.
const SPARE: usize = 256;
/// Events that are not counted: first times are slow.
const WARM_UP: u64 = 3;
/// From so many on a waiter's share of memory means something.
const MANY: usize = 1000;
/// Bytes of an event.
const EVENT: usize = 8;

/// Measures one kind with so many of them.
pub fn waiters(paths: &[String], by: Waiter, count: usize, time: Duration) -> Result<Measured> {
    allow_descriptors(count)?;
    let _place = Place::beside_interrupts(paths.first().map(String::as_str))?;
    let writers = paths
        .iter()
        .map(|path| {
            let fifo = Fifo::open_at(path, libc::O_NONBLOCK)?;
            fifo.clear()?;
            Ok(fifo)
        })
        .collect::<Result<Vec<_>>>()?;
    match by {
        Waiter::Aio => requests(paths, &writers, count, time),
        Waiter::Epoll => pollers(paths, &writers, &alone(paths, count), time),
        Waiter::EpollCrowd => pollers(paths, &writers, &crowd(paths, count), time),
        Waiter::Sigio => owners(paths, &writers, &alone(paths, count), libc::SIGIO, time),
        Waiter::SignalCrowd => {
            let signal = libc::SIGRTMIN() + 1;
            owners(paths, &writers, &crowd(paths, count), signal, time)
        }
    }
}

/// Which FIFO each waiter is for, and which FIFOs have events.
#[derive(Debug)]
struct Layout {
    fifo_of: Vec<usize>,
    active: usize,
}

/// One on the first FIFO, which has the events; the others on the rest.
fn alone(paths: &[String], count: usize) -> Layout {
    let rest = paths.len().saturating_sub(1).max(1);
    let others = (0..count.saturating_sub(1)).map(|number| 1 + number % rest);
    Layout {
        fifo_of: std::iter::once(0).chain(others).collect(),
        active: 1,
    }
}

/// Over all FIFOs alike; all have events.
fn crowd(paths: &[String], count: usize) -> Layout {
    Layout {
        fifo_of: (0..count).map(|number| number % paths.len()).collect(),
        active: paths.len().min(count),
    }
}

impl Layout {
    /// Waiters for a FIFO.
    fn on(&self, fifo: usize) -> usize {
        self.fifo_of.iter().filter(|of| **of == fifo).count()
    }

    /// An open file for each.
    fn open(&self, paths: &[String]) -> Result<Vec<Fifo>> {
        let open = |fifo: &usize| {
            let path = paths.get(*fifo).context("there are too few FIFOs")?;
            Fifo::open_as(path, true, false, libc::O_NONBLOCK)
        };
        self.fifo_of.iter().map(open).collect()
    }
}

/// Reads of native AIO: an event completes the oldest of its FIFO.
fn requests(paths: &[String], writers: &[Fifo], count: usize, time: Duration) -> Result<Measured> {
    let layout = crowd(paths, count);
    let context = Context::new(u32::try_from(count)?)?;
    // Without O_NONBLOCK, or they would not wait.
    let readers = paths.iter().map(|path| Fifo::open_as(path, true, false, 0));
    let readers = readers.collect::<Result<Vec<_>>>()?;
    let mut rooms = vec![[0; EVENT]; count];
    let mut requests = Vec::with_capacity(count);
    for ((room, fifo), number) in rooms.iter_mut().zip(&layout.fifo_of).zip(0..) {
        let fifo = readers.get(*fifo).context("there are too few FIFOs")?;
        requests.push(Iocb::read(fifo, room).data(number));
    }
    let before = slab()?;
    let mut submitted = 0;
    while let Some(rest) = requests
        .get_mut(submitted..)
        .filter(|rest| !rest.is_empty())
    {
        submitted += context.submit_all(rest).context("io_submit")?;
    }
    let memory = slab()?.saturating_sub(before);
    let events = |_: usize| {
        let event = context.event()?;
        ensure!(
            usize::try_from(event.res) == Ok(EVENT),
            "a read gave {}",
            event.res
        );
        let number = usize::try_from(event.data)?;
        Ok(Some(number))
    };
    let again = |number: Option<usize>| {
        let request = number.and_then(|number| requests.get_mut(number));
        let request = request.context("an event of no request")?;
        context.submit(request).context("io_submit")
    };
    let expected = vec![1; layout.active];
    let measured = cause(paths, writers, &expected, time, events, again)?;
    Ok(with_memory(measured, memory, count))
}

/// Descriptors in an epoll.
fn pollers(
    paths: &[String],
    writers: &[Fifo],
    layout: &Layout,
    time: Duration,
) -> Result<Measured> {
    let before = slab()?;
    let files = layout.open(paths)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (file, number) in files.iter().zip(0..) {
        epoll.add(file, EpollEvent::new(EpollFlags::EPOLLIN, number))?;
    }
    let memory = slab()?.saturating_sub(before);
    let mut ready = vec![EpollEvent::empty(); files.len()];
    let events = |expected: usize| {
        let mut come = 0;
        while come < expected {
            // Level-triggered: what was reported and not read is reported again, at the end.
            come = epoll.wait(&mut ready, EpollTimeout::NONE)?;
        }
        Ok(None)
    };
    let expected: Vec<usize> = (0..layout.active).map(|fifo| layout.on(fifo)).collect();
    let measured = cause(paths, writers, &expected, time, events, |_| Ok(()))?;
    Ok(with_memory(measured, memory, files.len()))
}

/// Descriptors with O_ASYNC.
fn owners(
    paths: &[String],
    writers: &[Fifo],
    layout: &Layout,
    signal: i32,
    time: Duration,
) -> Result<Measured> {
    signals::block(signal)?;
    let before = slab()?;
    let files = layout.open(paths)?;
    for file in &files {
        file.enable_signals((signal != libc::SIGIO).then_some(signal))?;
    }
    let memory = slab()?.saturating_sub(before);
    let events = |expected: usize| {
        for _ in 0..expected {
            signals::take(signal, SOON)?.context("a signal did not come")?;
        }
        Ok(None)
    };
    let expected: Vec<usize> = (0..layout.active).map(|fifo| layout.on(fifo)).collect();
    let measured = cause(paths, writers, &expected, time, events, |_| Ok(()))?;
    Ok(with_memory(measured, memory, files.len()))
}

/// Writes to one FIFO after another; each time `events` waits for what is expected, which is measured, and `again` restores what waited.
fn cause(
    paths: &[String],
    writers: &[Fifo],
    expected: &[usize],
    time: Duration,
    mut events: impl FnMut(usize) -> Result<Option<usize>>,
    mut again: impl FnMut(Option<usize>) -> Result<()>,
) -> Result<Measured> {
    let mut latencies = Latencies::new()?;
    let mut turns = 0;
    let mut notifications = 0;
    let meter = Meter::begin(paths.first().map(String::as_str))?;
    while meter.elapsed() < time || turns <= WARM_UP {
        for (fifo, expected) in writers.iter().zip(expected) {
            let started = Instant::now();
            fifo.write_all(&[0; EVENT])?;
            let done = events(*expected)?;
            let took = started.elapsed();
            turns += 1;
            if turns > WARM_UP {
                latencies.add(took / u32::try_from(*expected)?.max(1))?;
                notifications += *expected as u64;
            }
            // An asynchronous read has taken it.
            if done.is_none() {
                ensure!(!fifo.drain()?.is_empty(), "an event had no bytes");
            }
            again(done)?;
        }
    }
    let mut measured = meter.end()?;
    measured.operations = notifications;
    latencies.put(&mut measured);
    Ok(measured)
}

#[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below")]
fn with_memory(measured: Measured, memory: u64, count: usize) -> Measured {
    Measured {
        // Other objects come and go too: few waiters tell nothing.
        waiter_bytes: (count >= MANY).then(|| memory as f64 / count as f64),
        ..measured
    }
}

fn allow_descriptors(count: usize) -> Result<()> {
    let wanted = u64::try_from(count + SPARE)?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted))
            .context("raising the limit of open files")?;
    }
    Ok(())
}
