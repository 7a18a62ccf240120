// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Readiness and asynchronous notification: poll, epoll, SIGIO.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, PATH};
use globalfifo_guest_tests::harness::{self, SOON, Test, eventually};
use globalfifo_guest_tests::signals::{self, POLL_IN, POLL_OUT, Received};
use globalfifo_guest_tests::{check, check_eq, system};
use nix::libc::{self, O_NONBLOCK, SIGIO};
use nix::poll::{PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::gettid;

const TESTS: &[Test] = &[
    ("poll_wakes_with_data", poll_in),
    ("poll_wakes_with_space", poll_out),
    ("epoll_edge_triggered_tells_each_arrival", epoll_edges),
    ("sigio_for_each_write_also_when_not_empty", sigio_each_write),
    ("sigio_carries_its_band_and_descriptor", sigio_band),
    ("poll_out_is_signalled_only_after_full", sigio_space),
    ("own_reads_do_not_signal", own_reads),
    (
        "a_reader_gets_no_poll_out_and_a_writer_no_poll_in",
        bands_by_mode,
    ),
    ("o_async_off_ends_signals", async_off),
    ("a_closed_file_is_not_signalled", closed_file),
    ("two_owners_are_both_signalled", two_owners),
    ("an_interrupt_stands_behind_each_arrival", interrupts),
    ("a_reader_who_expects_data_soon_polls_for_it", busy_polls),
];

fn main() -> ExitCode {
    harness::main(TESTS)
}

/// Long enough for a signal that should not come to have come: well over the device's round trip.
const QUIET: Duration = Duration::from_millis(200);

fn poll_in() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let main = gettid().as_raw();
    let writer = thread::spawn(move || -> Result<()> {
        eventually("poll sleeps", || system::sleeps_in(main, system::SYS_POLL))?;
        Fifo::open(0)?.write_all(b"!")
    });
    let got = fifo.poll_for(PollFlags::POLLIN, PollTimeout::from(10_000u16))?;
    check_eq!(got, PollFlags::POLLIN);
    writer.join().map_err(|_| anyhow::anyhow!("panic"))??;
    Ok(())
}

fn poll_out() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    check_eq!(fifo.fill()?, CAPACITY);
    let main = gettid().as_raw();
    let reader = thread::spawn(move || -> Result<()> {
        eventually("poll sleeps", || system::sleeps_in(main, system::SYS_POLL))?;
        Fifo::open(0)?.read(1)?;
        Ok(())
    });
    let got = fifo.poll_for(PollFlags::POLLOUT, PollTimeout::from(10_000u16))?;
    check_eq!(got, PollFlags::POLLOUT);
    reader.join().map_err(|_| anyhow::anyhow!("panic"))??;
    Ok(())
}

fn epoll_edges() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
    epoll.add(&fifo, EpollEvent::new(flags, 5))?;
    let mut events = [EpollEvent::empty()];
    check_eq!(epoll.wait(&mut events, EpollTimeout::ZERO)?, 0);
    for _ in 0..10 {
        fifo.write_all(b"edge")?;
        check_eq!(epoll.wait(&mut events, EpollTimeout::from(10_000u16))?, 1);
        check_eq!(events.first().map(EpollEvent::data), Some(5));
        // Not again before something arrives, although it is still readable.
        check_eq!(epoll.wait(&mut events, EpollTimeout::ZERO)?, 0);
    }
    check_eq!(fifo.drain()?.len(), 40);
    Ok(())
}

fn sigio_each_write() -> Result<()> {
    signals::block_sigio()?;
    let fifo = Fifo::open_empty(0)?;
    fifo.enable_signals(None)?;
    for round in 1..=20 {
        fifo.write_all(b"x")?;
        check!(signals::take(SIGIO, SOON)?.is_some());
        check_eq!(fifo.level()?, round);
        check_eq!(signals::take(SIGIO, Duration::ZERO)?, None);
    }
    Ok(())
}

fn sigio_band() -> Result<()> {
    let signal = libc::SIGRTMIN() + 3;
    signals::block(signal)?;
    let fifo = Fifo::open_empty(0)?;
    fifo.enable_signals(Some(signal))?;
    fifo.write_all(b"x")?;
    let got = signals::take(signal, SOON)?.context("no signal")?;
    let band = i64::from(libc::POLLIN | libc::POLLRDNORM);
    check_eq!(
        got,
        Received {
            signal,
            code: POLL_IN,
            fd: fifo.fd(),
            band
        }
    );
    Ok(())
}

fn sigio_space() -> Result<()> {
    let signal = libc::SIGRTMIN() + 3;
    signals::block(signal)?;
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    check_eq!(fifo.fill()?, CAPACITY);
    fifo.wait_level(CAPACITY)?;
    let writer = Fifo::open_as(PATH, false, true, O_NONBLOCK)?;
    writer.enable_signals(Some(signal))?;
    fifo.read(1)?;
    let got = signals::take(signal, SOON)?.context("no signal")?;
    check_eq!((got.code, got.fd), (POLL_OUT, writer.fd()));
    // There is space already: more of it is no news.
    fifo.read(1)?;
    check_eq!(signals::take(signal, QUIET)?, None);
    Ok(())
}

fn own_reads() -> Result<()> {
    signals::block_sigio()?;
    let fifo = Fifo::open_empty(0)?;
    fifo.write_all(&[1; 100])?;
    fifo.wait_level(100)?;
    fifo.enable_signals(None)?;
    for _ in 0..10 {
        fifo.read(10)?;
    }
    check_eq!(signals::take(SIGIO, QUIET)?, None);
    Ok(())
}

fn bands_by_mode() -> Result<()> {
    let (to_reader, to_writer) = (libc::SIGRTMIN() + 3, libc::SIGRTMIN() + 4);
    signals::block(to_reader)?;
    signals::block(to_writer)?;
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let reader = Fifo::open_as(PATH, true, false, O_NONBLOCK)?;
    let writer = Fifo::open_as(PATH, false, true, O_NONBLOCK)?;
    reader.enable_signals(Some(to_reader))?;
    writer.enable_signals(Some(to_writer))?;
    check_eq!(fifo.write(&[1; CAPACITY])?, CAPACITY);
    check_eq!(
        signals::take(to_reader, SOON)?.map(|got| got.code),
        Some(POLL_IN)
    );
    fifo.wait_level(CAPACITY)?;
    fifo.read(100)?;
    check_eq!(
        signals::take(to_writer, SOON)?.map(|got| got.code),
        Some(POLL_OUT)
    );
    check_eq!(signals::take(to_writer, QUIET)?, None);
    while let Some(got) = signals::take(to_reader, Duration::ZERO)? {
        check_eq!(got.code, POLL_IN);
    }
    Ok(())
}

fn async_off() -> Result<()> {
    signals::block_sigio()?;
    let fifo = Fifo::open_empty(0)?;
    fifo.enable_signals(None)?;
    fifo.write_all(b"x")?;
    check!(signals::take(SIGIO, SOON)?.is_some());
    fifo.set_flags(libc::O_ASYNC, false)?;
    fifo.write_all(b"x")?;
    fifo.wait_level(2)?;
    check_eq!(signals::take(SIGIO, QUIET)?, None);
    Ok(())
}

fn closed_file() -> Result<()> {
    signals::block_sigio()?;
    let fifo = Fifo::open_empty(0)?;
    let owner = Fifo::open(0)?;
    owner.enable_signals(None)?;
    drop(owner);
    fifo.write_all(b"x")?;
    fifo.wait_level(1)?;
    check_eq!(signals::take(SIGIO, QUIET)?, None);
    Ok(())
}

fn two_owners() -> Result<()> {
    let (first_signal, second_signal) = (libc::SIGRTMIN() + 3, libc::SIGRTMIN() + 4);
    signals::block(first_signal)?;
    signals::block(second_signal)?;
    let first = Fifo::open_empty(0)?;
    let second = Fifo::open(0)?;
    first.enable_signals(Some(first_signal))?;
    second.enable_signals(Some(second_signal))?;
    first.write_all(b"x")?;
    check_eq!(
        signals::take(first_signal, SOON)?.map(|got| got.fd),
        Some(first.fd())
    );
    check_eq!(
        signals::take(second_signal, SOON)?.map(|got| got.fd),
        Some(second.fd())
    );
    Ok(())
}

/// What always comes at once is found without an interrupt, now and then at least.
fn busy_polls() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    system::needs_fast_edition()?;
    let before = system::counter(0, "busy_polls")?;
    let exchange = || -> Result<()> {
        for _ in 0..50 {
            fifo.write_all(b"ping")?;
            check_eq!(fifo.read_exact(4)?, b"ping");
        }
        Ok(())
    };
    if system::is_real_time()? {
        // To poll would keep the CPU from whoever is more urgent.
        for _ in 0..10 {
            exchange()?;
        }
        check_eq!(system::counter(0, "busy_polls")?, before);
        return Ok(());
    }
    eventually("a reader finds data by looking", || {
        exchange()?;
        Ok(system::counter(0, "busy_polls")? > before)
    })
}

fn interrupts() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let device = system::device_name()?;
    let (lines_before, _) = system::interrupts(&device)?;
    let before = system::counter(0, "interrupts")?;
    let bytes_before = system::counter(0, "rx_bytes")?;
    for _ in 0..50 {
        fifo.write_all(b"ping")?;
        // A read might look for it.
        let ready = fifo.poll_for(PollFlags::POLLIN, PollTimeout::from(10_000_u16))?;
        check!(ready.contains(PollFlags::POLLIN));
        fifo.read_exact(4)?;
    }
    check!(system::counter(0, "interrupts")? >= before + 50);
    check!(system::interrupts(&device)?.0 >= lines_before + 50);
    check_eq!(system::counter(0, "rx_bytes")?, bytes_before + 200);
    check_eq!(system::counter(0, "protocol_errors")?, 0);
    Ok(())
}
