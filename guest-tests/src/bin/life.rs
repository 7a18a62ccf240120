// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `life KIND [CYCLES]`: one event in the life of a machine, 1,000 times where nothing is said. Before each, bytes are put
//! into a FIFO and a third of them is read; afterwards the rest comes once and in order, and a read that waits is woken.
//! The kernel's memory is compared as `cycles` does. Fails if a byte was lost or something was left behind.
//!
//! KIND is `unplug` (the PCI function is removed and found again), `cpu` (the second CPU goes off and on), `suspend` (to
//! idle; without the sleep where the kernel has a test of that) or `pages` (memory is compacted and caches are dropped).

use std::env;
use std::io::{Write as _, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use globalfifo_guest_tests::cycles::Figures;
use globalfifo_guest_tests::fifo::{Fifo, PATH, pattern};
use globalfifo_guest_tests::harness::{SOON, limit};
use globalfifo_guest_tests::{suspend, system};
use nix::errno::Errno;
use nix::libc::O_NONBLOCK;

const CYCLES: u64 = 1000;
/// Cycles before memory is looked at for the first time: what is made once is there then.
const WARM_UP: u64 = 5;
/// Most bytes that are unread at an event.
const MOST: u64 = 3000;
const CPU: &str = "/sys/devices/system/cpu/cpu1/online";
/// How far a suspend goes: all devices are suspended, and the machine does not sleep.
const PM_TEST: &str = "/sys/power/pm_test";
const PM_TEST_DELAY: &str = "/sys/module/suspend/parameters/pm_test_delay";
const USAGE: &str = "usage: life unplug|cpu|suspend|pages [CYCLES]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "life: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// An event, and whether open files outlive it.
struct Kind {
    name: &'static str,
    event: fn() -> Result<()>,
    files_stay: bool,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "unplug",
        event: unplug,
        files_stay: false,
    },
    Kind {
        name: "cpu",
        event: cpu,
        files_stay: true,
    },
    Kind {
        name: "suspend",
        event: suspend,
        files_stay: true,
    },
    Kind {
        name: "pages",
        event: pages,
        files_stay: true,
    },
];

fn run() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let (name, cycles) = match words.as_slice() {
        [name] => (name, CYCLES),
        [name, cycles] => (name, cycles.parse().context(USAGE)?),
        _ => bail!(USAGE),
    };
    let kind = KINDS.iter().find(|kind| kind.name == name).context(USAGE)?;
    drop(Fifo::open_empty(0)?);
    for cycle in 0..WARM_UP {
        once(kind, cycle)?;
    }
    let before = Figures::settled()?;
    let started = Instant::now();
    let mut bytes = 0;
    for cycle in 0..cycles {
        bytes += once(kind, cycle).with_context(|| format!("cycle {cycle}"))?;
        if (cycle + 1) % 100 == 0 {
            writeln!(
                stdout(),
                "{} cycles in {} s",
                cycle + 1,
                started.elapsed().as_secs()
            )?;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let after = Figures::settled()?;
    writeln!(
        stdout(),
        "{name}: {cycles} cycles in {seconds:.0} s; {bytes} bytes were unread at one, and each came once and in order"
    )?;
    before.grown_to(&after, cycles)
}

/// Bytes that were unread.
fn once(kind: &Kind, cycle: u64) -> Result<u64> {
    let sent = pattern(cycle, usize::try_from(1 + cycle * 7919 % MOST)?);
    let fifo = Fifo::open(O_NONBLOCK)?;
    fifo.write_all(&sent)?;
    fifo.wait_level(sent.len())?;
    let kept = sent.len() / 3;
    let mut came = fifo.read_exact(kept)?;
    (kind.event)()?;
    let fifo = if kind.files_stay {
        fifo
    } else {
        ensure!(
            fifo.read(1) == Err(Errno::ENODEV),
            "an old file still works"
        );
        drop(fifo);
        Fifo::open(O_NONBLOCK)?
    };
    fifo.wait_level(sent.len() - kept)?;
    came.extend(fifo.read_exact(sent.len() - kept)?);
    ensure!(came == sent, "the bytes are others");
    ensure!(
        fifo.read(1) == Err(Errno::EAGAIN),
        "there are more bytes than were written"
    );
    woken()?;
    Ok(u64::try_from(sent.len() - kept)?)
}

/// A read that waits is woken: the device still interrupts.
fn woken() -> Result<()> {
    let (say, hear) = mpsc::channel();
    let reading = thread::spawn(move || {
        let fifo = Fifo::open(0);
        let _ = say.send(fifo.and_then(|fifo| fifo.read_exact(5)));
    });
    Fifo::open(0)?.write_all(b"after")?;
    let read = hear.recv_timeout(limit(SOON));
    ensure!(
        read.context("the read does not return")?? == b"after",
        "other bytes were read"
    );
    reading
        .join()
        .map_err(|_| anyhow::anyhow!("the reader panicked"))
}

fn unplug() -> Result<()> {
    system::unplug(&system::device_name()?)?;
    system::rescan()?;
    system::wait_for_file(PATH, true)
}

fn cpu() -> Result<()> {
    ensure!(
        Path::new(CPU).exists(),
        "one CPU cannot be switched off: cargo lab run --smp 2 -- life cpu"
    );
    system::write(CPU, "0")?;
    system::write(CPU, "1")
}

/// By the kernel's own test of it, which leaves out the sleep, where it has that; else all of it, seconds each time. A root on virtiofs refuses
/// after other devices have been suspended, which is an event as well.
fn suspend() -> Result<()> {
    if !Path::new(PM_TEST).exists() {
        return suspend::suspend();
    }
    system::write(PM_TEST_DELAY, "0")?;
    system::write(PM_TEST, "devices")?;
    let suspended = suspend::suspend();
    system::write(PM_TEST, "none")?;
    suspended
}

fn pages() -> Result<()> {
    system::write("/proc/sys/vm/compact_memory", "1")?;
    system::drop_caches()
}
