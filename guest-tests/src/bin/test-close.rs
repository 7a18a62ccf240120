// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The end of a file: which requests it ends, and that its cost depends on the file's own requests alone.
#![expect(
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use globalfifo_guest_tests::aio::{Context, Event, Iocb, POLL, PREAD};
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo};
use globalfifo_guest_tests::forked::{Child, Parent};
use globalfifo_guest_tests::harness::{self, SOON, Test, eventually, limit};
use globalfifo_guest_tests::uring::{self, Ring};
use globalfifo_guest_tests::{check, check_eq, system};
use nix::libc::{self, O_NONBLOCK};
use nix::unistd::{close as close_fd, dup, gettid};

const TESTS: &[Test] = &[
    ("close_ends_requests_beside_a_poll_request", beside_a_poll),
    (
        "close_ends_requests_beside_a_poll_request_of_another_context",
        beside_another_poll,
    ),
    ("close_ends_requests_while_a_thread_reads", beside_a_read),
    ("close_ends_requests_while_a_thread_polls", beside_poll),
    ("close_ends_requests_beside_an_io_uring_poll", beside_uring),
    (
        "close_ends_waiting_writes_beside_a_poll_request",
        writes_beside_a_poll,
    ),
    (
        "close_ends_requests_though_another_process_has_the_file",
        beside_a_process,
    ),
    ("close_of_a_duplicate_ends_nothing", duplicate),
    ("close_in_another_process_ends_nothing", other_process),
    ("close_of_another_file_ends_nothing", other_file),
    (
        "open_and_close_cost_the_same_beside_twenty_thousand_reads",
        open_beside_many,
    ),
    (
        "close_with_requests_costs_the_same_beside_sixteen_thousand_reads",
        close_beside_many,
    ),
];

fn main() -> ExitCode {
    harness::main(TESTS)
}

/// Long enough for what should not happen to have happened.
const QUIET: Duration = Duration::from_millis(200);
/// Within which a close has ended what it has to.
const ENDING: Duration = Duration::from_secs(3);
/// Number of the requests that are to end.
const ENDS: u64 = 7;
/// Number of those that may.
const MAY_END: u64 = 8;

const ECANCELED: i64 = -(libc::ECANCELED as i64);

/// Closes, and all of `count` requests with the number [`ENDS`] have to end with ECANCELED.
fn close_ends(fifo: Fifo, context: &Context, count: usize) -> Result<()> {
    drop(fifo);
    let deadline = Instant::now() + limit(ENDING);
    let mut ended = 0;
    while ended < count {
        let left = deadline.saturating_duration_since(Instant::now());
        let events = context.events(1, count + 1, left)?;
        if events.is_empty() {
            bail!("{ended} of {count} requests ended");
        }
        for event in events {
            if event.data == ENDS {
                check_eq!(event.res, ECANCELED);
                ended += 1;
            }
        }
    }
    Ok(())
}

/// Three waiting reads of `fifo`, that live as long as the process.
fn reads(fifo: &Fifo, context: &Context) -> Result<()> {
    let rooms = Box::leak(Box::new([[0u8; 16]; 3]));
    for room in rooms {
        context.submit(&mut Iocb::read(fifo, room).data(ENDS))?;
    }
    Ok(())
}

fn poll_request(fifo: &Fifo, context: &Context) -> Result<()> {
    let events = u64::from(libc::POLLIN.cast_unsigned());
    Ok(context.submit(&mut Iocb::new(fifo, POLL, events, 0).data(MAY_END))?)
}

/// The FIFO gives its bytes to whoever comes next.
fn works() -> Result<()> {
    let fifo = Fifo::open(O_NONBLOCK)?;
    fifo.clear()?;
    fifo.write_all(b"next")?;
    fifo.wait_level(4)?;
    check_eq!(fifo.read(10), Ok(b"next".to_vec()));
    Ok(())
}

fn beside_a_poll() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(8)?;
    poll_request(&fifo, &context)?;
    reads(&fifo, &context)?;
    close_ends(fifo, &context, 3)?;
    works()
}

fn beside_another_poll() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let (context, other) = (Context::new(8)?, Context::new(8)?);
    reads(&fifo, &context)?;
    poll_request(&fifo, &other)?;
    close_ends(fifo, &context, 3)?;
    works()
}

/// Closes while a thread is in `call` of the same descriptor; afterwards a byte ends that.
fn beside_a_call(number: i64, call: fn(i32)) -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let fd = fifo.fd();
    let context = Context::new(8)?;
    let (tell, told) = std::sync::mpsc::channel();
    let caller = thread::spawn(move || {
        let _ = tell.send(gettid().as_raw());
        call(fd);
    });
    let tid = told.recv()?;
    eventually("the thread sleeps", || system::sleeps_in(tid, number))?;
    reads(&fifo, &context)?;
    let ended = close_ends(fifo, &context, 3);
    Fifo::open(0)?.write_all(b"x")?;
    if ended.is_ok() {
        caller.join().map_err(|_| anyhow::anyhow!("panic"))?;
    }
    ended?;
    works()
}

fn beside_a_read() -> Result<()> {
    beside_a_call(libc::SYS_read, |fd| {
        let mut byte = 0u8;
        // SAFETY: Room for one byte.
        unsafe { libc::read(fd, (&raw mut byte).cast(), 1) };
    })
}

fn beside_poll() -> Result<()> {
    beside_a_call(system::SYS_POLL, |fd| {
        let mut fd = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: One valid structure.
        unsafe { libc::poll(&raw mut fd, 1, -1) };
    })
}

fn beside_uring() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(8)?;
    let mut ring = Ring::new()?;
    ring.submit(uring::poll(&fifo, libc::POLLIN, false), 1)?;
    reads(&fifo, &context)?;
    close_ends(fifo, &context, 3)?;
    works()
}

fn writes_beside_a_poll() -> Result<()> {
    let full = Fifo::open_empty(O_NONBLOCK)?;
    check_eq!(full.fill()?, CAPACITY);
    full.wait_level(CAPACITY)?;
    let fifo = Fifo::open(0)?;
    let context = Context::new(8)?;
    for _ in 0..3 {
        context.submit(&mut Iocb::write(&fifo, b"never").data(ENDS))?;
    }
    let events = u64::from(libc::POLLPRI.cast_unsigned());
    context.submit(&mut Iocb::new(&fifo, POLL, events, 0).data(MAY_END))?;
    close_ends(fifo, &context, 3)?;
    check_eq!(full.drain()?.len(), CAPACITY);
    works()
}

fn beside_a_process() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let child = Child::start(|parent: &Parent| parent.await_go())?;
    let context = Context::new(8)?;
    reads(&fifo, &context)?;
    let ended = close_ends(fifo, &context, 3);
    child.go()?;
    ended?;
    child.finish()?;
    works()
}

fn no_event(context: &Context) -> Result<()> {
    check_eq!(context.events(0, 1, QUIET)?, Vec::<Event>::new());
    Ok(())
}

fn duplicate() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let copy = dup(&fifo)?;
    let context = Context::new(8)?;
    reads(&fifo, &context)?;
    drop(copy);
    no_event(&context)?;
    // The last one ends them, whichever it is.
    let copy = dup(&fifo)?;
    drop(fifo);
    no_event(&context)?;
    drop(copy);
    check!(
        context
            .events(3, 3, limit(SOON))?
            .iter()
            .all(|event| event.res == ECANCELED)
    );
    works()
}

fn other_process() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(8)?;
    reads(&fifo, &context)?;
    let fd = fifo.fd();
    Child::start(move |_: &Parent| Ok(close_fd(fd)?))?.finish()?;
    no_event(&context)?;
    Fifo::open(0)?.write_all(b"to the first")?;
    check_eq!(context.event()?.res, 12);
    close_ends(fifo, &context, 2)?;
    works()
}

fn other_file() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let other = Fifo::open(0)?;
    let context = Context::new(16)?;
    reads(&fifo, &context)?;
    let mut room = [0; 16];
    context.submit(&mut Iocb::read(&other, &mut room).data(MAY_END))?;
    close_ends(fifo, &context, 3)?;
    no_event(&context)?;
    other.write_all(b"still there")?;
    check_eq!(context.event()?.res, 11);
    Ok(())
}

/// A process with `count` reads waiting on the FIFO.
fn strangers(count: u32) -> Result<Child> {
    // More than all users may have by default.
    system::write("/proc/sys/fs/aio-max-nr", "200000")?;
    let child = Child::start(move |parent: &Parent| {
        let fifo = Fifo::open(0)?;
        let context = Context::new(count)?;
        let _reads = queue(&fifo, &context, usize::try_from(count)?)?;
        parent.say(b's')?;
        parent.await_go()
    })?;
    check_eq!(child.says_within(Duration::from_secs(30))?, Some(b's'));
    Ok(child)
}

/// Submits `count` reads of a byte, which live as long as what is returned.
fn queue(fifo: &Fifo, context: &Context, count: usize) -> Result<(Vec<Iocb>, Vec<u8>)> {
    let mut rooms = vec![0u8; count];
    let mut iocbs: Vec<Iocb> = rooms
        .iter_mut()
        .map(|room| Iocb::new(fifo, PREAD, std::ptr::from_mut(room) as u64, 1).data(ENDS))
        .collect();
    let mut done = 0;
    while done < count {
        let taken = context.submit_all(&mut iocbs[done..])?;
        check!(taken > 0);
        done += taken;
    }
    Ok((iocbs, rooms))
}

/// How much longer than beside few requests something may take beside many: what grows with them takes a hundred times as long.
const FACTOR: u32 = 4;

/// The shortest time of several that `work` takes, beside `count` reads of another process.
fn beside<T>(
    count: u32,
    times: u32,
    mut work: impl FnMut() -> Result<T>,
    mut time: impl FnMut(T) -> Result<Duration>,
) -> Result<Duration> {
    let strangers = strangers(count)?;
    let mut least = Duration::MAX;
    for _ in 0..times {
        let prepared = work()?;
        least = least.min(time(prepared)?);
    }
    strangers.go()?;
    strangers
        .finish()
        .context("the other process ends with its reads")?;
    Ok(least)
}

/// What takes `few` beside few may take so long beside many: a constant stands for the clock's and the scheduler's part.
fn is_alike(few: Duration, many: Duration) -> Result<()> {
    let most = few * FACTOR + Duration::from_micros(200);
    if many > most {
        bail!("{few:?} beside few requests of others, {many:?} beside many");
    }
    Ok(())
}

fn open_beside_many() -> Result<()> {
    drop(Fifo::open_empty(0)?);
    let [few, many] = [200, 20_000].map(|count| {
        beside(
            count,
            50,
            || Ok(Instant::now()),
            |began| {
                drop(Fifo::open(0)?);
                Ok(began.elapsed())
            },
        )
    });
    is_alike(few?, many?)
}

fn close_beside_many() -> Result<()> {
    const OWN: usize = 500;
    drop(Fifo::open_empty(0)?);
    let [few, many] = [10, 16_000].map(|count| {
        let context = Context::new(u32::try_from(OWN)?)?;
        let queued = || -> Result<_> {
            let fifo = Fifo::open(0)?;
            let reads = queue(&fifo, &context, OWN)?;
            Ok((fifo, reads))
        };
        beside(count, 3, &queued, |(fifo, _reads)| {
            let began = Instant::now();
            drop(fifo);
            let took = began.elapsed();
            let ended = context.events(OWN, OWN, limit(SOON))?;
            check!(ended.len() == OWN && ended.iter().all(|event| event.res == ECANCELED));
            Ok(took)
        })
    });
    is_alike(few?, many?)
}
