// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Figure 9.2: who calls whom when a program asks for SIGIO and gets it, from the kernel's trace.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use nix::libc::{self, O_NONBLOCK, c_int};

use super::Desk;
use super::clock::Deadline;
use super::sequence::{Part, Sequence, Step};
use super::show::{holds, say};
use super::stacks::Stacks;
use crate::fifo::Fifo;
use crate::system;
use crate::trace::{Event, Trace, now_micros};

/// Columns of the figure.
const APP: usize = 0;
const KERNEL: usize = 1;
const DRIVER: usize = 2;
const DEVICE: usize = 3;

/// When the handler ran.
static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_sigio(_: c_int) {
    HANDLED.store(now_micros().unwrap_or(1), Ordering::Relaxed);
}

/// Tracepoints of the driver.
const DRIVERS: &[&str] = &[
    "globalfifo/globalfifo_fasync",
    "globalfifo/globalfifo_send",
    "globalfifo/globalfifo_signal",
];

/// System calls to be traced.
const CALLS: &[&str] = &[
    "syscalls/sys_enter_fcntl",
    "syscalls/sys_enter_write",
    "syscalls/sys_enter_read",
    "syscalls/sys_exit_read",
    "syscalls/sys_enter_close",
    "syscalls/sys_exit_close",
    "syscalls/sys_enter_rt_sigreturn",
];

/// What the trace must have: an event, and text in it.
struct Expected {
    event: &'static str,
    text: &'static str,
    from: usize,
    to: usize,
    what: &'static str,
    /// A function of the driver that must be on the event's stack: what its symbol has in it, and
    /// what it is. The kernel called it just before.
    via: Option<(&'static [&'static str], &'static str)>,
}

const fn step(
    event: &'static str,
    text: &'static str,
    from: usize,
    to: usize,
    what: &'static str,
) -> Expected {
    Expected {
        event,
        text,
        from,
        to,
        what,
        via: None,
    }
}

impl Expected {
    const fn via(mut self, parts: &'static [&'static str], what: &'static str) -> Self {
        self.via = Some((parts, what));
        self
    }
}

const FASYNC: &[&str] = &["10operations", "10Operations", "6fasync"];
const WRITE_ITER: &[&str] = &["10operations", "10Operations", "10write_iter"];
const CALLBACK: &[&str] = &["globalfifo_main", "interrupt"];

const ASK: &[Expected] = &[
    step(
        "sys_fcntl",
        "cmd: 8",
        APP,
        KERNEL,
        "fcntl(fd, F_SETOWN, pid)",
    ),
    step(
        "sys_fcntl",
        "cmd: 4",
        APP,
        KERNEL,
        "fcntl(fd, F_SETFL, O_ASYNC)",
    ),
    step(
        "globalfifo_fasync",
        "on=1",
        DRIVER,
        KERNEL,
        "fasync_helper: on the list",
    )
    .via(FASYNC, "fasync(fd, file, 1)"),
];

const NOTIFY: &[Expected] = &[
    step("sys_write", "", APP, KERNEL, "write(fd, \"hello\", 5)"),
    step(
        "globalfifo_send",
        "messages=1",
        DRIVER,
        DEVICE,
        "virtqueue_kick: a message",
    )
    .via(WRITE_ITER, "write_iter"),
    step(
        "irq_handler_entry",
        "",
        DEVICE,
        KERNEL,
        "the interrupt: here it is back",
    ),
    step(
        "globalfifo_signal",
        "band=POLL_IN files=1",
        DRIVER,
        KERNEL,
        "kill_fasync(SIGIO, POLL_IN)",
    )
    .via(CALLBACK, "virtqueue callback"),
    step("signal_generate", "", KERNEL, KERNEL, "SIGIO is pending"),
    step(
        "signal_deliver",
        "",
        KERNEL,
        APP,
        "the signal handler runs …",
    ),
    step("handler", "", APP, APP, "… and notes the time"),
    step(
        "sys_rt_sigreturn",
        "",
        APP,
        KERNEL,
        "rt_sigreturn: back to work",
    ),
];

const READ: &[Expected] = &[
    step("sys_read", "", APP, KERNEL, "read(fd, buffer, 5)"),
    step(
        "sys_read -> 0x5",
        "",
        KERNEL,
        APP,
        "returns 5: the bytes were here",
    ),
];

const CLOSE: &[Expected] = &[
    step("sys_close", "", APP, KERNEL, "close(fd)"),
    step(
        "globalfifo_fasync",
        "on=0",
        DRIVER,
        KERNEL,
        "fasync_helper: off the list",
    )
    .via(FASYNC, "fasync(-1, file, 0)"),
    step(
        "sys_close -> 0x0",
        "",
        KERNEL,
        APP,
        "returns 0: the file is released",
    ),
];

const PARTS: [(&str, &[Expected]); 4] = [
    ("The application asks for signals", ASK),
    ("Data: write, interrupt, signal", NOTIFY),
    ("The application reads", READ),
    ("The last close", CLOSE),
];

/// What is traced: asks, writes, is signalled, reads, closes.
fn act() -> Result<()> {
    let fifo = Fifo::open(O_NONBLOCK)?;
    let handler = on_sigio as extern "C" fn(c_int);
    // SAFETY: The handler reads the clock and stores to an atomic.
    unsafe { libc::signal(libc::SIGIO, handler as libc::sighandler_t) };
    fifo.enable_signals(None)?;
    fifo.write(b"hello")?;
    let deadline = Deadline::soon()?;
    while HANDLED.load(Ordering::Relaxed) == 0 {
        deadline.check("SIGIO")?;
    }
    fifo.read(5)?;
    Ok(())
}

fn observe() -> Result<Vec<(Event, Vec<String>)>> {
    let pid = std::process::id();
    let (own, irq) = (
        format!("common_pid == {pid}"),
        format!("name == \"{}\"", system::device_name()?),
    );
    let sigio = format!("sig == {}", libc::SIGIO);
    let mut wanted: Vec<(&str, &str)> = DRIVERS.iter().map(|event| (*event, "")).collect();
    for call in CALLS {
        wanted.push((call, &own));
    }
    wanted.push(("irq/irq_handler_entry", &irq));
    wanted.push(("signal/signal_generate", &sigio));
    wanted.push(("signal/signal_deliver", &sigio));
    let stacks = Stacks::record()?;
    let trace = Trace::start(&wanted)?;
    let acted = act();
    let events = stacks.take(&trace);
    drop(trace);
    acted?;
    let mut events = events?;
    let handled = Event {
        pid: 0,
        micros: HANDLED.load(Ordering::Relaxed),
        name: "handler".into(),
        text: String::new(),
    };
    // After those of the same microsecond: the trace is what comes first.
    let place = events.partition_point(|(event, _)| event.micros <= handled.micros);
    events.insert(place, (handled, Vec::new()));
    Ok(events)
}

/// The steps, in order, if they are all there.
fn arrange(events: &[(Event, Vec<String>)]) -> Result<Vec<Part>> {
    let mut rest = events.iter();
    let (mut parts, mut start) = (Vec::new(), None);
    for (title, expected) in PARTS {
        let mut steps = Vec::new();
        for Expected {
            event: name,
            text,
            from,
            to,
            what,
            via,
        } in expected
        {
            let (event, stack) = rest
                .by_ref()
                .find(|(event, _)| event.name == *name && event.text.contains(text))
                .with_context(|| format!("not in the trace, or not in order: {what} ({name})"))?;
            if let Some((parts, what)) = via {
                let called = |symbol: &String| parts.iter().all(|part| symbol.contains(part));
                if !stack.iter().any(called) {
                    bail!("{name} was not called from the driver's {what}: {stack:?}");
                }
                steps.push(Step {
                    at: None,
                    from: KERNEL,
                    to: DRIVER,
                    text: (*what).to_owned(),
                });
            }
            let start = *start.get_or_insert(event.micros);
            let at = event.micros.saturating_sub(start);
            steps.push(Step {
                at: Some(at),
                from: *from,
                to: *to,
                text: (*what).to_owned(),
            });
        }
        parts.push(Part { title, steps });
    }
    Ok(parts)
}

pub(super) fn run(desk: &Desk) -> Result<()> {
    let parts = arrange(&observe()?)?;
    let count: usize = parts.iter().map(|part| part.steps.len()).sum();
    let columns = [
        ("application", "user"),
        ("kernel", "kernel"),
        ("globalfifo.ko", "driver"),
        ("device", "device"),
    ];
    Sequence {
        id: "figure-9.2",
        title: "From fcntl to the signal handler, and back to close",
        columns,
        parts,
    }
    .draw(desk)?;
    say!("");
    let expected = PARTS.iter().flat_map(|(_, steps)| steps.iter());
    let expected: usize = expected
        .map(|step| 1 + usize::from(step.via.is_some()))
        .sum();
    holds!(
        count == expected,
        "{count} steps: those with a time are in the kernel's trace, in this order, and the driver's \
         functions on the stacks of the events that follow them"
    );
    Ok(())
}
