// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory of requests that is not there: a page fault that nobody resolves, memory that is protected or moved.
//!
//! A page fault holds up the request that it belongs to, and no other: not its completion, its cancel, its submission or
//! the end of its process.
#![expect(
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use globalfifo_guest_tests::aio::{Context, Iocb, PREAD, PWRITE};
use globalfifo_guest_tests::fifo::{Fifo, PATH, pattern};
use globalfifo_guest_tests::forked::{Child, Parent};
use globalfifo_guest_tests::harness::{self, SOON, Test, eventually, limit};
use globalfifo_guest_tests::userfault::{Missing, PAGE};
use globalfifo_guest_tests::{check, check_eq, system};
use nix::errno::Errno;
use nix::libc;

const TESTS: &[Test] = &[
    ("sigkill_ends_a_process_while_another_page_faults", killed),
    ("io_cancel_ends_a_read_while_another_page_faults", cancelled),
    ("io_destroy_ends_reads_while_another_page_faults", destroyed),
    (
        "a_read_completes_while_one_of_another_process_page_faults",
        completed,
    ),
    ("unbind_ends_requests_while_one_page_faults", unbound),
    ("sigkill_ends_the_process_that_page_faults", killed_itself),
    (
        "reads_of_a_program_that_has_exec_ed_take_no_byte_though_one_page_faults",
        after_exec,
    ),
    (
        "io_submit_of_a_small_read_does_not_wait_for_a_page_fault",
        || submit_of_a_read(100),
    ),
    (
        "io_submit_of_a_large_read_does_not_wait_for_a_page_fault",
        || submit_of_a_read(4 * PAGE),
    ),
    (
        "io_submit_of_a_write_does_not_wait_for_a_page_fault",
        submit_of_a_write,
    ),
    (
        "io_submit_behind_ten_reads_does_not_wait_for_their_page_faults",
        submit_behind,
    ),
    (
        "waiting_reads_of_write_protected_memory_are_all_alike",
        || alike(write_protect),
    ),
    ("waiting_reads_of_inaccessible_memory_are_all_alike", || {
        alike(make_inaccessible)
    }),
    ("waiting_reads_of_moved_memory_are_all_alike", || {
        alike(move_away)
    }),
    (
        "waiting_reads_of_moved_and_replaced_memory_are_all_alike",
        || alike(move_and_replace),
    ),
];

fn main() -> ExitCode {
    harness::main(TESTS)
}

/// Within which whatever a stranger's page fault must not hold up has to happen.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Room of a read that is too large for its memory to be pinned.
const ROOM: usize = 4 * PAGE;

const ECANCELED: i64 = -(libc::ECANCELED as i64);
const EFAULT: i64 = -(libc::EFAULT as i64);
const ENODEV: i64 = -(libc::ENODEV as i64);

/// A process with a waiting read of [`ROOM`] bytes into missing memory. It says `s` once that is submitted, `f` when its page
/// fault waits, resolves it when it hears go, and then gives the result, which is to be `expected`: all 100 bytes, or, where others were
/// let go first ([`other`] reads 16), those that follow.
fn faulting(expected: &'static [i64]) -> Result<Child> {
    let child = Child::start(move |parent: &Parent| {
        let memory = Missing::new(ROOM / PAGE)?;
        let fifo = Fifo::open(0)?;
        let context = Context::new(4)?;
        let mut read = Iocb::new(&fifo, PREAD, memory.address(), ROOM);
        context.submit(&mut read)?;
        parent.say(b's')?;
        check!(memory.is_awaited(limit(SOON))?);
        parent.say(b'f')?;
        parent.await_go()?;
        memory.resolve()?;
        let event = context.event()?;
        if !expected.contains(&event.res) {
            bail!(
                "the read that faulted gives {}, expected one of {expected:?}",
                event.res
            );
        }
        if let Ok(got @ 1..) = usize::try_from(event.res) {
            let bytes = memory.bytes(got);
            let stream = pattern(1, 16 + got);
            check!(bytes == stream[..got] || bytes == stream[16..]);
        }
        Ok(())
    })?;
    said(&child, b's')?;
    Ok(child)
}

/// The requests of the old program are gone for whoever reads now, though its memory is still there for the page fault.
fn after_exec() -> Result<()> {
    let fifo = Fifo::open_empty(libc::O_NONBLOCK)?;
    let child = Child::start(|parent: &Parent| {
        let memory = Missing::new(ROOM / PAGE)?;
        memory.outlive_exec()?;
        // Not closed by exec: that would end its requests.
        let open = Fifo::open(0)?;
        let descriptor = nix::unistd::dup(&open)?;
        let context = Context::new(8)?;
        let mut first = Iocb::new(&descriptor, PREAD, memory.address(), ROOM);
        context.submit(&mut first)?;
        let mut rooms = [[0; 16]; 5];
        for room in &mut rooms {
            context.submit(&mut Iocb::read(&descriptor, room))?;
        }
        parent.say(b's')?;
        check!(memory.is_awaited(limit(SOON))?);
        parent.say(b'f')?;
        parent.await_go()?;
        Err(std::process::Command::new("sleep").arg("1000").exec())?
    })?;
    said(&child, b's')?;
    fifo.write_all(b"first")?;
    said(&child, b'f')?;
    child.go()?;
    eventually("the new program runs", || {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", child.pid()))?;
        Ok(name.trim() == "sleep")
    })?;
    fifo.write_all(b"second")?;
    // Which the requests of the old program stood before.
    let mut got = Vec::new();
    eventually("all bytes are read", || {
        match fifo.read(100) {
            Ok(bytes) => got.extend(bytes),
            Err(Errno::EAGAIN) => {}
            Err(error) => bail!("read: {error}"),
        }
        Ok(got.len() == 11)
    })?;
    check_eq!(got, b"firstsecond".to_vec());
    child.kill()?;
    // The line of reads was held for all its time: a device bound anew has some again.
    drop(fifo);
    let device = system::device_name()?;
    system::unbind(&device)?;
    system::bind(&device)?;
    system::wait_for_file(PATH, true)
}

/// A process with a waiting read of its own, behind that of [`faulting`]. It says `s`, and on go does `then`, after which it
/// says `d`.
fn other(then: impl FnOnce(Context, &mut Iocb) -> Result<()>) -> Result<Child> {
    let child = Child::start(move |parent: &Parent| {
        let fifo = Fifo::open(0)?;
        let context = Context::new(4)?;
        let mut room = [0; 16];
        let mut read = Iocb::read(&fifo, &mut room);
        context.submit(&mut read)?;
        parent.say(b's')?;
        parent.await_go()?;
        then(context, &mut read)?;
        parent.say(b'd')
    })?;
    said(&child, b's')?;
    Ok(child)
}

fn said(child: &Child, byte: u8) -> Result<()> {
    let heard = child.says_within(SOON)?;
    check_eq!(heard.map(char::from), Some(char::from(byte)));
    Ok(())
}

/// Gives the read of `faulting` its 100 bytes, so that its page fault begins.
fn send_to(faulting: &Child) -> Result<()> {
    Fifo::open(0)?.write_all(&pattern(1, 100))?;
    said(faulting, b'f')
}

/// What somebody else did had to be done at once; then the page fault is resolved, whatever came of it.
fn go_on(faulting: Child, outcome: Result<()>) -> Result<()> {
    faulting.go()?;
    outcome?;
    faulting
        .finish()
        .context("the process whose page fault was resolved")
}

fn killed() -> Result<()> {
    drop(Fifo::open_empty(0)?);
    let first = faulting(&[100, 84])?;
    let mut second = other(|_, _| Ok(()))?;
    send_to(&first)?;
    second.kill()?;
    let over = second.over_within(AT_ONCE)?;
    go_on(
        first,
        (|| {
            check!(over.is_some());
            Ok(())
        })(),
    )
}

fn cancelled() -> Result<()> {
    drop(Fifo::open_empty(0)?);
    let first = faulting(&[100, 84])?;
    let second = other(|context, read| {
        let _ = context.cancel(read);
        // A line is held for a page fault, but not for long: its 16 bytes may have come.
        check!([ECANCELED, 16].contains(&context.event()?.res));
        Ok(())
    })?;
    send_to(&first)?;
    second.go()?;
    let done = second.says_within(AT_ONCE)?;
    go_on(
        first,
        (|| {
            check_eq!(done, Some(b'd'));
            second.finish()
        })(),
    )
}

fn destroyed() -> Result<()> {
    drop(Fifo::open_empty(0)?);
    let first = faulting(&[100, 84])?;
    let second = other(|context, _| Ok(context.destroy()?))?;
    send_to(&first)?;
    second.go()?;
    let done = second.says_within(AT_ONCE)?;
    go_on(
        first,
        (|| {
            check_eq!(done, Some(b'd'));
            second.finish()
        })(),
    )
}

fn completed() -> Result<()> {
    let stream = pattern(1, 116);
    let fifo = Fifo::open_empty(0)?;
    let first = faulting(&[100, 84])?;
    let second = Child::start(|parent: &Parent| {
        let fifo = Fifo::open(0)?;
        let context = Context::new(4)?;
        let mut room = [0; 16];
        context.submit(&mut Iocb::read(&fifo, &mut room))?;
        parent.say(b's')?;
        check_eq!(context.event()?.res, 16);
        // The next bytes there were: the first reader's page has kept it from them for long enough.
        check!(room[..] == pattern(1, 116)[..16]);
        parent.say(b'd')
    })?;
    said(&second, b's')?;
    send_to(&first)?;
    fifo.write_all(&stream[100..])?;
    // A line is held for a page fault of its first request, but not for long.
    let done = second.says_within(SOON)?;
    go_on(
        first,
        (|| {
            check_eq!(done, Some(b'd'));
            second.finish()
        })(),
    )
}

fn unbound() -> Result<()> {
    let device = system::device_name()?;
    drop(Fifo::open_empty(0)?);
    // The bytes stay in the device if the read did not happen.
    let first = faulting(&[ENODEV, EFAULT, 100, 84])?;
    let second = other(|context, _| {
        check!([ENODEV, 16].contains(&context.event()?.res));
        Ok(())
    })?;
    send_to(&first)?;
    let unbinder = {
        let device = device.clone();
        Child::start(move |parent: &Parent| {
            system::unbind(&device)?;
            parent.say(b'u')
        })?
    };
    second.go()?;
    let ended = second.says_within(AT_ONCE)?;
    let unbound = unbinder.says_within(AT_ONCE)?;
    let outcome = go_on(
        first,
        (|| {
            check_eq!(ended, Some(b'd'));
            check_eq!(unbound, Some(b'u'));
            second.finish()
        })(),
    );
    let unbound = unbinder.finish();
    system::bind(&device)?;
    system::wait_for_file(PATH, true)?;
    Fifo::open(0)?.clear()?;
    outcome.and(unbound)
}

fn killed_itself() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let mut first = faulting(&[])?;
    send_to(&first)?;
    first.kill()?;
    check!(first.over_within(AT_ONCE)?.is_some());
    // Whatever became of its bytes: the next ones come through.
    fifo.clear()?;
    fifo.write_all(b"next")?;
    check_eq!(fifo.read_exact(4)?, b"next".to_vec());
    Ok(())
}

/// A process that submits one request of missing memory: it says `s` when that returned, `d` when it is completed.
fn submitter(opcode: u16, length: usize) -> Result<Child> {
    Child::start(move |parent: &Parent| {
        let memory = Missing::new(length.div_ceil(PAGE))?;
        let fifo = Fifo::open(0)?;
        let context = Context::new(4)?;
        let mut request = Iocb::new(&fifo, opcode, memory.address(), length);
        context.submit(&mut request)?;
        parent.say(b's')?;
        parent.await_go()?;
        memory.resolve()?;
        let event = context.event()?;
        check_eq!(event.res, i64::try_from(length.min(100))?);
        check!(opcode == PWRITE || memory.bytes(100) == pattern(2, 100));
        parent.say(b'd')
    })
}

/// The `submitter` comes back from io_submit, and its request is completed once its memory is there.
fn comes_back(submitter: Child, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    let submitted = submitter.says_within(AT_ONCE)?;
    check_eq!(submitted.map(char::from), Some('s'));
    meanwhile()?;
    submitter.go()?;
    said(&submitter, b'd')?;
    submitter.finish()
}

fn submit_of_a_read(length: usize) -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    comes_back(submitter(PREAD, length)?, || {
        fifo.write_all(&pattern(2, 100))
    })
}

fn submit_of_a_write() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    comes_back(submitter(PWRITE, 100)?, || Ok(()))?;
    // A page of zeros is what the fault was resolved with.
    check_eq!(fifo.read_exact(100)?, vec![0; 100]);
    Ok(())
}

fn submit_behind() -> Result<()> {
    drop(Fifo::open_empty(0)?);
    // A process whose io_submit looks after the memory of its earlier reads.
    let child = Child::start(|parent: &Parent| {
        let memories: Vec<Missing> = (0..10).map(|_| Missing::new(1)).collect::<Result<_>>()?;
        let fifo = Fifo::open(0)?;
        let context = Context::new(16)?;
        let mut reads: Vec<Iocb> = memories
            .iter()
            .map(|memory| Iocb::new(&fifo, PREAD, memory.address(), 10))
            .collect();
        for read in &mut reads {
            context.submit(read)?;
        }
        let mut room = [0; 10];
        context.submit(&mut Iocb::read(&fifo, &mut room).data(10))?;
        parent.say(b's')?;
        parent.await_go()?;
        for memory in &memories {
            memory.resolve()?;
        }
        let events = context.events(11, 11, limit(SOON))?;
        check!(events.len() == 11 && events.iter().all(|event| event.res == 10));
        let mut bytes: Vec<u8> = memories
            .iter()
            .flat_map(|memory| memory.bytes(10))
            .collect();
        bytes.extend(room);
        check!(bytes == pattern(2, 110));
        parent.say(b'd')
    })?;
    comes_back(child, || Fifo::open(0)?.write_all(&pattern(2, 110)))
}

/// Waiting reads in one test: more than a driver may treat in a better way than the rest.
const READS: usize = 12;
/// Bytes of each.
const SMALL: usize = 16;

/// A mapping of a page for each of [`READS`], all touched. It lives as long as the process.
fn pages() -> Result<usize> {
    // SAFETY: A new mapping, anywhere.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            READS * PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
            -1,
            0,
        )
    };
    check!(start != libc::MAP_FAILED);
    Ok(start as usize)
}

fn protect(start: usize, protection: i32) -> Result<()> {
    // SAFETY: Of a mapping to which there is no Rust reference.
    let set = unsafe { libc::mprotect(start as *mut libc::c_void, READS * PAGE, protection) };
    check_eq!(set, 0);
    Ok(())
}

/// What becomes of the memory of waiting reads that was mapped at the address; where it is now.
type Change = fn(usize) -> Result<usize>;

fn write_protect(start: usize) -> Result<usize> {
    protect(start, libc::PROT_READ)?;
    Ok(start)
}

fn make_inaccessible(start: usize) -> Result<usize> {
    protect(start, libc::PROT_NONE)?;
    Ok(start)
}

fn move_away(start: usize) -> Result<usize> {
    let place = pages()?;
    // SAFETY: Replaces the mapping at `place` by that at `start`; there is no Rust reference to either.
    let moved = unsafe {
        libc::mremap(
            start as *mut libc::c_void,
            READS * PAGE,
            READS * PAGE,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            place,
        )
    };
    check_eq!(moved as usize, place);
    Ok(place)
}

fn move_and_replace(start: usize) -> Result<usize> {
    let place = move_away(start)?;
    // SAFETY: Nothing is mapped there any more.
    let anew = unsafe {
        libc::mmap(
            start as *mut libc::c_void,
            READS * PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    check_eq!(anew as usize, start);
    Ok(place)
}

/// What became of one of the reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// EFAULT.
    Refused,
    /// Its bytes are where the memory was when it was submitted.
    WhereItWas,
    /// They are where the memory is now.
    WhereItIs,
    /// They are nowhere: lost.
    Nowhere,
}

/// The bytes of a page.
fn small_at(page: usize) -> Vec<u8> {
    // SAFETY: The page is mapped and readable, by the caller.
    unsafe { std::slice::from_raw_parts(page as *const u8, SMALL) }.to_vec()
}

/// Whether a page can be read.
fn is_mapped(page: usize) -> bool {
    let mut state = 0u8;
    // SAFETY: mincore looks at page tables alone, and says ENOMEM for what is not mapped.
    unsafe { libc::mincore(page as *mut libc::c_void, PAGE, &raw mut state) == 0 }
}

/// The memory of waiting reads changes. Whatever that means for the first of them, it means for all; and no byte is lost.
fn alike(change: Change) -> Result<()> {
    let stream = pattern(3, READS * SMALL);
    let fifo = Fifo::open_empty(libc::O_NONBLOCK)?;
    let requests = Fifo::open(0)?;
    let context = Context::new(16)?;
    let start = pages()?;
    let mut reads: Vec<Iocb> = (0..READS)
        .map(|index| {
            let room = (start + index * PAGE) as u64;
            Iocb::new(&requests, PREAD, room, SMALL).data(index as u64)
        })
        .collect();
    check_eq!(context.submit_all(&mut reads), Ok(READS));
    let now = change(start)?;
    fifo.write_all(&stream)?;
    let events = context.events(READS, READS, limit(SOON))?;
    check_eq!(events.len(), READS);
    if now == start {
        protect(now, libc::PROT_READ)?;
    }
    let was_mapped = is_mapped(start);
    let mut outcomes = [Outcome::Nowhere; READS];
    for event in events {
        let index = usize::try_from(event.data)?;
        let bytes = &stream[index * SMALL..][..SMALL];
        let (was, is) = (start + index * PAGE, now + index * PAGE);
        outcomes[index] = match event.res {
            EFAULT => Outcome::Refused,
            16 if small_at(is) == bytes => Outcome::WhereItIs,
            16 if was_mapped && small_at(was) == bytes => Outcome::WhereItWas,
            16 => Outcome::Nowhere,
            other => bail!("read {index} gives {other}"),
        };
    }
    let first = outcomes[0];
    if outcomes.iter().any(|outcome| *outcome != first) || first == Outcome::Nowhere {
        bail!("the reads fare differently, or lose bytes: {outcomes:?}");
    }
    if first == Outcome::Refused {
        fifo.wait_level(stream.len())?;
        check!(fifo.drain()? == stream);
    }
    check_eq!(fifo.level()?, 0);
    Ok(())
}
