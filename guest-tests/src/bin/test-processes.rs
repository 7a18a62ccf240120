// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Processes of every kind at a FIFO: ordinary users, namespaces, exec, threads that end, processes
//! that are stopped or traced.

use std::ffi::CString;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use globalfifo_guest_tests::aio::{Context, Iocb};
use globalfifo_guest_tests::child::{self, Child};
use globalfifo_guest_tests::fifo::{Fifo, PATH, pattern};
use globalfifo_guest_tests::harness::{self, SOON, Skip, Test, eventually, limit};
use globalfifo_guest_tests::signals::{self, POLL_IN};
use globalfifo_guest_tests::uring::{self, Ring};
use globalfifo_guest_tests::{check, check_eq, posix_aio, system};
use nix::errno::Errno;
use nix::libc::{self, O_NONBLOCK};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Uid, execv, setgid, setgroups, setuid};

const TESTS: &[Test] = &[
    (
        "a_member_of_the_group_reads_writes_clears_and_submits",
        member,
    ),
    ("a_user_outside_the_group_is_eacces", stranger),
    (
        "a_process_in_a_pid_namespace_is_signalled_and_its_requests_end_with_it",
        namespace,
    ),
    (
        "exec_with_a_thousand_waiting_reads_ends_them_and_takes_no_byte",
        exec,
    ),
    (
        "requests_of_a_thread_that_has_ended_are_completed",
        thread_ended,
    ),
    (
        "io_uring_reads_of_a_thread_that_has_ended_take_no_byte",
        uring_thread_ended,
    ),
    (
        "a_stopped_process_has_its_request_completed_by_the_interrupt",
        stopped_request,
    ),
    (
        "a_stopped_reader_goes_on_when_it_is_continued",
        stopped_read,
    ),
    ("a_traced_reader_goes_on_after_each_interruption", traced),
    (
        "a_traced_writer_goes_on_after_each_interruption",
        traced_writer,
    ),
    (
        "readers_of_every_kind_share_as_many_records_as_they_are",
        beside,
    ),
];

/// Ordinary user and group ids that own nothing here.
const USER: u32 = 4321;

fn main() -> ExitCode {
    let _ = system::load_module();
    harness::main(TESTS)
}

/// A second is enough for what must happen at once.
fn at_once() -> Duration {
    limit(Duration::from_secs(1))
}

fn node_group() -> Result<Gid> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(Gid::from_raw(std::fs::metadata(PATH)?.gid()))
}

fn become_user(groups: &[Gid]) -> Result<()> {
    setgroups(groups)?;
    setgid(Gid::from_raw(USER))?;
    setuid(Uid::from_raw(USER))?;
    // The kernel has forgotten it with the change of users.
    // SAFETY: The command takes a number.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    Ok(())
}

fn member() -> Result<()> {
    let group = node_group()?;
    let user = child::start(|_| {
        become_user(&[group])?;
        let fifo = Fifo::open_empty(0)?;
        fifo.write_all(b"mine")?;
        check_eq!(fifo.read_exact(4)?, b"mine".to_vec());
        nix::unistd::fsync(&fifo)?;
        let context = Context::new(8)?;
        let mut room = [0; 8];
        context.submit(&mut Iocb::read(&fifo, &mut room))?;
        fifo.write_all(b"request")?;
        check_eq!(context.event()?.res, 7);
        check_eq!(&room, b"request\0");
        signals::block_sigio()?;
        fifo.enable_signals(None)?;
        fifo.write_all(b"x")?;
        check!(signals::take(libc::SIGIO, limit(SOON))?.is_some());
        Ok(())
    })?;
    user.join()
}

fn stranger() -> Result<()> {
    let user = child::start(|_| {
        become_user(&[])?;
        let denied = std::fs::File::open(PATH).map_err(|error| error.raw_os_error());
        check_eq!(denied.err(), Some(Some(libc::EACCES)));
        Ok(())
    })?;
    user.join()
}

fn namespace() -> Result<()> {
    if !std::fs::exists("/proc/self/ns/pid")? {
        return Err(Skip("needs namespaces of process ids (CONFIG_PID_NS)").into());
    }
    drop(Fifo::open_empty(0)?);
    let outer = child::start(|line| {
        unshare(CloneFlags::CLONE_NEWPID)?;
        let inner = child::start(|inner| {
            check_eq!(std::process::id(), 1);
            let signal = libc::SIGRTMIN() + 6;
            signals::block(signal)?;
            let fifo = Fifo::open(0)?;
            fifo.enable_signals(Some(signal))?;
            let context = Context::new(8)?;
            let mut room = [0; 8];
            context.submit(&mut Iocb::read(&fifo, &mut room))?;
            inner.say()?;
            let got = signals::take(signal, limit(SOON))?;
            check_eq!(got.map(|got| got.code), Some(POLL_IN));
            check_eq!(context.event()?.res, 5);
            // One that is still waiting at the end of the namespace.
            context.submit(&mut Iocb::read(&fifo, &mut room))?;
            inner.say()?;
            inner.hear()
        })?;
        inner.line.hear()?;
        line.say()?;
        inner.line.hear()?;
        let took = inner.kill()?;
        check!(took < at_once());
        Ok(())
    })?;
    outer.line.hear()?;
    let fifo = Fifo::open(O_NONBLOCK)?;
    fifo.write_all(b"outer")?;
    outer.join()?;
    fifo.write_all(b"rest")?;
    fifo.wait_level(4)?;
    check_eq!(fifo.drain()?, b"rest".to_vec());
    Ok(())
}

/// Submits `count` reads that wait. What they write to must be kept by the caller.
fn wait_with(fifo: &Fifo, context: &Context, rooms: &mut [[u8; 8]]) -> Result<()> {
    let count = rooms.len();
    let mut reads: Vec<Iocb> = rooms
        .iter_mut()
        .map(|room| Iocb::read(fifo, room))
        .collect();
    check_eq!(context.submit_all(&mut reads), Ok(count));
    Ok(())
}

fn exec() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let executed = child::start(|line| {
        // Kept open by the new program: only the memory of the requests is gone.
        let blocking = Fifo::open(0)?;
        nix::fcntl::fcntl(
            &blocking,
            nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
        )?;
        let context = Context::new(1024)?;
        let mut rooms = vec![[0u8; 8]; 1000];
        wait_with(&blocking, &context, &mut rooms)?;
        line.say()?;
        let words = ["sh", "-c", "kill -STOP $$"].map(CString::new);
        let words = words.into_iter().collect::<Result<Vec<_>, _>>()?;
        execv(c"/bin/sh", &words)?;
        Ok(())
    })?;
    executed.line.hear()?;
    // The new program stops itself: the requests of the old one are over before it begins.
    wait_state(&executed, 'T')?;
    fifo.write_all(b"to nobody but us")?;
    fifo.wait_level(16)?;
    check_eq!(fifo.drain()?, b"to nobody but us".to_vec());
    let took = executed.kill()?;
    check!(took < at_once());
    Ok(())
}

fn thread_ended() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(32)?;
    let mut rooms = vec![[0u8; 8]; 12];
    thread::scope(|scope| {
        let submitter = scope.spawn(|| wait_with(&fifo, &context, &mut rooms));
        submitter.join().map_err(|_| anyhow::anyhow!("panic"))?
    })?;
    for n in 0..12u64 {
        fifo.write_all(&n.to_le_bytes())?;
        check_eq!(context.event()?.res, 8);
    }
    let got: Vec<u64> = rooms.iter().map(|room| u64::from_le_bytes(*room)).collect();
    check_eq!(got, (0..12).collect::<Vec<_>>());
    Ok(())
}

fn uring_thread_ended() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let mut room = [0; 8];
    let mut ring = Ring::new()?;
    thread::scope(|scope| {
        let submitter = scope.spawn(|| ring.submit(uring::read(&fifo, &mut room), 1));
        submitter.join().map_err(|_| anyhow::anyhow!("panic"))?
    })?;
    fifo.write_all(b"kept")?;
    // With nobody to run the request io_uring may give it up instead.
    let ended = ring.completion()?;
    check_eq!(ended.data, 1);
    if ended.res == 4 {
        check_eq!(&room, b"kept\0\0\0\0");
    } else {
        check!(matches!(-ended.res, libc::ECANCELED | libc::EFAULT));
        check_eq!(fifo.read_exact(4)?, b"kept".to_vec());
    }
    Ok(())
}

/// Waits until the child is in the state that `/proc/PID/stat` calls so.
fn wait_state(child: &Child, state: char) -> Result<()> {
    let path = format!("/proc/{}/stat", child.pid);
    eventually(&format!("the child is in state {state}"), || {
        let text = std::fs::read_to_string(&path)?;
        let rest = text.rsplit_once(") ").map(|(_, rest)| rest);
        Ok(rest.is_some_and(|rest| rest.starts_with(state)))
    })
}

fn stop(child: &Child) -> Result<()> {
    child.signal(Signal::SIGSTOP)?;
    wait_state(child, 'T')
}

fn stopped_request() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let before = system::counter(0, "aio_by_interrupt")?;
    let reader = child::start(|line| {
        let blocking = Fifo::open(0)?;
        let context = Context::new(32)?;
        let mut rooms = vec![[0u8; 8]; 12];
        wait_with(&blocking, &context, &mut rooms)?;
        line.say()?;
        line.hear()?;
        check_eq!(context.results(1)?.len(), 1);
        check_eq!(context.events(11, 11, limit(SOON))?.len(), 11);
        check!(rooms.iter().all(|room| room == b"stopped!"));
        Ok(())
    })?;
    reader.line.hear()?;
    stop(&reader)?;
    for done in 1..=12 {
        fifo.write_all(b"stopped!")?;
        eventually("the request of the stopped process is completed", || {
            Ok(system::counter(0, "aio_by_interrupt")? == before + done)
        })?;
    }
    check_eq!(fifo.read(1), Err(Errno::EAGAIN));
    reader.signal(Signal::SIGCONT)?;
    reader.line.say()?;
    reader.join()
}

/// A child that reads `length` bytes in one call, asleep in it.
fn blocked_reader(length: usize, expected: Vec<u8>) -> Result<Child> {
    let reader = child::start(move |_| {
        let fifo = Fifo::open(0)?;
        check_eq!(fifo.read(length)?, expected);
        Ok(())
    })?;
    reader.asleep_in(libc::SYS_read)?;
    Ok(reader)
}

fn stopped_read() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let reader = blocked_reader(8, b"second".to_vec())?;
    stop(&reader)?;
    // The stopped one takes nothing: these bytes are for whoever reads now.
    fifo.write_all(b"first")?;
    fifo.wait_level(5)?;
    check_eq!(fifo.drain()?, b"first".to_vec());
    reader.signal(Signal::SIGCONT)?;
    reader.asleep_in(libc::SYS_read)?;
    fifo.write_all(b"second")?;
    reader.join()
}

/// `ptrace(2)` of requests whose arguments are numbers.
fn ptrace(request: libc::c_uint, child: &Child) -> Result<()> {
    // SAFETY: These requests take no addresses.
    let done = unsafe { libc::ptrace(request, child.pid.as_raw(), 0_usize, 0_usize) };
    Errno::result(done).context("ptrace")?;
    Ok(())
}

/// Interrupts the child, which is asleep in `call`, again and again, and lets it go on.
fn interrupt_often(child: &Child, call: i64) -> Result<()> {
    ptrace(libc::PTRACE_SEIZE, child)?;
    for _ in 0..20 {
        child.asleep_in(call)?;
        ptrace(libc::PTRACE_INTERRUPT, child)?;
        match waitpid(child.pid, Some(WaitPidFlag::__WALL))? {
            WaitStatus::PtraceEvent(..) => {}
            other => bail!("the traced child is so: {other:?}"),
        }
        ptrace(libc::PTRACE_CONT, child)?;
    }
    child.asleep_in(call)?;
    ptrace(libc::PTRACE_INTERRUPT, child)?;
    waitpid(child.pid, Some(WaitPidFlag::__WALL))?;
    ptrace(libc::PTRACE_DETACH, child)
}

fn traced() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let reader = blocked_reader(8, b"traced".to_vec())?;
    interrupt_often(&reader, libc::SYS_read)?;
    fifo.write_all(b"traced")?;
    reader.join()
}

fn traced_writer() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let full = fifo.fill()?;
    fifo.wait_level(full)?;
    let writer = child::start(|_| {
        let blocking = Fifo::open(0)?;
        check_eq!(blocking.write(b"traced")?, 6);
        Ok(())
    })?;
    interrupt_often(&writer, libc::SYS_write)?;
    check_eq!(fifo.read(full)?.len(), full);
    writer.join()?;
    fifo.wait_level(6)?;
    check_eq!(fifo.drain()?, b"traced".to_vec());
    Ok(())
}

/// A way of reading a record of eight bytes.
type Way = fn(&Fifo) -> Result<Vec<u8>>;

fn beside() -> Result<()> {
    const ROUNDS: u64 = 40;
    let ways: [Way; 5] = [by_call, by_aio, by_uring, by_posix_aio, by_poll];
    let fifo = Fifo::open_empty(0)?;
    for round in 0..ROUNDS {
        // As many records as readers, each of which takes one: whoever is passed over waits for ever.
        let mut sent: Vec<_> = (0..5).map(|n| pattern(5 * round + n + 1, 8)).collect();
        let mut got = thread::scope(|scope| {
            let readers = ways.map(|read| scope.spawn(move || read(&Fifo::open(0)?)));
            for record in &sent {
                fifo.write_all(record)?;
            }
            let join = |reader: thread::ScopedJoinHandle<'_, _>| {
                reader.join().map_err(|_| anyhow::anyhow!("panic"))?
            };
            readers
                .into_iter()
                .map(join)
                .collect::<Result<Vec<Vec<u8>>>>()
        })?;
        got.sort();
        sent.sort();
        check_eq!(got, sent);
    }
    Ok(())
}

fn by_call(fifo: &Fifo) -> Result<Vec<u8>> {
    Ok(fifo.read(8)?)
}

fn by_aio(fifo: &Fifo) -> Result<Vec<u8>> {
    let context = Context::new(4)?;
    let mut room = [0; 8];
    context.submit(&mut Iocb::read(fifo, &mut room))?;
    check_eq!(context.event()?.res, 8);
    Ok(room.to_vec())
}

fn by_uring(fifo: &Fifo) -> Result<Vec<u8>> {
    let mut ring = Ring::new()?;
    let mut room = [0; 8];
    ring.submit(uring::read(fifo, &mut room), 1)?;
    check_eq!(ring.completion()?.res, 8);
    Ok(room.to_vec())
}

fn by_posix_aio(fifo: &Fifo) -> Result<Vec<u8>> {
    let mut read = posix_aio::Control::reader(fifo, 8);
    read.read()?;
    eventually("the request is done", || {
        Ok(read.state() != Err(Errno::EINPROGRESS))
    })?;
    check_eq!(read.result(), Ok(8));
    Ok(read.bytes().to_vec())
}

fn by_poll(fifo: &Fifo) -> Result<Vec<u8>> {
    let own = Fifo::open(O_NONBLOCK)?;
    loop {
        fifo.poll_for(nix::poll::PollFlags::POLLIN, 1000u16.into())?;
        match own.read(8) {
            Err(Errno::EAGAIN) => {}
            other => return Ok(other?),
        }
    }
}
