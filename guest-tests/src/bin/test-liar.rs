// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device that lies in every field it can: whatever it says, each call ends in time, with EIO at
//! worst, and an honest device works afterwards. That the kernel has nothing to complain of is a test
//! of the suite.
//!
//! Runs with the faults of the suite "liar" (suites.toml): liars with one seed after another, each
//! for [`WINDOW`], [`SEEDS`] of them.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use globalfifo_guest_tests::aio;
use globalfifo_guest_tests::fifo::{Fifo, pattern};
use globalfifo_guest_tests::harness::{self, Test, eventually};
use globalfifo_guest_tests::{check, check_eq, system};
use nix::errno::Errno;
use nix::libc::O_NONBLOCK;
use nix::poll::{PollFlags, PollTimeout};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, fsync};

const TESTS: &[Test] = &[
    ("every_call_ends_with_eio_at_worst", survive),
    ("an_honest_device_works_afterwards", honest),
];

/// How long each liar lies, and how many there are.
const WINDOW: Duration = Duration::from_secs(10);
/// See [`WINDOW`].
const SEEDS: u32 = 4;

/// Kinds of the suite's FIFOs, in their order.
const FIFOS: [&str; 3] = ["loopback", "zero", "null"];

/// The longest that a call may take: a request's ten seconds, after one that somebody else made, on an
/// emulated machine.
const LONGEST: Duration = Duration::from_secs(25);

/// For everything together; a test that hangs is ended then.
const LIMIT: Duration = Duration::from_secs(240);

/// How often a call gave EIO or EPIPE: an honest device never makes it.
static TROUBLE: AtomicU32 = AtomicU32::new(0);

fn main() -> ExitCode {
    let filters: Vec<String> = env::args().skip(1).collect();
    harness::main_with(TESTS, &filters, LIMIT, &[], "")
}

fn path(index: usize) -> String {
    format!("/dev/globalfifo{index}")
}

/// Whether the driver has a device now; false too when probing found out that it lies.
fn bind() -> Result<bool> {
    let device = system::fifo_device()?;
    if system::device_name().is_ok() {
        return Ok(true);
    }
    let started = Instant::now();
    let bound = system::bind(&device);
    check!(started.elapsed() < LONGEST * 4);
    match bound {
        Ok(()) => Ok(true),
        Err(error) => {
            let errno = error
                .downcast_ref::<std::io::Error>()
                .and_then(std::io::Error::raw_os_error);
            let refused = [
                Errno::EIO,
                Errno::EINVAL,
                Errno::ENOENT,
                Errno::ENXIO,
                Errno::ENODEV,
            ];
            match errno.map(Errno::from_raw) {
                Some(errno) if refused.contains(&errno) => Ok(false),
                _ => Err(error),
            }
        }
    }
}

fn unbind() -> Result<()> {
    match system::device_name() {
        Ok(device) => system::unbind(&device),
        Err(_) => Ok(()),
    }
}

/// Fails the test if a call gives what no device may make it give, or takes too long.
fn allowed<T>(what: &str, call: impl FnOnce() -> Result<T, Errno>) -> Result<Option<T>> {
    let started = Instant::now();
    let outcome = call();
    let took = started.elapsed();
    if took > LONGEST {
        bail!("{what} took {took:?}");
    }
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(Errno::EAGAIN) => Ok(None),
        Err(Errno::EIO | Errno::EPIPE) => {
            TROUBLE.fetch_add(1, Ordering::Relaxed);
            Ok(None)
        }
        Err(errno) => bail!("{what} gave {errno}"),
    }
}

/// Every kind of call on one FIFO.
fn use_fifo(index: usize) -> Result<()> {
    if !Path::new(&path(index)).exists() {
        return Ok(());
    }
    let fifo = Fifo::open_at(&path(index), O_NONBLOCK)?;
    let blocking = Fifo::open_at(&path(index), 0)?;
    let bytes = pattern(7, 5000);
    for _ in 0..5 {
        allowed("write", || fifo.write(&bytes))?;
        fifo.poll_for(PollFlags::POLLIN, PollTimeout::from(20_u16))?;
        allowed("read", || fifo.read(3000))?;
    }
    allowed("FIFO_CLEAR", || fifo.clear())?;
    use_aio(&blocking)?;
    let mut reader = Command::new("cat")
        .arg(path(index))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    sleep(Duration::from_millis(100));
    kill(Pid::from_raw(i32::try_from(reader.id())?), Signal::SIGTERM)?;
    eventually("a reader ends when it is told to", || {
        Ok(reader.try_wait()?.is_some())
    })?;
    allowed("fsync", || fsync(&fifo))?;
    allowed("read", || fifo.read(100_000))?;
    Ok(())
}

fn use_aio(fifo: &Fifo) -> Result<()> {
    let context = aio::Context::new(8)?;
    let (mut buffer, bytes) = (vec![0; 100], pattern(1, 100));
    let mut read = aio::Iocb::read(fifo, &mut buffer).data(1);
    let mut write = aio::Iocb::write(fifo, &bytes).data(2);
    let mut under_way = 0;
    for request in [&mut read, &mut write] {
        if allowed("io_submit", || context.submit(request))?.is_some() {
            under_way += 1;
        }
    }
    let mut done = context.events(under_way, 8, Duration::from_millis(100))?;
    // A request that is over, or cannot be called back, says so; its event tells how it ended.
    let _ = context.cancel(&mut read);
    let _ = context.cancel(&mut write);
    let left = under_way - done.len();
    if left > 0 {
        done.extend(context.events(left, 8, LONGEST)?);
    }
    check_eq!(done.len(), under_way);
    let errors = [Errno::EIO, Errno::EPIPE, Errno::EAGAIN, Errno::ECANCELED];
    for event in done {
        let fine = event.res >= 0 || errors.iter().any(|errno| event.res == -(*errno as i64));
        if !fine {
            bail!("request {} ended with {}", { event.data }, { event.res });
        }
    }
    Ok(())
}

/// DRV-11, DRV-12, DRV-16, DRV-17: uses the device, and takes and gives it, until the last liar is
/// silent.
fn survive() -> Result<()> {
    let end = Instant::now() + WINDOW * SEEDS;
    let (mut bound, mut refused) = (0, 0);
    while Instant::now() < end {
        if bind()? {
            bound += 1;
            // Nodes come with udev, and of a device that lies about their number.
            sleep(Duration::from_millis(300));
            for index in 0..FIFOS.len() {
                use_fifo(index).with_context(|| format!("FIFO {index}"))?;
            }
        } else {
            refused += 1;
        }
        let started = Instant::now();
        unbind()?;
        check!(started.elapsed() < LONGEST);
    }
    let trouble = TROUBLE.load(Ordering::Relaxed);
    eprintln!("{bound} times bound, {refused} times refused, {trouble} calls with EIO or EPIPE");
    check!(bound > 0);
    // Else nobody has lied.
    check!(trouble > 0);
    Ok(())
}

fn honest() -> Result<()> {
    unbind()?;
    check!(bind()?);
    for (index, kind) in FIFOS.into_iter().enumerate() {
        system::wait_for_file(&path(index), true)?;
        let fifo = Fifo::open_at(&path(index), O_NONBLOCK)?;
        fifo.clear()?;
        let sent = pattern(5, 1000);
        check_eq!(fifo.write(&sent), Ok(1000));
        check_eq!(fsync(&fifo), Ok(()));
        match kind {
            "loopback" => {
                fifo.wait_level(1000)?;
                check_eq!(fifo.drain()?, sent);
            }
            "zero" => {
                fifo.wait_level(1)?;
                check_eq!(fifo.read(1), Ok(vec![0]));
            }
            _ => check_eq!(fifo.read(1), Err(Errno::EAGAIN)),
        }
    }
    let listed = fs::read_dir("/sys/kernel/debug/globalfifo")?
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_dir())
        .count();
    check_eq!(listed, FIFOS.len());
    Ok(())
}
