// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Large writes, which the device reads from the memory of the process: nothing of it may show.
//!
//! Runs with the FIFOs of the suite "direct" (suites.toml): a loopback, a null, and a loopback whose
//! tx queue dies after some messages.

use std::fs::{self, File};
use std::io::{IoSlice, Write};
use std::os::fd::AsFd;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use globalfifo_guest_tests::aio::{self, Iocb};
use globalfifo_guest_tests::fifo::{Fifo, pattern};
use globalfifo_guest_tests::harness::{self, SOON, Test, eventually};
use globalfifo_guest_tests::{check, check_eq, system};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};
use nix::libc::{self, O_NONBLOCK};
use nix::poll::PollFlags;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::sendfile::sendfile;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const TESTS: &[Test] = &[
    ("large_writes_arrive_unchanged", unchanged),
    ("the_memory_is_free_when_the_write_returns", free_at_once),
    (
        "small_writes_and_those_that_must_not_wait_are_copied",
        copied,
    ),
    ("large_and_small_writes_keep_their_order", order),
    ("a_write_beyond_the_space_takes_what_fits", partial),
    ("a_write_goes_on_with_room_that_comes", goes_on),
    (
        "a_write_larger_than_the_fifo_arrives_unchanged",
        larger_than_the_fifo,
    ),
    ("a_write_that_reaches_beyond_memory_is_cut", beyond_memory),
    ("vectors_of_odd_sizes", vectors),
    ("what_a_file_holds_is_copied", from_a_file),
    ("what_can_be_cancelled_is_copied", cancelled),
    ("several_writers_lose_nothing", several_writers),
    (
        "a_writer_that_does_not_wait_hears_of_the_end_of_anothers_turn",
        turns,
    ),
    ("others_hear_of_events_meanwhile", events_of_others),
    ("fork_in_another_thread_changes_nothing", fork_meanwhile),
    (
        "a_write_that_the_device_does_not_take_can_be_killed",
        killed,
    ),
    ("unbind_ends_it", unbound),
    ("no_page_stays_pinned", nothing_pinned),
];

const LOOP: usize = 0;
const NULL: usize = 1;
const DEAD: usize = 2;
const FICKLE: usize = 3;

const CAPACITY: usize = 1 << 20;
const PAGE: usize = 4096;
/// Least bytes of a write that is not copied, docs/driver.md.
const DIRECT: usize = 128 << 10;

fn main() -> ExitCode {
    harness::main(TESTS)
}

fn path(index: usize) -> String {
    format!("/dev/globalfifo{index}")
}

fn open(index: usize, flags: i32) -> Result<Fifo> {
    Fifo::open_at(&path(index), flags)
}

/// How many bytes `work` has sent from where they were.
fn sent_directly(index: usize, work: impl FnOnce() -> Result<()>) -> Result<u64> {
    system::needs_fast_edition()?;
    let before = system::counter(index, "tx_direct")?;
    work()?;
    Ok(system::counter(index, "tx_direct")? - before)
}

/// How many pages are pinned, in the whole machine. CPUs count for themselves, and what they counted
/// shows after a second.
fn pinned() -> Result<u64> {
    let text = fs::read_to_string("/proc/vmstat")?;
    let value = |name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.context(name.to_owned())?.trim().parse()?)
    };
    let acquired = value("nr_foll_pin_acquired ")?;
    check!(acquired > 0);
    Ok(acquired - value("nr_foll_pin_released ")?)
}

fn unchanged() -> Result<()> {
    let fifo = open(LOOP, 0)?;
    fifo.clear()?;
    let sizes = [
        DIRECT,
        DIRECT + 1,
        200_013,
        64 * PAGE,
        64 * PAGE + 1,
        CAPACITY - 1,
        CAPACITY,
    ];
    for (seed, size) in (0..).zip(sizes) {
        for offset in [0, 1, 777, PAGE - 1] {
            let bytes = pattern(seed, offset + size);
            let (_, bytes) = bytes.split_at(offset);
            let direct = sent_directly(LOOP, || {
                check_eq!(fifo.write(bytes), Ok(size));
                Ok(())
            })?;
            check_eq!(direct, u64::try_from(size)?);
            check!(fifo.read_exact(size)? == bytes);
        }
    }
    Ok(())
}

/// Whatever is done to the memory after the write does not matter.
fn free_at_once() -> Result<()> {
    let fifo = open(LOOP, 0)?;
    fifo.clear()?;
    let mut bytes = pattern(5, 100_000);
    let original = bytes.clone();
    for _ in 0..100 {
        fifo.write_all(&bytes)?;
        bytes.fill(0);
        check!(fifo.read_exact(bytes.len())? == original);
        bytes.copy_from_slice(&original);
    }
    Ok(())
}

fn copied() -> Result<()> {
    let fifo = open(LOOP, 0)?;
    fifo.clear()?;
    // Up to the room of a message and beyond, of each size of messages.
    for size in [4080, 4081, 32_752, 32_753, 65_536, 65_537, DIRECT - 1] {
        let bytes = pattern(6, size);
        let direct = sent_directly(LOOP, || {
            check_eq!(fifo.write(&bytes), Ok(size));
            Ok(())
        })?;
        check_eq!((size, direct), (size, 0));
        check!(fifo.read_exact(size)? == bytes);
    }
    let fifo = open(LOOP, O_NONBLOCK)?;
    let bytes = pattern(7, 200_000);
    let direct = sent_directly(LOOP, || {
        check_eq!(fifo.write(&bytes), Ok(bytes.len()));
        Ok(())
    })?;
    check_eq!(direct, 0);
    check!(open(LOOP, 0)?.read_exact(bytes.len())? == bytes);
    Ok(())
}

fn order() -> Result<()> {
    let fifo = open(LOOP, 0)?;
    fifo.clear()?;
    let bytes = pattern(8, 40 * 20_000);
    for round in 0..20 {
        let mut rest = bytes.as_slice();
        let sizes = [1, 20_000, 300, 170_000, 70_000, 33_000];
        let sizes = sizes.into_iter().cycle().skip(round);
        for size in sizes {
            if rest.is_empty() {
                break;
            }
            let (part, others) = rest.split_at(size.min(rest.len()));
            check_eq!(fifo.write(part), Ok(part.len()));
            rest = others;
        }
        check!(fifo.read_exact(bytes.len())? == bytes);
    }
    Ok(())
}

fn partial() -> Result<()> {
    let fifo = open(LOOP, 0)?;
    fifo.clear()?;
    let bytes = pattern(9, CAPACITY + PAGE);
    let (first, second) = bytes.split_at(300_000);
    check_eq!(fifo.write(first), Ok(300_000));
    check_eq!(fifo.write(second), Ok(CAPACITY - 300_000));
    check!(bytes.starts_with(&fifo.read_exact(CAPACITY)?));
    check_eq!(fifo.level()?, 0);
    Ok(())
}

/// The device disposes of it faster than it is written, so it need not end with the room there was at first. (It may:
/// others may want the CPU.)
fn goes_on() -> Result<()> {
    const TRIES: usize = 100;
    let fifo = open(NULL, 0)?;
    let bytes = vec![1; 4 * CAPACITY];
    let mut written = Vec::new();
    let direct = sent_directly(NULL, || {
        for _ in 0..TRIES {
            let count = fifo.write(&bytes)?;
            check!((1..=bytes.len()).contains(&count));
            written.push(count);
        }
        Ok(())
    })?;
    check!(written.iter().any(|count| *count > CAPACITY));
    let total: usize = written.iter().sum();
    check!(direct <= u64::try_from(total)?);
    Ok(())
}

/// However it goes on, and wherever it ends.
fn larger_than_the_fifo() -> Result<()> {
    let fifo = open(LOOP, 0)?;
    fifo.clear()?;
    let bytes = pattern(21, 9 * CAPACITY + 12_345);
    thread::scope(|scope| {
        let writer = scope.spawn(|| open(LOOP, 0)?.write_all(&bytes));
        for piece in bytes.chunks(100_003) {
            check!(fifo.read_exact(piece.len())? == piece);
        }
        writer.join().map_err(|_| anyhow!("a thread panicked"))?
    })?;
    check_eq!(fifo.level()?, 0);
    Ok(())
}

fn beyond_memory() -> Result<()> {
    let fifo = open(LOOP, 0)?;
    fifo.clear()?;
    let (whole, good) = (100 * PAGE, 70 * PAGE);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: A new mapping, where the kernel likes.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), whole, protection, flags, -1, 0) };
    check!(memory != libc::MAP_FAILED);
    // SAFETY: Within what was just mapped.
    let end = unsafe { memory.byte_add(good) };
    // SAFETY: Nobody uses that.
    check_eq!(unsafe { libc::munmap(end, whole - good) }, 0);
    let bytes = pattern(10, good);
    // SAFETY: `good` bytes are mapped there.
    unsafe { memory.cast::<u8>().copy_from(bytes.as_ptr(), good) };
    // SAFETY: The kernel checks what it reads.
    let write = |from, len| Errno::result(unsafe { libc::write(fifo.fd(), from, len) });
    check_eq!(write(memory, whole), Ok(isize::try_from(good)?));
    check!(fifo.read_exact(good)? == bytes);
    check_eq!(write(end, whole - good), Err(Errno::EFAULT));
    // Too few to be read where they are, and with any alignment: all that is there counts all the same. How much of it one call takes is the
    // processor's: x86 copies up to the last byte, arm64 leaves some before a page that is not there.
    for count in [1, 7, 8, 63, 4095, 4097, 12_345, 70_001] {
        let mut left = count;
        while left > 0 {
            // SAFETY: Within what is mapped.
            let start = unsafe { end.byte_sub(left) };
            let taken = usize::try_from(write(start, left + 5000)?)?;
            check!((1..=left).contains(&taken));
            left -= taken;
        }
        check!(bytes.ends_with(&fifo.read_exact(count)?));
    }
    check_eq!(fifo.level()?, 0);
    // SAFETY: What is left of the mapping, which nobody uses.
    check_eq!(unsafe { libc::munmap(memory, good) }, 0);
    Ok(())
}

fn vectors() -> Result<()> {
    let fifo = open(LOOP, 0)?;
    fifo.clear()?;
    let bytes = pattern(11, 400_000);
    let mut slices = Vec::new();
    let mut rest = bytes.as_slice();
    for size in [1, 50_000, 0, 7, 4096, 100_001, 3].into_iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (part, others) = rest.split_at(size.min(rest.len()));
        slices.push(IoSlice::new(part));
        rest = others;
    }
    check_eq!(
        nix::sys::uio::writev(fifo.as_fd(), &slices),
        Ok(bytes.len())
    );
    check!(fifo.read_exact(bytes.len())? == bytes);
    Ok(())
}

/// Memory of the kernel's is not for the device to read.
fn from_a_file() -> Result<()> {
    let fifo = open(LOOP, 0)?;
    fifo.clear()?;
    let bytes = pattern(12, 200_000);
    let name = "/tmp/test-direct";
    File::create(name)?.write_all(&bytes)?;
    let file = File::open(name)?;
    let direct = sent_directly(LOOP, || {
        let mut sent = 0;
        while sent < bytes.len() {
            sent += sendfile(fifo.as_fd(), &file, None, bytes.len() - sent)?;
        }
        Ok(())
    })?;
    check_eq!(direct, 0);
    check!(fifo.read_exact(bytes.len())? == bytes);
    fs::remove_file(name)?;
    // In one write, which is large enough.
    let (from, to) = nix::unistd::pipe()?;
    fcntl(to.as_fd(), FcntlArg::F_SETPIPE_SZ(i32::try_from(CAPACITY)?))?;
    check_eq!(nix::unistd::write(&to, &bytes), Ok(bytes.len()));
    let direct = sent_directly(LOOP, || {
        let moved = splice(&from, None, &fifo, None, bytes.len(), SpliceFFlags::empty());
        check_eq!(moved, Ok(bytes.len()));
        Ok(())
    })?;
    check_eq!(direct, 0);
    check!(fifo.read_exact(bytes.len())? == bytes);
    Ok(())
}

/// A cancel gives the memory back at once, whatever the device has read of it.
fn cancelled() -> Result<()> {
    let fifo = open(LOOP, 0)?;
    fifo.clear()?;
    let context = aio::Context::new(4)?;
    let size = DIRECT / 4 * 5;
    let original = pattern(13, size);
    for _ in 0..200 {
        let mut bytes = original.clone();
        let direct = sent_directly(LOOP, || {
            let mut write = Iocb::write(&fifo, &bytes);
            context.submit(&mut write)?;
            // Too late, or not: it is written all the same.
            let _ = context.cancel(&mut write);
            check_eq!(context.event()?.res, i64::try_from(size)?);
            Ok(())
        })?;
        bytes.fill(0);
        check_eq!(direct, 0);
        check!(fifo.read_exact(size)? == original);
    }
    Ok(())
}

/// Each writes pieces of its own byte, all of one size, in several messages; no piece is torn, as all of a round fit.
fn several_writers() -> Result<()> {
    const PIECE: usize = CAPACITY / 6;
    const ROUNDS: usize = 40;
    let fifo = open(LOOP, 0)?;
    fifo.clear()?;
    for _ in 0..ROUNDS {
        thread::scope(|scope| {
            let write = |id: u8| {
                let fifo = open(LOOP, 0)?;
                for _ in 0..2 {
                    check_eq!(fifo.write(&[id; PIECE])?, PIECE);
                }
                Ok(())
            };
            let writers: Vec<_> = (1..=3).map(|id| scope.spawn(move || write(id))).collect();
            let mut counts = [0; 4];
            for _ in 0..6 {
                let piece = fifo.read_exact(PIECE)?;
                let id = *piece.first().context("empty")?;
                check!(piece.iter().all(|byte| *byte == id));
                *counts.get_mut(usize::from(id)).context("unknown writer")? += 1;
            }
            check_eq!(counts, [0, 2, 2, 2]);
            for writer in writers {
                let written: Result<()> =
                    writer.join().map_err(|_| anyhow!("a thread panicked"))?;
                written?;
            }
            Ok::<_, anyhow::Error>(())
        })?;
    }
    Ok(())
}

/// A child shares the pages that are just being read.
fn fork_meanwhile() -> Result<()> {
    let fifo = open(LOOP, 0)?;
    fifo.clear()?;
    let forks = thread::spawn(|| -> Result<()> {
        for _ in 0..20 {
            check!(Command::new("true").status()?.success());
        }
        Ok(())
    });
    let bytes = pattern(14, 300_000);
    while !forks.is_finished() {
        fifo.write_all(&bytes)?;
        check!(fifo.read_exact(bytes.len())? == bytes);
    }
    forks
        .join()
        .map_err(|_| anyhow::anyhow!("a thread panicked"))?
}

/// Writes with `dd` until that is stuck; its process.
fn stuck_writer() -> Result<std::process::Child> {
    let mut writer = Command::new("dd")
        .args([
            "if=/dev/zero",
            &format!("of={}", path(DEAD)),
            "bs=128k",
            "count=7",
        ])
        .stderr(Stdio::null())
        .spawn()?;
    let pid = i32::try_from(writer.id())?;
    eventually("dd is stuck", || {
        if writer.try_wait()?.is_some() {
            bail!("the device takes everything");
        }
        // Not only for a moment.
        let before = system::counter(DEAD, "tx_bytes")?;
        thread::sleep(Duration::from_millis(500));
        let stands = system::counter(DEAD, "tx_bytes")? == before;
        Ok(stands && system::sleeps_in(pid, libc::SYS_write)?)
    })?;
    Ok(writer)
}

/// Nobody has the space while a large write is at it, though the FIFO is not full: whoever was refused then
/// hears when that is over.
fn turns() -> Result<()> {
    let over = Instant::now() + Duration::from_secs(2);
    let large = pattern(29, CAPACITY / 2);
    thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<()> {
            let fifo = open(NULL, 0)?;
            while Instant::now() < over {
                fifo.write_all(&large)?;
            }
            Ok(())
        });
        let fifo = open(NULL, O_NONBLOCK)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        epoll.add(&fifo, EpollEvent::new(flags, 0))?;
        let small = pattern(30, DIRECT - 1);
        let mut refused = 0;
        while Instant::now() < over {
            match fifo.write(&small) {
                Ok(_) => {}
                Err(Errno::EAGAIN) => {
                    refused += 1;
                    let mut events = [EpollEvent::empty()];
                    let limit = EpollTimeout::try_from(SOON)?;
                    check_eq!(epoll.wait(&mut events, limit), Ok(1));
                }
                Err(error) => bail!("{error}"),
            }
        }
        let written = writer.join().map_err(|_| anyhow!("the writer panicked"))?;
        written?;
        // With one CPU it may be that they never meet.
        check!(refused > 0 || thread::available_parallelism()?.get() == 1);
        Ok(())
    })
}

/// Events of other FIFOs come in time beside a task that writes without a pause.
fn events_of_others() -> Result<()> {
    // Read where they are, and copied.
    for size in [CAPACITY, 64 << 10] {
        events_beside_writes(size).with_context(|| format!("writes of {size} bytes"))?;
    }
    Ok(())
}

/// That others' events come in time while a writer writes, `size` bytes each time, and once it has ended.
fn events_beside_writes(size: usize) -> Result<()> {
    let over = AtomicBool::new(false);
    let large = pattern(31, size);
    thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<()> {
            let fifo = open(NULL, 0)?;
            while !over.load(Ordering::Relaxed) {
                fifo.write_all(&large)?;
            }
            Ok(())
        });
        let meanwhile = changes(20);
        over.store(true, Ordering::Relaxed);
        let written = writer.join().map_err(|_| anyhow!("the writer panicked"))?;
        written?;
        // And once that is over, when events interrupt again.
        let afterwards = changes(20)?;
        // An event whose interrupt is lost is found by the watchdog after a second; that would be twenty of them.
        let limit = harness::limit(Duration::from_secs(6));
        for took in [meanwhile?, afterwards] {
            check_eq!((took, took < limit), (took, true));
        }
        Ok(())
    })
}

/// How long it takes until the other side of [`FICKLE`] has come or gone so many times.
fn changes(count: u32) -> Result<Duration> {
    let fifo = open(FICKLE, O_NONBLOCK)?;
    let started = Instant::now();
    for _ in 0..count {
        let is_gone = || Ok::<_, anyhow::Error>(fifo.events()?.contains(PollFlags::POLLHUP));
        let before = is_gone()?;
        eventually("the other side comes or goes", || {
            // Looked at first: it goes again as soon as there is something for it to do, and that may be heard of
            // before this thread has its CPU back from announcing it.
            let changed = is_gone()? != before;
            if !changed {
                let _ = fifo.write(b"x");
            }
            Ok(changed)
        })?;
    }
    Ok(started.elapsed())
}

fn killed() -> Result<()> {
    eventually("no page is pinned", || Ok(pinned()? == 0))?;
    open(DEAD, 0)?.clear()?;
    let mut writer = stuck_writer()?;
    eventually("pages are pinned", || Ok(pinned()? >= 8))?;
    let pid = Pid::from_raw(i32::try_from(writer.id())?);
    let started = Instant::now();
    kill(pid, Signal::SIGKILL)?;
    eventually("dd is dead", || Ok(writer.try_wait()?.is_some()))?;
    check!(started.elapsed() < harness::limit(Duration::from_secs(3)));
    // The device may still read them.
    thread::sleep(Duration::from_secs(2));
    check!(pinned()? >= 8);
    Ok(())
}

/// What is stuck when the device is taken away ends. What the device had not read it reads when it is
/// reset, so the memory is not given to others before.
fn unbound() -> Result<()> {
    let mut writer = stuck_writer()?;
    let device = system::device_name()?;
    let started = Instant::now();
    system::unbind(&device)?;
    let status = writer.wait()?;
    check!(!status.success());
    check!(started.elapsed() < Duration::from_secs(10) + SOON);
    system::bind(&device)?;
    let fifo = open(DEAD, 0)?;
    fifo.clear()?;
    let bytes = pattern(16, 100_000);
    fifo.write_all(&bytes)?;
    check!(fifo.read_exact(bytes.len())? == bytes);
    Ok(())
}

fn nothing_pinned() -> Result<()> {
    let fifo = open(NULL, 0)?;
    for _ in 0..100 {
        fifo.write_all(&[0; 100_000])?;
    }
    eventually("no page is pinned", || Ok(pinned()? == 0))
}
