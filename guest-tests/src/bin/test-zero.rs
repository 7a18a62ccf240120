// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The chapter's zero device behind an interrupt, and its counterpart. Runs with
//! `--fifo zero --fifo null`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use globalfifo_guest_tests::aio::{Context, Iocb, PREADV};
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, pattern};
use globalfifo_guest_tests::harness::{self, SOON, Test, eventually};
use globalfifo_guest_tests::posix_aio::Control;
use globalfifo_guest_tests::signals::{self, POLL_IN, POLL_OUT};
use globalfifo_guest_tests::ways::{WAYS, Way, Ways};
use globalfifo_guest_tests::{check, check_eq, system};
use nix::errno::Errno;
use nix::libc::{self, O_NONBLOCK, iovec};
use nix::poll::{PollFlags, PollTimeout};

const TESTS: &[Test] = &[
    ("zero_gives_zeros_for_ever_every_way", zeros_every_way),
    ("zero_gives_zeros_through_every_segment", zeros_in_vectors),
    ("zero_gives_a_megabyte_to_one_reader", zeros_megabyte),
    ("zero_through_posix_aio", zeros_posix_aio),
    ("zero_is_readable_and_writable", zero_poll),
    ("zero_holds_no_more_than_its_capacity", zero_capacity),
    ("zero_takes_writes_and_they_vanish", zero_writes),
    ("zero_goes_on_after_clear", zero_clear),
    ("zero_signals_its_reader", zero_signals),
    ("zero_goes_on_after_unbind_and_bind", zero_unbind),
    ("null_takes_everything_every_way", null_every_way),
    ("null_takes_a_megabyte_from_one_writer", null_megabyte),
    ("null_has_nothing_to_read", null_reads),
    ("null_is_writable_and_never_readable", null_poll),
    ("null_signals_its_space", null_signals),
    ("null_goes_on_after_clear_and_fsync", null_clear),
    ("neither_breaks_the_protocol", no_errors),
];

const ZERO: &str = "/dev/globalfifo0";
const NULL: &str = "/dev/globalfifo1";

/// Long enough for what should not happen to have happened.
const QUIET: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    harness::main(TESTS)
}

fn open(path: &str) -> Result<Fifo> {
    Fifo::open_at(path, 0)
}

/// Waits until it is full. The device hears of reads only when they make half of it, or all.
fn until_full(fifo: &Fifo) -> Result<()> {
    eventually("it is full", || {
        let full = fifo.level()? == CAPACITY;
        if !full {
            fifo.read(CAPACITY)?;
        }
        Ok(full)
    })
}

fn readable(fifo: &Fifo) -> Result<()> {
    let events = fifo.poll_for(PollFlags::POLLIN, PollTimeout::from(10_000u16))?;
    check_eq!(events, PollFlags::POLLIN);
    Ok(())
}

fn zeros_every_way() -> Result<()> {
    let fifo = open(ZERO)?;
    let mut ways = Ways::new()?;
    for way in WAYS {
        let mut total = 0;
        while total < 50_000 {
            if way == Way::Nowait {
                readable(&fifo)?;
            }
            let bytes = ways
                .read(way, &fifo, 3001, SOON)?
                .with_context(|| format!("{way:?}"))?;
            check!(!bytes.is_empty() && bytes.iter().all(|byte| *byte == 0));
            total += bytes.len();
        }
    }
    Ok(())
}

fn zeros_in_vectors() -> Result<()> {
    // Listing 9.16: every segment of a vector is filled, also those that held something else.
    let fifo = open(ZERO)?;
    let context = Context::new(4)?;
    for sizes in [[1, 0, 7, 1000], [0, 0, 0, 1], [4096, 4096, 1, 3]] {
        until_full(&fifo)?;
        let mut rooms: Vec<Vec<u8>> = sizes.iter().map(|size| vec![0xAA; *size]).collect();
        let vectors: Vec<iovec> = rooms
            .iter_mut()
            .map(|room| iovec {
                iov_base: room.as_mut_ptr().cast(),
                iov_len: room.len(),
            })
            .collect();
        let request = Iocb::new(&fifo, PREADV, vectors.as_ptr() as u64, vectors.len());
        context.submit(&mut { request })?;
        let got = usize::try_from(context.event()?.res)?;
        check_eq!(got, sizes.iter().sum::<usize>().min(CAPACITY));
        let all = rooms.concat();
        let (filled, rest) = all.split_at(got);
        check!(filled.iter().all(|byte| *byte == 0));
        check!(rest.iter().all(|byte| *byte == 0xAA));
    }
    Ok(())
}

fn zeros_megabyte() -> Result<()> {
    let bytes = open(ZERO)?.read_exact(1 << 20)?;
    check!(bytes.iter().all(|byte| *byte == 0));
    Ok(())
}

fn zeros_posix_aio() -> Result<()> {
    let fifo = open(ZERO)?;
    for _ in 0..20 {
        let mut read = Control::with(fifo.fd(), vec![0xAA; 1000]);
        read.read()?;
        let got = read.wait()?;
        check!(got > 0 && read.bytes().iter().take(got).all(|byte| *byte == 0));
    }
    Ok(())
}

fn zero_poll() -> Result<()> {
    let fifo = Fifo::open_at(ZERO, O_NONBLOCK)?;
    for _ in 0..20 {
        readable(&fifo)?;
        check!(fifo.events()?.contains(PollFlags::POLLOUT));
        fifo.drain()?;
    }
    Ok(())
}

fn zero_capacity() -> Result<()> {
    let fifo = open(ZERO)?;
    until_full(&fifo)?;
    check_eq!(fifo.level()?, CAPACITY);
    check_eq!(fifo.read(2 * CAPACITY)?.len(), CAPACITY);
    fifo.wait_level(CAPACITY)?;
    check_eq!(fifo.level()?, CAPACITY);
    Ok(())
}

fn zero_writes() -> Result<()> {
    let fifo = open(ZERO)?;
    let mut ways = Ways::new()?;
    for way in WAYS {
        for round in 0..20 {
            let bytes = pattern(round, 1000);
            let outcome = ways.write(way, &fifo, &bytes, SOON)?;
            check!(matches!(outcome, Ok(1..=1000)) || outcome == Err(Errno::EAGAIN));
        }
    }
    // Nothing of it comes back.
    check!(fifo.read_exact(100_000)?.iter().all(|byte| *byte == 0));
    Ok(())
}

fn zero_clear() -> Result<()> {
    let fifo = open(ZERO)?;
    for _ in 0..50 {
        fifo.clear()?;
        check_eq!(fifo.read_exact(100)?, vec![0; 100]);
        fifo.write_all(b"x")?;
    }
    until_full(&fifo)?;
    check_eq!(fifo.level()?, CAPACITY);
    Ok(())
}

fn zero_signals() -> Result<()> {
    let signal = libc::SIGRTMIN() + 3;
    signals::block(signal)?;
    let fifo = Fifo::open_at(ZERO, O_NONBLOCK)?;
    until_full(&fifo)?;
    fifo.enable_signals(Some(signal))?;
    // Full, so nothing arrives.
    check_eq!(signals::take(signal, QUIET)?, None);
    for _ in 0..10 {
        fifo.drain()?;
        let got = signals::take(signal, SOON)?.context("no signal")?;
        check_eq!((got.code, got.fd), (POLL_IN, fifo.fd()));
    }
    Ok(())
}

fn zero_unbind() -> Result<()> {
    let device = system::device_name()?;
    system::unbind(&device)?;
    system::bind(&device)?;
    for path in [ZERO, NULL] {
        system::wait_for_file(path, true)?;
    }
    check_eq!(open(ZERO)?.read_exact(10_000)?, vec![0; 10_000]);
    open(NULL)?.write_all(&[1; 10_000])
}

fn null_every_way() -> Result<()> {
    let fifo = open(NULL)?;
    let mut ways = Ways::new()?;
    for way in WAYS {
        let mut total = 0;
        while total < 50_000 {
            if way == Way::Nowait {
                let events = fifo.poll_for(PollFlags::POLLOUT, PollTimeout::from(10_000u16))?;
                check_eq!(events, PollFlags::POLLOUT);
            }
            let count = ways
                .write(way, &fifo, &pattern(1, 3001), SOON)?
                .with_context(|| format!("{way:?}"))?;
            check!((1..=3001).contains(&count));
            total += count;
        }
    }
    check_eq!(fifo.level()?, 0);
    Ok(())
}

fn null_megabyte() -> Result<()> {
    let fifo = open(NULL)?;
    let before = system::counter(1, "tx_bytes")?;
    fifo.write_all(&pattern(2, 1 << 20))?;
    nix::unistd::fsync(&fifo)?;
    check_eq!(system::counter(1, "tx_bytes")?, before + (1 << 20));
    check_eq!(system::counter(1, "rx_bytes")?, 0);
    Ok(())
}

fn null_reads() -> Result<()> {
    let fifo = open(NULL)?;
    let nonblocking = Fifo::open_at(NULL, O_NONBLOCK)?;
    let mut ways = Ways::new()?;
    fifo.write_all(b"swallowed")?;
    for way in WAYS {
        // Those that can be cancelled wait; the others must not.
        let (file, expected) = match way {
            Way::Aio | Way::AioVector | Way::Uring | Way::UringVector => (&fifo, Errno::ECANCELED),
            Way::Call | Way::Vector | Way::Nowait | Way::Splice => (&nonblocking, Errno::EAGAIN),
        };
        check_eq!(ways.read(way, file, 100, QUIET)?, Err(expected));
    }
    Ok(())
}

fn null_poll() -> Result<()> {
    let fifo = Fifo::open_at(NULL, O_NONBLOCK)?;
    for _ in 0..20 {
        // Until there is no space for a moment, or ten times its capacity has gone through.
        for _ in 0..40 {
            check!(!fifo.events()?.contains(PollFlags::POLLIN));
            if fifo.write(&[1; 1024]) != Ok(1024) {
                break;
            }
        }
        let events = fifo.poll_for(PollFlags::POLLOUT, PollTimeout::from(10_000u16))?;
        check_eq!(events, PollFlags::POLLOUT);
    }
    let quiet = PollTimeout::try_from(QUIET)?;
    check_eq!(fifo.poll_for(PollFlags::POLLIN, quiet)?, PollFlags::empty());
    Ok(())
}

fn null_signals() -> Result<()> {
    let signal = libc::SIGRTMIN() + 3;
    signals::block(signal)?;
    let fifo = Fifo::open_at(NULL, O_NONBLOCK)?;
    fifo.enable_signals(Some(signal))?;
    // Filled faster than the device gives new space, sooner or later.
    let mut full = 0;
    eventually("POLL_OUT after full", || {
        // A write of all the space, and one more before the device can have answered.
        full += (0..4)
            .filter(|_| fifo.write(&[1; CAPACITY]) == Err(Errno::EAGAIN))
            .count();
        let got = signals::take(signal, Duration::ZERO)?;
        Ok(full > 0 && got.is_some_and(|got| got.code == POLL_OUT && got.fd == fifo.fd()))
    })
}

fn null_clear() -> Result<()> {
    let fifo = open(NULL)?;
    for round in 0..50 {
        fifo.write_all(&pattern(round, 3000))?;
        if round % 2 == 0 {
            fifo.clear()?;
        } else {
            nix::unistd::fsync(&fifo)?;
        }
        check_eq!(fifo.level()?, 0);
    }
    Ok(())
}

fn no_errors() -> Result<()> {
    for index in 0..2 {
        check_eq!(system::counter(index, "protocol_errors")?, 0);
        check!(system::counter(index, "interrupts")? > 0);
    }
    Ok(())
}
