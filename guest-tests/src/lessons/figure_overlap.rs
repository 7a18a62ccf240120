// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Figure 9.3: computation and I/O one after the other, and overlapped by asynchronous requests.

use std::sync::mpsc::{Sender, channel};

use anyhow::{Context as _, Result};
use nix::libc::O_NONBLOCK;

use super::Desk;
use super::clock::{compute, millis, sleep_until};
use super::figure::{Figure, Kind, Lane, Mark, Span};
use super::show::{holds, say};
use crate::aio::{Context, Iocb};
use crate::fifo::{Fifo, PATH};
use crate::system;
use crate::trace::{Trace, now_micros};

const BLOCKS: usize = 4;
const SIZE: usize = 64;
/// How long the source takes for a block, and the computation on it, in microseconds.
const FETCHING: u64 = 10_000;
const COMPUTING: u64 = 10_000;
/// A machine that is busy with other things may spoil a run.
const ATTEMPTS: usize = 3;

const WORK: Kind = Kind {
    label: "computing on a block",
    glyph: '#',
    class: "work",
};
const SLEEP: Kind = Kind {
    label: "waiting for a block",
    glyph: '.',
    class: "sleep",
};
const FLIGHT: Kind = Kind {
    label: "request under way",
    glyph: '=',
    class: "flight",
};
const IRQ: Kind = Kind {
    label: "the device's interrupt",
    glyph: '|',
    class: "irq",
};

/// One way of doing it, in time stamps.
#[derive(Default)]
struct Way {
    cpu: Vec<Span>,
    io: Vec<Span>,
    interrupts: Vec<Mark>,
    start: u64,
    end: u64,
}

impl Way {
    fn total(&self) -> u64 {
        self.end - self.start
    }

    /// How long it computed while a request was under way.
    fn overlap(&self) -> u64 {
        let computing = self.cpu.iter().filter(|span| span.kind == WORK);
        computing
            .flat_map(|work| self.io.iter().map(move |io| (work, io)))
            .map(|(work, io)| work.to.min(io.to).saturating_sub(work.from.max(io.from)))
            .sum()
    }
}

/// A slow source: for each request, a block into the FIFO after a while. It ends with the sender.
fn source() -> Result<Sender<()>> {
    let fifo = Fifo::open_as(PATH, false, true, O_NONBLOCK)?;
    let (ask, asked) = channel::<()>();
    std::thread::spawn(move || {
        for number in 0u8.. {
            if asked.recv().is_err() {
                break;
            }
            let Ok(now) = now_micros() else { break };
            let slept = sleep_until(now + FETCHING);
            if slept.is_err() || fifo.write(&[number; SIZE]).is_err() {
                break;
            }
        }
    });
    Ok(ask)
}

fn one_after_the_other(fifo: &Fifo, ask: &Sender<()>) -> Result<Way> {
    let mut way = Way {
        start: now_micros()?,
        ..Way::default()
    };
    for number in 0..BLOCKS {
        let from = now_micros()?;
        ask.send(()).context("the source has ended")?;
        let block = fifo.read(SIZE)?;
        let to = now_micros()?;
        anyhow::ensure!(
            block == [u8::try_from(number)?; SIZE],
            "block {number} is {block:?}"
        );
        way.io.push(Span {
            from,
            to,
            kind: FLIGHT,
        });
        way.cpu.push(Span {
            from,
            to,
            kind: SLEEP,
        });
        let (from, to) = compute(COMPUTING)?;
        way.cpu.push(Span {
            from,
            to,
            kind: WORK,
        });
    }
    way.end = now_micros()?;
    Ok(way)
}

fn overlapped(fifo: &Fifo, ask: &Sender<()>) -> Result<Way> {
    let context = Context::new(8)?;
    let mut rooms = [[0u8; SIZE]; BLOCKS];
    let mut reads: Vec<Iocb> = rooms
        .iter_mut()
        .map(|room| Iocb::read(fifo, room))
        .collect();
    let mut way = Way {
        start: now_micros()?,
        ..Way::default()
    };
    let mut submitted = Vec::new();
    let mut reads = reads.iter_mut();
    let mut submit = || -> Result<()> {
        if let Some(read) = reads.next() {
            submitted.push(now_micros()?);
            context.submit(read)?;
            ask.send(()).context("the source has ended")?;
        }
        Ok(())
    };
    submit()?;
    for number in 0..BLOCKS {
        let from = now_micros()?;
        let event = context.event()?;
        let to = now_micros()?;
        anyhow::ensure!(
            event.res == i64::try_from(SIZE)?,
            "block {number}: {}",
            event.res
        );
        way.cpu.push(Span {
            from,
            to,
            kind: SLEEP,
        });
        submit()?;
        let (from, to) = compute(COMPUTING)?;
        way.cpu.push(Span {
            from,
            to,
            kind: WORK,
        });
    }
    way.end = now_micros()?;
    way.io = submitted
        .into_iter()
        .map(|from| Span {
            from,
            to: from,
            kind: FLIGHT,
        })
        .collect();
    for (number, room) in rooms.iter().enumerate() {
        anyhow::ensure!(
            *room == [u8::try_from(number)?; SIZE],
            "block {number} is {room:?}"
        );
    }
    Ok(way)
}

/// Runs one way under the kernel's eyes: interrupts, and when requests were completed.
fn observe(run: fn(&Fifo, &Sender<()>) -> Result<Way>) -> Result<Way> {
    let fifo = Fifo::open_as(PATH, true, false, 0)?;
    let ask = source()?;
    let irq = format!("name == \"{}\"", system::device_name()?);
    let trace = Trace::start(&[
        ("irq/irq_handler_entry", &irq),
        ("globalfifo/globalfifo_request_complete", ""),
    ])?;
    let way = run(&fifo, &ask);
    let events = trace.events()?;
    drop(trace);
    let mut way = way?;
    let within = |at: u64| (way.start..=way.end).contains(&at);
    let times = |name: &'static str| {
        events
            .iter()
            .filter(move |e| e.name == name)
            .map(|e| e.micros)
    };
    way.interrupts = times("irq_handler_entry")
        .filter(|at| within(*at))
        .map(|at| Mark { at, kind: IRQ })
        .collect();
    for (span, at) in way
        .io
        .iter_mut()
        .filter(|span| span.from == span.to)
        .zip(times("globalfifo_request_complete"))
    {
        span.to = at;
    }
    Ok(way)
}

fn lanes(way: Way, name: &str) -> [Lane; 2] {
    let start = way.start;
    let shift = |spans: Vec<Span>| -> Vec<Span> {
        let relative = |at: u64| at.saturating_sub(start);
        spans
            .into_iter()
            .map(|s| Span {
                from: relative(s.from),
                to: relative(s.to),
                ..s
            })
            .collect()
    };
    let total = format!("{} in all", millis(way.total()));
    let marks = way.interrupts.into_iter().map(|mark| Mark {
        at: mark.at - start,
        ..mark
    });
    [
        Lane {
            name: format!("{name}: program"),
            note: total,
            spans: shift(way.cpu),
            marks: Vec::new(),
        },
        Lane {
            name: format!("{name}: I/O"),
            note: String::new(),
            spans: shift(way.io),
            marks: marks.collect(),
        },
    ]
}

pub(super) fn run(desk: &Desk) -> Result<()> {
    // Once without looking: the first time takes longer.
    observe(overlapped)?;
    let mut attempt = 1;
    let (calls, requests) = loop {
        let calls = observe(one_after_the_other)?;
        let requests = observe(overlapped)?;
        let clear = requests.total() < calls.total()
            && 2 * requests.overlap() > requests.io.len() as u64 * FETCHING / 2;
        if clear || attempt == ATTEMPTS {
            break (calls, requests);
        }
        say!("(the machine was busy with something else; once more)");
        attempt += 1;
    };
    let (total, overlap) = (
        [calls.total(), requests.total()],
        [calls.overlap(), requests.overlap()],
    );
    let completed = requests.io.iter().all(|span| span.to > span.from);
    let mut all: Vec<Lane> = lanes(calls, "read()").into();
    all.extend(lanes(requests, "AIO"));
    Figure {
        id: "figure-9.3",
        title: "Four blocks: read() and compute, or AIO while computing",
        lanes: all,
    }
    .draw(desk)?;
    say!("");
    say!(
        "  {BLOCKS} blocks, {} to fetch and {} to compute on each",
        millis(FETCHING),
        millis(COMPUTING)
    );
    say!(
        "  read(): {} in all, {} of computing while I/O is under way",
        millis(total[0]),
        millis(overlap[0])
    );
    say!(
        "  AIO:    {} in all, {} of computing while I/O is under way",
        millis(total[1]),
        millis(overlap[1])
    );
    say!("");
    holds!(
        completed,
        "the kernel's trace has the completion of each request"
    );
    holds!(overlap[0] == 0, "with read() nothing overlaps");
    holds!(
        overlap[1] > FETCHING,
        "with AIO {} of I/O cost no time",
        millis(overlap[1])
    );
    holds!(
        total[1] < total[0],
        "AIO took {} % of read()'s time",
        total[1] * 100 / total[0]
    );
    Ok(())
}
