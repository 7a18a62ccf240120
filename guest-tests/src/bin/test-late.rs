// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device that is late: stopped in a debugger, or on a busy host.
//!
//! Runs with the FIFOs and faults of the suite "late" (suites.toml), whose order is [`On`]'s. A device that fails is tested in
//! test-faults.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use globalfifo_guest_tests::aio::{Context, Iocb};
use globalfifo_guest_tests::fifo::{Fifo, pattern};
use globalfifo_guest_tests::forked::{Child, Parent};
use globalfifo_guest_tests::harness::{self, SOON, Test, eventually, limit};
use globalfifo_guest_tests::{check, check_eq, system};
use nix::errno::Errno;
use nix::libc::{self, O_DSYNC, O_NONBLOCK, O_SYNC, c_int};
use nix::poll::{PollFlags, PollTimeout};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{fsync, gettid};

const TESTS: &[Test] = &[
    (
        "a_megabyte_is_written_to_a_device_that_stops_for_eight_seconds",
        megabyte,
    ),
    ("sigkill_ends_a_writer_whose_device_has_stopped", killed),
    ("a_write_does_not_wait_for_a_device_that_is_late", plain),
    ("a_write_with_o_dsync_waits_until_the_device_has_it", || {
        synced(On::ODsync, O_DSYNC, 0)
    }),
    ("a_write_with_o_sync_waits_until_the_device_has_it", || {
        synced(On::OSync, O_SYNC, 0)
    }),
    (
        "a_write_with_rwf_dsync_waits_until_the_device_has_it",
        || synced(On::RwfDsync, 0, RWF_DSYNC),
    ),
    (
        "an_asynchronous_write_with_rwf_dsync_ends_when_the_device_has_it",
        synced_request,
    ),
    (
        "fsync_of_a_late_device_is_not_interrupted_by_a_handler",
        uninterrupted,
    ),
    (
        "a_blocked_read_ends_when_a_clear_discards_all_that_was_to_come",
        end_of_data,
    ),
];

fn main() -> ExitCode {
    harness::main(TESTS)
}

/// What is late on which FIFO.
#[derive(Clone, Copy)]
enum On {
    /// tx, for eight seconds; a megabyte, loopback.
    Stopped,
    /// tx, for good; a megabyte.
    Dead,
    /// tx, for two seconds.
    Plain,
    /// The same.
    ODsync,
    /// The same.
    OSync,
    /// The same.
    RwfDsync,
    /// The same.
    Request,
    /// The same.
    Fsync,
    /// rx, for good; the input has ended.
    NoData,
}

/// `RWF_DSYNC`.
const RWF_DSYNC: c_int = 2;
/// For how long most of them are late, at least.
const LATE: Duration = Duration::from_millis(1500);
/// Calls after which every fault of the suite has struck.
const ATTEMPTS: u32 = 300;
/// What a large write has.
const MEGABYTE: usize = 1 << 20;

fn open(on: On, flags: c_int) -> Result<Fifo> {
    Fifo::open_at(&format!("/dev/globalfifo{}", on as usize), flags)
}

fn megabyte() -> Result<()> {
    let fifo = open(On::Stopped, 0)?;
    let mut longest = Duration::ZERO;
    for round in 0..20 {
        let bytes = pattern(round, MEGABYTE);
        let started = Instant::now();
        let written = fifo.write(&bytes).context("a large write")?;
        longest = longest.max(started.elapsed());
        check!(bytes.get(..written) == Some(&fifo.read_exact(written)?[..]));
        if longest > Duration::from_secs(6) {
            return Ok(());
        }
    }
    bail!("no write met the stop: the longest took {longest:?}")
}

fn killed() -> Result<()> {
    let mut writer = Child::start(|parent: &Parent| {
        let fifo = open(On::Dead, 0)?;
        let bytes = pattern(1, MEGABYTE);
        loop {
            fifo.write(&bytes)?;
            parent.say(b'w')?;
        }
    })?;
    check_eq!(writer.says_within(SOON)?, Some(b'w'));
    let stuck = Duration::from_secs(2);
    for _ in 0..ATTEMPTS {
        // One that is silent and awake is only slow.
        if writer.says_within(stuck)?.is_none()
            && system::sleeps_in(writer.pid().as_raw(), libc::SYS_write)?
        {
            writer.kill()?;
            check!(writer.over_within(Duration::from_secs(1))?.is_some());
            return Ok(());
        }
    }
    bail!("the device does not stop")
}

/// The longest of [`ATTEMPTS`] writes of a byte by `write`.
fn longest(mut write: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    for _ in 0..ATTEMPTS {
        let started = Instant::now();
        write()?;
        longest = longest.max(started.elapsed());
        if longest > LATE {
            break;
        }
    }
    Ok(longest)
}

/// A write that is late is followed by an fsync that is; the write itself is not.
fn plain() -> Result<()> {
    let fifo = open(On::Plain, 0)?;
    let mut longest_write = Duration::ZERO;
    let longest_of_both = longest(|| {
        let started = Instant::now();
        check_eq!(fifo.write(b"x"), Ok(1));
        longest_write = longest_write.max(started.elapsed());
        Ok(fsync(&fifo)?)
    })?;
    check!(longest_of_both > LATE);
    check!(longest_write < LATE / 2);
    Ok(())
}

/// A byte by `pwritev2(2)`.
fn write_with(fifo: &Fifo, flags: c_int) -> Result<(), Errno> {
    let part = libc::iovec {
        iov_base: b"x".as_ptr().cast_mut().cast(),
        iov_len: 1,
    };
    // SAFETY: One vector of one byte that is only read; the position means nothing.
    let written = unsafe {
        libc::syscall(
            libc::SYS_pwritev2,
            fifo.fd(),
            &raw const part,
            1,
            -1_i64,
            -1_i64,
            flags,
        )
    };
    Errno::result(written).map(drop)
}

fn synced(on: On, open_flags: c_int, flags: c_int) -> Result<()> {
    let fifo = open(on, open_flags)?;
    let longest = longest(|| Ok(write_with(&fifo, flags)?))?;
    if longest <= LATE {
        bail!("the device was two seconds late, the longest write took {longest:?}");
    }
    Ok(())
}

fn synced_request() -> Result<()> {
    let fifo = open(On::Request, 0)?;
    let context = Context::new(4)?;
    let longest = longest(|| {
        let mut write = Iocb::write(&fifo, b"x");
        write.rw_flags = RWF_DSYNC;
        context.submit(&mut write)?;
        check_eq!(context.event()?.res, 1);
        Ok(())
    })?;
    check!(longest > LATE);
    Ok(())
}

/// Signals that were handled.
static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: c_int) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

fn uninterrupted() -> Result<()> {
    let action = SigAction::new(
        SigHandler::Handler(count),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: The handler adds to an integer.
    unsafe { sigaction(Signal::SIGALRM, &action) }?;
    let fifo = open(On::Fsync, 0)?;
    // A signal a tenth of a second, while nothing is expected to take as long.
    let interval = libc::timeval {
        tv_sec: 0,
        tv_usec: 100_000,
    };
    let timer = libc::itimerval {
        it_interval: interval,
        it_value: interval,
    };
    // SAFETY: The structure is valid, and the old one not asked for.
    let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
    check_eq!(set, 0);
    let mut handled = 0;
    for _ in 0..ATTEMPTS {
        check_eq!(fifo.write(b"x"), Ok(1));
        let (before, started) = (HANDLED.load(Ordering::SeqCst), Instant::now());
        check_eq!(fsync(&fifo), Ok(()));
        handled = HANDLED.load(Ordering::SeqCst) - before;
        if started.elapsed() > LATE {
            break;
        }
    }
    // Signals that came meanwhile are handled when it is over.
    check!(handled > 0);
    Ok(())
}

/// The device said where the data ends, and some of it is still to come when a clear discards it: that is the end.
fn end_of_data() -> Result<()> {
    let fifo = open(On::NoData, O_NONBLOCK)?;
    let told = fifo.poll_for(
        PollFlags::from_bits_retain(libc::POLLRDHUP),
        PollTimeout::from(10_000_u16),
    )?;
    check!(told.contains(PollFlags::from_bits_retain(libc::POLLRDHUP)));
    check_eq!(fifo.read(1), Err(Errno::EAGAIN));
    let (tell, tid) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || -> Result<Vec<u8>> {
        let fifo = open(On::NoData, 0)?;
        tell.send(gettid().as_raw())?;
        Ok(fifo.read(10)?)
    });
    let tid = tid.recv()?;
    eventually("the reader sleeps", || {
        system::sleeps_in(tid, libc::SYS_read)
    })?;
    fifo.clear()?;
    let cleared = Instant::now();
    while !reader.is_finished() {
        if cleared.elapsed() > limit(Duration::from_secs(3)) {
            bail!("a read sleeps on, while another gives {:?}", fifo.read(10));
        }
        thread::sleep(Duration::from_millis(5));
    }
    check_eq!(
        reader.join().map_err(|_| anyhow::anyhow!("panic"))??,
        Vec::<u8>::new()
    );
    check!(fifo.events()?.contains(PollFlags::POLLIN));
    Ok(())
}
