// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The other ways to wait and to move bytes: select, epoll, splice, sendfile, O_DIRECT, RWF_NOWAIT.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use globalfifo_guest_tests::aio::{Context, Iocb};
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, pattern};
use globalfifo_guest_tests::harness::{self, SOON, Test, eventually};
use globalfifo_guest_tests::signals::{self, POLL_IN, POLL_OUT};
use globalfifo_guest_tests::{check, check_eq, system};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice, tee};
use nix::libc::{self, O_DIRECT, O_NONBLOCK};
use nix::poll::{PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::{gettid, pipe2};

const TESTS: &[Test] = &[
    ("select_tells_readable_and_writable", select_now),
    ("select_wakes_with_data_and_with_space", select_wakes),
    ("poll_of_both_directions_wakes_for_either", poll_both),
    (
        "epoll_level_triggered_tells_as_long_as_it_holds",
        epoll_level,
    ),
    ("epoll_edge_triggered_tells_space_once", epoll_edge_space),
    ("epoll_oneshot_tells_once_until_armed_again", epoll_oneshot),
    ("epoll_exclusive_wakes_one_of_many", epoll_exclusive),
    ("epoll_exclusive_loses_no_arrival", epoll_exclusive_all),
    (
        "a_call_behind_a_request_wakes_for_what_it_leaves",
        behind_a_read,
    ),
    (
        "a_call_behind_a_cancelled_request_wakes",
        behind_a_cancelled_read,
    ),
    (
        "a_write_behind_a_request_wakes_for_what_it_leaves",
        behind_a_write,
    ),
    ("edges_tell_what_a_request_leaves", edges_behind),
    ("signals_tell_what_a_request_leaves", signals_behind),
    ("splice_from_the_fifo", splice_out),
    ("splice_into_the_fifo", splice_in),
    ("splice_waits_for_data", splice_waits),
    ("splice_into_a_full_fifo_takes_what_fits", splice_partial),
    ("splice_nonblock_is_eagain", splice_nonblock),
    (
        "splice_nonblock_does_not_wait_when_another_takes_the_data",
        splice_nonblock_race,
    ),
    ("tee_doubles_what_was_spliced", tee_doubles),
    ("sendfile_from_a_file", sendfile_small),
    ("sendfile_of_more_than_fits", sendfile_large),
    ("sendfile_from_the_fifo_needs_a_pipe", sendfile_out),
    ("o_direct_with_an_aligned_aio_read", direct_aio),
    ("o_direct_with_calls_of_any_alignment", direct_calls),
    ("rwf_nowait_reads_what_is_there_or_is_eagain", nowait_read),
    ("rwf_nowait_writes_what_fits_or_is_eagain", nowait_write),
    (
        "positions_and_flags_that_are_none_are_refused",
        bad_positions,
    ),
    ("lengths_over_the_limit", lengths),
    ("vectors_over_the_limit_are_refused", bad_vectors),
];

/// Long enough for what should not happen to have happened.
const QUIET: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    harness::main(TESTS)
}

fn spawn<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<(i32, thread::JoinHandle<T>)> {
    let (tell, told) = mpsc::channel();
    let handle = thread::spawn(move || {
        let _ = tell.send(gettid().as_raw());
        work()
    });
    Ok((told.recv()?, handle))
}

fn join<T>(handle: thread::JoinHandle<T>) -> Result<T> {
    handle
        .join()
        .map_err(|_| anyhow::anyhow!("a thread panicked"))
}

/// Waits until the task sleeps in a system call, so that what comes next finds it there.
fn until_blocked(tid: i32, call: i64) -> Result<()> {
    eventually(&format!("task {tid} sleeps in call {call}"), || {
        system::sleeps_in(tid, call)
    })
}

/// `select(2)` for both directions of one file: what is ready.
fn select(fifo: &Fifo, read: bool, write: bool, limit: Duration) -> Result<(bool, bool)> {
    // SAFETY: All zero are empty sets.
    let mut sets: [libc::fd_set; 2] = unsafe { std::mem::zeroed() };
    let [readable, writable] = &mut sets;
    if read {
        // SAFETY: The set is valid, the descriptor small.
        unsafe { libc::FD_SET(fifo.fd(), readable) };
    }
    if write {
        // SAFETY: As above.
        unsafe { libc::FD_SET(fifo.fd(), writable) };
    }
    let mut timeout = libc::timeval {
        tv_sec: i64::try_from(limit.as_secs())?,
        tv_usec: i64::from(limit.subsec_micros()),
    };
    let none = std::ptr::null_mut();
    // SAFETY: Sets and timeout are valid.
    let ready = unsafe { libc::select(fifo.fd() + 1, readable, writable, none, &raw mut timeout) };
    Errno::result(ready).context("select")?;
    // SAFETY: The set is valid.
    let in_set = |set: &libc::fd_set| unsafe { libc::FD_ISSET(fifo.fd(), set) };
    Ok((in_set(readable), in_set(writable)))
}

fn select_now() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let now = || select(&fifo, true, true, Duration::ZERO);
    check_eq!(now()?, (false, true));
    fifo.write_all(b"x")?;
    fifo.wait_level(1)?;
    check_eq!(now()?, (true, true));
    fifo.fill()?;
    fifo.wait_level(CAPACITY)?;
    check_eq!(now()?, (true, false));
    fifo.drain()?;
    check_eq!(now()?, (false, true));
    Ok(())
}

fn select_wakes() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let (tid, sleeper) = spawn(|| {
        let fifo = Fifo::open(0)?;
        select(&fifo, true, false, SOON)
    })?;
    // glibc's select is pselect6.
    until_blocked(tid, libc::SYS_pselect6)?;
    fifo.write_all(b"x")?;
    check_eq!(join(sleeper)??, (true, false));
    fifo.fill()?;
    fifo.wait_level(CAPACITY)?;
    let (tid, sleeper) = spawn(|| {
        let fifo = Fifo::open(0)?;
        select(&fifo, false, true, SOON)
    })?;
    until_blocked(tid, libc::SYS_pselect6)?;
    fifo.read(1)?;
    check_eq!(join(sleeper)??, (false, true));
    Ok(())
}

fn poll_both() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    fifo.fill()?;
    fifo.wait_level(CAPACITY)?;
    // Full: only the end of that can wake it, whatever else arrives or is read.
    let (tid, sleeper) = spawn(|| {
        let fifo = Fifo::open(0)?;
        fifo.poll_for(PollFlags::POLLOUT, PollTimeout::from(10_000u16))
    })?;
    until_blocked(tid, system::SYS_POLL)?;
    check_eq!(
        fifo.poll_for(PollFlags::POLLIN, PollTimeout::ZERO)?,
        PollFlags::POLLIN
    );
    fifo.read(10)?;
    check_eq!(join(sleeper)??, PollFlags::POLLOUT);
    Ok(())
}

fn epoll(fifo: &Fifo, flags: EpollFlags) -> Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(fifo, EpollEvent::new(flags, 9))?;
    Ok(epoll)
}

/// The events of the next wake-up, if one comes within `limit`.
fn next(epoll: &Epoll, limit: Duration) -> Result<Option<EpollFlags>> {
    let mut events = [EpollEvent::empty()];
    let count = epoll.wait(&mut events, EpollTimeout::try_from(limit)?)?;
    let [event] = events;
    Ok((count == 1).then(|| event.events()))
}

fn epoll_level() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let epoll = epoll(&fifo, EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT)?;
    check_eq!(next(&epoll, SOON)?, Some(EpollFlags::EPOLLOUT));
    fifo.fill()?;
    fifo.wait_level(CAPACITY)?;
    for _ in 0..10 {
        check_eq!(next(&epoll, Duration::ZERO)?, Some(EpollFlags::EPOLLIN));
    }
    fifo.read(1)?;
    let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
    for _ in 0..10 {
        check_eq!(next(&epoll, Duration::ZERO)?, Some(both));
    }
    fifo.drain()?;
    check_eq!(next(&epoll, Duration::ZERO)?, Some(EpollFlags::EPOLLOUT));
    Ok(())
}

fn epoll_edge_space() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let epoll = epoll(&fifo, EpollFlags::EPOLLOUT | EpollFlags::EPOLLET)?;
    check_eq!(next(&epoll, SOON)?, Some(EpollFlags::EPOLLOUT));
    for _ in 0..10 {
        fifo.fill()?;
        fifo.wait_level(CAPACITY)?;
        check_eq!(next(&epoll, Duration::ZERO)?, None);
        fifo.read(1)?;
        check_eq!(next(&epoll, SOON)?, Some(EpollFlags::EPOLLOUT));
        fifo.read(100)?;
        check_eq!(next(&epoll, Duration::ZERO)?, None);
    }
    Ok(())
}

fn epoll_oneshot() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
    let epoll = epoll(&fifo, flags)?;
    fifo.write_all(b"x")?;
    check_eq!(next(&epoll, SOON)?, Some(EpollFlags::EPOLLIN));
    fifo.write_all(b"x")?;
    fifo.wait_level(2)?;
    check_eq!(next(&epoll, QUIET)?, None);
    epoll.modify(&fifo, &mut EpollEvent::new(flags, 9))?;
    check_eq!(next(&epoll, SOON)?, Some(EpollFlags::EPOLLIN));
    fifo.drain()?;
    epoll.modify(&fifo, &mut EpollEvent::new(flags, 9))?;
    check_eq!(next(&epoll, QUIET)?, None);
    fifo.write_all(b"x")?;
    check_eq!(next(&epoll, SOON)?, Some(EpollFlags::EPOLLIN));
    Ok(())
}

/// Starts a thread that waits with an epoll of its own, exclusively, and then does `work`.
fn exclusive(work: impl FnMut(&Fifo) -> bool + Send + 'static) -> Result<()> {
    let mut work = work;
    let (tid, _) = spawn(move || -> Result<()> {
        let fifo = Fifo::open(O_NONBLOCK)?;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        let epoll = epoll(&fifo, flags)?;
        while next(&epoll, 10 * SOON)?.is_some() && work(&fifo) {}
        Ok(())
    })?;
    until_blocked(tid, system::SYS_EPOLL_WAIT)
}

fn epoll_exclusive() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let (tell, told) = mpsc::channel();
    for id in 0..4 {
        let tell = tell.clone();
        // Leaves the byte there, so that everybody who is woken sees it.
        exclusive(move |_| {
            let _ = tell.send(id);
            false
        })?;
    }
    let mut woken = Vec::new();
    for _ in 0..4 {
        fifo.write_all(b"x")?;
        woken.push(told.recv_timeout(SOON)?);
        check!(told.recv_timeout(QUIET).is_err());
    }
    woken.sort_unstable();
    check_eq!(woken, vec![0, 1, 2, 3]);
    Ok(())
}

fn epoll_exclusive_all() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let (tell, told) = mpsc::channel();
    for _ in 0..4 {
        let tell = tell.clone();
        exclusive(move |fifo| {
            // Nothing where another was faster.
            let _ = tell.send(fifo.read(1).unwrap_or_default());
            true
        })?;
    }
    let sent: Vec<u8> = (0..250).collect();
    for byte in &sent {
        fifo.write_all(&[*byte])?;
    }
    let mut got = Vec::new();
    while got.len() < sent.len() {
        got.extend(told.recv_timeout(SOON)?);
    }
    got.sort_unstable();
    check_eq!(got, sent);
    Ok(())
}

fn behind_a_read() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(8)?;
    for _ in 0..20 {
        let mut room = [0; 4];
        context.submit(&mut Iocb::read(&fifo, &mut room))?;
        let (tid, reader) = spawn(|| Fifo::open(0)?.read(100).context("read"))?;
        until_blocked(tid, libc::SYS_read)?;
        let (poller_tid, poller) =
            spawn(|| Fifo::open(0)?.poll_for(PollFlags::POLLIN, PollTimeout::from(10_000u16)))?;
        until_blocked(poller_tid, system::SYS_POLL)?;
        // Arrives at once, and the request takes the first half of it.
        fifo.write_all(b"reqscall")?;
        check_eq!(context.event()?.res, 4);
        check_eq!(&room, b"reqs");
        check_eq!(join(reader)??, b"call".to_vec());
        fifo.write_all(b"x")?;
        join(poller)??;
        fifo.clear()?;
    }
    Ok(())
}

fn behind_a_cancelled_read() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(8)?;
    for _ in 0..50 {
        let mut room = [0; 4];
        let mut request = Iocb::read(&fifo, &mut room);
        context.submit(&mut request)?;
        let (tid, reader) = spawn(|| Fifo::open(0)?.read(4).context("read"))?;
        until_blocked(tid, libc::SYS_read)?;
        // Whichever comes first, the bytes go to one of the two, and so does the next lot.
        fifo.write_all(b"data")?;
        let _ = context.cancel(&mut request);
        let event = context.event()?;
        if event.res == 4 {
            check_eq!(&room, b"data");
            fifo.write_all(b"data")?;
        } else {
            check_eq!(event.res, -i64::from(libc::ECANCELED));
        }
        check_eq!(join(reader)??, b"data".to_vec());
    }
    Ok(())
}

fn behind_a_write() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let blocking = Fifo::open(0)?;
    let context = Context::new(8)?;
    for _ in 0..20 {
        check_eq!(fifo.write(&[0; CAPACITY]), Ok(CAPACITY));
        fifo.wait_level(CAPACITY)?;
        context.submit(&mut Iocb::write(&blocking, b"reqs"))?;
        let (tid, writer) = spawn(|| Fifo::open(0)?.write(b"call").context("write"))?;
        until_blocked(tid, libc::SYS_write)?;
        let (poller_tid, poller) =
            spawn(|| Fifo::open(0)?.poll_for(PollFlags::POLLOUT, PollTimeout::from(10_000u16)))?;
        until_blocked(poller_tid, system::SYS_POLL)?;
        // Space for both, and some.
        check_eq!(fifo.read(100)?.len(), 100);
        check_eq!(context.event()?.res, 4);
        check_eq!(join(writer)??, 4);
        check_eq!(join(poller)??, PollFlags::POLLOUT);
        fifo.wait_level(CAPACITY - 92)?;
        check!(fifo.drain()?.ends_with(b"reqscall"));
    }
    Ok(())
}

/// As programs with edges and signals do it: `work` until `EAGAIN`, then wait for the next `news`.
fn as_told(
    mut news: impl FnMut() -> Result<bool>,
    mut work: impl FnMut() -> Result<bool>,
) -> Result<()> {
    while !work()? {
        check!(news()?);
    }
    Ok(())
}

/// Requests come first, calls get the rest; the news of it must not be lost on the way.
fn rest_as_told(
    mut data: impl FnMut() -> Result<bool>,
    mut space: impl FnMut() -> Result<bool>,
    watched: &Fifo,
) -> Result<()> {
    let blocking = Fifo::open(0)?;
    let context = Context::new(8)?;
    for _ in 0..10 {
        let mut room = [0; 4];
        context.submit(&mut Iocb::read(&blocking, &mut room))?;
        blocking.write_all(b"reqscall")?;
        let mut got = Vec::new();
        as_told(&mut data, || {
            got.extend(watched.drain()?);
            Ok(got.len() == 4)
        })?;
        check_eq!(got, b"call".to_vec());
        check_eq!(context.event()?.res, 4);
        check_eq!(watched.write(&[0; CAPACITY]), Ok(CAPACITY));
        watched.wait_level(CAPACITY)?;
        context.submit(&mut Iocb::write(&blocking, b"reqs"))?;
        watched.read(100)?;
        as_told(&mut space, || Ok(watched.write(b"call").is_ok()))?;
        check_eq!(context.event()?.res, 4);
        watched.wait_level(CAPACITY - 92)?;
        check!(watched.drain()?.ends_with(b"reqscall"));
    }
    Ok(())
}

fn edges_behind() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let readable = epoll(&fifo, EpollFlags::EPOLLIN | EpollFlags::EPOLLET)?;
    let writable = epoll(&fifo, EpollFlags::EPOLLOUT | EpollFlags::EPOLLET)?;
    rest_as_told(
        || Ok(next(&readable, SOON)?.is_some()),
        || Ok(next(&writable, SOON)?.is_some()),
        &fifo,
    )
}

fn signals_behind() -> Result<()> {
    let signal = libc::SIGRTMIN() + 3;
    signals::block(signal)?;
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    fifo.enable_signals(Some(signal))?;
    let told = |code: i32| loop {
        match signals::take(signal, SOON)? {
            Some(got) if got.code == code => return Ok(true),
            Some(_) => {}
            None => return Ok(false),
        }
    };
    rest_as_told(|| told(POLL_IN), || told(POLL_OUT), &fifo)
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).context("pipe2")
}

fn read_pipe(from: &OwnedFd, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let got = nix::unistd::read(from, &mut bytes)?;
    bytes.truncate(got);
    Ok(bytes)
}

fn splice_all(
    from: &impl std::os::fd::AsFd,
    to: &impl std::os::fd::AsFd,
    length: usize,
    flags: SpliceFFlags,
) -> Result<usize, Errno> {
    splice(from, None, to, None, length, flags)
}

const NONE: SpliceFFlags = SpliceFFlags::empty();
const NONBLOCK: SpliceFFlags = SpliceFFlags::SPLICE_F_NONBLOCK;

fn splice_out() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let (out, into) = pipe()?;
    for length in [1, 100, CAPACITY] {
        let bytes = pattern(length as u64, length);
        fifo.write_all(&bytes)?;
        fifo.wait_level(length)?;
        check_eq!(splice_all(&fifo, &into, 2 * CAPACITY, NONE)?, length);
        check_eq!(read_pipe(&out, 2 * CAPACITY)?, bytes);
    }
    // No more than is asked for.
    fifo.write_all(b"head and tail")?;
    fifo.wait_level(13)?;
    check_eq!(splice_all(&fifo, &into, 4, NONE)?, 4);
    check_eq!(read_pipe(&out, 100)?, b"head".to_vec());
    check_eq!(fifo.read(100)?, b" and tail".to_vec());
    Ok(())
}

fn splice_in() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let (out, into) = pipe()?;
    for length in [1, 100, CAPACITY] {
        let bytes = pattern(length as u64, length);
        nix::unistd::write(&into, &bytes)?;
        check_eq!(splice_all(&out, &fifo, 2 * CAPACITY, NONE)?, length);
        check_eq!(fifo.read_exact(length)?, bytes);
    }
    Ok(())
}

fn splice_waits() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    // A pipe with O_NONBLOCK would stand for SPLICE_F_NONBLOCK.
    let (out, into) = nix::unistd::pipe()?;
    let (tid, splicer) =
        spawn(move || -> Result<usize> { Ok(splice_all(&Fifo::open(0)?, &into, 100, NONE)?) })?;
    until_blocked(tid, libc::SYS_splice)?;
    fifo.write_all(b"wake up")?;
    check_eq!(join(splicer)??, 7);
    check_eq!(read_pipe(&out, 100)?, b"wake up".to_vec());
    Ok(())
}

fn splice_partial() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let (out, into) = pipe()?;
    check_eq!(fifo.write(&[1; CAPACITY - 100]), Ok(CAPACITY - 100));
    let bytes = pattern(1, 1000);
    nix::unistd::write(&into, &bytes)?;
    check_eq!(splice_all(&out, &fifo, 1000, NONE), Ok(100));
    check_eq!(splice_all(&out, &fifo, 1000, NONE), Err(Errno::EAGAIN));
    fifo.wait_level(CAPACITY)?;
    let mut back = fifo.drain()?.split_off(CAPACITY - 100);
    // What did not fit has stayed in the pipe.
    check_eq!(splice_all(&out, &fifo, 1000, NONE), Ok(900));
    fifo.wait_level(900)?;
    back.extend(fifo.drain()?);
    check!(back == bytes);
    Ok(())
}

fn splice_nonblock() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let blocking = Fifo::open(0)?;
    let (out, into) = pipe()?;
    check_eq!(splice_all(&fifo, &into, 100, NONBLOCK), Err(Errno::EAGAIN));
    check_eq!(splice_all(&fifo, &into, 100, NONE), Err(Errno::EAGAIN));
    // The flag alone is enough, for a file that would wait.
    check_eq!(
        splice_all(&blocking, &into, 100, NONBLOCK),
        Err(Errno::EAGAIN)
    );
    check_eq!(
        splice_all(&out, &blocking, 100, NONBLOCK),
        Err(Errno::EAGAIN)
    );
    fifo.write_all(b"data")?;
    fifo.wait_level(4)?;
    check_eq!(splice_all(&blocking, &into, 100, NONBLOCK), Ok(4));
    check_eq!(read_pipe(&out, 100)?, b"data".to_vec());
    // A pipe without room: the bytes stay in the FIFO.
    while nix::unistd::write(&into, &[0; 4096]).is_ok() {}
    fifo.write_all(b"stay")?;
    fifo.wait_level(4)?;
    check_eq!(
        splice_all(&blocking, &into, 100, NONBLOCK),
        Err(Errno::EAGAIN)
    );
    check_eq!(fifo.read(100)?, b"stay".to_vec());
    Ok(())
}

fn splice_nonblock_race() -> Result<()> {
    const ROUNDS: usize = 3000;
    let fifo = Fifo::open_empty(0)?;
    let (out, into) = pipe()?;
    let (tell, told) = mpsc::channel::<()>();
    let (_, thief) = spawn(move || -> Result<usize> {
        let fifo = Fifo::open(O_NONBLOCK)?;
        let mut taken = 0;
        while told.try_recv() == Err(mpsc::TryRecvError::Empty) {
            taken += fifo.read(1).map_or(0, |bytes| bytes.len());
        }
        Ok(taken)
    })?;
    let mut spliced = 0;
    for _ in 0..ROUNDS {
        fifo.write_all(b"x")?;
        // Whoever comes first gets it; then there is nothing more, and nobody would end a wait.
        loop {
            match splice_all(&fifo, &into, 1, NONBLOCK) {
                Ok(got) => spliced += read_pipe(&out, got)?.len(),
                Err(Errno::EAGAIN) if fifo.events()?.contains(PollFlags::POLLIN) => {}
                other => break check_eq!(other, Err(Errno::EAGAIN)),
            }
        }
    }
    drop(tell);
    let left = ROUNDS - spliced - join(thief)??;
    check_eq!(fifo.read_exact(left)?.len(), left);
    fifo.set_flags(O_NONBLOCK, true)?;
    check_eq!(fifo.read(1), Err(Errno::EAGAIN));
    Ok(())
}

fn tee_doubles() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let ((first_out, first_in), (second_out, second_in)) = (pipe()?, pipe()?);
    fifo.write_all(b"to be doubled")?;
    fifo.wait_level(13)?;
    check_eq!(splice_all(&fifo, &first_in, 100, NONE)?, 13);
    check_eq!(tee(&first_out, &second_in, 100, NONE)?, 13);
    check_eq!(splice_all(&first_out, &fifo, 100, NONE)?, 13);
    check_eq!(splice_all(&second_out, &fifo, 100, NONE)?, 13);
    check_eq!(fifo.read_exact(26)?, b"to be doubledto be doubled".to_vec());
    Ok(())
}

/// A file with `bytes`.
fn file_of(name: &str, bytes: &[u8]) -> Result<File> {
    let path = format!("/tmp/globalfifo-{name}");
    File::create(&path)?.write_all(bytes)?;
    let file = File::open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// `sendfile(2)` of up to `length` bytes.
fn sendfile(to: &impl AsRawFd, from: &impl AsRawFd, length: usize) -> Result<usize, Errno> {
    let none = std::ptr::null_mut();
    // SAFETY: Without an offset it takes integers only.
    let sent = unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), none, length) };
    Errno::result(sent).map(isize::cast_unsigned)
}

/// The number of a FIFO's descriptor, where a call wants one.
struct Number(i32);

impl AsRawFd for Number {
    fn as_raw_fd(&self) -> i32 {
        self.0
    }
}

fn sendfile_small() -> Result<()> {
    let bytes = pattern(7, 3000);
    let file = file_of("small", &bytes)?;
    let fifo = Fifo::open_empty(0)?;
    check_eq!(sendfile(&Number(fifo.fd()), &file, 100_000), Ok(3000));
    check_eq!(fifo.read_exact(3000)?, bytes);
    check_eq!(sendfile(&Number(fifo.fd()), &file, 100_000), Ok(0));
    Ok(())
}

fn sendfile_large() -> Result<()> {
    const TOTAL: usize = 300_000;
    let bytes = pattern(8, TOTAL);
    let file = file_of("large", &bytes)?;
    let fifo = Fifo::open_empty(0)?;
    let (_, reader) = spawn(|| Fifo::open(0)?.read_exact(TOTAL))?;
    let mut sent = 0;
    while sent < TOTAL {
        sent += sendfile(&Number(fifo.fd()), &file, TOTAL)?;
    }
    check_eq!(sent, TOTAL);
    check!(join(reader)?? == bytes);
    // A full FIFO that does not wait takes what fits, and the file's position says how much.
    let nonblocking = Fifo::open_empty(O_NONBLOCK)?;
    let file = file_of("more", &bytes)?;
    let to = Number(nonblocking.fd());
    check_eq!(sendfile(&to, &file, TOTAL), Ok(CAPACITY));
    check_eq!(sendfile(&to, &file, TOTAL), Err(Errno::EAGAIN));
    let mut rest = Vec::new();
    (&file).read_to_end(&mut rest)?;
    check_eq!(rest.len(), TOTAL - CAPACITY);
    Ok(())
}

fn sendfile_out() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    fifo.write_all(b"kept")?;
    fifo.wait_level(4)?;
    let (out, into) = pipe()?;
    let from = Number(fifo.fd());
    let file = File::create("/tmp/globalfifo-sendfile-out")?;
    check_eq!(sendfile(&file, &from, 100), Err(Errno::EINVAL));
    check_eq!(tee(&fifo, &into, 100, NONE), Err(Errno::EINVAL));
    check_eq!(tee(&out, &fifo, 100, NONE), Err(Errno::EINVAL));
    // Neither end is a pipe.
    check_eq!(splice_all(&fifo, &fifo, 100, NONE), Err(Errno::EINVAL));
    check_eq!(fifo.level()?, 4);
    // Into a pipe it is a splice.
    check_eq!(sendfile(&into, &from, 100), Ok(4));
    check_eq!(read_pipe(&out, 100)?, b"kept".to_vec());
    Ok(())
}

/// Memory as O_DIRECT wants it on disks; freed on drop.
struct Aligned(*mut u8, usize);

impl Aligned {
    fn new(size: usize) -> Result<Self> {
        let mut memory = std::ptr::null_mut();
        // SAFETY: `memory` is valid.
        let failed = unsafe { libc::posix_memalign(&raw mut memory, 4096, size) };
        check_eq!(failed, 0);
        // SAFETY: That much has just been given.
        unsafe { libc::memset(memory, 0, size) };
        Ok(Self(memory.cast(), size))
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: The memory is ours and initialised.
        unsafe { std::slice::from_raw_parts_mut(self.0, self.1) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: From posix_memalign, and freed once.
        unsafe { libc::free(self.0.cast()) };
    }
}

fn direct_aio() -> Result<()> {
    // Chapter 9's program: O_RDWR | O_DIRECT, posix_memalign, one pread of 4096.
    drop(Fifo::open_empty(0)?);
    system::run("sh", &["-c", "echo hello > /dev/globalfifo"])?;
    let fifo = Fifo::open(O_DIRECT)?;
    let flags = OFlag::from_bits_retain(fcntl(&fifo, FcntlArg::F_GETFL)?);
    check!(flags.contains(OFlag::O_DIRECT));
    let mut memory = Aligned::new(4096)?;
    let context = Context::new(1)?;
    fifo.wait_level(6)?;
    context.submit(&mut Iocb::read(&fifo, memory.bytes()))?;
    check_eq!(context.event()?.res, 6);
    check!(memory.bytes().starts_with(b"hello\n"));
    // And one that waits.
    context.submit(&mut Iocb::read(&fifo, memory.bytes()))?;
    check_eq!(context.events(0, 1, QUIET)?, vec![]);
    system::run("sh", &["-c", "echo later > /dev/globalfifo"])?;
    check_eq!(context.event()?.res, 6);
    check!(memory.bytes().starts_with(b"later\n"));
    Ok(())
}

fn direct_calls() -> Result<()> {
    let fifo = Fifo::open_empty(O_DIRECT | O_NONBLOCK)?;
    let bytes = pattern(4, 1001);
    check_eq!(fifo.write(&bytes), Ok(1001));
    fifo.wait_level(1001)?;
    check_eq!(fifo.read(3)?, bytes.get(..3).unwrap_or_default().to_vec());
    check_eq!(fifo.drain()?, bytes.get(3..).unwrap_or_default().to_vec());
    // Switched on and off later, too.
    let plain = Fifo::open(0)?;
    plain.set_flags(O_DIRECT, true)?;
    check_eq!(plain.write(b"x"), Ok(1));
    plain.set_flags(O_DIRECT, false)?;
    check_eq!(plain.read_exact(1)?, b"x".to_vec());
    Ok(())
}

fn preadv2(fifo: &Fifo, length: usize, offset: i64, flags: i32) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0u8; length];
    let (head, tail) = bytes.split_at_mut(length / 3);
    let vectors = [head, tail].map(|part| libc::iovec {
        iov_base: part.as_mut_ptr().cast(),
        iov_len: part.len(),
    });
    // SAFETY: The vectors are valid.
    let got = unsafe { libc::preadv2(fifo.fd(), vectors.as_ptr(), 2, offset, flags) };
    let got = Errno::result(got)?;
    bytes.truncate(got.cast_unsigned());
    Ok(bytes)
}

fn pwritev2(fifo: &Fifo, bytes: &[u8], offset: i64, flags: i32) -> Result<usize, Errno> {
    let vectors = [libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }];
    // SAFETY: The vector is valid, and only read.
    let sent = unsafe { libc::pwritev2(fifo.fd(), vectors.as_ptr(), 1, offset, flags) };
    Errno::result(sent).map(isize::cast_unsigned)
}

fn nowait_read() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    check_eq!(
        preadv2(&fifo, 100, -1, libc::RWF_NOWAIT),
        Err(Errno::EAGAIN)
    );
    fifo.write_all(b"there")?;
    fifo.wait_level(5)?;
    check_eq!(
        preadv2(&fifo, 100, -1, libc::RWF_NOWAIT),
        Ok(b"there".to_vec())
    );
    check_eq!(
        preadv2(&fifo, 100, -1, libc::RWF_NOWAIT),
        Err(Errno::EAGAIN)
    );
    // Without the flag it waits.
    let (tid, reader) = spawn(|| -> Result<_> { Ok(preadv2(&Fifo::open(0)?, 100, -1, 0)?) })?;
    until_blocked(tid, libc::SYS_preadv2)?;
    fifo.write_all(b"woken")?;
    check_eq!(join(reader)??, b"woken".to_vec());
    Ok(())
}

fn nowait_write() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let bytes = pattern(2, CAPACITY + 10);
    check_eq!(pwritev2(&fifo, &bytes, -1, libc::RWF_NOWAIT), Ok(CAPACITY));
    check_eq!(
        pwritev2(&fifo, b"x", -1, libc::RWF_NOWAIT),
        Err(Errno::EAGAIN)
    );
    fifo.wait_level(CAPACITY)?;
    check_eq!(fifo.read(1)?.len(), 1);
    check_eq!(pwritev2(&fifo, b"xyz", -1, libc::RWF_NOWAIT), Ok(1));
    // With a flag that means nothing to a FIFO.
    fifo.read(10)?;
    check_eq!(pwritev2(&fifo, b"s", -1, libc::RWF_DSYNC), Ok(1));
    Ok(())
}

fn bad_positions() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    fifo.write_all(b"kept")?;
    fifo.wait_level(4)?;
    check_eq!(preadv2(&fifo, 9, 0, 0), Err(Errno::ESPIPE));
    check_eq!(preadv2(&fifo, 9, -5, 0), Err(Errno::EINVAL));
    check_eq!(pwritev2(&fifo, b"x", 0, 0), Err(Errno::ESPIPE));
    check_eq!(pwritev2(&fifo, b"x", -5, 0), Err(Errno::EINVAL));
    check_eq!(preadv2(&fifo, 9, -1, 0x4000_0000), Err(Errno::EOPNOTSUPP));
    let pread = nix::sys::uio::pread(&fifo, &mut [0], -5);
    check_eq!(pread, Err(Errno::EINVAL));
    check_eq!(fifo.read(100), Ok(b"kept".to_vec()));
    Ok(())
}

fn lengths() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    // More than the kernel moves at a time is cut; the memory behind the room is not touched, as the
    // FIFO holds no more than fits into it. Far below the end of the address space, where the stack is:
    // what reaches beyond that is refused.
    let hint = std::ptr::without_provenance_mut(1 << 44);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: A new mapping, where nothing is.
    let room = unsafe { libc::mmap(hint, CAPACITY, protection, flags, -1, 0) };
    check!(room != libc::MAP_FAILED);
    fifo.write_all(b"here")?;
    fifo.wait_level(4)?;
    // SAFETY: The FIFO has four bytes.
    let got = unsafe { libc::read(fifo.fd(), room, 1 << 32) };
    check_eq!(Errno::result(got), Ok(4));
    // SAFETY: Mapped, and four bytes long.
    check_eq!(unsafe { room.cast::<[u8; 4]>().read() }, *b"here");
    // Beyond all memory: refused, with nothing moved.
    fifo.write_all(b"kept")?;
    fifo.wait_level(4)?;
    // SAFETY: The kernel checks the length.
    let got = unsafe { libc::read(fifo.fd(), room, usize::MAX) };
    check!(matches!(
        Errno::result(got),
        Err(Errno::EFAULT | Errno::EINVAL)
    ));
    // SAFETY: The kernel checks the length.
    let put = unsafe { libc::write(fifo.fd(), room, usize::MAX) };
    check!(matches!(
        Errno::result(put),
        Err(Errno::EFAULT | Errno::EINVAL)
    ));
    check_eq!(fifo.read(100), Ok(b"kept".to_vec()));
    Ok(())
}

fn bad_vectors() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    fifo.write_all(b"kept")?;
    fifo.wait_level(4)?;
    let mut room = [0u8; 8];
    let good = libc::iovec {
        iov_base: room.as_mut_ptr().cast(),
        iov_len: 8,
    };
    let many = vec![good; 1025];
    let readv = |vectors: &[libc::iovec], count: i32| {
        // SAFETY: The kernel checks the count and the vectors.
        Errno::result(unsafe { libc::readv(fifo.fd(), vectors.as_ptr(), count) })
    };
    check_eq!(readv(&many, 1025), Err(Errno::EINVAL));
    check_eq!(readv(&many, -1), Err(Errno::EINVAL));
    check_eq!(readv(&many, 0), Ok(0));
    let negative = libc::iovec {
        iov_len: usize::MAX,
        ..good
    };
    check_eq!(readv(&[good, negative], 2), Err(Errno::EINVAL));
    check_eq!(fifo.read(100), Ok(b"kept".to_vec()));
    Ok(())
}
