// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A splice that waits for the FIFO holds up nobody else at its pipe.
//!
//! splice(2) calls the file with the pipe locked; who then sleeps for the file's sake keeps all others from the pipe, in a sleep
//! that no signal ends. What a splice moves is tested in test-readiness.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, pattern};
use globalfifo_guest_tests::forked::{Child, Parent};
use globalfifo_guest_tests::harness::{self, SOON, Test, eventually};
use globalfifo_guest_tests::{check, check_eq, system};
use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};
use nix::libc::{self, O_DIRECT, O_NONBLOCK};
use nix::unistd::{pipe, read, write};

const TESTS: &[Test] = &[
    (
        "each_message_comes_through_a_pipe_without_the_next",
        each_message,
    ),
    (
        "a_pipe_can_be_written_while_a_splice_waits_for_data",
        || data(Touch::Write),
    ),
    ("a_pipe_can_be_read_while_a_splice_waits_for_data", || {
        data(Touch::Read)
    }),
    (
        "a_writer_of_the_pipe_can_be_killed_while_a_splice_waits_for_data",
        data_and_kill,
    ),
    (
        "a_pipe_can_be_written_while_a_splice_waits_for_space",
        || space(Touch::Write),
    ),
    (
        "a_pipe_can_be_asked_for_its_level_while_a_splice_waits_for_space",
        || space(Touch::Level),
    ),
    (
        "sigkill_ends_a_splice_that_waits_for_data",
        data_and_kill_splice,
    ),
    (
        "sigkill_ends_a_splice_that_waits_for_space",
        space_and_kill_splice,
    ),
    ("two_splices_into_one_pipe_both_go_on", two_splices),
    (
        "a_splice_from_a_file_with_o_direct_never_waits",
        without_wait,
    ),
    (
        "a_splice_whose_pipe_nobody_reads_any_more_takes_no_byte",
        reader_gone,
    ),
];

fn main() -> ExitCode {
    harness::main(TESTS)
}

/// Within which whoever is at the pipe has to be done.
const AT_ONCE: Duration = Duration::from_secs(2);
const NONE: SpliceFFlags = SpliceFFlags::empty();

/// What somebody does to the pipe.
#[derive(Clone, Copy)]
enum Touch {
    Write,
    Read,
    /// FIONREAD.
    Level,
}

fn splice_some(from: impl AsFd, to: impl AsFd, most: usize) -> Result<usize, Errno> {
    splice(from, None, to, None, most, NONE)
}

/// A process that splices once; says `d` when it has.
fn splicer(from: &impl AsFd, to: &impl AsFd) -> Result<Child> {
    let child = Child::start(|parent: &Parent| {
        splice_some(from, to, CAPACITY)?;
        parent.say(b'd')
    })?;
    eventually("the splice waits", || {
        system::sleeps_in(child.pid().as_raw(), libc::SYS_splice)
    })?;
    Ok(child)
}

/// A process that does something to the pipe; says `d` when it has.
fn toucher(out: &OwnedFd, into: &OwnedFd, touch: Touch) -> Result<Child> {
    Child::start(|parent: &Parent| {
        match touch {
            Touch::Write => drop(write(into, b"t")?),
            Touch::Read => check_eq!(read(out, &mut [0])?, 1),
            Touch::Level => {
                let mut level: libc::c_int = 0;
                // SAFETY: The argument is a valid int.
                let asked =
                    unsafe { libc::ioctl(harness::number(out), libc::FIONREAD, &raw mut level) };
                check_eq!(asked, 0);
            }
        }
        parent.say(b'd')
    })
}

/// Whether the child said that it is done.
fn is_done(child: &Child, limit: Duration) -> Result<bool> {
    Ok(child.says_within(limit)? == Some(b'd'))
}

fn each_message() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let source = Fifo::open(0)?;
    let (out, into) = pipe()?;
    let from = Child::start(|_: &Parent| {
        while splice_some(&source, &into, CAPACITY)? > 0 {}
        Ok(())
    })?;
    let to = Child::start(|parent: &Parent| {
        loop {
            let mut bytes = [0; 16];
            let count = read(&out, &mut bytes)?;
            for byte in bytes.iter().take(count) {
                parent.say(*byte)?;
            }
        }
    })?;
    let mut late = Vec::new();
    for message in b'a'..=b'e' {
        eventually("the splice waits for the next message", || {
            system::sleeps_in(from.pid().as_raw(), libc::SYS_splice)
        })?;
        fifo.write_all(&[message])?;
        // One that is late comes with a later one, and is counted once.
        if to.says_within(AT_ONCE)? != Some(message) {
            late.push(char::from(message));
        }
    }
    from.kill()?;
    // Whoever sleeps for the pipe wakes with the splice.
    fifo.write_all(b"z")?;
    to.kill()?;
    check_eq!(late, Vec::<char>::new());
    Ok(())
}

/// Ends a splice that waits for data, so that those who wait for its pipe can end.
fn end_wait_for_data(fifo: &Fifo, splicer: Child) -> Result<()> {
    fifo.write_all(b"end")?;
    check!(is_done(&splicer, SOON)?);
    splicer.finish()
}

fn data(touch: Touch) -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let source = Fifo::open(0)?;
    let (out, into) = pipe()?;
    if let Touch::Read = touch {
        write(&into, b"t")?;
    }
    let splicer = splicer(&source, &into)?;
    let toucher = toucher(&out, &into, touch)?;
    let done = is_done(&toucher, AT_ONCE)?;
    end_wait_for_data(&fifo, splicer)?;
    toucher.finish()?;
    check!(done);
    let mut left = [0; 10];
    let count = read(&out, &mut left)?;
    let expected: &[u8] = match touch {
        Touch::Write => b"tend",
        _ => b"end",
    };
    check_eq!(left.get(..count), Some(expected));
    Ok(())
}

fn data_and_kill() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let source = Fifo::open(0)?;
    let (_out, into) = pipe()?;
    let splicer = splicer(&source, &into)?;
    // It fills the pipe, and so sleeps in any case.
    let mut writer = Child::start(|parent: &Parent| {
        parent.say(b's')?;
        loop {
            write(&into, &[0; 4096])?;
        }
    })?;
    check_eq!(writer.says_within(SOON)?, Some(b's'));
    eventually("the writer sleeps", || {
        system::sleeps_in(writer.pid().as_raw(), libc::SYS_write)
    })?;
    writer.kill()?;
    let over = writer.over_within(AT_ONCE)?;
    splicer.kill()?;
    fifo.write_all(b"end")?;
    drop(splicer);
    check!(over.is_some());
    fifo.clear()?;
    Ok(())
}

/// A full FIFO, and a pipe with 100 bytes.
fn full() -> Result<(Fifo, OwnedFd, OwnedFd)> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    check_eq!(fifo.fill()?, CAPACITY);
    fifo.wait_level(CAPACITY)?;
    let (out, into) = pipe()?;
    write(&into, &pattern(5, 100))?;
    Ok((fifo, out, into))
}

fn space(touch: Touch) -> Result<()> {
    let (fifo, out, into) = full()?;
    let sink = Fifo::open(0)?;
    let splicer = splicer(&out, &sink)?;
    let toucher = toucher(&out, &into, touch)?;
    let done = is_done(&toucher, AT_ONCE)?;
    // In one read: what follows is the splice's.
    check_eq!(fifo.read(CAPACITY)?.len(), CAPACITY);
    check!(is_done(&splicer, SOON)?);
    splicer.finish()?;
    toucher.finish()?;
    check!(done);
    fifo.wait_level(100)?;
    check!(fifo.read(100)? == pattern(5, 100));
    Ok(())
}

fn data_and_kill_splice() -> Result<()> {
    drop(Fifo::open_empty(0)?);
    let source = Fifo::open(0)?;
    let (_out, into) = pipe()?;
    let mut splicer = splicer(&source, &into)?;
    splicer.kill()?;
    check!(splicer.over_within(AT_ONCE)?.is_some());
    Ok(())
}

fn space_and_kill_splice() -> Result<()> {
    let (fifo, out, _into) = full()?;
    let sink = Fifo::open(0)?;
    let mut splicer = splicer(&out, &sink)?;
    splicer.kill()?;
    check!(splicer.over_within(AT_ONCE)?.is_some());
    // None of its bytes is lost.
    let mut bytes = [0; 200];
    check_eq!(read(&out, &mut bytes)?, 100);
    check!(bytes.get(..100) == Some(&pattern(5, 100)[..]));
    fifo.clear()?;
    Ok(())
}

/// The kernel reads from such a file with the pipe's lock held.
fn without_wait() -> Result<()> {
    let fifo = Fifo::open_empty(O_DIRECT)?;
    let (out, into) = pipe()?;
    check_eq!(splice_some(&fifo, &into, CAPACITY), Err(Errno::EAGAIN));
    fifo.write_all(b"direct")?;
    fifo.wait_level(6)?;
    check_eq!(splice_some(&fifo, &into, CAPACITY), Ok(6));
    let mut bytes = [0; 6];
    check_eq!(read(&out, &mut bytes), Ok(6));
    check_eq!(&bytes, b"direct");
    Ok(())
}

fn two_splices() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let source = Fifo::open(0)?;
    let (out, into) = pipe()?;
    let first = splicer(&source, &into)?;
    // From another pipe, with something in it: it waits for nothing but the first pipe's lock.
    let (other_out, other_into) = pipe()?;
    write(&other_into, b"other")?;
    let second = Child::start(|parent: &Parent| {
        splice_some(&other_out, &into, 5)?;
        parent.say(b'd')
    })?;
    let done = is_done(&second, AT_ONCE)?;
    end_wait_for_data(&fifo, first)?;
    second.finish().context("the second splice")?;
    check!(done);
    let mut bytes = [0; 16];
    let count = read(&out, &mut bytes)?;
    check_eq!(bytes.get(..count), Some(&b"otherend"[..]));
    Ok(())
}

/// The pipe's only reader goes while the splice waits for data: EPIPE, and the data stays in the FIFO.
fn reader_gone() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let source = Fifo::open(0)?;
    let (out, into) = pipe()?;
    let splicer = Child::start(|parent: &Parent| {
        // SAFETY: No handler of this process is lost.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        // The parent's is the only one.
        nix::unistd::close(harness::number(&out))?;
        check_eq!(splice_some(&source, &into, CAPACITY), Err(Errno::EPIPE));
        parent.say(b'd')?;
        std::process::exit(0)
    })?;
    eventually("the splice waits", || {
        system::sleeps_in(splicer.pid().as_raw(), libc::SYS_splice)
    })?;
    drop(out);
    fifo.write_all(b"12345678")?;
    check!(is_done(&splicer, SOON)?);
    splicer.finish()?;
    fifo.wait_level(8)?;
    check_eq!(fifo.read(100)?, b"12345678".to_vec());
    Ok(())
}
