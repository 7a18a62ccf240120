// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device and the driver come and go: unbind, unplug of the module, and what becomes of open
//! files, blocked calls and unread bytes.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, PATH, pattern};
use globalfifo_guest_tests::harness::{self, SOON, Test, eventually};
use globalfifo_guest_tests::signals::{self, POLL_HUP};
use globalfifo_guest_tests::trace::Trace;
use globalfifo_guest_tests::{check, check_eq, system};
use nix::errno::Errno;
use nix::libc::{self, O_NONBLOCK};
use nix::poll::{PollFlags, PollTimeout};
use nix::unistd::gettid;

const TESTS: &[Test] = &[
    ("the_node_has_its_link_group_and_mode", node),
    (
        "unbind_ends_a_blocked_read_with_enodev",
        unbind_blocked_read,
    ),
    (
        "unbind_ends_a_blocked_write_with_enodev",
        unbind_blocked_write,
    ),
    (
        "unbind_wakes_poll_and_signals_hangup",
        unbind_poll_and_signal,
    ),
    ("an_open_file_of_a_gone_device_is_enodev", stale_file),
    ("unplug_of_the_pci_device_ends_io_and_loses_nothing", unplug),
    ("unread_bytes_survive_unbind", bytes_survive_unbind),
    ("unread_bytes_survive_rmmod", bytes_survive_rmmod),
    ("what_was_read_is_not_delivered_again", no_duplicates),
    ("a_busy_module_cannot_be_removed", busy_module),
    (
        "the_driver_has_a_timer_only_while_a_file_is_open",
        timer_while_open,
    ),
    ("unbind_and_bind_under_load", unbind_under_load),
    ("rmmod_and_modprobe_again_and_again", rmmod_again),
    ("coming_and_going_under_load_leaves_nothing", cycles),
];

/// The device comes and goes so often in one of them that a busy machine takes a minute; below what the suite takes for a hang.
const LIMIT: Duration = Duration::from_secs(110);

fn main() -> ExitCode {
    // Left unbound or unloaded by a test that failed: the next ones should not fail for it.
    let _ = system::load_module();
    let filters: Vec<String> = std::env::args().skip(1).collect();
    harness::main_with(TESTS, &filters, LIMIT, &[], "")
}

/// What one `read(2)` gave.
type ReadResult = Result<Vec<u8>, Errno>;

/// Waits for the device and its node.
fn there() -> Result<()> {
    system::wait_for_file(PATH, true)
}

/// Takes the device away, runs `meanwhile`, and gives it back.
fn while_unbound(meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    let device = system::device_name()?;
    system::unbind(&device)?;
    let result = meanwhile();
    system::bind(&device)?;
    there()?;
    result
}

fn node() -> Result<()> {
    there()?;
    system::wait_for_file("/dev/globalfifo", true)?;
    check_eq!(
        fs::canonicalize("/dev/globalfifo")?,
        Path::new(PATH).to_path_buf()
    );
    let meta = fs::metadata(PATH)?;
    check!(meta.file_type().is_char_device());
    check_eq!(meta.permissions().mode() & 0o777, 0o660);
    check!(meta.gid() != 0);
    Ok(())
}

/// Blocks a thread in a call on the FIFO, takes the device away, and gives what the call returned.
fn unbind_while_blocked<T: Send + std::fmt::Debug + 'static>(
    call: i64,
    work: fn(&Fifo) -> Result<T, Errno>,
) -> Result<(Result<T, Errno>, Duration)> {
    let (tell, told) = mpsc::channel();
    let blocked = thread::spawn(move || -> Result<(Result<T, Errno>, Instant)> {
        let fifo = Fifo::open(0)?;
        tell.send(gettid().as_raw())?;
        Ok((work(&fifo), Instant::now()))
    });
    let tid = told.recv()?;
    eventually("the call blocks", || system::sleeps_in(tid, call))?;
    let mut outcome = None;
    let started = Instant::now();
    while_unbound(|| {
        outcome = Some(blocked.join().map_err(|_| anyhow::anyhow!("panic"))??);
        Ok(())
    })?;
    let (result, ended) = outcome.context("no outcome")?;
    Ok((result, ended.saturating_duration_since(started)))
}

fn unbind_blocked_read() -> Result<()> {
    drop(Fifo::open_empty(0)?);
    let (result, took) = unbind_while_blocked(libc::SYS_read, |fifo| fifo.read(10))?;
    check_eq!(result, Err(Errno::ENODEV));
    check!(took < harness::limit(Duration::from_secs(1)));
    Ok(())
}

fn unbind_blocked_write() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    check_eq!(fifo.fill()?, CAPACITY);
    drop(fifo);
    let (result, took) = unbind_while_blocked(libc::SYS_write, |fifo| fifo.write(b"x"))?;
    check_eq!(result, Err(Errno::ENODEV));
    check!(took < harness::limit(Duration::from_secs(1)));
    Fifo::open(0)?.clear()?;
    Ok(())
}

fn unbind_poll_and_signal() -> Result<()> {
    let signal = libc::SIGRTMIN() + 3;
    signals::block(signal)?;
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let reader = Fifo::open_as(PATH, true, false, O_NONBLOCK)?;
    reader.enable_signals(Some(signal))?;
    while_unbound(|| {
        let events = fifo.poll_for(PollFlags::POLLIN, PollTimeout::from(10_000u16))?;
        check!(events.contains(PollFlags::POLLHUP));
        let codes: Vec<i32> = std::iter::from_fn(|| signals::take(signal, SOON / 20).ok()?)
            .map(|got| got.code)
            .collect();
        check!(codes.contains(&POLL_HUP));
        Ok(())
    })
}

fn stale_file() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    fifo.enable_signals(None)?;
    signals::block_sigio()?;
    while_unbound(|| {
        check_eq!(fifo.read(1), Err(Errno::ENODEV));
        check_eq!(fifo.write(b"x"), Err(Errno::ENODEV));
        check_eq!(fifo.clear(), Err(Errno::ENODEV));
        check_eq!(nix::unistd::fsync(&fifo), Err(Errno::ENODEV));
        check!(fifo.level().is_err());
        system::wait_for_file(PATH, false)?;
        check!(Fifo::open(0).is_err());
        Ok(())
    })?;
    // A new file works; the old one stays dead.
    check_eq!(fifo.read(1), Err(Errno::ENODEV));
    let fresh = Fifo::open(0)?;
    fresh.write_all(b"alive")?;
    check_eq!(fresh.read_exact(5)?, b"alive".to_vec());
    Ok(())
}

/// DRV-8, DRV-9.
fn unplug() -> Result<()> {
    let bytes = pattern(37, 1000);
    let fifo = Fifo::open_empty(0)?;
    fifo.write_all(&bytes)?;
    let (tell, told) = mpsc::channel();
    // The first read takes part of what is there; the second waits, until the device goes.
    let reader = thread::spawn(move || -> Result<(Vec<u8>, ReadResult)> {
        let fifo = Fifo::open(0)?;
        let first = fifo.read_exact(600)?;
        Fifo::open(0)?.read_exact(400)?;
        tell.send(gettid().as_raw())?;
        Ok((first, fifo.read(1)))
    });
    let tid = told.recv()?;
    eventually("the reader blocks", || {
        system::sleeps_in(tid, libc::SYS_read)
    })?;
    fifo.set_flags(O_NONBLOCK, true)?;
    system::unplug(&system::device_name()?)?;
    let outcome = reader.join();
    let after = fifo.read(1);
    system::rescan()?;
    there()?;
    let (first, second) = outcome.map_err(|_| anyhow::anyhow!("panic"))??;
    check_eq!(first, bytes.get(..600).context("600")?);
    check_eq!(second, Err(Errno::ENODEV));
    check_eq!(after, Err(Errno::ENODEV));
    // All was read before: nothing comes again, and the FIFO works.
    let fresh = Fifo::open(O_NONBLOCK)?;
    check_eq!(fresh.read(1), Err(Errno::EAGAIN));
    fresh.write_all(b"plugged in again")?;
    fresh.wait_level(16)?;
    check_eq!(fresh.drain()?, b"plugged in again".to_vec());
    Ok(())
}

/// DEV-6, DEV-7, DRV-9.
fn bytes_survive_unbind() -> Result<()> {
    let bytes = pattern(23, CAPACITY);
    let fifo = Fifo::open_empty(0)?;
    fifo.write_all(&bytes)?;
    while_unbound(|| Ok(()))?;
    drop(fifo);
    let fifo = Fifo::open(O_NONBLOCK)?;
    fifo.wait_level(CAPACITY)?;
    check_eq!(fifo.drain()?, bytes);
    Ok(())
}

/// DEV-6, DEV-8, DRV-9.
fn bytes_survive_rmmod() -> Result<()> {
    let bytes = pattern(29, 777);
    let fifo = Fifo::open_empty(0)?;
    fifo.write_all(&bytes)?;
    drop(fifo);
    system::unload_module()?;
    system::load_module()?;
    there()?;
    check_eq!(Fifo::open(0)?.read_exact(777)?, bytes);
    Ok(())
}

/// DRV-8: what was read is reported before the device is reset.
fn no_duplicates() -> Result<()> {
    let bytes = pattern(31, 3000);
    let mut back = Vec::new();
    let fifo = Fifo::open_empty(0)?;
    fifo.write_all(&bytes)?;
    drop(fifo);
    for part in [1, 100, 999, 1, 899, 1000] {
        let fifo = Fifo::open(0)?;
        back.extend(fifo.read_exact(part)?);
        drop(fifo);
        while_unbound(|| Ok(()))?;
    }
    check!(back == bytes);
    check_eq!(Fifo::open(O_NONBLOCK)?.read(1), Err(Errno::EAGAIN));
    Ok(())
}

fn busy_module() -> Result<()> {
    let _open = Fifo::open(0)?;
    match system::unload_module() {
        Ok(()) => bail!("rmmod succeeded with an open file"),
        Err(error) => check!(format!("{error:#}").contains("in use")),
    }
    Ok(())
}

/// How often work was put into the driver's queues in the next seconds.
fn work_queued() -> Result<usize> {
    let trace = Trace::start(&[(
        "workqueue/workqueue_queue_work",
        "workqueue ~ \"globalfifo*\"",
    )])?;
    thread::sleep(Duration::from_millis(2500));
    Ok(trace.events()?.len())
}

fn timer_while_open() -> Result<()> {
    // The last round for a file of an earlier test may still be on its way.
    let last_round = || thread::sleep(Duration::from_millis(1500));
    last_round();
    check_eq!(work_queued()?, 0);
    let fifo = Fifo::open(0)?;
    // Once a second, and nothing else: no data moves.
    check!((1..=3).contains(&work_queued()?));
    drop(fifo);
    last_round();
    check_eq!(work_queued()?, 0);
    // Not even one that is open keeps it running when the device is gone.
    let _stale = Fifo::open(0)?;
    while_unbound(|| {
        check_eq!(work_queued()?, 0);
        Ok(())
    })
}

fn unbind_under_load() -> Result<()> {
    const ROUNDS: usize = 20;
    drop(Fifo::open_empty(0)?);
    let (stop, stopped) = mpsc::channel::<()>();
    let writer = thread::spawn(move || {
        // The stream is the natural numbers; what write took, and only that, was sent.
        let mut next: u64 = 0;
        let mut left: Vec<u8> = Vec::new();
        while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            let Ok(fifo) = Fifo::open(O_NONBLOCK) else {
                thread::yield_now();
                continue;
            };
            loop {
                if left.is_empty() {
                    left = next.to_le_bytes().to_vec();
                    next += 1;
                }
                match fifo.write(&left) {
                    Ok(n) => drop(left.drain(..n)),
                    Err(_) => break,
                }
                if stopped.try_recv() != Err(mpsc::TryRecvError::Empty) {
                    return (next, left.len());
                }
            }
        }
        (next, left.len())
    });
    let (stop_reading, no_more) = mpsc::channel::<()>();
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        let mut ending = false;
        loop {
            if let Ok(fifo) = Fifo::open(O_NONBLOCK) {
                loop {
                    match fifo.read(1000) {
                        Ok(bytes) => all.extend(bytes),
                        Err(Errno::EAGAIN) if ending => {
                            let quiet = fifo.poll_for(PollFlags::POLLIN, PollTimeout::from(500u16));
                            if quiet.is_ok_and(|events| events.is_empty()) {
                                return all;
                            }
                        }
                        Err(_) => break,
                    }
                }
            }
            ending |= no_more.try_recv() != Err(mpsc::TryRecvError::Empty);
            thread::yield_now();
        }
    });
    for _ in 0..ROUNDS {
        let moved = system::counter(0, "rx_bytes")?;
        eventually("bytes move", || {
            Ok(system::counter(0, "rx_bytes")? > moved + 1000)
        })?;
        while_unbound(|| Ok(()))?;
    }
    drop(stop);
    let (numbers, unsent) = writer.join().map_err(|_| anyhow::anyhow!("panic"))?;
    drop(stop_reading);
    let all = reader.join().map_err(|_| anyhow::anyhow!("panic"))?;
    check_eq!(all.len(), usize::try_from(numbers)? * 8 - unsent);
    for (expected, bytes) in (0u64..).zip(all.chunks_exact(8)) {
        check_eq!(bytes, expected.to_le_bytes());
    }
    Ok(())
}

fn rmmod_again() -> Result<()> {
    for round in 0..10u64 {
        let bytes = pattern(round, 500);
        let fifo = Fifo::open(0)?;
        fifo.write_all(&bytes)?;
        drop(fifo);
        system::unload_module()?;
        check!(fs::metadata("/sys/kernel/debug/globalfifo").is_err());
        system::load_module()?;
        there()?;
        check_eq!(Fifo::open(0)?.read_exact(500)?, bytes);
    }
    Ok(())
}

/// A short form of the program `cycles`.
fn cycles() -> Result<()> {
    globalfifo_guest_tests::cycles::run(30, 5, drop)?.check()
}
