// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device that does not answer when it is resumed: calls and requests fail with EIO, until the driver is bound anew.
//!
//! The suite's fault strikes at the control queue's first opportunity after the driver was bound: in the resume.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use globalfifo_guest_tests::aio::{Context, Iocb};
use globalfifo_guest_tests::fifo::{Fifo, PATH};
use globalfifo_guest_tests::harness::{self, Test, limit};
use globalfifo_guest_tests::suspend::suspend;
use globalfifo_guest_tests::{check, check_eq, system};
use nix::errno::Errno;
use nix::libc::{self, O_NONBLOCK};
use nix::poll::{PollFlags, PollTimeout};

const TESTS: &[Test] = &[(
    "a_device_that_does_not_answer_when_resumed_is_eio_until_bound_anew",
    no_answer,
)];

fn main() -> ExitCode {
    harness::main(TESTS)
}

fn no_answer() -> Result<()> {
    let fifo = Fifo::open(O_NONBLOCK)?;
    let waiting = Fifo::open(0)?;
    let context = Context::new(1)?;
    let mut room = [0; 8];
    let mut read = Iocb::read(&waiting, &mut room);
    context.submit(&mut read)?;
    suspend()?;
    check_eq!(context.event()?.res, -i64::from(libc::EIO));
    check_eq!(fifo.read(1), Err(Errno::EIO));
    check_eq!(fifo.write(b"x"), Err(Errno::EIO));
    let events = fifo.poll_for(PollFlags::POLLIN, PollTimeout::ZERO)?;
    check!(events.contains(PollFlags::POLLERR));
    // Needs an answer of the device, for which it must not wait.
    let started = Instant::now();
    check_eq!(fifo.clear(), Err(Errno::EIO));
    check!(started.elapsed() < limit(Duration::from_secs(5)));
    drop((fifo, waiting));

    let device = system::device_name()?;
    system::unbind(&device)?;
    system::bind(&device)?;
    system::wait_for_file(PATH, true)?;
    let fifo = Fifo::open_empty(0)?;
    fifo.write_all(b"again")?;
    check_eq!(fifo.read_exact(5)?, b"again");
    Ok(())
}
