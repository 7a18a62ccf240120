// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The demonstration: an interrupt of the device becomes a signal in a program, and the completion of
//! an asynchronous read, with the time of each step taken from the kernel's own trace. What it shows,
//! it checks.

use std::fs;
use std::io::{BufRead, BufReader, Write, stdout};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use globalfifo_guest_tests::fifo::Fifo;
use globalfifo_guest_tests::harness::{SOON, eventually};
use globalfifo_guest_tests::trace::{Event, Trace, now_micros};
use globalfifo_guest_tests::{aio, system};
use nix::libc::{O_NONBLOCK, SIGIO};

const PATH: &str = "/dev/globalfifo";
const STAMPS: &str = "/run/globalfifo-demo-stamps";

/// The chapter's monitor, running.
struct Monitor {
    child: Child,
    lines: Receiver<String>,
}

impl Monitor {
    fn start() -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name("monitor");
        let _ = fs::remove_file(STAMPS);
        let mut child = Command::new(&program)
            .args([PATH, STAMPS])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let (send, lines) = channel();
        let out = child.stdout.take().context("no pipe")?;
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        // It says so once it is ready to be signalled.
        let mut ready = String::new();
        BufReader::new(child.stderr.take().context("no pipe")?).read_line(&mut ready)?;
        if !ready.starts_with("monitoring") {
            bail!("the monitor did not start: {}", ready.trim());
        }
        Ok(Self { child, lines })
    }

    fn next_line(&self) -> Result<String> {
        self.lines
            .recv_timeout(SOON)
            .context("the monitor received no signal")
    }

    /// When its handler ran, each time, in microseconds.
    fn stamps() -> Result<Vec<u64>> {
        let text = fs::read_to_string(STAMPS)?;
        let stamps = text.lines().map(|line| Ok(line.parse::<u64>()? / 1000));
        stamps.collect()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(STAMPS);
    }
}

fn say(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

fn find(events: &[Event], what: &str, wanted: impl Fn(&Event) -> bool) -> Result<u64> {
    let event = events.iter().find(|event| wanted(event));
    Ok(event
        .with_context(|| format!("not in the trace: {what}"))?
        .micros)
}

/// Writes `word` with a shell's echo and shows its way into the monitor's handler.
fn echo(word: &str, device: &str, monitor: &Monitor, nth: usize) -> Result<()> {
    say(&format!("\n$ echo {word} > {PATH}"))?;
    let trace = Trace::start(&[
        ("syscalls/sys_enter_write", "fd == 1"),
        ("irq/irq_handler_entry", &format!("name == \"{device}\"")),
        ("globalfifo/globalfifo_send", ""),
        ("globalfifo/globalfifo_receive", ""),
        ("globalfifo/globalfifo_signal", ""),
    ])?;
    let mut shell = Command::new("sh")
        .args(["-c", &format!("echo {word} > {PATH}")])
        .spawn()?;
    let pid = i32::try_from(shell.id())?;
    if !shell.wait()?.success() {
        bail!("echo failed");
    }
    let line = monitor.next_line()?;
    say(&format!("  {line}"))?;
    if line != format!("receive a signal from globalfifo,signalnum:{SIGIO}") {
        bail!("that is not what the monitor should say");
    }
    eventually("the handler's time stamp", || {
        Ok(Monitor::stamps()?.len() > nth)
    })?;
    let handler = *Monitor::stamps()?.get(nth).context("no time stamp")?;
    let events = trace.events()?;
    drop(trace);

    let write = find(&events, "the write", |e| {
        e.pid == pid && e.name.starts_with("sys_")
    })?;
    let after = |e: &Event, name: &str| e.micros >= write && e.name == name;
    let interrupt = find(&events, "the interrupt", |e| after(e, "irq_handler_entry"))?;
    let send = find(&events, "the message", |e| after(e, "globalfifo_send"))?;
    let receive = find(&events, "its way back", |e| after(e, "globalfifo_receive"))?;
    let signal = find(&events, "the signal", |e| after(e, "globalfifo_signal"))?;
    let length = word.len() + 1;
    show(&[
        (write, format!("write      the shell writes {length} bytes")),
        (
            send,
            "send       the driver has put a message into the virtqueue, and notifies the device"
                .to_owned(),
        ),
        (
            interrupt,
            format!("interrupt  {device}: the device has data for the driver"),
        ),
        (
            receive,
            "receive    the driver takes the message: there is data to read".to_owned(),
        ),
        (
            signal,
            "signal     the driver calls kill_fasync: SIGIO, POLL_IN".to_owned(),
        ),
        (
            handler,
            "handler    the monitor's signal handler runs".to_owned(),
        ),
    ])
}

/// Prints steps with their times, and fails unless they came in this order.
fn show(steps: &[(u64, String)]) -> Result<()> {
    let start = steps.first().map_or(0, |(micros, _)| *micros);
    for (micros, step) in steps {
        let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
        let since = micros.saturating_sub(start);
        say(&format!(
            "  {seconds:>5}.{fraction:06} s  {since:>+6} µs  {step}"
        ))?;
    }
    if !steps.is_sorted_by_key(|(micros, _)| *micros) {
        bail!("the steps are out of order");
    }
    Ok(())
}

/// Asks for data before there is any, and shows how the interrupt brings the answer.
fn asynchronous_read(device: &str) -> Result<()> {
    say("\nan asynchronous read: io_submit now, the data later")?;
    let fifo = Fifo::open_at(PATH, 0)?;
    let context = aio::Context::new(1)?;
    let by_interrupt = system::counter(0, "aio_by_interrupt")?;
    let mut room = [0; 64];
    let mut request = aio::Iocb::read(&fifo, &mut room);
    let filter = format!("name == \"{device}\"");
    let trace = Trace::start(&[
        ("syscalls/sys_enter_write", "fd == 1"),
        ("irq/irq_handler_entry", &filter),
    ])?;
    context.submit(&mut request).context("io_submit")?;
    let submitted = now_micros()?;
    if !context.events(0, 1, Duration::ZERO)?.is_empty() {
        bail!("the read was done before there was data");
    }
    let mut shell = Command::new("sh")
        .args(["-c", &format!("echo later > {PATH}")])
        .spawn()?;
    let pid = i32::try_from(shell.id())?;
    let event = context.event()?;
    let completed = now_micros()?;
    shell.wait()?;
    let events = trace.events()?;
    drop(trace);

    let write = find(&events, "the write", |e| {
        e.pid == pid && e.name.starts_with("sys_")
    })?;
    let after = |e: &Event| e.micros >= write && e.name == "irq_handler_entry";
    let interrupt = find(&events, "the interrupt", after)?;
    show(&[
        (
            submitted,
            "submit     io_submit has returned; the FIFO is empty, the request waits".to_owned(),
        ),
        (
            write,
            "write      echo later: 6 bytes go to the device".to_owned(),
        ),
        (
            interrupt,
            format!("interrupt  {device}: the device has data for the driver"),
        ),
        (
            completed,
            format!("complete   io_getevents: {} bytes", event.res),
        ),
    ])?;
    let bytes = room
        .get(..usize::try_from(event.res)?)
        .context("too many bytes")?;
    say(&format!("  {:?} was read", String::from_utf8_lossy(bytes)))?;
    if bytes != b"later\n" || system::counter(0, "aio_by_interrupt")? != by_interrupt + 1 {
        bail!("the interrupt did not complete the read");
    }
    Ok(())
}

fn run() -> Result<()> {
    let device = system::device_name()?;
    if !Path::new(PATH).exists() {
        bail!("{PATH} is missing: is the udev rule installed?");
    }
    let fifo = Fifo::open_at(PATH, O_NONBLOCK)?;
    fifo.clear()?;
    say(&format!(
        "{PATH}: a FIFO behind an interrupt, device {device}"
    ))?;
    let (before, line) = system::interrupts(&device)?;
    say(&format!("interrupts before: {line}"))?;

    let monitor = Monitor::start()?;
    echo("1", &device, &monitor, 0)?;
    echo("hello", &device, &monitor, 1)?;
    drop(monitor);

    say(&format!("\n$ cat {PATH}"))?;
    fifo.wait_level(8)?;
    let bytes = fifo.drain()?;
    say(&format!(
        "  {:?}, {} bytes read back",
        String::from_utf8_lossy(&bytes),
        bytes.len()
    ))?;
    if bytes != b"1\nhello\n" {
        bail!("these are not the bytes that were written");
    }
    asynchronous_read(&device)?;
    let (after, line) = system::interrupts(&device)?;
    say(&format!("\ninterrupts after:  {line}"))?;
    let count = after - before;
    if count < 3 {
        bail!("{count} interrupts for three writes");
    }
    say(&format!(
        "{count} interrupts, 2 signals, 1 asynchronous read: all arrived"
    ))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
