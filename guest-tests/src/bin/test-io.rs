// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reading and writing: order, exact capacity, blocking, errors.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, PATH, pattern};
use globalfifo_guest_tests::harness::{self, Test, eventually};
use globalfifo_guest_tests::{check, check_eq, system};
use nix::errno::Errno;
use nix::libc::{self, O_NONBLOCK};
use nix::poll::{PollFlags, PollTimeout};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::gettid;

const TESTS: &[Test] = &[
    ("what_is_written_is_read_in_order", order),
    (
        "capacity_is_exact_and_all_of_it_can_be_read_back",
        exact_capacity,
    ),
    (
        "a_full_fifo_takes_exactly_what_was_read",
        full_then_partly_read,
    ),
    ("a_write_beyond_the_space_takes_what_fits", partial_write),
    ("many_small_writes_are_one_read", many_small_writes),
    ("no_small_write_is_left_behind", none_left_behind),
    ("zero_length_io_returns_at_once", zero_length),
    (
        "nonblocking_read_of_an_empty_fifo_is_eagain",
        empty_is_eagain,
    ),
    ("a_blocked_read_wakes_with_data", blocked_read),
    ("a_blocked_write_wakes_with_space", blocked_write),
    ("a_signal_interrupts_a_blocked_read", interrupted_read),
    ("a_signal_interrupts_a_blocked_write", interrupted_write),
    (
        "a_blocked_read_restarts_after_a_sa_restart_handler",
        restarted_read,
    ),
    ("a_bad_address_is_efault_and_no_byte_is_lost", bad_address),
    ("the_open_mode_is_respected", open_mode),
    ("many_files_share_one_fifo", many_files),
    ("there_is_no_position", no_position),
    ("fionread_counts_and_unknown_ioctls_are_enotty", ioctls),
    ("clear_empties_and_wakes_writers", clear_wakes_writers),
    ("clear_by_its_encoded_number", clear_by_alias),
    (
        "clear_after_a_partial_read_leaves_nothing",
        clear_after_partial_read,
    ),
    ("fsync_returns_once_the_device_has_it", fsync),
    ("vectors_of_odd_sizes", vectors),
    ("a_megabyte_passes_through_unchanged", megabyte),
    ("the_bytes_of_one_write_stay_together", contiguous_writes),
    ("several_readers_share_without_loss", several_readers),
    ("dup_and_fork_share_the_file", dup_and_fork),
];

fn main() -> ExitCode {
    harness::main(TESTS)
}

/// Waits until the task sleeps in a system call, so that what comes next finds it blocked.
fn until_blocked(tid: i32, call: i64) -> Result<()> {
    eventually(&format!("task {tid} sleeps in call {call}"), || {
        system::sleeps_in(tid, call)
    })
}

/// Runs `work` on a thread; gives its id, and its result later.
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

fn order() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    for round in 1..=200 {
        let bytes = pattern(round, usize::try_from(round * 37 % 4000 + 1)?);
        fifo.write_all(&bytes)?;
        check_eq!(fifo.read_exact(bytes.len())?, bytes);
    }
    Ok(())
}

/// DRV-6: the driver's own credit is exact; DEV-4.
fn exact_capacity() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    check!(fifo.events()? == PollFlags::POLLOUT);
    check_eq!(fifo.fill()?, CAPACITY);
    fifo.wait_level(CAPACITY)?;
    check!(fifo.events()? == PollFlags::POLLIN);
    let back = fifo.drain()?;
    check_eq!(back.len(), CAPACITY);
    for (n, byte) in back.into_iter().enumerate() {
        check_eq!(usize::from(byte), n % 251);
    }
    check!(fifo.events()? == PollFlags::POLLOUT);
    Ok(())
}

fn full_then_partly_read() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    check_eq!(fifo.write(&[7; CAPACITY]), Ok(CAPACITY));
    check_eq!(fifo.write(&[8]), Err(Errno::EAGAIN));
    fifo.wait_level(CAPACITY)?;
    check_eq!(fifo.read(10)?, vec![7; 10]);
    // Without waiting for anything: the space is there when the read returns.
    check!(fifo.events()?.contains(PollFlags::POLLOUT));
    check_eq!(fifo.write(&[9; 100]), Ok(10));
    check_eq!(fifo.write(&[9]), Err(Errno::EAGAIN));
    check!(!fifo.events()?.contains(PollFlags::POLLOUT));
    Ok(())
}

fn partial_write() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    check_eq!(fifo.write(&[1; 100])?, 100);
    // Also a blocking write takes what fits rather than wait for the rest.
    check_eq!(fifo.write(&[2; 5000])?, CAPACITY - 100);
    let mut expected = vec![1; 100];
    expected.resize(CAPACITY, 2);
    check_eq!(fifo.read_exact(CAPACITY)?, expected);
    Ok(())
}

fn many_small_writes() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let bytes = pattern(5, CAPACITY);
    for byte in &bytes {
        check_eq!(fifo.write(&[*byte])?, 1);
    }
    fifo.wait_level(CAPACITY)?;
    check_eq!(fifo.read(CAPACITY + 100)?, bytes);
    Ok(())
}

/// A small write may wait for others, for a moment and then a timer. Here the next one comes at every distance
/// around that moment, and nothing after it (not even a read, which is told to the device): it arrives by itself,
/// not by the look for what was left behind.
fn none_left_behind() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let arrived = || system::counter(0, "rx_bytes");
    let before = system::counter(0, "left_behind")?;
    let mut expected = arrived()?;
    for distance in (50_000..110_000).step_by(40) {
        fifo.write_all(b"a")?;
        let start = Instant::now();
        while start.elapsed() < Duration::from_nanos(distance) {
            std::hint::spin_loop();
        }
        fifo.write_all(b"b")?;
        expected += 2;
        eventually("both bytes arrive", || Ok(arrived()? == expected))?;
    }
    check_eq!(system::counter(0, "left_behind")?, before);
    check_eq!(fifo.read_exact(3000)?, b"ab".repeat(1500));
    Ok(())
}

fn zero_length() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    check_eq!(fifo.read(0)?, Vec::<u8>::new());
    check_eq!(fifo.write(&[])?, 0);
    fifo.write_all(&[1; CAPACITY])?;
    check_eq!(fifo.write(&[])?, 0);
    Ok(())
}

fn empty_is_eagain() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    check_eq!(fifo.read(1), Err(Errno::EAGAIN));
    Ok(())
}

fn blocked_read() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let (tid, reader) = spawn(|| Fifo::open(0)?.read(100).context("read"))?;
    until_blocked(tid, libc::SYS_read)?;
    fifo.write_all(b"wake up")?;
    check_eq!(join(reader)??, b"wake up".to_vec());
    Ok(())
}

fn blocked_write() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    fifo.write_all(&[1; CAPACITY])?;
    let (tid, writer) = spawn(|| Fifo::open(0)?.write(&[2; 50]).context("write"))?;
    until_blocked(tid, libc::SYS_write)?;
    check_eq!(fifo.read_exact(20)?, vec![1; 20]);
    check_eq!(join(writer)??, 20);
    check_eq!(
        fifo.read_exact(CAPACITY)?,
        [vec![1; CAPACITY - 20], vec![2; 20]].concat()
    );
    Ok(())
}

extern "C" fn nothing(_: i32) {}

fn handle_sigusr1(flags: SaFlags) -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(nothing), flags, SigSet::empty());
    // SAFETY: The handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.context("sigaction")?;
    Ok(())
}

fn signal_task(tid: i32) -> Result<()> {
    let pid = std::process::id();
    // SAFETY: tgkill takes three integers.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, libc::SIGUSR1) };
    Errno::result(sent).map(drop).context("tgkill")
}

fn interrupted_read() -> Result<()> {
    handle_sigusr1(SaFlags::empty())?;
    let _fifo = Fifo::open_empty(0)?;
    let (tid, reader) = spawn(|| Fifo::open(0).map(|fifo| fifo.read(1)))?;
    until_blocked(tid, libc::SYS_read)?;
    signal_task(tid)?;
    check_eq!(join(reader)??, Err(Errno::EINTR));
    Ok(())
}

fn interrupted_write() -> Result<()> {
    handle_sigusr1(SaFlags::empty())?;
    let fifo = Fifo::open_empty(0)?;
    fifo.write_all(&[1; CAPACITY])?;
    let (tid, writer) = spawn(|| Fifo::open(0).map(|fifo| fifo.write(&[1])))?;
    until_blocked(tid, libc::SYS_write)?;
    signal_task(tid)?;
    check_eq!(join(writer)??, Err(Errno::EINTR));
    Ok(())
}

fn restarted_read() -> Result<()> {
    handle_sigusr1(SaFlags::SA_RESTART)?;
    let fifo = Fifo::open_empty(0)?;
    let (tid, reader) = spawn(|| Fifo::open(0).map(|fifo| fifo.read(10)))?;
    until_blocked(tid, libc::SYS_read)?;
    signal_task(tid)?;
    until_blocked(tid, libc::SYS_read)?;
    fifo.write_all(b"x")?;
    check_eq!(join(reader)??, Ok(b"x".to_vec()));
    Ok(())
}

fn bad_address() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let bad = std::ptr::without_provenance_mut::<libc::c_void>(0x10);
    // SAFETY: The kernel checks the address.
    let written = unsafe { libc::write(fifo.fd(), bad, 100) };
    check_eq!(Errno::result(written), Err(Errno::EFAULT));
    fifo.write_all(b"precious")?;
    fifo.wait_level(8)?;
    // SAFETY: The kernel checks the address.
    let read = unsafe { libc::read(fifo.fd(), bad, 100) };
    check_eq!(Errno::result(read), Err(Errno::EFAULT));
    check_eq!(fifo.level()?, 8);

    // Half good: what was copied counts, the rest stays.
    let mut room = [0; 3];
    let vectors = [
        libc::iovec {
            iov_base: room.as_mut_ptr().cast(),
            iov_len: 3,
        },
        libc::iovec {
            iov_base: bad,
            iov_len: 5,
        },
    ];
    // SAFETY: The first vector is valid, the second is for the kernel to refuse.
    let read = unsafe { libc::readv(fifo.fd(), vectors.as_ptr(), 2) };
    check_eq!(Errno::result(read), Ok(3));
    check_eq!(room, *b"pre");
    check_eq!(fifo.read(100)?, b"cious".to_vec());
    Ok(())
}

fn open_mode() -> Result<()> {
    let reader = Fifo::open_as(PATH, true, false, O_NONBLOCK)?;
    let writer = Fifo::open_as(PATH, false, true, O_NONBLOCK)?;
    writer.clear()?;
    check_eq!(reader.write(b"x"), Err(Errno::EBADF));
    check_eq!(writer.read(1), Err(Errno::EBADF));
    check_eq!(writer.write(b"x"), Ok(1));
    reader.wait_level(1)?;
    check_eq!(reader.read(10), Ok(b"x".to_vec()));
    Ok(())
}

fn many_files() -> Result<()> {
    let files: Vec<Fifo> = (0..64)
        .map(|_| Fifo::open(O_NONBLOCK))
        .collect::<Result<_>>()?;
    let first = files.first().context("no file")?;
    first.clear()?;
    for file in &files {
        file.write_all(b"-")?;
    }
    first.wait_level(64)?;
    for file in &files {
        check_eq!(file.read(1)?, b"-".to_vec());
    }
    check_eq!(first.read(1), Err(Errno::EAGAIN));
    Ok(())
}

fn no_position() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let seek = nix::unistd::lseek(&fifo, 1, nix::unistd::Whence::SeekSet);
    check_eq!(seek, Err(Errno::ESPIPE));
    check_eq!(nix::sys::uio::pwrite(&fifo, b"x", 5), Err(Errno::ESPIPE));
    check_eq!(nix::sys::uio::pread(&fifo, &mut [0], 5), Err(Errno::ESPIPE));
    Ok(())
}

fn ioctls() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    check_eq!(fifo.level()?, 0);
    fifo.write_all(&[1; 123])?;
    fifo.wait_level(123)?;
    check_eq!(fifo.level()?, 123);
    check_eq!(fifo.read(23)?.len(), 23);
    check_eq!(fifo.level()?, 100);
    check_eq!(fifo.unknown_ioctl(), Err(Errno::ENOTTY));
    // SAFETY: The kernel checks the address.
    let bad = unsafe { libc::ioctl(fifo.as_fd().as_raw_fd(), libc::FIONREAD, 0x10) };
    check_eq!(Errno::result(bad), Err(Errno::EFAULT));
    Ok(())
}

fn clear_wakes_writers() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    check_eq!(fifo.fill()?, CAPACITY);
    let (tid, writer) = spawn(|| Fifo::open(0)?.write(b"after").context("write"))?;
    until_blocked(tid, libc::SYS_write)?;
    fifo.clear()?;
    check_eq!(join(writer)??, 5);
    fifo.wait_level(5)?;
    check_eq!(fifo.drain()?, b"after".to_vec());
    Ok(())
}

fn clear_by_alias() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    fifo.write_all(&[1; 100])?;
    fifo.clear_by_alias()?;
    check_eq!(fifo.read(1), Err(Errno::EAGAIN));
    check_eq!(fifo.level()?, 0);
    check_eq!(fifo.fill()?, CAPACITY);
    Ok(())
}

/// DRV-10, DRV-15: nothing from before a clear comes after it.
fn clear_after_partial_read() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    for round in 0..100u64 {
        let bytes = pattern(round, 3000);
        fifo.write_all(&bytes)?;
        fifo.wait_level(1)?;
        fifo.read(usize::try_from(round * 7 + 1)?)?;
        fifo.clear()?;
        check_eq!(fifo.read(1), Err(Errno::EAGAIN));
        fifo.write_all(b"new")?;
        fifo.wait_level(3)?;
        check_eq!(fifo.drain()?, b"new".to_vec());
    }
    Ok(())
}

/// DEV-10: a used buffer means accepted.
fn fsync() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    for round in 0..50 {
        let bytes = pattern(round, 80);
        fifo.write_all(&bytes)?;
        nix::unistd::fsync(&fifo)?;
        nix::unistd::fdatasync(&fifo)?;
    }
    check_eq!(fifo.read(80)?, pattern(0, 80));
    Ok(())
}

fn vectors() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let bytes = pattern(3, 1000);
    let sizes = [0, 1, 0, 7, 255, 0, 512, 225, 0];
    check_eq!(sizes.iter().sum::<usize>(), 1000);
    let mut rest = bytes.as_slice();
    let mut parts = Vec::new();
    for size in sizes {
        let (part, after) = rest.split_at(size);
        parts.push(IoSlice::new(part));
        rest = after;
    }
    check_eq!(nix::sys::uio::writev(&fifo, &parts)?, 1000);
    fifo.wait_level(1000)?;
    let mut rooms: Vec<Vec<u8>> = sizes.iter().rev().map(|size| vec![0; *size]).collect();
    let mut slices: Vec<IoSliceMut<'_>> = rooms.iter_mut().map(|r| IoSliceMut::new(r)).collect();
    check_eq!(nix::sys::uio::readv(&fifo, &mut slices)?, 1000);
    check_eq!(rooms.concat(), bytes);
    Ok(())
}

/// DRV-5, DRV-6, DRV-7: the device refuses messages that break them, and then nothing passes.
fn megabyte() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let bytes = pattern(11, 1 << 20);
    let sent = bytes.clone();
    let writer = thread::spawn(move || -> Result<()> {
        let fifo = Fifo::open(0)?;
        let mut rest = sent.as_slice();
        let mut size = 1;
        while !rest.is_empty() {
            let part = rest.get(..size).unwrap_or(rest);
            let written = fifo.write(part)?;
            rest = rest.get(written..).context("wrote too much")?;
            size = size * 5 % 9973 + 1;
        }
        Ok(())
    });
    let mut back = Vec::new();
    let mut size = 1;
    while back.len() < bytes.len() {
        back.extend(fifo.read(size)?);
        size = size * 3 % 7919 + 1;
    }
    join(writer)??;
    check!(back == bytes);
    Ok(())
}

fn contiguous_writes() -> Result<()> {
    const RECORD: usize = 64;
    const ROUNDS: usize = 300;
    let fifo = Fifo::open_empty(0)?;
    let writers: Vec<_> = (1..=4u8)
        .map(|id| {
            thread::spawn(move || -> Result<()> {
                let fifo = Fifo::open(0)?;
                for _ in 0..ROUNDS {
                    // Records divide the capacity, so one is written whole or not at all.
                    check_eq!(fifo.write(&[id; RECORD])?, RECORD);
                }
                Ok(())
            })
        })
        .collect();
    let mut counts = [0; 5];
    for _ in 0..4 * ROUNDS {
        // Never part of a record, so that the space always is a number of records too.
        fifo.wait_level(RECORD)?;
        let record = fifo.read_exact(RECORD)?;
        let id = *record.first().context("empty")?;
        check!(record.iter().all(|byte| *byte == id));
        *counts.get_mut(usize::from(id)).context("unknown writer")? += 1;
    }
    check_eq!(counts, [0, ROUNDS, ROUNDS, ROUNDS, ROUNDS]);
    for writer in writers {
        join(writer)??;
    }
    Ok(())
}

fn several_readers() -> Result<()> {
    const TOTAL: usize = 100_000;
    let fifo = Fifo::open_empty(0)?;
    let readers: Vec<_> = (0..3)
        .map(|_| {
            thread::spawn(|| -> Result<Vec<u8>> {
                let fifo = Fifo::open(O_NONBLOCK)?;
                let mut mine = Vec::new();
                loop {
                    let ready = fifo.poll_for(PollFlags::POLLIN, PollTimeout::from(10_000u16))?;
                    if ready.is_empty() {
                        bail!("no end marker came");
                    }
                    match fifo.read(97) {
                        Ok(bytes) => {
                            let ended = bytes.contains(&0xFF);
                            mine.extend(bytes);
                            if ended {
                                return Ok(mine);
                            }
                        }
                        Err(Errno::EAGAIN) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            })
        })
        .collect();
    let bytes: Vec<u8> = pattern(17, TOTAL).iter().map(|byte| byte % 251).collect();
    fifo.write_all(&bytes)?;
    // An end marker for each reader, one after the other: one read may take only one.
    let mut left = readers;
    let mut all = Vec::new();
    while !left.is_empty() {
        fifo.write_all(&[0xFF])?;
        let before = left.len();
        eventually("a reader ends", || {
            Ok(left.iter().any(thread::JoinHandle::is_finished))
        })?;
        let (ended, running): (Vec<_>, Vec<_>) =
            left.into_iter().partition(thread::JoinHandle::is_finished);
        for reader in ended {
            all.extend(join(reader)??);
        }
        left = running;
        check!(left.len() < before);
    }
    let mut counts = [0i64; 256];
    for byte in all.iter().filter(|byte| **byte != 0xFF) {
        *counts.get_mut(usize::from(*byte)).context("index")? += 1;
    }
    for byte in &bytes {
        *counts.get_mut(usize::from(*byte)).context("index")? -= 1;
    }
    check!(counts.iter().all(|count| *count == 0));
    Ok(())
}

fn dup_and_fork() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let copy = nix::unistd::dup(&fifo)?;
    check_eq!(nix::unistd::write(&copy, b"from a copy")?, 11);
    drop(copy);
    check_eq!(fifo.read_exact(11)?, b"from a copy".to_vec());
    system::run("sh", &["-c", "printf 'from a child' > /dev/globalfifo0"])?;
    check_eq!(fifo.read_exact(12)?, b"from a child".to_vec());
    check_eq!(
        fifo.poll_for(PollFlags::POLLIN, PollTimeout::ZERO)?,
        PollFlags::empty()
    );
    Ok(())
}
