// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine is suspended, or starts to be and one of its devices refuses: nothing is lost, and everything goes on.
//!
//! A guest whose root is virtiofs is refused by that, after other devices have been suspended already; they are resumed then. One
//! whose root is in memory sleeps until its clock wakes it. Each test is right for both.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, bail};
use globalfifo_guest_tests::aio::{Context, Iocb};
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, PATH, pattern};
use globalfifo_guest_tests::forked::{Child, Parent};
use globalfifo_guest_tests::harness::{self, SOON, Test, eventually, limit};
use globalfifo_guest_tests::suspend::suspend;
use globalfifo_guest_tests::{check, check_eq, signals, system};
use nix::libc::{self, O_NONBLOCK};
use nix::poll::{PollFlags, PollTimeout};
use nix::unistd::fsync;

const TESTS: &[Test] = &[
    ("unread_bytes_survive_a_suspend", unread),
    ("bytes_just_written_survive_a_suspend", just_written),
    ("a_blocked_read_goes_on_after_a_suspend", blocked_read),
    ("a_blocked_write_goes_on_after_a_suspend", blocked_write),
    ("a_waiting_aio_read_is_completed_after_a_suspend", aio_read),
    (
        "a_waiting_aio_write_is_completed_after_a_suspend",
        aio_write,
    ),
    (
        "a_waiting_aio_read_can_be_cancelled_after_a_suspend",
        aio_cancel,
    ),
    ("fsync_and_clear_work_after_a_suspend", fsync_and_clear),
    ("clears_go_on_through_a_suspend", clears),
    ("poll_and_sigio_tell_arrivals_after_a_suspend", told),
    ("three_suspends_in_a_stream_lose_and_double_nothing", stream),
    ("unbind_and_bind_work_after_a_suspend", unbind),
];

fn main() -> ExitCode {
    harness::main(TESTS)
}

/// An empty FIFO of a device that was bound just now, whatever an earlier test left.
fn fresh(flags: i32) -> Result<Fifo> {
    let device = system::device_name()?;
    system::unbind(&device)?;
    system::bind(&device)?;
    system::wait_for_file(PATH, true)?;
    Fifo::open_empty(flags)
}

/// Reads exactly `n` bytes, in time. The FIFO has O_NONBLOCK.
fn read_soon(fifo: &Fifo, n: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let patience = PollTimeout::try_from(limit(SOON))?;
    while bytes.len() < n {
        if fifo.poll_for(PollFlags::POLLIN, patience)?.is_empty() {
            bail!("{} of {n} bytes came", bytes.len());
        }
        bytes.extend(fifo.read(n - bytes.len())?);
    }
    Ok(bytes)
}

/// Bytes come through.
fn works(fifo: &Fifo) -> Result<()> {
    check_eq!(fifo.write(b"still works"), Ok(11));
    check_eq!(read_soon(fifo, 11)?, b"still works".to_vec());
    Ok(())
}

/// A task that waits for the answer to a clear must not be frozen with the turn: the resume waits for that.
fn clears() -> Result<()> {
    let fifo = fresh(O_NONBLOCK)?;
    let over = Arc::new(AtomicBool::new(false));
    let clearing = [(); 2].map(|()| {
        let over = over.clone();
        thread::spawn(move || -> Result<()> {
            let fifo = Fifo::open(0)?;
            while !over.load(Ordering::SeqCst) {
                fifo.clear()?;
            }
            Ok(())
        })
    });
    for _ in 0..3 {
        suspend()?;
    }
    over.store(true, Ordering::SeqCst);
    for thread in clearing {
        thread.join().map_err(|_| anyhow::anyhow!("panic"))??;
    }
    works(&fifo)
}

fn unread() -> Result<()> {
    let fifo = fresh(O_NONBLOCK)?;
    check_eq!(fifo.write(&pattern(1, 1000)), Ok(1000));
    fifo.wait_level(1000)?;
    let first = fifo.read(300)?;
    suspend()?;
    check!([first, read_soon(&fifo, 700)?].concat() == pattern(1, 1000));
    works(&fifo)
}

fn just_written() -> Result<()> {
    let fifo = fresh(O_NONBLOCK)?;
    let bytes = pattern(2, 1000);
    // Small ones, of which the driver may hold some back.
    for part in bytes.chunks(20) {
        check_eq!(fifo.write(part), Ok(20));
    }
    suspend()?;
    check!(read_soon(&fifo, 1000)? == bytes);
    works(&fifo)
}

fn blocked_read() -> Result<()> {
    let fifo = fresh(O_NONBLOCK)?;
    let reader = Child::start(|_: &Parent| {
        check_eq!(Fifo::open(0)?.read(100), Ok(b"after".to_vec()));
        Ok(())
    })?;
    let pid = reader.pid().as_raw();
    eventually("the reader sleeps", || {
        system::sleeps_in(pid, libc::SYS_read)
    })?;
    suspend()?;
    check_eq!(fifo.write(b"after"), Ok(5));
    reader.finish()?;
    works(&fifo)
}

fn blocked_write() -> Result<()> {
    let fifo = fresh(O_NONBLOCK)?;
    check_eq!(fifo.fill()?, CAPACITY);
    fifo.wait_level(CAPACITY)?;
    let writer = Child::start(|_: &Parent| Fifo::open(0)?.write_all(b"last"))?;
    let pid = writer.pid().as_raw();
    eventually("the writer sleeps", || {
        system::sleeps_in(pid, libc::SYS_write)
    })?;
    suspend()?;
    check_eq!(
        read_soon(&fifo, CAPACITY + 4)?.split_off(CAPACITY),
        b"last".to_vec()
    );
    writer.finish()?;
    works(&fifo)
}

fn aio_read() -> Result<()> {
    let fifo = fresh(O_NONBLOCK)?;
    let requests = Fifo::open(0)?;
    let context = Context::new(4)?;
    let mut rooms = [[0; 3]; 2];
    for (number, room) in (0..).zip(&mut rooms) {
        context.submit(&mut Iocb::read(&requests, room).data(number))?;
    }
    suspend()?;
    check_eq!(fifo.write(b"onetwo"), Ok(6));
    let results = context.results(2)?;
    check!(results.len() == 2 && results.values().all(|result| *result == 3));
    check_eq!(rooms, [*b"one", *b"two"]);
    works(&fifo)
}

fn aio_write() -> Result<()> {
    let fifo = fresh(O_NONBLOCK)?;
    check_eq!(fifo.fill()?, CAPACITY);
    fifo.wait_level(CAPACITY)?;
    let requests = Fifo::open(0)?;
    let context = Context::new(4)?;
    context.submit(&mut Iocb::write(&requests, b"waits"))?;
    suspend()?;
    check_eq!(
        read_soon(&fifo, CAPACITY + 5)?.split_off(CAPACITY),
        b"waits".to_vec()
    );
    check_eq!(context.event()?.res, 5);
    works(&fifo)
}

fn aio_cancel() -> Result<()> {
    let fifo = fresh(O_NONBLOCK)?;
    let requests = Fifo::open(0)?;
    let context = Context::new(4)?;
    let mut room = [0; 3];
    let mut read = Iocb::read(&requests, &mut room);
    context.submit(&mut read)?;
    suspend()?;
    let _ = context.cancel(&mut read);
    check_eq!(context.event()?.res, -i64::from(libc::ECANCELED));
    works(&fifo)
}

fn fsync_and_clear() -> Result<()> {
    let fifo = fresh(O_NONBLOCK)?;
    suspend()?;
    check_eq!(fifo.write(b"gone"), Ok(4));
    check_eq!(fsync(&fifo), Ok(()));
    check_eq!(fifo.clear(), Ok(()));
    check_eq!(fifo.level()?, 0);
    works(&fifo)
}

fn told() -> Result<()> {
    signals::block_sigio()?;
    let fifo = fresh(O_NONBLOCK)?;
    suspend()?;
    fifo.enable_signals(Some(libc::SIGIO))?;
    check_eq!(fifo.write(b"x"), Ok(1));
    let signal = signals::take(libc::SIGIO, limit(SOON))?;
    check_eq!(signal.map(|signal| signal.code), Some(signals::POLL_IN));
    check_eq!(read_soon(&fifo, 1)?, b"x".to_vec());
    check_eq!(fifo.fill()?, CAPACITY);
    Ok(fifo.clear()?)
}

/// Bytes of the stream.
const STREAM: usize = 1 << 18;

fn stream() -> Result<()> {
    let fifo = fresh(O_NONBLOCK)?;
    let writer = Child::start(|_: &Parent| Fifo::open(0)?.write_all(&pattern(3, STREAM)))?;
    let mut bytes = Vec::new();
    for part in 1..=4 {
        bytes.extend(read_soon(&fifo, part * STREAM / 4 - bytes.len())?);
        if part < 4 {
            suspend()?;
        }
    }
    check!(bytes == pattern(3, STREAM));
    writer.finish()?;
    works(&fifo)
}

fn unbind() -> Result<()> {
    let fifo = fresh(O_NONBLOCK)?;
    check_eq!(fifo.write(b"kept"), Ok(4));
    fifo.wait_level(4)?;
    suspend()?;
    drop(fifo);
    let device = system::device_name()?;
    system::unbind(&device)?;
    system::bind(&device)?;
    system::wait_for_file(PATH, true)?;
    let fifo = Fifo::open(O_NONBLOCK)?;
    check_eq!(read_soon(&fifo, 4)?, b"kept".to_vec());
    works(&fifo)
}
