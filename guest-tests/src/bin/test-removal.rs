// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device that is taken away, two that come and go at the same time, and one whose PCI function is reset.
//!
//! Runs on a machine with two devices of a FIFO each (suites.toml), of which the second can be reset. What a removal does to calls and requests is tested in
//! test-lifecycle and test-aio.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use globalfifo_guest_tests::aio::{Context, Iocb};
use globalfifo_guest_tests::fifo::{Fifo, PATH, pattern};
use globalfifo_guest_tests::forked::{Child, Parent};
use globalfifo_guest_tests::harness::{self, SOON, Test, eventually, limit};
use globalfifo_guest_tests::{check, check_eq, signals, system};
use nix::errno::Errno;
use nix::libc::{self, O_NONBLOCK};
use nix::poll::{PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

const TESTS: &[Test] = &[
    ("unbind_signals_a_file_for_reading_once", || {
        signalled(true, false, system::unbind)
    }),
    ("unbind_signals_a_file_for_writing_once", || {
        signalled(false, true, system::unbind)
    }),
    ("unbind_signals_a_file_for_both_once", || {
        signalled(true, true, system::unbind)
    }),
    ("unplug_signals_a_file_for_both_once", || {
        signalled(true, true, system::unplug)
    }),
    ("unbind_signals_each_of_three_files_once", three_files),
    (
        "an_event_loop_takes_a_removed_file_out_at_its_first_error",
        event_loop,
    ),
    ("two_devices_come_and_go_beside_each_other", two_devices),
    ("a_reset_of_the_function_loses_no_byte", reset_beside_bytes),
    (
        "a_reset_of_the_function_ends_no_request",
        reset_beside_requests,
    ),
    (
        "clears_and_writes_beside_resets_of_the_function_all_succeed",
        resets_beside_clears,
    ),
];

fn main() -> ExitCode {
    harness::main(TESTS)
}

/// Long enough for a signal that should not come to have come.
const QUIET: Duration = Duration::from_millis(500);

/// Device of the first FIFO.
fn device() -> Result<String> {
    let link = fs::canonicalize("/sys/class/globalfifo/globalfifo0/device")?;
    let name = link.file_name().context("no name")?;
    Ok(name.to_string_lossy().into_owned())
}

/// Brings back what `remove` took away.
fn bring_back(device: &str) -> Result<()> {
    if fs::exists(format!("/sys/bus/virtio/devices/{device}"))? {
        system::bind(device)?;
    } else {
        system::rescan()?;
    }
    system::wait_for_file(PATH, true)
}

/// Codes of all signals `number` that come.
fn codes(number: i32) -> Result<Vec<i32>> {
    let mut codes = Vec::new();
    let mut patience = limit(SOON);
    while let Some(signal) = signals::take(number, patience)? {
        codes.push(signal.code);
        patience = QUIET;
    }
    Ok(codes)
}

/// A file with signals of its own, which queue.
fn with_signals(read: bool, write: bool, number: i32) -> Result<Fifo> {
    signals::block(number)?;
    let file = Fifo::open_as(PATH, read, write, O_NONBLOCK)?;
    file.enable_signals(Some(number))?;
    Ok(file)
}

fn signalled(read: bool, write: bool, remove: fn(&str) -> Result<()>) -> Result<()> {
    let device = device()?;
    Fifo::open_empty(0)?;
    // If the queue of signals were full, there would be this one.
    signals::block_sigio()?;
    let number = libc::SIGRTMIN() + 5;
    let file = with_signals(read, write, number)?;
    remove(&device)?;
    let codes = codes(number);
    let others = signals::take(libc::SIGIO, Duration::ZERO);
    drop(file);
    bring_back(&device)?;
    check_eq!(codes?, vec![signals::POLL_HUP]);
    check_eq!(others?, None);
    Ok(())
}

fn three_files() -> Result<()> {
    let device = device()?;
    Fifo::open_empty(0)?;
    let modes = [(true, false), (false, true), (true, true)];
    let mut files = Vec::new();
    for (number, (read, write)) in (libc::SIGRTMIN() + 5..).zip(modes) {
        files.push((number, with_signals(read, write, number)?));
    }
    system::unbind(&device)?;
    let codes: Result<Vec<_>> = files.iter().map(|(number, _)| codes(*number)).collect();
    drop(files);
    bring_back(&device)?;
    check_eq!(codes?, vec![vec![signals::POLL_HUP]; 3]);
    Ok(())
}

fn event_loop() -> Result<()> {
    let device = device()?;
    Fifo::open_empty(0)?;
    let file = Fifo::open_as(PATH, true, false, O_NONBLOCK)?;
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    epoll.add(&file, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    system::unbind(&device)?;
    let mut events = [EpollEvent::empty()];
    let count = epoll.wait(&mut events, EpollTimeout::try_from(limit(SOON))?);
    let answer = file.read(1);
    let polled = file.poll_for(PollFlags::POLLIN, PollTimeout::ZERO);
    bring_back(&device)?;
    check_eq!(count?, 1);
    check!(
        events
            .iter()
            .all(|event| event.events().contains(EpollFlags::EPOLLHUP))
    );
    check!(polled?.contains(PollFlags::POLLHUP));
    // An error, not «nothing yet», which would have the loop spin.
    check_eq!(answer, Err(Errno::ENODEV));
    Ok(())
}

/// The virtio devices of ours.
fn devices() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir("/sys/bus/virtio/drivers/globalfifo")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("virtio") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// How often each device is taken away.
const ROUNDS: u32 = 40;

/// Each device is taken away and brought back by a process of its own. Whoever comes gets a free minor number, whose name nobody
/// has any more; that the kernel complained of none is the test of the log, which follows all.
fn two_devices() -> Result<()> {
    let devices = devices()?;
    check_eq!(devices.len(), 2);
    let cyclers: Vec<Child> = devices
        .iter()
        .map(|device| {
            Child::start(move |_: &Parent| {
                for round in 0..ROUNDS {
                    system::unbind(device).with_context(|| format!("round {round}"))?;
                    system::bind(device).with_context(|| format!("round {round}"))?;
                }
                Ok(())
            })
        })
        .collect::<Result<_>>()?;
    let mut outcome = Ok(());
    for mut cycler in cyclers {
        let over = cycler.over_within(Duration::from_secs(50))?;
        if outcome.is_ok() && !matches!(over, Some(nix::sys::wait::WaitStatus::Exited(_, 0))) {
            outcome = Err(anyhow::anyhow!(
                "binding and unbinding ended like this: {over:?}"
            ));
        }
    }
    for device in &devices {
        if !fs::exists(format!("/sys/bus/virtio/drivers/globalfifo/{device}"))? {
            system::bind(device)?;
        }
    }
    outcome?;
    for number in 0..2 {
        let path = format!("/dev/globalfifo{number}");
        system::wait_for_file(&path, true)?;
        let fifo = Fifo::open_at(&path, O_NONBLOCK)?;
        fifo.clear()?;
        check_eq!(fifo.write(b"there"), Ok(5));
        fifo.wait_level(5)?;
        check_eq!(fifo.read(10), Ok(b"there".to_vec()));
        let counters = format!("/sys/kernel/debug/globalfifo/globalfifo{number}/interrupts");
        check!(fs::exists(counters)?);
    }
    eventually("no third node is left", || {
        Ok(!fs::exists("/dev/globalfifo2")?)
    })
}

/// A device whose PCI function can be reset: the file that does it, and the FIFO's node.
fn resettable() -> Result<(PathBuf, String)> {
    for device in devices()? {
        let device = fs::canonicalize(format!("/sys/bus/virtio/devices/{device}"))?;
        let reset = device.parent().context("no parent")?.join("reset");
        if reset.exists() {
            let node = fs::read_dir(device.join("globalfifo"))?
                .next()
                .context("the device has no FIFO")??;
            return Ok((reset, format!("/dev/{}", node.file_name().display())));
        }
    }
    bail!("no device can be reset")
}

/// Resets the function.
fn reset(file: &Path) -> Result<()> {
    system::write(&file.to_string_lossy(), "1")
}

/// Reads exactly `n` bytes, in time. The FIFO has O_NONBLOCK.
fn read_soon(fifo: &Fifo, n: usize) -> Result<Vec<u8>> {
    fifo.wait_level(n)?;
    Ok(fifo.read(n)?)
}

/// Leaves the devices bound anew, whatever a test did to them.
fn and_bind_anew(outcome: Result<()>) -> Result<()> {
    for device in devices()? {
        system::unbind(&device)?;
        system::bind(&device)?;
    }
    system::wait_for_file(PATH, true)?;
    outcome
}

fn reset_beside_bytes() -> Result<()> {
    let (file, node) = resettable()?;
    let fifo = Fifo::open_at(&node, O_NONBLOCK)?;
    fifo.clear()?;
    let outcome = (|| {
        check_eq!(fifo.write(&pattern(1, 1000)), Ok(1000));
        fifo.wait_level(1000)?;
        let first = fifo.read(300)?;
        reset(&file)?;
        check!([first, read_soon(&fifo, 700)?].concat() == pattern(1, 1000));
        check_eq!(fifo.write(b"still works"), Ok(11));
        check_eq!(read_soon(&fifo, 11)?, b"still works".to_vec());
        Ok(())
    })();
    drop(fifo);
    and_bind_anew(outcome)
}

fn reset_beside_requests() -> Result<()> {
    let (file, node) = resettable()?;
    let fifo = Fifo::open_at(&node, O_NONBLOCK)?;
    fifo.clear()?;
    let outcome = (|| {
        let requests = Fifo::open_at(&node, 0)?;
        let context = Context::new(4)?;
        let mut room = [0; 3];
        context.submit(&mut Iocb::read(&requests, &mut room))?;
        reset(&file)?;
        check_eq!(context.events(0, 1, QUIET)?, vec![]);
        check_eq!(fifo.write(b"one"), Ok(3));
        check_eq!(context.event()?.res, 3);
        check_eq!(room, *b"one");
        Ok(())
    })();
    drop(fifo);
    and_bind_anew(outcome)
}

/// Resets beside which a FIFO is written and cleared.
const RESETS: usize = 20;

fn resets_beside_clears() -> Result<()> {
    let (file, node) = resettable()?;
    let over = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        let clearing = scope.spawn(|| -> Result<u32> {
            let fifo = Fifo::open_at(&node, O_NONBLOCK)?;
            let mut clears = 0;
            while !over.load(Ordering::SeqCst) {
                fifo.clear()?;
                clears += 1;
            }
            Ok(clears)
        });
        let writing = scope.spawn(|| -> Result<()> {
            let fifo = Fifo::open_at(&node, O_NONBLOCK)?;
            let bytes = pattern(1, 300);
            while !over.load(Ordering::SeqCst) {
                match fifo.write(&bytes) {
                    Ok(_) | Err(Errno::EAGAIN) => {}
                    Err(error) => bail!("write: {error}"),
                }
            }
            Ok(())
        });
        let resets = (0..RESETS).try_for_each(|_| {
            thread::sleep(Duration::from_millis(50));
            reset(&file)
        });
        over.store(true, Ordering::SeqCst);
        let clears = clearing.join().map_err(|_| anyhow::anyhow!("panic"))?;
        writing.join().map_err(|_| anyhow::anyhow!("panic"))??;
        resets?;
        // Otherwise the test says nothing.
        check!(clears.context("FIFO_CLEAR")? as usize > RESETS);
        let fifo = Fifo::open_at(&node, O_NONBLOCK)?;
        fifo.clear()?;
        check_eq!(fifo.write(b"works"), Ok(5));
        check_eq!(read_soon(&fifo, 5)?, b"works".to_vec());
        Ok(())
    });
    and_bind_anew(outcome)
}
