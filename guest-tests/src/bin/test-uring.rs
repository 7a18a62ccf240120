// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! io_uring: requests that wait without a thread, because the driver says `EAGAIN` and polls.
#![expect(
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

use std::convert::Infallible;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, PATH, pattern};
use globalfifo_guest_tests::harness::{self, SOON, Test, eventually};
use globalfifo_guest_tests::uring::{self, Ring, outcome, read, readv, workers, write, writev};
use globalfifo_guest_tests::{check, check_eq, system, victim};
use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, Fixed, Timespec};
use nix::errno::Errno;
use nix::libc::{self, O_NONBLOCK, POLLERR, POLLHUP, POLLIN, POLLOUT, iovec};

const TESTS: &[Test] = &[
    ("a_read_that_waits_gets_data", read_waits),
    ("a_write_that_waits_gets_space", write_waits),
    ("requests_that_can_be_done_are_done_at_once", at_once),
    ("vectors_with_empty_and_odd_segments", vectors),
    ("fixed_buffers", fixed_buffers),
    ("fixed_files", fixed_files),
    ("sqpoll_does_all_of_these", sqpoll),
    ("waiting_reads_park_no_worker", no_workers),
    ("waiting_writes_park_no_worker", no_workers_for_writes),
    ("poll_once", poll_once),
    ("poll_multishot_tells_each_arrival", poll_multishot),
    ("read_multishot_fills_buffer_after_buffer", read_multishot),
    (
        "read_multishot_ends_without_buffers_and_loses_nothing",
        multishot_without_buffers,
    ),
    ("cancel_of_a_waiting_read_loses_no_byte", cancel_read),
    ("cancel_of_a_waiting_write_writes_nothing", cancel_write),
    ("cancel_of_all_of_a_file", cancel_all),
    ("cancel_of_what_is_done_is_enoent", cancel_done),
    (
        "cancel_racing_with_data_neither_loses_nor_doubles",
        cancel_race,
    ),
    ("a_link_timeout_ends_a_waiting_read", link_timeout),
    ("data_ends_a_link_timeout", link_timeout_not_needed),
    ("a_link_timeout_ends_a_waiting_write", link_timeout_write),
    ("rwf_nowait_is_eagain_and_o_nonblock_waits", nonblocking),
    ("bad_requests_are_refused", bad_requests),
    ("a_bad_address_is_efault_and_no_byte_is_lost", bad_address),
    ("memory_unmapped_before_completion_is_efault", unmapped),
    ("a_closed_descriptor_leaves_its_request_waiting", closed),
    ("fork_leaves_requests_with_the_parent", fork),
    ("the_end_of_a_ring_ends_what_waits", end_of_ring),
    ("unbind_ends_what_waits_with_enodev", unbind),
    (
        "waiting_reads_die_with_their_process_and_lose_nothing",
        killed,
    ),
];

/// Long enough for what should not happen to have happened.
const QUIET: Duration = Duration::from_millis(200);

const ECANCELED: i32 = -libc::ECANCELED;
const ENODEV: i32 = -libc::ENODEV;
const EFAULT: i32 = -libc::EFAULT;

fn main() -> ExitCode {
    if let Some(code) = victim::main(waiting) {
        return code;
    }
    let _ = system::load_module();
    harness::main(TESTS)
}

/// Both kinds of ring.
fn rings() -> Result<[Ring; 2]> {
    Ok([Ring::new()?, Ring::with_sqpoll()?])
}

fn nothing_comes(ring: &mut Ring) -> Result<()> {
    check_eq!(ring.wait(QUIET)?, None);
    Ok(())
}

fn vector(room: &mut [u8]) -> iovec {
    iovec {
        iov_base: room.as_mut_ptr().cast(),
        iov_len: room.len(),
    }
}

fn read_waits() -> Result<()> {
    let mut ring = Ring::new()?;
    let fifo = Fifo::open_empty(0)?;
    for _ in 0..10 {
        let mut room = [0; 100];
        ring.submit(read(&fifo, &mut room), 7)?;
        check_eq!(ring.wait(Duration::from_millis(20))?, None);
        let before = system::counter(0, "interrupts")?;
        fifo.write_all(b"interrupt")?;
        let done = ring.completion()?;
        check_eq!((done.data, done.res), (7, 9));
        check_eq!(&room[..9], b"interrupt");
        check!(system::counter(0, "interrupts")? > before);
    }
    Ok(())
}

fn write_waits() -> Result<()> {
    let mut ring = Ring::new()?;
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    check_eq!(fifo.fill()?, CAPACITY);
    fifo.wait_level(CAPACITY)?;
    let blocking = Fifo::open(0)?;
    ring.submit(write(&blocking, &[9; 50]), 1)?;
    nothing_comes(&mut ring)?;
    check_eq!(fifo.read(30)?.len(), 30);
    // What fits, as write(2) would: it does not wait for the rest.
    check_eq!(ring.completion()?.res, 30);
    fifo.wait_level(CAPACITY)?;
    check_eq!(fifo.drain()?[CAPACITY - 30..], [9; 30]);
    Ok(())
}

fn at_once() -> Result<()> {
    let mut ring = Ring::new()?;
    let fifo = Fifo::open_empty(0)?;
    for round in 0..50 {
        let bytes = pattern(round, 1000);
        check_eq!(ring.run(write(&fifo, &bytes))?, Ok(1000));
        fifo.wait_level(1000)?;
        let mut room = [0; 2000];
        check_eq!(ring.run(read(&fifo, &mut room))?, Ok(1000));
        check_eq!(room[..1000], bytes);
    }
    check_eq!(ring.run(write(&fifo, &[]))?, Ok(0));
    check_eq!(ring.run(read(&fifo, &mut []))?, Ok(0));
    check_eq!(workers()?, 0);
    Ok(())
}

/// Writes by `out` segments and reads into `into` ones, the read waiting first.
fn through_vectors(ring: &mut Ring, out: &[usize], into: &[usize]) -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let total: usize = out.iter().sum();
    let mut sent = pattern(3, total);
    let mut back = vec![0; into.iter().sum()];
    let cut = |mut bytes: &mut [u8], sizes: &[usize]| {
        let mut parts = Vec::new();
        for size in sizes {
            let (part, rest) = bytes.split_at_mut(*size);
            parts.push(vector(part));
            bytes = rest;
        }
        parts
    };
    let (from, to) = (cut(&mut sent, out), cut(&mut back, into));
    ring.submit(readv(&fifo, &to), 1)?;
    // The kernel has its own copy of the vectors, at the latest once the request waits.
    check_eq!(ring.wait(Duration::from_millis(20))?, None);
    drop(to);
    ring.submit(writev(&fifo, &from), 2)?;
    let results = ring.results(2)?;
    check_eq!(results.get(&1), Some(&i32::try_from(total)?));
    check_eq!(results.get(&2), Some(&i32::try_from(total)?));
    check_eq!(back[..total], sent[..]);
    Ok(())
}

fn vectors() -> Result<()> {
    for ring in &mut rings()? {
        through_vectors(ring, &[0, 1, 0, 999, 3, 0], &[500, 0, 0, 7, 1, 2000])?;
        through_vectors(ring, &[CAPACITY - 100], &[1, CAPACITY - 1])?;
        through_vectors(ring, &[1], &[0, 0, 0, 1])?;
        through_vectors(ring, &[3; 1024], &[4; 1024])?;
    }
    Ok(())
}

fn with_fixed_buffers(ring: &mut Ring) -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let mut buffers = [pattern(1, CAPACITY), vec![0; CAPACITY]];
    let registered: Vec<iovec> = buffers.iter_mut().map(|buffer| vector(buffer)).collect();
    // SAFETY: The buffers stay until the ring is gone or has others.
    unsafe { ring.submitter().register_buffers(&registered) }?;
    let length = u32::try_from(CAPACITY)?;
    let fd = Fd(fifo.fd());
    let read = opcode::ReadFixed::new(fd, buffers[1].as_mut_ptr(), length, 1).build();
    ring.submit(read, 1)?;
    check_eq!(ring.wait(Duration::from_millis(20))?, None);
    let write = opcode::WriteFixed::new(fd, buffers[0].as_ptr(), 1000, 0).build();
    ring.submit(write, 2)?;
    let results = ring.results(2)?;
    check_eq!(results.get(&1), Some(&1000));
    check_eq!(results.get(&2), Some(&1000));
    check!(buffers[0][..1000] == buffers[1][..1000]);
    // Memory that is not the buffer's is refused, and nothing is read into it.
    fifo.write_all(b"kept")?;
    fifo.wait_level(4)?;
    let mut other = [0; 4];
    let wrong = opcode::ReadFixed::new(fd, other.as_mut_ptr(), 4, 1).build();
    check_eq!(ring.run(wrong)?, Err(Errno::EFAULT));
    check_eq!(fifo.read(10)?, b"kept".to_vec());
    ring.submitter().unregister_buffers()?;
    Ok(())
}

fn fixed_buffers() -> Result<()> {
    rings()?.iter_mut().try_for_each(with_fixed_buffers)
}

fn with_fixed_files(ring: &mut Ring) -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let control = Fifo::open(O_NONBLOCK)?;
    ring.submitter().register_files(&[fifo.fd()])?;
    // The ring holds the file: its descriptor is not needed any more.
    drop(fifo);
    let mut room = [0; 100];
    ring.submit(
        opcode::Read::new(Fixed(0), room.as_mut_ptr(), 100).build(),
        1,
    )?;
    check_eq!(ring.wait(Duration::from_millis(20))?, None);
    ring.submit(
        opcode::Write::new(Fixed(0), b"fixed".as_ptr(), 5).build(),
        2,
    )?;
    let results = ring.results(2)?;
    check_eq!(results.get(&1), Some(&5));
    check_eq!(results.get(&2), Some(&5));
    check_eq!(&room[..5], b"fixed");
    ring.submit(opcode::PollAdd::new(Fixed(0), POLLIN as u32).build(), 3)?;
    control.write_all(b"x")?;
    let done = ring.completion()?;
    check!(done.data == 3 && done.res & i32::from(POLLIN) != 0);
    ring.submitter().unregister_files()?;
    let gone = opcode::Read::new(Fixed(0), room.as_mut_ptr(), 100).build();
    check_eq!(ring.run(gone)?, Err(Errno::EBADF));
    Ok(())
}

fn fixed_files() -> Result<()> {
    rings()?.iter_mut().try_for_each(with_fixed_files)
}

fn sqpoll() -> Result<()> {
    let mut ring = Ring::with_sqpoll()?;
    let fifo = Fifo::open_empty(0)?;
    for round in 0..50u64 {
        let mut room = [0; 100];
        ring.submit(read(&fifo, &mut room), round)?;
        if round % 10 == 0 {
            // Its thread falls asleep meanwhile.
            check_eq!(ring.wait(Duration::from_millis(60))?, None);
        }
        let bytes = pattern(round, 80);
        ring.submit(write(&fifo, &bytes), 1000)?;
        let results = ring.results(2)?;
        check_eq!(results.get(&round), Some(&80));
        check_eq!(results.get(&1000), Some(&80));
        check_eq!(room[..80], bytes);
    }
    let mut room = [0; 8];
    ring.submit(read(&fifo, &mut room), 1)?;
    ring.cancel(1, 2)?;
    let results = ring.results(2)?;
    check_eq!(results.get(&1), Some(&ECANCELED));
    check_eq!(results.get(&2), Some(&0));
    check_eq!(workers()?, 0);
    Ok(())
}

fn no_workers() -> Result<()> {
    for ring in &mut rings()? {
        let fifo = Fifo::open_empty(0)?;
        let mut rooms = vec![[0u8; 1]; 64];
        for (data, room) in (0..).zip(&mut rooms) {
            ring.submit(read(&fifo, room), data)?;
        }
        nothing_comes(ring)?;
        check_eq!(workers()?, 0);
        // One byte at a time: each arrival finds all that still wait.
        let mut seen = 0;
        for byte in 1..=64u8 {
            fifo.write_all(&[byte])?;
            check_eq!(ring.completion()?.res, 1);
            seen += 1;
        }
        check_eq!(seen, 64);
        check_eq!(workers()?, 0);
        let mut got: Vec<u8> = rooms.iter().map(|room| room[0]).collect();
        got.sort_unstable();
        check_eq!(got, (1..=64).collect::<Vec<u8>>());
    }
    Ok(())
}

fn no_workers_for_writes() -> Result<()> {
    for ring in &mut rings()? {
        let fifo = Fifo::open_empty(O_NONBLOCK)?;
        check_eq!(fifo.write(&[0; CAPACITY]), Ok(CAPACITY));
        fifo.wait_level(CAPACITY)?;
        let blocking = Fifo::open(0)?;
        let bytes: Vec<[u8; 1]> = (1..=32).map(|byte| [byte]).collect();
        for (data, byte) in (0..).zip(&bytes) {
            ring.submit(write(&blocking, byte), data)?;
        }
        nothing_comes(ring)?;
        check_eq!(workers()?, 0);
        check_eq!(fifo.read(32)?.len(), 32);
        check!(ring.results(32)?.values().all(|res| *res == 1));
        check_eq!(workers()?, 0);
        fifo.wait_level(CAPACITY)?;
        let mut all = fifo.drain()?.split_off(CAPACITY - 32);
        all.sort_unstable();
        check_eq!(all, (1..=32).collect::<Vec<u8>>());
    }
    Ok(())
}

fn poll_once() -> Result<()> {
    for ring in &mut rings()? {
        let fifo = Fifo::open_empty(O_NONBLOCK)?;
        ring.submit(uring::poll(&fifo, POLLIN, false), 1)?;
        nothing_comes(ring)?;
        fifo.write_all(b"x")?;
        let done = ring.completion()?;
        check_eq!((done.data, done.more()), (1, false));
        check!(done.res & i32::from(POLLIN) != 0);
        fifo.fill()?;
        fifo.wait_level(CAPACITY)?;
        ring.submit(uring::poll(&fifo, POLLOUT, false), 2)?;
        nothing_comes(ring)?;
        fifo.read(1)?;
        let done = ring.completion()?;
        check!(done.data == 2 && done.res & i32::from(POLLOUT) != 0);
        ring.submit(uring::poll(&fifo, POLLOUT, false), 3)?;
        check_eq!(ring.completion()?.data, 3);
    }
    Ok(())
}

fn poll_multishot() -> Result<()> {
    for ring in &mut rings()? {
        let fifo = Fifo::open_empty(O_NONBLOCK)?;
        ring.submit(uring::poll(&fifo, POLLIN, true), 1)?;
        for _ in 0..10 {
            fifo.write_all(b"more")?;
            let done = ring.completion()?;
            check_eq!((done.data, done.more()), (1, true));
            check!(done.res & i32::from(POLLIN) != 0);
        }
        nothing_comes(ring)?;
        ring.submit(opcode::PollRemove::new(1).build(), 2)?;
        let results = ring.results(2)?;
        check_eq!(results.get(&1), Some(&ECANCELED));
        check_eq!(results.get(&2), Some(&0));
        fifo.write_all(b"nobody listens")?;
        nothing_comes(ring)?;
    }
    Ok(())
}

const GROUP: u16 = 3;
const ROOM: usize = 64;

/// Gives the ring `count` buffers of [`ROOM`] bytes.
fn provide(ring: &mut Ring, buffers: &mut [u8]) -> Result<()> {
    let count = u16::try_from(buffers.len() / ROOM)?;
    let size = i32::try_from(ROOM)?;
    let provide = opcode::ProvideBuffers::new(buffers.as_mut_ptr(), size, count, GROUP, 0);
    check_eq!(ring.run(provide.build())?, Ok(0));
    Ok(())
}

fn multishot(fifo: &Fifo) -> Entry {
    opcode::ReadMulti::new(Fd(fifo.fd()), 0, GROUP)
        .offset(u64::MAX)
        .build()
}

/// What a completion brought, in one of `buffers`.
fn brought(done: uring::Completion, buffers: &[u8]) -> Result<Vec<u8>> {
    let length = outcome(done.res)?;
    let start = usize::from(done.buffer().context("no buffer was used")?) * ROOM;
    Ok(buffers[start..start + length].to_vec())
}

fn read_multishot() -> Result<()> {
    for ring in &mut rings()? {
        let fifo = Fifo::open_empty(0)?;
        let mut buffers = vec![0; 32 * ROOM];
        provide(ring, &mut buffers)?;
        ring.submit(multishot(&fifo), 1)?;
        nothing_comes(ring)?;
        check_eq!(workers()?, 0);
        for round in 0..20 {
            let bytes = pattern(round, 20 + usize::try_from(round)?);
            fifo.write_all(&bytes)?;
            let done = ring.completion()?;
            check_eq!((done.data, done.more()), (1, true));
            check_eq!(brought(done, &buffers)?, bytes);
        }
        // More than a buffer holds goes on in the next.
        let bytes = pattern(99, 3 * ROOM);
        fifo.write_all(&bytes)?;
        let mut back = Vec::new();
        while back.len() < bytes.len() {
            let done = ring.completion()?;
            check!(done.more());
            back.extend(brought(done, &buffers)?);
        }
        check_eq!(back, bytes);
        ring.cancel(1, 2)?;
        let results = ring.results(2)?;
        check_eq!(results.get(&1), Some(&ECANCELED));
        check_eq!(results.get(&2), Some(&0));
        fifo.write_all(b"still here")?;
        check_eq!(fifo.read_exact(10)?, b"still here".to_vec());
    }
    Ok(())
}

fn multishot_without_buffers() -> Result<()> {
    let mut ring = Ring::new()?;
    let fifo = Fifo::open_empty(0)?;
    let mut buffers = vec![0; 2 * ROOM];
    provide(&mut ring, &mut buffers)?;
    let bytes = pattern(5, 4 * ROOM);
    fifo.write_all(&bytes)?;
    fifo.wait_level(bytes.len())?;
    ring.submit(multishot(&fifo), 1)?;
    let mut back = Vec::new();
    let last = loop {
        let done = ring.completion()?;
        if done.res < 0 {
            break done;
        }
        back.extend(brought(done, &buffers)?);
    };
    check_eq!((last.res, last.more()), (-libc::ENOBUFS, false));
    check_eq!(back, bytes[..2 * ROOM]);
    check_eq!(fifo.read_exact(2 * ROOM)?, bytes[2 * ROOM..].to_vec());
    Ok(())
}

fn cancel_read() -> Result<()> {
    for ring in &mut rings()? {
        let fifo = Fifo::open_empty(O_NONBLOCK)?;
        let blocking = Fifo::open(0)?;
        let mut rooms = [[0; 4]; 2];
        let [first, second] = &mut rooms;
        ring.submit(read(&blocking, first), 1)?;
        ring.submit(read(&blocking, second), 2)?;
        ring.cancel(1, 3)?;
        let results = ring.results(2)?;
        check_eq!(results.get(&1), Some(&ECANCELED));
        check_eq!(results.get(&3), Some(&0));
        fifo.write_all(b"datamore")?;
        let done = ring.completion()?;
        check_eq!((done.data, done.res), (2, 4));
        check_eq!(rooms, [[0; 4], *b"data"]);
        fifo.wait_level(4)?;
        check_eq!(fifo.read(10)?, b"more".to_vec());
    }
    Ok(())
}

fn cancel_write() -> Result<()> {
    for ring in &mut rings()? {
        let fifo = Fifo::open_empty(O_NONBLOCK)?;
        check_eq!(fifo.write(&[1; CAPACITY])?, CAPACITY);
        let blocking = Fifo::open(0)?;
        ring.submit(write(&blocking, &[2; 10]), 1)?;
        check_eq!(ring.wait(Duration::from_millis(20))?, None);
        ring.cancel(1, 2)?;
        let results = ring.results(2)?;
        check_eq!(results.get(&1), Some(&ECANCELED));
        check_eq!(results.get(&2), Some(&0));
        fifo.wait_level(CAPACITY)?;
        check_eq!(fifo.drain()?, vec![1; CAPACITY]);
        let late = fifo.poll_for(nix::poll::PollFlags::POLLIN, 200u16.into())?;
        check!(late.is_empty());
    }
    Ok(())
}

fn cancel_all() -> Result<()> {
    let mut ring = Ring::new()?;
    let (fifo, other) = (Fifo::open_empty(0)?, Fifo::open(0)?);
    let mut rooms = [[0; 4]; 9];
    let [kept, cancelled @ ..] = &mut rooms;
    ring.submit(read(&other, kept), 100)?;
    for (data, room) in (0..).zip(cancelled) {
        ring.submit(read(&fifo, room), data)?;
    }
    let all = CancelBuilder::fd(Fd(fifo.fd())).all();
    ring.submit(opcode::AsyncCancel2::new(all).build(), 200)?;
    let results = ring.results(9)?;
    check_eq!(results.get(&200), Some(&8));
    check!((0..8).all(|data| results.get(&data) == Some(&ECANCELED)));
    fifo.write_all(b"kept")?;
    let done = ring.completion()?;
    check_eq!((done.data, done.res), (100, 4));
    check_eq!(&rooms[0], b"kept");
    Ok(())
}

fn cancel_done() -> Result<()> {
    let mut ring = Ring::new()?;
    let mut foreign = Ring::new()?;
    let fifo = Fifo::open_empty(0)?;
    let mut room = [0; 4];
    ring.submit(read(&fifo, &mut room), 1)?;
    // Another ring's request of that number is none of its business.
    foreign.cancel(1, 2)?;
    check_eq!(foreign.completion()?.res, -libc::ENOENT);
    fifo.write_all(b"x")?;
    check_eq!(ring.completion()?.res, 1);
    ring.cancel(1, 3)?;
    check_eq!(ring.completion()?.res, -libc::ENOENT);
    Ok(())
}

fn cancel_race() -> Result<()> {
    let mut ring = Ring::new()?;
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let blocking = Fifo::open(0)?;
    let (mut with_data, mut without) = (0, 0);
    for round in 0..2000u64 {
        let mut room = [0; 8];
        ring.submit(read(&blocking, &mut room), 1)?;
        fifo.write_all(&round.to_le_bytes())?;
        // At once, a little later, and now and then so late that the data is there for certain.
        for _ in 0..round % 50 * 20 {
            std::hint::spin_loop();
        }
        if round % 10 == 9 {
            std::thread::sleep(Duration::from_millis(5));
        }
        ring.cancel(1, 2)?;
        let results = ring.results(2)?;
        let res = *results.get(&1).context("no result of the read")?;
        if res == ECANCELED {
            without += 1;
            fifo.wait_level(8)?;
            room.copy_from_slice(&fifo.read(8)?);
        } else {
            with_data += 1;
            check_eq!(res, 8);
        }
        check_eq!(u64::from_le_bytes(room), round);
    }
    check_eq!(fifo.read(1), Err(Errno::EAGAIN));
    // Both ways must have been taken for this to prove anything.
    check!(with_data > 0 && without > 0);
    Ok(())
}

/// Queues a request and the time it has.
fn with_timeout(ring: &mut Ring, entry: Entry, time: &Timespec) -> Result<()> {
    ring.queue(entry.flags(Flags::IO_LINK), 1)?;
    ring.queue(opcode::LinkTimeout::new(time).build(), 2)?;
    ring.flush()
}

fn link_timeout() -> Result<()> {
    for ring in &mut rings()? {
        let fifo = Fifo::open_empty(0)?;
        let mut room = [0; 8];
        let started = Instant::now();
        let time = Timespec::from(Duration::from_millis(100));
        with_timeout(ring, read(&fifo, &mut room), &time)?;
        let results = ring.results(2)?;
        check!(started.elapsed() >= Duration::from_millis(100));
        check_eq!(results.get(&1), Some(&ECANCELED));
        check_eq!(results.get(&2), Some(&-libc::ETIME));
        fifo.write_all(b"too late")?;
        check_eq!(fifo.read_exact(8)?, b"too late".to_vec());
        check_eq!(room, [0; 8]);
        check_eq!(workers()?, 0);
    }
    Ok(())
}

fn link_timeout_not_needed() -> Result<()> {
    for ring in &mut rings()? {
        let fifo = Fifo::open_empty(0)?;
        let mut room = [0; 8];
        let time = Timespec::from(3 * SOON);
        with_timeout(ring, read(&fifo, &mut room), &time)?;
        fifo.write_all(b"in time")?;
        let results = ring.results(2)?;
        check_eq!(results.get(&1), Some(&7));
        check_eq!(results.get(&2), Some(&ECANCELED));
    }
    Ok(())
}

fn link_timeout_write() -> Result<()> {
    let mut ring = Ring::new()?;
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    check_eq!(fifo.write(&[1; CAPACITY]), Ok(CAPACITY));
    let blocking = Fifo::open(0)?;
    let time = Timespec::from(Duration::from_millis(50));
    with_timeout(&mut ring, write(&blocking, b"never"), &time)?;
    let results = ring.results(2)?;
    check_eq!(results.get(&1), Some(&ECANCELED));
    check_eq!(results.get(&2), Some(&-libc::ETIME));
    fifo.wait_level(CAPACITY)?;
    check_eq!(fifo.drain()?, vec![1; CAPACITY]);
    Ok(())
}

fn nonblocking() -> Result<()> {
    let mut ring = Ring::new()?;
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let blocking = Fifo::open(0)?;
    let mut room = [0; 8];
    let nowait = opcode::Read::new(Fd(blocking.fd()), room.as_mut_ptr(), 8)
        .offset(u64::MAX)
        .rw_flags(libc::RWF_NOWAIT)
        .build();
    check_eq!(ring.run(nowait)?, Err(Errno::EAGAIN));
    // io_uring waits for files with O_NONBLOCK too, if they can be polled (io_uring/rw.c).
    ring.submit(read(&fifo, &mut room), 1)?;
    nothing_comes(&mut ring)?;
    fifo.write_all(b"came")?;
    check_eq!(ring.completion()?.res, 4);
    fifo.fill()?;
    let nowait = opcode::Write::new(Fd(blocking.fd()), b"x".as_ptr(), 1)
        .offset(u64::MAX)
        .rw_flags(libc::RWF_NOWAIT)
        .build();
    check_eq!(ring.run(nowait)?, Err(Errno::EAGAIN));
    Ok(())
}

fn bad_requests() -> Result<()> {
    let mut ring = Ring::new()?;
    let fifo = Fifo::open_empty(0)?;
    let reader = Fifo::open_as(PATH, true, false, 0)?;
    let writer = Fifo::open_as(PATH, false, true, 0)?;
    // Not on the stack, which is near the end of the address space: what reaches beyond that is refused.
    let mut room = Box::new([0; 8]);
    check_eq!(ring.run(write(&reader, b"x"))?, Err(Errno::EBADF));
    check_eq!(ring.run(read(&writer, &mut *room))?, Err(Errno::EBADF));
    let closed = opcode::Read::new(Fd(9999), room.as_mut_ptr(), 8).build();
    check_eq!(ring.run(closed)?, Err(Errno::EBADF));
    let unknown_flag = opcode::Read::new(Fd(fifo.fd()), room.as_mut_ptr(), 8)
        .rw_flags(0x4000_0000)
        .build();
    let refused = ring.run(unknown_flag)?;
    check!(matches!(refused, Err(Errno::EOPNOTSUPP | Errno::EINVAL)));
    let many = vec![vector(&mut *room); 1025];
    check_eq!(ring.run(readv(&fifo, &many))?, Err(Errno::EINVAL));
    let truncate = opcode::Ftruncate::new(Fd(fifo.fd()), 5).build();
    check_eq!(ring.run(truncate)?, Err(Errno::EINVAL));
    // All of them left the FIFO alone.
    check_eq!(fifo.level()?, 0);
    // More than a read may take is cut, not refused.
    fifo.write_all(b"here")?;
    fifo.wait_level(4)?;
    let huge = opcode::Read::new(Fd(fifo.fd()), room.as_mut_ptr(), u32::MAX >> 1).build();
    check_eq!(ring.run(huge)?, Ok(4));
    check_eq!(&room[..4], b"here");
    Ok(())
}

fn bad_address() -> Result<()> {
    let mut ring = Ring::new()?;
    let fifo = Fifo::open_empty(0)?;
    let nowhere = std::ptr::without_provenance_mut::<u8>(0x10);
    let entry = || opcode::Read::new(Fd(fifo.fd()), nowhere, 100).build();
    // While it waits, and at once.
    ring.submit(entry(), 1)?;
    fifo.write_all(b"still here")?;
    check_eq!(ring.completion()?.res, EFAULT);
    fifo.wait_level(10)?;
    check_eq!(ring.run(entry())?, Err(Errno::EFAULT));
    let from_nowhere = opcode::Write::new(Fd(fifo.fd()), nowhere, 100).build();
    check_eq!(ring.run(from_nowhere)?, Err(Errno::EFAULT));
    check_eq!(fifo.read(100)?, b"still here".to_vec());
    Ok(())
}

fn unmapped() -> Result<()> {
    let mut ring = Ring::new()?;
    let fifo = Fifo::open_empty(0)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: A new mapping, wherever there is room.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, flags, -1, 0) };
    check!(page != libc::MAP_FAILED);
    ring.submit(
        opcode::Read::new(Fd(fifo.fd()), page.cast(), 100).build(),
        1,
    )?;
    check_eq!(ring.wait(Duration::from_millis(20))?, None);
    // SAFETY: The mapping is this function's own, and nothing refers to it.
    Errno::result(unsafe { libc::munmap(page, 4096) })?;
    fifo.write_all(b"nowhere to go")?;
    check_eq!(ring.completion()?.res, EFAULT);
    check_eq!(fifo.read(100)?, b"nowhere to go".to_vec());
    Ok(())
}

fn closed() -> Result<()> {
    let mut ring = Ring::new()?;
    let other = Fifo::open_empty(0)?;
    let fifo = Fifo::open(0)?;
    let mut room = [0; 8];
    ring.submit(read(&fifo, &mut room), 1)?;
    drop(fifo);
    nothing_comes(&mut ring)?;
    other.write_all(b"after")?;
    check_eq!(ring.completion()?.res, 5);
    check_eq!(&room[..5], b"after");
    Ok(())
}

fn fork() -> Result<()> {
    let mut ring = Ring::new()?;
    let fifo = Fifo::open_empty(0)?;
    let mut room = [0; 8];
    ring.submit(read(&fifo, &mut room), 1)?;
    system::run("sh", &["-c", "printf child > /dev/globalfifo0"])?;
    check_eq!(ring.completion()?.res, 5);
    check_eq!(&room[..5], b"child");
    Ok(())
}

fn end_of_ring() -> Result<()> {
    for mut ring in rings()? {
        let fifo = Fifo::open_empty(O_NONBLOCK)?;
        let blocking = Fifo::open(0)?;
        let mut rooms = vec![[0u8; 8]; 100];
        for room in &mut rooms {
            ring.submit(read(&blocking, room), 1)?;
        }
        check_eq!(ring.wait(Duration::from_millis(20))?, None);
        let started = Instant::now();
        drop(ring);
        check!(started.elapsed() < harness::limit(Duration::from_secs(1)));
        // The kernel takes rings apart later, in a work queue: only then are the reads gone.
        drop(blocking);
        eventually("the bytes are left alone", || {
            fifo.write_all(b"not theirs")?;
            let stayed = fifo
                .poll_for(nix::poll::PollFlags::POLLIN, 1000u16.into())?
                .contains(nix::poll::PollFlags::POLLIN)
                && fifo.level()? == 10;
            fifo.clear()?;
            Ok(stayed)
        })?;
    }
    Ok(())
}

fn unbind() -> Result<()> {
    let mut ring = Ring::new()?;
    let fifo = Fifo::open_empty(0)?;
    let mut rooms = vec![[0u8; 8]; 50];
    for (data, room) in (0..).zip(&mut rooms) {
        ring.submit(read(&fifo, room), data)?;
    }
    ring.submit(uring::poll(&fifo, POLLIN, false), 100)?;
    let device = system::device_name()?;
    system::unbind(&device)?;
    let results = ring.results(51);
    let late = ring.run(write(&fifo, b"x"));
    system::bind(&device)?;
    system::wait_for_file(PATH, true)?;
    let results = results?;
    check!((0..50).all(|data| results.get(&data) == Some(&ENODEV)));
    let events = results.get(&100).copied().context("no poll result")?;
    check_eq!(
        events & i32::from(POLLHUP | POLLERR),
        i32::from(POLLHUP | POLLERR)
    );
    check_eq!(late?, Err(Errno::ENODEV));
    Ok(())
}

/// Submits reads that wait, says so, and sleeps until it is killed.
fn waiting() -> Result<Infallible> {
    let fifo = Fifo::open(0)?;
    let mut rings = rings()?;
    let mut rooms = vec![[0u8; 64]; 400];
    for (n, room) in rooms.iter_mut().enumerate() {
        rings[n % 2].submit(read(&fifo, room), 1)?;
    }
    for ring in &mut rings {
        check_eq!(ring.wait(Duration::from_millis(50))?, None);
    }
    victim::wait()
}

fn killed() -> Result<()> {
    drop(Fifo::open_empty(0)?);
    victim::kill()?;
    check_eq!(Fifo::open(O_NONBLOCK)?.read(1), Err(Errno::EAGAIN));
    Ok(())
}
