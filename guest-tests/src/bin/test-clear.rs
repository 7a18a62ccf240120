// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! FIFO_CLEAR and fsync: who may, what no signal interrupts, and that a clear leaves no request behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use globalfifo_guest_tests::aio::{Context, Iocb, POLL};
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, PATH, pattern};
use globalfifo_guest_tests::forked::{Child, Parent};
use globalfifo_guest_tests::harness::{self, SOON, Test, limit};
use globalfifo_guest_tests::{check, check_eq};
use nix::errno::Errno;
use nix::libc::{self, O_NONBLOCK, c_int};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::stat::{Mode, SFlag, mknod, stat};
use nix::unistd::{Gid, Uid, fsync, setgid, setgroups, setuid};

const TESTS: &[Test] = &[
    (
        "clear_through_a_descriptor_for_reading_empties_if_the_user_may_write",
        reader_may,
    ),
    (
        "clear_through_a_descriptor_for_reading_is_ebadf_if_the_user_may_not_write",
        reader_may_not,
    ),
    (
        "clear_by_root_through_a_descriptor_for_reading_empties",
        root_may,
    ),
    ("clear_through_a_descriptor_for_writing_empties", writer_may),
    ("fsync_is_not_interrupted_by_ones_own_sigio", || {
        interrupted(Source::Sigio, Call::Fsync)
    }),
    ("clear_is_not_interrupted_by_ones_own_sigio", || {
        interrupted(Source::Sigio, Call::Clear)
    }),
    ("fsync_is_not_interrupted_by_a_timer", || {
        interrupted(Source::Timer, Call::Fsync)
    }),
    ("clear_is_not_interrupted_by_a_timer", || {
        interrupted(Source::Timer, Call::Clear)
    }),
    (
        "clear_beside_writes_and_cancels_leaves_no_write_waiting",
        strands_nothing,
    ),
    ("clear_lets_blocked_writers_go_on_every_time", wakes_writers),
];

fn main() -> ExitCode {
    harness::main(TESTS)
}

/// Somebody who is not in the group of the device.
const NOBODY: u32 = 65534;

/// A node of the FIFO with other permissions, removed when it is dropped.
struct Node(String);

impl Node {
    fn new(name: &str, mode: u32) -> Result<Self> {
        let path = format!("/dev/globalfifo-test-{name}");
        let _ = fs::remove_file(&path);
        let device = stat(PATH)?.st_rdev;
        mknod(path.as_str(), SFlag::S_IFCHR, Mode::empty(), device)?;
        let node = Self(path);
        // Not by mknod, which heeds the umask.
        fs::set_permissions(&node.0, fs::Permissions::from_mode(mode))?;
        Ok(node)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What FIFO_CLEAR of one byte gives to [`NOBODY`], who opens a node with `mode`, and how many bytes it leaves.
fn clear_by_nobody(name: &str, mode: u32, write: bool) -> Result<(Result<(), Errno>, usize)> {
    let node = Node::new(name, mode)?;
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    fifo.write_all(b"x")?;
    fifo.wait_level(1)?;
    let child = Child::start(|parent: &Parent| {
        setgroups(&[])?;
        setgid(Gid::from_raw(NOBODY))?;
        setuid(Uid::from_raw(NOBODY))?;
        let file = Fifo::open_as(&node.0, !write, write, 0)?;
        let answer = file.clear();
        check_eq!(file.clear_by_alias(), answer);
        parent.say(match answer {
            Ok(()) => 0,
            Err(error) => u8::try_from(error as i32)?,
        })
    })?;
    let said = child.says_within(SOON)?.context("the child said nothing")?;
    child.finish()?;
    let answer = match said {
        0 => Ok(()),
        error => Err(Errno::from_raw(error.into())),
    };
    Ok((answer, fifo.drain()?.len()))
}

fn reader_may() -> Result<()> {
    check_eq!(clear_by_nobody("read-write", 0o666, false)?, (Ok(()), 0));
    Ok(())
}

fn reader_may_not() -> Result<()> {
    check_eq!(
        clear_by_nobody("read", 0o644, false)?,
        (Err(Errno::EBADF), 1)
    );
    Ok(())
}

fn writer_may() -> Result<()> {
    check_eq!(clear_by_nobody("write", 0o622, true)?, (Ok(()), 0));
    Ok(())
}

fn root_may() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let reader = Fifo::open_as(PATH, true, false, 0)?;
    fifo.write_all(b"x")?;
    fifo.wait_level(1)?;
    check_eq!(reader.clear(), Ok(()));
    check_eq!(fifo.level()?, 0);
    Ok(())
}

/// What sends signals to the test.
#[derive(Clone, Copy)]
enum Source {
    /// The FIFO, when what was just written arrives.
    Sigio,
    /// A timer, again and again.
    Timer,
}

/// A call with a bounded wait.
#[derive(Clone, Copy)]
enum Call {
    Fsync,
    Clear,
}

/// Signals that were handled.
static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: c_int) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

/// Period of the timer.
const PERIOD: Duration = Duration::from_micros(300);
/// Calls of a test.
const CALLS: u32 = 500;

fn start_timer(period: Duration) -> Result<()> {
    let interval = libc::timeval {
        tv_sec: 0,
        tv_usec: i64::from(period.subsec_micros()),
    };
    let timer = libc::itimerval {
        it_interval: interval,
        it_value: interval,
    };
    // SAFETY: The structure is valid, and the old one not asked for.
    let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
    Errno::result(set).map(drop).context("setitimer")
}

/// A handler without SA_RESTART, and a call during which its signal comes: the call is not interrupted.
fn interrupted(source: Source, call: Call) -> Result<()> {
    let signal = match source {
        Source::Sigio => Signal::SIGIO,
        Source::Timer => Signal::SIGALRM,
    };
    let action = SigAction::new(
        SigHandler::Handler(count),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: The handler adds to an integer.
    unsafe { sigaction(signal, &action) }?;
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    match source {
        Source::Sigio => fifo.enable_signals(None)?,
        Source::Timer => start_timer(PERIOD)?,
    }
    let mut interrupted = 0;
    for _ in 0..CALLS {
        check_eq!(fifo.write(b"news"), Ok(4));
        let answer = match call {
            Call::Fsync => fsync(&fifo),
            Call::Clear => fifo.clear(),
        };
        match answer {
            Ok(()) => {}
            Err(Errno::EINTR) => interrupted += 1,
            Err(error) => bail!("{error}"),
        }
        if let Call::Fsync = call {
            fifo.drain()?;
        }
    }
    start_timer(Duration::ZERO)?;
    fifo.set_flags(libc::O_ASYNC, false)?;
    // Otherwise the test says nothing.
    check!(HANDLED.load(Ordering::SeqCst) > CALLS / 10);
    check_eq!(interrupted, 0);
    fifo.clear()?;
    Ok(())
}

/// For how long the race between clears, writes and cancels is run.
const RACE: Duration = Duration::from_secs(3);

/// Asynchronous writes by two threads on one context, clears, and cancels that contend for it. When all have stopped, no write
/// waits beside room.
fn strands_nothing() -> Result<()> {
    drop(Fifo::open_empty(0)?);
    let context = Arc::new(Context::new(512)?);
    // They make the context's list long: POLLPRI never comes.
    let polled = Fifo::open(0)?;
    let events = u64::from(libc::POLLPRI.cast_unsigned());
    for _ in 0..200 {
        context.submit(&mut Iocb::new(&polled, POLL, events, 0))?;
    }
    let over = Arc::new(AtomicBool::new(false));
    let submitted = Arc::new(AtomicU32::new(0));
    let mut writers = Vec::new();
    for writer in 0..2u64 {
        let (context, over, submitted) = (context.clone(), over.clone(), submitted.clone());
        writers.push(thread::spawn(move || -> Result<_> {
            let fifo = Fifo::open(0)?;
            let bytes = pattern(writer, 40);
            while !over.load(Ordering::SeqCst) {
                let writes = &mut [(); 3].map(|()| Iocb::write(&fifo, &bytes));
                let mut sent: usize = 0;
                for write in writes.iter_mut() {
                    match context.submit(write) {
                        Ok(()) => sent += 1,
                        Err(Errno::EAGAIN) => {}
                        Err(error) => bail!("io_submit: {error}"),
                    }
                }
                submitted.fetch_add(u32::try_from(sent)?, Ordering::SeqCst);
                // One is always cancelled, or is over already.
                let _ = context.cancel(&mut writes[2]);
            }
            // Of use to its writes until they have ended; a close would end them.
            Ok((fifo, bytes))
        }));
    }
    let mut threads = Vec::new();
    for _ in 0..2 {
        let over = over.clone();
        threads.push(thread::spawn(move || -> Result<()> {
            let fifo = Fifo::open(0)?;
            while !over.load(Ordering::SeqCst) {
                fifo.clear()?;
            }
            Ok(())
        }));
    }
    for _ in 0..2 {
        let (context, over, fifo) = (context.clone(), over.clone(), Fifo::open(0)?);
        threads.push(thread::spawn(move || {
            // Never submitted: all requests of the context are looked through for it, under its lock.
            let mut none = Iocb::write(&fifo, b"");
            while !over.load(Ordering::SeqCst) {
                check_eq!(context.cancel(&mut none), Err(Errno::EINVAL));
            }
            Ok(())
        }));
    }
    let mut ended: u32 = 0;
    let started = Instant::now();
    while started.elapsed() < RACE {
        ended += u32::try_from(context.events(1, 64, Duration::from_millis(20))?.len())?;
    }
    over.store(true, Ordering::SeqCst);
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("panic"))??;
    }
    // What is submitted is known once no writer goes on.
    let mut in_use = Vec::new();
    for writer in writers {
        in_use.push(writer.join().map_err(|_| anyhow::anyhow!("panic"))??);
    }
    let submitted = submitted.load(Ordering::SeqCst);
    let fifo = Fifo::open(0)?;
    while ended < submitted {
        let events = context.events(1, 64, limit(Duration::from_secs(1)))?;
        if events.is_empty() {
            // The last clear left more writes waiting than the FIFO takes. A write that waits beside room is stranded.
            check_eq!(fifo.level()?, CAPACITY);
            fifo.clear()?;
        }
        ended += u32::try_from(events.len())?;
    }
    drop(in_use);
    check!(submitted > 100);
    check_eq!(ended, submitted);
    fifo.clear()?;
    Ok(())
}

fn wakes_writers() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    for _ in 0..20 {
        check_eq!(fifo.fill()?, CAPACITY);
        let writer = thread::spawn(|| -> Result<()> { Fifo::open(0)?.write_all(b"x") });
        fifo.clear()?;
        let started = Instant::now();
        while !writer.is_finished() {
            check!(started.elapsed() < limit(SOON));
            thread::yield_now();
        }
        writer.join().map_err(|_| anyhow::anyhow!("panic"))??;
        fifo.clear()?;
    }
    Ok(())
}
