// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bad input from a user: memory in which the kernel stops for ever, as many requests as there can be,
//! a signal at every instruction.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use globalfifo_guest_tests::aio::{Context, Event, Iocb};
use globalfifo_guest_tests::bottomless::Bottomless;
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, PATH, pattern};
use globalfifo_guest_tests::harness::{self, SOON, Test, limit};
use globalfifo_guest_tests::mapping::{Mapping, PAGE};
use globalfifo_guest_tests::{check, check_eq, child, system};
use nix::errno::Errno;
use nix::libc::{self, O_NONBLOCK};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

const TESTS: &[Test] = &[
    (
        "a_reader_stopped_for_ever_in_a_page_fault_is_killed_and_loses_no_byte",
        fault_read,
    ),
    (
        "a_writer_stopped_for_ever_in_a_page_fault_is_killed_and_writes_nothing",
        fault_write,
    ),
    (
        "as_many_requests_as_the_system_allows_are_served_and_end_with_their_process",
        all_requests,
    ),
    (
        "an_open_and_a_close_take_no_longer_beside_all_requests_of_another",
        open_beside,
    ),
    (
        "a_signal_at_every_instruction_loses_no_byte_of_calls",
        storm_calls,
    ),
    (
        "a_signal_at_every_instruction_loses_no_byte_of_a_stream",
        storm_stream,
    ),
    (
        "a_signal_at_every_instruction_loses_no_byte_of_requests",
        storm_requests,
    ),
    (
        "a_signal_at_every_instruction_is_no_eintr_of_fsync_and_fifo_clear",
        storm_fsync,
    ),
];

/// Time between two signals, in microseconds: a few system calls.
const PERIOD: i64 = 50;

fn main() -> ExitCode {
    let _ = system::load_module();
    harness::main(TESTS)
}

/// A second is enough for what must happen at once.
fn at_once() -> Duration {
    limit(Duration::from_secs(1))
}

/// Calls `read` or `write` with that memory.
fn call_with(fifo: &Fifo, address: u64, number: i64) -> Result<()> {
    // SAFETY: The kernel checks the address, and nobody else looks at that memory.
    let done = unsafe { libc::syscall(number, fifo.fd(), address, PAGE) };
    bail!("the call came back: {:?}", Errno::result(done))
}

fn fault_read() -> Result<()> {
    // Asked here, as a test is skipped by its own error, not by a child's.
    drop(Bottomless::new(PAGE)?);
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let stuck = child::start(|line| {
        let blocking = Fifo::open(0)?;
        let memory = Bottomless::new(PAGE)?;
        line.say()?;
        call_with(&blocking, memory.address(), libc::SYS_read)
    })?;
    stuck.line.hear()?;
    stuck.asleep_in(libc::SYS_read)?;
    fifo.write_all(b"for whoever is there")?;
    let next = child::start(|line| {
        let blocking = Fifo::open(0)?;
        line.say()?;
        check_eq!(blocking.read(100)?, b"for whoever is there".to_vec());
        Ok(())
    })?;
    next.line.hear()?;
    // Writers and askers do not wait for that reader.
    check_eq!(fifo.write(b"")?, 0);
    check!(fifo.level()? <= 20);
    let took = stuck.kill()?;
    check!(took < at_once());
    next.join()
}

fn fault_write() -> Result<()> {
    // Asked here, as a test is skipped by its own error, not by a child's.
    drop(Bottomless::new(PAGE)?);
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let stuck = child::start(|line| {
        let blocking = Fifo::open(0)?;
        let memory = Bottomless::new(PAGE)?;
        line.say()?;
        call_with(&blocking, memory.address(), libc::SYS_write)
    })?;
    stuck.line.hear()?;
    stuck.asleep_in(libc::SYS_write)?;
    let next = child::start(|_| {
        let blocking = Fifo::open(0)?;
        check_eq!(blocking.write(b"behind it")?, 9);
        Ok(())
    })?;
    let took = stuck.kill()?;
    check!(took < at_once());
    next.join()?;
    fifo.wait_level(9)?;
    check_eq!(fifo.drain()?, b"behind it".to_vec());
    Ok(())
}

/// A child that has as many reads of a byte waiting as the system allows to one user, an ordinary one. It takes two
/// orders: to look whether the first of them has its byte, and to end.
fn hoarder() -> Result<child::Child> {
    use std::os::unix::fs::MetadataExt as _;
    /// Somebody who owns nothing here.
    const USER: u32 = 4321;
    let limit_file = "/proc/sys/fs/aio-max-nr";
    let mut most: u64 = std::fs::read_to_string(limit_file)?.trim().parse()?;
    let enough = 65_536 / u64::from(harness::patience());
    check!(most >= enough);
    if harness::patience() > 1 {
        // A debug kernel takes 100 times as long for a request: minutes for all of them.
        most = enough;
        system::write(limit_file, &most.to_string())?;
    }
    let group = nix::unistd::Gid::from_raw(std::fs::metadata(PATH)?.gid());
    let user = child::start(|line| {
        nix::unistd::setgroups(&[group])?;
        nix::unistd::setgid(nix::unistd::Gid::from_raw(USER))?;
        nix::unistd::setuid(nix::unistd::Uid::from_raw(USER))?;
        let blocking = Fifo::open(0)?;
        let context = Context::new(u32::try_from(most)?)?;
        let memory = Mapping::private(usize::try_from(most)?)?;
        let mut reads: Vec<Iocb> = (0..most)
            .map(|n| Iocb::new(&blocking, 0, memory.address() + n, 1))
            .collect();
        let mut taken = 0;
        while let Some(rest) = reads.get_mut(taken..).filter(|rest| !rest.is_empty()) {
            taken += context.submit_all(rest)?;
        }
        // There is no more for anybody.
        check_eq!(nix_errno(Context::new(1)), Some(Errno::EAGAIN));
        line.say()?;
        line.hear()?;
        // The oldest has the byte, all others go on waiting.
        check_eq!(context.events(1, 2, limit(SOON))?.len(), 1);
        check_eq!(memory.get(0, 2), vec![b'f', 0]);
        line.say()?;
        line.hear()
    })?;
    user.line.hear()?;
    Ok(user)
}

fn nix_errno<T>(result: Result<T>) -> Option<Errno> {
    result.err()?.downcast_ref().copied()
}

fn all_requests() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let user = hoarder()?;
    // Others are not kept from anything.
    let other = Fifo::open(O_NONBLOCK)?;
    check_eq!(other.read(1), Err(Errno::EAGAIN));
    check_eq!(other.level()?, 0);
    check_eq!(nix::unistd::fsync(&other), Ok(()));
    fifo.write_all(b"f")?;
    user.line.say()?;
    user.line.hear()?;
    let took = user.kill()?;
    eprintln!("# all requests ended in {} ms", took.as_millis());
    check!(took < limit(SOON));
    fifo.write_all(b"afterwards")?;
    fifo.wait_level(10)?;
    check_eq!(fifo.drain()?, b"afterwards".to_vec());
    Ok(())
}

/// The shortest of some times that it takes to open and close a file: what else the machine does is not in it.
fn open_and_close() -> Result<Duration> {
    let mut shortest = Duration::MAX;
    for _ in 0..50 {
        let began = Instant::now();
        drop(Fifo::open(O_NONBLOCK)?);
        shortest = shortest.min(began.elapsed());
    }
    Ok(shortest)
}

fn open_beside() -> Result<()> {
    drop(Fifo::open_empty(0)?);
    let alone = open_and_close()?;
    let user = hoarder()?;
    let beside = open_and_close()?;
    user.kill()?;
    eprintln!("# alone {alone:?}, beside {beside:?}");
    check!(beside < 2 * alone);
    Ok(())
}

/// Signals that the handler has seen.
static SIGNALS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_signal(_: i32) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// From here on this process has a signal each [`PERIOD`], with a handler that does not restart calls.
fn begin_storm() -> Result<()> {
    let action = SigAction::new(
        SigHandler::Handler(count_signal),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: The handler counts, and nothing else.
    unsafe { sigaction(Signal::SIGALRM, &action) }?;
    set_timer(PERIOD)
}

fn end_storm() -> Result<()> {
    set_timer(0)
}

fn set_timer(period: i64) -> Result<()> {
    let value = libc::timeval {
        tv_sec: 0,
        tv_usec: period,
    };
    let timer = libc::itimerval {
        it_interval: value,
        it_value: value,
    };
    // SAFETY: A valid structure, and no room for the old one.
    let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
    Errno::result(set).context("setitimer")?;
    Ok(())
}

/// Repeats a call as long as signals end it.
fn again<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

fn write_all(fifo: &Fifo, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let count = again(|| fifo.write(bytes)).context("write")?;
        check!(0 < count && count <= bytes.len());
        bytes = bytes.get(count..).unwrap_or_default();
    }
    Ok(())
}

fn read_exactly(fifo: &Fifo, length: usize) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while all.len() < length {
        let part = again(|| fifo.read(length - all.len())).context("read")?;
        check!(!part.is_empty());
        all.extend(part);
    }
    Ok(all)
}

/// Rounds of a few bytes each, and signals.
const ROUNDS: (u64, u64) = (300, 3000);

/// Goes on until there were enough signals for the test to be one: so many rounds, and so many signals.
fn until_stormy(
    (rounds, many): (u64, u64),
    mut round: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let before = SIGNALS.load(Ordering::Relaxed);
    let mut n = 0;
    loop {
        let signals = SIGNALS.load(Ordering::Relaxed) - before;
        if n >= rounds && signals >= many {
            eprintln!("# {n} rounds, {signals} signals");
            return Ok(());
        }
        round(n)?;
        n += 1;
    }
}

fn storm_calls() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    begin_storm()?;
    until_stormy(ROUNDS, |n| {
        let sent = pattern(n + 1, usize::try_from(n * 37 % 4096)? + 1);
        write_all(&fifo, &sent)?;
        again(|| nix::unistd::fsync(&fifo)).context("fsync")?;
        check!(fifo.level()? <= sent.len());
        check!(read_exactly(&fifo, sent.len())? == sent);
        Ok(())
    })?;
    end_storm()
}

fn storm_stream() -> Result<()> {
    const LENGTH: usize = 300_000;
    let fifo = Fifo::open_empty(0)?;
    until_stormy((1, 1000), |n| {
        let writer = child::start(|_| {
            begin_storm()?;
            let sent = pattern(n, LENGTH);
            // Larger than the FIFO at times, so that both sides wait, and are woken by signals.
            let mut sizes = (1..=3 * CAPACITY).step_by(1013).cycle();
            let mut rest = sent.as_slice();
            while let Some(size) = sizes.next().filter(|_| !rest.is_empty()) {
                let (now, later) = rest.split_at(size.min(rest.len()));
                write_all(&fifo, now)?;
                rest = later;
            }
            end_storm()
        })?;
        begin_storm()?;
        let got = read_exactly(&fifo, LENGTH)?;
        end_storm()?;
        check!(got == pattern(n, LENGTH));
        writer.join()
    })
}

/// The next event, however often the wait for it is interrupted.
fn event(context: &Context) -> Result<Event> {
    loop {
        match context.events(1, 1, limit(SOON)) {
            Ok(events) => return events.first().copied().context("no event came"),
            Err(error) if error.downcast_ref() == Some(&Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

fn storm_requests() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(8)?;
    begin_storm()?;
    until_stormy(ROUNDS, |n| {
        let sent = pattern(n + 1, usize::try_from(n * 37 % 4096)? + 1);
        let mut room = vec![0; CAPACITY];
        let mut read = Iocb::read(&fifo, &mut room).data(1);
        let mut write = Iocb::write(&fifo, &sent).data(2);
        // Every other read is there before its data.
        let order = if n % 2 == 0 {
            [&mut read, &mut write]
        } else {
            [&mut write, &mut read]
        };
        for request in order {
            again(|| context.submit(request)).context("io_submit")?;
        }
        let events = [event(&context)?, event(&context)?];
        let result = |data| events.iter().find(|event| event.data == data);
        let written = result(2).context("no event of the write")?.res;
        check_eq!(written, i64::try_from(sent.len())?);
        // As calls, requests end with what is there.
        let read = result(1).context("no event of the read")?.res;
        check!((1..=written).contains(&read));
        let mut got = room
            .get(..usize::try_from(read)?)
            .unwrap_or_default()
            .to_vec();
        got.extend(read_exactly(&fifo, sent.len() - got.len())?);
        check!(got == sent);
        Ok(())
    })?;
    end_storm()
}

fn storm_fsync() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    begin_storm()?;
    let mut interrupted = (0, 0);
    until_stormy(ROUNDS, |n| {
        let sent = pattern(n + 1, 100);
        write_all(&fifo, &sent)?;
        match nix::unistd::fsync(&fifo) {
            Err(Errno::EINTR) => interrupted.0 += 1,
            other => other.context("fsync")?,
        }
        match fifo.clear() {
            Err(Errno::EINTR) => interrupted.1 += 1,
            other => other.context("FIFO_CLEAR")?,
        }
        Ok(())
    })?;
    end_storm()?;
    // So many calls of fsync, and of FIFO_CLEAR.
    check_eq!(interrupted, (0, 0));
    Ok(())
}
