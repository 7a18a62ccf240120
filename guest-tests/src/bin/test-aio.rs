// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Native AIO: requests that are completed by the device's interrupt.
#![expect(
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

use std::convert::Infallible;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use globalfifo_guest_tests::aio::{
    Context, Event, FDSYNC, FSYNC, Iocb, POLL, PREAD, PREADV, PWRITEV,
};
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, PATH, pattern};
use globalfifo_guest_tests::harness::{self, SOON, Test, eventually};
use globalfifo_guest_tests::mapping::{Mapping, PAGE};
use globalfifo_guest_tests::{check, check_eq, system, victim};
use nix::errno::Errno;
use nix::libc::{self, O_NONBLOCK};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;

const TESTS: &[Test] = &[
    (
        "a_read_of_an_empty_fifo_is_completed_by_the_interrupt",
        read_waits,
    ),
    ("a_read_of_what_is_there_is_done_at_submit", read_at_once),
    (
        "a_write_is_completed_when_the_device_accepts_it",
        write_accepted,
    ),
    ("a_write_to_a_full_fifo_waits_for_space", write_waits),
    ("requests_complete_short_as_calls_do", short),
    ("requests_complete_in_the_order_of_submission", in_order),
    (
        "writes_complete_in_the_order_of_submission",
        writes_in_order,
    ),
    ("a_small_read_is_served_in_place", in_place),
    ("few_reads_are_served_in_place", few_in_place),
    ("reads_behind_are_pinned_as_they_come_up", pinned_later),
    (
        "who_submits_a_read_for_each_completed_needs_no_worker",
        pinned_ahead,
    ),
    (
        "a_submitter_pins_no_memory_of_another_process",
        of_another_process,
    ),
    ("memory_never_touched_is_not_pinned_later", untouched),
    ("vectors_with_empty_and_odd_segments", vectors),
    ("a_thousand_and_twenty_four_segments", many_segments),
    ("calls_wait_behind_requests", calls_wait_behind),
    ("an_eventfd_is_signalled", eventfd),
    ("fsync_and_fdsync", fsync),
    ("poll_requests", poll),
    ("cancel_of_a_waiting_read_loses_no_byte", cancel_read),
    ("cancel_of_a_waiting_write_writes_nothing", cancel_write),
    ("cancel_of_what_is_done_is_einval", cancel_done),
    (
        "cancel_racing_with_data_neither_loses_nor_doubles",
        cancel_race,
    ),
    ("a_bad_address_is_efault_and_no_byte_is_lost", bad_address),
    ("memory_unmapped_before_completion_is_efault", unmapped),
    ("memory_mapped_anew_before_completion_is_used", mapped_anew),
    ("bad_requests_are_refused", bad_requests),
    ("nonblocking_requests_are_eagain", nonblocking),
    ("clear_lets_waiting_writes_go_on", clear),
    ("close_ends_what_waits", close),
    ("io_destroy_ends_what_waits", destroy),
    ("unbind_ends_what_waits_with_enodev", unbind),
    ("fork_leaves_requests_with_the_parent", fork),
    ("a_thousand_waiting_reads_die_with_their_process", killed),
];

fn main() -> ExitCode {
    if let Some(code) = victim::main(waiting) {
        return code;
    }
    let _ = system::load_module();
    harness::main(TESTS)
}

/// Long enough for what should not happen to have happened.
const QUIET: Duration = Duration::from_millis(200);

const ECANCELED: i64 = -(libc::ECANCELED as i64);
const ENODEV: i64 = -(libc::ENODEV as i64);
const EFAULT: i64 = -(libc::EFAULT as i64);
const EAGAIN: i64 = -(libc::EAGAIN as i64);

fn counters() -> Result<(u64, u64)> {
    Ok((
        system::counter(0, "aio_at_submit")?,
        system::counter(0, "aio_by_interrupt")?,
    ))
}

fn no_event(context: &Context) -> Result<()> {
    check_eq!(context.events(0, 1, QUIET)?, Vec::<Event>::new());
    Ok(())
}

fn read_waits() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(8)?;
    let before = counters()?;
    let mut room = [0; 100];
    let mut read = Iocb::read(&fifo, &mut room).data(7);
    context.submit(&mut read)?;
    check_eq!(context.events(0, 1, Duration::ZERO)?, vec![]);
    fifo.write_all(b"interrupt")?;
    let event = context.event()?;
    check_eq!((event.data, event.res), (7, 9));
    check_eq!(&room[..9], b"interrupt");
    check_eq!(counters()?, (before.0, before.1 + 1));
    Ok(())
}

fn read_at_once() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    fifo.write_all(b"here")?;
    fifo.wait_level(4)?;
    let context = Context::new(8)?;
    let before = counters()?;
    let mut room = [0; 100];
    context.submit(&mut Iocb::read(&fifo, &mut room))?;
    let events = context.events(0, 1, Duration::ZERO)?;
    check_eq!(events.first().map(|event| event.res), Some(4));
    check_eq!(counters()?, (before.0 + 1, before.1));
    Ok(())
}

fn write_accepted() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(8)?;
    for _ in 0..20 {
        context.submit(&mut Iocb::write(&fifo, b"accepted"))?;
        check_eq!(context.event()?.res, 8);
        check_eq!(fifo.read_exact(8)?, b"accepted".to_vec());
    }
    Ok(())
}

fn write_waits() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    check_eq!(fifo.fill()?, CAPACITY);
    let blocking = Fifo::open(0)?;
    let context = Context::new(8)?;
    context.submit(&mut Iocb::write(&blocking, &[9; 50]))?;
    no_event(&context)?;
    fifo.wait_level(CAPACITY)?;
    check_eq!(fifo.read(30)?.len(), 30);
    check_eq!(context.event()?.res, 30);
    let rest = fifo.read(2 * CAPACITY)?;
    eventually("all bytes", || Ok(rest.len() + fifo.level()? == CAPACITY))?;
    let all = [rest, fifo.drain()?].concat();
    check_eq!(all[CAPACITY - 30..], [9; 30]);
    Ok(())
}

fn short() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(8)?;
    let mut room = [0; 1000];
    context.submit(&mut Iocb::read(&fifo, &mut room))?;
    fifo.write_all(b"abc")?;
    check_eq!(context.event()?.res, 3);
    context.submit(&mut Iocb::write(&fifo, &[1; 5000]))?;
    check_eq!(context.event()?.res, i64::try_from(CAPACITY)?);
    fifo.clear()?;
    // Nothing asked, nothing done, at once.
    context.submit(&mut Iocb::read(&fifo, &mut []))?;
    check_eq!(context.event()?.res, 0);
    context.submit(&mut Iocb::write(&fifo, &[]))?;
    check_eq!(context.event()?.res, 0);
    Ok(())
}

fn in_order() -> Result<()> {
    const COUNT: u64 = 100;
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(128)?;
    let mut rooms = vec![[0u8; 8]; usize::try_from(COUNT)?];
    let mut reads: Vec<Iocb> = (0..)
        .zip(&mut rooms)
        .map(|(n, room)| Iocb::read(&fifo, room).data(n))
        .collect();
    check_eq!(context.submit_all(&mut reads), Ok(rooms.len()));
    for n in 0..COUNT {
        fifo.write_all(&n.to_le_bytes())?;
    }
    let events = context.events(rooms.len(), rooms.len(), SOON)?;
    check_eq!(
        events.iter().map(|e| e.data).collect::<Vec<_>>(),
        (0..COUNT).collect::<Vec<_>>()
    );
    check!(events.iter().all(|event| event.res == 8));
    for (n, room) in (0..COUNT).zip(&rooms) {
        check_eq!(*room, n.to_le_bytes());
    }
    Ok(())
}

fn writes_in_order() -> Result<()> {
    const COUNT: usize = 64;
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(128)?;
    // Twice what fits: half of them wait.
    let blocks: Vec<Vec<u8>> = (0..COUNT)
        .map(|n| pattern(n as u64, CAPACITY / 32))
        .collect();
    let mut writes: Vec<Iocb> = (0..)
        .zip(&blocks)
        .map(|(n, block)| Iocb::write(&fifo, block).data(n))
        .collect();
    check_eq!(context.submit_all(&mut writes), Ok(COUNT));
    check_eq!(fifo.read_exact(2 * CAPACITY)?, blocks.concat());
    let events = context.events(COUNT, COUNT, SOON)?;
    check_eq!(
        events.iter().map(|event| event.data).collect::<Vec<_>>(),
        (0..COUNT as u64).collect::<Vec<_>>()
    );
    check!(
        events
            .iter()
            .all(|event| event.res == i64::try_from(CAPACITY / 32).unwrap_or(-1))
    );
    Ok(())
}

fn served_in_place() -> Result<u64> {
    system::needs_fast_edition()?;
    system::counter(0, "aio_in_place")
}

fn in_place() -> Result<()> {
    const PAGE: usize = 4096;
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(8)?;
    let mut room = vec![0u8; 4 * PAGE];
    let aligned = room.as_ptr().align_offset(PAGE);
    // Where it begins in a page, and how long it is; what is too long or in pieces is served otherwise.
    for (start, length, expected) in [
        (0, 1, 1),
        (0, PAGE, 1),
        (17, PAGE, 1),
        (PAGE - 1, 2, 1),
        (1, 2 * PAGE, 0),
    ] {
        let before = served_in_place()?;
        let to = &mut room[aligned + start..][..length];
        context.submit(&mut Iocb::read(&fifo, to))?;
        let sent = pattern(start as u64, length.min(CAPACITY));
        fifo.write_all(&sent)?;
        check_eq!(context.event()?.res, i64::try_from(sent.len())?);
        check_eq!(room[aligned + start..][..sent.len()], sent[..]);
        check_eq!((start, served_in_place()? - before), (start, expected));
    }
    let before = served_in_place()?;
    let pieces = iovecs(&mut room, &[3, 2]);
    let (address, count) = (pieces.as_ptr() as u64, pieces.len());
    context.submit(&mut Iocb::new(&fifo, PREADV, address, count))?;
    fifo.write_all(b"apart")?;
    check_eq!(context.event()?.res, 5);
    check_eq!(served_in_place()? - before, 0);
    check_eq!(&room[..5], b"apart");
    Ok(())
}

fn few_in_place() -> Result<()> {
    const COUNT: u8 = 100;
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(128)?;
    let before = served_in_place()?;
    let mut rooms = vec![[0u8; 1]; COUNT.into()];
    let mut reads: Vec<Iocb> = (0..)
        .zip(&mut rooms)
        .map(|(n, room)| Iocb::read(&fifo, room).data(n))
        .collect();
    check_eq!(context.submit_all(&mut reads), Ok(rooms.len()));
    fifo.write_all(&(0..COUNT).collect::<Vec<_>>())?;
    let events = context.events(rooms.len(), rooms.len(), SOON)?;
    check_eq!(
        events.iter().map(|e| e.data).collect::<Vec<_>>(),
        (0..COUNT.into()).collect::<Vec<u64>>()
    );
    check_eq!(rooms.concat(), (0..COUNT).collect::<Vec<_>>());
    // Memory that could be held on to for as long as no data comes: not that of all who wait.
    let in_place = served_in_place()? - before;
    check_eq!((in_place, (1..=8).contains(&in_place)), (in_place, true));
    Ok(())
}

/// Reads of a byte into each room, which come one after the other: how many are served in place.
fn one_by_one(addresses: impl Iterator<Item = u64>) -> Result<u64> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(128)?;
    let before = served_in_place()?;
    let mut reads: Vec<Iocb> = (0..)
        .zip(addresses)
        .map(|(n, address)| Iocb::new(&fifo, PREAD, address, 1).data(n))
        .collect();
    check_eq!(context.submit_all(&mut reads), Ok(reads.len()));
    for n in (0_u8..).take(reads.len()) {
        fifo.write_all(&[n])?;
        let event = context.event()?;
        check_eq!((event.data, event.res), (n.into(), 1));
    }
    Ok(served_in_place()? - before)
}

fn pinned_later() -> Result<()> {
    const COUNT: u8 = 100;
    let rooms = Mapping::private(PAGE)?;
    rooms.touch();
    let in_place = one_by_one((rooms.address()..).take(COUNT.into()))?;
    check_eq!(rooms.get(0, COUNT.into()), (0..COUNT).collect::<Vec<_>>());
    // The first eight, and most of those behind: the work queue serves one and pins the next eight, if the
    // next byte is not here by then.
    check_eq!((in_place, (9..100).contains(&in_place)), (in_place, true));
    Ok(())
}

fn pinned_ahead() -> Result<()> {
    const IN_LINE: usize = 20;
    const COUNT: u8 = 60;
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(32)?;
    let before = served_in_place()?;
    let mut rooms = vec![0xff_u8; COUNT.into()];
    let mut reads: Vec<Iocb> = (0..)
        .zip(rooms.chunks_mut(1))
        .map(|(n, room)| Iocb::read(&fifo, room).data(n))
        .collect();
    let (first, later) = reads.split_at_mut(IN_LINE);
    check_eq!(context.submit_all(first), Ok(IN_LINE));
    let served = |n: u8| {
        fifo.write_all(&[n])?;
        let event = context.event()?;
        check_eq!((event.data, event.res), (n.into(), 1));
        check_eq!((n, served_in_place()? - before), (n, u64::from(n) + 1));
        anyhow::Ok(())
    };
    let mut bytes = 0..COUNT;
    for read in later {
        bytes.next().map_or(Ok(()), served)?;
        // Another has become the eighth in line.
        context.submit(read)?;
    }
    for n in bytes.by_ref().take(8) {
        served(n)?;
    }
    // With nobody who submits, it is the worker's turn.
    let behind: Vec<u8> = bytes.collect();
    fifo.write_all(&behind)?;
    check_eq!(context.events(behind.len(), behind.len(), SOON)?.len(), 12);
    check_eq!(rooms, (0..COUNT).collect::<Vec<_>>());
    Ok(())
}

fn of_another_process() -> Result<()> {
    const COUNT: u8 = 20;
    let fifo = Fifo::open_empty(0)?;
    let waiting = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
    // Where it is in both processes, with something else in it.
    let mut rooms = vec![0xff_u8; COUNT.into()];
    // SAFETY: This process has one thread, so that its child can do everything.
    let child = match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let result = reads_of_child(&fifo, &mut rooms, &waiting);
            if let Err(error) = &result {
                eprintln!("{error:?}");
            }
            // SAFETY: Ends the process.
            unsafe { libc::_exit(result.is_err().into()) }
        }
    };
    waiting.read()?;
    let context = Context::new(32)?;
    let mut reads: Vec<Iocb> = rooms
        .chunks_mut(1)
        .map(|room| Iocb::read(&fifo, room))
        .collect();
    for (n, read) in (0..COUNT).zip(&mut reads) {
        fifo.write_all(&[n])?;
        context.submit(read)?;
    }
    check_eq!(waitpid(child, None)?, WaitStatus::Exited(child, 0));
    check_eq!(rooms, vec![0xff; COUNT.into()]);
    fifo.write_all(&vec![1; COUNT.into()])?;
    let events = context.events(reads.len(), reads.len(), SOON)?;
    check!(events.iter().all(|event| event.res == 1));
    check_eq!(rooms, vec![1; COUNT.into()]);
    Ok(())
}

/// Reads of a byte into each room, which are first in line when `waiting` is written to.
fn reads_of_child(fifo: &Fifo, rooms: &mut [u8], waiting: &EventFd) -> Result<()> {
    let context = Context::new(32)?;
    let mut reads: Vec<Iocb> = rooms
        .chunks_mut(1)
        .map(|room| Iocb::read(fifo, room))
        .collect();
    check_eq!(context.submit_all(&mut reads), Ok(reads.len()));
    waiting.write(1)?;
    let events = context.events(reads.len(), reads.len(), SOON)?;
    check!(events.iter().all(|event| event.res == 1));
    check_eq!(rooms, (0_u8..).take(rooms.len()).collect::<Vec<_>>());
    Ok(())
}

fn untouched() -> Result<()> {
    const COUNT: u8 = 40;
    // Neither the allocator, which may give memory that was in use before, nor a large page that comes with its first byte.
    let length = usize::from(COUNT) * PAGE;
    let rooms = Mapping::private(length)?;
    rooms.without_huge_pages()?;
    let in_place = one_by_one((rooms.address()..).step_by(PAGE).take(COUNT.into()))?;
    let bytes = (0..COUNT.into()).map(|n| rooms.get(n * PAGE, 1)[0]);
    check_eq!(bytes.collect::<Vec<_>>(), (0..COUNT).collect::<Vec<_>>());
    check_eq!(in_place, 0);
    Ok(())
}

/// Vectors over `bytes` of these sizes; what is left over belongs to none.
fn iovecs(bytes: &mut [u8], sizes: &[usize]) -> Vec<libc::iovec> {
    let mut base = bytes.as_mut_ptr();
    let mut vectors = Vec::new();
    for size in sizes {
        vectors.push(libc::iovec {
            iov_base: base.cast(),
            iov_len: *size,
        });
        base = base.wrapping_add(*size);
    }
    vectors
}

/// Writes with PWRITEV in one shape and reads with PREADV, waiting, in another.
fn round_trip(write_sizes: &[usize], read_sizes: &[usize]) -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(8)?;
    let total: usize = write_sizes.iter().sum();
    let mut sent = pattern(41, total);
    let mut back = vec![0; read_sizes.iter().sum()];
    let to = iovecs(&mut back, read_sizes);
    let mut read = Iocb::new(&fifo, PREADV, to.as_ptr() as u64, to.len()).data(1);
    context.submit(&mut read)?;
    let from = iovecs(&mut sent, write_sizes);
    let mut write = Iocb::new(&fifo, PWRITEV, from.as_ptr() as u64, from.len()).data(2);
    context.submit(&mut write)?;
    // The kernel has its own copy of the vectors.
    drop((to, from));
    let results = context.results(2)?;
    let total_result = i64::try_from(total)?;
    check_eq!(results.get(&1), Some(&total_result));
    check_eq!(results.get(&2), Some(&total_result));
    check_eq!(back[..total], sent[..]);
    Ok(())
}

fn vectors() -> Result<()> {
    round_trip(&[0, 1, 0, 999, 3, 0], &[500, 0, 0, 7, 1, 2000])?;
    round_trip(&[CAPACITY], &[1, CAPACITY - 1])?;
    round_trip(&[1], &[0, 0, 0, 1])
}

fn many_segments() -> Result<()> {
    round_trip(&[3; 1024], &[4; 1024])
}

fn calls_wait_behind() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let blocking = Fifo::open(0)?;
    let context = Context::new(8)?;
    let mut room = [0; 4];
    context.submit(&mut Iocb::read(&blocking, &mut room))?;
    fifo.write_all(b"reqscall")?;
    check_eq!(context.event()?.res, 4);
    check_eq!(&room, b"reqs");
    fifo.wait_level(4)?;
    check_eq!(fifo.read(10)?, b"call".to_vec());
    Ok(())
}

fn eventfd() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(8)?;
    let counter = EventFd::from_flags(EfdFlags::empty())?;
    let mut rooms = [[0; 1]; 3];
    for room in &mut rooms {
        context.submit(&mut Iocb::read(&fifo, room).resfd(&counter))?;
    }
    fifo.write_all(b"xyz")?;
    let mut seen = 0;
    while seen < 3 {
        seen += counter.read()?;
    }
    check_eq!(seen, 3);
    check_eq!(context.results(3)?.len(), 1);
    check_eq!(rooms, [*b"x", *b"y", *b"z"]);
    Ok(())
}

fn fsync() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(8)?;
    for opcode in [FSYNC, FDSYNC] {
        fifo.write_all(b"written")?;
        context.submit(&mut Iocb::new(&fifo, opcode, 0, 0))?;
        check_eq!(context.event()?.res, 0);
    }
    Ok(())
}

fn poll() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let context = Context::new(8)?;
    let readable = u64::try_from(libc::POLLIN)?;
    let writable = u64::try_from(libc::POLLOUT)?;
    context.submit(&mut Iocb::new(&fifo, POLL, readable, 0).data(1))?;
    no_event(&context)?;
    fifo.write_all(b"x")?;
    let event = context.event()?;
    check_eq!(event.data, 1);
    check!(event.res & i64::from(libc::POLLIN) != 0);
    fifo.fill()?;
    fifo.wait_level(CAPACITY)?;
    context.submit(&mut Iocb::new(&fifo, POLL, writable, 0).data(2))?;
    no_event(&context)?;
    fifo.read(1)?;
    let event = context.event()?;
    check_eq!(event.data, 2);
    check!(event.res & i64::from(libc::POLLOUT) != 0);
    Ok(())
}

fn cancel_read() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let blocking = Fifo::open(0)?;
    let context = Context::new(8)?;
    let mut rooms = [[0; 4]; 2];
    let [first, second] = &mut rooms;
    let mut cancelled = Iocb::read(&blocking, first).data(1);
    let mut kept = Iocb::read(&blocking, second).data(2);
    context.submit(&mut cancelled)?;
    context.submit(&mut kept)?;
    // The event carries the result; the call says that it is on its way.
    check_eq!(context.cancel(&mut cancelled), Err(Errno::EINPROGRESS));
    let event = context.event()?;
    check_eq!((event.data, event.res), (1, ECANCELED));
    fifo.write_all(b"datamore")?;
    let event = context.event()?;
    check_eq!((event.data, event.res), (2, 4));
    check_eq!(rooms, [[0; 4], *b"data"]);
    fifo.wait_level(4)?;
    check_eq!(fifo.read(10)?, b"more".to_vec());
    Ok(())
}

fn cancel_write() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    check_eq!(fifo.write(&[1; CAPACITY])?, CAPACITY);
    let blocking = Fifo::open(0)?;
    let context = Context::new(8)?;
    let mut write = Iocb::write(&blocking, &[2; 10]);
    context.submit(&mut write)?;
    check_eq!(context.cancel(&mut write), Err(Errno::EINPROGRESS));
    check_eq!(context.event()?.res, ECANCELED);
    fifo.wait_level(CAPACITY)?;
    check_eq!(fifo.drain()?, vec![1; CAPACITY]);
    check_eq!(
        fifo.poll_for(nix::poll::PollFlags::POLLIN, 200u16.into())?
            .bits(),
        0
    );
    Ok(())
}

fn cancel_done() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(8)?;
    let mut room = [0; 4];
    let mut read = Iocb::read(&fifo, &mut room);
    context.submit(&mut read)?;
    fifo.write_all(b"x")?;
    check_eq!(context.event()?.res, 1);
    check_eq!(context.cancel(&mut read), Err(Errno::EINVAL));
    let mut never = Iocb::read(&fifo, &mut room);
    check_eq!(context.cancel(&mut never), Err(Errno::EINVAL));
    Ok(())
}

fn cancel_race() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let blocking = Fifo::open(0)?;
    let context = Context::new(8)?;
    let (mut with_data, mut without) = (0, 0);
    for round in 0..2000u64 {
        let mut room = [0; 8];
        let mut read = Iocb::read(&blocking, &mut room);
        context.submit(&mut read)?;
        fifo.write_all(&round.to_le_bytes())?;
        // At once, a little later, and now and then so late that the data is there for certain.
        for _ in 0..round % 50 * 20 {
            std::hint::spin_loop();
        }
        if round % 10 == 9 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let cancelled = context.cancel(&mut read);
        check!(matches!(cancelled, Err(Errno::EINPROGRESS | Errno::EINVAL)));
        let event = context.event()?;
        if event.res == ECANCELED {
            without += 1;
            fifo.wait_level(8)?;
            room.copy_from_slice(&fifo.read(8)?);
        } else {
            with_data += 1;
            check_eq!(event.res, 8);
        }
        check_eq!(u64::from_le_bytes(room), round);
    }
    check_eq!(fifo.read(1), Err(Errno::EAGAIN));
    // Both ways must have been taken for this to prove anything.
    check!(with_data > 0 && without > 0);
    Ok(())
}

fn bad_address() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(8)?;
    // At submit, and from the work queue.
    let mut early = Iocb::new(&fifo, 0, 0x10, 100);
    context.submit(&mut early)?;
    fifo.write_all(b"still here")?;
    check_eq!(context.event()?.res, EFAULT);
    fifo.wait_level(10)?;
    context.submit(&mut Iocb::new(&fifo, 0, 0x10, 100))?;
    check_eq!(context.event()?.res, EFAULT);
    context.submit(&mut Iocb::new(&fifo, 1, 0x10, 100))?;
    check_eq!(context.event()?.res, EFAULT);
    check_eq!(fifo.read(100)?, b"still here".to_vec());
    Ok(())
}

/// A page of memory of its own, at `address` with `MAP_FIXED`.
///
/// # Safety
///
/// Nothing refers to what is mapped there so far.
unsafe fn map_page(address: *mut libc::c_void, fixed: i32) -> Result<*mut libc::c_void> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | fixed;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: By the safety requirements.
    let page = unsafe { libc::mmap(address, 4096, access, flags, -1, 0) };
    check!(page != libc::MAP_FAILED);
    Ok(page)
}

fn unmapped() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(8)?;
    // SAFETY: Wherever there is room.
    let page = unsafe { map_page(std::ptr::null_mut(), 0) }?;
    context.submit(&mut Iocb::new(&fifo, 0, page as u64, 100))?;
    // SAFETY: The mapping is this function's own, and nothing refers to it.
    Errno::result(unsafe { libc::munmap(page, 4096) })?;
    fifo.write_all(b"nowhere to go")?;
    check_eq!(context.event()?.res, EFAULT);
    check_eq!(fifo.read(100)?, b"nowhere to go".to_vec());
    Ok(())
}

fn mapped_anew() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(8)?;
    // SAFETY: Wherever there is room.
    let page = unsafe { map_page(std::ptr::null_mut(), 0) }?;
    context.submit(&mut Iocb::new(&fifo, 0, page as u64, 100))?;
    // SAFETY: In place of the mapping that is this function's own, and to which nothing refers.
    check_eq!(unsafe { map_page(page, libc::MAP_FIXED) }?, page);
    fifo.write_all(b"here")?;
    check_eq!(context.event()?.res, 4);
    // SAFETY: The mapping is there and initialised, and nobody writes to it.
    check_eq!(unsafe { &*page.cast::<[u8; 4]>() }, b"here");
    // SAFETY: As above.
    Errno::result(unsafe { libc::munmap(page, 4096) })?;
    Ok(())
}

fn bad_requests() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let context = Context::new(8)?;
    let mut room = [0; 8];
    let good = Iocb::read(&fifo, &mut room);
    check_eq!(
        context.submit(&mut Iocb { opcode: 99, ..good }),
        Err(Errno::EINVAL)
    );
    check_eq!(
        context.submit(&mut Iocb { fd: 9999, ..good }),
        Err(Errno::EBADF)
    );
    check_eq!(
        context.submit(&mut Iocb {
            nbytes: u64::MAX,
            ..good
        }),
        Err(Errno::EINVAL)
    );
    // From here on the kernel takes the request, and the event says what is wrong.
    let result = context.submit(&mut Iocb {
        rw_flags: 0x4000_0000,
        ..good
    });
    check!(matches!(result, Err(Errno::EOPNOTSUPP | Errno::EINVAL)));
    let many = vec![
        libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 1
        };
        1025
    ];
    let too_many = Iocb::new(&fifo, PREADV, many.as_ptr() as u64, many.len());
    check_eq!(context.submit(&mut { too_many }), Err(Errno::EINVAL));
    let writer = Fifo::open_as(PATH, false, true, 0)?;
    check_eq!(
        context.submit(&mut Iocb::read(&writer, &mut room)),
        Err(Errno::EBADF)
    );
    let reader = Fifo::open_as(PATH, true, false, 0)?;
    check_eq!(
        context.submit(&mut Iocb::write(&reader, b"x")),
        Err(Errno::EBADF)
    );
    check_eq!(context.events(0, 8, Duration::ZERO)?, vec![]);
    Ok(())
}

fn nonblocking() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let context = Context::new(8)?;
    let mut room = [0; 8];
    context.submit(&mut Iocb::read(&fifo, &mut room))?;
    check_eq!(context.event()?.res, EAGAIN);
    let blocking = Fifo::open(0)?;
    let mut nowait = Iocb {
        rw_flags: libc::RWF_NOWAIT,
        ..Iocb::read(&blocking, &mut room)
    };
    context.submit(&mut nowait)?;
    check_eq!(context.event()?.res, EAGAIN);
    Ok(())
}

fn clear() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    check_eq!(fifo.fill()?, CAPACITY);
    let blocking = Fifo::open(0)?;
    let context = Context::new(8)?;
    context.submit(&mut Iocb::write(&blocking, b"afterwards"))?;
    fifo.clear()?;
    check_eq!(context.event()?.res, 10);
    fifo.wait_level(10)?;
    check_eq!(fifo.drain()?, b"afterwards".to_vec());
    Ok(())
}

fn close() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(8)?;
    let mut rooms = [[0; 8]; 4];
    for room in &mut rooms {
        context.submit(&mut Iocb::read(&fifo, room))?;
    }
    // A copy keeps the file open: closing one of two ends nothing.
    let copy = nix::unistd::dup(&fifo)?;
    drop(fifo);
    no_event(&context)?;
    drop(copy);
    let events = context.events(4, 4, SOON)?;
    check_eq!(
        events.iter().map(|event| event.res).collect::<Vec<_>>(),
        vec![ECANCELED; 4]
    );
    Ok(())
}

fn destroy() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let blocking = Fifo::open(0)?;
    let context = Context::new(128)?;
    let mut rooms = vec![[0u8; 8]; 100];
    let mut reads: Vec<Iocb> = rooms.iter_mut().map(|r| Iocb::read(&blocking, r)).collect();
    check_eq!(context.submit_all(&mut reads), Ok(100));
    let started = Instant::now();
    context.destroy()?;
    check!(started.elapsed() < harness::limit(Duration::from_secs(1)));
    fifo.write_all(b"not theirs")?;
    fifo.wait_level(10)?;
    check_eq!(fifo.read(20)?, b"not theirs".to_vec());
    check!(rooms.iter().all(|room| *room == [0; 8]));
    Ok(())
}

fn unbind() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(128)?;
    let mut rooms = vec![[0u8; 8]; 50];
    let mut reads: Vec<Iocb> = rooms.iter_mut().map(|r| Iocb::read(&fifo, r)).collect();
    check_eq!(context.submit_all(&mut reads), Ok(50));
    let device = system::device_name()?;
    system::unbind(&device)?;
    let events = context.events(50, 50, SOON);
    context.submit(&mut Iocb::write(&fifo, b"x"))?;
    let late = context.event();
    system::bind(&device)?;
    system::wait_for_file(PATH, true)?;
    check!(events?.iter().all(|event| event.res == ENODEV));
    check_eq!(late?.res, ENODEV);
    Ok(())
}

fn fork() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(8)?;
    let mut room = [0; 8];
    context.submit(&mut Iocb::read(&fifo, &mut room))?;
    system::run("sh", &["-c", "printf child > /dev/globalfifo0"])?;
    check_eq!(context.event()?.res, 5);
    check_eq!(&room[..5], b"child");
    Ok(())
}

/// Submits 1,000 reads that wait, says so, and sleeps until it is killed.
fn waiting() -> Result<Infallible> {
    let fifo = Fifo::open(0)?;
    let context = Context::new(1024)?;
    let mut rooms = vec![[0u8; 64]; 1000];
    let mut reads: Vec<Iocb> = rooms.iter_mut().map(|r| Iocb::read(&fifo, r)).collect();
    check_eq!(context.submit_all(&mut reads), Ok(1000));
    let _held = Fifo::open(0)?;
    victim::wait()
}

fn killed() -> Result<()> {
    drop(Fifo::open_empty(0)?);
    victim::kill()
}
