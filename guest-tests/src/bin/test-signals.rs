// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SIGIO and its kin: who is signalled, by what, how it is received, and when it ends.

use std::mem;
use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, PATH};
use globalfifo_guest_tests::harness::{self, SOON, Test, eventually};
use globalfifo_guest_tests::signals::{self, POLL_IN, POLL_OUT, Received};
use globalfifo_guest_tests::{check, check_eq, system};
use nix::errno::Errno;
use nix::libc::{self, O_ASYNC, O_NONBLOCK, SIGIO, c_int, c_void};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, gettid, setpgid};

const TESTS: &[Test] = &[
    ("setown_of_a_process_signals_it_alone", own_process),
    ("setown_of_a_group_signals_all_of_it", own_group),
    ("setown_ex_of_a_thread_signals_it_alone", own_thread),
    ("setown_ex_of_a_group_and_a_process", own_ex),
    ("setown_of_nobody_is_esrch_or_silent", own_nobody),
    ("setsig_queues_one_signal_for_each_arrival", setsig_queues),
    ("setsig_tells_two_files_apart", setsig_two_files),
    (
        "plain_sigio_tells_nothing_and_setsig_sigio_all",
        plain_sigio,
    ),
    ("a_full_queue_falls_back_to_sigio", queue_overflow),
    ("o_async_on_and_off_and_on", on_and_off),
    ("fioasync_does_as_o_async", fioasync),
    ("open_with_o_async_signals_nobody_yet", open_async),
    ("a_duplicate_keeps_the_signals_until_it_is_closed", dup),
    ("a_child_keeps_the_signals_until_it_is_gone", child_keeps),
    ("a_signalfd_reads_it", signalfd),
    ("a_handler_gets_descriptor_and_band", handler),
    ("sigwaitinfo_wakes_with_it", waitinfo),
    ("own_reads_signal_only_what_had_been_full", own_reads),
    ("an_own_write_signals_its_arrival", own_write),
    ("clear_of_a_full_fifo_signals_its_space", clear),
    ("a_signal_finds_the_data_readable", data_is_there),
];

/// Long enough for a signal that should not come to have come.
const QUIET: Duration = Duration::from_millis(200);

/// `F_SETSIG` and its kin of `fcntl(2)`, which the libc crate does not know for this target.
const F_SETSIG: c_int = 10;
const F_GETSIG: c_int = 11;
const F_SETOWN_EX: c_int = 15;
const F_GETOWN_EX: c_int = 16;
const F_OWNER_TID: c_int = 0;
const F_OWNER_PID: c_int = 1;
const F_OWNER_PGRP: c_int = 2;

/// `si_code` of signals that carry nothing.
const SI_KERNEL: i32 = 0x80;

/// `struct f_owner_ex`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Owner {
    kind: c_int,
    id: libc::pid_t,
}

fn main() -> ExitCode {
    harness::main(TESTS)
}

fn fcntl(fifo: &Fifo, command: c_int, argument: c_int) -> Result<c_int, Errno> {
    // SAFETY: Called for commands that take an integer, or nothing.
    Errno::result(unsafe { libc::fcntl(fifo.fd(), command, argument) })
}

fn set_owner(fifo: &Fifo, kind: c_int, id: libc::pid_t) -> Result<(), Errno> {
    let owner = Owner { kind, id };
    // SAFETY: The command takes such a structure.
    let set = unsafe { libc::fcntl(fifo.fd(), F_SETOWN_EX, &raw const owner) };
    Errno::result(set).map(drop)
}

fn owner(fifo: &Fifo) -> Result<Owner, Errno> {
    let mut owner = Owner::default();
    // SAFETY: The command fills in such a structure.
    let got = unsafe { libc::fcntl(fifo.fd(), F_GETOWN_EX, &raw mut owner) };
    Errno::result(got).map(|_| owner)
}

fn own_pid() -> Result<i32> {
    Ok(i32::try_from(std::process::id())?)
}

/// A real-time signal of this program's, blocked.
fn signal() -> Result<i32> {
    let signal = libc::SIGRTMIN() + 6;
    signals::block(signal)?;
    Ok(signal)
}

/// A FIFO that signals this process with `signal`, empty.
fn watched(signal: i32) -> Result<Fifo> {
    let fifo = Fifo::open_empty(0)?;
    fifo.enable_signals(Some(signal))?;
    Ok(fifo)
}

fn silent(signal: i32) -> Result<()> {
    check_eq!(signals::take(signal, QUIET)?, None);
    Ok(())
}

/// A child that says by its end whether it got `signal`, which must be blocked.
struct Watcher {
    pid: Pid,
}

impl Watcher {
    /// `patience` is how long it waits for the signal; `apart` puts it in a group of its own.
    fn start(signal: i32, patience: Duration, apart: bool) -> Result<Self> {
        // SAFETY: This process has one thread, so that its child can do everything.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                if apart {
                    // Done in both, so that it is done for either: the second is told so.
                    let _ = setpgid(child, child);
                }
                Ok(Self { pid: child })
            }
            ForkResult::Child => {
                if apart {
                    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
                }
                let got = signals::take(signal, patience);
                // SAFETY: Ends the process.
                unsafe { libc::_exit(i32::from(!matches!(got, Ok(Some(_))))) }
            }
        }
    }

    fn got_it(self) -> Result<bool> {
        match waitpid(self.pid, None)? {
            WaitStatus::Exited(_, status) => Ok(status == 0),
            other => anyhow::bail!("the child ended like this: {other:?}"),
        }
    }
}

fn own_process() -> Result<()> {
    let signal = signal()?;
    let fifo = watched(signal)?;
    let owner = Watcher::start(signal, SOON, false)?;
    let other = Watcher::start(signal, 3 * QUIET, false)?;
    fcntl(&fifo, libc::F_SETOWN, owner.pid.as_raw())?;
    check_eq!(fcntl(&fifo, libc::F_GETOWN, 0)?, owner.pid.as_raw());
    fifo.write_all(b"x")?;
    check!(owner.got_it()?);
    check!(!other.got_it()?);
    silent(signal)
}

fn own_group() -> Result<()> {
    let signal = signal()?;
    // The harness does this too, perhaps a little later.
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    let fifo = watched(signal)?;
    let inside = [
        Watcher::start(signal, SOON, false)?,
        Watcher::start(signal, SOON, false)?,
    ];
    let outside = Watcher::start(signal, 3 * QUIET, true)?;
    fcntl(&fifo, libc::F_SETOWN, -own_pid()?)?;
    fifo.write_all(b"x")?;
    for child in inside {
        check!(child.got_it()?);
    }
    check!(signals::take(signal, SOON)?.is_some());
    check!(!outside.got_it()?);
    Ok(())
}

fn own_thread() -> Result<()> {
    let signal = signal()?;
    let fifo = watched(signal)?;
    let (tell, told) = mpsc::channel();
    let owner_thread = thread::spawn(move || -> Result<Option<Received>> {
        tell.send(gettid().as_raw())?;
        signals::take(signal, SOON)
    });
    let tid = told.recv()?;
    set_owner(&fifo, F_OWNER_TID, tid)?;
    check_eq!(
        owner(&fifo)?,
        Owner {
            kind: F_OWNER_TID,
            id: tid
        }
    );
    // The main thread would be taken first if the signal were for the process.
    fifo.write_all(b"x")?;
    let got = owner_thread
        .join()
        .map_err(|_| anyhow::anyhow!("panic"))??
        .context("the thread got no signal")?;
    check_eq!((got.code, got.fd), (POLL_IN, fifo.fd()));
    silent(signal)?;
    // The thread is gone, and its signals with it.
    fifo.write_all(b"x")?;
    silent(signal)
}

fn own_ex() -> Result<()> {
    let signal = signal()?;
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    let fifo = watched(signal)?;
    let child = Watcher::start(signal, SOON, false)?;
    let pid = own_pid()?;
    set_owner(&fifo, F_OWNER_PGRP, pid)?;
    check_eq!(
        owner(&fifo)?,
        Owner {
            kind: F_OWNER_PGRP,
            id: pid
        }
    );
    fifo.write_all(b"x")?;
    check!(child.got_it()?);
    check!(signals::take(signal, SOON)?.is_some());
    let other = Watcher::start(signal, 2 * QUIET, false)?;
    set_owner(&fifo, F_OWNER_PID, pid)?;
    fifo.write_all(b"x")?;
    check!(signals::take(signal, SOON)?.is_some());
    check!(!other.got_it()?);
    check_eq!(set_owner(&fifo, 7, pid), Err(Errno::EINVAL));
    Ok(())
}

fn own_nobody() -> Result<()> {
    let signal = signal()?;
    let fifo = watched(signal)?;
    let gone = Watcher::start(signal, Duration::ZERO, false)?;
    let pid = gone.pid.as_raw();
    fcntl(&fifo, libc::F_SETOWN, pid)?;
    gone.got_it()?;
    fifo.write_all(b"x")?;
    fifo.wait_level(1)?;
    silent(signal)?;
    check_eq!(fcntl(&fifo, libc::F_SETOWN, pid), Err(Errno::ESRCH));
    // Nobody at all, and then this process again.
    fcntl(&fifo, libc::F_SETOWN, 0)?;
    fifo.write_all(b"x")?;
    fifo.wait_level(2)?;
    silent(signal)?;
    fcntl(&fifo, libc::F_SETOWN, own_pid()?)?;
    fifo.write_all(b"x")?;
    check!(signals::take(signal, SOON)?.is_some());
    Ok(())
}

fn setsig_queues() -> Result<()> {
    let signal = signal()?;
    let fifo = watched(signal)?;
    check_eq!(fcntl(&fifo, F_GETSIG, 0)?, signal);
    for level in 1..=20 {
        // Each arrival for itself: the device may make one interrupt of several.
        fifo.write_all(b"x")?;
        fifo.wait_level(level)?;
    }
    let band = i64::from(libc::POLLIN | libc::POLLRDNORM);
    for _ in 0..20 {
        let got = signals::take(signal, SOON)?.context("too few signals")?;
        check_eq!(
            got,
            Received {
                signal,
                code: POLL_IN,
                fd: fifo.fd(),
                band
            }
        );
    }
    silent(signal)?;
    check_eq!(fcntl(&fifo, F_SETSIG, 1000), Err(Errno::EINVAL));
    Ok(())
}

fn setsig_two_files() -> Result<()> {
    let signal = signal()?;
    let fifo = watched(signal)?;
    let other = Fifo::open(0)?;
    other.enable_signals(Some(signal))?;
    fifo.write_all(b"x")?;
    let mut fds = [0; 2];
    for fd in &mut fds {
        *fd = signals::take(signal, SOON)?.context("no signal")?.fd;
    }
    fds.sort_unstable();
    let mut expected = [fifo.fd(), other.fd()];
    expected.sort_unstable();
    check_eq!(fds, expected);
    Ok(())
}

fn plain_sigio() -> Result<()> {
    signals::block_sigio()?;
    let fifo = Fifo::open_empty(0)?;
    fifo.enable_signals(None)?;
    fifo.write_all(b"x")?;
    let got = signals::take(SIGIO, SOON)?.context("no signal")?;
    check_eq!(got.code, SI_KERNEL);
    fcntl(&fifo, F_SETSIG, SIGIO)?;
    fifo.write_all(b"x")?;
    let got = signals::take(SIGIO, SOON)?.context("no signal")?;
    check_eq!((got.code, got.fd), (POLL_IN, fifo.fd()));
    Ok(())
}

fn queue_overflow() -> Result<()> {
    use nix::sys::resource::{Resource, setrlimit};
    signals::block_sigio()?;
    let signal = signal()?;
    let fifo = watched(signal)?;
    setrlimit(Resource::RLIMIT_SIGPENDING, 0, 0)?;
    fifo.write_all(b"x")?;
    let got = signals::take(SIGIO, SOON)?.context("no SIGIO")?;
    check_eq!(got.code, SI_KERNEL);
    silent(signal)
}

fn on_and_off() -> Result<()> {
    let signal = signal()?;
    let fifo = watched(signal)?;
    for _ in 0..3 {
        fifo.write_all(b"x")?;
        check!(signals::take(signal, SOON)?.is_some());
        fifo.set_flags(O_ASYNC, false)?;
        fifo.write_all(b"x")?;
        silent(signal)?;
        fifo.set_flags(O_ASYNC, true)?;
        // Once is enough.
        fifo.set_flags(O_ASYNC, true)?;
    }
    check_eq!(fifo.level()?, 6);
    fifo.write_all(b"x")?;
    check!(signals::take(signal, SOON)?.is_some());
    silent(signal)
}

fn fioasync() -> Result<()> {
    let signal = signal()?;
    let fifo = watched(signal)?;
    let set = |on: c_int| {
        // SAFETY: The argument is a valid int.
        Errno::result(unsafe { libc::ioctl(fifo.fd(), libc::FIOASYNC, &raw const on) })
    };
    set(0)?;
    check_eq!(fcntl(&fifo, libc::F_GETFL, 0)? & O_ASYNC, 0);
    fifo.write_all(b"x")?;
    silent(signal)?;
    set(1)?;
    check_eq!(fcntl(&fifo, libc::F_GETFL, 0)? & O_ASYNC, O_ASYNC);
    fifo.write_all(b"x")?;
    check!(signals::take(signal, SOON)?.is_some());
    Ok(())
}

fn open_async() -> Result<()> {
    // «Specifying O_ASYNC when calling open() has no effect» (open(2), BUGS).
    let signal = signal()?;
    let fifo = Fifo::open_empty(O_ASYNC)?;
    fcntl(&fifo, libc::F_SETOWN, own_pid()?)?;
    fcntl(&fifo, F_SETSIG, signal)?;
    fifo.write_all(b"x")?;
    fifo.wait_level(1)?;
    silent(signal)
}

fn dup() -> Result<()> {
    let signal = signal()?;
    let other = Fifo::open_empty(0)?;
    let fifo = watched(signal)?;
    let number = fifo.fd();
    let copy = nix::unistd::dup(&fifo)?;
    drop(fifo);
    other.write_all(b"x")?;
    let got = signals::take(signal, SOON)?.context("no signal")?;
    // The number under which it was asked for, as for every file.
    check_eq!((got.code, got.fd), (POLL_IN, number));
    drop(copy);
    other.write_all(b"x")?;
    other.wait_level(2)?;
    silent(signal)
}

fn child_keeps() -> Result<()> {
    let signal = signal()?;
    let other = Fifo::open_empty(0)?;
    let fifo = watched(signal)?;
    // The child has the file too, until it gets a signal of its own.
    let end = libc::SIGRTMIN() + 7;
    signals::block(end)?;
    let child = Watcher::start(end, SOON, false)?;
    drop(fifo);
    other.write_all(b"x")?;
    check!(signals::take(signal, SOON)?.is_some());
    // SAFETY: kill takes two integers.
    Errno::result(unsafe { libc::kill(child.pid.as_raw(), end) })?;
    check!(child.got_it()?);
    other.write_all(b"x")?;
    other.wait_level(2)?;
    silent(signal)
}

fn signalfd() -> Result<()> {
    signals::block_sigio()?;
    let fifo = watched(SIGIO)?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGIO);
    let from = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK)?;
    check!(from.read_signal()?.is_none());
    fifo.write_all(b"x")?;
    let mut fds = [nix::poll::PollFd::new(
        std::os::fd::AsFd::as_fd(&from),
        nix::poll::PollFlags::POLLIN,
    )];
    check_eq!(nix::poll::poll(&mut fds, 10_000u16)?, 1);
    let got = from.read_signal()?.context("nothing to read")?;
    check_eq!(got.ssi_signo, SIGIO.cast_unsigned());
    check_eq!(got.ssi_code, POLL_IN);
    check_eq!(got.ssi_fd, fifo.fd());
    let band = u32::try_from(libc::POLLIN | libc::POLLRDNORM)?;
    check_eq!(got.ssi_band, band);
    check!(from.read_signal()?.is_none());
    Ok(())
}

static SEEN_FD: AtomicI32 = AtomicI32::new(-1);
static SEEN_CODE: AtomicI32 = AtomicI32::new(-1);
static SEEN_BAND: AtomicI64 = AtomicI64::new(-1);

extern "C" fn see(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: The kernel gives a handler a valid one.
    let got = Received::of(unsafe { &*info });
    SEEN_CODE.store(got.code, Ordering::SeqCst);
    SEEN_BAND.store(got.band, Ordering::SeqCst);
    SEEN_FD.store(got.fd, Ordering::SeqCst);
}

fn handler() -> Result<()> {
    let action = SigAction::new(
        SigHandler::SigAction(see),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    // SAFETY: The handler only stores integers.
    unsafe { sigaction(Signal::SIGIO, &action) }?;
    let fifo = watched(SIGIO)?;
    fifo.write_all(b"x")?;
    eventually("the handler ran", || {
        Ok(SEEN_FD.load(Ordering::SeqCst) == fifo.fd())
    })?;
    check_eq!(SEEN_CODE.load(Ordering::SeqCst), POLL_IN);
    let band = i64::from(libc::POLLIN | libc::POLLRDNORM);
    check_eq!(SEEN_BAND.load(Ordering::SeqCst), band);
    Ok(())
}

fn waitinfo() -> Result<()> {
    let signal = signal()?;
    let fifo = watched(signal)?;
    let own = gettid().as_raw();
    let writer = thread::spawn(move || -> Result<()> {
        eventually("sigwaitinfo sleeps", || {
            system::sleeps_in(own, libc::SYS_rt_sigtimedwait)
        })?;
        Fifo::open(0)?.write_all(b"x")
    });
    // SAFETY: An all-zero set is valid.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: The set is valid.
    Errno::result(unsafe { libc::sigaddset(&raw mut set, signal) })?;
    // SAFETY: An all-zero siginfo_t is valid.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // SAFETY: Both are valid.
    let got = Errno::result(unsafe { libc::sigwaitinfo(&raw const set, &raw mut info) })?;
    check_eq!(got, signal);
    let got = Received::of(&info);
    check_eq!((got.code, got.fd), (POLL_IN, fifo.fd()));
    writer.join().map_err(|_| anyhow::anyhow!("panic"))?
}

fn own_reads() -> Result<()> {
    let signal = signal()?;
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    check_eq!(fifo.write(&[1; CAPACITY - 1]), Ok(CAPACITY - 1));
    fifo.wait_level(CAPACITY - 1)?;
    fifo.enable_signals(Some(signal))?;
    for _ in 0..10 {
        fifo.read(10)?;
    }
    silent(signal)?;
    check_eq!(fifo.write(&[1; 101]), Ok(101));
    let got = signals::take(signal, SOON)?.context("no signal for the data")?;
    check_eq!(got.code, POLL_IN);
    fifo.wait_level(CAPACITY)?;
    while signals::take(signal, QUIET)?.is_some() {}
    fifo.read(10)?;
    let got = signals::take(signal, SOON)?.context("no signal for the space")?;
    check_eq!((got.code, got.fd), (POLL_OUT, fifo.fd()));
    let band = libc::POLLOUT | libc::POLLWRNORM | libc::POLLWRBAND;
    check_eq!(got.band, i64::from(band));
    fifo.read(10)?;
    silent(signal)
}

fn own_write() -> Result<()> {
    // The textbook's `echo` in a shell that is itself the owner: its own bytes are news too.
    let signal = signal()?;
    let fifo = watched(signal)?;
    let writer = Fifo::open_as(PATH, false, true, 0)?;
    writer.enable_signals(Some(signal))?;
    writer.write_all(b"x")?;
    let got = signals::take(signal, SOON)?.context("no signal")?;
    check_eq!((got.code, got.fd), (POLL_IN, fifo.fd()));
    silent(signal)
}

fn clear() -> Result<()> {
    let signal = signal()?;
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    check_eq!(fifo.fill()?, CAPACITY);
    fifo.wait_level(CAPACITY)?;
    let writer = Fifo::open_as(PATH, false, true, O_NONBLOCK)?;
    writer.enable_signals(Some(signal))?;
    fifo.clear()?;
    let got = signals::take(signal, SOON)?.context("no signal")?;
    check_eq!((got.code, got.fd), (POLL_OUT, writer.fd()));
    Ok(())
}

fn data_is_there() -> Result<()> {
    let signal = signal()?;
    let fifo = watched(signal)?;
    fifo.set_flags(O_NONBLOCK, true)?;
    for _ in 0..200 {
        fifo.write_all(b"x")?;
        check!(signals::take(signal, SOON)?.is_some());
        check_eq!(fifo.read(10), Ok(b"x".to_vec()));
    }
    Ok(())
}
