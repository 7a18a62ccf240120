// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is told to those who wait for changes: no edge and no signal is missing, and nothing is told of a direction that the
//! file is not open for.
#![expect(
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use globalfifo_guest_tests::dice::Dice;
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, PATH, pattern};
use globalfifo_guest_tests::harness::{self, SOON, Test, eventually, limit};
use globalfifo_guest_tests::userfault::Missing;
use globalfifo_guest_tests::{check, check_eq, signals};
use nix::errno::Errno;
use nix::libc::{self, O_NONBLOCK};
use nix::poll::{PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

const TESTS: &[Test] = &[
    ("a_short_write_means_full_or_an_edge_follows", short_writes),
    ("a_short_read_means_empty_or_an_edge_follows", short_reads),
    ("edge_triggered_streams_of_odd_sizes_never_stall", || {
        stream(Sizes::Odd)
    }),
    ("edge_triggered_streams_of_large_writes_never_stall", || {
        stream(Sizes::Large)
    }),
    ("edge_triggered_streams_of_small_writes_never_stall", || {
        stream(Sizes::Small)
    }),
    (
        "eagain_beside_a_reader_is_followed_by_an_edge",
        contended_edge,
    ),
    (
        "eagain_beside_a_reader_is_followed_by_a_signal",
        contended_signal,
    ),
    ("poll_tells_a_reader_nothing_of_space", || {
        mode_of_poll(true, false)
    }),
    ("poll_tells_a_writer_nothing_of_data", || {
        mode_of_poll(false, true)
    }),
    ("poll_tells_a_reader_and_writer_both", || {
        mode_of_poll(true, true)
    }),
    (
        "select_tells_each_direction_by_the_open_mode",
        mode_of_select,
    ),
    ("epoll_tells_each_direction_by_the_open_mode", mode_of_epoll),
];

fn main() -> ExitCode {
    harness::main(TESTS)
}

/// Long enough for what should not happen to have happened.
const QUIET: Duration = Duration::from_millis(200);

/// An epoll with one file, edge-triggered.
struct Edges(Epoll);

impl Edges {
    fn of(fifo: &Fifo, events: EpollFlags) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::empty())?;
        epoll.add(fifo, EpollEvent::new(events | EpollFlags::EPOLLET, 0))?;
        Ok(Self(epoll))
    }

    /// The events of an edge that is there, or comes within `limit`.
    fn next(&self, limit: Duration) -> Result<EpollFlags> {
        let mut events = [EpollEvent::empty()];
        let timeout = EpollTimeout::try_from(limit).unwrap_or(EpollTimeout::MAX);
        let count = self.0.wait(&mut events, timeout)?;
        Ok(if count == 1 {
            events[0].events()
        } else {
            EpollFlags::empty()
        })
    }

    /// Forgets what was told so far.
    fn forget(&self) -> Result<()> {
        while !self.next(Duration::ZERO)?.is_empty() {}
        Ok(())
    }
}

/// A thread that reads or writes on until it is told to end, so that room and data come at any moment.
fn meanwhile<T: Send + 'static>(
    mut work: impl FnMut() -> Result<()> + Send + 'static,
    with: impl FnOnce() -> Result<T>,
) -> Result<T> {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let over = Arc::new(AtomicBool::new(false));
    let seen = over.clone();
    let other = thread::spawn(move || -> Result<()> {
        while !seen.load(Ordering::SeqCst) {
            work()?;
        }
        Ok(())
    });
    let result = with();
    over.store(true, Ordering::SeqCst);
    let ended = other.join().map_err(|_| anyhow::anyhow!("panic"))?;
    let result = result?;
    ended?;
    Ok(result)
}

/// How often a short call is met.
const SHORT: usize = 2000;

fn short_writes() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let edges = Edges::of(&fifo, EpollFlags::EPOLLOUT)?;
    let reader = Fifo::open(O_NONBLOCK)?;
    let mut dice = Dice::new(11, 0);
    let bytes = [7; 2 * CAPACITY];
    meanwhile(
        move || match reader.read(1 + dice.size(2 * CAPACITY)) {
            Ok(_) | Err(Errno::EAGAIN) => {
                thread::yield_now();
                Ok(())
            }
            Err(error) => bail!("read: {error}"),
        },
        || {
            let mut dice = Dice::new(12, 0);
            let mut short = 0;
            while short < SHORT {
                let length = 1 + dice.size(bytes.len());
                let written = match fifo.write(&bytes[..length]) {
                    Err(Errno::EAGAIN) => 0,
                    other => other?,
                };
                if written < length {
                    short += 1;
                    // The reader goes on, so there will be room: it must be told.
                    if edges.next(limit(SOON))?.is_empty() {
                        bail!(
                            "{short} short calls, the last took {written} of {length} bytes; no edge since, and poll says {:?}",
                            fifo.events()?
                        );
                    }
                }
            }
            Ok(())
        },
    )?;
    fifo.clear()?;
    Ok(())
}

fn short_reads() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let edges = Edges::of(&fifo, EpollFlags::EPOLLIN)?;
    let writer = Fifo::open(O_NONBLOCK)?;
    let mut dice = Dice::new(13, 0);
    meanwhile(
        move || {
            let length = 1 + dice.size(CAPACITY);
            match writer.write(&vec![7; length]) {
                Ok(_) | Err(Errno::EAGAIN) => {
                    thread::yield_now();
                    Ok(())
                }
                Err(error) => bail!("write: {error}"),
            }
        },
        || {
            let mut dice = Dice::new(14, 0);
            let mut short = 0;
            while short < SHORT {
                let length = 1 + dice.size(2 * CAPACITY);
                let read = match fifo.read(length) {
                    Err(Errno::EAGAIN) => 0,
                    other => other?.len(),
                };
                if read < length {
                    short += 1;
                    if edges.next(limit(SOON))?.is_empty() {
                        bail!(
                            "{short} short calls, the last gave {read} of {length} bytes; no edge since, and poll says {:?}",
                            fifo.events()?
                        );
                    }
                }
            }
            Ok(())
        },
    )?;
    fifo.clear()?;
    Ok(())
}

/// How large the calls of a stream are.
#[derive(Clone, Copy)]
enum Sizes {
    /// Mostly small, some larger than the FIFO.
    Odd,
    /// Up to twice the FIFO.
    Large,
    /// A few bytes.
    Small,
}

impl Sizes {
    fn next(self, dice: &mut Dice) -> usize {
        let most = match self {
            Self::Odd if dice.roll(4) > 0 => 300,
            Self::Odd => 6000,
            Self::Large => 2 * CAPACITY,
            Self::Small => 16,
        };
        1 + dice.size(most)
    }

    /// Bytes of the stream.
    fn total(self) -> usize {
        match self {
            Self::Odd | Self::Large => 1 << 20,
            Self::Small => 1 << 17,
        }
    }
}

/// A writer and a reader that take a short call for full and for empty, and then wait for an edge.
fn stream(sizes: Sizes) -> Result<()> {
    let total = sizes.total();
    let bytes = pattern(15, total);
    let expected = bytes.clone();
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let edges = Edges::of(&fifo, EpollFlags::EPOLLIN)?;
    let writer = thread::spawn(move || -> Result<()> {
        let fifo = Fifo::open(O_NONBLOCK)?;
        let edges = Edges::of(&fifo, EpollFlags::EPOLLOUT)?;
        let mut dice = Dice::new(16, 0);
        let mut at = 0;
        while at < total {
            let length = sizes.next(&mut dice).min(total - at);
            let written = match fifo.write(&bytes[at..at + length]) {
                Err(Errno::EAGAIN) => 0,
                other => other?,
            };
            at += written;
            if written < length && edges.next(limit(SOON))?.is_empty() {
                bail!(
                    "the writer hears no more after {at} bytes: the last call took {written} of {length}, and poll says {:?}",
                    fifo.events()?
                );
            }
        }
        Ok(())
    });
    let mut dice = Dice::new(17, 0);
    let mut at = 0;
    let mut outcome = Ok(());
    while at < total && outcome.is_ok() {
        let length = sizes.next(&mut dice);
        let read = match fifo.read(length) {
            Err(Errno::EAGAIN) => Vec::new(),
            other => other?,
        };
        check!(expected.get(at..at + read.len()) == Some(&read[..]));
        at += read.len();
        if read.len() < length && at < total && edges.next(limit(SOON))?.is_empty() {
            outcome = Err(anyhow::anyhow!(
                "the reader hears no more after {at} bytes: the last call gave {} of {length}, and poll says {:?}",
                read.len(),
                fifo.events()?
            ));
        }
    }
    if outcome.is_ok() {
        writer.join().map_err(|_| anyhow::anyhow!("panic"))?
    } else {
        // The writer's word first, if it has one: it is the one that waits.
        eventually(
            "the writer is done or gives up",
            || Ok(writer.is_finished()),
        )?;
        let said = writer.join().map_err(|_| anyhow::anyhow!("panic"))?;
        fifo.clear()?;
        said.and(outcome)
    }
}

/// A reader of 10 of 100 bytes, in a page fault, and beside it one that does not wait and is told nothing more than EAGAIN, until
/// the page fault is resolved. `None` if it got bytes, and so needs not be told anything.
fn contended<L>(
    prepare: impl FnOnce(&Fifo) -> Result<L>,
    forget: impl FnOnce(&L) -> Result<()>,
) -> Result<Option<(Fifo, L)>> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let told = prepare(&fifo)?;
    fifo.write_all(&pattern(18, 100))?;
    fifo.wait_level(100)?;
    let memory = Missing::new(1)?;
    let outcome = thread::scope(|scope| -> Result<_> {
        let reader = scope.spawn(|| -> Result<usize> {
            let fifo = Fifo::open(0)?;
            Ok(memory.read_from(fifo.fd(), 10)?)
        });
        let waits = memory.is_awaited(limit(SOON))?;
        // It must not wait for the other either: that is what O_NONBLOCK is for.
        let beside = fifo.read(200);
        match &beside {
            Err(Errno::EAGAIN) => forget(&told)?,
            // The other waits for more, then.
            _ => fifo.write_all(&pattern(18, 10))?,
        }
        memory.resolve()?;
        let read = reader.join().map_err(|_| anyhow::anyhow!("panic"))?;
        check!(waits);
        Ok((beside, read?))
    })?;
    match outcome {
        (Ok(bytes), read) => {
            check_eq!(bytes.len() + read + fifo.level()?, 110);
            Ok(None)
        }
        (Err(Errno::EAGAIN), read) => {
            check_eq!(read, 10);
            Ok(Some((fifo, told)))
        }
        (other, _) => bail!("a read beside another: {other:?}"),
    }
}

fn the_rest(fifo: &Fifo) -> Result<()> {
    check!(fifo.read(200)? == pattern(18, 100)[10..]);
    Ok(())
}

fn contended_edge() -> Result<()> {
    let edges = |fifo: &Fifo| Edges::of(fifo, EpollFlags::EPOLLIN);
    let Some((fifo, edges)) = contended(edges, Edges::forget)? else {
        return Ok(());
    };
    check!(edges.next(limit(SOON))?.contains(EpollFlags::EPOLLIN));
    the_rest(&fifo)
}

fn contended_signal() -> Result<()> {
    signals::block_sigio()?;
    let forget = |(): &()| -> Result<()> {
        while signals::take(libc::SIGIO, Duration::ZERO)?.is_some() {}
        Ok(())
    };
    let Some((fifo, ())) = contended(|fifo| fifo.enable_signals(Some(libc::SIGIO)), forget)? else {
        return Ok(());
    };
    let told = signals::take(libc::SIGIO, limit(Duration::from_secs(2)))?;
    check_eq!(told.map(|signal| signal.code), Some(signals::POLL_IN));
    the_rest(&fifo)
}

/// A FIFO with a byte and room, opened once more.
fn one_byte(read: bool, write: bool) -> Result<(Fifo, Fifo)> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    fifo.write_all(b"x")?;
    fifo.wait_level(1)?;
    Ok((fifo, Fifo::open_as(PATH, read, write, O_NONBLOCK)?))
}

fn mode_of_poll(read: bool, write: bool) -> Result<()> {
    let (_fifo, file) = one_byte(read, write)?;
    let all = PollFlags::POLLIN
        | PollFlags::POLLRDNORM
        | PollFlags::POLLRDBAND
        | PollFlags::POLLOUT
        | PollFlags::POLLWRNORM
        | PollFlags::POLLWRBAND;
    let told = file.poll_for(all, PollTimeout::ZERO)?;
    check_eq!(told.contains(PollFlags::POLLIN), read);
    check_eq!(told.contains(PollFlags::POLLRDNORM), read);
    check_eq!(told.contains(PollFlags::POLLOUT), write);
    check_eq!(told.contains(PollFlags::POLLWRNORM), write);
    check_eq!(told.contains(PollFlags::POLLRDBAND), false);
    check!(write || !told.contains(PollFlags::POLLWRBAND));
    Ok(())
}

/// `select(2)` for one file, at once: readable and writable.
fn select(fifo: &Fifo) -> Result<(bool, bool)> {
    use nix::sys::select::{FdSet, select};
    use nix::sys::time::TimeVal;
    use std::os::fd::AsFd as _;
    let (mut readable, mut writable) = (FdSet::new(), FdSet::new());
    readable.insert(fifo.as_fd());
    writable.insert(fifo.as_fd());
    let mut none = TimeVal::new(0, 0);
    select(None, &mut readable, &mut writable, None, &mut none)?;
    Ok((
        readable.contains(fifo.as_fd()),
        writable.contains(fifo.as_fd()),
    ))
}

fn mode_of_select() -> Result<()> {
    for (read, write) in [(true, false), (false, true), (true, true)] {
        let (_fifo, file) = one_byte(read, write)?;
        check_eq!(select(&file)?, (read, write));
    }
    Ok(())
}

fn mode_of_epoll() -> Result<()> {
    for (read, write) in [(true, false), (false, true), (true, true)] {
        let (fifo, file) = one_byte(read, write)?;
        let epoll = Epoll::new(EpollCreateFlags::empty())?;
        let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
        epoll.add(&file, EpollEvent::new(both, 0))?;
        let mut events = [EpollEvent::empty()];
        check_eq!(epoll.wait(&mut events, EpollTimeout::ZERO)?, 1);
        let told = events[0].events();
        check_eq!(told.contains(EpollFlags::EPOLLIN), read);
        check_eq!(told.contains(EpollFlags::EPOLLOUT), write);
        // Nor is one woken for the other direction.
        let foreign = if read && !write {
            EpollFlags::EPOLLOUT
        } else if write && !read {
            EpollFlags::EPOLLIN
        } else {
            continue;
        };
        epoll.modify(&file, &mut EpollEvent::new(foreign, 0))?;
        fifo.write_all(b"y")?;
        let timeout = EpollTimeout::try_from(QUIET)?;
        check_eq!(epoll.wait(&mut events, timeout)?, 0);
        check!(fifo.read(1)? == b"x");
    }
    Ok(())
}
