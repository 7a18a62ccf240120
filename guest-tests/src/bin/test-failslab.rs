// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory runs out: every allocation of the driver fails once, in every call that makes one.
//!
//! `fail-nth` of a thread makes the N-th allocation of its next call fail; the test goes through
//! N = 1, 2, 3 … until a call gets through without. Each time the error must be the right one, no byte
//! may be lost or doubled, and the FIFO must work afterwards. Needs a kernel with fault injection.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use globalfifo_guest_tests::aio::{Context, Event, FSYNC, Iocb, POLL};
use globalfifo_guest_tests::failures::{Scope, walk, walk_some};
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, PATH, pattern};
use globalfifo_guest_tests::harness::{self, SOON, Skip, Test, eventually};
use globalfifo_guest_tests::{check, check_eq, signals, system};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::libc::{self, O_ASYNC, O_NONBLOCK};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::pipe2;

const TESTS: &[Test] = &[
    ("open", open),
    ("read", read),
    ("write", write),
    ("write_of_many_messages", write_large),
    ("aio_read_that_waits", aio_read),
    ("aio_write", aio_write),
    ("aio_write_that_waits", aio_write_waits),
    ("aio_poll", aio_poll),
    ("aio_fsync", aio_fsync),
    ("fasync", fasync),
    ("clear", clear),
    ("epoll", epoll),
    ("splice_out", splice_out),
    ("splice_out_nonblock", splice_out_nonblock),
    ("splice_in", splice_in),
];

/// How long a test may take, on a kernel full of checks.
const LIMIT: Duration = Duration::from_secs(600);

/// A FIFO into which more than one message fits.
const LARGE: &str = "/dev/globalfifo1";
const LARGE_CAPACITY: usize = 131_072;

fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).collect();
    harness::main_with(TESTS, &filters, LIMIT, &[], "")
}

/// What a call may say when it cannot have memory, or cannot reach the caller's.
fn is_shortage(error: Errno) -> Result<()> {
    check!(matches!(error, Errno::ENOMEM | Errno::EFAULT));
    Ok(())
}

/// The FIFO is empty, and moves bytes.
fn works(fifo: &Fifo) -> Result<()> {
    fifo.write_all(b"still works")?;
    check_eq!(fifo.read_exact(11)?, b"still works".to_vec());
    Ok(())
}

fn open() -> Result<()> {
    walk_some(
        Scope::Call,
        || Ok(()),
        |()| nix::fcntl::open(PATH, OFlag::O_RDWR, nix::sys::stat::Mode::empty()),
        |(), result| match result {
            Ok(_) => works(&Fifo::open_empty(0)?),
            // The file table says ENFILE for its own.
            Err(Errno::ENFILE) => Ok(()),
            Err(error) => is_shortage(error),
        },
    )
}

fn read() -> Result<()> {
    walk(
        Scope::Driver,
        || {
            let fifo = Fifo::open_empty(O_NONBLOCK)?;
            fifo.write_all(b"to be read")?;
            fifo.wait_level(10)?;
            Ok(fifo)
        },
        |fifo| fifo.read(10),
        |fifo, result| {
            let mut all = result.or_else(|error| is_shortage(error).map(|()| Vec::new()))?;
            all.extend(fifo.drain()?);
            check_eq!(all, b"to be read".to_vec());
            fifo.set_flags(O_NONBLOCK, false)?;
            works(&fifo)
        },
    )?;
    Ok(())
}

/// What a write took, and only that, comes out.
fn after_write(fifo: &Fifo, bytes: &[u8], result: Result<usize, Errno>) -> Result<()> {
    let taken = result.or_else(|error| is_shortage(error).map(|()| 0))?;
    check_eq!(
        fifo.read_exact(taken)?,
        bytes.get(..taken).context("taken")?
    );
    works(fifo)
}

/// A FIFO that was not written to: the driver has no message that it could use again.
fn fresh() -> Result<Fifo> {
    let device = system::device_name()?;
    system::unbind(&device)?;
    system::bind(&device)?;
    system::wait_for_file(PATH, true)?;
    Fifo::open_empty(0)
}

fn write() -> Result<()> {
    let bytes = pattern(43, 1000);
    let failures_with = |prepare: fn() -> Result<Fifo>| {
        walk(
            Scope::Driver,
            prepare,
            |fifo| fifo.write(&bytes),
            |fifo, result| after_write(&fifo, &bytes, result),
        )
    };
    let at_first = failures_with(fresh)?;
    check!(at_first > 0);
    // Messages that came back are used again.
    check!(failures_with(|| Fifo::open_empty(0))? < at_first);
    Ok(())
}

fn write_large() -> Result<()> {
    let bytes = pattern(44, LARGE_CAPACITY);
    let mut parts = 0;
    walk_some(
        Scope::Driver,
        || {
            let fifo = Fifo::open_at(LARGE, 0).context(Skip("needs a second FIFO, of 128 KiB"))?;
            fifo.clear()?;
            Ok(fifo)
        },
        |fifo| fifo.write(&bytes),
        |fifo, result| {
            parts += u32::from(matches!(result, Ok(taken) if taken < LARGE_CAPACITY));
            after_write(&fifo, &bytes, result)
        },
    )?;
    // A later message that finds no memory does not undo the earlier ones.
    check!(parts > 0);
    Ok(())
}

/// A FIFO, and a context with one request that stays in place.
struct Asked {
    fifo: Fifo,
    context: Context,
    request: Box<Iocb>,
    buffer: Box<[u8; 8]>,
    /// An event that has been taken already.
    early: Option<Event>,
}

impl Asked {
    fn new(fifo: Fifo, make: impl FnOnce(&Fifo, &mut [u8]) -> Iocb) -> Result<Self> {
        let mut buffer = Box::new(*b"requests");
        let request = Box::new(make(&fifo, buffer.as_mut_slice()));
        Ok(Self {
            fifo,
            context: Context::new(1)?,
            request,
            buffer,
            early: None,
        })
    }

    fn submit(&mut self) -> Result<(), Errno> {
        self.context.submit(&mut self.request)
    }

    /// The request's error if it failed at once: AIO reports that by an event.
    fn outcome(&mut self, submitted: Result<(), Errno>) -> Result<Result<(), Errno>> {
        if submitted.is_ok() {
            self.early = self.context.events(0, 1, Duration::ZERO)?.first().copied();
        }
        Ok(match self.early {
            Some(event) if event.res < 0 => Err(Errno::from_raw(i32::try_from(-event.res)?)),
            _ => submitted,
        })
    }

    /// What the request ended with.
    fn ended(&mut self) -> Result<i64> {
        let early = self.early.take();
        Ok(early.map_or_else(|| self.context.event(), Ok)?.res)
    }
}

fn aio_read() -> Result<()> {
    walk_some(
        Scope::Driver,
        || Asked::new(Fifo::open_empty(0)?, Iocb::read),
        Asked::submit,
        |mut asked, result| {
            let result = asked.outcome(result)?;
            asked.fifo.write_all(b"the data")?;
            match result {
                Ok(()) => {
                    check_eq!(asked.ended()?, 8);
                    check_eq!(&*asked.buffer, b"the data");
                }
                Err(error) => {
                    is_shortage(error)?;
                    // Nothing was put aside that would take it.
                    check_eq!(asked.fifo.read_exact(8)?, b"the data".to_vec());
                }
            }
            works(&asked.fifo)
        },
    )
}

/// A request wrote all, or nothing.
fn after_request(mut asked: Asked, result: Result<(), Errno>) -> Result<()> {
    match asked.outcome(result)? {
        Ok(()) => {
            check_eq!(asked.ended()?, 8);
            check_eq!(asked.fifo.read_exact(8)?, b"requests".to_vec());
        }
        Err(error) => is_shortage(error)?,
    }
    works(&asked.fifo)
}

fn aio_write() -> Result<()> {
    walk_some(
        Scope::Driver,
        || Asked::new(Fifo::open_empty(0)?, |fifo, bytes| Iocb::write(fifo, bytes)),
        Asked::submit,
        after_request,
    )
}

fn aio_write_waits() -> Result<()> {
    walk_some(
        Scope::Driver,
        || {
            let fifo = Fifo::open_empty(0)?;
            fifo.write_all(&[0; CAPACITY])?;
            fifo.wait_level(CAPACITY)?;
            Asked::new(fifo, |fifo, bytes| Iocb::write(fifo, bytes))
        },
        Asked::submit,
        |asked, result| {
            check_eq!(asked.fifo.read_exact(CAPACITY)?, vec![0; CAPACITY]);
            after_request(asked, result)
        },
    )
}

fn aio_poll() -> Result<()> {
    let events = u64::from(libc::POLLIN.cast_unsigned());
    walk(
        Scope::Call,
        || {
            Asked::new(Fifo::open_empty(0)?, |fifo, _| {
                Iocb::new(fifo, POLL, events, 0)
            })
        },
        Asked::submit,
        |mut asked, result| {
            match asked.outcome(result)? {
                Ok(()) => {
                    asked.fifo.write_all(b"x")?;
                    check!(asked.ended()?.cast_unsigned() & events != 0);
                    check_eq!(asked.fifo.read_exact(1)?, b"x".to_vec());
                }
                // AIO's own word for a request that it has no memory for.
                Err(Errno::EAGAIN) => {}
                Err(error) => is_shortage(error)?,
            }
            works(&asked.fifo)
        },
    )?;
    Ok(())
}

fn aio_fsync() -> Result<()> {
    walk(
        Scope::Call,
        || Asked::new(Fifo::open_empty(0)?, |fifo, _| Iocb::new(fifo, FSYNC, 0, 0)),
        Asked::submit,
        |mut asked, result| {
            match asked.outcome(result)? {
                Ok(()) => check_eq!(asked.ended()?, 0),
                Err(Errno::EAGAIN) => {}
                Err(error) => is_shortage(error)?,
            }
            works(&asked.fifo)
        },
    )?;
    Ok(())
}

fn fasync() -> Result<()> {
    let signal = libc::SIGRTMIN() + 3;
    signals::block(signal)?;
    walk_some(
        Scope::Driver,
        || {
            let fifo = Fifo::open_empty(0)?;
            fifo.enable_signals(Some(signal))?;
            fifo.set_flags(O_ASYNC, false)?;
            Ok(fifo)
        },
        |fifo| fcntl(&*fifo, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_ASYNC)),
        |fifo, result| {
            let flags = OFlag::from_bits_retain(fcntl(&fifo, FcntlArg::F_GETFL)?);
            check_eq!(flags.contains(OFlag::O_ASYNC), result.is_ok());
            works(&fifo)?;
            match result {
                Ok(_) => {
                    check!(signals::take(signal, SOON)?.is_some());
                    while signals::take(signal, Duration::ZERO)?.is_some() {}
                }
                Err(error) => {
                    is_shortage(error)?;
                    // Half of a registration would signal too.
                    check!(signals::take(signal, Duration::from_millis(50))?.is_none());
                }
            }
            Ok(())
        },
    )
}

fn clear() -> Result<()> {
    let bytes = pattern(47, 500);
    walk_some(
        Scope::Driver,
        || {
            let fifo = Fifo::open_empty(0)?;
            fifo.write_all(&bytes)?;
            fifo.wait_level(500)?;
            Ok(fifo)
        },
        |fifo| fifo.clear(),
        |fifo, result| {
            if let Err(error) = result {
                is_shortage(error)?;
                check_eq!(fifo.read_exact(500)?, bytes);
            }
            works(&fifo)
        },
    )
}

fn epoll() -> Result<()> {
    walk_some(
        Scope::Driver,
        || Ok((Epoll::new(EpollCreateFlags::empty())?, Fifo::open_empty(0)?)),
        |(epoll, fifo)| epoll.add(&*fifo, EpollEvent::new(EpollFlags::EPOLLIN, 7)),
        |(epoll, fifo), result| {
            let mut got = [EpollEvent::empty()];
            match result {
                Ok(()) => {
                    fifo.write_all(b"x")?;
                    check_eq!(epoll.wait(&mut got, EpollTimeout::from(10_000u16))?, 1);
                    check_eq!(fifo.read_exact(1)?, b"x".to_vec());
                }
                Err(error) => is_shortage(error)?,
            }
            works(&fifo)
        },
    )
}

/// Splices from a FIFO with `flags`; what came through the pipe and what stayed are all there is.
fn spliced(flags: SpliceFFlags) -> Result<u32> {
    let bytes = pattern(53, 1000);
    walk(
        Scope::Driver,
        || {
            let fifo = Fifo::open_empty(O_NONBLOCK)?;
            fifo.write_all(&bytes)?;
            fifo.wait_level(1000)?;
            fifo.set_flags(O_NONBLOCK, false)?;
            Ok((fifo, pipe2(OFlag::O_NONBLOCK)?))
        },
        |(fifo, pipe)| splice(&*fifo, None, &pipe.1, None, 4096, flags),
        |(fifo, pipe), result| {
            let moved = match result {
                Ok(moved) => moved,
                // What reads for a splice says EAGAIN for EFAULT.
                Err(Errno::EAGAIN) => 0,
                Err(error) => is_shortage(error).map(|()| 0)?,
            };
            let mut all = vec![0; moved];
            if moved > 0 {
                check_eq!(nix::unistd::read(&pipe.0, &mut all)?, moved);
            }
            fifo.set_flags(O_NONBLOCK, true)?;
            all.extend(fifo.drain()?);
            check!(all == bytes);
            fifo.set_flags(O_NONBLOCK, false)?;
            works(&fifo)
        },
    )
}

fn splice_out() -> Result<()> {
    spliced(SpliceFFlags::empty()).map(drop)
}

fn splice_out_nonblock() -> Result<()> {
    check!(spliced(SpliceFFlags::SPLICE_F_NONBLOCK)? > 0);
    Ok(())
}

fn splice_in() -> Result<()> {
    let bytes = pattern(59, 1000);
    walk_some(
        Scope::Driver,
        || {
            let pipe = pipe2(OFlag::O_NONBLOCK)?;
            nix::unistd::write(&pipe.1, &bytes)?;
            Ok((fresh()?, pipe))
        },
        |(fifo, pipe)| splice(&pipe.0, None, &*fifo, None, 4096, SpliceFFlags::empty()),
        |(fifo, pipe), result| {
            let moved = result.or_else(|error| is_shortage(error).map(|()| 0))?;
            eventually("what was spliced arrives", || Ok(fifo.level()? >= moved))?;
            let mut all = fifo.read_exact(moved)?;
            let mut rest = vec![0; 1000];
            let left = nix::unistd::read(&pipe.0, &mut rest).unwrap_or(0);
            all.extend(rest.get(..left).unwrap_or(&[]));
            check!(all == bytes);
            works(&fifo)
        },
    )
}
