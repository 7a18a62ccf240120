// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From an event to the code that waits for it: one thread writes the time into a loopback FIFO,
//! another comes to know of it in one way or another and looks at the clock. Both read
//! CLOCK_MONOTONIC of the guest, so the way to the device and back is part of every figure.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use globalfifo_bench_protocol::{Measured, Notice, PIPE_PATH};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::mkfifo;

use super::meter::{Latencies, Meter};
use super::place::Place;
use crate::aio::{Context, Iocb};
use crate::fifo::Fifo;
use crate::signals;
use crate::uring::{self, Ring};

/// Time for the waiting thread to get to its wait.
const SETTLE: Duration = Duration::from_micros(300);
/// Events that are not counted: first times are slow.
const WARM_UP: usize = 5;

/// When the signal handler ran.
static HANDLED: AtomicU64 = AtomicU64::new(0);

/// What a wait needs.
enum Wait {
    Read,
    Poll,
    Epoll(Epoll),
    Signal(SigSet),
    Signalfd(SignalFd),
    Aio(Context),
    Uring(Ring),
}

/// Measures one way.
pub fn notify(path: &str, by: Notice, time: Duration) -> Result<Measured> {
    let pipe = path == PIPE_PATH;
    let path = if pipe { named_pipe()? } else { path };
    // A pipe that somebody has open both ways makes nobody wait for the other end.
    let both = Fifo::open_at(path, 0)?;
    if !pipe {
        both.clear()?;
    }
    let fifo = Fifo::open_as(path, true, false, 0)?;
    // Before the writing thread is started, which inherits what is blocked.
    let mut wait = Wait::new(&fifo, by)?;
    let (ask, asked) = mpsc::channel();
    let writer = Fifo::open_as(path, false, true, 0)?;
    let place = Place::beside_interrupts((!pipe).then_some(path))?;
    let elsewhere = place.elsewhere();
    let writing = thread::spawn(move || {
        elsewhere()?;
        write_when_asked(&writer, &asked)
    });
    let mut latencies = Latencies::new()?;
    let meter = Meter::begin((!pipe).then_some(path))?;
    let mut events = 0;
    while meter.elapsed() < time {
        ask.send(()).context("the writer has gone")?;
        let (written, known) = wait.once(&fifo)?;
        events += 1;
        if events > WARM_UP {
            latencies.add(Duration::from_nanos(known.saturating_sub(written)))?;
        }
    }
    let mut measured = meter.end()?;
    drop(ask);
    let written = writing.join();
    written.map_err(|_| anyhow!("the writer panicked"))??;
    measured.operations = latencies.count();
    latencies.put(&mut measured);
    Ok(measured)
}

fn named_pipe() -> Result<&'static str> {
    let path = "/tmp/globalfifo-bench-pipe";
    match mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(Errno::EEXIST) => Ok(path),
        Err(errno) => Err(errno).context("mkfifo"),
    }
}

fn write_when_asked(fifo: &Fifo, asked: &Receiver<()>) -> Result<()> {
    while asked.recv().is_ok() {
        thread::sleep(SETTLE);
        fifo.write_all(&now()?.to_le_bytes())?;
    }
    Ok(())
}

impl Wait {
    fn new(fifo: &Fifo, by: Notice) -> Result<Self> {
        Ok(match by {
            Notice::Read => Self::Read,
            Notice::Poll => Self::Poll,
            Notice::Epoll => {
                let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
                epoll.add(fifo, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
                Self::Epoll(epoll)
            }
            Notice::Sigio => {
                let action = SigAction::new(
                    SigHandler::Handler(handler),
                    SaFlags::empty(),
                    SigSet::empty(),
                );
                // SAFETY: The handler reads a clock and stores a number.
                unsafe { sigaction(Signal::SIGIO, &action) }.context("sigaction")?;
                signals::block_sigio()?;
                fifo.enable_signals(None)?;
                Self::Signal(SigSet::empty())
            }
            Notice::RealTimeSignal => {
                let signal = libc::SIGRTMIN() + 1;
                handle_real_time(signal)?;
                signals::block(signal)?;
                fifo.enable_signals(Some(signal))?;
                Self::Signal(SigSet::empty())
            }
            Notice::Signalfd => {
                signals::block_sigio()?;
                fifo.enable_signals(None)?;
                let mut set = SigSet::empty();
                set.add(Signal::SIGIO);
                Self::Signalfd(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?)
            }
            Notice::Aio => Self::Aio(Context::new(1)?),
            Notice::Uring => Self::Uring(Ring::new()?),
        })
    }

    /// Waits for one event: when it was written, and when this was known here.
    fn once(&mut self, fifo: &Fifo) -> Result<(u64, u64)> {
        let mut payload = [0; 8];
        let known = match self {
            Self::Read => {
                nix::unistd::read(fifo.as_fd(), &mut payload).context("read")?;
                return Ok((u64::from_le_bytes(payload), now()?));
            }
            Self::Aio(context) => {
                context
                    .submit(&mut Iocb::read(fifo, &mut payload))
                    .context("io_submit")?;
                expect_all(context.event()?.res)?;
                return Ok((u64::from_le_bytes(payload), now()?));
            }
            Self::Uring(ring) => {
                ring.submit(uring::read(fifo, &mut payload), 0)?;
                expect_all(ring.completion()?.res.into())?;
                return Ok((u64::from_le_bytes(payload), now()?));
            }
            Self::Poll => {
                fifo.poll_for(PollFlags::POLLIN, PollTimeout::NONE)?;
                now()?
            }
            Self::Epoll(epoll) => {
                epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE)?;
                now()?
            }
            Self::Signal(none) => {
                HANDLED.store(0, Ordering::Relaxed);
                while HANDLED.load(Ordering::Relaxed) == 0 {
                    none.suspend().context("sigsuspend")?;
                }
                HANDLED.load(Ordering::Relaxed)
            }
            Self::Signalfd(descriptor) => {
                descriptor.read_signal().context("reading a signalfd")?;
                now()?
            }
        };
        nix::unistd::read(fifo.as_fd(), &mut payload).context("read")?;
        Ok((u64::from_le_bytes(payload), known))
    }
}

fn expect_all(res: i64) -> Result<()> {
    ensure!(res == 8, "a read of 8 bytes gave {res}");
    Ok(())
}

extern "C" fn handler(_signal: libc::c_int) {
    HANDLED.store(now().unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// As for SIGIO; nix knows no real-time signals.
fn handle_real_time(signal: i32) -> Result<()> {
    // SAFETY: An all-zero sigaction is valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    // SAFETY: The action is valid; its handler reads a clock and stores a number.
    let done = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    Errno::result(done).map(drop).context("sigaction")
}

/// Nanoseconds of CLOCK_MONOTONIC.
fn now() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(now.tv_sec())? * 1_000_000_000 + u64::try_from(now.tv_nsec())?)
}
