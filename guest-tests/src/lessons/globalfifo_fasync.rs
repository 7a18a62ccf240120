// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Listings 9.7 to 9.10: globalfifo with asynchronous notification, as our driver has it.

use std::time::Duration;

use anyhow::Result;
use nix::libc::{self, O_NONBLOCK};
use nix::poll::{PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

use super::Desk;
use super::clock::settle;
use super::fasync_template::{QUIET, receive, sent};
use super::show::{holds, say};
use super::{process, source};
use crate::fifo::{CAPACITY, Fifo};
use crate::harness::eventually;
use crate::signals::{self, POLL_IN, POLL_OUT};
use crate::system;

pub(super) fn structure(_: &Desk) -> Result<()> {
    source::FIFO.show("one FIFO; all its open files share this")?;
    source::FILE_POLL.show(
        "registers the wait queue, then returns the events that hold, masked by the open mode",
    )?;
    let fifo = Fifo::open(O_NONBLOCK)?;
    let events = fifo.events()?;
    holds!(
        events == PollFlags::POLLOUT,
        "poll on the empty FIFO: {events:?}"
    );
    let before = system::counter(0, "wakeups")?;
    let child = process::start(move || {
        let parent = nix::unistd::getppid().as_raw();
        eventually("the other process asleep in poll", || {
            system::sleeps_in(parent, system::SYS_POLL)
        })?;
        Fifo::open(O_NONBLOCK)?.write_all(b"wake up")
    })?;
    say!(
        "poll(POLLIN) sleeps; process {} writes once it sees that",
        child.pid()
    );
    let events = fifo.poll_for(PollFlags::POLLIN, PollTimeout::from(10_000u16))?;
    let status = child.wait()?;
    holds!(
        matches!(status, WaitStatus::Exited(_, 0)),
        "the other process saw it asleep, and wrote"
    );
    holds!(events == PollFlags::POLLIN, "poll returned {events:?}");
    let after = settle(|| system::counter(0, "wakeups"), |after| *after > before)?;
    holds!(
        after > before,
        "the driver's counter of wake-ups: {before} -> {after}"
    );
    let events = fifo.events()?;
    holds!(
        events == PollFlags::POLLIN | PollFlags::POLLOUT,
        "poll now: {events:?}"
    );
    Ok(())
}

pub(super) fn operation(_: &Desk) -> Result<()> {
    source::LIST_FOR.show("each file is on one list, chosen by its mode at open")?;
    source::READINESS
        .show("an event that was false before a change and is true after it is an edge")?;
    signals::block(libc::SIGRTMIN())?;
    // Comes instead of those of which too many wait.
    signals::block_sigio()?;
    let fifo = Fifo::open(O_NONBLOCK)?;
    fifo.enable_signals(Some(libc::SIGRTMIN()))?;
    say!("descriptor {} is open for reading and writing", fifo.fd());
    fifo.write_all(b"a few bytes")?;
    let received = receive(libc::SIGRTMIN())?;
    holds!(received.code == POLL_IN, "its own write: data, POLL_IN");
    fifo.drain()?;
    let own = signals::take(libc::SIGRTMIN(), QUIET)?;
    holds!(
        own.is_none(),
        "its own read of a FIFO that was not full: no signal"
    );
    let filled = fifo.fill()?;
    fifo.wait_level(filled)?;
    while signals::take(libc::SIGRTMIN(), Duration::ZERO)?.is_some() {}
    say!("the FIFO is full, {filled} bytes; reading 1");
    fifo.read(1)?;
    let received = receive(libc::SIGRTMIN())?;
    holds!(
        received.code == POLL_OUT,
        "its own read of a full FIFO: space, POLL_OUT"
    );
    Ok(())
}

pub(super) fn write_path(_: &Desk) -> Result<()> {
    source::FILE_WRITE.show("write_iter comes here")?;
    source::WRITE.show("copies, queues the bytes for the device, and returns")?;
    source::INTERRUPT
        .show("in a loopback FIFO the bytes come back with an interrupt, which signals")?;
    signals::block_sigio()?;
    let fifo = Fifo::open(O_NONBLOCK)?;
    fifo.enable_signals(None)?;
    let device = system::device_name()?;
    for word in ["first", "second"] {
        let (level, (before, _)) = (fifo.level()?, system::interrupts(&device)?);
        fifo.write_all(word.as_bytes())?;
        receive(libc::SIGIO)?;
        let (after, _) = system::interrupts(&device)?;
        holds!(
            after > before,
            "{word} write, with {level} bytes in the FIFO: SIGIO; interrupts of {device}: {before} -> {after}"
        );
    }
    fifo.drain()?;
    let filled = fifo.fill()?;
    fifo.wait_level(filled)?;
    while signals::take(libc::SIGIO, Duration::ZERO)?.is_some() {}
    holds!(filled == CAPACITY, "the FIFO is full with {filled} bytes");
    fifo.read_exact(40)?;
    let short = Fifo::open(0)?.write(&[0; 100]);
    holds!(
        short == Ok(40),
        "with 40 bytes read, a blocking write of 100 takes what fits, and says so: {short:?}"
    );
    fifo.wait_level(filled)?;
    while signals::take(libc::SIGIO, Duration::ZERO)?.is_some() {}
    let before = sent()?;
    fifo.clear()?;
    receive(libc::SIGIO)?;
    let (after, events) = (sent()?, fifo.events()?);
    holds!(
        after > before && events == PollFlags::POLLOUT,
        "FIFO_CLEAR signals writers (signals {before} -> {after}) and leaves {events:?}"
    );
    Ok(())
}

pub(super) fn release(_: &Desk) -> Result<()> {
    source::FILE_CLOSED.show(
        "a process closed its last descriptor of the file: cancels the requests it submitted",
    )?;
    source::ENTRY_RELEASE.show("nobody uses the file any more: it drops its FIFO")?;
    let fifo = Fifo::open(O_NONBLOCK)?;
    let mut child = process::start(|| {
        signals::block_sigio()?;
        let own = Fifo::open(O_NONBLOCK)?;
        own.enable_signals(None)?;
        say!("ready");
        receive(libc::SIGIO)?;
        loop {
            nix::unistd::pause();
        }
    })?;
    child.line()?;
    say!("process {} has O_ASYNC set, and nobody else", child.pid());
    let before = sent()?;
    fifo.write_all(b"x")?;
    let told = child.line()?;
    let after = sent()?;
    holds!(
        after == before + 1,
        "a write: it got{told}; signals {before} -> {after}"
    );
    say!("$ kill -9 {}", child.pid());
    child.signal(Signal::SIGKILL)?;
    child.wait()?;
    let before = sent()?;
    fifo.write_all(b"y")?;
    fifo.wait_level(2)?;
    let after = sent()?;
    holds!(
        after == before,
        "a write after its end: nobody on the lists; signals {before} -> {after}"
    );
    Ok(())
}
