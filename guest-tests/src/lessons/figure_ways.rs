// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Figure 9.1: three ways to wait for data, on one time axis.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use nix::libc::{self, O_NONBLOCK, c_int};
use nix::poll::PollFlags;

use super::Desk;
use super::clock::{Deadline, compute, millis, sleep_until};
use super::figure::{Figure, Kind, Lane, Mark, Span};
use super::show::{holds, say};
use crate::fifo::{Fifo, PATH};
use crate::trace::now_micros;

/// When data is written, microseconds after the start.
const WRITES: [u64; 2] = [30_000, 65_000];
/// What is written each time.
const WORD: &[u8] = b"sixteen bytes...";
/// Work on what was read, in microseconds.
const HANDLING: u64 = 3_000;
/// Work between two questions.
const BETWEEN: u64 = 5_000;

const WORK: Kind = Kind {
    label: "work of its own",
    glyph: '#',
    class: "work",
};
const SLEEP: Kind = Kind {
    label: "asleep in read()",
    glyph: '.',
    class: "sleep",
};
const ASK: Kind = Kind {
    label: "poll(): is there data?",
    glyph: '?',
    class: "ask",
};
const HANDLE: Kind = Kind {
    label: "reading and using the data",
    glyph: '@',
    class: "handle",
};
const DATA: Kind = Kind {
    label: "data is written",
    glyph: 'v',
    class: "data",
};
const SIGNAL: Kind = Kind {
    label: "SIGIO",
    glyph: '|',
    class: "irq",
};

/// One program's doings.
#[derive(Default)]
struct Way {
    spans: Vec<Span>,
    /// When it had the data.
    got: Vec<u64>,
    asked: usize,
}

impl Way {
    fn add(&mut self, kind: Kind, from: u64, to: u64) {
        self.spans.push(Span { from, to, kind });
    }

    fn spent(&self, kind: Kind) -> u64 {
        self.spans
            .iter()
            .filter(|s| s.kind == kind)
            .map(|s| s.to.saturating_sub(s.from))
            .sum()
    }

    fn handle(&mut self, got: u64) -> Result<()> {
        self.got.push(got);
        let (_, to) = compute(HANDLING)?;
        self.add(HANDLE, got, to);
        Ok(())
    }
}

fn by_blocking(fifo: &Fifo, _: u64) -> Result<Way> {
    let mut way = Way::default();
    for _ in WRITES {
        let from = now_micros()?;
        fifo.read(WORD.len()).context("read")?;
        let got = now_micros()?;
        way.add(SLEEP, from, got);
        way.handle(got)?;
    }
    Ok(way)
}

fn by_asking(fifo: &Fifo, _: u64) -> Result<Way> {
    let mut way = Way::default();
    let deadline = Deadline::soon()?;
    while way.got.len() < WRITES.len() {
        deadline.check("two writes")?;
        let from = now_micros()?;
        let ready = fifo.events()?.contains(PollFlags::POLLIN);
        way.asked += 1;
        let to = now_micros()?;
        way.add(ASK, from, to);
        if ready {
            fifo.read(WORD.len()).context("read")?;
            way.handle(now_micros()?)?;
        } else {
            let (from, to) = compute(BETWEEN)?;
            way.add(WORK, from, to);
        }
    }
    Ok(way)
}

/// What the handler notes: it may not allocate or lock. Begin, data read, end, for each signal.
static NOTES: [[AtomicU64; 3]; 2] = [const { [const { AtomicU64::new(0) }; 3] }; 2];
static COUNT: AtomicUsize = AtomicUsize::new(0);
static DESCRIPTOR: AtomicUsize = AtomicUsize::new(0);

fn handler_clock() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: The timespec is valid; the call is allowed in a handler.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000 + now.tv_nsec.cast_unsigned() / 1000
}

/// Reads until there is no more: several writes may come as one signal.
extern "C" fn on_sigio(_: c_int) {
    let mut begin = handler_clock();
    let mut room = [0u8; WORD.len()];
    let fd = c_int::try_from(DESCRIPTOR.load(Ordering::Relaxed)).unwrap_or(-1);
    let mut count = COUNT.load(Ordering::Relaxed);
    // SAFETY: There is room for that many bytes; the call is allowed in a handler.
    while unsafe { libc::read(fd, room.as_mut_ptr().cast(), room.len()) } > 0 {
        let read = handler_clock();
        let Some([at_begin, at_read, at_end]) = NOTES.get(count) else {
            return;
        };
        while handler_clock() < read + HANDLING {}
        at_begin.store(begin, Ordering::Relaxed);
        at_read.store(read, Ordering::Relaxed);
        begin = handler_clock();
        at_end.store(begin, Ordering::Relaxed);
        count += 1;
    }
    COUNT.store(count, Ordering::Relaxed);
}

fn ask_for_signals(fifo: &Fifo) -> Result<()> {
    DESCRIPTOR.store(usize::try_from(fifo.fd())?, Ordering::Relaxed);
    let handler = on_sigio as extern "C" fn(c_int);
    // SAFETY: The handler calls only what signal-safety(7) allows.
    unsafe { libc::signal(libc::SIGIO, handler as libc::sighandler_t) };
    fifo.enable_signals(None)
}

fn by_signal(fifo: &Fifo, start: u64) -> Result<Way> {
    let mut way = Way::default();
    let deadline = Deadline::soon()?;
    let mut from = now_micros()?.max(start);
    while COUNT.load(Ordering::Relaxed) < WRITES.len() {
        deadline.check("two signals")?;
        compute(100)?;
    }
    fifo.set_flags(libc::O_ASYNC, false)?;
    for note in &NOTES {
        let [begin, read, end] = note.each_ref().map(|at| at.load(Ordering::Relaxed));
        way.add(WORK, from, begin);
        way.add(HANDLE, begin, end);
        way.got.push(read);
        from = end;
    }
    Ok(way)
}

/// Writes at its times, from a thread that takes no SIGIO; when it did.
fn writer(start: u64) -> JoinHandle<Result<Vec<u64>>> {
    std::thread::spawn(move || {
        crate::signals::block_sigio()?;
        let fifo = Fifo::open_as(PATH, false, true, O_NONBLOCK)?;
        let mut times = Vec::new();
        for after in WRITES {
            sleep_until(start + after)?;
            times.push(now_micros()?);
            fifo.write(WORD)?;
        }
        Ok(times)
    })
}

/// First times take longer.
fn warm_up() -> Result<()> {
    let fifo = Fifo::open(O_NONBLOCK)?;
    fifo.write_all(b"x")?;
    fifo.wait_level(1)?;
    fifo.events()?;
    fifo.drain().map(drop)
}

/// Name, what it does with its time, flags to open with, and how it waits.
type Program = (
    &'static str,
    &'static str,
    i32,
    fn(&Fifo, u64) -> Result<Way>,
);

const PROGRAMS: [Program; 3] = [
    ("blocking", "read() sleeps", 0, by_blocking),
    ("poll", "asks every 5 ms", O_NONBLOCK, by_asking),
    ("SIGIO", "is told", O_NONBLOCK, by_signal),
];

pub(super) fn run(desk: &Desk) -> Result<()> {
    let (mut lanes, mut results) = (Vec::new(), Vec::new());
    for (name, note, flags, wait) in PROGRAMS {
        let fifo = Fifo::open_as(PATH, true, false, flags)?;
        warm_up()?;
        if name == "SIGIO" {
            ask_for_signals(&fifo)?;
        }
        // Ahead of now: a thread takes a while to begin.
        let start = now_micros()? + 20_000;
        let writer = writer(start);
        sleep_until(start)?;
        let mut way = wait(&fifo, start)?;
        let end = now_micros()?;
        let written = writer
            .join()
            .map_err(|_| anyhow!("the writer panicked"))??;
        if let Some(last) = way.spans.last().map(|span| span.to) {
            // A last piece, so that all lanes end in the same way.
            if end > last && name == "SIGIO" {
                way.add(WORK, last, end);
            }
        }
        let relative = |at: u64| at.saturating_sub(start);
        let delays: Vec<u64> = way
            .got
            .iter()
            .zip(&written)
            .map(|(got, at)| got.saturating_sub(*at))
            .collect();
        let mut marks: Vec<Mark> = written
            .iter()
            .map(|at| Mark {
                at: relative(*at),
                kind: DATA,
            })
            .collect();
        if name == "SIGIO" {
            let handled = way.spans.iter().filter(|span| span.kind == HANDLE);
            marks.extend(handled.map(|span| Mark {
                at: relative(span.from),
                kind: SIGNAL,
            }));
        }
        results.push((name, way.spent(WORK), way.asked, delays));
        let spans = way.spans.into_iter().map(|span| Span {
            from: relative(span.from),
            to: relative(span.to),
            ..span
        });
        lanes.push(Lane {
            name: name.into(),
            note: note.into(),
            spans: spans.collect(),
            marks,
        });
    }
    Figure {
        id: "figure-9.1",
        title: "Three ways to wait for the same two writes",
        lanes,
    }
    .draw(desk)?;
    say!("");
    say!("  way        own work      questions   from write to data read");
    for (name, work, asked, delays) in &results {
        let delays: Vec<String> = delays.iter().map(|delay| millis(*delay)).collect();
        say!(
            "  {name:<9}  {:>10}  {asked:>10}   {}",
            millis(*work),
            delays.join(", ")
        );
    }
    say!("");
    let [blocking, poll, signal] = &results[..] else {
        return Err(anyhow!("not three ways"));
    };
    holds!(
        blocking.1 == 0 && blocking.2 == 0,
        "the sleeper did no work and asked no questions"
    );
    holds!(
        poll.2 > WRITES.len(),
        "the poller asked {} times for {} answers",
        poll.2,
        WRITES.len()
    );
    holds!(
        signal.2 == 0 && signal.1 > 40_000,
        "the signalled one asked nothing and worked for {}",
        millis(signal.1)
    );
    holds!(
        results
            .iter()
            .all(|(.., delays)| delays.len() == WRITES.len()),
        "each had both pieces of data"
    );
    Ok(())
}
