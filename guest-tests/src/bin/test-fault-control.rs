// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device whose answers to requests go wrong, and which interrupts for nothing. Runs with the
//! faults of the suite "fault-control" (suites.toml).

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use globalfifo_guest_tests::fifo::{Fifo, PATH, pattern};
use globalfifo_guest_tests::harness::{self, Test, eventually};
use globalfifo_guest_tests::signals::{self, POLL_IN};
use globalfifo_guest_tests::{check, check_eq, system};
use nix::errno::Errno;
use nix::libc::{self, O_NONBLOCK};

const TESTS: &[Test] = &[
    ("interrupts_for_nothing_wake_and_signal_nobody", for_nothing),
    ("a_wrong_length_of_an_answer_is_eio_once", wrong_answer),
    ("an_answer_that_does_not_come_is_eio_in_time", no_answer),
    ("bound_anew_it_answers", answers_again),
];

fn main() -> ExitCode {
    harness::main(TESTS)
}

/// The line is busy, and user space does not notice.
fn for_nothing() -> Result<()> {
    let signal = libc::SIGRTMIN() + 4;
    signals::block(signal)?;
    let fifo = Fifo::open(O_NONBLOCK)?;
    fifo.enable_signals(Some(signal))?;
    let device = system::device_name()?;
    let before = system::interrupts(&device)?.0;
    eventually("100 interrupts", || {
        Ok(system::interrupts(&device)?.0 >= before + 100)
    })?;
    check_eq!(fifo.read(1), Err(Errno::EAGAIN));
    check!(signals::take(signal, Duration::from_millis(50))?.is_none());
    let bytes = pattern(1, 500);
    fifo.write_all(&bytes)?;
    fifo.wait_level(500)?;
    check_eq!(fifo.drain()?, bytes);
    let code = signals::take(signal, harness::SOON)?.map(|got| got.code);
    check_eq!(code, Some(POLL_IN));
    Ok(())
}

/// Asks until something is unusual: the answer, and how long it took.
fn unusual_clear(fifo: &Fifo, asks: u32) -> Result<(Errno, Duration)> {
    for _ in 0..asks {
        let started = Instant::now();
        if let Err(errno) = fifo.clear() {
            return Ok((errno, started.elapsed()));
        }
    }
    bail!("{asks} requests were answered")
}

fn wrong_answer() -> Result<()> {
    let fifo = Fifo::open(O_NONBLOCK)?;
    let (errno, took) = unusual_clear(&fifo, 20)?;
    check_eq!(errno, Errno::EIO);
    check!(took < Duration::from_secs(3));
    check_eq!(fifo.clear(), Ok(()));
    fifo.write_all(b"fine")?;
    fifo.wait_level(4)?;
    check_eq!(fifo.drain()?, b"fine");
    Ok(())
}

fn no_answer() -> Result<()> {
    let fifo = Fifo::open(O_NONBLOCK)?;
    let (errno, took) = unusual_clear(&fifo, 200)?;
    check_eq!(errno, Errno::EIO);
    check!(took < Duration::from_secs(15));
    // What needs no request goes on.
    fifo.write_all(b"fine")?;
    fifo.wait_level(4)?;
    check_eq!(fifo.drain()?, b"fine");
    Ok(())
}

fn answers_again() -> Result<()> {
    let device = system::device_name()?;
    system::unbind(&device)?;
    system::bind(&device)?;
    system::wait_for_file(PATH, true)?;
    let fifo = Fifo::open(O_NONBLOCK)?;
    for _ in 0..5 {
        check_eq!(fifo.clear(), Ok(()));
    }
    Ok(())
}
