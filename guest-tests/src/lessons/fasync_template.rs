// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Listings 9.3 to 9.6: what a driver needs for asynchronous notification, shown in ours.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::libc::{self, O_ASYNC, O_NONBLOCK};

use super::Desk;
use super::show::{holds, say};
use super::source;
use crate::fifo::{Fifo, PATH};
use crate::harness::{SOON, eventually};
use crate::signals::{self, POLL_IN, POLL_OUT, Received};
use crate::system;

/// `si_code` of a plain SIGIO.
const SI_KERNEL: i32 = 128;

/// Long enough for a signal that should not come.
pub(super) const QUIET: Duration = Duration::from_millis(200);

/// How often the driver has called kill_fasync for the first FIFO.
pub(super) fn sent() -> Result<u64> {
    system::counter(0, "signals")
}

/// Prints a signal as a handler with SA_SIGINFO sees it.
fn describe(received: Received) -> Result<()> {
    let Received {
        signal,
        code,
        fd,
        band,
    } = received;
    let name = match code {
        POLL_IN => "POLL_IN",
        POLL_OUT => "POLL_OUT",
        signals::POLL_ERR => "POLL_ERR",
        signals::POLL_HUP => "POLL_HUP",
        SI_KERNEL => {
            // Which file and what for is told only to those who chose a signal with F_SETSIG.
            say!("  signal {signal}: si_code {code} (SI_KERNEL)");
            return Ok(());
        }
        _ => "unknown",
    };
    say!("  signal {signal}: si_code {code} ({name}), si_fd {fd}, si_band {band:#x}");
    Ok(())
}

/// A signal that must come.
pub(super) fn receive(signal: i32) -> Result<Received> {
    let received = signals::take(signal, SOON)?.context("no signal came")?;
    describe(received)?;
    Ok(received)
}

pub(super) fn structure(_: &Desk) -> Result<()> {
    source::FASYNC_LIST.show("the head of a list that only the kernel's C code touches")?;
    source::NOTIFIER.show("one wait queue, and a list for each mode of opening")?;
    let (in_signal, out_signal) = (libc::SIGRTMIN(), libc::SIGRTMIN() + 1);
    signals::block(in_signal)?;
    signals::block(out_signal)?;
    // Comes instead of those of which too many wait.
    signals::block_sigio()?;
    let reader = Fifo::open_as(PATH, true, false, O_NONBLOCK)?;
    let writer = Fifo::open_as(PATH, false, true, O_NONBLOCK)?;
    reader.enable_signals(Some(in_signal))?;
    writer.enable_signals(Some(out_signal))?;
    say!(
        "reader: descriptor {}, signal {in_signal}; writer: descriptor {}, signal {out_signal}",
        reader.fd(),
        writer.fd()
    );

    say!("writing 3 bytes");
    let by = Fifo::open(O_NONBLOCK)?;
    by.write_all(b"abc")?;
    let received = receive(in_signal)?;
    holds!(
        received.code == POLL_IN && received.fd == reader.fd(),
        "the reader is told that there is data"
    );
    let to_writer = signals::take(out_signal, QUIET)?;
    holds!(
        to_writer.is_none(),
        "the writer is not: it had space all along"
    );

    let more = by.fill()?;
    by.wait_level(more + 3)?;
    while signals::take(in_signal, Duration::ZERO)?.is_some() {}
    say!("the FIFO is full, {} bytes; reading 1000", more + 3);
    by.read(1000)?;
    let received = receive(out_signal)?;
    holds!(
        received.code == POLL_OUT && received.fd == writer.fd(),
        "the writer is told that there is space"
    );
    let to_reader = signals::take(in_signal, QUIET)?;
    holds!(to_reader.is_none(), "the reader is not");
    Ok(())
}

pub(super) fn operation(_: &Desk) -> Result<()> {
    source::ENTRY_FASYNC.show("fcntl(F_SETFL) calls this when O_ASYNC changes")?;
    source::LIST_SET.show("the kernel's helper adds or removes")?;
    signals::block_sigio()?;
    let fifo = Fifo::open(O_NONBLOCK)?;
    fifo.enable_signals(None)?;
    fifo.set_flags(O_ASYNC, false)?;
    for (on, expected) in [(false, 0), (true, 1), (false, 0), (true, 1)] {
        say!(
            "fcntl(fd, F_SETFL, flags {} O_ASYNC), and a write",
            if on { "|" } else { "& ~" }
        );
        fifo.set_flags(O_ASYNC, on)?;
        let before = sent()?;
        fifo.write_all(b"x")?;
        fifo.wait_level(1)?;
        let signal = if on {
            Some(receive(libc::SIGIO)?)
        } else {
            signals::take(libc::SIGIO, QUIET)?
        };
        let after = sent()?;
        holds!(
            signal.is_some() == on && after - before == expected,
            "SIGIO: {}; the driver's counter of signals: {before} -> {after}",
            if signal.is_some() { "yes" } else { "no" }
        );
        fifo.drain()?;
    }
    Ok(())
}

pub(super) fn notification(_: &Desk) -> Result<()> {
    source::INTERRUPT.show("entry of an interrupt: the device has used a buffer of a queue")?;
    source::CHANGE.show("takes the lock, changes the state, unlocks, then notifies")?;
    source::NOTIFY.show("wakes sleepers and polls, then signals the files on the lists")?;
    source::LIST_SIGNAL.show("kill_fasync itself; allowed in an interrupt")?;
    signals::block_sigio()?;
    let fifo = Fifo::open(O_NONBLOCK)?;
    fifo.enable_signals(None)?;
    for round in 1..=3 {
        let (signals_before, interrupts_before) = (sent()?, system::counter(0, "interrupts")?);
        fifo.write_all(b"data")?;
        receive(libc::SIGIO)?;
        let (signals_now, interrupts_now) = (sent()?, system::counter(0, "interrupts")?);
        holds!(
            signals_now == signals_before + 1 && interrupts_now > interrupts_before,
            "write {round}: interrupts {interrupts_before} -> {interrupts_now}, signals {signals_before} -> {signals_now}"
        );
    }
    Ok(())
}

pub(super) fn close(_: &Desk) -> Result<()> {
    source::ENTRY_RELEASE
        .show("the VFS has called fasync(-1, file, 0) before it, where O_ASYNC was set")?;
    signals::block_sigio()?;
    let by = Fifo::open(O_NONBLOCK)?;
    let fifo = Fifo::open(O_NONBLOCK)?;
    fifo.enable_signals(None)?;
    let second = nix::unistd::dup(&fifo)?;
    let write = |what: &str, expected: u64| -> Result<()> {
        say!("{what}, and a write");
        let before = sent()?;
        by.write_all(b"x")?;
        eventually("the byte", || Ok(by.level()? > 0))?;
        let signal = if expected > 0 {
            Some(receive(libc::SIGIO)?)
        } else {
            signals::take(libc::SIGIO, QUIET)?
        };
        let after = sent()?;
        holds!(
            u64::from(signal.is_some()) == expected && after - before == expected,
            "SIGIO: {expected}; the driver's counter of signals: {before} -> {after}"
        );
        by.drain().map(drop)
    };
    write("two descriptors of one open file", 1)?;
    drop(fifo);
    write("the first is closed", 1)?;
    drop(second);
    write("the second is closed", 0)
}
