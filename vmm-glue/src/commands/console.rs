// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab console`: what the kernel of a machine that stays says.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::thread;

use anyhow::Context;
use anyhow::Result;
use rustix::event::EventfdFlags;

use crate::cancel;
use crate::cli::ConsoleArgs;
use crate::stay::registry::Place;
use crate::streams::Output;
use crate::vm::follow::Tail;

/// Prints the console; with `-f`, until the machine ends.
pub fn console(args: &ConsoleArgs) -> Result<u8> {
    let place = Place::of(&args.name)?;
    let record = place.record().with_context(|| {
        format!(
            "there is no machine called {}: `cargo lab ps` lists those that are there",
            args.name
        )
    })?;
    anyhow::ensure!(
        record.console.is_file(),
        "the machine {} has said nothing yet",
        args.name
    );
    let mut tail = Tail::open(&record.console)?;
    let status = show(&mut tail, place, args.follow)?;
    if let Some(loss) = record.loss() {
        loss.tell(&record.console, true);
    }
    Ok(status)
}

fn show(tail: &mut Tail, place: Place, follow: bool) -> Result<u8> {
    if !follow || !place.is_alive() {
        return pass(tail);
    }
    let end = over(place)?;
    loop {
        let status = pass(tail)?;
        if !tail.wait(Some(end.as_fd())) {
            cancel::check()?;
            // What it said last.
            return pass(tail).map(|_| status);
        }
    }
}

fn pass(tail: &mut Tail) -> Result<u8> {
    let mut failed = None;
    let passed = tail.pass(|bytes| {
        Output::Stdout.write(bytes).map_err(|err| {
            failed = Some(Output::Stdout.failure(&err));
            io::Error::other("the output has failed")
        })
    });
    match failed {
        Some(exit) => Err(exit.into()),
        None => passed.map(|()| 0).context("cannot read the console"),
    }
}

/// Readable once the machine is over, or the lab was asked to end.
fn over(place: Place) -> Result<OwnedFd> {
    let end =
        rustix::event::eventfd(0, EventfdFlags::CLOEXEC).context("cannot create an eventfd")?;
    let over = end.try_clone().context("cannot watch the machine")?;
    let cancelled = end.try_clone().context("cannot watch the machine")?;
    thread::spawn(move || {
        let _ = place.wait_until_over();
        let _ = rustix::io::write(&over, &1_u64.to_ne_bytes());
    });
    if let Some(signals) = cancel::fd() {
        thread::spawn(move || {
            let mut fds = [rustix::event::PollFd::from_borrowed_fd(
                signals,
                rustix::event::PollFlags::IN,
            )];
            while rustix::event::poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
            let _ = rustix::io::write(&cancelled, &1_u64.to_ne_bytes());
        });
    }
    Ok(end)
}
