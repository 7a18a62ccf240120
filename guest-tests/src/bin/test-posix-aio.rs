// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! POSIX AIO as glibc has it: `aio_read(3)` and its kin, done by threads of the C library.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, PATH, pattern};
use globalfifo_guest_tests::harness::{self, SOON, Test, eventually};
use globalfifo_guest_tests::posix_aio::{
    ALL_DONE, CANCELED, Control, NOT_CANCELED, by_signal, by_thread, cancel_all, listio, suspend,
};
use globalfifo_guest_tests::{check, check_eq, signals, system};
use nix::errno::Errno;
use nix::libc::{self, O_NONBLOCK, SIGUSR1, aiocb, sigval};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::gettid;

const TESTS: &[Test] = &[
    ("aio_read_is_einprogress_until_data_comes", read_waits),
    ("aio_read_of_what_is_there", read_at_once),
    ("aio_write_then_aio_read", write_then_read),
    ("aio_write_to_a_full_fifo_waits", write_waits),
    ("aio_fsync_with_both_operations", fsync),
    ("requests_of_a_descriptor_are_done_in_order", in_order),
    (
        "a_waiting_read_does_not_hold_up_another_descriptor",
        independent,
    ),
    ("aio_suspend_waits_for_one_of_many", suspend_one),
    ("aio_suspend_ends_with_its_timeout", suspend_timeout),
    ("aio_suspend_of_what_is_done_returns_at_once", suspend_done),
    ("aio_suspend_is_interrupted_by_a_signal", suspend_signal),
    ("aio_cancel_of_what_is_done_is_alldone", cancel_done),
    ("aio_cancel_of_what_runs_is_notcanceled", cancel_running),
    ("aio_cancel_of_what_is_queued_is_canceled", cancel_queued),
    ("aio_cancel_of_all_of_a_descriptor", cancel_of_all),
    ("lio_wait_returns_when_all_are_done", lio_wait),
    ("lio_nowait_signals_when_all_are_done", lio_nowait_signal),
    ("lio_nowait_calls_when_all_are_done", lio_nowait_thread),
    ("lio_skips_nop_and_null_entries", lio_nop),
    ("lio_wait_says_eio_when_one_fails", lio_failure),
    ("sigev_signal_carries_its_value", by_signals),
    ("sigev_thread_is_called_with_its_value", by_threads),
    ("sigev_none_says_nothing", by_nothing),
    ("bad_requests_are_refused", bad_requests),
    ("a_bad_address_is_efault_and_no_byte_is_lost", bad_address),
    ("fork_leaves_requests_with_the_parent", fork),
    ("unbind_ends_what_waits_with_enodev", unbind),
];

/// Long enough for what should not happen to have happened.
const QUIET: Duration = Duration::from_millis(200);

const IN_PROGRESS: Result<(), Errno> = Err(Errno::EINPROGRESS);

fn main() -> ExitCode {
    let _ = system::load_module();
    harness::main(TESTS)
}

/// Waits until a thread of this process sleeps in one of its reads or writes: `aio_cancel` tells
/// requests that run from those that are queued.
fn until_running() -> Result<()> {
    let own = gettid().as_raw();
    eventually("a thread of the C library sleeps in its call", || {
        for task in std::fs::read_dir("/proc/self/task")? {
            let tid = task?.file_name().to_string_lossy().parse()?;
            let sleeps = |call| system::sleeps_in(tid, call);
            if tid != own && (sleeps(libc::SYS_read)? || sleeps(libc::SYS_write)?) {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

fn read_waits() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let mut read = Control::reader(&fifo, 100);
    read.read()?;
    until_running()?;
    check_eq!(read.state(), IN_PROGRESS);
    let before = system::counter(0, "interrupts")?;
    fifo.write_all(b"interrupt")?;
    eventually("EINPROGRESS is over", || Ok(read.state() != IN_PROGRESS))?;
    check_eq!(read.result(), Ok(9));
    check!(read.bytes().starts_with(b"interrupt"));
    check!(system::counter(0, "interrupts")? > before);
    Ok(())
}

fn read_at_once() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    fifo.write_all(b"there")?;
    fifo.wait_level(5)?;
    // The position of a FIFO means nothing.
    let mut read = Control::reader(&fifo, 100);
    read.block().aio_offset = 12345;
    read.read()?;
    check_eq!(read.wait(), Ok(5));
    check!(read.bytes().starts_with(b"there"));
    Ok(())
}

fn write_then_read() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    for round in 0..20 {
        let bytes = pattern(round, 100 * (usize::try_from(round)? + 1));
        let mut write = Control::writer(&fifo, &bytes);
        write.write()?;
        check_eq!(write.wait(), Ok(bytes.len()));
        fifo.wait_level(bytes.len())?;
        let mut read = Control::reader(&fifo, CAPACITY);
        read.read()?;
        check_eq!(read.wait(), Ok(bytes.len()));
        check!(read.bytes().starts_with(&bytes));
    }
    Ok(())
}

fn write_waits() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    check_eq!(fifo.fill()?, CAPACITY);
    fifo.wait_level(CAPACITY)?;
    let blocking = Fifo::open(0)?;
    let mut write = Control::writer(&blocking, &[9; 50]);
    write.write()?;
    until_running()?;
    check_eq!(write.state(), IN_PROGRESS);
    check_eq!(fifo.read(30)?.len(), 30);
    check_eq!(write.wait(), Ok(30));
    Ok(())
}

fn fsync() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    for operation in [libc::O_SYNC, libc::O_DSYNC] {
        fifo.write_all(b"written")?;
        let mut sync = Control::writer(&fifo, &[]);
        sync.fsync(operation)?;
        check_eq!(sync.wait(), Ok(0));
    }
    let mut bad = Control::writer(&fifo, &[]);
    check_eq!(bad.fsync(12345), Err(Errno::EINVAL));
    // Behind a write of the same descriptor: only once that is done.
    let mut write = Control::writer(&fifo, &pattern(1, 1000));
    let mut sync = Control::writer(&fifo, &[]);
    write.write()?;
    sync.fsync(libc::O_SYNC)?;
    check_eq!(sync.wait(), Ok(0));
    check_eq!(write.state(), Ok(()));
    check_eq!(write.result(), Ok(1000));
    Ok(())
}

fn in_order() -> Result<()> {
    let (fifo, other) = (Fifo::open_empty(0)?, Fifo::open(0)?);
    let mut reads: Vec<Control> = (0..40).map(|_| Control::reader(&other, 8)).collect();
    for read in &mut reads {
        read.read()?;
    }
    let mut writes: Vec<Control> = (0..40u64)
        .map(|n| Control::writer(&fifo, &n.to_le_bytes()))
        .collect();
    for write in &mut writes {
        write.write()?;
    }
    for (n, (read, write)) in (0u64..).zip(reads.iter_mut().zip(&mut writes)) {
        check_eq!(write.wait(), Ok(8));
        check_eq!(read.wait(), Ok(8));
        check_eq!(read.bytes(), n.to_le_bytes());
    }
    Ok(())
}

fn independent() -> Result<()> {
    let (fifo, other) = (Fifo::open_empty(0)?, Fifo::open(0)?);
    let mut read = Control::reader(&fifo, 10);
    read.read()?;
    until_running()?;
    let mut write = Control::writer(&other, b"for it");
    write.write()?;
    check_eq!(write.wait(), Ok(6));
    check_eq!(read.wait(), Ok(6));
    Ok(())
}

fn suspend_one() -> Result<()> {
    let (fifo, other) = (Fifo::open_empty(0)?, Fifo::open(0)?);
    let mut first = Control::reader(&fifo, 4);
    let mut second = Control::reader(&fifo, 4);
    first.read()?;
    second.read()?;
    let own = gettid().as_raw();
    let writer = thread::spawn(move || -> Result<()> {
        eventually("aio_suspend sleeps", || {
            system::sleeps_in(own, libc::SYS_futex)
        })?;
        other.write_all(b"data")
    });
    // Without a timeout, and with null entries, which are skipped.
    let null = std::ptr::null_mut();
    suspend(&[null, second.raw(), null, first.raw()], None)?;
    check_eq!(first.result(), Ok(4));
    check_eq!(second.state(), IN_PROGRESS);
    writer.join().map_err(|_| anyhow::anyhow!("panic"))??;
    fifo.write_all(b"more")?;
    check_eq!(second.wait(), Ok(4));
    check_eq!(second.bytes(), b"more");
    Ok(())
}

fn suspend_timeout() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let mut read = Control::reader(&fifo, 4);
    read.read()?;
    let started = Instant::now();
    let limit = Duration::from_millis(100);
    check_eq!(suspend(&[read.raw()], Some(limit)), Err(Errno::EAGAIN));
    check!(started.elapsed() >= limit && started.elapsed() < SOON);
    check_eq!(read.state(), IN_PROGRESS);
    fifo.write_all(b"late")?;
    check_eq!(read.wait(), Ok(4));
    Ok(())
}

fn suspend_done() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let mut waiting = Control::reader(&Fifo::open(0)?, 4);
    waiting.block().aio_fildes = fifo.fd();
    let mut write = Control::writer(&fifo, b"x");
    write.write()?;
    eventually("it is done", || Ok(write.state() == Ok(())))?;
    fifo.read_exact(1)?;
    waiting.read()?;
    suspend(&[waiting.raw(), write.raw()], Some(Duration::ZERO))?;
    check_eq!(write.result(), Ok(1));
    fifo.write_all(b"end")?;
    check_eq!(waiting.wait(), Ok(3));
    Ok(())
}

extern "C" fn nothing(_: i32) {}

fn suspend_signal() -> Result<()> {
    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: The handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action) }?;
    let fifo = Fifo::open_empty(0)?;
    let mut read = Control::reader(&fifo, 4);
    read.read()?;
    let own = gettid().as_raw();
    let killer = thread::spawn(move || -> Result<()> {
        eventually("aio_suspend sleeps", || {
            system::sleeps_in(own, libc::SYS_futex)
        })?;
        let pid = std::process::id();
        // SAFETY: tgkill takes three integers.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, pid, own, SIGUSR1) };
        Errno::result(sent).map(drop).context("tgkill")
    });
    check_eq!(suspend(&[read.raw()], Some(SOON)), Err(Errno::EINTR));
    killer.join().map_err(|_| anyhow::anyhow!("panic"))??;
    // The request is none the worse for it.
    fifo.write_all(b"data")?;
    check_eq!(read.wait(), Ok(4));
    Ok(())
}

fn cancel_done() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let mut write = Control::writer(&fifo, b"done");
    write.write()?;
    check_eq!(write.wait(), Ok(4));
    check_eq!(write.cancel(), Ok(ALL_DONE));
    check_eq!(cancel_all(fifo.fd()), Ok(ALL_DONE));
    Ok(())
}

fn cancel_running() -> Result<()> {
    let (fifo, other) = (Fifo::open_empty(0)?, Fifo::open(0)?);
    let mut read = Control::reader(&fifo, 4);
    read.read()?;
    until_running()?;
    check_eq!(read.cancel(), Ok(NOT_CANCELED));
    check_eq!(read.state(), IN_PROGRESS);
    other.write_all(b"data")?;
    check_eq!(read.wait(), Ok(4));
    check_eq!(read.bytes(), b"data");
    Ok(())
}

fn cancel_queued() -> Result<()> {
    let (fifo, other) = (Fifo::open_empty(0)?, Fifo::open(0)?);
    let mut running = Control::reader(&fifo, 4);
    let mut queued = Control::reader(&fifo, 4);
    let mut kept = Control::reader(&fifo, 4);
    for read in [&mut running, &mut queued, &mut kept] {
        read.read()?;
    }
    until_running()?;
    check_eq!(queued.cancel(), Ok(CANCELED));
    check_eq!(queued.state(), Err(Errno::ECANCELED));
    check_eq!(queued.result(), Err(Errno::ECANCELED));
    other.write_all(b"datamore")?;
    check_eq!(running.wait(), Ok(4));
    check_eq!(kept.wait(), Ok(4));
    check_eq!(kept.bytes(), b"more");
    check_eq!(queued.bytes(), [0; 4]);
    Ok(())
}

fn cancel_of_all() -> Result<()> {
    let (fifo, other) = (Fifo::open_empty(0)?, Fifo::open(0)?);
    let mut running = Control::reader(&fifo, 4);
    let mut queued: Vec<Control> = (0..5).map(|_| Control::reader(&fifo, 4)).collect();
    running.read()?;
    until_running()?;
    for read in &mut queued {
        read.read()?;
    }
    // One of them runs, and that is what the call says of all.
    check_eq!(cancel_all(fifo.fd()), Ok(NOT_CANCELED));
    for read in &mut queued {
        check_eq!(read.result(), Err(Errno::ECANCELED));
    }
    other.write_all(b"datarest")?;
    check_eq!(running.wait(), Ok(4));
    check_eq!(other.read_exact(4)?, b"rest".to_vec());
    check_eq!(cancel_all(9999), Err(Errno::EBADF));
    Ok(())
}

/// A reader and a writer for lists.
fn entry(mut control: Control, operation: i32) -> Control {
    control.block().aio_lio_opcode = operation;
    control
}

fn raw(list: &[Control]) -> Vec<*mut aiocb> {
    list.iter().map(Control::raw).collect()
}

/// Three writes, and reads that get their bytes, on descriptors of their own.
fn pairs(fifo: &Fifo, other: &Fifo) -> Vec<Control> {
    let reads = (0..3).map(|_| entry(Control::reader(other, 100), libc::LIO_READ));
    let writes = (1..4u8).map(|n| entry(Control::writer(fifo, &[n; 100]), libc::LIO_WRITE));
    reads.chain(writes).collect()
}

fn all_done(list: &mut [Control]) -> Result<()> {
    for control in list.iter_mut() {
        check_eq!(control.result(), Ok(100));
    }
    for (n, control) in (1..4u8).zip(list) {
        check_eq!(control.bytes(), [n; 100]);
    }
    Ok(())
}

fn lio_wait() -> Result<()> {
    let (fifo, other) = (Fifo::open_empty(0)?, Fifo::open(0)?);
    let mut list = pairs(&fifo, &other);
    listio(libc::LIO_WAIT, &raw(&list), None)?;
    all_done(&mut list)?;
    check_eq!(listio(77, &raw(&list), None), Err(Errno::EINVAL));
    Ok(())
}

fn lio_nowait_signal() -> Result<()> {
    let signal = libc::SIGRTMIN() + 5;
    signals::block(signal)?;
    let (fifo, other) = (Fifo::open_empty(0)?, Fifo::open(0)?);
    let control = Fifo::open(0)?;
    let mut list = pairs(&fifo, &other);
    list.push(entry(Control::reader(&other, 100), libc::LIO_READ));
    let mut event = by_signal(signal, 0x1234);
    listio(libc::LIO_NOWAIT, &raw(&list), Some(&mut event))?;
    // One is still to be done: no signal.
    check_eq!(signals::take(signal, QUIET)?, None);
    control.write_all(&[9; 100])?;
    let got = signals::take(signal, SOON)?.context("no signal")?;
    check_eq!(got.code, libc::SI_ASYNCIO);
    check_eq!(list.last().map(Control::state), Some(Ok(())));
    list.truncate(6);
    all_done(&mut list)?;
    check_eq!(signals::take(signal, QUIET)?, None);
    Ok(())
}

static CALLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note(value: sigval) {
    CALLED.fetch_add(value.sival_ptr.addr(), Ordering::SeqCst);
}

fn lio_nowait_thread() -> Result<()> {
    let (fifo, other) = (Fifo::open_empty(0)?, Fifo::open(0)?);
    let mut list = pairs(&fifo, &other);
    let mut event = by_thread(note, 1000);
    listio(libc::LIO_NOWAIT, &raw(&list), Some(&mut event))?;
    eventually("the call", || Ok(CALLED.load(Ordering::SeqCst) == 1000))?;
    all_done(&mut list)
}

fn lio_nop() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let mut nop = entry(Control::writer(&fifo, b"not written"), libc::LIO_NOP);
    let mut write = entry(Control::writer(&fifo, b"written"), libc::LIO_WRITE);
    let null = std::ptr::null_mut();
    let list = [null, nop.raw(), null, write.raw(), null];
    listio(libc::LIO_WAIT, &list, None)?;
    check_eq!(write.result(), Ok(7));
    check_eq!(nop.result(), Ok(0));
    fifo.wait_level(7)?;
    check_eq!(fifo.read(100)?, b"written".to_vec());
    // A list of nothing is done at once, and says so.
    let signal = libc::SIGRTMIN() + 5;
    signals::block(signal)?;
    let mut event = by_signal(signal, 1);
    listio(libc::LIO_NOWAIT, &[null, nop.raw()], Some(&mut event))?;
    check!(signals::take(signal, SOON)?.is_some());
    listio(libc::LIO_WAIT, &[null, null], None)?;
    Ok(())
}

fn lio_failure() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let reader = Fifo::open_as(PATH, true, false, 0)?;
    let mut good = entry(Control::writer(&fifo, b"good"), libc::LIO_WRITE);
    let mut bad = entry(Control::writer(&reader, b"bad"), libc::LIO_WRITE);
    let list = [good.raw(), bad.raw()];
    check_eq!(listio(libc::LIO_WAIT, &list, None), Err(Errno::EIO));
    check_eq!(good.result(), Ok(4));
    check_eq!(bad.result(), Err(Errno::EBADF));
    check_eq!(fifo.read_exact(4)?, b"good".to_vec());
    Ok(())
}

/// The value that came with `signal`, and its code.
fn value_of(signal: i32) -> Result<(i32, usize)> {
    // SAFETY: An all-zero set is valid.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: The set is valid.
    Errno::result(unsafe { libc::sigaddset(&raw mut set, signal) })?;
    // SAFETY: An all-zero siginfo_t is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let limit = libc::timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    // SAFETY: All three are valid for the call.
    let got = unsafe { libc::sigtimedwait(&raw const set, &raw mut info, &raw const limit) };
    Errno::result(got).context("no signal came")?;
    // SAFETY: Signals of asynchronous I/O carry a value.
    let value = unsafe { info.si_value() };
    Ok((info.si_code, value.sival_ptr.addr()))
}

fn by_signals() -> Result<()> {
    let signal = libc::SIGRTMIN() + 5;
    signals::block(signal)?;
    let (fifo, other) = (Fifo::open_empty(0)?, Fifo::open(0)?);
    let mut read = Control::reader(&fifo, 10);
    read.notify_by_signal(signal, 0xbeef);
    read.read()?;
    check_eq!(signals::take(signal, QUIET)?, None);
    other.write_all(b"data")?;
    check_eq!(value_of(signal)?, (libc::SI_ASYNCIO, 0xbeef));
    // It is done when it says so.
    check_eq!(read.result(), Ok(4));
    for n in 1..=10 {
        let mut write = Control::writer(&fifo, b"x");
        write.notify_by_signal(signal, n);
        write.write()?;
        check_eq!(value_of(signal)?, (libc::SI_ASYNCIO, n));
        check_eq!(write.result(), Ok(1));
    }
    Ok(())
}

fn by_threads() -> Result<()> {
    let (fifo, other) = (Fifo::open_empty(0)?, Fifo::open(0)?);
    let mut reads: Vec<Control> = (0..3).map(|_| Control::reader(&fifo, 1)).collect();
    for (read, value) in reads.iter_mut().zip([1, 10, 100]) {
        read.notify_by_thread(note, value);
        read.read()?;
    }
    until_running()?;
    check_eq!(CALLED.load(Ordering::SeqCst), 0);
    for sum in [1, 11, 111] {
        other.write_all(b"x")?;
        eventually("the call", || Ok(CALLED.load(Ordering::SeqCst) == sum))?;
    }
    for read in &mut reads {
        check_eq!(read.result(), Ok(1));
    }
    Ok(())
}

fn by_nothing() -> Result<()> {
    let signal = libc::SIGRTMIN() + 5;
    signals::block(signal)?;
    let fifo = Fifo::open_empty(0)?;
    let mut write = Control::writer(&fifo, b"x");
    // What is set for others does not matter.
    write.notify_by_signal(signal, 1);
    write.block().aio_sigevent.sigev_notify = libc::SIGEV_NONE;
    write.write()?;
    check_eq!(write.wait(), Ok(1));
    check_eq!(signals::take(signal, QUIET)?, None);
    Ok(())
}

fn bad_requests() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let reader = Fifo::open_as(PATH, true, false, 0)?;
    let writer = Fifo::open_as(PATH, false, true, 0)?;
    let mut on_writer = Control::reader(&writer, 8);
    on_writer.read()?;
    check_eq!(on_writer.wait(), Err(Errno::EBADF));
    let mut on_reader = Control::writer(&reader, b"x");
    on_reader.write()?;
    check_eq!(on_reader.wait(), Err(Errno::EBADF));
    let mut closed = Control::with(9999, vec![0; 8]);
    match closed.read() {
        Ok(()) => check_eq!(closed.wait(), Err(Errno::EBADF)),
        Err(error) => check_eq!(error, Errno::EBADF),
    }
    let mut priority = Control::reader(&fifo, 8);
    priority.block().aio_reqprio = -1;
    check_eq!(priority.read(), Err(Errno::EINVAL));
    let mut negative = Control::writer(&fifo, b"x");
    negative.block().aio_offset = -5;
    negative.write()?;
    check_eq!(negative.wait(), Err(Errno::EINVAL));
    let mut huge = Control::writer(&fifo, b"x");
    huge.block().aio_nbytes = usize::MAX;
    huge.write()?;
    check!(matches!(huge.wait(), Err(Errno::EFAULT | Errno::EINVAL)));
    let mut missing = Control::writer(&fifo, &[]);
    missing.block().aio_fildes = 9999;
    check_eq!(missing.fsync(libc::O_SYNC), Err(Errno::EBADF));
    // All of them left the FIFO alone.
    check_eq!(fifo.level()?, 0);
    Ok(())
}

fn bad_address() -> Result<()> {
    let (fifo, other) = (Fifo::open_empty(0)?, Fifo::open(0)?);
    let mut read = Control::reader(&fifo, 100);
    read.block().aio_buf = std::ptr::without_provenance_mut(0x10);
    read.read()?;
    until_running()?;
    other.write_all(b"still here")?;
    check_eq!(read.wait(), Err(Errno::EFAULT));
    let mut write = Control::writer(&fifo, &[1; 100]);
    write.block().aio_buf = std::ptr::without_provenance_mut(0x10);
    write.write()?;
    check_eq!(write.wait(), Err(Errno::EFAULT));
    check_eq!(fifo.read(100)?, b"still here".to_vec());
    Ok(())
}

fn fork() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let mut read = Control::reader(&fifo, 8);
    read.read()?;
    until_running()?;
    system::run("sh", &["-c", "printf child > /dev/globalfifo0"])?;
    check_eq!(read.wait(), Ok(5));
    check!(read.bytes().starts_with(b"child"));
    Ok(())
}

fn unbind() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let mut reads: Vec<Control> = (0..5).map(|_| Control::reader(&fifo, 8)).collect();
    for read in &mut reads {
        read.read()?;
    }
    until_running()?;
    let device = system::device_name()?;
    system::unbind(&device)?;
    let outcomes: Vec<_> = reads.iter_mut().map(Control::wait).collect();
    system::bind(&device)?;
    system::wait_for_file(PATH, true)?;
    if outcomes
        .iter()
        .any(|outcome| *outcome != Err(Errno::ENODEV))
    {
        bail!("not all were ENODEV: {outcomes:?}");
    }
    Ok(())
}
