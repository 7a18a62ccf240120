// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device that goes wrong, FIFO by FIFO in its own way: which errno the driver gives, and that it
//! works again when the fault is over or the device is bound anew.
//!
//! Runs with the FIFOs and faults of the suite "faults" (suites.toml), whose order is [`On`]'s.

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use globalfifo_guest_tests::aio;
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, pattern};
use globalfifo_guest_tests::harness::{self, SOON, Test, eventually};
use globalfifo_guest_tests::{check, check_eq, system};
use nix::errno::Errno;
use nix::libc::O_NONBLOCK;
use nix::poll::{PollFlags, PollTimeout};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, fsync};

const TESTS: &[Test] = &[
    ("a_lost_interrupt_costs_a_bounded_delay", lost_interrupts),
    ("lost_answers_to_requests_are_found", lost_answers),
    ("late_interrupts_lose_nothing", || works(On::Delayed)),
    ("duplicate_interrupts_change_nothing", || {
        works(On::Duplicate)
    }),
    ("short_messages_change_nothing", || works(On::Short)),
    ("tx_buffers_may_come_back_in_any_order", || {
        works(On::ReorderedTx)
    }),
    ("the_used_length_of_tx_buffers_does_not_matter", || {
        works(On::WrongLengthTx)
    }),
    ("rx_messages_out_of_order_are_eio", || {
        fails(On::ReorderedRx)
    }),
    ("a_wrong_used_length_of_rx_is_eio", || {
        fails(On::WrongLengthRx)
    }),
    ("a_wrong_used_id_of_rx_is_eio", || fails(On::WrongIdRx)),
    ("a_wrong_used_id_of_tx_is_eio", || fails(On::WrongIdTx)),
    ("a_wrong_used_index_of_rx_is_eio", || {
        fails(On::WrongIndexRx)
    }),
    ("a_wrong_used_index_of_tx_is_eio", || {
        fails(On::WrongIndexTx)
    }),
    ("more_bytes_than_the_fifo_holds_are_eio", || {
        fails(On::Overrun)
    }),
    ("credit_above_the_capacity_is_eio", || {
        fails(On::CreditOverrun)
    }),
    ("a_device_error_is_eio", || fails(On::DeviceError)),
    (
        "a_device_error_ends_a_pending_aio_read_with_eio",
        pending_aio,
    ),
    ("a_queue_that_stalls_delays_fsync", stall_for_a_time),
    ("a_queue_that_is_dead_fails_fsync_in_time", dead_tx),
    ("a_read_of_a_dead_queue_can_be_interrupted", dead_rx),
    ("a_slow_device_is_only_slow", slow),
    ("garbage_events_do_no_harm_beyond_eio", garbage_events),
    (
        "a_hang_up_is_epipe_and_end_of_file_until_it_is_over",
        hang_up,
    ),
];

/// What is wrong with which FIFO.
#[derive(Clone, Copy)]
enum On {
    Nothing,
    Dropped,
    Delayed,
    Duplicate,
    Short,
    ReorderedTx,
    WrongLengthTx,
    ReorderedRx,
    WrongLengthRx,
    WrongIdRx,
    WrongIdTx,
    WrongIndexRx,
    WrongIndexTx,
    Overrun,
    CreditOverrun,
    DeviceError,
    DeviceErrorAio,
    Stalled,
    DeadTx,
    DeadRx,
    Slow,
    Garbage,
    HangUp,
}

/// How long it takes until a lost interrupt is noticed: the driver's promise (docs/driver.md), and
/// what an emulated machine may add.
const LOST: Duration = Duration::from_millis(1100 + 900);

/// More attempts than any fault of the suite lets pass. (They let many pass, for each time that the
/// device is bound anew is an opportunity for all of them.)
const ATTEMPTS: u32 = 600;

fn main() -> ExitCode {
    harness::main(TESTS)
}

fn open(on: On, flags: i32) -> Result<Fifo> {
    let path = format!("/dev/globalfifo{}", on as usize);
    system::wait_for_file(&path, true)?;
    Fifo::open_at(&path, flags)
}

/// Takes the device away and gives it back: that resets it.
fn bind_anew() -> Result<()> {
    let device = system::device_name()?;
    system::unbind(&device)?;
    system::bind(&device)?;
    drop(open(On::HangUp, 0)?);
    Ok(())
}

/// Writes `bytes` and reads them back, without ever waiting longer than [`SOON`].
fn round_trip(fifo: &Fifo, bytes: &[u8]) -> Result<(), Errno> {
    let sent = fifo.write(bytes)?;
    let mut came = Vec::new();
    while came.len() < sent {
        let ready = fifo
            .poll_for(
                PollFlags::POLLIN,
                PollTimeout::try_from(SOON).unwrap_or(PollTimeout::MAX),
            )
            .map_err(|_| Errno::EINVAL)?;
        if ready.is_empty() {
            return Err(Errno::ETIMEDOUT);
        }
        came.extend(fifo.read(sent - came.len())?);
    }
    if bytes.starts_with(&came) {
        Ok(())
    } else {
        Err(Errno::EBADMSG)
    }
}

/// Bytes of all lengths up to the capacity go through unharmed.
fn check_works(on: On) -> Result<()> {
    let fifo = open(on, O_NONBLOCK)?;
    fifo.clear().context("FIFO_CLEAR")?;
    for (seed, length) in [1, 100, 1000, CAPACITY].into_iter().enumerate() {
        let bytes = pattern(u64::try_from(seed)?, length);
        round_trip(&fifo, &bytes).with_context(|| format!("{length} bytes"))?;
    }
    Ok(())
}

fn works(on: On) -> Result<()> {
    for _ in 0..10 {
        check_works(on)?;
    }
    Ok(())
}

/// Uses the FIFO until it fails; the error.
fn until_error(fifo: &Fifo) -> Result<Errno> {
    let bytes = pattern(3, 60_000);
    for _ in 0..ATTEMPTS {
        match fifo.write(&bytes) {
            Ok(_) | Err(Errno::EAGAIN) => {}
            Err(errno) => return Ok(errno),
        }
        let events = fifo.poll_for(PollFlags::POLLIN, PollTimeout::from(300_u16))?;
        loop {
            match fifo.read(bytes.len()) {
                Ok(_) => {}
                Err(Errno::EAGAIN) if !events.contains(PollFlags::POLLERR) => break,
                Err(errno) => return Ok(errno),
            }
        }
    }
    bail!("it does not fail")
}

/// The FIFO fails with EIO, no other one notices, and it works when the device is bound anew.
fn fails(on: On) -> Result<()> {
    let fifo = open(on, O_NONBLOCK)?;
    check_eq!(until_error(&fifo)?, Errno::EIO);
    let events = fifo.events()?;
    check!(events.contains(PollFlags::POLLERR));
    check_eq!(fifo.read(1), Err(Errno::EIO));
    check_eq!(fifo.write(b"x"), Err(Errno::EIO));
    check_works(On::Nothing).context("another FIFO")?;
    bind_anew()?;
    check_eq!(fifo.read(1), Err(Errno::ENODEV));
    if matches!(on, On::CreditOverrun) {
        check_eq!(open(on, O_NONBLOCK)?.write(b"x"), Ok(1));
        return Ok(());
    }
    check_works(on).context("bound anew")
}

/// DRV-18: one interrupt in ten does not come. The bytes do, after a second at most.
fn lost_interrupts() -> Result<()> {
    let fifo = open(On::Dropped, 0)?;
    fifo.clear()?;
    let missed = || system::counter(On::Dropped as usize, "missed_interrupts");
    let before = missed()?;
    let mut slowest = Duration::ZERO;
    for round in 0..100_u8 {
        let started = Instant::now();
        fifo.write_all(&[round])?;
        // A read might look for it, and need no interrupt.
        fifo.poll_for(PollFlags::POLLIN, PollTimeout::from(10_000_u16))?;
        check_eq!(fifo.read_exact(1)?, [round]);
        slowest = slowest.max(started.elapsed());
    }
    check!(missed()? > before);
    check!(slowest > Duration::from_millis(100));
    check!(slowest < LOST);
    Ok(())
}

/// DRV-16, DRV-18: interrupts of the control queue are lost too. A request polls for its response.
fn lost_answers() -> Result<()> {
    let fifo = open(On::Nothing, 0)?;
    let mut slowest = Duration::ZERO;
    for _ in 0..30 {
        let started = Instant::now();
        fifo.clear()?;
        slowest = slowest.max(started.elapsed());
    }
    check!(slowest > Duration::from_millis(50));
    check!(slowest < LOST);
    Ok(())
}

fn pending_aio() -> Result<()> {
    let fifo = open(On::DeviceErrorAio, O_NONBLOCK)?;
    fifo.clear()?;
    let blocking = open(On::DeviceErrorAio, 0)?;
    let context = aio::Context::new(8)?;
    let mut buffer = vec![0; 2 * CAPACITY];
    let mut errors = 0;
    for _ in 0..ATTEMPTS {
        let mut read = aio::Iocb::read(&blocking, &mut buffer);
        context.submit(&mut read).context("io_submit")?;
        match fifo.write(b"x") {
            Ok(1) | Err(Errno::EIO) => {}
            other => bail!("write gave {other:?}"),
        }
        match context.event()?.res {
            1 => {}
            error => {
                check_eq!(error, -i64::from(Errno::EIO as i32));
                errors += 1;
                break;
            }
        }
    }
    check_eq!(errors, 1);
    bind_anew()?;
    check_works(On::DeviceErrorAio)
}

/// Times an fsync after a written byte until one is out of the ordinary.
fn unusual_fsync(fifo: &Fifo) -> Result<(Result<(), Errno>, Duration)> {
    for _ in 0..ATTEMPTS {
        fifo.write_all(b"x")?;
        let started = Instant::now();
        let synced = fsync(fifo);
        let took = started.elapsed();
        if synced.is_err() || took > Duration::from_secs(1) {
            return Ok((synced, took));
        }
        check_eq!(fifo.read_exact(1)?, b"x");
    }
    bail!("every fsync was quick")
}

fn stall_for_a_time() -> Result<()> {
    let fifo = open(On::Stalled, 0)?;
    fifo.clear()?;
    let (synced, took) = unusual_fsync(&fifo)?;
    check_eq!(synced, Ok(()));
    check!(took < Duration::from_secs(5));
    check_eq!(fifo.read_exact(1)?, b"x");
    check_works(On::Stalled)
}

/// fsync gives up after five seconds; what was written is not lost, for the device takes it when it is
/// reset.
fn dead_tx() -> Result<()> {
    let fifo = open(On::DeadTx, 0)?;
    fifo.clear()?;
    let (synced, took) = unusual_fsync(&fifo)?;
    check_eq!(synced, Err(Errno::EIO));
    check!(took < Duration::from_secs(7));
    drop(fifo);
    bind_anew()?;
    let fifo = open(On::DeadTx, O_NONBLOCK)?;
    fifo.wait_level(1)?;
    check_eq!(fifo.drain()?, b"x");
    check_works(On::DeadTx)
}

fn dead_rx() -> Result<()> {
    let fifo = open(On::DeadRx, O_NONBLOCK)?;
    fifo.clear()?;
    let mut dead = false;
    for _ in 0..ATTEMPTS {
        check_eq!(fifo.write(b"x"), Ok(1));
        let ready = fifo.poll_for(PollFlags::POLLIN, PollTimeout::from(2000_u16))?;
        if ready.is_empty() {
            dead = true;
            break;
        }
        check_eq!(fifo.read(1), Ok(b"x".to_vec()));
    }
    check!(dead);
    let path = format!("/dev/globalfifo{}", On::DeadRx as usize);
    let mut reader = Command::new("cat")
        .arg(path)
        .stdout(Stdio::null())
        .spawn()?;
    let pid = i32::try_from(reader.id())?;
    eventually("cat reads", || system::sleeps_in(pid, nix::libc::SYS_read))?;
    kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    eventually("cat ends", || Ok(reader.try_wait()?.is_some()))?;
    drop(fifo);
    bind_anew()?;
    let fifo = open(On::DeadRx, O_NONBLOCK)?;
    fifo.wait_level(1)?;
    check_eq!(fifo.drain()?, b"x");
    check_works(On::DeadRx)
}

fn slow() -> Result<()> {
    let fifo = open(On::Slow, O_NONBLOCK)?;
    fifo.clear()?;
    let started = Instant::now();
    for seed in 0..10 {
        round_trip(&fifo, &pattern(seed, 100))?;
    }
    check!(started.elapsed() > Duration::from_millis(500));
    Ok(())
}

/// An event that says anything may fail the FIFO; nothing worse, and the next device is a new one.
fn garbage_events() -> Result<()> {
    let fifo = open(On::Garbage, O_NONBLOCK)?;
    fifo.clear()?;
    let mut outcome = Ok(());
    for _ in 0..ATTEMPTS {
        outcome = round_trip(&fifo, b"x");
        if outcome.is_err() {
            break;
        }
    }
    check!(matches!(outcome, Ok(()) | Err(Errno::EIO | Errno::EPIPE)));
    drop(fifo);
    bind_anew()?;
    check_works(On::Garbage)
}

fn hang_up() -> Result<()> {
    let fifo = open(On::HangUp, O_NONBLOCK)?;
    fifo.clear()?;
    let mut hung_up = false;
    for _ in 0..ATTEMPTS {
        // The byte itself may still get through.
        match fifo.write(b"x") {
            Ok(1) | Err(Errno::EPIPE) => {}
            other => bail!("write gave {other:?}"),
        }
        let events = fifo.poll_for(PollFlags::POLLIN, PollTimeout::from(300_u16))?;
        hung_up = fifo.events()?.contains(PollFlags::POLLHUP);
        if hung_up {
            break;
        }
        check!(events.contains(PollFlags::POLLIN));
        fifo.drain()?;
    }
    check!(hung_up);
    check_eq!(fifo.write(b"x"), Err(Errno::EPIPE));
    let left = fifo.drain()?;
    check!(left.is_empty() || left == b"x");
    check_eq!(fifo.read(1), Ok(vec![]));
    eventually("the hang-up ends", || {
        Ok(!fifo.events()?.contains(PollFlags::POLLHUP))
    })?;
    check_works(On::HangUp)
}
